//! Counters of a running job, shared by its tasks and read by progress, summary and tests.
//!
//! Counters are relaxed atomics added to once a batch, never once a row. What must hold: a row that a
//! job does not use is in exactly one counter (rejected, late, late_after_idle), so that nothing is lost
//! silently.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counters of one source table.
#[derive(Debug, Default)]
pub struct SourceMetrics {
    /// Records read, by split id.
    pub records: Mutex<BTreeMap<String, u64>>,
    /// Bytes of undecoded records.
    pub bytes: Counter,
    /// Records that could not be read, or had no event time.
    pub rejected: Counter,
    /// Values that became NULL under ignore-parse-errors.
    pub nulled_values: Counter,
    /// Splits that hold the watermark back and have had no record yet, for the progress line.
    pub holders: Mutex<Vec<String>>,
    /// The merged watermark in ms; `i64::MIN` before the first.
    pub watermark: Watermark,
    /// Whether the table declares a watermark at all.
    pub has_watermark: AtomicBool,
    /// The table is read whole before the first row: its records are not part of the stream's throughput.
    pub is_static: AtomicBool,
}

/// A watermark that progress can read.
#[derive(Debug)]
pub struct Watermark(AtomicI64);

impl Default for Watermark {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Watermark {
    /// Stores a value.
    pub fn set(&self, ms: i64) {
        self.0.store(ms, Relaxed);
    }

    /// Loads the value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Counters of one job.
#[derive(Debug, Default)]
pub struct JobMetrics {
    /// By table name.
    pub sources: Mutex<BTreeMap<String, Arc<SourceMetrics>>>,
    /// Rows given to each sink, by table name (`terminal` for a plain SELECT).
    pub sinks: Mutex<BTreeMap<String, Arc<Counter>>>,
    /// Rows that an operator dropped from all their windows, once per operator.
    pub late: Counter,
    /// Rows for windows that were emitted while the row's split was idle.
    pub late_after_idle: Counter,
    /// Rows dropped because a NOT NULL column of a sink was NULL.
    pub null_dropped: Counter,
    /// Rows that a model refused: they passed with NULL for its prediction, once per ML_PREDICT.
    pub unscored: Counter,
    /// Durable checkpoints of this run.
    pub epochs: Counter,
    /// Milliseconds that barriers waited for alignment, all tasks together.
    pub alignment_ms: Counter,
    /// Bytes of operator state.
    pub state_bytes: AtomicI64,
}

impl JobMetrics {
    /// The counters of source `table`, made on first use.
    pub fn source(&self, table: &str) -> Arc<SourceMetrics> {
        self.sources.lock().expect("no panic while locked").entry(table.to_string()).or_default().clone()
    }

    /// The counter of sink `table`, made on first use.
    pub fn sink(&self, table: &str) -> Arc<Counter> {
        self.sinks.lock().expect("no panic while locked").entry(table.to_string()).or_default().clone()
    }

    /// Records read from all streams; static tables are not counted.
    pub fn records_in(&self) -> u64 {
        let sources = self.sources.lock().expect("no panic while locked");
        let stream = sources.values().filter(|s| !s.is_static.load(Relaxed));
        stream.map(|s| s.records.lock().expect("no panic while locked").values().sum::<u64>()).sum()
    }

    /// Rows given to all sinks.
    pub fn rows_out(&self) -> u64 {
        self.sinks.lock().expect("no panic while locked").values().map(|c| c.get()).sum()
    }

    /// Records rejected by all sources.
    pub fn rejected(&self) -> u64 {
        self.sources.lock().expect("no panic while locked").values().map(|s| s.rejected.get()).sum()
    }
}
