//! A chain: the operators of one task, called directly, and its exits into lanes and sinks.
//!
//! A node with several users hands each message to all of them. A barrier goes through the chain like any
//! message: each operator first emits what it holds back and hands out its state, then the barrier passes.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};

use super::channel::LaneSender;
use super::checkpoint::{Ack, Snapshot};
use super::key_range::owners;
use super::operators::{Operator, Out};
use super::sink::SinkEnd;
use crate::error::Result;
use crate::sql::plan::NodeId;
use crate::stream::{Message, Watermark};

/// Where messages of a node go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Operator number i of the chain.
    Operator(usize),
    /// Exit number i.
    Exit(usize),
    /// Sink number i of the chain.
    Sink(usize),
}

/// How an exit spreads batches over its lanes.
#[derive(Debug, Clone)]
pub enum Route {
    /// One lane: the same worker's task, or the only one there is.
    One,
    /// By key group of these columns, one lane a worker.
    Keys(Vec<usize>),
}

/// A way out of the task.
pub struct Exit {
    /// How batches are spread.
    pub route: Route,
    /// The lanes.
    pub lanes: Vec<LaneSender>,
    /// Empty batches pass: their place in the order matters.
    pub keep_empty: bool,
    /// What did not fit yet, in order.
    pub pending: VecDeque<(usize, Message)>,
}

impl Exit {
    fn push(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Batch(batch) if batch.num_rows() == 0 && !self.keep_empty => {}
            Message::Batch(batch) => match &self.route {
                Route::One => self.pending.push_back((0, Message::Batch(batch))),
                Route::Keys(keys) => {
                    let columns: Vec<ArrayRef> = keys.iter().map(|k| batch.rows.column(*k).clone()).collect();
                    let owners = owners(&columns, &batch.rows, self.lanes.len())?;
                    for lane in 0..self.lanes.len() {
                        let mine: Vec<u32> = (0..owners.len() as u32).filter(|i| owners[*i as usize] == lane).collect();
                        if mine.len() == owners.len() {
                            self.pending.push_back((lane, Message::Batch(batch.clone())));
                        } else if !mine.is_empty() {
                            self.pending.push_back((lane, Message::Batch(batch.take(&UInt32Array::from(mine))?)));
                        }
                    }
                }
            },
            control => self.pending.extend((0..self.lanes.len()).map(|lane| (lane, control.clone()))),
        }
        Ok(())
    }

    /// Sends what fits; true when nothing is left. A full lane holds back all that follows: order is kept.
    fn drain(&mut self) -> bool {
        while let Some((lane, message)) = self.pending.pop_front() {
            if let Err(message) = self.lanes[lane].try_send(message) {
                self.pending.push_front((lane, message));
                return false;
            }
        }
        true
    }
}

struct Slot {
    node: NodeId,
    operator: Box<dyn Operator>,
    targets: Arc<[Target]>,
    watermark: Watermark,
}

/// The operators, exits and sinks of one task.
#[derive(Default)]
pub struct Chain {
    slots: Vec<Slot>,
    entry: Vec<Target>,
    exits: Vec<Exit>,
    sinks: Vec<SinkEnd>,
}

impl Chain {
    /// Adds an operator of `node`; answers its number.
    pub fn add_operator(&mut self, node: NodeId, operator: Box<dyn Operator>, watermark: Watermark) -> usize {
        self.slots.push(Slot { node, operator, targets: Arc::new([]), watermark });
        self.slots.len() - 1
    }

    /// Adds an exit; answers its number.
    pub fn add_exit(&mut self, exit: Exit) -> usize {
        self.exits.push(exit);
        self.exits.len() - 1
    }

    /// Adds a sink; answers its number.
    pub fn add_sink(&mut self, sink: SinkEnd) -> usize {
        self.sinks.push(sink);
        self.sinks.len() - 1
    }

    /// Messages of operator `from` (`None`: of the task's input) go to `to`, too.
    pub fn connect(&mut self, from: Option<usize>, to: Target) {
        match from {
            None => self.entry.push(to),
            Some(slot) => self.slots[slot].targets = self.slots[slot].targets.iter().copied().chain([to]).collect(),
        }
    }

    /// Sends what waits at the exits; true when nothing does.
    pub fn drain(&mut self) -> bool {
        // Every exit is drained, also behind one that is full.
        self.exits.iter_mut().map(Exit::drain).filter(|empty| !empty).count() == 0
    }

    /// Takes a message of the input. A barrier's answers are added to `ack`.
    ///
    /// # Errors
    /// Those of operators and sinks.
    pub fn deliver(&mut self, message: Message, ack: &mut Ack) -> Result<()> {
        for target in self.entry.clone() {
            self.pass(target, message.clone(), ack)?;
        }
        Ok(())
    }

    /// Bytes of state of all operators.
    pub fn state_bytes(&self) -> usize {
        self.slots.iter().map(|s| s.operator.state_bytes()).sum()
    }

    fn pass(&mut self, target: Target, message: Message, ack: &mut Ack) -> Result<()> {
        match target {
            Target::Exit(exit) => self.exits[exit].push(message),
            Target::Sink(sink) => {
                let sink = &mut self.sinks[sink];
                match message {
                    Message::Batch(batch) => sink.batch(batch)?,
                    Message::Watermark(w) => sink.watermark(w)?,
                    Message::Barrier(barrier) => {
                        let prepared = sink.prepare(barrier)?;
                        ack.sinks.push((sink.sink, prepared));
                    }
                    Message::Idle | Message::End => {}
                }
                Ok(())
            }
            Target::Operator(index) => {
                let slot = &mut self.slots[index];
                let mut out = Out::default();
                match message {
                    Message::Batch(batch) => slot.operator.batch(batch, &mut out)?,
                    Message::Watermark(w) => {
                        // After a restart the inputs may stand behind what the operator has emitted.
                        slot.watermark = slot.watermark.max(w);
                        slot.operator.watermark(slot.watermark, &mut out)?;
                    }
                    Message::Barrier(barrier) => {
                        let mut snapshot = Snapshot::default();
                        slot.operator.barrier(barrier, &mut snapshot, &mut out)?;
                        ack.sinks.append(&mut snapshot.sinks);
                        if !snapshot.segments.is_empty() || slot.operator.keeps_time() {
                            ack.operators.push((slot.node, slot.watermark, snapshot));
                        }
                        out.0.push(Message::Barrier(barrier));
                    }
                    control => out.0.push(control),
                }
                let targets = slot.targets.clone();
                for message in out.0 {
                    match &targets[..] {
                        [only] => self.pass(*only, message, ack)?,
                        several => several.iter().try_for_each(|t| self.pass(*t, message.clone(), ack))?,
                    }
                }
                Ok(())
            }
        }
    }
}
