//! The values of one generated column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    Int64Array, ListArray, MapArray, StringArray, StructArray, Time32MillisecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::{Options, parse_duration};
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// Elements of a made ARRAY or MAP, and characters of a STRING, unless told otherwise.
const COLLECTION_LENGTH: usize = 3;
const TEXT_LENGTH: usize = 100;
const DAY_MS: i64 = 86_400_000;

/// How the values of a column are made.
#[derive(Debug)]
pub struct Field {
    kind: Kind,
    arrow: FieldRef,
    null_rate: f64,
    seed: u64,
}

#[derive(Debug)]
enum Kind {
    /// `start + n`.
    Sequence {
        start: i64,
        end: i64,
    },
    /// Whole numbers, also of dates and times.
    Integer {
        min: i64,
        max: i64,
    },
    /// Unscaled decimals.
    Decimal {
        min: i128,
        max: i128,
    },
    Double {
        min: f64,
        max: f64,
    },
    Boolean,
    /// Hexadecimal digits.
    Text {
        length: usize,
        varies: bool,
    },
    Bytes {
        length: usize,
        varies: bool,
    },
    /// The current time less at most so many ms.
    Past {
        max: i64,
    },
    Array {
        element: Box<Field>,
        length: usize,
    },
    Map {
        key: Box<Field>,
        value: Box<Field>,
        length: usize,
    },
    Row(Vec<Field>),
}

