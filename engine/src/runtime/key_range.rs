//! Which keys a worker owns, and the segments restricted to them.
//!
//! State is written by as many workers as there were; a restart may have another number. Every instance
//! reads all segments of its operator and takes the rows whose key group it owns now.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute;

use super::checkpoint::Segment;
use super::key_group::{hash_rows, key_group, worker_of};
use crate::error::Result;

/// The share of worker `worker` of `workers`.
#[derive(Debug, Clone, Copy)]
pub struct KeyRange {
    /// The worker.
    pub worker: usize,
    /// All workers.
    pub workers: usize,
}

impl KeyRange {
    /// The rows of `segment` whose key (the columns `keys`) belongs to this worker; `None` where there are none.
    ///
    /// # Errors
    /// Internal: a key type without a hash.
    pub fn restrict(&self, segment: &Arc<Segment>, keys: Range<usize>) -> Result<Option<Arc<Segment>>> {
        let rows = segment.rows();
        if self.workers == 1 {
            return Ok((rows.num_rows() > 0).then(|| segment.clone()));
        }
        let owners = owners(&rows.columns()[keys], rows, self.workers)?;
        let mine = owners.iter().filter(|o| **o == self.worker).count();
        if mine == rows.num_rows() {
            return Ok((mine > 0).then(|| segment.clone()));
        }
        if mine == 0 {
            return Ok(None);
        }
        let keep: BooleanArray = owners.iter().map(|o| Some(*o == self.worker)).collect();
        Ok(Some(Segment::new(compute::filter_record_batch(rows, &keep)?)))
    }
}

/// The worker that owns each row, by its key columns; without any, worker 0.
///
/// # Errors
/// Internal: a key type without a hash.
pub fn owners(keys: &[ArrayRef], rows: &RecordBatch, workers: usize) -> Result<Vec<usize>> {
    if keys.is_empty() || workers == 1 {
        return Ok(vec![0; rows.num_rows()]);
    }
    let mut hashes = Vec::with_capacity(rows.num_rows());
    hash_rows(keys, &mut hashes)?;
    Ok(hashes.into_iter().map(|h| worker_of(key_group(h), workers)).collect())
}
