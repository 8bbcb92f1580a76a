//! The matrix: every case at every batch size, worker count and way of running gives the same table.
//!
//! | | |
//! |---|---|
//! | rows per batch | 1, 7, 1000, 8192 |
//! | workers | 1, 2, 4 |
//! | way | straight; stopped and resumed; killed and resumed at another worker count |
//! | seeds | one in CI; `VELOSQL_SEEDS=20` for more. A seed places stops and kills |
//!
//! `VELOSQL_CASE=name` runs one case. State lives in a store that loses what was not synced when a job is
//! killed. Each case prints one hash; a cell that differs prints itself, its rows and what was expected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use velosql::connectors::memory::Hub;
use velosql::connectors::{BatchLimits, Context};
use velosql::metrics::JobMetrics;
use velosql::runtime::checkpoint::store::LossyStore;
use velosql::runtime::job::{self, JobOptions, Outcome, Stop};
use velosql::sql::plan::StreamPlan;
use velosql::sql::{Session, SessionOptions, Step};

use crate::case::{Case, Counts, materialise};

const BATCH_ROWS: [usize; 4] = [1, 7, 1000, 8192];
const WORKERS: [usize; 3] = [1, 2, 4];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    StoppedAndResumed,
    KilledAndResumed,
}

const WAYS: [Way; 3] = [Way::Straight, Way::StoppedAndResumed, Way::KilledAndResumed];

/// One run of a case, with everything that outlives a run of the job.
struct Cell<'a> {
    case: &'a Case,
    dir: tempfile::TempDir,
    hub: Hub,
    store: Arc<LossyStore>,
    plan: StreamPlan,
    counts: Counts,
}

impl<'a> Cell<'a> {
    fn new(case: &'a Case) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in &case.files {
            std::fs::write(dir.path().join(name), content).expect("a file of the case");
        }
        let hub = Hub::default();
        case.fill(&hub);
        let plan = plan(case, dir.path(), &hub);
        Self { case, dir, hub, store: Arc::default(), plan, counts: Counts::default() }
    }

    fn run(&mut self, rows: usize, workers: usize, stop: &Stop) -> velosql::error::Result<Outcome> {
        let metrics = Arc::new(JobMetrics::default());
        let options = JobOptions {
            name: "case".into(),
            sql: self.case.sql.clone(),
            workers,
            state_dir: None,
            store: Some(self.store.clone()),
            fresh: false,
            from: None,
            refresh_static: false,
            limits: BatchLimits { rows, bytes: 1 << 20, latency: Duration::ZERO },
            stop: stop.clone(),
            duration: Some(Duration::from_secs(60)),
            rows: None,
            metrics: metrics.clone(),
            notice: Arc::new(|_| {}),
        };
        let outcome = job::run(&self.plan, options);
        self.counts.late += metrics.late.get();
        self.counts.late_after_idle += metrics.late_after_idle.get();
        self.counts.rejected += metrics.rejected();
        outcome
    }

    /// Runs until `records` of the first input have been fetched, then ends the run in that way.
    fn interrupt(&mut self, rows: usize, workers: usize, records: usize, way: Way) {
        let table = self.case.inputs[0].table.clone();
        self.hub.pause_after(&table, records);
        let stop = Stop::default();
        let (hub, handle) = (self.hub.clone(), stop.clone());
        let stopper = std::thread::spawn(move || {
            hub.wait_fetched(&table, records, Duration::from_secs(20));
            if way == Way::StoppedAndResumed {
                handle.graceful();
            } else {
                // Some checkpoints may have passed by then, and one may be under way.
                std::thread::sleep(Duration::from_millis(3));
                handle.kill();
            }
            hub.resume(&table);
        });
        self.run(rows, workers, &stop).unwrap_or_else(|e| panic!("{}: the first run failed: {e}", self.case.name));
        stopper.join().expect("the stopper");
        if way == Way::KilledAndResumed {
            self.store.lose_power();
        }
    }

    fn tables(&self) -> Vec<(String, Vec<String>)> {
        let rows = |table: &String, in_order: bool| {
            let changes = self.hub.committed(table).expect("committed rows");
            if in_order { changes.iter().map(|(_, cells)| format!("[{}]", cells.join(", "))).collect() } else { materialise(&changes) }
        };
        self.case.expected.iter().map(|(t, e)| (t.clone(), rows(t, e.in_order))).collect()
    }
}

