//! The algorithms: each a `fit` over [`Chunks`](super::chunks::Chunks) that answers a state, each state a `score`.
//!
//! A state is plain data. What must hold for each: the result depends on rows, options and seed alone (never on
//! threads); a row's score is the same bits alone and in a batch; a fit that cannot be had (no rows, one class, more
//! clusters than rows) is an error that says so, never a model of NaN.

pub mod bayes;
pub mod dbscan;
mod gram;
pub mod kmeans;
mod lbfgs;
mod limits;
pub mod linear;
pub mod logistic;
mod moments;
mod rows;
mod state;
pub mod trees;

use ndarray::Array2;

pub use state::State;

/// What a fit needs besides rows and options.
pub struct FitContext<'a> {
    /// Threads at most.
    pub threads: usize,
    /// Decides every random choice.
    pub seed: u64,
    /// Called now and then with what has been done, of how much, and the objective so far where there is one.
    pub progress: &'a (dyn Fn(Step<'_>) + Sync),
}

/// A piece of progress of a fit.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// What is counted: `tree`, `pass`, `start`.
    pub unit: &'a str,
    /// How many are done.
    pub done: usize,
    /// Of how many, at most.
    pub of: usize,
    /// The objective, where the algorithm has one; lower is better.
    pub loss: Option<f64>,
}

/// The answers to some rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Scores {
    /// Regression: a number for each row.
    Values(Vec<f64>),
    /// Classification: rows × classes, each row sums to 1.
    Probabilities(Array2<f64>),
    /// Clustering: the nearest cluster of each row and the Euclidean distance to its centre.
    Clusters {
        /// Index of the cluster.
        cluster: Vec<i32>,
        /// rows × clusters: the distance to each centre, in the features' encoded units.
        distances: Array2<f64>,
    },
}

#[cfg(test)]
mod against_linfa;

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::{FitContext, Step};
    use crate::models::chunks::{Builder, Chunks};

    /// Rows in memory; `y` empty: no labels, `w` empty: each weighs 1.
    pub(super) fn chunks_of(x: &Array2<f64>, y: &[f64], w: &[f64]) -> Chunks {
        let mut builder = Builder::new(x.ncols(), !y.is_empty(), usize::MAX);
        builder.push(x, y, w).expect("pushes");
        builder.finish().expect("finishes")
    }

    /// Seed 1, nobody watches.
    pub(super) fn context(threads: usize) -> FitContext<'static> {
        fn silent(_: Step<'_>) {}
        FitContext { threads, seed: 1, progress: &silent }
    }
}
