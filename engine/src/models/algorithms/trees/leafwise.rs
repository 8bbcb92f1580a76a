//! A small tree grown leaf by leaf, the one that gains most first, with the histograms of its open leaves kept.
//!
//! ```text
//!  parent ─┬─ the child of fewer rows: its histogram is summed
//!          └─ the other one: parent − sibling, to the last bit, because cells are integers
//! ```
//!
//! A feature that cannot be cut in a node cannot be cut below it either (counts and weights only shrink), so the
//! children do not look at it again. Where there is much to sum the features are shared out among threads; each
//! feature's histogram is summed and searched by one of them, and the best is chosen in the order of features.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::bins::{Column, MISSING};
use super::cells::{Cell, Cut, Rule, Scan, accumulate};
use super::state::Tree;

/// Cells to sum from which on threads are worth their start.
const CELLS_PER_THREAD: usize = 1 << 19;

/// Where a tree ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub max_depth: usize,
    pub max_leaves: usize,
    /// What a leaf's value is multiplied by.
    pub learning_rate: f64,
}

/// Grows trees one after the other in the same buffers.
pub(super) struct Leafwise<'a> {
    columns: &'a [Column],
    /// Where each feature's cells begin in a histogram, and where the last one's end.
    offsets: Vec<usize>,
    limits: Limits,
    threads: usize,
    /// The rows of the tree, those of a leaf side by side.
    rows: Vec<u32>,
    spare: Vec<u32>,
    /// The cells of a leaf's rows, side by side.
    gathered: Vec<Cell>,
    scans: Vec<Scan>,
    unused: Vec<Vec<Cell>>,
}

/// A tree that has grown.
pub(super) struct Grown {
    pub tree: Tree,
    /// The last bin that goes left at each node, for rows in bins.
    cut_bins: Vec<u8>,
    leaves: Vec<Range<usize>>,
}

/// A leaf that may be split.
struct Open {
    node: u32,
    rows: Range<usize>,
    depth: usize,
    total: Cell,
    histogram: Vec<Cell>,
    /// The features that can be cut here.
    features: Vec<usize>,
    feature: usize,
    cut: Cut,
    gain: f64,
}

/// A node whose histogram is to be searched.
struct Fresh {
    node: u32,
    rows: Range<usize>,
    depth: usize,
    total: Cell,
}

impl<'a> Leafwise<'a> {
    pub fn new(columns: &'a [Column], limits: Limits, threads: usize) -> Self {
        let mut offsets = vec![0];
        columns.iter().for_each(|column| offsets.push(offsets[offsets.len() - 1] + column.missing() + 1));
        let scans = (0..threads.max(1)).map(|_| Scan::new()).collect();
        Self { columns, offsets, limits, threads, rows: vec![], spare: vec![], gathered: vec![], scans, unused: vec![] }
    }

    /// A tree over `rows` (`None`: all of them) that looks at `features`; `cells` are those of all rows.
    pub fn grow(&mut self, rows: Option<&[u32]>, cells: &[Cell], features: &[usize], rule: &Rule) -> Grown {
        self.rows.clear();
        match rows {
            Some(rows) => self.rows.extend_from_slice(rows),
            None => self.rows.extend(0..cells.len() as u32),
        }
        self.spare.resize(self.rows.len(), 0);
        let mut tree = Tree::new(self.columns.len());
        let (mut cut_bins, mut closed, mut open) = (vec![0], vec![], BinaryHeap::new());
        let mut total = Cell::default();
        self.rows.iter().for_each(|row| total.add(cells[*row as usize]));
        let root = Fresh { node: 0, rows: 0..self.rows.len(), depth: 0, total };
        if self.may_split(&root, rule) {
            let mut histogram = self.unused();
            let all = if rows.is_none() { Rows::All } else { Rows::Of(root.rows.clone()) };
            let (cuts, _) = self.search(features, cells, all, (&mut histogram, Some(total)), None, rule);
            self.judge(root, histogram, cuts, rule, &mut open, &mut closed);
        } else {
            closed.push((root.node, root.rows, root.total));
        }
        while open.len() + closed.len() < self.limits.max_leaves {
            let Some(leaf) = open.pop() else { break };
            let Open { node, rows, depth, total, histogram: mut parent, features, feature, cut, gain } = leaf;
            let column = &self.columns[feature];
            let left_node = tree.split(node, feature, column.threshold(cut.last_left), cut.missing_left, gain);
            cut_bins.resize(tree.len(), 0);
            cut_bins[node as usize] = cut.last_left as u8;

            let of_feature = &parent[self.offsets[feature]..self.offsets[feature + 1]];
            let mut left_total = Cell::default();
            of_feature[..=cut.last_left].iter().for_each(|cell| left_total.add(*cell));
            if cut.missing_left {
                left_total.add(of_feature[column.missing()]);
            }
            let middle = rows.start + self.part(column, cut, rows.clone());
            let left = Fresh { node: left_node, rows: rows.start..middle, depth: depth + 1, total: left_total };
            let right = Fresh { node: left_node + 1, rows: middle..rows.end, depth: depth + 1, total: total.minus(left_total) };
            let (small, large) = if left.rows.len() <= right.rows.len() { (left, right) } else { (right, left) };
            let full = open.len() + closed.len() + 2 >= self.limits.max_leaves;
            if full || !self.may_split(&large, rule) {
                closed.extend([(small.node, small.rows, small.total), (large.node, large.rows, large.total)]);
                self.unused.push(parent);
                continue;
            }
            let mut own = self.unused();
            let small_total = self.may_split(&small, rule).then_some(small.total);
            let of = Rows::Of(small.rows.clone());
            let (small_cuts, large_cuts) =
                self.search(&features, cells, of, (&mut own, small_total), Some((&mut parent, large.total)), rule);
            self.judge(small, own, small_cuts, rule, &mut open, &mut closed);
            self.judge(large, parent, large_cuts, rule, &mut open, &mut closed);
        }
        for Open { node, rows, total, histogram, .. } in open.into_vec() {
            closed.push((node, rows, total));
            self.unused.push(histogram);
        }
        // In the order of nodes, which is that of their making.
        closed.sort_unstable_by_key(|(node, _, _)| *node);
        let mut leaves = Vec::with_capacity(closed.len());
        for (number, (node, rows, total)) in closed.into_iter().enumerate() {
            tree.leaf(node, number as u32);
            let weight = rule.fixed.weight(total) + rule.l2 / rule.fixed.weight_scale;
            tree.values.push(if weight > 0.0 { -rule.fixed.sum(total) / weight * self.limits.learning_rate } else { 0.0 });
            leaves.push(rows);
        }
        Grown { tree, cut_bins, leaves }
    }

