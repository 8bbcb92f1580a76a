//! The text of a SQL file → statements.
//!
//! Queries and expressions are read by sqlparser through its public hooks; statements are read here,
//! because Flink's DDL is its own. A strict pass then refuses what Flink refuses, and what this version
//! does not have is refused by name. What must hold: every error has the place it is about, and nothing
//! that was written is dropped without a word.
//!
//! What the planner gets: numbers stay as they are written; forms with a grammar of their own are calls
//! of `$`-functions (see [`crate::sql::ast`]); `DATE '…'`, `TIME '…'`, `TIMESTAMP '…'` are `$date`, `$time`,
//! `$timestamp` of the text; an integer in GROUP BY is `$cast(1, 'INT')`, so that nobody takes it for an
//! ordinal; `TABLE t` in a table function is `$table(t)`, which [`tvf::window_call`] reads, and `MODEL m` is
//! `$model(m)`, which [`model::predict_call`] reads;
//! `default_catalog.default_database.` is cut off table names; FETCH FIRST is LIMIT.

mod arguments;
mod create;
mod dialect;
mod forms;
pub mod interval;
pub mod keywords;
mod lex;
pub mod model;
mod refusals;
pub mod render;
mod statements;
mod strict;
#[cfg(test)]
mod tests;
pub mod tvf;
mod types;

use datafusion::sql::sqlparser::ast::{Expr, Query};

pub use strict::group_by_aliases;

use crate::error::{Result, Span};
use crate::sql::ast::Parsed;
use dialect::FlinkDialect;
use statements::Statements;

/// Reads a SQL file.
///
/// # Errors
/// User: the first statement that cannot be read, with its place.
pub fn parse(text: &str) -> Result<Vec<Parsed>> {
    let dialect = FlinkDialect::default();
    Statements::new(text, &dialect)?.all()
}

/// Reads one expression, such as a filter given on the command line.
///
/// # Errors
/// User: no expression, or something behind it.
pub fn parse_expr(text: &str) -> Result<Expr> {
    let dialect = FlinkDialect::default();
    let mut s = Statements::new(text, &dialect)?;
    let mut e = s.expr()?;
    s.end("the expression")?;
    strict::expr(&mut e)?;
    Ok(e)
}

/// Reads one query.
///
/// # Errors
/// User: no query, or something behind it.
pub fn parse_query(text: &str) -> Result<Box<Query>> {
    let dialect = FlinkDialect::default();
    let mut s = Statements::new(text, &dialect)?;
    let query = s.query()?;
    s.end("the query")?;
    Ok(query)
}

/// What is accepted in `text` but better written otherwise: place and advice.
pub fn warnings(text: &str) -> Vec<(Span, String)> {
    let slashes = lex::slash_comments(text).unwrap_or_default();
    slashes.into_iter().map(|s| (s, "a comment that starts with // is Flink's own: -- is read everywhere".to_string())).collect()
}
