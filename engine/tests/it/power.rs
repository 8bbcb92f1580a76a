//! Power cuts at every step of a checkpoint: what is resumed gives the table of an uninterrupted run.
//!
//! [`Cut`] lets a number of operations on the state directory pass and refuses all others, as a machine does
//! that goes dark. What was not synced is lost then ([`LossyStore`]), and a second run goes on from what is
//! left. The number goes from none to as many as a whole run needs, so every place is hit.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use velosql::connectors::memory::Hub;
use velosql::error::{Error, Result};
use velosql::runtime;
use velosql::runtime::checkpoint::store::{LossyStore, Store};
use velosql::runtime::job::{JobOptions, Outcome};
use velosql::sql::plan::StreamPlan;

use crate::case::materialise;
use crate::job;

/// A store whose machine goes dark.
struct Cut {
    below: Arc<LossyStore>,
    /// Operations that still pass.
    left: AtomicI64,
    /// Only renames to manifests count, and only they are refused.
    manifests_only: bool,
}

impl Cut {
    fn pass(&self, name: &str) -> Result<()> {
        if self.manifests_only && !name.starts_with("manifest-") {
            return Ok(());
        }
        if self.left.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(Error::external("the machine is dark")) }
    }
}

impl Store for Cut {
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        if !self.manifests_only {
            self.pass(name)?;
        }
        self.below.write(name, bytes)
    }

    fn sync(&self, name: &str) -> Result<()> {
        if !self.manifests_only {
            self.pass(name)?;
        }
        self.below.sync(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.pass(to)?;
        self.below.rename(from, to)
    }

    fn sync_names(&self) -> Result<()> {
        self.pass("")?;
        self.below.sync_names()
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.below.read(name)
    }

    fn list(&self) -> Result<Vec<String>> {
        self.below.list()
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.pass("")?;
        self.below.remove(name)
    }
}

const SQL: &str = "SET 'execution.checkpointing.interval' = '1 ms';
    CREATE TABLE t (k INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH ('connector' = 'memory');
    CREATE TABLE answers (s TIMESTAMP(3), k INT, n BIGINT) WITH ('connector' = 'memory');
    INSERT INTO answers SELECT window_start, k, COUNT(*)
    FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY window_start, window_end, k;";

/// Twelve records; checkpoints fit into the silences between them.
fn filled() -> Hub {
    let hub = Hub::default();
    let record = |i: usize| (0, format!(r#"{{"k": {}, "ts": "2024-01-01 00:00:{:02}"}}"#, i % 3, i * 2));
    hub.put_arrivals("t", 1, (0..12).map(record).collect());
    for at in [4, 8, 11] {
        hub.gap_at("t", at, Duration::from_millis(25));
    }
    hub
}

fn run(plan: &StreamPlan, store: Arc<dyn Store>, workers: usize) -> Result<Outcome> {
    let options = JobOptions { sql: SQL.into(), store: Some(store), ..job::options("power", workers, 2) };
    runtime::job::run(plan, options)
}

fn uninterrupted() -> Vec<String> {
    let hub = filled();
    run(&job::plan("power", SQL, &hub), Arc::new(LossyStore::default()), 1).expect("the job ends");
    let rows = materialise(&hub.committed("answers"));
    assert_eq!(rows.len(), 12, "{rows:?}");
    rows
}

#[test]
fn a_power_cut_at_any_step_of_a_checkpoint_neither_loses_nor_repeats_a_row() {
    let expected = uninterrupted();
    let mut resumed = 0;
    for operations in 0.. {
        let (hub, below) = (filled(), Arc::new(LossyStore::default()));
        let plan = job::plan("power", SQL, &hub);
        let cut = Arc::new(Cut { below: below.clone(), left: AtomicI64::new(operations), manifests_only: false });
        let first = run(&plan, cut, 2);
        below.lose_power();
        let second = run(&plan, below, 1).unwrap_or_else(|e| panic!("cut after {operations} operations: {e}"));
        resumed += u32::from(second.restored_from.is_some());
        assert_eq!(materialise(&hub.committed("answers")), expected, "cut after {operations} operations");
        if first.is_ok() {
            break;
        }
    }
    assert!(resumed > 5, "most cuts leave a checkpoint: {resumed}");
}

#[test]
fn nothing_is_visible_before_its_manifest_is_durable() {
    let expected = uninterrupted();
    for manifests in 0.. {
        let (hub, below) = (filled(), Arc::new(LossyStore::default()));
        let plan = job::plan("power", SQL, &hub);
        let first = run(&plan, Arc::new(Cut { below: below.clone(), left: AtomicI64::new(manifests), manifests_only: true }), 2);
        if first.is_ok() {
            break;
        }
        let visible = hub.epochs("answers");
        assert!(
            visible.last().is_none_or(|e| e.0 as i64 <= manifests),
            "{manifests} manifests, but rows of epochs {visible:?} are visible"
        );
        run(&plan, below, 1).expect("the job ends");
        assert_eq!(materialise(&hub.committed("answers")), expected, "after {manifests} manifests");
    }
}
