//! What all functions of one job share: the session's zone, and patterns compiled once.
//!
//! A pattern is almost always a literal, so it is compiled at its first batch and found again by its text.
//! The cache is bounded: a query that builds patterns from its rows empties it now and then, and stays right.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{Duration, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use fancy_regex::Regex;

use super::pattern::TimePattern;
use crate::error::Result;

const PATTERNS_MAX: usize = 256;

/// State that the functions of one job share.
#[derive(Debug)]
pub(super) struct Session {
    /// `table.local-time-zone`.
    pub zone: Tz,
    regexes: Cache<Option<Regex>>,
    times: Cache<TimePattern>,
}

#[derive(Debug)]
struct Cache<T>(Mutex<HashMap<String, Arc<T>>>);

impl<T> Cache<T> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    fn get(&self, key: &str, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = map.get(key) {
            return Ok(found.clone());
        }
        if map.len() >= PATTERNS_MAX {
            map.clear();
        }
        let made = Arc::new(make()?);
        map.insert(key.to_string(), made.clone());
        Ok(made)
    }
}

impl Session {
    pub fn new(zone: Tz) -> Self {
        Self { zone, regexes: Cache::new(), times: Cache::new() }
    }

    /// The compiled regular expression; `None` inside where the text is none.
    pub fn regex(&self, pattern: &str) -> Result<Arc<Option<Regex>>> {
        self.regexes.get(pattern, || Ok(Regex::new(pattern).ok()))
    }

    /// The compiled pattern of dates and times.
    pub fn time_pattern(&self, pattern: &str) -> Result<Arc<TimePattern>> {
        self.times.get(pattern, || TimePattern::compile(pattern))
    }

    /// The wall clock of the session's zone at a point of UTC.
    pub fn to_local(&self, utc: NaiveDateTime) -> NaiveDateTime {
        if self.zone == Tz::UTC {
            return utc;
        }
        shifted(utc, self.zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
    }

    /// The point of UTC of a wall clock of the session's zone.
    pub fn to_utc(&self, local: NaiveDateTime) -> NaiveDateTime {
        local_to_utc(self.zone, local)
    }
}

/// The point of UTC of a wall clock in `zone`. Where the clock shows it twice, the first time; where it
/// skips it, the time after the gap that lies as far behind it (both as Java's ZonedDateTime).
pub(super) fn local_to_utc(zone: Tz, local: NaiveDateTime) -> NaiveDateTime {
    if zone == Tz::UTC {
        return local;
    }
    let offset = match zone.offset_from_local_datetime(&local).earliest() {
        Some(offset) => offset,
        // A day before is before the gap, whatever the offset.
        None => zone.offset_from_utc_datetime(&shifted(local, -86_400)),
    };
    shifted(local, -offset.fix().local_minus_utc())
}

/// `t` moved by seconds; at the ends of time (260,000 years from now) it stays.
fn shifted(t: NaiveDateTime, seconds: i32) -> NaiveDateTime {
    t.checked_add_signed(Duration::seconds(seconds.into())).unwrap_or(t)
}
