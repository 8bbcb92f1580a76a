//! From numbers to bins: where each feature is cut, and the rows as columns of bytes.
//!
//! Two passes: a sample of rows (all of them up to [`SAMPLE_ROWS`]) gives the edges, then each row its bins. Where a
//! feature has few distinct values each has its bin, so nothing is lost; else the bins hold about as many rows each.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Target;
use crate::error::{Error, Result};
use crate::models::algorithms::FitContext;
use crate::models::chunks::{Chunk, Chunks, on_threads};

/// The greatest number of a bin: that of missing values where a feature has [`MISSING`] others.
pub(super) const MISSING: usize = 255;
/// Beyond this a cell's count would leave its weight too few bits.
const ROWS_MAX: usize = 1 << 27;
/// Rows that decide the edges.
const SAMPLE_ROWS: usize = 100_000;

/// A feature in bins.
#[derive(Debug)]
pub(super) struct Column {
    /// Bin b holds the values up to `edges[b]` and above the edge before; the last bin has no edge.
    pub edges: Vec<f64>,
    /// The bin of each row; that of a missing value is [`Column::missing`].
    pub bins: Vec<u8>,
}

impl Column {
    /// The bin of missing values, and how many bins stand before it.
    pub fn missing(&self) -> usize {
        self.edges.len() + 1
    }

    /// Up to which value the rows of `bin` and below go left. The last bin parts what is there from what is missing.
    pub fn threshold(&self, bin: usize) -> f64 {
        self.edges.get(bin).copied().unwrap_or(f64::MAX)
    }
}

/// The training rows in bins, with labels and weights.
#[derive(Debug)]
pub(super) struct Binned {
    pub columns: Vec<Column>,
    pub y: Vec<f64>,
    pub w: Vec<f64>,
}

impl Binned {
    /// Cuts the rows of `data` into at most `max_bins` bins a feature, and checks their labels and weights.
    pub fn new(data: &Chunks, target: Target, max_bins: usize, context: &FitContext<'_>) -> Result<Self> {
        let rows = data.rows();
        if rows == 0 {
            return Err(Error::user("there are no rows to train on"));
        }
        if data.features() == 0 {
            return Err(Error::user("there are no features to train on"));
        }
        if rows > ROWS_MAX {
            return Err(Error::user(format!("trees take at most {ROWS_MAX} rows, not {rows}")).help("train on a sample of them"));
        }
        let edges = edges(data, max_bins, context)?;
        let tables: Vec<Table> = edges.iter().map(|edges| Table::new(edges)).collect();
        let mut binned = Self {
            columns: edges.into_iter().map(|edges| Column { edges, bins: Vec::with_capacity(rows) }).collect(),
            y: Vec::with_capacity(rows),
            w: Vec::with_capacity(rows),
        };
        let bin = |_: usize, chunk: &Chunk| {
            let bins: Vec<Vec<u8>> = tables.iter().enumerate().map(|(j, table)| table.bins(chunk, j)).collect();
            (bins, chunk.y.clone(), chunk.w.clone())
        };
        binned = data.fold(context.threads, binned, bin, |all, (bins, y, w)| {
            all.columns.iter_mut().zip(bins).for_each(|(column, bins)| column.bins.extend(bins));
            all.y.extend(y);
            all.w.extend(w);
        })?;
        binned.check(target)?;
        Ok(binned)
    }

    pub fn rows(&self) -> usize {
        self.w.len()
    }

    /// The weighted mean of the labels.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.y.iter().zip(&self.w).map(|(y, w)| y * w).sum();
        sum / self.w.iter().sum::<f64>()
    }

    fn check(&self, target: Target) -> Result<()> {
        if self.y.len() != self.w.len() {
            return Err(Error::internal("training rows without labels"));
        }
        if let Some(row) = self.w.iter().position(|w| !(w.is_finite() && *w > 0.0)) {
            return Err(Error::user(format!("the weight of row {row} is {}, but must be a positive number", self.w[row])));
        }
        match target {
            Target::Number => match self.y.iter().position(|y| !y.is_finite()) {
                Some(row) => Err(Error::user(format!("the label of row {row} is {}, but must be a number", self.y[row]))),
                None => Ok(()),
            },
            Target::Classes(classes) => {
                if let Some(row) = self.y.iter().position(|y| !(*y >= 0.0 && *y < classes as f64 && y.fract() == 0.0)) {
                    return Err(Error::internal(format!("the label of row {row} is {}, not one of {classes} classes", self.y[row])));
                }
                if self.y.iter().all(|y| *y == self.y[0]) {
                    let e = Error::user("all rows are of one class: there is nothing to tell apart");
                    return Err(e.help("train on rows of two classes at least"));
                }
                Ok(())
            }
        }
    }
}

