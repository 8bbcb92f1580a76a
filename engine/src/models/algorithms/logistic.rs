//! Logistic regression with an L2 penalty: two classes by one row of coefficients, more by one row each.
//!
//! What is minimised is scikit-learn's objective, Σ w·loss + `l2`/2·Σ b², so `l2` is its 1/C; the intercepts are not
//! penalised. Why ours: each row's log-sum-exp is taken from that row's largest score, so one row far out cannot
//! turn the others to NaN; probabilities are in the order of the classes, whichever is more frequent; rows have
//! weights; and each step is one pass, from memory or file. L-BFGS starts from the curvature that the columns'
//! moments tell (exact where no column has a say yet), so columns of any scale converge in a dozen passes.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::gram::{Gram, backward, cholesky, forward};
use super::lbfgs::minimise;
use super::moments::{Moments, by_class, class_of, together};
use super::rows::{add_scaled, dot, for_each_row};
use super::{FitContext, Scores, Step, limits};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::models::chunks::{Chunk, Chunks};

/// Up to so many columns the start knows their products too; beyond, their variances only.
const PRODUCTS_COLUMNS_MAX: usize = 96;

/// The intercept of a class without rows: its probability is exactly 0, and everything stays finite.
const NEVER: f64 = -1e300;

/// How to fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogisticOptions {
    /// Strength of the penalty: scikit-learn's 1/C; 1 unless said.
    pub l2: f64,
    /// Steps at most; 200 unless said.
    pub max_iterations: usize,
    /// Ends when no part of the gradient of the mean loss is larger; 0.0001 unless said.
    pub tolerance: f64,
}

/// Scores of the classes as lines of the features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogisticState {
    /// Two classes: one, the score of class 1 over class 0. More: one for each class.
    pub intercepts: Vec<f64>,
    /// As many rows as intercepts, each of the features' number, one after the other.
    pub coefficients: Vec<f64>,
}

impl LogisticOptions {
    /// Reads 'l2', 'max_iterations' and 'tolerance'.
    ///
    /// # Errors
    /// User: an option out of its range.
    pub fn from_options(options: &mut Options) -> Result<Self> {
        Ok(Self {
            l2: limits::at_least_zero(options, "l2", 1.0)?,
            max_iterations: limits::count(options, "max_iterations", 200, 100_000)?,
            tolerance: limits::above_zero(options, "tolerance", 1e-4)?,
        })
    }
}

/// Fits rows whose labels are indexes below `classes`.
///
/// # Errors
/// User: no rows, rows of one class only, or a value that is not finite; External: the rows cannot be read.
pub fn fit(chunks: &Chunks, classes: usize, options: &LogisticOptions, ctx: &FitContext<'_>) -> Result<LogisticState> {
    let moments = by_class(chunks, classes, ctx.threads)?;
    let present: Vec<usize> = (0..classes).filter(|k| moments[*k].weight > 0.0).collect();
    if present.len() < 2 {
        return Err(
            Error::user("all rows have the same label: there is nothing to tell apart").help("train on rows of at least two classes")
        );
    }
    let problem = Problem::new(chunks, &moments, &present, options, ctx)?;
    let mut at = problem.start();
    let each = |done, loss| (ctx.progress)(Step { unit: "pass", done, of: options.max_iterations, loss: Some(loss) });
    let done = |gradient: &[f64]| problem.largest(gradient) <= options.tolerance;
    let value = |at: &[f64], gradient: &mut [f64]| problem.value(at, gradient);
    let lowest = minimise(&mut at, options.max_iterations, value, |g| problem.precondition(g), done, each)?;
    if !lowest.is_finite() || !at.iter().all(|v| v.is_finite()) {
        return Err(Error::user("the coefficients grow beyond all numbers").help("scale the columns, or raise 'l2'"));
    }
    let (lines, p) = (problem.lines(), chunks.features());
    let (intercepts, coefficients) = problem.uncentred(&at);
    if classes == 2 {
        return Ok(LogisticState { intercepts, coefficients });
    }
    // Of two classes, the first one's score is 0.
    let first = present.len() - lines;
    let mut state = LogisticState { intercepts: vec![NEVER; classes], coefficients: vec![0.0; classes * p] };
    state.intercepts[present[0]] = 0.0;
    for (line, class) in present[first..].iter().enumerate() {
        state.intercepts[*class] = intercepts[line];
        state.coefficients[class * p..(class + 1) * p].copy_from_slice(&coefficients[line * p..(line + 1) * p]);
    }
    Ok(state)
}

