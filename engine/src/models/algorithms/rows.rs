//! Rows as slices, and sums over a row in one fixed order.
//!
//! A score must be the same bits alone and in a batch, so it may not come from a matrix product whose order of
//! summation depends on how many rows there are. [`dot`] and [`squared_distance`] add in eight lanes that are
//! fixed by the row's length alone; the compiler keeps the lanes in vector registers.

use ndarray::{ArrayView1, ArrayView2};

const LANES: usize = 8;

/// Calls `each` with every row of `x` and its number, as a slice whatever the layout of `x`.
pub(super) fn for_each_row(x: ArrayView2<'_, f64>, mut each: impl FnMut(usize, &[f64])) {
    let mut copy = vec![0.0; x.ncols()];
    for (i, row) in x.rows().into_iter().enumerate() {
        match row.as_slice() {
            Some(row) => each(i, row),
            None => {
                fill(&mut copy, row);
                each(i, &copy);
            }
        }
    }
}

/// Σ aᵢ·bᵢ over the shorter of the two.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum_of(a, b, |a, b| a * b)
}

/// Σ (aᵢ − bᵢ)² over the shorter of the two.
pub(super) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    sum_of(a, b, |a, b| (a - b) * (a - b))
}

/// Σ wᵢ·(aᵢ − bᵢ)² over the shortest of the three.
pub(super) fn weighted_squared_distance(a: &[f64], b: &[f64], w: &[f64]) -> f64 {
    let n = a.len().min(b.len()).min(w.len());
    let mut sums = [0.0; LANES];
    for first in (0..n).step_by(LANES) {
        let end = n.min(first + LANES);
        for (((sum, a), b), w) in sums.iter_mut().zip(&a[first..end]).zip(&b[first..end]).zip(&w[first..end]) {
            *sum += w * (a - b) * (a - b);
        }
    }
    total(sums)
}

/// `y += factor · x`.
pub(super) fn add_scaled(y: &mut [f64], factor: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

#[inline(always)]
fn sum_of(a: &[f64], b: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(a, b)| term(*a, *b)).sum();
    let mut sums = [0.0; LANES];
    for (a, b) in a_lanes.zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    total(sums) + rest
}

fn total(sums: [f64; LANES]) -> f64 {
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]))
}

fn fill(copy: &mut [f64], row: ArrayView1<'_, f64>) {
    for (to, from) in copy.iter_mut().zip(row) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn a_row_is_the_same_bits_in_any_layout() {
        let x = Array2::from_shape_fn((5, 13), |(i, j)| ((i * 31 + j * 7) as f64 * 0.37).sin());
        let by_column = Array2::from_shape_fn((13, 5), |(j, i)| x[[i, j]]);
        let b: Vec<f64> = (0..13).map(|j| (j as f64).cos()).collect();
        let mut sums = vec![];
        for_each_row(x.view(), |_, row| sums.push(dot(row, &b)));
        for_each_row(by_column.t(), |i, row| assert_eq!(dot(row, &b).to_bits(), sums[i].to_bits()));
        let plain: f64 = (0..13).map(|j| x[[2, j]] * b[j]).sum();
        assert!((sums[2] - plain).abs() < 1e-14);
    }
}
