//! One decision tree, and a forest of them on bootstrap samples.
//!
//! A tree of a forest has its own random numbers (its place is their stream), so trees grow on any thread and are
//! the same. Rows drawn several times are one row with that weight.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Target;
use super::bins::Binned;
use super::cells::{Cell, Fixed};
use super::deep::{Deep, Limits};
use super::draw;
use super::measure::{Classes, Measure, Numbers};
use super::options::{ForestOptions, TreeOptions};
use super::state::{Answer, Tree, Trees};
use crate::error::Result;
use crate::models::algorithms::{FitContext, Step};
use crate::models::chunks::{Chunks, on_threads};

/// Fits one decision tree: by Gini impurity for classes, by least squares for numbers.
///
/// # Errors
/// User: no rows, one class. External: the training rows cannot be read.
pub fn fit_tree(data: &Chunks, target: Target, options: &TreeOptions, context: &FitContext<'_>) -> Result<Trees> {
    let features_per_split = data.features();
    let limits = Limits {
        max_depth: options.max_depth,
        max_leaves: options.max_leaves,
        min_split_rows: options.min_split_rows,
        min_leaf_rows: options.min_leaf_rows,
        features_per_split,
    };
    fit(data, target, &Plan { trees: 1, limits, sample: None, max_bins: options.max_bins }, context)
}

/// Fits a random forest: its answer is the mean of its trees.
///
/// # Errors
/// User: no rows, one class. External: the training rows cannot be read.
pub fn fit_forest(data: &Chunks, target: Target, options: &ForestOptions, context: &FitContext<'_>) -> Result<Trees> {
    let features = data.features();
    let share = match (options.feature_fraction, target) {
        (Some(fraction), _) => features as f64 * fraction,
        (None, Target::Classes(_)) => (features as f64).sqrt(),
        (None, Target::Number) => features as f64,
    };
    let limits = Limits {
        max_depth: options.max_depth,
        max_leaves: options.max_leaves,
        min_split_rows: options.min_split_rows,
        min_leaf_rows: options.min_leaf_rows,
        features_per_split: (share as usize).clamp(1, features.max(1)),
    };
    let sample = Some(Sample { bootstrap: options.bootstrap, share: options.subsample });
    fit(data, target, &Plan { trees: options.trees, limits, sample, max_bins: options.max_bins }, context)
}

struct Plan {
    trees: usize,
    limits: Limits,
    sample: Option<Sample>,
    max_bins: usize,
}

#[derive(Clone, Copy)]
struct Sample {
    bootstrap: bool,
    share: f64,
}

fn fit(data: &Chunks, target: Target, plan: &Plan, context: &FitContext<'_>) -> Result<Trees> {
    let binned = Binned::new(data, target, plan.max_bins, context)?;
    let (rows, weights) = (binned.rows(), bound(plan, binned.w.iter().copied(), binned.rows()));
    match target {
        Target::Classes(classes) if classes > 2 => {
            let fixed = Fixed::new(rows, 1.0, weights);
            let cell = |row: usize, times: f64| Cell { sum: binned.y[row] as i64, ..fixed.cell(0.0, binned.w[row] * times) };
            grow(&binned, target, plan, context, fixed, &cell, &|| Classes::new(classes))
        }
        _ => {
            // Numbers stand around 0 for the sake of their precision; class labels are whole as they are.
            let middle = if target == Target::Number { binned.mean() } else { 0.0 };
            let numbers = binned.y.iter().zip(&binned.w).map(|(y, w)| (y - middle).abs() * w);
            let fixed = Fixed::new(rows, bound(plan, numbers, rows), weights);
            let cell = |row: usize, times: f64| {
                let weight = binned.w[row] * times;
                fixed.cell((binned.y[row] - middle) * weight, weight)
            };
            grow(&binned, target, plan, context, fixed, &cell, &|| Numbers::new(middle))
        }
    }
}

/// What the numbers (`each`) of any sample sum to at most: drawn with replacement, the greatest may come each time.
fn bound(plan: &Plan, each: impl Iterator<Item = f64> + Clone, rows: usize) -> f64 {
    if plan.sample.is_some_and(|sample| sample.bootstrap) { each.fold(0.0, f64::max) * rows as f64 } else { each.sum() }
}

fn grow<M: Measure>(
    binned: &Binned,
    target: Target,
    plan: &Plan,
    context: &FitContext<'_>,
    fixed: Fixed,
    cell: &(impl Fn(usize, f64) -> Cell + Sync),
    measure: &(impl Fn() -> M + Sync),
) -> Result<Trees> {
    let done = AtomicUsize::new(0);
    let numbers: Vec<usize> = (0..plan.trees).collect();
    let trees: Vec<Tree> = on_threads(context.threads, &numbers, |_, number| {
        let mut random = draw::stream(context.seed, *number as u64);
        let all = || (0..binned.rows() as u32).collect::<Vec<_>>();
        let once = |rows: &[u32]| rows.iter().map(|row| cell(*row as usize, 1.0)).collect();
        let (rows, cells) = match plan.sample {
            None => (all(), once(&all())),
            Some(Sample { bootstrap: true, share }) => {
                let (rows, times) = draw::bootstrap(binned.rows(), draw::part(binned.rows(), share), &mut random);
                let cells = rows.iter().zip(times).map(|(row, times)| cell(*row as usize, f64::from(times))).collect();
                (rows, cells)
            }
            Some(Sample { bootstrap: false, share }) => {
                let rows = draw::some(&all(), draw::part(binned.rows(), share), &mut random);
                let cells = once(&rows);
                (rows, cells)
            }
        };
        let tree = Deep::new(&binned.columns, measure(), plan.limits, fixed).grow(rows, cells, &mut random);
        (context.progress)(Step { unit: "tree", done: done.fetch_add(1, Ordering::Relaxed) + 1, of: plan.trees, loss: None });
        tree
    });
    Trees::new(Answer::Mean, binned.columns.len(), target, vec![], trees)
}
