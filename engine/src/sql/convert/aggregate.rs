//! GROUP BY and SELECT DISTINCT.
//!
//! ```text
//!   GROUP BY window_start, window_end, k           GROUP BY k
//!   Calc(k, arguments, ts) ─ WindowAggregate       Calc(k, arguments) ─ GroupAggregate (updates)
//! ```
//!
//! Where only filters and projections lie between the window function and the GROUP BY, the function is
//! fused into the aggregation: the rows below carry their rowtime, and a hopping row is not copied into
//! each of its windows. Otherwise the rows carry their window with them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::physical_expr::expressions::{Column, Literal};

use super::window::boundaries;
use super::{Converter, fields_of};
use crate::error::{Error, Result};
use crate::sql::aggregate_signatures::by_name;
use crate::sql::aggregate_types::result_type;
use crate::sql::draft::{ColumnFact, DraftNode, DraftOp, Role, Updating, WindowMark, column_index, expr_text, for_each_column, remap};
use crate::sql::errors::expr_span;
use crate::sql::plan::{
    self, AggregateCall, AggregateFunction, GroupAggregateOp, NodeId, WindowAggregateOp, WindowOutput, WindowShape, WindowSource,
};
use crate::stream::SqlType;

/// An aggregate call over the columns of the input.
struct Call {
    function: AggregateFunction,
    distinct: bool,
    argument: Option<plan::Expr>,
    filter: Option<plan::Expr>,
    output_type: DataType,
}

/// Columns that a calc below an aggregation computes, each once.
struct Columns {
    exprs: Vec<plan::Expr>,
    fields: Vec<FieldRef>,
    below: Arc<arrow::datatypes::Schema>,
}

