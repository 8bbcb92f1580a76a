//! What a training query has read, exactly: the connector of each of its tables, wrapped so that files, rows and
//! offsets are written down as they are handed out.
//!
//! What must hold: a file that is changed while it is read is an error, because the model could not say what it was
//! trained on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use crate::connectors::{BatchLimits, Fetched, Fetcher, Position, RowReader, Scan, SourceTable, Split, TableSpec};
use crate::error::{Error, Result};
use crate::models::registry::{InputFile, Lineage, hash_file};
use crate::sql::plan::{Op, SourceOp, StreamPlan};

/// What has been read so far, by all tables of a plan.
#[derive(Debug, Clone, Default)]
pub struct Record(Arc<Mutex<Inputs>>);

#[derive(Debug, Default)]
struct Inputs {
    files: Vec<FileRead>,
    /// Topic → partition → first offset and the one behind the last.
    offsets: BTreeMap<String, BTreeMap<i32, (i64, i64)>>,
}

#[derive(Debug)]
struct FileRead {
    path: String,
    rows: u64,
    /// Size and time of change when its first row was read.
    state: Option<(u64, SystemTime)>,
}

impl Record {
    /// The plan with every table that it reads, static ones included, under record.
    pub fn over(&self, plan: &StreamPlan) -> StreamPlan {
        let mut plan = plan.clone();
        for node in &mut plan.nodes {
            match &mut node.op {
                Op::Source(op) => self.wrap(op),
                Op::StaticJoin(op) => self.wrap(&mut op.side),
                _ => {}
            }
        }
        plan
    }

    fn wrap(&self, op: &mut SourceOp) {
        op.source = Arc::new(Recorded { table: op.table.clone(), source: op.source.clone(), record: self.clone() });
    }

    /// Files with their hashes, and offsets. Rows of the model are for the caller to fill in.
    ///
    /// # Errors
    /// User: a file was changed or removed meanwhile. External: it cannot be read.
    pub fn lineage(&self) -> Result<Lineage> {
        let inputs = self.lock();
        let file = |read: &FileRead| {
            let path = Path::new(&read.path);
            let changed = || {
                Error::user(format!("'{}' was changed or removed while it was trained on", read.path))
                    .help("train again: a model must be able to say what it has seen")
            };
            let before = read.state.ok_or_else(changed)?;
            let (sha256, _) = hash_file(path)?;
            if state(path) != Some(before) {
                return Err(changed());
            }
            let shown = read.path.strip_prefix("./").unwrap_or(&read.path).to_string();
            Ok(InputFile { path: shown, rows: read.rows, bytes: before.0, sha256 })
        };
        let files = inputs.files.iter().map(file).collect::<Result<_>>()?;
        Ok(Lineage { files, offsets: inputs.offsets.clone(), ..Lineage::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inputs> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn read(&self, topic: Option<(&str, i32)>, from: &Position, to: &Position) {
        let mut inputs = self.lock();
        match (&to.file, topic) {
            (Some(path), _) => {
                let rows = to.offset.max(0) as u64;
                match inputs.files.iter_mut().rev().find(|f| f.path == *path) {
                    Some(file) => file.rows = rows,
                    None => inputs.files.push(FileRead { path: path.clone(), rows, state: state(Path::new(path)) }),
                }
            }
            (None, Some((topic, partition))) => {
                let offsets = inputs.offsets.entry(topic.to_string()).or_default().entry(partition).or_insert((from.offset, to.offset));
                offsets.1 = to.offset;
            }
            (None, None) => {}
        }
    }
}

struct Recorded {
    table: Arc<TableSpec>,
    source: Arc<dyn SourceTable>,
    record: Record,
}

struct RecordedFetcher {
    fetcher: Box<dyn Fetcher>,
    /// The table's topic, where it is one of Kafka.
    topic: Option<String>,
    splits: Vec<Split>,
    record: Record,
}

impl SourceTable for Recorded {
    fn is_bounded(&self) -> bool {
        self.source.is_bounded()
    }

    fn is_static(&self) -> bool {
        self.source.is_static()
    }

    fn open(&self, scan: &Scan, restore: Option<&[Split]>) -> Result<Box<dyn Fetcher>> {
        let fetcher = self.source.open(scan, restore)?;
        let is_kafka = self.table.options.get("connector").is_some_and(|c| c == "kafka");
        let topic = self.table.options.get("topic").filter(|_| is_kafka).cloned();
        let splits = fetcher.splits();
        Ok(Box::new(RecordedFetcher { fetcher, topic, splits, record: self.record.clone() }))
    }

    fn reader(&self, scan: &Scan) -> Result<Box<dyn RowReader>> {
        self.source.reader(scan)
    }
}

impl Fetcher for RecordedFetcher {
    fn splits(&self) -> Vec<Split> {
        self.fetcher.splits()
    }

    fn fetch(&mut self, limits: &BatchLimits, wait: Duration) -> Result<Fetched> {
        let fetched = self.fetcher.fetch(limits, wait)?;
        match &fetched {
            Fetched::Batch { split, position, .. } => {
                if let Some(known) = self.splits.get(*split) {
                    // One topic names its splits by partition, several by topic and partition.
                    let (topic, partition) =
                        known.id.rsplit_once(':').map_or((self.topic.as_deref(), known.id.as_str()), |(t, p)| (Some(t), p));
                    let place = topic.filter(|_| self.topic.is_some()).zip(partition.parse().ok());
                    self.record.read(place, &known.position, position);
                }
            }
            Fetched::SplitAdded(split) => self.splits.push(split.clone()),
            _ => {}
        }
        Ok(fetched)
    }

    fn checkpointed(&mut self, positions: &[Position]) {
        self.fetcher.checkpointed(positions);
    }
}

fn state(path: &Path) -> Option<(u64, SystemTime)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}
