//! Dates and times: parts of them, differences, rounding to a unit, text forms and the clock.
//!
//! Everything computes on the wall clock: of the session's zone for TIMESTAMP_LTZ, its own for the rest.
//! Times before 1970 are no exception (Flink's HOUR is negative there; ours is the hour).

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Int32Type, Int64Type};
use chrono::{DateTime, Datelike, Duration, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

use super::cast_text::{parse_date, parse_sql_timestamp};
use super::columns::{Batch, Column, from_ticks, to_ticks};
use super::pattern::TimePattern;
use super::scalar::{Definition, Site, function, is_time};
use super::session::local_to_utc;
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
    function(&["DATE_FORMAT"], "at", format_type, date_format),
    function(&["TO_TIMESTAMP"], "tt?", |_| Ok(SqlType::Timestamp(3)), |b| parse(b, None)),
    function(&["TO_TIMESTAMP_LTZ"], "aa?t?", ltz_type, to_timestamp_ltz),
    function(&["TO_DATE"], "tt?", |_| Ok(SqlType::Date), to_date),
    function(&["FROM_UNIXTIME"], "it?", |_| Ok(SqlType::STRING), from_unixtime),
    function(&["CONVERT_TZ"], "ttt", |_| Ok(SqlType::STRING), convert_tz),
    clock(&["CURRENT_TIMESTAMP", "NOW", "CURRENT_ROW_TIMESTAMP"], |_| Ok(SqlType::TimestampLtz(3))),
    clock(&["PROCTIME"], |_| Ok(SqlType::TimestampLtz(3))),
    clock(&["LOCALTIMESTAMP"], |_| Ok(SqlType::Timestamp(3))),
    clock(&["CURRENT_DATE"], |_| Ok(SqlType::Date)),
    clock(&["CURRENT_TIME", "LOCALTIME"], |_| Ok(SqlType::Time(0))),
    Definition { volatile: true, ..function(&["UNIX_TIMESTAMP"], "t?t?", |_| Ok(SqlType::BigInt), unix_timestamp) },
];

const fn clock(names: &'static [&'static str], returns: fn(&Site) -> Result<SqlType>) -> Definition {
    Definition { volatile: true, ..function(names, "", returns, now) }
}

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
        Unit::Week => (t.date() - Duration::days(t.weekday().num_days_from_sunday().into())).and_time(NaiveTime::MIN).into(),
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

fn format_type(site: &Site) -> Result<SqlType> {
    let t = site.sql(0);
    if site.is_null(0) || t.is_text() || matches!(t, SqlType::Timestamp(_) | SqlType::TimestampLtz(_)) {
        if let Some(pattern) = site.text_literal(1) {
            TimePattern::compile(pattern)?.check_format(matches!(t, SqlType::TimestampLtz(_)))?;
        }
        return Ok(SqlType::STRING);
    }
    Err(Error::user(format!("DATE_FORMAT takes a TIMESTAMP, found {t}")).help("convert it: CAST(x AS TIMESTAMP(3))"))
}

fn date_format(batch: &Batch) -> Result<ArrayRef> {
    let patterns = batch.text(1)?;
    let mut last: Option<(String, Arc<TimePattern>)> = None;
    let mut pattern = |row: usize| -> Result<Option<Arc<TimePattern>>> {
        let Some(text) = patterns.get(row) else { return Ok(None) };
        if let Some((seen, p)) = &last
            && seen == text
        {
            return Ok(Some(p.clone()));
        }
        let p = batch.session.time_pattern(text)?;
        last = Some((text.to_string(), p.clone()));
        Ok(Some(p))
    };
    if batch.sql(0).is_text() {
        let texts = batch.text(0)?;
        return batch.texts(|row, out| {
            let (Some(t), Some(p)) = (texts.get(row).and_then(parse_sql_timestamp), pattern(row)?) else { return Ok(false) };
            p.format(t, None, out)?;
            Ok(true)
        });
    }
    let times = batch.times(0)?;
    let ltz = matches!(batch.sql(0), SqlType::TimestampLtz(_));
    batch.texts(|row, out| {
        let (Some(t), Some(p)) = (times.get(row), pattern(row)?) else { return Ok(false) };
        let offset = ltz.then(|| (t - batch.session.to_utc(t)).num_seconds() as i32);
        p.format(t, offset, out)?;
        Ok(true)
    })
}

