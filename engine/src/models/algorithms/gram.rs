//! The weighted second moments of all columns and the label, in one pass, and the least squares solved from them.
//!
//! Each chunk is centred on its own means before its products are taken, and two chunks are merged with the term
//! of their means' difference (Chan, Golub, LeVeque), so a column that is large beside its spread loses no digits.
//! The pass is the whole cost in rows: everything after it works on a matrix of columns × columns.

use ndarray::{Array2, s};

use super::rows::{add_scaled, dot};
use crate::error::{Error, Result};
use crate::models::chunks::{Chunk, Chunks};

/// A pivot of the unit-diagonal Gram matrix below this is a column that the ones before it already explain.
const DEPENDENT: f64 = 1e-11;

/// Weighted moments of `columns` features and, last, the label.
#[derive(Debug, Clone)]
pub(super) struct Gram {
    /// Σ w.
    pub weight: f64,
    /// Weighted means: features, then the label.
    pub mean: Vec<f64>,
    /// Σ w (aᵢ − mean)(aⱼ − mean), symmetric, the label in the last row and column.
    pub moments: Array2<f64>,
}

impl Gram {
    /// One pass over all rows.
    ///
    /// # Errors
    /// User: no row, or a value that is not finite; External: the rows cannot be read.
    pub fn of(chunks: &Chunks, threads: usize) -> Result<Self> {
        let columns = chunks.features() + 1;
        let nothing = Self { weight: 0.0, mean: vec![0.0; columns], moments: Array2::zeros((columns, columns)) };
        let gram = chunks.fold(threads, nothing, |_, chunk| Self::of_chunk(chunk), Self::merge)?;
        if chunks.is_empty() {
            return Err(Error::user("there are no rows to learn from"));
        }
        if !gram.moments.iter().all(|v| v.is_finite()) {
            let e = Error::user("the training rows hold a value that is not finite, or is too large to be squared");
            return Err(e.help("filter such rows out, or divide the column"));
        }
        Ok(gram)
    }

    /// Features.
    pub fn features(&self) -> usize {
        self.mean.len() - 1
    }

    /// Σ w (y − mean)².
    pub fn label_moment(&self) -> f64 {
        let p = self.features();
        self.moments[[p, p]]
    }

    fn of_chunk(chunk: &Chunk) -> Self {
        let (rows, p) = chunk.x.dim();
        let weight: f64 = chunk.w.iter().sum();
        let mut mean = vec![0.0; p + 1];
        for (i, row) in chunk.x.rows().into_iter().enumerate() {
            add_scaled(&mut mean, chunk.w[i], row.as_slice().expect("chunks are row-major"));
            mean[p] += chunk.w[i] * chunk.y[i];
        }
        mean.iter_mut().for_each(|m| *m /= weight);
        let mut centred = Vec::with_capacity(rows * (p + 1));
        for (i, row) in chunk.x.rows().into_iter().enumerate() {
            let root = if chunk.w[i] == 1.0 { 1.0 } else { chunk.w[i].sqrt() };
            centred.extend(row.iter().zip(&mean).map(|(x, m)| (x - m) * root));
            centred.push((chunk.y[i] - mean[p]) * root);
        }
        let centred = Array2::from_shape_vec((rows, p + 1), centred).expect("every row has the features and the label");
        Self { weight, mean, moments: centred.t().dot(&centred) }
    }

    fn merge(&mut self, other: Self) {
        let weight = self.weight + other.weight;
        let between = self.weight * other.weight / weight;
        let apart: Vec<f64> = other.mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        self.moments += &other.moments;
        for (mut row, a) in self.moments.rows_mut().into_iter().zip(&apart) {
            add_scaled(row.as_slice_mut().expect("row-major"), between * a, &apart);
        }
        add_scaled(&mut self.mean, other.weight / weight, &apart);
        self.weight = weight;
    }

    /// Whether column `j` is one value throughout, up to rounding.
    pub fn is_constant(&self, j: usize) -> bool {
        let noise = 64.0 * f64::EPSILON * self.mean[j].abs();
        self.moments[[j, j]] <= self.weight * noise * noise
    }

    /// The coefficients that minimise Σ w (y − b·x)² + `l2`·Σ b², intercept apart. Columns that others explain share
    /// their coefficient with them: of all solutions, the one of least norm in units of the columns' deviations.
    pub fn solve(&self, l2: f64) -> Vec<f64> {
        let p = self.features();
        // Scaled to a unit diagonal, so that what counts as dependent does not hang on a column's unit.
        let scale: Vec<f64> = (0..p).map(|j| if self.is_constant(j) { 0.0 } else { 1.0 / (self.moments[[j, j]] + l2).sqrt() }).collect();
        let unit = Array2::from_shape_fn((p, p), |(i, j)| {
            if i == j { f64::from(u8::from(scale[i] > 0.0)) } else { self.moments[[i, j]] * scale[i] * scale[j] }
        });
        let right: Vec<f64> = (0..p).map(|j| self.moments[[j, p]] * scale[j]).collect();
        let mut b = least_norm(unit, &right);
        b.iter_mut().zip(&scale).for_each(|(b, s)| *b *= s);
        b
    }
}

