//! Rows to numbers, column by column.
//!
//! What must hold: each number depends on its own cell and the spec alone, and is worked out by the same operations
//! whatever the batch, so one row and a million give the same bits. A refused cell holds 0, so that no algorithm that
//! expects numbers meets a NaN.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type};
use arrow::datatypes::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use ndarray::Array2;
use xxhash_rust::xxh3::xxh3_64;

use super::time::{Part, seconds};
use super::{Absent, Binding, Column, Encoded, Encoding, FeatureSpec, Layout, PartForm, Place, Reason, Refusal, TimePart, Values};
use crate::error::{Error, Result};

/// Numbers of a column; a null holds any.
pub(super) struct Numbers {
    pub values: Vec<f64>,
    pub nulls: Option<NullBuffer>,
}

impl FeatureSpec {
    /// Encodes the rows of `batch`, whose columns are found by name among others.
    ///
    /// # Errors
    /// User: a field is missing or of a wrong type.
    pub fn encode(&self, batch: &RecordBatch) -> Result<Encoded> {
        let binding = self.bind_among(&batch.schema())?;
        self.encode_bound(&binding, batch)
    }

    /// Encodes the rows of `batch`, whose schema gave `binding`.
    ///
    /// # Errors
    /// Internal: the batch has not that schema.
    pub fn encode_bound(&self, binding: &Binding, batch: &RecordBatch) -> Result<Encoded> {
        let (rows, width) = (batch.num_rows(), self.width());
        let mut x = vec![0.0; rows * width];
        let mut refused = Vec::new();
        let mut first = 0;
        for (column, at) in self.columns.iter().zip(&binding.columns) {
            let mut block = Block { x: &mut x, width, first, column, refused: &mut refused };
            block.fill(batch.column(*at)).map_err(|e| e.context(format_args!("field '{}'", column.name)))?;
            first += column.encoding.width();
        }
        // By column until here; the sort is stable.
        refused.sort_by_key(|r| r.row);
        let x = Array2::from_shape_vec((rows, width), x).map_err(|e| Error::internal(format!("the shape of encoded rows: {e}")))?;
        Ok(Encoded { x, refused })
    }
}

/// Some columns of the matrix: those that one column of the batch becomes.
struct Block<'a> {
    x: &'a mut [f64],
    width: usize,
    first: usize,
    column: &'a Column,
    refused: &'a mut Vec<Refusal>,
}

