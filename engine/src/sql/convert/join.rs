//! Joins of a stream with a static table.
//!
//! Two forms: `JOIN t FOR SYSTEM_TIME AS OF s.ts`, which Flink has too, and the plain JOIN with a table that
//! is read whole before the first row of the stream, which is ours. A condition of ON becomes keys where it
//! compares both sides; of the rest, what looks at the static side alone filters it once, and what looks at
//! the stream alone and cannot fail filters the stream before the join.

use std::sync::Arc;

use datafusion::common::Column as LogicalColumn;
use datafusion::common::JoinType;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Column};

use super::{Converter, and, fields_of};
use crate::error::{Error, Result, Span};
use crate::sql::draft::{ColumnFact, DraftNode, DraftOp, JoinDraft, column_index, for_each_column, is_safe, remap};
use crate::sql::errors::{expr_span, unknown_column};
use crate::sql::nodes::Versioned;
use crate::sql::plan::{self, Matching, NodeId};

/// The form of a join with a static table that Flink has too.
pub const PORTABLE: &str = "give the table a PRIMARY KEY (…) NOT ENFORCED and a constant rowtime \
    (valid_from AS TIMESTAMP '1970-01-01 00:00:00.000', WATERMARK FOR valid_from AS valid_from), \
    and write JOIN table FOR SYSTEM_TIME AS OF s.ts AS t ON s.key = t.key";

/// Conditions of a join, over the stream's columns, then the side's.
#[derive(Default)]
struct Conditions {
    stream_keys: Vec<plan::Expr>,
    side_keys: Vec<plan::Expr>,
    stream_only: Vec<plan::Expr>,
    side_only: Vec<plan::Expr>,
    rest: Vec<plan::Expr>,
}

