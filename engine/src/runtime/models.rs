//! The models of a job: which version each ML_PREDICT scores with, and when another one takes over.
//!
//! ```text
//!  coordinator: look at the registry ─ load ─ slot (epoch e) ─ inject barrier e ─▶ every worker swaps at barrier e
//!                                                              manifest e: version, epoch, source positions
//! ```
//!
//! What must hold: rows before barrier e are scored by the version before, rows behind it by the new one, on every
//! worker; the manifest of e names the version that rows behind e are scored with, so that a replay gives the same
//! predictions; a version that does not load or fit never replaces one that does.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};

use super::checkpoint::manifest::{Manifest, ModelState, SwapState};
use crate::error::{Error, ErrorKind, Result};
use crate::models::features::Binding;
use crate::models::registry::{Registry, Selector, Served};
use crate::sql::plan::{Node, NodeId, Op, PredictOp, StreamPlan};
use crate::stream::{Epoch, SqlType};

/// Swaps that a manifest remembers at most.
const SWAPS_KEPT: usize = 100;

/// A version of a model, bound to the columns of one ML_PREDICT.
#[derive(Debug)]
pub struct Scorer {
    served: Arc<Served>,
    binding: Binding,
    arguments: Vec<usize>,
    given: SchemaRef,
    outputs: Fields,
}

impl Scorer {
    /// The version, for a node whose input has the columns of `input` and that emits `output`.
    ///
    /// # Errors
    /// User: the model does not take these columns, or does not give what the query was planned with.
    pub fn new(served: Arc<Served>, op: &PredictOp, input: &Schema, output: &Schema) -> Result<Self> {
        let context = |e: Error| e.context(format_args!("version {} of model '{}'", served.version, served.name));
        let fields = op.arguments.iter().map(|(name, column)| input.field(*column).clone().with_name(name)).collect::<Vec<Field>>();
        let given = Arc::new(Schema::new(fields));
        let binding = served.model.bind(&given).map_err(|e| context(e.into()))?;
        let outputs: Fields = output.fields()[input.fields().len()..].iter().cloned().collect();
        let gives = served.model.outputs();
        let types = |fields: &Fields| fields.iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
        if types(&outputs) != types(gives.fields()) {
            let shown = |fields: &Fields| fields.iter().map(|f| format!("{} {}", f.name(), SqlType::of(f))).collect::<Vec<_>>().join(", ");
            let e = Error::user(format!("it gives ({}), but the query was planned with ({})", shown(gives.fields()), shown(&outputs)));
            return Err(context(e));
        }
        let arguments = op.arguments.iter().map(|(_, column)| *column).collect();
        Ok(Self { served, binding, arguments, given, outputs })
    }

    /// The version's number.
    pub fn version(&self) -> u64 {
        self.served.version
    }

    /// The model's columns for `rows`, NULL where a row is refused, and how many were.
    ///
    /// # Errors
    /// Internal: other rows than those that it was made for.
    pub fn score(&self, rows: &RecordBatch) -> Result<(Vec<ArrayRef>, usize)> {
        if rows.num_rows() == 0 {
            return Ok((self.outputs.iter().map(|f| new_empty_array(f.data_type())).collect(), 0));
        }
        let columns = self.arguments.iter().map(|i| rows.column(*i).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let given = RecordBatch::try_new_with_options(self.given.clone(), columns, &options)?;
        let scored = self.served.model.score_bound(&self.binding, &given)?;
        Ok((scored.columns.columns().to_vec(), scored.refused.len()))
    }
}

/// Where the coordinator leaves what the workers' ML_PREDICT take.
#[derive(Debug)]
pub struct Slot(Mutex<(Arc<Scorer>, Epoch)>);

impl Slot {
    fn new(scorer: Arc<Scorer>) -> Arc<Self> {
        Arc::new(Self(Mutex::new((scorer, Epoch(0)))))
    }

    /// What a job starts with.
    pub fn current(&self) -> Arc<Scorer> {
        self.0.lock().expect("no panic while locked").0.clone()
    }

