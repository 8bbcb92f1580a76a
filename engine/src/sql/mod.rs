//! SQL files → stream plans, in Flink's dialect.

pub mod ast;
pub mod parser;
pub mod plan;
