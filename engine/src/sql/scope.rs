//! Rules of names that DataFusion's binder has otherwise: GROUP BY and HAVING see the columns of FROM and
//! not the aliases of SELECT, and every column of a SELECT has a name of its own.
//!
//! Unnamed expressions are called `EXPR$0`, `EXPR$1`, … by their place, a name that is taken gets a number
//! behind it: as in Flink.

use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, ObjectName, Query, Select, SelectFlavor, SelectItem, SetExpr, Statement,
    TableFactor, TableFunctionArgs, TableWithJoins, With,
};

use super::provider::Provider;
use crate::error::{Error, Result, Span};

/// Checks a query and names its columns, subqueries of FROM and WITH included.
///
/// # Errors
/// User: an alias of SELECT in GROUP BY or HAVING.
pub fn check(provider: &Provider<'_>, query: &mut Query) -> Result<()> {
    in_query(provider, query, None)
}

fn in_query(provider: &Provider<'_>, query: &mut Query, outer: Option<&With>) -> Result<()> {
    let mut scope = outer.cloned();
    if let Some(with) = &mut query.with {
        for i in 0..with.cte_tables.len() {
            in_query(provider, &mut with.cte_tables[i].query, scope.as_ref())?;
            let cte = with.cte_tables[i].clone();
            match &mut scope {
                Some(scope) => scope.cte_tables.push(cte),
                None => scope = Some(With { cte_tables: vec![cte], ..with.clone() }),
            }
        }
    }
    in_set(provider, &mut query.body, scope.as_ref())
}

fn in_set(provider: &Provider<'_>, body: &mut SetExpr, scope: Option<&With>) -> Result<()> {
    match body {
        SetExpr::Select(select) => in_select(provider, select, scope),
        SetExpr::Query(query) => in_query(provider, query, scope),
        SetExpr::SetOperation { left, right, .. } => {
            in_set(provider, left, scope)?;
            in_set(provider, right, scope)
        }
        SetExpr::Values(values) => {
            *body = as_table(&values.rows.iter().map(|r| r.content.clone()).collect::<Vec<_>>());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `SELECT * FROM $values((…), (…))`, which [`super::relations`] plans: rows of text or time literals of
/// different length have types that DataFusion's own VALUES does not bring together.
fn as_table(rows: &[Vec<Expr>]) -> SetExpr {
    let args = rows.iter().map(|r| FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Tuple(r.clone())))).collect();
    let table = TableFactor::Table {
        name: ObjectName::from(vec![Ident::new(VALUES)]),
        alias: None,
        args: Some(TableFunctionArgs { args, settings: None }),
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    };
    SetExpr::Select(Box::new(select_all(vec![TableWithJoins { relation: table, joins: vec![] }])))
}

/// The table function that VALUES becomes.
pub const VALUES: &str = "$values";

fn in_select(provider: &Provider<'_>, select: &mut Select, scope: Option<&With>) -> Result<()> {
    for table in &mut select.from {
        in_tables(provider, table, scope)?;
    }
    group_by_sees_from(provider, select, scope)?;
    let tables = table_names(&select.from);
    name_columns(&mut select.projection, &tables);
    Ok(())
}

fn in_tables(provider: &Provider<'_>, tables: &mut TableWithJoins, scope: Option<&With>) -> Result<()> {
    let joined = tables.joins.iter_mut().map(|j| &mut j.relation);
    for factor in std::iter::once(&mut tables.relation).chain(joined) {
        match factor {
            TableFactor::Derived { subquery, .. } => in_query(provider, subquery, scope)?,
            TableFactor::NestedJoin { table_with_joins, .. } => in_tables(provider, table_with_joins, scope)?,
            _ => {}
        }
    }
    Ok(())
}

fn group_by_sees_from(provider: &Provider<'_>, select: &Select, scope: Option<&With>) -> Result<()> {
    let grouped: &[Expr] = match &select.group_by {
        GroupByExpr::All(_) => return Err(Error::user("GROUP BY ALL is not part of the dialect").help("name the columns")),
        GroupByExpr::Expressions(exprs, _) => exprs,
    };
    let aliases: Vec<(&str, &Expr)> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if named(expr).is_none_or(|n| n.value != alias.value) => {
                Some((alias.value.as_str(), expr))
            }
            _ => None,
        })
        .collect();
    let mut used: Vec<(&Ident, &str)> = Vec::new();
    grouped.iter().for_each(|e| identifiers(e, &mut |i| used.push((i, "GROUP BY"))));
    if let Some(having) = &select.having {
        identifiers(having, &mut |i| used.push((i, "HAVING")));
    }
    used.retain(|(i, _)| aliases.iter().any(|(a, _)| *a == i.value));
    if used.is_empty() {
        return Ok(());
    }
    let columns = columns_of_from(provider, select, scope);
    for (ident, clause) in used {
        if columns.contains(&ident.value) {
            continue;
        }
        let of = aliases.iter().find(|(a, _)| *a == ident.value).map(|(_, e)| e.to_string()).unwrap_or_default();
        let span = Span {
            line: ident.span.start.line as u32,
            column: ident.span.start.column as u32,
            width: (ident.span.end.column.saturating_sub(ident.span.start.column) as u32).max(1),
        };
        let e = Error::user(format!("column '{}' not found: {clause} does not see the aliases of SELECT", ident.value)).at(span);
        return Err(match of.contains('$') || of.len() > 60 {
            true => e.help(format!("repeat the expression in {clause}, or name it in a subquery of FROM")),
            false => e.help(format!("write {clause} {of}, or name it in a subquery of FROM")),
        });
    }
    Ok(())
}

