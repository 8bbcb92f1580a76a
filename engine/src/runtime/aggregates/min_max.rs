//! MIN and MAX.
//!
//! Text goes by its bytes, FALSE is below TRUE, −0 below +0. A NaN is no candidate as long as there is a number:
//! in Flink a NaN stays only where it came first, which depends on the order; this is the outcome of every order
//! in which it did not. The state is the result, so merging is updating.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, GenericByteArray, PrimitiveArray, downcast_primitive,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{BinaryType, ByteArrayType, DataType, Field, Utf8Type};

use super::{GroupedState, argument_of, check_state, each_row};
use crate::error::{Error, Result};

/// The state of MIN or MAX over a type; `None` where the type has no order.
pub(super) fn min_max(argument: &DataType, max: bool) -> Option<Box<dyn GroupedState>> {
    macro_rules! numbers {
        ($t:ty, $argument:ident) => {
            Some(Box::new(Extremes { argument: $argument.clone(), store: Numbers::<$t> { max, values: Vec::new(), seen: Vec::new() } }))
        };
    }
    downcast_primitive! {
        argument => (numbers, argument),
        DataType::Boolean => Some(Box::new(Extremes { argument: DataType::Boolean, store: Booleans { max, values: Vec::new() } })),
        DataType::Utf8 => Some(Box::new(Extremes { argument: DataType::Utf8, store: Bytes::<Utf8Type>::new(max) })),
        DataType::Binary => Some(Box::new(Extremes { argument: DataType::Binary, store: Bytes::<BinaryType>::new(max) })),
        _ => None
    }
}

/// What differs by type.
trait Store: Send {
    fn resize(&mut self, groups: usize);
    fn offer(&mut self, groups: &[u32], column: &ArrayRef, keep: Option<&BooleanArray>);
    fn results(&self, groups: impl Iterator<Item = usize> + Clone, data_type: &DataType) -> Result<ArrayRef>;
    fn clear(&mut self);
    fn bytes(&self) -> usize;
}

/// MIN or MAX over any type.
struct Extremes<S> {
    argument: DataType,
    store: S,
}

impl<S: Store> GroupedState for Extremes<S> {
    fn resize(&mut self, groups: usize) {
        self.store.resize(groups);
    }

    fn update(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        let argument = argument_of(groups, argument, keep, &self.argument)?;
        self.store.offer(groups, argument, keep);
        Ok(())
    }

    fn retract(&mut self, _: &[u32], _: Option<&ArrayRef>, _: Option<&BooleanArray>) -> Result<()> {
        Err(Error::internal("MIN and MAX cannot take a row back: their input must be append-only"))
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("value", self.argument.clone(), true)]
    }

    fn state(&self, groups: Range<usize>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        check_state(groups, state, &self.state_fields())?;
        self.store.offer(groups, &state[0], None);
        Ok(())
    }

    fn evaluate(&self, groups: Range<usize>) -> Result<ArrayRef> {
        self.store.results(groups, &self.argument)
    }

    fn evaluate_at(&self, groups: &[u32]) -> Result<ArrayRef> {
        self.store.results(groups.iter().map(|g| *g as usize), &self.argument)
    }

    fn clear(&mut self) {
        self.store.clear();
    }

    fn bytes(&self) -> usize {
        self.store.bytes()
    }
}

/// Numbers, decimals, dates and times.
struct Numbers<T: ArrowPrimitiveType> {
    max: bool,
    values: Vec<T::Native>,
    seen: Vec<bool>,
}

impl<T: ArrowPrimitiveType> Store for Numbers<T> {
    fn resize(&mut self, groups: usize) {
        self.values.resize(groups, T::Native::default());
        self.seen.resize(groups, false);
    }

