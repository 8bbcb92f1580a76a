//! What a user sees when something is wrong: the exit status and every word on stderr.
//!
//! The texts lie in `errors/<case>.txt`; `VELOSQL_SNAPSHOTS=update` writes them anew, to be read before they are
//! committed: a message names the place, says what is wrong, and what to write or do instead. What differs
//! from run to run (folders, ports, times, process numbers) is replaced before it is compared.

use std::path::PathBuf;

use velosql::connectors::kafka::embedded::EmbeddedBroker;

use crate::process::{Place, Ran, Running, wait_until};

/// A JSON file `in.jsonl` with an event time, printed.
const LINES: &str = "CREATE TABLE t (
  a INT,
  s STRING,
  ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'in.jsonl', 'format' = 'json');
";
const GOOD: &str = "{\"a\": 1, \"s\": \"x\", \"ts\": \"2024-01-01 00:00:00\"}\n";
/// Ten generated rows and a Parquet folder for them.
const TO_PARQUET: &str =
    "CREATE TABLE t (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '10');
CREATE TABLE out_t (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet');
";

/// Compares what a run said with the snapshot `name`, and its exit status with `status`.
fn expect(name: &str, status: i32, ran: &Ran, place: &Place, hide: &[(&str, &str)]) {
    let mut text = format!("exit {}\n{}", ran.status, ran.stderr);
    let folder = place.path("").display().to_string();
    for (from, to) in hide.iter().chain(&[(folder.trim_end_matches('/'), "<folder>")]) {
        text = text.replace(from, to);
    }
    let time = fancy_regex::Regex::new(r"after \d+\.\d s").expect("a pattern");
    let text = time.replace_all(&text, "after <time>").into_owned();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/errors").join(format!("{name}.txt"));
    if std::env::var("VELOSQL_SNAPSHOTS").is_ok_and(|v| v == "update") {
        std::fs::create_dir_all(path.parent().expect("a folder"))
            .and_then(|()| std::fs::write(&path, &text))
            .expect("a snapshot is written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(ran.status, status, "{name}: exit status\n{}", ran.stderr);
    assert_eq!(text, expected, "{name}: stderr differs from {} (VELOSQL_SNAPSHOTS=update rewrites it)", path.display());
    assert!(!ran.stderr.contains("panicked"), "{name}: {}", ran.stderr);
}

/// Runs `sql` in a new folder with `files`.
fn refused(name: &str, status: i32, sql: &str, files: &[(&str, &[u8])]) {
    refused_with(name, status, sql, files, &[]);
}

fn refused_with(name: &str, status: i32, sql: &str, files: &[(&str, &[u8])], args: &[&str]) {
    let place = Place::new();
    place.put("q.sql", sql);
    files.iter().for_each(|(file, content)| place.put(file, content));
    let ran = place.run(&[&["run", "q.sql", "--quiet"], args].concat());
    expect(name, status, &ran, &place, &[]);
}

fn lines(name: &str, status: i32, settings: &str, bad: &[u8]) {
    let content = [GOOD.as_bytes(), bad, b"\n", GOOD.as_bytes()].concat();
    refused(name, status, &format!("{settings}{LINES}SELECT a, s FROM t;"), &[("in.jsonl", &content)]);
}

#[test]
fn records_that_cannot_be_read() {
    lines("truncated_json", 3, "", b"{\"a\": 2, \"s\": \"y");
    lines("no_object", 3, "", b"[1, 2]");
    lines("wrong_type", 3, "", b"{\"a\": \"many\", \"s\": \"y\", \"ts\": \"2024-01-01 00:00:00\"}");
    lines("number_out_of_range", 3, "", b"{\"a\": 3000000000, \"s\": \"y\", \"ts\": \"2024-01-01 00:00:00\"}");
    lines("bad_time", 3, "", b"{\"a\": 2, \"s\": \"y\", \"ts\": \"yesterday\"}");
    lines("invalid_utf8", 3, "", b"{\"a\": 2, \"s\": \"\xff\xfe\", \"ts\": \"2024-01-01 00:00:00\"}");
    let strict = LINES.replace("'json'", "'json', 'json.fail-on-missing-field' = 'true'");
    let content = format!("{GOOD}{{\"a\": 2, \"ts\": \"2024-01-01 00:00:00\"}}\n");
    refused("missing_field", 3, &format!("{strict}SELECT a, s FROM t;"), &[("in.jsonl", content.as_bytes())]);
}

const NO_TIME: &[u8] = b"{\"a\": 2, \"s\": \"y\"}";

#[test]
fn a_null_event_time_obeys_the_policy() {
    lines("null_event_time", 3, "", NO_TIME);
    let content = [GOOD.as_bytes(), NO_TIME, b"\n{\"a\": 2, \"s\": \"y\n", GOOD.as_bytes()].concat();
    let run = |name: &str, settings: &str| {
        let place = Place::new();
        place.put("in.jsonl", &content);
        place.put("q.sql", format!("{settings}{LINES}SELECT a, s FROM t;"));
        let ran = place.run(&["run", "q.sql", "--quiet", "--summary", "summary.json"]);
        expect(name, 0, &ran, &place, &[]);
        assert_eq!(ran.stdout, "+I[1, x]\n+I[1, x]\n", "{name}");
        assert_eq!(place.summary("summary.json")["rejected"], 2, "{name}");
        place
    };
    run("bad_records_skip", "SET 'velosql.table.t.bad-records' = 'skip';\n");
    let place =
        run("bad_records_dead_letter", "SET 'velosql.table.t.bad-records' = 'dead-letter';\nSET 'velosql.table.t.dead-letter' = 'dead';\n");
    let kept = everything_below(&place.path("dead"));
    assert_eq!(kept.lines().count(), 2, "both records are kept with their reasons:\n{kept}");
    assert!(kept.contains("in.jsonl"), "{kept}");
}

fn everything_below(path: &std::path::Path) -> String {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a folder").flatten().filter(|e| e.file_name() != "_commits");
        return entries.map(|e| everything_below(&e.path())).collect();
    }
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn policies_that_are_none() {
    lines("bad_records_unknown", 2, "SET 'velosql.table.t.bad-records' = 'ignore';\n", b"");
    lines("dead_letter_without_a_place", 2, "SET 'velosql.table.t.bad-records' = 'dead-letter';\n", b"");
    lines("unknown_knob", 2, "SET 'velosql.table.t.bad-record' = 'skip';\n", b"");
    lines("knob_of_no_table", 2, "SET 'velosql.table.tt.bad-records' = 'skip';\n", b"");
}

#[test]
fn csv_files_that_cannot_be_read() {
    const CSV: &str =
        "CREATE TABLE t (a INT, s STRING) WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv');\nSELECT a, s FROM t;";
    refused("csv_too_few_columns", 3, CSV, &[("in.csv", b"1,x\n2\n")]);
    refused("csv_wrong_type", 3, CSV, &[("in.csv", b"1,x\ntwo,y\n")]);
    refused("csv_header_as_row", 3, CSV, &[("in.csv", b"a,s\n1,x\n")]);
    refused("csv_open_quote", 3, CSV, &[("in.csv", b"1,x\n2,\"y\n3,z\n")]);
    refused("csv_absent", 2, CSV, &[]);
    refused("csv_no_gzip", 2, &CSV.replace("in.csv", "in.csv.gz"), &[("in.csv.gz", b"1,x\n2,this is plain text\n")]);
    refused("parquet_that_is_none", 2, &CSV.replace("in.csv", "in.parquet").replace("'csv'", "'parquet'"), &[("in.parquet", b"1,x\n")]);
}

#[test]
fn names_and_options_that_do_not_exist() {
    let with = |options: &str| format!("CREATE TABLE t (a INT) WITH ({options});\nSELECT a FROM t;");
    refused("unknown_option", 2, &with("'connector' = 'filesystem', 'pth' = 'in.jsonl', 'format' = 'json'"), &[]);
    refused("missing_option", 2, &with("'connector' = 'filesystem', 'format' = 'json'"), &[]);
    refused("unknown_format", 2, &with("'connector' = 'filesystem', 'path' = 'in.jsonl', 'format' = 'jsn'"), &[]);
    refused("unknown_connector", 2, &with("'connector' = 'kafak'"), &[]);
    refused("no_connector", 2, "CREATE TABLE t (a INT);\nSELECT a FROM t;", &[]);
    refused("bad_option_value", 2, &with("'connector' = 'datagen', 'rows-per-second' = 'fast'"), &[]);
    refused("unknown_table", 2, &format!("{LINES}SELECT a FROM tt;"), &[("in.jsonl", b"")]);
    refused("unknown_column", 2, &format!("{LINES}SELECT aa,\n  b FROM t;"), &[("in.jsonl", b"")]);
    refused("unknown_function", 2, &format!("{LINES}SELECT UPERR(s) FROM t;"), &[("in.jsonl", b"")]);
    refused("unknown_sink", 2, &format!("{TO_PARQUET}INSERT INTO outt SELECT n FROM t;"), &[]);
    refused("wrong_number_of_columns", 2, &format!("{TO_PARQUET}INSERT INTO out_t SELECT n, n FROM t;"), &[]);
    refused("wrong_column_type", 2, &format!("{TO_PARQUET}INSERT INTO out_t SELECT CAST(n AS STRING) FROM t;"), &[]);
    refused("syntax", 2, &format!("{LINES}SELCT a FROM t;"), &[]);
    refused("undefined_variable", 2, &LINES.replace("in.jsonl", "${INPUT}"), &[]);
    refused("unknown_setting", 2, "SET 'velosql.batch-row' = '10';\n", &[]);
}

#[test]
fn queries_that_cannot_run() {
    refused("updating_into_files", 2, &format!("{TO_PARQUET}INSERT INTO out_t SELECT COUNT(*) FROM t;"), &[]);
    let topic = "CREATE TABLE k (n BIGINT) WITH ('connector' = 'kafka', 'topic' = 'x', 'properties.bootstrap.servers' = 'localhost:1', 'format' = 'json');\n";
    refused("updating_into_kafka", 2, &format!("{TO_PARQUET}{topic}INSERT INTO k SELECT COUNT(*) FROM t;"), &[]);
    refused(
        "window_without_event_time",
        2,
        &format!(
            "{TO_PARQUET}SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(n), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;"
        ),
        &[],
    );
    refused("order_by", 2, &format!("{TO_PARQUET}SELECT n FROM t ORDER BY n;"), &[]);
    refused(
        "stream_join",
        2,
        &format!("{TO_PARQUET}CREATE TABLE u (n BIGINT) WITH ('connector' = 'datagen');\nSELECT t.n FROM t JOIN u ON t.n = u.n;"),
        &[],
    );
    refused("delete", 2, &format!("{TO_PARQUET}DELETE FROM t WHERE n = 1;"), &[]);
}

#[test]
fn arguments_that_do_not_fit() {
    let good = format!("{LINES}SELECT a FROM t;");
    let run = |name: &str, args: &[&str]| refused_with(name, 2, &good, &[("in.jsonl", GOOD.as_bytes())], args);
    run("option_without_value", &["--option", "t.path"]);
    run("option_without_table", &["--option", "path=x"]);
    run("option_of_no_table", &["--option", "tt.path=x"]);
    run("option_unknown", &["--option", "t.pth=x"]);
    run("set_without_value", &["--set", "parallelism.default"]);
    run("set_bad_value", &["--set", "parallelism.default=many"]);
    run("define_without_value", &["--define", "X"]);
    run("for_no_duration", &["--for", "soon"]);
    run("workers_zero", &["--workers", "0"]);
    run("from_and_fresh", &["--from", "1", "--fresh"]);
    let place = Place::new();
    expect("no_such_file", 2, &place.run(&["run", "absent.sql"]), &place, &[]);
    place.put("empty.sql", "-- nothing\n");
    expect("empty_file", 0, &place.run(&["run", "empty.sql"]), &place, &[]);
    place.put("binary.sql", b"\xff\xfe\x00");
    expect("no_text_file", 2, &place.run(&["run", "binary.sql"]), &place, &[]);
}

#[test]
fn output_that_cannot_be_written() {
    let insert = format!("{TO_PARQUET}INSERT INTO out_t SELECT n FROM t;");
    refused("output_is_a_file", 2, &insert, &[("out", b"a file")]);
    refused("output_below_a_file", 4, &insert.replace("'out'", "'file/out'"), &[("file", b"")]);
    refused("output_not_empty", 2, &insert, &[("out/mine.txt", b"precious")]);
    refused("state_is_a_file", 4, &insert, &[(".velosql", b"")]);
    refused_with("summary_not_writable", 4, &insert, &[], &["--summary", "no/such/folder.json"]);
    let place = Place::new();
    place.put("q.sql", &insert);
    place.done(&["run", "q.sql", "--quiet"]);
    expect("output_of_another_job", 2, &place.run(&["run", "q.sql", "--quiet", "--job", "other"]), &place, &[]);
    std::fs::remove_dir_all(place.path(".velosql")).expect("the state is there");
    expect("state_is_gone", 2, &place.run(&["run", "q.sql", "--quiet"]), &place, &[]);
    let rows = place.parquet("out");
    expect("fresh", 0, &place.run(&["run", "q.sql", "--quiet", "--fresh"]), &place, &[]);
    assert_eq!((rows.len(), place.parquet("out")), (10, rows), "--fresh gives the same rows, once");
}

#[test]
fn state_that_does_not_fit() {
    let place = Place::new();
    place.put("q.sql", format!("{TO_PARQUET}INSERT INTO out_t SELECT n FROM t;"));
    place.done(&["run", "q.sql", "--quiet"]);
    expect("finished_job", 0, &place.run(&["run", "q.sql"]), &place, &[]);
    expect("no_such_epoch", 5, &place.run(&["run", "q.sql", "--from", "99", "--quiet"]), &place, &[]);
    assert_eq!(place.parquet("out").len(), 10);

    let counted = "CREATE TABLE e (n BIGINT, ts AS TO_TIMESTAMP_LTZ(n * 1000, 3), WATERMARK FOR ts AS ts) WITH
  ('connector' = 'datagen', 'rows-per-second' = '2000', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '1000000');
CREATE TABLE out_c (w TIMESTAMP_LTZ(3), c BIGINT) WITH ('connector' = 'filesystem', 'path' = 'counts', 'format' = 'parquet');
INSERT INTO out_c SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE e, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end;";
    place.put("counts.sql", counted);
    place.done(&["run", "counts.sql", "--quiet", "--for", "500ms"]);
    place.put("counts.sql", counted.replace("COUNT(*)", "SUM(n)"));
    expect("changed_query", 5, &place.run(&["run", "counts.sql", "--quiet", "--for", "500ms"]), &place, &[]);
    place.put("counts.sql", counted.replace("'2000'", "'2001'"));
    expect("changed_rate", 0, &place.run(&["run", "counts.sql", "--quiet", "--for", "500ms"]), &place, &[]);
}

#[test]
fn a_second_live_run_is_refused() {
    let place = Place::new();
    let endless = TO_PARQUET.replace("'10'", "'100000000'").replace("'datagen',", "'datagen', 'rows-per-second' = '10',");
    place.put("q.sql", format!("SET 'execution.checkpointing.interval' = '50 ms';\n{endless}INSERT INTO out_t SELECT n FROM t;"));
    let mut first = Running::start(place.command(&["run", "q.sql", "--quiet"]));
    wait_until("the first commit", || place.path("out/_commits").exists());
    expect("second_live_run", 5, &place.run(&["run", "q.sql", "--quiet"]), &place, &[]);
    crate::process::send_signal(first.0.id(), libc::SIGINT);
    assert_eq!(first.wait(), 0, "stopped with a checkpoint");
    assert!(place.path(".velosql/q").exists());
}

#[test]
fn kafka_that_is_not_there() {
    let broker = EmbeddedBroker::start().expect("an embedded broker");
    broker.create_topic("bikes", 1).expect("a topic");
    let run = |name: &str, status: i32, topic: &str, servers: &str, options: &str| {
        let place = Place::new();
        place.put(
            "q.sql",
            format!("CREATE TABLE t (a INT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}', 'format' = 'json'{options});\nSELECT a FROM t;"),
        );
        let ran = place.run(&["run", "q.sql", "--quiet", "--for", "20s"]);
        expect(name, status, &ran, &place, &[(broker.servers(), "<broker>")]);
    };
    let bounded = ", 'scan.bounded.mode' = 'latest-offset'";
    let earliest = ", 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'";
    run("kafka_absent_topic", 2, "bike", broker.servers(), earliest);
    run("kafka_unreachable_broker", 4, "bikes", "127.0.0.1:1", earliest);
    run("kafka_no_committed_offset", 2, "bikes", broker.servers(), &format!("{bounded}, 'properties.group.id' = 'g'"));
    run("kafka_no_group", 2, "bikes", broker.servers(), bounded);
    run("kafka_unknown_property", 2, "bikes", broker.servers(), &format!("{earliest}, 'properties.fetch.min.byte' = '1'"));
    run("kafka_bad_mode", 2, "bikes", broker.servers(), ", 'scan.startup.mode' = 'earliest'");
    run("kafka_secret", 2, "bikes", broker.servers(), &format!("{earliest}, 'properties.sasl.jaas.config' = 'user=me password=hunter2'"));
    let snapshots = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/errors");
    assert!(!everything_below(&snapshots).contains("hunter2"), "no message shows a secret");
}

#[test]
fn models_that_cannot_be_used() {
    const MODEL: &str = "CREATE MODEL price WITH ('task' = 'regression', 'algorithm' = 'linear', 'label' = 'y') AS
  SELECT a, s, 1e0 * a AS y FROM t;
";
    let run = |name: &str, sql: &str| refused(name, 2, &format!("{LINES}{sql}"), &[("in.jsonl", GOOD.as_bytes())]);
    let scored = |call: &str| format!("SELECT prediction FROM\n  ML_PREDICT({call});");
    let declared = |name: &str, call: &str| run(name, &format!("{MODEL}{}", scored(call)));
    run("model_unknown", &scored("TABLE t, MODEL price, DESCRIPTOR(a)"));
    run("model_task", &MODEL.replace("regression", "regresion"));
    declared("model_column_missing", "TABLE t, MODEL price, DESCRIPTOR(a)");
    declared("model_column_unknown", "TABLE t, MODEL price, DESCRIPTOR(a, s, ts)");
    declared("model_column_type", "(SELECT s AS a, s FROM t), MODEL price, DESCRIPTOR(a, s)");
    let endless = "CREATE TABLE g (a INT, s STRING) WITH ('connector' = 'datagen', 'rows-per-second' = '10');
CREATE TABLE nowhere (a INT) WITH ('connector' = 'blackhole');
INSERT INTO nowhere SELECT a FROM g;
";
    run("model_behind_a_stream", &format!("{endless}{MODEL}"));
    run(
        "model_of_a_stream",
        &format!("{endless}{}", MODEL.replace("FROM t", "FROM g")).replace("INSERT INTO nowhere SELECT a FROM g;\n", ""),
    );
}
