//! One file of a source, read from any record on.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use flate2::read::MultiGzDecoder;

use super::options::FileOptions;
use crate::connectors::BatchLimits;
use crate::error::{Error, Result};
use crate::formats::parquet::ParquetRows;
use crate::formats::{FormatKind, Framer, Records};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 18;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The columns that a Parquet file is asked for.
pub struct Wanted<'a> {
    /// Columns of the files of the table.
    pub columns: &'a SchemaRef,
    /// The wanted ones.
    pub indices: &'a [usize],
    /// The session's zone.
    pub zone: chrono_tz::Tz,
}

/// A file that is being read.
pub enum OpenFile {
    /// Records with a framing.
    Text(TextFile),
    /// Parquet, and the rest of a batch that was larger than asked for.
    Parquet(Box<ParquetRows>, Option<RecordBatch>),
}

/// What [`OpenFile::next`] answers.
pub enum Next {
    /// Undecoded records.
    Records(Records),
    /// The wanted columns.
    Rows(RecordBatch),
}

impl OpenFile {
    /// Opens `path` behind its first `skip` records.
    ///
    /// # Errors
    /// User or External: the file cannot be read.
    pub fn open(path: &Path, skip: usize, wanted: &Wanted, options: &FileOptions, limits: &BatchLimits) -> Result<Self> {
        let file = File::open(path).map_err(|e| {
            Error::user(format!("'{}' cannot be read", path.display())).help("check that it exists and who may read it").caused_by(e)
        })?;
        match &options.format {
            FormatKind::Parquet(parquet) => {
                let shown = path.to_string_lossy();
                let rows = ParquetRows::open(parquet, file, &shown, wanted.columns, wanted.indices, wanted.zone, limits.rows, skip)?;
                Ok(Self::Parquet(Box::new(rows), None))
            }
            format => Ok(Self::Text(TextFile::new(path, file, skip + usize::from(options.csv_header), format.framer()?)?)),
        }
    }

    /// The next records within the limits; `None` at the end.
    ///
    /// # Errors
    /// External: the file cannot be read on.
    pub fn next(&mut self, limits: &BatchLimits) -> Result<Option<Next>> {
        match self {
            Self::Text(file) => Ok(file.next(limits)?.map(Next::Records)),
            Self::Parquet(rows, rest) => {
                let Some(batch) = rest.take().map(Ok).or_else(|| rows.find(|b| !matches!(b, Ok(b) if b.num_rows() == 0))).transpose()?
                else {
                    return Ok(None);
                };
                let now = batch.num_rows().min(limits.rows.max(1));
                *rest = (now < batch.num_rows()).then(|| batch.slice(now, batch.num_rows() - now));
                Ok(Some(Next::Rows(batch.slice(0, now))))
            }
        }
    }
}

/// A file of framed records, unpacked on the way where its name ends in `.gz`.
pub struct TextFile {
    path: std::path::PathBuf,
    input: Box<dyn Read + Send>,
    framer: Box<dyn Framer>,
    chunk: Vec<u8>,
    /// Framed records, of which those before `next` have been answered.
    framed: Records,
    next: usize,
    at_start: bool,
    at_end: bool,
}

impl TextFile {
    fn new(path: &Path, file: File, skip: usize, framer: Box<dyn Framer>) -> Result<Self> {
        let packed = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        let input: Box<dyn Read + Send> =
            if packed { Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, file))) } else { Box::new(file) };
        let chunk = vec![0; CHUNK_BYTES];
        let mut file =
            Self { path: path.to_path_buf(), input, framer, chunk, framed: Records::default(), next: 0, at_start: true, at_end: false };
        file.skip(skip)?;
        Ok(file)
    }

    /// Passes over `records` records without decoding them.
    fn skip(&mut self, mut records: usize) -> Result<()> {
        while records > 0 {
            let there = self.framed.len() - self.next;
            if there == 0 {
                if self.at_end {
                    return Ok(());
                }
                self.fill()?;
                continue;
            }
            let now = there.min(records);
            self.next += now;
            records -= now;
        }
        Ok(())
    }

    fn next(&mut self, limits: &BatchLimits) -> Result<Option<Records>> {
        let rows = limits.rows.max(1);
        while !self.at_end && self.framed.len() - self.next < rows && self.framed_bytes() < limits.bytes {
            self.fill()?;
        }
        let there = self.framed.len() - self.next;
        if there == 0 {
            return Ok(None);
        }
        let start = self.start_of(self.next);
        let fits = self.framed.ends[self.next..].partition_point(|end| end - start <= limits.bytes);
        let now = rows.min(there).min(fits.max(1));
        if self.next == 0 && now == there {
            return Ok(Some(std::mem::take(&mut self.framed)));
        }
        let end = self.framed.ends[self.next + now - 1];
        let mut records = Records { bytes: self.framed.bytes[start..end].to_vec(), ..Records::default() };
        records.ends.extend(self.framed.ends[self.next..self.next + now].iter().map(|e| e - start));
        self.next += now;
        Ok(Some(records))
    }

    /// Frames another chunk; answered records are forgotten first once they are the most.
    fn fill(&mut self) -> Result<()> {
        if self.next == self.framed.len() {
            self.framed.clear();
            self.next = 0;
        } else if self.next > self.framed.len() / 2 {
            let start = self.start_of(self.next);
            self.framed.bytes.drain(..start);
            self.framed.ends.drain(..self.next);
            self.framed.ends.iter_mut().for_each(|e| *e -= start);
            self.next = 0;
        }
        let mut read = 0;
        // The first chunk is read full, so that a byte order mark is seen whole.
        while read < self.chunk.len() {
            match self.input.read(&mut self.chunk[read..]) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.damaged(e)),
            }
        }
        let mut bytes = &self.chunk[..read];
        if std::mem::take(&mut self.at_start) {
            bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
        }
        self.framer.push(bytes, &mut self.framed);
        if read < self.chunk.len() {
            self.framer.finish(&mut self.framed);
            self.at_end = true;
        }
        Ok(())
    }

    fn start_of(&self, record: usize) -> usize {
        if record == 0 { 0 } else { self.framed.ends[record - 1] }
    }

    fn framed_bytes(&self) -> usize {
        self.framed.bytes.len() - self.start_of(self.next)
    }

    fn damaged(&self, e: std::io::Error) -> Error {
        use std::io::ErrorKind;
        let shown = self.path.display();
        match e.kind() {
            ErrorKind::UnexpectedEof => {
                Error::user(format!("'{shown}' ends in the middle of its compressed data")).help("copy the file again")
            }
            ErrorKind::InvalidData | ErrorKind::InvalidInput => Error::user(format!("'{shown}' is no gzip file, or a damaged one"))
                .caused_by(e)
                .help("a name that ends in .gz is read as gzip: copy the file again, or rename it where it is plain text"),
            _ => super::failed("cannot be read", &self.path, e),
        }
    }
}
