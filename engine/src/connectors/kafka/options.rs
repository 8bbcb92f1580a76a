//! The WITH options of a Kafka table, typed. Both halves of the connector read the same ones.
//!
//! Names and rules are Flink's. What must always hold: each option that exists is taken or declared here,
//! so that [`Options::finish`] refuses exactly what nobody knows.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};

use super::properties::{Role, Settings, translate};
use crate::config::Options;
use crate::connectors::TableSpec;
use crate::error::{Error, Result, nearest};
use crate::formats::{FormatKind, read_format};

/// Which topics a table reads.
#[derive(Debug, Clone)]
pub(super) enum Topics {
    /// `topic`: one, or several with `;` between.
    Named(Vec<String>),
    /// `topic-pattern`.
    Matching(Box<fancy_regex::Regex>),
}

/// `scan.startup.mode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// Committed offsets of the group.
    Group,
    /// The oldest record.
    Earliest,
    /// Only what comes.
    Latest,
    /// The first record at or after a time (ms).
    Timestamp(i64),
    /// Offsets by partition.
    Specific(BTreeMap<i32, i64>),
}

/// `scan.bounded.mode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bound {
    /// Never ends.
    Unbounded,
    /// Ends at what is there when the job first starts.
    Latest,
    /// Ends at the committed offsets of the group.
    Group,
    /// Ends before the first record at or after a time (ms).
    Timestamp(i64),
    /// Ends at offsets by partition (exclusive).
    Specific(BTreeMap<i32, i64>),
}

/// `properties.auto.offset.reset`: where a partition without a committed offset starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// Nowhere: an error.
    None,
    /// At the oldest record.
    Earliest,
    /// At the end.
    Latest,
}

/// `sink.partitioner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partitioning {
    /// By key as the Java client does; without a key, sticky.
    Default,
    /// One partition a writer.
    Fixed,
    /// In turn.
    RoundRobin,
}

/// `sink.delivery-guarantee`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guarantee {
    /// Losses are possible and not noticed.
    None,
    /// A checkpoint waits until all rows before it are acknowledged.
    AtLeastOnce,
}

/// Which columns travel in keys and which in values, and in which formats.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Format of values.
    pub value_format: FormatKind,
    /// Indices into the physical columns that are in the value, ascending.
    pub value_columns: Vec<usize>,
    /// Their schema.
    pub value_schema: SchemaRef,
    /// Format of keys, if they are read or written.
    pub key_format: Option<FormatKind>,
    /// Indices into the physical columns that are in the key, in the order of `key.fields`.
    pub key_columns: Vec<usize>,
    /// Their schema as the key has it: without `key.fields-prefix`.
    pub key_schema: SchemaRef,
}

/// All options of a Kafka table.
#[derive(Debug, Clone)]
pub(super) struct KafkaOptions {
    pub owner: String,
    pub topics: Topics,
    pub servers: String,
    pub settings: Settings,
    pub group: Option<String>,
    pub commits_offsets: bool,
    pub reset: Reset,
    pub start: Start,
    pub bound: Bound,
    pub discovery: Option<Duration>,
    pub layout: Layout,
    pub partitioning: Partitioning,
    pub guarantee: Guarantee,
}

