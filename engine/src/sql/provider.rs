//! What DataFusion's planner asks for: tables, views, functions, options.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use chrono_tz::Tz;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, Result as PlanResult, TableReference};
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, PlannerResult, RawBinaryExpr, RawDictionaryExpr, RawFieldAccessExpr, RelationPlanner,
};
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};

use super::aggregate_signatures::{CountStar, aggregate_functions};
use super::catalog::{Catalog, Entry};
use super::errors::{bind_error, expr_span};
use super::functions;
use super::relations::Relations;
use super::{bind, source};
use crate::error::{Error, Span};

/// Views may name views, this deep: each level takes stack.
const VIEW_DEPTH_MAX: usize = 24;

/// Functions and options of one time zone.
pub struct Dialect {
    /// The zone.
    pub zone: Tz,
    scalar: HashMap<String, Arc<ScalarUDF>>,
    aggregate: HashMap<String, Arc<AggregateUDF>>,
    expressions: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

impl Dialect {
    /// The dialect with `table.local-time-zone` = `zone`.
    pub fn new(zone: Tz) -> Self {
        let scalar = functions::scalar_functions(zone)
            .into_iter()
            .flat_map(|f| {
                let names: Vec<String> =
                    std::iter::once(f.name()).chain(f.aliases().iter().map(String::as_str)).map(str::to_lowercase).collect();
                names.into_iter().map(move |n| (n, Arc::clone(&f)))
            })
            .collect();
        let mut expressions: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(CountStar)];
        expressions.extend(functions::expr_planners(zone).into_iter().map(|inner| Arc::new(Placed(inner)) as _));
        let mut options = ConfigOptions::default();
        options.sql_parser.enable_ident_normalization = false;
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.enable_subquery_sort_elimination = false;
        options.sql_parser.collect_spans = true;
        options.sql_parser.default_null_ordering = "nulls_min".into();
        options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        options.optimizer.filter_null_join_keys = false;
        options.optimizer.skip_failed_rules = false;
        options.optimizer.max_passes = 1;
        Self { zone, scalar, aggregate: aggregate_functions().into_iter().map(|(n, f)| (n.to_string(), f)).collect(), expressions, options }
    }

    /// A scalar function by name.
    pub fn function(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalar.get(&name.to_lowercase()).cloned()
    }

    /// All names that can be called.
    pub fn function_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.scalar.keys().chain(self.aggregate.keys()).cloned().collect();
        names.sort();
        names
    }

    /// DataFusion's options.
    pub fn options(&self) -> &ConfigOptions {
        &self.options
    }
}

/// A catalog and a dialect, for one statement.
pub struct Provider<'a> {
    /// The tables.
    pub catalog: &'a Catalog,
    /// The functions.
    pub dialect: &'a Dialect,
    /// The view that is being created: what it reads must not read it.
    creating: Option<&'a str>,
    relations: Vec<Arc<dyn RelationPlanner>>,
    depth: Cell<usize>,
}

impl<'a> Provider<'a> {
    /// For one statement.
    pub fn new(catalog: &'a Catalog, dialect: &'a Dialect) -> Self {
        let relations: Vec<Arc<dyn RelationPlanner>> = vec![Arc::new(Relations { models: Arc::clone(catalog.models()) })];
        Self { catalog, dialect, creating: None, relations, depth: Cell::new(0) }
    }

    /// For CREATE VIEW of this name.
    pub fn creating(mut self, name: &'a str) -> Self {
        self.creating = Some(name);
        self
    }

    /// The plan of a view, under its column names.
    fn view(&self, view: &crate::sql::ast::CreateView) -> crate::error::Result<LogicalPlan> {
        let name = &view.name.value;
        if self.creating == Some(name) {
            return Err(Error::user(format!("the view '{name}' would refer to itself")));
        }
        if self.depth.get() >= VIEW_DEPTH_MAX {
            return Err(Error::user(format!("the view '{name}' lies below {VIEW_DEPTH_MAX} other views")));
        }
        self.depth.set(self.depth.get() + 1);
        let plan = bind::view(self, view);
        self.depth.set(self.depth.get() - 1);
        plan
    }
}

