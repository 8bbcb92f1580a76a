//! Adjacent calcs become one, so that a batch is filtered and projected once.
//!
//! Two calcs stay apart where fusing would evaluate an expression twice, or where a condition that can
//! fail (a cast of text, a division) would see rows that the first calc keeps away from it.

use std::sync::Arc;

use super::columns::{column_index, for_each_column, is_column_or_literal, is_safe, substitute};
use super::{DraftNode, DraftOp};
use crate::error::Result;
use crate::sql::plan::{CalcOp, Expr};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::BinaryExpr;

/// Fuses calcs in place. Inner nodes that are no longer used stay until they are swept.
pub fn fuse(nodes: &mut [DraftNode]) -> Result<()> {
    let mut users = vec![0usize; nodes.len()];
    for node in nodes.iter() {
        for input in &node.inputs {
            users[*input] += 1;
        }
    }
    for id in 0..nodes.len() {
        // A calc that changes nothing, not even a name, is passed by.
        for slot in 0..nodes[id].inputs.len() {
            let mut input = nodes[id].inputs[slot];
            while is_identity(nodes, input) {
                let below = nodes[input].inputs[0];
                users[below] += 1;
                input = below;
            }
            nodes[id].inputs[slot] = input;
        }
        while let Some((calc, below)) = fused(nodes, &users, id)? {
            nodes[id].op = DraftOp::Calc(calc);
            nodes[id].inputs = vec![below];
        }
    }
    Ok(())
}

fn is_identity(nodes: &[DraftNode], id: usize) -> bool {
    let DraftOp::Calc(calc) = &nodes[id].op else { return false };
    let below = &nodes[nodes[id].inputs[0]];
    let same = |project: &Vec<Expr>| project.iter().enumerate().all(|(i, e)| column_index(e) == Some(i));
    calc.predicate.is_none() && calc.project.as_ref().is_none_or(same) && nodes[id].fields == below.fields
}

fn fused(nodes: &[DraftNode], users: &[usize], id: usize) -> Result<Option<(CalcOp, usize)>> {
    let DraftOp::Calc(outer) = &nodes[id].op else { return Ok(None) };
    let inner_id = nodes[id].inputs[0];
    let DraftOp::Calc(inner) = &nodes[inner_id].op else { return Ok(None) };
    if users[inner_id] > 1 {
        return Ok(None);
    }
    if let (Some(_), Some(p)) = (&inner.predicate, &outer.predicate)
        && !is_safe(p)
    {
        return Ok(None);
    }
    let below = nodes[inner_id].inputs[0];
    let Some(inner_project) = &inner.project else {
        let calc = CalcOp { predicate: both(&inner.predicate, outer.predicate.clone()), project: outer.project.clone() };
        return Ok(Some((calc, below)));
    };
    let mut uses = vec![0usize; inner_project.len()];
    match &outer.project {
        Some(project) => project.iter().for_each(|e| for_each_column(e, &mut |i| uses[i] += 1)),
        None => uses.iter_mut().for_each(|u| *u += 1),
    }
    let mut in_predicate = false;
    if let Some(p) = &outer.predicate {
        for_each_column(p, &mut |i| {
            uses[i] += 1;
            in_predicate |= !is_safe(&inner_project[i]);
        });
    }
    let repeated = inner_project.iter().zip(&uses).any(|(e, n)| *n > 1 && !is_column_or_literal(e));
    if repeated || in_predicate && inner.predicate.is_some() {
        return Ok(None);
    }
    let replace = |e: &Expr| substitute(e, &|i| Arc::clone(&inner_project[i]));
    let predicate = outer.predicate.as_ref().map(replace).transpose()?;
    let project = match &outer.project {
        Some(project) => project.iter().map(replace).collect::<Result<Vec<_>>>()?,
        None => inner_project.clone(),
    };
    Ok(Some((CalcOp { predicate: both(&inner.predicate, predicate), project: Some(project) }, below)))
}

/// `first AND second`.
pub fn both(first: &Option<Expr>, second: Option<Expr>) -> Option<Expr> {
    match (first, second) {
        (Some(a), Some(b)) => Some(Arc::new(BinaryExpr::new(Arc::clone(a), Operator::And, b))),
        (a, b) => a.clone().or(b),
    }
}
