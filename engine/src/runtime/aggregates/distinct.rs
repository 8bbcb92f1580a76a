//! COUNT, SUM and AVG over DISTINCT values.
//!
//! How often each (group, value) is there is counted exactly; the plain state sees a value when it comes for the
//! first time, and loses it when its last row is taken back. The mergeable state is the values with their counts:
//! the plain state follows from them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, StructArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Field, Fields, Int64Type, UInt32Type};

use super::{GroupedState, argument_of, check_state, each_row};
use crate::error::{Error, Result};
use crate::runtime::groups::Groups;

/// Counts of (group, value), and the plain state over the values with a positive count.
pub(super) struct Distinct {
    argument: DataType,
    plain: Box<dyn GroupedState>,
    /// Keys: group, value.
    pairs: Groups,
    counts: Vec<i64>,
}

impl Distinct {
    pub(super) fn new(argument: DataType, plain: Box<dyn GroupedState>) -> Result<Self> {
        let pairs = Groups::new(&[DataType::UInt32, argument.clone()])?;
        Ok(Self { argument, plain, pairs, counts: Vec::new() })
    }

    /// Adds `by(i)` rows of each value that is not NULL. Values that come or go reach the plain state.
    fn count(&mut self, groups: &[u32], values: &ArrayRef, by: impl Fn(usize) -> i64) -> Result<()> {
        let mut pairs = Vec::new();
        let of: ArrayRef = Arc::new(UInt32Array::from(groups.to_vec()));
        self.pairs.intern(&[of, Arc::clone(values)], groups.len(), &mut pairs)?;
        self.counts.resize(self.pairs.len(), 0);
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for (row, pair) in pairs.iter().enumerate() {
            let count = &mut self.counts[*pair as usize];
            let before = *count;
            *count += by(row);
            match (before > 0, *count > 0) {
                (false, true) => came.push(row as u32),
                (true, false) => went.push(row as u32),
                _ => {}
            }
        }
        let chosen = |rows: Vec<u32>| -> Result<(Vec<u32>, ArrayRef)> {
            let of = rows.iter().map(|r| groups[*r as usize]).collect();
            Ok((of, compute::take(values, &UInt32Array::from(rows), None)?))
        };
        if !came.is_empty() {
            let (groups, values) = chosen(came)?;
            self.plain.update(&groups, Some(&values), None)?;
        }
        if !went.is_empty() {
            let (groups, values) = chosen(went)?;
            self.plain.retract(&groups, Some(&values), None)?;
        }
        Ok(())
    }

    fn add(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>, sign: i64) -> Result<()> {
        let argument = argument_of(groups, argument, keep, &self.argument)?;
        let nulls = argument.logical_nulls();
        if keep.is_none() && nulls.as_ref().is_none_or(|n| n.null_count() == 0) {
            return self.count(groups, argument, |_| sign);
        }
        let (mut rows, mut of) = (Vec::new(), Vec::new());
        each_row(groups, nulls.as_ref(), keep, |row, group| {
            rows.push(row as u32);
            of.push(group as u32);
        });
        let values = compute::take(argument, &UInt32Array::from(rows), None)?;
        self.count(&of, &values, |_| sign)
    }

    fn element_fields(&self) -> Fields {
        Fields::from(vec![Field::new("value", self.argument.clone(), false), Field::new("count", DataType::Int64, false)])
    }

    fn list_field(&self) -> Field {
        Field::new("item", DataType::Struct(self.element_fields()), false)
    }
}

impl GroupedState for Distinct {
    fn resize(&mut self, groups: usize) {
        self.plain.resize(groups);
    }

    fn update(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        self.add(groups, argument, keep, 1)
    }

    fn retract(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        self.add(groups, argument, keep, -1)
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("values", DataType::List(Arc::new(self.list_field())), false)]
    }

    fn state(&self, groups: Range<usize>) -> Result<Vec<ArrayRef>> {
        // A counting sort of the pairs by group: lengths, then places.
        let all: Vec<u32> = (0..self.pairs.len() as u32).collect();
        let keys = self.pairs.keys_at(&all)?;
        let of = keys[0].as_primitive::<UInt32Type>().values();
        let wanted = |pair: &u32| self.counts[*pair as usize] != 0 && groups.contains(&(of[*pair as usize] as usize));
        let mut places = vec![0usize; groups.len() + 1];
        for pair in all.iter().filter(|p| wanted(p)) {
            places[of[*pair as usize] as usize - groups.start + 1] += 1;
        }
        let offsets = OffsetBuffer::<i32>::from_lengths(places[1..].iter().copied());
        for i in 1..places.len() {
            places[i] += places[i - 1];
        }
        let mut sorted = vec![0u32; places[groups.len()]];
        for pair in all.iter().filter(|p| wanted(p)) {
            let place = &mut places[of[*pair as usize] as usize - groups.start];
            sorted[*place] = *pair;
            *place += 1;
        }
        let counts = Int64Array::from_iter_values(sorted.iter().map(|p| self.counts[*p as usize]));
        let values = compute::take(&keys[1], &UInt32Array::from(sorted), None)?;
        let elements = StructArray::try_new(self.element_fields(), vec![values, Arc::new(counts)], None)?;
        Ok(vec![Arc::new(ListArray::try_new(Arc::new(self.list_field()), offsets, Arc::new(elements), None)?)])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        check_state(groups, state, &self.state_fields())?;
        let lists = state[0].as_list::<i32>();
        let offsets = lists.value_offsets();
        let (from, to) = (offsets[0] as usize, offsets[groups.len()] as usize);
        let elements =
            lists.values().as_struct_opt().ok_or_else(|| Error::internal("a DISTINCT state holds no rows"))?.slice(from, to - from);
        let of: Vec<u32> =
            groups.iter().zip(offsets.windows(2)).flat_map(|(g, o)| std::iter::repeat_n(*g, (o[1] - o[0]) as usize)).collect();
        let counts = elements.column(1).as_primitive::<Int64Type>();
        self.count(&of, elements.column(0), |i| counts.value(i))
    }

    fn evaluate(&self, groups: Range<usize>) -> Result<ArrayRef> {
        self.plain.evaluate(groups)
    }

    fn evaluate_at(&self, groups: &[u32]) -> Result<ArrayRef> {
        self.plain.evaluate_at(groups)
    }

    fn clear(&mut self) {
        self.plain.clear();
        self.pairs.clear();
        self.counts.clear();
    }

    fn bytes(&self) -> usize {
        self.plain.bytes() + self.pairs.bytes() + self.counts.capacity() * size_of::<i64>()
    }
}
