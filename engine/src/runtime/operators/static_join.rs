//! Join with a static table: read whole before the first stream row, shared by all workers.
//!
//! Nothing is dropped and nothing is kept: a stream row passes with its `behind`, once for every match. NULL
//! keys match nothing. With [`Matching::Version`] the last version whose time is not after the row's matches
//! (of two equal ones the later arrival), as FOR SYSTEM_TIME AS OF says.

use std::sync::Arc;

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMillisecondType};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use hashbrown::HashTable;

use super::{Operator, Out, calc};
use crate::error::{Error, Result};
use crate::sql::plan::{Matching, StaticJoinOp};
use crate::stream::StreamBatch;

/// The rows of a static table, indexed by key.
pub struct StaticTable {
    rows: RecordBatch,
    converter: RowConverter,
    hasher: RandomState,
    entries: HashTable<Entry>,
}

struct Entry {
    hash: u64,
    key: OwnedRow,
    /// Row numbers in order of version time (equal ones in arrival order), or of arrival.
    rows: Vec<u32>,
    /// Version times of `rows`; empty where all match.
    times: Vec<i64>,
}

impl StaticTable {
    /// Indexes `rows` for `op`.
    ///
    /// # Errors
    /// Data: a version time is NULL. Internal: a key type that cannot be compared.
    pub fn build(op: &StaticJoinOp, rows: RecordBatch) -> Result<Self> {
        let fields = op.side_keys.iter().map(|k| SortField::new(rows.column(*k).data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let mut table = Self { rows, converter, hasher: RandomState::with_seeds(1, 2, 3, 4), entries: HashTable::new() };
        let (keys, nulls) = table.keys(&op.side_keys.iter().map(|k| table.rows.column(*k).clone()).collect::<Vec<_>>())?;
        let times = match op.matching {
            Matching::All => None,
            Matching::Version { side_time, .. } => {
                let column = table.rows.column(side_time);
                if column.null_count() > 0 {
                    return Err(Error::data(format!(
                        "a row of the static table '{}' has no version time (its rowtime is NULL)",
                        op.side.table.name
                    )));
                }
                Some(column.as_primitive::<TimestampMillisecondType>().clone())
            }
        };
        for (row, is_null) in nulls.into_iter().enumerate() {
            if is_null {
                continue;
            }
            let key = keys.row(row);
            let hash = table.hasher.hash_one(key.as_ref());
            let entry = table.entries.entry(hash, |e| e.hash == hash && e.key.row() == key, |e| e.hash).or_insert_with(|| Entry {
                hash,
                key: key.owned(),
                rows: Vec::new(),
                times: Vec::new(),
            });
            let entry = entry.into_mut();
            match &times {
                None => entry.rows.push(row as u32),
                Some(times) => {
                    let time = times.value(row);
                    let at = entry.times.partition_point(|t| *t <= time);
                    entry.times.insert(at, time);
                    entry.rows.insert(at, row as u32);
                }
            }
        }
        Ok(table)
    }

    /// Keys as comparable rows, and which of them hold a NULL.
    fn keys(&self, columns: &[ArrayRef]) -> Result<(Rows, Vec<bool>)> {
        let rows = self.converter.convert_columns(columns)?;
        let nulls = (0..rows.num_rows()).map(|i| columns.iter().any(|c| c.is_null(i))).collect();
        Ok((rows, nulls))
    }

    fn entry(&self, key: &[u8]) -> Option<&Entry> {
        let hash = self.hasher.hash_one(key);
        self.entries.find(hash, |e| e.hash == hash && e.key.as_ref() == key)
    }
}

/// Joins one worker's rows.
pub struct StaticJoin {
    op: StaticJoinOp,
    table: Arc<StaticTable>,
    schema: SchemaRef,
    joined: SchemaRef,
}

impl StaticJoin {
    /// A join that emits `schema`.
    pub fn new(op: StaticJoinOp, table: Arc<StaticTable>, schema: SchemaRef) -> Self {
        // Between join and residual condition every column may be NULL.
        let nullable = |f: &Arc<Field>| f.as_ref().clone().with_nullable(true);
        let joined = Arc::new(Schema::new(schema.fields().iter().map(nullable).collect::<Vec<_>>()));
        Self { op, table, schema, joined }
    }

    /// Pairs of (stream row, static row) for each match.
    fn matches(&self, batch: &StreamBatch) -> Result<(Vec<u32>, Vec<u32>)> {
        let columns: Vec<ArrayRef> = self.op.stream_keys.iter().map(|k| batch.rows.column(*k).clone()).collect();
        let (keys, nulls) = self.table.keys(&columns)?;
        let (mut left, mut right) = (Vec::with_capacity(batch.num_rows()), Vec::with_capacity(batch.num_rows()));
        let times = match self.op.matching {
            Matching::All => None,
            Matching::Version { stream_time, .. } => Some(batch.rows.column(stream_time).as_primitive::<TimestampMillisecondType>()),
        };
        for (row, is_null) in nulls.into_iter().enumerate() {
            let entry = if is_null { None } else { self.table.entry(keys.row(row).as_ref()) };
            let Some(entry) = entry else { continue };
            match times {
                None => {
                    left.extend(std::iter::repeat_n(row as u32, entry.rows.len()));
                    right.extend_from_slice(&entry.rows);
                }
                Some(times) if times.is_valid(row) => {
                    let after = entry.times.partition_point(|t| *t <= times.value(row));
                    if after > 0 {
                        left.push(row as u32);
                        right.push(entry.rows[after - 1]);
                    }
                }
                Some(_) => {}
            }
        }
        Ok((left, right))
    }

    fn assemble(&self, stream: &StreamBatch, side: Vec<ArrayRef>, schema: &SchemaRef) -> Result<StreamBatch> {
        let columns = stream.rows.columns().iter().cloned().chain(side).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(stream.num_rows()));
        Ok(stream.with_rows(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?))
    }
}

impl Operator for StaticJoin {
    fn batch(&mut self, batch: StreamBatch, out: &mut Out) -> Result<()> {
        let (mut left, right) = self.matches(&batch)?;
        let taken =
            if self.is_each_once(&left, batch.num_rows()) { batch.clone() } else { batch.take(&UInt32Array::from(left.clone()))? };
        let right = UInt32Array::from(right);
        let side = self.table.rows.columns().iter().map(|c| take(c, &right, None)).collect::<Result<Vec<_>, _>>()?;
        let mut joined = self.assemble(&taken, side, &self.joined)?;
        if let Some(residual) = &self.op.residual {
            let keep = residual.evaluate(&joined.rows)?.into_array(joined.num_rows())?;
            let keep = keep.as_boolean();
            left = left.iter().enumerate().filter(|(i, _)| keep.is_valid(*i) && keep.value(*i)).map(|(_, l)| *l).collect();
            joined = calc::filter(&joined, residual)?;
        }
        if self.op.left {
            joined = self.pad(&batch, &left, joined)?;
        }
        let columns = joined.rows.columns().to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(joined.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        out.batch(joined.with_rows(rows));
        Ok(())
    }
}

impl StaticJoin {
    fn is_each_once(&self, left: &[u32], rows: usize) -> bool {
        left.len() == rows && left.iter().enumerate().all(|(i, l)| *l as usize == i)
    }

