//! `SET 'key' = 'value'`: which keys there are, and what a job reads of them.
//!
//! Flink accepts any key, and so do we, except under `velosql.`: those are ours, and a misspelt one would
//! be lost silently. `--set` beats SET.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono_tz::Tz;

use crate::config::{parse_bytes, parse_duration};
use crate::error::{Error, Result, nearest};
use crate::sql::plan::JobSettings;

/// Knobs of one table: `velosql.table.<name>.<knob>`.
pub const TABLE_KNOBS: &[&str] = &["bad-records", "csv-header", "dead-letter", "late-rows", "roll-rows"];

/// Settings of the whole job under `velosql.`.
pub const JOB_KNOBS: &[&str] = &["velosql.batch-rows", "velosql.batch-bytes", "velosql.batch-latency"];

/// Settings that count for a job as a whole: two values between INSERTs of one job are refused.
const JOB_WIDE: &[&str] = &["pipeline.name", "parallelism.default", "execution.checkpointing.interval"];

/// The settings as they stand.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// Keys given on the command line, which SET does not change.
    pinned: BTreeSet<String>,
    /// Tables that an INSERT of this run writes.
    written: BTreeSet<String>,
}

impl Settings {
    /// Settings of the command line.
    ///
    /// # Errors
    /// User: as [`Settings::set`].
    pub fn new(pinned: &[(String, String)]) -> Result<Self> {
        let mut settings = Self::default();
        for (key, value) in pinned {
            settings.set(key, value)?;
            settings.pinned.insert(key.clone());
        }
        Ok(settings)
    }

    /// `SET 'key' = 'value'`.
    ///
    /// # Errors
    /// User: an unknown key under `velosql.`, or a value that the key does not take.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        check(key, value)?;
        if !self.pinned.contains(key) {
            self.values.insert(key.to_string(), value.to_string());
        }
        Ok(())
    }

    /// An INSERT writes `table`: what reads it later may find it only then.
    pub fn mark_written(&mut self, table: &str) {
        self.written.insert(table.to_string());
    }

    /// Whether an INSERT before this place writes `table`.
    pub fn is_written(&self, table: &str) -> bool {
        self.written.contains(table)
    }

    /// `RESET 'key'`, or all of them.
    pub fn reset(&mut self, key: Option<&str>) {
        self.values.retain(|k, _| self.pinned.contains(k) || key.is_some_and(|key| key != k));
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// All of them, by key.
    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// `table.local-time-zone`; UTC unless set.
    pub fn zone(&self) -> Tz {
        self.get("table.local-time-zone").and_then(parse_zone).unwrap_or(Tz::UTC)
    }

    /// `table.exec.source.idle-timeout`; zero means none.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.get("table.exec.source.idle-timeout").and_then(parse_duration).filter(|d| !d.is_zero())
    }

    /// Whether NULL in a NOT NULL column of a sink drops the row.
    pub fn drops_nulls(&self) -> bool {
        self.get("table.exec.sink.not-null-enforcer").is_some_and(|v| v.eq_ignore_ascii_case("drop"))
    }

    /// `velosql.table.<table>.<knob>` by knob.
    pub fn knobs(&self, table: &str) -> BTreeMap<String, String> {
        let of = |(key, value): (&String, &String)| {
            let (name, knob) = table_knob(key)?;
            (name == table).then(|| (knob.to_string(), value.clone()))
        };
        self.values.iter().filter_map(of).collect()
    }

    /// Tables named by knobs.
    pub fn tables_with_knobs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.keys().filter_map(|k| table_knob(k))
    }

    /// What a job reads.
    pub fn job(&self) -> JobSettings {
        JobSettings {
            name: self.get("pipeline.name").map(str::to_string),
            workers: self.get("parallelism.default").and_then(|v| v.trim().parse().ok()).filter(|n| *n > 0),
            checkpoint_interval: self.get("execution.checkpointing.interval").and_then(parse_duration),
            zone: self.zone(),
            all: self.values.clone(),
        }
    }

    /// Refuses a job-wide setting that differs from what it was at the job's first INSERT.
    ///
    /// # Errors
    /// User: names the key and both values.
    pub fn same_job(&self, first: &Settings) -> Result<()> {
        let ours = |k: &&String| k.starts_with("velosql.") && table_knob(k).is_none();
        let keys: BTreeSet<&str> =
            JOB_WIDE.iter().copied().chain(self.values.keys().chain(first.values.keys()).filter(ours).map(String::as_str)).collect();
        for key in keys {
            let (was, is) = (first.get(key), self.get(key));
            if was != is {
                let show = |v: Option<&str>| v.map_or("unset".to_string(), |v| format!("'{v}'"));
                let e = Error::user(format!("'{key}' is {} for one INSERT of the job and {} for another", show(was), show(is)));
                return Err(e.help("all INSERTs of a file are one job: set it once, before the first of them"));
            }
        }
        Ok(())
    }
}

