//! VALUES, and SELECT without FROM.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{EmptyRelation, Values};
use datafusion::physical_expr::expressions::Column;

use super::{Converter, fields_of};
use crate::error::{Error, Result};
use crate::sql::draft::{ColumnFact, DraftNode, DraftOp, SourceDraft, sha256};
use crate::sql::plan::{self, BadRecords, NodeId};
use crate::sql::values::ValuesTable;

impl Converter<'_> {
    /// One row, from which SELECT computes its columns.
    pub(super) fn no_table(&mut self, e: &EmptyRelation) -> Result<NodeId> {
        if !e.produce_one_row {
            return Err(self.unsupported("an empty relation"));
        }
        let schema = Arc::new(Schema::new(vec![Field::new("one", DataType::Boolean, false)]));
        let rows = RecordBatch::try_new(schema, vec![Arc::new(BooleanArray::from(vec![true]))])?;
        Ok(self.constant(rows))
    }

    /// The rows of VALUES, computed now.
    pub(super) fn values(&mut self, v: &Values) -> Result<NodeId> {
        let one = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &RecordBatchOptions::new().with_row_count(Some(1)))?;
        let nothing = DFSchema::empty();
        let fields = fields_of(&v.schema);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(fields.len());
        for (c, field) in fields.iter().enumerate() {
            let mut cells: Vec<ArrayRef> = Vec::with_capacity(v.values.len());
            for row in &v.values {
                let cell = self.physical(&row[c], &nothing)?.evaluate(&one)?.into_array(1)?;
                cells.push(match cell.data_type() {
                    DataType::Null => new_null_array(field.data_type(), 1),
                    t if t == field.data_type() => cell,
                    _ => arrow::compute::cast(&cell, field.data_type())?,
                });
            }
            let cells: Vec<&dyn Array> = cells.iter().map(|a| a.as_ref()).collect();
            columns.push(concat(&cells)?);
        }
        let rows =
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| Error::internal("VALUES do not fit").caused_by(e))?;
        Ok(self.constant(rows))
    }

    fn constant(&mut self, rows: RecordBatch) -> NodeId {
        let content = sha256(&format!("{rows:?}"));
        let fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
        let columns = fields.iter().enumerate().map(|(i, f)| Arc::new(Column::new(f.name(), i)) as plan::Expr).collect();
        let (mut table, source) = ValuesTable::of(rows);
        // The rows themselves are the table's identity: another VALUES is another table.
        Arc::make_mut(&mut table).options.insert("path".to_string(), content);
        let source =
            SourceDraft { table, source, columns, watermark: None, bad_records: BadRecords::Fail, idle_timeout: None, late_rows: None };
        let facts = vec![ColumnFact::default(); fields.len()];
        self.draft.add(DraftNode::new(DraftOp::Source(Arc::new(source)), vec![], fields, facts))
    }
}
