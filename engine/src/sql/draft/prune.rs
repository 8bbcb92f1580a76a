//! Columns that nobody wants are dropped, back to what a source decodes.
//!
//! One pass from the sinks to the sources collects what each node must give; one pass back moves every
//! index. A node that several users share gives the union of what they want, so a source decodes once for
//! the whole file.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::physical_expr::expressions::Column;

use super::columns::{column_index, for_each_column, remap};
use super::{DraftNode, DraftOp, sha256};
use crate::error::Result;
use crate::sql::plan::{CalcOp, Expr, Matching, WindowSource};

/// A node after pruning, with the columns of the drafted node that it still has.
pub struct Pruned {
    /// The node; its source columns are not pruned yet but listed in `kept`.
    pub node: DraftNode,
    /// Its columns, as indices of the drafted node's.
    pub kept: Vec<usize>,
    /// How many columns the drafted node had.
    drafted_width: usize,
}

/// Prunes `nodes`, which are in topological order and all used. Sinks want all columns.
pub fn prune(nodes: &[DraftNode]) -> Result<Vec<Pruned>> {
    let needs = needs(nodes);
    let mut out: Vec<Pruned> = Vec::with_capacity(nodes.len());
    let mut moved: Vec<usize> = Vec::with_capacity(nodes.len());
    for (id, node) in nodes.iter().enumerate() {
        let need: Vec<usize> = needs[id].iter().copied().collect();
        let mut node = node.clone();
        node.inputs = node.inputs.iter().map(|i| moved[*i]).collect();
        let kept = rewrite(&mut node, need, &mut out)?;
        let fields: Vec<FieldRef> = kept.iter().map(|i| Arc::clone(&nodes[id].fields[*i])).collect();
        node.facts = kept.iter().map(|i| nodes[id].facts[*i].clone()).collect();
        node.fields = fields;
        let key: Option<Vec<usize>> = nodes[id].upsert_key.iter().map(|k| kept.binary_search(k).ok()).collect();
        node.upsert_key = key.unwrap_or_default();
        moved.push(out.len());
        out.push(Pruned { node, kept, drafted_width: nodes[id].fields.len() });
    }
    Ok(out)
}

fn needs(nodes: &[DraftNode]) -> Vec<BTreeSet<usize>> {
    let mut needs: Vec<BTreeSet<usize>> = nodes.iter().map(|_| BTreeSet::new()).collect();
    for (id, node) in nodes.iter().enumerate().rev() {
        let mut mine = std::mem::take(&mut needs[id]);
        if let DraftOp::Source(s) = &node.op
            && let Some((rowtime, candidate)) = &s.watermark
        {
            mine.insert(*rowtime);
            for_each_column(candidate, &mut |i| {
                mine.insert(i);
            });
        }
        if mine.is_empty() {
            // A batch without columns would not know its rows.
            let narrow = node.fields.iter().position(|f| f.data_type().is_primitive());
            mine.insert(narrow.unwrap_or(0));
        }
        let mut want = |input: usize, column: usize| {
            needs[node.inputs[input]].insert(column);
        };
        match &node.op {
            DraftOp::Source(_) => {}
            DraftOp::Calc(calc) => {
                match &calc.project {
                    Some(project) => mine.iter().for_each(|i| for_each_column(&project[*i], &mut |c| want(0, c))),
                    None => mine.iter().for_each(|i| want(0, *i)),
                }
                if let Some(p) = &calc.predicate {
                    for_each_column(p, &mut |c| want(0, c));
                }
            }
            DraftOp::WindowAssign { column, .. } => {
                let width = nodes[node.inputs[0]].fields.len();
                mine.iter().filter(|i| **i < width).for_each(|i| want(0, *i));
                want(0, *column);
            }
            DraftOp::Predict(p) => {
                let width = nodes[node.inputs[0]].fields.len();
                mine.iter().filter(|i| **i < width).for_each(|i| want(0, *i));
                p.arguments.iter().for_each(|(_, column)| want(0, *column));
            }
            DraftOp::WindowAggregate(a) => {
                match a.window {
                    WindowSource::Rowtime { column, .. } => want(0, column),
                    WindowSource::Attached { start, end, .. } => {
                        want(0, start);
                        want(0, end);
                    }
                }
                a.keys.iter().for_each(|k| want(0, *k));
                a.aggregates.iter().flat_map(|c| c.argument.into_iter().chain(c.filter)).for_each(|c| want(0, c));
                mine = (0..node.fields.len()).collect();
            }
            DraftOp::GroupAggregate(a) => {
                a.keys.iter().for_each(|k| want(0, *k));
                a.aggregates.iter().flat_map(|c| c.argument.into_iter().chain(c.filter)).for_each(|c| want(0, c));
                mine = (0..node.fields.len()).collect();
            }
            DraftOp::StaticJoin(j) => {
                let width = nodes[node.inputs[0]].fields.len();
                let mut residual = BTreeSet::new();
                if let Some(r) = &j.residual {
                    for_each_column(r, &mut |c| {
                        residual.insert(c);
                    });
                }
                for c in mine.iter().chain(&residual) {
                    if *c < width { want(0, *c) } else { want(1, *c - width) }
                }
                j.stream_keys.iter().for_each(|k| want(0, *k));
                j.side_keys.iter().for_each(|k| want(1, *k));
                if let Matching::Version { stream_time, side_time } = j.matching {
                    want(0, stream_time);
                    want(1, side_time);
                }
            }
            DraftOp::Union => {
                for input in 0..node.inputs.len() {
                    mine.iter().for_each(|c| want(input, *c));
                }
            }
            DraftOp::Limit(_) => mine.iter().for_each(|c| want(0, *c)),
            DraftOp::Sink(_) => {
                mine = (0..node.fields.len()).collect();
                mine.iter().for_each(|c| want(0, *c));
            }
        }
        needs[id] = mine;
    }
    needs
}

