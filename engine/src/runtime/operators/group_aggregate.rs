//! Aggregation per key without a window: an updating result.
//!
//! A key's first row gives `+I`, later ones `-U` (the old result) and `+U`; a batch gives one change a key,
//! and none where the result stays. Only the final table is contract, as in Flink.
//!
//! State: groups with their aggregate states, kept for ever. A checkpoint writes the groups that changed
//! since the last one; a later segment overrides an earlier one by key, and when most of what is on disk
//! has been overridden, one whole segment replaces them all.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{self, kernels::cmp::not_distinct};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Operator, Out};
use crate::error::{Error, Result};
use crate::runtime::aggregates::{GroupedState, grouped_state};
use crate::runtime::checkpoint::{Segment, Snapshot};
use crate::runtime::groups::Groups;
use crate::runtime::key_range::KeyRange;
use crate::sql::plan::GroupAggregateOp;
use crate::stream::{Barrier, RowKind, StreamBatch};

/// One worker's groups.
pub struct GroupAggregate {
    op: GroupAggregateOp,
    schema: SchemaRef,
    groups: Groups,
    states: Vec<Box<dyn GroupedState>>,
    state_schema: SchemaRef,
    dirty: Vec<bool>,
    segments: Vec<Arc<Segment>>,
    indices: Vec<u32>,
}

impl GroupAggregate {
    /// An aggregation over rows of `input` that emits `schema`.
    ///
    /// # Errors
    /// Internal: an aggregate that the planner should have refused.
    pub fn new(op: &GroupAggregateOp, input: &SchemaRef, schema: SchemaRef) -> Result<Self> {
        let types: Vec<DataType> = op.keys.iter().map(|k| input.field(*k).data_type().clone()).collect();
        let states = op.aggregates.iter().map(grouped_state).collect::<Result<Vec<_>>>()?;
        let keys = types.iter().enumerate().map(|(i, t)| Field::new(format!("key{i}"), t.clone(), true));
        let state = states.iter().enumerate().flat_map(|(i, s)| {
            s.state_fields().into_iter().map(move |f| Field::new(format!("aggregate{i}_{}", f.name()), f.data_type().clone(), true))
        });
        let state_schema = Arc::new(Schema::new(keys.chain(state).collect::<Vec<_>>()));
        let groups = Groups::new(&types)?;
        Ok(Self { op: op.clone(), schema, groups, states, state_schema, dirty: Vec::new(), segments: Vec::new(), indices: Vec::new() })
    }

