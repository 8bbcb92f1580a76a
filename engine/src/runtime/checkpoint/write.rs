//! Writes checkpoints: state files first, then the manifest that names them.
//!
//! A segment is written once, by the first checkpoint that holds it; later manifests name the same file again. What
//! must hold: when the manifest is there, every file that it names is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::manifest::{self, FORMAT, Manifest, OperatorState, SinkState, SourceState, StaticState};
use super::store::{Store, publish};
use super::{Ack, Place, Segment, SourceSnapshot};
use crate::crash;
use crate::error::Result;
use crate::runtime::models::JobModels;
use crate::sql::plan::{NodeId, Op, StreamPlan};
use crate::stream::{Barrier, Epoch, Watermark};

/// The checkpoints of one run.
pub struct Writer<'a> {
    /// The job's name.
    pub job: &'a str,
    /// SQL text, secrets masked.
    pub sql: &'a str,
    /// Worker threads.
    pub workers: usize,
    /// The plan that runs.
    pub plan: &'a StreamPlan,
    /// Tables of the sinks, by number.
    pub sinks: Vec<String>,
    /// The static tables; their files are written before the first checkpoint.
    pub statics: Vec<StaticState>,
    /// Where everything goes.
    pub store: Arc<dyn Store>,
    /// State files that are on disk and still named, with their sha256.
    pub files: BTreeMap<String, String>,
}

/// What commits need of each sink, by its number.
pub type Pending = BTreeMap<usize, Vec<serde_json::Value>>;

/// What the sink writers of all tasks have prepared.
pub fn pending(acks: &[Ack]) -> Pending {
    let mut pending = Pending::new();
    for (sink, prepared) in acks.iter().flat_map(|ack| &ack.sinks) {
        pending.entry(*sink).or_default().extend(prepared.pending.clone());
    }
    pending
}

impl Writer<'_> {
    /// Makes the answers of all tasks to `barrier` durable: when it returns, a restart goes on from this epoch.
    ///
    /// # Errors
    /// External: the disk failed; the previous checkpoint holds.
    pub fn write(&mut self, barrier: Barrier, finished: bool, acks: &[Ack], pending: &Pending, models: &mut JobModels) -> Result<()> {
        crash::at("checkpoint.before-state");
        for ack in acks {
            self.write_segments(ack)?;
        }
        let sinks = self.sink_states(barrier.epoch, acks, pending)?;
        let operators =
            acks.iter().flat_map(|a| &a.operators).map(|(node, time, snapshot)| self.operator(*node, *time, &snapshot.segments));
        let sources: Vec<SourceState> = acks.iter().flat_map(|a| &a.sources).map(|s| self.source(s)).collect();
        for swap in models.swaps_mut().iter_mut().filter(|s| s.epoch == barrier.epoch) {
            swap.sources.clone_from(&sources);
        }
        let mut manifest = Manifest {
            format: FORMAT,
            engine: env!("CARGO_PKG_VERSION").to_string(),
            job: self.job.to_string(),
            epoch: barrier.epoch,
            finished,
            workers: self.workers,
            sql: self.sql.to_string(),
            sources,
            operators: operators.collect(),
            sinks,
            statics: self.statics.clone(),
            models: models.states(),
            swaps: models.swaps_mut().clone(),
            files: BTreeMap::new(),
        };
        self.files.extend(self.statics.iter().map(|s| (s.file.clone(), s.sha256.clone())));
        let named: BTreeSet<&String> = (manifest.operators.iter().flat_map(|o| o.segments.iter().map(|p| &p.file)))
            .chain(manifest.sinks.iter().flat_map(|s| s.kept.iter().map(|p| &p.file)))
            .chain(manifest.statics.iter().map(|s| &s.file))
            .collect();
        self.files.retain(|name, _| named.contains(name));
        manifest.files = self.files.clone();
        crash::at("checkpoint.before-manifest");
        manifest.publish(self.store.as_ref())?;
        crash::at("checkpoint.after-manifest");
        Ok(())
    }

    /// Writes the segments of one task that no earlier checkpoint has written.
    fn write_segments(&mut self, ack: &Ack) -> Result<()> {
        let new: Vec<&Arc<Segment>> = ack.operators.iter().flat_map(|(_, _, s)| &s.segments).filter(|s| s.place().is_none()).collect();
        if new.is_empty() {
            return Ok(());
        }
        let batches: Vec<_> = new.iter().map(|s| s.rows().clone()).collect();
        let file = self.write_file(format!("state-{:012}-{}.arrow", ack.epoch.0, ack.task), &batches)?;
        new.iter().enumerate().for_each(|(index, segment)| segment.set_place(Place { file: file.clone(), index }));
        Ok(())
    }

    fn write_file(&mut self, name: String, batches: &[RecordBatch]) -> Result<String> {
        let bytes = manifest::encode(batches)?;
        publish(self.store.as_ref(), &name, &bytes)?;
        self.files.insert(name.clone(), manifest::sha256(&bytes));
        Ok(name)
    }

    fn sink_states(&mut self, epoch: Epoch, acks: &[Ack], pending: &Pending) -> Result<Vec<SinkState>> {
        let mut states = Vec::new();
        for (number, table) in self.sinks.clone().into_iter().enumerate() {
            let prepared = acks.iter().flat_map(|a| &a.sinks).filter(|(s, _)| *s == number);
            let kept: Vec<_> = prepared.flat_map(|(_, p)| p.kept.iter().cloned()).collect();
            let mut places = Vec::new();
            if !kept.is_empty() {
                let file = self.write_file(format!("kept-{:012}-{number}.arrow", epoch.0), &kept)?;
                places = (0..kept.len()).map(|index| Place { file: file.clone(), index }).collect();
            }
            states.push(SinkState { table, pending: pending.get(&number).cloned().unwrap_or_default(), kept: places });
        }
        Ok(states)
    }

    fn source(&self, source: &SourceSnapshot) -> SourceState {
        let node = &self.plan.nodes[source.node];
        let table = if let Op::Source(op) = &node.op { op.table.name.clone() } else { String::new() };
        SourceState { fingerprint: node.fingerprint.clone(), table, splits: source.splits.clone(), merged: source.merged }
    }

    fn operator(&self, node: NodeId, watermark: Watermark, segments: &[Arc<Segment>]) -> OperatorState {
        let segments = segments.iter().filter_map(|s| s.place().cloned()).collect();
        let node = &self.plan.nodes[node];
        OperatorState { fingerprint: node.fingerprint.clone(), name: node.op.name().to_string(), watermark, segments }
    }
}
