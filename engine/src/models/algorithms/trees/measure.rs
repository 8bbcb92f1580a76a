//! What a deep tree tells apart: how the rows of a node are compared, and what a leaf says.
//!
//! Both measures maximise Σ sum² / weight over the two sides. For numbers that is least squares; for two classes
//! (labels 0 and 1) and for more of them (one sum each) it is the Gini impurity.

use super::bins::{Column, MISSING};
use super::cells::{Cell, Cut, Rule, Scan};

/// What is to be told apart. [`Measure::enter`] comes first for each node.
pub(super) trait Measure {
    /// Takes up a node with these `cells`. Whether all its labels are equal.
    fn enter(&mut self, cells: &[Cell], rule: &Rule) -> bool;
    /// The score of the node, uncut.
    fn score(&self, rule: &Rule) -> f64;
    /// The best cut on one feature of the node's `rows`.
    fn best(&mut self, column: &Column, rows: &[u32], cells: &[Cell], rule: &Rule) -> Found;
    /// Appends the values of a leaf of `cells`.
    fn leaf(&mut self, cells: &[Cell], rule: &Rule, values: &mut Vec<f64>);
}

/// What one feature has to offer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// Every row has the same value.
    Constant,
    /// It varies, but no cut keeps the rule.
    Nothing,
    /// A cut: its score, the bins that it falls between, and the side of missing values.
    Cut { score: f64, left: usize, right: usize, missing_left: bool },
}

/// The bins that some rows touch.
#[derive(Default)]
struct Touched([u64; 4]);

impl Touched {
    #[inline(always)]
    fn mark(&mut self, bin: u8) {
        self.0[usize::from(bin >> 6)] |= 1 << (bin & 63);
    }

    fn one(&self) -> bool {
        self.0.iter().map(|bits| bits.count_ones()).sum::<u32>() < 2
    }

