//! Dates and times as texts and numbers, and the clock: DATE_FORMAT, TO_TIMESTAMP, UNIX_TIMESTAMP, NOW, ….
//!
//! A text that is no time is NULL here, where CAST would fail the job.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Int64Type;
use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

use super::cast_text::{parse_date, parse_sql_timestamp};
use super::columns::{Batch, Column, from_ticks, to_ticks};
use super::pattern::TimePattern;
use super::scalar::{Definition, Site, function};
use super::session::local_to_utc;
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// Functions between times and texts, and of the clock.
pub(super) const FUNCTIONS: &[Definition] = &[
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
    first.checked_add_signed(past + Duration::nanoseconds(nanos.into()))
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
