//! The limits of a topic: bare loops that read, and read and decode, without any engine code.
//!
//! `velosql bench` compares a job with them: what is missing to 1 is what the engine costs. One thread reads
//! batches through the client settings of the table that the job reads, so that both pay the same for the
//! client library. Decoding keeps the wanted top-level fields of a JSON object, borrowed from the record, in an
//! array on the stack; no other field is looked at and no tree is built. What must always hold: a loop reads
//! each record between the table's start and its end offsets once, or fails.
//!
//! ```text
//!  consume ─▶ [m m m …] ─▶ count                        consume only
//!                       └▶ [Some(12), Some("a"), …]     consume + decode
//! ```

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::client::Connection;
use super::fetch::{BatchQueue, Message};
use super::options;
use super::properties::Role;
use super::splits::{all_parts, consumer, fresh};
use super::startup::{Part, deleted, list};
use crate::connectors::TableSpec;
use crate::error::{Error, Result};

/// Messages of one call: as many as the engine's own batches hold.
const BATCH: usize = 8192;
/// How long a call waits for that many.
const WAIT: Duration = Duration::from_millis(20);
/// A topic that says nothing for this long, although it has more records, fails the loop.
const SILENCE: Duration = Duration::from_secs(30);
/// Fields that are kept at most; those behind are passed over like unwanted ones.
const MOST_FIELDS: usize = 128;

/// What a bare loop came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limit {
    /// Records read.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Records that are no JSON object; read, but not decoded.
    pub undecodable: u64,
    /// Time from the first request to the last record.
    pub wall_s: f64,
    /// CPU time of the process in between: the loop's and the client library's threads'.
    pub cpu_s: f64,
}

/// How many offsets lie between the start and the end of the table `spec`: an upper bound of its records.
///
/// # Errors
/// User: an option that does not fit, or no such topic. External: no broker answers.
pub fn available(spec: &TableSpec) -> Result<u64> {
    Ok(Topics::open(spec)?.left() as u64)
}

/// Reads the table `spec` from its start to its end offsets and looks at nothing. `cpu_seconds` is the
/// process's clock; nothing else should run meanwhile.
///
/// # Errors
/// As [`available`]; External: the topic falls silent before its end.
pub fn consume_only(spec: &TableSpec, cpu_seconds: fn() -> f64) -> Result<Limit> {
    Topics::open(spec)?.read(cpu_seconds, |value| {
        black_box(value);
        true
    })
}

/// Reads the table `spec` and decodes the top-level `fields` of each record.
///
/// # Errors
/// As [`consume_only`].
pub fn consume_and_decode(spec: &TableSpec, fields: &[String], cpu_seconds: fn() -> f64) -> Result<Limit> {
    let topics = Topics::open(spec)?;
    // The array is as long as it must be, as in a struct made for these fields.
    match fields.len() {
        0..=4 => topics.read(cpu_seconds, |value| black_box(decode::<4>(value, fields)).is_some()),
        5..=8 => topics.read(cpu_seconds, |value| black_box(decode::<8>(value, fields)).is_some()),
        9..=16 => topics.read(cpu_seconds, |value| black_box(decode::<16>(value, fields)).is_some()),
        17..=32 => topics.read(cpu_seconds, |value| black_box(decode::<32>(value, fields)).is_some()),
        _ => topics.read(cpu_seconds, |value| black_box(decode::<MOST_FIELDS>(value, fields)).is_some()),
    }
}

/// The partitions of a table, ready to be read.
struct Topics {
    queue: BatchQueue,
    connection: Connection,
    options: options::KafkaOptions,
    parts: Vec<Stretch>,
}

/// What is left of a partition.
struct Stretch {
    part: Part,
    position: i64,
    end: i64,
}

