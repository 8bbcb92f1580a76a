//! Kafka through SQL: the built binary against a broker.
//!
//! Every test runs on the embedded broker, and again on a real cluster where `VELOSQL_TEST_KAFKA=host:port`
//! names one. What the embedded broker cannot do (look-up by time, added partitions, transactions) runs on the
//! real one alone, and says so where there is none. Topics have new names in each run, so that a cluster can be
//! used again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use velosql::connectors::kafka::Connection;
use velosql::connectors::kafka::admin;
use velosql::connectors::kafka::embedded::EmbeddedBroker;
use velosql::connectors::kafka::producer::{Outgoing, Producer};

use crate::process::{Place, Running, send_signal, wait_until};

struct Broker {
    servers: String,
    embedded: Option<EmbeddedBroker>,
}

/// A record: partition, key, value, timestamp in ms.
type Record<'a> = (i32, Option<&'a str>, String, i64);

impl Broker {
    fn embedded() -> Self {
        let broker = EmbeddedBroker::start().expect("an embedded broker");
        Self { servers: broker.servers().to_string(), embedded: Some(broker) }
    }

    fn real() -> Option<Self> {
        Some(Self { servers: std::env::var("VELOSQL_TEST_KAFKA").ok()?, embedded: None })
    }

    /// The embedded broker and, where there is one, the real cluster.
    fn all() -> Vec<Self> {
        std::iter::once(Self::embedded()).chain(Self::real()).collect()
    }

    /// The real cluster; says why not where there is none.
    fn only_real(test: &str) -> Option<Self> {
        let real = Self::real();
        if real.is_none() {
            eprintln!("{test}: skipped, the embedded broker cannot do this: set VELOSQL_TEST_KAFKA=host:port");
        }
        real
    }

    fn name(&self) -> &str {
        if self.embedded.is_some() { "embedded" } else { "real" }
    }

    fn connection(&self) -> Connection {
        Connection::new("the test", &self.servers, &BTreeMap::new()).expect("a connection")
    }

    /// A new topic.
    fn topic(&self, partitions: i32) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
        let name = format!("it-{now}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        match &self.embedded {
            Some(broker) => broker.create_topic(&name, partitions),
            // Old timestamps are not to be cleaned up.
            None => admin::create_topic(&self.connection(), &name, partitions, 1, &[("retention.ms".into(), "-1".into())]),
        }
        .expect("a topic");
        name
    }

    fn fill(&self, topic: &str, records: &[Record<'_>]) {
        let mut producer = Producer::open(&self.connection()).expect("a producer");
        for (partition, key, value, timestamp) in records {
            let record = Outgoing {
                key: key.map(str::as_bytes),
                value: Some(value.as_bytes()),
                partition: Some(*partition),
                timestamp: Some(*timestamp),
                headers: &[],
            };
            producer.send(topic, &record).expect("queued");
        }
        producer.flush().expect("delivered");
    }

    /// Rows of a query on a bounded table `t` of `topic`, sorted; or what was said instead.
    fn query(&self, topic: &str, columns: &str, options: &str, select: &str) -> String {
        let place = Place::new();
        place.put("q.sql", format!("{}\n{select};", self.table("t", topic, columns, options)));
        let ran = place.run(&["run", "q.sql", "--quiet"]);
        if ran.status != 0 {
            return format!("exit {}: {}", ran.status, ran.stderr.trim_end().replace(&self.servers, "<broker>").replace(topic, "<topic>"));
        }
        let mut rows: Vec<&str> = ran.stdout.lines().map(|l| l.trim_start_matches("+I")).collect();
        rows.sort_unstable();
        rows.join(" ")
    }

    fn table(&self, name: &str, topic: &str, columns: &str, options: &str) -> String {
        format!(
            "CREATE TABLE {name} ({columns}) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{}'{options});",
            self.servers
        )
    }
}

