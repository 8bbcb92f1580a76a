//! The relations that DataFusion's logical plan does not have: a window table function, a table read AS OF a
//! point in time, and rows scored by a model.
//!
//! The first two name their time column by text: it is resolved when the plan is converted, where it is known
//! which columns are time attributes. None lets a predicate through.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{DFSchema, DFSchemaRef, Result as PlanResult, TableReference};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::error::{Result, Span};
use crate::models::registry::Selector;
use crate::sql::plan::WindowShape;
use crate::stream::SqlType;
use crate::stream::types::TIME_ATTRIBUTE;

/// `TUMBLE(TABLE t, DESCRIPTOR(c), …)` and `HOP`: the input's columns, then the window's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WindowFunction {
    /// The table.
    pub input: LogicalPlan,
    /// Index of the time column in the input.
    pub column: usize,
    /// The windows.
    pub shape: WindowShape,
    /// Where DESCRIPTOR's column stands.
    pub span: Span,
    schema: DFSchemaRef,
}

impl WindowFunction {
    /// The function over `input`.
    ///
    /// # Errors
    /// Internal: a schema that DataFusion refuses.
    pub fn plan(input: LogicalPlan, column: usize, shape: WindowShape, span: Span) -> Result<LogicalPlan> {
        let schema = Self::schema_over(&input, column)?;
        let node = Self { input, column, shape, span, schema };
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    fn schema_over(input: &LogicalPlan, column: usize) -> PlanResult<DFSchemaRef> {
        let below = input.schema();
        let mut fields: Vec<_> = below.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        let time_type = SqlType::of(below.field(column));
        let time_type = match time_type {
            SqlType::TimestampLtz(_) => SqlType::TimestampLtz(3),
            _ => SqlType::Timestamp(3),
        };
        for (name, sql_type) in [("window_start", SqlType::Timestamp(3)), ("window_end", SqlType::Timestamp(3)), ("window_time", time_type)]
        {
            append(&mut fields, &sql_type.field(name, false));
        }
        Ok(Arc::new(DFSchema::new_with_metadata(fields, Default::default())?))
    }
}

/// Adds a column that a table function gives. A second one names its columns as Flink does: window_start0.
fn append(fields: &mut Vec<(Option<TableReference>, FieldRef)>, field: &Field) {
    let mut free = field.name().clone();
    let mut n = 0;
    while fields.iter().any(|(_, f)| f.name() == &free) {
        free = format!("{}{n}", field.name());
        n += 1;
    }
    fields.push((None, Arc::new(field.clone().with_name(free))));
}

/// `ML_PREDICT(TABLE t, MODEL m, DESCRIPTOR(…))`: the input's columns, then the model's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Predict {
    /// The rows.
    pub input: LogicalPlan,
    /// The model's name.
    pub model: String,
    /// Which version of it.
    pub selector: Selector,
    /// The model's inputs: its name of each, and the column of the input.
    pub arguments: Vec<(String, usize)>,
    /// What the model gives.
    pub outputs: Vec<FieldRef>,
    /// Where the function stands.
    pub span: Span,
    schema: DFSchemaRef,
}

impl Predict {
    /// The scores of `input`.
    ///
    /// # Errors
    /// Internal: a schema that DataFusion refuses.
    pub fn plan(
        input: LogicalPlan,
        (model, selector): (&str, Selector),
        arguments: Vec<(String, usize)>,
        outputs: &[FieldRef],
        span: Span,
    ) -> Result<LogicalPlan> {
        let schema = Self::schema_over(&input, outputs)?;
        let node = Self { input, model: model.to_string(), selector, arguments, outputs: outputs.to_vec(), span, schema };
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    fn schema_over(input: &LogicalPlan, outputs: &[FieldRef]) -> PlanResult<DFSchemaRef> {
        let mut fields: Vec<_> = input.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        outputs.iter().for_each(|field| append(&mut fields, field));
        Ok(Arc::new(DFSchema::new_with_metadata(fields, Default::default())?))
    }
}

/// `t FOR SYSTEM_TIME AS OF l.ts`: the rows of `t`; the join above finds the column in its left side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Versioned {
    /// The table.
    pub input: LogicalPlan,
    /// The time column's name parts, as written.
    pub time: Vec<String>,
    /// Where it stands.
    pub span: Span,
}

impl Versioned {
    /// The version of `input` at `time`.
    pub fn plan(input: LogicalPlan, time: Vec<String>, span: Span) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(Self { input, time, span }) })
    }
}

/// Whether a type can be a rowtime: TIMESTAMP or TIMESTAMP_LTZ of milliseconds.
pub fn is_time(t: &DataType) -> bool {
    matches!(t, DataType::Timestamp(TimeUnit::Millisecond, _))
}

/// The field without a time attribute's mark.
pub fn without_attribute(field: &Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(TIME_ATTRIBUTE);
    field.clone().with_metadata(metadata)
}

impl PartialOrd for WindowFunction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowFunction {
    fn name(&self) -> &str {
        "WindowFunction"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WindowFunction: {}, {}", self.input.schema().field(self.column).name(), shape_text(&self.shape))
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> PlanResult<Self> {
        let input = inputs.swap_remove(0);
        let schema = Self::schema_over(&input, self.column)?;
        Ok(Self { input, schema, ..self.clone() })
    }
}

impl PartialOrd for Predict {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Predict {
    fn name(&self) -> &str {
        "Predict"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<&str> = self.arguments.iter().map(|(_, i)| self.input.schema().field(*i).name().as_str()).collect();
        write!(f, "Predict: {} by {} of model {}", names.join(", "), self.selector, self.model)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> PlanResult<Self> {
        let input = inputs.swap_remove(0);
        let schema = Self::schema_over(&input, &self.outputs)?;
        Ok(Self { input, schema, ..self.clone() })
    }
}

impl PartialOrd for Versioned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Versioned {
    fn name(&self) -> &str {
        "Versioned"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Versioned: AS OF {}", self.time.join("."))
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> PlanResult<Self> {
        Ok(Self { input: inputs.swap_remove(0), ..self.clone() })
    }
}

/// Such as `TUMBLE(size 5 min)`.
pub fn shape_text(shape: &WindowShape) -> String {
    let offset = |o: i64| if o == 0 { String::new() } else { format!(", offset {}", millis_text(o)) };
    match *shape {
        WindowShape::Tumble { size, offset: o } => format!("TUMBLE(size {}{})", millis_text(size), offset(o)),
        WindowShape::Hop { slide, size, offset: o } => {
            format!("HOP(slide {}, size {}{})", millis_text(slide), millis_text(size), offset(o))
        }
    }
}

/// Milliseconds in the largest unit that holds them whole.
pub fn millis_text(ms: i64) -> String {
    for (unit, per) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
        if ms != 0 && ms % per == 0 {
            return format!("{} {unit}", ms / per);
        }
    }
    format!("{ms} ms")
}
