//! The manifest of a checkpoint: one JSON file that names everything a restart needs.
//!
//! Layout of a state directory:
//! ```text
//!  manifest-000000000012.json     {"sha256": …, "manifest": {…}}; the newest whole one counts
//!  state-000000000012-3.arrow     Arrow IPC stream: the segments that task 3 sealed for epoch 12
//!  static-<fingerprint>.arrow     rows of a static table, as read at the first start
//!  lock                           held by the live run
//! ```
//! What must hold: a manifest is published only when every file it names is durable; it carries no secret.

use std::collections::BTreeMap;
use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Place;
use super::store::{Store, publish};
use crate::connectors::Split;
use crate::error::{Error, Result};
use crate::stream::{Epoch, Watermark};

/// Version of the format; a manifest of another one is refused.
pub const FORMAT: u32 = 1;
/// Whole checkpoints kept for `--from`.
const KEPT: usize = 3;

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Engine version that wrote it.
    pub engine: String,
    /// The job.
    pub job: String,
    /// The checkpoint's number.
    pub epoch: Epoch,
    /// The inputs have ended and everything is committed or pending below.
    pub finished: bool,
    /// Workers at the time; any number may resume.
    pub workers: usize,
    /// The SQL text, secrets masked.
    pub sql: String,
    /// Per source node.
    pub sources: Vec<SourceState>,
    /// Per operator instance with state.
    pub operators: Vec<OperatorState>,
    /// Per sink.
    pub sinks: Vec<SinkState>,
    /// Per static table.
    pub statics: Vec<StaticState>,
    /// Per ML_PREDICT: the version that rows behind this checkpoint are scored with.
    #[serde(default)]
    pub models: Vec<ModelState>,
    /// The newest swaps of versions, oldest first.
    #[serde(default)]
    pub swaps: Vec<SwapState>,
    /// sha256 of each file named, in hex.
    pub files: BTreeMap<String, String>,
}

/// Positions of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceState {
    /// Fingerprint of the node.
    pub fingerprint: String,
    /// Table name, for messages.
    pub table: String,
    /// Its splits in order, with their watermarks.
    pub splits: Vec<(Split, Watermark)>,
    /// The watermark merged over the splits.
    pub merged: Watermark,
}

/// Segments of one operator instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorState {
    /// Fingerprint of the node.
    pub fingerprint: String,
    /// Operator name, for messages.
    pub name: String,
    /// Watermark of the instance.
    pub watermark: Watermark,
    /// Its segments, oldest first.
    pub segments: Vec<Place>,
}

/// What a sink has prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkState {
    /// Table name.
    pub table: String,
    /// Per writer, what commit needs.
    pub pending: Vec<serde_json::Value>,
    /// Per kept batch, its place, in arrival order.
    pub kept: Vec<Place>,
}

/// Rows of a static table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StaticState {
    /// Fingerprint of the join node.
    pub fingerprint: String,
    /// Table name.
    pub table: String,
    /// sha256 of the rows' Arrow IPC bytes.
    pub sha256: String,
    /// File with the rows.
    pub file: String,
}

/// The pinned version of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelState {
    /// Fingerprint of the node.
    pub fingerprint: String,
    /// The model's name.
    pub model: String,
    /// The version.
    pub version: u64,
}

/// A version that took over from another: rows before these positions are scored by the one, those behind by the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwapState {
    /// The checkpoint at whose barrier it did.
    pub epoch: Epoch,
    /// Fingerprint of the node.
    pub fingerprint: String,
    /// The model's name.
    pub model: String,
    /// The version before.
    pub from: u64,
    /// The version since.
    pub to: u64,
    /// Where the sources stood.
    pub sources: Vec<SourceState>,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    sha256: String,
    manifest: serde_json::Value,
}

impl Manifest {
    /// File name of epoch `epoch`.
    pub fn file_name(epoch: Epoch) -> String {
        format!("manifest-{:012}.json", epoch.0)
    }

    /// Publishes this manifest, then removes manifests and files that no kept one names.
    ///
    /// # Errors
    /// External: the disk failed; the previous manifest holds.
    pub fn publish(&self, store: &dyn Store) -> Result<()> {
        let manifest = serde_json::to_value(self).map_err(|e| Error::internal("a manifest cannot be written as JSON").caused_by(e))?;
        let sealed = Sealed { sha256: sha256(manifest.to_string().as_bytes()), manifest };
        let text = serde_json::to_vec_pretty(&sealed).map_err(|e| Error::internal("a manifest cannot be written as JSON").caused_by(e))?;
        publish(store, &Self::file_name(self.epoch), &text)
    }

