//! Linear regression: least squares, ridge and elastic net, all from one [`Gram`] pass.
//!
//! Why ours: the pass works from a file larger than memory and takes row weights; collinear columns (one-hot beside
//! an intercept) get a finite answer, where a plain solver explodes without a word; and elastic net centres the
//! features, so that the penalty does not move the intercept. Penalties mean what they mean in scikit-learn:
//! ridge minimises Σ w·(y − ŷ)² + `alpha`·Σ b²; elastic net minimises
//! Σ w·(y − ŷ)² / 2Σw + `alpha`·(`l1_ratio`·Σ|b| + (1 − `l1_ratio`)/2·Σ b²). The intercept is never penalised.

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::gram::Gram;
use super::rows::{add_scaled, dot, for_each_row};
use super::{FitContext, Scores, Step, limits};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::models::chunks::Chunks;
use crate::models::task::Algorithm;

/// How the coefficients are held down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LinearOptions {
    /// Not at all.
    LeastSquares,
    /// By their squares.
    Ridge {
        /// Strength; 1 unless said.
        alpha: f64,
    },
    /// By their absolute values and their squares.
    ElasticNet {
        /// Strength; 1 unless said.
        alpha: f64,
        /// Share of the absolute values, 0 to 1; 0.5 unless said.
        l1_ratio: f64,
        /// Rounds over all coefficients at most; 1000 unless said.
        max_iterations: usize,
        /// Ends when the objective is within this share of Σ w·(y − mean)² of its minimum; 0.0001 unless said.
        tolerance: f64,
    },
}

/// A fitted line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearState {
    /// The answer where every feature is 0.
    pub intercept: f64,
    /// One for each feature.
    pub coefficients: Vec<f64>,
}

impl LinearOptions {
    /// The options of `algorithm` (linear, ridge or elastic net).
    ///
    /// # Errors
    /// User: an option out of its range; Internal: another algorithm.
    pub fn from_options(algorithm: Algorithm, options: &mut Options) -> Result<Self> {
        match algorithm {
            Algorithm::Linear => Ok(Self::LeastSquares),
            Algorithm::Ridge => Ok(Self::Ridge { alpha: limits::at_least_zero(options, "alpha", 1.0)? }),
            Algorithm::ElasticNet => Ok(Self::ElasticNet {
                alpha: limits::at_least_zero(options, "alpha", 1.0)?,
                l1_ratio: limits::number(options, "l1_ratio", 0.5, "a number from 0 to 1", |v| (0.0..=1.0).contains(&v))?,
                max_iterations: limits::count(options, "max_iterations", 1000, 1_000_000)?,
                tolerance: limits::above_zero(options, "tolerance", 1e-4)?,
            }),
            other => Err(Error::internal(format!("{other} is not a linear regression"))),
        }
    }
}

/// Fits a line through all rows.
///
/// # Errors
/// User: no rows, or a value that is not finite; External: the rows cannot be read.
pub fn fit(chunks: &Chunks, options: &LinearOptions, ctx: &FitContext<'_>) -> Result<LinearState> {
    let gram = Gram::of(chunks, ctx.threads)?;
    (ctx.progress)(Step { unit: "pass", done: 1, of: 1, loss: None });
    let coefficients = match *options {
        LinearOptions::LeastSquares => gram.solve(0.0),
        LinearOptions::Ridge { alpha } => gram.solve(alpha),
        // Without a penalty the descent would creep along collinear columns for ever.
        LinearOptions::ElasticNet { alpha: 0.0, .. } => gram.solve(0.0),
        LinearOptions::ElasticNet { alpha, l1_ratio, max_iterations, tolerance } => {
            descend(&gram, alpha, l1_ratio, max_iterations, tolerance)
        }
    };
    let intercept = gram.mean[gram.features()] - dot(&gram.mean, &coefficients);
    if !intercept.is_finite() || !coefficients.iter().all(|b| b.is_finite()) {
        return Err(Error::user("the coefficients grow beyond all numbers").help("divide the columns or the label, or use 'ridge'"));
    }
    Ok(LinearState { intercept, coefficients })
}

impl LinearState {
    /// The line's value for each row.
    pub fn score(&self, x: ArrayView2<'_, f64>) -> Scores {
        let mut values = Vec::with_capacity(x.nrows());
        for_each_row(x, |_, row| values.push(self.intercept + dot(row, &self.coefficients)));
        Scores::Values(values)
    }

