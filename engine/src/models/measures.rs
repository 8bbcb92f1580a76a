//! How good predictions are: the metrics of each task, as scikit-learn defines them (its defaults: unweighted).
//!
//! | task | metrics |
//! |---|---|
//! | classification | `accuracy`, `balanced_accuracy`, `macro_f1`, `log_loss`, `roc_auc` (of two classes; else the mean of one against the rest) and the confusion matrix |
//! | regression | `mae`, `rmse`, `r2` |
//! | clustering | `inertia` (Σ squared distance to the centre), `silhouette` on a sample of rows |
//!
//! A metric that cannot be had (no rows, an AUC where a class has no rows) is NaN, never a guess. What must hold: the
//! numbers depend on the rows, their order and the seed, never on how the rows were cut into batches.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::algorithms::Scores;
use super::task::Task;
use crate::error::{Error, Result};

/// Rows that the silhouette is worked out on, at most: each is compared with each.
pub const SILHOUETTE_ROWS_MAX: usize = 1000;

/// Metrics of some predictions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measures {
    /// By name; see [`names`].
    pub metrics: BTreeMap<String, f64>,
    /// For a classification: rows by true class (outer) and predicted class (inner), in the classes' order.
    pub confusion: Option<Vec<Vec<f64>>>,
}

/// Takes predictions batch by batch.
#[derive(Debug, Clone)]
pub struct Measurer {
    seed: u64,
    rows: u64,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    Classes {
        classes: usize,
        probabilities: Vec<f64>,
        truth: Vec<usize>,
    },
    Numbers {
        truth: Vec<f64>,
        predicted: Vec<f64>,
    },
    /// The sample: by the hash of a row's number, the rows of the least hashes.
    Clusters {
        clusters: usize,
        inertia: f64,
        sample: BTreeMap<(u64, u64), (i32, Vec<f64>)>,
    },
}

