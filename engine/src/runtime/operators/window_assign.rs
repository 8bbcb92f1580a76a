//! A window table function without aggregation: each row once a window, with the window's columns.
//!
//! Late rows pass (as in Flink): the next window decides about them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMillisecondArray, UInt32Array};
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};

use super::{Operator, Out};
use crate::error::{Error, Result};
use crate::sql::plan::{WindowAssignOp, WindowSource};
use crate::stream::StreamBatch;
use crate::stream::window::{Wall, WindowShape};

/// Appends window_start, window_end and window_time.
pub struct WindowAssign {
    column: usize,
    shape: WindowShape,
    wall: Wall,
    schema: SchemaRef,
}

impl WindowAssign {
    /// An assigner that emits `schema`.
    ///
    /// # Errors
    /// Internal: the windows are attached already.
    pub fn new(op: &WindowAssignOp, schema: SchemaRef) -> Result<Self> {
        match op.window {
            WindowSource::Rowtime { column, shape, zone } => Ok(Self { column, shape, wall: Wall(zone), schema }),
            WindowSource::Attached { .. } => Err(Error::internal("a window function over windows that are attached already")),
        }
    }
}

impl Operator for WindowAssign {
    fn batch(&mut self, batch: StreamBatch, out: &mut Out) -> Result<()> {
        let time = batch.rows.column(self.column).as_primitive::<TimestampMillisecondType>();
        let (mut rows, mut starts, mut ends, mut times) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for i in 0..time.len() {
            if time.is_null(i) {
                return Err(Error::data("the rowtime of a row is NULL: a window needs one")
                    .help("filter such rows, or give the column a value with COALESCE"));
            }
            for (start, end) in self.shape.windows(self.wall.of(time.value(i))) {
                rows.push(i as u32);
                starts.push(start);
                ends.push(end);
                times.push(self.wall.closes_at(end));
            }
        }
        let taken = batch.take(&UInt32Array::from(rows))?;
        let window_time = TimestampMillisecondArray::from(times).with_timezone_opt(self.wall.0.map(|_| crate::stream::types::UTC));
        let mut columns = taken.rows.columns().to_vec();
        columns.extend([
            Arc::new(TimestampMillisecondArray::from(starts)) as ArrayRef,
            Arc::new(TimestampMillisecondArray::from(ends)),
            Arc::new(window_time),
        ]);
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        out.batch(taken.with_rows(rows));
        Ok(())
    }
}
