//! The checkpoint protocol as a pure state machine: events in, actions out.
//!
//! ```text
//!              Tick / Stop / SourcesEnded            all acked          Written           Committed
//!  Running ─────────── Inject ──────────▶ Aligning ── Write ─▶ Writing ── Commit ─▶ Committing ──▶ Running
//!                                                                                        └ last ─▶ Done (End)
//! ```
//!
//! What must hold: one checkpoint at a time; nothing is committed before it is written; a stop or the end of
//! the inputs leads to exactly one last checkpoint; a checkpoint that is under way is finished first.

use std::collections::BTreeSet;

use crate::stream::{Barrier, Epoch};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The checkpoint interval has passed.
    Tick,
    /// A task has answered a barrier.
    Acked {
        /// The task.
        task: usize,
        /// The barrier's epoch.
        epoch: Epoch,
    },
    /// Every source has ended, and the last watermark is on its way.
    SourcesEnded,
    /// The job is to stop with a checkpoint.
    Stop,
    /// State and manifest are durable.
    Written,
    /// Every sink has committed.
    Committed,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask every source to send this barrier.
    Inject(Barrier),
    /// Write state and manifest of the epoch; answer [`Event::Written`].
    Write(Barrier),
    /// Commit the sinks; answer [`Event::Committed`].
    Commit(Epoch),
    /// The job is over.
    End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Running,
    Aligning { barrier: Barrier, waiting: BTreeSet<usize> },
    Writing(Barrier),
    Committing(Barrier),
    Done,
}

/// The state machine.
#[derive(Debug)]
pub struct Protocol {
    next: Epoch,
    tasks: usize,
    phase: Phase,
    last_wanted: bool,
}

impl Protocol {
    /// For a job of `tasks` tasks whose newest checkpoint is `restored` (0: none).
    pub fn new(tasks: usize, restored: Epoch) -> Self {
        Self { next: Epoch(restored.0 + 1), tasks, phase: Phase::Running, last_wanted: false }
    }

    /// Whether the last checkpoint is done.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Takes an event; answers what to do now.
    pub fn on(&mut self, event: Event) -> Option<Action> {
        match (event, &mut self.phase) {
            (Event::Tick, Phase::Running) => self.inject(),
            (Event::Stop | Event::SourcesEnded, phase) => {
                let idle = *phase == Phase::Running;
                self.last_wanted = true;
                if idle { self.inject() } else { None }
            }
            (Event::Acked { task, epoch }, Phase::Aligning { barrier, waiting }) if barrier.epoch == epoch => {
                waiting.remove(&task);
                if !waiting.is_empty() {
                    return None;
                }
                let barrier = *barrier;
                self.phase = Phase::Writing(barrier);
                Some(Action::Write(barrier))
            }
            (Event::Written, Phase::Writing(barrier)) => {
                let barrier = *barrier;
                self.phase = Phase::Committing(barrier);
                Some(Action::Commit(barrier.epoch))
            }
            (Event::Committed, Phase::Committing(barrier)) => {
                if barrier.last {
                    self.phase = Phase::Done;
                    return Some(Action::End);
                }
                self.phase = Phase::Running;
                if self.last_wanted { self.inject() } else { None }
            }
            _ => None,
        }
    }

    fn inject(&mut self) -> Option<Action> {
        let barrier = Barrier { epoch: self.next, last: self.last_wanted };
        self.next = Epoch(self.next.0 + 1);
        self.phase = Phase::Aligning { barrier, waiting: (0..self.tasks).collect() };
        Some(Action::Inject(barrier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_during_a_checkpoint_waits_for_it_and_leads_to_one_last() {
        let mut p = Protocol::new(2, Epoch(4));
        let b5 = Barrier { epoch: Epoch(5), last: false };
        assert_eq!(p.on(Event::Tick), Some(Action::Inject(b5)));
        assert_eq!(p.on(Event::Tick), None, "one at a time");
        assert_eq!(p.on(Event::Acked { task: 0, epoch: Epoch(5) }), None);
        assert_eq!(p.on(Event::Stop), None);
        assert_eq!(p.on(Event::Acked { task: 0, epoch: Epoch(5) }), None, "an ack counts once");
        assert_eq!(p.on(Event::Acked { task: 1, epoch: Epoch(5) }), Some(Action::Write(b5)));
        assert_eq!(p.on(Event::Written), Some(Action::Commit(Epoch(5))));
        let b6 = Barrier { epoch: Epoch(6), last: true };
        assert_eq!(p.on(Event::Committed), Some(Action::Inject(b6)));
        assert_eq!(p.on(Event::SourcesEnded), None);
        for task in 0..2 {
            p.on(Event::Acked { task, epoch: Epoch(6) });
        }
        assert_eq!(p.on(Event::Written), Some(Action::Commit(Epoch(6))));
        assert_eq!(p.on(Event::Committed), Some(Action::End));
        assert!(p.is_done());
    }
}