impl LogisticState {
    /// How many classes it tells apart.
    pub fn classes(&self) -> usize {
        self.intercepts.len().max(2)
    }

    /// The probability of each class, for each row.
    pub fn score(&self, x: ArrayView2<'_, f64>) -> Scores {
        let p = x.ncols();
        let mut answers = Array2::zeros((x.nrows(), self.classes()));
        let flat = answers.as_slice_mut().expect("row-major");
        let mut rows = flat.chunks_exact_mut(self.classes());
        for_each_row(x, |_, row| {
            let answer = rows.next().expect("as many answers as rows");
            if let [intercept] = self.intercepts[..] {
                let z = intercept + dot(row, &self.coefficients);
                // The smaller of the two is worked out, so that neither loses digits.
                let e = (-z.abs()).exp();
                let (rare, likely) = (e / (1.0 + e), 1.0 / (1.0 + e));
                answer.copy_from_slice(&if z > 0.0 { [rare, likely] } else { [likely, rare] });
            } else {
                for (k, (z, intercept)) in answer.iter_mut().zip(&self.intercepts).enumerate() {
                    *z = intercept + dot(row, &self.coefficients[k * p..(k + 1) * p]);
                }
                softmax(answer);
            }
        });
        Scores::Probabilities(answers)
    }

    /// Whether this can score rows of `features` columns.
    ///
    /// # Errors
    /// State: sizes that do not fit each other or `features`, or a number that is not finite.
    pub fn check(&self, features: usize) -> Result<()> {
        let lines = self.intercepts.len();
        if lines == 0 || self.coefficients.len() != lines.saturating_mul(features) {
            let given = self.coefficients.len();
            return Err(Error::state(format!("the logistic model has {given} coefficients for {lines} scores of {features} features")));
        }
        if !self.intercepts.iter().chain(&self.coefficients).all(|v| v.is_finite()) {
            return Err(Error::state("the logistic model has a coefficient that is not finite"));
        }
        Ok(())
    }
}

/// Scores become probabilities; answers log Σ e^score.
pub(super) fn softmax(scores: &mut [f64]) -> f64 {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for z in scores.iter_mut() {
        *z = (*z - top).exp();
        sum += *z;
    }
    scores.iter_mut().for_each(|z| *z /= sum);
    top + sum.ln()
}

/// The mean penalised loss as a function of the lines, in centred columns: line by line the coefficients, then the
/// intercept at the columns' means. Centred, intercept and coefficients have no curvature in common at the start.
struct Problem<'a> {
    chunks: &'a Chunks,
    threads: usize,
    /// Which place among the classes that occur each class has.
    place: Vec<usize>,
    /// Share of each class that occurs.
    shares: Vec<f64>,
    mean: Vec<f64>,
    weight: f64,
    l2: f64,
    curvature: Vec<Curvature>,
}

/// What a line's coefficients feel at the start.
enum Curvature {
    /// Cholesky factor of the whole.
    Whole(Array2<f64>),
    /// Its diagonal.
    Diagonal(Vec<f64>),
}

impl<'a> Problem<'a> {
    fn new(chunks: &'a Chunks, moments: &[Moments], present: &[usize], options: &LogisticOptions, ctx: &FitContext<'_>) -> Result<Self> {
        let all = together(moments);
        let mut place = vec![0; moments.len()];
        present.iter().enumerate().for_each(|(i, class)| place[*class] = i);
        let shares: Vec<f64> = present.iter().map(|k| moments[*k].weight / all.weight).collect();
        let l2 = options.l2 / all.weight;
        let p = chunks.features();
        let gram = if p <= PRODUCTS_COLUMNS_MAX { Some(Gram::of(chunks, ctx.threads)?) } else { None };
        // With more than two classes the exact curvature couples them; on gradients that sum to 0 over the classes,
        // which all gradients here do, its inverse is that of these blocks up to a shift common to all classes.
        let factors = if shares.len() == 2 { vec![shares[0] * shares[1]] } else { shares.clone() };
        let curvature = factors.iter().map(|factor| match &gram {
            Some(gram) => {
                let largest = (0..p).map(|j| gram.moments[[j, j]] / all.weight).fold(0.0, f64::max);
                // Collinear columns under no penalty have no curvature: a little keeps the factor finite.
                let ridge = l2 + 1e-10 * factor * largest + f64::MIN_POSITIVE;
                let mut a = Array2::from_shape_fn((p, p), |(i, j)| factor * gram.moments[[i, j]] / all.weight);
                a.diag_mut().iter_mut().for_each(|d| *d += ridge);
                cholesky(&mut a);
                Curvature::Whole(a)
            }
            None => Curvature::Diagonal(all.variances().map(|v| factor * v + l2 + 1e-300).collect()),
        });
        let curvature = curvature.collect();
        Ok(Self { chunks, threads: ctx.threads, place, shares, mean: all.mean, weight: all.weight, l2, curvature })
    }

