//! What a fit leaves behind: one variant for each family of algorithms.

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::Scores;
use super::bayes::BayesState;
use super::kmeans::KMeansState;
use super::linear::LinearState;
use super::logistic::LogisticState;
use super::trees::Trees;
use crate::error::Result;

/// A fitted model's numbers. Plain data, written with the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Linear, ridge and elastic net.
    Linear(LinearState),
    /// Logistic regression of two classes or more.
    Logistic(LogisticState),
    /// Gaussian naive Bayes.
    Bayes(BayesState),
    /// k-means by rounds and by batches.
    #[serde(rename = "kmeans")]
    KMeans(KMeansState),
    /// A decision tree, a random forest, boosted trees.
    Trees(Trees),
}

impl State {
    /// Scores the rows of `x`, encoded as the model's features are. A row's answer is the same bits alone and in a batch.
    pub fn score(&self, x: ArrayView2<'_, f64>) -> Scores {
        match self {
            Self::Linear(state) => state.score(x),
            Self::Logistic(state) => state.score(x),
            Self::Bayes(state) => state.score(x),
            Self::KMeans(state) => state.score(x),
            Self::Trees(trees) => trees.score(x),
        }
    }

    /// Whether this can score rows of `features` columns: what was read from a file is checked once, so that a
    /// corrupted one is refused and scoring never fails.
    ///
    /// # Errors
    /// State: sizes that do not fit, or a number that cannot be.
    pub fn check(&self, features: usize) -> Result<()> {
        match self {
            Self::Linear(state) => state.check(features),
            Self::Logistic(state) => state.check(features),
            Self::Bayes(state) => state.check(features),
            Self::KMeans(state) => state.check(features),
            Self::Trees(trees) => trees.check(features),
        }
    }
}
