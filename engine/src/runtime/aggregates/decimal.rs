//! SUM and AVG over DECIMAL.
//!
//! Sums are exact in 256 bits, which no number of rows overflows. Only the result is held to 38 digits: a sum
//! that does not fit is NULL, and so is an average of such a sum. (Flink forgets the sum at the moment when it
//! overflows and starts again with the next row, so there the result depends on the order.) AVG rounds half away
//! from zero, at the result's scale.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, Int64Array};
use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, Field, Int64Type, i256};

use super::{GroupedState, argument_of, check_state, each_row};
use crate::error::Result;

/// The first value with 39 digits.
const LIMIT: i128 = 10i128.pow(38);

/// Sum and number of values, by group.
pub(super) struct DecimalSum {
    average: bool,
    argument: DataType,
    output: DataType,
    /// What brings the argument's scale to the result's: a power of ten.
    factor: i256,
    sums: Vec<i256>,
    counts: Vec<i64>,
}

impl DecimalSum {
    /// `scale_up`: digits that the result's scale has more than the argument's; 0 for SUM.
    pub(super) fn new(average: bool, argument: DataType, output: DataType, scale_up: i8) -> Self {
        let factor = i256::from_i128(10).wrapping_pow(scale_up.max(0) as u32);
        Self { average, argument, output, factor, sums: Vec::new(), counts: Vec::new() }
    }

    fn add(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>, sign: i64) -> Result<()> {
        let argument = argument_of(groups, argument, keep, &self.argument)?.as_primitive::<Decimal128Type>();
        let values = argument.values();
        each_row(groups, argument.nulls(), keep, |row, group| {
            // A 38-digit value has no sign that cannot be turned: |v| < 10³⁸ < 2¹²⁷.
            self.sums[group] = self.sums[group].wrapping_add(i256::from_i128(values[row].wrapping_mul(sign.into())));
            self.counts[group] += sign;
        });
        Ok(())
    }

    fn result(&self, group: usize) -> Option<i128> {
        let (sum, count) = (self.sums[group], self.counts[group]);
        let sum = fits(sum)?;
        match (count, self.average) {
            (0, _) => None,
            (_, false) => Some(sum),
            (_, true) => {
                let count = i256::from_i128(count.into());
                let scaled = i256::from_i128(sum).wrapping_mul(self.factor);
                let (quotient, rest) = (scaled.checked_div(count)?, scaled.checked_rem(count)?);
                let half_or_more = rest.wrapping_abs().wrapping_mul(i256::from_i128(2)) >= count.wrapping_abs();
                let away = if (scaled < i256::ZERO) == (count < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
                fits(if half_or_more { quotient.wrapping_add(away) } else { quotient })
            }
        }
    }

    fn results(&self, groups: impl Iterator<Item = usize>) -> ArrayRef {
        let results: Decimal128Array = groups.map(|g| self.result(g)).collect();
        Arc::new(results.with_data_type(self.output.clone()))
    }
}

/// The value, where it has at most 38 digits.
fn fits(v: i256) -> Option<i128> {
    v.to_i128().filter(|v| -LIMIT < *v && *v < LIMIT)
}

impl GroupedState for DecimalSum {
    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, i256::ZERO);
        self.counts.resize(groups, 0);
    }

    fn update(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        self.add(groups, argument, keep, 1)
    }

    fn retract(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        self.add(groups, argument, keep, -1)
    }

    fn state_fields(&self) -> Vec<Field> {
        // Unscaled: the scale is the call's, not the state's.
        let sum = DataType::Decimal256(DECIMAL256_MAX_PRECISION, 0);
        vec![Field::new("sum", sum, false), Field::new("count", DataType::Int64, false)]
    }

    fn state(&self, groups: Range<usize>) -> Result<Vec<ArrayRef>> {
        let sums = Decimal256Array::from(self.sums[groups.clone()].to_vec());
        let counts = Int64Array::from(self.counts[groups].to_vec());
        Ok(vec![Arc::new(sums.with_precision_and_scale(DECIMAL256_MAX_PRECISION, 0)?), Arc::new(counts)])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        check_state(groups, state, &self.state_fields())?;
        let (sums, counts) = (state[0].as_primitive::<Decimal256Type>().values(), state[1].as_primitive::<Int64Type>().values());
        for ((group, sum), count) in groups.iter().zip(sums).zip(counts) {
            let group = *group as usize;
            self.sums[group] = self.sums[group].wrapping_add(*sum);
            self.counts[group] += count;
        }
        Ok(())
    }

    fn evaluate(&self, groups: Range<usize>) -> Result<ArrayRef> {
        Ok(self.results(groups))
    }

    fn evaluate_at(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(self.results(groups.iter().map(|g| *g as usize)))
    }

    fn clear(&mut self) {
        self.sums.clear();
        self.counts.clear();
    }

    fn bytes(&self) -> usize {
        self.sums.capacity() * size_of::<i256>() + self.counts.capacity() * size_of::<i64>()
    }
}
