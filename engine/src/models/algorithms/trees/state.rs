//! Fitted trees as plain data: nodes in columns, leaves in one more.
//!
//! Both children of a node stand side by side and after it, so a walk goes forward only: that is what
//! [`Trees::check`] verifies of a file, and why a walk over checked trees ends and stays in bounds.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::Target;
use crate::error::{Error, Result};
use crate::models::algorithms::Scores;

/// What stands in place of a feature at a leaf.
const LEAF: u32 = u32::MAX;
/// Set in [`Node::feature`] where a missing value goes left.
const MISSING_LEFT: u32 = 1 << 31;
/// Rows that walk side by side, so that one waits for memory while the others go on.
const LANES: usize = 8;
/// Rows that walk through one tree before the next tree: their sums stay in the nearest cache.
const BLOCK_ROWS: usize = 64;

/// Fitted trees. In memory a node is one piece, for the sake of the cache; they are written as columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Columns", into = "Columns")]
pub struct Trees {
    answer: Answer,
    features: usize,
    /// Classes of the label; 0 where it is a number.
    classes: usize,
    /// What boosting starts from, one for each output; empty for means.
    start: Vec<f64>,
    /// First node of each tree.
    roots: Vec<u32>,
    nodes: Vec<Node>,
    /// The values of each leaf, `width` of them.
    values: Vec<f64>,
    /// What the splits on each feature gained, of 1 in all.
    importance: Vec<f64>,
}

/// A question, or a leaf.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Node {
    /// Left is `x <= threshold`.
    threshold: f64,
    /// The feature that is asked for (the top bit: whether a missing or infinite value goes left), or [`LEAF`].
    feature: u32,
    /// The left child, with the right one after it; of a leaf, its number.
    child: u32,
}

/// [`Trees`] as written.
#[derive(Serialize, Deserialize)]
struct Columns {
    answer: Answer,
    features: usize,
    classes: usize,
    start: Vec<f64>,
    roots: Vec<u32>,
    feature: Vec<u32>,
    threshold: Vec<f64>,
    child: Vec<u32>,
    values: Vec<f64>,
    importance: Vec<f64>,
}

/// How the leaves become an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// The mean of the trees' leaves: numbers, the probability of class 1 of two, or that of each class.
    Mean,
    /// The sum of the trees' leaves, tree t for output t mod outputs; through the logistic or softmax for classes.
    Sum,
}

/// One tree as it grows.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    pub values: Vec<f64>,
    /// Gain of the splits on each feature.
    gain: Vec<f64>,
}

impl Tree {
    /// A tree of one node, which has yet to become a leaf or to be split.
    pub fn new(features: usize) -> Self {
        let mut tree = Self { gain: vec![0.0; features], ..Self::default() };
        tree.node();
        tree
    }

    /// A tree that says `value` of every row.
    pub fn constant(features: usize, value: f64) -> Self {
        let mut tree = Self::new(features);
        tree.leaf(0, 0);
        tree.values.push(value);
        tree
    }

    /// Makes a leaf of `node`; the caller appends its values.
    pub fn leaf(&mut self, node: u32, number: u32) {
        self.nodes[node as usize] = Node { threshold: 0.0, feature: LEAF, child: number };
    }

