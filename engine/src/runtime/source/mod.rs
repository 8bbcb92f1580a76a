//! Sources: one I/O thread that fetches, workers that decode in parallel, one order in which rows are stamped.
//!
//! ```text
//!  I/O thread: fetch ─▶ turn 7 (batch) ─▶ worker 0: decode ─┐ wait for turn 7 ─▶ stamp ─▶ chain
//!                       turn 8 (batch) ─▶ worker 1: decode ─┘ wait for turn 8 ─▶ stamp ─▶ chain
//!                       turn 9 (barrier) ─▶ every worker
//! ```
//!
//! Everything the I/O thread hands out has a *turn*; stamping goes strictly by turn, so that one partition is
//! decoded on all cores and still measured row by row in its own order. Barriers, ended and idle splits have
//! turns too and go to every worker; the first to reach such a turn applies it to the clock.
//!
//! What must hold: a worker forwards the merged watermark M only when every batch that it stamped before
//! reading M has gone down its chain; so no row that arrives after M can have an own watermark below M.

mod bad_records;
mod fetch;
mod hub;
mod task;

pub use bad_records::DeadLetter;
pub use fetch::run_fetcher;
pub use hub::SourceHub;
pub use task::SourceTask;
