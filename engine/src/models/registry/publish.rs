//! Publishing a version.
//!
//! ```text
//!  lock ─ .publishing-*/ ─ model.bin, golden.arrow ─ manifest.json ─ SHA256SUMS ─ sync ─ rename to <version>/ ─ sync ─ alias
//! ```
//!
//! Killed before the rename, nothing is to be seen but a hidden folder, which the next publication removes; killed
//! between the rename and the alias, there is one more version and the champion is the old one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use sha2::{Digest, Sha256};

use super::gate::{Gate, Verdict};
use super::manifest::{FileEntry, Lineage, MANIFEST_FORMAT, Manifest, field_entries, libraries, masked_options};
use super::{CHAMPION, GOLDEN, MANIFEST, MODEL, Registry, SUMS, check_name, failed, golden, hexadecimal, load_folder, read_manifest};
use crate::crash;
use crate::error::{Error, Result};
use crate::models::model::Model;

const STAGED: &str = ".publishing-";

/// What is to be published.
#[derive(Debug)]
pub struct Publication<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The model.
    pub model: &'a Model,
    /// Training rows from which the golden ones are taken; other columns may be among them.
    pub golden: &'a RecordBatch,
    /// The training query, secrets masked.
    pub query: Option<String>,
    /// The options of `CREATE MODEL`; secrets are masked here.
    pub options: &'a BTreeMap<String, String>,
    /// What it was trained on.
    pub lineage: Lineage,
    /// Metrics on the hold-out rows.
    pub metrics: BTreeMap<String, f64>,
    /// Confusion matrix on the hold-out rows, for a classification.
    pub confusion: Option<Vec<Vec<f64>>>,
    /// The seed of every random choice.
    pub seed: u64,
    /// What the new version must hold to become champion; without it, it does.
    pub gate: Option<&'a Gate>,
    /// The time of publication.
    pub now: SystemTime,
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The new version.
    pub version: u64,
    /// Whether it is champion now.
    pub champion: bool,
    /// What the gate said; none where there is no gate.
    pub verdict: Option<Verdict>,
}

impl Registry {
    /// Publishes a new version, and makes it champion unless its gate says no. Publishers at the same time get
    /// versions of their own.
    ///
    /// # Errors
    /// External: the disk refused; nothing is published then. Internal: the golden rows are not the model's.
    pub fn publish(&self, publication: &Publication<'_>) -> Result<Published> {
        self.publish_at(publication, |point| {
            crash::at(point);
            Ok(())
        })
    }

    /// [`Registry::publish`], which calls `at` between its steps.
    pub(super) fn publish_at(&self, publication: &Publication<'_>, at: impl Fn(&'static str) -> Result<()>) -> Result<Published> {
        let Publication { name, model, gate, .. } = publication;
        check_name(name)?;
        let home = self.root.join(name);
        fs::create_dir_all(&home).map_err(|e| failed("cannot be created", &home, e))?;
        let _lock = self.lock(name)?;
        remove_leftovers(&home)?;
        at("registry.publish.before-files")?;
        let champion = self.alias(name, CHAMPION)?.map(|alias| alias.version);
        // A champion that cannot be read holds nobody back.
        let theirs = champion.and_then(|version| read_manifest(&self.folder(name, version), name, version).ok()).map(|(m, _)| m.metrics);
        let verdict = gate.map(|gate| gate.judge(&publication.metrics, theirs.as_ref()));
        let golden = golden::file(publication.golden, model)?;
        let bytes = model.to_bytes()?;

        let mut version = self.versions(name)?.last().map_or(1, |newest| newest + 1);
        loop {
            let staged = home.join(format!("{STAGED}{version}-{}", std::process::id()));
            fs::create_dir_all(&staged).map_err(|e| failed("cannot be created", &staged, e))?;
            let mut sums_of = BTreeMap::new();
            let mut files = BTreeMap::new();
            for (file, bytes) in [(MODEL, &bytes), (GOLDEN, &golden)] {
                let sha256 = write(&staged.join(file), bytes)?;
                sums_of.insert(file, sha256.clone());
                files.insert(file.to_string(), FileEntry { bytes: bytes.len() as u64, sha256 });
            }
            at("registry.publish.before-manifest")?;
            let manifest = publication.manifest(version, champion, verdict.clone(), files);
            let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::internal("a manifest cannot be written").caused_by(e))?;
            sums_of.insert(MANIFEST, write(&staged.join(MANIFEST), &text)?);
            at("registry.publish.before-sums")?;
            write(&staged.join(SUMS), sums(sums_of.iter().map(|(f, s)| (*f, s.as_str()))).as_bytes())?;
            sync_folder(&staged)?;
            // What cannot be loaded is never seen.
            load_folder(&staged, name, version).map_err(|e| Error::internal(format!("a version that does not load: {e}")))?;
            at("registry.publish.before-rename")?;
            let place = self.folder(name, version);
            match fs::rename(&staged, &place) {
                Ok(()) => break,
                // Another publisher (on a disk without locks) was first: the rename decides.
                Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory) => {
                    fs::remove_dir_all(&staged).map_err(|e| failed("cannot be removed", &staged, e))?;
                    version += 1;
                }
                Err(e) => return Err(failed("cannot be published", &place, e)),
            }
        }
        at("registry.publish.after-rename")?;
        sync_folder(&home)?;
        sync_folder(&self.root)?;
        at("registry.publish.before-alias")?;
        let becomes = verdict.as_ref().is_none_or(|v| v.passed);
        if becomes {
            self.move_alias(name, CHAMPION, version)?;
        }
        at("registry.publish.after-alias")?;
        Ok(Published { version, champion: becomes, verdict })
    }
}

impl Publication<'_> {
    fn manifest(&self, version: u64, champion: Option<u64>, verdict: Option<Verdict>, files: BTreeMap<String, FileEntry>) -> Manifest {
        let seconds = self.now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        let created = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        Manifest {
            format: MANIFEST_FORMAT,
            name: self.name.to_string(),
            version,
            created: created.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            task: self.model.task(),
            algorithm: self.model.algorithm(),
            inputs: field_entries(self.model.inputs()),
            outputs: field_entries(&self.model.outputs()),
            features: self.model.features().clone(),
            label: self.model.label().cloned(),
            query: self.query.clone(),
            options: masked_options(self.options),
            lineage: self.lineage.clone(),
            metrics: self.metrics.clone(),
            confusion: self.confusion.clone(),
            seed: self.seed,
            champion_before: champion,
            verdict,
            libraries: libraries(),
            files,
        }
    }
}

/// The text of `SHA256SUMS`, as `sha256sum -c` reads it.
pub(super) fn sums<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    files.map(|(file, sha256)| format!("{sha256}  {file}\n")).collect()
}

/// Makes the names in `folder` durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed("cannot be made durable", folder, e))
}

/// Writes a file durably; answers its sha256.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<String> {
    File::create(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|e| failed("cannot be written", path, e))?;
    Ok(hexadecimal(&Sha256::digest(bytes)))
}

/// Removes what publishers left that were killed; whoever holds the lock is the only one alive.
fn remove_leftovers(home: &Path) -> Result<()> {
    for entry in fs::read_dir(home).map_err(|e| failed("cannot be read", home, e))? {
        let entry = entry.map_err(|e| failed("cannot be read", home, e))?;
        if entry.file_name().to_string_lossy().starts_with(STAGED) {
            fs::remove_dir_all(entry.path()).map_err(|e| failed("cannot be removed", &entry.path(), e))?;
        }
    }
    Ok(())
}