    /// Splits `node` and answers its left child; the right one is the next.
    pub fn split(&mut self, node: u32, feature: usize, threshold: f64, missing_left: bool, gain: f64) -> u32 {
        let child = self.node();
        self.node();
        let side = if missing_left { MISSING_LEFT } else { 0 };
        self.nodes[node as usize] = Node { threshold, feature: feature as u32 | side, child };
        self.gain[feature] += gain.max(0.0);
        child
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The leaf where a row ends that goes to the left where `left(node, feature, missing_left)` says so.
    pub fn walk(&self, left: impl Fn(usize, usize, bool) -> bool) -> usize {
        let mut at = 0;
        loop {
            let Node { feature, child, .. } = self.nodes[at];
            if feature == LEAF {
                return child as usize;
            }
            at = child as usize + usize::from(!left(at, (feature & !MISSING_LEFT) as usize, feature & MISSING_LEFT != 0));
        }
    }

    fn node(&mut self) -> u32 {
        self.nodes.push(Node { threshold: 0.0, feature: LEAF, child: 0 });
        (self.nodes.len() - 1) as u32
    }
}

impl Trees {
    pub(super) fn new(answer: Answer, features: usize, target: Target, start: Vec<f64>, trees: Vec<Tree>) -> Result<Self> {
        let classes = if let Target::Classes(n) = target { n } else { 0 };
        let (roots, importance) = (Vec::with_capacity(trees.len()), vec![0.0; features]);
        let mut all = Self { answer, features, classes, start, roots, nodes: vec![], values: vec![], importance };
        let width = all.width();
        all.nodes.reserve_exact(trees.iter().map(Tree::len).sum());
        all.values.reserve_exact(trees.iter().map(|tree| tree.values.len()).sum());
        for tree in trees {
            let (nodes, leaves) = (all.nodes.len() as u32, (all.values.len() / width) as u32);
            if all.nodes.len() + tree.nodes.len() >= LEAF as usize {
                let e = Error::user("the trees have more than four billion nodes in all");
                return Err(e.help("set 'max_depth', a greater 'min_leaf_rows' or fewer 'trees'"));
            }
            all.roots.push(nodes);
            let moved = |node: Node| Node { child: node.child + if node.feature == LEAF { leaves } else { nodes }, ..node };
            all.nodes.extend(tree.nodes.into_iter().map(moved));
            all.values.extend(tree.values);
            all.importance.iter_mut().zip(&tree.gain).for_each(|(all, one)| *all += one);
        }
        let sum: f64 = all.importance.iter().sum();
        if sum > 0.0 {
            all.importance.iter_mut().for_each(|gain| *gain /= sum);
        }
        Ok(all)
    }

    /// Scores the rows of `x`: a number or the probability of each class.
    pub fn score(&self, x: ArrayView2<'_, f64>) -> Scores {
        let (rows, outputs) = (x.nrows(), self.outputs());
        let x = x.as_standard_layout();
        let x = x.as_slice().expect("a standard layout is one slice");
        let mut sums = vec![0.0; rows * outputs];
        if !self.start.is_empty() {
            sums.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(&self.start));
        }
        let blocks = x.chunks(BLOCK_ROWS * self.features.max(1)).zip(sums.chunks_mut(BLOCK_ROWS * outputs));
        blocks.for_each(|(x, sums)| self.add(x, sums));
        match (self.answer, self.classes) {
            (Answer::Mean, _) => sums.iter_mut().for_each(|sum| *sum /= self.roots.len() as f64),
            (Answer::Sum, 0) => {}
            (Answer::Sum, 2) => sums.iter_mut().for_each(|sum| *sum = logistic(*sum)),
            (Answer::Sum, _) => sums.chunks_exact_mut(outputs).for_each(softmax),
        }
        match self.classes {
            0 => Scores::Values(sums),
            2 => {
                Scores::Probabilities(Array2::from_shape_fn((rows, 2), |(row, class)| if class == 1 { sums[row] } else { 1.0 - sums[row] }))
            }
            n => Scores::Probabilities(Array2::from_shape_vec((rows, n), sums).expect("an output for each class")),
        }
    }

    /// What the splits on each feature gained, of 1 in all (all 0 where nothing was split).
    pub fn importance(&self) -> &[f64] {
        &self.importance
    }

    /// Trees in all.
    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Whether these are whole trees over `features` features: a file is checked so before its first row.
    ///
    /// # Errors
    /// State: they are not.
    pub fn check(&self, features: usize) -> Result<()> {
        let nodes = self.nodes.len();
        let bad = |what: String| Err(Error::state(format!("the trees are damaged: {what}")));
        if self.features != features || self.importance.len() != features {
            return bad(format!("they are over {} features, not {features}", self.features));
        }
        if features == 0 || self.classes == 1 || self.roots.is_empty() {
            return bad("no feature, one class, or no tree".into());
        }
        let starts = if self.answer == Answer::Sum { self.outputs() } else { 0 };
        if self.start.len() != starts || self.answer == Answer::Sum && !self.roots.len().is_multiple_of(starts) {
            return bad("not as many starts or trees as outputs".into());
        }
        if !self.values.len().is_multiple_of(self.width())
            || !self.values.iter().chain(&self.start).chain(&self.importance).all(|v| v.is_finite())
        {
            return bad("a number is missing".into());
        }
        if self.roots[0] != 0 || !self.roots.is_sorted_by(|a, b| a < b) {
            return bad("the trees' places".into());
        }
        let ends = self.roots[1..].iter().map(|root| *root as usize).chain([nodes]);
        for (root, end) in self.roots.iter().zip(ends) {
            if *root as usize >= end || end > nodes {
                return bad("the trees' places".into());
            }
            for at in *root as usize..end {
                let Node { threshold, feature, child } = self.nodes[at];
                let child = child as usize;
                let sound = match feature {
                    LEAF => child < self.values.len() / self.width(),
                    feature => threshold.is_finite() && ((feature & !MISSING_LEFT) as usize) < features && child > at && child + 1 < end,
                };
                if !sound {
                    return bad(format!("node {at}"));
                }
            }
        }
        Ok(())
    }

