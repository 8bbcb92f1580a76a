//! What the binder says, in the user's words.
//!
//! DataFusion's errors carry a place and sometimes a diagnosis; here they become our sentences, with the
//! nearest name where one is meant. What our own functions and planners reported passes unchanged.

use std::ops::ControlFlow;

use datafusion::common::{Column, DataFusionError, Diagnostic, SchemaError};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Query, visit_expressions};

use crate::error::{Error, Span, nearest};

/// The error of binding a query. `functions` are all names that can be called.
pub fn bind_error(e: DataFusionError, functions: &[String]) -> Error {
    let mut place = None;
    let error = translate(e, functions, &mut place);
    match place {
        Some(span) => error.at(span),
        None => error,
    }
}

/// The span in the engine's form.
pub fn span_of(span: &datafusion::common::Span) -> Span {
    let width = if span.start.line == span.end.line { span.end.column.saturating_sub(span.start.column) } else { 1 };
    Span { line: span.start.line as u32, column: span.start.column as u32, width: (width as u32).max(1) }
}

/// Where a column was written.
pub fn column_span(column: &Column) -> Option<Span> {
    column.spans().first().as_ref().map(span_of)
}

/// Where the first column of an expression was written.
pub fn expr_span(expr: &datafusion::logical_expr::Expr) -> Option<Span> {
    let spans = expr.column_refs().into_iter().filter_map(column_span);
    spans.min()
}

/// Where a function that the message names is called in the query.
pub fn call_span(query: &Query, message: &str) -> Option<Span> {
    let words: Vec<&str> = message.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut found = None;
    let _ = visit_expressions(query, |e| {
        if let SqlExpr::Function(f) = e
            && let Some(part) = f.name.0.last().and_then(|p| p.as_ident())
            && words.contains(&part.value.to_uppercase().as_str())
            && part.span.start.line > 0
        {
            let width = part.span.end.column.saturating_sub(part.span.start.column) as u32;
            found = Some(Span { line: part.span.start.line as u32, column: part.span.start.column as u32, width: width.max(1) });
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    found
}

fn translate(e: DataFusionError, functions: &[String], place: &mut Option<Span>) -> Error {
    match e {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::internal("binding failed").caused_by(other),
        },
        DataFusionError::Context(_, inner) => translate(*inner, functions, place),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            note(&diagnostic, place);
            translate(*inner, functions, place)
        }
        DataFusionError::Collection(mut all) if !all.is_empty() => translate(all.swap_remove(0), functions, place),
        DataFusionError::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
            Ok(inner) => translate(inner, functions, place),
            Err(shared) => Error::user(plain(&shared.to_string())),
        },
        DataFusionError::ArrowError(inner, _) => match *inner {
            arrow::error::ArrowError::ExternalError(e) => match e.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => Error::internal("binding failed").caused_by(other),
            },
            other => Error::user(format!("a constant cannot be computed: {other}")),
        },
        DataFusionError::SchemaError(inner, _) => schema_error(*inner, place),
        DataFusionError::NotImplemented(what) => Error::user(format!("not yet supported: {}", plain(&what))),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) => plan_error(&text, functions),
        DataFusionError::SQL(e, _) => Error::user(e.to_string()),
        other => {
            let text = other.to_string();
            Error::internal(plain(text.lines().next().unwrap_or("binding failed")))
        }
    }
}

fn note(diagnostic: &Diagnostic, place: &mut Option<Span>) {
    if place.is_none() {
        *place = diagnostic.span.as_ref().map(span_of);
    }
}

fn schema_error(e: SchemaError, place: &mut Option<Span>) -> Error {
    match e {
        SchemaError::FieldNotFound { field, valid_fields } => {
            *place = place.or_else(|| column_span(&field));
            unknown_column(&field, &valid_fields)
        }
        SchemaError::AmbiguousReference { field } => {
            *place = place.or_else(|| column_span(&field));
            Error::user(format!("column '{}' is ambiguous: more than one table has it", field.name))
                .help(format!("write t.{}, with the table's name or alias", field.name))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Error::user(format!("two columns have the name '{name}'")).help("give each an alias of its own")
        }
    }
}

/// An unknown column, with the nearest one.
pub fn unknown_column(field: &Column, valid: &[Column]) -> Error {
    let name = field.name.as_str();
    let shown = field.relation.as_ref().map_or_else(|| name.to_string(), |r| format!("{r}.{name}"));
    if let Some(relation) = &field.relation
        && !valid.iter().any(|c| c.relation.as_ref() == Some(relation))
    {
        let tables: Vec<&str> = valid.iter().filter_map(|c| c.relation.as_ref().map(|r| r.table())).collect();
        let e = Error::user(format!("'{relation}' in '{shown}' is no table of this query"));
        return match nearest(relation.table(), tables.iter().copied()) {
            Some(near) => e.help(format!("did you mean '{near}.{name}'?")),
            None => e,
        };
    }
    let within: Vec<&str> =
        valid.iter().filter(|c| field.relation.is_none() || c.relation == field.relation).map(|c| c.name.as_str()).collect();
    let e = Error::user(format!("column '{shown}' not found"));
    if let Some(other) = within.iter().find(|c| c.eq_ignore_ascii_case(name)) {
        return e.help(format!("names compare case: did you mean '{other}'?"));
    }
    match nearest(name, within.iter().copied()) {
        Some(near) => e.help(format!("did you mean '{near}'?")),
        None if within.is_empty() || within.len() > 12 => e,
        None => e.help(format!("columns here: {}", within.join(", "))),
    }
}