/// Reads the options of `spec` for a client of `role`.
///
/// # Errors
/// User: an option is missing, unknown, of the wrong kind, or contradicts another.
pub(super) fn read(spec: &TableSpec, role: Role) -> Result<KafkaOptions> {
    let owner = format!("table '{}'", spec.name);
    let mut o = Options::new(&owner, spec.options.clone());
    o.declare(&["connector", "scan.parallelism", "sink.parallelism", "scan.watermark.idle-timeout", "scan.watermark.emit.strategy"]);
    o.declare(&["scan.watermark.alignment.group", "scan.watermark.alignment.max-drift", "scan.watermark.alignment.update-interval"]);
    o.declare(&["sink.transactional-id-prefix", "sink.transaction-naming-strategy"]);
    let topics = topics(&mut o, role)?;
    let servers = o.required("properties.bootstrap.servers")?;
    let properties = o.with_prefix("properties.");
    let settings = translate(&owner, &properties, role)?;
    let group = properties.get("group.id").filter(|g| !g.trim().is_empty()).cloned();
    let commits_offsets = properties.get("commit.offsets.on.checkpoint").is_none_or(|v| !v.eq_ignore_ascii_case("false"));
    let reset = match properties.get("auto.offset.reset").map(|v| v.to_ascii_lowercase()).as_deref() {
        None | Some("none") => Reset::None,
        Some("earliest") => Reset::Earliest,
        Some("latest") => Reset::Latest,
        Some(other) => return Err(o.bad("properties.auto.offset.reset", other, "earliest, latest or none")),
    };
    let start = start(&mut o)?;
    let bound = bound(&mut o)?;
    if group.is_none() && role == Role::Consumer {
        let needs = match (&start, &bound) {
            (Start::Group, _) => Some("starts at the offsets of its group ('scan.startup.mode' = 'group-offsets', the default)"),
            (_, Bound::Group) => Some("ends at the offsets of its group ('scan.bounded.mode' = 'group-offsets')"),
            _ => None,
        };
        if let Some(needs) = needs {
            return Err(Error::user(format!("{owner} {needs}, but 'properties.group.id' is not set"))
                .help("add 'properties.group.id', or 'scan.startup.mode' = 'earliest-offset'"));
        }
    }
    let discovery = o.duration("scan.topic-partition-discovery.interval")?.unwrap_or(Duration::from_secs(300));
    let guarantee = o.choice(
        "sink.delivery-guarantee",
        &[("at-least-once", Some(Guarantee::AtLeastOnce)), ("none", Some(Guarantee::None)), ("exactly-once", None)],
        Some(Guarantee::AtLeastOnce),
    )?;
    let guarantee = match (guarantee, role) {
        (Some(g), _) => g,
        (None, Role::Producer) => {
            return Err(Error::user(format!("{owner}: 'sink.delivery-guarantee' = 'exactly-once' is not yet supported"))
                .help("use 'at-least-once' (the default): a row can come twice after a crash; files are written exactly once"));
        }
        // To a reader it is the other half's option.
        (None, _) => Guarantee::AtLeastOnce,
    };
    let partitioning = partitioning(&mut o, role)?;
    let layout = layout(&mut o, spec, role)?;
    if partitioning == Partitioning::RoundRobin && layout.key_format.is_some() && role == Role::Producer {
        return Err(Error::user(format!("{owner}: 'sink.partitioner' = 'round-robin' cannot be used with keys"))
            .help("use 'default', which sends equal keys to one partition, or 'fixed'"));
    }
    o.finish()?;
    let discovery = (!discovery.is_zero()).then_some(discovery);
    Ok(KafkaOptions {
        owner,
        topics,
        servers,
        settings,
        group,
        commits_offsets,
        reset,
        start,
        bound,
        discovery,
        layout,
        partitioning,
        guarantee,
    })
}

fn topics(o: &mut Options, role: Role) -> Result<Topics> {
    match (o.text("topic"), o.text("topic-pattern")) {
        (Some(_), Some(_)) => Err(Error::user(format!("{} has both 'topic' and 'topic-pattern'", o.owner())).help("keep one of them")),
        (Some(list), None) => {
            let names: Vec<String> = list.split(';').map(|t| t.trim().to_string()).filter(|t| !t.is_empty()).collect();
            match names.len() {
                0 => Err(o.bad("topic", &list, "the name of a topic")),
                n if n > 1 && role == Role::Producer => Err(Error::user(format!("{} is written, but names {n} topics", o.owner()))
                    .help("write each topic through a table of its own")),
                _ => Ok(Topics::Named(names)),
            }
        }
        (None, Some(_)) if role == Role::Producer => {
            Err(Error::user(format!("{} is written, but has a 'topic-pattern'", o.owner())).help("name the one 'topic' to write"))
        }
        (None, Some(pattern)) => {
            // Java matches the whole name.
            let whole = fancy_regex::Regex::new(&format!("^(?:{pattern})$"));
            Ok(Topics::Matching(Box::new(whole.map_err(|e| o.bad("topic-pattern", &pattern, "a regular expression").caused_by(e))?)))
        }
        (None, None) => {
            o.required("topic")?;
            Err(Error::internal("a missing topic was found"))
        }
    }
}

/// A companion option of a mode.
fn companion<T>(o: &Options, mode_key: &str, mode: &str, key: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| {
        Error::user(format!("{}: '{mode_key}' = '{mode}' needs the option '{key}'", o.owner()))
            .help(format!("add '{key}' = '…' to its WITH clause"))
    })
}

fn start(o: &mut Options) -> Result<Start> {
    let mode = "scan.startup.mode";
    let millis = o.number::<i64>("scan.startup.timestamp-millis")?;
    let specific = specific_offsets(o, "scan.startup.specific-offsets")?;
    let modes = [("group-offsets", 0), ("earliest-offset", 1), ("latest-offset", 2), ("timestamp", 3), ("specific-offsets", 4)];
    Ok(match o.choice(mode, &modes, 0)? {
        0 => Start::Group,
        1 => Start::Earliest,
        2 => Start::Latest,
        3 => Start::Timestamp(companion(o, mode, "timestamp", "scan.startup.timestamp-millis", millis)?),
        _ => Start::Specific(companion(o, mode, "specific-offsets", "scan.startup.specific-offsets", specific)?),
    })
}

