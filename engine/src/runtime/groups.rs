//! Keys as dense numbers: the key columns of a batch in, one group index a row out.
//!
//! One table serves a whole operator and is reused after [`Groups::take_keys`] or [`Groups::clear`], because
//! an empty table per window costs more memory than most windows hold.
//!
//! A batch is interned in two passes. The first finds a group by the 64-bit hash of a row alone; the second
//! compares whole columns with the keys of the groups found. Distinct keys with one hash are so rare that the
//! second pass only has to notice them; the rows concerned then go one by one.
//!
//! What must hold: group indices are dense and, until the next clear, never change their meaning; −0 and +0
//! are one key, and so are all NaN; NULL is a key like any other. Hashes here are of this process only: what
//! is written down goes by [`super::key_group`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::key_group::canonical_float;
use crate::error::{Error, Result};

mod keys;

use keys::KeyColumn;

/// Seed of the in-memory hash.
const SEED: u64 = 0x5EED_0F6A;

/// A table of keys.
pub struct Groups {
    types: Vec<DataType>,
    columns: Vec<Box<dyn KeyColumn>>,
    /// (hash, group).
    table: HashTable<(u64, u32)>,
    len: usize,
    // Scratch of `intern`, kept for its memory.
    hashes: Vec<u64>,
    new_rows: Vec<u32>,
}

impl Groups {
    /// An empty table for key columns of these types. Without columns there is one group: all rows.
    ///
    /// # Errors
    /// Internal: a type that cannot be a key.
    pub fn new(types: &[DataType]) -> Result<Self> {
        let columns = types.iter().map(keys::key_column).collect::<Result<_>>()?;
        Ok(Self { types: types.to_vec(), columns, table: HashTable::new(), len: 0, hashes: Vec::new(), new_rows: Vec::new() })
    }

    /// Replaces `groups` by the group of each of `rows` rows; unknown keys become new groups, in order of
    /// the rows.
    ///
    /// # Errors
    /// Internal: columns that do not fit the table. External: more keys than one table can hold.
    pub fn intern(&mut self, columns: &[ArrayRef], rows: usize, groups: &mut Vec<u32>) -> Result<()> {
        groups.clear();
        if columns.len() != self.types.len() || columns.iter().any(|c| c.len() != rows) {
            return Err(Error::internal(format!(
                "{} key columns of {rows} rows do not fit the table's {}",
                columns.len(),
                self.types.len()
            )));
        }
        if self.types.is_empty() {
            groups.resize(rows, 0);
            self.len = self.len.max(rows.min(1));
            return Ok(());
        }
        if self.len + rows > u32::MAX as usize {
            return Err(Error::external("an aggregation has more than 4 billion keys").help("use more workers or smaller windows"));
        }
        let columns = columns.iter().zip(&self.types).map(|(c, t)| canonical(c, t)).collect::<Result<Vec<_>>>()?;
        self.hashes.clear();
        self.hashes.resize(rows, 0);
        create_hashes(&columns, &RandomState::with_seed(SEED), &mut self.hashes)?;
        self.new_rows.clear();
        groups.reserve(rows);
        let mut next = self.len as u32;
        for (row, &hash) in self.hashes.iter().enumerate() {
            match self.table.entry(hash, |e| e.0 == hash, |e| e.0) {
                Entry::Occupied(found) => groups.push(found.get().1),
                Entry::Vacant(free) => {
                    free.insert((hash, next));
                    groups.push(next);
                    self.new_rows.push(row as u32);
                    next += 1;
                }
            }
        }
        self.append(&columns)?;
        if self.columns.iter().zip(&columns).any(|(known, column)| !known.all_equal(column, groups)) {
            self.separate(&columns, groups)?;
        }
        Ok(())
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The keys of all groups, in order of the groups; the table is empty afterwards.
    ///
    /// # Errors
    /// Internal: an Arrow kernel failed.
    pub fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        let keys = self.columns.iter_mut().map(|c| c.take()).collect();
        self.clear();
        keys
    }

