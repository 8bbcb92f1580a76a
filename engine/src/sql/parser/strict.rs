//! The strict pass: what sqlparser reads and Flink (or this version) does not have is refused, and what
//! DataFusion would understand differently is rewritten.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Distinct, DuplicateTreatment, Expr, FunctionArg, FunctionArguments, GroupByExpr, Ident, JoinConstraint,
    JoinOperator, LimitClause, ObjectName, ObjectNamePart, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr, SetOperator, SetQuantifier, Spanned, Subscript, TableAlias, TableFactor, TableVersion, UnaryOperator, Value, Visit, VisitMut,
    Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span as TokenSpan;

use super::dialect::reserved_at;
use super::keywords::is_reserved;
use super::statements::unqualified;
use super::{forms, lex, model, tvf};
use crate::error::{Error, Result};
use crate::sql::ast::Name;

/// Checks and rewrites a query.
pub(super) fn query(query: &mut Query) -> Result<()> {
    finish(query.visit(&mut Strict::default()))
}

/// Checks and rewrites an expression.
pub(super) fn expr(expr: &mut Expr) -> Result<()> {
    finish(VisitMut::visit(expr, &mut Strict::default()))
}

/// Refuses a query inside an expression of CREATE TABLE.
pub(super) fn no_subquery(expr: &Expr) -> Result<()> {
    struct Queries;
    impl Visitor for Queries {
        type Break = Error;
        fn pre_visit_query(&mut self, q: &Query) -> ControlFlow<Error> {
            ControlFlow::Break(refuse(q.span(), "a query cannot stand in a column of CREATE TABLE", "compute it in the INSERT's query"))
        }
    }
    finish(Visit::visit(expr, &mut Queries))
}

/// Names in GROUP BY that are aliases of the SELECT list. Flink knows no aliases there; DataFusion resolves
/// them. The planner refuses a name of this list that is not also a column of the input.
pub fn group_by_aliases(select: &Select) -> Vec<Name> {
    let GroupByExpr::Expressions(keys, _) = &select.group_by else { return vec![] };
    let alias =
        |i: &Ident| select.projection.iter().any(|p| matches!(p, SelectItem::ExprWithAlias { alias, .. } if alias.value == i.value));
    let named = keys.iter().filter_map(|k| match k {
        Expr::Identifier(i) if alias(i) => Some(Name { value: i.value.clone(), span: lex::span(i.span) }),
        _ => None,
    });
    named.collect()
}

