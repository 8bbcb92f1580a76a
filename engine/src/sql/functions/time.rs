//! Dates and times: parts of them, differences, rounding to a unit, literals.
//!
//! Everything computes on the wall clock: of the session's zone for TIMESTAMP_LTZ, its own for the rest.
//! Times before 1970 are no exception (Flink's HOUR is negative there; ours is the hour).

use arrow::array::ArrayRef;
use arrow::datatypes::{Int32Type, Int64Type};
use chrono::{Datelike, Duration, Months, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::cast_text::{parse_date, parse_sql_timestamp};
use super::columns::{Batch, from_ticks, to_ticks};
use super::scalar::{Definition, Site, function, is_time};
use crate::error::{Error, Result, nearest};
use crate::stream::SqlType;

/// Functions of dates and times.
pub(super) const FUNCTIONS: &[Definition] = &[
    function(&["$extract"], "ta", extract_type, extract),
    function(&["$floor_to"], "at", rounded_type, |b| round_to(b, false)),
    function(&["$ceil_to"], "at", rounded_type, |b| round_to(b, true)),
    function(&["$timestampdiff"], "taa", diff_type, diff),
    function(&["$timestampadd"], "tia", add_type, add),
    function(&["$timestamp"], "t", timestamp_type, literal),
    function(&["$date"], "t", |_| Ok(SqlType::Date), literal),
    function(&["$time"], "t", time_type, literal),
    function(&["$time_plus"], "aa", |s| Ok(s.sql(0)), time_plus),
];

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Millennium,
    Century,
    Decade,
    Year,
    IsoYear,
    Quarter,
    Month,
    Week,
    Day,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
    Epoch,
}

const UNITS: &[(&str, Unit)] = &[
    ("MILLENNIUM", Unit::Millennium),
    ("CENTURY", Unit::Century),
    ("DECADE", Unit::Decade),
    ("YEAR", Unit::Year),
    ("ISOYEAR", Unit::IsoYear),
    ("QUARTER", Unit::Quarter),
    ("MONTH", Unit::Month),
    ("WEEK", Unit::Week),
    ("DAY", Unit::Day),
    ("DAYOFMONTH", Unit::Day),
    ("DOW", Unit::DayOfWeek),
    ("DAYOFWEEK", Unit::DayOfWeek),
    ("ISODOW", Unit::IsoDayOfWeek),
    ("DOY", Unit::DayOfYear),
    ("DAYOFYEAR", Unit::DayOfYear),
    ("HOUR", Unit::Hour),
    ("MINUTE", Unit::Minute),
    ("SECOND", Unit::Second),
    ("MILLISECOND", Unit::Millisecond),
    ("MICROSECOND", Unit::Microsecond),
    ("NANOSECOND", Unit::Nanosecond),
    ("EPOCH", Unit::Epoch),
];

fn unit(name: &str) -> Result<Unit> {
    let upper = name.to_uppercase();
    let upper = upper.strip_prefix("SQL_TSI_").unwrap_or(&upper);
    // The plural is Flink's too, in TIMESTAMPDIFF and INTERVAL.
    let found = UNITS.iter().find(|(n, _)| *n == upper || upper.strip_suffix('S') == Some(n));
    found.map(|(_, u)| *u).ok_or_else(|| {
        let e = Error::user(format!("unknown time unit '{name}'"));
        match nearest(upper, UNITS.iter().map(|(n, _)| *n)) {
            Some(n) => e.help(format!("did you mean {n}?")),
            None => e.help("units are YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND, MILLISECOND"),
        }
    })
}

fn site_unit(site: &Site, i: usize) -> Result<Unit> {
    unit(site.text_literal(i).ok_or_else(|| Error::internal(format!("{} lost its unit", site.name)))?)
}

fn batch_unit(batch: &Batch, i: usize) -> Result<Unit> {
    unit(batch.text(i)?.get(0).unwrap_or(""))
}

fn want_time(site: &Site, i: usize, what: &str) -> Result<()> {
    if site.is_null(i) || is_time(&site.sql(i)) {
        return Ok(());
    }
    Err(Error::user(format!("{what} takes a DATE, TIME or TIMESTAMP, found {}", site.sql(i))).help("convert it: CAST(x AS TIMESTAMP(3))"))
}