    fn lines(&self) -> usize {
        self.curvature.len()
    }

    /// No column has a say: the shares of the classes.
    fn start(&self) -> Vec<f64> {
        let p = self.mean.len();
        let mut at = vec![0.0; self.lines() * (p + 1)];
        for (line, part) in at.chunks_exact_mut(p + 1).enumerate() {
            part[p] = if self.shares.len() == 2 { (self.shares[1] / self.shares[0]).ln() } else { self.shares[line].ln() };
        }
        at
    }

    fn precondition(&self, gradient: &mut [f64]) {
        let p = self.mean.len();
        for (line, part) in gradient.chunks_exact_mut(p + 1).enumerate() {
            match &self.curvature[line] {
                Curvature::Whole(factor) => {
                    forward(factor, &mut part[..p]);
                    backward(factor, &mut part[..p]);
                }
                Curvature::Diagonal(diagonal) => part.iter_mut().zip(diagonal).for_each(|(g, d)| *g /= d),
            }
            part[p] /= if self.shares.len() == 2 { self.shares[0] * self.shares[1] } else { self.shares[line] };
        }
    }

    /// Intercepts at 0 and coefficients, line by line.
    fn uncentred(&self, at: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let p = self.mean.len();
        let parts = at.chunks_exact(p + 1);
        (parts.clone().map(|part| part[p] - dot(&self.mean, part)).collect(), parts.flat_map(|part| part[..p].to_vec()).collect())
    }

    /// The largest part of the gradient in the columns as they are.
    fn largest(&self, gradient: &[f64]) -> f64 {
        let p = self.mean.len();
        let parts = gradient.chunks_exact(p + 1);
        let largest = parts.map(|part| {
            let of_columns = part.iter().zip(&self.mean).map(|(g, m)| (g + m * part[p]).abs()).fold(0.0, f64::max);
            of_columns.max(part[p].abs())
        });
        largest.fold(0.0, f64::max)
    }

    fn value(&self, at: &[f64], gradient: &mut [f64]) -> Result<f64> {
        let p = self.mean.len();
        let (intercepts, coefficients) = self.uncentred(at);
        let none = (0.0, vec![0.0; at.len()]);
        let columns = Array2::from_shape_vec((self.lines(), p), coefficients).expect("each line has the columns");
        let map = |_, chunk: &Chunk| {
            if self.shares.len() == 2 {
                self.of_two(chunk, intercepts[0], columns.as_slice().expect("row-major"))
            } else {
                self.of_more(chunk, &intercepts, &columns)
            }
        };
        let (loss, sums) = self.chunks.fold(self.threads, none, map, |all, part| {
            all.0 += part.0;
            add_scaled(&mut all.1, 1.0, &part.1);
        })?;
        let mut penalty = 0.0;
        for ((gradient, sums), at) in gradient.chunks_exact_mut(p + 1).zip(sums.chunks_exact(p + 1)).zip(at.chunks_exact(p + 1)) {
            gradient[p] = sums[p] / self.weight;
            for j in 0..p {
                gradient[j] = sums[j] / self.weight - self.mean[j] * gradient[p] + self.l2 * at[j];
            }
            penalty += 0.5 * self.l2 * dot(&at[..p], &at[..p]);
        }
        Ok(loss / self.weight + penalty)
    }

    /// Loss and gradient of a chunk for one line: the last part of the gradient is the intercept's.
    fn of_two(&self, chunk: &Chunk, intercept: f64, coefficients: &[f64]) -> (f64, Vec<f64>) {
        let p = coefficients.len();
        let (mut loss, mut sums) = (0.0, vec![0.0; p + 1]);
        for_each_row(chunk.x.view(), |i, row| {
            let z = intercept + dot(row, coefficients);
            let is_second = self.place[class_of(chunk, i)] == 1;
            let e = (-z.abs()).exp();
            let likely = 1.0 / (1.0 + e);
            let second = if z > 0.0 { likely } else { e * likely };
            // −ln of the probability of the row's own class.
            let against = if is_second { -z } else { z };
            loss += chunk.w[i] * (against.max(0.0) + e.ln_1p());
            let residual = chunk.w[i] * (second - f64::from(u8::from(is_second)));
            add_scaled(&mut sums[..p], residual, row);
            sums[p] += residual;
        });
        (loss, sums)
    }