/// The names of a task's metrics.
pub fn names(task: Task) -> &'static [&'static str] {
    match task {
        Task::Classification => &["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "roc_auc"],
        Task::Regression => &["mae", "rmse", "r2"],
        Task::Clustering => &["inertia", "silhouette"],
    }
}

/// Whether more of the metric is better.
pub fn more_is_better(metric: &str) -> bool {
    !matches!(metric, "log_loss" | "mae" | "rmse" | "inertia")
}

impl Measurer {
    /// For predictions of `task`, of so many classes; `seed` decides the silhouette's sample.
    pub fn new(task: Task, classes: usize, seed: u64) -> Self {
        let body = match task {
            Task::Classification => Body::Classes { classes, probabilities: vec![], truth: vec![] },
            Task::Regression => Body::Numbers { truth: vec![], predicted: vec![] },
            Task::Clustering => Body::Clusters { clusters: 0, inertia: 0.0, sample: BTreeMap::new() },
        };
        Self { seed, rows: 0, body }
    }

    /// Takes some rows: encoded, scored, with their labels (empty for clustering), as
    /// [`Label::encode`](super::label::Label::encode) gives them. Rows for which `keep` is false are left out: those
    /// that were refused.
    ///
    /// # Errors
    /// Internal: scores of another task.
    pub fn push(&mut self, x: ArrayView2<'_, f64>, scores: &Scores, y: &[f64], keep: impl Fn(usize) -> bool) -> Result<()> {
        let kept = (0..x.nrows()).filter(|row| keep(*row));
        match (&mut self.body, scores) {
            (Body::Classes { classes, probabilities, truth }, Scores::Probabilities(p)) if p.ncols() == *classes => {
                for row in kept {
                    probabilities.extend(p.row(row));
                    truth.push(y[row] as usize);
                    self.rows += 1;
                }
            }
            (Body::Numbers { truth, predicted }, Scores::Values(values)) => {
                for row in kept {
                    truth.push(y[row]);
                    predicted.push(values[row]);
                    self.rows += 1;
                }
            }
            (Body::Clusters { clusters, inertia, sample }, Scores::Clusters { cluster, distances }) => {
                *clusters = distances.ncols();
                for row in kept {
                    *inertia += distances[(row, cluster[row] as usize)].powi(2);
                    let hash = (xxh3_64_with_seed(&self.rows.to_le_bytes(), self.seed), self.rows);
                    self.rows += 1;
                    if sample.len() < SILHOUETTE_ROWS_MAX || sample.last_key_value().is_some_and(|(last, _)| hash < *last) {
                        sample.insert(hash, (cluster[row], x.row(row).to_vec()));
                    }
                    if sample.len() > SILHOUETTE_ROWS_MAX {
                        sample.pop_last();
                    }
                }
            }
            _ => return Err(Error::internal("the scores are of another task than the metrics")),
        }
        Ok(())
    }

    /// Rows that were measured.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The metrics.
    pub fn finish(self) -> Measures {
        let metrics = |values: &[(&str, f64)]| values.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        match self.body {
            Body::Classes { classes, probabilities, truth } => {
                let p = Array2::from_shape_vec((truth.len(), classes), probabilities).expect("a row of probabilities for each truth");
                let confusion = confusion(p.view(), &truth);
                let metrics = metrics(&[
                    ("accuracy", accuracy(&confusion)),
                    ("balanced_accuracy", balanced_accuracy(&confusion)),
                    ("macro_f1", macro_f1(&confusion)),
                    ("log_loss", log_loss(p.view(), &truth)),
                    ("roc_auc", roc_auc(p.view(), &truth)),
                ]);
                Measures { metrics, confusion: Some(confusion) }
            }
            Body::Numbers { truth, predicted } => {
                let [mae, rmse, r2] = errors(&truth, &predicted);
                Measures { metrics: metrics(&[("mae", mae), ("rmse", rmse), ("r2", r2)]), confusion: None }
            }
            Body::Clusters { clusters, inertia, sample } => {
                let (labels, points): (Vec<i32>, Vec<Vec<f64>>) = sample.into_values().unzip();
                let inertia = if self.rows == 0 { f64::NAN } else { inertia };
                Measures {
                    metrics: metrics(&[("inertia", inertia), ("silhouette", silhouette(&points, &labels, clusters))]),
                    confusion: None,
                }
            }
        }
    }
}

/// Rows by true and by predicted class.
fn confusion(p: ArrayView2<'_, f64>, truth: &[usize]) -> Vec<Vec<f64>> {
    let mut counts = vec![vec![0.0; p.ncols()]; p.ncols()];
    for (row, truth) in p.rows().into_iter().zip(truth) {
        let mut best = 0;
        for (class, value) in row.iter().enumerate() {
            if *value > row[best] {
                best = class;
            }
        }
        counts[*truth][best] += 1.0;
    }
    counts
}

fn accuracy(confusion: &[Vec<f64>]) -> f64 {
    let right: f64 = (0..confusion.len()).map(|k| confusion[k][k]).sum();
    right / confusion.iter().flatten().sum::<f64>()
}

/// The mean recall of the classes that have rows.
fn balanced_accuracy(confusion: &[Vec<f64>]) -> f64 {
    let recalls = confusion.iter().enumerate().map(|(k, row)| row[k] / row.iter().sum::<f64>());
    mean(recalls.filter(|r| !r.is_nan()))
}

/// The mean F1 of the classes that have rows or predictions.
fn macro_f1(confusion: &[Vec<f64>]) -> f64 {
    let f1 = (0..confusion.len()).map(|k| {
        let truth: f64 = confusion[k].iter().sum();
        let predicted: f64 = confusion.iter().map(|row| row[k]).sum();
        2.0 * confusion[k][k] / (truth + predicted)
    });
    mean(f1.filter(|f| !f.is_nan()))
}

/// Probabilities are kept an epsilon away from 0 and 1, so that one bold mistake is not infinite.
fn log_loss(p: ArrayView2<'_, f64>, truth: &[usize]) -> f64 {
    mean(p.rows().into_iter().zip(truth).map(|(row, truth)| -row[*truth].clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()))
}

fn roc_auc(p: ArrayView2<'_, f64>, truth: &[usize]) -> f64 {
    let of = |class: usize| auc(p.column(class).iter().copied().zip(truth.iter().map(|t| *t == class)).collect());
    if p.ncols() == 2 { of(1) } else { mean((0..p.ncols()).map(of)) }
}

/// The share of pairs of a positive and a negative row in which the positive one scores higher; a tie is half.
fn auc(mut scored: Vec<(f64, bool)>) -> f64 {
    scored.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut negatives, mut positives, mut pairs) = (0.0, 0.0, 0.0);
    for tied in scored.chunk_by(|a, b| a.0 == b.0) {
        let of_them = tied.iter().filter(|(_, positive)| *positive).count() as f64;
        let others = tied.len() as f64 - of_them;
        pairs += of_them * (negatives + others / 2.0);
        positives += of_them;
        negatives += others;
    }
    pairs / (positives * negatives)
}

