//! An idle source and a restart: a window that was emitted while a source slept is not emitted again.
//!
//! What an operator has emitted is decided by its watermark, which nothing else tells after a restart: the
//! windows are closed (no state is left), and the sleeper's own watermark is far behind.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use velosql::connectors::memory::Hub;
use velosql::metrics::JobMetrics;
use velosql::runtime;
use velosql::runtime::checkpoint::store::{LossyStore, Store};
use velosql::runtime::job::{JobOptions, Stop};
use velosql::sql::plan::StreamPlan;

use crate::case::materialise;
use crate::job;

const SQL: &str = "SET 'table.exec.source.idle-timeout' = '50 ms';
    SET 'execution.checkpointing.interval' = '10 ms';
    CREATE TABLE a (v INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'memory');
    CREATE TABLE b (v INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'memory');
    CREATE TABLE answers (w TIMESTAMP(3), n BIGINT, v INT) WITH ('connector' = 'memory');
    CREATE VIEW both_of AS SELECT * FROM a UNION ALL SELECT * FROM b;
    CREATE VIEW wanted AS SELECT * FROM both_of WHERE v > 0;
    INSERT INTO answers SELECT window_start, COUNT(*), SUM(v)
    FROM TABLE(TUMBLE(TABLE wanted, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;";

fn run(plan: &StreamPlan, store: Arc<dyn Store>, workers: usize, stop: Stop) -> Arc<JobMetrics> {
    let options = JobOptions { sql: SQL.into(), store: Some(store), stop, ..job::options("idle", workers, 2) };
    let metrics = options.metrics.clone();
    runtime::job::run(plan, options).expect("the job ends");
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
            let (plan, store, stop) = (job::plan("idle", SQL, &hub), store.clone(), stop.clone());
            move || run(&plan, store, before, stop)
        });
        assert!(hub.wait_committed("answers", 1, Duration::from_secs(30)), "the sleeper held the window back");
        stop.graceful();
        first.join().expect("the first run ends");

        hub.push("b", 0, vec![record(8, 3)]);
        hub.set_unbounded("a", false);
        hub.set_unbounded("b", false);
        let second = run(&job::plan("idle", SQL, &hub), store, after, Stop::default());
        assert_eq!(materialise(&hub.committed("answers")), ["[2024-01-01T00:00, 3, 7]"], "{before}, then {after} workers");
        assert_eq!((second.late.get(), second.late_after_idle.get()), (0, 1), "{before}, then {after} workers");
    }
}
