//! Sources: one I/O thread that fetches, workers that decode in parallel, one order in which rows are stamped.
//!
//! ```text
//!  I/O thread: fetch ─▶ turn 7 (batch) ─▶ worker 0: decode ─┐ wait for turn 7 ─▶ stamp ─▶ chain
//!                       turn 8 (batch) ─▶ worker 1: decode ─┘ wait for turn 8 ─▶ stamp ─▶ chain
//!                       turn 9 (barrier) ─▶ every worker
//! ```
//!
//! Everything the I/O thread hands out has a *turn*; stamping goes strictly by turn, so that one partition is
//! decoded on all cores and still measured row by row in its own order. Barriers, ended and idle splits have
//! turns too and go to every worker; the first to reach such a turn applies it to the clock.
//!
//! What must hold: a worker forwards the merged watermark M only when every batch that it stamped before
//! reading M has gone down its chain; so no row that arrives after M can have an own watermark below M.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, SchemaRef, TimestampMillisecondType};

use super::chain::Chain;
use super::channel::Signal;
use super::checkpoint::{Ack, SourceSnapshot};
use super::operators::calc;
use super::task::{JobEvent, deliver, send};
use super::worker::{Step, Task};
use crate::connectors::{BatchLimits, Envelope, Fetched, Fetcher, Payload, Position, RowReader, SinkWriter, Split};
use crate::error::{Error, Result};
use crate::metrics::SourceMetrics;
use crate::sql::plan::{BadRecords, Expr, NodeId, SourceOp};
use crate::stream::clock::SourceClock;
use crate::stream::{Barrier, Message, StreamBatch, Watermark};

/// Items that wait at one worker, at most; and bytes of them.
const QUEUE_ITEMS_MAX: usize = 8;
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// How long one fetch may wait: barriers are seen at least this often.
const FETCH_WAIT: Duration = Duration::from_millis(10);

struct Item {
    turn: u64,
    kind: ItemKind,
}

enum ItemKind {
    Batch { split: usize, payload: Payload, seq: u64 },
    Barrier(Barrier, Arc<Vec<Split>>),
    Added,
    Idle(usize),
    Ended(usize),
    End,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

struct Turns {
    next: u64,
    clock: SourceClock,
}

/// What the I/O thread and the workers of one source share.
pub struct SourceHub {
    node: NodeId,
    /// Number of the source in the job.
    index: usize,
    queues: Vec<Mutex<Queue>>,
    signals: Vec<Arc<Signal>>,
    turns: Mutex<Turns>,
    commands: Mutex<Commands>,
    space: Condvar,
    metrics: Arc<SourceMetrics>,
    split_names: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Commands {
    barriers: VecDeque<Barrier>,
    durable: Option<Vec<Position>>,
    /// Nothing comes any more.
    over: bool,
}

impl SourceHub {
    /// A hub for `node`, the source number `index`, with its splits' restored watermarks.
    pub fn new(
        node: NodeId,
        index: usize,
        signals: Vec<Arc<Signal>>,
        splits: &[(Split, Watermark)],
        merged: Watermark,
        metrics: Arc<SourceMetrics>,
    ) -> Arc<Self> {
        let mut clock = SourceClock::new(merged);
        for (i, (split, watermark)) in splits.iter().enumerate() {
            clock.add_split(*watermark);
            if split.ended {
                clock.set_ended(i);
            }
        }
        Arc::new(Self {
            node,
            index,
            queues: signals.iter().map(|_| Mutex::default()).collect(),
            signals,
            turns: Mutex::new(Turns { next: 0, clock }),
            commands: Mutex::default(),
            space: Condvar::new(),
            metrics,
            split_names: Mutex::new(splits.iter().map(|(s, _)| s.id.clone()).collect()),
        })
    }

    /// Asks for a barrier behind what has been handed out.
    pub fn inject(&self, barrier: Barrier) {
        self.commands.lock().expect("no panic while locked").barriers.push_back(barrier);
        self.space.notify_one();
    }

    /// Tells the fetcher that a checkpoint with these positions is durable.
    pub fn durable(&self, positions: Vec<Position>) {
        self.commands.lock().expect("no panic while locked").durable = Some(positions);
        self.space.notify_one();
    }

    /// Tells the fetcher that the last checkpoint is done with.
    pub fn finish(&self) {
        self.commands.lock().expect("no panic while locked").over = true;
        self.space.notify_one();
    }

    /// Waits for the last checkpoint, whose positions the source is told like those of any other.
    fn tell_last(&self, fetcher: &mut dyn Fetcher, abort: &AtomicBool) {
        let mut commands = self.commands.lock().expect("no panic while locked");
        while !commands.over && !abort.load(Ordering::Relaxed) {
            commands = self.space.wait_timeout(commands, FETCH_WAIT).expect("no panic while locked").0;
        }
        let durable = commands.durable.take();
        drop(commands);
        if let Some(positions) = durable {
            fetcher.checkpointed(&positions);
        }
    }

