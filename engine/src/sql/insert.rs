//! INSERT INTO: the query's columns by position into the sink's, with Flink's implicit casts.
//!
//! What must hold: a type that Flink would not cast implicitly is refused with the column and both types;
//! an updating result reaches only sinks that take updates.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};

use super::bind;
use super::catalog::Table;
use super::convert::{Converter, PORTABLE};
use super::draft::{SinkDraft, Updating};
use super::portable::Finding;
use super::provider::Provider;
use super::settings::Settings;
use crate::connectors::{self, Accepts, Context, TableSpec};
use crate::error::{Error, Result, Span, nearest};
use crate::sql::ast::{Insert, Name};
use crate::sql::plan::NodeId;
use crate::stream::SqlType;

/// The analysed plan of an INSERT's query with exactly the sink's columns.
///
/// # Errors
/// User: columns or types that do not fit.
pub fn plan(provider: &Provider<'_>, insert: &Insert, spec: &TableSpec, span: Span) -> Result<LogicalPlan> {
    let query = bind::query(provider, &insert.query)?;
    let columns = sink_fields(spec);
    let targets = targets(insert, spec, &columns)?;
    let given = query.schema().fields().len();
    if given != targets.len() {
        let names: Vec<&str> = targets.iter().map(|i| columns[*i].name().as_str()).collect();
        let e = Error::user(format!("INSERT INTO {} takes {} columns, but the query has {given}", spec.name, targets.len()))
            .at(insert.table.span);
        let types: Vec<String> = query.schema().fields().iter().map(|f| f.name().clone()).collect();
        return Err(e.help(format!("the table takes ({}), the query gives ({})", names.join(", "), types.join(", "))));
    }
    let mut exprs = Vec::with_capacity(columns.len());
    for (i, column) in columns.iter().enumerate() {
        let value = match targets.iter().position(|t| *t == i) {
            Some(position) => {
                let (qualifier, field) = query.schema().qualified_field(position);
                let expr = Expr::Column((qualifier, field).into());
                fit(provider, expr, field, column, spec).map_err(|e| e.at(span_of_item(insert, position).unwrap_or(span)))?
            }
            None => match partition_value(provider, insert, column)? {
                Some(value) => value,
                None if column.is_nullable() => Expr::Literal(ScalarValue::try_from(column.data_type())?, None),
                None => {
                    let e = Error::user(format!("column '{}' of '{}' is NOT NULL, but INSERT does not give it", column.name(), spec.name));
                    return Err(e.at(insert.table.span));
                }
            },
        };
        exprs.push(value.alias(column.name()));
    }
    let plan = LogicalPlanBuilder::from(query).project(exprs)?.build()?;
    bind::analyse(provider.dialect, plan)
}

/// Opens the sink and refuses what it does not take.
///
/// # Errors
/// User: an updating result into an append-only sink; options that do not fit.
pub fn sink(
    converter: &mut Converter<'_>,
    input: NodeId,
    table: &Table,
    spec: TableSpec,
    settings: &Settings,
    context: &Context,
) -> Result<SinkDraft> {
    let sink = connectors::sink(&spec, context).map_err(|e| table.origin.place(e, table.name.span))?;
    if let (Some((span, true)), Accepts::AppendOnly) = (converter.draft.nodes[input].plain_join, sink.accepts()) {
        converter.findings.push(Finding {
            span,
            what: format!("a plain LEFT JOIN with a static table: Flink updates its result, which the table '{}' does not take", spec.name),
            portable: PORTABLE.to_string(),
        });
    }
    let node = &converter.draft.nodes[input];
    match (&node.updates, sink.accepts()) {
        (None, _) | (Some(_), Accepts::Changelog) => {}
        (Some(Updating { what, span }), Accepts::AppendOnly) => {
            let connector = spec.options.get("connector").map_or("", String::as_str);
            let e = Error::user(format!(
                "the {connector} table '{}' only takes new rows, but {what} changes rows that it has given",
                spec.name
            ));
            let e = e.at(span.unwrap_or(converter.span));
            return Err(
                e.help("group by window_start, window_end of TUMBLE or HOP, which gives each row once; or write to a 'print' table")
            );
        }
        (Some(_), Accepts::Upsert) => {
            let key: Option<Vec<usize>> = spec.primary_key.iter().map(|k| node.fields.iter().position(|f| f.name() == k)).collect();
            let mut key = key.unwrap_or_default();
            let mut own = node.upsert_key.clone();
            key.sort_unstable();
            own.sort_unstable();
            if key != own {
                let names = |key: &[usize]| key.iter().map(|i| node.fields[*i].name().as_str()).collect::<Vec<_>>().join(", ");
                let e = converter.unsupported(&format!(
                    "an updating result whose key ({}) is not the PRIMARY KEY ({}) of '{}'",
                    names(&own),
                    spec.primary_key.join(", "),
                    spec.name
                ));
                return Err(e.help("make the GROUP BY columns the PRIMARY KEY of the table"));
            }
        }
    }
    Ok(SinkDraft { table: Some((Arc::new(spec), sink)), drop_nulls: settings.drops_nulls() })
}