/// MAE, RMSE and R².
fn errors(truth: &[f64], predicted: &[f64]) -> [f64; 3] {
    let off = || truth.iter().zip(predicted).map(|(t, p)| t - p);
    let middle = mean(truth.iter().copied());
    let squares: f64 = off().map(|e| e * e).sum();
    let spread: f64 = truth.iter().map(|t| (t - middle).powi(2)).sum();
    let r2 = match () {
        // Of one row it is not defined.
        _ if truth.len() < 2 => f64::NAN,
        _ if spread > 0.0 => 1.0 - squares / spread,
        _ => f64::from(u8::from(squares == 0.0)),
    };
    [mean(off().map(f64::abs)), (squares / truth.len() as f64).sqrt(), r2]
}

/// The mean of (b − a) / max(a, b): a is a row's mean distance to its own cluster, b to the nearest other one.
fn silhouette(points: &[Vec<f64>], labels: &[i32], clusters: usize) -> f64 {
    let mut sizes = vec![0.0; clusters];
    labels.iter().for_each(|l| sizes[*l as usize] += 1.0);
    if sizes.iter().filter(|n| **n > 0.0).count() < 2 {
        return f64::NAN;
    }
    let mut sums = vec![0.0; clusters];
    mean(points.iter().zip(labels).map(|(point, label)| {
        let own = *label as usize;
        if sizes[own] == 1.0 {
            return 0.0;
        }
        sums.fill(0.0);
        for (other, label) in points.iter().zip(labels) {
            let squares: f64 = point.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum();
            sums[*label as usize] += squares.sqrt();
        }
        let inside = sums[own] / (sizes[own] - 1.0);
        let others = (0..clusters).filter(|k| *k != own && sizes[*k] > 0.0).map(|k| sums[k] / sizes[k]);
        let outside = others.fold(f64::INFINITY, f64::min);
        let widest = inside.max(outside);
        if widest == 0.0 { 0.0 } else { (outside - inside) / widest }
    }))
}