    /// Adds the values of the leaves to the scores of the rows of the tree that grew last.
    pub fn add(&self, grown: &Grown, scores: &mut [f64]) {
        for (rows, value) in grown.leaves.iter().zip(&grown.tree.values) {
            self.rows[rows.clone()].iter().for_each(|row| scores[*row as usize] += value);
        }
    }

    fn may_split(&self, node: &Fresh, rule: &Rule) -> bool {
        node.depth < self.limits.max_depth && rule.fixed.count(node.total) >= 2 * rule.min_rows
    }

    fn unused(&mut self) -> Vec<Cell> {
        self.unused.pop().unwrap_or_else(|| vec![Cell::default(); self.offsets[self.columns.len()]])
    }

    /// Files a node by what the search found: open with its best cut, or closed.
    fn judge(
        &mut self,
        node: Fresh,
        histogram: Vec<Cell>,
        cuts: Cuts,
        rule: &Rule,
        open: &mut BinaryHeap<Open>,
        closed: &mut Vec<(u32, Range<usize>, Cell)>,
    ) {
        let Fresh { node, rows, depth, total } = node;
        let sum = rule.fixed.scaled_sum(total);
        let uncut = sum * sum / (rule.fixed.scaled_weight(total) + rule.l2);
        let mut best: Option<(usize, Cut)> = None;
        for (feature, cut) in &cuts {
            if best.is_none_or(|(_, best)| cut.score > best.score) {
                best = Some((*feature, *cut));
            }
        }
        // A gain within the rounding of its two terms is none.
        match best.filter(|(_, cut)| cut.score - uncut > 1e-13 * cut.score) {
            Some((feature, cut)) => {
                let features = cuts.into_iter().map(|(feature, _)| feature).collect();
                let gain = (cut.score - uncut) * rule.fixed.gain_scale();
                open.push(Open { node, rows, depth, total, histogram, features, feature, cut, gain });
            }
            None => {
                closed.push((node, rows, total));
                self.unused.push(histogram);
            }
        }
    }

    /// Sums the histogram of `rows` into `own`, takes it off `parent`, and searches both for cuts (where their totals
    /// are given): for each the features that can be cut, in order.
    fn search(
        &mut self,
        features: &[usize],
        cells: &[Cell],
        rows: Rows,
        own: (&mut [Cell], Option<Cell>),
        parent: Option<(&mut [Cell], Cell)>,
        rule: &Rule,
    ) -> (Cuts, Cuts) {
        let rows = match rows {
            Rows::All => None,
            Rows::Of(range) => {
                let rows = &self.rows[range];
                self.gathered.clear();
                self.gathered.extend(rows.iter().map(|row| cells[*row as usize]));
                Some(rows)
            }
        };
        let cells = if rows.is_some() { &self.gathered[..] } else { cells };
        let job = Job {
            columns: self.columns,
            offsets: &self.offsets,
            rows,
            cells,
            own_total: own.1,
            parent_total: parent.as_ref().map(|p| p.1),
            rule,
        };
        let (own, parent) = (own.0, parent.map(|p| p.0));
        let threads = self.threads.min(features.len()).min(cells.len() * features.len() / CELLS_PER_THREAD + 1);
        if threads <= 1 {
            return job.run(features, 0, own, parent, &mut self.scans[0]);
        }
        // Neighbouring features to each thread, with their stretch of both histograms.
        let groups: Vec<&[usize]> = features.chunks(features.len().div_ceil(threads)).collect();
        let (mut own, mut parent, mut at) = (own, parent, 0);
        std::thread::scope(|scope| {
            let mut workers = vec![];
            for (group, scan) in groups.into_iter().zip(&mut self.scans) {
                let end = self.offsets[group[group.len() - 1] + 1];
                let (mine, rest) = own.split_at_mut(end - at);
                own = rest;
                let mine_of_parent = parent.take().map(|all| {
                    let (mine, rest) = all.split_at_mut(end - at);
                    parent = Some(rest);
                    mine
                });
                let (job, base) = (&job, at);
                workers.push(scope.spawn(move || job.run(group, base, mine, mine_of_parent, scan)));
                at = end;
            }
            let (mut of_own, mut of_parent) = (vec![], vec![]);
            for worker in workers {
                let (own, parent) = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                of_own.extend(own);
                of_parent.extend(parent);
            }
            (of_own, of_parent)
        })
    }