/// The edges of each feature, from a sample.
fn edges(data: &Chunks, max_bins: usize, context: &FitContext<'_>) -> Result<Vec<Vec<f64>>> {
    let share = SAMPLE_ROWS as f64 / data.rows() as f64;
    let features = data.features();
    // A chunk's own random numbers: which rows are taken does not hang on who takes them.
    let take = |i: usize, chunk: &Chunk| -> Vec<Vec<f64>> {
        let mut random = ChaCha8Rng::seed_from_u64(context.seed);
        random.set_stream(i as u64);
        let taken: Vec<bool> = (0..chunk.w.len()).map(|_| share >= 1.0 || random.random::<f64>() < share).collect();
        let column = |j: usize| {
            let values = chunk.x.column(j).into_iter().zip(&taken).filter(|(x, taken)| **taken && x.is_finite());
            values.map(|(x, _)| x + 0.0).collect() // −0 is 0
        };
        (0..features).map(column).collect()
    };
    let sample = data.fold(context.threads, vec![vec![]; features], take, |all: &mut Vec<Vec<f64>>, part| {
        all.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
    })?;
    Ok(on_threads(context.threads, &sample, |_, values| {
        let mut values = values.clone();
        values.sort_unstable_by(f64::total_cmp);
        cut(&values, max_bins)
    }))
}

/// The edges of at most `max_bins` bins of `sorted` values.
fn cut(sorted: &[f64], max_bins: usize) -> Vec<f64> {
    let mut distinct: Vec<(f64, usize)> = vec![];
    for value in sorted {
        match distinct.last_mut() {
            Some((last, count)) if *last == *value => *count += 1,
            _ => distinct.push((*value, 1)),
        }
    }
    if distinct.len() <= max_bins {
        return distinct.windows(2).map(|pair| between(pair[0].0, pair[1].0)).collect();
    }
    let mut edges = Vec::with_capacity(max_bins);
    let (mut left, mut held) = (sorted.len(), 0);
    for pair in distinct.windows(2) {
        let bins = max_bins - edges.len();
        if bins == 1 {
            break;
        }
        held += pair[0].1;
        // A bin is full when it holds its part of what is left, or when the next value would fill one alone.
        let part = left as f64 / bins as f64;
        if held as f64 >= part || held as f64 + pair[1].1 as f64 / 2.0 > part {
            edges.push(between(pair[0].0, pair[1].0));
            left -= held;
            held = 0;
        }
    }
    edges
}

/// A value from `low` on, below `high`.
fn between(low: f64, high: f64) -> f64 {
    let middle = low / 2.0 + high / 2.0;
    if middle >= low && middle < high { middle } else { low }
}

/// Edges for a search without branches: padded to a power of two less one.
struct Table {
    edges: [f64; MISSING + 1],
    first_step: usize,
    missing: u8,
}

impl Table {
    fn new(edges: &[f64]) -> Self {
        let mut padded = [f64::INFINITY; MISSING + 1];
        padded[..edges.len()].copy_from_slice(edges);
        Self { edges: padded, first_step: (edges.len() + 1).next_power_of_two() / 2, missing: (edges.len() + 1) as u8 }
    }

    fn bins(&self, chunk: &Chunk, feature: usize) -> Vec<u8> {
        chunk.x.column(feature).iter().map(|x| self.bin(*x)).collect()
    }

    #[inline(always)]
    fn bin(&self, x: f64) -> u8 {
        if !x.is_finite() {
            return self.missing;
        }
        let (mut below, mut step) = (0, self.first_step);
        while step > 0 {
            below += if self.edges[(below + step - 1) & MISSING] < x { step } else { 0 };
            step /= 2;
        }
        below as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_is_where_its_edges_say() {
        for n in [0, 1, 2, 3, 7, 8, 100, 254] {
            let edges: Vec<f64> = (0..n).map(|i| f64::from(i) * 0.5).collect();
            let table = Table::new(&edges);
            for x in [-1e300, -0.1, 0.0, 0.1, 0.5, 1.0, 49.9, 126.9, 1e300] {
                assert_eq!(usize::from(table.bin(x)), edges.iter().filter(|e| **e < x).count(), "{x} of {n}");
            }
            assert_eq!(i32::from(table.bin(f64::NAN)), n + 1);
            assert_eq!(i32::from(table.bin(f64::INFINITY)), n + 1);
        }
    }

    #[test]
    fn few_values_have_a_bin_each_and_many_share_them_evenly() {
        assert_eq!(cut(&[1.0, 1.0, 2.0, 4.0], 255), [1.5, 3.0]);
        assert_eq!(cut(&[], 255), [0.0; 0]);
        let mut values: Vec<f64> = (0..10_000).map(f64::from).collect();
        values.extend([5.0; 5_000]); // one value outweighs many bins
        values.sort_unstable_by(f64::total_cmp);
        let edges = cut(&values, 16);
        assert!(edges.len() <= 15 && edges.len() >= 13, "{edges:?}");
        let mut counts = vec![0; edges.len() + 1];
        values.iter().for_each(|v| counts[usize::from(Table::new(&edges).bin(*v))] += 1);
        assert!(counts.iter().filter(|n| **n > 1_000).count() == 1 && counts.iter().all(|n| *n < 5_010), "{counts:?}");
    }
}
