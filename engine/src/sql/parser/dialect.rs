//! The dialect as sqlparser's hooks see it: flags, and the forms of expressions that only Flink has.
//!
//! sqlparser tries alternatives and forgets why one failed. So the hooks keep the error that lies
//! farthest in the text ([`FlinkDialect::note`]) and how far the parser came ([`FlinkDialect::reached`]);
//! both are asked for only when the whole statement cannot be read.

use std::cell::{Cell, RefCell};

use datafusion::sql::sqlparser::ast::{Expr, Map, MapEntry};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::keywords::is_reserved;
use super::{forms, lex};
use crate::error::{Error, Span};

/// Flink's dialect.
#[derive(Debug, Default)]
pub(super) struct FlinkDialect {
    farthest: RefCell<Option<(usize, Error)>>,
    reached: Cell<usize>,
}

impl FlinkDialect {
    /// Keeps an error about the token `index`, unless one farther on is known.
    pub(super) fn note(&self, index: usize, error: Error) {
        let mut farthest = self.farthest.borrow_mut();
        if farthest.as_ref().is_none_or(|(i, _)| *i < index) {
            *farthest = Some((index, error));
        }
    }

    /// Keeps an error, and gives what sqlparser wants to see of it.
    pub(super) fn fail(&self, index: usize, error: Error) -> ParserError {
        let text = error.message().to_string();
        self.note(index, error);
        ParserError::ParserError(text)
    }

    /// The error kept, where it lies at `index` or behind.
    pub(super) fn take(&self, index: usize) -> Option<Error> {
        self.farthest.borrow_mut().take().filter(|(i, _)| *i >= index).map(|(_, e)| e)
    }

    /// The farthest token that was looked at.
    pub(super) fn reached(&self) -> usize {
        self.reached.get()
    }

    fn reach(&self, index: usize) {
        self.reached.set(self.reached.get().max(index));
    }

    /// Whether the word just taken may be an alias.
    fn alias(&self, explicit: bool, parser: &Parser) -> bool {
        let index = parser.index().saturating_sub(1);
        self.reach(index);
        let token = parser.token_at(index);
        if reserved_word(&token.token).is_none() {
            return true;
        }
        if explicit {
            self.note(index, reserved(token));
        }
        false
    }
}

/// The reserved word that stands here bare.
pub(super) fn reserved_word(token: &Token) -> Option<&str> {
    match token {
        Token::Word(w) if w.quote_style.is_none() && is_reserved(&w.value) => Some(&w.value),
        _ => None,
    }
}

/// A token as a message names it.
pub(super) fn found(token: &Token) -> String {
    match token {
        Token::EOF => "the end of the text".to_string(),
        other => format!("'{other}'"),
    }
}

/// The word that stands here bare, in capitals.
pub(super) fn word(token: &Token) -> Option<String> {
    match token {
        Token::Word(w) if w.quote_style.is_none() => Some(w.value.to_ascii_uppercase()),
        _ => None,
    }
}

/// Whether `word` stands here bare.
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// The error about a reserved word in the place of a name.
pub(super) fn reserved(token: &TokenWithSpan) -> Error {
    reserved_at(&token.token.to_string(), lex::span(token.span))
}

/// The error about a reserved word in the place of a name.
pub(super) fn reserved_at(word: &str, at: Span) -> Error {
    Error::user(format!("{} is a reserved word", word.to_ascii_uppercase()))
        .at(at)
        .help(format!("to use it as a name, write it in back-ticks: `{word}`"))
}

