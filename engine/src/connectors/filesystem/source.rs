//! The source: all files of the table as one sequence, in path order.
//!
//! With `source.monitor-interval` the table never ends: its folder is looked at again and again, and files are
//! read in the order of their modification. A file should appear whole, by a rename: what is in it when its
//! turn comes is what is read of it. A checkpoint knows the file that was being read, not all before it: one
//! that is moved in with an older modification time while no job runs is taken for read.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array};
use arrow::compute;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};

use super::listing::{self, FileEntry};
use super::options::FileOptions;
use super::read::{Next, OpenFile, Wanted};
use super::{batch, partition};
use crate::connectors::{
    BatchLimits, Context, Envelope, Fetched, Fetcher, Payload, Position, RowReader, Scan, SourceTable, Split, TableSpec, metadata,
};
use crate::error::{Error, Result};
use crate::formats::{Decoded, Decoder, FormatKind};

const METADATA: &[&str] = &["file.path", "file.name", "file.size", "file.modification-time"];

/// A filesystem table as a source.
pub struct FileSource {
    shared: Arc<Shared>,
}

struct Shared {
    spec: TableSpec,
    options: FileOptions,
    zone: chrono_tz::Tz,
    /// Columns of a file: the table's without the partition columns.
    of_file: SchemaRef,
}