fn extract_type(site: &Site) -> Result<SqlType> {
    site_unit(site, 0)?;
    want_time(site, 1, &format!("EXTRACT({} FROM …)", site.text_literal(0).unwrap_or("")))?;
    Ok(SqlType::BigInt)
}

fn extract(batch: &Batch) -> Result<ArrayRef> {
    let unit = batch_unit(batch, 0)?;
    let times = batch.times(1)?;
    batch.primitive::<Int64Type>(|row| Ok(times.get(row).map(|t| part(unit, t))))
}

fn part(unit: Unit, t: NaiveDateTime) -> i64 {
    let year = t.year() as i64;
    match unit {
        Unit::Millennium => (year + if year > 0 { 999 } else { -999 }) / 1000,
        Unit::Century => (year + if year > 0 { 99 } else { -99 }) / 100,
        Unit::Decade => year.div_euclid(10),
        Unit::Year => year,
        Unit::IsoYear => t.iso_week().year().into(),
        Unit::Quarter => (t.month0() / 3 + 1).into(),
        Unit::Month => t.month().into(),
        Unit::Week => t.iso_week().week().into(),
        Unit::Day => t.day().into(),
        Unit::DayOfWeek => t.weekday().number_from_sunday().into(),
        Unit::IsoDayOfWeek => t.weekday().number_from_monday().into(),
        Unit::DayOfYear => t.ordinal().into(),
        Unit::Hour => t.hour().into(),
        Unit::Minute => t.minute().into(),
        Unit::Second => t.second().into(),
        Unit::Millisecond => (t.nanosecond() / 1_000_000).into(),
        Unit::Microsecond => (t.nanosecond() / 1_000).into(),
        Unit::Nanosecond => t.nanosecond().into(),
        // Of the wall clock, as in Flink: for TIMESTAMP_LTZ it is the epoch of UTC only where the zone is UTC.
        Unit::Epoch => t.and_utc().timestamp(),
    }
}

fn rounded_type(site: &Site) -> Result<SqlType> {
    let unit = site_unit(site, 1)?;
    want_time(site, 0, site.name.trim_start_matches('$').trim_end_matches("_to").to_uppercase().as_str())?;
    if matches!(unit, Unit::Epoch | Unit::DayOfWeek | Unit::IsoDayOfWeek | Unit::DayOfYear | Unit::IsoYear) {
        return Err(Error::user(format!("a time cannot be rounded to {}", site.text_literal(1).unwrap_or(""))));
    }
    Ok(if site.is_null(0) { SqlType::Timestamp(3) } else { site.sql(0) })
}

fn round_to(batch: &Batch, up: bool) -> Result<ArrayRef> {
    let unit = batch_unit(batch, 1)?;
    let times = batch.times(0)?;
    batch.datetimes(|row| {
        let Some(t) = times.get(row) else { return Ok(None) };
        let low = floor(unit, t);
        if !up || low == Some(t) {
            return Ok(low);
        }
        Ok(low.and_then(|low| step(unit, low)))
    })
}

/// The start of the unit that `t` lies in. Weeks start on Sunday.
fn floor(unit: Unit, t: NaiveDateTime) -> Option<NaiveDateTime> {
    let day = |y: i32, m: u32, d: u32| Some(NaiveDate::from_ymd_opt(y, m, d)?.and_time(NaiveTime::MIN));
    let year = t.year();
    let fraction = |keep: u32| t.with_nanosecond(t.nanosecond() / keep * keep);
    match unit {
        Unit::Millennium => day((year - 1).div_euclid(1000) * 1000 + 1, 1, 1),
        Unit::Century => day((year - 1).div_euclid(100) * 100 + 1, 1, 1),
        Unit::Decade => day(year.div_euclid(10) * 10, 1, 1),
        Unit::Year => day(year, 1, 1),
        Unit::Quarter => day(year, t.month0() / 3 * 3 + 1, 1),
        Unit::Month => day(year, t.month(), 1),
        Unit::Week => {
            let back = Duration::days(t.weekday().num_days_from_sunday().into());
            Some(t.date().checked_sub_signed(back)?.and_time(NaiveTime::MIN))
        }
        Unit::Day => Some(t.date().and_time(NaiveTime::MIN)),
        Unit::Hour => t.date().and_hms_opt(t.hour(), 0, 0),
        Unit::Minute => t.date().and_hms_opt(t.hour(), t.minute(), 0),
        Unit::Second => fraction(1_000_000_000),
        Unit::Millisecond => fraction(1_000_000),
        Unit::Microsecond => fraction(1_000),
        _ => Some(t),
    }
}

