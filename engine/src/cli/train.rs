//! `CREATE MODEL` as commands run it, and `velosql train`.
//!
//! Trainings of the mode `once` run where they stand. Those of the mode `cumulative` live beside the job that writes
//! their table: [`Followers`] starts one thread each, which ends when the job has ended and the last entry is trained.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;

use super::models::number;
use super::progress::count;
use super::run::{SqlArgs, context, read_file, session, stem};
use crate::connectors::Context;
use crate::error::{Error, Result};
use crate::metrics::JobMetrics;
use crate::models::registry::Registry;
use crate::models::task::Task;
use crate::runtime::job::Stop;
use crate::sql::{Step, TrainStep, TrainingMode as Mode};
use crate::train::{self, Follower, Outcome, Phase, Progress, Told, Trained, Training};

/// Reasons that are shown of rows that were not used.
const REASONS_SHOWN: usize = 3;

/// `velosql train`
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// SQL files; only their CREATE MODEL statements are run
    #[arg(required = true)]
    pub files: Vec<String>,
    /// Goes on with models of the mode 'cumulative' as commits come, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// What changes the meaning of the files
    #[command(flatten)]
    pub sql: SqlArgs,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// Runs `velosql train`. Answers the exit status.
///
/// # Errors
/// What ended a training.
pub fn train(args: &TrainArgs) -> Result<u8> {
    let stop = Stop::default();
    super::signals::stop_on_signal(&stop)?;
    let name = stem(&args.files);
    let mut session = session(&args.sql, &name)?;
    let mut steps: Vec<Step> = Vec::new();
    for file in &args.files {
        let (file, text) = read_file(file)?;
        let of_file = session.plan_file(&file, &text)?;
        check(&of_file, &name).map_err(|e| e.with_sql(&file, &text))?;
        steps.extend(of_file);
    }
    session.check_names()?;
    let trainings: Vec<&TrainStep> = steps.iter().filter_map(|s| if let Step::Train(t) = s { Some(t.as_ref()) } else { None }).collect();
    if trainings.is_empty() {
        return Err(Error::user(format!("{} has no CREATE MODEL statement", args.files.join(", ")))
            .help("write CREATE MODEL m WITH ('task' = …, 'algorithm' = …, 'label' = …) AS SELECT …"));
    }
    let registry = Registry::new(&args.sql.models);
    let followers = if args.follow { Some(Followers::start(&steps, &name, &registry, true, &stop)?) } else { None };
    if let Some(followers) = &followers {
        followers.running();
    }
    for step in trainings {
        if stop.is_asked() {
            break;
        }
        if followers.is_none() || step.mode == Mode::Once {
            execute(step, &registry, &context(&name), &stop, !args.quiet)?;
        }
    }
    match followers {
        // With nothing to follow there is nothing to wait for.
        Some(followers) => followers.join(),
        None => Ok(()),
    }?;
    Ok(0)
}

/// Refuses what cannot be trained before anything runs.
///
/// # Errors
/// User: an option, or a query that cannot be followed, at the statement's place.
pub fn check(steps: &[Step], job: &str) -> Result<()> {
    for step in steps {
        let Step::Train(step) = step else { continue };
        match step.mode {
            Mode::Cumulative => drop(follower(step, &context(job), &Registry::new(""))?),
            Mode::Once => drop(Training::new(step)?),
        }
    }
    Ok(())
}

fn follower(step: &TrainStep, context: &Context, registry: &Registry) -> Result<Follower> {
    let context = Context { zone: step.plan.settings.zone, ..context.clone() };
    Follower::new(Training::new(step)?, step.plan.clone(), context, registry.clone()).map_err(|e| e.at(step.span))
}

