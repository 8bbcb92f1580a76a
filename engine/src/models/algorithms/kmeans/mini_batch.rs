//! k-means by small random batches: each batch moves each centre towards the mean of its rows there, by the share
//! that they have among all rows it has seen. It ends when batches stop getting nearer on average.
//!
//! Why ours: linfa-clustering's takes no row weights, never revives a centre that no row is near, and took 2 to 9
//! times the CPU time for about the same inertia. Batches are drawn from a random sample of the rows, so the order of
//! the rows (mostly time) does not show, and a file larger than memory is read twice in all.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, s};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::lloyd::Products;
use super::seeding::{chance, plus_plus, sample};
use super::{KMeansOptions, Metric};
use crate::error::Result;
use crate::models::algorithms::rows::add_scaled;
use crate::models::algorithms::{FitContext, Step};
use crate::models::chunks::Chunks;

/// Batches in the sample that batches are drawn from.
const SAMPLE_BATCHES: usize = 24;
/// Batches by whose inertia starts are compared.
const JUDGE_BATCHES: usize = 8;
/// Batches without an improvement of the average before the end; and, at the start, before a centre that no row is
/// near moves to the farthest one.
const PATIENCE: usize = 6;

/// The centres after the last batch.
pub(super) fn centres(
    chunks: &Chunks,
    options: &KMeansOptions,
    batch_rows: usize,
    metric: &Metric,
    ctx: &FitContext<'_>,
) -> Result<Array2<f64>> {
    let mut luck = chance(ctx.seed, 0);
    let clusters = options.clusters;
    let drawn = sample(chunks, (SAMPLE_BATCHES * batch_rows).max(3 * clusters), &mut luck)?;
    let (x, w) = shuffled(drawn, &mut luck);
    let rows = w.len();
    let batch_rows = batch_rows.min(rows);

    // Each start is drawn from a few rows of its own; more rows judge it.
    let judges = rows.min(JUDGE_BATCHES * batch_rows);
    let start_rows = (2 * batch_rows).max(3 * clusters).min(rows);
    let mut best: Option<(f64, Array2<f64>)> = None;
    for start in 0..options.starts {
        let of = window(start * start_rows, start_rows, rows);
        let start = plus_plus(x.slice(s![of.clone(), ..]), &w[of], clusters, metric, &mut luck);
        let inertia = Batch::of(x.slice(s![..judges, ..]), &w[..judges], &start, metric).inertia;
        if best.as_ref().is_none_or(|best| inertia < best.0) {
            best = Some((inertia, start));
        }
    }
    let (_, mut centres) = best.expect("there is at least one start");

    let mut counts = vec![0.0; clusters];
    let share = (2.0 * batch_rows as f64 / (rows as f64 + 1.0)).min(1.0);
    let (mut average, mut lowest, mut waited) = (None, f64::INFINITY, 0);
    let batches_max = (options.max_iterations * rows / batch_rows).max(1);
    for step in 1..=batches_max {
        let of = window((step - 1) * batch_rows, batch_rows, rows);
        let batch = Batch::of(x.slice(s![of.clone(), ..]), &w[of.clone()], &centres, metric);
        for (k, mut centre) in centres.rows_mut().into_iter().enumerate() {
            let weight = batch.weights[k];
            if weight > 0.0 {
                counts[k] += weight;
                let centre = centre.as_slice_mut().expect("row-major");
                let kept = 1.0 - weight / counts[k];
                centre.iter_mut().for_each(|c| *c *= kept);
                add_scaled(centre, 1.0 / counts[k], batch.sums.row(k).as_slice().expect("row-major"));
            }
        }
        if let (true, Some(k)) = (step >= PATIENCE, counts.iter().position(|c| *c == 0.0)) {
            centres.row_mut(k).assign(&x.row(of.start + batch.farthest));
        }
        let mean = batch.inertia / batch.weight;
        let now = average.map_or(mean, |average: f64| average * (1.0 - share) + mean * share);
        average = Some(now);
        // The first batch judges the start, not what was learnt from it.
        if step > 1 && now < lowest * (1.0 - options.tolerance) {
            (lowest, waited) = (now, 0);
        } else {
            waited += 1;
        }
        (ctx.progress)(Step { unit: "batch", done: step, of: batches_max, loss: Some(now) });
        if waited > PATIENCE {
            break;
        }
    }
    Ok(centres)
}

/// How the rows of a batch fall to centres.
struct Batch {
    sums: Array2<f64>,
    weights: Vec<f64>,
    weight: f64,
    inertia: f64,
    /// The row that is farthest from its centre.
    farthest: usize,
}

impl Batch {
    fn of(rows: ArrayView2<'_, f64>, w: &[f64], centres: &Array2<f64>, metric: &Metric) -> Self {
        let (k, p) = centres.dim();
        let mut batch = Self { sums: Array2::zeros((k, p)), weights: vec![0.0; k], weight: 0.0, inertia: 0.0, farthest: 0 };
        let rows_flat = rows.as_slice().expect("row-major");
        let centres_flat = centres.as_slice().expect("row-major");
        let sums = batch.sums.as_slice_mut().expect("row-major");
        let mut away = 0.0;
        Products::new(centres, metric).nearest(rows, |i, k, _| {
            let (row, of_centre) = (&rows_flat[i * p..(i + 1) * p], k * p..(k + 1) * p);
            let squared = metric.squared(row, &centres_flat[of_centre.clone()]);
            if squared > away {
                (away, batch.farthest) = (squared, i);
            }
            batch.inertia += w[i] * squared;
            add_scaled(&mut sums[of_centre], w[i], row);
            batch.weights[k] += w[i];
            batch.weight += w[i];
        });
        batch
    }
}

/// The rows and their weights in random order.
fn shuffled((x, w): (Array2<f64>, Vec<f64>), luck: &mut ChaCha8Rng) -> (Array2<f64>, Vec<f64>) {
    let (rows, p) = x.dim();
    let mut order: Vec<usize> = (0..rows).collect();
    for i in (1..rows).rev() {
        order.swap(i, luck.random_range(0..=i));
    }
    let flat = x.as_slice().expect("row-major");
    let mut values = Vec::with_capacity(flat.len());
    order.iter().for_each(|i| values.extend_from_slice(&flat[i * p..(i + 1) * p]));
    (Array2::from_shape_vec((rows, p), values).expect("as many values"), order.iter().map(|i| w[*i]).collect())
}

/// `n` of `rows` places from `at` on, over and over; where fewer are left to the end, the last `n`.
fn window(at: usize, n: usize, rows: usize) -> Range<usize> {
    // Whole windows only: the last one of a round overlaps the one before it.
    let windows = rows.div_ceil(n);
    let first = (at / n % windows * n).min(rows - n);
    first..first + n
}
