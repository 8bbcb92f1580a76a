//! The one pass over training rows from which a [`FeatureSpec`](super::FeatureSpec) is frozen.
//!
//! What is kept is small and mergeable: moments, counts of nulls, and counts of categories up to a limit. What must
//! hold: observers merge in any order to the same bits, so a pass can be split over files and threads.

use std::collections::HashMap;
use std::hash::Hash;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::Schema;

use super::encode::{Numbers, booleans, integers, numbers, texts};
use super::exact::{Moments, Sketch};
use super::options::{Impute, Kind, Plan, plans};
use super::time::{PARTS, Part, seconds};
use crate::config::Options;
use crate::error::{Error, Result};

/// Distinct values of a column at most; a column with more is no category but an identifier.
pub const CATEGORIES_SEEN_MAX: usize = 100_000;

/// What has been seen of each feature column.
#[derive(Debug, Clone)]
pub struct Observer {
    pub(super) owner: String,
    pub(super) rows: u64,
    pub(super) columns: Vec<(Plan, Seen)>,
}

#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Nulls and coded missing values.
    pub missing: u64,
    pub body: Body,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Number { moments: Moments, sketch: Option<Sketch>, coded: Vec<f64>, coded_nan: bool },
    Text { counts: Counts<String>, coded: Vec<String> },
    Integer { counts: Counts<i64>, coded: Vec<i64> },
    Boolean([u64; 2]),
    Time(Vec<(Part, Moments)>),
}

/// Counts of values; `None` once there are too many.
#[derive(Debug, Clone)]
pub(super) struct Counts<T>(pub Option<HashMap<T, u64>>);

impl<T> Default for Counts<T> {
    fn default() -> Self {
        Self(Some(HashMap::new()))
    }
}

impl Observer {
    /// Takes every column of `schema` for a feature but those of `excluded` (label, weight) and those that `options`
    /// skip. The names of the options are in this module's table.
    ///
    /// # Errors
    /// User: a wrong option, or a type that no feature can have, by field.
    pub fn new(schema: &Schema, excluded: &[&str], options: &mut Options) -> Result<Self> {
        let mut columns = Vec::new();
        for plan in plans(schema, excluded, options)? {
            let body = Body::of(&plan, options)?;
            columns.push((plan, Seen { missing: 0, body }));
        }
        Ok(Self { owner: options.owner().to_string(), rows: 0, columns })
    }

    /// Rows seen.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes the rows of `batch`; its columns are found by name.
    ///
    /// # Errors
    /// Data: a column is missing, or has another type than in the schema.
    pub fn observe(&mut self, batch: &RecordBatch) -> Result<()> {
        for (plan, seen) in &mut self.columns {
            let column = batch.column_by_name(&plan.name);
            let column = column.ok_or_else(|| Error::data(format!("training rows: field '{}' is missing", plan.name)))?;
            seen.take(column).map_err(|e| e.context(format_args!("training rows: field '{}'", plan.name)))?;
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Takes what `other`, made from the same schema and options, has seen.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.columns.len(), other.columns.len());
        self.rows += other.rows;
        for ((_, mine), (_, theirs)) in self.columns.iter_mut().zip(&other.columns) {
            mine.missing += theirs.missing;
            match (&mut mine.body, &theirs.body) {
                (Body::Number { moments, sketch, .. }, Body::Number { moments: m, sketch: s, .. }) => {
                    moments.merge(m);
                    if let (Some(sketch), Some(s)) = (sketch, s) {
                        sketch.merge(s);
                    }
                }
                (Body::Text { counts, .. }, Body::Text { counts: c, .. }) => counts.merge(c),
                (Body::Integer { counts, .. }, Body::Integer { counts: c, .. }) => counts.merge(c),
                (Body::Boolean(a), Body::Boolean(b)) => (a[0], a[1]) = (a[0] + b[0], a[1] + b[1]),
                (Body::Time(a), Body::Time(b)) => a.iter_mut().zip(b).for_each(|((_, a), (_, b))| a.merge(b)),
                _ => debug_assert!(false, "observers of different schemas"),
            }
        }
    }
}

