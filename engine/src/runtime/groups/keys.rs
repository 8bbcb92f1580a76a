//! One key column of a table of keys: appended to by chosen rows, compared in bulk, read back as Arrow.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, GenericByteArray, GenericByteBuilder, PrimitiveArray,
    UInt32Array, downcast_primitive,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute;
use arrow::datatypes::{BinaryType, ByteArrayType, DataType, Utf8Type};
use arrow::row::{RowConverter, Rows, SortField};

use crate::error::{Error, Result};

/// Keys of one column, by group.
pub(super) trait KeyColumn: Send {
    /// Appends the values of `rows`, as the keys of the next groups.
    fn append(&mut self, column: &ArrayRef, rows: &[u32]) -> Result<()>;
    /// Whether each row's value is the key of the group at its place.
    fn all_equal(&self, column: &ArrayRef, groups: &[u32]) -> bool;
    /// Whether one row's value is the key of a group.
    fn equals(&self, column: &ArrayRef, row: usize, group: u32) -> bool;
    /// All keys; the column is empty afterwards.
    fn take(&mut self) -> Result<ArrayRef>;
    /// The keys of chosen groups.
    fn at(&self, groups: &[u32]) -> Result<ArrayRef>;
    /// Forgets all keys and keeps the memory.
    fn clear(&mut self);
    /// Bytes held.
    fn bytes(&self) -> usize;
}

/// An empty column for keys of a type.
pub(super) fn key_column(data_type: &DataType) -> Result<Box<dyn KeyColumn>> {
    macro_rules! fixed {
        ($t:ty, $data_type:ident) => {
            Box::new(Fixed::<$t> { data_type: $data_type.clone(), values: Vec::new(), valid: Validity::default() })
        };
    }
    Ok(downcast_primitive! {
        data_type => (fixed, data_type),
        DataType::Boolean => Box::new(Booleans::default()),
        DataType::Utf8 => Box::new(Bytes::<Utf8Type>::default()),
        DataType::Binary => Box::new(Bytes::<BinaryType>::default()),
        _ => Box::new(Nested::new(data_type)?)
    })
}

/// Which groups' keys are not NULL; empty as long as none is NULL.
#[derive(Default)]
struct Validity {
    valid: Vec<bool>,
}

impl Validity {
    /// Called before `rows` of `column` are appended to a column of `known` keys.
    fn append(&mut self, column: &ArrayRef, rows: &[u32], known: usize) {
        match column.nulls() {
            Some(nulls) if nulls.null_count() > 0 => {
                self.valid.resize(known, true);
                self.valid.extend(rows.iter().map(|r| nulls.is_valid(*r as usize)));
            }
            _ if self.valid.is_empty() => {}
            _ => self.valid.resize(known + rows.len(), true),
        }
    }

    fn is_valid(&self, group: u32) -> bool {
        self.valid.is_empty() || self.valid[group as usize]
    }

    fn take(&mut self) -> Option<NullBuffer> {
        (!self.valid.is_empty()).then(|| NullBuffer::from(std::mem::take(&mut self.valid)))
    }

    fn at(&self, groups: &[u32]) -> Option<NullBuffer> {
        (!self.valid.is_empty()).then(|| groups.iter().map(|g| self.valid[*g as usize]).collect())
    }
}

/// Whether neither the column nor the keys have a NULL: then values alone decide.
fn no_nulls(column: &ArrayRef, valid: &Validity) -> bool {
    column.null_count() == 0 && valid.valid.is_empty()
}

struct Fixed<T: ArrowPrimitiveType> {
    data_type: DataType,
    values: Vec<T::Native>,
    valid: Validity,
}

impl<T: ArrowPrimitiveType> Fixed<T> {
    fn array(&self, values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(self.data_type.clone()))
    }
}

impl<T: ArrowPrimitiveType> KeyColumn for Fixed<T> {
    fn append(&mut self, column: &ArrayRef, rows: &[u32]) -> Result<()> {
        self.valid.append(column, rows, self.values.len());
        let values = column.as_primitive::<T>().values();
        self.values.extend(rows.iter().map(|r| values[*r as usize]));
        Ok(())
    }

