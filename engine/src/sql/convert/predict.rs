//! ML_PREDICT: the model's columns behind those of its input.

use super::{Converter, fields_of};
use crate::error::Result;
use crate::sql::draft::{ColumnFact, DraftNode, DraftOp};
use crate::sql::nodes::Predict;
use crate::sql::plan::{NodeId, PredictOp};
use crate::sql::portable::Finding;

impl Converter<'_> {
    /// Scores the rows of the function's input; what is known of its columns stays, the rowtime among it.
    pub(super) fn predict(&mut self, p: &Predict) -> Result<NodeId> {
        let input = self.convert(&p.input)?;
        // A row that is taken back would have to be scored by the version that scored it first, and Flink refuses it too.
        self.append_only(input, "ML_PREDICT").map_err(|e| e.at(p.span))?;
        self.findings.push(Finding {
            span: p.span,
            what: format!("ML_PREDICT with '{}': Flink knows no model that CREATE MODEL … AS trains, and takes columns by place", p.model),
            portable: "let velosql serve answer: declare the model in Flink with INPUT, OUTPUT and a provider that speaks the Open Inference Protocol"
                .to_string(),
        });
        let below = &self.draft.nodes[input];
        let width = below.fields.len();
        let mut facts = below.facts.clone();
        facts.resize(width + p.outputs.len(), ColumnFact::default());
        let all = fields_of(datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(p));
        let fields = below.fields.iter().cloned().chain(all.into_iter().skip(width)).collect();
        let op = PredictOp { model: p.model.clone(), selector: p.selector.clone(), arguments: p.arguments.clone() };
        Ok(self.draft.add(DraftNode::new(DraftOp::Predict(op), vec![input], fields, facts)))
    }
}