impl Block<'_> {
    fn fill(&mut self, array: &ArrayRef) -> Result<()> {
        match &self.column.encoding {
            Encoding::Number { coded, coded_nan, absent, scale } => {
                let Numbers { values, nulls } = numbers(array)?;
                let nulls = nulls.filter(|n| n.null_count() > 0);
                if nulls.is_none() && coded.is_empty() && !coded_nan {
                    for (row, value) in values.into_iter().enumerate() {
                        let scaled = scale.apply(value);
                        if scaled.is_finite() {
                            self.set(row, 0, scaled);
                        } else {
                            self.refuse(row, Reason::NotFinite);
                        }
                    }
                    return Ok(());
                }
                for (row, value) in values.into_iter().enumerate() {
                    let missing =
                        nulls.as_ref().is_some_and(|n| n.is_null(row)) || coded.contains(&value) || (*coded_nan && value.is_nan());
                    let Some(value) = self.present(row, missing, *absent, value) else { continue };
                    let scaled = scale.apply(value);
                    // A missing value is NaN to a tree; a NaN that was given is refused.
                    if scaled.is_finite() || missing {
                        self.set(row, 0, scaled);
                    } else {
                        self.refuse(row, Reason::NotFinite);
                    }
                }
            }
            Encoding::Boolean { absent, scale } => {
                for (row, value) in booleans(array)?.iter().enumerate() {
                    let number = f64::from(u8::from(value == Some(true)));
                    if let Some(value) = self.present(row, value.is_none(), *absent, number) {
                        self.set(row, 0, scale.apply(value));
                    }
                }
            }
            Encoding::Category { values, coded, absent, unknown, layout } => match values {
                Values::Text(_) | Values::HashedText(_) => {
                    let known: &[String] = if let Values::Text(known) = values { known } else { &[] };
                    let coded: &[String] = if let Values::Text(coded) = coded { coded } else { &[] };
                    for (row, value) in texts(array)?.iter().enumerate() {
                        let place = match value.filter(|v| !coded.iter().any(|c| c == v)) {
                            None => absent.ok_or(Reason::Null),
                            Some(v) => match values {
                                Values::HashedText(n) => Ok(hashed(v.as_bytes(), *n)),
                                _ => match known.binary_search_by(|k| k.as_str().cmp(v)) {
                                    Ok(slot) => Ok(Place::Slot(slot as u32)),
                                    Err(_) => unknown.ok_or_else(|| Reason::UnknownCategory(v.to_string())),
                                },
                            },
                        };
                        self.put(row, place, layout);
                    }
                }
                Values::Integer(_) | Values::HashedInteger(_) => {
                    let known: &[i64] = if let Values::Integer(known) = values { known } else { &[] };
                    let coded: &[i64] = if let Values::Integer(coded) = coded { coded } else { &[] };
                    for (row, value) in integers(array)?.iter().enumerate() {
                        let place = match value.filter(|v| !coded.contains(v)) {
                            None => absent.ok_or(Reason::Null),
                            Some(v) => match values {
                                Values::HashedInteger(n) => Ok(hashed(&v.to_le_bytes(), *n)),
                                _ => match known.binary_search(&v) {
                                    Ok(slot) => Ok(Place::Slot(slot as u32)),
                                    Err(_) => unknown.ok_or_else(|| Reason::UnknownCategory(v.to_string())),
                                },
                            },
                        };
                        self.put(row, place, layout);
                    }
                }
            },
            Encoding::Time { parts, absent } => {
                let seconds = seconds(array)?;
                let nulls = array.logical_nulls();
                let mut offset = 0;
                for (k, TimePart { part, form }) in parts.iter().enumerate() {
                    for (row, s) in seconds.iter().enumerate() {
                        let missing = nulls.as_ref().is_some_and(|n| n.is_null(row));
                        if missing && *absent == Absent::Refuse {
                            // Once a row, not once a part.
                            if k == 0 {
                                self.refuse(row, Reason::Null);
                            }
                            continue;
                        }
                        self.put_part(row, offset, *part, *form, *s, missing, *absent);
                    }
                    offset += if matches!(form, PartForm::Cyclic { .. }) { 2 } else { 1 };
                }
            }
        }
        Ok(())
    }

    /// The value to scale: what was given, or what stands for a missing one; `None` is refused.
    fn present(&mut self, row: usize, missing: bool, absent: Absent, value: f64) -> Option<f64> {
        match (missing, absent) {
            (false, _) => Some(value),
            (true, Absent::Fill(fill)) => Some(fill),
            (true, Absent::Nan) => Some(f64::NAN),
            (true, Absent::Refuse) => {
                self.refuse(row, Reason::Null);
                None
            }
        }
    }

    fn put(&mut self, row: usize, place: Result<Place, Reason>, layout: &Layout) {
        match (place, layout) {
            (Err(reason), _) => self.refuse(row, reason),
            (Ok(Place::Slot(slot)), Layout::OneHot { weight, .. }) => self.set(row, slot as usize, *weight),
            (Ok(Place::Nothing), Layout::OneHot { .. }) => {}
            (Ok(Place::Slot(slot)), Layout::Ordinal { scale, .. }) => {
                let number = f64::from(slot);
                self.set(row, 0, scale.map_or(number, |s| s.apply(number)));
            }
            (Ok(Place::Nothing), Layout::Ordinal { scale, .. }) => self.set(row, 0, scale.map_or(f64::NAN, |s| s.apply(s.shift))),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one cell of a time column")]
    fn put_part(&mut self, row: usize, at: usize, part: Part, form: PartForm, s: i64, missing: bool, absent: Absent) {
        let nan = missing && absent == Absent::Nan;
        match form {
            PartForm::Cyclic { weight } => {
                let (sin, cos) = match (nan, missing) {
                    (true, _) => (f64::NAN, f64::NAN),
                    (_, true) => (0.0, 0.0),
                    _ => part.angle(s).sin_cos(),
                };
                self.set(row, at, sin * weight);
                self.set(row, at + 1, cos * weight);
            }
            PartForm::Plain { fill, scale } => {
                let value = match (nan, missing) {
                    (true, _) => f64::NAN,
                    (_, true) => scale.apply(fill),
                    _ => scale.apply(part.of(s)),
                };
                self.set(row, at, value);
            }
        }
    }

    fn set(&mut self, row: usize, offset: usize, value: f64) {
        self.x[row * self.width + self.first + offset] = value;
    }

    fn refuse(&mut self, row: usize, reason: Reason) {
        self.refused.push(Refusal { row, field: self.column.name.clone(), reason });
    }
}

fn hashed(bytes: &[u8], places: u32) -> Place {
    Place::Slot((xxh3_64(bytes) % u64::from(places)) as u32)
}

/// The column as doubles.
pub(super) fn numbers(array: &ArrayRef) -> Result<Numbers> {
    fn of<T: ArrowPrimitiveType>(array: &ArrayRef, number: impl Fn(T::Native) -> f64) -> Vec<f64> {
        array.as_primitive::<T>().values().iter().map(|v| number(*v)).collect()
    }
    let values = match array.data_type() {
        DataType::Int8 => of::<Int8Type>(array, f64::from),
        DataType::Int16 => of::<Int16Type>(array, f64::from),
        DataType::Int32 => of::<Int32Type>(array, f64::from),
        DataType::Int64 => of::<Int64Type>(array, |v| v as f64),
        DataType::UInt8 => of::<UInt8Type>(array, f64::from),
        DataType::UInt16 => of::<UInt16Type>(array, f64::from),
        DataType::UInt32 => of::<UInt32Type>(array, f64::from),
        DataType::UInt64 => of::<UInt64Type>(array, |v| v as f64),
        DataType::Float32 => of::<Float32Type>(array, f64::from),
        DataType::Float64 => of::<Float64Type>(array, |v| v),
        DataType::Decimal128(_, scale) => {
            let divisor = 10f64.powi(i32::from(*scale));
            of::<Decimal128Type>(array, |v| v as f64 / divisor)
        }
        DataType::Null => vec![0.0; array.len()],
        _ => {
            let doubles = cast(array, &DataType::Float64).map_err(|e| Error::data("it is no number").caused_by(e))?;
            return Ok(Numbers { values: of::<Float64Type>(&doubles, |v| v), nulls: doubles.nulls().cloned() });
        }
    };
    Ok(Numbers { values, nulls: array.logical_nulls() })
}

/// The column as text.
pub(super) fn texts(array: &ArrayRef) -> Result<StringArray> {
    if let Some(texts) = array.as_string_opt::<i32>() {
        return Ok(texts.clone());
    }
    let texts = cast(array, &DataType::Utf8).map_err(|e| Error::data("it is no text").caused_by(e))?;
    Ok(texts.as_string::<i32>().clone())
}

/// The column as whole numbers.
pub(super) fn integers(array: &ArrayRef) -> Result<Int64Array> {
    let whole = cast(array, &DataType::Int64).map_err(|e| Error::data("it is no whole number").caused_by(e))?;
    Ok(whole.as_primitive::<Int64Type>().clone())
}

/// The column as truth values.
pub(super) fn booleans(array: &ArrayRef) -> Result<BooleanArray> {
    if let Some(booleans) = array.as_boolean_opt() {
        return Ok(booleans.clone());
    }
    let booleans = cast(array, &DataType::Boolean).map_err(|e| Error::data("it is neither true nor false").caused_by(e))?;
    Ok(booleans.as_boolean().clone())
}
