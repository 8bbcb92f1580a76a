//! Arguments of table functions: by place or by name, and the table that comes first.
//!
//! Every table function of the dialect is called alike: `F(TABLE t, …)` or `F(DATA => TABLE t, …)`, with or without
//! `TABLE( )` around it. What must hold: an argument is taken once, or it is an error with its place.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Spanned, TableAlias, TableFactor,
};
use datafusion::sql::sqlparser::tokenizer::Span as TokenSpan;

use super::dialect::reserved_at;
use super::keywords::is_reserved;
use super::statements::unqualified;
use super::tvf::WindowInput;
use super::{forms, lex};
use crate::error::{Error, Result, Span, nearest};
use crate::sql::ast::Name;

/// A table function as messages speak of it.
pub(super) struct Signature {
    /// Its name.
    pub name: &'static str,
    /// Its parameters in order, the table first.
    pub parameters: &'static [&'static str],
    /// Those that may be left out.
    pub optional: &'static [&'static str],
    /// A call of it.
    pub example: &'static str,
}

/// A call of a table function: its name, its arguments, its alias.
pub(super) type Call<'a> = (&'a ObjectName, &'a [FunctionArg], &'a Option<TableAlias>);

/// The call that a table factor is; `None`: it is something else.
pub(super) fn call(factor: &TableFactor) -> Option<Call<'_>> {
    match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => Some((name, &args.args, alias)),
        TableFactor::TableFunction { expr: Expr::Function(Function { name, args: FunctionArguments::List(list), .. }), alias } => {
            Some((name, &list.args, alias))
        }
        _ => None,
    }
}

/// The function's name in capitals, where it is one word.
pub(super) fn name(name: &ObjectName) -> Option<String> {
    let [ObjectNamePart::Identifier(i)] = name.0.as_slice() else { return None };
    Some(i.value.to_ascii_uppercase())
}

/// The values of the function's parameters, in its order.
pub(super) fn by_parameter<'a>(function: &Signature, args: &'a [FunctionArg], at: Span) -> Result<Vec<Option<&'a Expr>>> {
    let parameters = function.parameters;
    let usage = |e: Error| e.help(format!("write {}", function.example));
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
                    let err = Error::user(format!("{} has no parameter {}", function.name, name.value)).at(lex::span(name.span));
                    return Err(match nearest(&wanted, parameters.iter().copied()) {
                        Some(n) => err.help(format!("did you mean {n}?")),
                        None => err.help(format!("its parameters are {}", parameters.join(", "))),
                    });
                };
                if i == 0 && slot != 0 {
                    return Err(usage(Error::user(format!("the first argument must be {}", parameters[0])).at(lex::span(name.span))));
                }
                if values[slot].is_some() {
                    return Err(Error::user(format!("{} stands twice", name.value)).at(lex::span(name.span)));
                }
                (slot, e)
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(_)) | FunctionArg::Named { arg: FunctionArgExpr::Expr(_), .. } => {
                return Err(usage(Error::user("the arguments are all named or all in order").at(at)));
            }
            _ => return Err(usage(Error::user(format!("an argument of {} is not an expression", function.name)).at(at))),
        };
        match values.get_mut(slot) {
            Some(v) => *v = Some(value),
            None => return Err(usage(Error::user(format!("{} has too many arguments", function.name)).at(place(value.span(), at)))),
        }
    }
    for (parameter, value) in parameters.iter().zip(&values) {
        if value.is_none() && !function.optional.contains(parameter) {
            return Err(usage(Error::user(format!("{} needs {parameter}", function.name)).at(at)));
        }
    }
    Ok(values)
}

