//! The sink's writers: rows go to files in the staging folder, one open file a partition.
//!
//! A file is closed when it is large or old enough, and at every barrier. With `roll-rows` one writer collects
//! rows in arrival order and writes a file of exactly so many; what is left over at a barrier is handed back as
//! rows, to be kept in the checkpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute;
use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::commit::FileCommitter;
use super::options::FileOptions;
use super::part::{self, Part};
use super::partition::Partitioner;
use super::{batch, listing};
use crate::connectors::{Accepts, Committer, Context, Prepared, SinkTable, SinkWriter, TableSpec};
use crate::error::{Error, Result};
use crate::formats::{Encoder, FormatKind, Records};
use crate::stream::{Epoch, StreamBatch, Watermark};

/// Open files of one writer at most: beyond it all are closed.
const OPEN_FILES_MAX: usize = 256;

/// What a sink's writers and its committer share.
#[derive(Debug)]
pub struct Place {
    /// The options.
    pub options: FileOptions,
    /// The job that owns the output.
    pub job: String,
    /// The job's name in file names.
    pub job_in_names: String,
}

impl Place {
    /// The folder of files that are not yet visible.
    pub fn staging(&self) -> PathBuf {
        self.options.path.join(format!(".staging-{}", self.job_in_names))
    }

    /// The folder of commit entries.
    pub fn commits(&self) -> PathBuf {
        self.options.path.join("_commits")
    }

    fn extension(&self) -> &str {
        match &self.options.format {
            FormatKind::Raw(_) => "txt",
            format => format.name(),
        }
    }
}

/// What a writer hands to the committer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Pending {
    /// The files.
    pub files: Vec<PendingFile>,
    /// The writer's watermark, where partitions are committed by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// The inputs have ended.
    #[serde(default)]
    pub last: bool,
    /// Each file is a commit entry of its own (`roll-rows`).
    #[serde(default)]
    pub entry_per_file: bool,
}

/// A complete file in the staging folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingFile {
    /// Its name in the staging folder.
    pub staged: String,
    /// Its path below the table's, `/` between.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// A filesystem table as a sink.
pub struct FileSink {
    place: Arc<Place>,
    /// Columns of a file: the table's without the partition columns.
    schema: SchemaRef,
    keys: Vec<usize>,
    data: Vec<usize>,
    zone: chrono_tz::Tz,
}

impl FileSink {
    /// Reads the options.
    ///
    /// # Errors
    /// User: an option that does not fit.
    pub fn new(spec: &TableSpec, ctx: &Context) -> Result<Self> {
        let options = FileOptions::read(spec, ctx)?;
        if listing::is_glob(&options.path) && !options.path.exists() {
            return Err(
                Error::user(format!("{}: '{}' is a glob and cannot be written", options.owner, options.written)).help("give a folder")
            );
        }
        if options.path.is_file() {
            return Err(Error::user(format!("{}: '{}' is a file", options.owner, options.path.display())).help("give a folder"));
        }
        let keys: Vec<usize> =
            spec.partition_keys.iter().map(|k| spec.physical.index_of(k)).collect::<Result<_, _>>().map_err(Error::from)?;
        let data: Vec<usize> = (0..spec.physical.fields().len()).filter(|i| !keys.contains(i)).collect();
        let schema = Arc::new(Schema::new(spec.physical.project(&data)?.fields));
        let mut job_in_names = String::new();
        for c in ctx.job.chars() {
            job_in_names.push(if c.is_alphanumeric() || "_.-".contains(c) { c } else { '-' });
        }
        let place = Place { options, job: ctx.job.clone(), job_in_names };
        Ok(Self { place: Arc::new(place), schema, keys, data, zone: ctx.zone })
    }
}

impl SinkTable for FileSink {
    fn accepts(&self) -> Accepts {
        Accepts::AppendOnly
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn single_writer(&self) -> bool {
        self.place.options.roll_rows.is_some()
    }

    fn writer(&self, index: usize, kept: Vec<RecordBatch>) -> Result<Box<dyn SinkWriter>> {
        let options = &self.place.options;
        let encoder = match &options.format {
            FormatKind::Parquet(_) => None,
            format => Some(format.encoder(&self.schema, self.zone)?),
        };
        let partitioner = Partitioner::new(self.keys.clone(), self.data.clone(), options.default_partition.clone(), self.zone);
        let files = Files {
            place: self.place.clone(),
            schema: self.schema.clone(),
            index,
            encoder,
            scratch: Records::default(),
            staged: 0,
            closed: vec![],
        };
        Ok(match options.roll_rows {
            Some(rows) => {
                let mut writer = RollRows { files, per_file: rows, held_rows: 0, held: vec![] };
                for batch in kept {
                    writer.write(&StreamBatch::new(batch))?;
                }
                Box::new(writer)
            }
            None => {
                let mut writer = PartitionWriter { files, partitioner, open: BTreeMap::new(), watermark: Watermark::MIN };
                for batch in kept {
                    writer.write(&StreamBatch::new(batch))?;
                }
                Box::new(writer)
            }
        })
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        Ok(Box::new(FileCommitter::new(self.place.clone())))
    }
}

/// The files of one writer.
struct Files {
    place: Arc<Place>,
    schema: SchemaRef,
    index: usize,
    encoder: Option<Box<dyn Encoder>>,
    scratch: Records,
    /// Files opened so far in this process.
    staged: u64,
    /// Closed since the last barrier: staged name, folder, rows, bytes.
    closed: Vec<(String, String, u64, u64)>,
}

/// A file and its name in the staging folder.
struct OpenPart {
    name: String,
    part: Part,
}

impl Files {
    fn open(&mut self) -> Result<OpenPart> {
        // Unique in the staging folder: it is cleared before the first row of a process.
        let name = format!("{}-{}.{}", self.index, self.staged, self.place.extension());
        self.staged += 1;
        let part = Part::create(self.place.staging().join(&name), &self.schema, &self.place.options.format)?;
        Ok(OpenPart { name, part })
    }

