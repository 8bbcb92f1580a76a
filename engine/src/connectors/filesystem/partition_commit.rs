//! When a partition is complete, and what then says so (`sink.partition-commit.*`).

use std::time::Duration;

use chrono::{NaiveDate, NaiveDateTime, TimeZone};

use super::partition::unescape;
use crate::config::Options;
use crate::error::{Error, Result};

/// `sink.partition-commit.*` of a partitioned table.
#[derive(Debug, Clone)]
pub struct Policy {
    /// When a partition is complete.
    pub trigger: Trigger,
    /// After the moment that the trigger names.
    pub delay: Duration,
    /// Name of the file that says so; `None`: nothing says so.
    pub success_file: Option<String>,
}

/// When a partition is complete.
#[derive(Debug, Clone)]
pub enum Trigger {
    /// When the clock has passed the partition's creation by the delay.
    ProcessTime,
    /// When the watermark has passed the time in the partition's name by the delay.
    PartitionTime {
        /// How the partition's values make a time: `$day $hour:00:00`; `None`: the first value.
        pattern: Option<String>,
        /// Java pattern of that time.
        formatter: Option<String>,
        /// Zone in which the partition's time is meant.
        zone: chrono_tz::Tz,
    },
}

impl Policy {
    /// Takes the options; `None` where the table has no partitions or nothing is to be said.
    ///
    /// # Errors
    /// User: an unreadable value, or a kind that is not supported.
    pub fn read(o: &mut Options, keys: &[String]) -> Result<Option<Self>> {
        let by_partition_time = o.choice("sink.partition-commit.trigger", &[("process-time", false), ("partition-time", true)], false)?;
        let delay = o.duration("sink.partition-commit.delay")?.unwrap_or_default();
        let kinds = o.text("sink.partition-commit.policy.kind");
        let name = o.text("sink.partition-commit.success-file.name").unwrap_or_else(|| "_SUCCESS".to_string());
        let zone_text = o.text("sink.partition-commit.watermark-time-zone").unwrap_or_else(|| "UTC".to_string());
        let zone = zone_text
            .parse()
            .map_err(|_| o.bad("sink.partition-commit.watermark-time-zone", &zone_text, "a zone such as 'Europe/Paris'"))?;
        o.choice("partition.time-extractor.kind", &[("default", ())], ())?;
        let pattern = o.text("partition.time-extractor.timestamp-pattern");
        let formatter = o.text("partition.time-extractor.timestamp-formatter");
        let mut success_file = None;
        for kind in kinds.iter().flat_map(|k| k.split(',')) {
            match kind.trim() {
                "success-file" => success_file = Some(name.clone()),
                other => return Err(o.bad("sink.partition-commit.policy.kind", other, "success-file")),
            }
        }
        if name.is_empty() || name.contains('/') || !super::listing::is_hidden(&name) {
            return Err(o.bad(
                "sink.partition-commit.success-file.name",
                &name,
                "a file name that starts with '_' or '.', so that no reader takes it for data",
            ));
        }
        if keys.is_empty() || success_file.is_none() {
            return Ok(None);
        }
        let trigger = if by_partition_time { Trigger::PartitionTime { pattern, formatter, zone } } else { Trigger::ProcessTime };
        Ok(Some(Self { trigger, delay, success_file }))
    }

    /// Whether the partition in `folder` (relative, escaped), created at `created`, is complete.
    ///
    /// # Errors
    /// User: the partition's values are no time.
    pub fn is_complete(&self, folder: &str, created: i64, now: i64, watermark: i64) -> Result<bool> {
        let delay = i64::try_from(self.delay.as_millis()).unwrap_or(i64::MAX);
        match &self.trigger {
            Trigger::ProcessTime => Ok(now >= created.saturating_add(delay)),
            Trigger::PartitionTime { pattern, formatter, zone } => {
                let time = partition_time(folder, pattern.as_deref(), formatter.as_deref())?;
                let local = zone.from_local_datetime(&time);
                // A time that a clock change leaves out means the same as in Java: moved on by the gap.
                let instant = local.earliest().map_or_else(|| zone.from_utc_datetime(&time).timestamp_millis(), |t| t.timestamp_millis());
                Ok(watermark > instant.saturating_add(delay))
            }
        }
    }
}

