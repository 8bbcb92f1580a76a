//! The options of tree models, by the names that the field knows them by.

use crate::config::Options;
use crate::error::Result;

/// Options of one decision tree.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeOptions {
    /// Splits from the root to a leaf at most.
    pub max_depth: usize,
    /// Leaves at most; those that gain most come first.
    pub max_leaves: usize,
    /// A node of fewer rows is not split.
    pub min_split_rows: usize,
    /// Rows of a leaf at least.
    pub min_leaf_rows: usize,
    /// Bins of a feature at most, besides that of missing values.
    pub max_bins: usize,
}

/// Options of a random forest.
#[derive(Debug, Clone, PartialEq)]
pub struct ForestOptions {
    /// How many trees.
    pub trees: usize,
    /// Splits from the root to a leaf at most.
    pub max_depth: usize,
    /// Leaves of a tree at most.
    pub max_leaves: usize,
    /// A node of fewer rows is not split.
    pub min_split_rows: usize,
    /// Rows of a leaf at least.
    pub min_leaf_rows: usize,
    /// The part of the features that each split looks at; unless said, the square root of their number for classes
    /// and all of them for numbers.
    pub feature_fraction: Option<f64>,
    /// Whether rows are drawn with replacement.
    pub bootstrap: bool,
    /// The part of the rows that each tree draws.
    pub subsample: f64,
    /// Bins of a feature at most, besides that of missing values.
    pub max_bins: usize,
}

/// Options of gradient boosting.
#[derive(Debug, Clone, PartialEq)]
pub struct BoostOptions {
    /// Rounds at most: one tree each, with three classes or more one for each class.
    pub trees: usize,
    /// What each tree's answer is multiplied by.
    pub learning_rate: f64,
    /// Leaves of a tree at most.
    pub max_leaves: usize,
    /// Splits from the root to a leaf at most.
    pub max_depth: usize,
    /// Rows of a leaf at least.
    pub min_leaf_rows: usize,
    /// Weight (of the second derivative) of a leaf at least.
    pub min_leaf_weight: f64,
    /// The penalty on the square of a leaf's value.
    pub l2: f64,
    /// The part of the rows that each round draws, without replacement.
    pub subsample: f64,
    /// The part of the features that each tree looks at.
    pub feature_fraction: f64,
    /// Bins of a feature at most, besides that of missing values.
    pub max_bins: usize,
    /// Rounds without progress on the rows held out before it stops; 0: no rows are held out, all rounds are done.
    pub early_stopping_rounds: usize,
    /// The part of the rows held out where it may stop early.
    pub validation_fraction: f64,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self { max_depth: usize::MAX, max_leaves: usize::MAX, min_split_rows: 2, min_leaf_rows: 1, max_bins: 255 }
    }
}

impl Default for ForestOptions {
    fn default() -> Self {
        Self {
            trees: 100,
            max_depth: usize::MAX,
            max_leaves: usize::MAX,
            min_split_rows: 2,
            min_leaf_rows: 1,
            feature_fraction: None,
            bootstrap: true,
            subsample: 1.0,
            max_bins: 255,
        }
    }
}

impl Default for BoostOptions {
    fn default() -> Self {
        Self {
            trees: 100,
            learning_rate: 0.1,
            max_leaves: 31,
            max_depth: usize::MAX,
            min_leaf_rows: 20,
            min_leaf_weight: 1e-3,
            l2: 0.0,
            subsample: 1.0,
            feature_fraction: 1.0,
            max_bins: 255,
            early_stopping_rounds: 0,
            validation_fraction: 0.1,
        }
    }
}

impl TreeOptions {
    /// Takes `max_depth`, `max_leaves`, `min_split_rows`, `min_leaf_rows`, `max_bins`.
    ///
    /// # Errors
    /// User: a value that cannot be.
    pub fn from_options(options: &mut Options) -> Result<Self> {
        let d = Self::default();
        Ok(Self {
            max_depth: whole(options, "max_depth", 1, 10_000, d.max_depth)?,
            max_leaves: whole(options, "max_leaves", 2, 1 << 30, d.max_leaves)?,
            min_split_rows: whole(options, "min_split_rows", 2, 1 << 30, d.min_split_rows)?,
            min_leaf_rows: whole(options, "min_leaf_rows", 1, 1 << 30, d.min_leaf_rows)?,
            max_bins: whole(options, "max_bins", 2, 255, d.max_bins)?,
        })
    }
}

