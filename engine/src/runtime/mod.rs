//! The dataflow: workers, tasks, operators, checkpoints.
//!
//! [`job::run`] runs a [`StreamPlan`](crate::sql::plan::StreamPlan) on this machine's threads. In reading order:
//! [`job`] (one run, the coordinator), [`build`] (plan → tasks), [`source`] and [`task`] (what a worker steps),
//! [`chain`] and [`operators`] (what rows go through), [`models`] (what scores them), [`checkpoint`] (what survives).
//!
//! No globals: clocks, stores and connectors are arguments, so a whole job runs inside a test.

pub mod aggregates;
pub mod build;
pub mod chain;
pub mod channel;
pub mod checkpoint;
pub mod groups;
pub mod inputs;
pub mod job;
pub mod key_group;
pub mod key_range;
pub mod models;
pub mod operators;
pub mod sink;
pub mod source;
pub mod statics;
pub mod task;
pub mod worker;
