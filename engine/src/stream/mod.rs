//! The vocabulary of a stream: what flows between tasks, and the pure rules of time.
//!
//! Everything here is small and free of I/O, threads and DataFusion, so that the rules on which the
//! promise "the same topic gives the same table" stands can be read and tested alone:
//!
//! - [`Message`]: what a task receives. Order within one lane is the order of sending.
//! - [`StreamBatch`]: rows, and what travels beside them (row kinds, `behind`, arrival order).
//! - [`Watermark`] and [`clock::SourceClock`]: time per split, stamped row by row, merged over splits.
//! - [`window`]: which windows a row belongs to, and which of them it is late for.
//! - [`SqlType`]: Flink's types and their Arrow representation.

pub mod batch;
pub mod clock;
pub mod types;
pub mod window;

pub use batch::{RowKind, StreamBatch};
pub use clock::Watermark;
pub use types::SqlType;

/// The number of a checkpoint; the first is 1. Also the name of the rows between two barriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The cut between two epochs, as it flows with the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    /// The checkpoint that this barrier cuts off.
    pub epoch: Epoch,
    /// No row follows: the job ends, or is being stopped, with this checkpoint.
    pub last: bool,
}

/// What flows from task to task.
#[derive(Debug, Clone)]
pub enum Message {
    /// Rows.
    Batch(StreamBatch),
    /// No later row of this lane has an own watermark below this one (see [`clock`]).
    Watermark(Watermark),
    /// The lane has no active split: it does not hold back the merged watermark until its next message.
    Idle,
    /// A checkpoint cuts here.
    Barrier(Barrier),
    /// Nothing follows. Always sent after the last barrier.
    End,
}