fn bound(o: &mut Options) -> Result<Bound> {
    let mode = "scan.bounded.mode";
    let millis = o.number::<i64>("scan.bounded.timestamp-millis")?;
    let specific = specific_offsets(o, "scan.bounded.specific-offsets")?;
    let modes = [("unbounded", 0), ("latest-offset", 1), ("group-offsets", 2), ("timestamp", 3), ("specific-offsets", 4)];
    Ok(match o.choice(mode, &modes, 0)? {
        0 => Bound::Unbounded,
        1 => Bound::Latest,
        2 => Bound::Group,
        3 => Bound::Timestamp(companion(o, mode, "timestamp", "scan.bounded.timestamp-millis", millis)?),
        _ => Bound::Specific(companion(o, mode, "specific-offsets", "scan.bounded.specific-offsets", specific)?),
    })
}

/// `partition:0,offset:42;partition:1,offset:300`.
fn specific_offsets(o: &mut Options, key: &str) -> Result<Option<BTreeMap<i32, i64>>> {
    let Some(text) = o.text(key) else { return Ok(None) };
    let pair = |part: &str| {
        let (partition, offset) = part.split_once(',')?;
        let partition: i32 = partition.trim().strip_prefix("partition:")?.trim().parse().ok()?;
        let offset: i64 = offset.trim().strip_prefix("offset:")?.trim().parse().ok()?;
        (partition >= 0 && offset >= 0).then_some((partition, offset))
    };
    let parsed: Option<BTreeMap<i32, i64>> = text.split(';').map(str::trim).filter(|p| !p.is_empty()).map(pair).collect();
    match parsed {
        Some(map) if !map.is_empty() => Ok(Some(map)),
        _ => Err(o.bad(key, &text, "like 'partition:0,offset:42;partition:1,offset:300'")),
    }
}

fn partitioning(o: &mut Options, role: Role) -> Result<Partitioning> {
    let choices = [("default", Partitioning::Default), ("fixed", Partitioning::Fixed), ("round-robin", Partitioning::RoundRobin)];
    match o.text("sink.partitioner") {
        // A Java class name: another engine's code.
        Some(class) if class.contains('.') && role == Role::Producer => {
            Err(Error::user(format!("{}: 'sink.partitioner' = '{class}' names a Java class, which cannot run here", o.owner()))
                .help("use default, fixed or round-robin"))
        }
        Some(class) if class.contains('.') => Ok(Partitioning::Default),
        _ => o.choice("sink.partitioner", &choices, Partitioning::Default),
    }
}

