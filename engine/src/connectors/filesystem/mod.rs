//! `'connector' = 'filesystem'`: files of CSV, JSON lines or Parquet as a table, in both directions.
//!
//! ```text
//! path/                            the table
//!   k1=v1/k2=v2/part-<job>-<epoch>-<writer>-<n>.parquet
//!   k1=v1/k2=v2/_SUCCESS           the partition has been committed
//!   _commits/<epoch>-<n>.json      what each commit has added, in order
//!   .staging-<job>/                files that no reader sees yet
//! ```
//!
//! Names that start with `.` or `_` are never read as data. What must hold: a visible file is complete and
//! stays; a file becomes visible by one rename within one file system; what a restarted job finds in its
//! staging folder is either published (the checkpoint lists it) or removed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use super::{Context, SinkTable, SourceTable, TableSpec};
use crate::error::{Error, Result};

mod commit;
mod committed;
mod listing;
mod options;
mod part;
mod partition;
mod partition_commit;
mod read;
mod sink;
mod source;

/// The table as a source.
///
/// # Errors
/// User: an option that does not fit, or a path with nothing at it.
pub fn source(spec: &TableSpec, ctx: &Context) -> Result<Arc<dyn SourceTable>> {
    Ok(Arc::new(source::FileSource::new(spec, ctx)?))
}

/// The table as a sink.
///
/// # Errors
/// User: an option that does not fit.
pub fn sink(spec: &TableSpec, ctx: &Context) -> Result<Arc<dyn SinkTable>> {
    Ok(Arc::new(sink::FileSink::new(spec, ctx)?))
}

pub use committed::{Commit, commits, made_of};
pub use options::MAY_COME;

/// The local path that `path` means, from `base` where it is relative.
fn local(path: &str, base: &Path, owner: &str) -> Result<PathBuf> {
    let path = match path.split_once("://") {
        None => path.strip_prefix("file:").unwrap_or(path),
        Some(("file", rest)) => rest.strip_prefix("localhost").unwrap_or(rest),
        Some((scheme, _)) => {
            let e = Error::user(format!("{owner}: files at '{scheme}://' are not yet supported"));
            return Err(e.help("give a path on this machine"));
        }
    };
    Ok(base.join(path))
}

/// Columns with a number of rows, also where there is no column.
fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

/// An outside failure at `path`: what could not be done, and why.
fn failed(what: &str, path: &Path, cause: std::io::Error) -> Error {
    use std::io::ErrorKind;
    let e = Error::external(format!("'{}' {what}", path.display()));
    let e = match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => e.help("make room on this disk; the job goes on from its last checkpoint"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => e.help("check who may write there"),
        _ => e,
    };
    e.caused_by(cause)
}

#[cfg(test)]
mod tests;