/// The time that a partition's values name.
fn partition_time(folder: &str, pattern: Option<&str>, formatter: Option<&str>) -> Result<NaiveDateTime> {
    let values: Vec<(String, String)> =
        folder.split('/').filter_map(|c| c.split_once('=')).map(|(k, v)| (unescape(k), unescape(v))).collect();
    let text = match pattern {
        None => values.first().map(|(_, v)| v.clone()).unwrap_or_default(),
        Some(pattern) => {
            let mut text = pattern.to_string();
            // Longer names first: $hours must not be read as $hour and an s.
            let mut by_length: Vec<_> = values.iter().collect();
            by_length.sort_by_key(|(k, _)| std::cmp::Reverse(k.len()));
            for (key, value) in by_length {
                text = text.replace(&format!("${key}"), value);
            }
            text
        }
    };
    let read = match formatter {
        Some(formatter) => read_java(&text, formatter),
        None => ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
            .iter()
            .find_map(|f| NaiveDateTime::parse_from_str(&text, f).ok())
            .or_else(|| NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok().and_then(|d| d.and_hms_opt(0, 0, 0))),
    };
    read.ok_or_else(|| {
        Error::user(format!("partition '{folder}': '{text}' is no time, but the partition is committed by its time"))
            .help("set 'partition.time-extractor.timestamp-pattern', such as '$day $hour:00:00', or use the trigger 'process-time'")
    })
}

/// Reads `text` by a Java pattern of the letters y M d H m s, other characters and quoted text as they are.
fn read_java(text: &str, pattern: &str) -> Option<NaiveDateTime> {
    let (mut year, mut month, mut day, mut hour, mut minute, mut second) = (1970, 1, 1, 0, 0, 0);
    let pattern: Vec<char> = pattern.chars().collect();
    let mut rest = text;
    let (mut i, mut quoted) = (0, false);
    while i < pattern.len() {
        let c = pattern[i];
        if c == '\'' {
            quoted = !quoted;
            i += 1;
        } else if !quoted && "yMdHms".contains(c) {
            let width = pattern[i..].iter().take_while(|p| **p == c).count();
            let digits = rest.bytes().take(width.max(1)).take_while(u8::is_ascii_digit).count();
            let number: u32 = rest.get(..digits)?.parse().ok()?;
            rest = &rest[digits..];
            match c {
                'y' => year = number as i32,
                'M' => month = number,
                'd' => day = number,
                'H' => hour = number,
                'm' => minute = number,
                _ => second = number,
            }
            i += width;
        } else {
            rest = rest.strip_prefix(c)?;
            i += 1;
        }
    }
    NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(hour, minute, second).filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_complete_when_the_watermark_has_passed_its_time_and_the_delay() {
        let trigger = Trigger::PartitionTime {
            pattern: Some("$day $hour:00:00".into()),
            formatter: None,
            zone: "Europe/Paris".parse().expect("a zone"),
        };
        let policy = Policy { trigger, delay: Duration::from_secs(3600), success_file: Some("_SUCCESS".into()) };
        // 10:00 in Paris is 09:00 UTC; an hour later it is 10:00 UTC.
        let ten = NaiveDate::from_ymd_opt(2024, 11, 9).and_then(|d| d.and_hms_opt(10, 0, 0)).expect("a time").and_utc().timestamp_millis();
        let complete = |watermark| policy.is_complete("day=2024-11-09/hour=10", 0, 0, watermark).expect("a time");
        assert!(!complete(ten));
        assert!(complete(ten + 1));
        policy.is_complete("day=x/hour=10", 0, 0, ten).expect_err("no time");
    }

    #[test]
    fn java_patterns_are_read() {
        let time = read_java("20241109-07", "yyyyMMdd-HH").expect("a time");
        assert_eq!(time.to_string(), "2024-11-09 07:00:00");
        assert_eq!(read_java("2024-11", "yyyy-MM-dd"), None);
    }
}