impl Converter<'_> {
    /// A join, and the conditions of the WHERE right above it.
    pub(super) fn join(&mut self, join: &Join, above: Vec<&Expr>) -> Result<NodeId> {
        let span = join.on.iter().flat_map(|(l, r)| [l, r]).chain(&join.filter).chain(above.iter().copied()).filter_map(expr_span).min();
        let span = span.unwrap_or(self.span);
        let left_join = match join.join_type {
            JoinType::Inner => false,
            JoinType::Left => true,
            other => {
                let e = Error::user(format!("not yet supported: {} JOIN", other.to_string().to_uppercase()));
                return Err(e.at(span).help("there are JOIN and LEFT JOIN of a stream with a static table on its right"));
            }
        };
        if versioned(&join.left).is_some() {
            return self.convert(&join.left); // Refused there, with its place.
        }
        let version = versioned(&join.right).cloned();
        let left = self.convert(&join.left)?;
        let right = match &version {
            Some(v) => self.convert(&v.input)?,
            None => self.convert(&join.right)?,
        };
        let swapped = match (self.is_static(left), self.is_static(right)) {
            (_, true) => false,
            (true, false) if !left_join && version.is_none() => true,
            (true, false) => return Err(Self::refused(join, "LEFT JOIN from a static table to a stream").at(span)),
            (false, false) => return Err(Self::refused(join, "JOIN of two streams").at(span)),
        };
        let (stream, side) = if swapped { (right, left) } else { (left, right) };
        let (stream_width, side_width) = (self.draft.nodes[stream].fields.len(), self.draft.nodes[side].fields.len());

        // ON and, for an inner join, WHERE as well are conditions of the join.
        let mut conditions: Vec<Expr> = join.on.iter().map(|(l, r)| l.clone().eq(r.clone())).collect();
        conditions.extend(join.filter.iter().flat_map(|f| split_conjunction(f).into_iter().cloned()));
        let both = join.left.schema().join(join.right.schema())?;
        let moved = |c: usize| match swapped {
            false => c,
            true if c < side_width => c + stream_width,
            true => c - side_width,
        };
        let physical = |this: &Self, e: &Expr| remap(&this.physical(e, &both)?, &moved);
        let mut on = Conditions::default();
        for e in &conditions {
            on.sort(physical(self, e)?, stream_width);
        }
        let mut after = Vec::new();
        let mut filtered = Vec::new();
        for e in above {
            let p = physical(self, e)?;
            let only_stream = columns(&p).iter().all(|c| *c < stream_width);
            if only_stream && is_safe(&p) {
                filtered.push(p);
            } else if !left_join && version.is_none() && !only_stream {
                on.sort(p, stream_width);
            } else {
                after.push(p);
            }
        }
        if left_join {
            // A stream row that ON turns away still passes, padded.
            on.rest.append(&mut on.stream_only);
        }
        filtered.append(&mut on.stream_only);
        let matching = match &version {
            None => Matching::All,
            Some(v) => self.version(v, join, stream, side, &on)?,
        };
        if on.stream_keys.is_empty() {
            let e = Error::user("not yet supported: a JOIN without an equality between the two tables").at(span);
            return Err(e.help("write ON s.key = t.key AND …"));
        }
        if version.is_some() {
            // A condition on the side chooses among matches, never among versions.
            on.rest.append(&mut on.side_only);
        }
        let stream = self.filter(stream, filtered);
        let side_only = on.side_only.iter().map(|e| remap(e, &|c| c - stream_width)).collect::<Result<Vec<_>>>()?;
        let side = self.filter(side, side_only);
        let joined = self.static_join(stream, side, on, matching, left_join, span)?;
        // The columns as the query knows them: left, then right, without computed keys.
        let order: Vec<usize> = match swapped {
            false => (0..stream_width).chain(joined.side_start..joined.side_start + side_width).collect(),
            true => (joined.side_start..joined.side_start + side_width).chain(0..stream_width).collect(),
        };
        let below = &self.draft.nodes[joined.node];
        let exprs: Vec<plan::Expr> = order.iter().map(|i| Arc::new(Column::new(below.fields[*i].name(), *i)) as plan::Expr).collect();
        let named = fields_of(&join.schema);
        let fields = order.iter().zip(&named).map(|(i, n)| Arc::new(below.fields[*i].as_ref().clone().with_name(n.name()))).collect();
        let node = self.draft.calc(joined.node, None, Some((exprs, fields)));
        // What is left of WHERE was written over left, then right.
        let back = |c: usize| {
            if swapped && c < stream_width {
                c + side_width
            } else if swapped {
                c - stream_width
            } else {
                c
            }
        };
        let after = after.iter().map(|e| remap(e, &back)).collect::<Result<Vec<_>>>()?;
        Ok(self.filter(node, after))
    }

    fn static_join(&mut self, stream: NodeId, side: NodeId, on: Conditions, matching: Matching, left: bool, span: Span) -> Result<Joined> {
        let stream_width = self.draft.nodes[stream].fields.len();
        let side_keys = on.side_keys.iter().map(|e| remap(e, &|c| c - stream_width)).collect::<Result<Vec<_>>>()?;
        let (stream, stream_keys) = self.with_keys(stream, &on.stream_keys)?;
        let (side, side_keys) = self.with_keys(side, &side_keys)?;
        let (s, t) = (&self.draft.nodes[stream], &self.draft.nodes[side]);
        let side_start = s.fields.len();
        for (a, b) in stream_keys.iter().zip(&side_keys) {
            if s.fields[*a].data_type() != t.fields[*b].data_type() {
                return Err(Error::internal(format!("join keys of {} and {}", s.fields[*a].data_type(), t.fields[*b].data_type())));
            }
        }
        let mut residual = None;
        for e in &on.rest {
            let e = remap(e, &|c| if c < stream_width { c } else { c - stream_width + side_start })?;
            residual = and(residual, e);
        }
        let padded = t.fields.iter().map(|f| if left { Arc::new(f.as_ref().clone().with_nullable(true)) } else { Arc::clone(f) });
        let fields = s.fields.iter().cloned().chain(padded).collect();
        let facts = s.facts.iter().cloned().chain(t.fields.iter().map(|_| ColumnFact::default())).collect();
        let (updates, upsert_key) = (s.updates.clone(), if matching == Matching::All { vec![] } else { s.upsert_key.clone() });
        let op = DraftOp::StaticJoin(JoinDraft { stream_keys, side_keys, matching, left, residual });
        let mut node = DraftNode::new(op, vec![stream, side], fields, facts);
        node.updates = updates;
        node.upsert_key = upsert_key;
        node.plain_join = (matching == Matching::All).then_some((span, left));
        Ok(Joined { node: self.draft.add(node), side_start })
    }

    /// The node with a column for each key; keys that are no columns are appended.
    fn with_keys(&mut self, node: NodeId, keys: &[plan::Expr]) -> Result<(NodeId, Vec<usize>)> {
        let below = &self.draft.nodes[node];
        let schema = below.schema();
        let mut exprs: Vec<plan::Expr> = below.fields.iter().enumerate().map(|(i, f)| Arc::new(Column::new(f.name(), i)) as _).collect();
        let mut fields = below.fields.clone();
        let width = fields.len();
        let mut places = Vec::with_capacity(keys.len());
        for key in keys {
            places.push(match column_index(key) {
                Some(i) => i,
                None => {
                    let name = format!("key{}", exprs.len());
                    fields.push(Arc::new(arrow::datatypes::Field::new(name, key.data_type(&schema)?, key.nullable(&schema)?)));
                    exprs.push(Arc::clone(key));
                    exprs.len() - 1
                }
            });
        }
        if exprs.len() == width {
            return Ok((node, places));
        }
        Ok((self.draft.calc(node, None, Some((exprs, fields))), places))
    }

    /// The rule of `FOR SYSTEM_TIME AS OF`: both sides have a rowtime, and ON compares the whole key.
    fn version(&self, v: &Versioned, join: &Join, stream: NodeId, side: NodeId, on: &Conditions) -> Result<Matching> {
        let stream_width = self.draft.nodes[stream].fields.len();
        let schema = join.left.schema();
        let name = v.time.join(".");
        let column = match v.time.as_slice() {
            [column] => LogicalColumn::new_unqualified(column),
            [.., table, column] => LogicalColumn::new(Some(table.as_str()), column),
            [] => return Err(Error::internal("a version without a time")),
        };
        let found = schema.maybe_index_of_column(&column);
        let stream_time = found.ok_or_else(|| unknown_column(&column, &schema.columns()).at(v.span))?;
        let (s, t) = (&self.draft.nodes[stream], &self.draft.nodes[side]);
        if !s.facts[stream_time].rowtime {
            let e = Error::user(format!("FOR SYSTEM_TIME AS OF needs the rowtime of the left side, but '{name}' is an ordinary column"))
                .at(v.span);
            return Err(match s.rowtime() {
                Some(i) => e.help(format!("the rowtime there is '{}'", schema.field(i).name())),
                None => e.help("declare a WATERMARK for it, and pass the column on unchanged"),
            });
        }
        let what = |missing: &str| {
            let e = Error::user(format!("the table after FOR SYSTEM_TIME AS OF has no {missing}, so it has no versions")).at(v.span);
            e.help(format!("{PORTABLE}; or leave FOR SYSTEM_TIME AS OF out, which matches every row of a key"))
        };
        let side_time = t.rowtime().ok_or_else(|| what("rowtime (WATERMARK FOR …)"))?;
        if t.primary_key.is_empty() {
            return Err(what("PRIMARY KEY"));
        }
        if s.fields[stream_time].data_type() != t.fields[side_time].data_type() {
            let e = Error::user(format!(
                "'{name}' is {}, but the rowtime of the versioned table is {}",
                crate::stream::SqlType::of(&s.fields[stream_time]),
                crate::stream::SqlType::of(&t.fields[side_time])
            ));
            return Err(e.at(v.span).help("both must be TIMESTAMP, or both TIMESTAMP_LTZ"));
        }
        let keys: Vec<usize> = on.side_keys.iter().filter_map(column_index).map(|c| c - stream_width).collect();
        if let Some(missing) = t.primary_key.iter().find(|k| !keys.contains(k)) {
            let e = Error::user(format!(
                "FOR SYSTEM_TIME AS OF needs an equality with the whole PRIMARY KEY: '{}' is missing in ON",
                t.fields[*missing].name()
            ));
            return Err(e.at(v.span).help(format!("add … = {}", t.fields[*missing].name())));
        }
        Ok(Matching::Version { stream_time, side_time })
    }

    fn is_static(&self, node: NodeId) -> bool {
        match &self.draft.nodes[node].op {
            DraftOp::Source(s) => s.source.is_static(),
            DraftOp::Calc(_) => self.is_static(self.draft.nodes[node].inputs[0]),
            _ => false,
        }
    }

    fn refused(join: &Join, what: &str) -> Error {
        let mut tables = Vec::new();
        collect_tables(&join.right, &mut tables);
        let e = Error::user(format!("not yet supported: {what}"));
        match tables.as_slice() {
            [] => e,
            names => e.help(format!(
                "a JOIN needs a static table on its right: a 'filesystem' table without 'source.monitor-interval', unaggregated; {} is none",
                names.join(", ")
            )),
        }
    }
}

