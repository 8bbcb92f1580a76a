//! JSON objects as rows, and answers as JSON objects.
//!
//! What must hold: doubles are read and written so that the bits stay (the shortest text that reads back the same).

use serde_json::{Map, Value};

use super::answers::{double_at, integer_at, kind_of, text_at};
use super::catalog::Loaded;
use super::failure::{Answered, Failure, Reason};
use super::rows::Cell;
use super::serving::{Scored, Serving};
use crate::models::algorithms::Scores;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;

/// What a body holds.
#[derive(Debug)]
pub enum Body {
    /// An object: one row, answered by an object.
    One(Map<String, Value>),
    /// An array of objects, answered by an array.
    Many(Vec<Map<String, Value>>),
}

/// Reads any JSON text.
///
/// # Errors
/// Malformed: it is none. A bare NaN or Infinity, as some writers make, is named with its field.
pub fn parse<T: serde::de::DeserializeOwned>(text: &[u8]) -> Answered<T> {
    serde_json::from_slice(text).map_err(|e| {
        let line = text.split(|b| *b == b'\n').nth(e.line().saturating_sub(1)).unwrap_or_default();
        let at = e.column().saturating_sub(1).min(line.len());
        let (before, after) = (String::from_utf8_lossy(&line[..at]), String::from_utf8_lossy(&line[at..]));
        let token = after.trim_start_matches('-');
        match before.trim_end_matches(['-', ' ', '\t']).strip_suffix(':').and_then(last_text) {
            Some(field) if ["NaN", "Inf"].iter().any(|word| token.starts_with(word)) => {
                Failure::of(Reason::NotFinite, field, format!("field '{field}' is not a finite number"))
            }
            _ => Failure::new(Reason::Malformed, format!("the body is not the JSON that is expected: {e}")),
        }
    })
}

impl Body {
    /// Reads an object or an array of objects.
    ///
    /// # Errors
    /// Malformed: it is neither.
    pub fn parse(text: &[u8]) -> Answered<Self> {
        let object = |value| match value {
            Value::Object(fields) => Ok(fields),
            _ => Err(Failure::new(Reason::Malformed, "a row must be a JSON object of the model's fields")),
        };
        match parse(text)? {
            Value::Array(rows) => {
                let rows = rows.into_iter().enumerate().map(|(i, row)| object(row).map_err(|e| e.at(i)));
                Ok(Self::Many(rows.collect::<Answered<_>>()?))
            }
            one => Ok(Self::One(object(one)?)),
        }
    }

    /// The batch that `model` scores.
    ///
    /// # Errors
    /// Too many rows, or a row that does not fit.
    pub fn batch(&self, serving: &Serving, model: &Loaded) -> Answered<RecordBatch> {
        let cells = |row: &Map<String, Value>, batch: &mut super::rows::Rows<'_>| {
            batch.push(row.iter().map(|(name, value)| (name.as_str(), cell(value))))
        };
        match self {
            Self::One(row) => {
                let mut batch = model.inputs.rows(1);
                cells(row, &mut batch)?;
                batch.finish()
            }
            Self::Many(rows) => {
                serving.limit_rows(rows.len())?;
                let mut batch = model.inputs.rows(rows.len());
                for (i, row) in rows.iter().enumerate() {
                    cells(row, &mut batch).map_err(|e| e.at(i))?;
                }
                batch.finish()
            }
        }
    }
}

/// A JSON value as a value of a row.
pub fn cell(value: &Value) -> Cell<'_> {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(value) => Cell::Boolean(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Cell::Integer(integer),
            (None, Some(double)) => Cell::Double(double),
            (None, None) => Cell::Other("a number out of range"),
        },
        Value::String(text) => Cell::Text(text),
        Value::Array(_) => Cell::Other("an array"),
        Value::Object(_) => Cell::Other("an object"),
    }
}

/// The answer to a row: `{"prediction", "probabilities"?, "cluster"?, "distance"?, "distances"?}`.
pub fn answer(scored: &Scored, row: usize) -> Map<String, Value> {
    let mut answer = Map::new();
    if let Some(array) = &scored.answers.prediction {
        answer.insert("prediction".into(), value_at(array, row));
    }
    match &scored.answers.scores {
        Scores::Values(_) => {}
        Scores::Probabilities(rows) => {
            let of_classes = scored.model.classes.iter().zip(rows.row(row)).map(|(class, p)| (class.clone(), Value::from(*p))).collect();
            answer.insert("probabilities".into(), Value::Object(of_classes));
        }
        Scores::Clusters { cluster, distances } => {
            answer.insert("cluster".into(), cluster[row].into());
            answer.insert("distance".into(), distances.get((row, cluster[row] as usize)).copied().into());
            answer.insert("distances".into(), distances.row(row).to_vec().into());
        }
    }
    answer
}

fn value_at(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match kind_of(array.data_type()) {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int64 => integer_at(array, row).into(),
        DataType::Float64 => double_at(array, row).into(),
        _ => text_at(array, row).into(),
    }
}

/// The text between the last two quotes.
fn last_text(before: &str) -> Option<&str> {
    before.trim_end().strip_suffix('"')?.rsplit_once('"').map(|(_, text)| text)
}
