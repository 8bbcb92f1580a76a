//! The text forms that CAST reads and writes, where they differ from those of the formats: CAST is more
//! lenient with what it reads (`2024-1-5`, `42` as a date), and writes arrays, maps and rows.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType,
};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime};

use super::columns::{datetime, ticks};
use super::session::Session;
use crate::error::{Error, Result};
use crate::formats::text::{Fraction, timestamp_at, write_date, write_decimal, write_double, write_float, write_time, write_timestamp};
use crate::stream::SqlType;

/// Writes the values of one column, each as CAST to STRING does.
pub(super) struct Writer {
    array: ArrayRef,
    sql: SqlType,
    children: Vec<Writer>,
}

impl Writer {
    pub fn new(array: &ArrayRef, sql: &SqlType, session: &Session) -> Result<Self> {
        let child = |array: &ArrayRef, t: &SqlType| Writer::new(array, t, session);
        let children = match sql {
            SqlType::Array(t, _) => vec![child(array.as_list::<i32>().values(), t)?],
            SqlType::Map(k, v, _) => vec![child(array.as_map().keys(), k)?, child(array.as_map().values(), v)?],
            SqlType::Row(fields) => {
                array.as_struct().columns().iter().zip(fields).map(|(c, (_, t, _))| child(c, t)).collect::<Result<_>>()?
            }
            _ => Vec::new(),
        };
        // The zone is applied once, so that writing a row is only writing.
        let array = match sql {
            SqlType::TimestampLtz(p) => {
                let (numbers, nanos) = ticks(array)?;
                let local = SqlType::Timestamp(*p);
                let wall = |v: Option<i64>| match v.and_then(|v| datetime(v, nanos)) {
                    Some(t) => super::columns::to_ticks(&local, session.to_local(t), session),
                    None => Ok(None),
                };
                super::columns::from_ticks(&local, numbers.iter().map(wall).collect::<Result<_>>()?)?
            }
            t if t.is_text() => arrow::compute::cast(array, &DataType::Utf8)?,
            SqlType::Binary(_) | SqlType::VarBinary(_) => arrow::compute::cast(array, &DataType::Binary)?,
            _ if *array.data_type() == DataType::Null => array.clone(),
            _ if !matches!(array.data_type(), DataType::List(_) | DataType::Map(..) | DataType::Struct(_))
                && *array.data_type() != sql.arrow() =>
            {
                return Err(Error::internal(format!("{} is not held as {}", sql, array.data_type())));
            }
            _ => array.clone(),
        };
        Ok(Self { array, sql: sql.clone(), children })
    }

    /// Appends the text of a row; `NULL` for NULL.
    pub fn write(&self, row: usize, out: &mut String) {
        use std::fmt::Write;
        let array = self.array.as_ref();
        if array.is_null(row) {
            return out.push_str("NULL");
        }
        let number = |v: i64, out: &mut String| write!(out, "{v}").expect("writing to a String cannot fail");
        match &self.sql {
            SqlType::Boolean => out.push_str(if array.as_boolean().value(row) { "TRUE" } else { "FALSE" }),
            SqlType::TinyInt => number(array.as_primitive::<Int8Type>().value(row).into(), out),
            SqlType::SmallInt => number(array.as_primitive::<Int16Type>().value(row).into(), out),
            SqlType::Int => number(array.as_primitive::<Int32Type>().value(row).into(), out),
            SqlType::BigInt => number(array.as_primitive::<Int64Type>().value(row), out),
            SqlType::Float => write_float(array.as_primitive::<Float32Type>().value(row), out),
            SqlType::Double => write_double(array.as_primitive::<Float64Type>().value(row), out),
            SqlType::Decimal(_, s) => write_decimal(array.as_primitive::<Decimal128Type>().value(row), *s, out),
            SqlType::Char(_) | SqlType::VarChar(_) => out.push_str(array.as_string::<i32>().value(row)),
            SqlType::Binary(_) | SqlType::VarBinary(_) => out.push_str(&String::from_utf8_lossy(array.as_binary::<i32>().value(row))),
            SqlType::Date => write_date(array.as_primitive::<Date32Type>().value(row), out),
            SqlType::Time(p) => write_time(array.as_primitive::<Time32MillisecondType>().value(row), Fraction::Digits((*p).min(3)), out),
            SqlType::Timestamp(p) | SqlType::TimestampLtz(p) => {
                let DataType::Timestamp(unit, _) = array.data_type() else { return };
                write_timestamp(timestamp_at(array, *unit, row), *unit, ' ', Fraction::Digits(*p), out);
            }
            SqlType::Array(..) => self.list(array.as_list::<i32>().value_offsets(), row, ('[', ']'), out),
            SqlType::Map(..) => self.list(array.as_map().value_offsets(), row, ('{', '}'), out),
            SqlType::Row(_) => {
                out.push('(');
                for (i, child) in self.children.iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" });
                    child.write(row, out);
                }
                out.push(')');
            }
        }
    }

    fn list(&self, offsets: &[i32], row: usize, (open, close): (char, char), out: &mut String) {
        out.push(open);
        for i in offsets[row]..offsets[row + 1] {
            if i > offsets[row] {
                out.push_str(", ");
            }
            for (n, child) in self.children.iter().enumerate() {
                out.push_str(if n > 0 { "=" } else { "" });
                child.write(i as usize, out);
            }
        }
        out.push(close);
    }
}

