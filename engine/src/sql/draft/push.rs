//! Conditions over the stream's columns move below a static join, so that rows which WHERE turns away are
//! not looked up. Where the condition was written (in a query around a view of the join, or behind a window
//! function) does not matter any more here: calcs are fused and sharing is known.
//!
//! Only conditions that cannot fail move, and only where the join has one user.

use std::sync::Arc;

use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::BinaryExpr;

use super::columns::{for_each_column, is_safe};
use super::fuse::both;
use super::{DraftNode, DraftOp, sha256};
use crate::sql::plan::{CalcOp, Expr};

/// Moves conditions. The nodes stay in topological order.
pub fn push(nodes: Vec<DraftNode>) -> Vec<DraftNode> {
    let mut users = vec![0usize; nodes.len()];
    nodes.iter().flat_map(|n| &n.inputs).for_each(|i| users[*i] += 1);
    // For each join the conditions that go below it, for each calc those that stay.
    let mut below: Vec<Option<Expr>> = vec![None; nodes.len()];
    let mut stay: Vec<Option<Option<Expr>>> = vec![None; nodes.len()];
    for (id, node) in nodes.iter().enumerate() {
        let DraftOp::Calc(CalcOp { predicate: Some(predicate), .. }) = &node.op else { continue };
        let join = node.inputs[0];
        if users[join] != 1 || !matches!(nodes[join].op, DraftOp::StaticJoin(_)) {
            continue;
        }
        let width = nodes[nodes[join].inputs[0]].fields.len();
        let mut kept = None;
        for part in conjuncts(predicate) {
            let mut of_stream = is_safe(&part);
            for_each_column(&part, &mut |c| of_stream &= c < width);
            match of_stream {
                true => below[join] = both(&below[join], Some(part)),
                false => kept = both(&kept, Some(part)),
            }
        }
        stay[id] = Some(kept);
    }
    let mut out: Vec<DraftNode> = Vec::with_capacity(nodes.len());
    let mut moved = vec![0; nodes.len()];
    for (id, mut node) in nodes.into_iter().enumerate() {
        node.inputs.iter_mut().for_each(|i| *i = moved[*i]);
        if let (Some(kept), DraftOp::Calc(calc)) = (stay[id].take(), &mut node.op) {
            calc.predicate = kept;
        }
        if let Some(condition) = below[id].take() {
            let stream = out[node.inputs[0]].clone();
            let op = DraftOp::Calc(CalcOp { predicate: Some(condition), project: None });
            let fingerprint = sha256(&format!("below {}", node.fingerprint));
            out.push(DraftNode { op, inputs: vec![node.inputs[0]], fingerprint, ..stream });
            node.inputs[0] = out.len() - 1;
        }
        moved[id] = out.len();
        out.push(node);
    }
    out
}

fn conjuncts(e: &Expr) -> Vec<Expr> {
    match e.downcast_ref::<BinaryExpr>() {
        Some(b) if *b.op() == Operator::And => [b.left(), b.right()].into_iter().flat_map(conjuncts).collect(),
        _ => vec![Arc::clone(e)],
    }
}
