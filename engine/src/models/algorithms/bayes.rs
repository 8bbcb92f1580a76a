//! Gaussian naive Bayes: each column of each class is a bell curve of its own.
//!
//! Why ours and not linfa-bayes: that one takes no row weights, wants all rows in memory at once, smooths by the
//! variances of the last batch only, and keeps its moments private, so they could not be written in our format. The
//! moments are one mergeable pass, class by class. As in scikit-learn, a share (`smoothing`) of the largest
//! column's variance is added to every variance, so that a column constant within a class does not decide alone.

use std::f64::consts::TAU;

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::logistic::softmax;
use super::moments::{by_class, together};
use super::rows::{for_each_row, weighted_squared_distance};
use super::{FitContext, Scores, Step, limits};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::models::chunks::Chunks;

/// A class without rows: below whatever a class with rows can come to, so its probability is exactly 0.
const NEVER: f64 = f64::MIN;

/// How to fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BayesOptions {
    /// Share of the largest column's variance that is added to each variance; 1e-9 unless said.
    pub smoothing: f64,
}

/// The bell curves, class by class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BayesState {
    /// For each class, the logarithm of its density at its own mean, its share of the rows included.
    pub log_peaks: Vec<f64>,
    /// Classes × features, one class after the other.
    pub means: Vec<f64>,
    /// 1 / (2 · variance), as the means.
    pub sharpness: Vec<f64>,
}

impl BayesOptions {
    /// Reads 'smoothing'.
    ///
    /// # Errors
    /// User: an option out of its range.
    pub fn from_options(options: &mut Options) -> Result<Self> {
        Ok(Self { smoothing: limits::at_least_zero(options, "smoothing", 1e-9)? })
    }
}

/// Fits rows whose labels are indexes below `classes`.
///
/// # Errors
/// User: no rows, rows of one class only, or a value that is not finite; External: the rows cannot be read.
pub fn fit(chunks: &Chunks, classes: usize, options: &BayesOptions, ctx: &FitContext<'_>) -> Result<BayesState> {
    let moments = by_class(chunks, classes, ctx.threads)?;
    (ctx.progress)(Step { unit: "pass", done: 1, of: 1, loss: None });
    if moments.iter().filter(|m| m.weight > 0.0).count() < 2 {
        return Err(
            Error::user("all rows have the same label: there is nothing to tell apart").help("train on rows of at least two classes")
        );
    }
    let all = together(&moments);
    let largest = all.variances().fold(0.0, f64::max);
    // Where no column varies the classes differ by their shares alone.
    let added = if largest > 0.0 { (options.smoothing * largest).max(1e-280) } else { 1.0 };
    let mut state = BayesState { log_peaks: vec![], means: vec![], sharpness: vec![] };
    for class in &moments {
        if class.weight == 0.0 {
            state.log_peaks.push(NEVER);
            state.means.extend(class.mean.iter().map(|_| 0.0));
            state.sharpness.extend(class.mean.iter().map(|_| 1.0));
            continue;
        }
        let variances: Vec<f64> = class.variances().map(|v| v + added).collect();
        let spread: f64 = variances.iter().map(|v| (TAU * v).ln()).sum();
        state.log_peaks.push((class.weight / all.weight).ln() - 0.5 * spread);
        state.means.extend(&class.mean);
        state.sharpness.extend(variances.iter().map(|v| 0.5 / v));
    }
    Ok(state)
}

impl BayesState {
    /// How many classes it tells apart.
    pub fn classes(&self) -> usize {
        self.log_peaks.len()
    }

    /// The probability of each class, for each row.
    pub fn score(&self, x: ArrayView2<'_, f64>) -> Scores {
        let p = x.ncols();
        let mut answers = Array2::zeros((x.nrows(), self.classes()));
        let mut rows = answers.as_slice_mut().expect("row-major").chunks_exact_mut(self.classes().max(1));
        for_each_row(x, |_, row| {
            let Some(answer) = rows.next() else { return };
            for (k, (z, log_peak)) in answer.iter_mut().zip(&self.log_peaks).enumerate() {
                let of_class = k * p..(k + 1) * p;
                let away = weighted_squared_distance(row, &self.means[of_class.clone()], &self.sharpness[of_class]);
                // A row beyond all numbers from every class is still one of those that have rows.
                *z = if *log_peak == NEVER { NEVER } else { (log_peak - away).max(-1e300) };
            }
            softmax(answer);
        });
        Scores::Probabilities(answers)
    }

