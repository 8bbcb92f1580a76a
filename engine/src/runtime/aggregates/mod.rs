//! State of aggregate functions: one columnar state per call, for many groups at once.
//!
//! The same state serves window aggregation, updating aggregation and the pre-aggregation before the
//! exchange. It is not DataFusion's, because Flink's values differ (SUM(INT) wraps, AVG(INT) truncates, a
//! DECIMAL that does not fit is NULL), because rows must be taken back, and because results and state are
//! read while the state lives on.
//!
//! ```text
//!  rows ──update──▶ state of worker 1 ──state──▶ Arrow columns ──merge──▶ state of the owner ──evaluate──▶ result
//!  rows ──update──▶ state of worker 2 ──state──▶      "        ──merge──▶        "
//! ```
//!
//! What must hold: the result depends on the set of rows alone, bit for bit: not on their order, on how
//! they are cut into batches, or on how often they went through `state` and `merge`. So sums of DECIMAL,
//! FLOAT and DOUBLE are exact inside and rounded once ([`exact`]).

mod count;
mod decimal;
mod distinct;
pub mod exact;
mod float;
mod integer;
mod min_max;

#[cfg(test)]
mod tests;

use std::ops::Range;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field};

use crate::error::{Error, Result};
use crate::sql::plan::{AggregateCall, AggregateFunction};

/// State of one aggregate call for many groups, columnar.
pub trait GroupedState: Send {
    /// Sets the number of groups; new groups start empty. Groups are only ever added.
    fn resize(&mut self, groups: usize);

    /// Adds rows: `groups` names the group of each row, `argument` is the argument's column (`None`:
    /// COUNT(*)), and only rows where `keep` (FILTER) is true count.
    ///
    /// # Errors
    /// Internal: columns of another length or type than the call's.
    fn update(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()>;

    /// Takes back rows that were added before.
    ///
    /// # Errors
    /// As [`Self::update`], and Internal where the function cannot take rows back (MIN, MAX).
    fn retract(&mut self, groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()>;

    /// The columns of [`Self::state`].
    fn state_fields(&self) -> Vec<Field>;

    /// The state of a range of groups, one row a group. Nothing changes.
    ///
    /// # Errors
    /// Internal: an Arrow kernel failed.
    fn state(&self, groups: Range<usize>) -> Result<Vec<ArrayRef>>;

    /// Adds states: row `i` of `state` into group `groups[i]`.
    ///
    /// # Errors
    /// Internal: columns that are not of [`Self::state_fields`].
    fn merge(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()>;

    /// The results of a range of groups. Nothing changes.
    ///
    /// # Errors
    /// Internal: an Arrow kernel failed.
    fn evaluate(&self, groups: Range<usize>) -> Result<ArrayRef>;

    /// The results of chosen groups. Nothing changes.
    ///
    /// # Errors
    /// Internal: an Arrow kernel failed.
    fn evaluate_at(&self, groups: &[u32]) -> Result<ArrayRef>;

    /// Forgets all groups and keeps the memory.
    fn clear(&mut self);

    /// Bytes held.
    fn bytes(&self) -> usize;
}

/// The empty state of a call.
///
/// # Errors
/// Internal: a call that the planner must not make (see [`crate::sql::aggregate_types::result_type`]).
pub fn grouped_state(call: &AggregateCall) -> Result<Box<dyn GroupedState>> {
    let plain = plain_state(call)?;
    // A value that comes twice is still the same minimum.
    let distinct = call.distinct && !matches!(call.function, AggregateFunction::Min | AggregateFunction::Max);
    if !distinct {
        return Ok(plain);
    }
    if call.argument.is_none() {
        return Err(Error::internal("DISTINCT needs an argument"));
    }
    Ok(Box::new(distinct::Distinct::new(call.argument_type.clone(), plain)?))
}

fn plain_state(call: &AggregateCall) -> Result<Box<dyn GroupedState>> {
    use AggregateFunction as F;
    use DataType as T;
    let (argument, output) = (&call.argument_type, &call.output_type);
    let refused = || Error::internal(format!("{:?} over {argument} giving {output} has no state", call.function));
    match call.function {
        F::Count if *output == T::Int64 => Ok(Box::new(count::Count::default())),
        F::Count => Err(refused()),
        F::Sum | F::Avg => {
            let average = call.function == F::Avg;
            match (argument, output) {
                (T::Int8 | T::Int16 | T::Int32 | T::Int64, T::Int8 | T::Int16 | T::Int32 | T::Int64) => {
                    Ok(Box::new(integer::IntegerSum::new(average, argument.clone(), output.clone())))
                }
                (T::Float32 | T::Float64, T::Float32 | T::Float64) => {
                    Ok(Box::new(float::FloatSum::new(average, argument.clone(), output.clone())))
                }
                (T::Decimal128(_, from), T::Decimal128(_, to)) if *to >= *from && (average || to == from) => {
                    Ok(Box::new(decimal::DecimalSum::new(average, argument.clone(), output.clone(), to - from)))
                }
                _ => Err(refused()),
            }
        }
        F::Min | F::Max if argument == output => min_max::min_max(argument, call.function == F::Max).ok_or_else(refused),
        F::Min | F::Max => Err(refused()),
    }
}

/// Calls `f(row, group)` for each row that counts: not NULL, and kept by the filter.
#[inline]
fn each_row(groups: &[u32], nulls: Option<&NullBuffer>, keep: Option<&BooleanArray>, mut f: impl FnMut(usize, usize)) {
    let nulls = nulls.filter(|n| n.null_count() > 0);
    match (nulls, keep) {
        (None, None) => groups.iter().enumerate().for_each(|(row, g)| f(row, *g as usize)),
        (Some(nulls), None) => {
            groups.iter().enumerate().zip(nulls).filter(|(_, valid)| *valid).for_each(|((row, g), _)| f(row, *g as usize));
        }
        (nulls, Some(keep)) => {
            for (row, g) in groups.iter().enumerate() {
                if keep.is_valid(row) && keep.value(row) && nulls.is_none_or(|n| n.is_valid(row)) {
                    f(row, *g as usize);
                }
            }
        }
    }
}

/// Checks what `update` and `retract` were given, and that the argument has the call's type.
fn argument_of<'a>(
    groups: &[u32],
    argument: Option<&'a ArrayRef>,
    keep: Option<&BooleanArray>,
    expected: &DataType,
) -> Result<&'a ArrayRef> {
    let Some(argument) = argument else {
        return Err(Error::internal("an aggregate was given no argument column"));
    };
    if !argument.data_type().equals_datatype(expected) {
        return Err(Error::internal(format!("an aggregate over {expected} was given a column of {}", argument.data_type())));
    }
    check_lengths(groups, Some(argument), keep)?;
    Ok(argument)
}

fn check_lengths(groups: &[u32], argument: Option<&ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
    let rows = groups.len();
    if argument.is_some_and(|a| a.len() != rows) || keep.is_some_and(|k| k.len() != rows) {
        return Err(Error::internal(format!("an aggregate over {rows} rows was given columns of another length")));
    }
    Ok(())
}

/// Checks what `merge` was given against the fields of the state.
fn check_state(groups: &[u32], state: &[ArrayRef], fields: &[Field]) -> Result<()> {
    let fits = state.len() == fields.len()
        && state.iter().zip(fields).all(|(s, f)| s.len() == groups.len() && s.data_type().equals_datatype(f.data_type()));
    if fits { Ok(()) } else { Err(Error::internal("the state of an aggregate has other columns than it writes")) }
}