const JSON: &str = ", 'format' = 'json'";
const EARLIEST: &str = ", 'scan.startup.mode' = 'earliest-offset'";
const LATEST_BOUND: &str = ", 'scan.bounded.mode' = 'latest-offset'";

fn all_of_it() -> String {
    format!("{JSON}{EARLIEST}{LATEST_BOUND}")
}

/// Event `i`: one a second from 2024-01-01, somewhat out of order.
fn event(i: i64) -> (i64, i64, i64) {
    let time = 1_704_067_200_000 + (i - (i * 7) % 40) * 1000;
    (time, i % 13, (i * 31) % 101 - 50)
}

fn text_of(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms).expect("a time").format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A whole minute as the print connector shows it: seconds of 0 are left out.
fn printed(ms: i64) -> String {
    text_of(ms).replace(' ', "T").strip_suffix(":00").expect("a whole minute").to_string()
}

#[test]
fn kafka_to_parquet_and_kafka_at_one_and_four_partitions() {
    const EVENTS: i64 = 3_000;
    let mut expected: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
    for (time, k, v) in (0..EVENTS).map(event) {
        let window = expected.entry((time.div_euclid(300_000) * 300_000, k)).or_default();
        *window = (window.0 + 1, window.1 + v);
    }
    for broker in Broker::all() {
        for partitions in [1, 4] {
            let what = format!("{} broker, {partitions} partitions", broker.name());
            let (source, target) = (broker.topic(partitions), broker.topic(partitions));
            let records: Vec<Record<'_>> = (0..EVENTS)
                .map(|i| {
                    let (time, k, v) = event(i);
                    ((i % i64::from(partitions)) as i32, None, format!("{{\"k\": {k}, \"v\": {v}, \"ts\": \"{}\"}}", text_of(time)), time)
                })
                .collect();
            broker.fill(&source, &records);
            let place = Place::new();
            let columns = "w TIMESTAMP(3), k INT, n BIGINT, s BIGINT";
            place.put(
                "job.sql",
                [
                    broker.table("t", &source, "k INT, v INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' HOUR", &all_of_it()),
                    broker.table("topic_out", &target, columns, JSON),
                    format!("CREATE TABLE files_out ({columns}) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet');"),
                    "CREATE VIEW v AS SELECT window_start AS w, k, COUNT(*) AS n, SUM(CAST(v AS BIGINT)) AS s
                     FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE)) GROUP BY window_start, window_end, k;"
                        .to_string(),
                    "EXECUTE STATEMENT SET BEGIN INSERT INTO files_out SELECT * FROM v; INSERT INTO topic_out SELECT * FROM v; END;"
                        .to_string(),
                ]
                .join("\n"),
            );
            place.done(&["run", "job.sql", "--quiet", "--workers", "2", "--summary", "s.json"]);
            let summary = place.summary("s.json");
            assert_eq!((&summary["late"], &summary["ended_by"]), (&0.into(), &"end".into()), "{what}");
            let mut rows: Vec<String> =
                expected.iter().map(|((w, k), (n, s))| format!("{}|{k}|{n}|{s}", text_of(*w).replace(' ', "T"))).collect();
            rows.sort();
            assert_eq!(place.parquet("out"), rows, "{what}: Parquet");
            let topic = broker.query(&target, columns, &all_of_it(), "SELECT * FROM t");
            let mut rows: Vec<String> = expected.iter().map(|((w, k), (n, s))| format!("[{}, {k}, {n}, {s}]", printed(*w))).collect();
            rows.sort();
            assert_eq!(topic, rows.join(" "), "{what}: topic");
        }
    }
}