impl Converter<'_> {
    /// GROUP BY.
    pub(super) fn aggregate(&mut self, a: &Aggregate) -> Result<NodeId> {
        let input = self.convert(&a.input)?;
        let groups = self.physical_all(&a.group_expr, a.input.schema())?;
        let calls = a.aggr_expr.iter().map(|e| self.call(e, &a.input)).collect::<Result<Vec<_>>>()?;
        let what = if groups.is_empty() { "an aggregate without GROUP BY" } else { "GROUP BY without a window" };
        let span = a.group_expr.iter().chain(&a.aggr_expr).filter_map(expr_span).min();
        self.grouped(input, groups, calls, fields_of(&a.schema), Updating { what: what.to_string(), span })
    }

    /// SELECT DISTINCT, UNION.
    pub(super) fn distinct(&mut self, below: &LogicalPlan) -> Result<NodeId> {
        let input = self.convert(below)?;
        let fields = fields_of(below.schema());
        let groups = fields.iter().enumerate().map(|(i, f)| Arc::new(Column::new(f.name(), i)) as plan::Expr).collect();
        self.grouped(input, groups, vec![], fields, Updating { what: "DISTINCT without a window".to_string(), span: Some(self.span) })
    }

    fn call(&self, expr: &Expr, input: &LogicalPlan) -> Result<Call> {
        let bare = expr.clone().unalias();
        let Expr::AggregateFunction(f) = &bare else {
            return Err(Error::internal(format!("{bare} is no aggregate")));
        };
        let name = f.func.name().to_uppercase();
        let span = expr_span(expr).unwrap_or(self.span);
        let place = |e: Error| e.at(span);
        let function = by_name(f.func.name()).ok_or_else(|| self.unsupported(&format!("the aggregate {name}")))?;
        if !f.params.order_by.is_empty() || f.params.null_treatment.is_some() {
            return Err(place(Error::user(format!("not yet supported: ORDER BY or NULLS inside {name}"))));
        }
        let schema = input.schema();
        let argument = match f.params.args.as_slice() {
            [Expr::Literal(value, _)] if function == AggregateFunction::Count && !f.params.distinct && !value.is_null() => None,
            [argument] => Some(self.physical(argument, schema)?),
            other => return Err(place(Error::user(format!("{name} takes one argument, found {}", other.len())))),
        };
        let argument_type = argument.as_ref().map(|e| e.data_type(schema.as_arrow())).transpose()?;
        Ok(Call {
            function,
            distinct: f.params.distinct,
            filter: f.params.filter.as_ref().map(|e| self.physical(e, schema)).transpose()?,
            output_type: result_type(function, &SqlType::of_arrow(argument_type.as_ref().unwrap_or(&DataType::Int64)))
                .map_err(place)?
                .arrow(),
            argument,
        })
    }

    fn grouped(
        &mut self,
        input: NodeId,
        groups: Vec<plan::Expr>,
        calls: Vec<Call>,
        fields: Vec<FieldRef>,
        updating: Updating,
    ) -> Result<NodeId> {
        self.append_only(input, updating.what.split(" without").next().unwrap_or("GROUP BY"))?;
        let facts = &self.draft.nodes[input].facts;
        let among: Vec<Option<usize>> = groups.iter().map(column_index).collect();
        match boundaries(facts, &among) {
            Some((start, end, mark)) => {
                let start = among[start].expect("a boundary is a column");
                let end = among[end].expect("a boundary is a column");
                self.window_aggregate(input, groups, calls, fields, (start, end, mark))
            }
            None => self.group_aggregate(input, groups, calls, fields, updating),
        }
    }

    fn group_aggregate(
        &mut self,
        input: NodeId,
        groups: Vec<plan::Expr>,
        calls: Vec<Call>,
        fields: Vec<FieldRef>,
        updating: Updating,
    ) -> Result<NodeId> {
        let mut columns = Columns::over(&self.draft.nodes[input]);
        let mut keys = Vec::with_capacity(groups.len());
        for group in &groups {
            keys.push(columns.place(group, &format!("key{}", keys.len()))?);
        }
        let aggregates = columns.calls(&calls)?;
        if columns.exprs.is_empty() {
            // COUNT(*) alone: any column carries the rows.
            let first = &self.draft.nodes[input].fields[0];
            columns.place(&(Arc::new(Column::new(first.name(), 0)) as plan::Expr), first.name())?;
        }
        let calc = self.draft.calc(input, None, Some((columns.exprs, columns.fields)));
        let facts = vec![ColumnFact::default(); fields.len()];
        let width = keys.len();
        let mut node = DraftNode::new(DraftOp::GroupAggregate(GroupAggregateOp { keys, aggregates }), vec![calc], fields, facts);
        node.updates = Some(updating);
        node.upsert_key = (0..width).collect();
        Ok(self.draft.add(node))
    }

    fn window_aggregate(
        &mut self,
        input: NodeId,
        groups: Vec<plan::Expr>,
        calls: Vec<Call>,
        fields: Vec<FieldRef>,
        (start, end, mark): (usize, usize, WindowMark),
    ) -> Result<NodeId> {
        if let WindowShape::Hop { slide, size, .. } = mark.shape
            && size % slide != 0
        {
            let e = Error::user("an aggregated HOP needs a size that is a multiple of its slide").at(self.span);
            return Err(e.help("Flink asks the same"));
        }
        let mut columns = Columns::over(&self.draft.nodes[input]);
        let facts = self.draft.nodes[input].facts.clone();
        let mut keys = Vec::new();
        let mut output = Vec::new();
        let mut out_facts = Vec::new();
        for group in &groups {
            let own = column_index(group).and_then(|i| facts[i].window.clone()).filter(|m| m.shape == mark.shape && m.zone == mark.zone);
            match own {
                Some(m) => {
                    output.push(match m.role {
                        Role::Start => WindowOutput::Start,
                        Role::End => WindowOutput::End,
                        Role::Time => WindowOutput::Time,
                    });
                    out_facts.push(ColumnFact { rowtime: m.role == Role::Time, window: Some(m) });
                }
                None => {
                    output.push(WindowOutput::Key(keys.len()));
                    keys.push(columns.place(group, &format!("key{}", keys.len()))?);
                    out_facts.push(ColumnFact::default());
                }
            }
        }
        let aggregates = columns.calls(&calls)?;
        for i in 0..aggregates.len() {
            output.push(WindowOutput::Aggregate(i));
            out_facts.push(ColumnFact::default());
        }
        let (calc, window) = match self.fused(input, &columns)? {
            Some(fused) => fused,
            None => {
                let start = columns.place(&column_of(&self.draft.nodes[input], start), "window_start")?;
                let end = columns.place(&column_of(&self.draft.nodes[input], end), "window_end")?;
                let calc = self.draft.calc(input, None, Some((columns.exprs, columns.fields)));
                (calc, WindowSource::Attached { start, end, zone: mark.zone })
            }
        };
        let op = WindowAggregateOp { window, keys, aggregates, output, late_rows: None };
        Ok(self.draft.add(DraftNode::new(DraftOp::WindowAggregate(op), vec![calc], fields, out_facts)))
    }

    /// The calc of `columns` below the window function, where the function can be fused.
    fn fused(&mut self, input: NodeId, columns: &Columns) -> Result<Option<(NodeId, WindowSource)>> {
        let Some(below) = self.below_window(input)? else { return Ok(None) };
        if !columns.exprs.iter().all(|e| below.has(e)) {
            return Ok(None);
        }
        let mut exprs = columns.exprs.iter().map(|e| below.moved(e)).collect::<Result<Vec<_>>>()?;
        let mut fields = columns.fields.clone();
        let time = column_of(&self.draft.nodes[below.node], below.rowtime);
        let column = match exprs.iter().position(|e| column_index(e) == Some(below.rowtime)) {
            Some(i) => i,
            None => {
                let field = &self.draft.nodes[below.node].fields[below.rowtime];
                exprs.push(time);
                fields.push(Arc::new(field.as_ref().clone().with_name(free_name(&fields, field.name()))));
                exprs.len() - 1
            }
        };
        let calc = self.draft.calc(below.node, None, Some((exprs, fields)));
        Ok(Some((calc, WindowSource::Rowtime { column, shape: below.shape, zone: below.zone })))
    }

    /// The rows of `node` as they were before their window function, through filters and projections that
    /// do not look at the window.
    fn below_window(&mut self, node: NodeId) -> Result<Option<BelowWindow>> {
        let here = self.draft.nodes[node].clone();
        match &here.op {
            DraftOp::WindowAssign { column, shape, zone } => {
                let width = self.draft.nodes[here.inputs[0]].fields.len();
                let places = (0..here.fields.len()).map(|i| (i < width).then_some(i)).collect();
                Ok(Some(BelowWindow { node: here.inputs[0], places, rowtime: *column, shape: *shape, zone: *zone }))
            }
            DraftOp::Calc(calc) => {
                let Some(mut below) = self.below_window(here.inputs[0])? else { return Ok(None) };
                if calc.predicate.as_ref().is_some_and(|p| !below.has(p)) {
                    return Ok(None);
                }
                let predicate = calc.predicate.as_ref().map(|p| below.moved(p)).transpose()?;
                let Some(project) = &calc.project else {
                    below.node = self.draft.calc(below.node, predicate, None);
                    return Ok(Some(below));
                };
                let (mut exprs, mut fields, mut places) = (vec![], vec![], vec![]);
                for (expr, field) in project.iter().zip(&here.fields) {
                    if column_index(expr).is_some_and(|c| below.places[c].is_none()) {
                        places.push(None);
                    } else if below.has(expr) {
                        places.push(Some(exprs.len()));
                        exprs.push(below.moved(expr)?);
                        fields.push(Arc::clone(field));
                    } else {
                        return Ok(None);
                    }
                }
                let rowtime = exprs.iter().position(|e| column_index(e) == Some(below.rowtime)).unwrap_or_else(|| {
                    let field = &self.draft.nodes[below.node].fields[below.rowtime];
                    exprs.push(column_of(&self.draft.nodes[below.node], below.rowtime));
                    fields.push(Arc::new(field.as_ref().clone().with_name(free_name(&fields, field.name()))));
                    exprs.len() - 1
                });
                let node = self.draft.calc(below.node, predicate, Some((exprs, fields)));
                Ok(Some(BelowWindow { node, places, rowtime, ..below }))
            }
            _ => Ok(None),
        }
    }
}

