//! What a model answers, and by which algorithm: the two words that a user writes in `CREATE MODEL`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, nearest};

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One of the label's classes, with a probability for each.
    Classification,
    /// A number.
    Regression,
    /// The nearest cluster and the distance to its centre; no label.
    Clustering,
}

/// How it is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Logistic regression with an L2 penalty: binary or multinomial.
    Logistic,
    /// Gaussian naive Bayes.
    NaiveBayes,
    /// One decision tree.
    DecisionTree,
    /// Trees on bootstrap samples, averaged.
    RandomForest,
    /// Gradient-boosted trees.
    Gbdt,
    /// Least squares.
    Linear,
    /// Least squares with an L2 penalty.
    Ridge,
    /// Least squares with L1 and L2 penalties.
    ElasticNet,
    /// Lloyd's k-means from k-means++ starts.
    #[serde(rename = "kmeans")]
    KMeans,
    /// k-means by small random batches.
    #[serde(rename = "mini_batch_kmeans")]
    MiniBatchKMeans,
    /// Density-based clusters: labels for the rows it saw, nothing to predict with.
    Dbscan,
}

const TASKS: [(Task, &str); 3] =
    [(Task::Classification, "classification"), (Task::Regression, "regression"), (Task::Clustering, "clustering")];

const ALGORITHMS: [(Algorithm, &str, &[Task]); 11] = {
    use Algorithm::*;
    use Task::*;
    [
        (Logistic, "logistic", &[Classification]),
        (NaiveBayes, "naive_bayes", &[Classification]),
        (DecisionTree, "decision_tree", &[Classification, Regression]),
        (RandomForest, "random_forest", &[Classification, Regression]),
        (Gbdt, "gbdt", &[Classification, Regression]),
        (Linear, "linear", &[Regression]),
        (Ridge, "ridge", &[Regression]),
        (ElasticNet, "elastic_net", &[Regression]),
        (KMeans, "kmeans", &[Clustering]),
        (MiniBatchKMeans, "mini_batch_kmeans", &[Clustering]),
        (Dbscan, "dbscan", &[Clustering]),
    ]
};

impl Task {
    /// The task that `text` names, in any case.
    ///
    /// # Errors
    /// User: no task of that name, with the nearest one.
    pub fn parse(text: &str) -> Result<Self> {
        let found = TASKS.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        found.map(|(task, _)| *task).ok_or_else(|| unknown("task", text, TASKS.map(|(_, name)| name)))
    }
}

impl Algorithm {
    /// The algorithm that `text` names, in any case.
    ///
    /// # Errors
    /// User: no algorithm of that name, with the nearest one, or one that does not do `task`.
    pub fn parse(text: &str, task: Task) -> Result<Self> {
        let found = ALGORITHMS.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(text));
        let (algorithm, name, tasks) = found.ok_or_else(|| unknown("algorithm", text, ALGORITHMS.map(|(_, name, _)| name)))?;
        if !tasks.contains(&task) {
            let fitting = ALGORITHMS.iter().filter(|(_, _, tasks)| tasks.contains(&task)).map(|(_, name, _)| *name);
            let e = Error::user(format!("the algorithm '{name}' does not do {task}"));
            return Err(e.help(format!("for {task}: {}", fitting.collect::<Vec<_>>().join(", "))));
        }
        Ok(*algorithm)
    }

    /// Whether it splits on order alone: such an algorithm takes missing values and ordinal categories as they are,
    /// the others want imputed, scaled numbers and one-hot categories.
    pub fn is_tree(self) -> bool {
        matches!(self, Self::DecisionTree | Self::RandomForest | Self::Gbdt)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TASKS.iter().find(|(task, _)| task == self).map_or("", |(_, name)| name))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALGORITHMS.iter().find(|(algorithm, _, _)| algorithm == self).map_or("", |(_, name, _)| name))
    }
}

fn unknown<const N: usize>(what: &str, text: &str, names: [&str; N]) -> Error {
    let e = Error::user(format!("there is no {what} '{text}'"));
    match nearest(text, names) {
        Some(name) => e.help(format!("did you mean '{name}'?")),
        None => e.help(format!("one of {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (algorithm, name, tasks) in ALGORITHMS {
            assert_eq!(algorithm.to_string(), name);
            assert_eq!(serde_json::to_string(&algorithm).expect("json"), format!("\"{name}\""));
            assert_eq!(Algorithm::parse(&name.to_uppercase(), tasks[0]).expect("parses"), algorithm);
        }
    }

    #[test]
    fn a_wrong_name_gets_the_nearest_and_a_wrong_task_the_fitting_ones() {
        let typo = Algorithm::parse("gbtd", Task::Regression).expect_err("unknown");
        assert!(format!("{typo:?}").contains("gbdt"), "{typo:?}");
        let unfit = Algorithm::parse("ridge", Task::Clustering).expect_err("unfit");
        assert!(format!("{unfit:?}").contains("kmeans"), "{unfit:?}");
    }
}
