//! The registry: versions of models in a folder, published whole or not at all.
//!
//! ```text
//!  models/<name>/<version>/   manifest.json  model.bin  golden.arrow  SHA256SUMS
//!  models/<name>/aliases/     champion …        (JSON: the version, and those before it)
//!  models/<name>/.lock        held while a version is published or an alias moved
//!
//!  publish: .publishing-*/ ─ files, synced ─ rename to <version>/ ─ alias      load: sums ─ parts fit ─ golden rows, bit for bit
//! ```
//!
//! What must hold: a version folder that can be seen is complete, and is never changed again; killed between any two
//! steps, the registry is whole and the champion is the old one or the new one; what [`Registry::load`] hands out gave
//! its golden predictions again, so a bad version never replaces a good one. `models/README.md` is the contract of
//! what lies on disk.

mod aliases;
mod compare;
mod gate;
mod golden;
mod manifest;
mod publish;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use compare::{Comparison, Difference};
pub use gate::{Gate, Verdict};
pub use golden::GOLDEN_ROWS_MAX;
pub use manifest::{FieldEntry, FileEntry, InputFile, Lineage, MANIFEST_FORMAT, Manifest};
pub use publish::{Publication, Published};

use super::model::Model;
use crate::error::{Error, Result, nearest};

/// The alias that `MODEL m` means where nothing else is said.
pub const CHAMPION: &str = "champion";

const MANIFEST: &str = "manifest.json";
const MODEL: &str = "model.bin";
const GOLDEN: &str = "golden.arrow";
const SUMS: &str = "SHA256SUMS";

/// A folder of models.
#[derive(Debug, Clone)]
pub struct Registry {
    root: PathBuf,
}

/// Which version is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The champion, else the newest.
    Champion,
    /// This one.
    Version(u64),
    /// The one of this alias.
    Alias(String),
}

/// A version that was loaded and gave its golden predictions again.
#[derive(Debug)]
pub struct Served {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// What is known about it.
    pub manifest: Manifest,
    /// The model.
    pub model: Model,
}

/// A line of [`Registry::list`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// The model's name.
    pub name: String,
    /// The version; none where the folder is no version.
    pub version: Option<u64>,
    /// Aliases of the version.
    pub aliases: Vec<String>,
    /// What is known about it; none where it is broken.
    pub manifest: Option<Box<Manifest>>,
    /// Why it is refused, where it is.
    pub broken: Option<String>,
}

/// Another version is meant than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The version before; none at first.
    pub from: Option<u64>,
    /// The version that is meant now.
    pub to: u64,
}

/// Follows what a selector means; see [`Registry::watch`].
#[derive(Debug, Clone)]
pub struct Watch {
    registry: Registry,
    name: String,
    selector: Selector,
    seen: Option<u64>,
}

