//! `manifest.json`: everything about a version that a person or a program wants to know without loading it.

use std::collections::BTreeMap;

use arrow::datatypes::Schema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::gate::Verdict;
use crate::config::masked;
use crate::models::features::FeatureSpec;
use crate::models::label::Label;
use crate::models::model::Model;
use crate::models::task::{Algorithm, Task};
use crate::stream::types::SqlType;

/// Version of the manifest's form.
pub const MANIFEST_FORMAT: u32 = 1;

/// What `manifest.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub format: u32,
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// When it was published: RFC 3339, UTC.
    pub created: String,
    /// What it predicts.
    pub task: Task,
    /// How it was learnt.
    pub algorithm: Algorithm,
    /// What callers give.
    pub inputs: Vec<FieldEntry>,
    /// What comes back.
    pub outputs: Vec<FieldEntry>,
    /// How rows become numbers.
    pub features: FeatureSpec,
    /// What it was learnt from; none for clustering.
    pub label: Option<Label>,
    /// The training query, secrets masked.
    pub query: Option<String>,
    /// The options of `CREATE MODEL`, secrets masked.
    pub options: BTreeMap<String, String>,
    /// What it was trained on.
    pub lineage: Lineage,
    /// Metrics on the hold-out rows.
    #[serde(serialize_with = "write_numbers", deserialize_with = "read_numbers")]
    pub metrics: BTreeMap<String, f64>,
    /// For a classification: rows by true class (outer) and predicted class (inner), in the classes' order.
    pub confusion: Option<Vec<Vec<f64>>>,
    /// The seed of every random choice.
    pub seed: u64,
    /// The version that was champion when this one was judged.
    pub champion_before: Option<u64>,
    /// What the gate said; none where there is no gate.
    pub verdict: Option<Verdict>,
    /// Programs and libraries that made it, with their versions.
    pub libraries: BTreeMap<String, String>,
    /// The other files of the version.
    pub files: BTreeMap<String, FileEntry>,
}

/// A field of a model's inputs or outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldEntry {
    /// Its name.
    pub name: String,
    /// Its SQL type, as Flink writes it.
    #[serde(rename = "type")]
    pub sql_type: String,
    /// Whether it may be null.
    pub nullable: bool,
}

/// What a model was trained on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The files, exactly, in the order in which they were read.
    pub files: Vec<InputFile>,
    /// Where the input was a topic: topic → partition → offsets, from (inclusive) and to (exclusive).
    pub offsets: BTreeMap<String, BTreeMap<i32, (i64, i64)>>,
    /// Rows that were trained on.
    pub rows: u64,
    /// Rows that were held out for the metrics.
    pub rows_held_out: u64,
    /// Rows that could not be used (null label, NaN, …).
    pub rows_refused: u64,
}

/// A file of a [`Lineage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Its path, as it was read.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Its sha256, in hexadecimal.
    pub sha256: String,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its size.
    pub bytes: u64,
    /// Its sha256, in hexadecimal.
    pub sha256: String,
}

/// The fields of `schema`.
pub fn field_entries(schema: &Schema) -> Vec<FieldEntry> {
    let entry = |f: &arrow::datatypes::FieldRef| FieldEntry {
        name: f.name().clone(),
        sql_type: SqlType::of(f).to_string(),
        nullable: f.is_nullable(),
    };
    schema.fields().iter().map(entry).collect()
}

/// `options` with secret values masked.
pub fn masked_options(options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    options.iter().map(|(k, v)| (k.clone(), masked(k, v).to_string())).collect()
}

/// This program and the libraries that fit, as the lock file has them.
pub fn libraries() -> BTreeMap<String, String> {
    const LOCK: &str = include_str!("../../../../Cargo.lock");
    const NAMES: [&str; 4] = ["velosql", "arrow", "parquet", "ndarray"];
    let mut found = BTreeMap::new();
    let mut lines = LOCK.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = quoted(line, "name = ").filter(|name| NAMES.contains(name))
            && let Some(version) = lines.next().and_then(|line| quoted(line, "version = "))
        {
            found.insert(name.to_string(), version.to_string());
        }
    }
    found
}

impl Manifest {
    /// Whether this is the manifest of `model`.
    pub fn describes(&self, model: &Model) -> bool {
        self.task == model.task()
            && self.algorithm == model.algorithm()
            && self.features == *model.features()
            && self.label.as_ref() == model.label()
            && self.inputs == field_entries(model.inputs())
            && self.outputs == field_entries(&model.outputs())
    }
}

fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key).map(|v| v.trim_matches('"'))
}

/// JSON has no NaN: such a metric (an AUC of one class) is null there.
fn write_numbers<S: Serializer>(numbers: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(numbers.iter().map(|(k, v)| (k, v.is_finite().then_some(*v))))
}

fn read_numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let numbers = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(numbers.into_iter().map(|(k, v)| (k, v.unwrap_or(f64::NAN))).collect())
}
