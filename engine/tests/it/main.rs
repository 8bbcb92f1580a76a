//! The integration tests: one binary, so that the engine is linked once.

mod case;
mod crash;
mod data;
mod errors;
mod kafka;
mod matrix;
mod process;
mod tidy;