/// The columns that INSERT writes: physical ones, then metadata that is not VIRTUAL, as in the sink's batches.
fn sink_fields(spec: &TableSpec) -> Vec<FieldRef> {
    let metadata = spec.metadata.iter().filter(|m| !m.is_virtual).map(|m| Arc::clone(&m.field));
    spec.physical.fields().iter().cloned().chain(metadata).collect()
}

/// For each column of the query the sink's column.
fn targets(insert: &Insert, spec: &TableSpec, columns: &[FieldRef]) -> Result<Vec<usize>> {
    let find = |name: &Name| {
        columns.iter().position(|c| *c.name() == name.value).ok_or_else(|| {
            let e = Error::user(format!("'{}' has no column '{}' to insert into", spec.name, name.value)).at(name.span);
            match nearest(&name.value, columns.iter().map(|c| c.name().as_str())) {
                Some(near) => e.help(format!("did you mean '{near}'?")),
                None => e,
            }
        })
    };
    let mut fixed = Vec::new();
    for (name, _) in &insert.partition {
        if !spec.partition_keys.contains(&name.value) {
            let e = Error::user(format!("'{}' is no partition column of '{}'", name.value, spec.name)).at(name.span);
            return Err(match spec.partition_keys.is_empty() {
                true => e.help("declare PARTITIONED BY in CREATE TABLE"),
                false => e.help(format!("it is partitioned by {}", spec.partition_keys.join(", "))),
            });
        }
        fixed.push(find(name)?);
    }
    if insert.columns.is_empty() {
        return Ok((0..columns.len()).filter(|i| !fixed.contains(i)).collect());
    }
    let mut out = Vec::with_capacity(insert.columns.len());
    for name in &insert.columns {
        let i = find(name)?;
        if out.contains(&i) || fixed.contains(&i) {
            return Err(Error::user(format!("column '{}' is given twice", name.value)).at(name.span));
        }
        out.push(i);
    }
    Ok(out)
}

fn partition_value(provider: &Provider<'_>, insert: &Insert, column: &FieldRef) -> Result<Option<Expr>> {
    let Some((name, value)) = insert.partition.iter().find(|(n, _)| n.value == *column.name()) else { return Ok(None) };
    let value = bind::expression(provider, value, &datafusion::common::DFSchema::empty()).map_err(|e| e.at(name.span))?;
    cast(provider, value, &SqlType::of(column)).map(Some)
}

/// The query's column as the sink's type.
fn fit(provider: &Provider<'_>, expr: Expr, from: &FieldRef, to: &FieldRef, spec: &TableSpec) -> Result<Expr> {
    if from.data_type() == &DataType::Null {
        return Ok(Expr::Literal(ScalarValue::try_from(to.data_type())?, None));
    }
    let (have, want) = (SqlType::of(from), SqlType::of(to));
    if !implicit(&have, &want) {
        let e = Error::user(format!("column '{}' of '{}' is {want}, but the query gives {have} ('{}')", to.name(), spec.name, from.name()));
        return Err(e.help(format!("write CAST({} AS {want})", from.name())));
    }
    if have == want || widened(&have, &want) && have.arrow() == want.arrow() {
        return Ok(expr);
    }
    cast(provider, expr, &want)
}