#[test]
fn kafka_startup_and_bounded_modes() {
    for broker in Broker::all() {
        let topic = broker.topic(1);
        let records: Vec<Record<'_>> = (1..=5).map(|i| (0, None, format!("{{\"a\": {i}}}"), i * 1000)).collect();
        broker.fill(&topic, &records);
        let group = format!(", 'properties.group.id' = 'g-{topic}'");
        let rows = |options: &str| broker.query(&topic, "a INT", &format!("{JSON}{options}"), "SELECT a FROM t");
        let what = broker.name();
        assert_eq!(rows(&format!("{EARLIEST}{LATEST_BOUND}")), "[1] [2] [3] [4] [5]", "{what}");
        assert_eq!(rows(&format!(", 'scan.startup.mode' = 'latest-offset'{LATEST_BOUND}")), "", "{what}");
        let specific = ", 'scan.startup.mode' = 'specific-offsets', 'scan.startup.specific-offsets' = 'partition:0,offset:2'";
        assert_eq!(rows(&format!("{specific}{LATEST_BOUND}")), "[3] [4] [5]", "{what}");
        let until = ", 'scan.bounded.mode' = 'specific-offsets', 'scan.bounded.specific-offsets' = 'partition:0,offset:4'";
        assert_eq!(rows(&format!("{specific}{until}")), "[3] [4]", "{what}");
        let refused = rows(&format!("{group}{LATEST_BOUND}"));
        assert!(
            refused.starts_with("exit 2: table 't': group 'g-<topic>' has no committed offset")
                || refused.starts_with("exit 2: error: table 't': group 'g-<topic>' has no committed offset"),
            "{what}: {refused}"
        );
        assert!(refused.contains("help: "), "{what}: {refused}");
        assert_eq!(rows(&format!("{group}, 'properties.auto.offset.reset' = 'earliest'{LATEST_BOUND}")), "[1] [2] [3] [4] [5]", "{what}");
        // A job with a durable sink tells the group what its checkpoints hold; a group's offsets can be an end, too.
        let place = Place::new();
        place.put(
            "job.sql",
            format!(
                "{}\nCREATE TABLE o (a INT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet');\nINSERT INTO o SELECT a FROM t;",
                broker.table("t", &topic, "a INT", &format!("{JSON}{EARLIEST}{group}, 'scan.bounded.mode' = 'specific-offsets', 'scan.bounded.specific-offsets' = 'partition:0,offset:3'"))
            ),
        );
        place.done(&["run", "job.sql", "--quiet"]);
        assert_eq!(place.parquet("out"), ["1", "2", "3"], "{what}");
        assert_eq!(rows(&format!("{group}{LATEST_BOUND}")), "[4] [5]", "{what}: from where the group is");
        assert_eq!(
            rows(&format!("{EARLIEST}{group}, 'scan.bounded.mode' = 'group-offsets'")),
            "[1] [2] [3]",
            "{what}: to where the group is"
        );
        if broker.embedded.is_none() {
            let timed = ", 'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = '1500'";
            assert_eq!(rows(&format!("{timed}{LATEST_BOUND}")), "[2] [3] [4] [5]");
            assert_eq!(rows(&format!("{timed}, 'scan.bounded.mode' = 'timestamp', 'scan.bounded.timestamp-millis' = '4000'")), "[2] [3]");
        } else {
            eprintln!("timestamp modes: skipped on the embedded broker, which does not look offsets up by time");
        }
    }
}

