//! The sink's committer: renames, commit entries, partition commits, and what a restart finds.
//!
//! ```text
//!   staged, durable ─▶ rename each ─▶ sync folders ─▶ entry in _commits/ ─▶ _SUCCESS of complete partitions
//! ```
//!
//! Every step can be repeated: a file that is no longer staged must lie at its place, an entry is written whole
//! under its final name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failed;
use super::listing::is_hidden;
use super::part::sync_folder;
use super::sink::{Pending, PendingFile, Place};
use crate::connectors::Committer;
use crate::crash;
use crate::error::{Error, Result};
use crate::stream::Epoch;

/// One entry of `_commits/`: files that became visible together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitEntry {
    /// The job.
    pub job: String,
    /// Its epoch.
    pub epoch: u64,
    /// The files.
    pub files: Vec<CommittedFile>,
}

/// A file of a [`CommitEntry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedFile {
    /// Path below the table's, `/` between.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// The committer of one table.
pub struct FileCommitter {
    place: Arc<Place>,
    /// Partitions that are not complete, with the time (ms) they were first seen.
    open: BTreeMap<String, i64>,
}

impl FileCommitter {
    /// A committer; nothing is touched before [`Committer::recover`].
    pub fn new(place: Arc<Place>) -> Self {
        Self { place, open: BTreeMap::new() }
    }

    /// Refuses a folder that holds anything visible, or that another job is filling.
    fn check_empty(&self) -> Result<()> {
        let (root, owner) = (&self.place.options.path, &self.place.options.owner);
        let Some(names) = names(root)? else { return Ok(()) };
        let entries = read_entries(&self.place.commits())?;
        let ours = self.place.staging();
        for name in &names {
            let path = root.join(name);
            if let Some(other) = name.strip_prefix(".staging-").filter(|_| path != ours) {
                let e = Error::user(format!("{owner}: job '{other}' writes to '{}', or was killed there", root.display()));
                return Err(e.help(format!("write to another folder, or remove '{}' once that job is gone", path.display())));
            }
            if is_hidden(name) {
                continue;
            }
            let job = entries.iter().find(|(_, e)| e.files.iter().any(|f| f.path.split('/').next() == Some(name))).map(|(_, e)| &e.job);
            return Err(match job {
                Some(job) if *job == self.place.job => {
                    Error::user(format!("{owner}: '{}' holds output of an earlier run of this job, whose state is gone", root.display()))
                        .help("run with --fresh to remove exactly that output, or write to another folder")
                }
                Some(job) => Error::user(format!("{owner}: '{}' holds output of another job, '{job}'", root.display()))
                    .help("write to another folder"),
                None => Error::user(format!("{owner}: '{}' is not empty: it holds '{name}'", root.display()))
                    .help("write to an empty or new folder"),
            });
        }
        Ok(())
    }