    /// Tells the counters which splits hold the watermark back without ever having had a row.
    pub fn publish_holders(&self) {
        *self.metrics.holders.lock().expect("no panic while locked") = self.empty_holders();
    }

    fn empty_holders(&self) -> Vec<String> {
        let turns = self.turns.lock().expect("no panic while locked");
        let names = self.split_names.lock().expect("no panic while locked");
        let holders = turns.clock.holders().filter(|s| turns.clock.split(*s) == Watermark::MIN);
        holders.filter_map(|s| names.get(s).cloned()).collect()
    }

    fn pop(&self, worker: usize) -> Option<Item> {
        let item = {
            let mut queue = self.queues[worker].lock().expect("no panic while locked");
            let item = queue.items.pop_front()?;
            queue.bytes -= item_bytes(&item);
            item
        };
        self.space.notify_one();
        Some(item)
    }

    fn broadcast(&self, turn: u64, kind: impl Fn() -> ItemKind) {
        for (queue, signal) in self.queues.iter().zip(&self.signals) {
            queue.lock().expect("no panic while locked").items.push_back(Item { turn, kind: kind() });
            signal.raise();
        }
    }

    /// Runs `apply` when it is `turn`'s turn, and passes the turn on. `None`: not yet. A turn that has passed
    /// (a control item that another worker applied) is answered without `apply`.
    fn at_turn<T>(&self, turn: u64, apply: impl FnOnce(&mut SourceClock) -> T) -> Option<(Option<T>, Watermark)> {
        let mut turns = self.turns.lock().expect("no panic while locked");
        if turns.next < turn {
            return None;
        }
        let applied = (turns.next == turn).then(|| {
            let applied = apply(&mut turns.clock);
            turns.next += 1;
            applied
        });
        let merged = turns.clock.merged();
        drop(turns);
        if applied.is_some() {
            self.signals.iter().for_each(|s| s.raise());
        }
        Some((applied, merged))
    }

    fn merged(&self) -> (Watermark, bool) {
        let mut turns = self.turns.lock().expect("no panic while locked");
        (turns.clock.merged(), turns.clock.all_idle())
    }
}

fn item_bytes(item: &Item) -> usize {
    match &item.kind {
        ItemKind::Batch { payload: Payload::Raw { values, .. }, .. } => values.bytes.len(),
        ItemKind::Batch { payload: Payload::Rows(rows), .. } => rows.get_array_memory_size(),
        _ => 0,
    }
}

/// The I/O thread of one source: fetches until `abort`, or until the last barrier has been handed out.
///
/// # Errors
/// Those of the fetcher.
pub fn run_fetcher(
    hub: &SourceHub,
    mut fetcher: Box<dyn Fetcher>,
    mut splits: Vec<Split>,
    limits: BatchLimits,
    idle_timeout: Option<Duration>,
    events: &Sender<JobEvent>,
    abort: &AtomicBool,
) -> Result<()> {
    let (mut turn, mut seq) = (0, 0);
    let mut ended = false;
    let mut active: Vec<(Instant, bool)> = splits.iter().map(|_| (Instant::now(), false)).collect();
    if !splits.is_empty() && splits.iter().all(|s| s.ended) {
        ended = true;
        send(events, JobEvent::SourceEnded(hub.index));
    }
    loop {
        if abort.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (barrier, durable) = {
            let mut commands = hub.commands.lock().expect("no panic while locked");
            (commands.barriers.pop_front(), commands.durable.take())
        };
        if let Some(positions) = durable {
            fetcher.checkpointed(&positions);
        }
        if let Some(barrier) = barrier {
            let at = Arc::new(splits.clone());
            hub.broadcast(turn, || ItemKind::Barrier(barrier, at.clone()));
            turn += 1;
            if barrier.last {
                hub.broadcast(turn, || ItemKind::End);
                hub.tell_last(&mut *fetcher, abort);
                return Ok(());
            }
            continue;
        }
        if ended || !has_room(hub) {
            let commands = hub.commands.lock().expect("no panic while locked");
            if commands.barriers.is_empty() {
                // A lost wake-up costs one wait.
                drop(hub.space.wait_timeout(commands, FETCH_WAIT));
            }
            continue;
        }
        match fetcher.fetch(&limits, FETCH_WAIT)? {
            Fetched::Batch { split, payload, position } => {
                active[split] = (Instant::now(), false);
                splits[split].position = position;
                let item = Item { turn, kind: ItemKind::Batch { split, payload, seq } };
                turn += 1;
                seq += 1;
                hand_out(hub, item);
            }
            Fetched::SplitAdded(split) => {
                hub.split_names.lock().expect("no panic while locked").push(split.id.clone());
                splits.push(split);
                active.push((Instant::now(), false));
                hub.broadcast(turn, || ItemKind::Added);
                turn += 1;
            }
            Fetched::SplitEnded(split) => {
                splits[split].ended = true;
                hub.broadcast(turn, || ItemKind::Ended(split));
                turn += 1;
            }
            Fetched::Nothing => {}
            Fetched::End => {
                // A fetcher may end without having named each split's end.
                for (number, split) in splits.iter_mut().enumerate() {
                    if !std::mem::replace(&mut split.ended, true) {
                        hub.broadcast(turn, || ItemKind::Ended(number));
                        turn += 1;
                    }
                }
                ended = true;
                send(events, JobEvent::SourceEnded(hub.index));
            }
        }
        if let Some(timeout) = idle_timeout {
            for split in 0..splits.len() {
                let (since, idle) = active[split];
                if !idle && !splits[split].ended && since.elapsed() >= timeout {
                    active[split].1 = true;
                    hub.broadcast(turn, || ItemKind::Idle(split));
                    turn += 1;
                }
            }
        }
    }
}

fn has_room(hub: &SourceHub) -> bool {
    hub.queues.iter().any(|q| {
        let queue = q.lock().expect("no panic while locked");
        queue.items.len() < QUEUE_ITEMS_MAX && queue.bytes < QUEUE_BYTES_MAX
    })
}

/// Gives a batch to the worker with the least to do.
fn hand_out(hub: &SourceHub, item: Item) {
    let length = |i: &usize| {
        let queue = hub.queues[*i].lock().expect("no panic while locked");
        (queue.items.len(), queue.bytes)
    };
    let worker = (0..hub.queues.len()).min_by_key(length).expect("a job has at least one worker");
    let mut queue = hub.queues[worker].lock().expect("no panic while locked");
    queue.bytes += item_bytes(&item);
    queue.items.push_back(item);
    drop(queue);
    hub.signals[worker].raise();
}

/// Where bad records go, where the policy keeps them.
pub struct DeadLetter {
    /// Number of the sink in the job.
    pub sink: usize,
    /// This worker's writer.
    pub writer: Box<dyn SinkWriter>,
    /// Its columns.
    pub schema: SchemaRef,
}

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
        self.reject(payload, &rejected)?;

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
            self.reject(payload, &bad)?;
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