/// `velosql.table.<name>.<knob>`; the name may hold dots.
fn table_knob(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("velosql.table.")?.rsplit_once('.')
}

fn parse_zone(text: &str) -> Option<Tz> {
    let text = text.trim();
    text.parse().ok()
}

fn check(key: &str, value: &str) -> Result<()> {
    let bad = |wanted: &str| Err(Error::user(format!("'{key}' is '{value}', but must be {wanted}")));
    match key {
        "table.local-time-zone" if parse_zone(value).is_none() => return bad("a time zone such as 'Europe/Paris' or 'UTC'"),
        "table.exec.source.idle-timeout" | "execution.checkpointing.interval" if parse_duration(value).is_none() => {
            return bad("a duration such as '10 s' or '5 min'");
        }
        "parallelism.default" if value.trim().parse::<i64>().map_or(true, |n| n == 0 || n < -1) => return bad("a number of workers"),
        "table.exec.sink.not-null-enforcer" if !["error", "drop"].contains(&value.to_lowercase().as_str()) => return bad("ERROR or DROP"),
        "execution.runtime-mode" if !value.eq_ignore_ascii_case("streaming") => {
            return Err(Error::user(format!("'{key}' = '{value}' is not supported"))
                .help("queries run in streaming mode; a bounded input ends by itself"));
        }
        _ => {}
    }
    if !key.starts_with("velosql.") {
        return Ok(());
    }
    if let Some((_, knob)) = table_knob(key) {
        return match TABLE_KNOBS.contains(&knob) {
            true => check_knob(key, knob, value),
            false => Err(unknown(key, nearest(knob, TABLE_KNOBS.iter().copied()), TABLE_KNOBS)),
        };
    }
    if JOB_KNOBS.contains(&key) {
        return match key {
            "velosql.batch-rows" if value.trim().parse::<usize>().map_or(true, |n| n == 0) => bad("a number of rows above 0"),
            "velosql.batch-bytes" if parse_bytes(value).is_none() => bad("a size such as '4 mb'"),
            "velosql.batch-latency" if parse_duration(value).is_none() => bad("a duration such as '5 ms'"),
            _ => Ok(()),
        };
    }
    Err(unknown(key, nearest(key, JOB_KNOBS.iter().copied()), JOB_KNOBS))
}

fn check_knob(key: &str, knob: &str, value: &str) -> Result<()> {
    let bad = |wanted: &str| Err(Error::user(format!("'{key}' is '{value}', but must be {wanted}")));
    match knob {
        "bad-records" if !["fail", "skip", "dead-letter"].contains(&value) => bad("fail, skip or dead-letter"),
        "csv-header" if value.parse::<bool>().is_err() => bad("true or false"),
        "roll-rows" if value.parse::<u64>().map_or(true, |n| n == 0) => bad("a number of rows above 0"),
        "dead-letter" | "late-rows" if value.trim().is_empty() || value == "topic:" => bad("topic:NAME or a path"),
        _ => Ok(()),
    }
}

fn unknown(key: &str, near: Option<&str>, known: &[&str]) -> Error {
    let e = Error::user(format!("unknown setting '{key}'"));
    match near {
        Some(near) => e.help(format!("did you mean '{near}'?")),
        None => e.help(format!("known here: {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_beats_set_and_unknown_knobs_are_refused() {
        let mut s = Settings::new(&[("pipeline.name".into(), "a".into())]).expect("known");
        s.set("pipeline.name", "b").expect("known");
        s.set("any.flink.key", "x").expect("Flink accepts any key");
        assert_eq!(s.job().name.as_deref(), Some("a"));
        let e = s.set("velosql.table.status.roll-row", "100").expect_err("misspelt");
        assert_eq!(e.help_text(), Some("did you mean 'roll-rows'?"));
        s.set("velosql.table.status.roll-rows", "100").expect("known");
        assert_eq!(s.knobs("status")["roll-rows"], "100");
        s.reset(None);
        assert_eq!(s.get("pipeline.name"), Some("a"));
        assert!(s.knobs("status").is_empty());
    }
}