impl Field {
    /// Reads `fields.<column>.*`.
    ///
    /// # Errors
    /// User: an option that does not fit, or a type that cannot be made.
    pub fn read(options: &mut Options, column: &FieldRef, seed: u64, index: u64) -> Result<Self> {
        Self::named(options, column, &format!("fields.{}", column.name()), seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index))
    }

    fn named(options: &mut Options, column: &FieldRef, prefix: &str, seed: u64) -> Result<Self> {
        let sequence = options.choice(&format!("{prefix}.kind"), &[("random", false), ("sequence", true)], false)?;
        let null_key = format!("{prefix}.null-rate");
        let null_rate = options.number::<f64>(&null_key)?.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&null_rate) {
            return Err(options.bad(&null_key, &null_rate.to_string(), "between 0 and 1"));
        }
        if null_rate > 0.0 && !column.is_nullable() {
            return Err(options.bad(&null_key, &null_rate.to_string(), "0, because the column is NOT NULL"));
        }
        let sql = SqlType::of(column);
        let kind = if sequence { read_sequence(options, &sql, prefix)? } else { read_random(options, column, &sql, prefix, seed)? };
        Ok(Self { kind, arrow: column.clone(), null_rate, seed })
    }

    /// Rows until a sequence ends.
    pub fn rows(&self) -> Option<u64> {
        match self.kind {
            Kind::Sequence { start, end } => Some((i128::from(end) - i128::from(start) + 1).clamp(0, i128::from(i64::MAX)) as u64),
            _ => None,
        }
    }

    /// The values of `rows` rows from number `first` on. `now` is the current time in ms.
    ///
    /// # Errors
    /// Internal only.
    pub fn make(&self, first: u64, rows: usize, now: i64) -> Result<ArrayRef> {
        let numbers = first..first + rows as u64;
        let valid: Option<Vec<bool>> =
            (self.null_rate > 0.0).then(|| numbers.clone().map(|n| unit(self.draw(n, 1)) >= self.null_rate).collect());
        let nulls = valid.map(NullBuffer::from);
        let integers = |min: i64, max: i64| numbers.clone().map(move |n| between(self.draw(n, 0), min, max));
        Ok(match &self.kind {
            Kind::Sequence { start, .. } => {
                let texts = matches!(self.arrow.data_type(), DataType::Utf8);
                let values = numbers.clone().map(|n| start.wrapping_add(n as i64));
                if texts {
                    with_nulls(Arc::new(StringArray::from_iter_values(values.map(|v| v.to_string()))), nulls)?
                } else {
                    self.of_integers(values.collect(), nulls)?
                }
            }
            Kind::Integer { min, max } => self.of_integers(integers(*min, *max).collect(), nulls)?,
            Kind::Past { max } => {
                let values = integers(0, *max).map(|past| now - past).collect::<Vec<_>>();
                self.of_integers(values, nulls)?
            }
            Kind::Decimal { min, max } => {
                let width = max.wrapping_sub(*min) as u128;
                let values = numbers.map(|n| {
                    let drawn = u128::from(self.draw(n, 0)) << 64 | u128::from(self.draw(n, 2));
                    if width == u128::MAX { drawn as i128 } else { min.wrapping_add((drawn % (width + 1)) as i128) }
                });
                let DataType::Decimal128(precision, scale) = self.arrow.data_type() else { return Err(mismatch()) };
                let array = Decimal128Array::from_iter_values(values).with_precision_and_scale(*precision, *scale)?;
                with_nulls(Arc::new(array), nulls)?
            }
            Kind::Double { min, max } => {
                let values = numbers.map(|n| min + unit(self.draw(n, 0)) * (max - min));
                match self.arrow.data_type() {
                    DataType::Float32 => Arc::new(Float32Array::new(values.map(|v| v as f32).collect::<Vec<_>>().into(), nulls)),
                    _ => Arc::new(Float64Array::new(values.collect::<Vec<_>>().into(), nulls)),
                }
            }
            Kind::Boolean => Arc::new(BooleanArray::new(numbers.map(|n| self.draw(n, 0) & 1 == 1).collect(), nulls)),
            Kind::Text { length, varies } => {
                let mut text = String::new();
                let values = numbers.map(|n| {
                    text.clear();
                    for (i, byte) in self.bytes(n, self.length(n, *length, *varies)).enumerate() {
                        debug_assert!(i < *length);
                        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
                    }
                    text.clone()
                });
                with_nulls(Arc::new(StringArray::from_iter_values(values)), nulls)?
            }
            Kind::Bytes { length, varies } => {
                let values = numbers.map(|n| self.bytes(n, self.length(n, *length, *varies)).collect::<Vec<u8>>());
                with_nulls(Arc::new(BinaryArray::from_iter_values(values)), nulls)?
            }
            Kind::Array { element, length } => {
                let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(*length, rows));
                let values = element.make(first * *length as u64, rows * length, now)?;
                Arc::new(ListArray::try_new(element.arrow.clone(), offsets, values, nulls)?)
            }
            Kind::Map { key, value, length } => {
                let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(*length, rows));
                let DataType::Map(entries, sorted) = self.arrow.data_type() else { return Err(mismatch()) };
                let DataType::Struct(fields) = entries.data_type() else { return Err(mismatch()) };
                let start = first * *length as u64;
                let columns = vec![key.make(start, rows * length, now)?, value.make(start, rows * length, now)?];
                let entries_array = StructArray::try_new(fields.clone(), columns, None)?;
                Arc::new(MapArray::try_new(entries.clone(), offsets, entries_array, nulls, *sorted)?)
            }
            Kind::Row(fields) => {
                let DataType::Struct(types) = self.arrow.data_type() else { return Err(mismatch()) };
                let columns = fields.iter().map(|f| f.make(first, rows, now)).collect::<Result<Vec<_>>>()?;
                Arc::new(StructArray::try_new(types.clone(), columns, nulls)?)
            }
        })
    }

    /// Whole numbers in the column's type; timestamps are given in ms.
    fn of_integers(&self, values: Vec<i64>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let narrow = |values: Vec<i64>| values.into_iter().map(|v| v as i32).collect::<Vec<_>>();
        Ok(match self.arrow.data_type() {
            DataType::Int8 => Arc::new(Int8Array::new(values.into_iter().map(|v| v as i8).collect::<Vec<_>>().into(), nulls)),
            DataType::Int16 => Arc::new(Int16Array::new(values.into_iter().map(|v| v as i16).collect::<Vec<_>>().into(), nulls)),
            DataType::Int32 => Arc::new(Int32Array::new(narrow(values).into(), nulls)),
            DataType::Date32 => {
                Arc::new(Date32Array::new(narrow(values.into_iter().map(|v| v.div_euclid(DAY_MS)).collect()).into(), nulls))
            }
            DataType::Time32(_) => {
                let of_day = values.into_iter().map(|v| v.rem_euclid(DAY_MS)).collect();
                Arc::new(Time32MillisecondArray::new(narrow(of_day).into(), nulls))
            }
            DataType::Int64 => Arc::new(Int64Array::new(values.into(), nulls)),
            timestamp @ DataType::Timestamp(..) => {
                let ms: ArrayRef = Arc::new(arrow::array::TimestampMillisecondArray::new(values.into(), nulls));
                let DataType::Timestamp(unit, zone) = timestamp else { return Err(mismatch()) };
                let converted = arrow::compute::cast(&ms, &DataType::Timestamp(*unit, None))?;
                if zone.is_some() { arrow::compute::cast(&converted, timestamp)? } else { converted }
            }
            other => arrow::compute::cast(&(Arc::new(Int64Array::new(values.into(), nulls)) as ArrayRef), other)?,
        })
    }

    /// The random number of row `n`; `purpose` tells several of one row apart.
    fn draw(&self, n: u64, purpose: u64) -> u64 {
        xxh3_64_with_seed(&n.to_le_bytes(), self.seed.rotate_left(17) ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    fn length(&self, n: u64, length: usize, varies: bool) -> usize {
        if varies { between(self.draw(n, 3), 1, length.max(1) as i64) as usize } else { length }
    }

    fn bytes(&self, n: u64, length: usize) -> impl Iterator<Item = u8> + '_ {
        (0..length.div_ceil(8)).flat_map(move |i| self.draw(n, 16 + i as u64).to_le_bytes()).take(length)
    }
}