    /// Whether this can score rows of `features` columns.
    ///
    /// # Errors
    /// State: another number of coefficients, or one that is no number.
    pub fn check(&self, features: usize) -> Result<()> {
        if self.coefficients.len() != features {
            return Err(Error::state(format!("the linear model has {} coefficients for {features} features", self.coefficients.len())));
        }
        if !self.intercept.is_finite() || !self.coefficients.iter().all(|b| b.is_finite()) {
            return Err(Error::state("the linear model has a coefficient that is not finite"));
        }
        Ok(())
    }
}

/// Coordinate descent on the Gram matrix: each coefficient in turn goes to its own minimum, until the duality gap,
/// which bounds how far the objective is from its minimum, is small.
fn descend(gram: &Gram, alpha: f64, l1_ratio: f64, max_iterations: usize, tolerance: f64) -> Vec<f64> {
    let p = gram.features();
    let l1 = alpha * l1_ratio * gram.weight;
    let l2 = alpha * (1.0 - l1_ratio) * gram.weight;
    let with_label: Vec<f64> = (0..p).map(|j| gram.moments[[j, p]]).collect();
    let mut b = vec![0.0; p];
    // The Gram matrix times `b`, kept up to date.
    let mut made = vec![0.0; p];
    for _ in 0..max_iterations {
        let (mut step_max, mut b_max) = (0.0f64, 0.0f64);
        for j in 0..p {
            if gram.is_constant(j) {
                continue;
            }
            let own = gram.moments[[j, j]];
            let pull = with_label[j] - made[j] + own * b[j];
            let to = (pull.abs() - l1).max(0.0).copysign(pull) / (own + l2);
            let by = to - b[j];
            if by != 0.0 {
                let row = gram.moments.row(j);
                add_scaled(&mut made, by, row.as_slice().expect("row-major"));
                b[j] = to;
            }
            step_max = step_max.max(by.abs());
            b_max = b_max.max(to.abs());
        }
        let settled = b_max == 0.0 || step_max <= tolerance * b_max;
        if settled && duality_gap(gram, &with_label, &made, &b, l1, l2) <= tolerance * gram.label_moment() {
            break;
        }
        if step_max == 0.0 {
            break;
        }
    }
    b
}

