//! SUM and AVG over FLOAT and DOUBLE, exact inside (see [`super::exact`]).

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int64Array, ListBuilder, PrimitiveBuilder};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type};
use hashbrown::HashMap;

use super::exact::{self, WIDE_WORDS, Wide};
use super::{GroupedState, argument_of, check_state, each_row};
use crate::error::{Error, Result};

/// Sum and number of values, by group.
pub(super) struct FloatSum {
    average: bool,
    argument: DataType,
    output: DataType,
    parts: Parts,
    counts: Vec<i64>,
}

/// Sums by group: `high + low`, and `wide` for the few groups that need it.
#[derive(Default)]
struct Parts {
    high: Vec<f64>,
    low: Vec<f64>,
    wide: HashMap<u32, Box<Wide>>,
}

impl Parts {
    #[inline]
    fn add(&mut self, group: usize, v: f64, sign: i64) {
        let (high, low) = (&mut self.high[group], &mut self.low[group]);
        if !exact::add(high, low, if sign < 0 { -v } else { v }) {
            let wide = self.wide.entry(group as u32).or_default();
            wide.add(std::mem::take(high), 1);
            wide.add(std::mem::take(low), 1);
            // With its own sign: a NaN or Inf that is taken back is one less, not an opposite one more.
            wide.add(v, sign);
        }
    }

    fn sum(&self, group: usize) -> f64 {
        let wide = if self.wide.is_empty() { None } else { self.wide.get(&(group as u32)) };
        exact::round(self.high[group], self.low[group], wide.map(|w| &**w))
    }
}

impl FloatSum {
    pub(super) fn new(average: bool, argument: DataType, output: DataType) -> Self {
        Self { average, argument, output, parts: Parts::default(), counts: Vec::new() }
    }

    fn add(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>, sign: i64) -> Result<()> {
        let argument = argument_of(groups, argument, keep, &self.argument)?;
        let Self { parts, counts, .. } = self;
        if let Some(argument) = argument.as_primitive_opt::<Float32Type>() {
            let values = argument.values();
            each_row(groups, argument.nulls(), keep, |row, group| {
                parts.add(group, values[row].into(), sign);
                counts[group] += sign;
            });
        } else {
            let argument = argument.as_primitive::<Float64Type>();
            let values = argument.values();
            each_row(groups, argument.nulls(), keep, |row, group| {
                parts.add(group, values[row], sign);
                counts[group] += sign;
            });
        }
        Ok(())
    }

    fn results(&self, groups: impl Iterator<Item = usize>) -> ArrayRef {
        let results = groups.map(|g| match (self.counts[g], self.average) {
            (0, _) => None,
            (_, false) => Some(self.parts.sum(g)),
            (count, true) => Some(self.parts.sum(g) / count as f64),
        });
        match self.output {
            DataType::Float32 => Arc::new(results.map(|r| r.map(|v| v as f32)).collect::<Float32Array>()),
            _ => Arc::new(results.collect::<Float64Array>()),
        }
    }
}

impl GroupedState for FloatSum {
    fn resize(&mut self, groups: usize) {
        self.parts.high.resize(groups, 0.0);
        self.parts.low.resize(groups, 0.0);
        self.counts.resize(groups, 0);
    }

    fn update(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        self.add(groups, argument, keep, 1)
    }

    fn retract(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        self.add(groups, argument, keep, -1)
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![
            Field::new("high", DataType::Float64, false),
            Field::new("low", DataType::Float64, false),
            // The words of a wide number; empty for most groups.
            Field::new("wide", DataType::List(Arc::new(word_field())), false),
            Field::new("count", DataType::Int64, false),
        ]
    }

    fn state(&self, groups: Range<usize>) -> Result<Vec<ArrayRef>> {
        let high = Float64Array::from(self.parts.high[groups.clone()].to_vec());
        let low = Float64Array::from(self.parts.low[groups.clone()].to_vec());
        let mut wide = ListBuilder::new(PrimitiveBuilder::<Int64Type>::new()).with_field(word_field());
        for group in groups.clone() {
            if let Some(number) = self.parts.wide.get(&(group as u32)) {
                wide.values().append_slice(&number.to_words());
            }
            wide.append(true);
        }
        let counts = Int64Array::from(self.counts[groups].to_vec());
        Ok(vec![Arc::new(high), Arc::new(low), Arc::new(wide.finish()), Arc::new(counts)])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        check_state(groups, state, &self.state_fields())?;
        let (high, low) = (state[0].as_primitive::<Float64Type>().values(), state[1].as_primitive::<Float64Type>().values());
        let (wide, counts) = (state[2].as_list::<i32>(), state[3].as_primitive::<Int64Type>().values());
        let words = wide.values().as_primitive::<Int64Type>().values();
        for (row, group) in groups.iter().enumerate() {
            self.parts.add(*group as usize, high[row], 1);
            self.parts.add(*group as usize, low[row], 1);
            self.counts[*group as usize] += counts[row];
            let (from, to) = (wide.value_offsets()[row] as usize, wide.value_offsets()[row + 1] as usize);
            if from < to {
                let number = Wide::from_words(&words[from..to])
                    .ok_or_else(|| Error::state(format!("the state of a sum is damaged: {} words, not {WIDE_WORDS}", to - from)))?;
                self.parts.wide.entry(*group).or_default().add_wide(&number);
            }
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
        self.parts.high.clear();
        self.parts.low.clear();
        self.parts.wide.clear();
        self.counts.clear();
    }

    fn bytes(&self) -> usize {
        let wide = self.parts.wide.len() * size_of::<Wide>() + self.parts.wide.capacity() * size_of::<(u32, usize)>();
        (self.parts.high.capacity() + self.parts.low.capacity() + self.counts.capacity()) * 8 + wide
    }
}

fn word_field() -> Field {
    Field::new("item", DataType::Int64, false)
}