impl FileSource {
    /// Reads the options and looks whether there is something to read.
    ///
    /// # Errors
    /// User: an option that does not fit, or a path with nothing at it.
    pub fn new(spec: &TableSpec, ctx: &Context) -> Result<Self> {
        metadata::check(spec, METADATA)?;
        let options = FileOptions::read(spec, ctx)?;
        // What a job of the same run writes is looked for when it is read.
        if !options.may_come {
            listing::list(&options)?;
        }
        let of_file: Vec<FieldRef> = spec.physical.fields().iter().filter(|f| !spec.partition_keys.contains(f.name())).cloned().collect();
        let shared = Shared { spec: spec.clone(), options, zone: ctx.zone, of_file: Arc::new(Schema::new(of_file)) };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl SourceTable for FileSource {
    fn is_bounded(&self) -> bool {
        self.shared.options.monitor_interval.is_none()
    }

    fn is_static(&self) -> bool {
        self.is_bounded()
    }

    fn open(&self, scan: &Scan, restore: Option<&[Split]>) -> Result<Box<dyn Fetcher>> {
        let split = match restore {
            Some([split]) => split.clone(),
            Some(other) if !other.is_empty() => {
                return Err(Error::state(format!("{}: a checkpoint with {} splits", self.shared.options.owner, other.len())));
            }
            _ => Split { id: "files".to_string(), position: Position::default(), end: None, ended: false },
        };
        let mut fetcher = FileFetcher {
            assembler: Assembler::new(self.shared.clone(), scan),
            shared: self.shared.clone(),
            waiting: VecDeque::new(),
            seen: BTreeSet::new(),
            current: None,
            looked: None,
            reported_end: split.ended,
            split,
        };
        fetcher.look()?;
        fetcher.go_on()?;
        Ok(Box::new(fetcher))
    }

    fn reader(&self, scan: &Scan) -> Result<Box<dyn RowReader>> {
        let assembler = Assembler::new(self.shared.clone(), scan);
        let decoder = match &self.shared.options.format {
            FormatKind::Parquet(_) => None,
            format => Some(format.decoder(&self.shared.of_file, &assembler.wanted_of_file, self.shared.zone)?),
        };
        Ok(Box::new(FileReader { decoder, assembler }))
    }
}

struct FileFetcher {
    shared: Arc<Shared>,
    assembler: Assembler,
    split: Split,
    /// Files to be read, in order.
    waiting: VecDeque<FileEntry>,
    /// Every file that has been found.
    seen: BTreeSet<PathBuf>,
    current: Option<Current>,
    looked: Option<Instant>,
    reported_end: bool,
}

/// The file that is being read.
struct Current {
    entry: FileEntry,
    origin: Arc<str>,
    /// Index of the next record.
    record: usize,
    /// Opened with the first batch, whose limits it needs.
    file: Option<OpenFile>,
}

impl Current {
    fn new(entry: FileEntry, record: usize) -> Self {
        let origin = entry.path.to_string_lossy().into();
        Self { entry, origin, record, file: None }
    }
}

impl FileFetcher {
    /// Finds the files that are new since the last look.
    fn look(&mut self) -> Result<()> {
        self.looked = Some(Instant::now());
        let mut found = listing::list(&self.shared.options)?;
        found.retain(|f| !self.seen.contains(&f.path));
        if self.shared.options.monitor_interval.is_some() {
            found.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
        }
        self.seen.extend(found.iter().map(|f| f.path.clone()));
        self.waiting.extend(found);
        Ok(())
    }

    /// Drops what a checkpoint has read already.
    fn go_on(&mut self) -> Result<()> {
        let Position { file: Some(file), offset } = &self.split.position else { return Ok(()) };
        let Some(at) = self.waiting.iter().position(|f| f.path.as_os_str() == file.as_str()) else {
            let e = Error::state(format!("{}: '{file}', which the last checkpoint was reading, is gone", self.shared.options.owner));
            return Err(e.help("put the file back, or start again with --fresh"));
        };
        let record = usize::try_from(*offset).map_err(|_| Error::state(format!("position {offset} in '{file}' is no record")))?;
        self.waiting.drain(..at);
        self.current = self.waiting.pop_front().map(|entry| Current::new(entry, record));
        Ok(())
    }

    /// The next batch; `None` when no file has more.
    fn batch(&mut self, limits: &BatchLimits) -> Result<Option<Fetched>> {
        loop {
            if self.current.is_none() {
                let Some(entry) = self.waiting.pop_front() else { return Ok(None) };
                self.current = Some(Current::new(entry, 0));
            }
            let current = self.current.as_mut().expect("set above");
            let file = match &mut current.file {
                Some(file) => file,
                None => {
                    let wanted = Wanted { columns: &self.shared.of_file, indices: &self.assembler.wanted_of_file, zone: self.shared.zone };
                    let file = OpenFile::open(&current.entry.path, current.record, &wanted, &self.shared.options, limits)?;
                    current.file.insert(file)
                }
            };
            let Some(next) = file.next(limits)? else {
                self.current = None;
                continue;
            };
            let mut envelope = Envelope {
                origin: current.origin.clone(),
                file: Some((i64::try_from(current.entry.bytes).unwrap_or(i64::MAX), current.entry.modified)),
                ..Envelope::default()
            };
            let (payload, records) = match next {
                Next::Rows(rows) => {
                    let records = rows.num_rows();
                    (Payload::Rows(self.assembler.assemble(rows, &envelope)?), records)
                }
                Next::Records(values) => {
                    let records = values.len();
                    envelope.offsets = (current.record..current.record + records).map(|i| i as i64).collect();
                    (Payload::Raw { values, envelope }, records)
                }
            };
            current.record += records;
            let position = Position { file: Some(current.origin.to_string()), offset: current.record as i64 };
            self.split.position = position.clone();
            return Ok(Some(Fetched::Batch { split: 0, payload, position }));
        }
    }
}

impl Fetcher for FileFetcher {
    fn splits(&self) -> Vec<Split> {
        vec![self.split.clone()]
    }

    fn fetch(&mut self, limits: &BatchLimits, wait: Duration) -> Result<Fetched> {
        if self.reported_end {
            return Ok(Fetched::End);
        }
        let until = Instant::now() + wait;
        loop {
            if let Some(fetched) = self.batch(limits)? {
                return Ok(fetched);
            }
            let Some(interval) = self.shared.options.monitor_interval else {
                self.reported_end = true;
                self.split.ended = true;
                return Ok(Fetched::SplitEnded(0));
            };
            let now = Instant::now();
            let next_look = self.looked.map_or(now, |l| l + interval);
            if now >= next_look {
                self.look()?;
                if !self.waiting.is_empty() {
                    continue;
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Fetched::Nothing);
            }
            std::thread::sleep(left.min(interval));
        }
    }
}

struct FileReader {
    decoder: Option<Box<dyn Decoder>>,
    assembler: Assembler,
}

impl RowReader for FileReader {
    fn read(&mut self, payload: &Payload) -> Result<Decoded> {
        let (values, envelope) = match payload {
            Payload::Rows(batch) => return Ok(Decoded { batch: batch.clone(), origin: None, rejected: vec![], nulled_values: 0 }),
            Payload::Raw { values, envelope } => (values, envelope),
        };
        let decoder = self.decoder.as_mut().ok_or_else(|| Error::internal("undecoded records of a Parquet table"))?;
        let mut decoded = decoder.decode(values)?;
        decoded.batch = self.assembler.assemble(decoded.batch, envelope)?;
        Ok(decoded)
    }
}

/// Puts the columns of a file, the partition columns in its path and its metadata together.
struct Assembler {
    shared: Arc<Shared>,
    /// What is answered.
    schema: SchemaRef,
    /// What is wanted of the file, as indices into its columns.
    wanted_of_file: Vec<usize>,
    parts: Vec<Column>,
    /// The values, one each, of the columns that are the same for the whole file, and which file that is.
    constants: Option<(Arc<str>, Vec<Option<ArrayRef>>)>,
}

enum Column {
    OfFile,
    Partition(FieldRef),
    Metadata(String, FieldRef),
}

impl Assembler {
    fn new(shared: Arc<Shared>, scan: &Scan) -> Self {
        let spec = &shared.spec;
        let mut parts = Vec::new();
        let mut wanted_of_file = Vec::new();
        for i in &scan.physical {
            let field = &spec.physical.fields()[*i];
            match shared.of_file.index_of(field.name()) {
                Ok(at) => {
                    wanted_of_file.push(at);
                    parts.push(Column::OfFile);
                }
                Err(_) => parts.push(Column::Partition(field.clone())),
            }
        }
        parts.extend(scan.metadata.iter().map(|i| Column::Metadata(spec.metadata[*i].key.clone(), spec.metadata[*i].field.clone())));
        let schema = scan.schema(spec);
        Self { schema, wanted_of_file, parts, constants: None, shared }
    }

    fn assemble(&mut self, of_file: RecordBatch, envelope: &Envelope) -> Result<RecordBatch> {
        if self.parts.iter().all(|p| matches!(p, Column::OfFile)) {
            return Ok(of_file);
        }
        let rows = of_file.num_rows();
        if self.constants.as_ref().is_none_or(|(origin, _)| *origin != envelope.origin) {
            let default_name = &self.shared.options.default_partition;
            let values = self.parts.iter().map(|part| match part {
                Column::OfFile => Ok(None),
                Column::Partition(field) => partition::value_in_path(Path::new(&*envelope.origin), field, default_name).map(Some),
                Column::Metadata(key, field) => metadata::cast(fact(key, envelope), field).map(Some),
            });
            self.constants = Some((envelope.origin.clone(), values.collect::<Result<_>>()?));
        }
        let (_, constants) = self.constants.as_ref().expect("set above");
        let first = UInt32Array::from(vec![0; rows]);
        let mut of_file = of_file.columns().iter().cloned();
        let columns = constants.iter().map(|constant| match constant {
            None => of_file.next().ok_or_else(|| Error::internal("a decoder answered too few columns")),
            Some(value) => Ok(compute::take(value, &first, None)?),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        batch(self.schema.clone(), columns, rows).map_err(|e| {
            Error::user(format!("'{}' does not fit the declared columns", envelope.origin))
                .help("a column that has NULLs, or is missing in a file, must not be declared NOT NULL")
                .caused_by(e)
        })
    }
}

/// One fact about a file, as an array of one value.
fn fact(key: &str, envelope: &Envelope) -> ArrayRef {
    let (bytes, modified) = envelope.file.unwrap_or_default();
    match key {
        "file.size" => Arc::new(Int64Array::from(vec![bytes])),
        "file.modification-time" => Arc::new(TimestampMillisecondArray::from(vec![modified]).with_timezone(crate::stream::types::UTC)),
        "file.name" => {
            let name = Path::new(&*envelope.origin).file_name().map(|n| n.to_string_lossy().into_owned());
            Arc::new(StringArray::from(vec![name]))
        }
        _ => Arc::new(StringArray::from(vec![&*envelope.origin])),
    }
}
