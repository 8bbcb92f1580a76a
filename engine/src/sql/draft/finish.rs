//! The draft becomes the plan: equal sinks joined, unused nodes swept, calcs fused, columns pruned, and
//! static sides folded into their joins.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};

use super::columns::{for_each_column, remap};
use super::fuse::fuse;
use super::prune::{Pruned, prune};
use super::push::push;
use super::{ColumnFact, Draft, DraftNode, DraftOp, SinkDraft, SourceDraft, sha256};
use crate::connectors::{Context, Scan};
use crate::error::{Error, Result};
use crate::sql::plan::{
    CalcOp, JobSettings, Node, NodeId, Op, SinkOp, SourceOp, StaticJoinOp, StreamPlan, WatermarkOp, WindowAssignOp, WindowSource,
};
use crate::sql::side_output;
use crate::stream::types::TIME_ATTRIBUTE;

/// The plan of a job whose `sinks` take the rows of these nodes.
///
/// # Errors
/// User: a side output that cannot be made. Internal: an expression that cannot be moved.
pub fn finish(mut draft: Draft, sinks: Vec<(NodeId, SinkDraft)>, settings: JobSettings, context: &Context) -> Result<StreamPlan> {
    add_sinks(&mut draft, sinks);
    let mut nodes = sweep(draft.nodes);
    fuse(&mut nodes)?;
    let mut nodes = push(sweep(nodes));
    fuse(&mut nodes)?;
    let nodes = sweep(nodes);
    let pruned = prune(&nodes)?;
    emit(&pruned, settings, context)
}

/// Several INSERTs into one table are one sink over their union: a table has one writer set and one commit.
fn add_sinks(draft: &mut Draft, sinks: Vec<(NodeId, SinkDraft)>) {
    let mut by_table: Vec<(SinkDraft, Vec<NodeId>)> = Vec::new();
    for (input, sink) in sinks {
        let name = |s: &SinkDraft| s.table.as_ref().map(|t| t.0.name.clone());
        match by_table.iter_mut().find(|(s, _)| name(s).is_some() && name(s) == name(&sink)) {
            Some((_, inputs)) => inputs.push(input),
            None => by_table.push((sink, vec![input])),
        }
    }
    for (sink, inputs) in by_table {
        let first = draft.nodes[inputs[0]].clone();
        let updates = inputs.iter().find_map(|i| draft.nodes[*i].updates.clone());
        let input = if inputs.len() == 1 {
            inputs[0]
        } else {
            let mut node = DraftNode::new(DraftOp::Union, inputs, first.fields.clone(), vec![ColumnFact::default(); first.fields.len()]);
            node.updates = updates.clone();
            draft.add(node)
        };
        let below = &draft.nodes[input];
        let fields = match &sink.table {
            Some((table, _)) => {
                let written = table.metadata.iter().filter(|m| !m.is_virtual).map(|m| Arc::clone(&m.field));
                table.physical.fields().iter().cloned().chain(written).collect()
            }
            None => below.fields.clone(),
        };
        let mut node = DraftNode::new(DraftOp::Sink(sink), vec![input], fields, below.facts.clone());
        node.updates = updates;
        node.upsert_key = below.upsert_key.clone();
        draft.add(node);
    }
}

/// Keeps what a sink reaches, in the same order.
fn sweep(nodes: Vec<DraftNode>) -> Vec<DraftNode> {
    let mut used = vec![false; nodes.len()];
    for (id, node) in nodes.iter().enumerate().rev() {
        if used[id] || matches!(node.op, DraftOp::Sink(_)) {
            used[id] = true;
            node.inputs.iter().for_each(|i| used[*i] = true);
        }
    }
    let mut moved = vec![0; nodes.len()];
    let mut kept = Vec::new();
    for (id, mut node) in nodes.into_iter().enumerate() {
        if used[id] {
            node.inputs.iter_mut().for_each(|i| *i = moved[*i]);
            moved[id] = kept.len();
            kept.push(node);
        }
    }
    kept
}

fn emit(pruned: &[Pruned], settings: JobSettings, context: &Context) -> Result<StreamPlan> {
    // A node that is only a static side is part of its join, not a node of the plan.
    let mut streamed = vec![false; pruned.len()];
    for (id, p) in pruned.iter().enumerate().rev() {
        let is_sink = matches!(p.node.op, DraftOp::Sink(_));
        if streamed[id] || is_sink {
            streamed[id] = true;
            let stream_inputs = if matches!(p.node.op, DraftOp::StaticJoin(_)) { 1 } else { p.node.inputs.len() };
            p.node.inputs[..stream_inputs].iter().for_each(|i| streamed[*i] = true);
        }
    }
    let mut moved = vec![0; pruned.len()];
    let mut nodes: Vec<Node> = Vec::new();
    let mut prints: HashMap<String, usize> = HashMap::new();
    for (id, p) in pruned.iter().enumerate() {
        if !streamed[id] {
            continue;
        }
        let is_join = matches!(p.node.op, DraftOp::StaticJoin(_));
        let inputs = if is_join { &p.node.inputs[..1] } else { &p.node.inputs[..] };
        let op = op(pruned, id, context)?;
        let seen = prints.entry(p.node.fingerprint.clone()).or_default();
        *seen += 1;
        let fingerprint = if *seen == 1 { p.node.fingerprint.clone() } else { sha256(&format!("{} #{seen}", p.node.fingerprint)) };
        moved[id] = nodes.len();
        let schema = if matches!(p.node.op, DraftOp::Sink(_)) { p.node.schema() } else { Arc::new(Schema::new(attributed(&p.node))) };
        nodes.push(Node {
            id: nodes.len(),
            inputs: inputs.iter().map(|i| moved[*i]).collect(),
            op,
            schema,
            rowtime: p.node.rowtime(),
            updates: p.node.updates.is_some(),
            upsert_key: p.node.upsert_key.clone(),
            fingerprint,
        });
    }
    Ok(StreamPlan { nodes, settings })
}

