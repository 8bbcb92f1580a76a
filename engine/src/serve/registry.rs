//! The registry as a [`Source`](super::catalog::Source), and its models as scorers.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::answers::Answers;
use super::catalog::{Listing, Loaded, Scorer, Source};
use super::failure::{Answered, Failure, Reason};
use super::rows::Inputs;
use crate::error::{Error, Result};
use crate::models::features::{self, Binding};
use crate::models::registry::{Registry, Selector, Served};
use crate::models::task::Task;

impl Source for Registry {
    fn list(&self) -> Result<Vec<Listing>> {
        let mut listings = vec![];
        for name in self.names()? {
            let versions = self.versions(&name)?;
            // The folder of a model whose first version is being published.
            if versions.is_empty() {
                continue;
            }
            let served = self.resolve(&name, &Selector::Champion).map_err(|e| e.to_string());
            let aliases = self.aliases(&name).unwrap_or_default();
            listings.push(Listing { name, versions, aliases, served });
        }
        Ok(listings)
    }

    fn load(&self, name: &str, version: u64) -> Result<Loaded> {
        let served = Registry::load(self, name, &Selector::Version(version))?;
        let model = &served.model;
        let inputs = Inputs::new(Arc::new(model.inputs().clone()));
        let binding = model.bind(inputs.schema()).map_err(|e| Error::internal(format!("a model does not take its own inputs: {e}")))?;
        Ok(Loaded {
            name: name.to_string(),
            version,
            task: model.task(),
            algorithm: model.algorithm(),
            outputs: model.outputs(),
            classes: model.label().map(|label| label.names()).unwrap_or_default(),
            inputs,
            scorer: Box::new(Bound { served, binding }),
        })
    }
}

/// A model and where its inputs lie in the batches that [`Inputs`] makes.
struct Bound {
    served: Arc<Served>,
    binding: Binding,
}

impl Scorer for Bound {
    fn score(&self, rows: &RecordBatch) -> Answered<Answers> {
        let model = &self.served.model;
        let scored = model.score_bare(&self.binding, rows).map_err(|e| Failure::new(Reason::Internal, e.to_string()))?;
        if let Some(refusal) = scored.refused.first() {
            let reason = match refusal.reason {
                features::Reason::Null => Reason::NullValue,
                features::Reason::UnknownCategory(_) => Reason::UnknownCategory,
                features::Reason::NotFinite => Reason::NotFinite,
            };
            return Err(Failure::of(reason, &refusal.field, refusal.to_string()).at(refusal.row));
        }
        let prediction = (model.task() != Task::Clustering).then_some(scored.first);
        Ok(Answers { prediction, scores: scored.scores })
    }
}
