//! Parts of dates and times: the hour of 2024-11-09 10:05 is 10.
//!
//! Everything is worked out in UTC from seconds since 1970, by the proleptic Gregorian calendar. What must hold: a
//! part of a value depends on that value alone.

use std::f64::consts::TAU;
use std::fmt;

use arrow::array::{Array, ArrayRef, Date32Array, Date64Array, PrimitiveArray, Time32MillisecondArray, Time32SecondArray};
use arrow::array::{Time64MicrosecondArray, Time64NanosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray};
use arrow::array::{TimestampNanosecondArray, TimestampSecondArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::formats::text::civil;

const DAY_S: i64 = 86_400;

/// A part of a date or time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// 0 to 23; its sine and cosine go with the second of the day.
    Hour,
    /// Monday is 0.
    Weekday,
    /// 1 to 31.
    Day,
    /// 1 to 12.
    Month,
    /// As in the calendar.
    Year,
    /// Days since 1970: a trend.
    Epoch,
}

pub(super) const PARTS: [(&str, Part); 6] = [
    ("hour", Part::Hour),
    ("weekday", Part::Weekday),
    ("day", Part::Day),
    ("month", Part::Month),
    ("year", Part::Year),
    ("epoch", Part::Epoch),
];

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PARTS.iter().find(|(_, part)| part == self).map_or("", |(name, _)| name))
    }
}

impl Part {
    /// The part of the moment `s` seconds after 1970.
    pub fn of(self, s: i64) -> f64 {
        let days = s.div_euclid(DAY_S);
        match self {
            Self::Hour => (s.rem_euclid(DAY_S) / 3600) as f64,
            Self::Weekday => (days + 3).rem_euclid(7) as f64,
            Self::Day => f64::from(civil(days).2),
            Self::Month => f64::from(civil(days).1),
            Self::Year => civil(days).0 as f64,
            Self::Epoch => s as f64 / DAY_S as f64,
        }
    }

    /// Whether the part goes in circles.
    pub fn goes_round(self) -> bool {
        matches!(self, Self::Hour | Self::Weekday | Self::Month)
    }

    /// The angle of the moment `s` on the part's circle.
    pub fn angle(self, s: i64) -> f64 {
        match self {
            Self::Hour => s.rem_euclid(DAY_S) as f64 / DAY_S as f64 * TAU,
            Self::Weekday => self.of(s) / 7.0 * TAU,
            _ => (self.of(s) - 1.0) / 12.0 * TAU,
        }
    }
}

/// Seconds since 1970 of a date or timestamp column, since midnight of a time column; nulls hold 0.
pub fn seconds(array: &ArrayRef) -> Result<Vec<i64>> {
    fn of<T: ArrowPrimitiveType>(array: &ArrayRef, second: impl Fn(T::Native) -> i64) -> Result<Vec<i64>> {
        let typed = array.as_any().downcast_ref::<PrimitiveArray<T>>();
        let typed = typed.ok_or_else(|| Error::internal(format!("a time column of type {}", array.data_type())))?;
        let value = |(i, v): (usize, &T::Native)| if typed.is_null(i) { 0 } else { second(*v) };
        Ok(typed.values().iter().enumerate().map(value).collect())
    }
    macro_rules! column {
        ($array:ty, $second:expr) => {
            of::<<$array as TypeOf>::T>(array, $second)
        };
    }
    match array.data_type() {
        DataType::Date32 => column!(Date32Array, |v| i64::from(v) * DAY_S),
        DataType::Date64 => column!(Date64Array, |v| v.div_euclid(1000)),
        DataType::Time32(TimeUnit::Second) => column!(Time32SecondArray, i64::from),
        DataType::Time32(_) => column!(Time32MillisecondArray, |v| i64::from(v).div_euclid(1000)),
        DataType::Time64(TimeUnit::Microsecond) => column!(Time64MicrosecondArray, |v| v.div_euclid(1_000_000)),
        DataType::Time64(_) => column!(Time64NanosecondArray, |v| v.div_euclid(1_000_000_000)),
        DataType::Timestamp(TimeUnit::Second, _) => column!(TimestampSecondArray, |v| v),
        DataType::Timestamp(TimeUnit::Millisecond, _) => column!(TimestampMillisecondArray, |v| v.div_euclid(1000)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => column!(TimestampMicrosecondArray, |v| v.div_euclid(1_000_000)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => column!(TimestampNanosecondArray, |v| v.div_euclid(1_000_000_000)),
        DataType::Null => Ok(vec![0; array.len()]),
        other => Err(Error::internal(format!("a time column of type {other}"))),
    }
}

/// The primitive type of an array type.
trait TypeOf {
    type T: ArrowPrimitiveType;
}

impl<P: ArrowPrimitiveType> TypeOf for PrimitiveArray<P> {
    type T = P;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_calendars() {
        for text in ["1970-01-01T00:00:00Z", "2024-02-29T23:59:59Z", "1899-12-31T05:00:00Z", "2000-03-01T12:30:00Z"] {
            use chrono::{Datelike, Timelike};
            let at = chrono::DateTime::parse_from_rfc3339(text).expect("a date").to_utc();
            let expected = [at.hour(), at.weekday().num_days_from_monday(), at.day(), at.month(), at.year() as u32].map(f64::from);
            let parts = [Part::Hour, Part::Weekday, Part::Day, Part::Month, Part::Year].map(|p| p.of(at.timestamp()));
            assert_eq!(parts, expected, "{text}");
        }
        assert_eq!(Part::Hour.angle(6 * 3600), TAU / 4.0);
    }
}