/// Moves the node's indices to its pruned inputs, and answers the columns that it gives.
fn rewrite(node: &mut DraftNode, need: Vec<usize>, out: &mut Vec<Pruned>) -> Result<Vec<usize>> {
    let inputs = node.inputs.clone();
    let at = |out: &[Pruned], input: usize, old: usize| -> usize {
        out[inputs[input]].kept.binary_search(&old).expect("an input keeps what its users need")
    };
    Ok(match &mut node.op {
        DraftOp::Source(_) => need,
        DraftOp::Calc(calc) => {
            let to = |old: usize| at(out, 0, old);
            if let Some(p) = &calc.predicate {
                calc.predicate = Some(remap(p, &to)?);
            }
            match &calc.project {
                Some(project) => calc.project = Some(need.iter().map(|i| remap(&project[*i], &to)).collect::<Result<_>>()?),
                None if out[inputs[0]].kept != need => calc.project = Some(pick(node.fields.as_slice(), &need, &to)),
                None => {}
            }
            need
        }
        DraftOp::WindowAssign { column, .. } => {
            *column = at(out, 0, *column);
            let width = node.fields.len() - 3;
            out[inputs[0]].kept.iter().copied().chain(width..width + 3).collect()
        }
        DraftOp::Predict(p) => {
            p.arguments.iter_mut().for_each(|(_, column)| *column = at(out, 0, *column));
            let width = out[inputs[0]].drafted_width;
            out[inputs[0]].kept.iter().copied().chain(width..node.fields.len()).collect()
        }
        DraftOp::WindowAggregate(a) => {
            match &mut a.window {
                WindowSource::Rowtime { column, .. } => *column = at(out, 0, *column),
                WindowSource::Attached { start, end, .. } => {
                    *start = at(out, 0, *start);
                    *end = at(out, 0, *end);
                }
            }
            a.keys.iter_mut().for_each(|k| *k = at(out, 0, *k));
            for call in &mut a.aggregates {
                call.argument = call.argument.map(|c| at(out, 0, c));
                call.filter = call.filter.map(|c| at(out, 0, c));
            }
            need
        }
        DraftOp::GroupAggregate(a) => {
            a.keys.iter_mut().for_each(|k| *k = at(out, 0, *k));
            for call in &mut a.aggregates {
                call.argument = call.argument.map(|c| at(out, 0, c));
                call.filter = call.filter.map(|c| at(out, 0, c));
            }
            need
        }
        DraftOp::StaticJoin(j) => {
            let width = out[inputs[0]].drafted_width;
            let stream = out[inputs[0]].kept.len();
            j.stream_keys.iter_mut().for_each(|k| *k = at(out, 0, *k));
            j.side_keys.iter_mut().for_each(|k| *k = at(out, 1, *k));
            if let Matching::Version { stream_time, side_time } = &mut j.matching {
                *stream_time = at(out, 0, *stream_time);
                *side_time = at(out, 1, *side_time);
            }
            if let Some(r) = &j.residual {
                j.residual = Some(remap(r, &|old| if old < width { at(out, 0, old) } else { stream + at(out, 1, old - width) })?);
            }
            let side = out[inputs[1]].kept.iter().map(|i| i + width);
            out[inputs[0]].kept.iter().copied().chain(side).collect()
        }
        DraftOp::Union => {
            // Inputs that are shared may keep more than the union wants: a calc drops it.
            for slot in 0..inputs.len() {
                if out[inputs[slot]].kept != need {
                    let calc = narrowed(&out[inputs[slot]], inputs[slot], &need);
                    node.inputs[slot] = out.len();
                    out.push(calc);
                }
            }
            need
        }
        DraftOp::Limit(_) => out[inputs[0]].kept.clone(),
        DraftOp::Sink(_) => {
            debug_assert_eq!(out[inputs[0]].kept.len(), node.fields.len());
            need
        }
    })
}

fn pick(fields: &[FieldRef], need: &[usize], to: &dyn Fn(usize) -> usize) -> Vec<Expr> {
    need.iter().map(|i| Arc::new(Column::new(fields[*i].name(), to(*i))) as Expr).collect()
}

fn narrowed(below: &Pruned, input: usize, need: &[usize]) -> Pruned {
    let position = |old: usize| below.kept.binary_search(&old).expect("an input keeps what its users need");
    let project: Vec<Expr> =
        need.iter().map(|i| Arc::new(Column::new(below.node.fields[position(*i)].name(), position(*i))) as Expr).collect();
    let mut node = below.node.clone();
    node.fields = project.iter().map(|e| Arc::clone(&below.node.fields[column_index(e).expect("made of columns")])).collect();
    node.facts = project.iter().map(|e| below.node.facts[column_index(e).expect("made of columns")].clone()).collect();
    node.fingerprint = sha256(&format!("columns {need:?} of {}", below.node.meaning));
    node.upsert_key = vec![];
    node.inputs = vec![input];
    node.op = DraftOp::Calc(CalcOp { predicate: None, project: Some(project) });
    Pruned { node, kept: need.to_vec(), drafted_width: below.drafted_width }
}
