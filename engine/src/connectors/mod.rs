//! The systems at both ends of a job, and the pact between them and the runtime.
//!
//! A table becomes a [`SourceTable`] or a [`SinkTable`] by its `connector` option ([`source`], [`sink`]).
//! No runtime types are in here: the runtime calls, connectors answer.
//!
//! **Sources.** One [`Fetcher`] per table runs on an I/O thread of its own and answers cheap raw batches
//! in the source's total order; several [`RowReader`]s (one per worker) turn them into columns. A split is
//! a Kafka partition, or the one sequence of a table's files. Positions are ours: they are in the
//! checkpoint, and a fetcher starts from them.
//!
//! **Sinks.** Each worker has a [`SinkWriter`]; the job has one [`Committer`] a table:
//!
//! ```text
//!  write … write │ prepare(e) ──▶ state durable in manifest e ──▶ commit(e)   (again after a crash)
//!      barrier e ┘   closes what must be whole, answers what commit needs
//! ```
//!
//! What must hold: nothing is visible before `commit`; `commit` is idempotent; what `prepare` answered is
//! enough to commit in another process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, nearest};
use crate::formats::{Decoded, Records};
use crate::stream::{Epoch, StreamBatch, Watermark};

/// A table as CREATE TABLE describes it to its connector. Computed columns are not part of it.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Name, as written.
    pub name: String,
    /// Physical columns in declared order, with their SQL types in the metadata. Partition keys included.
    pub physical: SchemaRef,
    /// Metadata columns in declared order.
    pub metadata: Vec<MetadataColumn>,
    /// PARTITIONED BY columns.
    pub partition_keys: Vec<String>,
    /// PRIMARY KEY columns.
    pub primary_key: Vec<String>,
    /// The WITH clause, after `--option`.
    pub options: BTreeMap<String, String>,
    /// `SET 'velosql.table.<name>.<key>'`: engine-only knobs by `<key>`, such as `csv-header`, `roll-rows`.
    pub knobs: BTreeMap<String, String>,
}

/// `c type METADATA [FROM 'key'] [VIRTUAL]`.
#[derive(Debug, Clone)]
pub struct MetadataColumn {
    /// Name and type of the column.
    pub field: FieldRef,
    /// Key of the metadata: FROM, else the column's name.
    pub key: String,
    /// Read only: not part of what INSERT writes.
    pub is_virtual: bool,
}

/// Which columns of a table a job wants. Readers answer batches of exactly [`Scan::schema`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scan {
    /// Indices into [`TableSpec::physical`], ascending.
    pub physical: Vec<usize>,
    /// Indices into [`TableSpec::metadata`], ascending.
    pub metadata: Vec<usize>,
}

impl Scan {
    /// All columns of `table`.
    pub fn all(table: &TableSpec) -> Self {
        Self { physical: (0..table.physical.fields().len()).collect(), metadata: (0..table.metadata.len()).collect() }
    }

    /// The columns answered: the wanted physical ones, then the wanted metadata ones.
    pub fn schema(&self, table: &TableSpec) -> SchemaRef {
        let physical = self.physical.iter().map(|i| table.physical.fields()[*i].clone());
        let metadata = self.metadata.iter().map(|i| table.metadata[*i].field.clone());
        Arc::new(Schema::new(physical.chain(metadata).collect::<Vec<_>>()))
    }
}

/// What connectors need of the process they run in.
#[derive(Debug, Clone)]
pub struct Context {
    /// Name of the job; output belongs to it.
    pub job: String,
    /// `table.local-time-zone`.
    pub zone: chrono_tz::Tz,
    /// Folder that relative paths start from.
    pub base: PathBuf,
    /// In-process tables of tests, by name.
    pub memory: memory::Hub,
}

/// How far a split has been read: the next record is at `offset` (of `file`, where there are files).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Path of the file that is being read; `None` for Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Kafka: next offset. Files: index of the next record in `file`. Generators: number of the next row.
    pub offset: i64,
}

/// One ordered part of a source, as a checkpoint keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Stable name within the table: `0` (one topic), `topic:0` (several), `files`.
    pub id: String,
    /// Where to go on.
    pub position: Position,
    /// Where the split ends (exclusive), fixed at the first start; `None`: unbounded, or ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
    /// The split has been read to its end.
    #[serde(default)]
    pub ended: bool,
}

/// Limits of one fetched batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Rows at most.
    pub rows: usize,
    /// Bytes at most (a single larger record still passes).
    pub bytes: usize,
    /// A batch that is not full is handed out after this time.
    pub latency: Duration,
}

