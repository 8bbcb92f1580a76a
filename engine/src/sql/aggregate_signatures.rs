//! COUNT, SUM, AVG, MIN and MAX as the binder sees them: names and Flink's result types, nothing to run.
//!
//! The plan's own aggregates ([`crate::sql::plan::AggregateFunction`]) do the work. Arguments are not
//! coerced: AVG of an INT is an INT.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Literal, Signature, Volatility};

use super::aggregate_types::result_type;
use crate::error::Error;
use crate::sql::plan::AggregateFunction;
use crate::stream::SqlType;

/// The aggregate functions by name.
pub fn aggregate_functions() -> Vec<(&'static str, Arc<AggregateUDF>)> {
    use AggregateFunction::{Avg, Count, Max, Min, Sum};
    [Count, Sum, Avg, Min, Max].into_iter().map(|f| (sql_name(f), Arc::new(AggregateUDF::new_from_impl(Typed::new(f))))).collect()
}

/// The function's name in lower case.
pub fn sql_name(function: AggregateFunction) -> &'static str {
    match function {
        AggregateFunction::Count => "count",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Avg => "avg",
        AggregateFunction::Min => "min",
        AggregateFunction::Max => "max",
    }
}

/// The function of this name.
pub fn by_name(name: &str) -> Option<AggregateFunction> {
    use AggregateFunction::{Avg, Count, Max, Min, Sum};
    [Count, Sum, Avg, Min, Max].into_iter().find(|f| sql_name(*f) == name)
}

/// Writes COUNT(*) as COUNT(1), as DataFusion's own planner does.
#[derive(Debug)]
pub struct CountStar;

impl ExprPlanner for CountStar {
    fn plan_aggregate(&self, mut call: RawAggregateExpr) -> PlanResult<PlannerResult<RawAggregateExpr>> {
        if call.func.name() == "count" {
            #[expect(deprecated, reason = "the binder still writes the star of COUNT(*) as a wildcard")]
            let star = matches!(call.args.as_slice(), [Expr::Wildcard { .. }]);
            if star {
                call.args = vec![1i64.lit()];
            } else if call.args.is_empty() {
                return Err(Error::user("COUNT() needs an argument").help("write COUNT(*)").into());
            }
        }
        Ok(PlannerResult::Original(call))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Typed {
    function: AggregateFunction,
    signature: Signature,
}

impl Typed {
    fn new(function: AggregateFunction) -> Self {
        Self { function, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Typed {
    fn name(&self) -> &str {
        sql_name(self.function)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> PlanResult<Vec<DataType>> {
        Ok(arguments.to_vec())
    }

    fn return_type(&self, arguments: &[DataType]) -> PlanResult<DataType> {
        let fields: Vec<FieldRef> = arguments.iter().map(|t| Arc::new(Field::new("argument", t.clone(), true))).collect();
        Ok(self.return_field(&fields)?.data_type().clone())
    }

    fn return_field(&self, arguments: &[FieldRef]) -> PlanResult<FieldRef> {
        match arguments {
            [argument] => Ok(Arc::new(result_type(self.function, &SqlType::of(argument))?.field(self.name(), self.is_nullable()))),
            _ => Err(Error::user(format!("{} takes one argument, found {}", self.name().to_uppercase(), arguments.len())).into()),
        }
    }

    fn is_nullable(&self) -> bool {
        self.function != AggregateFunction::Count
    }

    fn accumulator(&self, _arguments: AccumulatorArgs) -> PlanResult<Box<dyn Accumulator>> {
        Err(Error::internal("the binder's aggregates are never run").into())
    }

    fn state_fields(&self, _arguments: StateFieldsArgs) -> PlanResult<Vec<FieldRef>> {
        Ok(vec![])
    }
}
