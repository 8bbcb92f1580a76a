//! Window arithmetic: to which windows a row belongs, when they close, and which it is late for.
//!
//! ```text
//!  TUMBLE(size)            HOP(slide, size = 3 slides)
//!  |----|----|----|        [---------)              windows that hold a row of slice s end at
//!       ^ one slice            [---------)          s, s + slide, s + 2 slides
//!         = one window             [---------)
//!                                  ^ slice
//! ```
//!
//! Rows are aggregated per *slice* (one slide wide), and windows merge slices. A [`Slice`] says which
//! windows its rows enter: those that end in `first_end ..= last_end`. A row that is late for some of its
//! hopping windows gets a later `first_end`, so that it enters only the open ones.
//!
//! Times are wall-clock ms: for TIMESTAMP the value itself, for TIMESTAMP_LTZ the local time of the
//! session's zone ([`Wall`]). A window closes when the watermark reaches its end − 1 ms (dialect, S4).

use chrono::{MappedLocalTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

/// Window shape; all in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowShape {
    /// TUMBLE
    Tumble {
        /// Size.
        size: i64,
        /// Offset.
        offset: i64,
    },
    /// HOP
    Hop {
        /// Slide.
        slide: i64,
        /// Size; a multiple of the slide where it is aggregated.
        size: i64,
        /// Offset.
        offset: i64,
    },
}

/// The windows that a row enters, by their ends (wall-clock ms, one slide apart).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    /// End of the first window.
    pub first_end: i64,
    /// End of the last window.
    pub last_end: i64,
}

impl WindowShape {
    /// Window size in ms.
    pub fn size(self) -> i64 {
        match self {
            Self::Tumble { size, .. } | Self::Hop { size, .. } => size,
        }
    }

    /// Distance between two window starts in ms.
    pub fn slide(self) -> i64 {
        match self {
            Self::Tumble { size, .. } => size,
            Self::Hop { slide, .. } => slide,
        }
    }

    /// Start of the slide that holds `time`.
    fn slide_start(self, time: i64) -> i64 {
        let (slide, offset) = match self {
            Self::Tumble { size, offset } => (size, offset),
            Self::Hop { slide, offset, .. } => (slide, offset),
        };
        time - (time - offset).rem_euclid(slide)
    }

    /// The slice of a row at `time` that is late for nothing. For windows whose size is a multiple of the slide.
    pub fn slice(self, time: i64) -> Slice {
        let start = self.slide_start(time);
        Slice { first_end: start + self.slide(), last_end: start + self.size() }
    }

    /// All windows (start, end) that hold `time`, latest first, as Flink emits them. Any slide.
    pub fn windows(self, time: i64) -> impl Iterator<Item = (i64, i64)> {
        let (last, slide, size) = (self.slide_start(time), self.slide(), self.size());
        (0..).map(move |i| last - i * slide).take_while(move |start| start + size > time).map(move |start| (start, start + size))
    }
}

/// Wall-clock time of windows: UTC itself, or a zone's local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wall(pub Option<Tz>);

impl Wall {
    /// Wall-clock ms of an instant.
    pub fn of(self, utc_ms: i64) -> i64 {
        match self.0.and_then(|zone| Some((zone, chrono::DateTime::from_timestamp_millis(utc_ms)?))) {
            Some((zone, at)) => utc_ms + i64::from(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()) * 1000,
            None => utc_ms,
        }
    }

    /// The instant of a wall-clock time. A time that occurs twice is its later occurrence, so that the
    /// repeated hour of autumn is one window; a skipped time is the instant of the jump.
    pub fn instant(self, wall_ms: i64) -> i64 {
        let Some((zone, naive)) = self.0.and_then(|z| Some((z, chrono::DateTime::from_timestamp_millis(wall_ms)?.naive_utc()))) else {
            return wall_ms;
        };
        match zone.from_local_datetime(&naive) {
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(_, at) => at.timestamp_millis(),
            // Gaps are at most a few hours: the offset before the gap names the instant of the jump or later.
            MappedLocalTime::None => match zone.from_local_datetime(&(naive - TimeDelta::hours(4))) {
                MappedLocalTime::Single(before) | MappedLocalTime::Ambiguous(_, before) => {
                    wall_ms - i64::from(before.offset().fix().local_minus_utc()) * 1000
                }
                MappedLocalTime::None => wall_ms,
            },
        }
    }

    /// The watermark at which a window that ends at `end` (wall-clock) closes. Windows without end never do.
    pub fn closes_at(self, end: i64) -> i64 {
        self.instant(end.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_enters_every_window_that_holds_it() {
        let hop = WindowShape::Hop { slide: 5, size: 15, offset: 0 };
        assert_eq!(hop.windows(12).collect::<Vec<_>>(), [(10, 25), (5, 20), (0, 15)]);
        assert_eq!(hop.slice(12), Slice { first_end: 15, last_end: 25 });
        let odd = WindowShape::Hop { slide: 10, size: 4, offset: 0 };
        assert_eq!(odd.windows(12).count(), 1);
        assert_eq!(odd.windows(15).count(), 0, "between two windows");
    }

    #[test]
    fn offsets_and_times_before_1970_floor() {
        let tumble = WindowShape::Tumble { size: 10, offset: 3 };
        assert_eq!(tumble.slice(-1), Slice { first_end: 3, last_end: 3 });
        assert_eq!(tumble.slice(3), Slice { first_end: 13, last_end: 13 });
        assert_eq!(WindowShape::Tumble { size: 10, offset: -3 }.slice(0).last_end, 7);
    }

    #[test]
    fn a_day_in_berlin_ends_with_its_own_offset() {
        let berlin = Wall(Some(chrono_tz::Europe::Berlin));
        let end = chrono::NaiveDate::from_ymd_opt(2020, 3, 30).and_then(|d| d.and_hms_opt(0, 0, 0)).map(|t| t.and_utc().timestamp_millis());
        let end = end.expect("a valid date");
        assert_eq!(berlin.instant(end), end - 2 * 3_600_000, "29 March 2020 ends at 22:00Z");
        assert_eq!(berlin.of(berlin.instant(end)), end);
    }
}
