//! Names and types: a query's text tree → DataFusion's logical plan, analysed.
//!
//! Of DataFusion's rules only two run: type coercion, and the simplifier, which folds constants. Everything
//! that moves or drops operators is left out on purpose: those rules assume bounded input, and a plan that
//! is rewritten per query could no longer be shared between the INSERTs of a file.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::analyzer::Analyzer;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext};
use datafusion::physical_expr::create_physical_expr;
use datafusion::sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Query, Statement};

use super::errors::{bind_error, call_span};
use super::functions::{type_literals_ast, type_literals_expr};
use super::provider::{Dialect, Provider};
use super::scope;
use crate::error::{Error, Result};
use crate::sql::ast::CreateView;
use crate::sql::plan;

/// The analysed plan of a query.
///
/// # Errors
/// User: names, types, or forms that a stream does not have.
pub fn query(provider: &Provider<'_>, query: &Query) -> Result<LogicalPlan> {
    let plan = raw(provider, query).and_then(|plan| analyse(provider.dialect, plan));
    plan.map_err(|e| match call_span(query, e.message()) {
        Some(span) => e.at(span),
        None => e,
    })
}

/// The plan of a view, its columns renamed; not analysed, since the query around it will be.
///
/// # Errors
/// User: as [`query`]; a column list of another length.
pub fn view(provider: &Provider<'_>, view: &CreateView) -> Result<LogicalPlan> {
    let plan = raw(provider, &view.query)?;
    let columns = plan.schema().columns();
    if view.columns.is_empty() {
        return Ok(plan);
    }
    if view.columns.len() != columns.len() {
        let e =
            Error::user(format!("view '{}' names {} columns, but its query has {}", view.name.value, view.columns.len(), columns.len()));
        return Err(e.at(view.name.span));
    }
    let renamed = columns.into_iter().zip(&view.columns).map(|(c, name)| Expr::Column(c).alias(name.value.clone()));
    Ok(LogicalPlanBuilder::from(plan).project(renamed)?.build()?)
}

fn raw(provider: &Provider<'_>, query: &Query) -> Result<LogicalPlan> {
    let mut query = query.clone();
    type_literals_ast(&mut query);
    scope::check(provider, &mut query)?;
    let functions = provider.dialect.function_names();
    planner(provider).sql_statement_to_plan(Statement::Query(Box::new(query))).map_err(|e| bind_error(e, &functions))
}

/// Type coercion and constant folding.
///
/// # Errors
/// User: types that do not go together.
pub fn analyse(dialect: &Dialect, plan: LogicalPlan) -> Result<LogicalPlan> {
    let functions = dialect.function_names();
    let analyser = Analyzer::with_rules(vec![Arc::new(TypeCoercion::new())]);
    let plan = analyser.execute_and_check(plan, dialect.options(), |_, _| {}).map_err(|e| bind_error(e, &functions))?;
    let optimizer = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]);
    let config = OptimizerContext::new_with_config_options(Arc::new(dialect.options().clone())).without_query_execution_start_time();
    optimizer.optimize(plan, &config, |_, _| {}).map_err(|e| bind_error(e, &functions))
}

/// One expression over `schema`.
///
/// # Errors
/// User: names it does not find.
pub fn expression(provider: &Provider<'_>, expr: &SqlExpr, schema: &DFSchema) -> Result<Expr> {
    let functions = provider.dialect.function_names();
    let mut typed = expr.clone();
    type_literals_expr(&mut typed);
    planner(provider).sql_to_expr(typed, schema, &mut PlannerContext::new()).map_err(|e| bind_error(e, &functions))
}

/// The physical form of an expression over the columns of `schema`.
///
/// # Errors
/// User: an expression that has no physical form, such as a subquery.
pub fn physical(expr: &Expr, schema: &DFSchema) -> Result<plan::Expr> {
    create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default()).map_err(|e| bind_error(e, &[]))
}

fn planner<'a, 'b>(provider: &'a Provider<'b>) -> SqlToRel<'a, Provider<'b>> {
    let options = ParserOptions::new()
        .with_parse_float_as_decimal(true)
        .with_enable_ident_normalization(false)
        .with_map_string_types_to_utf8view(false)
        .with_default_null_ordering(NullOrdering::NullsMin)
        .with_collect_spans(true);
    SqlToRel::new_with_options(provider, options)
}
