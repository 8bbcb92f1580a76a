//! The command line: one file a command, and the pieces that several commands show things with.
//!
//! What must always hold: stdout carries rows only; progress and messages go to stderr.

pub mod generate;
pub mod table;
