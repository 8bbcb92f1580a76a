//! Training: from a `CREATE MODEL` statement to a published version of a model.
//!
//! ```text
//!  query ─ rows, in the files' order ─ spool ─┬─ observe ─ freeze ─┐
//!    └─ recorded: files, offsets              ├─ encode ─ Chunks ──┴─ fit ─ Model ─┐
//!                                             └─ hold-out ─ measures ──────────────┴─ gate ─ registry
//! ```
//!
//! `'training.mode' = 'once'` runs [`once`] where the statement stands; `'cumulative'` is a [`Follower`] of a table's
//! commits: version k is trained on the files of its entries 1 to k. What must hold: rows, options and seed decide a
//! model, never threads, batches or memory; a version names exactly the files that it was trained on.

mod follow;
mod holdout;
mod labels;
mod options;
mod query;
mod recorded;
mod spool;
mod trainer;

use std::path::PathBuf;

pub use follow::{Follower, Phase, Told};
pub use options::Training;
pub use trainer::{Progress, Trained, Watch};

use crate::error::Result;
use crate::models::registry::Registry;
use crate::runtime::job::Stop;
use crate::sql::plan::StreamPlan;

/// What a training has left.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A version.
    Version(Box<Trained>),
    /// Labels of the rows, in this file: so many rows, clusters, and rows that belong to none.
    Labels {
        /// The file.
        path: PathBuf,
        /// Rows in it.
        rows: u64,
        /// Clusters found.
        clusters: u64,
        /// Rows of no cluster.
        noise: u64,
    },
    /// The caller stopped it; nothing was published.
    Stopped,
}

/// Trains on all rows of `plan`, the training's query, and publishes what came out.
///
/// # Errors
/// What ended the query; rows that cannot be learnt from; a disk that refused.
pub fn once(training: &Training, plan: &StreamPlan, registry: &Registry, stop: &Stop, watch: &Watch<'_>) -> Result<Outcome> {
    let record = recorded::Record::default();
    let plan = record.over(plan);
    let Some(spool) = query::rows(&plan, registry.root(), training.memory_bytes_max, stop, &|rows| watch(Progress::Reading(rows)))? else {
        return Ok(Outcome::Stopped);
    };
    if let Some(folder) = &training.labels {
        return labels::write(training, &spool, folder, watch);
    }
    let lineage = record.lineage()?;
    trainer::train(training, &spool, lineage, registry, watch).map(|t| Outcome::Version(Box::new(t)))
}
