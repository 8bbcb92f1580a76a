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
//! killed. Each case prints one hash; a cell that differs prints itself and the rows that differ.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use velosql::connectors::Context;
use velosql::connectors::memory::Hub;
use velosql::runtime;
use velosql::runtime::checkpoint::store::LossyStore;
use velosql::runtime::job::{JobOptions, Outcome, Stop};
use velosql::sql::plan::StreamPlan;
use velosql::sql::{Session, SessionOptions, Step};

use crate::case::{Case, Counts, Expected, Folder, lines_of, materialise, shown};
use crate::job;

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
        let options = JobOptions {
            sql: self.case.sql.clone(),
            store: Some(self.store.clone()),
            models: self.dir.path().join("models"),
            stop: stop.clone(),
            ..job::options("case", workers, rows)
        };
        let metrics = options.metrics.clone();
        let outcome = runtime::job::run(&self.plan, options);
        self.counts.late += metrics.late.get();
        self.counts.late_after_idle += metrics.late_after_idle.get();
        self.counts.rejected += metrics.rejected();
        self.counts.unscored += metrics.unscored.get();
        outcome
    }

    /// Runs until `records` of the first input have been fetched, then ends the run in that way.
    fn interrupt(&mut self, rows: usize, workers: usize, records: usize, way: Way) -> velosql::error::Result<()> {
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
        let outcome = self.run(rows, workers, &stop);
        stopper.join().expect("the stopper");
        if way == Way::KilledAndResumed {
            self.store.lose_power();
        }
        outcome.map(|_| ())
    }

    /// What came out, by table and folder, in the form of [`expected`].
    fn tables(&self) -> Vec<(String, Vec<String>)> {
        let table = |(name, expected): (&String, &Expected)| {
            let changes = self.hub.committed(name);
            let rows = if expected.in_order { changes.iter().map(|(_, cells)| shown(cells)).collect() } else { materialise(&changes) };
            (name.clone(), rows)
        };
        let folder = |(name, folder): (&String, &Folder)| {
            let mut rows = lines_of(&self.dir.path().join(name), &folder.fields);
            if !folder.expected.in_order {
                rows.sort();
            }
            (name.clone(), rows)
        };
        self.case.expected.iter().map(table).chain(self.case.folders.iter().map(folder)).collect()
    }
}

/// What must come out, by table and folder.
fn expected(case: &Case) -> Vec<(String, Vec<String>)> {
    let sorted = |e: &Expected| {
        let mut rows = e.rows.clone();
        if !e.in_order {
            rows.sort();
        }
        rows
    };
    let tables = case.expected.iter().map(|(name, e)| (name.clone(), sorted(e)));
    tables.chain(case.folders.iter().map(|(name, f)| (name.clone(), sorted(&f.expected)))).collect()
}

fn plan(case: &Case, dir: &std::path::Path, hub: &Hub) -> StreamPlan {
    let context = Context { job: "case".into(), zone: chrono_tz::UTC, base: dir.to_path_buf(), memory: hub.clone() };
    let mut session = Session::new(SessionOptions {
        sets: vec![("execution.checkpointing.interval".into(), "2 ms".into())],
        table_options: Vec::new(),
        defines: vec![("DIR".into(), dir.display().to_string())],
        models: dir.join("models"),
        context,
    })
    .expect("a session");
    let steps = session.plan_file(&case.name, &case.sql).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    // Models are trained where they stand; a case has one job behind them.
    let mut jobs = Vec::new();
    for step in steps {
        match step {
            Step::Train(step) => crate::models::train(&step, &dir.join("models")),
            Step::Job(plan) => jobs.push(plan),
            _ => {}
        }
    }
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

/// Cases run at a time: a cell mostly waits.
const CASES_AT_A_TIME: usize = 4;

/// What running some cells came to.
#[derive(Default)]
struct Tally {
    cells: u64,
    resumed: u64,
    failed: Vec<String>,
}

#[test]
fn every_cell_gives_the_same_table() {
    let only = std::env::var("VELOSQL_CASE").ok();
    let started = Instant::now();
    let mut cases = Case::all();
    cases.retain(|c| only.as_ref().is_none_or(|o| c.name.contains(o.as_str())));
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..CASES_AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let of_case = catch_unwind(AssertUnwindSafe(|| run_case(case)))
                        .unwrap_or_else(|_| Tally { failed: vec![format!("{}: panicked", case.name)], ..Tally::default() });
                    let mut all = tally.lock().expect("no panic while locked");
                    all.cells += of_case.cells;
                    all.resumed += of_case.resumed;
                    all.failed.extend(of_case.failed);
                }
            });
        }
    });
    let Tally { cells, resumed, failed } = tally.into_inner().expect("no panic while locked");
    let (count, seconds) = (cases.len(), started.elapsed().as_secs_f64());
    println!("{count} cases, {cells} cells ({resumed} resumed from a checkpoint), {} seeds, {seconds:.1} s", seeds());
    assert!(cells > 0, "no case ran");
    let first: Vec<String> = failed.iter().take(5).map(|f| f.chars().take(4000).collect()).collect();
    assert!(failed.is_empty(), "{} of {cells} cells differ; the first:\n{}", failed.len(), first.join("\n"));
}