    /// The keys of chosen groups; the table stays as it is.
    ///
    /// # Errors
    /// Internal: an Arrow kernel failed.
    pub fn keys_at(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.columns.iter().map(|c| c.at(groups)).collect()
    }

    /// Forgets all groups and keeps the memory.
    pub fn clear(&mut self) {
        self.table.clear();
        self.columns.iter_mut().for_each(|c| c.clear());
        self.len = 0;
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(|c| c.bytes()).sum();
        columns + self.table.capacity() * (size_of::<(u64, u32)>() + 1) + self.hashes.capacity() * 8 + self.new_rows.capacity() * 4
    }

    /// Appends the keys of `new_rows`.
    fn append(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for (known, column) in self.columns.iter_mut().zip(columns) {
            known.append(column, &self.new_rows)?;
        }
        self.len += self.new_rows.len();
        Ok(())
    }

    /// Gives the rows whose key is not their group's (another key has their hash) a group of their own.
    #[cold]
    fn separate(&mut self, columns: &[ArrayRef], groups: &mut [u32]) -> Result<()> {
        for (row, group) in groups.iter_mut().enumerate() {
            let Self { columns: known, table, hashes, .. } = self;
            let same = |g: u32| known.iter().zip(columns).all(|(k, c)| k.equals(c, row, g));
            if same(*group) {
                continue;
            }
            let hash = hashes[row];
            if let Some(found) = table.find(hash, |e| e.0 == hash && same(e.1)) {
                *group = found.1;
                continue;
            }
            *group = self.len as u32;
            table.insert_unique(hash, (hash, *group), |e| e.0);
            self.new_rows.clear();
            self.new_rows.push(row as u32);
            self.append(columns)?;
        }
        Ok(())
    }
}

