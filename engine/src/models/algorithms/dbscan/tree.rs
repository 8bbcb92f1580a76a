//! A k-d tree whose rows can be taken out: for rows of few columns.

use super::Neighbours;
use crate::models::algorithms::rows::squared_distance;
use crate::models::chunks::on_threads;

/// Rows of a leaf, at most.
const LEAF_ROWS: usize = 24;
/// Rows whose neighbours are counted as one piece of work.
const PIECE_ROWS: usize = 1024;
/// Columns between two looks at whether a row is already too far.
const COLUMNS_AT_ONCE: usize = 16;

/// The tree. A row's place is where the tree put it.
pub(super) struct Tree {
    reach: f64,
    /// The place of each row.
    place: Vec<usize>,
    features: usize,
    /// The row at each place.
    order: Vec<usize>,
    /// The values, by place.
    x: Vec<f64>,
    /// The weights, by place.
    w: Vec<f64>,
    there: Vec<bool>,
    /// Parents before their children.
    nodes: Vec<Node>,
    /// For each node the lowest value of each column, then the highest.
    boxes: Vec<f64>,
    /// The leaf of each place.
    leaf: Vec<usize>,
}

struct Node {
    first: usize,
    end: usize,
    /// The children, where it is no leaf.
    children: Option<(usize, usize)>,
    parent: usize,
    weight: f64,
    /// Rows that have not been taken out.
    left: usize,
}

impl Tree {
    /// A tree of rows of `features` columns, for neighbours within `reach` (squared).
    pub fn new(x: &[f64], w: &[f64], features: usize, reach: f64) -> Self {
        let rows = w.len();
        let mut tree = Self {
            reach,
            place: vec![0; rows],
            features,
            order: (0..rows).collect(),
            x: vec![],
            w: vec![],
            there: vec![true; rows],
            nodes: vec![],
            boxes: vec![],
            leaf: vec![0; rows],
        };
        // (first, end, parent) of nodes to make.
        let mut open = vec![(0, rows, 0)];
        while let Some((first, end, parent)) = open.pop() {
            let me = tree.nodes.len();
            if me > 0 {
                // The left child is made right after its parent, the right one later.
                let children = &mut tree.nodes[parent].children;
                *children = Some(children.map_or((me, me), |(left, _)| (left, me)));
            }
            let rows = &mut tree.order[first..end];
            let mut low = vec![f64::INFINITY; features];
            let mut high = vec![f64::NEG_INFINITY; features];
            for row in rows.iter() {
                for (j, v) in x[row * features..(row + 1) * features].iter().enumerate() {
                    (low[j], high[j]) = (low[j].min(*v), high[j].max(*v));
                }
            }
            let weight = rows.iter().map(|row| w[*row]).sum();
            let widest = (0..features).max_by(|a, b| (high[*a] - low[*a]).total_cmp(&(high[*b] - low[*b])));
            let split = widest.filter(|j| end - first > LEAF_ROWS && high[*j] > low[*j]);
            if let Some(j) = split {
                let middle = (end - first) / 2;
                rows.select_nth_unstable_by(middle, |a, b| x[a * features + j].total_cmp(&x[b * features + j]).then(a.cmp(b)));
                open.push((first + middle, end, me));
                open.push((first, first + middle, me));
            } else {
                tree.leaf[first..end].fill(me);
            }
            tree.nodes.push(Node { first, end, children: None, parent, weight, left: end - first });
            tree.boxes.extend(low.into_iter().chain(high));
        }
        tree.x = tree.order.iter().flat_map(|row| &x[row * features..(row + 1) * features]).copied().collect();
        tree.w = tree.order.iter().map(|row| w[*row]).collect();
        tree.order.iter().enumerate().for_each(|(at, row)| tree.place[*row] = at);
        tree
    }

    fn row(&self, at: usize) -> &[f64] {
        &self.x[at * self.features..(at + 1) * self.features]
    }

    /// The squared distances from the row at `at` to the nearest and the farthest point of a node's box.
    fn span(&self, node: usize, row: &[f64]) -> (f64, f64) {
        let (low, high) = self.boxes[2 * node * self.features..2 * (node + 1) * self.features].split_at(self.features);
        let (mut nearest, mut farthest) = (0.0, 0.0);
        for ((v, low), high) in row.iter().zip(low).zip(high) {
            let (below, above) = (low - v, v - high);
            let out = below.max(above).max(0.0);
            // The farther wall is behind the nearer one.
            let across = (-below).max(-above);
            nearest += out * out;
            farthest += across * across;
        }
        (nearest, farthest)
    }

