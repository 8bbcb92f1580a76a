//! Window table functions: a table factor → which windows over what.
//!
//! `TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE)`, with or without `TABLE( )` around it, with
//! arguments by place or by name. The planner asks [`window_call`] about every table factor.

use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, Spanned, TableAlias, TableFactor};

use super::arguments::{self, Signature, place};
use super::interval::interval_ms;
use super::lex;
use crate::error::{Error, Result, Span};
use crate::sql::ast::Name;

/// Which windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowFunction {
    /// Windows side by side.
    Tumble,
    /// Windows that overlap.
    Hop,
    /// Windows that grow by steps.
    Cumulate,
    /// Windows that end with a pause.
    Session,
}

impl WindowFunction {
    fn of(name: &ObjectName) -> Option<Self> {
        Some(match arguments::name(name)?.as_str() {
            "TUMBLE" => Self::Tumble,
            "HOP" => Self::Hop,
            "CUMULATE" => Self::Cumulate,
            "SESSION" => Self::Session,
            _ => return None,
        })
    }

    fn signature(self) -> Signature {
        Signature { name: self.name(), parameters: self.parameters(), optional: &["OFFSET"], example: self.example() }
    }

    /// The name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE",
            Self::Hop => "HOP",
            Self::Cumulate => "CUMULATE",
            Self::Session => "SESSION",
        }
    }

    /// Its parameters in order; OFFSET may be left out.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Tumble => &["DATA", "TIMECOL", "SIZE", "OFFSET"],
            Self::Hop => &["DATA", "TIMECOL", "SLIDE", "SIZE", "OFFSET"],
            Self::Cumulate => &["DATA", "TIMECOL", "STEP", "SIZE", "OFFSET"],
            Self::Session => &["DATA", "TIMECOL", "GAP"],
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE)",
            Self::Hop => "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE): slide, then size",
            Self::Cumulate => "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '1' HOUR): step, then size",
            Self::Session => "SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE)",
        }
    }
}

/// What the windows are over.
#[derive(Debug, Clone)]
pub enum WindowInput {
    /// `TABLE t`: a table, view or name of WITH; one part, after the default catalog is cut off.
    Table(ObjectName),
    /// `(SELECT …)`
    Query(Box<Query>),
}

/// A window table function. Lengths are in ms; those that the function does not have are `None`.
#[derive(Debug, Clone)]
pub struct WindowCall {
    /// Which one.
    pub function: WindowFunction,
    /// Over what.
    pub input: WindowInput,
    /// `PARTITION BY` behind the table (SESSION only).
    pub partition_by: Vec<Expr>,
    /// The column of DESCRIPTOR.
    pub time_column: Name,
    /// Size of TUMBLE and HOP, largest size of CUMULATE.
    pub size_ms: Option<i64>,
    /// Slide of HOP.
    pub slide_ms: Option<i64>,
    /// Step of CUMULATE.
    pub step_ms: Option<i64>,
    /// Gap of SESSION.
    pub gap_ms: Option<i64>,
    /// Offset; 0 where none is written.
    pub offset_ms: i64,
    /// `[AS] alias`.
    pub alias: Option<TableAlias>,
    /// Where the function's name stands.
    pub span: Span,
}

/// The window table function of a table factor; `None`: it is something else.
///
/// # Errors
/// User: arguments that do not fit the function.
pub fn window_call(factor: &TableFactor) -> Result<Option<WindowCall>> {
    let Some((name, args, alias)) = arguments::call(factor) else { return Ok(None) };
    let Some(function) = WindowFunction::of(name) else { return Ok(None) };
    let signature = function.signature();
    arguments::only_alias(factor, &signature)?;
    let at = lex::span(name.span());
    let values = arguments::by_parameter(&signature, args, at)?;
    let [data, time, rest @ ..] = values.as_slice() else {
        return Err(Error::internal("a window function has two parameters at least").at(at));
    };
    let data = data.expect("required");
    let (input, partition_by) = arguments::input(&signature, data)?;
    if !partition_by.is_empty() && function != WindowFunction::Session {
        return Err(Error::user(format!("{} has no PARTITION BY", function.name()))
            .at(place(data.span(), at))
            .help("group by the key in the query around it"));
    }
    let time_column = time_column(function, time.expect("required"))?;
    let mut call = WindowCall {
        function,
        input,
        partition_by,
        time_column,
        size_ms: None,
        slide_ms: None,
        step_ms: None,
        gap_ms: None,
        offset_ms: 0,
        alias: alias.clone(),
        span: at,
    };
    for (parameter, value) in function.parameters()[2..].iter().zip(rest) {
        let Some(value) = value else { continue };
        let ms = interval_ms(value).map_err(|e| e.at(place(value.span(), at)).context(format!("{parameter} of {}", function.name())))?;
        if *parameter == "OFFSET" {
            call.offset_ms = ms;
            continue;
        }
        if ms <= 0 {
            return Err(Error::user(format!("{parameter} of {} must be longer than nothing", function.name())).at(place(value.span(), at)));
        }
        match *parameter {
            "SIZE" => call.size_ms = Some(ms),
            "SLIDE" => call.slide_ms = Some(ms),
            "STEP" => call.step_ms = Some(ms),
            _ => call.gap_ms = Some(ms),
        }
    }
    Ok(Some(call))
}

fn time_column(function: WindowFunction, e: &Expr) -> Result<Name> {
    let at = lex::span(e.span());
    let one = || Error::user("DESCRIPTOR takes the name of one time column").at(at).help("write DESCRIPTOR(ts)");
    match arguments::descriptor(e) {
        Some(Ok(mut columns)) if columns.len() == 1 => Ok(columns.remove(0)),
        // A reserved word is an error of its own; anything else that is no name is none.
        Some(Err(e)) if e.message().ends_with("reserved word") => Err(e),
        Some(_) => Err(one()),
        None => Err(Error::user(format!("{} needs the time column", function.name())).at(at).help("write it as DESCRIPTOR(column)")),
    }
}
