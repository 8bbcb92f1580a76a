//! The WITH options of a filesystem table. Both halves read all of them, so that one CREATE TABLE serves
//! as source and as sink and a mistyped name is refused in either role.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Options;
use crate::connectors::{Context, TableSpec};
use crate::error::{Error, Result};
use crate::formats::{self, FormatKind};

use super::partition_commit::{Policy, Trigger};

/// Knob of the engine alone: a JSON list of the files that are the table.
pub const FILES: &str = "files";
/// Knob of the engine alone: a job of this run writes the table.
pub const MAY_COME: &str = "may-come";

/// All options.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// "table 't'".
    pub owner: String,
    /// The path as written, for messages.
    pub written: String,
    /// The path on this machine; may hold glob characters.
    pub path: PathBuf,
    /// The format.
    pub format: FormatKind,
    /// The first record of each file is a header.
    pub csv_header: bool,
    /// Watch for new files this often; `None`: bounded.
    pub monitor_interval: Option<Duration>,
    /// Only files whose whole path matches.
    pub path_pattern: Option<String>,
    /// Exactly these files, in this order, whatever else lies at the path.
    pub files: Option<Vec<PathBuf>>,
    /// A job of this run writes the table: its folder may come later.
    pub may_come: bool,
    /// Roll a file at this size.
    pub roll_bytes: u64,
    /// Roll a file at this age.
    pub roll_after: Duration,
    /// Every so many rows are one file.
    pub roll_rows: Option<usize>,
    /// Folder name of a partition whose value is NULL or empty.
    pub default_partition: String,
    /// When a partition is complete, and what is then done.
    pub policy: Option<Policy>,
}

impl FileOptions {
    /// Reads the options of `spec`.
    ///
    /// # Errors
    /// User: an option that is missing, unknown or unreadable.
    pub fn read(spec: &TableSpec, ctx: &Context) -> Result<Self> {
        let owner = format!("table '{}'", spec.name);
        let mut o = Options::new(owner.clone(), spec.options.clone());
        o.declare(&[
            "connector",
            "sink.rolling-policy.check-interval",
            "sink.shuffle-by-partition.enable",
            "sink.parallelism",
            "scan.parallelism",
        ]);
        let written = o.required("path")?;
        let path = super::local(&written, &ctx.base, &owner)?;
        let format = formats::read_format(&o.required("format")?, &mut o, "")?;
        if o.flag("auto-compaction", false)? {
            return Err(Error::user(format!("{owner}: 'auto-compaction' is not yet supported")).help("use 'sink.rolling-policy.file-size'"));
        }
        o.declare(&["compaction.file-size", "compaction.parallelism"]);
        let age = o.duration("sink.rolling-policy.rollover-interval")?.unwrap_or(Duration::from_secs(30 * 60));
        let inactivity = o.duration("sink.rolling-policy.inactivity-interval")?.unwrap_or(Duration::from_secs(30 * 60));
        let mut options = Self {
            monitor_interval: o.duration("source.monitor-interval")?.map(|d| d.max(Duration::from_millis(1))),
            path_pattern: o.text("source.path.regex-pattern"),
            files: files(spec)?,
            may_come: spec.knobs.contains_key(MAY_COME),
            roll_bytes: o.bytes("sink.rolling-policy.file-size")?.unwrap_or(128 << 20).max(1),
            roll_after: age.min(inactivity),
            default_partition: o.text("partition.default-name").unwrap_or_else(|| "__DEFAULT_PARTITION__".to_string()),
            policy: Policy::read(&mut o, &spec.partition_keys)?,
            csv_header: knob_flag(spec, "csv-header")?,
            roll_rows: roll_rows(spec)?,
            owner,
            written,
            path,
            format,
        };
        o.finish()?;
        if options.files.is_some() {
            options.monitor_interval = None;
        }
        if options.csv_header && options.format.name() != "csv" {
            let e = format!("{}: 'csv-header' is set, but its format is '{}'", options.owner, options.format.name());
            return Err(Error::user(e));
        }
        for key in &spec.partition_keys {
            if spec.physical.index_of(key).is_err() {
                return Err(Error::user(format!("{}: the partition column '{key}' is no physical column", options.owner)));
            }
        }
        if spec.partition_keys.len() == spec.physical.fields().len() {
            return Err(Error::user(format!("{}: a column that is no partition column is needed", options.owner)));
        }
        Ok(options)
    }

    /// The watermark must reach the committer.
    pub fn commits_by_watermark(&self) -> bool {
        self.policy.as_ref().is_some_and(|p| matches!(p.trigger, Trigger::PartitionTime { .. }))
    }
}

fn knob_flag(spec: &TableSpec, key: &str) -> Result<bool> {
    match spec.knobs.get(key).map(|v| v.to_ascii_lowercase()).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Error::user(format!("'velosql.table.{}.{key}' is '{other}', but must be true or false", spec.name))),
    }
}

fn files(spec: &TableSpec) -> Result<Option<Vec<PathBuf>>> {
    let Some(text) = spec.knobs.get(FILES) else { return Ok(None) };
    let files = serde_json::from_str(text).map_err(|e| Error::internal(format!("the files of table '{}'", spec.name)).caused_by(e))?;
    Ok(Some(files))
}

fn roll_rows(spec: &TableSpec) -> Result<Option<usize>> {
    let Some(text) = spec.knobs.get("roll-rows") else { return Ok(None) };
    let name = format!("'velosql.table.{}.roll-rows'", spec.name);
    match text.trim().parse() {
        Ok(rows) if rows > 0 && spec.partition_keys.is_empty() => Ok(Some(rows)),
        Ok(rows) if rows > 0 => {
            let e = Error::user(format!("{name} is set, but table '{}' is partitioned", spec.name));
            Err(e.help("every file of that many rows would lie in several folders: leave PARTITIONED BY out"))
        }
        _ => Err(Error::user(format!("{name} is '{text}', but must be a number of rows above 0"))),
    }
}