/// An expression planner whose errors are placed at the first column of the expression.
#[derive(Debug)]
struct Placed(Arc<dyn ExprPlanner>);

fn placed<T>(result: PlanResult<T>, span: Option<Span>) -> PlanResult<T> {
    result.map_err(|e| match span {
        Some(span) => bind_error(e, &[]).at(span).into(),
        None => e,
    })
}

impl ExprPlanner for Placed {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> PlanResult<PlannerResult<RawBinaryExpr>> {
        let span = expr_span(&expr.left).or_else(|| expr_span(&expr.right));
        placed(self.0.plan_binary_op(expr, schema), span)
    }

    fn plan_field_access(&self, expr: RawFieldAccessExpr, schema: &DFSchema) -> PlanResult<PlannerResult<RawFieldAccessExpr>> {
        let span = expr_span(&expr.expr);
        placed(self.0.plan_field_access(expr, schema), span)
    }

    fn plan_array_literal(&self, exprs: Vec<Expr>, schema: &DFSchema) -> PlanResult<PlannerResult<Vec<Expr>>> {
        let span = exprs.iter().find_map(expr_span);
        placed(self.0.plan_array_literal(exprs, schema), span)
    }

    fn plan_position(&self, args: Vec<Expr>) -> PlanResult<PlannerResult<Vec<Expr>>> {
        self.0.plan_position(args)
    }

    fn plan_dictionary_literal(&self, expr: RawDictionaryExpr, schema: &DFSchema) -> PlanResult<PlannerResult<RawDictionaryExpr>> {
        self.0.plan_dictionary_literal(expr, schema)
    }

    fn plan_extract(&self, args: Vec<Expr>) -> PlanResult<PlannerResult<Vec<Expr>>> {
        self.0.plan_extract(args)
    }

    fn plan_substring(&self, args: Vec<Expr>) -> PlanResult<PlannerResult<Vec<Expr>>> {
        self.0.plan_substring(args)
    }

    fn plan_struct_literal(&self, args: Vec<Expr>, is_named: bool) -> PlanResult<PlannerResult<Vec<Expr>>> {
        self.0.plan_struct_literal(args, is_named)
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> PlanResult<PlannerResult<Vec<Expr>>> {
        self.0.plan_overlay(args)
    }

    fn plan_make_map(&self, args: Vec<Expr>) -> PlanResult<PlannerResult<Vec<Expr>>> {
        self.0.plan_make_map(args)
    }

    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested: &[String],
    ) -> PlanResult<PlannerResult<Vec<Expr>>> {
        self.0.plan_compound_identifier(field, qualifier, nested)
    }
}

/// A view as a table source, which DataFusion unfolds.
#[derive(Debug)]
struct ViewPlan(LogicalPlan);

impl TableSource for ViewPlan {
    fn schema(&self) -> arrow::datatypes::SchemaRef {
        Arc::clone(self.0.schema().inner())
    }

    fn get_logical_plan(&'_ self) -> Option<std::borrow::Cow<'_, LogicalPlan>> {
        Some(std::borrow::Cow::Borrowed(&self.0))
    }
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> PlanResult<Arc<dyn TableSource>> {
        match self.catalog.get(name.table()) {
            Some(Entry::Table(table)) => Ok(source::columns(self.dialect, table)?),
            Some(Entry::View(view, origin)) => {
                let plan = self.view(view).map_err(|e| origin.place(e, view.name.span))?;
                Ok(Arc::new(ViewPlan(plan)))
            }
            None => Err(self.catalog.unknown(name.table()).into()),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.dialect.expressions
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.dialect.function(name)
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.dialect.aggregate.get(&name.to_lowercase()).cloned()
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.dialect.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.dialect.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        vec![]
    }

    fn udaf_names(&self) -> Vec<String> {
        self.dialect.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        vec![]
    }
}
