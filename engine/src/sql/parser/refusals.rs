//! What was expected and what was found: the errors of statements, with a guess at what was meant.

use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::dialect::{found, is_word, reserved_word, word};
use super::lex;
use super::statements::{STARTS, Statements};
use crate::error::{Error, nearest};

/// Words that join the parts of a query, for "did you mean".
const JOINTS: &[&str] = &[
    "FROM",
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "LIMIT",
    "UNION",
    "JOIN",
    "LEFT",
    "INNER",
    "CROSS",
    "USING",
    "BETWEEN",
    "LIKE",
    "FILTER",
    "VALUES",
    "SELECT",
    "WATERMARK",
    "COMMENT",
    "PARTITIONED",
    "PRIMARY",
    "CONSTRAINT",
    "ENFORCED",
    "METADATA",
    "VIRTUAL",
    "INTERVAL",
];

impl Statements<'_> {
    /// Something that a later version has, from the token before the next.
    pub(super) fn later(&self, what: &str) -> Error {
        let more = word(&self.peek().token).filter(|w| !what.ends_with(w.as_str())).map_or(String::new(), |w| format!(" {w}"));
        let at = if self.ends() { self.last() } else { self.peek().span };
        Error::user(format!("{what}{more} is not yet supported")).at(lex::span(at))
    }

    pub(super) fn expected(&self, what: &str) -> Error {
        self.unexpected(self.p.index(), &format!("expected {what}, "), None)
    }

    pub(super) fn expected_help(&self, what: &str, help: &str) -> Error {
        self.unexpected(self.p.index(), &format!("expected {what}, "), Some(help))
    }

    /// An error of sqlparser's, or the one behind it that lies farther on.
    pub(super) fn error(&self, e: ParserError) -> Error {
        let message = match e {
            ParserError::RecursionLimitExceeded => {
                return Error::user("the statement is nested too deeply").at(lex::span(self.peek().span)).help("split it with views");
            }
            ParserError::TokenizerError(m) | ParserError::ParserError(m) => m,
        };
        let (message, place) = match message.rsplit_once(" at Line: ") {
            Some((m, place)) => (m.to_string(), place.split_once(", Column: ").and_then(|(l, c)| Some((l.parse().ok()?, c.parse().ok()?)))),
            None => (message, None),
        };
        let place: Option<(u64, u64)> = place;
        let index = place.map_or_else(|| self.end_index(), |at| self.index_of(at));
        let reached = self.dialect.reached();
        if let Some(noted) = self.dialect.take(index.min(reached)) {
            return noted;
        }
        if reached > index {
            return self.unexpected(reached, "", None);
        }
        let text = match message.strip_prefix("Expected: ").and_then(|m| m.split_once(", found: ")) {
            Some((what, _)) => format!("expected {what}, "),
            None => return Error::user(message).at(lex::span(self.p.token_at(index).span)),
        };
        self.unexpected(index, &text, None)
    }

    fn index_of(&self, (line, column): (u64, u64)) -> usize {
        let mut i = 0;
        loop {
            let t = self.p.token_at(i);
            let start = t.span.start;
            if t.token == Token::EOF || (start.line, start.column) >= (line, column) {
                return i;
            }
            i += 1;
        }
    }

    fn end_index(&self) -> usize {
        let mut i = 0;
        while self.p.token_at(i).token != Token::EOF {
            i += 1;
        }
        i
    }

    /// "… found 'x'", with what may have been meant.
    fn unexpected(&self, index: usize, lead: &str, help: Option<&str>) -> Error {
        let index = index.min(self.end_index());
        let t = self.p.token_at(index);
        let before = (index > 0).then(|| self.p.token_at(index - 1));
        let found = found(&t.token);
        let message = if lead.is_empty() { format!("did not expect {found} here") } else { format!("{lead}found {found}") };
        let e = Error::user(message).at(lex::span(t.span));
        if is_word(&t.token, "SYSTEM_TIME") {
            return Error::user("FOR SYSTEM_TIME AS OF stands between the table and its alias")
                .at(lex::span(t.span))
                .help("write t FOR SYSTEM_TIME AS OF s.ts AS a");
        }
        if let Some(help) = help {
            return e.help(help);
        }
        // `FORM t`: the misspelled word was taken for an alias, so the one before is looked at, too.
        let near = |t: &TokenWithSpan| {
            let w = word(&t.token).filter(|w| w.len() > 2 && reserved_word(&t.token).is_none())?;
            nearest(&w, JOINTS.iter().copied()).map(|n| format!("did you mean {n} instead of {w}?"))
        };
        if let Some(help) = near(t).or_else(|| before.and_then(near)) {
            return e.help(help);
        }
        if t.token == Token::Comma && index > 1 && is_word(&self.p.token_at(index - 2).token, "LIMIT") {
            return e.help("write LIMIT count OFFSET start");
        }
        match (reserved_word(&t.token), &t.token) {
            (Some(w), _)
                if !JOINTS.contains(&w.to_ascii_uppercase().as_str())
                    && !matches!(w.to_ascii_uppercase().as_str(), "AND" | "OR" | "ON" | "AS" | "BY" | "SET" | "END") =>
            {
                e.help(format!("{} is a reserved word; to use it as a name, write it in back-ticks: `{w}`", w.to_ascii_uppercase()))
            }
            (_, Token::Comma | Token::RParen) if before.is_some_and(|b| b.token == Token::Comma) => e.help("remove the comma before it"),
            (_, Token::Word(_)) if index > 0 && STARTS.iter().any(|s| is_word(&t.token, s)) => e.help("a statement ends with ;"),
            _ => e,
        }
    }
}
