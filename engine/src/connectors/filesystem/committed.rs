//! What a table's `_commits/` say: which files came together, and in which order. What training follows.

use std::path::PathBuf;

use super::commit::read_entries;
use super::options::{FILES, FileOptions};
use crate::connectors::{Context, TableSpec};
use crate::error::{Error, Result};

/// Files that became visible together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Name of the entry.
    pub name: String,
    /// The files, with rows and bytes.
    pub files: Vec<(PathBuf, u64, u64)>,
}

/// The commits of the table that `spec` describes, in their order; none where nothing has been committed.
///
/// # Errors
/// User: the path is a glob, or a file among the entries is none. External: the folder cannot be read.
pub fn commits(spec: &TableSpec, ctx: &Context) -> Result<Vec<Commit>> {
    let options = FileOptions::read(spec, ctx)?;
    if super::listing::is_glob(&options.path) && !options.path.exists() {
        return Err(Error::user(format!("{}: '{}' is no folder that a job commits to", options.owner, options.written))
            .help("give the folder that the job writes, without *, ? or [ in it"));
    }
    let commit = |(path, entry): (PathBuf, super::commit::CommitEntry)| Commit {
        name: path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        files: entry.files.into_iter().map(|f| (options.path.join(f.path), f.rows, f.bytes)).collect(),
    };
    Ok(read_entries(&options.path.join("_commits"))?.into_iter().map(commit).collect())
}

/// The same table, made of exactly these files in this order.
pub fn made_of(spec: &TableSpec, files: &[PathBuf]) -> TableSpec {
    let list = files.iter().map(|f| serde_json::Value::from(f.to_string_lossy().into_owned())).collect::<Vec<_>>();
    let mut spec = spec.clone();
    spec.knobs.insert(FILES.to_string(), serde_json::Value::from(list).to_string());
    spec
}
