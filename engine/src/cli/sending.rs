//! Sending records to a topic while a person watches: progress, Ctrl-C, and what it came to.
//!
//! What must always hold: a record counts as sent only where it was delivered, or the command fails; the
//! first Ctrl-C ends the sending and still waits for what is on its way.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::brokers::in_options;
use super::progress::count;
use crate::connectors::kafka::producer::{Outgoing, Producer};
use crate::connectors::kafka::{Connection, admin};
use crate::error::Result;

/// Longest sleep between two looks at Ctrl-C.
const NAP: Duration = Duration::from_millis(50);
/// A wait longer than this is announced.
const LONG_WAIT: Duration = Duration::from_secs(10);

/// Records on their way to one topic.
pub struct Sending {
    producer: Producer,
    topic: String,
    partitions: i32,
    stop: Arc<AtomicBool>,
    quiet: bool,
    started: Instant,
    shown: Instant,
    shown_sent: u64,
    terminal: bool,
}

impl Sending {
    /// Opens `topic`, which must exist; `stop` ends the sending.
    ///
    /// # Errors
    /// User: the topic does not exist. External: no broker answers.
    pub fn open(connection: &Connection, topic: &str, stop: Arc<AtomicBool>, quiet: bool) -> Result<Self> {
        let producer = in_options(Producer::open(connection))?;
        // Asked without creating it: a misspelt name shall not become a topic.
        let partitions = in_options(admin::partition_count(connection, topic))?;
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Ok(Self { producer, topic: topic.to_string(), partitions, stop, quiet, started: now, shown: now, shown_sent: 0, terminal })
    }

    /// Whether Ctrl-C was pressed.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sends one record.
    ///
    /// # Errors
    /// Data: it is too large. External: this record or an earlier one cannot be delivered.
    pub fn send(&mut self, key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        in_options(self.producer.send(&self.topic, &Outgoing { key, value: Some(value), ..Outgoing::default() }))?;
        if self.producer.sent().is_multiple_of(256) {
            self.show();
        }
        Ok(())
    }

    /// Waits until `due` after the start; false where Ctrl-C came first.
    ///
    /// # Errors
    /// External: an earlier record was not delivered.
    pub fn wait(&mut self, due: Duration) -> Result<bool> {
        let mut announced = false;
        loop {
            if self.stopped() {
                return Ok(false);
            }
            let left = due.saturating_sub(self.started.elapsed());
            if left.is_zero() {
                return Ok(true);
            }
            if left > LONG_WAIT && !announced && !self.quiet {
                let clear = if self.terminal { "\r\x1b[2K" } else { "" };
                eprintln!("{clear}note: the next record is due in {:.0} s; a higher --speedup shortens the wait", left.as_secs_f64());
                announced = true;
            }
            self.producer.poll()?;
            self.show();
            std::thread::sleep(left.min(NAP));
        }
    }

    /// Waits for delivery and says what was sent.
    ///
    /// # Errors
    /// External: a record was not delivered.
    pub fn finish(mut self) -> Result<Sent> {
        let flushed = in_options(self.producer.flush());
        if self.terminal && !self.quiet {
            eprint!("\r\x1b[2K");
        }
        flushed?;
        Ok(Sent {
            records: self.producer.sent(),
            bytes: self.producer.bytes(),
            seconds: self.started.elapsed().as_secs_f64(),
            partitions: self.partitions,
            stopped: self.stop.load(Ordering::Relaxed),
        })
    }

    fn show(&mut self) {
        let every = Duration::from_millis(if self.terminal { 500 } else { 5000 });
        let elapsed = self.shown.elapsed();
        if self.quiet || elapsed < every {
            return;
        }
        let sent = self.producer.sent();
        let rate = (sent - self.shown_sent) as f64 / elapsed.as_secs_f64();
        let line = format!("{}: {} sent ({}/s), {}", self.topic, count(sent), count(rate as u64), megabytes(self.producer.bytes()));
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
        } else {
            eprintln!("{line}");
        }
        (self.shown, self.shown_sent) = (Instant::now(), sent);
    }
}

/// What was delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// Records.
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Whether Ctrl-C ended it.
    pub stopped: bool,
}

impl Sent {
    /// A sentence about it.
    pub fn summary(&self, topic: &str) -> String {
        let how = if self.stopped { "stopped: " } else { "" };
        let plural = if self.partitions == 1 { "" } else { "s" };
        let rate = count((self.records as f64 / self.seconds.max(0.001)) as u64);
        format!(
            "{how}{} records ({}) sent to topic '{topic}' ({} partition{plural}) in {:.1} s, {rate}/s",
            count(self.records),
            megabytes(self.bytes),
            self.partitions,
            self.seconds
        )
    }
}

/// Bytes for people.
pub fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
