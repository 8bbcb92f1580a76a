//! All pairs of rows as bits, by matrix products: for rows of many columns, where a tree would visit everything.

use ndarray::{Array2, s};

use super::Neighbours;
use crate::models::algorithms::rows::{dot, squared_distance};
use crate::models::chunks::on_threads;

/// Rows and columns of one product.
const BLOCK: usize = 256;
const BITS: usize = u64::BITS as usize;

/// Which rows are within reach of which.
pub(super) struct Wide {
    rows: usize,
    /// Words of one row's bits.
    words: usize,
    near: Vec<u64>,
    /// Rows without a label.
    left: Vec<u64>,
    w: Vec<f64>,
}

impl Wide {
    /// The pairs among rows of `features` columns within `reach` (squared).
    pub fn new(mut x: Vec<f64>, w: &[f64], features: usize, reach: f64, threads: usize) -> Self {
        let rows = w.len();
        // Centred, so that the products lose few digits.
        let mut mean = vec![0.0; features];
        x.chunks_exact(features).for_each(|row| row.iter().zip(&mut mean).for_each(|(x, m)| *m += x));
        for row in x.chunks_exact_mut(features) {
            row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m / rows as f64);
        }
        let norms: Vec<f64> = x.chunks_exact(features).map(|row| dot(row, row)).collect();
        let x = Array2::from_shape_vec((rows, features), x).expect("each row has the features");
        let words = rows.div_ceil(BITS);
        let mut all = Self { rows, words, near: vec![0; rows * words], left: vec![u64::MAX; words], w: w.to_vec() };

        // Only blocks on and above the diagonal: nearness is mutual.
        let starts: Vec<usize> = (0..rows).step_by(BLOCK).collect();
        for (b, first) in starts.iter().enumerate() {
            let end = rows.min(first + BLOCK);
            let block = x.slice(s![*first..end, ..]);
            let pairs = on_threads(threads, &starts[b..], |_, from| {
                let to = rows.min(from + BLOCK);
                let products = block.dot(&x.slice(s![*from..to, ..]).t());
                let mut found: Vec<(u32, u32)> = vec![];
                for (i, products) in products.as_slice().expect("row-major").chunks_exact(to - from).enumerate() {
                    let i = first + i;
                    for (j, product) in (*from..to).zip(products) {
                        let sizes = norms[i] + norms[j];
                        let over = sizes - 2.0 * product - reach;
                        // Where rounding could decide, the distance itself does.
                        let doubt = 1e-11 * (sizes + reach);
                        if over <= doubt && (over < -doubt || squared_between(&x, i, j) <= reach) {
                            found.push((i as u32, j as u32));
                        }
                    }
                }
                found
            });
            for (i, j) in pairs.into_iter().flatten() {
                all.set(i as usize, j as usize);
                all.set(j as usize, i as usize);
            }
        }
        all
    }

    fn set(&mut self, i: usize, j: usize) {
        self.near[i * self.words + j / BITS] |= 1 << (j % BITS);
    }
}

impl Neighbours for Wide {
    fn cores(&self, enough: f64, _threads: usize) -> Vec<bool> {
        let same = self.w.iter().all(|w| *w == self.w[0]);
        let of_row = |row: &[u64]| {
            if same {
                return self.w[0] * row.iter().map(|word| f64::from(word.count_ones())).sum::<f64>();
            }
            bits(row.iter().copied()).map(|j| self.w[j]).sum()
        };
        (0..self.rows).map(|i| of_row(&self.near[i * self.words..(i + 1) * self.words]) >= enough).collect()
    }

    fn remove(&mut self, row: usize) {
        self.left[row / BITS] &= !(1 << (row % BITS));
    }

    fn take(&mut self, row: usize, found: &mut Vec<usize>) {
        let near = &self.near[row * self.words..(row + 1) * self.words];
        found.extend(bits(near.iter().zip(&self.left).map(|(near, left)| near & left)));
        self.left.iter_mut().zip(near).for_each(|(left, near)| *left &= !near);
    }
}

fn squared_between(x: &Array2<f64>, i: usize, j: usize) -> f64 {
    let (a, b) = (x.row(i), x.row(j));
    squared_distance(a.as_slice().expect("row-major"), b.as_slice().expect("row-major"))
}

/// The places of the bits that are set.
fn bits(words: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    words.enumerate().flat_map(|(at, mut word)| {
        std::iter::from_fn(move || {
            let bit = word.trailing_zeros() as usize;
            (word != 0).then(|| {
                word &= word - 1;
                at * BITS + bit
            })
        })
    })
}
