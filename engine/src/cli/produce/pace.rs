//! When a record is due: at once, at a rate, or as its own event time says.
//!
//! Pure arithmetic on times since the start; the caller waits. What must always hold: the due times never
//! fall, so that the order of the file is the order of sending.

use std::time::Duration;

use sonic_rs::{JsonType, JsonValueTrait, LazyValue};

use crate::error::{Error, Result};
use crate::formats::text::{TimestampText, parse_date, parse_timestamp};

/// Event-time numbers below this are seconds since 1970, others milliseconds: as milliseconds they would lie in 1973.
const SECONDS_BELOW: f64 = 1e11;

/// When records are due.
#[derive(Debug, Clone, PartialEq)]
pub enum Pace {
    /// At once.
    Free,
    /// So many a second.
    Rate(f64),
    /// As their event times lie apart, `speedup` times as fast.
    EventTime {
        /// How much faster than the events happened.
        speedup: f64,
        /// The first event time.
        first: Option<i64>,
        /// The latest due time so far: an event that lies behind it is due at once.
        latest: Duration,
    },
}

impl Pace {
    /// A pace by event time.
    pub fn event_time(speedup: f64) -> Self {
        Self::EventTime { speedup, first: None, latest: Duration::ZERO }
    }

    /// When record number `n` (from 0), with this event time in ms, is due: time since the start.
    pub fn due(&mut self, n: u64, event: Option<i64>) -> Duration {
        match self {
            Self::Free => Duration::ZERO,
            Self::Rate(per_second) => seconds(n as f64 / *per_second),
            Self::EventTime { speedup, first, latest } => {
                if let Some(event) = event {
                    let first = *first.get_or_insert(event);
                    let since = seconds(event.saturating_sub(first).max(0) as f64 / 1000.0 / *speedup);
                    *latest = since.max(*latest);
                }
                *latest
            }
        }
    }
}

/// A duration that no number can make panic.
fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX)
}

/// `1000`, `1000/s`, `30/min`, `5/h`: records a second.
///
/// # Errors
/// User: no rate above 0.
pub fn parse_rate(text: &str) -> Result<f64> {
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let per = match unit.trim() {
        "s" | "sec" | "second" => 1.0,
        "m" | "min" | "minute" => 60.0,
        "h" | "hour" => 3600.0,
        _ => f64::NAN,
    };
    let number: f64 = number.trim().replace('_', "").parse().unwrap_or(f64::NAN);
    let rate = number / per;
    if rate > 0.0 && rate.is_finite() {
        return Ok(rate);
    }
    Err(Error::user(format!("--rate {text}: expected records a second, such as 1000/s, or 30/min")))
}

/// `100`, `100x`: how much faster than the events happened.
///
/// # Errors
/// User: no number above 0.
pub fn parse_speedup(text: &str) -> Result<f64> {
    let number: f64 = text.trim().trim_end_matches('x').parse().unwrap_or(f64::NAN);
    if number > 0.0 && number.is_finite() {
        return Ok(number);
    }
    Err(Error::user(format!("--speedup {text}: expected a number above 0, such as 60 (a minute in a second)")))
}

/// The event time that a JSON value says, in ms since 1970: a number of seconds or milliseconds, or a text
/// in ISO-8601 or SQL form (UTC where it has no offset).
pub fn event_ms(value: &LazyValue<'_>) -> Option<i64> {
    match value.get_type() {
        JsonType::Number => {
            let n = value.as_f64()?;
            let ms = if n.abs() < SECONDS_BELOW { n * 1000.0 } else { n };
            Some(ms.round() as i64)
        }
        JsonType::String => text_ms(value.as_str()?),
        _ => None,
    }
}

fn text_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(t) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(t.timestamp_millis());
    }
    let bytes = text.as_bytes();
    for (iso, zulu) in [(false, false), (true, false), (false, true), (true, true)] {
        if let Some(moment) = parse_timestamp(bytes, TimestampText { iso, zulu }) {
            return Some(moment.seconds * 1000 + i64::from(moment.nanos / 1_000_000));
        }
    }
    parse_date(bytes).map(|days| i64::from(days) * 86_400_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(pace: &mut Pace, records: &[(u64, Option<i64>)]) -> Vec<u128> {
        records.iter().map(|(n, event)| pace.due(*n, *event).as_millis()).collect()
    }

    #[test]
    fn a_rate_spaces_records_evenly() {
        assert_eq!(ms(&mut Pace::Rate(4.0), &[(0, None), (1, None), (6, None)]), [0, 250, 1500]);
        assert_eq!((parse_rate("1_200/min").expect("a rate"), parse_rate("50").expect("a rate")), (20.0, 50.0));
        for bad in ["0", "-1/s", "fast", "5/day", "inf"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn event_times_space_records_as_they_lie_apart_and_never_backwards() {
        let mut pace = Pace::event_time(10.0);
        let records = [(0, Some(100_000)), (1, Some(101_000)), (2, Some(90_000)), (3, None), (4, Some(130_000)), (5, Some(129_000))];
        assert_eq!(ms(&mut pace, &records), [0, 100, 100, 100, 3000, 3000]);
        assert_eq!(Pace::event_time(1e-300).due(0, Some(0)), Duration::ZERO);
        let mut slow = Pace::event_time(1e-300);
        slow.due(0, Some(0));
        assert_eq!(slow.due(1, Some(i64::MAX)), Duration::MAX, "no number panics");
        assert!(parse_speedup("0").is_err() && parse_speedup("x").is_err());
        assert_eq!(parse_speedup("60x").expect("a factor"), 60.0);
    }

    #[test]
    fn event_times_are_read_in_the_forms_that_people_have() {
        let read = |json: &'static str| event_ms(&sonic_rs::get_from_str(json, &["t"]).expect("a field"));
        let expected = Some(1_731_139_801_000);
        assert_eq!(read(r#"{"t":"2024-11-09T09:10:01+01:00"}"#), expected);
        assert_eq!(read(r#"{"t":"2024-11-09 08:10:01"}"#), expected);
        assert_eq!(read(r#"{"t":"2024-11-09T08:10:01Z"}"#), expected);
        assert_eq!(read(r#"{"t":1731139801}"#), expected);
        assert_eq!(read(r#"{"t":1731139801000}"#), expected);
        assert_eq!((read(r#"{"t":null}"#), read(r#"{"t":"soon"}"#)), (None, None));
    }
}