    /// Whether this can score rows of `features` columns.
    ///
    /// # Errors
    /// State: sizes that do not fit each other or `features`, or a number that cannot be.
    pub fn check(&self, features: usize) -> Result<()> {
        let (classes, wanted) = (self.classes(), self.classes().saturating_mul(features));
        if classes < 2 || self.means.len() != wanted || self.sharpness.len() != wanted {
            let given = self.means.len().min(self.sharpness.len());
            return Err(Error::state(format!("the naive Bayes model has {given} curves for {classes} classes of {features} features")));
        }
        let finite = self.log_peaks.iter().chain(&self.means).all(|v| v.is_finite());
        if !finite || !self.sharpness.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(Error::state("the naive Bayes model has a curve without a finite mean or a width"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::s;

    use super::*;
    use crate::models::algorithms::tests::{chunks_of, context};

    const PLAIN: BayesOptions = BayesOptions { smoothing: 1e-9 };

    fn rows(n: usize) -> (Array2<f64>, Vec<f64>) {
        let y: Vec<f64> = (0..n).map(|i| f64::from(u8::from(i % 5 < 2)) + f64::from(u8::from(i % 5 == 4))).collect();
        let x = Array2::from_shape_fn((n, 2), |(i, j)| 1e6 + y[i] * (j as f64 + 0.5) + ((i * 13 + j * 7) as f64).sin());
        (x, y)
    }

    fn probabilities(scores: Scores) -> Array2<f64> {
        let Scores::Probabilities(p) = scores else { panic!("classification answers probabilities") };
        p
    }

    #[test]
    fn probabilities_are_those_of_the_formula() {
        let (x, y) = rows(10_000);
        let state = fit(&chunks_of(&x, &y, &[]), 2, &PLAIN, &context(1)).expect("fits");
        state.check(2).expect("sound");
        let p = probabilities(state.score(x.view()));
        let of = |class: f64| -> Vec<usize> { (0..y.len()).filter(|i| y[*i] == class).collect() };
        for i in [0, 4, 777, 9_999] {
            let joint = [0.0, 1.0].map(|class| {
                let members = of(class);
                let n = members.len() as f64;
                let density = (0..2).map(|j| {
                    let mean = members.iter().map(|i| x[[*i, j]] - 1e6).sum::<f64>() / n + 1e6;
                    let variance = members.iter().map(|i| (x[[*i, j]] - mean).powi(2)).sum::<f64>() / n;
                    (-(x[[i, j]] - mean).powi(2) / (2.0 * variance)).exp() / (TAU * variance).sqrt()
                });
                density.product::<f64>() * n / y.len() as f64
            });
            assert!((p[[i, 1]] - joint[1] / (joint[0] + joint[1])).abs() < 1e-6, "row {i}: {} {joint:?}", p[[i, 1]]);
        }
    }

    #[test]
    fn threads_do_not_show_weights_repeat_rows_and_a_row_alone_has_the_batch_bits() {
        let (x, y) = rows(20_000);
        let chunks = chunks_of(&x, &y, &[]);
        let one = fit(&chunks, 2, &PLAIN, &context(1)).expect("fits");
        for threads in [2, 7] {
            assert_eq!(fit(&chunks, 2, &PLAIN, &context(threads)).expect("fits"), one);
        }
        let batch = probabilities(one.score(x.view()));
        let alone = probabilities(one.score(x.slice(s![4098..4099, ..])));
        assert_eq!(alone.row(0), batch.row(4098));

        let w: Vec<f64> = (0..20_000).map(|i| 1.0 + (i % 2) as f64).collect();
        let again: Vec<usize> = (0..20_000).flat_map(|i| std::iter::repeat_n(i, 1 + i % 2)).collect();
        let repeated = chunks_of(&x.select(ndarray::Axis(0), &again), &again.iter().map(|i| y[*i]).collect::<Vec<_>>(), &[]);
        let weighted = fit(&chunks_of(&x, &y, &w), 2, &PLAIN, &context(1)).expect("fits");
        let repeated = fit(&repeated, 2, &PLAIN, &context(1)).expect("fits");
        let apart = probabilities(weighted.score(x.view())) - probabilities(repeated.score(x.view()));
        // The means of 1e6 differ in their last digits.
        assert!(apart.iter().all(|d| d.abs() < 1e-7));
    }

    #[test]
    fn a_constant_column_and_an_absent_class_stay_finite() {
        let (mut x, y) = rows(500);
        x.column_mut(1).fill(3.0);
        let state = fit(&chunks_of(&x, &y, &[]), 3, &PLAIN, &context(1)).expect("fits");
        state.check(2).expect("sound");
        let mut far = x.slice(s![..2, ..]).to_owned();
        far[[0, 1]] = 1e200;
        let p = probabilities(state.score(far.view()));
        assert!(p.iter().all(|p| p.is_finite()) && p.column(2).iter().all(|p| *p == 0.0), "{p}");
        let e = fit(&chunks_of(&x, &[1.0; 500], &[]), 3, &PLAIN, &context(1)).expect_err("one class");
        assert!(e.message().contains("same label"), "{e}");
        assert!(BayesState { log_peaks: vec![0.0; 2], means: vec![0.0; 4], sharpness: vec![0.0; 4] }.check(2).is_err());
    }
}