fn finish(flow: ControlFlow<Error>) -> Result<()> {
    match flow {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn refuse(at: TokenSpan, message: impl Into<String>, help: &str) -> Error {
    Error::user(message).at(lex::span(at)).help(help)
}

fn later(at: TokenSpan, what: &str) -> Error {
    Error::user(format!("{what} is not yet supported")).at(lex::span(at))
}

/// `functions` counts the table functions around the expression: only their arguments may be tables and have
/// names.
#[derive(Default)]
struct Strict {
    functions: usize,
}

impl VisitorMut for Strict {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        flow(check_query(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        flow(check_select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        self.functions += is_table_function(factor) as usize;
        flow(check_factor(factor))
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        self.functions -= is_table_function(factor) as usize;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        flow(check_expr(expr, self.functions > 0))
    }

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<Error> {
        flow(relation(name))
    }
}

fn is_table_function(factor: &TableFactor) -> bool {
    matches!(tvf::window_call(factor), Ok(Some(_))) || matches!(model::predict_call(factor), Ok(Some(_)))
}

fn flow(r: Result<()>) -> ControlFlow<Error> {
    match r {
        Ok(()) => ControlFlow::Continue(()),
        Err(e) => ControlFlow::Break(e),
    }
}

fn ident(i: &Ident) -> Result<()> {
    match i.quote_style {
        None if is_reserved(&i.value) => Err(reserved_at(&i.value, lex::span(i.span))),
        Some('\'') => Err(refuse(i.span, format!("the text '{}' cannot be a name", i.value), "write the name bare or in back-ticks")),
        _ if i.value.is_empty() => Err(refuse(i.span, "a name is empty", "write a name")),
        _ => Ok(()),
    }
}

/// The name of a table: cut to its last part.
fn relation(name: &mut ObjectName) -> Result<()> {
    let mut parts = Vec::new();
    for part in &name.0 {
        let ObjectNamePart::Identifier(i) = part else {
            return Err(refuse(name.span(), format!("'{name}' is not the name of a table"), "write a name"));
        };
        ident(i)?;
        parts.push(Name { value: i.value.clone(), span: lex::span(i.span) });
    }
    if parts.len() > 1 {
        unqualified(parts)?;
        let last = name.0.pop().expect("it has two parts");
        name.0 = vec![last];
    }
    Ok(())
}

fn alias(a: &Option<TableAlias>, default: TokenSpan) -> Result<()> {
    let Some(a) = a else { return Ok(()) };
    if a.name.quote_style == Some('\'') {
        return Err(refuse(default, format!("the text '{}' cannot be an alias", a.name.value), "write the alias bare or in back-ticks"));
    }
    ident(&a.name)?;
    if let Some(at) = &a.at {
        return Err(later(at.span, "AT"));
    }
    for c in &a.columns {
        ident(&c.name)?;
        if c.data_type.is_some() {
            return Err(refuse(c.name.span, "an alias's column has no type", "write the name alone"));
        }
    }
    Ok(())
}

fn check_query(q: &mut Query) -> Result<()> {
    let at = q.span();
    if let Some(with) = &q.with {
        if with.recursive {
            return Err(refuse(
                with.with_token.0.span,
                "WITH RECURSIVE does not exist in this dialect",
                "a stream's query cannot ask for itself",
            ));
        }
        for cte in &with.cte_tables {
            alias(&Some(cte.alias.clone()), cte.alias.name.span)?;
            if cte.materialized.is_some() || cte.from.is_some() {
                return Err(refuse(cte.alias.name.span, "MATERIALIZED does not exist in this dialect", "write WITH name AS (query)"));
            }
        }
    }
    body(&q.body)?;
    if let Some(order) = &q.order_by {
        if let OrderByKind::All(_) = order.kind {
            return Err(refuse(at, "ORDER BY ALL does not exist in this dialect", "name the columns"));
        }
        if order.interpolate.is_some() {
            return Err(refuse(at, "INTERPOLATE does not exist in this dialect", "leave it out"));
        }
    }
    match &q.limit_clause {
        Some(LimitClause::OffsetCommaLimit { offset, .. }) => {
            return Err(refuse(offset.span(), "LIMIT with a comma does not exist in this dialect", "write LIMIT count OFFSET start"));
        }
        Some(LimitClause::LimitOffset { limit_by, .. }) if !limit_by.is_empty() => {
            return Err(refuse(limit_by[0].span(), "LIMIT … BY does not exist in this dialect", "use ROW_NUMBER() with PARTITION BY"));
        }
        _ => {}
    }
    if let Some(fetch) = q.fetch.take() {
        if fetch.with_ties || fetch.percent {
            return Err(refuse(at, "FETCH WITH TIES and PERCENT do not exist in this dialect", "write LIMIT count"));
        }
        let one = || Expr::Value(Value::Number("1".into(), false).with_span(at));
        let limit = Some(fetch.quantity.unwrap_or_else(one));
        q.limit_clause = Some(match q.limit_clause.take() {
            Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) => LimitClause::LimitOffset { limit, offset, limit_by },
            None => LimitClause::LimitOffset { limit, offset: None, limit_by: vec![] },
            Some(_) => return Err(refuse(at, "a query has LIMIT or FETCH, not both", "remove one of them")),
        });
    }
    if !q.locks.is_empty() || q.for_clause.is_some() {
        return Err(refuse(
            at,
            "FOR UPDATE and the like do not exist in this dialect",
            "for a temporal join the alias stands behind: t FOR SYSTEM_TIME AS OF s.ts AS a",
        ));
    }
    if q.settings.is_some() || q.format_clause.is_some() || !q.pipe_operators.is_empty() {
        return Err(refuse(at, "SETTINGS, FORMAT and |> do not exist in this dialect", "leave them out"));
    }
    Ok(())
}

fn body(b: &SetExpr) -> Result<()> {
    match b {
        SetExpr::Select(_) | SetExpr::Query(_) => Ok(()),
        SetExpr::Values(v) if v.value_keyword => Err(refuse(b.span(), "VALUE does not exist in this dialect", "write VALUES")),
        SetExpr::Values(_) => Ok(()),
        SetExpr::SetOperation { left, op, set_quantifier, right } => {
            let at = right.span();
            match op {
                SetOperator::Union => {}
                SetOperator::Minus => return Err(refuse(at, "MINUS does not exist in this dialect", "write EXCEPT")),
                other => return Err(later(at, &other.to_string())),
            }
            if !matches!(set_quantifier, SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None) {
                return Err(refuse(at, "BY NAME does not exist in this dialect", "list the columns in the same order on both sides"));
            }
            body(left)?;
            body(right)
        }
        SetExpr::Table(_) => Err(later(b.span(), "TABLE as a query").help("write SELECT * FROM the table")),
        SetExpr::Insert(_) => Err(refuse(b.span(), "WITH stands behind INSERT INTO", "write INSERT INTO t WITH name AS (…) SELECT …")),
        SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            Err(refuse(b.span(), "UPDATE, DELETE and MERGE are not yet supported", "a query is a SELECT"))
        }
    }
}

fn check_select(s: &mut Select) -> Result<()> {
    let at = s.select_token.0.span;
    if matches!(s.distinct, Some(Distinct::On(_))) {
        return Err(refuse(at, "DISTINCT ON does not exist in this dialect", "use ROW_NUMBER() OVER (PARTITION BY …) in a subquery"));
    }
    if s.top.is_some() {
        return Err(refuse(at, "SELECT TOP does not exist in this dialect", "write LIMIT count at the end of the query"));
    }
    if let Some(into) = &s.into {
        return Err(refuse(into.name.span(), "SELECT INTO does not exist in this dialect", "write INSERT INTO table SELECT …"));
    }
    if let Some(q) = &s.qualify {
        return Err(later(q.span(), "QUALIFY").help("put the window function into a subquery and filter outside"));
    }
    if let Some(w) = s.named_window.first() {
        return Err(later(w.0.span, "the WINDOW clause").help("write the window behind OVER"));
    }
    for item in &s.projection {
        match item {
            SelectItem::ExprWithAlias { expr, alias } if alias.quote_style == Some('\'') => {
                return Err(refuse(
                    expr.span(),
                    format!("the text '{}' cannot be an alias", alias.value),
                    "write the alias bare or in back-ticks",
                ));
            }
            SelectItem::ExprWithAlias { alias, .. } => ident(alias)?,
            SelectItem::UnnamedExpr(_) => {}
            SelectItem::ExprWithAliases { expr, .. } => return Err(refuse(expr.span(), "an expression has one alias", "write AS name")),
            SelectItem::Wildcard(o) | SelectItem::QualifiedWildcard(_, o) => {
                if o.opt_ilike.is_some()
                    || o.opt_exclude.is_some()
                    || o.opt_except.is_some()
                    || o.opt_replace.is_some()
                    || o.opt_rename.is_some()
                    || o.opt_alias.is_some()
                {
                    return Err(later(o.wildcard_token.0.span, "* with EXCEPT, EXCLUDE, REPLACE or the like").help("list the columns"));
                }
                if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(e), _) = item {
                    return Err(later(e.span(), "the fields of a row as .*").help("list the fields"));
                }
            }
        }
    }
    let foreign = [
        (!s.lateral_views.is_empty(), "LATERAL VIEW"),
        (s.prewhere.is_some(), "PREWHERE"),
        (!s.connect_by.is_empty(), "CONNECT BY"),
        (!s.cluster_by.is_empty(), "CLUSTER BY"),
        (!s.distribute_by.is_empty(), "DISTRIBUTE BY"),
        (!s.sort_by.is_empty(), "SORT BY"),
        (s.exclude.is_some(), "EXCLUDE"),
        (s.select_modifiers.is_some(), "a modifier behind SELECT"),
        (s.value_table_mode.is_some(), "SELECT AS VALUE"),
        (!s.optimizer_hints.is_empty(), "a hint"),
    ];
    if let Some((_, what)) = foreign.iter().find(|(found, _)| *found) {
        return Err(refuse(at, format!("{what} does not exist in this dialect"), "leave it out"));
    }
    match &mut s.group_by {
        GroupByExpr::All(_) => return Err(refuse(at, "GROUP BY ALL does not exist in this dialect", "name the columns to group by")),
        GroupByExpr::Expressions(keys, modifiers) => {
            if !modifiers.is_empty() {
                return Err(refuse(at, "WITH ROLLUP and the like do not exist in this dialect", "name the columns to group by"));
            }
            for key in keys {
                if let Expr::Value(v) = key
                    && let Value::Number(n, _) = &v.value
                    && n.bytes().all(|b| b.is_ascii_digit())
                {
                    let sql_type = if n.parse::<i32>().is_ok() { "INT" } else { "BIGINT" };
                    let span = v.span;
                    *key = forms::call("$cast", vec![key.clone(), forms::text(sql_type, span)], span);
                }
            }
        }
    }
    for from in &s.from {
        for join in &from.joins {
            let at = join.relation.span();
            let constraint = match &join.join_operator {
                _ if join.global => return Err(refuse(at, "GLOBAL JOIN does not exist in this dialect", "write JOIN")),
                JoinOperator::Join(c)
                | JoinOperator::Inner(c)
                | JoinOperator::Left(c)
                | JoinOperator::LeftOuter(c)
                | JoinOperator::Right(c)
                | JoinOperator::RightOuter(c)
                | JoinOperator::FullOuter(c)
                | JoinOperator::CrossJoin(c) => c,
                other => {
                    let name = format!("{other:?}");
                    let name = name.split(['(', ' ', '{']).next().unwrap_or_default().to_string();
                    return Err(refuse(
                        at,
                        format!("the join {name} does not exist in this dialect"),
                        "there are JOIN, LEFT, RIGHT, FULL and CROSS JOIN",
                    ));
                }
            };
            let cross = matches!(join.join_operator, JoinOperator::CrossJoin(_));
            match constraint {
                JoinConstraint::None if !cross => {
                    return Err(refuse(at, "the join has no condition", "write ON a.key = b.key behind it"));
                }
                JoinConstraint::Using(columns) => {
                    for c in columns.iter().flat_map(|c| &c.0) {
                        if let ObjectNamePart::Identifier(i) = c {
                            ident(i)?;
                        }
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn check_factor(f: &mut TableFactor) -> Result<()> {
    let at = f.span();
    if tvf::window_call(f)?.is_some() || model::predict_call(f)?.is_some() {
        return Ok(());
    }
    match f {
        TableFactor::Table { name, alias: a, args, with_hints, version, with_ordinality, partitions, json_path, sample, index_hints } => {
            if args.is_some() {
                return Err(later(name.span(), &format!("the table function {name}")));
            }
            if !with_hints.is_empty() || !index_hints.is_empty() {
                return Err(refuse(at, "hints behind a table do not exist in this dialect", "leave them out"));
            }
            if sample.is_some() {
                return Err(later(at, "TABLESAMPLE"));
            }
            if *with_ordinality || !partitions.is_empty() || json_path.is_some() {
                return Err(refuse(at, "WITH ORDINALITY, PARTITION and paths do not exist behind a table", "leave them out"));
            }
            match version {
                None | Some(TableVersion::ForSystemTimeAsOf(_)) => {}
                Some(_) => {
                    return Err(refuse(
                        at,
                        "this way of naming a version does not exist in this dialect",
                        "write t FOR SYSTEM_TIME AS OF s.ts AS a",
                    ));
                }
            }
            alias(a, at)
        }
        TableFactor::Derived { lateral, alias: a, sample, .. } => {
            if *lateral {
                return Err(later(at, "LATERAL"));
            }
            if sample.is_some() {
                return Err(later(at, "TABLESAMPLE"));
            }
            alias(a, at)
        }
        TableFactor::NestedJoin { alias: a, .. } => match a {
            Some(a) => Err(refuse(a.name.span, "a join in parentheses has no alias", "give aliases to its tables")),
            None => Ok(()),
        },
        TableFactor::TableFunction { expr, .. } => {
            let name = match &*expr {
                Expr::Function(f) => f.name.to_string(),
                other => other.to_string(),
            };
            Err(later(expr.span(), &format!("the table function {name}")).help("there are TUMBLE, HOP and ML_PREDICT"))
        }
        TableFactor::Function { name, .. } => Err(later(name.span(), "LATERAL TABLE")),
        TableFactor::UNNEST { .. } => Err(later(at, "UNNEST")),
        TableFactor::MatchRecognize { .. } => Err(later(at, "MATCH_RECOGNIZE")),
        TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => Err(later(at, "PIVOT")),
        _ => Err(refuse(
            at,
            "this kind of table does not exist in this dialect",
            "there are tables, views, queries in parentheses and window functions",
        )),
    }
}

fn check_expr(e: &mut Expr, in_function: bool) -> Result<()> {
    let at = e.span();
    match e {
        Expr::Identifier(i) => ident(i),
        Expr::CompoundIdentifier(parts) => parts.iter().try_for_each(ident),
        Expr::CompoundFieldAccess { access_chain, .. } => access_chain.iter().try_for_each(|a| match a {
            AccessExpr::Dot(Expr::Identifier(i)) => ident(i),
            AccessExpr::Dot(other) => Err(refuse(other.span(), "a field's name is needed behind the point", "write row.field")),
            AccessExpr::Subscript(Subscript::Index { index }) => match index {
                Expr::Value(v) if matches!(&v.value, Value::Number(n, _) if n == "0") => {
                    Err(refuse(v.span, "an array starts at 1", "write [1] for its first element"))
                }
                _ => Ok(()),
            },
            AccessExpr::Subscript(Subscript::Slice { .. }) => {
                Err(refuse(at, "a slice of an array does not exist in this dialect", "use ARRAY_SLICE(array, start, end)"))
            }
        }),
        Expr::Value(v) => match &v.value {
            Value::Placeholder(p) => Err(refuse(v.span, format!("'{p}': a statement has no parameters"), "write the value itself")),
            _ => Ok(()),
        },
        Expr::Function(f) => {
            let name = f.name.to_string();
            if f.uses_odbc_syntax || f.parameters != FunctionArguments::None {
                return Err(refuse(at, "this way of calling a function does not exist in this dialect", "write name(arguments)"));
            }
            if f.name.0.len() > 1 {
                return Err(refuse(f.name.span(), format!("the function '{name}' has a qualified name"), "write its name alone"));
            }
            if !f.within_group.is_empty() {
                return Err(later(at, "WITHIN GROUP"));
            }
            if f.null_treatment.is_some() {
                return Err(later(at, "IGNORE NULLS and RESPECT NULLS"));
            }
            match &f.args {
                FunctionArguments::Subquery(_) => return Err(later(at, "a query as an argument")),
                FunctionArguments::List(list) => {
                    if !list.clauses.is_empty() {
                        return Err(later(at, &format!("a clause among the arguments of {name}"))
                            .help("leave out what stands behind the last argument"));
                    }
                    if !in_function && list.args.iter().any(|a| !matches!(a, FunctionArg::Unnamed(_))) {
                        return Err(later(at, "a named argument of this function").help("write the arguments in order"));
                    }
                }
                FunctionArguments::None => {}
            }
            // COUNT(ALL x) is COUNT(x); DataFusion does not know the word.
            if let FunctionArguments::List(list) = &mut f.args
                && list.duplicate_treatment == Some(DuplicateTreatment::All)
            {
                list.duplicate_treatment = None;
            }
            if !in_function && name.trim_matches('`') == forms::TABLE {
                return Err(refuse(
                    at,
                    "TABLE stands only in table functions",
                    "write, say, FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE)",
                ));
            }
            Ok(())
        }
        Expr::BinaryOp { op, .. } => match op {
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::StringConcat
            | BinaryOperator::Gt
            | BinaryOperator::Lt
            | BinaryOperator::GtEq
            | BinaryOperator::LtEq
            | BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::And
            | BinaryOperator::Or => Ok(()),
            other => Err(refuse(at, format!("the operator {other} does not exist in this dialect"), "use a function")),
        },
        Expr::UnaryOp { op, .. } => match op {
            UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not => Ok(()),
            other => Err(refuse(at, format!("the operator {other} does not exist in this dialect"), "use a function")),
        },
        Expr::Like { any: false, .. }
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::InSubquery { .. }
        | Expr::Between { .. }
        | Expr::Trim { .. }
        | Expr::Nested(_)
        | Expr::Case { .. }
        | Expr::Exists { .. }
        | Expr::Subquery(_)
        | Expr::Tuple(_)
        | Expr::Map(_)
        | Expr::Array(_)
        | Expr::Wildcard(_)
        | Expr::QualifiedWildcard(..)
        | Expr::Interval(_) => Ok(()),
        Expr::InList { list, .. } if list.is_empty() => Err(refuse(at, "the list behind IN is empty", "put at least one value into it")),
        Expr::InList { .. } => Ok(()),
        Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
            Err(later(at, "grouping by GROUPING SETS, CUBE or ROLLUP").help("write one INSERT for each grouping"))
        }
        Expr::AnyOp { .. } | Expr::AllOp { .. } => Err(later(at, "a comparison with ANY, SOME or ALL").help("write IN, or EXISTS")),
        Expr::Collate { .. } => Err(refuse(at, "COLLATE does not exist in this dialect", "text compares by code points")),
        Expr::TypedString(t) => Err(refuse(at, format!("a literal of the type {} does not exist", t.data_type), "write CAST('…' AS type)")),
        Expr::Lambda(_) => Err(refuse(at, "a lambda does not exist in this dialect", "use a function")),
        other => Err(refuse(at, format!("'{other}' does not exist in this dialect"), "use a function")),
    }
}
