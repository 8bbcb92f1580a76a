//! What a model answers to some rows, and how one of its predictions is read.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};

use crate::formats::text::write_value;
use crate::models::algorithms::Scores;

/// The answers to some rows.
#[derive(Debug)]
pub struct Answers {
    /// Classification and regression: the predictions, in the label's type.
    pub prediction: Option<ArrayRef>,
    /// Probabilities, or clusters and distances.
    pub scores: Scores,
}

impl Answers {
    /// How many rows are answered.
    pub fn rows(&self) -> usize {
        match &self.scores {
            Scores::Values(values) => values.len(),
            Scores::Probabilities(rows) => rows.nrows(),
            Scores::Clusters { cluster, .. } => cluster.len(),
        }
    }
}

/// Boolean, Int64 or Float64 for the types that answers hold as such; all others are answered as text.
pub fn kind_of(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Boolean => DataType::Boolean,
        DataType::Float32 | DataType::Float64 => DataType::Float64,
        t if t.is_integer() && *t != DataType::UInt64 => DataType::Int64,
        _ => DataType::Utf8,
    }
}

/// The number at `row` of an array of [`kind_of`] Int64.
pub fn integer_at(array: &ArrayRef, row: usize) -> i64 {
    match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row),
        _ => cast(&array.slice(row, 1), &DataType::Int64).map_or(0, |one| one.as_primitive::<Int64Type>().value(0)),
    }
}

/// The number at `row` of an array of [`kind_of`] Float64.
pub fn double_at(array: &ArrayRef, row: usize) -> f64 {
    match array.data_type() {
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row),
        _ => cast(&array.slice(row, 1), &DataType::Float64).map_or(f64::NAN, |one| one.as_primitive::<Float64Type>().value(0)),
    }
}

/// The value at `row` as text.
pub fn text_at(array: &ArrayRef, row: usize) -> String {
    let mut text = String::new();
    let field = Field::new("prediction", array.data_type().clone(), true);
    write_value(array, &field, row, chrono_tz::UTC, &mut text);
    text
}