impl Topics {
    fn open(spec: &TableSpec) -> Result<Self> {
        let options = options::read(spec, Role::Consumer)?;
        let connection = super::connection(spec, &options)?;
        let consumer = consumer(&options, &connection, "limit")?;
        let parts = all_parts(&options, &connection, &consumer)?;
        let mut stretches = Vec::with_capacity(parts.len());
        for split in fresh(&options, &connection, &consumer, &parts)? {
            let end = split.end.ok_or_else(|| {
                Error::user(format!("{} never ends: a limit needs an end", options.owner)).help("set 'scan.bounded.mode' = 'latest-offset'")
            })?;
            stretches.push(Stretch { part: split.part.clone(), position: split.position, end });
        }
        Ok(Self { queue: BatchQueue::new(consumer)?, connection, options, parts: stretches })
    }

    fn left(&self) -> usize {
        self.parts.iter().map(|p| usize::try_from(p.end - p.position).unwrap_or(0)).sum()
    }

    /// Reads all; `visit` answers whether it could decode a value.
    fn read(mut self, cpu_seconds: fn() -> f64, mut visit: impl FnMut(&[u8]) -> bool) -> Result<Limit> {
        let open: Vec<Part> = self.parts.iter().map(|p| p.part.clone()).collect();
        let offsets = list(&open, |i| Offset::Offset(self.parts[i].position))?;
        let (started, cpu_before) = (Instant::now(), cpu_seconds());
        self.queue.consumer().incremental_assign(&offsets).map_err(|e| self.connection.failed("assigning partitions", &e))?;
        let mut limit = Limit::default();
        let mut index = Index::default();
        let mut failed = None;
        let mut heard = Instant::now();
        loop {
            let left = self.left();
            if left == 0 {
                break;
            }
            let (queue, parts, options) = (&mut self.queue, &mut self.parts, &self.options);
            let got = queue.consume(left.min(BATCH), WAIT, |message| {
                let Some(at) = index.of(message, parts) else { return };
                let part = &mut parts[at];
                if let Some(code) = message.report() {
                    match code {
                        RDKafkaErrorCode::PartitionEOF => part.position = part.position.max(message.offset().min(part.end)),
                        RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset => {
                            failed.get_or_insert(deleted(options, &part.part, part.position, part.position));
                        }
                        // The library retries what it can; a topic that stays silent is noticed below.
                        _ => {}
                    }
                    return;
                }
                let offset = message.offset();
                if offset < part.position {
                    return;
                }
                part.position = (offset + 1).min(part.end);
                if offset >= part.end {
                    return;
                }
                limit.records += 1;
                if let Some(value) = message.value() {
                    limit.bytes += value.len() as u64;
                    limit.undecodable += u64::from(!visit(value));
                }
            });
            if let Some(e) = failed.take() {
                return Err(e);
            }
            if got > 0 {
                heard = Instant::now();
            } else if heard.elapsed() > SILENCE {
                let seconds = SILENCE.as_secs();
                return Err(Error::external(format!(
                    "{}: no record for {seconds} s, with {left} offsets left to read",
                    self.options.owner
                )));
            }
        }
        limit.wall_s = started.elapsed().as_secs_f64();
        limit.cpu_s = cpu_seconds() - cpu_before;
        Ok(limit)
    }
}

/// Finds a message's partition; neighbours are mostly of the same one.
#[derive(Default)]
struct Index {
    known: HashMap<(usize, i32), usize>,
    last: Option<((usize, i32), usize)>,
}

impl Index {
    fn of(&mut self, message: &Message<'_>, parts: &[Stretch]) -> Option<usize> {
        let key = (message.topic_mark(), message.partition());
        if let Some((last, at)) = self.last
            && last == key
        {
            return Some(at);
        }
        let at = match self.known.get(&key) {
            Some(at) => *at,
            None => parts.iter().position(|p| p.part.1 == key.1 && p.part.0 == message.topic())?,
        };
        self.known.insert(key, at);
        self.last = Some((key, at));
        Some(at)
    }
}

