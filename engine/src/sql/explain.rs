//! EXPLAIN: the stream plan as a tree, one line a node.
//!
//! Each line names the operator, what it works on, what it emits (`[updates]` where it is not append-only)
//! and the state that it keeps between two rows. A node with several users is printed at the first and
//! referred to by its number at the others.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::{Column, Literal};

use super::aggregate_signatures::sql_name;
use super::nodes::{millis_text, shape_text};
use super::plan::{AggregateCall, BadRecords, CalcOp, Expr, Matching, Node, NodeId, Op, SourceOp, StreamPlan, WindowOutput, WindowSource};
use crate::models::registry::Selector;
use crate::stream::SqlType;

/// The plan as text.
pub fn explain(plan: &StreamPlan) -> String {
    let mut text = String::new();
    let mut printed = HashSet::new();
    for node in plan.nodes.iter().filter(|n| matches!(n.op, Op::Sink(_))) {
        tree(plan, node.id, 0, &mut printed, &mut text);
    }
    text
}

fn tree(plan: &StreamPlan, id: NodeId, depth: usize, printed: &mut HashSet<NodeId>, text: &mut String) {
    let node = &plan.nodes[id];
    let indent = if depth == 0 { String::new() } else { format!("{}+- ", "   ".repeat(depth - 1)) };
    if !printed.insert(id) {
        let _ = writeln!(text, "{indent}(#{id}, above)");
        return;
    }
    let updates = if node.updates { " [updates]" } else { "" };
    let state = state(node).map(|s| format!(" [state: {s}]")).unwrap_or_default();
    let _ = writeln!(text, "{indent}#{id} {}{updates}{state}", line(plan, node));
    if let Op::StaticJoin(j) = &node.op {
        let mut below = &j.side_source_schema;
        let mut lines = vec![source_text(&j.side, None)];
        for (calc, schema) in &j.side_calcs {
            lines.push(calc_text(calc, below, Some(schema)));
            below = schema;
        }
        for (i, line) in lines.iter().rev().enumerate() {
            let _ = writeln!(text, "{}|  {}{line}", "   ".repeat(depth), "   ".repeat(i));
        }
    }
    for input in &node.inputs {
        tree(plan, *input, depth + 1, printed, text);
    }
}

