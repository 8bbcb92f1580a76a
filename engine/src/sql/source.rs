//! A declared table as a source: its computed columns and watermark bound, its connector opened.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource};

use super::bind;
use super::catalog::{Catalog, Place, Table, TableColumns, computed_field};
use super::draft::{ColumnFact, DraftNode, DraftOp, SourceDraft};
use super::nodes::{is_time, without_attribute};
use super::provider::{Dialect, Provider};
use super::settings::Settings;
use super::side_output;
use crate::config::parse_duration;
use crate::connectors::{self, Context};
use crate::error::{Error, Result};
use crate::sql::ast::ColumnKind;
use crate::sql::plan::{self, BadRecords};
use crate::stream::SqlType;
use crate::stream::types::TIME_ATTRIBUTE;

/// A table's columns, bound.
pub struct Bound {
    /// All columns in declared order; the rowtime carries its mark.
    pub fields: Vec<FieldRef>,
    /// One expression a column, over physical, then metadata columns.
    pub columns: Vec<plan::Expr>,
    /// Rowtime and watermark expression over `fields`.
    pub watermark: Option<(usize, plan::Expr)>,
}

/// The table as the planner sees it.
///
/// # Errors
/// User: a computed column or a watermark that cannot be bound.
pub fn columns(dialect: &Dialect, table: &Arc<Table>) -> Result<Arc<dyn TableSource>> {
    let bound = bind(dialect, table).map_err(|e| table.origin.place(e, table.name.span))?;
    Ok(Arc::new(TableColumns { table: Some(Arc::clone(table)), schema: Arc::new(Schema::new(bound.fields)) }))
}

/// Binds computed columns over the connector's columns, and the watermark over all of them.
///
/// # Errors
/// User: as [`columns`].
pub fn bind(dialect: &Dialect, table: &Table) -> Result<Bound> {
    let catalog = Catalog::default();
    let provider = Provider::new(&catalog, dialect);
    let spec = table.source_spec(Default::default());
    let base: Vec<FieldRef> = spec.physical.fields().iter().cloned().chain(spec.metadata.iter().map(|m| Arc::clone(&m.field))).collect();
    let physical_width = spec.physical.fields().len();
    let scan = scan_of(base.clone())?;
    let mut exprs = Vec::new();
    for (column, place) in table.columns.iter().zip(table.places()) {
        exprs.push(match (&column.kind, place) {
            (ColumnKind::Computed(expr), _) => {
                bind::expression(&provider, expr, scan.schema()).map_err(|e| e.at(column.name.span))?.alias(column.name.value.clone())
            }
            (_, Place::Physical(i)) => base_column(&scan, i),
            (_, Place::Metadata(i)) => base_column(&scan, physical_width + i),
            (_, Place::Computed) => return Err(Error::internal("a computed column without an expression")),
        });
    }
    let (columns, mut fields) = physical_projection(dialect, scan, exprs).map_err(|e| e.at(table.name.span))?;
    let Some(watermark) = &table.watermark else { return Ok(Bound { fields, columns, watermark: None }) };
    let rowtime = table.columns.iter().position(|c| c.name.value == watermark.column.value).ok_or_else(|| {
        let e = Error::user(format!("WATERMARK FOR names the column '{}', which is not declared", watermark.column.value))
            .at(watermark.column.span);
        match crate::error::nearest(&watermark.column.value, table.columns.iter().map(|c| c.name.value.as_str())) {
            Some(near) => e.help(format!("did you mean '{near}'?")),
            None => e,
        }
    })?;
    let sql_type = SqlType::of(&fields[rowtime]);
    if !matches!(sql_type, SqlType::Timestamp(0..=3) | SqlType::TimestampLtz(0..=3)) || !is_time(fields[rowtime].data_type()) {
        let e = Error::user(format!(
            "the rowtime column '{}' is {sql_type}, but must be TIMESTAMP(p) or TIMESTAMP_LTZ(p) with p ≤ 3",
            watermark.column.value
        ));
        let help = match sql_type {
            SqlType::Timestamp(_) | SqlType::TimestampLtz(_) => "declare it with a precision of 3, such as TIMESTAMP(3)",
            _ => "add a computed column, such as ts AS TO_TIMESTAMP(…) or TO_TIMESTAMP_LTZ(millis, 3)",
        };
        return Err(e.at(watermark.column.span).help(help));
    }
    let all = scan_of(fields.clone())?;
    let candidate = bind::expression(&provider, &watermark.expr, all.schema()).map_err(|e| e.at(watermark.span))?;
    let (mut candidates, candidate_fields) =
        physical_projection(dialect, all, vec![candidate.alias("watermark")]).map_err(|e| e.at(watermark.span))?;
    let candidate = candidates.swap_remove(0);
    if candidate_fields[0].data_type() != fields[rowtime].data_type() {
        let e = Error::user(format!(
            "the watermark of '{}' is {}, but must be {sql_type} like the column",
            watermark.column.value,
            SqlType::of(&candidate_fields[0])
        ));
        return Err(e.at(watermark.span).help(format!("write WATERMARK FOR {0} AS {0} - INTERVAL '5' SECOND", watermark.column.value)));
    }
    let mut metadata = fields[rowtime].metadata().clone();
    metadata.insert(TIME_ATTRIBUTE.to_string(), "rowtime".to_string());
    fields[rowtime] = Arc::new(fields[rowtime].as_ref().clone().with_metadata(metadata));
    Ok(Bound { fields, columns, watermark: Some((rowtime, candidate)) })
}

