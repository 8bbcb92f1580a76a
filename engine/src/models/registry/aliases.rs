//! Aliases: names for versions, each a small file that is replaced by one rename.
//!
//! A file holds its version and those that it named before, so that a rollback knows where to go back to. What must
//! hold: an alias only ever names a version that loads; moves are made one at a time, under the model's lock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};

use serde::{Deserialize, Serialize};

use super::{CHAMPION, Registry, Selector, check_name, failed, publish};
use crate::error::{Error, Result};

/// The folder of a model's aliases.
pub(super) const FOLDER: &str = "aliases";
/// Versions that an alias remembers at most.
const REMEMBERED_MAX: usize = 100;

/// What an alias file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Alias {
    pub version: u64,
    /// The versions before, oldest first.
    pub before: Vec<u64>,
}

/// Held while a model's folder is changed; the system lets go of it when the process ends, however it ends.
pub(super) struct Lock(#[expect(dead_code, reason = "it is held, not read")] File);

impl Registry {
    /// Aliases of `name` with their versions.
    ///
    /// # Errors
    /// State: an alias that cannot be read. External: the folder cannot be read.
    pub fn aliases(&self, name: &str) -> Result<BTreeMap<String, u64>> {
        check_name(name)?;
        let folder = self.root.join(name).join(FOLDER);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) => return Err(failed("cannot be read", &folder, e)),
        };
        let mut aliases = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed("cannot be read", &folder, e))?;
            let alias = entry.file_name().to_string_lossy().into_owned();
            if !alias.starts_with('.')
                && let Some(found) = self.alias(name, &alias)?
            {
                aliases.insert(alias, found.version);
            }
        }
        Ok(aliases)
    }

    /// Lets `alias` name the version that `to` means, which must load. Answers that version.
    ///
    /// # Errors
    /// User: no such model or version, or no name for an alias. State: the version is broken.
    pub fn set_alias(&self, name: &str, alias: &str, to: &Selector) -> Result<u64> {
        check_alias(alias)?;
        let version = self.load(name, to)?.version;
        let _lock = self.lock(name)?;
        self.move_alias(name, alias, version)?;
        Ok(version)
    }

    /// Takes `alias` away.
    ///
    /// # Errors
    /// User: no such model or alias. External: the file cannot be removed.
    pub fn remove_alias(&self, name: &str, alias: &str) -> Result<()> {
        check_alias(alias)?;
        self.resolve(name, &Selector::Alias(alias.to_string()))?;
        let _lock = self.lock(name)?;
        let path = self.root.join(name).join(FOLDER).join(alias);
        fs::remove_file(&path).map_err(|e| failed("cannot be removed", &path, e))
    }

    /// Lets the champion be the version that it was before, which must load. Answers from and to.
    ///
    /// # Errors
    /// User: no champion, or none before it. State: the version before is broken.
    pub fn rollback(&self, name: &str) -> Result<(u64, u64)> {
        check_name(name)?;
        let no_champion = || Error::user(format!("model '{name}' has no champion to roll back"));
        if self.alias(name, CHAMPION)?.is_none() {
            // Says first whether there is such a model at all.
            self.resolve(name, &Selector::Champion)?;
            return Err(no_champion());
        }
        let _lock = self.lock(name)?;
        let mut alias = self.alias(name, CHAMPION)?.ok_or_else(no_champion)?;
        let from = alias.version;
        let Some(to) = alias.before.pop() else {
            let e = Error::user(format!("version {from} of model '{name}' is the first champion: there is none before it"));
            return Err(e.help(format!("name a version: velosql models alias {name} {CHAMPION} VERSION")));
        };
        self.load(name, &Selector::Version(to))?;
        alias.version = to;
        self.write_alias(name, CHAMPION, &alias)?;
        Ok((from, to))
    }

    /// What `alias` names; none where it is not there.
    pub(super) fn alias(&self, name: &str, alias: &str) -> Result<Option<Alias>> {
        let path = self.root.join(name).join(FOLDER).join(alias);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(alias) => Ok(Some(alias)),
                Err(e) => Err(Error::state(format!("the alias '{}' cannot be read", path.display())).caused_by(e)),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("cannot be read", &path, e)),
        }
    }

    /// Moves `alias` to `version`; the lock is held.
    pub(super) fn move_alias(&self, name: &str, alias: &str, version: u64) -> Result<()> {
        let mut moved = self.alias(name, alias)?.unwrap_or(Alias { version, before: vec![] });
        if moved.version != version {
            moved.before.push(moved.version);
            let forgotten = moved.before.len().saturating_sub(REMEMBERED_MAX);
            moved.before.drain(..forgotten);
            moved.version = version;
        }
        self.write_alias(name, alias, &moved)
    }

    fn write_alias(&self, name: &str, alias: &str, content: &Alias) -> Result<()> {
        let folder = self.root.join(name).join(FOLDER);
        fs::create_dir_all(&folder).map_err(|e| failed("cannot be created", &folder, e))?;
        // Hidden until it is whole; a leftover of a killed process is written over.
        let (written, path) = (folder.join(format!(".{alias}")), folder.join(alias));
        let text = serde_json::to_string(content).map_err(|e| Error::internal("an alias cannot be written").caused_by(e))?;
        File::create(&written)
            .and_then(|mut file| writeln!(file, "{text}").and_then(|()| file.sync_all()))
            .map_err(|e| failed("cannot be written", &written, e))?;
        fs::rename(&written, &path).map_err(|e| failed("cannot be published", &path, e))?;
        publish::sync_folder(&folder)?;
        publish::sync_folder(&self.root.join(name))
    }

    /// Waits until nobody else changes the folder of `name`.
    pub(super) fn lock(&self, name: &str) -> Result<Lock> {
        let path = self.root.join(name).join(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| failed("cannot be opened", &path, e))?;
        file.lock().map_err(|e| failed("cannot be locked", &path, e))?;
        Ok(Lock(file))
    }
}

/// Whether an alias can have this name: a version's number is none, and it is a file's name.
pub(super) fn check_alias(alias: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if alias.len() <= 64 && alias.starts_with(|c: char| c.is_ascii_alphabetic()) && alias.chars().all(fine) {
        return Ok(());
    }
    let e = Error::user(format!("'{alias}' cannot be an alias"));
    Err(e.help("letters, digits, '_' and '-', at most 64, a letter first"))
}
