//! Lloyd's rounds: each row to its nearest centre, each centre to the mean of its rows, both in one pass.
//!
//! Nearness inside a round comes from a matrix product of a block of rows with all centres; blocks are cut by the
//! chunk, so threads do not show. The last assignment, which is what the state counts, is by the distances that
//! scoring uses.

use ndarray::{Array2, ArrayView2, Axis, s};

use super::seeding::{as_chunks, chance, plus_plus, sample};
use super::{KMeansOptions, Metric};
use crate::error::Result;
use crate::models::algorithms::moments::by_class;
use crate::models::algorithms::rows::{add_scaled, dot};
use crate::models::algorithms::{FitContext, Step};
use crate::models::chunks::{Chunk, Chunks, on_threads};

/// Rows among which starts compete, at least; and for each cluster, where that is more.
const SAMPLE_ROWS: usize = 16_384;
const SAMPLE_ROWS_PER_CLUSTER: usize = 256;
/// Rows of a matrix product: its answers stay in the nearest cache.
const BLOCK_ROWS: usize = 256;

/// Rounds after which the starts are compared, and the best third goes on.
const FIRST_ROUNDS: usize = 8;

/// How rows fell to centres.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fallen {
    pub counts: Vec<f64>,
    pub inertia: f64,
}

/// The centres of the best start, refined on all rows.
pub(super) fn centres(chunks: &Chunks, options: &KMeansOptions, metric: &Metric, ctx: &FitContext<'_>) -> Result<Array2<f64>> {
    let sample_rows = SAMPLE_ROWS.max(SAMPLE_ROWS_PER_CLUSTER * options.clusters);
    let (x, w) = sample(chunks, sample_rows, &mut chance(ctx.seed, 0))?;
    let drawn;
    let among = if w.len() == chunks.rows() {
        chunks
    } else {
        drawn = as_chunks(&x, &w)?;
        &drawn
    };
    let limit = shift_limit(among, options, metric, ctx.threads)?;
    let starts: Vec<u64> = (1..=options.starts as u64).collect();
    let first_rounds = FIRST_ROUNDS.min(options.max_iterations);
    let started = on_threads(ctx.threads, &starts, |_, stream| {
        let start = plus_plus(x.view(), &w, options.clusters, metric, &mut chance(ctx.seed, *stream));
        let tried = settled(among, start, first_rounds, limit, metric)?;
        (ctx.progress)(Step { unit: "start", done: *stream as usize, of: starts.len(), loss: Some(tried.0) });
        Ok(tried)
    });
    let mut started = started.into_iter().collect::<Result<Vec<_>>>()?;
    // Stable: of equals, the earlier start. A start that is behind after a few rounds hardly ever wins.
    started.sort_by(|a, b| a.0.total_cmp(&b.0));
    started.truncate(options.starts.div_ceil(3));
    let rounds = options.max_iterations - first_rounds;
    let ended = on_threads(ctx.threads, &started, |_, (_, centres)| settled(among, centres.clone(), rounds, limit, metric));
    let ended = ended.into_iter().collect::<Result<Vec<_>>>()?;
    let best = ended.into_iter().reduce(|best, next| if next.0 < best.0 { next } else { best });
    let (_, mut centres) = best.expect("there is at least one start");
    if among.rows() < chunks.rows() {
        let each = |done| (ctx.progress)(Step { unit: "pass", done, of: options.max_iterations, loss: None });
        refine(chunks, &mut centres, options.max_iterations, limit, metric, ctx.threads, each)?;
    }
    Ok(centres)
}

