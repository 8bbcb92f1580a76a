//! Workers: one thread each, running its tasks cooperatively.
//!
//! A task does one bounded step and answers whether it got on. Tasks are ordered downstream first, so that
//! lanes are drained before sources fill them. A worker parks when no task got on, until one of its lanes
//! raises its signal or the shortest timer passes. No globals: what a task needs, it was given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::channel::Signal;
use crate::error::Result;

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something was done; there may be more.
    Ready,
    /// Nothing can be done until a signal.
    Blocked,
    /// The task has ended and must not be stepped again.
    Done,
}

/// A unit of work of one worker.
pub trait Task: Send {
    /// Does a bounded piece of work.
    ///
    /// # Errors
    /// What ends the job.
    fn step(&mut self) -> Result<Step>;
}

/// The longest time that a worker parks: a lost wake-up costs at most this.
const PARK_MAX: Duration = Duration::from_millis(50);

/// Runs `tasks` (downstream first) until all are done, one fails, or `abort` is set.
///
/// # Errors
/// The first error of a task.
pub fn run(mut tasks: Vec<Box<dyn Task>>, signal: &Signal, abort: &Arc<AtomicBool>) -> Result<()> {
    signal.bind();
    while !tasks.is_empty() && !abort.load(Ordering::Relaxed) {
        let mut progress = false;
        let mut i = 0;
        while i < tasks.len() {
            match tasks[i].step()? {
                Step::Ready => progress = true,
                Step::Blocked => {}
                Step::Done => {
                    progress = true;
                    drop(tasks.remove(i));
                    continue;
                }
            }
            i += 1;
        }
        if !progress {
            signal.park(PARK_MAX);
        }
    }
    Ok(())
}