impl Registry {
    /// The registry in `root`, which need not be there yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Names of the models, sorted. A folder whose name no model can have is not one.
    ///
    /// # Errors
    /// External: the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = folders(&self.root)?;
        names.retain(|name| check_name(name).is_ok());
        Ok(names)
    }

    /// Versions of `name`, ascending, whole or not.
    ///
    /// # Errors
    /// External: the folder cannot be read.
    pub fn versions(&self, name: &str) -> Result<Vec<u64>> {
        check_name(name)?;
        let mut versions: Vec<u64> = folders(&self.root.join(name))?.iter().filter_map(|f| version_of(f)).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// The version that `selector` means now. Cheap: an alias costs one small file.
    ///
    /// # Errors
    /// User: no such model, version or alias. State: an alias that cannot be read.
    pub fn resolve(&self, name: &str, selector: &Selector) -> Result<u64> {
        check_name(name)?;
        let alias = match selector {
            Selector::Version(version) => {
                return match self.folder(name, *version).is_dir() {
                    true => Ok(*version),
                    false => Err(self.no_version(name, *version)?),
                };
            }
            Selector::Alias(alias) => alias.as_str(),
            Selector::Champion => CHAMPION,
        };
        if let Some(alias) = self.alias(name, alias)? {
            return Ok(alias.version);
        }
        if *selector == Selector::Champion {
            return self.versions(name)?.last().copied().ok_or(()).or_else(|()| Err(self.no_model(name)?));
        }
        if self.versions(name)?.is_empty() {
            return Err(self.no_model(name)?);
        }
        let known = self.aliases(name)?;
        let e = Error::user(format!("model '{name}' has no alias '{alias}'"));
        Err(match nearest(alias, known.keys().map(String::as_str)) {
            Some(near) => e.help(format!("did you mean '{near}'?")),
            None if known.is_empty() => e.help("it has none: write a version"),
            None => e.help(format!("its aliases: {}", known.into_keys().collect::<Vec<_>>().join(", "))),
        })
    }

    /// Loads the version that `selector` means: sums are checked, the parts must fit each other, and the golden rows
    /// must give their predictions again, bit for bit.
    ///
    /// # Errors
    /// User: no such model, version or alias. State: the version is broken, by name and reason.
    pub fn load(&self, name: &str, selector: &Selector) -> Result<Arc<Served>> {
        let version = self.resolve(name, selector)?;
        let folder = self.folder(name, version);
        if !folder.is_dir() {
            return Err(Error::state(format!("{selector} of model '{name}' is version {version}, which is not there")));
        }
        load_folder(&folder, name, version).map(Arc::new).map_err(|e| e.context(format_args!("version {version} of model '{name}'")))
    }

    /// Every version, by name and number; one that is broken, and a folder that is none, with the reason. Sums are
    /// checked; golden rows are replayed when a version is loaded.
    ///
    /// # Errors
    /// External: the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        for name in folders(&self.root)? {
            let broken = |version, why: String| Listed { name: name.clone(), version, aliases: vec![], manifest: None, broken: Some(why) };
            if let Err(e) = check_name(&name) {
                all.push(broken(None, e.message().to_string()));
                continue;
            }
            let aliases = match self.aliases(&name) {
                Ok(aliases) => aliases,
                Err(e) => {
                    all.push(broken(None, e.to_string()));
                    BTreeMap::new()
                }
            };
            let mut entries = folders(&self.root.join(&name))?;
            entries.retain(|entry| entry != aliases::FOLDER);
            entries.sort_by_key(|entry| (version_of(entry), entry.clone()));
            if entries.is_empty() {
                all.push(broken(None, "it has no version".into()));
            }
            for entry in entries {
                let Some(version) = version_of(&entry) else {
                    all.push(broken(None, format!("'{entry}' is no version")));
                    continue;
                };
                let of_it = aliases.iter().filter(|(_, v)| **v == version).map(|(alias, _)| alias.clone()).collect();
                let read = read_manifest(&self.folder(&name, version), &name, version);
                let (manifest, why) = match read {
                    Ok((manifest, _)) => (Some(Box::new(manifest)), None),
                    Err(e) => (None, Some(e.to_string())),
                };
                all.push(Listed { name: name.clone(), version: Some(version), aliases: of_it, manifest, broken: why });
            }
        }
        Ok(all)
    }

    /// Follows what `selector` means; `serving` is the version that the caller has.
    pub fn watch(&self, name: &str, selector: Selector, serving: Option<u64>) -> Watch {
        Watch { registry: self.clone(), name: name.to_string(), selector, seen: serving }
    }

    fn folder(&self, name: &str, version: u64) -> PathBuf {
        self.root.join(name).join(version.to_string())
    }

    fn no_model(&self, name: &str) -> Result<Error> {
        let names = self.names()?;
        let e = Error::user(format!("there is no model '{name}' in '{}'", self.root.display()));
        Ok(match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => e.help(format!("did you mean '{near}'?")),
            None if names.is_empty() => e.help("the registry is empty: train a model with CREATE MODEL, or point --models elsewhere"),
            None => e.help(format!("there are: {}", names.join(", "))),
        })
    }

    fn no_version(&self, name: &str, version: u64) -> Result<Error> {
        let versions = self.versions(name)?;
        let Some(newest) = versions.last() else { return self.no_model(name) };
        Ok(Error::user(format!("model '{name}' has no version {version}")).help(format!("its newest is {newest}")))
    }
}

impl Watch {
    /// Says once when another version is meant than the one last said. Cheap enough for every second.
    ///
    /// # Errors
    /// As [`Registry::resolve`]; the version last said stays.
    pub fn poll(&mut self) -> Result<Option<Change>> {
        let to = self.registry.resolve(&self.name, &self.selector)?;
        if self.seen == Some(to) {
            return Ok(None);
        }
        Ok(Some(Change { from: self.seen.replace(to), to }))
    }
}

impl Selector {
    /// Reads `3`, `challenger` or nothing (the champion, else the newest).
    ///
    /// # Errors
    /// User: no alias can have that name.
    pub fn parse(text: &str) -> Result<Self> {
        match text.trim() {
            "" | CHAMPION => Ok(Self::Champion),
            text => match text.parse() {
                Ok(version) => Ok(Self::Version(version)),
                Err(_) => aliases::check_alias(text).map(|()| Self::Alias(text.to_string())),
            },
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Champion => write!(f, "the champion"),
            Self::Version(version) => write!(f, "version {version}"),
            Self::Alias(alias) => write!(f, "'{alias}'"),
        }
    }
}