    fn all_equal(&self, column: &ArrayRef, groups: &[u32]) -> bool {
        if !no_nulls(column, &self.valid) {
            return groups.iter().enumerate().all(|(row, g)| self.equals(column, row, *g));
        }
        // Without an early exit: rows that differ are too rare to look for.
        let pairs = column.as_primitive::<T>().values().iter().zip(groups);
        pairs.fold(true, |same, (v, g)| same & v.is_eq(self.values[*g as usize]))
    }

    fn equals(&self, column: &ArrayRef, row: usize, group: u32) -> bool {
        match (column.is_valid(row), self.valid.is_valid(group)) {
            (true, true) => column.as_primitive::<T>().value(row).is_eq(self.values[group as usize]),
            (a, b) => a == b,
        }
    }

    fn take(&mut self) -> Result<ArrayRef> {
        let (values, nulls) = (std::mem::take(&mut self.values), self.valid.take());
        Ok(self.array(values, nulls))
    }

    fn at(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(self.array(groups.iter().map(|g| self.values[*g as usize]).collect(), self.valid.at(groups)))
    }

    fn clear(&mut self) {
        self.values.clear();
        self.valid.valid.clear();
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.valid.valid.capacity()
    }
}

/// BOOLEAN: `None` is NULL.
#[derive(Default)]
struct Booleans {
    values: Vec<Option<bool>>,
}

impl KeyColumn for Booleans {
    fn append(&mut self, column: &ArrayRef, rows: &[u32]) -> Result<()> {
        let column = column.as_boolean();
        self.values.extend(rows.iter().map(|r| column.is_valid(*r as usize).then(|| column.value(*r as usize))));
        Ok(())
    }

    fn all_equal(&self, column: &ArrayRef, groups: &[u32]) -> bool {
        column.as_boolean().iter().zip(groups).all(|(v, g)| v == self.values[*g as usize])
    }

    fn equals(&self, column: &ArrayRef, row: usize, group: u32) -> bool {
        let column = column.as_boolean();
        column.is_valid(row).then(|| column.value(row)) == self.values[group as usize]
    }

    fn take(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(BooleanArray::from(std::mem::take(&mut self.values))))
    }

    fn at(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(groups.iter().map(|g| self.values[*g as usize]).collect::<BooleanArray>()))
    }

    fn clear(&mut self) {
        self.values.clear();
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<Option<bool>>()
    }
}

/// STRING and BYTES. The builder is the store: it gives all keys away without copying or checking them again.
struct Bytes<T: ByteArrayType<Offset = i32>> {
    keys: GenericByteBuilder<T>,
    valid: Validity,
}

impl<T: ByteArrayType<Offset = i32>> Default for Bytes<T> {
    fn default() -> Self {
        Self { keys: GenericByteBuilder::with_capacity(0, 0), valid: Validity::default() }
    }
}

impl<T: ByteArrayType<Offset = i32>> Bytes<T> {
    fn key(&self, group: u32) -> &[u8] {
        let offsets = &self.keys.offsets_slice()[group as usize..group as usize + 2];
        &self.keys.values_slice()[offsets[0] as usize..offsets[1] as usize]
    }
}

impl<T: ByteArrayType<Offset = i32>> KeyColumn for Bytes<T> {
    fn append(&mut self, column: &ArrayRef, rows: &[u32]) -> Result<()> {
        use arrow::array::ArrayBuilder;
        self.valid.append(column, rows, self.keys.len());
        let column = column.as_bytes::<T>();
        let offsets = column.value_offsets();
        let added: usize = rows.iter().map(|r| (offsets[*r as usize + 1] - offsets[*r as usize]) as usize).sum();
        if self.keys.values_slice().len() + added > i32::MAX as usize {
            return Err(Error::external("the keys of an aggregation take more than 2 GB").help("use more workers or smaller windows"));
        }
        for &row in rows {
            // NULL is kept as an empty value: which keys are NULL is kept apart.
            match column.is_valid(row as usize) {
                true => self.keys.append_value(column.value(row as usize)),
                false => self.keys.append_null(),
            }
        }
        Ok(())
    }