fn cast(provider: &Provider<'_>, expr: Expr, to: &SqlType) -> Result<Expr> {
    let cast = provider.dialect.function("$cast").ok_or_else(|| Error::internal("the cast function is missing"))?;
    Ok(cast.call(vec![expr, lit(to.to_string())]))
}

/// Whether values of one text or time type are values of the other as they are.
fn widened(have: &SqlType, want: &SqlType) -> bool {
    match (have, want) {
        (SqlType::Char(a) | SqlType::VarChar(a), SqlType::VarChar(b)) => a <= b,
        (SqlType::Binary(a) | SqlType::VarBinary(a), SqlType::VarBinary(b)) => a <= b,
        (SqlType::Timestamp(a), SqlType::Timestamp(b)) | (SqlType::TimestampLtz(a), SqlType::TimestampLtz(b)) => a <= b,
        (SqlType::Time(a), SqlType::Time(b)) => a <= b,
        _ => false,
    }
}

/// Flink's implicit casts of INSERT.
fn implicit(have: &SqlType, want: &SqlType) -> bool {
    use SqlType::*;
    let rank = |t: &SqlType| match t {
        TinyInt => Some(0),
        SmallInt => Some(1),
        Int => Some(2),
        BigInt => Some(3),
        _ => None,
    };
    match (have, want) {
        (a, b) if a == b => true,
        (a, b) if a.is_text() && b.is_text() => true,
        (Binary(_) | VarBinary(_), Binary(_) | VarBinary(_)) => true,
        (a, Decimal(..)) => a.is_numeric(),
        (a, Double) => a.is_numeric(),
        (a, Float) => rank(a).is_some() || matches!(a, Decimal(..)),
        (a, b) if rank(a).is_some() && rank(b).is_some() => rank(a) <= rank(b),
        (Timestamp(_) | TimestampLtz(_), Timestamp(_) | TimestampLtz(_)) => true,
        (Timestamp(_), Date | Time(_)) | (Time(_), Time(_)) => true,
        (Array(a, _), Array(b, _)) => implicit(a, b),
        (Map(ak, av, _), Map(bk, bv, _)) => implicit(ak, bk) && implicit(av, bv),
        (Row(a), Row(b)) => a.len() == b.len() && a.iter().zip(b).all(|((_, x, _), (_, y, _))| implicit(x, y)),
        _ => false,
    }
}

/// Where the query's column number `i` is written, where SELECT lists it.
fn span_of_item(insert: &Insert, i: usize) -> Option<Span> {
    use datafusion::sql::sqlparser::ast::{SelectItem, SetExpr, Spanned};
    let SetExpr::Select(select) = insert.query.body.as_ref() else { return None };
    if select.projection.iter().any(|p| !matches!(p, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })) {
        return None;
    }
    let span = select.projection.get(i)?.span();
    let width = if span.start.line == span.end.line { span.end.column.saturating_sub(span.start.column) as u32 } else { 1 };
    (span.start.line > 0).then_some(Span { line: span.start.line as u32, column: span.start.column as u32, width: width.max(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implicit_casts_widen_and_never_narrow() {
        let t = |s: &str| SqlType::parse(s).expect(s);
        for (have, want) in [
            ("INT", "BIGINT"),
            ("BIGINT", "DOUBLE"),
            ("DECIMAL(10,2)", "FLOAT"),
            ("CHAR(3)", "STRING"),
            ("STRING", "VARCHAR(3)"),
            ("TIMESTAMP(3)", "TIMESTAMP_LTZ(3)"),
            ("DOUBLE", "DECIMAL(10,2)"),
        ] {
            assert!(implicit(&t(have), &t(want)), "{have} → {want}");
        }
        for (have, want) in [
            ("BIGINT", "INT"),
            ("DOUBLE", "FLOAT"),
            ("STRING", "INT"),
            ("INT", "STRING"),
            ("STRING", "TIMESTAMP(3)"),
            ("DATE", "TIMESTAMP(3)"),
        ] {
            assert!(!implicit(&t(have), &t(want)), "{have} → {want}");
        }
    }
}