/// NaN of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0);
    for value in values {
        sum += value;
        n += 1.0;
    }
    sum / n
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 50;

    /// Measured in batches of 7 rows.
    fn measured(task: Task, classes: usize, x: &Array2<f64>, scores: impl Fn(std::ops::Range<usize>) -> Scores, y: &[f64]) -> Measures {
        let mut measurer = Measurer::new(task, classes, 1);
        for first in (0..N).step_by(7) {
            let range = first..(first + 7).min(N);
            let part = x.slice(ndarray::s![range.clone(), ..]);
            let labels = if y.is_empty() { y } else { &y[range.clone()] };
            measurer.push(part, &scores(range), labels, |_| true).expect("of the task");
        }
        measurer.finish()
    }

    fn near(measures: &Measures, expected: &[(&str, f64)]) {
        for (name, value) in expected {
            let got = measures.metrics[*name];
            assert!((got - value).abs() <= 1e-12 * value.abs(), "{name}: {got}, not {value}");
        }
    }

    fn probabilities() -> (Array2<f64>, Vec<usize>) {
        let truth: Vec<usize> = (0..N).map(|i| i * 7 % 3).collect();
        let mut p = Array2::from_shape_fn((N, 3), |(i, c)| {
            1.0 + ((i * 13 + c * 5) % 11) as f64 + if c == truth[i] && i % 4 != 0 { 4.0 } else { 0.0 }
        });
        for mut row in p.rows_mut() {
            let sum = row.sum();
            row /= sum;
        }
        (p, truth)
    }

    #[test]
    fn classification_is_scikit_learns() {
        let (p, truth) = probabilities();
        let y: Vec<f64> = truth.iter().map(|t| *t as f64).collect();
        let of = |range: std::ops::Range<usize>| Scores::Probabilities(p.slice(ndarray::s![range, ..]).to_owned());
        let measures = measured(Task::Classification, 3, &Array2::zeros((N, 1)), of, &y);
        let expected = [
            ("accuracy", 0.46),
            ("balanced_accuracy", 0.45955882352941174),
            ("macro_f1", 0.46862026862026857),
            ("log_loss", 0.9180424905741479),
            ("roc_auc", 0.7988432115270351),
        ];
        near(&measures, &expected);
        assert_eq!(measures.confusion.expect("classes"), [[8.0, 7.0, 2.0], [8.0, 8.0, 1.0], [2.0, 7.0, 7.0]]);
        assert_eq!(measures.metrics.keys().map(String::as_str).collect::<Vec<_>>(), {
            let mut sorted = names(Task::Classification).to_vec();
            sorted.sort_unstable();
            sorted
        });

        // One class against the rest.
        let y: Vec<f64> = truth.iter().map(|t| f64::from(u8::from(*t == 1))).collect();
        let two = |i: usize| [1.0 - p[(i, 1)], p[(i, 1)]];
        let of = |range: std::ops::Range<usize>| {
            Scores::Probabilities(Array2::from_shape_fn((range.len(), 2), |(i, c)| two(range.start + i)[c]))
        };
        let measures = measured(Task::Classification, 2, &Array2::zeros((N, 1)), of, &y);
        let expected = [
            ("accuracy", 0.78),
            ("balanced_accuracy", 0.7049910873440286),
            ("macro_f1", 0.7209538305428715),
            ("log_loss", 0.5574007828212941),
            ("roc_auc", 0.7352941176470589),
        ];
        near(&measures, &expected);
    }

    #[test]
    fn bold_mistakes_and_absent_classes_are_scikit_learns_too() {
        let p = ndarray::arr2(&[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]);
        let mut measurer = Measurer::new(Task::Classification, 3, 1);
        measurer.push(p.view(), &Scores::Probabilities(p.clone()), &[0.0, 0.0, 1.0], |_| true).expect("classes");
        let measures = measurer.finish();
        near(&measures, &[("balanced_accuracy", 0.75), ("macro_f1", 0.5555555555555555), ("log_loss", 12.014551129705717)]);
        assert!(measures.metrics["roc_auc"].is_nan(), "the third class has no rows");
        assert!(Measurer::new(Task::Regression, 0, 1).finish().metrics["mae"].is_nan());
    }

    #[test]
    fn regression_is_scikit_learns() {
        let truth: Vec<f64> = (0..N).map(|i| (i * 17 % 23) as f64 * 0.5).collect();
        let predicted: Vec<f64> = (0..N).map(|i| truth[i] + ((i * 5 % 7) as f64 - 3.0) * 0.3).collect();
        let of = |range: std::ops::Range<usize>| Scores::Values(predicted[range].to_vec());
        let measures = measured(Task::Regression, 0, &Array2::zeros((N, 1)), of, &truth);
        near(&measures, &[("mae", 0.5220000000000001), ("rmse", 0.6074537019394977), ("r2", 0.9666753966892142)]);
    }

    #[test]
    fn the_silhouette_is_scikit_learns() {
        let x = Array2::from_shape_fn((N, 2), |(i, j)| match j {
            0 => (i % 3) as f64 * 4.0 + (i * 7 % 5) as f64 * 0.3,
            _ => (i % 3) as f64 * -2.0 + (i * 11 % 7) as f64 * 0.2,
        });
        let label = |i: usize| (if i.is_multiple_of(10) { (i + 1) % 3 } else { i % 3 }) as i32;
        let of = |range: std::ops::Range<usize>| Scores::Clusters {
            cluster: range.clone().map(label).collect(),
            distances: Array2::from_elem((range.len(), 3), 2.0),
        };
        let measures = measured(Task::Clustering, 0, &x, of, &[]);
        near(&measures, &[("silhouette", 0.5607332405995403), ("inertia", 200.0)]);
    }
}
