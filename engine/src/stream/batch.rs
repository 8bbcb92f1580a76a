//! A batch of rows and what travels with it beside its columns.
//!
//! Row kinds, `behind` and the arrival order are no columns: DataFusion prunes columns that it does not
//! know, and most batches carry none of them. All three are optional and shared, so cloning is cheap.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute;

use crate::error::Result;

/// What a row does to the table that the stream describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RowKind {
    /// `+I`: a new row.
    Insert = 0,
    /// `-U`: the old content of an updated row.
    UpdateBefore = 1,
    /// `+U`: the new content of an updated row.
    UpdateAfter = 2,
    /// `-D`: a row is gone.
    Delete = 3,
}

impl RowKind {
    /// Flink's short form: `+I`, `-U`, `+U`, `-D`.
    pub fn short(self) -> &'static str {
        match self {
            Self::Insert => "+I",
            Self::UpdateBefore => "-U",
            Self::UpdateAfter => "+U",
            Self::Delete => "-D",
        }
    }

    /// Whether the row enters the table (`+I`, `+U`) rather than leaves it.
    pub fn adds(self) -> bool {
        matches!(self, Self::Insert | Self::UpdateAfter)
    }
}

/// Rows on their way through a job.
#[derive(Debug, Clone)]
pub struct StreamBatch {
    /// The columns.
    pub rows: RecordBatch,
    /// One kind a row; `None` means that every row is `+I`.
    pub kinds: Option<Arc<[RowKind]>>,
    /// For each row the watermark (ms) of its own split as it stood *before* the row, where the row's
    /// event time is not above it; `i64::MIN` for rows that are not behind. `None`: no row is behind.
    pub behind: Option<Arc<[i64]>>,
    /// Place of the batch in its source's total order of batches, where the order is still known.
    pub seq: Option<u64>,
}

impl StreamBatch {
    /// Insert-only rows that are not behind.
    pub fn new(rows: RecordBatch) -> Self {
        Self { rows, kinds: None, behind: None, seq: None }
    }

    /// Rows with a kind each.
    pub fn with_kinds(rows: RecordBatch, kinds: Vec<RowKind>) -> Self {
        debug_assert_eq!(rows.num_rows(), kinds.len());
        Self { kinds: Some(kinds.into()), ..Self::new(rows) }
    }

    /// Rows in the batch.
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// The kind of row `i`.
    pub fn kind(&self, i: usize) -> RowKind {
        self.kinds.as_ref().map_or(RowKind::Insert, |k| k[i])
    }

    /// Bytes held, for channels and the memory pool.
    pub fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.num_rows() * (self.kinds.is_some() as usize + 8 * self.behind.is_some() as usize)
    }

    /// The same rows with other columns (as many rows).
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        debug_assert_eq!(rows.num_rows(), self.num_rows());
        Self { rows, kinds: self.kinds.clone(), behind: self.behind.clone(), seq: self.seq }
    }

    /// The rows where `keep` is true.
    ///
    /// # Errors
    /// Internal, if `keep` has another length.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        let keep = if keep.null_count() > 0 { &compute::prep_null_mask_filter(keep) } else { keep };
        let select = |i: &usize| keep.value(*i);
        Ok(Self {
            rows: compute::filter_record_batch(&self.rows, keep)?,
            kinds: self.kinds.as_ref().map(|k| (0..k.len()).filter(select).map(|i| k[i]).collect()),
            behind: self.behind.as_ref().map(|b| (0..b.len()).filter(select).map(|i| b[i]).collect()),
            seq: self.seq,
        })
    }

    /// The rows at `indices`, in that order.
    ///
    /// # Errors
    /// Internal, if an index is out of range.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self> {
        let at = || indices.values().iter().map(|i| *i as usize);
        Ok(Self {
            rows: compute::take_record_batch(&self.rows, indices)?,
            kinds: self.kinds.as_ref().map(|k| at().map(|i| k[i]).collect()),
            behind: self.behind.as_ref().map(|b| at().map(|i| b[i]).collect()),
            seq: self.seq,
        })
    }

    /// `length` rows from `offset`, without copying columns.
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            rows: self.rows.slice(offset, length),
            kinds: self.kinds.as_ref().map(|k| k[offset..offset + length].into()),
            behind: self.behind.as_ref().map(|b| b[offset..offset + length].into()),
            seq: self.seq,
        }
    }
}