    /// Removes the files of this job's entries that `which` names, and the entries. A job that goes on from an epoch
    /// before its last one reads the rows behind it again.
    fn take_back(&self, which: impl Fn(&CommitEntry) -> bool) -> Result<()> {
        let root = self.place.options.path.clone();
        let mut folders = BTreeSet::new();
        for (path, entry) in read_entries(&self.place.commits())? {
            if entry.job != self.place.job || !which(&entry) {
                continue;
            }
            for file in &entry.files {
                // An entry is a file that anyone may edit: nothing outside the table's folder is touched.
                let below = Path::new(&file.path);
                if below.components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
                    return Err(Error::user(format!("'{}' lists '{}', which is no path below the table", path.display(), file.path)));
                }
                remove_file(&root.join(below))?;
                folders.extend(below.ancestors().skip(1).filter(|a| !a.as_os_str().is_empty()).map(Path::to_path_buf));
            }
            remove_file(&path)?;
        }
        // Deepest first: a partition goes with its last file, its success file before it.
        for folder in folders.iter().rev().map(|f| root.join(f)) {
            let left = names(&folder)?.unwrap_or_default();
            let success = self.place.options.policy.as_ref().and_then(|p| p.success_file.as_deref());
            if left.iter().all(|n| Some(n.as_str()) == success) {
                for name in &left {
                    remove_file(&folder.join(name))?;
                }
                let _ = fs::remove_dir(&folder);
            }
        }
        Ok(())
    }

    fn publish(&self, file: &PendingFile, folders: &mut BTreeSet<PathBuf>) -> Result<()> {
        let root = &self.place.options.path;
        let staged = self.place.staging().join(&file.staged);
        let path = root.join(&file.path);
        let folder = path.parent().unwrap_or(root);
        // A new partition folder is durable only with its name in the folder above.
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(|e| failed("cannot be created", folder, e))?;
            folders.extend(folder.ancestors().skip(1).take_while(|a| a.starts_with(root)).map(Path::to_path_buf));
        }
        folders.insert(folder.to_path_buf());
        crash::at("filesystem.commit.before-rename");
        let size = |path: &Path| fs::metadata(path).map(|m| m.len()).ok();
        // An earlier attempt may have published it: then it is there, and whole, and what is staged under the same name
        // by now is the unfinished file of a run that came after it.
        if size(&path) != Some(file.bytes) {
            match (size(&staged), size(&path)) {
                (Some(bytes), _) if bytes == file.bytes => {
                    fs::rename(&staged, &path).map_err(|e| failed("cannot be published", &path, e))?
                }
                (_, Some(bytes)) => return Err(lost(&path, &format!("it has {bytes} bytes instead of {}", file.bytes))),
                (_, None) => return Err(lost(&path, "it is neither staged nor there")),
            }
        }
        crash::at("filesystem.commit.after-rename");
        Ok(())
    }

    /// Writes entry `n` of `epoch`.
    fn add_entry(&self, epoch: Epoch, n: usize, files: &[PendingFile]) -> Result<()> {
        let files = files.iter().map(|f| CommittedFile { path: f.path.clone(), rows: f.rows, bytes: f.bytes }).collect();
        let entry = CommitEntry { job: self.place.job.clone(), epoch: epoch.0, files };
        let text = serde_json::to_vec_pretty(&entry).map_err(|e| Error::internal("a commit entry cannot be written").caused_by(e))?;
        write_whole(&self.place.commits().join(format!("{:012}-{n:06}.json", epoch.0)), &text)
    }

    /// Says of each partition that is complete that it is.
    fn commit_partitions(&mut self, watermark: i64, last: bool) -> Result<()> {
        let Some(policy) = &self.place.options.policy else { return Ok(()) };
        let Some(name) = &policy.success_file else { return Ok(()) };
        let now = now_ms();
        let mut complete = Vec::new();
        for (folder, created) in &self.open {
            if last || policy.is_complete(folder, *created, now, watermark)? {
                complete.push(folder.clone());
            }
        }
        for folder in complete {
            write_whole(&self.place.options.path.join(&folder).join(name), b"")?;
            self.open.remove(&folder);
        }
        Ok(())
    }

    /// Partitions with files and without their success file.
    fn find_open_partitions(&mut self) -> Result<()> {
        let Some(name) = self.place.options.policy.as_ref().and_then(|p| p.success_file.clone()) else { return Ok(()) };
        for (_, entry) in read_entries(&self.place.commits())? {
            for file in entry.files {
                let Some((folder, _)) = file.path.rsplit_once('/') else { continue };
                let path = self.place.options.path.join(folder);
                if path.is_dir() && !path.join(&name).exists() {
                    let created = fs::metadata(&path).and_then(|m| m.modified()).ok().map_or_else(now_ms, ms);
                    self.open.entry(folder.to_string()).or_insert(created);
                }
            }
        }
        Ok(())
    }
}