/// Fields with the time attribute's mark exactly where the node has one.
fn attributed(node: &DraftNode) -> Vec<FieldRef> {
    let mark = |(field, fact): (&FieldRef, &ColumnFact)| {
        let marked = field.metadata().contains_key(TIME_ATTRIBUTE);
        if marked == fact.rowtime {
            return Arc::clone(field);
        }
        let mut metadata = field.metadata().clone();
        if fact.rowtime {
            metadata.insert(TIME_ATTRIBUTE.to_string(), "rowtime".to_string());
        } else {
            metadata.remove(TIME_ATTRIBUTE);
        }
        Arc::new(Field::clone(field).with_metadata(metadata))
    };
    node.fields.iter().zip(&node.facts).map(mark).collect()
}

fn op(pruned: &[Pruned], id: NodeId, context: &Context) -> Result<Op> {
    let p = &pruned[id];
    Ok(match &p.node.op {
        DraftOp::Source(s) => Op::Source(source(s, &p.kept)?),
        DraftOp::Calc(c) => Op::Calc(c.clone()),
        DraftOp::WindowAssign { column, shape, zone } => {
            Op::WindowAssign(WindowAssignOp { window: WindowSource::Rowtime { column: *column, shape: *shape, zone: *zone } })
        }
        DraftOp::WindowAggregate(a) => {
            let mut a = a.clone();
            let input = p.node.inputs[0];
            if let Some((table, target)) = late_target(pruned, input) {
                let schema = Arc::new(Schema::new(pruned[input].node.fields.clone()));
                a.late_rows = Some(side_output::sink(&table, "late-rows", &target, schema, context)?);
            }
            Op::WindowAggregate(a)
        }
        DraftOp::GroupAggregate(a) => Op::GroupAggregate(a.clone()),
        DraftOp::StaticJoin(j) => {
            let (side, side_source_schema, side_calcs) = side(pruned, p.node.inputs[1])?;
            Op::StaticJoin(StaticJoinOp {
                side,
                side_source_schema,
                side_calcs,
                side_schema: pruned[p.node.inputs[1]].node.schema(),
                stream_keys: j.stream_keys.clone(),
                side_keys: j.side_keys.clone(),
                matching: j.matching,
                left: j.left,
                residual: j.residual.clone(),
            })
        }
        DraftOp::Predict(p) => Op::Predict(p.clone()),
        DraftOp::Union => Op::Union,
        DraftOp::Limit(l) => Op::Limit(*l),
        DraftOp::Sink(s) => Op::Sink(SinkOp { table: s.table.clone(), drop_nulls: s.drop_nulls }),
    })
}

type Side = (SourceOp, SchemaRef, Vec<(CalcOp, SchemaRef)>);

/// The static side of a join: its source with its schema, and the calcs over it in order, with theirs.
fn side(pruned: &[Pruned], mut id: NodeId) -> Result<Side> {
    let mut calcs = Vec::new();
    loop {
        match &pruned[id].node.op {
            DraftOp::Calc(c) => {
                calcs.push((c.clone(), pruned[id].node.schema()));
                id = pruned[id].node.inputs[0];
            }
            DraftOp::Source(s) => {
                calcs.reverse();
                return Ok((source(s, &pruned[id].kept)?, pruned[id].node.schema(), calcs));
            }
            _ => return Err(Error::internal("the static side of a join is neither a table nor a projection of one")),
        }
    }
}

/// A source that gives the columns `kept` and reads no more than they need.
fn source(s: &SourceDraft, kept: &[usize]) -> Result<SourceOp> {
    let physical = s.table.physical.fields().len();
    let mut wanted = BTreeMap::new();
    for column in kept {
        for_each_column(&s.columns[*column], &mut |c| {
            wanted.insert(c, 0);
        });
    }
    if wanted.is_empty() && physical > 0 {
        wanted.insert(0, 0); // A batch without columns would not know its rows.
    }
    for (position, slot) in wanted.values_mut().enumerate() {
        *slot = position;
    }
    let scan = Scan {
        physical: wanted.keys().copied().filter(|c| *c < physical).collect(),
        metadata: wanted.keys().copied().filter(|c| *c >= physical).map(|c| c - physical).collect(),
    };
    let columns = kept.iter().map(|i| remap(&s.columns[*i], &|c| wanted[&c])).collect::<Result<_>>()?;
    let watermark = match &s.watermark {
        Some((rowtime, candidate)) => {
            let to = |c: usize| kept.binary_search(&c).expect("a source keeps what its watermark needs");
            Some(WatermarkOp { rowtime: to(*rowtime), candidate: remap(candidate, &to)? })
        }
        None => None,
    };
    Ok(SourceOp {
        table: Arc::clone(&s.table),
        source: Arc::clone(&s.source),
        scan,
        columns,
        watermark,
        bad_records: s.bad_records.clone(),
        idle_timeout: s.idle_timeout,
    })
}

/// The nearest table below that names a place for late rows.
fn late_target(pruned: &[Pruned], id: NodeId) -> Option<(Arc<crate::connectors::TableSpec>, String)> {
    let node = &pruned[id].node;
    if let DraftOp::Source(s) = &node.op {
        return s.late_rows.as_ref().map(|target| (Arc::clone(&s.table), target.clone()));
    }
    let streams = if matches!(node.op, DraftOp::StaticJoin(_)) { 1 } else { node.inputs.len() };
    node.inputs[..streams].iter().find_map(|i| late_target(pruned, *i))
}
