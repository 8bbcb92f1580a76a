//! The end of a chain: rows into a sink's writer.
//!
//! Two things happen between an operator and a writer. NULL in a NOT NULL column fails the job, or drops the
//! row where `table.exec.sink.not-null-enforcer` says so. And where one writer must see all rows in arrival
//! order ([`Order`]), batches that workers finished out of order wait for their turn:
//!
//! - [`Order::Arrival`]: batches carry their place in the source's total order, empty ones included.
//! - [`Order::Windows`]: batches carry the close of their window; rows of windows up to the merged watermark are
//!   complete, and are written by window, sorted by their values, so that any worker count gives one order.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute;
use arrow::row::{RowConverter, SortField};

use crate::connectors::{Prepared, SinkWriter};
use crate::error::{Error, Result};
use crate::metrics::{Counter, JobMetrics};
use crate::runtime::operators::window_aggregate::window_seq;
use crate::stream::{Barrier, Epoch, StreamBatch, Watermark};

/// In which order a single writer sees rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they come.
    Any,
    /// By place in the source.
    Arrival,
    /// By window, then by value.
    Windows,
}

/// Where rows of a sink go.
pub enum Target {
    /// A table's writer.
    Writer(Box<dyn SinkWriter>),
    /// The caller, for a plain SELECT.
    Rows(std::sync::mpsc::SyncSender<StreamBatch>),
}

/// One sink writer with its checks.
pub struct SinkEnd {
    /// Number of the sink in the job.
    pub sink: usize,
    name: String,
    target: Target,
    order: Order,
    waiting: BTreeMap<u64, Vec<StreamBatch>>,
    next_seq: u64,
    not_null: Vec<usize>,
    drop_nulls: bool,
    metrics: Arc<JobMetrics>,
    rows_out: Arc<Counter>,
}

impl SinkEnd {
    /// The end of sink number `sink`, called `name`; `not_null` are its NOT NULL columns.
    pub fn new(
        sink: usize,
        name: &str,
        target: Target,
        order: Order,
        not_null: Vec<usize>,
        drop_nulls: bool,
        metrics: Arc<JobMetrics>,
    ) -> Self {
        let rows_out = metrics.sink(name);
        Self { sink, name: name.to_string(), target, order, waiting: BTreeMap::new(), next_seq: 0, not_null, drop_nulls, metrics, rows_out }
    }

    /// Takes rows.
    ///
    /// # Errors
    /// Data: NULL in a NOT NULL column. Others from the writer.
    pub fn batch(&mut self, batch: StreamBatch) -> Result<()> {
        match (self.order, batch.seq) {
            (Order::Arrival, Some(seq)) => {
                self.waiting.entry(seq).or_default().push(batch);
                while let Some(ready) = self.waiting.remove(&self.next_seq) {
                    self.next_seq += 1;
                    ready.into_iter().try_for_each(|b| self.write(b))?;
                }
                Ok(())
            }
            (Order::Windows, Some(seq)) => {
                self.waiting.entry(seq).or_default().push(batch);
                Ok(())
            }
            _ => self.write(batch),
        }
    }

    /// The merged watermark has moved.
    ///
    /// # Errors
    /// As for [`SinkEnd::batch`].
    pub fn watermark(&mut self, watermark: Watermark) -> Result<()> {
        if self.order == Order::Windows {
            // A faster worker may have emitted windows that a slower one has not reached: they wait on.
            while let Some(entry) = self.waiting.first_entry().filter(|e| *e.key() <= window_seq(watermark.0)) {
                let batches = entry.remove();
                self.write(sorted(&batches)?)?;
            }
        }
        if let Target::Writer(writer) = &mut self.target {
            writer.watermark(watermark);
        }
        Ok(())
    }

    /// Ends the epoch.
    ///
    /// # Errors
    /// External: the sink failed.
    pub fn prepare(&mut self, barrier: Barrier) -> Result<Prepared> {
        debug_assert!(self.waiting.is_empty(), "every row before a barrier has found its place");
        self.prepare_epoch(barrier.epoch, barrier.last)
    }

    fn prepare_epoch(&mut self, epoch: Epoch, last: bool) -> Result<Prepared> {
        match &mut self.target {
            Target::Writer(writer) => writer.prepare(epoch, last),
            Target::Rows(_) => Ok(Prepared::default()),
        }
    }

    fn write(&mut self, batch: StreamBatch) -> Result<()> {
        let batch = self.enforce_not_null(batch)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.rows_out.add(batch.num_rows() as u64);
        match &mut self.target {
            Target::Writer(writer) => writer.write(&batch),
            Target::Rows(rows) => {
                // The reader has gone (a closed pipe): the job is being stopped.
                let _ = rows.send(batch);
                Ok(())
            }
        }
    }

    fn enforce_not_null(&mut self, batch: StreamBatch) -> Result<StreamBatch> {
        let broken = self.not_null.iter().find(|c| batch.rows.column(**c).null_count() > 0);
        let Some(column) = broken else { return Ok(batch) };
        if !self.drop_nulls {
            let column = batch.rows.schema().field(*column).name().clone();
            return Err(Error::data(format!("sink '{}': column '{column}' is NOT NULL, but a row has NULL there", self.name))
                .help("filter such rows, or SET 'table.exec.sink.not-null-enforcer' = 'DROP' to drop them"));
        }
        let whole = |row: usize| self.not_null.iter().all(|c| batch.rows.column(*c).is_valid(row));
        let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(whole(row))).collect();
        self.metrics.null_dropped.add((keep.len() - keep.true_count()) as u64);
        batch.filter(&keep)
    }
}

/// The rows of all batches (one window) in the order of their values.
fn sorted(batches: &[StreamBatch]) -> Result<StreamBatch> {
    let schema = batches[0].rows.schema();
    let rows: RecordBatch = compute::concat_batches(&schema, batches.iter().map(|b| &b.rows))?;
    let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let keys = RowConverter::new(fields)?.convert_columns(rows.columns())?;
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
    Ok(StreamBatch::new(compute::take_record_batch(&rows, &arrow::array::UInt32Array::from(order))?))
}
