//! Window aggregation in two halves, so that only groups cross threads.
//!
//! ```text
//!  worker 0: rows ─▶ PartialWindow ─┐ partial batches by key      ┌─▶ WindowAggregate (keys of worker 0) ─▶ results
//!  worker 1: rows ─▶ PartialWindow ─┴──────────────────────────── ┴─▶ WindowAggregate (keys of worker 1) ─▶ results
//!  one worker:                          rows ─▶ WindowAggregate (takes rows itself)
//! ```
//!
//! What must hold: a partial operator flushes every window that closes at or below W before it forwards W,
//! and everything before a barrier (so it has no state of its own); after W is forwarded it sends nothing for
//! those windows. The final operator emits a window once, when its merged watermark reaches the close.
//! Results of one window are tagged with its close, so that an ordered sink can line them up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMillisecondArray, UInt32Array};
use arrow::compute;
use arrow::datatypes::{FieldRef, SchemaRef};

use super::window_head::{Head, batch_bytes, window_values};
use super::window_intake::{WindowIntake, wall_of, window_columns};
use super::{Operator, Out};
use crate::error::Result;
use crate::runtime::checkpoint::{Segment, Snapshot};
use crate::runtime::key_range::KeyRange;
use crate::sql::plan::{WindowAggregateOp, WindowOutput, WindowSource};
use crate::stream::types::UTC;
use crate::stream::window::Wall;
use crate::stream::{Barrier, StreamBatch, Watermark};

/// A partial operator hands over what it has beyond this many groups.
const PARTIAL_GROUPS_MAX: usize = 128 * 1024;
/// Parts of one slice beyond which they are merged at a barrier.
const PARTS_MAX: usize = 16;
/// The head is sealed beyond this size.
const HEAD_BYTES_MAX: usize = 256 << 20;

/// The half before the exchange.
pub struct PartialWindow {
    intake: WindowIntake,
    head: Head,
    watermark: i64,
    /// The earliest close of a window in the head.
    next_close: i64,
    wall: Wall,
}

/// The place of a window's results in the order of an ordered sink: sorts like the watermark that closes it.
pub fn window_seq(closes_at: i64) -> u64 {
    (closes_at as u64) ^ (1 << 63)
}

/// Key fields of a window aggregation over `input`.
pub fn key_fields(keys: &[usize], input: &SchemaRef) -> Vec<FieldRef> {
    keys.iter().map(|k| input.fields()[*k].clone()).collect()
}

impl PartialWindow {
    /// The partial half of `op` over rows of `input`, from the watermark of a checkpoint on.
    ///
    /// # Errors
    /// Internal: an aggregate that the planner should have refused.
    pub fn new(op: &WindowAggregateOp, input: &SchemaRef, intake: WindowIntake, watermark: Watermark) -> Result<Self> {
        let head = Head::new(window_columns(&op.window), &key_fields(&op.keys, input), &op.aggregates)?;
        Ok(Self { intake, head, watermark: watermark.0, next_close: i64::MAX, wall: wall_of(&op.window) })
    }

    fn flush(&mut self, out: &mut Out) -> Result<()> {
        if let Some(partial) = self.head.seal()? {
            out.batch(StreamBatch::new(partial));
        }
        self.next_close = i64::MAX;
        Ok(())
    }
}

impl Operator for PartialWindow {
    fn batch(&mut self, batch: StreamBatch, out: &mut Out) -> Result<()> {
        let Some(taken) = self.intake.take(batch, self.watermark)? else { return Ok(()) };
        let first = taken.group[0].as_any().downcast_ref::<arrow::array::Int64Array>().and_then(compute::min);
        self.next_close = self.next_close.min(first.map_or(i64::MAX, |end| self.wall.closes_at(end)));
        self.head.update(&taken.group, &taken.rows.rows)?;
        if self.head.len() > PARTIAL_GROUPS_MAX { self.flush(out) } else { Ok(()) }
    }

    fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<()> {
        self.watermark = watermark.0;
        if self.next_close <= watermark.0 {
            self.flush(out)?;
        }
        out.watermark(watermark);
        Ok(())
    }

    fn barrier(&mut self, barrier: Barrier, snapshot: &mut Snapshot, out: &mut Out) -> Result<()> {
        self.flush(out)?;
        snapshot.sinks.extend(self.intake.prepare(barrier.epoch, barrier.last)?);
        Ok(())
    }

    fn keeps_time(&self) -> bool {
        true
    }

    fn state_bytes(&self) -> usize {
        self.head.bytes()
    }
}

/// The windows of one slice, as the partial batches name them: (first column, second column).
type SliceKey = (i64, i64);

