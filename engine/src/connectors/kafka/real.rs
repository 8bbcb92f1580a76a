//! What only a real cluster can show: look-up by time, added partitions, transactions, topics by the admin
//! protocol, deleted records. Set `VELOSQL_TEST_KAFKA=host:port` to run these; elsewhere they say why not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::producer::{Outgoing, Producer};
use super::testing::{context, drain, table};
use super::{Connection, admin, source};
use crate::connectors::{Position, Scan, Split, TableSpec};

struct Real {
    servers: String,
    topic: String,
    connection: Connection,
}

/// A cluster with a new topic; `None` where none is given.
fn real(test: &str, partitions: i32) -> Option<Real> {
    let Ok(servers) = std::env::var("VELOSQL_TEST_KAFKA") else {
        eprintln!("{test}: skipped, the embedded broker cannot do this: set VELOSQL_TEST_KAFKA=host:port");
        return None;
    };
    let connection = Connection::new("test", &servers, &BTreeMap::new()).expect("a connection");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let topic = format!("{test}-{now}");
    admin::create_topic(&connection, &topic, partitions, 1, &[("retention.ms".into(), "-1".into())]).expect("a topic");
    Some(Real { servers, topic, connection })
}

impl Real {
    fn spec(&self, options: &[(&str, &str)]) -> TableSpec {
        let mut all =
            vec![("connector", "kafka"), ("format", "raw"), ("topic", &self.topic), ("properties.bootstrap.servers", &self.servers)];
        all.extend(options);
        table("s", &[("a", "STRING")], &[], &all)
    }

    fn read(&self, options: &[(&str, &str)], restore: Option<&[Split]>) -> String {
        let spec = self.spec(options);
        let fetched = source(&spec, &context())
            .and_then(|s| s.open(&Scan::all(&spec), restore))
            .and_then(|mut f| drain(&mut *f, Duration::from_millis(1500)));
        fetched.map_or_else(|e| e.to_string(), |lines| lines.join("\n"))
    }

    fn fill(&self, records: &[(i32, &str, i64)]) {
        let mut producer = Producer::open(&self.connection).expect("a producer");
        for (partition, value, timestamp) in records {
            let record =
                Outgoing { value: Some(value.as_bytes()), partition: Some(*partition), timestamp: Some(*timestamp), ..Outgoing::default() };
            producer.send(&self.topic, &record).expect("queued");
        }
        producer.flush().expect("delivered");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.servers).create().expect("an admin client")
    }
}

fn wait<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(answer)
}

const EARLIEST: (&str, &str) = ("scan.startup.mode", "earliest-offset");
const LATEST: (&str, &str) = ("scan.bounded.mode", "latest-offset");

#[test]
fn times_are_looked_up() {
    let Some(real) = real("times", 1) else { return };
    real.fill(&[(0, "a", 1000), (0, "b", 2000), (0, "c", 3000)]);
    let from = [("scan.startup.mode", "timestamp"), ("scan.startup.timestamp-millis", "1500"), LATEST];
    assert_eq!(real.read(&from, None), "0 b,c @3\nended 0\nend");
    let until = [EARLIEST, ("scan.bounded.mode", "timestamp"), ("scan.bounded.timestamp-millis", "3000")];
    assert_eq!(real.read(&until, None), "0 a,b @2\nended 0\nend");
}

#[test]
fn an_added_partition_is_found() {
    let Some(real) = real("added", 1) else { return };
    real.fill(&[(0, "a", 1)]);
    let spec = real.spec(&[EARLIEST, ("scan.topic-partition-discovery.interval", "200 ms")]);
    let mut fetcher = source(&spec, &context()).and_then(|s| s.open(&Scan::all(&spec), None)).expect("open");
    wait(real.admin().create_partitions([&NewPartitions::new(&real.topic, 2)], &AdminOptions::new())).expect("a partition");
    std::thread::sleep(Duration::from_millis(500));
    real.fill(&[(1, "b", 1)]);
    let mut lines = drain(&mut *fetcher, Duration::from_secs(2)).expect("read");
    lines.sort();
    assert_eq!(lines, ["0 a @1", "1 b @1", "added 1"]);
}

