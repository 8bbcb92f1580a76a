//! LIKE and regular expressions.
//!
//! Patterns are compiled once per pattern, in practice once per expression. Java's regular expressions are
//! close to fancy-regex's, look-around and back-references included.

use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, Like};
use fancy_regex::{NoExpand, Regex};

use super::columns::Batch;
use super::scalar::{Definition, Site, function};
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// LIKE and regular expressions.
pub(super) const FUNCTIONS: &[Definition] = &[
    Definition { simplify: Some(plain_like), ..function(&["$like"], "ttt?", boolean, like) },
    function(&["REGEXP"], "tt", boolean, regexp),
    function(&["REGEXP_EXTRACT"], "tti?", text, extract),
    function(&["REGEXP_REPLACE"], "ttt", text, replace),
];

fn boolean(_: &Site) -> Result<SqlType> {
    Ok(SqlType::Boolean)
}

fn text(_: &Site) -> Result<SqlType> {
    Ok(SqlType::STRING)
}

/// The regex of a row, found once for rows with the same pattern.
struct Compiled<'a> {
    batch: &'a Batch<'a>,
    last: Option<(String, Arc<Option<Regex>>)>,
}

impl<'a> Compiled<'a> {
    fn new(batch: &'a Batch<'a>) -> Self {
        Self { batch, last: None }
    }

    fn get(&mut self, pattern: &str) -> Result<Arc<Option<Regex>>> {
        if let Some((text, regex)) = &self.last
            && text == pattern
        {
            return Ok(regex.clone());
        }
        let regex = self.batch.session.regex(pattern)?;
        self.last = Some((pattern.to_string(), regex.clone()));
        Ok(regex)
    }
}

fn regexp(batch: &Batch) -> Result<ArrayRef> {
    let (s, p) = (batch.text(0)?, batch.text(1)?);
    let mut compiled = Compiled::new(batch);
    batch.truths(|row| {
        let (Some(s), Some(p)) = (s.get(row), p.get(row)) else { return Ok(None) };
        match &*compiled.get(p)? {
            Some(regex) => Ok(Some(regex.is_match(s).map_err(|e| too_hard(p, &e))?)),
            None => Err(Error::data(format!("'{p}' is no regular expression"))),
        }
    })
}

fn extract(batch: &Batch) -> Result<ArrayRef> {
    let (s, p) = (batch.text(0)?, batch.text(1)?);
    let group = if batch.len() > 2 { Some(batch.longs(2)?) } else { None };
    let mut compiled = Compiled::new(batch);
    batch.texts(|row, out| {
        let (Some(s), Some(p)) = (s.get(row), p.get(row)) else { return Ok(false) };
        let Some(group) = group.as_ref().map_or(Some(0), |g| g.get(row)) else { return Ok(false) };
        let (Ok(group), Some(regex)) = (usize::try_from(group), &*compiled.get(p)?) else { return Ok(false) };
        let found = regex.captures(s).map_err(|e| too_hard(p, &e))?;
        Ok(found.and_then(|c| c.get(group)).map(|m| out.push_str(m.as_str())).is_some())
    })
}

fn replace(batch: &Batch) -> Result<ArrayRef> {
    let (s, p, with) = (batch.text(0)?, batch.text(1)?, batch.text(2)?);
    let mut compiled = Compiled::new(batch);
    batch.texts(|row, out| {
        let (Some(s), Some(p), Some(with)) = (s.get(row), p.get(row), with.get(row)) else { return Ok(false) };
        let Some(regex) = &*compiled.get(p)? else { return Ok(false) };
        out.push_str(&regex.try_replacen(s, 0, NoExpand(with)).map_err(|e| too_hard(p, &e))?);
        Ok(true)
    })
}

fn too_hard(pattern: &str, e: &fancy_regex::Error) -> Error {
    Error::data(format!("the regular expression '{pattern}' gave up: {e}"))
}

