//! Static tables: read whole before the first stream row, kept in the checkpoint, used again on resume.
//!
//! A table's rows and their sha256 belong to the job: a file that changes between two starts would make the
//! same topic give another table. A change is reported; `--refresh-static` takes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::checkpoint::manifest::{Manifest, StaticState, decode, encode, sha256};
use super::checkpoint::store::{Store, publish};
use super::operators::calc::{self, Calc};
use super::operators::static_join::StaticTable;
use crate::connectors::{BatchLimits, Fetched, Payload};
use crate::error::{Error, Result};
use crate::metrics::JobMetrics;
use crate::sql::plan::{BadRecords, NodeId, Op, StaticJoinOp, StreamPlan};
use crate::stream::StreamBatch;

/// The static tables of a job, loaded.
#[derive(Default)]
pub struct Statics {
    /// By join node.
    pub tables: HashMap<NodeId, Arc<StaticTable>>,
    /// For the manifest.
    pub states: Vec<StaticState>,
    /// Tables whose files have changed since the first start and were not taken.
    pub changed: Vec<String>,
}

/// Loads every static table of `plan`: from the checkpoint where it has it (unless `refresh`), else from its file.
///
/// # Errors
/// User: a file is missing. Data: a record cannot be read.
pub fn load(
    plan: &StreamPlan,
    manifest: Option<&Manifest>,
    store: Option<&dyn Store>,
    refresh: bool,
    metrics: &JobMetrics,
) -> Result<Statics> {
    let mut loaded = Statics::default();
    for node in &plan.nodes {
        let Op::StaticJoin(op) = &node.op else { continue };
        let table = op.side.table.name.clone();
        let kept = manifest.and_then(|m| m.statics.iter().find(|s| s.fingerprint == node.fingerprint).map(|s| (m, s)));
        let now = read(op, metrics);
        let rows = match (kept, store) {
            (Some((manifest, state)), Some(store)) if !refresh => {
                let rows =
                    manifest.read_file(store, &state.file)?.pop().ok_or_else(|| Error::state(format!("{} holds no rows", state.file)))?;
                // The file may even be gone by now: the job has what it needs.
                if now.as_ref().map_or(true, |n| encode(std::slice::from_ref(n)).map_or(true, |b| sha256(&b) != state.sha256)) {
                    loaded.changed.push(table.clone());
                }
                loaded.states.push(state.clone());
                rows
            }
            _ => {
                let rows = now?;
                let bytes = encode(std::slice::from_ref(&rows))?;
                let sha256 = sha256(&bytes);
                let file = format!("static-{}.arrow", &sha256[..16]);
                if let Some(store) = store {
                    publish(store, &file, &bytes)?;
                }
                loaded.states.push(StaticState { fingerprint: node.fingerprint.clone(), table, sha256, file });
                decode(&bytes)?.pop().unwrap_or(rows)
            }
        };
        loaded.tables.insert(node.id, Arc::new(StaticTable::build(op, rows)?));
    }
    Ok(loaded)
}

/// Reads the static side: source, computed columns, then its steps.
fn read(op: &StaticJoinOp, metrics: &JobMetrics) -> Result<RecordBatch> {
    let side = &op.side;
    let limits = BatchLimits { rows: 8192, bytes: 16 << 20, latency: Duration::ZERO };
    let mut fetcher = side.source.open(&side.scan, None)?;
    let mut reader = side.source.reader(&side.scan)?;
    let calcs: Vec<Calc> = op.side_calcs.iter().map(|(c, schema)| Calc::new(c.clone(), schema.clone())).collect();
    let counters = metrics.source(&side.table.name);
    counters.is_static.store(true, Ordering::Relaxed);
    let mut batches = Vec::new();
    loop {
        let payload = match fetcher.fetch(&limits, Duration::from_millis(50))? {
            Fetched::Batch { payload, .. } => payload,
            Fetched::End => break,
            Fetched::SplitAdded(_) | Fetched::SplitEnded(_) | Fetched::Nothing => continue,
        };
        let records = match &payload {
            Payload::Raw { values, .. } => values.len(),
            Payload::Rows(rows) => rows.num_rows(),
        };
        *counters.records.lock().expect("no panic while locked").entry("files".into()).or_default() += records as u64;
        let decoded = reader.read(&payload)?;
        if let Some(bad) = decoded.rejected.first() {
            if matches!(side.bad_records, BadRecords::Fail) {
                let place = match &payload {
                    Payload::Raw { envelope, .. } => {
                        format!("{}, record {}", envelope.origin, envelope.offsets.get(bad.index).copied().unwrap_or(bad.index as i64) + 1)
                    }
                    Payload::Rows(_) => format!("record {}", bad.index + 1),
                };
                return Err(Error::data(format!("table '{}': a record cannot be read ({place}): {}", side.table.name, bad.reason)).help(
                    "is its first line a header? SET 'velosql.table.".to_string()
                        + &side.table.name
                        + ".csv-header' = 'true' skips it; declare columns that may be empty as STRING",
                ));
            }
            counters.rejected.add(decoded.rejected.len() as u64);
        }
        let rows = calc::project(&decoded.batch, &side.columns, &op.side_source_schema)?;
        let mut batch = StreamBatch::new(rows);
        for calc in &calcs {
            batch = calc.apply(&batch)?;
        }
        batches.push(batch.rows);
    }
    Ok(concat_batches(&op.side_schema, &batches)?)
}
