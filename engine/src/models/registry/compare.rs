//! Two versions side by side, and a version taken elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::publish::{sync_folder, write};
use super::{GOLDEN, MANIFEST, MODEL, Registry, SUMS, Selector, failed};
use crate::error::{Error, Result};

/// What differs between two versions of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The model's name.
    pub name: String,
    /// The two versions.
    pub versions: [u64; 2],
    /// Every metric of either, with both values; null where one has none.
    pub metrics: Vec<(String, [Option<f64>; 2])>,
    /// Everything else that differs.
    pub differences: Vec<Difference>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What.
    pub what: String,
    /// How it is in both versions; empty where it is not there.
    pub values: [String; 2],
}

impl Registry {
    /// Compares two versions of `name`, both of which must load.
    ///
    /// # Errors
    /// As [`Registry::load`].
    pub fn compare(&self, name: &str, a: &Selector, b: &Selector) -> Result<Comparison> {
        let both = [self.load(name, a)?, self.load(name, b)?];
        let [a, b] = [&both[0].manifest, &both[1].manifest];
        let mut names: Vec<&String> = a.metrics.keys().chain(b.metrics.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let finite = |v: Option<&f64>| v.copied().filter(|v| v.is_finite());
        let metrics = names.into_iter().map(|m| (m.clone(), [finite(a.metrics.get(m)), finite(b.metrics.get(m))])).collect();
        let mut differences = Vec::new();
        let mut differ = |what: &str, a: String, b: String| {
            if a != b {
                differences.push(Difference { what: what.to_string(), values: [a, b] });
            }
        };
        differ("task", a.task.to_string(), b.task.to_string());
        differ("algorithm", a.algorithm.to_string(), b.algorithm.to_string());
        differ("created", a.created.clone(), b.created.clone());
        differ("seed", a.seed.to_string(), b.seed.to_string());
        differ("rows", a.lineage.rows.to_string(), b.lineage.rows.to_string());
        differ("files", a.lineage.files.len().to_string(), b.lineage.files.len().to_string());
        differ("query", a.query.clone().unwrap_or_default(), b.query.clone().unwrap_or_default());
        let fields = |m: &super::Manifest| m.inputs.iter().map(|f| format!("{} {}", f.name, f.sql_type)).collect::<Vec<_>>().join(", ");
        differ("inputs", fields(a), fields(b));
        let classes = |m: &super::Manifest| m.label.as_ref().map(|l| l.names().join(", ")).unwrap_or_default();
        differ("classes", classes(a), classes(b));
        let mut options: Vec<&String> = a.options.keys().chain(b.options.keys()).collect();
        options.sort_unstable();
        options.dedup();
        for option in options {
            let value = |m: &super::Manifest| m.options.get(option).cloned().unwrap_or_default();
            differ(&format!("option '{option}'"), value(a), value(b));
        }
        Ok(Comparison { name: name.to_string(), versions: [both[0].version, both[1].version], metrics, differences })
    }

    /// Copies the version that `selector` means, which must load, to `to`/<name>/<version>: `to` is then a registry
    /// that has it. Answers the new folder.
    ///
    /// # Errors
    /// As [`Registry::load`]; User: it is there already; External: it cannot be written.
    pub fn export(&self, name: &str, selector: &Selector, to: &Path) -> Result<PathBuf> {
        let version = self.load(name, selector)?.version;
        let (from, home) = (self.folder(name, version), to.join(name));
        let place = home.join(version.to_string());
        if place.exists() {
            return Err(Error::user(format!("'{}' is there already", place.display())).help("export to another folder"));
        }
        fs::create_dir_all(&home).map_err(|e| failed("cannot be created", &home, e))?;
        let staged = home.join(format!(".export-{version}-{}", std::process::id()));
        fs::create_dir_all(&staged).map_err(|e| failed("cannot be created", &staged, e))?;
        for file in [MODEL, GOLDEN, MANIFEST, SUMS] {
            let bytes = fs::read(from.join(file)).map_err(|e| failed("cannot be read", &from.join(file), e))?;
            write(&staged.join(file), &bytes)?;
        }
        sync_folder(&staged)?;
        fs::rename(&staged, &place).map_err(|e| failed("cannot be written", &place, e))?;
        sync_folder(&home)?;
        Ok(place)
    }
}
