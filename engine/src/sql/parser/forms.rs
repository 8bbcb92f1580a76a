//! Expressions with a grammar of their own: they become calls of functions.
//!
//! | SQL | call |
//! |---|---|
//! | `CAST(x AS t)`, `TRY_CAST(x AS t)` | `$cast(x, 't')`, `$try_cast(x, 't')` |
//! | `FLOOR(x TO u)`, `CEIL(x TO u)` | `$floor_to(x, 'U')`, `$ceil_to(x, 'U')` |
//! | `EXTRACT(u FROM x)`, `YEAR(x)`, … | `$extract('U', x)` |
//! | `TIMESTAMPDIFF(u, a, b)`, `TIMESTAMPADD(u, n, a)` | `$timestampdiff('U', a, b)`, `$timestampadd('U', n, a)` |
//! | `DATE '…'`, `TIME '…'`, `TIMESTAMP '…'` | `$date('…')`, `$time('…')`, `$timestamp('…')` |
//! | `SUBSTRING(x FROM a FOR b)`, `POSITION(a IN b)`, `OVERLAY(x PLACING y FROM a FOR b)` | the same with commas |
//! | `TABLE t [PARTITION BY k]` as an argument | `$table(t, k…)` |
//! | `MODEL m` as an argument of ML_PREDICT | `$model(m)` |
//!
//! `INTERVAL '5' MINUTE` stays sqlparser's interval; compound ones and QUARTER become
//! `INTERVAL '… milliseconds'` and `INTERVAL '… months'`, which DataFusion can read.

use chrono::{NaiveDate, NaiveTime};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, Interval, ObjectName, Value,
};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Span as TokenSpan, Token};

use super::dialect::{FlinkDialect, found, is_word, reserved, reserved_word, word};
use super::interval::{IntervalValue, Unit, interval_value};
use super::{lex, types};
use crate::error::{Error, nearest};

/// Name of the call that `TABLE t` becomes.
pub(super) const TABLE: &str = "$table";
/// Name of the call that `MODEL m` becomes.
pub(super) const MODEL: &str = "$model";

const EXTRACT_UNITS: &[&str] = &[
    "YEAR",
    "QUARTER",
    "MONTH",
    "WEEK",
    "DAY",
    "DOW",
    "ISODOW",
    "DOY",
    "ISOYEAR",
    "HOUR",
    "MINUTE",
    "SECOND",
    "MILLISECOND",
    "MICROSECOND",
    "NANOSECOND",
    "EPOCH",
    "DECADE",
    "CENTURY",
    "MILLENNIUM",
];
const FLOOR_UNITS: &[&str] =
    &["YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND", "DECADE", "CENTURY", "MILLENNIUM"];
const ARITHMETIC_UNITS: &[&str] = &["YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND"];