    fn all_equal(&self, column: &ArrayRef, groups: &[u32]) -> bool {
        if !no_nulls(column, &self.valid) {
            return groups.iter().enumerate().all(|(row, g)| self.equals(column, row, *g));
        }
        let column = column.as_bytes::<T>();
        let (values, known) = (column.value_data(), self.keys.values_slice());
        let known_offsets = self.keys.offsets_slice();
        column.value_offsets().windows(2).zip(groups).all(|(at, g)| {
            let (from, to) = (known_offsets[*g as usize] as usize, known_offsets[*g as usize + 1] as usize);
            values[at[0] as usize..at[1] as usize] == known[from..to]
        })
    }

    fn equals(&self, column: &ArrayRef, row: usize, group: u32) -> bool {
        match (column.is_valid(row), self.valid.is_valid(group)) {
            (true, true) => AsRef::<[u8]>::as_ref(column.as_bytes::<T>().value(row)) == self.key(group),
            (a, b) => a == b,
        }
    }

    fn take(&mut self) -> Result<ArrayRef> {
        self.valid.valid.clear();
        Ok(Arc::new(self.keys.finish()))
    }

    fn at(&self, groups: &[u32]) -> Result<ArrayRef> {
        let keys = || groups.iter().map(|g| self.key(*g));
        let offsets = OffsetBuffer::<i32>::from_lengths(keys().map(<[u8]>::len));
        let values = keys().flatten().copied().collect::<Vec<u8>>();
        Ok(Arc::new(GenericByteArray::<T>::try_new(offsets, values.into(), self.valid.at(groups))?))
    }

    fn clear(&mut self) {
        self.valid.valid.clear();
        // A builder can only be emptied by taking its content.
        self.keys = GenericByteBuilder::with_capacity(self.keys.offsets_slice().len(), self.keys.values_slice().len());
    }

    fn bytes(&self) -> usize {
        size_of_val(self.keys.offsets_slice()) + self.keys.values_slice().len() + self.valid.valid.capacity()
    }
}

/// ROW, ARRAY, MAP: as Arrow's row bytes, in memory only.
struct Nested {
    converter: RowConverter,
    rows: Rows,
}

impl Nested {
    fn new(data_type: &DataType) -> Result<Self> {
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])
            .map_err(|e| Error::internal(format!("{data_type} cannot be a key")).caused_by(e))?;
        let rows = converter.empty_rows(0, 0);
        Ok(Self { converter, rows })
    }

    /// The column's rows. They were converted when the types were checked, so this cannot fail.
    fn convert(&self, column: &ArrayRef) -> Rows {
        self.converter.convert_columns(std::slice::from_ref(column)).expect("the column has the type of the converter")
    }
}

impl KeyColumn for Nested {
    fn append(&mut self, column: &ArrayRef, rows: &[u32]) -> Result<()> {
        let chosen = compute::take(column, &UInt32Array::new(ScalarBuffer::from(rows.to_vec()), None), None)?;
        Ok(self.converter.append(&mut self.rows, &[chosen])?)
    }

    fn all_equal(&self, column: &ArrayRef, groups: &[u32]) -> bool {
        let rows = self.convert(column);
        groups.iter().enumerate().all(|(row, g)| rows.row(row) == self.rows.row(*g as usize))
    }

    fn equals(&self, column: &ArrayRef, row: usize, group: u32) -> bool {
        self.convert(&column.slice(row, 1)).row(0) == self.rows.row(group as usize)
    }

    fn take(&mut self) -> Result<ArrayRef> {
        let mut columns = self.converter.convert_rows(&self.rows)?;
        self.rows.clear();
        columns.pop().ok_or_else(|| Error::internal("a row converter lost its column"))
    }

    fn at(&self, groups: &[u32]) -> Result<ArrayRef> {
        let mut columns = self.converter.convert_rows(groups.iter().map(|g| self.rows.row(*g as usize)))?;
        columns.pop().ok_or_else(|| Error::internal("a row converter lost its column"))
    }

    fn clear(&mut self) {
        self.rows.clear();
    }

    fn bytes(&self) -> usize {
        self.rows.size() + self.converter.size()
    }
}
