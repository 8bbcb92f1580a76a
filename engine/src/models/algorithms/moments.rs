//! Weight, mean and spread of every column, for all rows or class by class, in one mergeable pass.

use super::rows::{add_scaled, for_each_row};
use crate::error::{Error, Result};
use crate::models::chunks::{Chunk, Chunks};

/// Weighted moments of some rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    /// Σ w.
    pub weight: f64,
    /// Weighted mean of each column.
    pub mean: Vec<f64>,
    /// Σ w (x − mean)² of each column.
    pub squares: Vec<f64>,
}

impl Moments {
    fn none(features: usize) -> Self {
        Self { weight: 0.0, mean: vec![0.0; features], squares: vec![0.0; features] }
    }

    /// Takes in the moments of other rows.
    pub fn merge(&mut self, other: &Self) {
        if other.weight == 0.0 {
            return;
        }
        let weight = self.weight + other.weight;
        let between = self.weight * other.weight / weight;
        for j in 0..self.mean.len() {
            let apart = other.mean[j] - self.mean[j];
            self.squares[j] += other.squares[j] + between * apart * apart;
            self.mean[j] += apart * (other.weight / weight);
        }
        self.weight = weight;
    }

    /// The weighted variance of each column.
    pub fn variances(&self) -> impl Iterator<Item = f64> + '_ {
        self.squares.iter().map(|s| s / self.weight)
    }
}

/// The moments of the rows of each class; one class where there are no labels.
///
/// # Errors
/// User: no row, or a value that is not finite; External: the rows cannot be read.
pub(super) fn by_class(chunks: &Chunks, classes: usize, threads: usize) -> Result<Vec<Moments>> {
    let none = vec![Moments::none(chunks.features()); classes];
    let all = chunks.fold(
        threads,
        none,
        |_, chunk| of_chunk(chunk, classes),
        |all, part| {
            all.iter_mut().zip(&part).for_each(|(all, part)| all.merge(part));
        },
    )?;
    if chunks.is_empty() {
        return Err(Error::user("there are no rows to learn from"));
    }
    if all.iter().any(|m| !m.squares.iter().all(|s| s.is_finite())) {
        let e = Error::user("the training rows hold a value that is not finite, or is too large to be squared");
        return Err(e.help("filter such rows out, or divide the column"));
    }
    Ok(all)
}

/// The moments of all rows, from those of the classes.
pub(super) fn together(classes: &[Moments]) -> Moments {
    let mut all = Moments::none(classes.first().map_or(0, |m| m.mean.len()));
    classes.iter().for_each(|m| all.merge(m));
    all
}

/// The class of row `i`: 0 where there are no labels.
pub(super) fn class_of(chunk: &Chunk, i: usize) -> usize {
    // A class is an index that the caller made: the cast is exact.
    chunk.y.get(i).map_or(0, |y| *y as usize)
}

fn of_chunk(chunk: &Chunk, classes: usize) -> Vec<Moments> {
    let mut all = vec![Moments::none(chunk.x.ncols()); classes];
    for_each_row(chunk.x.view(), |i, row| {
        let of = &mut all[class_of(chunk, i)];
        of.weight += chunk.w[i];
        add_scaled(&mut of.mean, chunk.w[i], row);
    });
    for of in all.iter_mut().filter(|of| of.weight > 0.0) {
        of.mean.iter_mut().for_each(|m| *m /= of.weight);
    }
    for_each_row(chunk.x.view(), |i, row| {
        let Moments { mean, squares, .. } = &mut all[class_of(chunk, i)];
        for ((square, x), m) in squares.iter_mut().zip(row).zip(mean.iter()) {
            *square += chunk.w[i] * (x - m) * (x - m);
        }
    });
    all
}
