//! The lanes into a task: watermarks merged, barriers aligned.
//!
//! ```text
//!  lane 0  ─ b b W5 b │B1│ b b …      held back until every lane has delivered B1 (or has ended)
//!  lane 1  ─ b W3 b b b b │B1│
//!  out       b b b W3 b b b │B1│ …     W = min over the lanes of inputs that are not idle
//! ```
//!
//! What must hold: after a barrier nothing of its lane is read until the barrier has been seen on every
//! lane that has not ended; the merged watermark never goes back; an input is idle only when all of its lanes
//! are (one worker may learn later than another that a source is active again, while it holds rows back), and when
//! all are, time moves to the furthest one; with a planted fault (`VELOSQL_FAULT=unaligned-barrier`) the first rule is
//! broken on purpose, and a test turns red.

use std::time::Instant;

use super::channel::LaneReceiver;
use crate::stream::{Barrier, Message, Watermark};

struct Lane {
    input: usize,
    receiver: LaneReceiver,
    watermark: Watermark,
    idle: bool,
    ended: bool,
    barrier: Option<Barrier>,
}

/// All lanes of one task.
pub struct Inputs {
    lanes: Vec<Lane>,
    next: usize,
    merged: Watermark,
    was_idle: bool,
    /// All inputs fell silent and time has just moved: [`Message::Idle`] is what comes next.
    falls_idle: bool,
    aligning_since: Option<Instant>,
    aligned_ms: u64,
    unaligned: bool,
}

impl Inputs {
    /// The lanes of each input, starting at `watermark` (the restored one, or [`Watermark::MIN`]).
    pub fn new(inputs: Vec<Vec<LaneReceiver>>, watermark: Watermark) -> Self {
        let lane = |input, receiver| Lane { input, receiver, watermark: Watermark::MIN, idle: false, ended: false, barrier: None };
        let lanes = inputs.into_iter().enumerate().flat_map(|(i, lanes)| lanes.into_iter().map(move |r| lane(i, r))).collect();
        let unaligned = crate::fault::planted("unaligned-barrier");
        Self { lanes, next: 0, merged: watermark, was_idle: false, falls_idle: false, aligning_since: None, aligned_ms: 0, unaligned }
    }

    /// The next message for the task; `None` when nothing can be read now. Batches pass as they come; a
    /// watermark only where the merged one moved; one barrier once all lanes have delivered it; one end.
    pub fn poll(&mut self) -> Option<Message> {
        if std::mem::take(&mut self.falls_idle) {
            self.was_idle = true;
            return Some(Message::Idle);
        }
        // A whole round without a message: nothing is left. A control message may be used up silently, and what
        // follows it must not wait for the next wake-up.
        let mut without = 0;
        while without < self.lanes.len() {
            let index = self.next;
            self.next = (self.next + 1) % self.lanes.len();
            let lane = &mut self.lanes[index];
            let held_back = lane.ended || (lane.barrier.is_some() && !self.unaligned);
            let Some(message) = (if held_back { None } else { lane.receiver.try_recv() }) else {
                without += 1;
                continue;
            };
            without = 0;
            match message {
                Message::Batch(batch) => {
                    lane.idle = false;
                    self.was_idle = false;
                    // The lane stays the next one: a full lane is drained before the following is asked.
                    self.next = index;
                    return Some(Message::Batch(batch));
                }
                Message::Watermark(w) => {
                    lane.watermark = lane.watermark.max(w);
                    lane.idle = false;
                }
                Message::Idle => lane.idle = true,
                Message::Barrier(barrier) => {
                    lane.barrier = Some(barrier);
                    self.aligning_since.get_or_insert_with(Instant::now);
                }
                Message::End => lane.ended = true,
            }
            if let Some(out) = self.settle() {
                return Some(out);
            }
        }
        None
    }

    /// What follows from the lanes' state after a control message.
    fn settle(&mut self) -> Option<Message> {
        if self.lanes.iter().all(|l| l.ended) {
            return Some(Message::End);
        }
        let arrived = |l: &Lane| l.barrier.is_some() || l.ended;
        if self.lanes.iter().any(|l| l.barrier.is_some()) && (self.lanes.iter().all(arrived) || self.unaligned) {
            let barrier = self.lanes.iter().find_map(|l| l.barrier);
            let complete = self.lanes.iter().all(arrived);
            if complete {
                self.lanes.iter_mut().for_each(|l| l.barrier = None);
                self.aligned_ms += self.aligning_since.take().map_or(0, |at| at.elapsed().as_millis() as u64);
                return barrier.map(Message::Barrier);
            }
        }
        match self.active_minimum() {
            // Time moves, or counts again after silence.
            Some(w) if w > self.merged || self.was_idle => {
                self.merged = self.merged.max(w);
                self.was_idle = false;
                Some(Message::Watermark(self.merged))
            }
            None if !self.was_idle => {
                // Nobody is there who could move time: the input that is furthest decides, as in Flink.
                let furthest = self.furthest_input().filter(|w| *w > self.merged);
                self.merged = furthest.unwrap_or(self.merged);
                (self.was_idle, self.falls_idle) = (furthest.is_none(), furthest.is_some());
                Some(furthest.map_or(Message::Idle, Message::Watermark))
            }
            _ => None,
        }
    }

    /// The minimum over the lanes of inputs of which at least one lane is active.
    fn active_minimum(&self) -> Option<Watermark> {
        let open = || self.lanes.iter().filter(|l| !l.ended);
        open().filter(|l| open().any(|other| other.input == l.input && !other.idle)).map(|l| l.watermark).min()
    }

    /// The maximum over the inputs of the minimum over their open lanes (a lane may still hold rows back).
    fn furthest_input(&self) -> Option<Watermark> {
        let open = || self.lanes.iter().filter(|l| !l.ended);
        open().filter_map(|l| open().filter(|other| other.input == l.input).map(|other| other.watermark).min()).max()
    }

    /// Milliseconds waited for alignment since the last call.
    pub fn take_aligned_ms(&mut self) -> u64 {
        std::mem::take(&mut self.aligned_ms)
    }
}
