//! Window table functions: where the rowtime comes from, and the assignment of windows.

use datafusion::common::DFSchema;

use super::join::PORTABLE;
use super::{Converter, fields_of};
use crate::error::{Error, Result};
use crate::sql::draft::{ColumnFact, DraftNode, DraftOp, Role, WindowMark};
use crate::sql::nodes::WindowFunction;
use crate::sql::plan::NodeId;
use crate::sql::portable::Finding;
use crate::stream::SqlType;

impl Converter<'_> {
    /// Assigns windows to the rows of the function's input.
    pub(super) fn window_function(&mut self, w: &WindowFunction) -> Result<NodeId> {
        let input = self.convert(&w.input)?;
        let below = &self.draft.nodes[input];
        let name = w.input.schema().field(w.column).name().clone();
        if !below.facts[w.column].rowtime {
            return Err(self.no_time_attribute(input, &name, w.input.schema()).at(w.span));
        }
        self.append_only(input, "a window function")?;
        if let Some((span, _)) = self.draft.nodes[input].plain_join {
            self.findings.push(Finding {
                span,
                what: "a plain JOIN with a static table, below a window: Flink loses the rowtime in such a JOIN and refuses the window"
                    .to_string(),
                portable: PORTABLE.to_string(),
            });
        }
        let below = &self.draft.nodes[input];
        let zone = match SqlType::of(&below.fields[w.column]) {
            SqlType::TimestampLtz(_) => Some(self.dialect.zone),
            _ => None,
        };
        let mut facts: Vec<ColumnFact> = below.facts.clone();
        // The row's own time is an ordinary column from here on: window_time takes its place.
        facts.iter_mut().for_each(|f| f.rowtime = false);
        for role in [Role::Start, Role::End, Role::Time] {
            facts.push(ColumnFact { rowtime: role == Role::Time, window: Some(WindowMark { role, shape: w.shape, zone }) });
        }
        let width = below.fields.len();
        let all = fields_of(datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(w));
        let fields = below.fields.iter().cloned().chain(all.into_iter().skip(width)).collect();
        let op = DraftOp::WindowAssign { column: w.column, shape: w.shape, zone };
        Ok(self.draft.add(DraftNode::new(op, vec![input], fields, facts)))
    }

    fn no_time_attribute(&self, input: NodeId, name: &str, schema: &DFSchema) -> Error {
        let e = Error::user(format!("the window function requires the timecol to be a time attribute, but '{name}' is an ordinary column"));
        let below = &self.draft.nodes[input];
        match below.rowtime() {
            Some(i) => e.help(format!("the time attribute here is '{}'", schema.field(i).name())),
            None => e.help(format!(
                "declare WATERMARK FOR {name} AS … in CREATE TABLE, and pass the column on unchanged: an expression over it is no time attribute"
            )),
        }
    }
}

/// Columns of a node that are the boundaries of one window.
pub(super) fn boundaries(facts: &[ColumnFact], among: &[Option<usize>]) -> Option<(usize, usize, WindowMark)> {
    let marked = |role: Role| {
        among.iter().enumerate().find_map(|(key, column)| {
            let mark = facts[(*column)?].window.as_ref()?;
            (mark.role == role).then(|| (key, mark.clone()))
        })
    };
    let (start, mark) = marked(Role::Start)?;
    let (end, other) = marked(Role::End)?;
    (mark.shape == other.shape && mark.zone == other.zone).then_some((start, end, mark))
}