/// Every cell of a case; prints one line.
fn run_case(case: &Case) -> Tally {
    let expected = expected(case);
    let started = Instant::now();
    let mut tally = Tally::default();
    for seed in 0..seeds() {
        for rows in BATCH_ROWS {
            for workers in WORKERS {
                for way in WAYS {
                    // Nothing of a straight run depends on the seed.
                    if way == Way::Straight && seed > 0 {
                        continue;
                    }
                    tally.cells += 1;
                    let number = tally.cells;
                    // A killed job goes on at another worker count.
                    let second = if way == Way::KilledAndResumed { WORKERS[(number / 3) as usize % WORKERS.len()] } else { workers };
                    let label = format!("{}: {rows} rows a batch, {workers} → {second} workers, {way:?}, seed {seed}", case.name);
                    match run_cell(case, rows, (workers, second), way, place(seed, number, case.inputs[0].records.len())) {
                        Err(e) => {
                            tally.failed.push(format!("{label}: {e}{}", e.help_text().map(|h| format!(" ({h})")).unwrap_or_default()))
                        }
                        Ok((tables, counts, restored)) => {
                            tally.resumed += u64::from(restored);
                            // What a killed run counted behind its last checkpoint is counted again.
                            if tables != expected {
                                tally.failed.push(format!("{label}:\n  {}", difference(&tables, &expected)));
                            } else if way != Way::KilledAndResumed && counts != case.counts {
                                tally.failed.push(format!("{label}: got {counts:?}, expected {:?}", case.counts));
                            }
                        }
                    }
                }
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let verdict = if tally.failed.is_empty() { hash(&expected) } else { format!("{} cells DIFFER", tally.failed.len()) };
    println!("{:<32} {:>4} cells {seconds:>6.1} s  {verdict}", case.name, tally.cells);
    tally
}

/// Rows by table.
type Tables = Vec<(String, Vec<String>)>;

/// One cell: its tables, its counts, and whether it went on from a checkpoint.
fn run_cell(
    case: &Case,
    rows: usize,
    (first, second): (usize, usize),
    way: Way,
    at: usize,
) -> velosql::error::Result<(Tables, Counts, bool)> {
    let mut cell = Cell::new(case);
    if way != Way::Straight {
        cell.interrupt(rows, first, at, way)?;
    }
    let outcome = cell.run(rows, second, &Stop::default())?;
    Ok((cell.tables(), cell.counts, outcome.restored_from.is_some()))
}

/// The rows that are only on one side, by table.
fn difference(got: &[(String, Vec<String>)], expected: &[(String, Vec<String>)]) -> String {
    let beyond = |a: &[String], b: &[String]| {
        let mut rest = b.to_vec();
        let missing = |row: &&String| rest.iter().position(|r| r == *row).map(|i| rest.swap_remove(i)).is_none();
        a.iter().filter(missing).cloned().collect::<Vec<_>>()
    };
    let lines = got.iter().zip(expected).filter(|(g, e)| g.1 != e.1).map(|(g, e)| {
        let (more, less) = (beyond(&g.1, &e.1), beyond(&e.1, &g.1));
        format!("{}: {} rows for {}; too many {more:?}, missing {less:?}", g.0, g.1.len(), e.1.len())
    });
    lines.collect::<Vec<_>>().join("\n  ")
}

fn hash(tables: &[(String, Vec<String>)]) -> String {
    velosql::runtime::checkpoint::manifest::sha256(format!("{tables:?}").as_bytes())[..16].to_string()
}