/// Names of the columns that FROM gives; none where FROM itself does not bind, which is reported later.
fn columns_of_from(provider: &Provider<'_>, select: &Select, scope: Option<&With>) -> Vec<String> {
    let probe = select_all(select.from.clone());
    let query = Query {
        with: scope.cloned(),
        body: Box::new(SetExpr::Select(Box::new(probe))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    };
    let plan = SqlToRel::new(provider).sql_statement_to_plan(Statement::Query(Box::new(query)));
    plan.map(|p| p.schema().fields().iter().map(|f| f.name().clone()).collect()).unwrap_or_default()
}

fn select_all(from: Vec<TableWithJoins>) -> Select {
    Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: vec![],
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![SelectItem::Wildcard(Default::default())],
        exclude: None,
        into: None,
        from,
        lateral_views: vec![],
        prewhere: None,
        selection: None,
        connect_by: vec![],
        group_by: GroupByExpr::Expressions(vec![], vec![]),
        cluster_by: vec![],
        distribute_by: vec![],
        sort_by: vec![],
        having: None,
        named_window: vec![],
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    }
}

/// Bare identifiers of an expression, those inside aggregate calls left out.
fn identifiers<'a>(expr: &'a Expr, f: &mut dyn FnMut(&'a Ident)) {
    match expr {
        Expr::Identifier(i) => f(i),
        Expr::Nested(e) | Expr::UnaryOp { expr: e, .. } | Expr::IsNull(e) | Expr::IsNotNull(e) => identifiers(e, f),
        Expr::BinaryOp { left, right, .. } => {
            identifiers(left, f);
            identifiers(right, f);
        }
        Expr::Between { expr, low, high, .. } => [expr, low, high].into_iter().for_each(|e| identifiers(e, f)),
        Expr::InList { expr, list, .. } => {
            identifiers(expr, f);
            list.iter().for_each(|e| identifiers(e, f));
        }
        _ => {}
    }
}

/// The name an expression brings along: a column's.
fn named(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(i) => Some(i),
        Expr::CompoundIdentifier(parts) => parts.last(),
        Expr::Nested(e) => named(e),
        _ => None,
    }
}

/// Names by which the tables of FROM are called.
fn table_names(from: &[TableWithJoins]) -> Vec<String> {
    let factors = from.iter().flat_map(|t| std::iter::once(&t.relation).chain(t.joins.iter().map(|j| &j.relation)));
    let name = |factor: &TableFactor| match factor {
        TableFactor::Table { alias: Some(a), .. }
        | TableFactor::Derived { alias: Some(a), .. }
        | TableFactor::TableFunction { alias: Some(a), .. } => Some(a.name.value.clone()),
        TableFactor::Table { name, alias: None, .. } => name.0.last().and_then(|p| p.as_ident()).map(|i| i.value.clone()),
        _ => None,
    };
    factors.filter_map(name).collect()
}

fn name_columns(projection: &mut [SelectItem], tables: &[String]) {
    let star = projection.iter().any(|p| matches!(p, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut taken: Vec<String> = Vec::new();
    for (i, item) in projection.iter_mut().enumerate() {
        let (own, expr) = match item {
            SelectItem::UnnamedExpr(e) => (named(e).map(|n| n.value.clone()), e.clone()),
            SelectItem::ExprWithAlias { alias, .. } => {
                taken.push(alias.value.clone());
                continue;
            }
            _ => continue,
        };
        // A field of a ROW takes the field's name. A column of a table keeps its table's beside a star,
        // which may give a column of the same name.
        let qualified = match &expr {
            Expr::CompoundIdentifier(parts) => !(star && parts.len() == 2 && tables.contains(&parts[0].value)),
            _ => false,
        };
        let wanted = own.clone().unwrap_or_else(|| format!("EXPR${i}"));
        let mut free = wanted.clone();
        let mut n = 0;
        while taken.contains(&free) {
            free = format!("{wanted}{n}");
            n += 1;
        }
        taken.push(free.clone());
        if qualified || own.as_deref() != Some(free.as_str()) {
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('`', free) };
        }
    }
}