/// The half that emits.
pub struct WindowAggregate {
    op: WindowAggregateOp,
    /// Takes rows where there is no partial half.
    intake: Option<WindowIntake>,
    head: Head,
    merge: Head,
    wall: Wall,
    windows: usize,
    /// Slices that have rows in the head.
    in_head: BTreeSet<SliceKey>,
    /// Sealed parts of each open slice.
    open: BTreeMap<SliceKey, Vec<Arc<Segment>>>,
    watermark: i64,
    next_close: i64,
    schema: SchemaRef,
}

impl WindowAggregate {
    /// The final half of `op` over rows of `input` (with `intake`), or over partial batches.
    ///
    /// # Errors
    /// Internal: an aggregate that the planner should have refused.
    pub fn new(op: &WindowAggregateOp, input: &SchemaRef, schema: SchemaRef, intake: Option<WindowIntake>) -> Result<Self> {
        let keys = key_fields(&op.keys, input);
        let windows = window_columns(&op.window);
        Ok(Self {
            head: Head::new(windows, &keys, &op.aggregates)?,
            merge: Head::new(0, &keys, &op.aggregates)?,
            op: op.clone(),
            intake,
            wall: wall_of(&op.window),
            windows,
            in_head: BTreeSet::new(),
            open: BTreeMap::new(),
            watermark: i64::MIN,
            next_close: i64::MAX,
            schema,
        })
    }

    /// Goes on from a checkpoint: the watermark then, and the segments of all former instances, of which the
    /// keys of `range` are taken.
    ///
    /// # Errors
    /// State: a segment has another form.
    pub fn restore(&mut self, watermark: Watermark, segments: &[Arc<Segment>], range: &KeyRange) -> Result<()> {
        self.watermark = watermark.0;
        let keys = self.windows..self.windows + self.op.keys.len();
        for segment in segments {
            let Some(segment) = range.restrict(segment, keys.clone())? else { continue };
            let slice = self.advance(self.slice_of(segment.rows(), 0));
            if let Some(slice) = slice {
                self.open.entry(slice).or_default().push(segment);
            }
        }
        self.find_next_close();
        Ok(())
    }

    fn slice_of(&self, partial: &RecordBatch, row: usize) -> SliceKey {
        let first = window_values(partial, 0)[row];
        (first, if self.windows == 2 { window_values(partial, 1)[row] } else { first })
    }

    /// The slice without the windows that have been emitted; `None` where none is left.
    fn advance(&self, (mut first, second): SliceKey) -> Option<SliceKey> {
        match self.op.window {
            WindowSource::Rowtime { shape, .. } => {
                while self.wall.closes_at(first) <= self.watermark {
                    first += shape.slide();
                    if first > second {
                        return None;
                    }
                }
                Some((first, second))
            }
            WindowSource::Attached { .. } => (self.wall.closes_at(first) > self.watermark).then_some((first, second)),
        }
    }

    fn note_slices(&mut self, first: &[i64], second: Option<&[i64]>) {
        let mut last = None;
        for i in 0..first.len() {
            let slice = (first[i], second.map_or(first[i], |s| s[i]));
            if last != Some(slice) {
                if self.in_head.insert(slice) {
                    self.next_close = self.next_close.min(self.wall.closes_at(slice.0));
                }
                last = Some(slice);
            }
        }
    }

    fn find_next_close(&mut self) {
        let first = self.open.keys().chain(&self.in_head).map(|s| s.0).min();
        self.next_close = first.map_or(i64::MAX, |end| self.wall.closes_at(end));
    }

    /// Empties the head into one segment a slice.
    fn seal(&mut self) -> Result<()> {
        let Some(partial) = self.head.seal()? else { return Ok(()) };
        if self.in_head.len() == 1 {
            let slice = self.slice_of(&partial, 0);
            self.open.entry(slice).or_default().push(Segment::new(partial));
        } else {
            // Groups stand in order of arrival, so a slice is mostly the one of the group before.
            let mut rows_of: Vec<(SliceKey, Vec<u32>)> = Vec::new();
            let mut at = 0;
            for row in 0..partial.num_rows() {
                let slice = self.slice_of(&partial, row);
                if rows_of.get(at).is_none_or(|(s, _)| *s != slice) {
                    at = rows_of.iter().position(|(s, _)| *s == slice).unwrap_or(rows_of.len());
                    if at == rows_of.len() {
                        rows_of.push((slice, Vec::new()));
                    }
                }
                rows_of[at].1.push(row as u32);
            }
            for (slice, rows) in rows_of {
                let part = compute::take_record_batch(&partial, &UInt32Array::from(rows))?;
                self.open.entry(slice).or_default().push(Segment::new(part));
            }
        }
        self.in_head.clear();
        Ok(())
    }

