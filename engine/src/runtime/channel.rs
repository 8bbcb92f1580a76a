//! Lanes: bounded queues between two tasks, and the signal that wakes a parked worker.
//!
//! A lane has one sending and one receiving task. It is bounded in bytes, and no send ever blocks a
//! thread: [`LaneSender::try_send`] hands a batch back when the lane is full, and the task answers
//! `Blocked`. Two workers that send into each other's full lanes therefore cannot deadlock. Watermarks and
//! barriers always pass: they are small, and holding them back could stop the very step that drains the lane.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use crate::stream::Message;

/// Wakes one worker thread.
#[derive(Debug, Default)]
pub struct Signal {
    thread: OnceLock<Thread>,
    raised: AtomicBool,
}

impl Signal {
    /// Binds the signal to the calling thread; called once by the worker.
    pub fn bind(&self) {
        // A second call keeps the first thread: a worker binds once.
        let _ = self.thread.set(std::thread::current());
    }

    /// Wakes the worker, or keeps it from parking.
    pub fn raise(&self) {
        if !self.raised.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Parks the calling worker until raised, or for `timeout`.
    pub fn park(&self, timeout: Duration) {
        if !self.raised.swap(false, Ordering::AcqRel) {
            std::thread::park_timeout(timeout);
            self.raised.store(false, Ordering::Release);
        }
    }
}

#[derive(Debug)]
struct Lane {
    queue: Mutex<Queue>,
    capacity_bytes: usize,
    sender: Arc<Signal>,
    receiver: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
}

/// The sending end.
#[derive(Debug)]
pub struct LaneSender(Arc<Lane>);

/// The receiving end.
#[derive(Debug)]
pub struct LaneReceiver(Arc<Lane>);

/// A lane that holds `capacity_bytes`, or one batch where that is larger.
pub fn lane(capacity_bytes: usize, sender: Arc<Signal>, receiver: Arc<Signal>) -> (LaneSender, LaneReceiver) {
    let lane = Arc::new(Lane { queue: Mutex::default(), capacity_bytes, sender, receiver });
    (LaneSender(lane.clone()), LaneReceiver(lane))
}

fn bytes_of(message: &Message) -> usize {
    match message {
        Message::Batch(batch) => batch.bytes(),
        _ => 0,
    }
}

impl LaneSender {
    /// Sends, or hands the batch back where the lane is full.
    ///
    /// # Errors
    /// The message, where it does not fit now.
    pub fn try_send(&self, message: Message) -> Result<(), Message> {
        let bytes = bytes_of(&message);
        let was_empty = {
            let mut queue = self.0.queue.lock().expect("no panic while locked");
            if bytes > 0 && queue.bytes > 0 && queue.bytes + bytes > self.0.capacity_bytes {
                return Err(message);
            }
            queue.bytes += bytes;
            queue.messages.push_back(message);
            queue.messages.len() == 1
        };
        if was_empty {
            self.0.receiver.raise();
        }
        Ok(())
    }
}

impl LaneReceiver {
    /// The next message, where there is one.
    pub fn try_recv(&self) -> Option<Message> {
        let (message, freed) = {
            let mut queue = self.0.queue.lock().expect("no panic while locked");
            let message = queue.messages.pop_front()?;
            let bytes = bytes_of(&message);
            queue.bytes -= bytes;
            (message, bytes > 0)
        };
        if freed {
            self.0.sender.raise();
        }
        Some(message)
    }
}
