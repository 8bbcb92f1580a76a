//! Tables, brokers and readers for the tests of this connector.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema};

use super::producer::{Outgoing, Producer};
use super::{Connection, embedded::EmbeddedBroker};
use crate::connectors::{BatchLimits, Context, Fetched, Fetcher, MetadataColumn, Payload, TableSpec, memory};
use crate::error::Result;
use crate::stream::SqlType;

fn field(name: &str, sql: &str) -> Field {
    SqlType::parse(sql).expect("a SQL type").field(name, true)
}

/// A table of columns and metadata columns (name, type, key).
pub fn table(name: &str, columns: &[(&str, &str)], metadata: &[(&str, &str, &str)], options: &[(&str, &str)]) -> TableSpec {
    let metadata =
        metadata.iter().map(|(n, t, key)| MetadataColumn { field: Arc::new(field(n, t)), key: key.to_string(), is_virtual: false });
    TableSpec {
        name: name.into(),
        physical: Arc::new(Schema::new(columns.iter().map(|(n, t)| field(n, t)).collect::<Vec<_>>())),
        metadata: metadata.collect(),
        partition_keys: vec![],
        primary_key: vec![],
        options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        knobs: BTreeMap::new(),
    }
}

/// A context in UTC.
pub fn context() -> Context {
    Context { job: "test".into(), zone: chrono_tz::UTC, base: ".".into(), memory: memory::Hub::default() }
}

/// A broker with one topic `t`.
pub fn broker(partitions: i32) -> EmbeddedBroker {
    let broker = EmbeddedBroker::start().expect("an embedded broker");
    broker.create_topic("t", partitions).expect("a topic");
    broker
}

/// Sends (partition, value) to topic `t`.
pub fn fill(broker: &EmbeddedBroker, records: &[(i32, &str)]) {
    let connection = Connection::new("test", broker.servers(), &BTreeMap::new()).expect("a connection");
    let mut producer = Producer::open(&connection).expect("a producer");
    for (partition, value) in records {
        let record =
            Outgoing { value: Some(value.as_bytes()), key: Some(b"k"), partition: Some(*partition), timestamp: Some(1000), headers: &[] };
        producer.send("t", &record).expect("sent");
    }
    producer.flush().expect("delivered");
}

/// Everything up to the end, or to the first silence of `quiet` after something came, as lines.
pub fn drain(fetcher: &mut dyn Fetcher, quiet: Duration) -> Result<Vec<String>> {
    let limits = BatchLimits { rows: 3, bytes: 1 << 20, latency: Duration::from_millis(5) };
    let mut out = Vec::new();
    let mut ids: Vec<String> = fetcher.splits().into_iter().map(|s| s.id).collect();
    let mut silent = std::time::Instant::now();
    loop {
        match fetcher.fetch(&limits, Duration::from_millis(50))? {
            Fetched::Batch { split, payload: Payload::Raw { values, .. }, position } => {
                silent = std::time::Instant::now();
                // Where a batch ends depends on what has arrived: neighbours are shown as one.
                let text: Vec<&str> = values.iter().map(|v| v.map_or("-", |v| std::str::from_utf8(v).expect("text"))).collect();
                let before = out.pop_if(|line: &mut String| line.contains('@') && line.starts_with(&format!("{} ", ids[split])));
                let comma = if text.is_empty() { "" } else { "," };
                let kept = |line: String| line[..line.find(" @").expect("a position")].to_string() + comma;
                let before = before.map_or(format!("{} ", ids[split]), kept);
                out.push(format!("{before}{} @{}", text.join(","), position.offset));
            }
            Fetched::Batch { .. } => unreachable!("Kafka answers raw records"),
            Fetched::SplitAdded(split) => {
                out.push(format!("added {}", split.id));
                ids.push(split.id);
            }
            Fetched::SplitEnded(split) => out.push(format!("ended {}", ids[split])),
            Fetched::Nothing if silent.elapsed() > quiet => return Ok(out),
            Fetched::Nothing => {}
            Fetched::End => {
                out.push("end".into());
                return Ok(out);
            }
        }
    }
}