/// Texts read by argument 1's pattern, or as SQL timestamps; what is none is NULL.
fn parse(batch: &Batch, zone: Option<&dyn Fn(usize, NaiveDateTime) -> Result<Option<NaiveDateTime>>>) -> Result<ArrayRef> {
    let reader = Reader::new(batch)?;
    batch.datetimes(|row| {
        let Some(t) = reader.read(batch, row)? else { return Ok(None) };
        zone.map_or(Ok(Some(t)), |zone| zone(row, t))
    })
}

struct Reader {
    texts: Column<arrow::array::StringArray>,
    patterns: Option<Column<arrow::array::StringArray>>,
    constant: Option<Arc<TimePattern>>,
}

impl Reader {
    fn new(batch: &Batch) -> Result<Self> {
        let patterns = if batch.len() > 1 { Some(batch.text(1)?) } else { None };
        let constant = match &patterns {
            Some(p) if batch.is_constant(1) => p.get(0).map(|p| batch.session.time_pattern(p)).transpose()?,
            _ => None,
        };
        Ok(Self { texts: batch.text(0)?, patterns, constant })
    }

    fn read(&self, batch: &Batch, row: usize) -> Result<Option<NaiveDateTime>> {
        let Some(text) = self.texts.get(row) else { return Ok(None) };
        let Some(patterns) = &self.patterns else { return Ok(parse_sql_timestamp(text)) };
        let Some(pattern) = patterns.get(row) else { return Ok(None) };
        let parsed = match &self.constant {
            Some(p) => p.parse(text),
            None => batch.session.time_pattern(pattern)?.parse(text),
        };
        Ok(parsed.or_else(|| lenient(text)))
    }
}

/// What Flink tries when a text does not fit its pattern: `yyyy-[m]m-[d]d hh:mm:ss[.f…]`, where a day that
/// the month does not have is a day of the next month, and 25:00 an hour of the next day.
fn lenient(text: &str) -> Option<NaiveDateTime> {
    let (date, time) = text.trim().split_once(' ')?;
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse::<u32>().ok()?);
    if parts.next().is_some() || !(1..=31).contains(&day) {
        return None;
    }
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.split(':').map(|p| p.parse::<u8>().ok().filter(|_| p.len() <= 2));
    let (h, m, s) = (parts.next()??, parts.next()??, parts.next()??);
    let nanos = match fraction {
        "" if !time.ends_with('.') => 0,
        digits => digits.parse::<u32>().ok().filter(|_| digits.len() <= 9)? * 10u32.pow(9 - digits.len() as u32),
    };
    if parts.next().is_some() {
        return None;
    }
    let first = NaiveDate::from_ymd_opt(year, month, 1)?.and_time(NaiveTime::MIN);
    let past = Duration::days(i64::from(day) - 1) + Duration::seconds(i64::from(h) * 3600 + i64::from(m) * 60 + i64::from(s));
    Some(first + past + Duration::nanoseconds(nanos.into()))
}

fn ltz_type(site: &Site) -> Result<SqlType> {
    let t = site.sql(0);
    if !site.is_null(0) && !t.is_text() && !t.is_numeric() {
        return Err(Error::user(format!("TO_TIMESTAMP_LTZ takes a number or a text, found {t}"))
            .help("a TIMESTAMP is converted by CAST(x AS TIMESTAMP_LTZ(3))"));
    }
    if !t.is_text() && site.len() == 2 && !site.is_null(1) && !super::scalar::is_integer(&site.sql(1)) {
        return Err(Error::user("the precision of TO_TIMESTAMP_LTZ is 0 (seconds) or 3 (milliseconds)"));
    }
    Ok(SqlType::TimestampLtz(3))
}