struct Joined {
    node: NodeId,
    side_start: usize,
}

impl Conditions {
    fn sort(&mut self, e: plan::Expr, stream_width: usize) {
        let used = columns(&e);
        let (stream, side) = (used.iter().any(|c| *c < stream_width), used.iter().any(|c| *c >= stream_width));
        if stream && side {
            if let Some((l, r)) = equality(&e, stream_width) {
                self.stream_keys.push(l);
                self.side_keys.push(r);
            } else {
                self.rest.push(e);
            }
        } else if side && is_safe(&e) {
            self.side_only.push(e);
        } else if stream && is_safe(&e) {
            self.stream_only.push(e);
        } else {
            self.rest.push(e);
        }
    }
}

/// `stream = side`, whichever way it was written.
fn equality(e: &plan::Expr, stream_width: usize) -> Option<(plan::Expr, plan::Expr)> {
    let b = e.downcast_ref::<BinaryExpr>()?;
    if *b.op() != Operator::Eq {
        return None;
    }
    let of_stream = |e: &plan::Expr| columns(e).iter().all(|c| *c < stream_width);
    let of_side = |e: &plan::Expr| columns(e).iter().all(|c| *c >= stream_width);
    let (l, r) = (b.left(), b.right());
    if of_stream(l) && of_side(r) {
        Some((Arc::clone(l), Arc::clone(r)))
    } else if of_side(l) && of_stream(r) {
        Some((Arc::clone(r), Arc::clone(l)))
    } else {
        None
    }
}

fn columns(e: &plan::Expr) -> Vec<usize> {
    let mut all = Vec::new();
    for_each_column(e, &mut |c| all.push(c));
    all
}

fn versioned(plan: &LogicalPlan) -> Option<&Versioned> {
    match plan {
        LogicalPlan::SubqueryAlias(a) => versioned(&a.input),
        LogicalPlan::Extension(e) => e.node.as_any().downcast_ref::<Versioned>(),
        _ => None,
    }
}

fn collect_tables(plan: &LogicalPlan, out: &mut Vec<String>) {
    if let LogicalPlan::TableScan(scan) = plan {
        out.push(format!("'{}'", scan.table_name.table()));
    }
    plan.inputs().into_iter().for_each(|p| collect_tables(p, out));
}
