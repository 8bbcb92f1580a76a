//! One worker's share of a source: decode, wait for the turn, stamp, hand on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, SchemaRef, TimestampMillisecondType};

use super::bad_records::{DeadLetter, reject};
use super::hub::{Item, ItemKind, SourceHub};
use crate::connectors::{Payload, RowReader, Split};
use crate::error::Result;
use crate::runtime::chain::Chain;
use crate::runtime::checkpoint::{Ack, SourceSnapshot};
use crate::runtime::operators::calc;
use crate::runtime::task::{JobEvent, deliver, send};
use crate::runtime::worker::{Step, Task};
use crate::sql::plan::{Expr, SourceOp};
use crate::stream::clock::SourceClock;
use crate::stream::{Barrier, Message, StreamBatch, Watermark};

/// One worker's share of a source.
pub struct SourceTask {
    /// Number in the job.
    pub id: usize,
    /// The worker.
    pub worker: usize,
    /// Shared with the I/O thread and the other workers.
    pub hub: Arc<SourceHub>,
    /// Decodes payloads.
    pub reader: Box<dyn RowReader>,
    /// What to read.
    pub op: SourceOp,
    /// Columns of the rows handed on.
    pub schema: SchemaRef,
    /// What follows.
    pub chain: Chain,
    /// Bad records.
    pub dead_letter: Option<DeadLetter>,
    /// Planted fault: a filter that is applied before the watermark has seen the rows.
    pub early_filter: Option<Expr>,
    /// To the coordinator.
    pub events: Sender<JobEvent>,
    /// What waits for its turn.
    pub waiting: Option<Waiting>,
    /// The watermark last forwarded.
    pub forwarded: Watermark,
    /// The source was idle when last looked at.
    pub was_idle: bool,
    /// The restored watermark has been forwarded.
    pub started: bool,
    /// The last barrier has passed.
    pub ended: bool,
}

/// An item that waits for its turn, decoded where it is a batch.
pub enum Waiting {
    /// Rows to be stamped.
    Batch {
        /// The turn.
        turn: u64,
        /// The split.
        split: usize,
        /// Place in the order of batches.
        seq: u64,
        /// The rows.
        rows: RecordBatch,
        /// Rowtime and watermark candidate of each row.
        times: Option<(TimestampMillisecondArray, TimestampMillisecondArray)>,
    },
    /// Anything else.
    Control(Control),
}

/// A control item that waits for its turn.
pub struct Control(Item);

impl Task for SourceTask {
    fn step(&mut self) -> Result<Step> {
        if !self.chain.drain() {
            return Ok(Step::Blocked);
        }
        if self.ended {
            return Ok(Step::Done);
        }
        if !std::mem::replace(&mut self.started, true) {
            // After a restart operators learn what had been emitted before they see a row.
            let (merged, _) = self.hub.merged();
            self.forward(merged)?;
        }
        if self.waiting.is_none() {
            match self.hub.pop(self.worker) {
                None => return self.forward_merged(),
                Some(Item { turn, kind: ItemKind::Batch { split, payload, seq } }) => {
                    let (rows, times) = self.decode(split, &payload)?;
                    self.waiting = Some(Waiting::Batch { turn, split, seq, rows, times });
                }
                Some(item) => self.waiting = Some(Waiting::Control(Control(item))),
            }
        }
        match self.waiting.take() {
            Some(Waiting::Batch { turn, split, seq, rows, times }) => {
                let stamped =
                    self.hub.at_turn(turn, |clock| times.as_ref().and_then(|(rowtime, candidate)| clock.stamp(split, rowtime, candidate)));
                match stamped {
                    None => {
                        self.waiting = Some(Waiting::Batch { turn, split, seq, rows, times });
                        Ok(Step::Blocked)
                    }
                    Some((behind, merged)) => {
                        let batch = StreamBatch { rows, kinds: None, behind: behind.flatten(), seq: Some(seq) };
                        self.emit(Message::Batch(batch))?;
                        self.forward(merged)?;
                        Ok(Step::Ready)
                    }
                }
            }
            Some(Waiting::Control(Control(item))) => self.control(item),
            None => Ok(Step::Blocked),
        }
    }
}

impl SourceTask {
    fn emit(&mut self, message: Message) -> Result<()> {
        deliver(&mut self.chain, message, self.id, &self.events)
    }

    fn forward(&mut self, merged: Watermark) -> Result<()> {
        if merged > self.forwarded {
            self.forwarded = merged;
            self.hub.metrics.watermark.set(merged.0);
            self.emit(Message::Watermark(merged))?;
        }
        Ok(())
    }

    /// Nothing is in flight here: what other workers have stamped may move time on.
    fn forward_merged(&mut self) -> Result<Step> {
        let (merged, idle) = self.hub.merged();
        let moved = merged > self.forwarded || idle != self.was_idle;
        self.forward(merged)?;
        if idle && !self.was_idle {
            self.emit(Message::Idle)?;
        }
        if !idle && self.was_idle {
            // Active again: the lane counts with the watermark that it had.
            self.emit(Message::Watermark(self.forwarded))?;
        }
        self.was_idle = idle;
        Ok(if moved { Step::Ready } else { Step::Blocked })
    }