    /// LEFT: puts rows without a match, padded with NULL, back where they stood.
    fn pad(&self, batch: &StreamBatch, matched: &[u32], joined: StreamBatch) -> Result<StreamBatch> {
        let mut has_match = vec![false; batch.num_rows()];
        matched.iter().for_each(|l| has_match[*l as usize] = true);
        let missing: Vec<u32> = (0..batch.num_rows() as u32).filter(|i| !has_match[*i as usize]).collect();
        if missing.is_empty() {
            return Ok(joined);
        }
        let width = self.table.rows.num_columns();
        let nulls = (0..width).map(|c| arrow::array::new_null_array(self.table.rows.column(c).data_type(), missing.len())).collect();
        let padded = self.assemble(&batch.take(&UInt32Array::from(missing.clone()))?, nulls, &self.joined)?;
        let all = arrow::compute::concat_batches(&self.joined, [&joined.rows, &padded.rows])?;
        let mut order: Vec<(u32, u32)> = matched.iter().chain(&missing).enumerate().map(|(at, row)| (*row, at as u32)).collect();
        order.sort_unstable();
        let beside = |of: fn(&StreamBatch, usize) -> i64| -> Vec<i64> { order.iter().map(|(row, _)| of(batch, *row as usize)).collect() };
        let rows = arrow::compute::take_record_batch(&all, &UInt32Array::from_iter_values(order.iter().map(|(_, at)| *at)))?;
        Ok(StreamBatch {
            rows,
            kinds: batch.kinds.as_ref().map(|k| order.iter().map(|(row, _)| k[*row as usize]).collect()),
            behind: batch.behind.is_some().then(|| beside(|b, i| b.behind.as_ref().map_or(i64::MIN, |v| v[i])).into()),
            seq: batch.seq,
        })
    }
}
