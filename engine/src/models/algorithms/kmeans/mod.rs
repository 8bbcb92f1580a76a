//! k-means: centres such that the rows' squared distances to their nearest centre are small.
//!
//! Several starts compete on a random sample of the rows (all of them where there are few); the winner is refined on
//! all rows ([`lloyd`]) or by small random batches ([`mini_batch`]). So the cost of starts does not grow with
//! the rows, and a file larger than memory takes one pass a round. The state is our own: what it counts is the
//! assignment to its final centres. Ties go to the lower cluster; a centre that lost all rows moves to the row that
//! is farthest from its own.

mod lloyd;
mod mini_batch;
mod seeding;

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::rows::{for_each_row, squared_distance, weighted_squared_distance};
use super::{FitContext, Scores, limits};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::models::chunks::Chunks;

/// Clusters at most: a score has a distance to each.
const CLUSTERS_MAX: usize = 10_000;

/// How to fit.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeansOptions {
    /// How many centres; 8 unless said.
    pub clusters: usize,
    /// How many starts compete; 10 unless said (mini-batch: 3).
    pub starts: usize,
    /// Rounds over the rows at most; 300 unless said (mini-batch: 100 rounds' worth of batches).
    pub max_iterations: usize,
    /// Ends when the centres move, in squares, by less than this share of the columns' mean variance; 0.0001 unless
    /// said. Mini-batch: when batches stop getting nearer on average by this share; 0.002 unless said.
    pub tolerance: f64,
    /// Rows of a batch, where the algorithm is mini-batch; 1024 unless said.
    pub batch_rows: Option<usize>,
    /// What a squared difference in each column weighs, so that a block of columns counts more or less; empty: 1 each.
    pub column_weights: Vec<f64>,
}

/// The centres, and how the rows fell to them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KMeansState {
    /// Clusters × features, one centre after the other.
    pub centres: Vec<f64>,
    /// For each cluster, the weight of its training rows.
    pub counts: Vec<f64>,
    /// Σ w · squared distance to the nearest centre, over the training rows.
    pub inertia: f64,
    /// As in the options; empty: 1 each.
    pub column_weights: Vec<f64>,
}

impl KMeansOptions {
    /// Reads 'clusters', 'starts', 'max_iterations', 'tolerance' and, where `mini_batch`, 'batch_rows'.
    ///
    /// # Errors
    /// User: an option out of its range.
    pub fn from_options(mini_batch: bool, options: &mut Options) -> Result<Self> {
        Ok(Self {
            clusters: limits::count(options, "clusters", 8, CLUSTERS_MAX)?,
            starts: limits::count(options, "starts", if mini_batch { 3 } else { 10 }, 1000)?,
            max_iterations: limits::count(options, "max_iterations", if mini_batch { 100 } else { 300 }, 1_000_000)?,
            tolerance: limits::at_least_zero(options, "tolerance", if mini_batch { 2e-3 } else { 1e-4 })?,
            batch_rows: if mini_batch { Some(limits::count(options, "batch_rows", 1024, 1 << 20)?) } else { None },
            column_weights: vec![],
        })
    }
}

/// Fits centres to all rows.
///
/// # Errors
/// User: fewer rows than clusters, or a value that is not finite; External: the rows cannot be read.
pub fn fit(chunks: &Chunks, options: &KMeansOptions, ctx: &FitContext<'_>) -> Result<KMeansState> {
    if chunks.is_empty() {
        return Err(Error::user("there are no rows to learn from"));
    }
    if chunks.rows() < options.clusters {
        let e = Error::user(format!("{} clusters cannot be made of {} rows", options.clusters, chunks.rows()));
        return Err(e.help("lower 'clusters', or train on more rows"));
    }
    let metric = Metric::new(chunks.features(), &options.column_weights)?;
    let centres = match options.batch_rows {
        Some(batch_rows) => mini_batch::centres(chunks, options, batch_rows, &metric, ctx)?,
        None => lloyd::centres(chunks, options, &metric, ctx)?,
    };
    let fallen = lloyd::assign(chunks, &centres, &metric, ctx.threads)?;
    if !fallen.inertia.is_finite() || !centres.iter().all(|v| v.is_finite()) {
        let e = Error::user("the training rows hold a value that is not finite, or is too large to be squared");
        return Err(e.help("filter such rows out, or divide the column"));
    }
    let column_weights = options.column_weights.clone();
    Ok(KMeansState { centres: centres.into_raw_vec_and_offset().0, counts: fallen.counts, inertia: fallen.inertia, column_weights })
}

