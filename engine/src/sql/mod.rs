//! SQL files → stream plans, in Flink's dialect.
//!
//! ```text
//!   text ─ parser ─▶ statements ─ bind ─▶ logical plan ─ convert ─▶ draft ─ finish ─▶ StreamPlan
//!                       │ DDL, SET                                  (equal nodes once; pruned last)
//!                       ▼
//!                  catalog, settings
//! ```
//!
//! DataFusion binds names and types and folds constants; which operators a stream has, and what it refuses
//! with which words, is decided here.

pub mod aggregate_types;
pub mod ast;
pub mod functions;
pub mod parser;
pub mod plan;

pub mod session;
pub mod settings;

mod aggregate_signatures;
mod bind;
mod catalog;
mod convert;
mod describe;
mod draft;
mod errors;
mod explain;
mod filter;
mod insert;
mod masked;
mod models;
mod nodes;
mod portable;
mod provider;
mod relations;
mod scope;
mod side_output;
mod source;
mod values;

#[cfg(test)]
mod tests;

pub use explain::explain;
pub use filter::RowFilter;
pub use masked::masked;
pub use models::Mode as TrainingMode;
pub use portable::Finding;
pub use session::{Session, SessionOptions, Step, TrainStep};