/// Trains a model where its statement stands; one of the mode `cumulative` on the commits that there are.
///
/// # Errors
/// What ended the training.
pub fn execute(step: &TrainStep, registry: &Registry, context: &Context, stop: &Stop, progress: bool) -> Result<()> {
    let training = Training::new(step)?;
    let line = Line::new(&training.name, progress);
    let watch = |p: Progress<'_>| line.show(p);
    match step.mode {
        Mode::Cumulative => {
            let tell = |told: Told| {
                line.clear();
                say(&training, told);
            };
            follower(step, context, registry)?.run(&|| Phase::Ended, stop, &watch, &tell)
        }
        Mode::Once => {
            let outcome = train::once(&training, &step.plan, registry, stop, &watch);
            line.clear();
            match outcome? {
                Outcome::Version(trained) => published(&training, &trained, ""),
                Outcome::Labels { path, rows, clusters, noise } => eprintln!(
                    "model '{}': {} rows labelled in {}: {clusters} clusters, {} rows of none; dbscan leaves no model to serve",
                    training.name,
                    count(rows),
                    path.display(),
                    count(noise)
                ),
                Outcome::Stopped => eprintln!("model '{}': stopped; nothing was published", training.name),
            }
            Ok(())
        }
    }
}

/// Threads that follow the commits of tables, beside the jobs that write them.
pub struct Followers {
    threads: Vec<JoinHandle<Result<()>>>,
    jobs: Arc<Jobs>,
    stop: Stop,
}

/// What the jobs of a run are at, as followers ask it.
#[derive(Default)]
struct Jobs {
    /// The counters of the last job of the run, once it has started.
    last: Mutex<Option<Arc<JobMetrics>>>,
    /// A job elsewhere writes the table.
    elsewhere: AtomicBool,
    ended: AtomicBool,
}

impl Jobs {
    fn phase(&self) -> Phase {
        if self.ended.load(Ordering::SeqCst) {
            return Phase::Ended;
        }
        // Its first checkpoint is behind what a fresh or resumed job takes back of the table.
        let last = self.last.lock().expect("no panic while locked");
        let running = self.elsewhere.load(Ordering::SeqCst) || last.as_ref().is_some_and(|m| m.epochs.get() > 0);
        if running { Phase::Running } else { Phase::Before }
    }
}

impl Followers {
    /// One thread for each training of the mode `cumulative`. `stop` ends them before their last entry.
    ///
    /// # Errors
    /// User: a training that cannot be.
    pub fn start(steps: &[Step], job: &str, registry: &Registry, progress: bool, stop: &Stop) -> Result<Self> {
        let mut all = Self { threads: vec![], jobs: Arc::default(), stop: stop.clone() };
        for step in steps {
            let Step::Train(step) = step else { continue };
            if step.mode != Mode::Cumulative {
                continue;
            }
            let follower = follower(step, &context(job), registry)?;
            let (jobs, stop) = (all.jobs.clone(), stop.clone());
            let work = move || {
                let tell = |told: Told| {
                    if progress || matches!(told, Told::Skipped(..) | Told::NotChampion(_)) {
                        clear_line();
                        say(follower.training(), told);
                    }
                };
                follower.run(&|| jobs.phase(), &stop, &|_| (), &tell)
            };
            let thread = std::thread::Builder::new().name(format!("train-{}", step.name)).spawn(work);
            all.threads.push(thread.map_err(|e| Error::external("cannot start a thread").caused_by(e))?);
        }
        Ok(all)
    }

    /// The last job of the run starts, with these counters.
    pub fn last_job(&self, metrics: &Arc<JobMetrics>) {
        *self.jobs.last.lock().expect("no panic while locked") = Some(metrics.clone());
    }

    /// Some other process writes the tables.
    pub fn running(&self) {
        self.jobs.elsewhere.store(true, Ordering::SeqCst);
    }

    /// The jobs have ended; waits until the last entry is trained, or, where `result` is an error, the training at hand.
    ///
    /// # Errors
    /// `result`, else what ended a follower.
    pub fn end(self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            self.stop.graceful();
        }
        self.jobs.ended.store(true, Ordering::SeqCst);
        result.and(self.join())
    }

    fn join(self) -> Result<()> {
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err(Error::internal("a thread that trains panicked")));
            result = result.and(ended);
        }
        result
    }
}

