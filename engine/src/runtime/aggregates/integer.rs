//! SUM and AVG over TINYINT to BIGINT.
//!
//! Both add in BIGINT, wrapping. SUM gives the argument's type back: cutting a wrapped BIGINT down is the same
//! as wrapping at every step in the narrow type, which is what Flink does. AVG divides the BIGINT and truncates,
//! so it is right even where SUM wraps.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Int8Type, Int16Type, Int32Type, Int64Type};

use super::{GroupedState, argument_of, check_state, each_row};
use crate::error::{Error, Result};

/// Sum and number of values, by group.
pub(super) struct IntegerSum {
    average: bool,
    argument: DataType,
    output: DataType,
    sums: Vec<i64>,
    counts: Vec<i64>,
}

impl IntegerSum {
    pub(super) fn new(average: bool, argument: DataType, output: DataType) -> Self {
        Self { average, argument, output, sums: Vec::new(), counts: Vec::new() }
    }

    fn add(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>, sign: i64) -> Result<()> {
        let argument = argument_of(groups, argument, keep, &self.argument)?;
        match self.argument {
            DataType::Int8 => self.add_values::<Int8Type>(groups, argument.as_primitive(), keep, sign),
            DataType::Int16 => self.add_values::<Int16Type>(groups, argument.as_primitive(), keep, sign),
            DataType::Int32 => self.add_values::<Int32Type>(groups, argument.as_primitive(), keep, sign),
            _ => self.add_values::<Int64Type>(groups, argument.as_primitive(), keep, sign),
        }
        Ok(())
    }

    fn add_values<T>(&mut self, groups: &[u32], argument: &PrimitiveArray<T>, keep: Option<&BooleanArray>, sign: i64)
    where
        T: ArrowPrimitiveType<Native: Into<i64>>,
    {
        use arrow::array::Array;
        let values = argument.values();
        each_row(groups, argument.nulls(), keep, |row, group| {
            let value: i64 = values[row].into();
            self.sums[group] = self.sums[group].wrapping_add(value.wrapping_mul(sign));
            self.counts[group] += sign;
        });
    }

    fn results(&self, groups: impl Iterator<Item = usize>) -> Result<ArrayRef> {
        let results = groups.map(|g| match (self.counts[g], self.average) {
            (0, _) => None,
            (_, false) => Some(self.sums[g]),
            (count, true) => Some(self.sums[g].wrapping_div(count)),
        });
        Ok(match self.output {
            DataType::Int8 => Arc::new(results.map(|r| r.map(|v| v as i8)).collect::<PrimitiveArray<Int8Type>>()),
            DataType::Int16 => Arc::new(results.map(|r| r.map(|v| v as i16)).collect::<PrimitiveArray<Int16Type>>()),
            DataType::Int32 => Arc::new(results.map(|r| r.map(|v| v as i32)).collect::<PrimitiveArray<Int32Type>>()),
            DataType::Int64 => Arc::new(results.collect::<Int64Array>()),
            ref other => return Err(Error::internal(format!("an integer sum cannot give {other}"))),
        })
    }
}

impl GroupedState for IntegerSum {
    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, 0);
        self.counts.resize(groups, 0);
    }

    fn update(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        self.add(groups, argument, keep, 1)
    }

    fn retract(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        self.add(groups, argument, keep, -1)
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("sum", DataType::Int64, false), Field::new("count", DataType::Int64, false)]
    }

    fn state(&self, groups: Range<usize>) -> Result<Vec<ArrayRef>> {
        let sums = Int64Array::from(self.sums[groups.clone()].to_vec());
        let counts = Int64Array::from(self.counts[groups].to_vec());
        Ok(vec![Arc::new(sums), Arc::new(counts)])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        check_state(groups, state, &self.state_fields())?;
        let (sums, counts) = (state[0].as_primitive::<Int64Type>().values(), state[1].as_primitive::<Int64Type>().values());
        for ((group, sum), count) in groups.iter().zip(sums).zip(counts) {
            let group = *group as usize;
            self.sums[group] = self.sums[group].wrapping_add(*sum);
            self.counts[group] += count;
        }
        Ok(())
    }

    fn evaluate(&self, groups: Range<usize>) -> Result<ArrayRef> {
        self.results(groups)
    }

    fn evaluate_at(&self, groups: &[u32]) -> Result<ArrayRef> {
        self.results(groups.iter().map(|g| *g as usize))
    }

    fn clear(&mut self) {
        self.sums.clear();
        self.counts.clear();
    }

    fn bytes(&self) -> usize {
        (self.sums.capacity() + self.counts.capacity()) * size_of::<i64>()
    }
}