/// The sha256 of a file, in hexadecimal, and its size.
///
/// # Errors
/// External: the file cannot be read.
pub fn hash_file(path: &Path) -> Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let bytes =
        fs::File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut hasher)).map_err(|e| failed("cannot be read", path, e))?;
    Ok((hexadecimal(&hasher.finalize()), bytes))
}

/// Whether a model can have this name: it is a folder's, and stands in URLs and SQL.
///
/// # Errors
/// User: it cannot.
pub fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.len() <= 128 && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(fine) {
        return Ok(());
    }
    let e = Error::user(format!("'{name}' cannot be a model's name"));
    Err(e.help("letters, digits, '_', '-' and '.', at most 128, a letter or '_' first"))
}

/// The manifest of a version folder, and the bytes of its other files, after their sums were checked.
fn read_manifest(folder: &Path, name: &str, version: u64) -> Result<(Manifest, BTreeMap<&'static str, Vec<u8>>)> {
    let read = |file: &'static str| match fs::read(folder.join(file)) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(Error::state(format!("'{}' has no {file}", folder.display()))),
        Err(e) => Err(failed("cannot be read", &folder.join(file), e)),
    };
    let wrong = |file: &str, what: &str| Err(Error::state(format!("'{}' {what}", folder.join(file).display())));
    let Ok(sums) = String::from_utf8(read(SUMS)?) else { return wrong(SUMS, "is no text") };
    let listed: BTreeMap<&str, &str> = sums.lines().filter_map(|l| l.split_once("  ")).map(|(sum, file)| (file, sum)).collect();
    if listed.keys().copied().ne([GOLDEN, MANIFEST, MODEL]) || publish::sums(listed.iter().map(|(f, s)| (*f, *s))) != sums {
        return wrong(SUMS, &format!("does not list {GOLDEN}, {MANIFEST} and {MODEL}"));
    }
    let mut files = BTreeMap::new();
    for file in [MANIFEST, MODEL, GOLDEN] {
        let bytes = read(file)?;
        if listed.get(file).copied() != Some(hexadecimal(&Sha256::digest(&bytes)).as_str()) {
            return wrong(file, &format!("does not have the sha256 that {SUMS} says: it was cut off or changed"));
        }
        files.insert(file, bytes);
    }
    let bytes = files.remove(MANIFEST).expect("it was just read");
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let Ok(Format { format }) = serde_json::from_slice(&bytes) else { return wrong(MANIFEST, "is no manifest of a model") };
    if format != MANIFEST_FORMAT {
        return wrong(MANIFEST, &format!("has format {format}, and this program knows {MANIFEST_FORMAT}"));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|e| Error::state(format!("'{}' cannot be read", folder.join(MANIFEST).display())).caused_by(e))?;
    for (file, bytes) in &files {
        let entry = FileEntry { bytes: bytes.len() as u64, sha256: listed.get(file).copied().unwrap_or_default().to_string() };
        if manifest.files.get(*file) != Some(&entry) {
            return wrong(file, &format!("is not the file that {MANIFEST} names"));
        }
    }
    if manifest.name != name || manifest.version != version {
        let of = format!("is of version {} of model '{}': it was moved here", manifest.version, manifest.name);
        return wrong(MANIFEST, &of);
    }
    Ok((manifest, files))
}

fn load_folder(folder: &Path, name: &str, version: u64) -> Result<Served> {
    let (manifest, files) = read_manifest(folder, name, version)?;
    let model = Model::from_bytes(&files[MODEL]).map_err(|e| e.context(format_args!("'{}'", folder.join(MODEL).display())))?;
    if !manifest.describes(&model) {
        return Err(Error::state(format!("'{}' is not the model that {MANIFEST} describes", folder.join(MODEL).display())));
    }
    golden::replay(&files[GOLDEN], &model).map_err(|e| e.context(format_args!("'{}'", folder.join(GOLDEN).display())))?;
    Ok(Served { name: name.to_string(), version, manifest, model })
}

/// Names of the folders in `path` that are not hidden, sorted; none where `path` is not there.
fn folders(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(failed("cannot be read", path, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed("cannot be read", path, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The version that a folder of this name holds: `7`, not `07`.
fn version_of(folder: &str) -> Option<u64> {
    folder.parse().ok().filter(|version: &u64| *version > 0 && version.to_string() == folder)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn failed(what: &str, path: &Path, cause: std::io::Error) -> Error {
    let e = Error::external(format!("'{}' {what}", path.display()));
    let e = match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => e.help("make room on this disk"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => e.help("check who may write there"),
        _ => e,
    };
    e.caused_by(cause)
}
