//! Plans and refusals as text: SQL in, EXPLAIN or the message out.
//!
//! The cases are in `plans.txt` and `refused.txt`: SQL, a line of `----`, what it gives, a line of `====`.
//! With `UPDATE_CASES=1` the answers are written anew; read the difference before it is committed.

use std::fmt::Write;
use std::path::PathBuf;

use super::{Session, SessionOptions, Step, explain};
use crate::connectors::{Context, memory::Hub};
use crate::error::Result;

const TABLES: &str = "
CREATE TABLE status (code STRING, bikes INT, price DECIMAL(10, 2), due STRING,
  ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
WITH ('connector' = 'memory', 'format' = 'json');
CREATE TABLE stations (code STRING, postcode STRING, capacity INT,
  valid_from AS TIMESTAMP '1970-01-01 00:00:00.000', WATERMARK FOR valid_from AS valid_from,
  PRIMARY KEY (code) NOT ENFORCED)
WITH ('connector' = 'memory', 'format' = 'json', 'static' = 'true');
CREATE TABLE names (code STRING, name STRING)
WITH ('connector' = 'memory', 'format' = 'json', 'static' = 'true');
CREATE TABLE ltz (k STRING, v DOUBLE, ts TIMESTAMP_LTZ(3), WATERMARK FOR ts AS ts)
WITH ('connector' = 'memory', 'format' = 'json');
CREATE TABLE dirt (due STRING, n INT, off BIGINT METADATA FROM 'offset' VIRTUAL,
  ts AS TO_TIMESTAMP(SUBSTRING(due, 1, 19), 'yyyy-MM-dd''T''HH:mm:ss'), WATERMARK FOR ts AS ts - INTERVAL '5' MINUTE)
WITH ('connector' = 'memory', 'format' = 'json');
CREATE TABLE out3 (a STRING, b TIMESTAMP(3), c BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE files (a STRING, n BIGINT) PARTITIONED BY (a)
WITH ('connector' = 'filesystem', 'path' = 'no-such-folder/files', 'format' = 'json');
";

fn session() -> Session {
    let memory = Hub::default();
    for table in ["status", "stations", "names", "ltz", "dirt"] {
        memory.put(table, vec![Vec::<String>::new()]);
        memory.set_unbounded(table, !["stations", "names"].contains(&table));
    }
    let context = Context { job: "test".into(), zone: chrono_tz::Tz::UTC, base: PathBuf::from("."), memory };
    let options = SessionOptions {
        sets: vec![],
        table_options: vec![],
        defines: vec![("N".into(), "3".into())],
        models: PathBuf::from("no-such-folder/models"),
        context,
    };
    let mut session = Session::new(options).expect("no settings");
    session.plan_file("tables.sql", TABLES).unwrap_or_else(|e| panic!("{e}"));
    session
}

fn answer(sql: &str) -> Result<String> {
    let mut session = session();
    let mut out = String::new();
    for step in session.plan_file("q.sql", sql)? {
        match step {
            Step::Job(p) | Step::Select(p) => out.push_str(&explain(&p)),
            Step::Text(t) => out.push_str(&t),
            Step::Train(t) => {
                let _ = writeln!(out, "train {} {:?} {:?} on: {}", t.name, t.mode, t.options, t.sql);
                out.push_str(&explain(&t.plan));
            }
            Step::Show { columns, rows } => {
                for row in std::iter::once(&columns).chain(&rows) {
                    let _ = writeln!(out, "{}", row.join(" | ").trim_end());
                }
            }
        }
    }
    for f in session.portable_findings() {
        let _ = writeln!(out, "{}:{} not portable: {}", f.span.line, f.span.column, f.what);
    }
    Ok(out)
}

/// Runs the cases of a file: each must answer (or be refused), with exactly this text.
fn check(file: &str, refused: bool) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/sql/tests").join(file);
    let text = std::fs::read_to_string(&path).expect("the cases");
    let mut written = String::new();
    let mut wrong = String::new();
    for case in text.split("\n====\n").filter(|c| !c.trim().is_empty()) {
        let (sql, expected) = case.split_once("\n----\n").unwrap_or((case, ""));
        let got = match answer(sql) {
            Ok(plan) if !refused => plan,
            Err(e) if refused => e.to_string(),
            Ok(plan) => panic!("not refused:\n{sql}\n{plan}"),
            Err(e) => panic!("refused:\n{e}"),
        };
        let (sql, got) = (sql.trim_start_matches('\n'), got.trim_end());
        if got != expected.trim_end() {
            let _ = writeln!(wrong, "{sql}\n---- expected\n{}\n---- got\n{got}\n", expected.trim_end());
        }
        let _ = write!(written, "{sql}\n----\n{got}\n====\n");
    }
    if std::env::var_os("UPDATE_CASES").is_some() {
        std::fs::write(&path, written).expect("the cases");
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
}

#[test]
fn queries_become_these_plans() {
    check("plans.txt", false);
}

#[test]
fn queries_are_refused_with_these_words() {
    check("refused.txt", true);
}

#[test]
fn fingerprints_survive_another_insert_and_change_with_the_query() {
    let prints = |sql: &str| -> Vec<(String, String)> {
        let steps = session().plan_file("q.sql", sql).unwrap_or_else(|e| panic!("{e}"));
        let Some(Step::Job(plan)) = steps.into_iter().next() else { panic!("no job") };
        let kept = plan.nodes.iter().filter(|n| !matches!(n.op, super::plan::Op::Calc(_)));
        kept.map(|n| (format!("{:?}", n.op).split('(').next().unwrap_or("").to_string(), n.fingerprint.clone())).collect()
    };
    let count = "INSERT INTO out3 SELECT code, window_end, COUNT(*) FROM TUMBLE(TABLE status, DESCRIPTOR(ts), INTERVAL '5' MINUTE)
        GROUP BY code, window_start, window_end;";
    let first = prints(count);
    assert_eq!(first, prints(count), "planning is deterministic");
    let more = prints(&format!("{count} INSERT INTO files SELECT due, bikes FROM status;"));
    assert!(first.iter().all(|p| more.contains(p)), "another column of the source changes no state:\n{first:?}\n{more:?}");
    let other = prints(&count.replace("'5'", "'10'"));
    let aggregate = |prints: &[(String, String)]| prints.iter().find(|p| p.0.contains("Aggregate")).cloned();
    assert_ne!(aggregate(&first), aggregate(&other));
    assert_eq!(first[0], other[0], "a source's positions do not depend on the query");
}

#[test]
fn knobs_and_options_of_unknown_tables_are_not_lost() {
    let mut session = session();
    session.plan_file("q.sql", "SET 'velosql.table.stationz.csv-header' = 'true';").expect("a table may come later");
    let e = session.check_names().expect_err("no such table");
    assert_eq!(
        e.to_string(),
        "the setting 'velosql.table.stationz.csv-header': table 'stationz' not found\nhelp: did you mean 'stations'?"
    );
}
