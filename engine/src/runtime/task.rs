//! Tasks behind lanes: aligned inputs into a chain.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::chain::Chain;
use super::checkpoint::Ack;
use super::inputs::Inputs;
use super::worker::{Step, Task};
use crate::error::Result;
use crate::metrics::JobMetrics;
use crate::stream::{Epoch, Message};

/// What tasks tell the coordinator.
#[derive(Debug)]
pub enum JobEvent {
    /// A task has answered a barrier.
    Acked(Box<Ack>),
    /// Every split of a source has ended (the source's number in the job).
    SourceEnded(usize),
    /// A thread has failed.
    Failed(crate::error::Error),
}

/// Messages one step handles at most, so that every task of a worker gets its turn.
const MESSAGES_A_STEP: usize = 16;

/// A task whose input are lanes.
pub struct LaneTask {
    /// Number in the job.
    pub id: usize,
    /// Its lanes.
    pub inputs: Inputs,
    /// Its operators.
    pub chain: Chain,
    /// To the coordinator.
    pub events: Sender<JobEvent>,
    /// Counters.
    pub metrics: Arc<JobMetrics>,
    /// The lanes have ended; only the exits are left.
    pub ended: bool,
}

impl Task for LaneTask {
    fn step(&mut self) -> Result<Step> {
        let mut progress = false;
        for _ in 0..MESSAGES_A_STEP {
            if !self.chain.drain() {
                return Ok(if progress { Step::Ready } else { Step::Blocked });
            }
            if self.ended {
                return Ok(Step::Done);
            }
            let Some(message) = self.inputs.poll() else {
                return Ok(if progress { Step::Ready } else { Step::Blocked });
            };
            progress = true;
            self.ended = matches!(message, Message::End);
            deliver(&mut self.chain, message, self.id, &self.events)?;
            self.metrics.alignment_ms.add(self.inputs.take_aligned_ms());
        }
        Ok(Step::Ready)
    }
}

/// Delivers a message to a chain; a barrier is answered to the coordinator.
///
/// # Errors
/// Those of the chain.
pub fn deliver(chain: &mut Chain, message: Message, task: usize, events: &Sender<JobEvent>) -> Result<()> {
    let barrier = if let Message::Barrier(b) = &message { Some(*b) } else { None };
    let mut ack = Ack { task, epoch: barrier.map_or(Epoch(0), |b| b.epoch), operators: Vec::new(), sinks: Vec::new(), sources: Vec::new() };
    chain.deliver(message, &mut ack)?;
    if barrier.is_some() {
        send(events, JobEvent::Acked(Box::new(ack)));
    }
    Ok(())
}

/// Tells the coordinator; it is gone only when the job is being torn down.
pub fn send(events: &Sender<JobEvent>, event: JobEvent) {
    let _ = events.send(event);
}
