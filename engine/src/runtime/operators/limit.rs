//! LIMIT: lets rows pass until enough have; then the job may end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::UInt64Array;

use super::{Operator, Out};
use crate::error::Result;
use crate::runtime::checkpoint::{Segment, Snapshot};
use crate::sql::plan::LimitOp;
use crate::stream::{Barrier, StreamBatch};

/// Counts rows; one instance sees all.
pub struct Limit {
    op: LimitOp,
    seen: u64,
    reached: Arc<AtomicBool>,
}

impl Limit {
    /// A limit that has seen `seen` rows and raises `reached` when no more can pass.
    pub fn new(op: LimitOp, seen: u64, reached: Arc<AtomicBool>) -> Self {
        let limit = Self { op, seen, reached };
        limit.report();
        limit
    }

    /// Rows seen, from what [`Operator::barrier`] kept.
    pub fn seen_in(segments: &[Arc<Segment>]) -> u64 {
        segments.iter().filter_map(|s| s.rows().column(0).as_any().downcast_ref::<UInt64Array>().map(|a| a.value(0))).sum()
    }

    fn report(&self) {
        if self.seen >= self.op.offset.saturating_add(self.op.limit) {
            self.reached.store(true, Ordering::Release);
        }
    }
}

impl Operator for Limit {
    fn batch(&mut self, batch: StreamBatch, out: &mut Out) -> Result<()> {
        let rows = batch.num_rows() as u64;
        let first = self.op.offset.saturating_sub(self.seen).min(rows);
        let end = self.op.offset.saturating_add(self.op.limit).saturating_sub(self.seen).min(rows);
        self.seen += rows;
        if end > first {
            out.batch(batch.slice(first as usize, (end - first) as usize));
        }
        self.report();
        Ok(())
    }

    fn barrier(&mut self, _barrier: Barrier, snapshot: &mut Snapshot, _out: &mut Out) -> Result<()> {
        let seen = arrow::array::RecordBatch::try_from_iter([("seen", Arc::new(UInt64Array::from(vec![self.seen])) as _)])?;
        snapshot.segments.push(Segment::new(seen));
        Ok(())
    }
}