fn layout(o: &mut Options, spec: &TableSpec, role: Role) -> Result<Layout> {
    let owner = o.owner().to_string();
    let (format, value_format) = (o.text("format"), o.text("value.format"));
    let value_format = match (format, value_format) {
        (Some(_), Some(_)) => return Err(Error::user(format!("{owner} has both 'format' and 'value.format'")).help("keep one of them")),
        (Some(name), None) => read_format(&name, o, "")?,
        (None, Some(name)) => read_format(&name, o, "value.")?,
        (None, None) => return Err(Error::user(format!("{owner} needs the option 'format'")).help("for example 'format' = 'json'")),
    };
    let key_format = o.text("key.format").map(|name| read_format(&name, o, "key.")).transpose()?;
    let key_fields = o.text("key.fields");
    let prefix = o.text("key.fields-prefix").unwrap_or_default();
    let except_key = o.choice("value.fields-include", &[("ALL", false), ("EXCEPT_KEY", true)], false)?;
    let names: Vec<&str> = spec.physical.fields().iter().map(|f| f.name().as_str()).collect();
    let mut key_columns = Vec::new();
    match (&key_format, &key_fields) {
        (Some(_), Some(fields)) => {
            for name in fields.split(';').map(str::trim).filter(|n| !n.is_empty()) {
                let Some(at) = names.iter().position(|n| *n == name) else {
                    let e = Error::user(format!("{owner}: 'key.fields' names '{name}', which is no physical column of the table"));
                    return Err(match nearest(name, names.iter().copied()) {
                        Some(n) => e.help(format!("did you mean '{n}'?")),
                        None => e.help(format!("its columns: {}", names.join(", "))),
                    });
                };
                if !name.starts_with(&prefix) {
                    return Err(Error::user(format!(
                        "{owner}: 'key.fields' names '{name}', which does not start with 'key.fields-prefix' ('{prefix}')"
                    )));
                }
                key_columns.push(at);
            }
        }
        (None, Some(_)) => {
            return Err(
                Error::user(format!("{owner} has 'key.fields' but no 'key.format'")).help("add 'key.format', such as 'raw' or 'json'")
            );
        }
        (Some(_), None) if role == Role::Producer || spec.primary_key.is_empty() => {
            return Err(Error::user(format!("{owner} has 'key.format' but no 'key.fields'"))
                .help("name the columns of the key: 'key.fields' = 'a;b'"));
        }
        _ => {}
    }
    if !prefix.is_empty() && !except_key {
        return Err(Error::user(format!("{owner}: 'key.fields-prefix' needs 'value.fields-include' = 'EXCEPT_KEY'"))
            .help("the value cannot hold the prefixed columns too"));
    }
    if except_key && key_columns.is_empty() {
        return Err(Error::user(format!("{owner}: 'value.fields-include' = 'EXCEPT_KEY' needs 'key.format' and 'key.fields'")));
    }
    let value_columns: Vec<usize> = (0..names.len()).filter(|i| !except_key || !key_columns.contains(i)).collect();
    let fields = spec.physical.fields();
    let value_schema = Schema::new(value_columns.iter().map(|i| fields[*i].clone()).collect::<Vec<_>>());
    let key_schema = Schema::new(
        key_columns.iter().map(|i| fields[*i].as_ref().clone().with_name(&fields[*i].name()[prefix.len()..])).collect::<Vec<_>>(),
    );
    Ok(Layout {
        value_format,
        value_columns,
        value_schema: value_schema.into(),
        key_format: key_format.filter(|_| !key_columns.is_empty()),
        key_columns,
        key_schema: key_schema.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;
    use super::*;

    fn check(options: &[(&str, &str)], role: Role) -> String {
        let mut all = vec![("connector", "kafka"), ("properties.bootstrap.servers", "h:9"), ("format", "json"), ("topic", "t")];
        all.retain(|(k, _)| !options.iter().any(|(o, v)| o == k && *v == "-"));
        all.extend(options.iter().filter(|(_, v)| *v != "-"));
        match read(&table("t", &[("a", "STRING"), ("k_b", "INT")], &[], &all), role) {
            Ok(o) => format!("{:?} {:?} key{:?} value{:?}", o.start, o.bound, o.layout.key_columns, o.layout.value_columns),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn modes_need_their_companions() {
        let earliest = ("scan.startup.mode", "earliest-offset");
        assert_eq!(check(&[earliest], Role::Consumer), "Earliest Unbounded key[] value[0, 1]");
        assert_eq!(
            check(
                &[
                    ("scan.startup.mode", "specific-offsets"),
                    ("scan.startup.specific-offsets", "partition:0,offset:42;partition:1,offset:3"),
                    ("scan.bounded.mode", "timestamp"),
                    ("scan.bounded.timestamp-millis", "9")
                ],
                Role::Consumer
            ),
            "Specific({0: 42, 1: 3}) Timestamp(9) key[] value[0, 1]"
        );
        assert_eq!(
            check(&[("scan.startup.mode", "timestamp")], Role::Consumer),
            "table 't': 'scan.startup.mode' = 'timestamp' needs the option 'scan.startup.timestamp-millis'\nhelp: add 'scan.startup.timestamp-millis' = '…' to its WITH clause"
        );
        assert!(check(&[], Role::Consumer).contains("'properties.group.id' is not set"));
        assert_eq!(
            check(&[earliest, ("scan.startup.mod", "x")], Role::Consumer),
            "table 't' has an unknown option 'scan.startup.mod'\nhelp: did you mean 'scan.startup.mode'?"
        );
    }

    #[test]
    fn keys_and_values_share_the_columns() {
        let key = [("key.format", "raw"), ("key.fields", "k_b"), ("key.fields-prefix", "k_"), ("scan.startup.mode", "earliest-offset")];
        assert_eq!(
            check(&key, Role::Producer),
            "table 't': 'key.fields-prefix' needs 'value.fields-include' = 'EXCEPT_KEY'\nhelp: the value cannot hold the prefixed columns too"
        );
        let mut except = key.to_vec();
        except.push(("value.fields-include", "EXCEPT_KEY"));
        assert_eq!(check(&except, Role::Producer), "Earliest Unbounded key[1] value[0]");
        assert!(check(&[("key.format", "raw"), ("key.fields", "kb")], Role::Producer).contains("did you mean 'k_b'?"));
    }

    #[test]
    fn exactly_once_and_classes_are_refused_by_name() {
        assert!(check(&[("sink.delivery-guarantee", "exactly-once")], Role::Producer).contains("not yet supported"));
        assert!(check(&[("sink.partitioner", "org.x.P")], Role::Producer).contains("names a Java class"));
    }
}