#[test]
fn kafka_metadata_and_keys() {
    for broker in Broker::all() {
        let (source, target) = (broker.topic(2), broker.topic(2));
        let record = |partition, key, a: i64| (partition, key, format!("{{\"a\": {a}}}"), a * 1000);
        broker.fill(&source, &[record(0, Some("x"), 1), record(0, None, 2), record(1, Some("y"), 3)]);
        let keyed = ", 'key.format' = 'raw', 'key.fields' = 'k', 'value.format' = 'json', 'value.fields-include' = 'EXCEPT_KEY'";
        let bounded = format!("{keyed}{EARLIEST}{LATEST_BOUND}");
        let metadata = "k STRING, a INT, p INT METADATA FROM 'partition' VIRTUAL, o BIGINT METADATA FROM 'offset' VIRTUAL, stamp TIMESTAMP_LTZ(3) METADATA FROM 'timestamp'";
        let rows = broker.query(&source, metadata, &bounded, "SELECT k, a, p, o, CAST(stamp AS STRING) FROM t");
        let expected =
            "[null, 2, 0, 1, 1970-01-01 00:00:02.000] [x, 1, 0, 0, 1970-01-01 00:00:01.000] [y, 3, 1, 0, 1970-01-01 00:00:03.000]";
        assert_eq!(rows.replace(".000", ""), expected.replace(".000", ""), "{} broker", broker.name());
        // Written with key and timestamp, read back.
        let place = Place::new();
        place.put(
            "job.sql",
            format!(
                "{}\n{}\nINSERT INTO o SELECT k, a, stamp FROM t;",
                broker.table("t", &source, metadata, &bounded),
                broker.table("o", &target, "k STRING, a INT, stamp TIMESTAMP_LTZ(3) METADATA FROM 'timestamp'", keyed)
            ),
        );
        place.done(&["run", "job.sql", "--quiet"]);
        let rows = broker.query(&target, metadata, &bounded, "SELECT k, a, CAST(stamp AS STRING) FROM t");
        let expected = "[null, 2, 1970-01-01 00:00:02.000] [x, 1, 1970-01-01 00:00:01.000] [y, 3, 1970-01-01 00:00:03.000]";
        assert_eq!(rows.replace(".000", ""), expected.replace(".000", ""), "{} broker: read back", broker.name());
        let raw = format!(", 'format' = 'raw'{EARLIEST}{LATEST_BOUND}");
        assert_eq!(
            broker.query(&target, "s STRING", &raw, "SELECT s FROM t"),
            "[{\"a\":1}] [{\"a\":2}] [{\"a\":3}]",
            "{}: the key is not in the value",
            broker.name()
        );
    }
}

#[test]
fn kafka_resumes_where_it_stopped() {
    const PARTITIONS: i32 = 4;
    for broker in Broker::all() {
        let (source, target) = (broker.topic(PARTITIONS), broker.topic(PARTITIONS));
        let place = Place::new();
        let discovery = ", 'scan.topic-partition-discovery.interval' = '1 s'";
        place.put(
            "job.sql",
            format!(
                "SET 'execution.checkpointing.interval' = '100 ms';\n{}\n{}\nCREATE TABLE f (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet');
                 EXECUTE STATEMENT SET BEGIN INSERT INTO f SELECT n FROM t; INSERT INTO o SELECT n FROM t; END;",
                broker.table("t", &source, "n BIGINT", &format!("{JSON}{EARLIEST}{discovery}")),
                broker.table("o", &target, "n BIGINT", JSON)
            ),
        );
        let mut count = 0;
        for workers in ["2", "3", "1"] {
            let records: Vec<Record<'_>> =
                (count..count + 700).map(|n| ((n % PARTITIONS as usize) as i32, None, format!("{{\"n\": {n}}}"), 0)).collect();
            broker.fill(&source, &records);
            count += records.len();
            let mut job = Running::start(place.command(&["run", "job.sql", "--quiet", "--workers", workers, "--summary", "s.json"]));
            wait_until("every row is committed", || place.parquet("out").len() >= count);
            send_signal(job.0.id(), libc::SIGINT);
            assert_eq!(job.wait(), 0, "{} broker: stopped with a checkpoint", broker.name());
            assert_eq!(place.summary("s.json")["ended_by"], "signal");
        }
        assert!(place.summary("s.json")["restored_from"].as_u64() > Some(0), "the last run went on from a checkpoint");
        let mut rows: Vec<u64> = place.parquet("out").iter().map(|r| r.parse().expect("a number")).collect();
        rows.sort_unstable();
        assert!(rows.iter().copied().eq(0..count as u64), "{} broker: each row once in Parquet, {} rows", broker.name(), rows.len());
        let sent = broker.query(&target, "n BIGINT", &all_of_it(), "SELECT n FROM t");
        let sent: std::collections::BTreeSet<u64> = sent.split(' ').filter_map(|r| r.trim_matches(['[', ']']).parse().ok()).collect();
        assert!(sent.into_iter().eq(0..count as u64), "{} broker: the topic lacks none", broker.name());
    }
}