/// Checks a column's type, and folds −0 and NaN.
fn canonical(column: &ArrayRef, expected: &DataType) -> Result<ArrayRef> {
    if !column.data_type().equals_datatype(expected) {
        return Err(Error::internal(format!("a key column has type {} instead of {expected}", column.data_type())));
    }
    Ok(match expected {
        DataType::Float32 => {
            let folded: Float32Array = compute::unary(column.as_primitive::<Float32Type>(), |v| canonical_float(v.into()) as f32);
            Arc::new(folded)
        }
        DataType::Float64 => {
            let folded: Float64Array = compute::unary(column.as_primitive::<Float64Type>(), canonical_float);
            Arc::new(folded)
        }
        _ => Arc::clone(column),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, ListArray, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn intern(groups: &mut Groups, columns: &[ArrayRef]) -> Vec<u32> {
        let mut out = vec![99];
        groups.intern(columns, columns[0].len(), &mut out).expect("fits");
        out
    }

    fn types(columns: &[ArrayRef]) -> Vec<DataType> {
        columns.iter().map(|c| c.data_type().clone()).collect()
    }

    #[test]
    fn keys_keep_their_number_over_batches_and_come_back_in_order() {
        let text = |v: Vec<Option<&str>>| -> ArrayRef { Arc::new(StringArray::from(v)) };
        let int = |v: Vec<Option<i64>>| -> ArrayRef { Arc::new(Int64Array::from(v)) };
        let first = [int(vec![Some(1), Some(1), None, Some(1)]), text(vec![Some("a"), Some(""), Some("a"), Some("a")])];
        let second = [int(vec![None, Some(1), None]), text(vec![Some("a"), None, None])];
        let mut groups = Groups::new(&types(&first)).expect("types");
        for _ in 0..2 {
            assert_eq!(intern(&mut groups, &first), [0, 1, 2, 0]);
            assert_eq!(intern(&mut groups, &second), [2, 3, 4]);
            let some = groups.keys_at(&[4, 0, 2]).expect("keys");
            assert_eq!(&some[0], &int(vec![None, Some(1), None]));
            assert_eq!(&some[1], &text(vec![None, Some("a"), Some("a")]));
            let all = groups.take_keys().expect("keys");
            assert_eq!(&all[0], &int(vec![Some(1), Some(1), None, Some(1), None]));
            assert_eq!(&all[1], &text(vec![Some("a"), Some(""), Some("a"), None, None]));
            assert!(groups.is_empty());
        }
    }

    #[test]
    fn every_kind_of_column_can_be_a_key() {
        let nested = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), Some(vec![None]), None, Some(vec![Some(1)])]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(vec![0.0, f64::NAN, 2.0, -0.0])),
            Arc::new(Float32Array::from(vec![-0.0, f32::NAN, 2.0, 0.0])),
            Arc::new(arrow::array::BooleanArray::from(vec![Some(true), None, Some(false), Some(true)])),
            Arc::new(arrow::array::BinaryArray::from_opt_vec(vec![Some(b"\xFF"), None, Some(b""), Some(b"\xFF")])),
            Arc::new(TimestampMillisecondArray::from(vec![5, 6, 7, 5]).with_timezone("UTC")),
            Arc::new(arrow::array::Decimal128Array::from(vec![5, 6, 7, 5]).with_precision_and_scale(12, 3).expect("fits")),
            Arc::new(nested),
        ];
        for column in columns {
            let mut groups = Groups::new(&[column.data_type().clone()]).expect("type");
            for _ in 0..2 {
                assert_eq!(intern(&mut groups, std::slice::from_ref(&column)), [0, 1, 2, 0]);
                assert_eq!(intern(&mut groups, &[column.slice(1, 2)]), [1, 2]);
                let some = groups.keys_at(&[2, 1]).expect("keys");
                assert_eq!(groups.keys_at(&[2, 1]).expect("again")[0].data_type(), column.data_type());
                assert_eq!(intern(&mut groups, &some), [2, 1]);
                let all = groups.take_keys().expect("keys");
                assert_eq!((all[0].len(), all[0].data_type()), (3, column.data_type()));
            }
        }
    }

    #[test]
    fn no_columns_are_one_group() {
        let mut groups = Groups::new(&[]).expect("none");
        let mut out = Vec::new();
        groups.intern(&[], 0, &mut out).expect("fits");
        assert!(groups.is_empty());
        groups.intern(&[], 3, &mut out).expect("fits");
        assert_eq!((groups.len(), &out[..]), (1, &[0, 0, 0][..]));
        assert!(groups.take_keys().expect("none").is_empty());
        assert!(groups.is_empty());
    }

    #[test]
    fn keys_with_one_hash_stay_apart() {
        let column: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 1, 3, 2]));
        let mut groups = Groups::new(&[DataType::Int32]).expect("type");
        // As if all keys had one hash: the first pass has put every row into the first group.
        groups.hashes = vec![7; 5];
        groups.new_rows = vec![0];
        groups.table.insert_unique(7, (7, 0), |e| e.0);
        groups.append(std::slice::from_ref(&column)).expect("fits");
        let mut found = vec![0; 5];
        groups.separate(std::slice::from_ref(&column), &mut found).expect("fits");
        assert_eq!(found, [0, 1, 0, 2, 1]);
        assert_eq!(&groups.take_keys().expect("keys")[0], &(Arc::new(Int32Array::from(vec![1, 2, 3])) as ArrayRef));
    }

    #[test]
    fn a_table_that_is_reused_does_not_grow() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let mut groups = Groups::new(&[DataType::Int64]).expect("type");
        assert!(groups.bytes() < 1024, "an empty table is small");
        intern(&mut groups, std::slice::from_ref(&column));
        let once = groups.bytes();
        for _ in 0..10 {
            groups.clear();
            intern(&mut groups, std::slice::from_ref(&column));
        }
        assert_eq!(groups.bytes(), once);
    }
}