    fn control(&mut self, item: Item) -> Result<Step> {
        let snapshot = |clock: &mut SourceClock, splits: &[Split]| {
            let splits = splits.iter().cloned().enumerate().map(|(i, s)| (s, clock.split(i))).collect();
            SourceSnapshot { node: self.hub.node, splits, merged: clock.merged() }
        };
        let reached = self.hub.at_turn(item.turn, |clock| {
            match &item.kind {
                ItemKind::Added => {
                    let merged = clock.merged();
                    clock.add_split(merged);
                }
                ItemKind::Idle(split) => clock.set_idle(*split),
                ItemKind::Ended(split) => clock.set_ended(*split),
                ItemKind::Barrier(_, splits) => return Some(snapshot(clock, splits)),
                ItemKind::Batch { .. } | ItemKind::End => {}
            }
            None
        });
        let Some((applied, merged)) = reached else {
            self.waiting = Some(Waiting::Control(Control(item)));
            return Ok(Step::Blocked);
        };
        match item.kind {
            ItemKind::Barrier(barrier, _) => self.barrier(barrier, applied.flatten())?,
            ItemKind::End => {
                self.ended = true;
                self.emit(Message::End)?;
            }
            _ => self.forward(merged)?,
        }
        Ok(Step::Ready)
    }

    fn barrier(&mut self, barrier: Barrier, source: Option<SourceSnapshot>) -> Result<()> {
        let mut ack =
            Ack { task: self.id, epoch: barrier.epoch, operators: Vec::new(), sinks: Vec::new(), sources: source.into_iter().collect() };
        self.chain.deliver(Message::Barrier(barrier), &mut ack)?;
        if let Some(dead) = &mut self.dead_letter {
            ack.sinks.push((dead.sink, dead.writer.prepare(barrier.epoch, barrier.last)?));
        }
        send(&self.events, JobEvent::Acked(Box::new(ack)));
        Ok(())
    }

    /// Payload → columns of the node, with rowtime and watermark candidates.
    #[allow(clippy::type_complexity)]
    fn decode(
        &mut self,
        split: usize,
        payload: &Payload,
    ) -> Result<(RecordBatch, Option<(TimestampMillisecondArray, TimestampMillisecondArray)>)> {
        let decoded = self.reader.read(payload)?;
        let (records, bytes) = match payload {
            Payload::Raw { values, .. } => (values.len(), values.bytes.len()),
            Payload::Rows(rows) => (rows.num_rows(), 0),
        };
        self.count(split, records, bytes);
        self.hub.metrics.nulled_values.add(decoded.nulled_values);
        let rejected: Vec<(usize, String)> = decoded.rejected.into_iter().map(|r| (r.index, r.reason)).collect();
        reject(&self.op, self.dead_letter.as_mut(), &self.hub.metrics, payload, &rejected)?;

        let mut rows = decoded.batch;
        if !calc::is_identity(&self.op.columns, rows.num_columns()) || rows.schema() != self.schema {
            rows = calc::project(&rows, &self.op.columns, &self.schema)?;
        }
        let Some(watermark) = self.op.watermark.clone() else { return Ok((rows, None)) };
        if rows.column(watermark.rowtime).null_count() > 0 {
            let name = self.schema.field(watermark.rowtime).name().clone();
            let time = rows.column(watermark.rowtime).clone();
            let record = |row: usize| decoded.origin.as_ref().map_or(row, |o| o[row] as usize);
            let bad: Vec<(usize, String)> =
                (0..time.len()).filter(|i| time.is_null(*i)).map(|i| (record(i), format!("the event time '{name}' is NULL"))).collect();
            reject(&self.op, self.dead_letter.as_mut(), &self.hub.metrics, payload, &bad)?;
            rows = arrow::compute::filter_record_batch(&rows, &arrow::compute::is_not_null(&time)?)?;
        }
        if let Some(filter) = &self.early_filter {
            rows = calc::filter(&StreamBatch::new(rows), filter)?.rows;
        }
        let millis = |array: ArrayRef| -> Result<TimestampMillisecondArray> {
            let plain = arrow::compute::cast(&array, &DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None))?;
            Ok(plain.as_primitive::<TimestampMillisecondType>().clone())
        };
        let rowtime = millis(rows.column(watermark.rowtime).clone())?;
        let candidate = millis(watermark.candidate.evaluate(&rows)?.into_array(rows.num_rows())?)?;
        Ok((rows, Some((rowtime, candidate))))
    }

    fn count(&self, split: usize, records: usize, bytes: usize) {
        let metrics = &self.hub.metrics;
        metrics.bytes.add(bytes as u64);
        let names = self.hub.split_names.lock().expect("no panic while locked");
        let name = names.get(split).cloned().unwrap_or_else(|| split.to_string());
        drop(names);
        let mut counts: std::sync::MutexGuard<'_, BTreeMap<String, u64>> = metrics.records.lock().expect("no panic while locked");
        *counts.entry(name).or_default() += records as u64;
    }
}