/// What [`Fetcher::fetch`] answers.
#[derive(Debug)]
pub enum Fetched {
    /// Records of one split, in its order.
    Batch {
        /// Index into the splits, in order of their announcement.
        split: usize,
        /// The records.
        payload: Payload,
        /// The split's position behind these records.
        position: Position,
    },
    /// A new split, which gets the next index.
    SplitAdded(Split),
    /// The split has no more records.
    SplitEnded(usize),
    /// Nothing has arrived within the time given.
    Nothing,
    /// Every split has ended and none can be added.
    End,
}

/// Records on their way from the fetcher to a reader.
#[derive(Debug)]
pub enum Payload {
    /// Undecoded records, with what metadata columns need.
    Raw {
        /// The values.
        values: Records,
        /// What a metadata column or a key may ask for; shaped by the connector.
        envelope: Envelope,
    },
    /// Columns already ([`Scan::schema`]): Parquet files, generators.
    Rows(RecordBatch),
}

/// Per-record facts beside the value. Vectors are empty where they do not apply or were not asked for.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    /// Where the records come from: the topic, or the file's path.
    pub origin: Arc<str>,
    /// Kafka partition.
    pub partition: i32,
    /// Offset (Kafka) or index in the file, per record.
    pub offsets: Vec<i64>,
    /// Kafka timestamps in ms, per record.
    pub timestamps: Vec<i64>,
    /// Kafka timestamp types (0 none, 1 create time, 2 log append time), per record.
    pub timestamp_types: Vec<i8>,
    /// Kafka keys.
    pub keys: Records,
    /// Kafka headers, per record.
    pub headers: Vec<Vec<(String, Vec<u8>)>>,
    /// Kafka leader epochs, per record.
    pub leader_epochs: Vec<i32>,
    /// Size and modification time (ms) of the file.
    pub file: Option<(i64, i64)>,
}

/// A table read by a job.
pub trait SourceTable: Send + Sync {
    /// Whether the table ends by itself.
    fn is_bounded(&self) -> bool;

    /// Whether the table can be the static side of a join: read whole before the first stream row.
    fn is_static(&self) -> bool {
        false
    }

    /// Opens the fetcher: at `restore`, the splits of a checkpoint, else at the table's start mode.
    ///
    /// # Errors
    /// User: an absent topic or file. External: the system does not answer.
    fn open(&self, scan: &Scan, restore: Option<&[Split]>) -> Result<Box<dyn Fetcher>>;

    /// A reader of the wanted columns; one per worker.
    ///
    /// # Errors
    /// User: a format option that does not fit.
    fn reader(&self, scan: &Scan) -> Result<Box<dyn RowReader>>;
}

/// Fetches raw batches, in order, on an I/O thread.
pub trait Fetcher: Send {
    /// The splits known at opening.
    fn splits(&self) -> Vec<Split>;

    /// The next event; waits at most `wait`.
    ///
    /// # Errors
    /// External: the system failed after its retries. Data: records were deleted before they were read.
    fn fetch(&mut self, limits: &BatchLimits, wait: Duration) -> Result<Fetched>;

    /// A checkpoint with these positions (by split index) is durable: informative group offsets and the like.
    fn checkpointed(&mut self, _positions: &[Position]) {}
}

/// Turns payloads into columns.
pub trait RowReader: Send {
    /// Decodes `payload` to [`Scan::schema`]. [`Payload::Rows`] pass as they are.
    ///
    /// # Errors
    /// Internal only: bad records are in [`Decoded::rejected`].
    fn read(&mut self, payload: &Payload) -> Result<Decoded>;
}

/// Which row kinds a sink takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// `+I` only.
    AppendOnly,
    /// `+I`, `+U` and `-D` by primary key.
    Upsert,
    /// Every kind.
    Changelog,
}

/// A table written by a job.
pub trait SinkTable: Send + Sync {
    /// Which row kinds it takes.
    fn accepts(&self) -> Accepts;

    /// Whether its output outlives the job: such jobs checkpoint by default and keep state.
    fn is_durable(&self) -> bool;

    /// Whether one writer must see all rows, in arrival order (`roll-rows`, the terminal).
    fn single_writer(&self) -> bool {
        false
    }

    /// Writer number `index`. `kept` are rows that `prepare` asked to keep before the restart.
    ///
    /// # Errors
    /// User or External: the place cannot be written.
    fn writer(&self, index: usize, kept: Vec<RecordBatch>) -> Result<Box<dyn SinkWriter>>;

    /// The committer.
    ///
    /// # Errors
    /// User or External: the place cannot be written.
    fn committer(&self) -> Result<Box<dyn Committer>>;
}

/// Writes one worker's rows.
pub trait SinkWriter: Send {
    /// Takes rows (columns of the sink's physical and writable metadata columns, in that order).
    ///
    /// # Errors
    /// Data: a value that cannot be written. External: the system failed.
    fn write(&mut self, batch: &StreamBatch) -> Result<()>;

