//! Histogram cells, and the best place to split a row of them.
//!
//! A cell sums, over the rows of a bin, a number (gradient, or weight × label) and a weight (hessian, or weight),
//! both in fixed point, and counts the rows in the upper bits of the weight. Integers are the point: their sums are
//! exact, so order does not matter, a sibling is a subtraction, and one addition of two words does a row.

use super::bins::MISSING;

/// Sums over some rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub(super) struct Cell {
    /// The number, times [`Fixed::sum_scale`].
    pub sum: i64,
    /// The weight, times [`Fixed::weight_scale`], below; the count of rows above it.
    pub weight: u64,
}

impl Cell {
    #[inline(always)]
    pub fn add(&mut self, other: Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.weight = self.weight.wrapping_add(other.weight);
    }

    #[inline(always)]
    pub fn minus(self, other: Self) -> Self {
        Self { sum: self.sum.wrapping_sub(other.sum), weight: self.weight.wrapping_sub(other.weight) }
    }
}

/// How numbers become cells. Scales are powers of two, so that small whole numbers stay exact, and such that the
/// sums of all rows keep within 51 bits: there a float and an integer are one addition apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed {
    pub sum_scale: f64,
    pub weight_scale: f64,
    /// Where the count begins in [`Cell::weight`].
    pub count_shift: u32,
}

/// Added to a float below 2^51 this leaves it, rounded, in the lower bits.
const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5 × 2^52
const TWO_52: f64 = 4_503_599_627_370_496.0;

impl Fixed {
    /// For at most `rows` rows whose numbers sum to at most `sum` without their signs, their weights to `weight`.
    pub fn new(rows: usize, sum: f64, weight: f64) -> Self {
        let count_bits = u64::BITS - (rows as u64).leading_zeros();
        let count_shift = (u64::BITS - count_bits).min(51);
        // Each row may round up by a half.
        let scale = |bits: u32, most: f64| {
            let room = 2f64.powi(bits as i32) - rows as f64;
            if most > 0.0 && most.is_finite() { 2f64.powi((room / most).log2().floor().clamp(-1000.0, 1000.0) as i32) } else { 1.0 }
        };
        Self { sum_scale: scale(50, sum), weight_scale: scale(count_shift, weight), count_shift }
    }

    #[inline(always)]
    pub fn cell(&self, sum: f64, weight: f64) -> Cell {
        let round = |x: f64| ((x + MAGIC).to_bits()).wrapping_sub(MAGIC.to_bits());
        Cell { sum: round(sum * self.sum_scale) as i64, weight: round(weight * self.weight_scale) | 1 << self.count_shift }
    }

    /// Rows of a cell.
    #[inline(always)]
    pub fn count(&self, cell: Cell) -> u64 {
        cell.weight >> self.count_shift
    }

    /// The number of a cell, still scaled.
    #[inline(always)]
    pub fn scaled_sum(&self, cell: Cell) -> f64 {
        f64::from_bits(MAGIC.to_bits().wrapping_add(cell.sum as u64)) - MAGIC
    }

    /// The weight of a cell, still scaled.
    #[inline(always)]
    pub fn scaled_weight(&self, cell: Cell) -> f64 {
        f64::from_bits(TWO_52.to_bits() | cell.weight & ((1 << self.count_shift) - 1)) - TWO_52
    }

    pub fn sum(&self, cell: Cell) -> f64 {
        self.scaled_sum(cell) / self.sum_scale
    }

    pub fn weight(&self, cell: Cell) -> f64 {
        self.scaled_weight(cell) / self.weight_scale
    }

    /// What makes a gain of scaled sums and weights one of the numbers themselves.
    pub fn gain_scale(&self) -> f64 {
        self.weight_scale / (self.sum_scale * self.sum_scale)
    }
}

/// What a split must keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub fixed: Fixed,
    /// Rows on each side, 1 at least.
    pub min_rows: u64,
    /// Weight on each side, scaled.
    pub min_weight: f64,
    /// Added to the weight of each side, scaled.
    pub l2: f64,
}

/// A split of some cells in their order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// sum² / weight of both sides together, scaled: higher is better.
    pub score: f64,
    /// The last cell on the left.
    pub last_left: usize,
    pub missing_left: bool,
}

/// Room for the running sums of one row of cells.
#[derive(Debug)]
pub(super) struct Scan {
    sums: [f64; MISSING + 1],
    weights: [f64; MISSING + 1],
}

