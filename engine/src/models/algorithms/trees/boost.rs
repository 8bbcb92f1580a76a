//! Gradient boosting: each tree follows the gradient that the trees before it left over.
//!
//! The losses are squared error, logistic and softmax (one tree for each class and round). Rows held out for early
//! stopping are chosen by row and seed; the trees after the best round on them are cut off.

use std::sync::Mutex;

use super::Target;
use super::bins::Binned;
use super::cells::{Cell, Fixed, Rule};
use super::draw;
use super::leafwise::{Grown, Leafwise, Limits};
use super::options::BoostOptions;
use super::state::{Answer, Tree, Trees, logistic, softmax};
use crate::error::{Error, Result};
use crate::models::algorithms::{FitContext, Step};
use crate::models::chunks::{Chunks, on_threads};

/// Random streams of rows stand apart from those of features.
const ROW_STREAMS: u64 = 1 << 40;
/// Rows from which on gradients are worth a thread.
const ROWS_PER_THREAD: usize = 1 << 17;
/// Parts of the whole work after which the training loss is worked out for progress.
const REPORTS: usize = 10;

/// Fits gradient-boosted trees.
///
/// # Errors
/// User: no rows, one class, nothing left to train on or to hold out. External: the training rows cannot be read.
pub fn fit_boost(data: &Chunks, target: Target, options: &BoostOptions, context: &FitContext<'_>) -> Result<Trees> {
    let binned = Binned::new(data, target, options.max_bins, context)?;
    let (train, held) = hold_out(binned.rows(), options, context.seed)?;
    let loss = Loss::new(&binned, target, train.as_deref());
    let outputs = loss.start.len();
    let limits = Limits { max_depth: options.max_depth, max_leaves: options.max_leaves, learning_rate: options.learning_rate };
    let threads = context.threads.max(1);
    let growers = threads.min(loss.active.len());
    let of_grower = || (Leafwise::new(&binned.columns, limits, threads / growers), vec![Cell::default(); binned.rows()]);
    let growers = Mutex::new((0..growers).map(|_| of_grower()).collect::<Vec<_>>());
    let scores: Vec<Mutex<Vec<f64>>> = loss.start.iter().map(|start| Mutex::new(vec![*start; binned.rows()])).collect();
    let (all_features, all_rows): (Vec<usize>, Vec<u32>) = ((0..binned.columns.len()).collect(), (0..binned.rows() as u32).collect());
    let (mut trees, mut best) = (vec![], (f64::INFINITY, 0));

    for round in 0..options.trees {
        let trained = train.as_deref().unwrap_or(&all_rows);
        let drawn = (options.subsample < 1.0).then(|| {
            let mut random = draw::stream(context.seed, ROW_STREAMS + round as u64);
            draw::some(trained, draw::part(trained.len(), options.subsample), &mut random)
        });
        let rows = drawn.as_deref().or(train.as_deref());
        let others = rows.map(|rows| without(binned.rows(), rows));
        let probabilities = if outputs > 1 { class_probabilities(&scores) } else { vec![] };
        let grown = on_threads(threads, &loss.active, |_, output| {
            let mut features = all_features.clone();
            if options.feature_fraction < 1.0 {
                let mut random = draw::stream(context.seed, (round * outputs + output) as u64);
                features = draw::some(&features, draw::part(features.len(), options.feature_fraction), &mut random);
            }
            let (mut grower, mut cells) = growers.lock().expect("no panic while locked").pop().expect("a grower for each thread");
            let mut scores = scores[*output].lock().expect("no panic while locked");
            let fixed = loss.gradients(*output, &scores, &probabilities, threads / threads.min(loss.active.len()), &mut cells);
            let rule = Rule {
                fixed,
                min_rows: options.min_leaf_rows as u64,
                min_weight: (options.min_leaf_weight * fixed.weight_scale).max(0.5),
                l2: options.l2 * fixed.weight_scale,
            };
            let grown: Grown = grower.grow(rows, &cells, &features, &rule);
            grower.add(&grown, &mut scores);
            if let Some(others) = &others {
                grown.walk(&binned.columns, others, &mut scores);
            }
            growers.lock().expect("no panic while locked").push((grower, cells));
            grown.tree
        });
        let mut grown = loss.active.iter().zip(grown).peekable();
        trees.extend((0..outputs).map(|output| match grown.next_if(|(active, _)| **active == output) {
            Some((_, tree)) => tree,
            None => Tree::constant(binned.columns.len(), 0.0),
        }));

        let report = (round + 1) % options.trees.div_ceil(REPORTS) == 0 || round + 1 == options.trees;
        let measured = match &held {
            Some(held) => Some(loss.of(held, &scores)),
            None => report.then(|| loss.of(trained, &scores)),
        };
        (context.progress)(Step { unit: "tree", done: round + 1, of: options.trees, loss: measured });
        if held.is_some() {
            let now = measured.expect("rows held out are measured each round");
            if now < best.0 {
                best = (now, round);
            } else if round - best.1 >= options.early_stopping_rounds {
                break;
            }
        }
    }
    if held.is_some() {
        trees.truncate((best.1 + 1) * outputs);
    }
    Trees::new(Answer::Sum, binned.columns.len(), target, loss.start, trees)
}

