//! Trees on histograms: one decision tree, a random forest, gradient boosting; classes and numbers.
//!
//! ```text
//!  Chunks ─ bins ─ u8 columns ─┬─ forest (deep: a node at a time, its own rows)        ─┬─ Trees
//!                              └─ boost  (leafwise: histograms kept, siblings by −)    ─┘
//! ```
//!
//! Each feature is cut into at most 255 bins (missing values have one more), and only these bytes are held: that
//! is how rows beyond memory train. Histograms are sums of **integers** ([`cells`]), so they are exact: any order
//! of rows and any number of threads gives the same tree, and a sibling is its parent minus the other child to the
//! last bit. A missing value goes where it does best at each split; an infinite one counts as missing.

mod bins;
mod boost;
mod cells;
mod deep;
mod draw;
mod forest;
mod leafwise;
mod measure;
mod options;
mod state;

#[cfg(test)]
mod tests;

pub use boost::fit_boost;
pub use forest::{fit_forest, fit_tree};
pub use options::{BoostOptions, ForestOptions, TreeOptions};
pub use state::Trees;

/// What the label is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A number.
    Number,
    /// The index of one of so many classes.
    Classes(usize),
}