fn say(training: &Training, told: Told) {
    let name = &training.name;
    match told {
        Told::Trained(entries, trained) => published(training, &trained, &format!(" of {}", entries_of(entries))),
        Told::Resumed(entries) => {
            let verb = if entries == 1 { "is" } else { "are" };
            eprintln!("model '{name}': {} {verb} trained already", entries_of(entries));
        }
        Told::StartsOver => {
            eprintln!(
                "note: model '{name}': its versions were trained on other files than the table has now; it starts over with the first entry"
            );
        }
        Told::NotChampion(version) => eprintln!(
            "note: model '{name}': version {version} is the newest but not the champion (rolled back, or interrupted when it was published); velosql models alias {name} champion {version} makes it so"
        ),
        Told::Skipped(entries, e) => eprintln!("note: no model on {}: {e}", entries_of(entries)),
    }
}

fn entries_of(entries: u64) -> String {
    if entries == 1 { "1 commit".to_string() } else { format!("{} commits", count(entries)) }
}

/// One line about a version, and one about rows that were not used.
fn published(training: &Training, trained: &Trained, of: &str) {
    let l = &trained.lineage;
    let mut rows = Vec::new();
    if l.rows_held_out > 0 {
        rows.push(format!("{} held out", count(l.rows_held_out)));
    }
    if l.rows_refused > 0 {
        rows.push(format!("{} not used", count(l.rows_refused)));
    }
    let rows = if rows.is_empty() { String::new() } else { format!(" ({})", rows.join(", ")) };
    let p = &trained.published;
    let place = match &p.verdict {
        _ if p.champion => "champion".to_string(),
        Some(verdict) => format!("not champion: {}", verdict.terms.join("; ")),
        None => "not champion".to_string(),
    };
    eprintln!(
        "model '{}' version {}: {} on {} rows{of}{rows} in {:.1} s: {}; {place}",
        training.name,
        p.version,
        training.algorithm,
        count(l.rows),
        trained.seconds,
        figures(training.task, trained)
    );
    for (reason, rows) in trained.refused.iter().take(REASONS_SHOWN) {
        eprintln!("note: {} row{} not used: {reason}", count(*rows), if *rows == 1 { "" } else { "s" });
    }
}

fn figures(task: Task, trained: &Trained) -> String {
    let wanted: &[&str] = match task {
        Task::Classification => &["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "roc_auc"],
        Task::Regression => &["mae", "rmse", "r2"],
        Task::Clustering => &["inertia", "silhouette"],
    };
    let one = |name: &&str| trained.metrics.get(*name).map(|v| format!("{name} {}", number(*v)));
    wanted.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

/// A line that renews itself on a terminal, and plain lines now and then elsewhere.
struct Line {
    name: String,
    shown: bool,
    terminal: bool,
    last: Mutex<Instant>,
}

impl Line {
    fn new(name: &str, shown: bool) -> Self {
        Self { name: name.to_string(), shown, terminal: std::io::stderr().is_terminal(), last: Mutex::new(Instant::now()) }
    }

    fn show(&self, progress: Progress<'_>) {
        let every = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(5) };
        let mut last = self.last.lock().unwrap_or_else(|e| e.into_inner());
        if !self.shown || last.elapsed() < every {
            return;
        }
        *last = Instant::now();
        let text = match progress {
            Progress::Reading(rows) => format!("{} rows read", count(rows)),
            Progress::Fitting(step) => {
                let loss = step.loss.map(|l| format!(", loss {}", number(l))).unwrap_or_default();
                format!("{} {} of {}{loss}", step.unit, step.done, step.of)
            }
            Progress::Measuring => "measuring".to_string(),
        };
        let name = &self.name;
        if self.terminal { eprint!("\r\x1b[2Kmodel '{name}': {text}") } else { eprintln!("model '{name}': {text}") }
    }

    fn clear(&self) {
        if self.shown {
            clear_line();
        }
    }
}

fn clear_line() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[2K");
    }
}
