//! Models in a job: a version that takes over does so at one place, on every worker, and a job that dies and goes on
//! predicts what one does that nobody disturbs.
//!
//! [`train`] makes models for this file and for the cases of the matrix: from a CREATE MODEL, by the layer of models
//! alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime};

use arrow::array::{AsArray, Float64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Float64Type;
use velosql::config::Options;
use velosql::connectors::Context;
use velosql::connectors::memory::Hub;
use velosql::error::{Error, ErrorKind, Result};
use velosql::models::algorithms::FitContext;
use velosql::models::chunks;
use velosql::models::features::Observer;
use velosql::models::fit::Recipe;
use velosql::models::label::LabelObserver;
use velosql::models::model::Model;
use velosql::models::registry::{Lineage, Publication, Registry, Selector};
use velosql::models::task::{Algorithm, Task};
use velosql::runtime;
use velosql::runtime::checkpoint::manifest::Manifest;
use velosql::runtime::checkpoint::store::LossyStore;
use velosql::runtime::job::{JobOptions, Outcome, Stop};
use velosql::sql::plan::StreamPlan;
use velosql::sql::{Session, SessionOptions, Step, TrainStep};

use crate::job;

/// Fits the model of a CREATE MODEL to all rows of its query, and publishes it.
pub fn train(step: &TrainStep, registry: &Path) {
    let rows = query(&step.plan);
    let mut options = Options::new(format!("model '{}'", step.name), step.options.clone());
    let task = Task::parse(&options.required("task").expect("planned")).expect("planned");
    let algorithm = Algorithm::parse(&options.required("algorithm").expect("planned"), task).expect("planned");
    let label = options.text("label");
    let recipe = Recipe::from_options(task, algorithm, &mut options).expect("options");
    let excluded: Vec<&str> = label.as_deref().into_iter().collect();
    let mut observer = Observer::new(&rows.schema(), &excluded, &mut options).expect("features");
    observer.observe(&rows).expect("observes");
    let spec = observer.freeze(algorithm.is_tree()).expect("freezes");
    let label = label.map(|name| {
        let schema = rows.schema();
        let mut observer = LabelObserver::new(schema.field_with_name(&name).expect("planned"), task, &mut options).expect("a label");
        let column = rows.column_by_name(&name).expect("planned");
        observer.observe(column).expect("observes");
        let label = observer.freeze().expect("freezes");
        let labels = label.encode(column).expect("encodes");
        (label, labels)
    });
    options.finish().expect("all known");
    let (label, y) = label.map(|(label, labels)| (Some(label), labels.y)).unwrap_or_default();
    let mut builder = chunks::Builder::new(spec.width(), label.is_some(), usize::MAX);
    builder.push(&spec.encode(&rows).expect("encodes").x, &y, &[]).expect("pushes");
    let ctx = FitContext { threads: 1, seed: 1, progress: &|_| {} };
    let state = recipe.fit(&builder.finish().expect("finishes"), label.as_ref(), &ctx).expect("fits");
    let model = Model::new(task, algorithm, spec, label, state).expect("fits together");
    let publication = Publication {
        name: &step.name,
        model: &model,
        golden: &rows,
        query: Some(step.sql.clone()),
        options: &step.options,
        lineage: Lineage::default(),
        metrics: BTreeMap::new(),
        confusion: None,
        seed: 1,
        gate: None,
        now: SystemTime::now(),
    };
    Registry::new(registry).publish(&publication).expect("publishes");
}

/// All rows of a plain SELECT.
fn query(plan: &StreamPlan) -> RecordBatch {
    let (sender, receiver) = sync_channel(16);
    let options = JobOptions { rows: Some(sender), ..job::options("query", 1, 1000) };
    let batches: Vec<RecordBatch> = std::thread::scope(|scope| {
        let job = scope.spawn(|| runtime::job::run(plan, options));
        let batches = receiver.iter().map(|b| b.rows).collect();
        job.join().expect("no panic").expect("the query ends");
        batches
    });
    concat_batches(&plan.nodes.last().expect("a sink").schema, &batches).expect("one schema")
}

/// The steps of `sql`, checkpoints every `interval`.
fn steps(sql: &str, dir: &Path, hub: &Hub, interval: &str) -> Result<Vec<Step>> {
    let context = Context { job: "models".into(), zone: chrono_tz::UTC, base: dir.to_path_buf(), memory: hub.clone() };
    let mut session = Session::new(SessionOptions {
        sets: vec![("execution.checkpointing.interval".into(), interval.into())],
        table_options: vec![],
        defines: vec![],
        models: dir.to_path_buf(),
        context,
    })?;
    session.plan_file("models.sql", sql)
}

const SCORED: &str = "CREATE TABLE t (n BIGINT, x DOUBLE) WITH ('connector' = 'memory', 'format' = 'json');
    CREATE TABLE answers (n BIGINT, p DOUBLE) WITH ('connector' = 'memory');
    INSERT INTO answers SELECT n, prediction FROM ML_PREDICT(TABLE t, MODEL m, DESCRIPTOR(x));";
const ROWS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(20);

/// A registry, and rows over two splits that arrive in one order.
struct Bench {
    dir: tempfile::TempDir,
    hub: Hub,
    store: Arc<LossyStore>,
}

impl Bench {
    /// With version 1, which answers x + 1.
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().expect("a folder"), hub: Hub::default(), store: Arc::default() };
        let record = |n: usize| (n * 7 % 3 % 2, format!("{{\"n\": {n}, \"x\": {}}}", n as f64 / 8.0));
        bench.hub.put_arrivals("t", 2, (0..ROWS).map(record).collect());
        bench.publish("x + 1e0");
        bench
    }

    /// A version that answers `formula`, over x and the further feature `z` where it names one.
    fn publish(&self, formula: &str) {
        let columns = if formula.contains('z') { "x, z" } else { "x" };
        let sql = format!(
            "CREATE MODEL m WITH ('task' = 'regression', 'algorithm' = 'linear', 'label' = 'y') AS
             SELECT {columns}, {formula} AS y FROM (VALUES (0e0, 3e0), (1e0, 1e0), (2e0, 2e0), (7e0, 1e0)) AS v(x, z)"
        );
        for step in steps(&sql, self.dir.path(), &self.hub, "1 h").unwrap_or_else(|e| panic!("{e}")) {
            let Step::Train(step) = step else { panic!("one model") };
            train(&step, self.dir.path());
        }
    }

    fn run(&self, interval: &str, workers: usize, stop: &Stop) -> Result<Outcome> {
        let steps = steps(SCORED, self.dir.path(), &self.hub, interval)?;
        let options = JobOptions {
            store: Some(self.store.clone()),
            models: self.dir.path().to_path_buf(),
            stop: stop.clone(),
            ..job::options("models", workers, 7)
        };
        runtime::job::run(&job::the_job(steps), options)
    }

    /// Runs while another thread acts.
    fn run_while(&self, interval: &str, workers: usize, stop: &Stop, act: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let acting = scope.spawn(act);
            let outcome = self.run(interval, workers, stop);
            acting.join().expect("the actor");
            outcome.unwrap_or_else(|e| panic!("{e}"));
        });
    }

    fn manifest(&self) -> Manifest {
        Manifest::latest(self.store.as_ref(), None).expect("it is whole").expect("there is one")
    }

    /// What came out: the prediction of each row, by n.
    fn answers(&self) -> Vec<f64> {
        let mut answers = BTreeMap::new();
        for (_, cells) in self.hub.committed("answers") {
            let (n, p): (usize, f64) = (cells[0].parse().expect("n"), cells[1].parse().expect("p"));
            assert_eq!(answers.insert(n, p), None, "row {n} came twice");
        }
        assert_eq!(answers.len(), ROWS, "rows came out");
        answers.into_values().collect()
    }

    /// What version `of(n)` says to row n.
    fn expected(&self, of: impl Fn(usize) -> u64) -> Vec<f64> {
        let x = Float64Array::from_iter_values((0..ROWS).map(|n| n as f64 / 8.0));
        let rows = RecordBatch::try_from_iter([("x", Arc::new(x) as _)]).expect("one column");
        let scored = |version| {
            let served = Registry::new(self.dir.path()).load("m", &Selector::Version(version)).expect("published");
            served.model.score(&rows).expect("scores").columns.column(0).as_primitive::<Float64Type>().clone()
        };
        let mut versions = BTreeMap::new();
        (0..ROWS).map(|n| versions.entry(of(n)).or_insert_with(|| scored(of(n))).value(n)).collect()
    }

    /// A run in which version 2 takes over behind `swap_at` rows; where `kill_at` says so, it dies behind that many and
    /// goes on with `second` workers.
    fn swapped(&self, swap_at: usize, kill_at: Option<usize>, (first, second): (usize, usize)) {
        let stop = Stop::default();
        self.hub.pause_after("t", swap_at);
        self.run_while("2 ms", first, &stop, || {
            assert!(self.hub.wait_fetched("t", swap_at, PATIENCE));
            self.publish("100e0 * x");
            let since = std::time::Instant::now();
            while Manifest::latest(self.store.as_ref(), None).ok().flatten().is_none_or(|m| m.swaps.is_empty()) {
                assert!(since.elapsed() < PATIENCE, "version 2 never takes over");
                std::thread::sleep(Duration::from_millis(1));
            }
            match kill_at {
                None => self.hub.resume("t"),
                Some(kill_at) => {
                    self.hub.pause_after("t", kill_at);
                    assert!(self.hub.wait_fetched("t", kill_at, PATIENCE));
                    std::thread::sleep(Duration::from_millis(3));
                    stop.kill();
                    self.hub.resume("t");
                }
            }
        });
        if kill_at.is_some() {
            self.store.lose_power();
            self.run("2 ms", second, &Stop::default()).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn a_version_that_takes_over_does_so_at_one_place_however_often_the_job_dies() {
    let undisturbed = Bench::new();
    undisturbed.swapped(90, None, (2, 2));
    let expected = undisturbed.expected(|n| if n < 90 { 1 } else { 2 });
    assert_eq!(undisturbed.answers(), expected);
    assert!((expected[88] - 12.0).abs() < 1e-9 && (expected[96] - 1200.0).abs() < 1e-9, "the versions differ: {expected:?}");
    for (kill_at, workers) in [(90, (1, 3)), (97, (3, 2)), (150, (2, 1)), (199, (4, 4))] {
        let killed = Bench::new();
        killed.swapped(90, Some(kill_at), workers);
        assert_eq!(killed.answers(), expected, "killed behind {kill_at} rows, {workers:?} workers");
        let manifest = killed.manifest();
        let [swap] = &manifest.swaps[..] else { panic!("one swap: {:?}", manifest.swaps) };
        assert_eq!((swap.model.as_str(), swap.from, swap.to), ("m", 1, 2));
        let at: i64 = swap.sources.iter().flat_map(|s| &s.splits).map(|(split, _)| split.position.offset).sum();
        assert_eq!(at, 90, "the manifest says where");
        assert_eq!(manifest.models.iter().map(|m| m.version).collect::<Vec<_>>(), [2]);
    }
}

/// A job with version 1, stopped behind `at` rows.
fn stopped(at: usize) -> Bench {
    let bench = Bench::new();
    let stop = Stop::default();
    bench.hub.pause_after("t", at);
    bench.run_while("1 h", 2, &stop, || {
        assert!(bench.hub.wait_fetched("t", at, PATIENCE));
        stop.graceful();
    });
    bench.hub.resume("t");
    bench
}

#[test]
fn a_restart_takes_the_pinned_version_not_the_newest() {
    let bench = stopped(50);
    bench.publish("100e0 * x");
    bench.run("1 h", 3, &Stop::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(bench.answers(), bench.expected(|_| 1), "no barrier came by");
    assert!(bench.manifest().swaps.is_empty());
}

#[test]
fn a_pinned_version_that_has_gone_is_said_and_nothing_is_guessed() {
    let bench = stopped(50);
    bench.publish("100e0 * x");
    std::fs::remove_dir_all(bench.dir.path().join("m/1")).expect("version 1 goes");
    let e: Error = bench.run("1 h", 1, &Stop::default()).expect_err("version 1 is pinned");
    assert_eq!(e.kind(), ErrorKind::State, "{e}");
    let text = e.to_string().replace(&bench.dir.path().display().to_string(), "<models>");
    assert!(text.starts_with("the job goes on with version 1 of model 'm', as its checkpoint says: model 'm' has no version 1"), "{text}");
    assert!(text.contains("put that version back into '<models>'"), "{text}");
}

#[test]
fn a_version_that_does_not_fit_never_takes_over() {
    let bench = Bench::new();
    bench.hub.pause_after("t", 60);
    bench.run_while("2 ms", 2, &Stop::default(), || {
        assert!(bench.hub.wait_fetched("t", 60, PATIENCE));
        // It wants z, which the query does not give.
        bench.publish("x + z");
        let epoch = bench.hub.epochs("answers").last().map_or(0, |e| e.0);
        let since = std::time::Instant::now();
        while Manifest::latest(bench.store.as_ref(), None).ok().flatten().is_none_or(|m| m.epoch.0 < epoch + 3) {
            assert!(since.elapsed() < PATIENCE, "barriers go on");
            std::thread::sleep(Duration::from_millis(1));
        }
        bench.hub.resume("t");
    });
    assert_eq!(bench.answers(), bench.expected(|_| 1));
    assert!(bench.manifest().swaps.is_empty());
}