    /// The same for one line a class.
    fn of_more(&self, chunk: &Chunk, intercepts: &[f64], columns: &Array2<f64>) -> (f64, Vec<f64>) {
        let (lines, p) = columns.dim();
        // A chunk's rows are fixed, so here a matrix product is the same at any thread count.
        let mut scores = chunk.x.dot(&columns.t());
        let (mut loss, mut of_intercepts) = (0.0, vec![0.0; lines]);
        for (i, row) in scores.as_slice_mut().expect("row-major").chunks_exact_mut(lines).enumerate() {
            add_scaled(row, 1.0, intercepts);
            let own = self.place[class_of(chunk, i)];
            let own_score = row[own];
            loss += chunk.w[i] * (softmax(row) - own_score);
            row[own] -= 1.0;
            row.iter_mut().for_each(|r| *r *= chunk.w[i]);
            add_scaled(&mut of_intercepts, 1.0, row);
        }
        let of_columns = scores.t().dot(&chunk.x);
        let mut sums = Vec::with_capacity(lines * (p + 1));
        for (row, last) in of_columns.rows().into_iter().zip(of_intercepts) {
            sums.extend(row.iter().chain([&last]));
        }
        (loss, sums)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::s;

    use super::*;
    use crate::models::algorithms::tests::{chunks_of, context};

    const EXACT: LogisticOptions = LogisticOptions { l2: 1.0, max_iterations: 500, tolerance: 1e-9 };

    /// Rows of `classes` overlapping groups in three columns of very different scale.
    fn rows(n: usize, classes: usize) -> (Array2<f64>, Vec<f64>) {
        let noise = |i: usize, j: usize| ((i * 7919 + j * 104_729) as f64 * 0.618_033_988).fract() * 4.0 - 2.0;
        let y: Vec<f64> = (0..n).map(|i| ((i * i + i / 3) % classes) as f64).collect();
        let x = Array2::from_shape_fn((n, 3), |(i, j)| match j {
            0 => y[i] + noise(i, 0),
            1 => 1e4 + 1e3 * ((y[i] * 2.0).sin() + noise(i, 1)),
            _ => 1e-3 * noise(i, 2),
        });
        (x, y)
    }

    fn probabilities(scores: Scores) -> Array2<f64> {
        let Scores::Probabilities(p) = scores else { panic!("classification answers probabilities") };
        p
    }

    /// The gradient of the objective at the state, by its definition.
    fn gradient_max(state: &LogisticState, x: &Array2<f64>, y: &[f64], l2: f64) -> f64 {
        let p = probabilities(state.score(x.view()));
        let lines = state.intercepts.len();
        let mut largest = 0.0f64;
        for line in 0..lines {
            let class = if lines == 1 { 1 } else { line };
            let residual: Vec<f64> = (0..y.len()).map(|i| p[[i, class]] - f64::from(u8::from(y[i] == class as f64))).collect();
            largest = largest.max(residual.iter().sum::<f64>().abs());
            for j in 0..x.ncols() {
                let g: f64 = (0..y.len()).map(|i| residual[i] * x[[i, j]]).sum();
                largest = largest.max((g + l2 * state.coefficients[line * x.ncols() + j]).abs());
            }
        }
        largest / y.len() as f64
    }

    #[test]
    fn the_minimum_is_found_for_two_classes_and_more_at_any_scale() {
        for classes in [2, 4] {
            let (x, y) = rows(6000, classes);
            let state = fit(&chunks_of(&x, &y, &[]), classes, &EXACT, &context(2)).expect("fits");
            state.check(3).expect("sound");
            // Column 1 is of size 1e4, and so are the parts of its gradient.
            let largest = gradient_max(&state, &x, &y, 1.0);
            assert!(largest < 1e-3, "{classes} classes: {largest}");
        }
    }

    #[test]
    fn a_probability_is_of_the_named_class_also_where_that_one_is_rare() {
        let x = Array2::from_shape_fn((1000, 1), |(i, _)| f64::from(u8::from(i % 10 == 0)) + (i as f64).sin() * 0.1);
        for rare in [0.0, 1.0] {
            let y: Vec<f64> = (0..1000).map(|i| if i % 10 == 0 { rare } else { 1.0 - rare }).collect();
            let state = fit(&chunks_of(&x, &y, &[]), 2, &EXACT, &context(1)).expect("fits");
            let p = probabilities(state.score(x.slice(s![..2, ..])));
            assert!(p[[0, rare as usize]] > 0.9 && p[[1, rare as usize]] < 0.1, "{p}");
        }
    }

    #[test]
    fn one_row_far_out_does_not_wreck_the_others() {
        let (mut x, y) = rows(6000, 3);
        let clean = fit(&chunks_of(&x, &y, &[]), 3, &EXACT, &context(1)).expect("fits");
        let tests = x.slice(s![..2000, ..]).to_owned();
        x[[5999, 0]] = 1e4;
        let state = fit(&chunks_of(&x, &y, &[]), 3, &LogisticOptions { tolerance: 1e-4, ..EXACT }, &context(1)).expect("fits");
        assert!(probabilities(state.score(x.view())).iter().all(|p| (0.0..=1.0).contains(p)));
        let right = |state: &LogisticState| {
            let p = probabilities(state.score(tests.view()));
            (0..2000).filter(|i| (0..3).all(|k| p[[*i, k]] <= p[[*i, y[*i] as usize]])).count()
        };
        assert!(right(&state) > 800 && right(&clean) > 1000, "{} {}", right(&state), right(&clean));
    }

    #[test]
    fn threads_do_not_show_and_a_row_alone_has_the_batch_bits() {
        for classes in [2, 3] {
            let (x, y) = rows(20_000, classes);
            let chunks = chunks_of(&x, &y, &[]);
            let one = fit(&chunks, classes, &EXACT, &context(1)).expect("fits");
            for threads in [2, 7] {
                assert_eq!(fit(&chunks, classes, &EXACT, &context(threads)).expect("fits"), one);
            }
            let batch = probabilities(one.score(x.view()));
            for i in [0, 7, 19_999] {
                let alone = probabilities(one.score(x.slice(s![i..=i, ..])));
                assert_eq!(alone.row(0), batch.row(i));
                assert!((alone.sum() - 1.0).abs() < 1e-15);
            }
        }
    }

    #[test]
    fn weights_are_repeated_rows() {
        let (x, y) = rows(900, 3);
        let w: Vec<f64> = (0..900).map(|i| 1.0 + (i % 4) as f64).collect();
        let again: Vec<usize> = (0..900).flat_map(|i| std::iter::repeat_n(i, 1 + i % 4)).collect();
        let repeated = chunks_of(&x.select(ndarray::Axis(0), &again), &again.iter().map(|i| y[*i]).collect::<Vec<_>>(), &[]);
        let weighted = fit(&chunks_of(&x, &y, &w), 3, &EXACT, &context(1)).expect("fits");
        let repeated = fit(&repeated, 3, &EXACT, &context(1)).expect("fits");
        let apart = probabilities(weighted.score(x.view())) - probabilities(repeated.score(x.view()));
        assert!(apart.iter().all(|d| d.abs() < 1e-6));
    }

    #[test]
    fn a_class_without_rows_has_probability_0_and_one_class_alone_is_an_error() {
        let (x, mut y) = rows(600, 3);
        y.iter_mut().for_each(|y| *y = if *y == 1.0 { 0.0 } else { *y });
        let state = fit(&chunks_of(&x, &y, &[]), 3, &EXACT, &context(1)).expect("fits");
        state.check(3).expect("sound");
        let p = probabilities(state.score(x.view()));
        assert!(p.column(1).iter().all(|p| *p == 0.0) && p.iter().all(|p| p.is_finite()));
        let e = fit(&chunks_of(&x, &[2.0; 600], &[]), 3, &EXACT, &context(1)).expect_err("one class");
        assert!(e.message().contains("same label"), "{e}");
        let e = fit(&chunks_of(&Array2::zeros((0, 3)), &[], &[]), 3, &EXACT, &context(1)).expect_err("no rows");
        assert!(e.message().contains("no rows"), "{e}");
        assert!(LogisticState { intercepts: vec![0.0], coefficients: vec![1.0] }.check(2).is_err());
        assert!(LogisticState { intercepts: vec![], coefficients: vec![] }.check(0).is_err());
    }
}