/// A call of `name`, at `span`.
pub(super) fn call(name: &str, args: Vec<Expr>, span: TokenSpan) -> Expr {
    let args = args.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    Expr::Function(Function {
        // A quoted name is looked up as it stands; a bare one in any case, as the user's own calls are.
        name: ObjectName::from(vec![Ident { value: name.to_string(), quote_style: name.starts_with('$').then_some('`'), span }]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// A text literal.
pub(super) fn text(value: impl Into<String>, span: TokenSpan) -> Expr {
    Expr::Value(Value::SingleQuotedString(value.into()).with_span(span))
}

pub(super) fn cast(dialect: &FlinkDialect, p: &mut Parser) -> Result<Expr, ParserError> {
    let (first, function) = open(p);
    let e = p.parse_expr()?;
    expect_word(dialect, p, "AS")?;
    let index = p.index();
    let (sql_type, at) = types::take(p).map_err(|e| dialect.fail(index, e))?;
    let last = p.expect_token(&Token::RParen)?;
    let name = if function == "CAST" { "$cast" } else { "$try_cast" };
    Ok(call(name, vec![e, text(sql_type.to_string(), at)], first.union(&last.span)))
}

pub(super) fn floor(dialect: &FlinkDialect, p: &mut Parser, name: &str) -> Result<Expr, ParserError> {
    let (first, _) = open(p);
    let mut args = vec![p.parse_expr()?];
    let mut function = if name == "FLOOR" { "FLOOR" } else { "CEIL" };
    if is_word(&p.peek_token_ref().token, "TO") {
        p.advance_token();
        function = if name == "FLOOR" { "$floor_to" } else { "$ceil_to" };
        args.push(unit(dialect, p, FLOOR_UNITS)?);
    } else {
        while p.consume_token(&Token::Comma) {
            args.push(p.parse_expr()?);
        }
    }
    let last = p.expect_token(&Token::RParen)?;
    Ok(call(function, args, first.union(&last.span)))
}

pub(super) fn extract(dialect: &FlinkDialect, p: &mut Parser) -> Result<Expr, ParserError> {
    let (first, _) = open(p);
    let unit = unit(dialect, p, EXTRACT_UNITS)?;
    expect_word(dialect, p, "FROM")?;
    let e = p.parse_expr()?;
    let last = p.expect_token(&Token::RParen)?;
    Ok(call("$extract", vec![unit, e], first.union(&last.span)))
}

pub(super) fn part(p: &mut Parser, name: &str) -> Result<Expr, ParserError> {
    let (first, _) = open(p);
    let unit = match name {
        "DAYOFYEAR" => "DOY",
        "DAYOFMONTH" => "DAY",
        "DAYOFWEEK" => "DOW",
        other => other,
    };
    let e = p.parse_expr()?;
    let last = p.expect_token(&Token::RParen)?;
    Ok(call("$extract", vec![text(unit, first), e], first.union(&last.span)))
}

pub(super) fn timestamp_arithmetic(dialect: &FlinkDialect, p: &mut Parser, name: &str) -> Result<Expr, ParserError> {
    let (first, _) = open(p);
    let mut args = vec![unit(dialect, p, ARITHMETIC_UNITS)?];
    for _ in 0..2 {
        p.expect_token(&Token::Comma)?;
        args.push(p.parse_expr()?);
    }
    let last = p.expect_token(&Token::RParen)?;
    Ok(call(if name == "TIMESTAMPDIFF" { "$timestampdiff" } else { "$timestampadd" }, args, first.union(&last.span)))
}

/// Calls whose arguments may stand between words.
pub(super) fn text_call(p: &mut Parser, name: &str) -> Result<Expr, ParserError> {
    let (first, _) = open(p);
    // The first argument of POSITION ends before IN, which binds like BETWEEN.
    let mut args = vec![if name == "POSITION" { p.parse_subexpr(20)? } else { p.parse_expr()? }];
    let marks: &[&str] = match name {
        "POSITION" => &["IN", "FROM"],
        "OVERLAY" => &["PLACING", "FROM", "FOR"],
        _ => &["FROM", "FOR"],
    };
    loop {
        let separated = p.consume_token(&Token::Comma) || {
            let found = marks.iter().any(|m| is_word(&p.peek_token_ref().token, m));
            if found {
                p.advance_token();
            }
            found
        };
        if !separated {
            break;
        }
        args.push(p.parse_expr()?);
    }
    let last = p.expect_token(&Token::RParen)?;
    Ok(call(if name == "SUBSTR" { "SUBSTR" } else { name }, args, first.union(&last.span)))
}

pub(super) fn time_literal(dialect: &FlinkDialect, p: &mut Parser, name: &str) -> Result<Expr, ParserError> {
    let first = p.next_token();
    let index = p.index();
    let value = p.next_token();
    let Token::SingleQuotedString(s) = value.token else { return p.expected("a text literal", value) };
    let (exact, form) = match name {
        "DATE" => (date(&s), "2024-11-09"),
        "TIME" => (time(&s), "10:05:00"),
        _ => (timestamp(&s), "2024-11-09 10:05:00.000"),
    };
    let Some(s) = exact else {
        let e = Error::user(format!("'{s}' is not a {name}")).at(lex::span(value.span)).help(format!("write {name} '{form}'"));
        return Err(dialect.fail(index, e));
    };
    let function = match name {
        "DATE" => "$date",
        "TIME" => "$time",
        _ => "$timestamp",
    };
    Ok(call(function, vec![text(s, value.span)], first.span.union(&value.span)))
}

/// `2024-1-9` → `2024-01-09`, where there is such a day.
fn date(s: &str) -> Option<String> {
    let [y, m, d] = numbers(s, '-')?;
    NaiveDate::from_ymd_opt(y as i32, m, d).map(|d| d.format("%Y-%m-%d").to_string())
}

/// `1:2:3.5` → `01:02:03.5`, with up to nine decimals.
fn time(s: &str) -> Option<String> {
    let (whole, fraction) = s.split_once('.').map_or((s, None), |(w, f)| (w, Some(f)));
    let [h, m, s] = numbers(whole, ':')?;
    let whole = NaiveTime::from_hms_opt(h, m, s)?.format("%H:%M:%S").to_string();
    match fraction {
        None => Some(whole),
        Some(f) if (1..=9).contains(&f.len()) && f.bytes().all(|b| b.is_ascii_digit()) => Some(format!("{whole}.{f}")),
        Some(_) => None,
    }
}

/// A date and a time; without a time it is midnight.
fn timestamp(s: &str) -> Option<String> {
    let (d, t) = s.split_once(' ').unwrap_or((s, "0:0:0"));
    Some(format!("{} {}", date(d)?, time(t)?))
}

fn numbers(s: &str, mark: char) -> Option<[u32; 3]> {
    let mut out = [0; 3];
    let mut parts = s.split(mark);
    for o in &mut out {
        let part = parts.next().filter(|p| (1..=4).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))?;
        *o = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

pub(super) fn interval(dialect: &FlinkDialect, p: &mut Parser) -> Result<Expr, ParserError> {
    let first = p.next_token();
    let negative = p.consume_token(&Token::Minus);
    if !negative {
        let _ = p.consume_token(&Token::Plus);
    }
    let index = p.index();
    let value = p.next_token();
    let Token::SingleQuotedString(s) = &value.token else {
        let e = Error::user(format!("an INTERVAL needs a text literal, found {}", found(&value.token))).at(lex::span(value.span));
        return Err(dialect.fail(index, e.help("write, say, INTERVAL '5' MINUTE")));
    };
    let (leading, digits_max) = interval_unit(dialect, p)?;
    let last = if is_word(&p.peek_token_ref().token, "TO") {
        p.advance_token();
        Some(interval_unit(dialect, p)?.0)
    } else {
        None
    };
    let signed = if negative { s.strip_prefix('-').map_or_else(|| format!("-{s}"), str::to_string) } else { s.clone() };
    let mut interval = Interval {
        value: Box::new(text(signed, first.span.union(&value.span))),
        leading_field: Some(leading.field()),
        leading_precision: None,
        last_field: last.map(Unit::field),
        fractional_seconds_precision: None,
    };
    let number = interval_value(&interval).map_err(|e| dialect.fail(index, e))?;
    let digits = s.trim_start_matches(['-', '+', ' ']).bytes().skip_while(|b| *b == b'0').take_while(u8::is_ascii_digit).count();
    if digits as u64 > digits_max {
        let unit = leading.field();
        let e = Error::user(format!("the number in INTERVAL '{s}' {unit} has more than {digits_max} digits")).at(lex::span(value.span));
        return Err(dialect.fail(index, e.help(format!("say how many: INTERVAL '{s}' {unit}({digits}), or use a longer unit"))));
    }
    if last.is_some() || leading == Unit::Quarter {
        let exact = match number {
            IntervalValue::Milliseconds(ms) => format!("{ms} milliseconds"),
            IntervalValue::Months(months) => format!("{months} months"),
        };
        interval.value = Box::new(text(exact, first.span.union(&value.span)));
        interval.leading_field = None;
        interval.last_field = None;
    }
    Ok(Expr::Interval(interval))
}

/// A unit of an INTERVAL, and how many digits its number may have: two, where nothing is written.
fn interval_unit(dialect: &FlinkDialect, p: &mut Parser) -> Result<(Unit, u64), ParserError> {
    let index = p.index();
    let token = p.next_token();
    let Some(unit) = word(&token.token).and_then(|w| Unit::of(&w)) else {
        let e = Error::user(format!("an INTERVAL needs a unit, found {}", found(&token.token))).at(lex::span(token.span));
        return Err(dialect.fail(index, e.help("one of YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND: INTERVAL '5' MINUTE")));
    };
    let mut digits_max = 2;
    if p.consume_token(&Token::LParen) {
        digits_max = p.parse_literal_uint()?;
        if p.consume_token(&Token::Comma) {
            p.parse_literal_uint()?;
        }
        p.expect_token(&Token::RParen)?;
    }
    Ok((unit, digits_max))
}

/// `TABLE t`, as an argument of a table function.
pub(super) fn table(dialect: &FlinkDialect, p: &mut Parser) -> Result<Expr, ParserError> {
    let first = p.next_token();
    if p.peek_token_ref().token == Token::LParen {
        let e = Error::user("TABLE takes a name, not a query")
            .at(lex::span(first.span))
            .help("leave out TABLE before the query: TUMBLE((SELECT …), …)");
        return Err(dialect.fail(p.index(), e));
    }
    let parts = path(dialect, p)?;
    let mut args = vec![parts];
    if is_word(&p.peek_token_ref().token, "PARTITION") {
        p.advance_token();
        expect_word(dialect, p, "BY")?;
        if p.consume_token(&Token::LParen) {
            args.extend(p.parse_comma_separated(Parser::parse_expr)?);
            p.expect_token(&Token::RParen)?;
        } else {
            args.push(p.parse_expr()?);
        }
    }
    Ok(call(TABLE, args, first.span))
}

/// `MODEL m`, where an argument of ML_PREDICT starts.
pub(super) fn model(dialect: &FlinkDialect, p: &mut Parser) -> Result<Expr, ParserError> {
    let first = p.next_token();
    Ok(call(MODEL, vec![path(dialect, p)?], first.span))
}

/// A name, qualified or not.
fn path(dialect: &FlinkDialect, p: &mut Parser) -> Result<Expr, ParserError> {
    let mut parts = Vec::new();
    loop {
        let token = p.peek_token_ref();
        if reserved_word(&token.token).is_some() {
            return Err(dialect.fail(p.index(), reserved(token)));
        }
        parts.push(p.parse_identifier()?);
        if !p.consume_token(&Token::Period) {
            break;
        }
    }
    Ok(if parts.len() == 1 { Expr::Identifier(parts.remove(0)) } else { Expr::CompoundIdentifier(parts) })
}

/// Takes the name and the parenthesis of a call; both are known to be there.
fn open(p: &mut Parser) -> (TokenSpan, String) {
    let name = p.next_token();
    p.advance_token();
    (name.span, word(&name.token).unwrap_or_default())
}

fn expect_word(dialect: &FlinkDialect, p: &mut Parser, wanted: &str) -> Result<(), ParserError> {
    let token = p.peek_token_ref();
    if !is_word(&token.token, wanted) {
        let e = Error::user(format!("expected {wanted}, found {}", found(&token.token))).at(lex::span(token.span));
        return Err(dialect.fail(p.index(), e));
    }
    p.advance_token();
    Ok(())
}

fn unit(dialect: &FlinkDialect, p: &mut Parser, units: &[&str]) -> Result<Expr, ParserError> {
    let index = p.index();
    let token = p.next_token();
    let found = word(&token.token).map(|w| w.strip_prefix("SQL_TSI_").unwrap_or(&w).to_string());
    if let Some(w) = found.as_deref().filter(|w| units.contains(w)) {
        return Ok(text(w, token.span));
    }
    let e = Error::user(format!("'{}' is not a unit of time here", token.token)).at(lex::span(token.span));
    Err(dialect.fail(
        index,
        match found.as_deref().and_then(|w| nearest(w, units.iter().copied())) {
            Some(n) => e.help(format!("did you mean {n}?")),
            None => e.help(format!("one of {}", units.join(", "))),
        },
    ))
}
