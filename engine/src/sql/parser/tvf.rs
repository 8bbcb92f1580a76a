//! Window table functions: a table factor → which windows over what.
//!
//! `TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE)`, with or without `TABLE( )` around it, with
//! arguments by place or by name. The planner asks [`window_call`] about every table factor.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, Spanned, TableAlias,
    TableFactor,
};
use datafusion::sql::sqlparser::tokenizer::Span as TokenSpan;

use super::dialect::reserved_at;
use super::interval::interval_ms;
use super::keywords::is_reserved;
use super::statements::unqualified;
use super::{forms, lex};
use crate::error::{Error, Result, Span, nearest};
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
        let [ObjectNamePart::Identifier(i)] = name.0.as_slice() else { return None };
        Some(match i.value.to_ascii_uppercase().as_str() {
            "TUMBLE" => Self::Tumble,
            "HOP" => Self::Hop,
            "CUMULATE" => Self::Cumulate,
            "SESSION" => Self::Session,
            _ => return None,
        })
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
    let (name, args, alias) = match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
        TableFactor::TableFunction { expr: Expr::Function(Function { name, args: FunctionArguments::List(list), .. }), alias } => {
            (name, &list.args, alias)
        }
        _ => return Ok(None),
    };
    let Some(function) = WindowFunction::of(name) else { return Ok(None) };
    modifiers(factor, function)?;
    if let Some(a) = alias {
        for i in std::iter::once(&a.name).chain(a.columns.iter().map(|c| &c.name)) {
            free(i)?;
        }
    }
    let at = lex::span(name.span());
    let values = by_parameter(function, args, at)?;
    let [data, time, rest @ ..] = values.as_slice() else {
        return Err(Error::internal("a window function has two parameters at least").at(at));
    };
    let (input, partition_by) = input(function, data.expect("required"))?;
    let time_column = descriptor(function, time.expect("required"))?;
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

/// The values of the function's parameters, in its order.
fn by_parameter(function: WindowFunction, args: &[FunctionArg], at: Span) -> Result<Vec<Option<&Expr>>> {
    let parameters = function.parameters();
    let usage = |e: Error| e.help(format!("write {}", function.example()));
    let mut values: Vec<Option<&Expr>> = vec![None; parameters.len()];
    let mut named = false;
    for (i, arg) in args.iter().enumerate() {
        let (slot, value) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) if !named => (i, e),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(e), .. } if named || i == 0 => {
                named = true;
                free(name)?;
                let wanted = name.value.to_ascii_uppercase();
                let Some(slot) = parameters.iter().position(|p| *p == wanted) else {
                    let err = Error::user(format!("{} has no parameter {}", function.name(), name.value)).at(lex::span(name.span));
                    return Err(match nearest(&wanted, parameters.iter().copied()) {
                        Some(n) => err.help(format!("did you mean {n}?")),
                        None => err.help(format!("its parameters are {}", parameters.join(", "))),
                    });
                };
                if i == 0 && slot != 0 {
                    return Err(usage(Error::user("the first argument must be DATA").at(lex::span(name.span))));
                }
                if values[slot].is_some() {
                    return Err(Error::user(format!("{} stands twice", name.value)).at(lex::span(name.span)));
                }
                (slot, e)
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(_)) | FunctionArg::Named { arg: FunctionArgExpr::Expr(_), .. } => {
                return Err(usage(Error::user("the arguments are all named or all in order").at(at)));
            }
            _ => return Err(usage(Error::user(format!("an argument of {} is not an expression", function.name())).at(at))),
        };
        match values.get_mut(slot) {
            Some(v) => *v = Some(value),
            None => return Err(usage(Error::user(format!("{} has too many arguments", function.name())).at(place(value.span(), at)))),
        }
    }
    for (parameter, value) in parameters.iter().zip(&values) {
        if value.is_none() && *parameter != "OFFSET" {
            return Err(usage(Error::user(format!("{} needs {parameter}", function.name())).at(at)));
        }
    }
    Ok(values)
}

fn input(function: WindowFunction, e: &Expr) -> Result<(WindowInput, Vec<Expr>)> {
    let at = lex::span(e.span());
    match e {
        Expr::Subquery(q) => Ok((WindowInput::Query(q.clone()), vec![])),
        Expr::Nested(inner) => input(function, inner),
        Expr::Function(f) if f.name.0.len() == 1 && f.name.to_string().trim_matches('`') == forms::TABLE => {
            let FunctionArguments::List(list) = &f.args else { return Err(Error::internal("TABLE without a name").at(at)) };
            let mut args = list.args.iter().filter_map(|a| match a {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
                _ => None,
            });
            let parts = match args.next() {
                Some(Expr::Identifier(i)) => vec![i],
                Some(Expr::CompoundIdentifier(parts)) => parts,
                _ => return Err(Error::internal("TABLE without a name").at(at)),
            };
            let names = parts.iter().map(|i| Name { value: i.value.clone(), span: lex::span(i.span) }).collect();
            unqualified(names)?;
            let last = parts.into_iter().next_back().expect("a name has a part");
            let partition: Vec<Expr> = args.collect();
            if !partition.is_empty() && function != WindowFunction::Session {
                return Err(Error::user(format!("{} has no PARTITION BY", function.name()))
                    .at(at)
                    .help("group by the key in the query around it"));
            }
            Ok((WindowInput::Table(ObjectName::from(vec![last])), partition))
        }
        Expr::Identifier(i) => {
            Err(Error::user(format!("'{}' needs the word TABLE before it", i.value)).at(at).help(format!("write TABLE {i}")))
        }
        other => {
            Err(Error::user(format!("{} needs a table, not {other}", function.name())).at(at).help(format!("write {}", function.example())))
        }
    }
}

fn descriptor(function: WindowFunction, e: &Expr) -> Result<Name> {
    let at = lex::span(e.span());
    if let Expr::Function(f) = e
        && f.name.to_string().eq_ignore_ascii_case("DESCRIPTOR")
        && let FunctionArguments::List(list) = &f.args
    {
        return match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(i)))] => {
                free(i)?;
                Ok(Name { value: i.value.clone(), span: lex::span(i.span) })
            }
            _ => Err(Error::user("DESCRIPTOR takes the name of one time column").at(at).help("write DESCRIPTOR(ts)")),
        };
    }
    Err(Error::user(format!("{} needs the time column", function.name())).at(at).help("write it as DESCRIPTOR(column)"))
}

fn modifiers(factor: &TableFactor, function: WindowFunction) -> Result<()> {
    if let TableFactor::Table { with_hints, version, with_ordinality, partitions, json_path, sample, index_hints, args, name, .. } = factor
    {
        let settings = args.as_ref().is_some_and(|a| a.settings.is_some());
        let any = !with_hints.is_empty() || version.is_some() || *with_ordinality || !partitions.is_empty() || json_path.is_some();
        if any || sample.is_some() || !index_hints.is_empty() || settings {
            return Err(Error::user(format!("only an alias may stand behind {}", function.name())).at(lex::span(name.span())));
        }
    }
    Ok(())
}

fn free(i: &Ident) -> Result<()> {
    if i.quote_style.is_none() && is_reserved(&i.value) { Err(reserved_at(&i.value, lex::span(i.span))) } else { Ok(()) }
}

/// The place of an expression, or `default` where sqlparser kept none.
fn place(s: TokenSpan, default: Span) -> Span {
    if s.start.line == 0 { default } else { lex::span(s) }
}