impl ForestOptions {
    /// Takes `trees`, `max_depth`, `max_leaves`, `min_split_rows`, `min_leaf_rows`, `feature_fraction`, `bootstrap`,
    /// `subsample`, `max_bins`.
    ///
    /// # Errors
    /// User: a value that cannot be.
    pub fn from_options(options: &mut Options) -> Result<Self> {
        let d = Self::default();
        let tree = TreeOptions::from_options(options)?;
        let said = options.text("feature_fraction").is_some();
        let fraction = real(options, "feature_fraction", 0.0, 1.0, Bound::AboveLowest, 1.0)?;
        Ok(Self {
            trees: whole(options, "trees", 1, 100_000, d.trees)?,
            max_depth: tree.max_depth,
            max_leaves: tree.max_leaves,
            min_split_rows: tree.min_split_rows,
            min_leaf_rows: tree.min_leaf_rows,
            feature_fraction: said.then_some(fraction),
            bootstrap: options.flag("bootstrap", d.bootstrap)?,
            subsample: real(options, "subsample", 0.0, 1.0, Bound::AboveLowest, d.subsample)?,
            max_bins: tree.max_bins,
        })
    }
}

impl BoostOptions {
    /// Takes `trees`, `learning_rate`, `max_leaves`, `max_depth`, `min_leaf_rows`, `min_leaf_weight`, `l2`, `subsample`,
    /// `feature_fraction`, `max_bins`, `early_stopping_rounds`, `validation_fraction`.
    ///
    /// # Errors
    /// User: a value that cannot be.
    pub fn from_options(options: &mut Options) -> Result<Self> {
        let d = Self::default();
        Ok(Self {
            trees: whole(options, "trees", 1, 100_000, d.trees)?,
            learning_rate: real(options, "learning_rate", 0.0, 1.0, Bound::AboveLowest, d.learning_rate)?,
            max_leaves: whole(options, "max_leaves", 2, 1 << 20, d.max_leaves)?,
            max_depth: whole(options, "max_depth", 1, 10_000, d.max_depth)?,
            min_leaf_rows: whole(options, "min_leaf_rows", 1, 1 << 30, d.min_leaf_rows)?,
            min_leaf_weight: real(options, "min_leaf_weight", 0.0, 1e12, Bound::AboveLowest, d.min_leaf_weight)?,
            l2: real(options, "l2", 0.0, 1e12, Bound::Lowest, d.l2)?,
            subsample: real(options, "subsample", 0.0, 1.0, Bound::AboveLowest, d.subsample)?,
            feature_fraction: real(options, "feature_fraction", 0.0, 1.0, Bound::AboveLowest, d.feature_fraction)?,
            max_bins: whole(options, "max_bins", 2, 255, d.max_bins)?,
            early_stopping_rounds: whole(options, "early_stopping_rounds", 0, 100_000, d.early_stopping_rounds)?,
            validation_fraction: real(options, "validation_fraction", 0.0, 0.9, Bound::AboveLowest, d.validation_fraction)?,
        })
    }
}

/// Whether the lowest value itself is allowed.
#[derive(PartialEq)]
enum Bound {
    Lowest,
    AboveLowest,
}

fn whole(options: &mut Options, key: &str, least: usize, most: usize, default: usize) -> Result<usize> {
    let text = options.text(key).unwrap_or_default();
    match options.number::<usize>(key)? {
        None => Ok(default),
        Some(n) if (least..=most).contains(&n) => Ok(n),
        Some(_) => Err(options.bad(key, &text, &format!("a whole number from {least} to {most}"))),
    }
}

fn real(options: &mut Options, key: &str, least: f64, most: f64, bound: Bound, default: f64) -> Result<f64> {
    let text = options.text(key).unwrap_or_default();
    match options.number::<f64>(key)? {
        None => Ok(default),
        Some(x) if x <= most && (x > least || bound == Bound::Lowest && x == least) => Ok(x),
        Some(_) => {
            let from = if bound == Bound::Lowest { "from" } else { "above" };
            Err(options.bad(key, &text, &format!("a number {from} {least}, to {most} at most")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn boost(key: &str, value: &str) -> Result<BoostOptions> {
        let mut options = Options::new("model 'm'", BTreeMap::from([(key.to_string(), value.to_string())]));
        let read = BoostOptions::from_options(&mut options)?;
        options.finish().map(|()| read)
    }

    #[test]
    fn options_are_read_and_a_wrong_one_is_named() {
        assert_eq!(boost("l2", "0").expect("0 is no penalty"), BoostOptions::default());
        assert_eq!(boost("trees", "7").expect("reads").trees, 7);
        for (key, value) in [("learning_rate", "0"), ("max_bins", "256"), ("subsample", "NaN"), ("trees", "-1"), ("tree", "3")] {
            let e = boost(key, value).expect_err(key);
            assert!(e.to_string().contains(&format!("'{key}'")), "{e}");
        }
        let mut forest = Options::new("model 'm'", BTreeMap::from([("feature_fraction".to_string(), "0.5".to_string())]));
        assert_eq!(ForestOptions::from_options(&mut forest).expect("reads").feature_fraction, Some(0.5));
    }
}
