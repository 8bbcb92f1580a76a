//! SQL files → stream plans, in Flink's dialect.

pub mod aggregate_types;
pub mod ast;
pub mod plan;
