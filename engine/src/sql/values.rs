//! Rows that stand in the query itself: VALUES, and the one row of a SELECT without FROM.
//!
//! To the runtime they are a bounded table of one split, so nothing downstream knows the difference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use crate::connectors::{BatchLimits, Fetched, Fetcher, Payload, Position, RowReader, Scan, SourceTable, Split, TableSpec};
use crate::error::{Error, Result};
use crate::formats::Decoded;

/// Constant rows as a table.
#[derive(Debug)]
pub struct ValuesTable {
    rows: RecordBatch,
}

impl ValuesTable {
    /// The table and its description.
    pub fn of(rows: RecordBatch) -> (Arc<TableSpec>, Arc<dyn SourceTable>) {
        let spec = TableSpec {
            name: "VALUES".to_string(),
            physical: rows.schema(),
            metadata: vec![],
            partition_keys: vec![],
            primary_key: vec![],
            options: BTreeMap::new(),
            knobs: BTreeMap::new(),
        };
        (Arc::new(spec), Arc::new(Self { rows }))
    }
}

impl SourceTable for ValuesTable {
    fn is_bounded(&self) -> bool {
        true
    }

    fn is_static(&self) -> bool {
        true
    }

    fn open(&self, scan: &Scan, restore: Option<&[Split]>) -> Result<Box<dyn Fetcher>> {
        let split = match restore.and_then(|r| r.first()) {
            Some(split) => split.clone(),
            None => Split { id: "values".to_string(), position: Position::default(), end: None, ended: false },
        };
        Ok(Box::new(ValuesFetcher { rows: self.rows.project(&scan.physical)?, split }))
    }

    fn reader(&self, scan: &Scan) -> Result<Box<dyn RowReader>> {
        Ok(Box::new(ValuesReader(Arc::new(self.rows.schema().project(&scan.physical)?))))
    }
}

struct ValuesFetcher {
    rows: RecordBatch,
    split: Split,
}

impl Fetcher for ValuesFetcher {
    fn splits(&self) -> Vec<Split> {
        vec![self.split.clone()]
    }

    fn fetch(&mut self, limits: &BatchLimits, _wait: Duration) -> Result<Fetched> {
        if self.split.ended {
            return Ok(Fetched::End);
        }
        let start = usize::try_from(self.split.position.offset).unwrap_or(0).min(self.rows.num_rows());
        let rows = (self.rows.num_rows() - start).min(limits.rows.max(1));
        if rows == 0 {
            self.split.ended = true;
            return Ok(Fetched::SplitEnded(0));
        }
        self.split.position.offset = (start + rows) as i64;
        Ok(Fetched::Batch { split: 0, payload: Payload::Rows(self.rows.slice(start, rows)), position: self.split.position.clone() })
    }
}

struct ValuesReader(Arc<Schema>);

impl RowReader for ValuesReader {
    fn read(&mut self, payload: &Payload) -> Result<Decoded> {
        match payload {
            Payload::Rows(batch) if batch.schema() == self.0 => {
                Ok(Decoded { batch: batch.clone(), origin: None, rejected: vec![], nulled_values: 0 })
            }
            _ => Err(Error::internal("VALUES were given rows of another table")),
        }
    }
}