/// LIKE: `%` any text, `_` one code point; the escape character, if one is given, takes both literally.
fn like(batch: &Batch) -> Result<ArrayRef> {
    let (s, p) = (batch.text(0)?, batch.text(1)?);
    let escape = if batch.len() > 2 { Some(batch.text(2)?) } else { None };
    let mut last: Option<(String, Vec<Piece>)> = None;
    batch.truths(|row| {
        let (Some(s), Some(p)) = (s.get(row), p.get(row)) else { return Ok(None) };
        let escape = match &escape {
            Some(e) => match e.get(row) {
                Some(e) => Some(escape_char(e)?),
                None => return Ok(None),
            },
            None => None,
        };
        if last.as_ref().is_none_or(|(text, _)| text != p) || escape.is_some() && !batch.is_constant(2) {
            last = Some((p.to_string(), pieces(p, escape)?));
        }
        let (_, pieces) = last.as_ref().expect("set just above");
        Ok(Some(matches(pieces, s)))
    })
}

fn escape_char(text: &str) -> Result<char> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => Err(Error::user(format!("ESCAPE takes one character, found '{text}'"))),
    }
}

enum Piece {
    Text(String),
    One,
    Any,
}

fn pieces(pattern: &str, escape: Option<char>) -> Result<Vec<Piece>> {
    let mut out = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            c if Some(c) == escape => {
                let next = chars.next().filter(|n| matches!(n, '%' | '_') || Some(*n) == escape);
                next.ok_or_else(|| Error::data(format!("in LIKE '{pattern}' the escape '{c}' stands before nothing it can escape")))?
            }
            '%' => {
                if !matches!(out.last(), Some(Piece::Any)) {
                    out.push(Piece::Any);
                }
                continue;
            }
            '_' => {
                out.push(Piece::One);
                continue;
            }
            c => c,
        };
        match out.last_mut() {
            Some(Piece::Text(t)) => t.push(literal),
            _ => out.push(Piece::Text(literal.into())),
        }
    }
    Ok(out)
}

/// Greedy with one way back: to the last `%`.
fn matches(pieces: &[Piece], text: &str) -> bool {
    let (mut p, mut rest) = (0, text);
    let mut back: Option<(usize, &str)> = None;
    loop {
        let step = match pieces.get(p) {
            None if rest.is_empty() => return true,
            None => None,
            Some(Piece::Any) => {
                if p + 1 == pieces.len() {
                    return true;
                }
                back = Some((p, rest));
                p += 1;
                continue;
            }
            Some(Piece::One) => rest.chars().next().map(|c| &rest[c.len_utf8()..]),
            Some(Piece::Text(t)) => rest.strip_prefix(t.as_str()),
        };
        if let Some(next) = step {
            p += 1;
            rest = next;
            continue;
        }
        let Some((any, from)) = back else { return false };
        // Behind `%`, a text piece can only start where it is found next.
        let from = match &pieces[any + 1] {
            Piece::Text(t) => from.char_indices().nth(1).map(|(i, _)| &from[i..]).and_then(|f| f.find(t.as_str()).map(|i| &f[i..])),
            _ => from.char_indices().nth(1).map(|(i, _)| &from[i..]).or(if from.is_empty() { None } else { Some("") }),
        };
        let Some(from) = from else { return false };
        back = Some((any, from));
        p = any + 1;
        rest = from;
    }
}

/// A literal pattern without escapes is DataFusion's LIKE, whose kernels know prefixes and the like.
fn plain_like(args: &[Expr], _: &SimplifyContext) -> DfResult<Option<Expr>> {
    let [x, Expr::Literal(ScalarValue::Utf8(Some(pattern)), _)] = args else { return Ok(None) };
    if pattern.contains('\\') {
        return Ok(None);
    }
    let pattern = Expr::Literal(ScalarValue::Utf8(Some(pattern.clone())), None);
    Ok(Some(Expr::Like(Like::new(false, Box::new(x.clone()), Box::new(pattern), None, false))))
}
