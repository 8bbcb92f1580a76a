//! What the I/O thread and the workers of one source share: queues, turns, the clock, commands.
//!
//! What must hold: the clock is touched at a turn only, and turns come one after the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::connectors::{Fetcher, Payload, Position, Split};
use crate::metrics::SourceMetrics;
use crate::runtime::channel::Signal;
use crate::sql::plan::NodeId;
use crate::stream::clock::SourceClock;
use crate::stream::{Barrier, Watermark};

/// How long one wait may take: barriers are seen at least this often.
pub(super) const FETCH_WAIT: Duration = Duration::from_millis(10);

pub(super) struct Item {
    pub turn: u64,
    pub kind: ItemKind,
}

pub(super) enum ItemKind {
    Batch { split: usize, payload: Payload, seq: u64 },
    Barrier(Barrier, Arc<Vec<Split>>),
    Added,
    Idle(usize),
    Ended(usize),
    End,
}

#[derive(Default)]
pub(super) struct Queue {
    pub items: VecDeque<Item>,
    pub bytes: usize,
}

struct Turns {
    next: u64,
    clock: SourceClock,
}

/// What the I/O thread and the workers of one source share.
pub struct SourceHub {
    pub(super) node: NodeId,
    /// Number of the source in the job.
    pub(super) index: usize,
    pub(super) queues: Vec<Mutex<Queue>>,
    pub(super) signals: Vec<Arc<Signal>>,
    turns: Mutex<Turns>,
    pub(super) commands: Mutex<Commands>,
    pub(super) space: Condvar,
    pub(super) metrics: Arc<SourceMetrics>,
    pub(super) split_names: Mutex<Vec<String>>,
}

#[derive(Default)]
pub(super) struct Commands {
    pub barriers: VecDeque<Barrier>,
    pub durable: Option<Vec<Position>>,
    /// Nothing comes any more.
    pub over: bool,
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
    pub(super) fn tell_last(&self, fetcher: &mut dyn Fetcher, abort: &AtomicBool) {
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

    pub(super) fn pop(&self, worker: usize) -> Option<Item> {
        let item = {
            let mut queue = self.queues[worker].lock().expect("no panic while locked");
            let item = queue.items.pop_front()?;
            queue.bytes -= item_bytes(&item);
            item
        };
        self.space.notify_one();
        Some(item)
    }

    pub(super) fn broadcast(&self, turn: u64, kind: impl Fn() -> ItemKind) {
        for (queue, signal) in self.queues.iter().zip(&self.signals) {
            queue.lock().expect("no panic while locked").items.push_back(Item { turn, kind: kind() });
            signal.raise();
        }
    }

    /// Runs `apply` when it is `turn`'s turn, and passes the turn on. `None`: not yet. A turn that has passed
    /// (a control item that another worker applied) is answered without `apply`.
    pub(super) fn at_turn<T>(&self, turn: u64, apply: impl FnOnce(&mut SourceClock) -> T) -> Option<(Option<T>, Watermark)> {
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

    pub(super) fn merged(&self) -> (Watermark, bool) {
        let mut turns = self.turns.lock().expect("no panic while locked");
        (turns.clock.merged(), turns.clock.all_idle())
    }
}

pub(super) fn item_bytes(item: &Item) -> usize {
    match &item.kind {
        ItemKind::Batch { payload: Payload::Raw { values, .. }, .. } => values.bytes.len(),
        ItemKind::Batch { payload: Payload::Rows(rows), .. } => rows.get_array_memory_size(),
        _ => 0,
    }
}
