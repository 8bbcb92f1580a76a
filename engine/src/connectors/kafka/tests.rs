//! The connector against the embedded broker.

use std::time::Duration;

use arrow::util::pretty::pretty_format_batches;

use super::testing::{broker, context, drain, fill, table};
use super::{admin, sink, source};
use crate::connectors::{BatchLimits, Fetched, Position, Scan, Split, TableSpec};
use crate::stream::{Epoch, StreamBatch};

const BOUNDED: [(&str, &str); 4] =
    [("topic", "t"), ("format", "json"), ("scan.startup.mode", "earliest-offset"), ("scan.bounded.mode", "latest-offset")];

fn spec(servers: &str, options: &[(&str, &str)]) -> TableSpec {
    let mut all = vec![("connector", "kafka"), ("properties.bootstrap.servers", servers)];
    all.extend(options);
    table("s", &[("a", "INT")], &[], &all)
}

fn read(spec: &TableSpec, restore: Option<&[Split]>) -> String {
    let source = match source(spec, &context()) {
        Ok(source) => source,
        Err(e) => return e.to_string(),
    };
    match source.open(&Scan::all(spec), restore).and_then(|mut f| drain(&mut *f, Duration::from_millis(500))) {
        Ok(lines) => lines.join("\n"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn a_bounded_table_is_read_to_the_ends_fixed_at_opening() {
    let broker = broker(2);
    fill(&broker, &[(0, "1"), (0, "2"), (0, "3"), (0, "4")]);
    let spec = spec(broker.servers(), &BOUNDED);
    let table = source(&spec, &context()).expect("a source");
    assert!(table.is_bounded());
    let mut fetcher = table.open(&Scan::all(&spec), None).expect("open");
    let ends: Vec<_> = fetcher.splits().iter().map(|s| (s.id.clone(), s.end)).collect();
    assert_eq!(ends, [("0".to_string(), Some(4)), ("1".to_string(), Some(0))]);
    // What comes after the opening is not part of the table.
    fill(&broker, &[(0, "5"), (1, "6")]);
    let lines = drain(&mut *fetcher, Duration::from_secs(5)).expect("read");
    assert_eq!(lines, ["ended 1", "0 1,2,3,4 @4", "ended 0", "end"]);
}

#[test]
fn a_restored_table_goes_on_at_its_positions_and_ends() {
    let broker = broker(1);
    fill(&broker, &[(0, "1"), (0, "2"), (0, "3"), (0, "4")]);
    let spec = spec(broker.servers(), &BOUNDED);
    let split = |offset| [Split { id: "0".into(), position: Position { file: None, offset }, end: Some(3), ended: false }];
    assert_eq!(read(&spec, Some(&split(1))), "0 2,3 @3\nended 0\nend");
    let message = read(&spec, Some(&[Split { end: None, ..split(9)[0].clone() }]));
    assert!(message.contains("the checkpoint is at offset 9 of topic 't', partition 0, which ends at 4"), "{message}");
}

#[test]
fn start_modes_find_their_offsets_and_groups_remember() {
    let broker = broker(1);
    fill(&broker, &[(0, "1"), (0, "2"), (0, "3")]);
    let with = |extra: &[(&str, &str)]| {
        let mut all = vec![("topic", "t"), ("format", "json"), ("properties.group.id", "g")];
        all.extend(extra);
        spec(broker.servers(), &all)
    };
    let latest = ("scan.bounded.mode", "latest-offset");
    assert_eq!(read(&with(&[("scan.startup.mode", "latest-offset"), latest]), None), "ended 0\nend");
    let specific = [("scan.startup.mode", "specific-offsets"), ("scan.startup.specific-offsets", "partition:0,offset:1")];
    let bounded = [("scan.bounded.mode", "specific-offsets"), ("scan.bounded.specific-offsets", "partition:0,offset:2")];
    assert_eq!(read(&with(&[specific[0], specific[1], bounded[0], bounded[1]]), None), "0 2 @2\nended 0\nend");
    let message = read(&with(&[latest]), None);
    assert!(message.starts_with("table 's': group 'g' has no committed offset for partition 0 of topic 't'\nhelp: "), "{message}");
    assert_eq!(read(&with(&[latest, ("properties.auto.offset.reset", "earliest")]), None), "0 1,2,3 @3\nended 0\nend");
    // A durable checkpoint tells the group.
    let table = with(&[specific[0], specific[1]]);
    let mut fetcher = source(&table, &context()).and_then(|s| s.open(&Scan::all(&table), None)).expect("open");
    fetcher.checkpointed(&[Position { file: None, offset: 2 }]);
    std::thread::sleep(Duration::from_millis(500));
    drop(fetcher);
    assert_eq!(read(&with(&[latest]), None), "0 3 @3\nended 0\nend");
}

#[test]
fn places_that_are_not_there_are_named() {
    let broker = broker(1);
    let absent = spec(broker.servers(), &[("topic", "tt"), BOUNDED[1], BOUNDED[2]]);
    assert_eq!(read(&absent, None), format!("table 's': topic 'tt' does not exist at {}\nhelp: did you mean 't'?", broker.servers()));
    let started = std::time::Instant::now();
    let message = read(&spec("127.0.0.1:1", &BOUNDED), None);
    assert!(message.starts_with("table 's': no Kafka broker answers at 127.0.0.1:1"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[test]
fn several_topics_and_patterns_name_their_partitions() {
    let broker = broker(1);
    broker.create_topic("t2", 1).expect("a topic");
    fill(&broker, &[(0, "1")]);
    let rest = [BOUNDED[1], BOUNDED[2], BOUNDED[3]];
    let with = |topic: (&'static str, &'static str)| spec(broker.servers(), &[&[topic], &rest[..]].concat());
    assert_eq!(read(&with(("topic", "t;t2")), None), "ended t2:0\nt:0 1 @1\nended t:0\nend");
    assert_eq!(read(&with(("topic-pattern", "t.*")), None), "ended t2:0\nt:0 1 @1\nended t:0\nend");
}

#[test]
fn rows_carry_key_value_and_metadata_there_and_back() {
    let broker = broker(2);
    let options = [
        ("connector", "kafka"),
        ("topic", "t"),
        ("properties.bootstrap.servers", broker.servers()),
        ("value.format", "json"),
        ("key.format", "json"),
        ("key.fields", "k_id"),
        ("key.fields-prefix", "k_"),
        ("value.fields-include", "EXCEPT_KEY"),
        ("scan.startup.mode", "earliest-offset"),
        ("scan.bounded.mode", "latest-offset"),
        ("sink.partitioner", "fixed"),
    ];
    let columns = [("k_id", "INT"), ("name", "STRING")];
    let written = table("s", &columns, &[("ts", "TIMESTAMP_LTZ(3)", "timestamp"), ("h", "MAP<STRING, BYTES>", "headers")], &options);
    let all = Scan::all(&written);
    let rows = {
        // The sink's input, made by reading other records of the same shape.
        use arrow::array::{ArrayRef, Int32Array, MapBuilder, RecordBatch, StringArray, TimestampMillisecondArray};
        let ids: ArrayRef = std::sync::Arc::new(Int32Array::from(vec![Some(1), None]));
        let names: ArrayRef = std::sync::Arc::new(StringArray::from(vec![Some("a"), None]));
        let times: ArrayRef = std::sync::Arc::new(TimestampMillisecondArray::from(vec![1_000, 2_000]).with_timezone("UTC"));
        let schema = all.schema(&written);
        let arrow::datatypes::DataType::Map(entries, _) = schema.field(3).data_type() else { panic!("a map") };
        let arrow::datatypes::DataType::Struct(fields) = entries.data_type() else { panic!("entries") };
        let mut headers = MapBuilder::new(None, arrow::array::StringBuilder::new(), arrow::array::BinaryBuilder::new())
            .with_keys_field(fields[0].clone())
            .with_values_field(fields[1].clone());
        headers.keys().append_value("x");
        headers.values().append_value(b"y");
        headers.append(true).expect("a map");
        headers.append(true).expect("an empty map");
        let headers: ArrayRef = arrow::compute::cast(&headers.finish(), schema.field(3).data_type()).expect("the same map");
        RecordBatch::try_new(schema, vec![ids, names, times, headers]).expect("rows")
    };
    let table_sink = sink(&written, &context()).expect("a sink");
    let mut writer = table_sink.writer(3, vec![]).expect("a writer");
    writer.write(&StreamBatch::new(rows)).expect("written");
    writer.prepare(Epoch(1), true).expect("delivered");

    let keys = [
        ("ts", "TIMESTAMP_LTZ(3)", "timestamp"),
        ("p", "INT", "partition"),
        ("o", "STRING", "offset"),
        ("h", "MAP<STRING, BYTES>", "headers"),
        ("topic", "STRING", "topic"),
    ];
    let read = table("s", &columns, &keys, &options);
    let source = source(&read, &context()).expect("a source");
    let scan = Scan { physical: vec![0, 1], metadata: vec![0, 1, 2, 3, 4] };
    let (mut fetcher, mut reader) = (source.open(&scan, None).expect("open"), source.reader(&scan).expect("a reader"));
    let limits = BatchLimits { rows: 100, bytes: 1 << 20, latency: Duration::from_millis(200) };
    let batch = loop {
        match fetcher.fetch(&limits, Duration::from_secs(5)).expect("fetched") {
            Fetched::Batch { payload, .. } => break reader.read(&payload).expect("decoded"),
            Fetched::End => panic!("no rows"),
            _ => {}
        }
    };
    assert!(batch.rejected.is_empty(), "{:?}", batch.rejected);
    let text = pretty_format_batches(&[batch.batch]).expect("text").to_string();
    let expected = "\
+------+------+----------------------+---+---+---------+-------+
| k_id | name | ts                   | p | o | h       | topic |
+------+------+----------------------+---+---+---------+-------+
| 1    | a    | 1970-01-01T00:00:01Z | 1 | 0 | {x: 79} | t     |
|      |      | 1970-01-01T00:00:02Z | 1 | 1 | {}      | t     |
+------+------+----------------------+---+---+---------+-------+";
    assert_eq!(text, expected);
}

#[test]
fn metadata_is_checked_when_the_table_is_made() {
    let options = [("connector", "kafka"), ("properties.bootstrap.servers", "h:9"), BOUNDED[0], BOUNDED[1], BOUNDED[2]];
    let check = |metadata: &[(&str, &str, &str)], is_sink: bool| {
        let spec = table("s", &[("a", "INT")], metadata, &options);
        let made = if is_sink { sink(&spec, &context()).map(|_| ()) } else { source(&spec, &context()).map(|_| ()) };
        made.map_or_else(|e| e.to_string(), |()| "fine".to_string())
    };
    assert_eq!(
        check(&[("t", "BIGINT", "time")], false),
        "table 's': column 't': Kafka records have no metadata 'time'\nhelp: there are topic, partition, offset, timestamp, timestamp-type, headers, leader-epoch"
    );
    assert_eq!(
        check(&[("t", "BIGINT", "timestamp")], false),
        "table 's': column 't' is BIGINT, which metadata 'timestamp' does not fit\nhelp: declare it as TIMESTAMP_LTZ(3)"
    );
    assert!(check(&[("o", "BIGINT", "offset")], true).contains("cannot be written: Kafka sets 'offset'"));
    assert_eq!(check(&[("ts", "TIMESTAMP_LTZ(3)", "timestamp")], true), "fine");
}

#[test]
fn topics_are_listed_and_described() {
    let broker = broker(2);
    fill(&broker, &[(1, "x")]);
    let connection = super::Connection::new("topics", broker.servers(), &Default::default()).expect("a connection");
    let names: Vec<_> = admin::list_topics(&connection).expect("topics").into_iter().map(|t| (t.name, t.partitions)).collect();
    assert_eq!(names, [("t".to_string(), 2)]);
    let topic = admin::describe_topic(&connection, "t").expect("a topic");
    assert_eq!(topic.partitions.iter().map(|p| (p.id, p.low, p.high)).collect::<Vec<_>>(), [(0, 0, 0), (1, 0, 1)]);
}

#[test]
fn rows_that_cannot_be_delivered_fail_the_checkpoint() {
    let broker = broker(1);
    let options =
        [("topic", "t"), ("format", "json"), ("properties.delivery.timeout.ms", "1500"), ("properties.request.timeout.ms", "1000")];
    let spec = spec(broker.servers(), &options);
    let mut writer = sink(&spec, &context()).and_then(|s| s.writer(0, vec![])).expect("a writer");
    drop(broker);
    let column: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::Int32Array::from(vec![1, 2]));
    let rows = arrow::array::RecordBatch::try_new(spec.physical.clone(), vec![column]).expect("rows");
    writer.write(&StreamBatch::new(rows)).expect("queued");
    let message = writer.prepare(Epoch(1), false).expect_err("nobody takes them").to_string();
    assert!(message.starts_with("table 's': 2 records were not delivered to 127.0.0.1:"), "{message}");
    assert!(message.contains("topic 't'"), "{message}");
}

#[test]
fn silence_is_explained() {
    let message = read(&spec("no-such-host.invalid:9092", &BOUNDED), None);
    assert!(message.contains("no Kafka broker answers at no-such-host.invalid:9092 (") && message.contains("resolve"), "{message}");
}