/// The table that the function works on, and what stands behind PARTITION BY.
pub(super) fn input(function: &Signature, e: &Expr) -> Result<(WindowInput, Vec<Expr>)> {
    let at = lex::span(e.span());
    match e {
        Expr::Subquery(q) => Ok((WindowInput::Query(q.clone()), vec![])),
        Expr::Nested(inner) => input(function, inner),
        Expr::Function(f) if is_form(f, forms::TABLE) => {
            let (parts, partition) = named(f, at)?;
            let names = parts.iter().map(|i| Name { value: i.value.clone(), span: lex::span(i.span) }).collect();
            unqualified(names)?;
            let last = parts.into_iter().next_back().expect("a name has a part");
            Ok((WindowInput::Table(ObjectName::from(vec![last])), partition))
        }
        Expr::Identifier(i) => {
            Err(Error::user(format!("'{}' needs the word TABLE before it", i.value)).at(at).help(format!("write TABLE {i}")))
        }
        other => {
            Err(Error::user(format!("{} needs a table, not {other}", function.name)).at(at).help(format!("write {}", function.example)))
        }
    }
}

/// The name inside `$table(name, …)` or `$model(name)`, and what follows it.
pub(super) fn named(f: &Function, at: Span) -> Result<(Vec<Ident>, Vec<Expr>)> {
    let nameless = || Error::internal(format!("{} without a name", f.name)).at(at);
    let FunctionArguments::List(list) = &f.args else { return Err(nameless()) };
    let mut args = list.args.iter().filter_map(|a| match a {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
        _ => None,
    });
    match args.next() {
        Some(Expr::Identifier(i)) => Ok((vec![i], args.collect())),
        Some(Expr::CompoundIdentifier(parts)) => Ok((parts, args.collect())),
        _ => Err(nameless()),
    }
}

/// Whether the call is the form `name`, such as `$table`.
pub(super) fn is_form(f: &Function, name: &str) -> bool {
    f.name.0.len() == 1 && f.name.to_string().trim_matches('`') == name
}

/// The columns of `DESCRIPTOR(a, …)`; `None`: it is something else.
pub(super) fn descriptor(e: &Expr) -> Option<Result<Vec<Name>>> {
    let Expr::Function(f) = e else { return None };
    let FunctionArguments::List(list) = &f.args else { return None };
    if !f.name.to_string().eq_ignore_ascii_case("DESCRIPTOR") {
        return None;
    }
    let column = |a: &FunctionArg| match a {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(i))) => {
            free(i)?;
            Ok(Name { value: i.value.clone(), span: lex::span(i.span) })
        }
        _ => Err(Error::user("DESCRIPTOR takes names of columns").at(place(a.span(), lex::span(e.span()))).help("write DESCRIPTOR(a, b)")),
    };
    Some(list.args.iter().map(column).collect())
}

/// Refuses what stands behind the call and is no alias, and aliases that cannot be one.
pub(super) fn only_alias(factor: &TableFactor, function: &Signature) -> Result<()> {
    if let TableFactor::Table { with_hints, version, with_ordinality, partitions, json_path, sample, index_hints, args, name, .. } = factor
    {
        let settings = args.as_ref().is_some_and(|a| a.settings.is_some());
        let any = !with_hints.is_empty() || version.is_some() || *with_ordinality || !partitions.is_empty() || json_path.is_some();
        if any || sample.is_some() || !index_hints.is_empty() || settings {
            return Err(Error::user(format!("only an alias may stand behind {}", function.name)).at(lex::span(name.span())));
        }
    }
    if let Some((_, _, Some(a))) = call(factor) {
        std::iter::once(&a.name).chain(a.columns.iter().map(|c| &c.name)).try_for_each(free)?;
    }
    Ok(())
}

/// Refuses a reserved word that stands bare.
pub(super) fn free(i: &Ident) -> Result<()> {
    if i.quote_style.is_none() && is_reserved(&i.value) { Err(reserved_at(&i.value, lex::span(i.span))) } else { Ok(()) }
}

/// The place of an expression, or `default` where sqlparser kept none.
pub(super) fn place(s: TokenSpan, default: Span) -> Span {
    if s.start.line == 0 { default } else { lex::span(s) }
}