    /// Whether rows of weight `enough` in all are within `reach` (squared) of the row at `at`.
    fn has_within(&self, at: usize, reach: f64, enough: f64, stack: &mut Vec<usize>) -> bool {
        let row = self.row(at);
        let mut weight = 0.0;
        stack.clear();
        // Its own leaf first: in a dense region that is all there is to look at.
        let own = self.leaf[at];
        weight += self.weight_in(own, row, reach);
        if weight >= enough {
            return true;
        }
        stack.push(0);
        while let Some(node) = stack.pop() {
            if node == own {
                continue;
            }
            let (nearest, farthest) = self.span(node, row);
            if nearest > reach {
                continue;
            }
            let Node { first, end, children, weight: whole, .. } = self.nodes[node];
            let holds_own = (first..end).contains(&at);
            match children {
                _ if farthest <= reach && !holds_own => weight += whole,
                Some((left, right)) => stack.extend([right, left]),
                None => weight += self.weight_in(node, row, reach),
            }
            if weight >= enough {
                return true;
            }
        }
        false
    }

    fn weight_in(&self, leaf: usize, row: &[f64], reach: f64) -> f64 {
        let places = self.nodes[leaf].first..self.nodes[leaf].end;
        places.filter(|at| is_near(self.row(*at), row, reach)).map(|at| self.w[at]).sum()
    }

    /// Takes out all rows within `reach` (squared) of the row at `at`, and adds their places to `found`.
    fn take_within(&mut self, at: usize, reach: f64, stack: &mut Vec<usize>, found: &mut Vec<usize>) {
        let first_found = found.len();
        let row = self.row(at);
        stack.clear();
        stack.push(0);
        while let Some(node) = stack.pop() {
            let Node { first, end, children, left, .. } = self.nodes[node];
            if left == 0 {
                continue;
            }
            let (nearest, farthest) = self.span(node, row);
            if nearest > reach {
                continue;
            }
            match children {
                Some((left, right)) if farthest > reach => stack.extend([right, left]),
                _ => {
                    let all = farthest <= reach;
                    let near = |at: &usize| self.there[*at] && (all || is_near(self.row(*at), row, reach));
                    found.extend((first..end).filter(near));
                }
            }
        }
        for at in &found[first_found..] {
            self.take_out(*at);
        }
    }

    fn take_out(&mut self, at: usize) {
        self.there[at] = false;
        let mut node = self.leaf[at];
        loop {
            self.nodes[node].left -= 1;
            if node == 0 {
                break;
            }
            node = self.nodes[node].parent;
        }
    }
}

/// Whether two rows are within `reach` (squared); columns of a wide row are looked at only until it is decided.
fn is_near(a: &[f64], b: &[f64], reach: f64) -> bool {
    let mut squared = 0.0;
    for (a, b) in a.chunks(COLUMNS_AT_ONCE).zip(b.chunks(COLUMNS_AT_ONCE)) {
        squared += squared_distance(a, b);
        if squared > reach {
            return false;
        }
    }
    true
}

impl Neighbours for Tree {
    fn cores(&self, enough: f64, threads: usize) -> Vec<bool> {
        let rows = self.order.len();
        let pieces: Vec<usize> = (0..rows).step_by(PIECE_ROWS).collect();
        let by_place = on_threads(threads, &pieces, |_, first| {
            let mut stack = vec![];
            let places = *first..rows.min(first + PIECE_ROWS);
            places.map(|at| self.has_within(at, self.reach, enough, &mut stack)).collect::<Vec<bool>>()
        });
        let by_place = by_place.concat();
        self.place.iter().map(|at| by_place[*at]).collect()
    }

    fn remove(&mut self, row: usize) {
        self.take_out(self.place[row]);
    }

    fn take(&mut self, row: usize, found: &mut Vec<usize>) {
        let first = found.len();
        self.take_within(self.place[row], self.reach, &mut vec![], found);
        found[first..].iter_mut().for_each(|at| *at = self.order[*at]);
    }
}
