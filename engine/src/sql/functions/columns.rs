//! A batch of arguments, read column by column in the type that a function needs.
//!
//! A constant argument stays one value: readers answer it for every row. Readers never allocate per row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, BooleanBuilder, PrimitiveArray, PrimitiveBuilder, StringArray,
    StringBuilder, UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Date32Type, FieldRef, Float64Type, Int64Type, Time32MillisecondType, TimeUnit};
use arrow::datatypes::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use super::session::Session;
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// The arguments of one call over a batch.
pub(super) struct Batch<'a> {
    /// The function's name.
    pub name: &'static str,
    /// Rows to answer.
    pub rows: usize,
    /// The result's type.
    pub out: SqlType,
    /// Zone and patterns.
    pub session: &'a Session,
    args: Vec<Argument>,
}

struct Argument {
    values: ArrayRef,
    constant: bool,
    field: FieldRef,
}

/// A column of which a constant holds one value only.
pub(super) struct Column<A> {
    array: A,
    constant: bool,
}

impl<A: Array> Column<A> {
    fn at(&self, row: usize) -> Option<usize> {
        let i = if self.constant { 0 } else { row };
        self.array.is_valid(i).then_some(i)
    }
}

impl Column<StringArray> {
    /// The text of a row.
    pub fn get(&self, row: usize) -> Option<&str> {
        self.at(row).map(|i| self.array.value(i))
    }
}

impl Column<BinaryArray> {
    /// The bytes of a row.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        self.at(row).map(|i| self.array.value(i))
    }
}

impl Column<BooleanArray> {
    /// The truth of a row.
    pub fn get(&self, row: usize) -> Option<bool> {
        self.at(row).map(|i| self.array.value(i))
    }
}

impl<T: ArrowPrimitiveType> Column<PrimitiveArray<T>> {
    /// The value of a row.
    pub fn get(&self, row: usize) -> Option<T::Native> {
        self.at(row).map(|i| self.array.value(i))
    }
}

