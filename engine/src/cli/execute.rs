//! Executes the steps of a SQL file: what is to be shown is printed, jobs are run.
//!
//! stdout holds rows only; progress and messages go to stderr. The first Ctrl-C stops a job with a
//! checkpoint, the second ends the process.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::output::{Form, Printer};
use super::progress::Progress;
use super::run::context;
use super::table::{TextTable, terminal_width};
use crate::connectors::{self, BatchLimits};
use crate::error::{Error, Result};
use crate::metrics::JobMetrics;
use crate::models::registry::Registry;
use crate::runtime::job::{self, EndedBy, JobOptions, Outcome, Stop};
use crate::sql::Step;
use crate::sql::plan::{Op, SinkOp, StreamPlan};
use crate::stream::Epoch;

/// How to run jobs.
#[derive(Clone)]
pub struct ExecuteOptions {
    /// Name of the job, where `pipeline.name` does not say.
    pub name: String,
    /// `--job`: beats `pipeline.name`.
    pub forced_name: Option<String>,
    /// State directory, where it is not `.velosql/NAME`.
    pub state_dir: Option<PathBuf>,
    /// SQL text for the manifest.
    pub sql: String,
    /// `--fresh`
    pub fresh: bool,
    /// `--from`
    pub from: Option<Epoch>,
    /// `--refresh-static`
    pub refresh_static: bool,
    /// `--models`: the registry.
    pub models: PathBuf,
    /// `--workers`: beats `parallelism.default`.
    pub workers: Option<usize>,
    /// `--for`
    pub duration: Option<Duration>,
    /// Form of the rows of a plain SELECT.
    pub form: Form,
    /// Show progress on stderr.
    pub progress: bool,
    /// The caller's handle.
    pub stop: Stop,
}

/// What a run of one job came to.
#[derive(Clone)]
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// Its counters.
    pub metrics: Arc<JobMetrics>,
}

/// Prints or runs one step.
///
/// # Errors
/// Those of the job.
pub fn execute(step: &Step, options: &ExecuteOptions) -> Result<Option<Ran>> {
    match step {
        Step::Show { columns, rows } => {
            let mut table = TextTable::new(columns.iter().map(|c| (c.as_str(), false)));
            rows.iter().for_each(|row| table.push(row));
            print(&table.draw(terminal_width()));
            Ok(None)
        }
        Step::Text(text) => {
            print(text);
            Ok(None)
        }
        Step::Job(plan) => run_job(plan, options, false).map(Some),
        Step::Select(plan) => run_job(plan, options, true).map(Some),
        Step::Train(step) => {
            let registry = Registry::new(&options.models);
            super::train::execute(step, &registry, &context(&options.name), &options.stop, options.progress)?;
            Ok(None)
        }
    }
}

/// Prints to stdout; a reader that has gone is no error.
pub fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
    let _ = out.flush();
}

fn run_job(plan: &StreamPlan, options: &ExecuteOptions, select: bool) -> Result<Ran> {
    let metrics = Arc::new(JobMetrics::default());
    run_with(plan, options, select, metrics)
}

/// Runs a job whose counters the caller holds.
///
/// # Errors
/// Those of the job.
pub fn run_with(plan: &StreamPlan, options: &ExecuteOptions, select: bool, metrics: Arc<JobMetrics>) -> Result<Ran> {
    let name = options.forced_name.clone().or_else(|| plan.settings.name.clone()).unwrap_or_else(|| options.name.clone());
    let workers = options.workers.or(plan.settings.workers).unwrap_or_else(cores).max(1);
    let state_dir = options.state_dir.clone().unwrap_or_else(|| PathBuf::from(".velosql").join(&name));
    for node in &plan.nodes {
        let notes = match &node.op {
            Op::Source(source) => connectors::notes(&source.table, false)?,
            Op::Sink(SinkOp { table: Some((table, _)), .. }) => connectors::notes(table, true)?,
            _ => Vec::new(),
        };
        notes.iter().for_each(|n| eprintln!("note: {n}"));
    }
    let bounded = plan.nodes.iter().all(|n| if let Op::Source(s) = &n.op { s.source.is_bounded() } else { true });
    let (rows, printer) = if select {
        let (sender, receiver) = sync_channel(16);
        let schema = plan.nodes.last().map(|n| n.schema.clone()).ok_or_else(|| Error::internal("an empty plan"))?;
        let form = if options.form == Form::Table && !bounded { Form::Changelog } else { options.form };
        let printer = Printer::new(form, schema, plan.settings.zone)?;
        let stop = options.stop.clone();
        (Some(sender), Some(std::thread::spawn(move || printer.run(&receiver, &stop))))
    } else {
        (None, None)
    };
    let progress = options.progress.then(|| Progress::start(&name, metrics.clone()));
    let result = job::run(
        plan,
        JobOptions {
            name: name.clone(),
            sql: options.sql.clone(),
            workers,
            state_dir: Some(state_dir.clone()),
            store: None,
            fresh: options.fresh,
            from: options.from,
            refresh_static: options.refresh_static,
            models: options.models.clone(),
            limits: limits(plan)?,
            stop: options.stop.clone(),
            duration: options.duration,
            rows,
            metrics: metrics.clone(),
            notice: Arc::new(|text| eprintln!("note: {text}")),
        },
    );
    if let Some(progress) = progress {
        progress.end(result.as_ref().ok());
    }
    if let Some(printer) = printer {
        printer.join().map_err(|_| Error::internal("the printer panicked"))??;
    }
    let outcome = result?;
    if outcome.ended_by == EndedBy::AlreadyFinished {
        eprintln!("job '{name}' has finished already (state in {}): nothing to do; --fresh starts it over", state_dir.display());
    }
    Ok(Ran { outcome, metrics })
}

/// Worker threads where nobody says otherwise.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Batch limits from `velosql.batch-*` settings.
fn limits(plan: &StreamPlan) -> Result<BatchLimits> {
    let mut options = crate::config::Options::new("the job", plan.settings.all.clone());
    Ok(BatchLimits {
        rows: options.number("velosql.batch-rows")?.unwrap_or(8192).max(1),
        bytes: options.bytes("velosql.batch-bytes")?.unwrap_or(4 << 20) as usize,
        latency: options.duration("velosql.batch-latency")?.unwrap_or(Duration::from_millis(5)),
    })
}
