//! DataFusion's logical plan → nodes of the draft.
//!
//! Each relation becomes a node with exactly the columns of its logical schema, in its order; what a
//! stream does not have is refused here, with the clause named and, where there is one, the form to write
//! instead.

mod aggregate;
mod join;
mod predict;
mod values;
mod window;

pub use join::PORTABLE;

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::DFSchema;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Distinct, Expr, FetchType, Limit, LogicalPlan, SkipType};

use super::bind::physical;
use super::catalog::table_of;
use super::draft::{ColumnFact, Draft, DraftNode, DraftOp, Updating, is_safe};
use super::errors::expr_span;
use super::nodes::{Predict, Versioned, WindowFunction, without_attribute};
use super::portable::Finding;
use super::provider::Dialect;
use super::settings::Settings;
use super::source;
use crate::connectors::Context;
use crate::error::{Error, Result, Span};
use crate::sql::plan::{self, LimitOp, NodeId};

/// What conversion needs of its session, and what it finds out.
pub struct Converter<'a> {
    /// The job's nodes.
    pub draft: &'a mut Draft,
    /// Functions.
    pub dialect: &'a Dialect,
    /// SETs as they stand.
    pub settings: &'a Settings,
    /// For connectors.
    pub context: &'a Context,
    /// Places that Flink would refuse.
    pub findings: &'a mut Vec<Finding>,
    /// The statement's place.
    pub span: Span,
}

impl Converter<'_> {
    /// The node that gives the rows of `plan`.
    ///
    /// # Errors
    /// User: something that a stream does not have, or this version does not.
    pub fn convert(&mut self, plan: &LogicalPlan) -> Result<NodeId> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let table = table_of(&scan.source).ok_or_else(|| Error::internal("a scan of an unknown table"))?;
                let node = source::node(self.dialect, table, self.settings, self.context)?;
                Ok(self.draft.add(node))
            }
            LogicalPlan::SubqueryAlias(alias) => self.convert(&alias.input),
            LogicalPlan::Projection(p) => {
                let input = self.convert(&p.input)?;
                let exprs = self.physical_all(&p.expr, p.input.schema())?;
                Ok(self.draft.calc(input, None, Some((exprs, fields_of(&p.schema)))))
            }
            LogicalPlan::Filter(f) => match f.input.as_ref() {
                LogicalPlan::Join(join) => self.join(join, split_conjunction(&f.predicate)),
                _ => {
                    let input = self.convert(&f.input)?;
                    let conditions = self.physical_all(&split_conjunction(&f.predicate), f.input.schema())?;
                    Ok(self.filter(input, conditions))
                }
            },
            LogicalPlan::Aggregate(a) => self.aggregate(a),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Distinct(Distinct::On(_)) => Err(self.unsupported("DISTINCT ON")),
            LogicalPlan::Join(join) => self.join(join, vec![]),
            LogicalPlan::Union(u) => self.union(u),
            LogicalPlan::Limit(l) => self.limit(l),
            LogicalPlan::EmptyRelation(e) => self.no_table(e),
            LogicalPlan::Values(v) => self.values(v),
            LogicalPlan::Extension(e) => {
                if let Some(window) = e.node.as_any().downcast_ref::<WindowFunction>() {
                    return self.window_function(window);
                }
                if let Some(predict) = e.node.as_any().downcast_ref::<Predict>() {
                    return self.predict(predict);
                }
                if let Some(versioned) = e.node.as_any().downcast_ref::<Versioned>() {
                    let e = Error::user("FOR SYSTEM_TIME AS OF stands only at the right side of a JOIN").at(versioned.span);
                    return Err(e.help("write … FROM stream AS s JOIN table FOR SYSTEM_TIME AS OF s.ts AS t ON s.key = t.key"));
                }
                Err(Error::internal(format!("no conversion for {}", e.node.name())))
            }
            LogicalPlan::Sort(_) => Err(self
                .unsupported("ORDER BY")
                .help("rows are written in the order in which they are made; sort where the result is read")),
            LogicalPlan::Window(w) => {
                let text = w.window_expr.first().map(|e| e.to_string()).unwrap_or_default().to_uppercase();
                let what = if text.starts_with("ROW_NUMBER") { "ROW_NUMBER() OVER (Top-N, deduplication)" } else { "OVER (…)" };
                Err(self.unsupported(what))
            }
            LogicalPlan::Subquery(_) => Err(self.unsupported("a LATERAL or correlated subquery")),
            LogicalPlan::Unnest(_) => Err(self.unsupported("UNNEST")),
            LogicalPlan::RecursiveQuery(_) => Err(self.unsupported("WITH RECURSIVE")),
            other => Err(self.unsupported(&other.display().to_string())),
        }
    }

    /// Physical expressions over `schema`.
    pub(super) fn physical_all<E: std::borrow::Borrow<Expr>>(&self, exprs: &[E], schema: &DFSchema) -> Result<Vec<plan::Expr>> {
        exprs.iter().map(|e| self.physical(e.borrow(), schema)).collect()
    }

    /// The physical expression over `schema`.
    pub(super) fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<plan::Expr> {
        refuse_subqueries(expr).map_err(|e| e.at(self.span))?;
        physical(&expr.clone().unalias(), schema).map_err(|e| match expr_span(expr) {
            Some(span) => e.at(span),
            None => e,
        })
    }

    /// Calcs that keep the rows where all `conditions` hold. A condition that can fail sees only rows that
    /// the ones written before it let pass.
    pub(super) fn filter(&mut self, mut input: NodeId, conditions: Vec<plan::Expr>) -> NodeId {
        let mut gathered: Option<plan::Expr> = None;
        for condition in conditions {
            if gathered.is_some() && !is_safe(&condition) {
                input = self.draft.calc(input, gathered.take(), None);
            }
            gathered = and(gathered, condition);
        }
        match gathered {
            Some(condition) => self.draft.calc(input, Some(condition), None),
            None => input,
        }
    }

    fn union(&mut self, u: &datafusion::logical_expr::Union) -> Result<NodeId> {
        let inputs = u.inputs.iter().map(|i| self.convert(i)).collect::<Result<Vec<_>>>()?;
        let fields = fields_of(&u.schema);
        let mut facts = self.draft.nodes[inputs[0]].facts.clone();
        for input in &inputs[1..] {
            for (fact, other) in facts.iter_mut().zip(&self.draft.nodes[*input].facts) {
                if fact != other {
                    *fact = ColumnFact { rowtime: fact.rowtime && other.rowtime, window: None };
                }
            }
        }
        for input in &inputs {
            for (field, own) in fields.iter().zip(&self.draft.nodes[*input].fields) {
                if field.data_type() != own.data_type() {
                    return Err(Error::internal(format!(
                        "UNION ALL of {} and {} in column '{}'",
                        field.data_type(),
                        own.data_type(),
                        field.name()
                    )));
                }
            }
        }
        let mut node = DraftNode::new(DraftOp::Union, inputs.clone(), fields, facts);
        node.updates = inputs.iter().find_map(|i| self.draft.nodes[*i].updates.clone());
        Ok(self.draft.add(node))
    }

    fn limit(&mut self, l: &Limit) -> Result<NodeId> {
        let input = self.convert(&l.input)?;
        let offset = match l.get_skip_type()? {
            SkipType::Literal(n) => n as u64,
            SkipType::UnsupportedExpr => return Err(self.unsupported("OFFSET with an expression")),
        };
        let limit = match l.get_fetch_type()? {
            FetchType::Literal(Some(n)) => n as u64,
            FetchType::Literal(None) => return Err(self.unsupported("OFFSET without LIMIT")),
            FetchType::UnsupportedExpr => return Err(self.unsupported("LIMIT with an expression")),
        };
        self.append_only(input, "LIMIT")?;
        let below = &self.draft.nodes[input];
        let node = DraftNode::new(DraftOp::Limit(LimitOp { limit, offset }), vec![input], below.fields.clone(), below.facts.clone());
        Ok(self.draft.add(node))
    }

    /// Refuses an updating input of `clause`.
    pub(super) fn append_only(&self, input: NodeId, clause: &str) -> Result<()> {
        match &self.draft.nodes[input].updates {
            None => Ok(()),
            Some(Updating { what, span }) => {
                let e = Error::user(format!("not yet supported: {clause} over the updating result of {what}"));
                let e = e.help("aggregate per window (TUMBLE, HOP) below: its result is final and never updated");
                Err(e.at(span.unwrap_or(self.span)))
            }
        }
    }

    /// The error about something that this version does not have.
    pub fn unsupported(&self, what: &str) -> Error {
        Error::user(format!("not yet supported: {what}")).at(self.span)
    }
}

