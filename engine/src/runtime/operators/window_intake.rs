//! The way of rows into windows: assigns slices, drops what is late, counts it.
//!
//! The rule (design, section 4): a row is late for a window iff the window closes at or below the row's own
//! split's watermark as it stood before the row (`behind`). A row that is late for some of its hopping
//! windows enters the open ones only. A row for a window that this operator has emitted although the row
//! itself is not late came out of an idle split: it is dropped and counted apart.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::TimestampMillisecondType;

use crate::connectors::{Prepared, SinkWriter};
use crate::error::{Error, Result};
use crate::metrics::JobMetrics;
use crate::sql::plan::{WindowAggregateOp, WindowSource};
use crate::stream::window::{Slice, Wall, WindowShape};
use crate::stream::{Epoch, StreamBatch};

/// Where rows that are late go, where the user named a place.
pub struct LateRows {
    /// Number of the sink in the job.
    pub sink: usize,
    /// This worker's writer.
    pub writer: Box<dyn SinkWriter>,
}

/// Assigns windows to rows.
pub struct WindowIntake {
    source: WindowSource,
    wall: Wall,
    keys: Vec<usize>,
    metrics: Arc<JobMetrics>,
    late_rows: Option<LateRows>,
}

/// Rows that enter windows: the grouping columns (windows, then keys), and the rows.
pub struct Taken {
    /// Window columns, then key columns.
    pub group: Vec<ArrayRef>,
    /// The rows, as many.
    pub rows: StreamBatch,
}

/// Number of window columns that an intake makes: tumbling windows are named by their end, hopping ones by
/// the ends of the first and the last window of the slice, attached ones by end and start.
pub fn window_columns(source: &WindowSource) -> usize {
    match source {
        WindowSource::Rowtime { shape: WindowShape::Tumble { .. }, .. } => 1,
        WindowSource::Rowtime { shape: WindowShape::Hop { .. }, .. } | WindowSource::Attached { .. } => 2,
    }
}

/// The wall clock of a window source.
pub fn wall_of(source: &WindowSource) -> Wall {
    match source {
        WindowSource::Rowtime { zone, .. } | WindowSource::Attached { zone, .. } => Wall(*zone),
    }
}

impl WindowIntake {
    /// The intake of `op`.
    pub fn new(op: &WindowAggregateOp, metrics: Arc<JobMetrics>, late_rows: Option<LateRows>) -> Self {
        Self { source: op.window.clone(), wall: wall_of(&op.window), keys: op.keys.clone(), metrics, late_rows }
    }

    /// The rows of `batch` that enter a window, given that windows closing at or below `emitted` are gone.
    ///
    /// # Errors
    /// Data: a rowtime is NULL. Others from the late-rows sink.
    pub fn take(&mut self, batch: StreamBatch, emitted: i64) -> Result<Option<Taken>> {
        let rows = batch.num_rows();
        let (mut first, mut second) = (Vec::with_capacity(rows), Vec::new());
        let two = window_columns(&self.source) == 2;
        let mut keep: Option<Vec<bool>> = None;
        let (mut late, mut after_idle) = (0u64, 0u64);
        let times = self.times(&batch)?;
        for i in 0..rows {
            let behind = batch.behind.as_ref().map_or(i64::MIN, |b| b[i]);
            let (mut slice, start) = times.slice(i, self.wall);
            let gone = behind.max(emitted);
            if gone > i64::MIN && self.wall.closes_at(slice.first_end) <= gone {
                let slide = times.slide();
                while slice.first_end <= slice.last_end && self.wall.closes_at(slice.first_end) <= gone {
                    slice.first_end += slide;
                }
                if slice.first_end > slice.last_end {
                    keep.get_or_insert_with(|| vec![true; rows])[i] = false;
                    if self.wall.closes_at(slice.last_end) <= behind { late += 1 } else { after_idle += 1 }
                }
            }
            first.push(slice.first_end);
            if two {
                second.push(start.unwrap_or(slice.last_end));
            }
        }
        self.metrics.late.add(late);
        self.metrics.late_after_idle.add(after_idle);
        let windows = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let mut group = vec![windows(first)];
        if two {
            group.push(windows(second));
        }
        let rows = match keep {
            None => batch,
            Some(keep) => {
                let keep = BooleanArray::from(keep);
                if let Some(side) = &mut self.late_rows {
                    side.writer.write(&batch.filter(&arrow::compute::not(&keep)?)?)?;
                }
                group = group.iter().map(|c| arrow::compute::filter(c, &keep)).collect::<Result<_, _>>()?;
                batch.filter(&keep)?
            }
        };
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        group.extend(self.keys.iter().map(|k| rows.rows.column(*k).clone()));
        Ok(Some(Taken { group, rows }))
    }

    /// Ends the epoch of the late-rows sink: its number and what it prepared.
    ///
    /// # Errors
    /// External: the sink failed.
    pub fn prepare(&mut self, epoch: Epoch, last: bool) -> Result<Option<(usize, Prepared)>> {
        self.late_rows.as_mut().map(|side| Ok((side.sink, side.writer.prepare(epoch, last)?))).transpose()
    }

    fn times<'a>(&self, batch: &'a StreamBatch) -> Result<Times<'a>> {
        let column = |index: usize| -> Result<&'a [i64]> {
            let array = batch.rows.column(index).as_primitive_opt::<TimestampMillisecondType>();
            let array = array.ok_or_else(|| Error::internal("a window's time column is not TIMESTAMP(3)"))?;
            if array.null_count() > 0 {
                return Err(Error::data("the rowtime of a row is NULL: a window needs one")
                    .help("filter such rows, or give the column a value with COALESCE"));
            }
            Ok(array.values())
        };
        match self.source {
            WindowSource::Rowtime { column: index, shape, .. } => Ok(Times::Rowtime(column(index)?, shape)),
            WindowSource::Attached { start, end, .. } => Ok(Times::Attached(column(start)?, column(end)?)),
        }
    }
}

enum Times<'a> {
    Rowtime(&'a [i64], WindowShape),
    Attached(&'a [i64], &'a [i64]),
}

impl Times<'_> {
    /// The slice of row `i`, and the window's start where it cannot be derived from the end.
    fn slice(&self, i: usize, wall: Wall) -> (Slice, Option<i64>) {
        match self {
            Self::Rowtime(times, shape) => (shape.slice(wall.of(times[i])), None),
            Self::Attached(starts, ends) => (Slice { first_end: ends[i], last_end: ends[i] }, Some(starts[i])),
        }
    }

    fn slide(&self) -> i64 {
        match self {
            Self::Rowtime(_, shape) => shape.slide(),
            Self::Attached(..) => 1,
        }
    }
}
