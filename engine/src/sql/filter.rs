//! A condition over the rows of a file, for commands that take one (`--where`).
//!
//! The condition is SQL of this dialect, bound over columns that the caller found in the file. What must
//! hold: a row is kept only where the condition is TRUE; NULL keeps nothing.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, visit_expressions};

use super::catalog::Catalog;
use super::provider::{Dialect, Provider};
use super::{bind, parser, plan, source};
use crate::error::{Error, Result};

/// A condition that can be asked of batches.
pub struct RowFilter {
    condition: plan::Expr,
}

impl RowFilter {
    /// The condition `text` over columns `fields`; times without a zone are of `zone`.
    ///
    /// # Errors
    /// User: text that is no condition over these columns, with its place.
    pub fn new(text: &str, fields: Vec<FieldRef>, zone: chrono_tz::Tz) -> Result<Self> {
        let bound = || -> Result<plan::Expr> {
            let parsed = parser::parse_expr(text)?;
            let (dialect, catalog) = (Dialect::new(zone), Catalog::default());
            let scan = source::scan_of(fields)?;
            let expr = bind::expression(&Provider::new(&catalog, &dialect), &parsed, scan.schema())?;
            let (mut exprs, out) = source::physical_projection(&dialect, scan, vec![expr.alias("condition")])?;
            if *out[0].data_type() != DataType::Boolean {
                let is = crate::stream::SqlType::of(&out[0]);
                return Err(Error::user(format!("the condition is {is}, but must be TRUE or FALSE")).help("compare it: … = '…', … > 0"));
            }
            Ok(exprs.swap_remove(0))
        };
        Ok(Self { condition: bound().map_err(|e| e.with_sql("--where", text))? })
    }

    /// The columns that the condition `text` names, each once, in order.
    ///
    /// # Errors
    /// User: text that is no expression.
    pub fn columns(text: &str) -> Result<Vec<String>> {
        let parsed = parser::parse_expr(text).map_err(|e| e.with_sql("--where", text))?;
        let mut names: Vec<String> = Vec::new();
        let _ = visit_expressions(&parsed, |e| {
            let name = match e {
                SqlExpr::Identifier(name) => Some(name),
                SqlExpr::CompoundIdentifier(path) => path.first(),
                _ => None,
            };
            if let Some(name) = name.filter(|n| !names.contains(&n.value)) {
                names.push(name.value.clone());
            }
            ControlFlow::<()>::Continue(())
        });
        Ok(names)
    }

    /// Which rows of `batch` the condition keeps. The batch has the columns that the filter was made for.
    ///
    /// # Errors
    /// Data: a value that the condition cannot work with, such as a CAST that fails.
    pub fn keeps(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let answer = self.condition.evaluate(batch)?.into_array(batch.num_rows())?;
        let answer: Arc<dyn Array> = answer;
        let answer = answer.as_boolean();
        match answer.nulls() {
            None => Ok(answer.clone()),
            Some(_) => Ok(answer.iter().map(|keep| Some(keep == Some(true))).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn kept(condition: &str) -> Result<Vec<bool>> {
        let fields: Vec<FieldRef> =
            vec![Arc::new(Field::new("code", DataType::Utf8, true)), Arc::new(Field::new("n", DataType::Int64, true))];
        let code: ArrayRef = Arc::new(StringArray::from(vec![Some("16107"), Some("7"), None]));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(20), Some(30)]));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), vec![code, n])?;
        Ok(RowFilter::new(condition, fields, chrono_tz::UTC)?.keeps(&batch)?.iter().map(|k| k == Some(true)).collect())
    }

    #[test]
    fn rows_are_kept_where_the_condition_is_true() {
        assert_eq!(kept("code IN ('16107', '32017')").expect("a condition"), [true, false, false]);
        assert_eq!(kept("n > 10 OR code = '16107'").expect("a condition"), [true, true, true]);
        assert_eq!(RowFilter::columns("n > 10 AND LOWER(code) = 'x' AND n < 20").expect("an expression"), ["n", "code"]);
    }

    #[test]
    fn what_is_no_condition_is_refused_with_its_place() {
        let e = kept("coed = 'x'").expect_err("no such column").to_string();
        assert!(e.contains("--where:1:1") && e.contains("code"), "{e}");
        assert!(kept("n + 1").expect_err("a number").to_string().contains("must be TRUE or FALSE"));
    }
}