    #[inline(always)]
    fn for_each(self, mut each: impl FnMut(usize)) {
        for (word, mut bits) in self.0.into_iter().enumerate() {
            while bits != 0 {
                each(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

/// Numbers, and the labels 0 and 1 of two classes: cells as they are.
pub(super) struct Numbers {
    scan: Scan,
    histogram: Box<[Cell; MISSING + 1]>,
    /// The cells of the bins that have rows, and these bins.
    dense: Vec<Cell>,
    bin_of: Vec<usize>,
    total: Cell,
    /// Added to a leaf's mean: labels are kept small by taking their own mean off.
    middle: f64,
}

impl Numbers {
    pub fn new(middle: f64) -> Self {
        let histogram = Box::new([Cell::default(); MISSING + 1]);
        Self { scan: Scan::new(), histogram, dense: vec![], bin_of: vec![], total: Cell::default(), middle }
    }
}

impl Measure for Numbers {
    fn enter(&mut self, cells: &[Cell], rule: &Rule) -> bool {
        self.total = Cell::default();
        cells.iter().for_each(|cell| self.total.add(*cell));
        // Equal labels give equal quotients, but for the rounding of fractional weights.
        let label = |cell: &Cell| rule.fixed.scaled_sum(*cell) / rule.fixed.scaled_weight(*cell);
        let first = label(&cells[0]);
        cells.iter().all(|cell| (label(cell) - first).abs() <= first.abs() * 1e-9)
    }

    fn score(&self, rule: &Rule) -> f64 {
        let sum = rule.fixed.scaled_sum(self.total);
        sum * sum / rule.fixed.scaled_weight(self.total)
    }

    fn best(&mut self, column: &Column, rows: &[u32], cells: &[Cell], rule: &Rule) -> Found {
        let (mut touched, bins, histogram) = (Touched::default(), &column.bins[..], &mut *self.histogram);
        for (row, cell) in rows.iter().zip(cells) {
            let bin = bins[*row as usize];
            histogram[usize::from(bin)].add(*cell);
            touched.mark(bin);
        }
        self.dense.clear();
        self.bin_of.clear();
        touched.for_each(|bin| {
            self.dense.push(std::mem::take(&mut histogram[bin]));
            self.bin_of.push(bin);
        });
        if self.dense.len() < 2 {
            return Found::Constant;
        }
        let (values, missing) = match self.dense.split_last() {
            Some((missing, values)) if self.bin_of.last() == Some(&column.missing()) => (values, *missing),
            _ => (&self.dense[..], Cell::default()),
        };
        match self.scan.best(values, missing, self.total, rule) {
            Some(Cut { score, last_left, missing_left }) => {
                let right = if last_left + 1 == values.len() { column.missing() } else { self.bin_of[last_left + 1] };
                Found::Cut { score, left: self.bin_of[last_left], right, missing_left }
            }
            None => Found::Nothing,
        }
    }

    fn leaf(&mut self, cells: &[Cell], rule: &Rule, values: &mut Vec<f64>) {
        let mut total = Cell::default();
        cells.iter().for_each(|cell| total.add(*cell));
        values.push(self.middle + rule.fixed.sum(total) / rule.fixed.weight(total));
    }
}

/// Three classes and more: [`Cell::sum`] is the class of a row, and a bin has a weight for each.
pub(super) struct Classes {
    classes: usize,
    /// Weights and counts as in [`Cell::weight`]: bins × classes.
    histogram: Vec<u64>,
    dense: Vec<u64>,
    bin_of: Vec<usize>,
    total: Vec<u64>,
    /// Scaled weights of the node, and of the left side of a cut.
    whole: Vec<f64>,
    left: Vec<f64>,
}

impl Classes {
    pub fn new(classes: usize) -> Self {
        let zeros = || vec![0.0; classes];
        let histogram = vec![0; (MISSING + 1) * classes];
        Self { classes, histogram, dense: vec![], bin_of: vec![], total: vec![0; classes], whole: zeros(), left: zeros() }
    }

    /// The best cut of `values` where `start` is on the left already: its score and last bin on the left.
    fn pass(&mut self, values: usize, start: Option<usize>, rule: &Rule) -> Option<(f64, usize)> {
        let (k, shift) = (self.classes, rule.fixed.count_shift);
        let weight = |word: u64| rule.fixed.scaled_weight(Cell { sum: 0, weight: word });
        let count = |words: &[u64]| words.iter().map(|word| word >> shift).sum::<u64>();
        let rows = count(&self.total);
        let mut left_rows = 0;
        self.left.fill(0.0);
        if let Some(start) = start {
            let words = &self.dense[start * k..][..k];
            left_rows = count(words);
            self.left.iter_mut().zip(words).for_each(|(left, word)| *left = weight(*word));
        }
        let mut best: Option<(f64, usize)> = None;
        for (i, words) in self.dense[..values * k].chunks_exact(k).enumerate() {
            left_rows += count(words);
            self.left.iter_mut().zip(words).for_each(|(left, word)| *left += weight(*word));
            if left_rows < rule.min_rows || rows - left_rows < rule.min_rows {
                continue;
            }
            let (mut l, mut r, mut l2, mut r2) = (0.0, 0.0, 0.0, 0.0);
            for (left, whole) in self.left.iter().zip(&self.whole) {
                let right = whole - left;
                (l, r, l2, r2) = (l + left, r + right, l2 + left * left, r2 + right * right);
            }
            if l < rule.min_weight || r < rule.min_weight {
                continue;
            }
            let score = (l2 * r + r2 * l) / (l * r);
            if best.is_none_or(|(best, _)| score > best) {
                best = Some((score, i));
            }
        }
        best
    }
}

impl Measure for Classes {
    fn enter(&mut self, cells: &[Cell], rule: &Rule) -> bool {
        self.total.fill(0);
        cells.iter().for_each(|cell| self.total[cell.sum as usize] += cell.weight);
        let weight = |word: &u64| rule.fixed.scaled_weight(Cell { sum: 0, weight: *word });
        self.whole.iter_mut().zip(&self.total).for_each(|(whole, word)| *whole = weight(word));
        self.total.iter().filter(|word| **word != 0).count() < 2
    }

    fn score(&self, _: &Rule) -> f64 {
        self.whole.iter().map(|w| w * w).sum::<f64>() / self.whole.iter().sum::<f64>()
    }

    fn best(&mut self, column: &Column, rows: &[u32], cells: &[Cell], rule: &Rule) -> Found {
        let (k, mut touched) = (self.classes, Touched::default());
        for row in rows {
            touched.mark(column.bins[*row as usize]);
        }
        if touched.one() {
            return Found::Constant;
        }
        for (row, cell) in rows.iter().zip(cells) {
            self.histogram[usize::from(column.bins[*row as usize]) * k + cell.sum as usize] += cell.weight;
        }
        self.dense.clear();
        self.bin_of.clear();
        touched.for_each(|bin| {
            let words = &mut self.histogram[bin * k..][..k];
            self.dense.extend_from_slice(words);
            words.fill(0);
            self.bin_of.push(bin);
        });
        let has_missing = self.bin_of.last() == Some(&column.missing());
        let values = self.bin_of.len() - usize::from(has_missing);
        let right = self.pass(values, None, rule);
        let left = if has_missing { self.pass(values, Some(values), rule) } else { None };
        let missing_left = left.is_some_and(|(l, _)| right.is_none_or(|(r, _)| l > r));
        let Some((score, last)) = (if missing_left { left } else { right }) else { return Found::Nothing };
        let right = if last + 1 == values { column.missing() } else { self.bin_of[last + 1] };
        let heavier = || {
            let weight = |words: &[u64]| words.iter().map(|word| rule.fixed.scaled_weight(Cell { sum: 0, weight: *word })).sum::<f64>();
            weight(&self.dense[..(last + 1) * k]) * 2.0 > weight(&self.total)
        };
        // Where nothing was missing, what is later on goes with the many.
        Found::Cut { score, left: self.bin_of[last], right, missing_left: if has_missing { missing_left } else { heavier() } }
    }

    fn leaf(&mut self, cells: &[Cell], rule: &Rule, values: &mut Vec<f64>) {
        self.enter(cells, rule);
        let sum: f64 = self.whole.iter().sum();
        values.extend(self.whole.iter().map(|weight| weight / sum));
    }
}