#[test]
fn kafka_topics_and_brokers_that_are_not_there_are_named() {
    for broker in Broker::all() {
        let topic = broker.topic(1);
        let near = format!("{topic}x");
        let said = broker.query(&near, "a INT", &all_of_it(), "SELECT a FROM t");
        assert!(
            said.starts_with("exit 2: ") && said.contains("table 't': topic '<topic>' does not exist at <broker>"),
            "{}: {said}",
            broker.name()
        );
        assert!(said.contains(&format!("help: did you mean '{topic}'?")), "{}: {said}", broker.name());
        let nobody = Broker { servers: "127.0.0.1:1".into(), embedded: None };
        let said = nobody.query(&topic, "a INT", &all_of_it(), "SELECT a FROM t");
        assert!(said.starts_with("exit 4: ") && said.contains("no Kafka broker answers at <broker>") && said.contains("help: "), "{said}");
    }
}

#[test]
fn kafka_finds_added_partitions() {
    let Some(broker) = Broker::only_real("kafka_finds_added_partitions") else { return };
    let topic = broker.topic(1);
    broker.fill(&topic, &[(0, None, "{\"n\": 0}".into(), 0)]);
    let place = Place::new();
    let options = format!("{JSON}{EARLIEST}, 'scan.topic-partition-discovery.interval' = '200 ms'");
    place.put(
        "job.sql",
        format!(
            "SET 'execution.checkpointing.interval' = '100 ms';\n{}\nCREATE TABLE f (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet');\nINSERT INTO f SELECT n FROM t;",
            broker.table("t", &topic, "n BIGINT", &options)
        ),
    );
    let mut job = Running::start(place.command(&["run", "job.sql", "--quiet"]));
    wait_until("the first row", || place.parquet("out") == ["0"]);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &broker.servers).create().expect("an admin client");
    let wait = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    wait.block_on(admin.create_partitions([&NewPartitions::new(&topic, 3)], &AdminOptions::new())).expect("two more partitions");
    std::thread::sleep(Duration::from_millis(500));
    broker.fill(&topic, &[(1, None, "{\"n\": 1}".into(), 0), (2, None, "{\"n\": 2}".into(), 0)]);
    wait_until("rows of the new partitions", || place.parquet("out").len() == 3);
    send_signal(job.0.id(), libc::SIGINT);
    assert_eq!(job.wait(), 0);
    assert_eq!(place.parquet("out"), ["0", "1", "2"]);
}

#[test]
fn kafka_does_not_read_aborted_transactions() {
    let Some(broker) = Broker::only_real("kafka_does_not_read_aborted_transactions") else { return };
    let topic = broker.topic(1);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &broker.servers)
        .set("transactional.id", &topic)
        .create()
        .expect("a transactional producer");
    let patience = Duration::from_secs(20);
    producer.init_transactions(patience).expect("transactions");
    for (value, commit) in [("{\"a\": 1}", true), ("{\"a\": 2}", false), ("{\"a\": 3}", true), ("{\"a\": 4}", false)] {
        producer.begin_transaction().expect("begin");
        producer.send(BaseRecord::<(), str>::to(&topic).payload(value)).expect("queued");
        producer.flush(patience).expect("delivered");
        if commit { producer.commit_transaction(patience).expect("commit") } else { producer.abort_transaction(patience).expect("abort") }
    }
    assert_eq!(broker.query(&topic, "a INT", &all_of_it(), "SELECT a FROM t"), "[1] [3]");
}