    /// Emits every window that closes at or below `watermark`, by end.
    fn fire(&mut self, watermark: i64, out: &mut Out) -> Result<()> {
        self.seal()?;
        while let Some((&(end, _), _)) = self.open.first_key_value() {
            if self.wall.closes_at(end) > watermark {
                break;
            }
            // Slices whose first window is this one hold all of its rows: earlier windows have been emitted.
            let mut parts: BTreeMap<Option<i64>, Vec<Arc<Segment>>> = BTreeMap::new();
            while let Some(entry) = self.open.first_entry().filter(|e| e.key().0 == end) {
                let ((_, second), segments) = entry.remove_entry();
                match self.op.window {
                    WindowSource::Rowtime { shape, .. } => {
                        parts.entry(None).or_default().extend(segments.iter().cloned());
                        if end + shape.slide() <= second {
                            self.open.entry((end + shape.slide(), second)).or_default().extend(segments);
                        }
                    }
                    WindowSource::Attached { .. } => parts.entry(Some(second)).or_default().extend(segments),
                }
            }
            for (start, segments) in parts {
                self.emit(start.unwrap_or_else(|| self.start_of(end)), end, &segments, out)?;
            }
        }
        self.watermark = watermark;
        self.find_next_close();
        Ok(())
    }

    fn start_of(&self, end: i64) -> i64 {
        match self.op.window {
            WindowSource::Rowtime { shape, .. } => end - shape.size(),
            WindowSource::Attached { .. } => end,
        }
    }

    fn emit(&mut self, start: i64, end: i64, parts: &[Arc<Segment>], out: &mut Out) -> Result<()> {
        let (rows, keys, results) = match parts {
            // A part of hopping windows may hold a key twice: once on time, once filed late.
            [only] if self.windows == 1 => self.merge.finish_one(only.rows(), self.windows)?,
            _ => {
                for part in parts {
                    self.merge.merge(part.rows(), self.windows)?;
                }
                self.merge.finish()?
            }
        };
        let constant = |ms: i64| TimestampMillisecondArray::from_value(ms, rows);
        let column = |(i, output): (usize, &WindowOutput)| -> ArrayRef {
            match output {
                WindowOutput::Key(k) => keys[*k].clone(),
                WindowOutput::Aggregate(a) => results[*a].clone(),
                WindowOutput::Start => Arc::new(constant(start)),
                WindowOutput::End => Arc::new(constant(end)),
                WindowOutput::Time => {
                    let zoned = matches!(self.schema.field(i).data_type(), arrow::datatypes::DataType::Timestamp(_, Some(_)));
                    Arc::new(constant(self.wall.closes_at(end)).with_timezone_opt(zoned.then_some(UTC)))
                }
            }
        };
        let columns: Vec<ArrayRef> = self.op.output.iter().enumerate().map(column).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        let mut batch = StreamBatch::new(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?);
        batch.seq = Some(window_seq(self.wall.closes_at(end)));
        out.batch(batch);
        Ok(())
    }

    /// Merges the parts of slices that have many: a long window under frequent checkpoints.
    fn compact(&mut self) -> Result<()> {
        for segments in self.open.values_mut().filter(|s| s.len() > PARTS_MAX) {
            for segment in segments.iter() {
                self.head.merge(segment.rows(), 0)?;
            }
            if let Some(whole) = self.head.seal()? {
                *segments = vec![Segment::new(whole)];
            }
        }
        Ok(())
    }
}

impl Operator for WindowAggregate {
    fn batch(&mut self, batch: StreamBatch, _out: &mut Out) -> Result<()> {
        match &mut self.intake {
            Some(intake) => {
                let Some(taken) = intake.take(batch, self.watermark)? else { return Ok(()) };
                let values = |c: &ArrayRef| c.as_any().downcast_ref::<arrow::array::Int64Array>().map(|a| a.values().clone());
                let (first, second) = (values(&taken.group[0]), if self.windows == 2 { values(&taken.group[1]) } else { None });
                self.note_slices(&first.unwrap_or_default(), second.as_deref());
                self.head.update(&taken.group, &taken.rows.rows)?;
            }
            None => {
                let second = (self.windows == 2).then(|| window_values(&batch.rows, 1));
                self.note_slices(window_values(&batch.rows, 0), second);
                self.head.merge(&batch.rows, 0)?;
            }
        }
        if self.head.bytes() > HEAD_BYTES_MAX { self.seal() } else { Ok(()) }
    }

    fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<()> {
        if self.next_close <= watermark.0 {
            self.fire(watermark.0, out)?;
        }
        self.watermark = watermark.0;
        out.watermark(watermark);
        Ok(())
    }

    fn barrier(&mut self, barrier: Barrier, snapshot: &mut Snapshot, _out: &mut Out) -> Result<()> {
        self.seal()?;
        self.compact()?;
        snapshot.segments.extend(self.open.values().flatten().cloned());
        if let Some(intake) = &mut self.intake {
            snapshot.sinks.extend(intake.prepare(barrier.epoch, barrier.last)?);
        }
        Ok(())
    }

    fn keeps_time(&self) -> bool {
        true
    }

    fn state_bytes(&self) -> usize {
        self.head.bytes() + self.open.values().flatten().map(|s| batch_bytes(s.rows())).sum::<usize>()
    }
}
