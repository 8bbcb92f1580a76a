//! Table factors that DataFusion's planner does not know, or would read without their modifiers.
//!
//! What must hold: every modifier of a table factor is claimed here or refused. The default planner drops
//! `FOR SYSTEM_TIME AS OF` without a word.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, Result as PlanResult, ScalarValue};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr as LogicalExpr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::analyzer::Analyzer;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, Spanned, TableFactor, TableVersion};

use super::errors::unknown_column;
use super::models::{Models, selector};
use super::nodes::{Predict, Versioned, WindowFunction};
use super::parser::model::{PredictCall, predict_call};
use super::parser::tvf::{self, WindowCall, WindowInput, window_call};
use super::scope::VALUES;
use crate::error::{Error, Result, Span};
use crate::sql::plan::WindowShape;

/// Plans table functions and versioned tables.
#[derive(Debug)]
pub struct Relations {
    /// What ML_PREDICT can name.
    pub models: Arc<Models>,
}

impl RelationPlanner for Relations {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> PlanResult<RelationPlanning> {
        if let Some(call) = window_call(&relation)? {
            let plan = window(call, context)?;
            return Ok(RelationPlanning::Planned(Box::new(plan)));
        }
        if let Some(call) = predict_call(&relation)? {
            let plan = predict(&self.models, call, context)?;
            return Ok(RelationPlanning::Planned(Box::new(plan)));
        }
        match relation {
            TableFactor::Table { name, args: Some(args), alias, .. } if name.to_string() == VALUES => {
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(values(&args.args, context)?, alias))))
            }
            TableFactor::Table { version: Some(version), name, alias, .. } => {
                let span = place(&name);
                let TableVersion::ForSystemTimeAsOf(time) = version else {
                    return Err(Error::user("only FOR SYSTEM_TIME AS OF asks for a version of a table").at(span).into());
                };
                let time_span = Some(span_of(time.span())).filter(|s| s.line > 0);
                let time = match &time {
                    Expr::Identifier(i) => vec![i.value.clone()],
                    Expr::CompoundIdentifier(parts) => parts.iter().map(|p| p.value.clone()).collect(),
                    _ => {
                        let e = Error::user("FOR SYSTEM_TIME AS OF needs the rowtime column of the left side").at(span);
                        return Err(e.help("write FOR SYSTEM_TIME AS OF s.ts").into());
                    }
                };
                let input = context.plan(bare(name))?;
                let plan = Versioned::plan(input, time, time_span.unwrap_or(span));
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            TableFactor::Table { name, with_hints, partitions, json_path, sample, index_hints, with_ordinality, args, alias, .. }
                if !with_hints.is_empty()
                    || !partitions.is_empty()
                    || json_path.is_some()
                    || sample.is_some()
                    || !index_hints.is_empty()
                    || with_ordinality
                    || args.is_some() =>
            {
                let _ = alias;
                let e = match args {
                    Some(_) => Error::user(format!("unknown table function {name}")).help("there are TUMBLE, HOP and ML_PREDICT"),
                    None => Error::user(format!("not yet supported: what stands behind the table name '{name}'")),
                };
                Err(e.at(place(&name)).into())
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn window(call: WindowCall, context: &mut dyn RelationPlannerContext) -> Result<PlannedRelation> {
    let unsupported = |what: &str| Err(Error::user(format!("not yet supported: {what}")).at(call.span).help("there are TUMBLE and HOP"));
    let shape = match (call.function, call.size_ms, call.slide_ms) {
        (tvf::WindowFunction::Tumble, Some(size), _) => WindowShape::Tumble { size, offset: call.offset_ms },
        (tvf::WindowFunction::Hop, Some(size), Some(slide)) => WindowShape::Hop { slide, size, offset: call.offset_ms },
        (tvf::WindowFunction::Cumulate, ..) => return unsupported("CUMULATE"),
        (tvf::WindowFunction::Session, ..) => return unsupported("SESSION"),
        _ => return Err(Error::internal("a window function without its lengths").at(call.span)),
    };
    let input = input(call.input, context)?;
    let schema = input.schema();
    let found: Vec<usize> =
        schema.fields().iter().enumerate().filter(|(_, f)| *f.name() == call.time_column.value).map(|(i, _)| i).collect();
    let column = match found.as_slice() {
        [column] => *column,
        [] => {
            let column = datafusion::common::Column::new_unqualified(&call.time_column.value);
            return Err(unknown_column(&column, &schema.columns()).at(call.time_column.span));
        }
        _ => return Err(Error::user(format!("column '{}' is ambiguous", call.time_column.value)).at(call.time_column.span)),
    };
    let plan = WindowFunction::plan(input, column, shape, call.time_column.span)?;
    Ok(PlannedRelation::new(plan, call.alias))
}

fn predict(models: &Models, call: PredictCall, context: &mut dyn RelationPlannerContext) -> Result<PlannedRelation> {
    let (selector, selector_span) = selector(&call);
    let model = models.get(&call.model, &selector, selector_span)?;
    let input = input(call.input.clone(), context)?;
    let arguments = model.arguments(&call, input.schema())?;
    let plan = Predict::plan(input, (&call.model.value, selector), arguments, &model.outputs, call.span)?;
    Ok(PlannedRelation::new(plan, call.alias))
}

/// The table that a table function works on.
fn input(input: WindowInput, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let factor = match input {
        WindowInput::Table(name) => bare(name),
        WindowInput::Query(query) => TableFactor::Derived { lateral: false, subquery: query, alias: None, sample: None },
    };
    context.plan(factor).map_err(|e| super::errors::bind_error(e, &[]))
}

/// VALUES: its rows are computed here, so that what is left of their types is what Arrow knows.
fn values(rows: &[FunctionArg], context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let nothing = DFSchema::empty();
    let mut out: Vec<Vec<LogicalExpr>> = Vec::with_capacity(rows.len());
    for row in rows {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Tuple(cells))) = row else {
            return Err(Error::internal("a row of VALUES is no tuple"));
        };
        let mut literals = Vec::with_capacity(cells.len());
        for cell in cells {
            let expr = context.sql_to_expr(cell.clone(), &nothing).map_err(|e| super::errors::bind_error(e, &[]))?;
            literals.push(LogicalExpr::Literal(constant(expr, context.context_provider().options())?, None));
        }
        if out.first().is_some_and(|first| first.len() != literals.len()) {
            return Err(Error::user("the rows of VALUES have different lengths"));
        }
        out.push(literals);
    }
    let plan = LogicalPlanBuilder::values(out)?;
    let names =
        plan.schema().columns().into_iter().enumerate().map(|(i, c)| LogicalExpr::Column(c).alias(format!("EXPR${i}"))).collect::<Vec<_>>();
    Ok(plan.project(names)?.build()?)
}