/// The rows' weights by nearest centre, and how far away they are.
pub(super) fn assign(chunks: &Chunks, centres: &Array2<f64>, metric: &Metric, threads: usize) -> Result<Fallen> {
    let (k, p) = centres.dim();
    let flat = centres.as_slice().expect("row-major");
    let products = Products::new(centres, metric);
    let norm_max = products.norms.iter().copied().fold(0.0, f64::max);
    let map = |_, chunk: &Chunk| {
        let mut fallen = Fallen { counts: vec![0.0; k], inertia: 0.0 };
        let x = chunk.x.as_slice().expect("chunks are row-major");
        products.nearest(chunk.x.view(), |i, mut nearest, lead| {
            let row = &x[i * p..(i + 1) * p];
            let mut squared = metric.squared(row, &flat[nearest * p..(nearest + 1) * p]);
            // Where rounding could have decided, the distances that scoring uses do. (Or it is no number.)
            if lead.is_nan() || lead <= 1e-11 * (squared + norm_max) {
                (nearest, squared) = metric.nearest(row, flat, p, |_, _| ());
            }
            fallen.counts[nearest] += chunk.w[i];
            fallen.inertia += chunk.w[i] * squared;
        });
        fallen
    };
    chunks.fold(threads, Fallen { counts: vec![0.0; k], inertia: 0.0 }, map, |all, part| {
        add_scaled(&mut all.counts, 1.0, &part.counts);
        all.inertia += part.inertia;
    })
}

/// `centres` after at most `rounds_max` rounds, and their inertia.
fn settled(chunks: &Chunks, mut centres: Array2<f64>, rounds_max: usize, limit: f64, metric: &Metric) -> Result<(f64, Array2<f64>)> {
    refine(chunks, &mut centres, rounds_max, limit, metric, 1, |_| ())?;
    Ok((assign(chunks, &centres, metric, 1)?.inertia, centres))
}

/// Moves `centres` round by round until they move by less than `limit`, in squares, or `rounds_max` are done.
fn refine(
    chunks: &Chunks,
    centres: &mut Array2<f64>,
    rounds_max: usize,
    limit: f64,
    metric: &Metric,
    threads: usize,
    each: impl Fn(usize),
) -> Result<()> {
    for round in 1..=rounds_max {
        let mut sums = round_sums(chunks, centres, metric, threads)?;
        if sums.weights.contains(&0.0) {
            refill(chunks, centres, &mut sums, metric, threads)?;
        }
        let mut moved = 0.0;
        for (k, mut centre) in centres.rows_mut().into_iter().enumerate() {
            if sums.weights[k] > 0.0 {
                for (j, value) in centre.iter_mut().enumerate() {
                    let to = sums.of[[k, j]] / sums.weights[k];
                    moved += metric.weight(j) * (to - *value) * (to - *value);
                    *value = to;
                }
            }
        }
        each(round);
        // Not a number: the rows are not finite, which the caller reports.
        if moved.is_nan() || moved <= limit {
            break;
        }
    }
    Ok(())
}

/// For each cluster, Σ w·x and Σ w of its rows.
struct Sums {
    of: Array2<f64>,
    weights: Vec<f64>,
}

/// The products that give the nearest centre: of all |x − c|² = |x|² − 2·x·c + |c|², the first part is common.
pub(super) struct Products {
    /// Features × clusters: −2·c.
    by: Array2<f64>,
    /// |c|².
    norms: Vec<f64>,
}

impl Products {
    pub fn new(centres: &Array2<f64>, metric: &Metric) -> Self {
        let (k, p) = centres.dim();
        let by = Array2::from_shape_fn((p, k), |(j, k)| -2.0 * metric.weight(j) * centres[[k, j]]);
        let norms = centres.rows().into_iter().zip(by.columns()).map(|(c, by)| -0.5 * dot(&c.to_vec(), &by.to_vec()));
        Self { norms: norms.collect(), by }
    }