    /// Applies the policy to records that cannot be used.
    fn reject(&mut self, payload: &Payload, bad: &[(usize, String)]) -> Result<()> {
        let Some((first, reason)) = bad.first() else { return Ok(()) };
        let (values, envelope) = match payload {
            Payload::Raw { values, envelope } => (Some(values), envelope),
            Payload::Rows(_) => (None, &Envelope::default()),
        };
        let raw = |i: usize| values.and_then(|v| v.get(i)).map(|b| String::from_utf8_lossy(b).into_owned());
        let table = &self.op.table.name;
        if matches!(self.op.bad_records, BadRecords::Fail) {
            let place = place_of(envelope, *first);
            let shown: String = raw(*first).unwrap_or_default().chars().take(200).collect();
            return Err(Error::data(format!("table '{table}': a record cannot be read ({place}): {reason}\n  record: {shown}")).help(
                format!("SET 'velosql.table.{table}.bad-records' = 'skip' counts and skips such records; 'dead-letter' keeps them"),
            ));
        }
        self.hub.metrics.rejected.add(bad.len() as u64);
        let Some(dead) = &mut self.dead_letter else { return Ok(()) };
        let column = |of: &dyn Fn(usize, &str) -> Option<String>| -> ArrayRef {
            Arc::new(bad.iter().map(|(i, reason)| of(*i, reason)).collect::<StringArray>())
        };
        let columns = dead.schema.fields().iter().map(|f| {
            let text = match f.name().as_str() {
                "reason" => column(&|_, reason| Some(reason.to_string())),
                "raw" => column(&|i, _| raw(i)),
                "partition" => column(&|_, _| Some(envelope.partition.to_string())),
                "offset" => column(&|i, _| envelope.offsets.get(i).map(i64::to_string)),
                _ => column(&|_, _| Some(envelope.origin.to_string())),
            };
            arrow::compute::cast(&text, f.data_type()).map_err(Error::from)
        });
        let rows = RecordBatch::try_new(dead.schema.clone(), columns.collect::<Result<_>>()?)?;
        dead.writer.write(&StreamBatch::new(rows))
    }
}

fn place_of(envelope: &Envelope, record: usize) -> String {
    let number = envelope.offsets.get(record).copied().unwrap_or(record as i64);
    if envelope.file.is_some() {
        format!("{}, record {}", envelope.origin, number + 1)
    } else {
        format!("topic {}, partition {}, offset {number}", envelope.origin, envelope.partition)
    }
}
