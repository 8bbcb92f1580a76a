//! A job inside the test's process: a plan over memory tables, and options of which a test says what it is about.

use std::sync::Arc;
use std::time::Duration;

use velosql::connectors::memory::Hub;
use velosql::connectors::{BatchLimits, Context};
use velosql::metrics::JobMetrics;
use velosql::runtime::job::{JobOptions, Stop};
use velosql::sql::plan::StreamPlan;
use velosql::sql::{Session, SessionOptions, Step};

/// The one job of `sql`.
pub fn plan(name: &str, sql: &str, hub: &Hub) -> StreamPlan {
    let context = Context { job: name.into(), zone: chrono_tz::UTC, base: ".".into(), memory: hub.clone() };
    let options = SessionOptions { sets: vec![], table_options: vec![], defines: vec![], models: "models".into(), context };
    let mut session = Session::new(options).expect("a session");
    the_job(session.plan_file(name, sql).unwrap_or_else(|e| panic!("{e}")))
}

/// The job among the steps of a file.
pub fn the_job(steps: Vec<Step>) -> StreamPlan {
    steps.into_iter().find_map(|s| if let Step::Job(plan) = s { Some(plan) } else { None }).expect("an INSERT")
}

/// A run of job `name` that keeps no state and ends after a minute at the latest.
pub fn options(name: &str, workers: usize, batch_rows: usize) -> JobOptions {
    JobOptions {
        name: name.into(),
        sql: String::new(),
        workers,
        state_dir: None,
        store: None,
        fresh: false,
        from: None,
        refresh_static: false,
        models: "models".into(),
        limits: BatchLimits { rows: batch_rows, bytes: 1 << 20, latency: Duration::ZERO },
        stop: Stop::default(),
        duration: Some(Duration::from_secs(60)),
        rows: None,
        metrics: Arc::new(JobMetrics::default()),
        notice: Arc::new(|_| {}),
    }
}
