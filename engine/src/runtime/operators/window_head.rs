//! The mutable head of window state: (window columns, key) → aggregate states, in memory.
//!
//! There is one head an operator, never one a window: an empty hash table costs tens of kilobytes, and a
//! hopping window would pay it for every slide. Sealing empties the head into one *partial* batch
//!
//! ```text
//!  | window columns (Int64) | key columns | state columns of each aggregate |
//! ```
//!
//! which is the form of everything that is not in the head: what crosses threads, what a checkpoint writes,
//! and what closing a window merges.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::error::Result;
use crate::runtime::aggregates::{GroupedState, grouped_state};
use crate::runtime::groups::Groups;
use crate::sql::plan::AggregateCall;

/// Groups and their aggregate states.
pub struct Head {
    calls: Vec<AggregateCall>,
    groups: Groups,
    states: Vec<Box<dyn GroupedState>>,
    prefix: usize,
    partial: SchemaRef,
    indices: Vec<u32>,
}

impl Head {
    /// A head over `windows` leading Int64 columns and `keys`.
    ///
    /// # Errors
    /// Internal: an aggregate of a type that the planner should have refused.
    pub fn new(windows: usize, keys: &[FieldRef], calls: &[AggregateCall]) -> Result<Self> {
        let states = calls.iter().map(grouped_state).collect::<Result<Vec<_>>>()?;
        let window = |i| Arc::new(Field::new(format!("window{i}"), DataType::Int64, false));
        let key = |(i, f): (usize, &FieldRef)| Arc::new(Field::new(format!("key{i}"), f.data_type().clone(), true));
        let prefix: Vec<FieldRef> = (0..windows).map(window).chain(keys.iter().enumerate().map(key)).collect();
        let types: Vec<DataType> = prefix.iter().map(|f| f.data_type().clone()).collect();
        let groups = Groups::new(&types)?;
        let mut fields = prefix.clone();
        for (i, state) in states.iter().enumerate() {
            let named = |f: Field| Arc::new(f.clone().with_name(format!("aggregate{i}_{}", f.name())).with_nullable(true));
            fields.extend(state.state_fields().into_iter().map(named));
        }
        let partial = Arc::new(Schema::new(fields));
        Ok(Self { calls: calls.to_vec(), groups, states, prefix: prefix.len(), partial, indices: Vec::new() })
    }

    /// Schema of partial batches.
    pub fn partial_schema(&self) -> SchemaRef {
        self.partial.clone()
    }

    /// Groups in the head.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether the head holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.groups.bytes() + self.states.iter().map(|s| s.bytes()).sum::<usize>()
    }

    fn intern(&mut self, columns: &[ArrayRef], rows: usize) -> Result<()> {
        self.groups.intern(columns, rows, &mut self.indices)?;
        let groups = self.len();
        self.states.iter_mut().for_each(|s| s.resize(groups));
        Ok(())
    }

    /// Adds rows: `group` are the window and key columns of each, arguments are columns of `rows`.
    ///
    /// # Errors
    /// Data: an aggregate refuses a value.
    pub fn update(&mut self, group: &[ArrayRef], rows: &RecordBatch) -> Result<()> {
        self.intern(group, rows.num_rows())?;
        for (state, call) in self.states.iter_mut().zip(&self.calls) {
            let argument = call.argument.map(|i| rows.column(i));
            let keep = call.filter.map(|i| rows.column(i).as_boolean());
            state.update(&self.indices, argument, keep)?;
        }
        Ok(())
    }

    /// Key columns and results of one partial batch by itself, of which each row is a group: nothing is looked up.
    ///
    /// # Errors
    /// Internal: the batch has another form, or the head is not empty.
    pub fn finish_one(&mut self, partial: &RecordBatch, skip: usize) -> Result<(usize, Vec<ArrayRef>, Vec<ArrayRef>)> {
        debug_assert!(self.is_empty());
        let groups = partial.num_rows();
        self.indices.clear();
        self.indices.extend(0..groups as u32);
        self.states.iter_mut().for_each(|s| s.resize(groups));
        let columns = &partial.columns()[skip..];
        self.merge_states(columns)?;
        let results = self.states.iter().map(|s| s.evaluate(0..groups)).collect::<Result<Vec<_>>>()?;
        self.states.iter_mut().for_each(|s| s.clear());
        Ok((groups, columns[..self.prefix].to_vec(), results))
    }

    /// Adds the groups of a partial batch, whose first `skip` columns (window columns) do not count here.
    ///
    /// # Errors
    /// Internal: the batch has another form.
    pub fn merge(&mut self, partial: &RecordBatch, skip: usize) -> Result<()> {
        let columns = &partial.columns()[skip..];
        self.intern(&columns[..self.prefix], partial.num_rows())?;
        self.merge_states(columns)
    }

    /// Adds the state columns behind the keys to the groups of `indices`.
    fn merge_states(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let mut at = self.prefix;
        for state in &mut self.states {
            let width = state.state_fields().len();
            state.merge(&self.indices, &columns[at..at + width])?;
            at += width;
        }
        Ok(())
    }

    /// Empties the head into a partial batch; `None` where it is empty.
    ///
    /// # Errors
    /// Internal: a state does not fit its fields.
    pub fn seal(&mut self) -> Result<Option<RecordBatch>> {
        if self.is_empty() {
            return Ok(None);
        }
        let groups = self.len();
        let mut columns = self.groups.take_keys()?;
        for state in &mut self.states {
            columns.extend(state.state(0..groups)?);
            state.clear();
        }
        let options = RecordBatchOptions::new().with_row_count(Some(groups));
        Ok(Some(RecordBatch::try_new_with_options(self.partial.clone(), columns, &options)?))
    }

    /// Empties the head into key columns and aggregate results.
    ///
    /// # Errors
    /// Internal: a state cannot be evaluated.
    pub fn finish(&mut self) -> Result<(usize, Vec<ArrayRef>, Vec<ArrayRef>)> {
        let groups = self.len();
        let keys = self.groups.take_keys()?;
        let mut results = Vec::with_capacity(self.states.len());
        for state in &mut self.states {
            results.push(state.evaluate(0..groups)?);
            state.clear();
        }
        Ok((groups, keys, results))
    }
}

/// The Int64 values of a partial batch's window column.
pub fn window_values(partial: &RecordBatch, column: usize) -> &[i64] {
    partial.column(column).as_primitive::<arrow::datatypes::Int64Type>().values()
}

/// Bytes of a batch's arrays.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|c| c.get_array_memory_size()).sum()
}