fn to_timestamp_ltz(batch: &Batch) -> Result<ArrayRef> {
    if batch.sql(0).is_text() && *batch.raw(0).data_type() != arrow::datatypes::DataType::Null {
        let zones = if batch.len() > 2 { Some(batch.text(2)?) } else { None };
        // Without a zone the text is in UTC, whatever the session's zone.
        let zone = |row: usize, t: NaiveDateTime| {
            let zone = match &zones {
                Some(z) => match z.get(row) {
                    Some(name) => tz(name)?,
                    None => return Ok(None),
                },
                None => Tz::UTC,
            };
            Ok(Some(batch.session.to_local(local_to_utc(zone, t))))
        };
        return parse(batch, Some(&zone));
    }
    let exact = super::decimal::digits(&batch.sql(0)).is_some_and(|(_, s)| s == 0);
    let (longs, doubles) = if exact { (Some(batch.longs(0)?), None) } else { (None, Some(batch.doubles(0)?)) };
    let precision = if batch.len() > 1 { Some(batch.longs(1)?) } else { None };
    let mut out = Vec::with_capacity(batch.rows);
    for row in 0..batch.rows {
        let unit = match precision.as_ref().map_or(Some(3), |p| p.get(row)) {
            Some(0) => 1000,
            Some(3) => 1,
            None => {
                out.push(None);
                continue;
            }
            Some(p) => {
                return Err(Error::data(format!("TO_TIMESTAMP_LTZ does not know the precision {p}"))
                    .help("write 0 for seconds or 3 for milliseconds"));
            }
        };
        let value = match (&longs, &doubles) {
            (Some(v), _) => v.get(row),
            (_, Some(v)) => v.get(row).map(|v| (v * unit as f64) as i64 / unit),
            _ => None,
        };
        out.push(value.and_then(|v| v.checked_mul(unit)));
    }
    from_ticks(&batch.out, out)
}

fn tz(name: &str) -> Result<Tz> {
    name.parse().map_err(|_| Error::data(format!("unknown time zone '{name}'")).help("write a name like 'Europe/Paris' or 'UTC'"))
}

fn to_date(batch: &Batch) -> Result<ArrayRef> {
    if batch.len() == 1 {
        let texts = batch.text(0)?;
        return batch.datetimes(|row| Ok(texts.get(row).and_then(parse_date)));
    }
    let (texts, patterns) = (batch.text(0)?, batch.text(1)?);
    batch.datetimes(|row| match (texts.get(row), patterns.get(row)) {
        (Some(t), Some(p)) => Ok(batch.session.time_pattern(p)?.parse_lenient(t)),
        _ => Ok(None),
    })
}

const SQL_PATTERN: &str = "yyyy-MM-dd HH:mm:ss";

fn from_unixtime(batch: &Batch) -> Result<ArrayRef> {
    let seconds = batch.longs(0)?;
    let patterns = if batch.len() > 1 { Some(batch.text(1)?) } else { None };
    batch.texts(|row, out| {
        let (Some(s), Some(p)) = (seconds.get(row), patterns.as_ref().map_or(Some(SQL_PATTERN), |p| p.get(row))) else { return Ok(false) };
        let Some(t) = DateTime::from_timestamp(s, 0) else { return Ok(false) };
        let local = batch.session.to_local(t.naive_utc());
        let offset = batch.session.zone.offset_from_utc_datetime(&t.naive_utc()).fix().local_minus_utc();
        batch.session.time_pattern(p)?.format(local, Some(offset), out)?;
        Ok(true)
    })
}

fn unix_timestamp(batch: &Batch) -> Result<ArrayRef> {
    if batch.len() == 0 {
        return batch.primitive::<Int64Type>(|_| Ok(Some(Utc::now().timestamp())));
    }
    let texts = batch.text(0)?;
    let patterns = if batch.len() > 1 { Some(batch.text(1)?) } else { None };
    batch.primitive::<Int64Type>(|row| {
        let (Some(s), Some(p)) = (texts.get(row), patterns.as_ref().map_or(Some(SQL_PATTERN), |p| p.get(row))) else { return Ok(None) };
        let t = batch.session.time_pattern(p)?.parse_lenient(s);
        // Flink's value of a text that is no time.
        Ok(Some(t.map_or(i64::MIN, |t| batch.session.to_utc(t).and_utc().timestamp())))
    })
}

fn convert_tz(batch: &Batch) -> Result<ArrayRef> {
    let (texts, from, to) = (batch.text(0)?, batch.text(1)?, batch.text(2)?);
    let pattern = batch.session.time_pattern(SQL_PATTERN)?;
    batch.texts(|row, out| {
        let (Some(s), Some(from), Some(to)) = (texts.get(row), from.get(row), to.get(row)) else { return Ok(false) };
        let Some(t) = pattern.parse(s) else { return Ok(false) };
        let utc = local_to_utc(tz(from)?, t);
        let offset = tz(to)?.offset_from_utc_datetime(&utc).fix().local_minus_utc();
        pattern.format(utc + Duration::seconds(offset.into()), None, out)?;
        Ok(true)
    })
}

fn now(batch: &Batch) -> Result<ArrayRef> {
    let local = batch.session.to_local(Utc::now().naive_utc());
    let tick = to_ticks(&batch.out, local, batch.session)?;
    from_ticks(&batch.out, vec![tick; batch.rows])
}
