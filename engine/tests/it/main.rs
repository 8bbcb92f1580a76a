//! The integration tests: one binary, so that the engine is linked once.

mod alignment;
mod case;
mod crash;
mod data;
mod errors;
mod full_disk;
mod idle;
mod job;
mod kafka;
mod lateness;
mod matrix;
mod models;
mod power;
mod process;
mod tidy;
mod train;
