//! Event time of a source: stamped row by row per split, merged over the splits that are not idle.
//!
//! The rule (design, section 4; on one split it is Flink's rule with a watermark after every row):
//!
//! ```text
//!  split 0   ts: 10   14   11   20            watermark before the row, delay 2:
//!  before:       -∞    8   12   12            the row 11 is behind 12: it carries that value on
//!  after:         8   12   12   18
//!  merged = min over splits that are not idle; never goes back
//! ```
//!
//! Lateness is decided with the value *before* the row in the row's own split, so it depends on nothing
//! but the split's content. The merged value only decides when windows are emitted.
//!
//! What must hold: batches are stamped in the source's order (`seq`), and whoever forwards
//! [`SourceClock::merged`] downstream has already sent every batch stamped before it was read.

use std::sync::Arc;

use arrow::array::{Array, TimestampMillisecondArray};

/// A point in event time (ms since the epoch) below which no row is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Nothing is known yet.
    pub const MIN: Self = Self(i64::MIN);
    /// The input has ended.
    pub const MAX: Self = Self(i64::MAX);
}

/// One split's time.
#[derive(Debug, Clone)]
struct SplitTime {
    watermark: i64,
    idle: bool,
    ended: bool,
}

/// The time of all splits of one source.
#[derive(Debug, Clone)]
pub struct SourceClock {
    splits: Vec<SplitTime>,
    merged: i64,
    /// Planted fault: rows are measured against the watermark before their batch.
    per_batch: bool,
}

impl SourceClock {
    /// A clock without splits whose merged watermark is `merged` (a checkpoint's, or [`Watermark::MIN`]).
    pub fn new(merged: Watermark) -> Self {
        Self { splits: Vec::new(), merged: merged.0, per_batch: crate::fault::planted("watermark-per-batch") }
    }

    /// Adds the next split (numbered in order of adding), at `watermark`.
    pub fn add_split(&mut self, watermark: Watermark) {
        self.splits.push(SplitTime { watermark: watermark.0, idle: false, ended: false });
    }

    /// Stamps rows of `split`: `rowtime` is each row's event time, `candidate` each row's value of the
    /// WATERMARK expression (NULL: no candidate). Returns `behind` (see [`super::StreamBatch`]), and
    /// moves the split's watermark. Stamping ends the split's idleness.
    pub fn stamp(
        &mut self,
        split: usize,
        rowtime: &TimestampMillisecondArray,
        candidate: &TimestampMillisecondArray,
    ) -> Option<Arc<[i64]>> {
        let at = &mut self.splits[split];
        at.idle = false;
        let mut watermark = at.watermark;
        let mut behind: Option<Vec<i64>> = None;
        for i in 0..rowtime.len() {
            let before = if self.per_batch { at.watermark } else { watermark };
            if rowtime.is_valid(i) && rowtime.value(i) <= before {
                behind.get_or_insert_with(|| vec![i64::MIN; rowtime.len()])[i] = before;
            }
            if candidate.is_valid(i) {
                watermark = watermark.max(candidate.value(i));
            }
        }
        at.watermark = watermark;
        behind.map(Into::into)
    }

    /// The split has had no rows for its idle timeout.
    pub fn set_idle(&mut self, split: usize) {
        self.splits[split].idle = true;
    }

    /// The split has ended: it counts as [`Watermark::MAX`] for the merge and keeps its own value.
    pub fn set_ended(&mut self, split: usize) {
        self.splits[split].ended = true;
    }

    /// The split's own watermark, as a checkpoint records it.
    pub fn split(&self, split: usize) -> Watermark {
        Watermark(self.splits[split].watermark)
    }

    /// Number of splits.
    pub fn len(&self) -> usize {
        self.splits.len()
    }

    /// Whether there is no split.
    pub fn is_empty(&self) -> bool {
        self.splits.is_empty()
    }

    /// Whether every split that has not ended is idle (and at least one has not ended).
    pub fn all_idle(&self) -> bool {
        self.splits.iter().any(|s| !s.ended) && self.splits.iter().all(|s| s.ended || s.idle)
    }

    /// Minimum over the splits that are neither idle nor ended; never goes back. With every split ended
    /// it is [`Watermark::MAX`]; with every other split idle it stays where it was.
    pub fn merged(&mut self) -> Watermark {
        let active = self.splits.iter().filter(|s| !s.idle && !s.ended).map(|s| s.watermark).min();
        let now = match active {
            Some(minimum) => minimum,
            None if !self.splits.is_empty() && self.splits.iter().all(|s| s.ended) => i64::MAX,
            None => self.merged,
        };
        self.merged = self.merged.max(now);
        Watermark(self.merged)
    }

    /// The splits that hold the merged watermark back: active, and at the minimum.
    pub fn holders(&self) -> impl Iterator<Item = usize> + '_ {
        let minimum = self.splits.iter().filter(|s| !s.idle && !s.ended).map(|s| s.watermark).min();
        self.splits.iter().enumerate().filter(move |(_, s)| !s.idle && !s.ended && Some(s.watermark) == minimum).map(|(i, _)| i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(values: &[i64]) -> TimestampMillisecondArray {
        TimestampMillisecondArray::from(values.to_vec())
    }

    #[test]
    fn a_row_is_measured_against_its_split_before_it() {
        let mut clock = SourceClock::new(Watermark::MIN);
        clock.add_split(Watermark::MIN);
        let behind = clock.stamp(0, &times(&[10, 14, 11, 20]), &times(&[8, 12, 9, 18])).expect("one row is behind");
        assert_eq!(&behind[..], &[i64::MIN, i64::MIN, 12, i64::MIN]);
        assert_eq!(clock.merged(), Watermark(18));
        assert!(clock.stamp(0, &times(&[19]), &times(&[17])).is_none(), "19 is above 18");
    }

    #[test]
    fn cutting_a_split_into_batches_changes_nothing() {
        let rows = [10, 14, 11, 20, 5, 18, 19, 30, 17];
        let wm: Vec<i64> = rows.iter().map(|t| t - 2).collect();
        let run = |size: usize| -> Vec<i64> {
            let mut clock = SourceClock::new(Watermark::MIN);
            clock.add_split(Watermark::MIN);
            let stamp = |(r, w): (&[i64], &[i64])| match clock.stamp(0, &times(r), &times(w)) {
                Some(behind) => behind.to_vec(),
                None => vec![i64::MIN; r.len()],
            };
            rows.chunks(size).zip(wm.chunks(size)).flat_map(stamp).collect()
        };
        assert_eq!(run(1), run(4));
        assert_eq!(run(1), run(100));
    }

    #[test]
    fn an_idle_split_does_not_hold_the_minimum_and_nothing_goes_back() {
        let mut clock = SourceClock::new(Watermark::MIN);
        clock.add_split(Watermark::MIN);
        clock.add_split(Watermark::MIN);
        clock.stamp(0, &times(&[10]), &times(&[10]));
        assert_eq!(clock.merged(), Watermark::MIN);
        assert_eq!(clock.holders().collect::<Vec<_>>(), [1]);
        clock.set_idle(1);
        assert_eq!(clock.merged(), Watermark(10));
        clock.stamp(1, &times(&[3]), &times(&[3]));
        assert_eq!(clock.merged(), Watermark(10), "the merged watermark never goes back");
        clock.set_ended(0);
        clock.set_ended(1);
        assert_eq!(clock.merged(), Watermark::MAX);
    }
}