/// Rows as they were before their window function.
struct BelowWindow {
    node: NodeId,
    /// Where each column of the rows with windows is found; `None` for the window's own columns.
    places: Vec<Option<usize>>,
    rowtime: usize,
    shape: WindowShape,
    zone: Option<chrono_tz::Tz>,
}

impl BelowWindow {
    fn has(&self, expr: &plan::Expr) -> bool {
        let mut all = true;
        for_each_column(expr, &mut |c| all &= self.places[c].is_some());
        all
    }

    fn moved(&self, expr: &plan::Expr) -> Result<plan::Expr> {
        remap(expr, &|c| self.places[c].expect("asked before"))
    }
}

impl Columns {
    fn over(node: &DraftNode) -> Self {
        Self { exprs: vec![], fields: vec![], below: node.schema() }
    }

    /// The number of the column that holds `expr`.
    fn place(&mut self, expr: &plan::Expr, name: &str) -> Result<usize> {
        let text = expr_text(expr);
        if let Some(i) = self.exprs.iter().position(|e| expr_text(e) == text) {
            return Ok(i);
        }
        let field = match column_index(expr) {
            Some(i) => self.below.field(i).clone(),
            None => Field::new(name, expr.data_type(&self.below)?, expr.nullable(&self.below)?),
        };
        let name = free_name(&self.fields, field.name());
        self.exprs.push(Arc::clone(expr));
        self.fields.push(Arc::new(field.with_name(name)));
        Ok(self.exprs.len() - 1)
    }

    fn calls(&mut self, calls: &[Call]) -> Result<Vec<AggregateCall>> {
        let mut out = Vec::with_capacity(calls.len());
        for (i, call) in calls.iter().enumerate() {
            let argument = call.argument.as_ref().map(|e| self.place(e, &format!("argument{i}"))).transpose()?;
            // FILTER (WHERE TRUE) is no filter.
            let always = |e: &&plan::Expr| {
                e.downcast_ref::<Literal>().is_some_and(|l| l.value() == &datafusion::common::ScalarValue::Boolean(Some(true)))
            };
            let filter = call.filter.as_ref().filter(|e| !always(e)).map(|e| self.place(e, &format!("filter{i}"))).transpose()?;
            out.push(AggregateCall {
                function: call.function,
                distinct: call.distinct,
                argument,
                argument_type: argument.map_or(DataType::Int64, |c| self.fields[c].data_type().clone()),
                filter,
                output_type: call.output_type.clone(),
            });
        }
        Ok(out)
    }
}

fn column_of(node: &DraftNode, i: usize) -> plan::Expr {
    Arc::new(Column::new(node.fields[i].name(), i))
}

fn free_name(fields: &[FieldRef], wanted: &str) -> String {
    let taken = |name: &str| fields.iter().any(|f| f.name() == name);
    let mut name = wanted.to_string();
    let mut n = 0;
    while taken(&name) {
        name = format!("{wanted}{n}");
        n += 1;
    }
    name
}
