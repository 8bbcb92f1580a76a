//! A tree grown to the end: each node looks at its own rows, feature by feature.
//!
//! Most nodes of such a tree hold a few rows, so nothing here costs as much as a whole histogram: the bins that the
//! rows of a node touch are marked in a bit set, and only they are read and cleared again ([`measure`](super::measure)).

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::bins::{Column, MISSING};
use super::cells::{Cell, Fixed, Rule};
use super::measure::{Found, Measure};
use super::state::Tree;

/// Where a tree ends, and what each split looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub max_depth: usize,
    pub max_leaves: usize,
    pub min_split_rows: usize,
    pub min_leaf_rows: usize,
    pub features_per_split: usize,
}

/// Grows trees one after the other in the same buffers.
pub(super) struct Deep<'a, M> {
    columns: &'a [Column],
    measure: M,
    limits: Limits,
    rule: Rule,
    features: Vec<usize>,
    spare_rows: Vec<u32>,
    spare_cells: Vec<Cell>,
}

/// A node that may be split.
struct Open {
    node: u32,
    start: usize,
    end: usize,
    depth: usize,
    best: Best,
}

#[derive(Clone, Copy)]
struct Best {
    feature: usize,
    left: usize,
    right: usize,
    missing_left: bool,
    score: f64,
    gain: f64,
}

impl<'a, M: Measure> Deep<'a, M> {
    pub fn new(columns: &'a [Column], measure: M, limits: Limits, fixed: Fixed) -> Self {
        let rule = Rule { fixed, min_rows: limits.min_leaf_rows.max(1) as u64, min_weight: 0.5, l2: 0.0 };
        Self { columns, measure, limits, rule, features: vec![], spare_rows: vec![], spare_cells: vec![] }
    }

    /// A tree over `rows` with their `cells`.
    pub fn grow(&mut self, mut rows: Vec<u32>, mut cells: Vec<Cell>, random: &mut ChaCha8Rng) -> Tree {
        self.features = (0..self.columns.len()).collect();
        self.spare_rows.resize(rows.len(), 0);
        self.spare_cells.resize(cells.len(), Cell::default());
        let mut tree = Tree::new(self.columns.len());
        let (mut leaves, mut numbers) = (1, 0);
        let mut open: Vec<Open> = vec![];
        let mut fresh = vec![(0, 0, rows.len(), 0)];
        loop {
            while let Some((node, start, end, depth)) = fresh.pop() {
                match self.best(&rows[start..end], &cells[start..end], depth, random) {
                    Some(best) => open.push(Open { node, start, end, depth, best }),
                    None => {
                        tree.leaf(node, numbers);
                        numbers += 1;
                        self.measure.leaf(&cells[start..end], &self.rule, &mut tree.values);
                    }
                }
            }
            let Some(Open { node, start, end, depth, best }) = self.next(&mut open) else { return tree };
            if leaves == self.limits.max_leaves {
                tree.leaf(node, numbers);
                numbers += 1;
                self.measure.leaf(&cells[start..end], &self.rule, &mut tree.values);
                continue;
            }
            leaves += 1;
            let column = &self.columns[best.feature];
            // In the middle of the gap that these rows leave, as a search among the values themselves would put it.
            let (low, high) = (column.threshold(best.left), column.threshold(best.right - 1));
            let threshold = if best.right == column.missing() { f64::MAX } else { low / 2.0 + high / 2.0 };
            let gain = best.gain * self.rule.fixed.gain_scale();
            let left = tree.split(node, best.feature, threshold, best.missing_left, gain);
            let middle = start + self.part(column, best, &mut rows[start..end], &mut cells[start..end]);
            fresh.push((left + 1, middle, end, depth + 1));
            fresh.push((left, start, middle, depth + 1));
        }
    }

    /// The node to split next: the last one (its rows are warm), or with a limit of leaves the one that gains most.
    fn next(&self, open: &mut Vec<Open>) -> Option<Open> {
        if self.limits.max_leaves == usize::MAX {
            return open.pop();
        }
        let most =
            (0..open.len()).max_by(|a, b| open[*a].best.gain.total_cmp(&open[*b].best.gain).then(open[*b].node.cmp(&open[*a].node)))?;
        Some(open.swap_remove(most))
    }

    fn best(&mut self, rows: &[u32], cells: &[Cell], depth: usize, random: &mut ChaCha8Rng) -> Option<Best> {
        let Limits { max_depth, min_split_rows, min_leaf_rows, features_per_split, .. } = self.limits;
        if depth >= max_depth || rows.len() < min_split_rows.max(min_leaf_rows * 2).max(2) || self.measure.enter(cells, &self.rule) {
            return None;
        }
        let (count, mut best) = (self.features.len(), None::<Best>);
        let (mut seen, mut varies) = (0, false);
        // Constant features do not count as long as there is nothing else.
        while seen < count && (seen < features_per_split || !varies) {
            if features_per_split < count {
                let pick = random.random_range(seen..count);
                self.features.swap(seen, pick);
            }
            let feature = self.features[seen];
            seen += 1;
            let found = self.measure.best(&self.columns[feature], rows, cells, &self.rule);
            varies |= !matches!(found, Found::Constant);
            let Found::Cut { score, left, right, missing_left } = found else { continue };
            if best.is_none_or(|best| score > best.score) {
                best = Some(Best { feature, left, right, missing_left, score, gain: score - self.measure.score(&self.rule) });
            }
        }
        best
    }

    /// Brings the rows of the left side to the front, in order on both sides, and answers how many they are.
    fn part(&mut self, column: &Column, best: Best, rows: &mut [u32], cells: &mut [Cell]) -> usize {
        let mut goes_left = [0u8; MISSING + 1];
        goes_left[..=best.left].fill(1);
        goes_left[column.missing()] = u8::from(best.missing_left);
        let (mut left, mut right) = (0, 0);
        let (spare_rows, spare_cells) = (&mut self.spare_rows[..rows.len()], &mut self.spare_cells[..rows.len()]);
        for i in 0..rows.len() {
            let (row, cell) = (rows[i], cells[i]);
            let goes = usize::from(goes_left[usize::from(column.bins[row as usize])]);
            (rows[left], cells[left]) = (row, cell);
            (spare_rows[right], spare_cells[right]) = (row, cell);
            left += goes;
            right += 1 - goes;
        }
        rows[left..].copy_from_slice(&spare_rows[..right]);
        cells[left..].copy_from_slice(&spare_cells[..right]);
        left
    }
}