fn plan(case: &Case, dir: &std::path::Path, hub: &Hub) -> StreamPlan {
    let context = Context { job: "case".into(), zone: chrono_tz::UTC, base: dir.to_path_buf(), memory: hub.clone() };
    let mut session = Session::new(SessionOptions {
        sets: vec![("execution.checkpointing.interval".into(), "2 ms".into())],
        table_options: Vec::new(),
        defines: vec![("DIR".into(), dir.display().to_string())],
        context,
    })
    .expect("a session");
    let steps = session.plan_file(&case.name, &case.sql).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let jobs = steps.into_iter().filter_map(|s| if let Step::Job(plan) = s { Some(plan) } else { None });
    jobs.into_iter().next().unwrap_or_else(|| panic!("{}: no INSERT", case.name))
}

fn seeds() -> u64 {
    std::env::var("VELOSQL_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

/// A cheap generator: the place of an interruption.
fn place(seed: u64, cell: u64, records: usize) -> usize {
    let x = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ cell).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x >> 33) as usize % records.max(1)
}

#[test]
fn every_cell_gives_the_same_table() {
    let only = std::env::var("VELOSQL_CASE").ok();
    let started = Instant::now();
    let (mut cells, mut resumed) = (0, 0);
    let mut failed = Vec::new();
    let cases = Case::all();
    for case in cases.iter().filter(|c| only.as_ref().is_none_or(|o| c.name.contains(o.as_str()))) {
        let expected: Vec<(String, Vec<String>)> = case
            .expected
            .iter()
            .map(|(t, e)| {
                let mut rows = e.rows.clone();
                if !e.in_order {
                    rows.sort();
                }
                (t.clone(), rows)
            })
            .collect();
        let mut number = 0;
        for seed in 0..seeds() {
            for rows in BATCH_ROWS {
                for workers in WORKERS {
                    for way in WAYS {
                        if way == Way::Straight && seed > 0 {
                            continue;
                        }
                        number += 1;
                        cells += 1;
                        let mut cell = Cell::new(case);
                        let mut second = workers;
                        if way != Way::Straight {
                            let at = place(seed, number, case.inputs[0].records.len());
                            cell.interrupt(rows, workers, at, way);
                            if way == Way::KilledAndResumed {
                                // What was counted after the last checkpoint is counted again.
                                second = WORKERS[(number as usize) % WORKERS.len()];
                            }
                        }
                        let outcome = cell.run(rows, second, &Stop::default());
                        let label = format!("{}: {rows} rows a batch, {workers} → {second} workers, {way:?}, seed {seed}", case.name);
                        match outcome {
                            Err(e) => failed.push(format!("{label}: {e}")),
                            Ok(outcome) => {
                                resumed += u64::from(outcome.restored_from.is_some());
                                let tables = cell.tables();
                                if tables != expected {
                                    failed.push(format!("{label}:\n  got      {tables:?}\n  expected {expected:?}"));
                                } else if way == Way::Straight && cell.counts != case.counts {
                                    failed.push(format!("{label}: got {:?}, expected {:?}", cell.counts, case.counts));
                                }
                            }
                        }
                        drop(cell.dir);
                    }
                }
            }
        }
        println!("{:<40} {} cells  {}", case.name, number, hash(&expected));
    }
    println!("{cells} cells ({resumed} resumed from a checkpoint), {} seeds, {:.1} s", seeds(), started.elapsed().as_secs_f64());
    assert!(cells > 0, "no case ran");
    assert!(
        failed.is_empty(),
        "{} of {cells} cells differ; the first:\n{}",
        failed.len(),
        failed.iter().take(5).cloned().collect::<Vec<_>>().join("\n")
    );
}

fn hash(tables: &[(String, Vec<String>)]) -> String {
    velosql::runtime::checkpoint::manifest::sha256(format!("{tables:?}").as_bytes())[..16].to_string()
}