/// The solution of least norm of `a·b = right` for a symmetric `a` of unit diagonal (0 where a column is void) and
/// any rank, by Cholesky with pivoting: the leading columns give one solution, which is then freed of its part in
/// the null space. The matrix of that last step has no eigenvalue below 1, so it adds no ill-conditioning.
pub(super) fn least_norm(mut a: Array2<f64>, right: &[f64]) -> Vec<f64> {
    let p = right.len();
    let mut order: Vec<usize> = (0..p).collect();
    let mut rank = 0;
    while rank < p {
        let pivot = (rank..p).max_by(|i, j| a[[*i, *i]].total_cmp(&a[[*j, *j]]).then(j.cmp(i))).expect("a column is left");
        if a[[pivot, pivot]] <= DEPENDENT {
            break;
        }
        swap(&mut a, rank, pivot);
        order.swap(rank, pivot);
        let root = a[[rank, rank]].sqrt();
        a[[rank, rank]] = root;
        for i in rank + 1..p {
            a[[i, rank]] /= root;
        }
        let column: Vec<f64> = (rank + 1..p).map(|i| a[[i, rank]]).collect();
        for i in rank + 1..p {
            let by = -column[i - rank - 1];
            let mut row = a.slice_mut(s![i, rank + 1..=i]);
            add_scaled(row.as_slice_mut().expect("part of a row"), by, &column);
        }
        rank += 1;
    }
    let (r, free) = (rank, p - rank);
    let lower = a.slice(s![..r, ..r]).to_owned();
    let mut lead: Vec<f64> = order[..r].iter().map(|j| right[*j]).collect();
    forward(&lower, &mut lead);
    backward(&lower, &mut lead);
    let mut b = vec![0.0; p];
    let mut rest = vec![0.0; free];
    if free > 0 && r > 0 {
        // Each row: what the leading columns make of one dependent column.
        let made_of: Vec<Vec<f64>> = (0..free)
            .map(|k| {
                let mut row = a.slice(s![r + k, ..r]).to_vec();
                backward(&lower, &mut row);
                row
            })
            .collect();
        let mut normal = Array2::from_shape_fn((free, free), |(i, j)| dot(&made_of[i], &made_of[j]) + f64::from(u8::from(i == j)));
        rest = made_of.iter().map(|row| dot(row, &lead)).collect();
        cholesky(&mut normal);
        forward(&normal, &mut rest);
        backward(&normal, &mut rest);
        for (row, z) in made_of.iter().zip(&rest) {
            add_scaled(&mut lead, -z, row);
        }
    }
    for (j, value) in order.iter().zip(lead.iter().chain(&rest)) {
        b[*j] = *value;
    }
    b
}

/// The lower factor of a positive definite matrix, in place of its lower half.
pub(super) fn cholesky(a: &mut Array2<f64>) {
    for j in 0..a.nrows() {
        for i in j..a.nrows() {
            let (row_i, row_j) = (a.slice(s![i, ..j]).to_vec(), a.slice(s![j, ..j]).to_vec());
            let left = a[[i, j]] - dot(&row_i, &row_j);
            a[[i, j]] = if i == j { left.max(f64::MIN_POSITIVE).sqrt() } else { left / a[[j, j]] };
        }
    }
}

/// `b` becomes the solution of L·x = b.
pub(super) fn forward(lower: &Array2<f64>, b: &mut [f64]) {
    for i in 0..b.len() {
        let row = lower.row(i);
        let row = row.as_slice().expect("row-major");
        b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
    }
}

/// `b` becomes the solution of Lᵀ·x = b.
pub(super) fn backward(lower: &Array2<f64>, b: &mut [f64]) {
    for i in (0..b.len()).rev() {
        let row = lower.row(i);
        let row = row.as_slice().expect("row-major");
        b[i] /= row[i];
        let (before, from) = b.split_at_mut(i);
        add_scaled(before, -from[0], row);
    }
}

/// Exchanges rows and columns `i` < `j` of a matrix whose lower half is in use, with the finished columns left of `i`.
fn swap(a: &mut Array2<f64>, i: usize, j: usize) {
    if i == j {
        return;
    }
    for k in 0..i {
        a.swap([i, k], [j, k]);
    }
    a.swap([i, i], [j, j]);
    for k in i + 1..j {
        a.swap([k, i], [j, k]);
    }
    for k in j + 1..a.nrows() {
        a.swap([k, i], [k, j]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_solution_of_least_norm_is_found_at_any_rank() {
        // Columns c0, c1 free, c2 = c0 twice over, c3 = (c0 + c1) of unit length, c4 void.
        let h = 0.5f64.sqrt();
        let vectors = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [h, h], [0.0, 0.0]];
        let a = Array2::from_shape_fn((5, 5), |(i, j)| vectors[i][0] * vectors[j][0] + vectors[i][1] * vectors[j][1]);
        let right: Vec<f64> = vectors.iter().map(|v| 3.0 * v[0] - 2.0 * v[1]).collect();
        let b = least_norm(a.clone(), &right);
        for (i, r) in right.iter().enumerate() {
            let made: f64 = (0..5).map(|j| a[[i, j]] * b[j]).sum();
            assert!((made - r).abs() < 1e-12, "row {i}: {made} for {r}");
        }
        // Least norm: b = Vᵀ(V Vᵀ)⁻¹ t with V Vᵀ = [[2.5, .5], [.5, 1.5]] and t = (3, −2).
        let (u, v) = ((3.0 * 1.5 + 2.0 * 0.5) / 3.5, (-2.0 * 2.5 - 3.0 * 0.5) / 3.5);
        for (b, x) in b.iter().zip(vectors) {
            assert!((b - (u * x[0] + v * x[1])).abs() < 1e-12, "{b}");
        }
    }
}
