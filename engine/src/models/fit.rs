//! From encoded rows to a fitted state, whatever the algorithm.
//!
//! A [`Recipe`] is read from the options before any row is, so that a misspelt option costs nothing.

use super::algorithms::bayes::{self, BayesOptions};
use super::algorithms::dbscan::{self, DbscanOptions};
use super::algorithms::kmeans::{self, KMeansOptions};
use super::algorithms::linear::{self, LinearOptions};
use super::algorithms::logistic::{self, LogisticOptions};
use super::algorithms::trees::{self, BoostOptions, ForestOptions, Target, TreeOptions};
use super::algorithms::{FitContext, State};
use super::chunks::Chunks;
use super::label::Label;
use super::task::{Algorithm, Task};
use crate::config::Options;
use crate::error::{Error, Result};

/// An algorithm with its options.
#[derive(Debug, Clone)]
pub struct Recipe {
    task: Task,
    algorithm: Algorithm,
    options: AlgorithmOptions,
}

#[derive(Debug, Clone)]
enum AlgorithmOptions {
    Logistic(LogisticOptions),
    Bayes(BayesOptions),
    Linear(LinearOptions),
    KMeans(KMeansOptions),
    Dbscan(DbscanOptions),
    Tree(TreeOptions),
    Forest(ForestOptions),
    Boost(BoostOptions),
}

impl Recipe {
    /// Reads the options of `algorithm`; the caller ends the reading with [`Options::finish`].
    ///
    /// # Errors
    /// User: a bad value.
    pub fn from_options(task: Task, algorithm: Algorithm, options: &mut Options) -> Result<Self> {
        let options = match algorithm {
            Algorithm::Logistic => AlgorithmOptions::Logistic(LogisticOptions::from_options(options)?),
            Algorithm::NaiveBayes => AlgorithmOptions::Bayes(BayesOptions::from_options(options)?),
            Algorithm::Linear | Algorithm::Ridge | Algorithm::ElasticNet => {
                AlgorithmOptions::Linear(LinearOptions::from_options(algorithm, options)?)
            }
            Algorithm::KMeans => AlgorithmOptions::KMeans(KMeansOptions::from_options(false, options)?),
            Algorithm::MiniBatchKMeans => AlgorithmOptions::KMeans(KMeansOptions::from_options(true, options)?),
            Algorithm::Dbscan => AlgorithmOptions::Dbscan(DbscanOptions::from_options(options)?),
            Algorithm::DecisionTree => AlgorithmOptions::Tree(TreeOptions::from_options(options)?),
            Algorithm::RandomForest => AlgorithmOptions::Forest(ForestOptions::from_options(options)?),
            Algorithm::Gbdt => AlgorithmOptions::Boost(BoostOptions::from_options(options)?),
        };
        Ok(Self { task, algorithm, options })
    }

    /// What it predicts.
    pub fn task(&self) -> Task {
        self.task
    }

    /// How it learns.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Fits a state to `rows`, which [`FeatureSpec::encode`](super::features::FeatureSpec::encode) and
    /// [`Label::encode`] made.
    ///
    /// # Errors
    /// User: rows that the algorithm cannot learn from, or an algorithm that leaves no model (`dbscan`).
    /// External: the rows' temporary file cannot be read.
    pub fn fit(&self, rows: &Chunks, label: Option<&Label>, ctx: &FitContext<'_>) -> Result<State> {
        if rows.is_empty() {
            return Err(Error::user("there are no rows to train on"));
        }
        let classes = || {
            let classes = label.and_then(|l| l.classes.as_ref()).map(|c| c.len());
            classes.ok_or_else(|| Error::internal(format!("{} without classes", self.algorithm)))
        };
        let target = || match self.task {
            Task::Classification => classes().map(Target::Classes),
            _ => Ok(Target::Number),
        };
        Ok(match &self.options {
            AlgorithmOptions::Logistic(options) => State::Logistic(logistic::fit(rows, classes()?, options, ctx)?),
            AlgorithmOptions::Bayes(options) => State::Bayes(bayes::fit(rows, classes()?, options, ctx)?),
            AlgorithmOptions::Linear(options) => State::Linear(linear::fit(rows, options, ctx)?),
            AlgorithmOptions::KMeans(options) => State::KMeans(kmeans::fit(rows, options, ctx)?),
            AlgorithmOptions::Tree(options) => State::Trees(trees::fit_tree(rows, target()?, options, ctx)?),
            AlgorithmOptions::Forest(options) => State::Trees(trees::fit_forest(rows, target()?, options, ctx)?),
            AlgorithmOptions::Boost(options) => State::Trees(trees::fit_boost(rows, target()?, options, ctx)?),
            AlgorithmOptions::Dbscan(_) => {
                let e = Error::user("dbscan labels the rows that it sees, and leaves nothing to predict with");
                return Err(e.help("write its labels to a table, or take 'algorithm' = 'kmeans'"));
            }
        })
    }

    /// The cluster of each row, by an algorithm that labels rows without leaving a model (`dbscan`); −1 is noise.
    ///
    /// # Errors
    /// User: another algorithm, or too many rows. External: the rows' temporary file cannot be read.
    pub fn label_rows(&self, rows: &Chunks, ctx: &FitContext<'_>) -> Result<Vec<i32>> {
        match &self.options {
            AlgorithmOptions::Dbscan(options) => dbscan::cluster(rows, options, ctx),
            _ => Err(Error::user(format!("'{}' leaves a model; 'dbscan' labels rows", self.algorithm))),
        }
    }
}
