//! Models: from rows to features, from features to a fitted model, from a model to a file and to predictions.
//!
//! ```text
//!  rows ─ features::Observer ─ FeatureSpec ─ encode ─ Chunks ─ algorithms::fit ─ State
//!                                  │                                               │
//!                                  └───────────────── Model ───────────────────────┘ ─ score(rows) ─ predictions
//!                                                       │
//!                                                   registry (versions, aliases, golden rows)
//! ```
//!
//! The same [`FeatureSpec`](features::FeatureSpec) is run in training, in `ML_PREDICT` and in serving. What must
//! hold: a row's score depends on that row and the model alone, never on the rows beside it, so one row and a
//! batch give the same bits; a fit depends on the rows, the options and the seed, never on the thread count.

pub mod algorithms;
pub mod chunks;
pub mod features;
pub mod fit;
pub mod label;
pub mod measures;
pub mod model;
pub mod registry;
pub mod task;