/// The table as a node that reads all its columns.
///
/// # Errors
/// User: options that do not fit, or a table that cannot be read.
pub fn node(dialect: &Dialect, table: &Arc<Table>, settings: &Settings, context: &Context) -> Result<DraftNode> {
    let bound = bind(dialect, table).map_err(|e| table.origin.place(e, table.name.span))?;
    let mut knobs = settings.knobs(&table.name.value);
    if settings.is_written(&table.name.value) {
        knobs.insert(connectors::filesystem::MAY_COME.to_string(), "true".to_string());
    }
    let spec = Arc::new(table.source_spec(knobs));
    let source = connectors::source(&spec, context).map_err(|e| table.origin.place(e, table.name.span))?;
    let idle = spec.options.get("scan.watermark.idle-timeout").and_then(|v| parse_duration(v)).filter(|d| !d.is_zero());
    let mut facts = vec![ColumnFact::default(); bound.fields.len()];
    if let Some((rowtime, _)) = &bound.watermark {
        facts[*rowtime].rowtime = true;
    }
    let primary_key: Option<Vec<usize>> = table.primary_key.iter().map(|k| bound.fields.iter().position(|f| f.name() == k)).collect();
    let draft = SourceDraft {
        bad_records: bad_records(&spec, context)?,
        late_rows: spec.knobs.get("late-rows").cloned(),
        table: spec,
        source,
        columns: bound.columns,
        watermark: bound.watermark,
        idle_timeout: idle.or_else(|| settings.idle_timeout()),
    };
    let fields = bound.fields.iter().map(|f| Arc::new(without_attribute(f))).collect();
    let mut node = DraftNode::new(DraftOp::Source(Arc::new(draft)), vec![], fields, facts);
    node.primary_key = primary_key.unwrap_or_default();
    Ok(node)
}

/// The policy that a table's knobs and its format's `ignore-parse-errors` ask for.
fn bad_records(spec: &connectors::TableSpec, context: &Context) -> Result<BadRecords> {
    let target = spec.knobs.get("dead-letter");
    let policy = match spec.knobs.get("bad-records").map(String::as_str) {
        Some(policy) => policy,
        None if target.is_some() => "dead-letter",
        None if spec.options.iter().any(|(k, v)| k.ends_with("ignore-parse-errors") && v.eq_ignore_ascii_case("true")) => "skip",
        None => "fail",
    };
    match (policy, target) {
        ("dead-letter", Some(target)) => {
            let (table, sink) = side_output::sink(spec, "dead-letter", target, side_output::dead_letter_schema(), context)?;
            Ok(BadRecords::DeadLetter(table, sink))
        }
        ("dead-letter", None) => {
            let e = Error::user(format!("'velosql.table.{}.bad-records' is 'dead-letter', but no place for them is named", spec.name));
            Err(e.help(format!("SET 'velosql.table.{}.dead-letter' = 'topic:NAME' or a path", spec.name)))
        }
        ("skip", _) => Ok(BadRecords::Skip),
        _ => Ok(BadRecords::Fail),
    }
}

pub(super) fn scan_of(fields: Vec<FieldRef>) -> Result<LogicalPlan> {
    let bare = TableReference::bare("the table");
    Ok(LogicalPlanBuilder::scan(bare, TableColumns::bare(fields), None)?.build()?)
}

fn base_column(scan: &LogicalPlan, i: usize) -> Expr {
    Expr::Column(scan.schema().columns().swap_remove(i))
}

/// The analysed expressions over `input`'s columns, and the fields that they give.
pub(super) fn physical_projection(dialect: &Dialect, input: LogicalPlan, exprs: Vec<Expr>) -> Result<(Vec<plan::Expr>, Vec<FieldRef>)> {
    let below: DFSchema = input.schema().as_ref().clone();
    let plan = LogicalPlanBuilder::from(input).project(exprs)?.build()?;
    let plan = bind::analyse(dialect, plan)?;
    let LogicalPlan::Projection(projection) = &plan else {
        return Err(Error::internal("a projection was analysed into something else"));
    };
    let mut physical = Vec::new();
    let mut fields = Vec::new();
    for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
        physical.push(bind::physical(&expr.clone().unalias(), &below)?);
        fields.push(Arc::new(computed_field(field.name(), field)));
    }

    Ok((physical, fields))
}
