//! DBSCAN: rows with enough neighbours within reach, and what hangs together through them, are a cluster; the rest is
//! noise. For analysis: it labels the rows it saw and leaves nothing behind that could label another.
//!
//! Why ours and not linfa-clustering's: on narrow rows that one is as good, on wide ones (one-hot columns) it took
//! 6 to 14 times the CPU time of scikit-learn, it has no row weights, and it panics on an infinite value. Here a row
//! is no longer looked at when its cluster is known, so a dense region is walked once ([`tree`]), and wide rows are
//! compared by matrix products ([`wide`]). Labels are those of scikit-learn: clusters are numbered by their first
//! core row, and a row on the border of several goes to the first. All rows are in memory at once.

mod tree;
mod wide;

use tree::Tree;
use wide::Wide;

use super::moments::by_class;
use super::{FitContext, Step, limits};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::models::chunks::Chunks;

/// The label of a row that belongs to no cluster.
pub const NOISE: i32 = -1;

/// Up to so many columns a tree finds neighbours sooner than a look at all pairs does.
const NARROW_COLUMNS_MAX: usize = 15;
/// All pairs of so many rows are a quarter of a gigabyte of bits; beyond, the tree is used at any width.
const WIDE_ROWS_MAX: usize = 46_000;

/// What is near, and how many are enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DbscanOptions {
    /// How far a neighbour may be; 0.5 unless said.
    pub eps: f64,
    /// Weight of neighbours, the row itself included, that makes a row a core of its cluster; 5 unless said.
    pub min_points: usize,
}

impl DbscanOptions {
    /// Reads 'eps' and 'min_points'.
    ///
    /// # Errors
    /// User: an option out of its range.
    pub fn from_options(options: &mut Options) -> Result<Self> {
        Ok(Self { eps: limits::above_zero(options, "eps", 0.5)?, min_points: limits::count(options, "min_points", 5, i32::MAX as usize)? })
    }
}

/// The cluster of each row, from 0, or [`NOISE`].
///
/// # Errors
/// User: no rows, more than a label can number, or a value that is not finite; External: the rows cannot be read.
pub fn cluster(chunks: &Chunks, options: &DbscanOptions, ctx: &FitContext<'_>) -> Result<Vec<i32>> {
    let moments = by_class(chunks, 1, ctx.threads)?;
    // The columns that vary most first: they tell soonest that two rows are far apart.
    let mut columns: Vec<usize> = (0..chunks.features()).collect();
    columns.sort_by(|a, b| moments[0].squares[*b].total_cmp(&moments[0].squares[*a]));
    let rows = chunks.rows();
    if rows > i32::MAX as usize {
        return Err(Error::user(format!("{rows} rows are too many for 'dbscan'")).help("take a sample of the rows, or use 'kmeans'"));
    }
    let (mut x, mut w) = (Vec::with_capacity(rows * chunks.features()), Vec::with_capacity(rows));
    chunks.for_each(|_, chunk| {
        for row in chunk.x.rows() {
            x.extend(columns.iter().map(|j| row[*j]));
        }
        w.extend(&chunk.w);
        Ok(())
    })?;
    let reach = options.eps * options.eps;
    let enough = options.min_points as f64;
    let labels = if chunks.features() > NARROW_COLUMNS_MAX && rows <= WIDE_ROWS_MAX {
        labels(Wide::new(x, &w, chunks.features(), reach, ctx.threads), rows, enough, ctx.threads)
    } else {
        labels(Tree::new(&x, &w, chunks.features(), reach), rows, enough, ctx.threads)
    };
    (ctx.progress)(Step { unit: "pass", done: 1, of: 1, loss: None });
    Ok(labels)
}

/// Who is near whom, and who is still without a label.
trait Neighbours {
    /// For each row, whether rows of weight `enough` in all are within reach, itself included.
    fn cores(&self, enough: f64, threads: usize) -> Vec<bool>;

    /// `row` has got its label.
    fn remove(&mut self, row: usize);

    /// Adds the rows within reach of `row` that have no label to `found`; they get it now.
    fn take(&mut self, row: usize, found: &mut Vec<usize>);
}