/// The next start of a unit.
fn step(unit: Unit, low: NaiveDateTime) -> Option<NaiveDateTime> {
    let months = |n| low.checked_add_months(Months::new(n));
    match unit {
        Unit::Millennium => months(12_000),
        Unit::Century => months(1_200),
        Unit::Decade => months(120),
        Unit::Year => months(12),
        Unit::Quarter => months(3),
        Unit::Month => months(1),
        unit => low.checked_add_signed(Duration::nanoseconds(nanos(unit)?)),
    }
}

/// Nanoseconds of a unit of fixed length.
fn nanos(unit: Unit) -> Option<i64> {
    const SECOND: i64 = 1_000_000_000;
    Some(match unit {
        Unit::Week => 7 * 86_400 * SECOND,
        Unit::Day | Unit::DayOfWeek | Unit::IsoDayOfWeek | Unit::DayOfYear => 86_400 * SECOND,
        Unit::Hour => 3_600 * SECOND,
        Unit::Minute => 60 * SECOND,
        Unit::Second => SECOND,
        Unit::Millisecond => 1_000_000,
        Unit::Microsecond => 1_000,
        Unit::Nanosecond => 1,
        _ => return None,
    })
}

fn months(unit: Unit) -> Option<i64> {
    Some(match unit {
        Unit::Millennium => 12_000,
        Unit::Century => 1_200,
        Unit::Decade => 120,
        Unit::Year | Unit::IsoYear => 12,
        Unit::Quarter => 3,
        Unit::Month => 1,
        _ => return None,
    })
}

fn diff_type(site: &Site) -> Result<SqlType> {
    site_unit(site, 0)?;
    (1..3).try_for_each(|i| want_time(site, i, "TIMESTAMPDIFF"))?;
    Ok(SqlType::Int)
}

/// Whole units from the first time to the second, toward zero.
fn diff(batch: &Batch) -> Result<ArrayRef> {
    let unit = batch_unit(batch, 0)?;
    let (a, b) = (batch.times(1)?, batch.times(2)?);
    // Two points in time differ by what lies between them, whatever the clock showed.
    let points = matches!((batch.sql(1), batch.sql(2)), (SqlType::TimestampLtz(_), SqlType::TimestampLtz(_)));
    batch.primitive::<Int32Type>(|row| {
        let (Some(from), Some(to)) = (a.get(row), b.get(row)) else { return Ok(None) };
        if let Some(size) = months(unit) {
            return Ok(Some((months_between(to, from) / size) as i32));
        }
        let size = nanos(unit).ok_or_else(|| Error::user("TIMESTAMPDIFF takes YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE or SECOND"))?;
        let between = match (points, a.nanos(row), b.nanos(row)) {
            (true, Some(from), Some(to)) => to - from,
            _ => {
                let d = to - from;
                d.num_seconds() as i128 * 1_000_000_000 + d.subsec_nanos() as i128
            }
        };
        Ok(Some((between / size as i128) as i32))
    })
}

/// Whole months from `b` to `a`; a month has passed on the last day of a month too short for the day.
fn months_between(a: NaiveDateTime, b: NaiveDateTime) -> i64 {
    if a < b {
        return -months_between(b, a);
    }
    let add = |n: i64| b.date().checked_add_months(Months::new(n as u32));
    let mut m = (a.year() as i64 - b.year() as i64) * 12 + a.month() as i64 - b.month() as i64;
    while m > 0 && add(m).is_some_and(|d| d > a.date() || (d == a.date() && a.time() < b.time())) {
        m -= 1;
    }
    m
}

fn add_type(site: &Site) -> Result<SqlType> {
    let unit = site_unit(site, 0)?;
    want_time(site, 2, "TIMESTAMPADD")?;
    Ok(match site.sql(2) {
        SqlType::Date if nanos(unit).is_some_and(|n| n < 86_400_000_000_000) => SqlType::Timestamp(6),
        t if site.is_null(2) => {
            let _ = t;
            SqlType::Timestamp(3)
        }
        t => t,
    })
}

