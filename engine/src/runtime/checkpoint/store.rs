//! Durable writes of a state directory.
//!
//! [`Store`] is what a disk offers, split so finely that a test can lose what was not synced: bytes under a
//! temporary name, a sync, a rename, a sync of the directory. [`publish`] is the one way in which the engine
//! makes a file: afterwards the name holds either nothing or every byte, whatever happens.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A directory of files.
pub trait Store: Send + Sync {
    /// Writes a file, not yet durable.
    ///
    /// # Errors
    /// External: the disk is full or cannot be written.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()>;
    /// Makes a written file durable.
    ///
    /// # Errors
    /// External: the disk failed.
    fn sync(&self, name: &str) -> Result<()>;
    /// Renames atomically.
    ///
    /// # Errors
    /// External: the disk failed.
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Makes renames durable.
    ///
    /// # Errors
    /// External: the disk failed.
    fn sync_names(&self) -> Result<()>;
    /// Reads a file; `None` where it does not exist.
    ///
    /// # Errors
    /// External: it cannot be read.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// All names, sorted.
    ///
    /// # Errors
    /// External: it cannot be read.
    fn list(&self) -> Result<Vec<String>>;
    /// Removes a file; an absent one is fine.
    ///
    /// # Errors
    /// External: it cannot be removed.
    fn remove(&self, name: &str) -> Result<()>;
}

/// Makes `name` hold `bytes`, atomically and durably.
///
/// # Errors
/// External: the disk is full or failed; `name` is then what it was.
pub fn publish(store: &dyn Store, name: &str, bytes: &[u8]) -> Result<()> {
    let staged = format!("{name}.tmp");
    let sync = !crate::fault::planted("skip-fsync");
    store.write(&staged, bytes)?;
    if sync {
        store.sync(&staged)?;
    }
    store.rename(&staged, name)?;
    if sync {
        store.sync_names()?;
    }
    Ok(())
}

/// A directory of the local file system.
#[derive(Debug, Clone)]
pub struct LocalStore(PathBuf);

impl LocalStore {
    /// The directory, made where it does not exist.
    ///
    /// # Errors
    /// External: it cannot be made.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| failed("create", dir, e))?;
        Ok(Self(dir.to_path_buf()))
    }
}

fn failed(what: &str, path: &Path, e: std::io::Error) -> Error {
    let error = Error::external(format!("cannot {what} {}", path.display()));
    let error = if e.kind() == std::io::ErrorKind::StorageFull {
        error.help("make room on this disk, then start again: the job goes on from its last checkpoint")
    } else {
        error
    };
    error.caused_by(e)
}

impl Store for LocalStore {
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.0.join(name);
        File::create(&path).and_then(|mut f| f.write_all(bytes)).map_err(|e| failed("write", &path, e))
    }

    fn sync(&self, name: &str) -> Result<()> {
        let path = self.0.join(name);
        File::open(&path).and_then(|f| f.sync_all()).map_err(|e| failed("sync", &path, e))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let path = self.0.join(to);
        fs::rename(self.0.join(from), &path).map_err(|e| failed("rename to", &path, e))
    }

    fn sync_names(&self) -> Result<()> {
        File::open(&self.0).and_then(|f| f.sync_all()).map_err(|e| failed("sync", &self.0, e))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.0.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("read", &path, e)),
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.0).map_err(|e| failed("list", &self.0, e))?;
        let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", &path, e)),
            _ => Ok(()),
        }
    }
}

/// A store in memory that can forget what was not synced, as a disk does when the power fails.
#[derive(Debug, Default)]
pub struct LossyStore(std::sync::Mutex<Lossy>);

#[derive(Debug, Default)]
struct Lossy {
    now: std::collections::BTreeMap<String, Vec<u8>>,
    content_synced: std::collections::BTreeSet<String>,
    durable: std::collections::BTreeMap<String, Vec<u8>>,
}

impl LossyStore {
    /// The power fails: names that were not synced are gone, and content that was not synced is cut in half.
    pub fn lose_power(&self) {
        let mut s = self.0.lock().expect("no panic while locked");
        s.now = s.durable.clone();
    }

    fn with<T>(&self, f: impl FnOnce(&mut Lossy) -> T) -> T {
        f(&mut self.0.lock().expect("no panic while locked"))
    }
}

impl Store for LossyStore {
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.with(|s| {
            s.now.insert(name.to_string(), bytes.to_vec());
            s.content_synced.remove(name);
            // An unsynced file may survive a power cut with part of its bytes.
            s.durable.insert(name.to_string(), bytes[..bytes.len() / 2].to_vec());
        });
        Ok(())
    }

    fn sync(&self, name: &str) -> Result<()> {
        self.with(|s| {
            if let Some(bytes) = s.now.get(name).cloned() {
                s.content_synced.insert(name.to_string());
                s.durable.insert(name.to_string(), bytes);
            }
        });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.with(|s| {
            if let Some(bytes) = s.now.remove(from) {
                s.now.insert(to.to_string(), bytes);
            }
            // The worst order: the rename reaches the disk at once, the content only if it was synced.
            if let Some(bytes) = s.durable.remove(from) {
                s.durable.insert(to.to_string(), bytes);
            }
        });
        Ok(())
    }

    fn sync_names(&self) -> Result<()> {
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.with(|s| s.now.get(name).cloned()))
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(self.with(|s| s.now.keys().cloned().collect()))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.with(|s| {
            s.now.remove(name);
            s.durable.remove(name);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_survives_a_power_cut_whole() {
        let store = LossyStore::default();
        publish(&store, "manifest", b"all of it").expect("published");
        store.write("manifest.tmp", b"half a new one").expect("written");
        store.lose_power();
        assert_eq!(store.read("manifest").expect("read").as_deref(), Some(&b"all of it"[..]));
    }
}
