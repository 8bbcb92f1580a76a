//! ML_PREDICT: the model's columns behind those of the input, a batch at a time.
//!
//! What must hold: rows keep their order, kinds and `behind`; a row that the model refuses passes with NULL and is
//! counted; another version takes over exactly at the barrier for which the coordinator has put it in place.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use super::{Operator, Out};
use crate::error::{Error, Result};
use crate::metrics::JobMetrics;
use crate::runtime::checkpoint::Snapshot;
use crate::runtime::models::{Scorer, Slot};
use crate::stream::{Barrier, StreamBatch};

/// Scores rows.
pub struct Predict {
    scorer: Arc<Scorer>,
    slot: Arc<Slot>,
    schema: SchemaRef,
    metrics: Arc<JobMetrics>,
}

impl Predict {
    /// An operator that emits `schema` and takes its versions from `slot`.
    pub fn new(slot: Arc<Slot>, schema: SchemaRef, metrics: Arc<JobMetrics>) -> Self {
        Self { scorer: slot.current(), slot, schema, metrics }
    }
}

impl Operator for Predict {
    fn batch(&mut self, batch: StreamBatch, out: &mut Out) -> Result<()> {
        let (scored, refused) = self.scorer.score(&batch.rows)?;
        self.metrics.unscored.add(refused as u64);
        let columns = batch.rows.columns().iter().cloned().chain(scored).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|e| Error::internal("predictions do not fit their schema").caused_by(e))?;
        out.batch(batch.with_rows(rows));
        Ok(())
    }

    fn barrier(&mut self, barrier: Barrier, _snapshot: &mut Snapshot, _out: &mut Out) -> Result<()> {
        if let Some(scorer) = self.slot.at(barrier.epoch) {
            self.scorer = scorer;
        }
        Ok(())
    }
}
