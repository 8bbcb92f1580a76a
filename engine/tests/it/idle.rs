//! An idle source and a restart: a window that was emitted while a source slept is not emitted again.
//!
//! What an operator has emitted is decided by its watermark, which nothing else tells after a restart: the
//! windows are closed (no state is left), and the sleeper's own watermark is far behind.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use velosql::connectors::memory::Hub;
use velosql::connectors::{BatchLimits, Context};
use velosql::metrics::JobMetrics;
use velosql::runtime::checkpoint::store::{LossyStore, Store};
use velosql::runtime::job::{self, JobOptions, Stop};
use velosql::sql::plan::StreamPlan;
use velosql::sql::{Session, SessionOptions, Step};

use crate::case::materialise;

const SQL: &str = "SET 'table.exec.source.idle-timeout' = '50 ms';
    SET 'execution.checkpointing.interval' = '10 ms';
    CREATE TABLE a (v INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'memory');
    CREATE TABLE b (v INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'memory');
    CREATE TABLE answers (w TIMESTAMP(3), n BIGINT, v INT) WITH ('connector' = 'memory');
    CREATE VIEW both_of AS SELECT * FROM a UNION ALL SELECT * FROM b;
    CREATE VIEW wanted AS SELECT * FROM both_of WHERE v > 0;
    INSERT INTO answers SELECT window_start, COUNT(*), SUM(v)
    FROM TABLE(TUMBLE(TABLE wanted, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;";

fn plan(hub: &Hub) -> StreamPlan {
    let context = Context { job: "idle".into(), zone: chrono_tz::UTC, base: ".".into(), memory: hub.clone() };
    let mut session =
        Session::new(SessionOptions { sets: vec![], table_options: vec![], defines: vec![], models: "models".into(), context })
            .expect("a session");
    let steps = session.plan_file("idle", SQL).unwrap_or_else(|e| panic!("{e}"));
    steps.into_iter().find_map(|s| if let Step::Job(plan) = s { Some(plan) } else { None }).expect("an INSERT")
}

fn run(plan: &StreamPlan, store: Arc<dyn Store>, workers: usize, stop: Stop) -> Arc<JobMetrics> {
    let metrics = Arc::new(JobMetrics::default());
    let options = JobOptions {
        name: "idle".into(),
        sql: SQL.into(),
        workers,
        state_dir: None,
        store: Some(store),
        fresh: false,
        from: None,
        refresh_static: false,
        models: "models".into(),
        limits: BatchLimits { rows: 2, bytes: 1 << 20, latency: Duration::ZERO },
        stop,
        duration: Some(Duration::from_secs(60)),
        rows: None,
        metrics: metrics.clone(),
        notice: Arc::new(|_| {}),
    };
    job::run(plan, options).expect("the job ends");
    metrics
}

#[test]
fn a_window_emitted_while_a_source_slept_is_not_emitted_again_after_a_restart() {
    for (before, after) in [(1, 1), (2, 2), (2, 1), (1, 3)] {
        let hub = Hub::default();
        // The last row of a is for no window: it moves time, and leaves no state behind.
        let record = |v: i32, second: u32| format!(r#"{{"v": {v}, "ts": "2024-01-01 00:00:{second:02}"}}"#);
        hub.put("a", vec![vec![record(1, 1), record(2, 5), record(0, 30)]]);
        hub.put("b", vec![vec![record(4, 2)]]);
        hub.set_unbounded("a", true);
        hub.set_unbounded("b", true);
        let store = Arc::new(LossyStore::default());
        let stop = Stop::default();
        let first = thread::spawn({
            let (plan, store, stop) = (plan(&hub), store.clone(), stop.clone());
            move || run(&plan, store, before, stop)
        });
        assert!(hub.wait_committed("answers", 1, Duration::from_secs(30)), "the sleeper held the window back");
        stop.graceful();
        first.join().expect("the first run ends");

        hub.push("b", 0, vec![record(8, 3)]);
        hub.set_unbounded("a", false);
        hub.set_unbounded("b", false);
        let second = run(&plan(&hub), store, after, Stop::default());
        assert_eq!(materialise(&hub.committed("answers")), ["[2024-01-01T00:00, 3, 7]"], "{before}, then {after} workers");
        assert_eq!((second.late.get(), second.late_after_idle.get()), (0, 1), "{before}, then {after} workers");
    }
}