impl<'a> Batch<'a> {
    pub fn new(name: &'static str, args: ScalarFunctionArgs, rows: usize, session: &'a Session) -> Result<Self> {
        let out = SqlType::of(&args.return_field);
        let args = args
            .args
            .into_iter()
            .zip(args.arg_fields)
            .map(|(value, field)| {
                Ok(match value {
                    ColumnarValue::Array(values) => Argument { values, constant: false, field },
                    ColumnarValue::Scalar(s) => Argument { values: s.to_array_of_size(1)?, constant: true, field },
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { name, rows, out, session, args })
    }

    /// Number of arguments.
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// The type of argument `i`.
    pub fn sql(&self, i: usize) -> SqlType {
        SqlType::of(&self.args[i].field)
    }

    /// Whether argument `i` is one value for all rows.
    pub fn is_constant(&self, i: usize) -> bool {
        self.args[i].constant
    }

    /// Argument `i` as it is; of length 1 where it is a constant.
    pub fn raw(&self, i: usize) -> &ArrayRef {
        &self.args[i].values
    }

    /// Argument `i` with a value for every row.
    pub fn full(&self, i: usize) -> Result<ArrayRef> {
        let arg = &self.args[i];
        if !arg.constant || self.rows == 1 {
            return Ok(arg.values.clone());
        }
        repeated(&arg.values, self.rows)
    }

    fn of_type(&self, i: usize, t: &DataType) -> Result<(ArrayRef, bool)> {
        let arg = &self.args[i];
        let values = if arg.values.data_type() == t { arg.values.clone() } else { cast(&arg.values, t)? };
        Ok((values, arg.constant))
    }

    /// Argument `i` as text.
    pub fn text(&self, i: usize) -> Result<Column<StringArray>> {
        let (array, constant) = self.of_type(i, &DataType::Utf8)?;
        Ok(Column { array: array.as_string().clone(), constant })
    }

    /// Argument `i` as bytes.
    pub fn bytes(&self, i: usize) -> Result<Column<BinaryArray>> {
        let (array, constant) = self.of_type(i, &DataType::Binary)?;
        Ok(Column { array: array.as_binary().clone(), constant })
    }

    /// Argument `i` as truth values.
    pub fn bools(&self, i: usize) -> Result<Column<BooleanArray>> {
        let (array, constant) = self.of_type(i, &DataType::Boolean)?;
        Ok(Column { array: array.as_boolean().clone(), constant })
    }

    /// Argument `i` as BIGINT.
    pub fn longs(&self, i: usize) -> Result<Column<PrimitiveArray<Int64Type>>> {
        let (array, constant) = self.of_type(i, &DataType::Int64)?;
        Ok(Column { array: array.as_primitive().clone(), constant })
    }

    /// Argument `i` as DOUBLE.
    pub fn doubles(&self, i: usize) -> Result<Column<PrimitiveArray<Float64Type>>> {
        let (array, constant) = self.of_type(i, &DataType::Float64)?;
        Ok(Column { array: array.as_primitive().clone(), constant })
    }

    /// Argument `i` as wall-clock times (of the session's zone for TIMESTAMP_LTZ).
    pub fn times(&self, i: usize) -> Result<Times<'a>> {
        let arg = &self.args[i];
        let local = match arg.values.data_type() {
            DataType::Timestamp(_, Some(_)) => Some(self.session),
            _ => None,
        };
        let (ticks, nanos_per_tick) = ticks(&arg.values)?;
        Ok(Times { ticks: Column { array: ticks, constant: arg.constant }, nanos_per_tick, local })
    }

    /// Builds INT, BIGINT, DOUBLE, … row by row.
    pub fn primitive<T: ArrowPrimitiveType>(&self, mut row: impl FnMut(usize) -> Result<Option<T::Native>>) -> Result<ArrayRef> {
        let mut out = PrimitiveBuilder::<T>::with_capacity(self.rows);
        for i in 0..self.rows {
            out.append_option(row(i)?);
        }
        Ok(Arc::new(out.finish().with_data_type(self.out.arrow())))
    }

    /// Builds truth values row by row.
    pub fn truths(&self, mut row: impl FnMut(usize) -> Result<Option<bool>>) -> Result<ArrayRef> {
        let mut out = BooleanBuilder::with_capacity(self.rows);
        for i in 0..self.rows {
            out.append_option(row(i)?);
        }
        Ok(Arc::new(out.finish()))
    }

    /// Builds texts row by row: `row` writes into an empty text and says whether there is one.
    pub fn texts(&self, mut row: impl FnMut(usize, &mut String) -> Result<bool>) -> Result<ArrayRef> {
        let mut out = StringBuilder::with_capacity(self.rows, self.rows * 16);
        let mut text = String::new();
        for i in 0..self.rows {
            text.clear();
            match row(i, &mut text)? {
                true => out.append_value(&text),
                false => out.append_null(),
            }
        }
        Ok(Arc::new(out.finish()))
    }

    /// Builds dates, times or timestamps of the result's type from wall-clock times (of the session's zone
    /// for TIMESTAMP_LTZ).
    pub fn datetimes(&self, mut row: impl FnMut(usize) -> Result<Option<NaiveDateTime>>) -> Result<ArrayRef> {
        let mut values = Vec::with_capacity(self.rows);
        for i in 0..self.rows {
            values.push(match row(i)? {
                Some(t) => to_ticks(&self.out, t, self.session)?,
                None => None,
            });
        }
        from_ticks(&self.out, values)
    }
}

/// The first value of `array`, `rows` times; nested fields keep their metadata.
pub(super) fn repeated(array: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    Ok(take(array, &UInt32Array::from(vec![0; rows]), None)?)
}

/// A column of dates, times or timestamps.
pub(super) struct Times<'a> {
    ticks: Column<PrimitiveArray<Int64Type>>,
    nanos_per_tick: i64,
    local: Option<&'a Session>,
}

impl Times<'_> {
    /// The wall-clock time of a row. A TIME is a time of 1970-01-01.
    pub fn get(&self, row: usize) -> Option<NaiveDateTime> {
        let utc = datetime(self.ticks.get(row)?, self.nanos_per_tick)?;
        Some(self.local.map_or(utc, |session| session.to_local(utc)))
    }

    /// Nanoseconds since 1970 of a row: of UTC for TIMESTAMP_LTZ, of the wall clock otherwise.
    pub fn nanos(&self, row: usize) -> Option<i128> {
        Some(self.ticks.get(row)? as i128 * self.nanos_per_tick as i128)
    }
}