    /// No later row is below `watermark` (partition-time commits).
    fn watermark(&mut self, _watermark: Watermark) {}

    /// Ends the epoch: everything written so far is durable, and what commit needs is answered. `last`
    /// is true when the inputs have ended: nothing may be kept back.
    ///
    /// # Errors
    /// External: flushing failed.
    fn prepare(&mut self, epoch: Epoch, last: bool) -> Result<Prepared>;
}

/// What a writer has ready at a barrier.
#[derive(Debug, Default)]
pub struct Prepared {
    /// What commit needs; in the manifest.
    pub pending: Option<serde_json::Value>,
    /// Rows that are not ready to be written (the rest of `roll-rows`); in the checkpoint's state.
    pub kept: Vec<RecordBatch>,
}

/// Publishes what writers prepared.
pub trait Committer: Send {
    /// Before the first row: completes the commit of the restored `epoch` (its `pending`), and removes what
    /// was staged after it. With `None` the job starts fresh: refuses an output that belongs to another job.
    ///
    /// # Errors
    /// User: the output belongs to another job. External: the place cannot be written.
    fn recover(&mut self, epoch: Option<Epoch>, pending: &[serde_json::Value]) -> Result<()>;

    /// Publishes `epoch`. Idempotent.
    ///
    /// # Errors
    /// External: the system failed after its retries.
    fn commit(&mut self, epoch: Epoch, pending: &[serde_json::Value]) -> Result<()>;

    /// `--fresh`: removes exactly what this job has committed. Answers a warning where it cannot.
    ///
    /// # Errors
    /// External: a file cannot be removed.
    fn remove_committed(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

/// The table that `spec` describes, to be read.
///
/// # Errors
/// User: no such connector, one that cannot be read, or an option that does not fit.
pub fn source(spec: &TableSpec, ctx: &Context) -> Result<Arc<dyn SourceTable>> {
    match connector(spec)? {
        "filesystem" => filesystem::source(spec, ctx),
        "kafka" => kafka::source(spec, ctx),
        "datagen" => datagen::source(spec),
        "memory" => memory::source(spec, ctx),
        name @ ("print" | "blackhole") => {
            let e = Error::user(format!("table '{}' cannot be read: the connector '{name}' only takes rows", spec.name));
            Err(e.help("read from a table with the connector kafka, filesystem or datagen"))
        }
        name => Err(unknown(spec, name)),
    }
}

/// The table that `spec` describes, to be written.
///
/// # Errors
/// User: no such connector, one that cannot be written, or an option that does not fit.
pub fn sink(spec: &TableSpec, ctx: &Context) -> Result<Arc<dyn SinkTable>> {
    match connector(spec)? {
        "filesystem" => filesystem::sink(spec, ctx),
        "kafka" => kafka::sink(spec, ctx),
        "print" => print::sink(spec, ctx),
        "blackhole" => blackhole::sink(spec),
        "memory" => memory::sink(spec, ctx),
        "datagen" => {
            let e = Error::user(format!("table '{}' cannot be written: the connector 'datagen' only makes rows", spec.name));
            Err(e.help("write to a table with the connector kafka, filesystem, print or blackhole"))
        }
        name => Err(unknown(spec, name)),
    }
}

/// What a user should know of a table's options although nothing is wrong: tuning that has no meaning here.
///
/// # Errors
/// User: an option that does not fit.
pub fn notes(spec: &TableSpec, is_sink: bool) -> Result<Vec<String>> {
    if connector(spec)? == "kafka" { kafka::notes(spec, is_sink) } else { Ok(Vec::new()) }
}

/// All connectors, for messages and completion.
pub const CONNECTORS: &[&str] = &["blackhole", "datagen", "filesystem", "kafka", "memory", "print"];

fn connector(spec: &TableSpec) -> Result<&str> {
    spec.options.get("connector").map(String::as_str).ok_or_else(|| {
        Error::user(format!("table '{}' has no option 'connector'", spec.name))
            .help(format!("add 'connector' = '…' to its WITH clause; there are {}", CONNECTORS.join(", ")))
    })
}

fn unknown(spec: &TableSpec, name: &str) -> Error {
    let e = Error::user(format!("table '{}' has an unknown connector '{name}'", spec.name));
    match nearest(name, CONNECTORS.iter().copied()) {
        Some(n) => e.help(format!("did you mean '{n}'?")),
        None => e.help(format!("there are {}", CONNECTORS.join(", "))),
    }
}

pub mod blackhole;
pub mod datagen;
pub mod filesystem;
pub mod kafka;
pub mod memory;
pub mod metadata;
pub mod print;
