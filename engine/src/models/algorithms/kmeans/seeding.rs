//! Random samples of rows, and k-means++ starts among them.

use ndarray::{Array2, ArrayView2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Metric;
use crate::error::Result;
use crate::models::chunks::{Builder, Chunks};

/// A source of chance for one purpose: `stream` keeps the purposes apart.
pub(super) fn chance(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    chance.set_stream(stream);
    chance
}

/// `rows` rows of `chunks`, each as likely as any other, in the order in which they stand; all where there are fewer.
pub(super) fn sample(chunks: &Chunks, rows: usize, chance: &mut ChaCha8Rng) -> Result<(Array2<f64>, Vec<f64>)> {
    let mut wanted = rows.min(chunks.rows());
    let mut left = chunks.rows();
    let (mut x, mut w) = (Vec::with_capacity(wanted * chunks.features()), Vec::with_capacity(wanted));
    chunks.for_each(|_, chunk| {
        for (row, weight) in chunk.x.rows().into_iter().zip(&chunk.w) {
            if chance.random::<f64>() * (left as f64) < wanted as f64 {
                x.extend_from_slice(row.as_slice().expect("chunks are row-major"));
                w.push(*weight);
                wanted -= 1;
            }
            left -= 1;
        }
        Ok(())
    })?;
    let x = Array2::from_shape_vec((w.len(), chunks.features()), x).expect("each row has the features");
    Ok((x, w))
}

/// Rows as chunks of their own.
pub(super) fn as_chunks(x: &Array2<f64>, w: &[f64]) -> Result<Chunks> {
    let mut builder = Builder::new(x.ncols(), false, usize::MAX);
    builder.push(x, &[], w)?;
    builder.finish()
}

/// `clusters` rows of `x`, each drawn by its squared distance to those before it; of a few draws the one that helps
/// most is kept (greedy k-means++, as in scikit-learn).
pub(super) fn plus_plus(x: ArrayView2<'_, f64>, w: &[f64], clusters: usize, metric: &Metric, chance: &mut ChaCha8Rng) -> Array2<f64> {
    let (rows, p) = x.dim();
    let flat = x.as_slice().expect("row-major");
    let row = |i: usize| &flat[i * p..(i + 1) * p];
    let mut centres = Array2::zeros((clusters, p));
    let draws = 2 + (clusters as f64).ln() as usize;
    let mut chosen = draw(w, w.iter().sum::<f64>() * chance.random::<f64>());
    // Of each row, the weighted squared distance to its nearest centre so far.
    let mut away: Vec<f64> = vec![f64::INFINITY; rows];
    let mut best = vec![0.0; rows];
    let mut trial = vec![0.0; rows];
    for k in 0..clusters {
        if k > 0 {
            let total: f64 = away.iter().sum();
            let mut best_total = f64::INFINITY;
            for _ in 0..draws {
                let candidate = draw(&away, total * chance.random::<f64>());
                let mut trial_total = 0.0;
                for i in 0..rows {
                    trial[i] = away[i].min(w[i] * metric.squared(row(i), row(candidate)));
                    trial_total += trial[i];
                }
                if trial_total < best_total {
                    (best_total, chosen) = (trial_total, candidate);
                    std::mem::swap(&mut best, &mut trial);
                }
            }
            std::mem::swap(&mut away, &mut best);
        } else {
            (0..rows).for_each(|i| away[i] = w[i] * metric.squared(row(i), row(chosen)));
        }
        centres.row_mut(k).assign(&x.row(chosen));
    }
    centres
}

/// The first place at which the running sum of `shares` exceeds `at`.
fn draw(shares: &[f64], at: f64) -> usize {
    let mut sum = 0.0;
    let found = shares.iter().position(|share| {
        sum += share;
        sum > at
    });
    found.unwrap_or(shares.len() - 1)
}