/// The time `ticks` ticks after 1970.
pub(super) fn datetime(ticks: i64, nanos_per_tick: i64) -> Option<NaiveDateTime> {
    let per_second = (1_000_000_000 / nanos_per_tick).max(1);
    let seconds =
        if nanos_per_tick > 1_000_000_000 { ticks.checked_mul(nanos_per_tick / 1_000_000_000)? } else { ticks.div_euclid(per_second) };
    let nanos = if nanos_per_tick > 1_000_000_000 { 0 } else { ticks.rem_euclid(per_second) * nanos_per_tick };
    DateTime::from_timestamp(seconds, nanos as u32).map(|t| t.naive_utc())
}

/// The raw numbers of a time column, and what one of them is worth.
pub(super) fn ticks(array: &ArrayRef) -> Result<(PrimitiveArray<Int64Type>, i64)> {
    let nanos = match array.data_type() {
        DataType::Date32 => 86_400 * 1_000_000_000,
        DataType::Time32(TimeUnit::Second) | DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Time32(_) | DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
        DataType::Null => 1,
        other => return Err(Error::internal(format!("{other} is no time"))),
    };
    let numbers = match array.data_type() {
        DataType::Date32 | DataType::Time32(_) => cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(array, &DataType::Int64)?,
    };
    Ok((numbers.as_primitive().clone(), nanos))
}

/// The tick of a wall-clock time in type `t`; fractions that `t` has no place for are cut.
pub(super) fn to_ticks(t: &SqlType, local: NaiveDateTime, session: &Session) -> Result<Option<i64>> {
    let outside = || Error::data(format!("the time {local} lies outside the range of {t}"));
    Ok(Some(match t {
        SqlType::Date => local.date().signed_duration_since(EPOCH).num_days(),
        SqlType::Time(_) => {
            let time = local.time();
            use chrono::Timelike;
            time.num_seconds_from_midnight() as i64 * 1000 + (time.nanosecond() / 1_000_000) as i64
        }
        SqlType::Timestamp(p) | SqlType::TimestampLtz(p) => {
            let utc = if matches!(t, SqlType::TimestampLtz(_)) { session.to_utc(local) } else { local };
            let utc = utc.and_utc();
            let step = 10i64.pow(9 - *p as u32) as u32;
            let nanos = utc.timestamp_subsec_nanos() / step * step;
            let per_second: i64 = match crate::stream::types::time_unit(*p) {
                TimeUnit::Second => 1,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond => 1_000_000,
                TimeUnit::Nanosecond => 1_000_000_000,
            };
            utc.timestamp()
                .checked_mul(per_second)
                .and_then(|s| s.checked_add(nanos as i64 / (1_000_000_000 / per_second)))
                .ok_or_else(outside)?
        }
        other => return Err(Error::internal(format!("{other} is no time"))),
    }))
}

const EPOCH: NaiveDate = NaiveDate::from_ymd_opt(1970, 1, 1).expect("1970-01-01 is a date");

/// An array of type `t` from its ticks.
pub(super) fn from_ticks(t: &SqlType, values: Vec<Option<i64>>) -> Result<ArrayRef> {
    let arrow = t.arrow();
    Ok(match &arrow {
        DataType::Date32 => Arc::new(values.into_iter().map(|v| v.map(|v| v as i32)).collect::<PrimitiveArray<Date32Type>>()),
        DataType::Time32(_) => Arc::new(values.into_iter().map(|v| v.map(|v| v as i32)).collect::<PrimitiveArray<Time32MillisecondType>>()),
        DataType::Timestamp(TimeUnit::Second, _) => {
            Arc::new(values.into_iter().collect::<PrimitiveArray<TimestampSecondType>>().with_data_type(arrow))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Arc::new(values.into_iter().collect::<PrimitiveArray<TimestampMillisecondType>>().with_data_type(arrow))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Arc::new(values.into_iter().collect::<PrimitiveArray<TimestampMicrosecondType>>().with_data_type(arrow))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Arc::new(values.into_iter().collect::<PrimitiveArray<TimestampNanosecondType>>().with_data_type(arrow))
        }
        other => return Err(Error::internal(format!("{other} is no time"))),
    })
}
