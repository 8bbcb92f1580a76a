//! Table factors that DataFusion's planner does not know, or would read without their modifiers.
//!
//! What must hold: every modifier of a table factor is claimed here or refused. The default planner drops
//! `FOR SYSTEM_TIME AS OF` without a word.

use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::sql::sqlparser::ast::{Expr, Spanned, TableFactor, TableVersion};

use super::errors::unknown_column;
use super::nodes::{Versioned, WindowFunction};
use super::parser::tvf::{self, WindowCall, WindowInput, window_call};
use crate::error::{Error, Result, Span};
use crate::sql::plan::WindowShape;

/// Plans window table functions and versioned tables.
#[derive(Debug)]
pub struct Relations;

impl RelationPlanner for Relations {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> PlanResult<RelationPlanning> {
        if let Some(call) = window_call(&relation)? {
            let plan = window(call, context)?;
            return Ok(RelationPlanning::Planned(Box::new(plan)));
        }
        match relation {
            TableFactor::Table { version: Some(version), name, alias, .. } => {
                let span = place(&name);
                let TableVersion::ForSystemTimeAsOf(time) = version else {
                    return Err(Error::user("only FOR SYSTEM_TIME AS OF asks for a version of a table").at(span).into());
                };
                let time = match &time {
                    Expr::Identifier(i) => vec![i.value.clone()],
                    Expr::CompoundIdentifier(parts) => parts.iter().map(|p| p.value.clone()).collect(),
                    _ => {
                        let e = Error::user("FOR SYSTEM_TIME AS OF needs the rowtime column of the left side").at(span);
                        return Err(e.help("write FOR SYSTEM_TIME AS OF s.ts").into());
                    }
                };
                let input = context.plan(bare(name))?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(Versioned::plan(input, time, span), alias))))
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
                    Some(_) => Error::user(format!("unknown table function {name}")).help("there are TUMBLE and HOP"),
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
    let input = match call.input {
        WindowInput::Table(name) => bare(name),
        WindowInput::Query(query) => TableFactor::Derived { lateral: false, subquery: query, alias: None, sample: None },
    };
    let input = context.plan(input).map_err(|e| super::errors::bind_error(e, &[]))?;
    let schema = input.schema();
    let found: Vec<usize> = schema.fields().iter().enumerate().filter(|(_, f)| *f.name() == call.time_column.value).map(|(i, _)| i).collect();
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
    let s = name.span();
    let width = s.end.column.saturating_sub(s.start.column) as u32;
    Span { line: s.start.line as u32, column: s.start.column as u32, width: width.max(1) }
}
