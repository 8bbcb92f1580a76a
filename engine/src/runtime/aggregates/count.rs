//! COUNT(*) and COUNT(x).

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type};

use super::{GroupedState, check_lengths, check_state, each_row};
use crate::error::Result;

/// Rows counted, by group.
#[derive(Default)]
pub(super) struct Count {
    counts: Vec<i64>,
}

impl Count {
    fn add(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>, sign: i64) -> Result<()> {
        check_lengths(groups, argument, keep)?;
        // `logical_nulls`: a column of type NULL has no buffer that says so.
        let nulls = argument.and_then(|a| a.logical_nulls());
        each_row(groups, nulls.as_ref(), keep, |_, group| self.counts[group] += sign);
        Ok(())
    }
}

impl GroupedState for Count {
    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
    }

    fn update(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        self.add(groups, argument, keep, 1)
    }

    fn retract(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        self.add(groups, argument, keep, -1)
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("count", DataType::Int64, false)]
    }

    fn state(&self, groups: Range<usize>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        check_state(groups, state, &self.state_fields())?;
        for (group, count) in groups.iter().zip(state[0].as_primitive::<Int64Type>().values()) {
            self.counts[*group as usize] += count;
        }
        Ok(())
    }

    fn evaluate(&self, groups: Range<usize>) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(self.counts[groups].to_vec())))
    }

    fn evaluate_at(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(groups.iter().map(|g| self.counts[*g as usize]))))
    }

    fn clear(&mut self) {
        self.counts.clear();
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
    }
}