/// Some rows, in order; none where that is all of them, or nobody asks.
type RowList = Option<Vec<u32>>;

/// The rows to train on and those held out, where it may stop early.
fn hold_out(rows: usize, options: &BoostOptions, seed: u64) -> Result<(RowList, RowList)> {
    if options.early_stopping_rounds == 0 {
        return Ok((None, None));
    }
    let line = (options.validation_fraction * 2f64.powi(64)) as u64;
    let (held, train): (Vec<u32>, Vec<u32>) = (0..rows as u32).partition(|row| mixed(seed, u64::from(*row)) < line);
    if held.is_empty() || train.is_empty() {
        let e = Error::user(format!("the option 'validation_fraction' leaves {} of {rows} rows to train on", train.len()));
        return Err(e.help("give more rows, or set 'early_stopping_rounds' = '0'"));
    }
    Ok((Some(train), Some(held)))
}

/// Bits that hang on each bit of both numbers (the finish of splitmix64).
fn mixed(seed: u64, row: u64) -> u64 {
    let mut x = seed.wrapping_add(row.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The rows that are not in `rows`, which are in order.
fn without(all: usize, rows: &[u32]) -> Vec<u32> {
    let mut taken = rows.iter().peekable();
    (0..all as u32).filter(|row| taken.next_if_eq(&row).is_none()).collect()
}

/// Softmax of each row's scores, by class.
fn class_probabilities(scores: &[Mutex<Vec<f64>>]) -> Vec<Vec<f64>> {
    let scores: Vec<_> = scores.iter().map(|scores| scores.lock().expect("no panic while locked")).collect();
    let mut all: Vec<Vec<f64>> = scores.iter().map(|scores| vec![0.0; scores.len()]).collect();
    let mut row = vec![0.0; scores.len()];
    for i in 0..scores[0].len() {
        row.iter_mut().zip(&scores).for_each(|(to, from)| *to = from[i]);
        softmax(&mut row);
        all.iter_mut().zip(&row).for_each(|(to, from)| to[i] = *from);
    }
    all
}

/// What is made small.
struct Loss<'a> {
    binned: &'a Binned,
    target: Target,
    /// The best constant, one for each output.
    start: Vec<f64>,
    /// The outputs that trees are grown for: of classes those that have rows, and of two such the second alone
    /// (two trees that pull one difference apart would learn at twice the rate).
    active: Vec<usize>,
    weight: f64,
}

impl<'a> Loss<'a> {
    fn new(binned: &'a Binned, target: Target, train: Option<&[u32]>) -> Self {
        let mut sums = vec![0.0; if let Target::Classes(n) = target { n } else { 1 }];
        let mut weight = 0.0;
        let mut add = |row: usize| {
            let (y, w) = (binned.y[row], binned.w[row]);
            weight += w;
            match target {
                Target::Number => sums[0] += y * w,
                Target::Classes(_) => sums[y as usize] += w,
            }
        };
        match train {
            Some(rows) => rows.iter().for_each(|row| add(*row as usize)),
            None => (0..binned.rows()).for_each(add),
        }
        // A class that is in no row that is trained on is not quite impossible.
        let share = |sum: f64| (sum / weight).clamp(1e-12, 1.0 - 1e-12);
        let present: Vec<usize> = (0..sums.len()).filter(|class| sums[*class] > 0.0).collect();
        let (start, active) = match (target, &present[..]) {
            (Target::Number, _) => (vec![sums[0] / weight], vec![0]),
            (Target::Classes(2), _) => (vec![(share(sums[1]) / (1.0 - share(sums[1]))).ln()], vec![0]),
            (Target::Classes(_), [_, second]) => (sums.iter().map(|sum| share(*sum).ln()).collect(), vec![*second]),
            (Target::Classes(_), _) => (sums.iter().map(|sum| share(*sum).ln()).collect(), present),
        };
        Self { binned, target, start, active, weight: binned.w.iter().sum() }
    }

    /// Fills the `cells` with first and second derivatives, and says how they are scaled.
    fn gradients(&self, output: usize, scores: &[f64], probabilities: &[Vec<f64>], threads: usize, cells: &mut [Cell]) -> Fixed {
        let Binned { y, w, .. } = self.binned;
        let rows = cells.len();
        match self.target {
            Target::Number => {
                let sum = scores.iter().zip(y).zip(w).map(|((score, y), w)| (score - y).abs() * w).sum();
                let fixed = Fixed::new(rows, sum, self.weight);
                fill(cells, threads, |i| fixed.cell((scores[i] - y[i]) * w[i], w[i]));
                fixed
            }
            // |p − y| is 1 at most, p (1 − p) a quarter.
            Target::Classes(2) => {
                let fixed = Fixed::new(rows, self.weight, self.weight / 4.0);
                fill(cells, threads, |i| {
                    let p = logistic(scores[i]);
                    fixed.cell((p - y[i]) * w[i], p * (1.0 - p) * w[i])
                });
                fixed
            }
            Target::Classes(_) => {
                let (p, class) = (&probabilities[output], output as f64);
                // Friedman's factor: each class's tree moves all the others too, so a full step would be too long.
                let others = self.active.len() as f64 - 1.0;
                let factor = if others > 0.0 { (others + 1.0) / others } else { 1.0 };
                let fixed = Fixed::new(rows, self.weight, self.weight / 4.0 * factor);
                fill(cells, threads, |i| {
                    let is = if y[i] == class { 1.0 } else { 0.0 };
                    fixed.cell((p[i] - is) * w[i], p[i] * (1.0 - p[i]) * w[i] * factor)
                });
                fixed
            }
        }
    }

    /// The mean loss of `rows`: squared error, or minus the logarithm of the true class's probability.
    fn of(&self, rows: &[u32], scores: &[Mutex<Vec<f64>>]) -> f64 {
        let scores: Vec<_> = scores.iter().map(|scores| scores.lock().expect("no panic while locked")).collect();
        let (mut sum, mut weight) = (0.0, 0.0);
        let mut of_row = vec![0.0; scores.len()];
        for row in rows {
            let row = *row as usize;
            let (y, w) = (self.binned.y[row], self.binned.w[row]);
            of_row.iter_mut().zip(&scores).for_each(|(to, from)| *to = from[row]);
            let loss = match self.target {
                Target::Number => (of_row[0] - y) * (of_row[0] - y),
                Target::Classes(2) => {
                    let against = if y == 1.0 { -of_row[0] } else { of_row[0] };
                    against.max(0.0) + (-against.abs()).exp().ln_1p()
                }
                Target::Classes(_) => {
                    let top = of_row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    top - of_row[y as usize] + of_row.iter().map(|score| (score - top).exp()).sum::<f64>().ln()
                }
            };
            sum += loss * w;
            weight += w;
        }
        sum / weight
    }
}

/// Fills each cell from its row's number, on threads where they are many.
fn fill(cells: &mut [Cell], threads: usize, cell: impl Fn(usize) -> Cell + Sync) {
    let threads = threads.min(cells.len() / ROWS_PER_THREAD).max(1);
    let of = |first: usize, cells: &mut [Cell]| cells.iter_mut().enumerate().for_each(|(i, to)| *to = cell(first + i));
    if threads == 1 {
        return of(0, cells);
    }
    let each = cells.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for (t, cells) in cells.chunks_mut(each).enumerate() {
            let of = &of;
            scope.spawn(move || of(t * each, cells));
        }
    });
}