fn labels(mut near: impl Neighbours, rows: usize, enough: f64, threads: usize) -> Vec<i32> {
    let core = near.cores(enough, threads);
    let mut labels = vec![NOISE; rows];
    let (mut next, mut found) = (0, vec![]);
    for first in 0..rows {
        if !core[first] || labels[first] != NOISE {
            continue;
        }
        labels[first] = next;
        near.remove(first);
        found.push(first);
        while let Some(row) = found.pop() {
            let from = found.len();
            near.take(row, &mut found);
            found[from..].iter().for_each(|row| labels[*row] = next);
            // Those on the border belong to the cluster but do not carry it on.
            let mut kept = from;
            for i in from..found.len() {
                if core[found[i]] {
                    found[kept] = found[i];
                    kept += 1;
                }
            }
            found.truncate(kept);
        }
        next += 1;
    }
    labels
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::models::algorithms::rows::squared_distance;
    use crate::models::algorithms::tests::{chunks_of, context};

    /// By the definition, all pairs.
    fn brute(x: &Array2<f64>, w: &[f64], options: &DbscanOptions) -> Vec<i32> {
        let n = x.nrows();
        let near = |a: usize, b: usize| squared_distance(&x.row(a).to_vec(), &x.row(b).to_vec()) <= options.eps * options.eps;
        let core: Vec<bool> =
            (0..n).map(|a| (0..n).filter(|b| near(a, *b)).map(|b| w[b]).sum::<f64>() >= options.min_points as f64).collect();
        let mut labels = vec![NOISE; n];
        let mut next = 0;
        for first in 0..n {
            if !core[first] || labels[first] != NOISE {
                continue;
            }
            let mut open = vec![first];
            labels[first] = next;
            while let Some(a) = open.pop() {
                for b in (0..n).filter(|b| core[a] && near(a, *b)) {
                    if labels[b] == NOISE {
                        labels[b] = next;
                        open.push(b);
                    }
                }
            }
            next += 1;
        }
        labels
    }

    #[test]
    fn labels_are_those_of_the_definition_at_any_thread_count() {
        // Three arcs of different density, noise between, many equal rows.
        let x = Array2::from_shape_fn((900, 3), |(i, j)| {
            let t = (i / 3) as f64 * 0.0171;
            let noise = ((i * 7919 + j * 104_729) as f64 * 0.618_033_988).fract() - 0.5;
            match i % 3 {
                0 => [t.cos(), t.sin(), 0.0][j] + 0.1 * noise,
                1 => 2.0 + (0.2 * noise * 10.0).round() / 10.0,
                _ => 8.0 * noise,
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        for (eps, min_points) in [(0.15, 5), (0.4, 12), (0.05, 2), (1.0, 40)] {
            let options = DbscanOptions { eps, min_points };
            for w in [vec![1.0; 900], (0..900).map(|i| 1.0 + (i % 2) as f64).collect()] {
                let expected = brute(&x, &w, &options);
                // The same rows in more columns, most of them void: compared all with all.
                let wide = Array2::from_shape_fn((900, 40), |(i, j)| if j % 13 == 1 { x[[i, j / 13]] } else { 7.0 });
                for threads in [1, 3] {
                    assert_eq!(cluster(&chunks_of(&x, &[], &w), &options, &context(threads)).expect("labels"), expected);
                    assert_eq!(cluster(&chunks_of(&wide, &[], &w), &options, &context(threads)).expect("labels"), expected);
                }
                seen.extend(expected);
            }
        }
        assert!(seen.contains(&NOISE) && seen.len() > 4, "{seen:?}");
    }

    #[test]
    fn equal_rows_are_one_cluster_and_what_cannot_be_is_an_error() {
        let options = DbscanOptions { eps: 0.5, min_points: 5 };
        let same = cluster(&chunks_of(&Array2::ones((5000, 2)), &[], &[]), &options, &context(2)).expect("labels");
        assert_eq!(same, vec![0; 5000]);
        let none = cluster(&chunks_of(&Array2::ones((0, 2)), &[], &[]), &options, &context(1)).expect_err("no rows");
        assert!(none.message().contains("no rows"), "{none}");
        let infinite = cluster(&chunks_of(&Array2::from_elem((9, 1), f64::INFINITY), &[], &[]), &options, &context(1));
        assert!(infinite.expect_err("infinite").message().contains("not finite"));
    }
}