/// A wanted field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
enum Value<'a> {
    #[default]
    Missing,
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
    /// A string with escapes, which cannot be borrowed: its length once read.
    Escaped(usize),
    /// An object or array, walked over.
    Nested,
}

/// The `fields` of a JSON object, in their order; `None`: it is none.
fn decode<'a, const N: usize>(record: &'a [u8], fields: &[String]) -> Option<[Value<'a>; N]> {
    let mut json = sonic_rs::Deserializer::from_str(std::str::from_utf8(record).ok()?);
    let values = Object { fields: &fields[..fields.len().min(N)] }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(values)
}

struct Object<'f, const N: usize> {
    fields: &'f [String],
}

impl<'de, const N: usize> DeserializeSeed<'de> for Object<'_, N> {
    type Value = [Value<'de>; N];

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Object<'_, N> {
    type Value = [Value<'de>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut values = [Value::Missing; N];
        while let Some(wanted) = map.next_key_seed(Name { fields: self.fields })? {
            match wanted {
                Some(at) => values[at] = map.next_value_seed(Field)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

/// The name of a field: its place among the wanted ones.
struct Name<'f> {
    fields: &'f [String],
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Self::Value, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> std::result::Result<Self::Value, E> {
        Ok(self.fields.iter().position(|f| f == name))
    }
}

struct Field;

impl<'de> DeserializeSeed<'de> for Field {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> std::result::Result<Self::Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> std::result::Result<Self::Value, E> {
        Ok(Value::Signed(v))
    }

    fn visit_u64<E>(self, v: u64) -> std::result::Result<Self::Value, E> {
        Ok(Value::Unsigned(v))
    }

    fn visit_f64<E>(self, v: f64) -> std::result::Result<Self::Value, E> {
        Ok(Value::Float(v))
    }

    fn visit_borrowed_str<E>(self, v: &'de str) -> std::result::Result<Self::Value, E> {
        Ok(Value::Text(v))
    }

    fn visit_str<E>(self, v: &str) -> std::result::Result<Self::Value, E> {
        Ok(Value::Escaped(v.len()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Nested)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Nested)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broker, fill, table};
    use super::*;

    #[test]
    fn wanted_fields_are_kept_and_others_passed_over() {
        let fields: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).into();
        let decoded = |text: &str| decode::<8>(text.as_bytes(), &fields).map(|v| format!("{:?}", &v[..5]));
        assert_eq!(
            decoded(r#"{"x":{"a":1},"b":"text","a":-7,"d":[1,{"e":2}],"c":null,"e":"q\"q"}"#).as_deref(),
            Some(r#"[Signed(-7), Text("text"), Null, Nested, Escaped(3)]"#)
        );
        assert_eq!(decoded("{}").as_deref(), Some("[Missing, Missing, Missing, Missing, Missing]"));
        assert_eq!((decoded("[1]"), decoded("{\"a\":1"), decoded("{} {}")), (None, None, None));
    }

    #[test]
    fn a_loop_reads_each_record_to_the_end_that_was_there() {
        let broker = broker(2);
        fill(&broker, &[(0, r#"{"a":1}"#), (1, r#"{"a":22}"#), (1, "no json")]);
        let options = [
            ("connector", "kafka"),
            ("topic", "t"),
            ("properties.bootstrap.servers", broker.servers()),
            ("scan.startup.mode", "earliest-offset"),
            ("scan.bounded.mode", "specific-offsets"),
            ("scan.bounded.specific-offsets", "partition:0,offset:1;partition:1,offset:2"),
            ("format", "json"),
        ];
        let spec = table("s", &[("a", "INT")], &[], &options);
        assert_eq!(available(&spec).expect("an extent"), 3);
        let counts = |l: Limit| (l.records, l.bytes, l.undecodable);
        assert_eq!(counts(consume_only(&spec, || 0.0).expect("read")), (3, 22, 0));
        assert_eq!(counts(consume_and_decode(&spec, &["a".into()], || 0.0).expect("read")), (3, 22, 1));
    }
}