fn read_sequence(options: &mut Options, sql: &SqlType, prefix: &str) -> Result<Kind> {
    if !(sql.is_numeric() || sql.is_text()) {
        return Err(options.bad(&format!("{prefix}.kind"), "sequence", "random for a column of this type"));
    }
    let mut bound = |which: &str| {
        let key = format!("{prefix}.{which}");
        options.required(&key)?;
        options.number::<i64>(&key).map(Option::unwrap_or_default)
    };
    Ok(Kind::Sequence { start: bound("start")?, end: bound("end")? })
}

fn read_random(options: &mut Options, column: &FieldRef, sql: &SqlType, prefix: &str, seed: u64) -> Result<Kind> {
    let mut integer = |low: i64, high: i64| -> Result<Kind> {
        let (min_key, max_key) = (format!("{prefix}.min"), format!("{prefix}.max"));
        let min = options.number::<i64>(&min_key)?.unwrap_or(low);
        let max = options.number::<i64>(&max_key)?.unwrap_or(high);
        for (key, value) in [(&min_key, min), (&max_key, max)] {
            if !(low..=high).contains(&value) {
                return Err(options.bad(key, &value.to_string(), &format!("between {low} and {high}")));
            }
        }
        if min > max {
            return Err(options.bad(&min_key, &min.to_string(), "no larger than the maximum"));
        }
        Ok(Kind::Integer { min, max })
    };
    Ok(match sql {
        SqlType::Boolean => Kind::Boolean,
        SqlType::TinyInt => integer(i8::MIN.into(), i8::MAX.into())?,
        SqlType::SmallInt => integer(i16::MIN.into(), i16::MAX.into())?,
        SqlType::Int => integer(i32::MIN.into(), i32::MAX.into())?,
        SqlType::BigInt => integer(i64::MIN, i64::MAX)?,
        SqlType::Float | SqlType::Double => {
            let widest = if matches!(sql, SqlType::Float) { f64::from(f32::MAX) } else { f64::MAX / 2.0 };
            let min_key = format!("{prefix}.min");
            let min = options.number::<f64>(&min_key)?.unwrap_or(0.0);
            let max = options.number::<f64>(&format!("{prefix}.max"))?.unwrap_or(widest);
            if !(min.is_finite() && max.is_finite() && min <= max) {
                return Err(options.bad(&min_key, &min.to_string(), "finite and no larger than the maximum"));
            }
            Kind::Double { min, max }
        }
        SqlType::Decimal(precision, scale) => {
            let widest = 10i128.pow(u32::from(*precision)) - 1;
            let mut bound = |which: &str, default: i128| -> Result<i128> {
                let key = format!("{prefix}.{which}");
                let Some(value) = options.number::<f64>(&key)? else { return Ok(default) };
                let unscaled = value * 10f64.powi(i32::from(*scale));
                if !unscaled.is_finite() || unscaled.abs() > widest as f64 {
                    return Err(options.bad(&key, &value.to_string(), "a value of the column's type"));
                }
                Ok(unscaled.round() as i128)
            };
            let (min, max) = (bound("min", -widest)?, bound("max", widest)?);
            if min > max {
                return Err(options.bad(&format!("{prefix}.min"), &min.to_string(), "no larger than the maximum"));
            }
            Kind::Decimal { min, max }
        }
        SqlType::Date | SqlType::Time(_) | SqlType::Timestamp(_) | SqlType::TimestampLtz(_) => {
            let key = format!("{prefix}.max-past");
            let text = options.text(&key);
            let past = match &text {
                None => Default::default(),
                Some(text) => parse_duration(text).ok_or_else(|| options.bad(&key, text, "a duration such as '5 min'"))?,
            };
            Kind::Past { max: i64::try_from(past.as_millis()).unwrap_or(i64::MAX / 2) }
        }
        SqlType::Char(n) | SqlType::VarChar(n) | SqlType::Binary(n) | SqlType::VarBinary(n) => {
            let fixed = matches!(sql, SqlType::Char(_) | SqlType::Binary(_));
            let widest = if *n == crate::stream::types::UNBOUNDED { TEXT_LENGTH } else { *n as usize };
            let key = format!("{prefix}.length");
            let length = options.number::<usize>(&key)?.unwrap_or(widest);
            if length == 0 || length > *n as usize || fixed && length != *n as usize {
                return Err(options.bad(&key, &length.to_string(), "above 0 and no longer than the column's type"));
            }
            let varies = options.flag(&format!("{prefix}.var-len"), false)?;
            if sql.is_text() { Kind::Text { length, varies } } else { Kind::Bytes { length, varies } }
        }
        SqlType::Array(..) => {
            let DataType::List(item) = column.data_type() else { return Err(mismatch()) };
            let length = options.number::<usize>(&format!("{prefix}.length"))?.unwrap_or(COLLECTION_LENGTH);
            Kind::Array { element: Box::new(Field::named(options, item, &format!("{prefix}.element"), child(seed, 0))?), length }
        }
        SqlType::Map(..) => {
            let DataType::Map(entries, _) = column.data_type() else { return Err(mismatch()) };
            let DataType::Struct(fields) = entries.data_type() else { return Err(mismatch()) };
            let length = options.number::<usize>(&format!("{prefix}.length"))?.unwrap_or(COLLECTION_LENGTH);
            let key = Box::new(Field::named(options, &fields[0], &format!("{prefix}.key"), child(seed, 0))?);
            let value = Box::new(Field::named(options, &fields[1], &format!("{prefix}.value"), child(seed, 1))?);
            Kind::Map { key, value, length }
        }
        SqlType::Row(_) => {
            let DataType::Struct(fields) = column.data_type() else { return Err(mismatch()) };
            let fields = fields.iter().enumerate();
            let read = fields.map(|(i, f)| Field::named(options, f, &format!("{prefix}.{}", f.name()), child(seed, i as u64)));
            Kind::Row(read.collect::<Result<_>>()?)
        }
    })
}

fn child(seed: u64, index: u64) -> u64 {
    seed.wrapping_add(1).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(index)
}

/// A number in `0..1`.
fn unit(drawn: u64) -> f64 {
    (drawn >> 11) as f64 / (1u64 << 53) as f64
}

/// A number in `min..=max`.
fn between(drawn: u64, min: i64, max: i64) -> i64 {
    let width = max.wrapping_sub(min) as u64;
    if width == u64::MAX { drawn as i64 } else { min.wrapping_add((drawn % (width + 1)) as i64) }
}

fn with_nulls(array: ArrayRef, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let Some(nulls) = nulls else { return Ok(array) };
    let data = array.to_data().into_builder().nulls(Some(nulls)).build()?;
    Ok(arrow::array::make_array(data))
}

fn mismatch() -> Error {
    Error::internal("a column's Arrow type and SQL type differ")
}