#[test]
fn aborted_rows_are_not_read_and_markers_do_not_hide_the_end() {
    let Some(real) = real("aborted", 1) else { return };
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &real.servers)
        .set("transactional.id", &real.topic)
        .create()
        .expect("a transactional producer");
    let patience = Duration::from_secs(20);
    producer.init_transactions(patience).expect("transactions");
    for (value, commit) in [("a", true), ("lost", false)] {
        producer.begin_transaction().expect("begin");
        producer.send(BaseRecord::<(), str>::to(&real.topic).payload(value)).expect("queued");
        producer.flush(patience).expect("delivered");
        if commit { producer.commit_transaction(patience).expect("commit") } else { producer.abort_transaction(patience).expect("abort") }
    }
    // Offsets: a, commit marker, lost, abort marker.
    let started = Instant::now();
    assert_eq!(real.read(&[EARLIEST, LATEST], None), "0 a @4\nended 0\nend");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn records_deleted_before_they_were_read_are_an_error() {
    let Some(real) = real("deleted", 1) else { return };
    real.fill(&[(0, "a", 1), (0, "b", 1), (0, "c", 1)]);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&real.topic, 0, Offset::Offset(2)).expect("a partition");
    wait(real.admin().delete_records(&list, &AdminOptions::new())).expect("deleted");
    let at = [Split { id: "0".into(), position: Position { file: None, offset: 1 }, end: Some(3), ended: false }];
    let message = real.read(&[EARLIEST, LATEST], Some(&at));
    assert!(message.contains("offsets 1 to 1 of topic") && message.contains("were deleted before they were read"), "{message}");
    assert_eq!(real.read(&[EARLIEST, LATEST], None), "0 c @3\nended 0\nend");
}

#[test]
fn topics_are_created_with_their_settings() {
    let Some(real) = real("created", 3) else { return };
    let topic = admin::describe_topic(&real.connection, &real.topic).expect("described");
    assert_eq!(topic.partitions.len(), 3);
    let configs = topic.configs.expect("settings");
    assert!(configs.contains(&("retention.ms".to_string(), "-1".to_string())), "{configs:?}");
    let again = admin::create_topic(&real.connection, &real.topic, 1, 1, &[]).expect_err("exists").to_string();
    assert!(again.contains("exists already"), "{again}");
    let many = admin::create_topic(&real.connection, "too-many-replicas", 1, 9, &[]).expect_err("one broker").to_string();
    assert!(many.contains("cannot have 9 replicas"), "{many}");
}

#[test]
fn fetching_is_fast() {
    let Some(real) = real("speed", 4) else { return };
    let mut producer = Producer::open(&real.connection).expect("a producer");
    let value = vec![b'x'; 200];
    let count = 400_000;
    for i in 0..count {
        producer.send(&real.topic, &Outgoing { value: Some(&value), partition: Some(i % 4), ..Outgoing::default() }).expect("queued");
    }
    producer.flush().expect("delivered");
    let spec = real.spec(&[EARLIEST, LATEST]);
    let opening = Instant::now();
    let mut fetcher = source(&spec, &context()).and_then(|s| s.open(&Scan::all(&spec), None)).expect("open");
    let opening = opening.elapsed();
    let mut first = None;
    let limits = crate::connectors::BatchLimits { rows: 8192, bytes: 4 << 20, latency: Duration::from_millis(5) };
    let (started, mut rows, mut batches) = (Instant::now(), 0, 0);
    loop {
        match fetcher.fetch(&limits, Duration::from_millis(100)).expect("fetched") {
            crate::connectors::Fetched::Batch { payload: crate::connectors::Payload::Raw { values, .. }, .. } => {
                first.get_or_insert_with(|| started.elapsed());
                rows += values.len();
                batches += 1;
            }
            crate::connectors::Fetched::End => break,
            _ => {}
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let closing = Instant::now();
    drop(fetcher);
    eprintln!("open {opening:?}, first batch {first:?}, close {:?}", closing.elapsed());
    eprintln!("{rows} records in {batches} batches, {seconds:.2} s: {:.0} a second", rows as f64 / seconds);
    assert_eq!(rows, count as usize);
}

#[test]
fn a_wrong_protocol_is_explained() {
    let Some(real) = real("protocol", 1) else { return };
    let message = real.read(&[EARLIEST, LATEST, ("properties.security.protocol", "SSL")], None);
    assert!(message.contains("TLS failed") && message.contains("properties.security.protocol"), "{message}");
}