impl Scan {
    pub fn new() -> Self {
        Self { sums: [0.0; MISSING + 1], weights: [0.0; MISSING + 1] }
    }

    /// The best cut of `cells` (those of values, in order), with the `missing` on its better side. The first of equals.
    pub fn best(&mut self, cells: &[Cell], missing: Cell, total: Cell, rule: &Rule) -> Option<Cut> {
        let right = self.pass(cells, Cell::default(), total, rule).map(|(score, last_left)| Cut { score, last_left, missing_left: false });
        if missing.weight == 0 {
            // Nothing was missing here: what is later on goes with the many.
            let half = rule.fixed.scaled_weight(total) / 2.0;
            return right.map(|cut| Cut { missing_left: self.weights[cut.last_left] > half, ..cut });
        }
        let left = self.pass(cells, missing, total, rule).map(|(score, last_left)| Cut { score, last_left, missing_left: true });
        match (right, left) {
            (Some(right), Some(left)) => Some(if left.score > right.score { left } else { right }),
            (right, left) => right.or(left),
        }
    }

    /// The best cut where `start` is on the left already. Three short loops, so that the divisions come in vectors:
    /// what may be cut is a range, because counts and weights only grow.
    fn pass(&mut self, cells: &[Cell], start: Cell, total: Cell, rule: &Rule) -> Option<(f64, usize)> {
        let (fixed, rows) = (rule.fixed, rule.fixed.count(total));
        let (sum, weight) = (fixed.scaled_sum(total), fixed.scaled_weight(total));
        let (sums, weights) = (&mut self.sums[..cells.len()], &mut self.weights[..cells.len()]);
        let (mut left, mut first, mut end) = (start, 0, 0);
        for ((cell, s), w) in cells.iter().zip(sums.iter_mut()).zip(weights.iter_mut()) {
            left.add(*cell);
            (*s, *w) = (fixed.scaled_sum(left), fixed.scaled_weight(left));
            let count = fixed.count(left);
            first += usize::from((count < rule.min_rows) | (*w < rule.min_weight));
            end += usize::from((rows - count >= rule.min_rows) & (weight - *w >= rule.min_weight));
        }
        if first >= end {
            return None;
        }
        let (sums, weights) = (&mut sums[first..end], &weights[first..end]);
        for (s, w) in sums.iter_mut().zip(weights) {
            let (left, right) = (w + rule.l2, weight - w + rule.l2);
            let other = sum - *s;
            *s = (*s * *s * right + other * other * left) / (left * right);
        }
        let (mut best, mut at) = (f64::NEG_INFINITY, 0);
        for (i, score) in sums.iter().enumerate() {
            if *score > best {
                (best, at) = (*score, i);
            }
        }
        Some((best, first + at))
    }
}

/// A feature's cells and the bins of all rows.
pub(super) type Feature<'a> = (&'a mut [Cell], &'a [u8]);

/// Adds the `cells` of `rows` (side by side; none: of all rows) to their bins, for two features at once where there
/// are two: one sum waits for memory while the other goes on.
pub(super) fn accumulate(one: Feature<'_>, two: Option<Feature<'_>>, rows: Option<&[u32]>, cells: &[Cell]) {
    match (two, rows) {
        (Some(two), Some(rows)) => listed_two(one, two, rows, cells),
        (Some(two), None) => all_two(one, two, cells),
        (None, Some(rows)) => rows.iter().zip(cells).for_each(|(row, cell)| one.0[usize::from(one.1[*row as usize])].add(*cell)),
        (None, None) => one.1.iter().zip(cells).for_each(|(bin, cell)| one.0[usize::from(*bin)].add(*cell)),
    }
}

#[inline(never)] // so that the loop has all registers
fn listed_two(one: Feature<'_>, two: Feature<'_>, rows: &[u32], cells: &[Cell]) {
    let (one_bins, two_bins) = (one.1, &two.1[..one.1.len()]);
    for (row, cell) in rows.iter().zip(cells) {
        let row = *row as usize;
        one.0[usize::from(one_bins[row])].add(*cell);
        two.0[usize::from(two_bins[row])].add(*cell);
    }
}

#[inline(never)]
fn all_two(one: Feature<'_>, two: Feature<'_>, cells: &[Cell]) {
    for ((a, b), cell) in one.1.iter().zip(two.1).zip(cells) {
        one.0[usize::from(*a)].add(*cell);
        two.0[usize::from(*b)].add(*cell);
    }
}
