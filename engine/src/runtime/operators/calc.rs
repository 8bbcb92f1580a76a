//! Filter and projection.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::expressions::Column;

use super::{Operator, Out};
use crate::error::{Error, Result};
use crate::sql::plan::{CalcOp, Expr};
use crate::stream::StreamBatch;

/// Evaluates a [`CalcOp`].
pub struct Calc {
    op: CalcOp,
    schema: SchemaRef,
}

impl Calc {
    /// A calc that emits `schema`.
    pub fn new(op: CalcOp, schema: SchemaRef) -> Self {
        Self { op, schema }
    }

    /// The rows of `batch` that pass, with the columns of the output.
    ///
    /// # Errors
    /// Data: an expression refuses a value.
    pub fn apply(&self, batch: &StreamBatch) -> Result<StreamBatch> {
        let filtered = match &self.op.predicate {
            None => batch.clone(),
            Some(predicate) => filter(batch, predicate)?,
        };
        match &self.op.project {
            None => Ok(filtered.with_rows(filtered.rows.clone())),
            Some(exprs) => {
                let rows = project(&filtered.rows, exprs, &self.schema)?;
                Ok(filtered.with_rows(rows))
            }
        }
    }
}

impl Operator for Calc {
    fn batch(&mut self, batch: StreamBatch, out: &mut Out) -> Result<()> {
        out.batch(self.apply(&batch)?);
        Ok(())
    }
}

/// The rows where `predicate` is true (NULL is not).
///
/// # Errors
/// Data: the predicate refuses a value. Internal: it is not BOOLEAN.
pub fn filter(batch: &StreamBatch, predicate: &Expr) -> Result<StreamBatch> {
    let value = predicate.evaluate(&batch.rows)?.into_array(batch.num_rows())?;
    let keep = value.as_boolean_opt().ok_or_else(|| Error::internal(format!("the condition {predicate} is not BOOLEAN")))?;
    if keep.null_count() == 0 && keep.true_count() == keep.len() {
        return Ok(batch.clone());
    }
    batch.filter(keep)
}

/// One column an expression, typed as in `schema`.
///
/// # Errors
/// Data: an expression refuses a value. Internal: a column is not of its type.
pub fn project(rows: &RecordBatch, exprs: &[Expr], schema: &SchemaRef) -> Result<RecordBatch> {
    let evaluate = |e: &Expr| -> Result<ArrayRef> { Ok(e.evaluate(rows)?.into_array(rows.num_rows())?) };
    let columns = exprs.iter().map(evaluate).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| Error::internal("a projection does not fit its schema").caused_by(e))
}

/// Whether `exprs` are just the `inputs` columns in order.
pub fn is_identity(exprs: &[Expr], inputs: usize) -> bool {
    exprs.len() == inputs && exprs.iter().enumerate().all(|(i, e)| e.downcast_ref::<Column>().is_some_and(|c| c.index() == i))
}