    /// Brings the rows of the left side to the front, in order on both sides, and answers how many they are.
    fn part(&mut self, column: &Column, cut: Cut, range: Range<usize>) -> usize {
        let mut goes_left = [0u8; MISSING + 1];
        goes_left[..=cut.last_left].fill(1);
        goes_left[column.missing()] = u8::from(cut.missing_left);
        let rows = &mut self.rows[range];
        let spare = &mut self.spare[..rows.len()];
        let (mut left, mut right) = (0, 0);
        for i in 0..rows.len() {
            let row = rows[i];
            let goes = usize::from(goes_left[usize::from(column.bins[row as usize])]);
            rows[left] = row;
            spare[right] = row;
            left += goes;
            right += 1 - goes;
        }
        rows[left..].copy_from_slice(&spare[..right]);
        left
    }
}

impl Grown {
    /// Adds the values of the leaves where other `rows` end.
    pub fn walk(&self, columns: &[Column], rows: &[u32], scores: &mut [f64]) {
        for row in rows {
            let leaf = self.tree.walk(|node, feature, missing_left| {
                let bin = columns[feature].bins[*row as usize];
                if usize::from(bin) == columns[feature].missing() { missing_left } else { bin <= self.cut_bins[node] }
            });
            scores[*row as usize] += self.tree.values[leaf];
        }
    }
}

/// The features that can be cut, in order, each with its best cut.
type Cuts = Vec<(usize, Cut)>;

/// Which rows' cells are summed.
enum Rows {
    /// All there are: no list of them is read.
    All,
    /// Those that stand there in [`Leafwise::rows`].
    Of(Range<usize>),
}

/// What is done for each feature.
struct Job<'a> {
    columns: &'a [Column],
    offsets: &'a [usize],
    rows: Option<&'a [u32]>,
    cells: &'a [Cell],
    own_total: Option<Cell>,
    parent_total: Option<Cell>,
    rule: &'a Rule,
}

impl Job<'_> {
    /// `own` and `parent` begin at cell `base` of the histograms.
    fn run(&self, features: &[usize], base: usize, own: &mut [Cell], mut parent: Option<&mut [Cell]>, scan: &mut Scan) -> (Cuts, Cuts) {
        let (mut of_own, mut of_parent) = (vec![], vec![]);
        let place = |feature: usize| self.offsets[feature] - base..self.offsets[feature + 1] - base;
        for pair in features.chunks(2) {
            pair.iter().for_each(|feature| own[place(*feature)].fill(Cell::default()));
            let (one, rest) = own.split_at_mut(place(pair[0]).end);
            let skipped = one.len();
            let two = pair.get(1).map(|second| {
                let at = place(*second);
                (&mut rest[at.start - skipped..at.end - skipped], &self.columns[*second].bins[..])
            });
            accumulate((&mut one[place(pair[0])], &self.columns[pair[0]].bins), two, self.rows, self.cells);
        }
        for feature in features {
            let (mine, place) = (&own[place(*feature)], place(*feature));
            let mut search = |histogram: &[Cell], total: Cell, found: &mut Cuts| {
                let (missing, values) = histogram.split_last().expect("a bin of missing values");
                found.extend(scan.best(values, *missing, total, self.rule).map(|cut| (*feature, cut)));
            };
            if let Some(total) = self.own_total {
                search(mine, total, &mut of_own);
            }
            if let (Some(parent), Some(total)) = (parent.as_deref_mut(), self.parent_total) {
                let other = &mut parent[place];
                other.iter_mut().zip(mine.iter()).for_each(|(other, mine)| *other = other.minus(*mine));
                search(other, total, &mut of_parent);
            }
        }
        (of_own, of_parent)
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Open {}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By gain, then the older node first.
impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        self.gain.total_cmp(&other.gain).then(other.node.cmp(&self.node))
    }
}
