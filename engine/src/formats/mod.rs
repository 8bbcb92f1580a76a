//! Bytes ↔ Arrow batches.
//!
//! A decoder turns raw records into columns without a row object in between, and never fails for a bad
//! record: what cannot be read comes back in [`Decoded::rejected`] with its reason, and the caller applies
//! the table's policy (fail, skip, dead letter). An encoder turns a batch into one record a row.
//!
//! Flink's behaviour is the contract, dirt included (docs/SQL.md; dialect notes of each format's file).

use arrow::array::RecordBatch;

use crate::error::Result;

mod column;
pub mod csv;
pub mod frame;
pub mod json;
mod kind;
pub mod parquet;
pub mod raw;
pub mod text;

pub use frame::Framer;
pub use kind::{FormatKind, read_format};

/// Raw records back to back in one buffer. A record can be absent (a Kafka tombstone).
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// End of each record in `bytes`.
    pub ends: Vec<usize>,
    /// True where the record is absent; empty when none is.
    pub absent: Vec<bool>,
}

impl Records {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Record `i`; `None` where it is absent.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        if self.absent.get(i).copied().unwrap_or(false) {
            return None;
        }
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.bytes[start..self.ends[i]])
    }

    /// All records in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// All records as text, in order; `Err` says where one is no UTF-8.
    pub fn texts(&self) -> impl Iterator<Item = Result<Option<&str>, String>> {
        // One check for all: almost always everything is UTF-8. A record that starts inside a character is not.
        let all = std::str::from_utf8(&self.bytes).ok();
        (0..self.len()).map(move |i| {
            let Some(record) = self.get(i) else { return Ok(None) };
            let end = self.ends[i];
            match all.and_then(|t| t.get(end - record.len()..end)) {
                Some(text) => Ok(Some(text)),
                None => std::str::from_utf8(record).map(Some).map_err(|e| format!("invalid UTF-8 at byte {}", e.valid_up_to())),
            }
        })
    }

    /// Appends a record.
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.end_record();
    }

    /// Ends a record whose bytes were appended to `bytes` directly.
    pub fn end_record(&mut self) {
        self.ends.push(self.bytes.len());
        if !self.absent.is_empty() {
            self.absent.push(false);
        }
    }

    /// Appends an absent record.
    pub fn push_absent(&mut self) {
        self.absent.resize(self.ends.len(), false);
        self.absent.push(true);
        self.ends.push(self.bytes.len());
    }

    /// Forgets all records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.absent.clear();
    }
}

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its index in the records given.
    pub index: usize,
    /// Why, in one line, naming the column where one is known.
    pub reason: String,
}

/// What a decoder made of some records.
#[derive(Debug)]
pub struct Decoded {
    /// The rows, in the order of their records.
    pub batch: RecordBatch,
    /// For each row the index of its record; `None` when every record gave exactly one row.
    pub origin: Option<Vec<u32>>,
    /// The records that could not be read (under ignore-parse-errors too: those are the skipped ones).
    pub rejected: Vec<Rejected>,
    /// Values that became NULL because ignore-parse-errors let them.
    pub nulled_values: u64,
}

/// Reads records. Keeps scratch memory between calls; one decoder per worker.
pub trait Decoder: Send {
    /// Reads `records` into the wanted columns.
    ///
    /// # Errors
    /// Internal only: a bad record is in [`Decoded::rejected`].
    fn decode(&mut self, records: &Records) -> Result<Decoded>;
}

/// Writes rows.
pub trait Encoder: Send {
    /// Appends one record a row to `out` (without line ends).
    ///
    /// # Errors
    /// Data: a value that the format cannot express.
    fn encode(&mut self, rows: &RecordBatch, out: &mut Records) -> Result<()>;
}
