//! The integration tests: one binary, so that the engine is linked once.

mod alignment;
mod case;
mod lateness;
mod matrix;
mod power;
mod tidy;