/// The fields of a logical schema, without time attributes: those are facts.
pub(super) fn fields_of(schema: &DFSchema) -> Vec<FieldRef> {
    schema.fields().iter().map(|f| Arc::new(without_attribute(f))).collect()
}

/// `a AND b`.
pub(super) fn and(a: Option<plan::Expr>, b: plan::Expr) -> Option<plan::Expr> {
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::BinaryExpr;
    match a {
        Some(a) => Some(Arc::new(BinaryExpr::new(a, Operator::And, b))),
        None => Some(b),
    }
}

fn refuse_subqueries(expr: &Expr) -> Result<()> {
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    let mut found = None;
    expr.apply(|e| {
        found = match e {
            Expr::InSubquery(_) => Some("IN (SELECT …)"),
            Expr::Exists(_) => Some("EXISTS (SELECT …)"),
            Expr::ScalarSubquery(_) => Some("a subquery as a value"),
            Expr::SetComparison(_) => Some("a comparison with ANY or ALL of a subquery"),
            Expr::OuterReferenceColumn(..) => Some("a correlated subquery"),
            Expr::GroupingSet(_) => Some("GROUPING SETS, ROLLUP and CUBE"),
            Expr::WindowFunction(_) => Some("OVER (…)"),
            Expr::Unnest(_) => Some("UNNEST"),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match found {
        Some(what) => Err(Error::user(format!("not yet supported: {what}"))),
        None => Ok(()),
    }
}