fn plan_error(text: &str, functions: &[String]) -> Error {
    let text = plain(text);
    if let Some(rest) = text.strip_prefix("Invalid function '") {
        return unknown_function(rest.split('\'').next().unwrap_or(rest), functions);
    }
    if text.contains("must be in GROUP BY") || text.contains("must appear in the GROUP BY clause") {
        let column = text.split('"').nth(1).unwrap_or("").rsplit('.').next().unwrap_or("").trim_end_matches('"').to_string();
        let what = if column.is_empty() { "a column of SELECT".to_string() } else { format!("column '{column}'") };
        return Error::user(format!("{what} is neither in GROUP BY nor inside an aggregate function"))
            .help("add it to GROUP BY, or wrap it in MIN or MAX");
    }
    if text.starts_with("Projections require unique expression names") {
        let name = text.split('"').nth(1).unwrap_or("").to_string();
        return Error::user(format!("two columns have the name '{name}'")).help("give each an alias of its own");
    }
    if let Some(rest) = text.strip_prefix("Cannot create filter with non-boolean predicate '") {
        let what = rest.split('\'').next().unwrap_or("").to_string();
        let what = what.rsplit('.').next().unwrap_or(&what).to_string();
        return Error::user(format!("a condition must be BOOLEAN, but '{what}' is not")).help("compare it, as in x > 0");
    }
    if text.starts_with("HAVING clause references") {
        return Error::user("HAVING names a column that is neither in GROUP BY nor inside an aggregate function")
            .help("use WHERE for conditions on single rows");
    }
    Error::user(text)
}

/// Functions of Flink that a later version will have: refused by name rather than taken for a misspelling.
const LATER: &[&str] = &[
    "ROW_NUMBER",
    "RANK",
    "DENSE_RANK",
    "PERCENT_RANK",
    "CUME_DIST",
    "NTILE",
    "LAG",
    "LEAD",
    "FIRST_VALUE",
    "LAST_VALUE",
    "LISTAGG",
    "ARRAY_AGG",
    "COLLECT",
    "STDDEV_POP",
    "STDDEV_SAMP",
    "STDDEV",
    "VAR_POP",
    "VAR_SAMP",
    "VARIANCE",
    "GROUPING",
    "GROUPING_ID",
    "GROUP_ID",
    "PROCTIME",
    "CURRENT_WATERMARK",
    "JSON_VALUE",
    "JSON_QUERY",
    "JSON_EXISTS",
    "JSON_OBJECT",
    "JSON_ARRAY",
    "JSON_STRING",
    "JSON_OBJECTAGG",
    "JSON_ARRAYAGG",
    "TUMBLE_START",
    "TUMBLE_END",
    "TUMBLE_ROWTIME",
    "HOP_START",
    "HOP_END",
    "HOP_ROWTIME",
    "SESSION_START",
    "SESSION_END",
    "SESSION_ROWTIME",
    "TUMBLE",
    "HOP",
    "SESSION",
    "ML_PREDICT",
];

/// An unknown function, with the nearest one.
pub fn unknown_function(name: &str, functions: &[String]) -> Error {
    let upper = name.to_uppercase();
    if LATER.contains(&upper.as_str()) {
        return Error::user(format!("not yet supported: the function {upper}"));
    }
    let e = Error::user(format!("unknown function {upper}"));
    let public = functions.iter().map(String::as_str).filter(|f| !f.starts_with('$'));
    // Of two names that are as near, the aggregate is meant more often.
    let near = nearest(name, ["count", "sum", "avg", "min", "max"]).or_else(|| nearest(name, public));
    match near {
        Some(near) => e.help(format!("did you mean {}?", near.to_uppercase())),
        None => e,
    }
}

/// The text without DataFusion's prefixes and without its backtrace.
fn plain(text: &str) -> String {
    let mut text = text;
    loop {
        let before = text;
        for prefix in [
            "Error during planning: ",
            "This feature is not implemented: ",
            "Schema error: ",
            "type_coercion\ncaused by\n",
            "Execution error: ",
        ] {
            text = text.strip_prefix(prefix).unwrap_or(text);
        }
        if before == text {
            break;
        }
    }
    let text = text.split("\n\nbacktrace").next().unwrap_or(text);
    text.trim().to_string()
}