    /// The newest whole manifest (of `epoch`, where one is asked for).
    ///
    /// # Errors
    /// State: the epoch asked for is not there, was written by another format, or no manifest is whole.
    pub fn latest(store: &dyn Store, epoch: Option<Epoch>) -> Result<Option<Self>> {
        let names: Vec<String> = store.list()?.into_iter().filter(|n| n.starts_with("manifest-") && n.ends_with(".json")).collect();
        if let Some(epoch) = epoch {
            let name = Self::file_name(epoch);
            return match Self::load(store, &name)? {
                Some(manifest) => Ok(Some(manifest)),
                None => {
                    let known: Vec<String> =
                        names.iter().filter_map(|n| n[9..n.len() - 5].parse::<u64>().ok()).map(|n| n.to_string()).collect();
                    Err(Error::state(format!("there is no whole checkpoint of epoch {epoch}"))
                        .help(format!("kept are: {}", known.join(", "))))
                }
            };
        }
        for name in names.iter().rev() {
            if let Some(manifest) = Self::load(store, name)? {
                return Ok(Some(manifest));
            }
        }
        match names.last() {
            None => Ok(None),
            Some(newest) => Err(Error::state(format!("no checkpoint can be read: {newest} and those before it are damaged"))
                .help("start over with --fresh: that also removes the files that this job has committed")),
        }
    }

    /// Removes manifests but the newest few, and every file that none of them names.
    ///
    /// # Errors
    /// External: the disk failed.
    pub fn prune(store: &dyn Store) -> Result<()> {
        let names = store.list()?;
        let manifests: Vec<&String> = names.iter().filter(|n| n.starts_with("manifest-") && n.ends_with(".json")).collect();
        let (old, kept) = manifests.split_at(manifests.len().saturating_sub(KEPT));
        let mut live = std::collections::BTreeSet::new();
        for name in kept {
            live.extend(Self::load(store, name)?.into_iter().flat_map(|m| m.files.into_keys()));
        }
        for name in old {
            store.remove(name)?;
        }
        for name in names.iter().filter(|n| n.ends_with(".arrow") || n.ends_with(".tmp")) {
            if !live.contains(name) {
                store.remove(name)?;
            }
        }
        Ok(())
    }

    fn load(store: &dyn Store, name: &str) -> Result<Option<Self>> {
        let Some(bytes) = store.read(name)? else { return Ok(None) };
        let Ok(sealed) = serde_json::from_slice::<Sealed>(&bytes) else { return Ok(None) };
        if sha256(sealed.manifest.to_string().as_bytes()) != sealed.sha256 {
            return Ok(None);
        }
        let format = sealed.manifest.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            return Err(Error::state(format!("{name} has checkpoint format {}, this version reads {FORMAT}", format.unwrap_or(0)))
                .help("finish the job with the version that wrote it, or start over with --fresh"));
        }
        serde_json::from_value(sealed.manifest).map(Some).map_err(|e| Error::state(format!("{name} cannot be read")).caused_by(e))
    }

    /// Reads the record batches of a state file and checks it against the manifest.
    ///
    /// # Errors
    /// State: the file is missing or not what was written.
    pub fn read_file(&self, store: &dyn Store, file: &str) -> Result<Vec<RecordBatch>> {
        let damaged = |why: &str| {
            Error::state(format!("the state file {file} of epoch {} {why}", self.epoch))
                .help("go back with --from an earlier epoch, or start over with --fresh")
        };
        let bytes = store.read(file)?.ok_or_else(|| damaged("is missing"))?;
        if self.files.get(file) != Some(&sha256(&bytes)) {
            return Err(damaged("is damaged (its checksum differs)"));
        }
        decode(&bytes).map_err(|e| damaged("cannot be read").caused_by(e))
    }
}

/// Arrow IPC stream bytes of batches that may have different schemas (one stream each, length-prefixed).
///
/// # Errors
/// Internal: a batch cannot be written.
pub fn encode(batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for batch in batches {
        let mut stream = Vec::new();
        let mut writer = StreamWriter::try_new(&mut stream, &batch.schema())?;
        writer.write(batch)?;
        writer.finish()?;
        drop(writer);
        out.extend_from_slice(&(stream.len() as u64).to_le_bytes());
        out.extend_from_slice(&stream);
    }
    Ok(out)
}

/// What [`encode`] wrote.
///
/// # Errors
/// State: the bytes are no such file.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<RecordBatch>> {
    let torn = || Error::state("a state file is cut off");
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(torn)?;
        let length = u64::from_le_bytes(*length) as usize;
        let stream = rest.get(..length).ok_or_else(torn)?;
        bytes = &rest[length..];
        let mut reader = StreamReader::try_new(Cursor::new(stream), None)?;
        batches.push(reader.next().ok_or_else(torn)??);
    }
    Ok(batches)
}

/// sha256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