/// TRUE, T, YES, Y, 1 and their opposites, in any case, without blanks around them.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|w| w.eq_ignore_ascii_case(text));
    if is(&["true", "t", "yes", "y", "1"]) {
        return Some(true);
    }
    is(&["false", "f", "no", "n", "0"]).then_some(false)
}

/// A whole number with blanks around it; a fraction is cut.
pub(super) fn parse_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match whole {
        "" | "-" | "+" if !part.is_empty() => Some(0),
        _ => whole.parse().ok(),
    }
}

/// `2024-01-05`, also `2024-1-5`, `2024-1` and `2024`; a time behind it is ignored. A day that the month
/// does not have is no date.
pub(super) fn parse_date(text: &str) -> Option<NaiveDateTime> {
    let date = text.split([' ', 'T']).next()?;
    let (year, month, day) = date_parts(date)?;
    Some(NaiveDate::from_ymd_opt(year, month, day)?.and_time(NaiveTime::MIN))
}

/// `10:20:30.123`, also `10:20` and `10`.
pub(super) fn parse_time(text: &str) -> Option<NaiveDateTime> {
    let (clock, nanos) = split_fraction(text)?;
    let mut parts = clock.split(':').map(|p| number(p, 2));
    let h = parts.next()??;
    let m = parts.next().unwrap_or(Some(0))?;
    let s = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() {
        return None;
    }
    Some(NaiveDate::default().and_time(NaiveTime::from_hms_nano_opt(h, m, s, nanos)?))
}

/// `2024-01-05 10:20:30.123`, also with single digits, and a date alone; never with `T`. A day up to 31 that
/// the month does not have is its last one.
pub(super) fn parse_sql_timestamp(text: &str) -> Option<NaiveDateTime> {
    let (date, time) = match text.split_once(' ') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    if date.trim_start_matches('-').split('-').count() != 3 {
        return None;
    }
    let (year, month, day) = date_parts(date)?;
    let last = crate::formats::text::days_in_month(year.into(), month);
    let date = NaiveDate::from_ymd_opt(year, month, if day <= 31 { day.min(last) } else { return None })?;
    let Some(time) = time else {
        return Some(date.and_time(NaiveTime::MIN));
    };
    let (clock, nanos) = split_fraction(time)?;
    let mut parts = clock.split(':');
    let (h, m, s) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    if parts.next().is_some() {
        return None;
    }
    Some(date.and_time(NaiveTime::from_hms_nano_opt(h, m, s, nanos)?))
}

fn date_parts(date: &str) -> Option<(i32, u32, u32)> {
    let (sign, rest) = match date.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, date),
    };
    let mut parts = rest.split('-');
    let year = number(parts.next()?, 9)? as i32 * sign;
    let month = parts.next().map_or(Some(1), |m| number(m, 2))?;
    let day = parts.next().map_or(Some(1), |d| number(d, 2))?;
    if parts.next().is_some() || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    Some((year, month, day))
}

/// One to `max` digits and nothing else.
fn number(text: &str, max: usize) -> Option<u32> {
    if text.is_empty() || text.len() > max || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// What stands before the point, and the nanoseconds behind it.
fn split_fraction(text: &str) -> Option<(&str, u32)> {
    let Some((before, fraction)) = text.split_once('.') else {
        return Some((text, 0));
    };
    let digits = number(fraction, 9)?;
    Some((before, digits * 10u32.pow(9 - fraction.len() as u32)))
}