fn line(plan: &StreamPlan, node: &Node) -> String {
    let input = |i: usize| -> &Schema { &plan.nodes[node.inputs[i]].schema };
    match &node.op {
        Op::Source(s) => source_text(s, Some(&node.schema)),
        Op::Calc(c) => calc_text(c, input(0), Some(&node.schema)),
        Op::WindowAssign(w) => format!("WindowAssign({})", window_text(&w.window, input(0))),
        Op::WindowAggregate(a) => {
            let mut out = Vec::new();
            for (o, field) in a.output.iter().zip(node.schema.fields()) {
                out.push(match o {
                    WindowOutput::Key(k) => input(0).field(a.keys[*k]).name().clone(),
                    WindowOutput::Start | WindowOutput::End | WindowOutput::Time => field.name().clone(),
                    WindowOutput::Aggregate(i) => call_text(&a.aggregates[*i], input(0)),
                });
            }
            let late = a.late_rows.as_ref().map(|(t, _)| format!(", late rows: {}", t.name)).unwrap_or_default();
            format!(
                "WindowAggregate({}, keys: [{}], out: [{}]{late})",
                window_text(&a.window, input(0)),
                names(&a.keys, input(0)),
                out.join(", ")
            )
        }
        Op::GroupAggregate(a) => {
            let calls: Vec<String> = a.aggregates.iter().map(|c| call_text(c, input(0))).collect();
            format!("GroupAggregate(keys: [{}], aggregates: [{}])", names(&a.keys, input(0)), calls.join(", "))
        }
        Op::StaticJoin(j) => {
            let kind = if j.left { "left" } else { "inner" };
            let keys: Vec<String> = j
                .stream_keys
                .iter()
                .zip(&j.side_keys)
                .map(|(a, b)| format!("{} = {}", input(0).field(*a).name(), j.side_schema.field(*b).name()))
                .collect();
            let matching = match j.matching {
                Matching::All => "every row".to_string(),
                Matching::Version { stream_time, side_time } => {
                    format!("the version {} at {}", j.side_schema.field(side_time).name(), input(0).field(stream_time).name())
                }
            };
            let both: Vec<FieldRef> = input(0).fields().iter().chain(j.side_schema.fields()).cloned().collect();
            let residual = j.residual.as_ref().map(|r| format!(", where: {}", expr_text(r, &Schema::new(both)))).unwrap_or_default();
            format!("StaticJoin({kind}, on: {}, matches: {matching}{residual})", keys.join(" AND "))
        }
        Op::Predict(p) => {
            let columns: Vec<&str> = p.arguments.iter().map(|(_, c)| input(0).field(*c).name().as_str()).collect();
            let version = if p.selector == Selector::Champion { String::new() } else { format!(", {}", p.selector) };
            let out: Vec<&str> = node.schema.fields()[input(0).fields().len()..].iter().map(|f| f.name().as_str()).collect();
            format!("Predict(model: {}{version}, columns: [{}], out: [{}])", p.model, columns.join(", "), out.join(", "))
        }
        Op::Union => "Union".to_string(),
        Op::Limit(l) if l.offset > 0 => format!("Limit({}, offset: {})", l.limit, l.offset),
        Op::Limit(l) => format!("Limit({})", l.limit),
        Op::Sink(s) => {
            let columns: Vec<String> = node.schema.fields().iter().map(|f| f.name().clone()).collect();
            let name = s.table.as_ref().map_or("terminal", |(t, _)| &t.name);
            let connector = s.table.as_ref().and_then(|(t, _)| t.options.get("connector")).map(|c| format!(" {c}")).unwrap_or_default();
            format!("Sink({name}{connector}, columns: [{}])", columns.join(", "))
        }
    }
}

/// What a node keeps between two rows.
fn state(node: &Node) -> Option<&'static str> {
    match &node.op {
        Op::Source(_) => Some("positions, watermarks"),
        Op::WindowAggregate(_) => Some("open windows per key"),
        Op::GroupAggregate(_) => Some("groups, for ever"),
        Op::StaticJoin(_) => Some("the static table"),
        Op::Predict(_) => Some("the model's version"),
        Op::Limit(_) => Some("rows passed"),
        Op::Sink(_) | Op::Calc(_) | Op::WindowAssign(_) | Op::Union => None,
    }
}

fn source_text(s: &SourceOp, schema: Option<&Schema>) -> String {
    let scanned = s.scan.schema(&s.table);
    let read: Vec<&str> = scanned.fields().iter().map(|f| f.name().as_str()).collect();
    let connector = s.table.options.get("connector").map(|c| format!(" {c}")).unwrap_or_default();
    let mut text = format!("Source({}{connector}, reads: [{}]", s.table.name, read.join(", "));
    if let Some(schema) = schema {
        let computed: Vec<String> = s
            .columns
            .iter()
            .zip(schema.fields())
            .filter(|(e, _)| !is_column(e))
            .map(|(e, f)| format!("{} AS {}", f.name(), expr_text(e, &scanned)))
            .collect();
        if !computed.is_empty() {
            let _ = write!(text, ", computes: [{}]", computed.join(", "));
        }
        if let Some(w) = &s.watermark {
            let _ = write!(text, ", watermark: {} AS {}", schema.field(w.rowtime).name(), expr_text(&w.candidate, schema));
        }
        match &s.bad_records {
            BadRecords::Fail => {}
            BadRecords::Skip => text.push_str(", bad records: skip"),
            BadRecords::DeadLetter(t, _) => {
                let _ = write!(text, ", bad records: {}", t.name);
            }
        }
        if let Some(idle) = s.idle_timeout {
            let _ = write!(text, ", idle after {}", millis_text(idle.as_millis() as i64));
        }
    }
    text.push(')');
    text
}