fn add(batch: &Batch) -> Result<ArrayRef> {
    let unit = batch_unit(batch, 0)?;
    let (n, times) = (batch.longs(1)?, batch.times(2)?);
    let ltz = matches!(batch.out, SqlType::TimestampLtz(_));
    batch.datetimes(|row| {
        let (Some(n), Some(t)) = (n.get(row), times.get(row)) else { return Ok(None) };
        let outside = || Error::data(format!("TIMESTAMPADD leaves the range of time: {n} units from {t}"));
        // A point in time moves along the time line, not along the clock.
        let start = if ltz { batch.session.to_utc(t) } else { t };
        let moved = match (months(unit), nanos(unit)) {
            (Some(size), _) => {
                let m = n.checked_mul(size).and_then(|m| i32::try_from(m).ok()).ok_or_else(outside)?;
                let by = Months::new(m.unsigned_abs());
                if m >= 0 { start.checked_add_months(by) } else { start.checked_sub_months(by) }
            }
            // Whole seconds reach further than 64 bits of nanoseconds do.
            (_, Some(size)) if size >= 1_000_000_000 => {
                n.checked_mul(size / 1_000_000_000).and_then(Duration::try_seconds).and_then(|d| start.checked_add_signed(d))
            }
            (_, Some(size)) => n.checked_mul(size).and_then(|d| start.checked_add_signed(Duration::nanoseconds(d))),
            _ => None,
        };
        let moved = moved.ok_or_else(outside)?;
        Ok(Some(if ltz { batch.session.to_local(moved) } else { moved }))
    })
}

fn time_plus(batch: &Batch) -> Result<ArrayRef> {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit};
    let times = batch.times(0)?;
    let by = arrow::compute::cast(batch.raw(1), &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let by = by.as_primitive::<IntervalMonthDayNanoType>();
    batch.datetimes(|row| {
        let i = if batch.is_constant(1) { 0 } else { row };
        use arrow::array::Array;
        // Days and months change no clock, and midnight is passed in both directions.
        Ok(times.get(row).filter(|_| by.is_valid(i)).map(|t| t + Duration::nanoseconds(by.value(i).nanoseconds)))
    })
}

fn timestamp_type(site: &Site) -> Result<SqlType> {
    let text = site.text_literal(0).ok_or_else(|| Error::internal("a TIMESTAMP literal lost its text"))?;
    parse_sql_timestamp(text).filter(|_| text.contains(' ')).ok_or_else(|| bad_literal("TIMESTAMP", text, "2024-01-05 10:20:30"))?;
    let digits = text.split_once('.').map_or(0, |(_, f)| f.len());
    Ok(SqlType::Timestamp(digits as u8))
}

fn time_type(site: &Site) -> Result<SqlType> {
    let text = site.text_literal(0).ok_or_else(|| Error::internal("a TIME literal lost its text"))?;
    super::cast_text::parse_time(text).ok_or_else(|| bad_literal("TIME", text, "10:20:30"))?;
    Ok(SqlType::Time(text.split_once('.').map_or(0, |(_, f)| f.len()) as u8))
}

fn bad_literal(kind: &str, text: &str, example: &str) -> Error {
    Error::user(format!("'{text}' is no {kind} literal")).help(format!("write {kind} '{example}'"))
}

fn literal(batch: &Batch) -> Result<ArrayRef> {
    let text = batch.text(0)?;
    let text = text.get(0).unwrap_or("");
    let (parsed, kind, example) = match batch.out {
        SqlType::Date => (parse_date(text), "DATE", "2024-01-05"),
        SqlType::Time(_) => (super::cast_text::parse_time(text), "TIME", "10:20:30"),
        _ => (parse_sql_timestamp(text), "TIMESTAMP", "2024-01-05 10:20:30"),
    };
    let parsed = parsed.ok_or_else(|| bad_literal(kind, text, example))?;
    let tick = to_ticks(&batch.out, parsed, batch.session)?;
    from_ticks(&batch.out, vec![tick; batch.rows])
}