    /// Numbers that a row's answer is made of.
    fn outputs(&self) -> usize {
        if self.classes > 2 { self.classes } else { 1 }
    }

    /// Values of a leaf.
    fn width(&self) -> usize {
        if self.answer == Answer::Mean { self.outputs() } else { 1 }
    }

    /// Adds what each tree answers for a block of rows. A row's sum runs over the trees in their order, whatever
    /// the block, so it is the same bits alone and in a batch.
    fn add(&self, x: &[f64], sums: &mut [f64]) {
        let (outputs, width) = (self.outputs(), self.width());
        for (t, root) in self.roots.iter().enumerate() {
            let output = if width == outputs { 0 } else { t % outputs };
            for (i, sums) in sums.chunks_mut(outputs * LANES).enumerate() {
                let (lanes, mut leaves) = (sums.len() / outputs, [0; LANES]);
                let x = &x[i * LANES * self.features..][..lanes * self.features];
                if lanes == LANES {
                    self.walk_lanes(*root, x, &mut leaves);
                } else {
                    x.chunks_exact(self.features).zip(&mut leaves).for_each(|(row, leaf)| *leaf = self.walk(*root, row));
                }
                for (sums, leaf) in sums.chunks_exact_mut(outputs).zip(leaves) {
                    let values = &self.values[leaf * width..][..width];
                    sums[output..][..width].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
            }
        }
    }

    /// The leaf where `row` ends.
    fn walk(&self, root: u32, row: &[f64]) -> usize {
        let mut at = root as usize;
        loop {
            let Node { threshold, feature, child } = self.nodes[at];
            if feature == LEAF {
                return child as usize;
            }
            let x = row[(feature & !MISSING_LEFT) as usize];
            let left = if x.is_finite() { x <= threshold } else { feature & MISSING_LEFT != 0 };
            at = child as usize + usize::from(!left);
        }
    }

    /// The same for [`LANES`] rows in step: the leaves where they end.
    fn walk_lanes(&self, root: u32, rows: &[f64], leaves: &mut [usize; LANES]) {
        let mut at = [root as usize; LANES];
        let mut going = true;
        while going {
            going = false;
            for (lane, at) in at.iter_mut().enumerate() {
                let Node { threshold, feature, child } = self.nodes[*at];
                let leaf = feature == LEAF;
                // Of a row at its leaf any value is read, and nothing is made of it.
                let column = if leaf { 0 } else { (feature & !MISSING_LEFT) as usize };
                let x = rows[lane * self.features + column];
                let left = (x <= threshold) & x.is_finite() | !x.is_finite() & (feature & MISSING_LEFT != 0);
                *at = if leaf { *at } else { child as usize + usize::from(!left) };
                going |= !leaf;
            }
        }
        leaves.iter_mut().zip(at).for_each(|(leaf, at)| *leaf = self.nodes[at].child as usize);
    }
}

impl From<Trees> for Columns {
    fn from(trees: Trees) -> Self {
        let Trees { answer, features, classes, start, roots, nodes, values, importance } = trees;
        let feature = nodes.iter().map(|node| node.feature).collect();
        let threshold = nodes.iter().map(|node| node.threshold).collect();
        let child = nodes.iter().map(|node| node.child).collect();
        Self { answer, features, classes, start, roots, feature, threshold, child, values, importance }
    }
}

impl From<Columns> for Trees {
    fn from(columns: Columns) -> Self {
        let Columns { answer, features, classes, start, roots, feature, threshold, child, values, importance } = columns;
        // Columns of unlike lengths end with the longest: what is lacking is no sound node, which `check` finds.
        let lacking = |i: usize| Node {
            threshold: threshold.get(i).copied().unwrap_or(f64::NAN),
            feature: feature.get(i).copied().unwrap_or(0),
            child: child.get(i).copied().unwrap_or(u32::MAX),
        };
        let nodes = (0..feature.len().max(threshold.len()).max(child.len())).map(lacking).collect();
        Self { answer, features, classes, start, roots, nodes, values, importance }
    }
}

/// 1 / (1 + e^−x).
pub(super) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Scores of the classes to their probabilities, without overflow.
pub(super) fn softmax(scores: &mut [f64]) {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|score| *score = (*score - top).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}