/// Reserved words that start or join clauses and never an expression, although a parenthesis may follow.
const CLAUSES: &[&str] = &[
    "ALL",
    "AND",
    "AS",
    "BETWEEN",
    "BY",
    "CREATE",
    "CROSS",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "FETCH",
    "FOR",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "JOIN",
    "LIKE",
    "LIMIT",
    "NATURAL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "SELECT",
    "SET",
    "THEN",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// Reserved words that are expressions, or start one, without a parenthesis behind them.
const EXPRESSIONS: &[&str] =
    &["CASE", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "EXISTS", "FALSE", "LOCALTIME", "LOCALTIMESTAMP", "NOT", "NULL", "TRUE"];

impl Dialect for FlinkDialect {
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '`'
    }

    fn identifier_quote_style(&self, _identifier: &str) -> Option<char> {
        Some('`')
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_' || ch == '$'
    }

    fn supports_unicode_string_literal(&self) -> bool {
        true
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_rarrow_operator(&self) -> bool {
        true
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn supports_window_clause_named_window_reference(&self) -> bool {
        true
    }

    fn supports_boolean_literals(&self) -> bool {
        true
    }

    fn supports_left_associative_joins_without_parens(&self) -> bool {
        true
    }

    fn is_reserved_for_identifier(&self, kw: Keyword) -> bool {
        is_reserved(&format!("{kw:?}"))
    }

    fn is_column_alias(&self, _kw: &Keyword, parser: &mut Parser) -> bool {
        self.alias(false, parser)
    }

    fn is_select_item_alias(&self, explicit: bool, _kw: &Keyword, parser: &mut Parser) -> bool {
        self.alias(explicit, parser)
    }

    fn is_table_factor_alias(&self, explicit: bool, _kw: &Keyword, parser: &mut Parser) -> bool {
        self.alias(explicit, parser)
    }

    fn is_table_alias(&self, _kw: &Keyword, parser: &mut Parser) -> bool {
        self.alias(false, parser)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        self.reach(parser.index());
        None
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        self.reach(parser.index());
        self.prefix(parser).transpose()
    }

    fn parse_infix(&self, parser: &mut Parser, _expr: &Expr, _precedence: u8) -> Option<Result<Expr, ParserError>> {
        let at = parser.peek_token_ref();
        let first = word(&at.token)?;
        let two = matches!(first.as_str(), "NOT" | "IS" | "BETWEEN");
        let second = word(&parser.peek_nth_token_ref(1).token).unwrap_or_default();
        let third = word(&parser.peek_nth_token_ref(2).token).unwrap_or_default();
        let operator = if first == "NOT" { second.as_str() } else { first.as_str() };
        let (message, help) = match operator {
            "ILIKE" => ("ILIKE does not exist in this dialect", "write LOWER(text) LIKE LOWER(pattern)"),
            "RLIKE" | "REGEXP" => ("this operator does not exist in this dialect", "write the function REGEXP(text, pattern)"),
            "DIV" => ("DIV does not exist in this dialect", "write /: between integers it gives an integer"),
            "XOR" => ("XOR does not exist in this dialect", "write <> between the two conditions"),
            "AT" if second == "TIME" => (
                "AT TIME ZONE does not exist in this dialect",
                "CAST(value AS TIMESTAMP_LTZ(3)), and SET 'table.local-time-zone' for the zone",
            ),
            "IS" if second == "JSON" || second == "NOT" && third == "JSON" => {
                ("IS JSON is not yet supported", "leave it out, or filter by a field of the JSON")
            }
            "BETWEEN" if matches!(second.as_str(), "SYMMETRIC" | "ASYMMETRIC") => {
                ("BETWEEN SYMMETRIC is not yet supported", "write both orders: x BETWEEN a AND b OR x BETWEEN b AND a")
            }
            "SIMILAR" => ("SIMILAR TO is not yet supported", "use LIKE, or the function REGEXP_EXTRACT"),
            "MEMBER" => ("MEMBER OF is not yet supported", "use ARRAY_CONTAINS"),
            "OVERLAPS" => ("OVERLAPS is not yet supported", "compare the starts and ends"),
            _ => return None,
        };
        let wide = if two { parser.peek_nth_token_ref(1).span } else { at.span };
        let at = at.span.union(&wide);
        Some(Err(self.fail(parser.index(), Error::user(message).at(lex::span(at)).help(help))))
    }
}

impl FlinkDialect {
    /// The forms that start with a word of Flink's; `None`: sqlparser reads on.
    fn prefix(&self, parser: &mut Parser) -> Result<Option<Expr>, ParserError> {
        let first = parser.peek_token_ref();
        let next = &parser.peek_nth_token_ref(1).token;
        let Some(name) = word(&first.token) else {
            let starts = matches!(
                first.token,
                Token::Word(_)
                    | Token::Number(..)
                    | Token::SingleQuotedString(_)
                    | Token::HexStringLiteral(_)
                    | Token::LParen
                    | Token::Minus
                    | Token::Plus
            );
            if first.token == Token::LBracket {
                let e = Error::user("an array needs the word ARRAY").at(lex::span(first.span)).help("write ARRAY[…]");
                return Err(self.fail(parser.index(), e));
            }
            if !starts {
                let found = found(&first.token);
                self.note(parser.index(), Error::user(format!("expected an expression, found {found}")).at(lex::span(first.span)));
            }
            return Ok(None);
        };
        let (paren, text) = (*next == Token::LParen, matches!(next, Token::SingleQuotedString(_)));
        match name.as_str() {
            "CAST" | "TRY_CAST" if paren => forms::cast(self, parser).map(Some),
            "FLOOR" | "CEIL" | "CEILING" if paren => forms::floor(self, parser, &name).map(Some),
            "EXTRACT" if paren => forms::extract(self, parser).map(Some),
            "YEAR" | "QUARTER" | "MONTH" | "WEEK" | "DAYOFYEAR" | "DAYOFMONTH" | "DAYOFWEEK" | "HOUR" | "MINUTE" | "SECOND" if paren => {
                forms::part(parser, &name).map(Some)
            }
            "TIMESTAMPDIFF" | "TIMESTAMPADD" if paren => forms::timestamp_arithmetic(self, parser, &name).map(Some),
            "SUBSTRING" | "SUBSTR" | "POSITION" | "OVERLAY" if paren => forms::text_call(parser, &name).map(Some),
            "DATE" | "TIME" | "TIMESTAMP" if text => forms::time_literal(self, parser, &name).map(Some),
            "INTERVAL" => forms::interval(self, parser).map(Some),
            "MAP" if *next == Token::LBracket => {
                parser.advance_token();
                parser.advance_token();
                let mut entries = Vec::new();
                loop {
                    let key = Box::new(parser.parse_expr()?);
                    parser.expect_token(&Token::Comma)?;
                    entries.push(MapEntry { key, value: Box::new(parser.parse_expr()?) });
                    if !parser.consume_token(&Token::Comma) {
                        break;
                    }
                }
                parser.expect_token(&Token::RBracket)?;
                Ok(Some(Expr::Map(Map { entries })))
            }
            "TABLE" => forms::table(self, parser).map(Some),
            // MODEL is a name elsewhere: of a column, with an alias behind it.
            "MODEL" if matches!(next, Token::Word(_)) && among_arguments_of(parser, "ML_PREDICT") => forms::model(self, parser).map(Some),
            "ARRAY" if *next == Token::LBracket => Ok(None),
            "MULTISET" => Err(self.fail(parser.index(), not_yet("MULTISET", first))),
            "CONVERT" | "SAFE_CAST" | "TRY_CONVERT" if paren => {
                let e = Error::user(format!("{name} does not exist in this dialect")).at(lex::span(first.span));
                Err(self.fail(parser.index(), e.help("write CAST(value AS type) or TRY_CAST(value AS type)")))
            }
            "MATCH_RECOGNIZE" => Err(self.fail(parser.index(), not_yet("MATCH_RECOGNIZE", first))),
            _ if CLAUSES.contains(&name.as_str()) => {
                let mut e = Error::user(format!("expected an expression, found {name}")).at(lex::span(first.span));
                if parser.index() > 0 && parser.token_at(parser.index() - 1).token == Token::Comma {
                    e = e.help("remove the comma before it");
                }
                Err(self.fail(parser.index(), e))
            }
            _ if paren || !is_reserved(&name) || EXPRESSIONS.contains(&name.as_str()) => Ok(None),
            _ => Err(self.fail(parser.index(), reserved(first))),
        }
    }
}

/// Whether the next token lies directly among the arguments of a call of `function`.
fn among_arguments_of(parser: &Parser, function: &str) -> bool {
    let mut depth = 0;
    for index in (0..parser.index()).rev() {
        match parser.token_at(index).token {
            Token::RParen => depth += 1,
            Token::LParen if depth == 0 => return index > 0 && is_word(&parser.token_at(index - 1).token, function),
            Token::LParen => depth -= 1,
            Token::SemiColon => return false,
            _ => {}
        }
    }
    false
}

/// The error about something that a later version will have.
pub(super) fn not_yet(what: &str, token: &TokenWithSpan) -> Error {
    Error::user(format!("{what} is not yet supported")).at(lex::span(token.span))
}
