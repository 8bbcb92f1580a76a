//! Checkpoints: what a job needs to go on in another process, at another worker count.
//!
//! ```text
//!  inject barrier e ─▶ every task acks its snapshot ─▶ state files ─▶ manifest e (rename) ─▶ commit sinks
//!                                                      crash before the rename: epoch e − 1 holds
//!                                                      crash after it: commit is repeated at the start
//! ```
//!
//! [`protocol`] decides (pure), [`manifest`] is the format on disk, [`store`] the durable writes, [`write`](mod@write) their order, and
//! [`Snapshot`] what operators hand out: sealed, immutable segments that later manifests refer to again.

pub mod manifest;
pub mod protocol;
pub mod store;
pub mod write;

use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::connectors::{Prepared, Split};
use crate::sql::plan::NodeId;
use crate::stream::{Epoch, Watermark};

/// Immutable rows of operator state. Written once, by the first checkpoint that holds it.
#[derive(Debug)]
pub struct Segment {
    rows: RecordBatch,
    place: OnceLock<Place>,
}

/// Where a segment is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// File in the state directory.
    pub file: String,
    /// Number of the record batch in it.
    pub index: usize,
}

impl Segment {
    /// A segment that no checkpoint holds yet.
    pub fn new(rows: RecordBatch) -> Arc<Self> {
        Arc::new(Self { rows, place: OnceLock::new() })
    }

    /// A segment read back from `place`.
    pub fn stored(rows: RecordBatch, place: Place) -> Arc<Self> {
        Arc::new(Self { rows, place: OnceLock::from(place) })
    }

    /// The rows.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// Where it is, once it has been written.
    pub fn place(&self) -> Option<&Place> {
        self.place.get()
    }

    /// Records where it was written; the first place stays.
    pub fn set_place(&self, place: Place) {
        let _ = self.place.set(place);
    }
}

/// What one operator instance keeps at a barrier.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// All live segments, old and new, oldest first.
    pub segments: Vec<Arc<Segment>>,
    /// Per sink writer inside the operator (late rows): its sink, what it prepared.
    pub sinks: Vec<(usize, Prepared)>,
}

/// What one task answers to a barrier.
#[derive(Debug)]
pub struct Ack {
    /// Number of the task in the job.
    pub task: usize,
    /// The checkpoint.
    pub epoch: Epoch,
    /// Per operator with state: its node, its watermark, its segments.
    pub operators: Vec<(NodeId, Watermark, Snapshot)>,
    /// Per sink writer: its sink, what it prepared.
    pub sinks: Vec<(usize, Prepared)>,
    /// Per source: what it was at the barrier. From one task per source.
    pub sources: Vec<SourceSnapshot>,
}

/// A source at a barrier.
#[derive(Debug, Clone)]
pub struct SourceSnapshot {
    /// Its node.
    pub node: NodeId,
    /// Its splits in order, each with its watermark.
    pub splits: Vec<(Split, Watermark)>,
    /// The watermark merged over them.
    pub merged: Watermark,
}