    /// What takes over at the barrier `epoch`, where something does.
    pub fn at(&self, epoch: Epoch) -> Option<Arc<Scorer>> {
        let held = self.0.lock().expect("no panic while locked");
        (held.1 == epoch).then(|| held.0.clone())
    }

    /// The coordinator's half: in place before the barrier is sent, and the barrier is done before the next.
    fn put(&self, scorer: Arc<Scorer>, epoch: Epoch) {
        *self.0.lock().expect("no panic while locked") = (scorer, epoch);
    }
}

/// The models of one run, as the coordinator holds them.
pub struct JobModels {
    registry: Registry,
    nodes: Vec<NodeModel>,
    swaps: Vec<SwapState>,
}

struct NodeModel {
    node: NodeId,
    fingerprint: String,
    op: PredictOp,
    input: SchemaRef,
    output: SchemaRef,
    slot: Arc<Slot>,
    current: Arc<Scorer>,
    /// Found by [`JobModels::look`], for the next barrier.
    next: Option<Arc<Scorer>>,
    /// What was last said to be wrong, so that it is said once.
    complaint: Option<String>,
}

impl JobModels {
    /// Loads the version of each ML_PREDICT: the one that the checkpoint pins, else the one that the query means.
    ///
    /// # Errors
    /// User: no such model or version, or one that does not fit the query. State: a pinned version is not there.
    pub fn load(plan: &StreamPlan, root: &Path, manifest: Option<&Manifest>) -> Result<Self> {
        let registry = Registry::new(root);
        let mut loaded: HashMap<(String, u64), Arc<Served>> = HashMap::new();
        let mut nodes = Vec::new();
        for node in &plan.nodes {
            let Op::Predict(op) = &node.op else { continue };
            let pin = manifest.and_then(|m| m.models.iter().find(|p| p.fingerprint == node.fingerprint)).map(|p| p.version);
            let served = match pin {
                Some(version) => load_once(&registry, &mut loaded, &op.model, version).map_err(|e| pinned(e, op, version, root))?,
                None => {
                    let version = registry.resolve(&op.model, &op.selector)?;
                    load_once(&registry, &mut loaded, &op.model, version)?
                }
            };
            let input = plan.nodes[node.inputs[0]].schema.clone();
            let scorer = Arc::new(Scorer::new(served, op, &input, &node.schema).map_err(|e| match pin {
                Some(version) => pinned(e, op, version, root),
                None => e.help("train the model anew with this query's columns, or name those that it takes in DESCRIPTOR"),
            })?);
            nodes.push(NodeModel::new(node, op, input, scorer));
        }
        Ok(Self { registry, nodes, swaps: manifest.map(|m| m.swaps.clone()).unwrap_or_default() })
    }

    /// Whether the job has no ML_PREDICT.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What each ML_PREDICT takes its version from.
    pub fn slots(&self) -> HashMap<NodeId, Arc<Slot>> {
        self.nodes.iter().map(|n| (n.node, n.slot.clone())).collect()
    }

    /// Looks whether the registry means another version now, and loads it. Cheap where it does not. Answers whether a
    /// barrier would swap anything.
    pub fn look(&mut self, notice: &dyn Fn(&str)) -> bool {
        let mut meant: HashMap<(String, Selector), Result<u64, String>> = HashMap::new();
        let mut loaded = HashMap::new();
        for node in &mut self.nodes {
            if matches!(node.op.selector, Selector::Version(_)) {
                continue;
            }
            let key = (node.op.model.clone(), node.op.selector.clone());
            let resolve = || self.registry.resolve(&key.0, &key.1).map_err(|e| e.message().to_string());
            let version = meant.entry(key.clone()).or_insert_with(resolve).clone();
            match version.and_then(|version| node.prepare(version, &self.registry, &mut loaded)) {
                Ok(()) => node.complaint = None,
                Err(complaint) if node.complaint.as_ref() == Some(&complaint) => {}
                Err(complaint) => {
                    notice(&format!("model '{}' stays at version {}: {complaint}", node.op.model, node.current.version()));
                    node.complaint = Some(complaint);
                }
            }
        }
        self.nodes.iter().any(|n| n.next.is_some())
    }