    fn offer(&mut self, groups: &[u32], column: &ArrayRef, keep: Option<&BooleanArray>) {
        let column = column.as_primitive::<T>();
        let offered = column.values();
        // Only a NaN differs from itself.
        #[expect(clippy::eq_op)]
        let is_nan = |v: T::Native| v != v;
        let Self { max, values, seen } = self;
        each_row(groups, column.nulls(), keep, |row, group| {
            let (new, old) = (offered[row], values[group]);
            let better = if *max { new.is_gt(old) } else { new.is_lt(old) };
            if !seen[group] || (better && !is_nan(new)) || is_nan(old) {
                values[group] = new;
                seen[group] = true;
            }
        });
    }

    fn results(&self, groups: impl Iterator<Item = usize> + Clone, data_type: &DataType) -> Result<ArrayRef> {
        let nulls = NullBuffer::from(groups.clone().map(|g| self.seen[g]).collect::<BooleanBuffer>());
        let values: Vec<T::Native> = groups.map(|g| self.values[g]).collect();
        Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), Some(nulls)).with_data_type(data_type.clone())))
    }

    fn clear(&mut self) {
        self.values.clear();
        self.seen.clear();
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.seen.capacity()
    }
}

/// BOOLEAN.
struct Booleans {
    max: bool,
    values: Vec<Option<bool>>,
}

impl Store for Booleans {
    fn resize(&mut self, groups: usize) {
        self.values.resize(groups, None);
    }

    fn offer(&mut self, groups: &[u32], column: &ArrayRef, keep: Option<&BooleanArray>) {
        let column = column.as_boolean();
        each_row(groups, column.nulls(), keep, |row, group| {
            let new = column.value(row);
            let value = self.values[group].get_or_insert(new);
            *value = if self.max { *value | new } else { *value & new };
        });
    }

    fn results(&self, groups: impl Iterator<Item = usize> + Clone, _: &DataType) -> Result<ArrayRef> {
        Ok(Arc::new(groups.map(|g| self.values[g]).collect::<BooleanArray>()))
    }

    fn clear(&mut self) {
        self.values.clear();
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<Option<bool>>()
    }
}

/// STRING and BYTES.
struct Bytes<T> {
    max: bool,
    values: Vec<Option<Vec<u8>>>,
    of: std::marker::PhantomData<T>,
}

impl<T> Bytes<T> {
    fn new(max: bool) -> Self {
        Self { max, values: Vec::new(), of: std::marker::PhantomData }
    }
}

impl<T: ByteArrayType<Offset = i32>> Store for Bytes<T> {
    fn resize(&mut self, groups: usize) {
        self.values.resize(groups, None);
    }

    fn offer(&mut self, groups: &[u32], column: &ArrayRef, keep: Option<&BooleanArray>) {
        let column = column.as_bytes::<T>();
        each_row(groups, column.nulls(), keep, |row, group| {
            let new: &[u8] = column.value(row).as_ref();
            match &mut self.values[group] {
                Some(old) if (if self.max { new > old.as_slice() } else { new < old.as_slice() }) => {
                    old.clear();
                    old.extend_from_slice(new);
                }
                Some(_) => {}
                none => *none = Some(new.to_vec()),
            }
        });
    }

    fn results(&self, groups: impl Iterator<Item = usize> + Clone, data_type: &DataType) -> Result<ArrayRef> {
        let values = || groups.clone().map(|g| self.values[g].as_deref());
        if values().flatten().map(<[u8]>::len).sum::<usize>() > i32::MAX as usize {
            return Err(Error::external(format!("the results of MIN or MAX over {data_type} take more than 2 GB")));
        }
        let offsets = OffsetBuffer::<i32>::from_lengths(values().map(|v| v.map_or(0, <[u8]>::len)));
        let nulls = NullBuffer::from(values().map(|v| v.is_some()).collect::<BooleanBuffer>());
        let bytes: Vec<u8> = values().flatten().flatten().copied().collect();
        Ok(Arc::new(GenericByteArray::<T>::try_new(offsets, bytes.into(), Some(nulls))?))
    }

    fn clear(&mut self) {
        self.values.clear();
    }

    fn bytes(&self) -> usize {
        let held: usize = self.values.iter().flatten().map(Vec::capacity).sum();
        held + self.values.capacity() * size_of::<Option<Vec<u8>>>()
    }
}