fn calc_text(c: &CalcOp, input: &Schema, output: Option<&Schema>) -> String {
    let mut parts = Vec::new();
    if let Some(p) = &c.predicate {
        parts.push(format!("where: {}", expr_text(p, input)));
    }
    if let Some(project) = &c.project {
        let named = |(i, e): (usize, &Expr)| {
            let text = expr_text(e, input);
            match output.map(|s| s.field(i).name()) {
                Some(name) if text != *name => format!("{text} AS {name}"),
                _ => text,
            }
        };
        let columns: Vec<String> = project.iter().enumerate().map(named).collect();
        parts.push(format!("select: [{}]", columns.join(", ")));
    }
    format!("Calc({})", parts.join(", "))
}

fn window_text(window: &WindowSource, input: &Schema) -> String {
    let zone = |z: &Option<chrono_tz::Tz>| z.map(|z| format!(" in {z}")).unwrap_or_default();
    match window {
        WindowSource::Rowtime { column, shape, zone: z } => format!("{} of {}{}", shape_text(shape), input.field(*column).name(), zone(z)),
        WindowSource::Attached { start, end, zone: z } => {
            format!("window [{}, {}){}", input.field(*start).name(), input.field(*end).name(), zone(z))
        }
    }
}

fn call_text(call: &AggregateCall, input: &Schema) -> String {
    let name = sql_name(call.function).to_uppercase();
    let argument = call.argument.map_or("*".to_string(), |c| input.field(c).name().clone());
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let filter = call.filter.map(|c| format!(" FILTER {}", input.field(c).name())).unwrap_or_default();
    format!("{name}({distinct}{argument}){filter}: {}", SqlType::of_arrow(&call.output_type))
}

fn names(columns: &[usize], schema: &Schema) -> String {
    columns.iter().map(|c| schema.field(*c).name().as_str()).collect::<Vec<_>>().join(", ")
}

fn is_column(e: &Expr) -> bool {
    e.is::<Column>()
}

/// The expression as SQL would have it: columns by their current names, literals quoted.
fn expr_text(e: &Expr, schema: &Schema) -> String {
    // Whatever is shown otherwise becomes a column of that name, since a column prints its name.
    let shown = Arc::clone(e).transform_up(|e| {
        let name = if let Some(c) = e.downcast_ref::<Column>() {
            schema.fields().get(c.index()).map_or_else(|| c.name().to_string(), |f| f.name().clone())
        } else if let Some(l) = e.downcast_ref::<Literal>() {
            literal_text(l.value())
        } else {
            return Ok(Transformed::no(e));
        };
        Ok(Transformed::yes(Arc::new(Column::new(&format!("{name}{MARK}"), 0)) as Expr))
    });
    let text = shown.map_or_else(|_| e.to_string(), |s| s.data.to_string());
    text.replace(&format!("{MARK}@0"), "")
}

/// Ends each name put in by [`expr_text`], so that its index can be cut off.
const MARK: char = '\u{1}';

fn literal_text(value: &ScalarValue) -> String {
    match value {
        v if v.is_null() => "NULL".to_string(),
        ScalarValue::Utf8(Some(s)) => format!("'{}'", s.replace('\'', "''")),
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 => {
            let ms = i64::from(i.days) * 86_400_000 + i.nanoseconds / 1_000_000;
            format!("INTERVAL {}", millis_text(ms))
        }
        ScalarValue::IntervalMonthDayNano(Some(i)) => format!("INTERVAL {} months", i.months),
        ScalarValue::TimestampMillisecond(..)
        | ScalarValue::TimestampMicrosecond(..)
        | ScalarValue::TimestampNanosecond(..)
        | ScalarValue::Date32(_)
        | ScalarValue::Time32Millisecond(_) => {
            let shown = value.to_array().ok().and_then(|a| arrow::util::display::array_value_to_string(&a, 0).ok());
            shown.unwrap_or_else(|| value.to_string())
        }
        v => v.to_string(),
    }
}