    /// Calls `each` with every row's number, its nearest centre, and by how much (in squares) that one is nearer than
    /// the next.
    pub fn nearest(&self, x: ArrayView2<'_, f64>, mut each: impl FnMut(usize, usize, f64)) {
        let k = self.norms.len();
        for first in (0..x.nrows()).step_by(BLOCK_ROWS) {
            let block = x.slice(s![first..x.nrows().min(first + BLOCK_ROWS), ..]);
            let products = block.dot(&self.by);
            for (i, row) in products.as_slice().expect("row-major").chunks_exact(k).enumerate() {
                let (mut nearest, mut least, mut second) = (0, f64::INFINITY, f64::INFINITY);
                for (k, (product, norm)) in row.iter().zip(&self.norms).enumerate() {
                    let near = product + norm;
                    if near < least {
                        (nearest, second, least) = (k, least, near);
                    } else if near < second {
                        second = near;
                    }
                }
                each(first + i, nearest, second - least);
            }
        }
    }
}

fn round_sums(chunks: &Chunks, centres: &Array2<f64>, metric: &Metric, threads: usize) -> Result<Sums> {
    let products = Products::new(centres, metric);
    let none = || Sums { of: Array2::zeros(centres.dim()), weights: vec![0.0; centres.nrows()] };
    let p = centres.ncols();
    let map = |_, chunk: &Chunk| {
        let mut sums = none();
        let x = chunk.x.as_slice().expect("chunks are row-major");
        let of = sums.of.as_slice_mut().expect("row-major");
        products.nearest(chunk.x.view(), |i, k, _| {
            add_scaled(&mut of[k * p..(k + 1) * p], chunk.w[i], &x[i * p..(i + 1) * p]);
            sums.weights[k] += chunk.w[i];
        });
        sums
    };
    chunks.fold(threads, none(), map, |all, part| {
        all.of += &part.of;
        add_scaled(&mut all.weights, 1.0, &part.weights);
    })
}

/// Gives each cluster without rows the row that is farthest from its own centre, and takes it from that one.
fn refill(chunks: &Chunks, centres: &Array2<f64>, sums: &mut Sums, metric: &Metric, threads: usize) -> Result<()> {
    /// A row far out: squared distance, cluster, weight, values.
    type Far = (f64, usize, f64, Vec<f64>);
    let empty: Vec<usize> = (0..sums.weights.len()).filter(|k| sums.weights[*k] == 0.0).collect();
    let products = Products::new(centres, metric);
    // The farthest first; of equals, the earlier row.
    let keep = |far: &mut Vec<Far>| {
        far.sort_by(|a, b| b.0.total_cmp(&a.0));
        far.truncate(empty.len());
    };
    let map = |_, chunk: &Chunk| {
        let mut far: Vec<Far> = vec![];
        products.nearest(chunk.x.view(), |i, k, _| {
            let (row, centre) = (chunk.x.row(i), centres.row(k));
            let squared = metric.squared(row.as_slice().expect("row-major"), centre.as_slice().expect("row-major"));
            if far.len() < empty.len() || far.last().is_some_and(|last| squared > last.0) {
                far.push((squared, k, chunk.w[i], row.to_vec()));
                keep(&mut far);
            }
        });
        far
    };
    let far = chunks.fold(threads, vec![], map, |all: &mut Vec<Far>, part| {
        all.extend(part);
        keep(all);
    })?;
    for (k, (squared, from, weight, row)) in empty.into_iter().zip(far) {
        // Fewer different rows than clusters, or the last row of its cluster: nothing is won by moving it.
        if squared == 0.0 || sums.weights[from] <= weight {
            continue;
        }
        add_scaled(sums.of.index_axis_mut(Axis(0), from).as_slice_mut().expect("row-major"), -weight, &row);
        sums.weights[from] -= weight;
        add_scaled(sums.of.index_axis_mut(Axis(0), k).as_slice_mut().expect("row-major"), weight, &row);
        sums.weights[k] = weight;
    }
    Ok(())
}

/// The move below which rounds end: a share of the columns' mean variance.
fn shift_limit(chunks: &Chunks, options: &KMeansOptions, metric: &Metric, threads: usize) -> Result<f64> {
    let moments = by_class(chunks, 1, threads)?;
    let variances = moments[0].variances().enumerate().map(|(j, v)| metric.weight(j) * v).sum::<f64>();
    Ok(options.tolerance * variances / chunks.features().max(1) as f64)
}