    /// Goes on from the segments of all former instances, of which the keys of `range` are taken.
    ///
    /// # Errors
    /// State: a segment has another form.
    pub fn restore(&mut self, segments: &[Arc<Segment>], range: &KeyRange) -> Result<()> {
        let keys = self.op.keys.len();
        let mine = segments.iter().map(|s| range.restrict(s, 0..keys)).collect::<Result<Vec<_>>>()?;
        self.segments = mine.into_iter().flatten().collect();
        // Newest first: the first row of a key that is met is the one that counts.
        for segment in self.segments.clone().iter().rev() {
            let rows = segment.rows();
            let known = self.groups.len() as u32;
            self.intern(&rows.columns()[..keys], rows.num_rows())?;
            let fresh: Vec<u32> = (0..rows.num_rows() as u32).filter(|i| self.indices[*i as usize] >= known).collect();
            let groups: Vec<u32> = fresh.iter().map(|i| self.indices[*i as usize]).collect();
            let rows = compute::take_record_batch(rows, &UInt32Array::from(fresh))?;
            let mut at = keys;
            for state in &mut self.states {
                let width = state.state_fields().len();
                state.merge(&groups, &rows.columns()[at..at + width])?;
                at += width;
            }
        }
        self.dirty.iter_mut().for_each(|d| *d = false);
        Ok(())
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<()> {
        self.groups.intern(keys, rows, &mut self.indices)?;
        let groups = self.groups.len();
        self.states.iter_mut().for_each(|s| s.resize(groups));
        self.dirty.resize(groups, false);
        Ok(())
    }

    fn results(&self, groups: &[u32]) -> Result<RecordBatch> {
        let mut columns = self.groups.keys_at(groups)?;
        for state in &self.states {
            columns.push(state.evaluate_at(groups)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// Which rows of two equally long results differ in an aggregate.
    fn changed(&self, old: &RecordBatch, new: &RecordBatch) -> Result<Vec<bool>> {
        let mut changed = vec![false; old.num_rows()];
        for column in self.op.keys.len()..old.num_columns() {
            let same: BooleanArray = not_distinct(old.column(column), new.column(column))?;
            changed.iter_mut().enumerate().for_each(|(i, c)| *c |= !same.value(i));
        }
        Ok(changed)
    }

    fn segment_of(&self, groups: &[u32]) -> Result<RecordBatch> {
        let mut columns = self.groups.keys_at(groups)?;
        let at = UInt32Array::from(groups.to_vec());
        for state in &self.states {
            for column in state.state(0..self.groups.len())? {
                columns.push(compute::take(&column, &at, None)?);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
        Ok(RecordBatch::try_new_with_options(self.state_schema.clone(), columns, &options)?)
    }
}

impl Operator for GroupAggregate {
    fn batch(&mut self, batch: StreamBatch, out: &mut Out) -> Result<()> {
        if batch.kinds.is_some() {
            return Err(Error::internal("a group aggregation over an updating input was planned"));
        }
        let known = self.groups.len() as u32;
        let keys: Vec<ArrayRef> = self.op.keys.iter().map(|k| batch.rows.column(*k).clone()).collect();
        self.intern(&keys, batch.num_rows())?;
        let (mut old_groups, mut new_groups) = (Vec::new(), Vec::new());
        let mut seen = vec![false; self.groups.len()];
        for group in &self.indices {
            if !std::mem::replace(&mut seen[*group as usize], true) {
                if *group < known { old_groups.push(*group) } else { new_groups.push(*group) }
            }
        }
        let old = self.results(&old_groups)?;
        for (state, call) in self.states.iter_mut().zip(&self.op.aggregates) {
            let argument = call.argument.map(|i| batch.rows.column(i));
            let keep = call.filter.map(|i| batch.rows.column(i).as_boolean());
            state.update(&self.indices, argument, keep)?;
        }
        old_groups.iter().chain(&new_groups).for_each(|g| self.dirty[*g as usize] = true);

        let updated = self.results(&old_groups)?;
        let inserted = self.results(&new_groups)?;
        let changed = self.changed(&old, &updated)?;
        let all = compute::concat_batches(&self.schema, [&old, &updated, &inserted])?;
        let (mut order, mut kinds) = (Vec::new(), Vec::new());
        let half = old.num_rows();
        for i in (0..half).filter(|i| changed[*i]) {
            order.extend([i as u32, (half + i) as u32]);
            kinds.extend([RowKind::UpdateBefore, RowKind::UpdateAfter]);
        }
        order.extend((2 * half..all.num_rows()).map(|i| i as u32));
        kinds.resize(order.len(), RowKind::Insert);
        let rows = compute::take_record_batch(&all, &UInt32Array::from(order))?;
        out.batch(StreamBatch::with_kinds(rows, kinds));
        Ok(())
    }

    fn barrier(&mut self, _barrier: Barrier, snapshot: &mut Snapshot, _out: &mut Out) -> Result<()> {
        let changed: Vec<u32> = (0..self.groups.len() as u32).filter(|g| self.dirty[*g as usize]).collect();
        if !changed.is_empty() {
            let stored: usize = self.segments.iter().map(|s| s.rows().num_rows()).sum();
            if stored + changed.len() > 2 * self.groups.len() + 4096 {
                let all: Vec<u32> = (0..self.groups.len() as u32).collect();
                self.segments = vec![Segment::new(self.segment_of(&all)?)];
            } else {
                self.segments.push(Segment::new(self.segment_of(&changed)?));
            }
            self.dirty.iter_mut().for_each(|d| *d = false);
        }
        snapshot.segments.extend(self.segments.iter().cloned());
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.groups.bytes() + self.states.iter().map(|s| s.bytes()).sum::<usize>()
    }
}
