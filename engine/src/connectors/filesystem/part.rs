//! One file that is being written, in the staging folder.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

use super::failed;
use crate::error::{Error, Result};
use crate::formats::{Encoder, FormatKind, Records};
use crate::{crash, fault};

/// A file that takes rows.
pub struct Part {
    path: PathBuf,
    body: Body,
    /// Rows taken.
    pub rows: u64,
    /// When it was opened.
    pub opened: Instant,
}

enum Body {
    Text { out: BufWriter<File>, bytes: u64 },
    Parquet(Box<ArrowWriter<File>>),
}

impl Part {
    /// Creates `path`, whose folder is created with it.
    ///
    /// # Errors
    /// External: the place cannot be written.
    pub fn create(path: PathBuf, schema: &SchemaRef, format: &FormatKind) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| failed("cannot be created", folder, e))?;
        }
        let file = File::create(&path).map_err(|e| failed("cannot be written", &path, e))?;
        let body = match format {
            FormatKind::Parquet(options) => {
                let writer = options.writer(file, schema).map_err(|e| e.context(format!("'{}'", path.display())))?;
                Body::Parquet(Box::new(writer))
            }
            _ => Body::Text { out: BufWriter::with_capacity(1 << 16, file), bytes: 0 },
        };
        Ok(Self { path, body, rows: 0, opened: Instant::now() })
    }

    /// Appends rows. `encoder` and `scratch` belong to the writer and serve its text files.
    ///
    /// # Errors
    /// Data: a value that the format cannot express. External: the disk refused.
    pub fn write(&mut self, rows: &RecordBatch, encoder: Option<&mut Box<dyn Encoder>>, scratch: &mut Records) -> Result<()> {
        match &mut self.body {
            Body::Parquet(writer) => writer.write(rows).map_err(|e| parquet_failed(&self.path, e))?,
            Body::Text { out, bytes } => {
                scratch.clear();
                encoder.ok_or_else(|| Error::internal("a text file has no encoder"))?.encode(rows, scratch)?;
                for record in scratch.iter().flatten() {
                    out.write_all(record).and_then(|()| out.write_all(b"\n")).map_err(|e| failed("cannot be written", &self.path, e))?;
                    *bytes += record.len() as u64 + 1;
                }
            }
        }
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Bytes so far, of Parquet also those that are still in memory.
    pub fn bytes(&self) -> u64 {
        match &self.body {
            Body::Text { bytes, .. } => *bytes,
            Body::Parquet(writer) => (writer.bytes_written() + writer.in_progress_size()) as u64,
        }
    }

    /// Completes the file and makes it durable. Answers its size.
    ///
    /// # Errors
    /// External: the disk refused.
    pub fn close(self) -> Result<u64> {
        let path = self.path;
        match self.body {
            Body::Text { out, .. } => {
                let file = out.into_inner().map_err(|e| failed("cannot be written", &path, e.into_error()))?;
                make_durable(&file, &path)
            }
            Body::Parquet(mut writer) => {
                writer.finish().map_err(|e| parquet_failed(&path, e))?;
                make_durable(writer.inner(), &path)
            }
        }
    }
}

/// The size of a file that is whole, once it is on the disk.
fn make_durable(file: &File, path: &Path) -> Result<u64> {
    crash::at("filesystem.prepare.before-sync");
    if !fault::planted("skip-fsync") {
        file.sync_all().map_err(|e| failed("cannot be made durable", path, e))?;
    }
    crash::at("filesystem.prepare.after-sync");
    Ok(file.metadata().map_err(|e| failed("cannot be read", path, e))?.len())
}

/// Makes the names in `folder` durable.
///
/// # Errors
/// External: the disk refused.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed("cannot be made durable", folder, e))
}

fn parquet_failed(path: &Path, e: ParquetError) -> Error {
    match e {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(io) => failed("cannot be written", path, *io),
            Err(other) => Error::external(format!("'{}' cannot be written", path.display())).caused_by(other),
        },
        other => Error::external(format!("'{}' cannot be written", path.display())).caused_by(other),
    }
}