impl KMeansState {
    /// How many clusters there are.
    pub fn clusters(&self) -> usize {
        self.counts.len()
    }

    /// The nearest cluster of each row and the distance to every centre.
    pub fn score(&self, x: ArrayView2<'_, f64>) -> Scores {
        let (k, p) = (self.clusters(), x.ncols());
        let mut cluster = Vec::with_capacity(x.nrows());
        let mut distances = Array2::zeros((x.nrows(), k));
        let mut rows = distances.as_slice_mut().expect("row-major").chunks_exact_mut(k.max(1));
        let metric = Metric { column_weights: self.column_weights.clone() };
        for_each_row(x, |_, row| {
            let Some(to) = rows.next() else { return };
            let (nearest, _) = metric.nearest(row, &self.centres, p, |k, squared| to[k] = squared.sqrt());
            cluster.push(i32::try_from(nearest).unwrap_or(i32::MAX));
        });
        Scores::Clusters { cluster, distances }
    }

    /// Whether this can score rows of `features` columns.
    ///
    /// # Errors
    /// State: sizes that do not fit each other or `features`, or a number that cannot be.
    pub fn check(&self, features: usize) -> Result<()> {
        let k = self.clusters();
        let of_weights = self.column_weights.len();
        if k == 0 || k > CLUSTERS_MAX || self.centres.len() != k.saturating_mul(features) || (of_weights != 0 && of_weights != features) {
            let given = self.centres.len();
            return Err(Error::state(format!("the k-means model has {given} coordinates for {k} centres of {features} features")));
        }
        let finite = self.centres.iter().chain(&self.counts).chain([&self.inertia]).all(|v| v.is_finite());
        if !finite || !self.column_weights.iter().all(|w| w.is_finite() && *w >= 0.0) {
            return Err(Error::state("the k-means model has a number that is not finite, or a column of negative weight"));
        }
        Ok(())
    }
}

/// What far and near mean.
#[derive(Debug, Clone)]
struct Metric {
    /// Empty: 1 each.
    column_weights: Vec<f64>,
}

impl Metric {
    fn new(features: usize, column_weights: &[f64]) -> Result<Self> {
        let fits = column_weights.is_empty() || column_weights.len() == features;
        if !fits || !column_weights.iter().all(|w| w.is_finite() && *w >= 0.0) {
            return Err(Error::user(format!("the column weights must be {features} numbers of at least 0")));
        }
        Ok(Self { column_weights: column_weights.to_vec() })
    }

    fn squared(&self, a: &[f64], b: &[f64]) -> f64 {
        if self.column_weights.is_empty() { squared_distance(a, b) } else { weighted_squared_distance(a, b, &self.column_weights) }
    }

    fn weight(&self, column: usize) -> f64 {
        self.column_weights.get(column).copied().unwrap_or(1.0)
    }

    /// The centre of `centres` (of `p` columns each) nearest to `row`, the first one where several are, and its
    /// squared distance; `each` sees the squared distance to every centre.
    fn nearest(&self, row: &[f64], centres: &[f64], p: usize, mut each: impl FnMut(usize, f64)) -> (usize, f64) {
        let mut nearest = (0, f64::INFINITY);
        for k in 0..centres.len().checked_div(p).unwrap_or(0) {
            let squared = self.squared(row, &centres[k * p..(k + 1) * p]);
            each(k, squared);
            if squared < nearest.1 {
                nearest = (k, squared);
            }
        }
        nearest
    }
}

#[cfg(test)]
mod tests;
