//! Flink types among the tokens: where a type ends, and what it is.

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span as TokenSpan, Token};

use super::dialect::{is_word, reserved, reserved_word, word};
use super::lex;
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// Takes a type, without the NOT NULL behind it.
///
/// # Errors
/// User: no type, or one that does not exist.
pub(super) fn take(p: &mut Parser) -> Result<(SqlType, TokenSpan)> {
    let first = p.next_token();
    let mut end = first.span;
    let Some(name) = word(&first.token) else {
        return Err(Error::user(format!("expected a type, found '{}'", first.token))
            .at(lex::span(first.span))
            .help("write, say, STRING, BIGINT or TIMESTAMP(3)"));
    };
    let mut text = name.clone();
    let next = |p: &Parser, w: &str| is_word(&p.peek_token_ref().token, w);
    if name == "DOUBLE" && next(p, "PRECISION") {
        end = p.next_token().span;
    }
    if matches!(p.peek_token_ref().token, Token::LParen | Token::Lt) {
        let row = name == "ROW";
        end = balanced(p, &mut text, row)?;
    }
    // `WITH` may also be the WITH of CREATE TABLE, which a parenthesis follows.
    let zone = next(p, "WITH") && ["LOCAL", "TIME"].iter().any(|w| is_word(&p.peek_nth_token_ref(1).token, w));
    if zone || next(p, "WITHOUT") {
        while ["WITH", "WITHOUT", "LOCAL", "TIME", "ZONE"].iter().any(|w| next(p, w)) {
            let token = p.next_token();
            text.push(' ');
            text.push_str(&token.token.to_string());
            end = token.span;
        }
    }
    for suffix in ["ARRAY", "MULTISET"] {
        if next(p, suffix) {
            return Err(Error::user(format!("'type {suffix}' is not yet supported"))
                .at(lex::span(p.peek_token_ref().span))
                .help("write ARRAY<type>"));
        }
    }
    let at = first.span.union(&end);
    if matches!(name.as_str(), "MULTISET" | "VARIANT" | "RAW" | "BITMAP") {
        return Err(Error::user(format!("the type {name} is not yet supported")).at(lex::span(at)));
    }
    match SqlType::parse(&text) {
        Ok(t) => Ok((t, at)),
        Err(e) => Err(e.at(lex::span(at))),
    }
}

/// Takes what stands in `(…)` or `<…>`; field names of a ROW are checked on the way.
fn balanced(p: &mut Parser, text: &mut String, row: bool) -> Result<TokenSpan> {
    let mut depth = vec![];
    let mut name_may_follow = false;
    loop {
        let token = p.next_token();
        match &token.token {
            Token::EOF | Token::SemiColon => {
                let e = Error::user("the parenthesis or < of a type is not closed").at(lex::span(token.span));
                return Err(e);
            }
            Token::Neq => text.push_str("<>"),
            Token::Word(w) if w.quote_style.is_some() => {
                text.push_str(&format!(" `{}`", w.value.replace('`', "``")));
            }
            Token::SingleQuotedString(_) => {
                return Err(Error::user("a comment on a field of a ROW is not yet supported").at(lex::span(token.span)));
            }
            other => {
                if name_may_follow && reserved_word(other).is_some() {
                    return Err(reserved(&token));
                }
                text.push(' ');
                text.push_str(&other.to_string());
            }
        }
        // A ROW's parenthesis holds names first; that of `DECIMAL(` does not.
        name_may_follow = match token.token {
            Token::LParen | Token::Lt => {
                let of_row =
                    if depth.is_empty() { row } else { text.trim_end_matches(['(', '<', ' ']).to_ascii_uppercase().ends_with("ROW") };
                depth.push(of_row);
                of_row
            }
            Token::Comma => depth.last().copied().unwrap_or(false),
            Token::RParen | Token::Gt => {
                depth.pop();
                if depth.is_empty() {
                    return Ok(token.span);
                }
                false
            }
            _ => false,
        };
    }
}