impl Committer for FileCommitter {
    fn recover(&mut self, epoch: Option<Epoch>, pending: &[Value]) -> Result<()> {
        let staging = self.place.staging();
        match epoch {
            None => self.check_empty()?,
            Some(epoch) => {
                self.take_back(|e| e.epoch > epoch.0)?;
                self.find_open_partitions()?;
                self.commit(epoch, pending)?;
            }
        }
        // What is still staged belongs to no checkpoint: its rows are read again.
        match fs::remove_dir_all(&staging) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed("cannot be removed", &staging, e)),
            _ => {}
        }
        // Tells other jobs that the folder is taken, and shows now rather than later whether it can be written.
        let root = &self.place.options.path;
        for folder in [&staging, &self.place.commits()] {
            fs::create_dir_all(folder).map_err(|e| failed("cannot be created", folder, e))?;
        }
        sync_folder(root)?;
        root.parent().map_or(Ok(()), sync_folder)
    }

    fn commit(&mut self, epoch: Epoch, pending: &[Value]) -> Result<()> {
        let pending: Vec<Pending> = pending
            .iter()
            .map(|v| serde_json::from_value(v.clone()).map_err(|e| Error::state("a pending commit cannot be read").caused_by(e)))
            .collect::<Result<_>>()?;
        let files: Vec<PendingFile> = pending.iter().flat_map(|p| p.files.iter().cloned()).collect();
        if !files.is_empty() {
            let mut folders = BTreeSet::new();
            for file in &files {
                self.publish(file, &mut folders)?;
            }
            for folder in &folders {
                sync_folder(folder)?;
            }
            crash::at("filesystem.commit.before-entry");
            if pending.iter().any(|p| p.entry_per_file) {
                for (n, file) in files.iter().enumerate() {
                    self.add_entry(epoch, n, std::slice::from_ref(file))?;
                }
            } else {
                self.add_entry(epoch, 0, &files)?;
            }
            crash::at("filesystem.commit.after-entry");
        }
        if self.place.options.policy.is_some() {
            let now = now_ms();
            for (folder, _) in files.iter().filter_map(|f| f.path.rsplit_once('/')) {
                self.open.entry(folder.to_string()).or_insert(now);
            }
            let watermark = pending.iter().filter_map(|p| p.watermark).min().unwrap_or(i64::MIN);
            let last = !pending.is_empty() && pending.iter().all(|p| p.last);
            self.commit_partitions(watermark, last)?;
        }
        Ok(())
    }

    fn remove_committed(&mut self) -> Result<Option<String>> {
        self.take_back(|_| true)?;
        let _ = fs::remove_dir_all(self.place.staging());
        let _ = fs::remove_dir(self.place.commits());
        Ok(None)
    }
}

impl Drop for FileCommitter {
    fn drop(&mut self) {
        // Goes only where it is empty: after a clean end.
        let _ = fs::remove_dir(self.place.staging());
    }
}

/// The entries of a table, in the order of their commits, with their paths.
///
/// # Errors
/// External: the folder cannot be read. User: a file in it is no entry.
pub fn read_entries(commits: &Path) -> Result<Vec<(PathBuf, CommitEntry)>> {
    let mut names = names(commits)?.unwrap_or_default();
    names.retain(|n| n.ends_with(".json") && !is_hidden(n));
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let path = commits.join(name);
            let text = fs::read(&path).map_err(|e| failed("cannot be read", &path, e))?;
            let entry =
                serde_json::from_slice(&text).map_err(|e| Error::user(format!("'{}' is no commit entry", path.display())).caused_by(e))?;
            Ok((path, entry))
        })
        .collect()
}

/// Writes a file so that it is seen whole or not at all, and lasts.
fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| failed("cannot be created", folder, e))?;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let hidden = folder.join(format!(".{name}.tmp"));
    let write = || {
        let mut file = fs::File::create(&hidden)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&hidden, path)
    };
    write().map_err(|e| failed("cannot be written", path, e))?;
    sync_folder(folder)
}

/// The names in a folder; `None` where there is no folder.
fn names(folder: &Path) -> Result<Option<Vec<String>>> {
    match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("cannot be read", folder, e)),
        Ok(items) => {
            let names = items.map(|i| Ok(i?.file_name().to_string_lossy().into_owned())).collect::<std::io::Result<Vec<_>>>();
            Ok(Some(names.map_err(|e| failed("cannot be read", folder, e))?))
        }
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("cannot be removed", path, e)),
        _ => Ok(()),
    }
}

fn lost(path: &Path, why: &str) -> Error {
    Error::state(format!("'{}' was written by this job, but {why}", path.display()))
        .help("files of a job must stay as they are while it can be resumed; --fresh starts it again")
}

fn now_ms() -> i64 {
    ms(SystemTime::now())
}

fn ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