    /// What [`JobModels::look`] has found takes over at the barrier `epoch`, which is sent after this.
    pub fn swap_at(&mut self, epoch: Epoch, notice: &dyn Fn(&str)) {
        let mut told = Vec::new();
        for node in &mut self.nodes {
            let Some(next) = node.next.take() else { continue };
            let (from, to) = (node.current.version(), next.version());
            node.slot.put(next.clone(), epoch);
            node.current = next;
            let text = format!("model '{}': version {to} takes over from version {from} at epoch {epoch}", node.op.model);
            if !told.contains(&text) {
                notice(&text);
                told.push(text);
            }
            let (fingerprint, model) = (node.fingerprint.clone(), node.op.model.clone());
            self.swaps.push(SwapState { epoch, fingerprint, model, from, to, sources: Vec::new() });
        }
        let forgotten = self.swaps.len().saturating_sub(SWAPS_KEPT);
        self.swaps.drain(..forgotten);
    }

    /// The version that each ML_PREDICT scores with behind the barrier sent last.
    pub fn states(&self) -> Vec<ModelState> {
        let state =
            |n: &NodeModel| ModelState { fingerprint: n.fingerprint.clone(), model: n.op.model.clone(), version: n.current.version() };
        self.nodes.iter().map(state).collect()
    }

    /// The swaps so far; those of the epoch that is being written get their positions there.
    pub fn swaps_mut(&mut self) -> &mut Vec<SwapState> {
        &mut self.swaps
    }
}

impl NodeModel {
    fn new(node: &Node, op: &PredictOp, input: SchemaRef, scorer: Arc<Scorer>) -> Self {
        Self {
            node: node.id,
            fingerprint: node.fingerprint.clone(),
            op: op.clone(),
            input,
            output: node.schema.clone(),
            slot: Slot::new(scorer.clone()),
            current: scorer,
            next: None,
            complaint: None,
        }
    }

    /// Loads `version`, where it is another one.
    fn prepare(&mut self, version: u64, registry: &Registry, loaded: &mut HashMap<(String, u64), Arc<Served>>) -> Result<(), String> {
        if version == self.current.version() {
            self.next = None;
            return Ok(());
        }
        if self.next.as_ref().is_some_and(|n| n.version() == version) {
            return Ok(());
        }
        // A version whose complaint has been heard is never changed again: it need not be read anew.
        let known = format!("version {version} ");
        if let Some(complaint) = self.complaint.as_ref().filter(|c| c.starts_with(&known)) {
            return Err(complaint.clone());
        }
        let served = load_once(registry, loaded, &self.op.model, version);
        let scorer = served.and_then(|served| Scorer::new(served, &self.op, &self.input, &self.output));
        self.next = Some(Arc::new(scorer.map_err(|e| format!("{known}cannot take over: {}", e.message()))?));
        Ok(())
    }
}

fn load_once(registry: &Registry, loaded: &mut HashMap<(String, u64), Arc<Served>>, model: &str, version: u64) -> Result<Arc<Served>> {
    if let Some(served) = loaded.get(&(model.to_string(), version)) {
        return Ok(served.clone());
    }
    let served = registry.load(model, &Selector::Version(version))?;
    loaded.insert((model.to_string(), version), served.clone());
    Ok(served)
}

/// The error about a pinned version that cannot be had.
fn pinned(e: Error, op: &PredictOp, version: u64, root: &Path) -> Error {
    let kind = if e.kind() == ErrorKind::User { ErrorKind::State } else { e.kind() };
    Error::new(kind, format!("the job goes on with version {version} of model '{}', as its checkpoint says: {}", op.model, e.message()))
        .help(format!(
            "put that version back into '{}', name another registry with --models DIR, or start over with --fresh",
            root.display()
        ))
        .caused_by(e)
}