impl Body {
    fn of(plan: &Plan, options: &Options) -> Result<Self> {
        let key = format!("features.{}.missing", plan.name);
        Ok(match plan.kind {
            Kind::Numeric => {
                let mut coded = Vec::new();
                let mut coded_nan = false;
                for text in &plan.missing {
                    match text.parse::<f64>() {
                        Ok(x) if x.is_nan() => coded_nan = true,
                        Ok(x) if x.is_finite() => coded.push(x),
                        _ => return Err(options.bad(&key, text, "numbers, commas between")),
                    }
                }
                let sketch = (plan.impute == Some(Impute::Median)).then(Sketch::default);
                Self::Number { moments: Moments::default(), sketch, coded, coded_nan }
            }
            Kind::Text => Self::Text { counts: Counts::default(), coded: plan.missing.clone() },
            Kind::Integer => {
                let whole = |text: &String| text.parse().map_err(|_| options.bad(&key, text, "whole numbers, commas between"));
                Self::Integer { counts: Counts::default(), coded: plan.missing.iter().map(whole).collect::<Result<_>>()? }
            }
            Kind::Boolean => Self::Boolean([0, 0]),
            Kind::Time => Self::Time(PARTS.map(|(_, part)| (part, Moments::default())).to_vec()),
        })
    }
}

impl Seen {
    fn take(&mut self, column: &ArrayRef) -> Result<()> {
        match &mut self.body {
            Body::Number { moments, sketch, coded, coded_nan } => {
                let Numbers { values, nulls } = numbers(column)?;
                for (i, x) in values.into_iter().enumerate() {
                    if nulls.as_ref().is_some_and(|n| n.is_null(i)) || coded.contains(&x) || (*coded_nan && x.is_nan()) {
                        self.missing += 1;
                    } else if x.is_finite() {
                        moments.add(x);
                        if let Some(sketch) = sketch {
                            sketch.add(x);
                        }
                    }
                }
            }
            Body::Text { counts, coded } => {
                let column = texts(column)?;
                for value in column.iter() {
                    match value.filter(|v| !coded.iter().any(|c| c == v)) {
                        None => self.missing += 1,
                        Some(value) => counts.add(value, str::to_string),
                    }
                }
            }
            Body::Integer { counts, coded } => {
                let column = integers(column)?;
                for value in column.iter() {
                    match value.filter(|v| !coded.contains(v)) {
                        None => self.missing += 1,
                        Some(value) => counts.add(&value, |v| *v),
                    }
                }
            }
            Body::Boolean(counts) => {
                for value in booleans(column)?.iter() {
                    match value {
                        None => self.missing += 1,
                        Some(value) => counts[usize::from(value)] += 1,
                    }
                }
            }
            Body::Time(parts) => {
                let seconds = seconds(column)?;
                let nulls = column.logical_nulls();
                self.missing += nulls.as_ref().map_or(0, |n| n.null_count()) as u64;
                for (part, moments) in parts {
                    for (i, s) in seconds.iter().enumerate() {
                        if nulls.as_ref().is_none_or(|n| n.is_valid(i)) {
                            moments.add(part.of(*s));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl<T: Eq + Hash + Clone> Counts<T> {
    /// Counts a value; it is copied only when it is new.
    fn add<Q: Eq + Hash + ?Sized>(&mut self, value: &Q, own: impl Fn(&Q) -> T)
    where
        T: std::borrow::Borrow<Q>,
    {
        let Some(counts) = &mut self.0 else { return };
        if let Some(count) = counts.get_mut(value) {
            *count += 1;
        } else if counts.len() == CATEGORIES_SEEN_MAX {
            self.0 = None;
        } else {
            counts.insert(own(value), 1);
        }
    }

    fn merge(&mut self, other: &Self) {
        let (Some(counts), Some(theirs)) = (&mut self.0, &other.0) else {
            self.0 = None;
            return;
        };
        for (value, count) in theirs {
            *counts.entry(value.clone()).or_default() += count;
        }
        if counts.len() > CATEGORIES_SEEN_MAX {
            self.0 = None;
        }
    }
}