    fn write(&mut self, open: &mut OpenPart, rows: &RecordBatch) -> Result<()> {
        open.part.write(&self.declared(rows)?, self.encoder.as_mut(), &mut self.scratch)
    }

    /// `rows` with the declared schema: the planner's columns may carry other nullability or metadata.
    fn declared(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        batch(self.schema.clone(), rows.columns().to_vec(), rows.num_rows())
            .map_err(|e| Error::data(format!("{}: rows do not fit the declared columns", self.place.options.owner)).caused_by(e))
    }

    fn close(&mut self, folder: String, open: OpenPart) -> Result<()> {
        let rows = open.part.rows;
        let bytes = open.part.close()?;
        self.closed.push((open.name, folder, rows, bytes));
        Ok(())
    }

    /// The closed files under their final names.
    fn take(&mut self, epoch: Epoch) -> Result<Vec<PendingFile>> {
        if self.closed.is_empty() {
            return Ok(vec![]);
        }
        part::sync_folder(&self.place.staging())?;
        let (job, extension) = (&self.place.job_in_names, self.place.extension());
        let files = self.closed.drain(..).enumerate().map(|(n, (staged, folder, rows, bytes))| {
            // Padded: path order, which is how a reader takes a folder's files, is the order of commits.
            let name = format!("part-{job}-{:012}-{}-{n:06}.{extension}", epoch.0, self.index);
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            PendingFile { staged, path, rows, bytes }
        });
        Ok(files.collect())
    }
}

/// Writes each partition's rows to its open file.
struct PartitionWriter {
    files: Files,
    partitioner: Partitioner,
    open: BTreeMap<String, OpenPart>,
    watermark: Watermark,
}

impl SinkWriter for PartitionWriter {
    fn write(&mut self, batch: &StreamBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        for (folder, rows) in self.partitioner.split(&batch.rows)? {
            let mut open = match self.open.remove(&folder) {
                Some(open) => open,
                None => self.files.open()?,
            };
            self.files.write(&mut open, &rows)?;
            let options = &self.files.place.options;
            if open.part.bytes() >= options.roll_bytes || open.part.opened.elapsed() >= options.roll_after {
                self.files.close(folder, open)?;
            } else {
                self.open.insert(folder, open);
            }
        }
        if self.open.len() > OPEN_FILES_MAX {
            self.close_all()?;
        }
        Ok(())
    }

    fn watermark(&mut self, watermark: Watermark) {
        self.watermark = watermark;
    }

    fn prepare(&mut self, epoch: Epoch, last: bool) -> Result<Prepared> {
        self.close_all()?;
        let files = self.files.take(epoch)?;
        let options = &self.files.place.options;
        let watermark = options.commits_by_watermark().then_some(self.watermark.0);
        // A policy is told of every barrier: a partition can be complete long after its last file.
        if files.is_empty() && options.policy.is_none() {
            return Ok(Prepared::default());
        }
        let pending = Pending { files, watermark, last, entry_per_file: false };
        Ok(Prepared { pending: Some(to_json(&pending)?), kept: vec![] })
    }
}

impl PartitionWriter {
    fn close_all(&mut self) -> Result<()> {
        for (folder, open) in std::mem::take(&mut self.open) {
            self.files.close(folder, open)?;
        }
        Ok(())
    }
}

/// Writes files of exactly `per_file` rows in arrival order.
struct RollRows {
    files: Files,
    per_file: usize,
    held: Vec<RecordBatch>,
    held_rows: usize,
}

impl SinkWriter for RollRows {
    fn write(&mut self, batch: &StreamBatch) -> Result<()> {
        self.held.push(self.files.declared(&batch.rows)?);
        self.held_rows += batch.num_rows();
        while self.held_rows >= self.per_file {
            self.flush(self.per_file)?;
        }
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch, last: bool) -> Result<Prepared> {
        if last {
            while self.held_rows > 0 {
                self.flush(self.per_file.min(self.held_rows))?;
            }
        }
        if self.held.len() > 1 {
            // One batch instead of many small slices, which would pin the batches they are cut from.
            self.held = vec![compute::concat_batches(&self.held[0].schema(), &self.held)?];
        }
        let files = self.files.take(epoch)?;
        let pending = Pending { files, last, entry_per_file: true, watermark: None };
        let pending = if pending.files.is_empty() { None } else { Some(to_json(&pending)?) };
        Ok(Prepared { pending, kept: self.held.iter().filter(|b| b.num_rows() > 0).cloned().collect() })
    }
}

impl RollRows {
    /// Writes the oldest `rows` rows as one file.
    fn flush(&mut self, rows: usize) -> Result<()> {
        let mut open = self.files.open()?;
        let mut left = rows;
        let mut held = std::mem::take(&mut self.held).into_iter();
        for batch in held.by_ref() {
            let now = left.min(batch.num_rows());
            self.files.write(&mut open, &batch.slice(0, now))?;
            left -= now;
            if now < batch.num_rows() {
                self.held.push(batch.slice(now, batch.num_rows() - now));
            }
            if left == 0 {
                break;
            }
        }
        self.held.extend(held);
        self.held_rows -= rows;
        self.files.close(String::new(), open)
    }
}

fn to_json(pending: &Pending) -> Result<serde_json::Value> {
    serde_json::to_value(pending).map_err(|e| Error::internal("a pending commit cannot be kept").caused_by(e))
}