/// The value of an expression without columns.
fn constant(expr: LogicalExpr, options: &ConfigOptions) -> Result<ScalarValue> {
    let one = LogicalPlanBuilder::empty(true).project(vec![expr.alias("value")])?.build()?;
    let plan = Analyzer::with_rules(vec![Arc::new(TypeCoercion::new())])
        .execute_and_check(one, options, |_, _| {})
        .map_err(|e| super::errors::bind_error(e, &[]))?;
    let LogicalPlan::Projection(p) = &plan else { return Err(Error::internal("a projection was analysed into something else")) };
    let physical = super::bind::physical(&p.expr[0].clone().unalias(), &DFSchema::empty())?;
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &RecordBatchOptions::new().with_row_count(Some(1)))?;
    let value = physical.evaluate(&row)?.into_array(1)?;
    Ok(ScalarValue::try_from_array(&value, 0)?)
}

/// A table by its name alone.
fn bare(name: datafusion::sql::sqlparser::ast::ObjectName) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

fn place(name: &datafusion::sql::sqlparser::ast::ObjectName) -> Span {
    span_of(name.span())
}

fn span_of(s: datafusion::sql::sqlparser::tokenizer::Span) -> Span {
    let width = s.end.column.saturating_sub(s.start.column) as u32;
    Span { line: s.start.line as u32, column: s.start.column as u32, width: width.max(1) }
}