/// How far the objective at `b` may be above its minimum.
fn duality_gap(gram: &Gram, with_label: &[f64], made: &[f64], b: &[f64], l1: f64, l2: f64) -> f64 {
    let pull_max = with_label.iter().zip(made).zip(b).map(|((q, m), b)| (q - m - l2 * b).abs()).fold(0.0, f64::max);
    let (b_label, b_made, b_b) = (dot(b, with_label), dot(b, made), dot(b, b));
    let residual = (gram.label_moment() - 2.0 * b_label + b_made).max(0.0);
    // Without an L1 part the dual point is the residual itself, whatever its pull.
    let shrink = if pull_max > l1 { l1 / pull_max } else { 1.0 };
    let gap = if pull_max > l1 { 0.5 * residual * (1.0 + shrink * shrink) } else { residual };
    let b_1: f64 = b.iter().map(|b| b.abs()).sum();
    gap + l1 * b_1 - shrink * (gram.label_moment() - b_label) + 0.5 * l2 * (1.0 + shrink * shrink) * b_b
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ndarray::Array2;

    use super::*;
    use crate::models::algorithms::tests::{chunks_of, context};

    /// Two numbers, a one-hot of three beside the intercept, and a copy; far from 0, so that centring shows.
    fn rows(n: usize) -> (Array2<f64>, Vec<f64>) {
        let x = Array2::from_shape_fn((n, 6), |(i, j)| match j {
            0 => 1e6 + (i as f64 * 0.7).sin(),
            1 => (i as f64 * 1.3).cos() * 3.0,
            2..=4 => f64::from(u8::from(i % 3 == j - 2)),
            _ => 2.0 * (1e6 + (i as f64 * 0.7).sin()),
        });
        let y = x.rows().into_iter().map(|r| 5.0 + 2.0 * (r[0] - 1e6) - r[1] + 4.0 * r[3] + 0.1 * (r[1] * 9.0).sin()).collect();
        (x, y)
    }

    fn values(scores: Scores) -> Vec<f64> {
        let Scores::Values(values) = scores else { panic!("regression answers values") };
        values
    }

    #[test]
    fn collinear_columns_get_a_finite_line_that_fits() {
        let (x, y) = rows(10_000);
        let state = fit(&chunks_of(&x, &y, &[]), &LinearOptions::LeastSquares, &context(1)).expect("fits");
        state.check(6).expect("sound");
        assert!(state.coefficients.iter().all(|b| b.abs() < 10.0), "{state:?}");
        let error = values(state.score(x.view())).iter().zip(&y).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error < 0.15, "{error}");
        // A copy at twice the scale: both move by their own deviation.
        assert!((state.coefficients[0] - 2.0 * state.coefficients[5]).abs() < 1e-6, "{state:?}");
    }

    #[test]
    fn threads_do_not_show_and_a_row_alone_has_the_batch_bits() {
        let (x, y) = rows(30_000);
        for options in [
            LinearOptions::LeastSquares,
            LinearOptions::Ridge { alpha: 3.0 },
            LinearOptions::ElasticNet { alpha: 0.01, l1_ratio: 0.3, max_iterations: 1000, tolerance: 1e-8 },
        ] {
            let chunks = chunks_of(&x, &y, &[]);
            let one = fit(&chunks, &options, &context(1)).expect("fits");
            for threads in [2, 7] {
                assert_eq!(fit(&chunks, &options, &context(threads)).expect("fits"), one);
            }
            let batch = values(one.score(x.view()));
            for i in [0, 1, 4097, 29_999] {
                let alone = values(one.score(x.slice(ndarray::s![i..=i, ..])));
                assert_eq!(alone[0].to_bits(), batch[i].to_bits());
            }
        }
    }

    #[test]
    fn weights_are_repeated_rows() {
        let (x, y) = rows(600);
        let w: Vec<f64> = (0..600).map(|i| 1.0 + (i % 3) as f64).collect();
        let again: Vec<usize> = (0..600).flat_map(|i| std::iter::repeat_n(i, 1 + i % 3)).collect();
        let repeated = chunks_of(&x.select(ndarray::Axis(0), &again), &again.iter().map(|i| y[*i]).collect::<Vec<_>>(), &[]);
        for options in [
            LinearOptions::LeastSquares,
            LinearOptions::Ridge { alpha: 3.0 },
            LinearOptions::ElasticNet { alpha: 0.05, l1_ratio: 0.5, max_iterations: 10_000, tolerance: 1e-12 },
        ] {
            let weighted = fit(&chunks_of(&x, &y, &w), &options, &context(1)).expect("fits");
            let repeated = fit(&repeated, &options, &context(1)).expect("fits");
            let pairs = values(weighted.score(x.view())).into_iter().zip(values(repeated.score(x.view())));
            pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{a} {b}"));
        }
    }

    #[test]
    fn elastic_net_meets_the_conditions_of_a_minimum() {
        let (x, y) = rows(3000);
        let (alpha, l1_ratio) = (0.2, 0.6);
        let options = LinearOptions::ElasticNet { alpha, l1_ratio, max_iterations: 100_000, tolerance: 1e-12 };
        let state = fit(&chunks_of(&x, &y, &[]), &options, &context(1)).expect("fits");
        let predicted = values(state.score(x.view()));
        let n = y.len() as f64;
        let mean: f64 = predicted.iter().zip(&y).map(|(p, y)| y - p).sum::<f64>() / n;
        assert!(mean.abs() < 1e-6, "the intercept is not penalised: {mean}");
        let mut zeros = 0;
        for (j, b) in state.coefficients.iter().enumerate() {
            let middle = x.column(j).mean().expect("rows");
            let pull = (0..y.len()).map(|i| (x[[i, j]] - middle) * (y[i] - predicted[i])).sum::<f64>() / n;
            let rest = pull - alpha * (1.0 - l1_ratio) * b;
            if *b == 0.0 {
                zeros += 1;
                assert!(rest.abs() <= alpha * l1_ratio + 1e-6, "column {j}: {rest}");
            } else {
                assert!((rest - alpha * l1_ratio * b.signum()).abs() < 1e-5, "column {j}: {rest} at {b}");
            }
        }
        assert!(zeros > 0, "{state:?}");
    }

    #[test]
    fn what_cannot_be_fitted_or_scored_is_an_error() {
        let none = fit(&chunks_of(&Array2::zeros((0, 2)), &[], &[]), &LinearOptions::LeastSquares, &context(1)).expect_err("no rows");
        assert!(none.message().contains("no rows"), "{none}");
        let nan = chunks_of(&Array2::from_elem((3, 1), f64::NAN), &[1.0, 2.0, 3.0], &[]);
        assert!(fit(&nan, &LinearOptions::LeastSquares, &context(1)).expect_err("NaN").message().contains("not finite"));
        let mut options = Options::new("model 'm'", BTreeMap::from([("l1_ratio".to_string(), "1.5".to_string())]));
        let e = LinearOptions::from_options(Algorithm::ElasticNet, &mut options).expect_err("out of range");
        assert!(e.message().contains("'l1_ratio' is '1.5'"), "{e}");
        let state = LinearState { intercept: 0.0, coefficients: vec![1.0] };
        assert!(state.check(2).is_err() && state.check(1).is_ok());
        assert!(LinearState { intercept: f64::NAN, coefficients: vec![] }.check(0).is_err());
    }
}
