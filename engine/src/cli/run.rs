//! `velosql run`, `check` and `explain`: from files on the command line to steps.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::execute::{ExecuteOptions, Ran, execute, print, run_with};
use super::output::Form;
use super::train::{self, Followers};
use super::usage;
use crate::config::parse_duration;
use crate::connectors::{Context, memory};
use crate::error::{Error, Result};
use crate::metrics::JobMetrics;
use crate::models::registry::Registry;
use crate::runtime::job::{EndedBy, Stop};
use crate::sql::{Session, SessionOptions, Step, TrainingMode, explain};
use crate::stream::Epoch;

/// What changes the meaning of a file; shared by run, check, explain and bench.
#[derive(Debug, Clone, Default, Args)]
pub struct SqlArgs {
    /// A setting that beats SET in the file
    #[arg(long = "set", value_name = "K=V")]
    pub sets: Vec<String>,
    /// A WITH option that overrides the file's; T is a table or *
    #[arg(long = "option", value_name = "T.K=V")]
    pub options: Vec<String>,
    /// Fills ${K} in the files
    #[arg(long = "define", value_name = "K=V")]
    pub defines: Vec<String>,
    /// The registry of models
    #[arg(long, value_name = "DIR", default_value = "models")]
    pub models: PathBuf,
}

/// `velosql run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// SQL files, run in order in one session; - is standard input
    #[arg(required = true)]
    pub files: Vec<String>,
    /// Name of the job (else pipeline.name, else the last file's stem)
    #[arg(long)]
    pub job: Option<String>,
    /// State directory (else .velosql/NAME)
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Removes the job's committed files and state, then starts over
    #[arg(long, conflicts_with = "from")]
    pub fresh: bool,
    /// Resumes from this epoch rather than the newest
    #[arg(long, value_name = "EPOCH")]
    pub from: Option<u64>,
    /// Takes static tables as they are now
    #[arg(long)]
    pub refresh_static: bool,
    /// Worker threads (else parallelism.default, else the cores)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub workers: Option<u16>,
    /// What changes the meaning of the files
    #[command(flatten)]
    pub sql: SqlArgs,
    /// Form of a SELECT's rows (else a table on a terminal, changelog elsewhere)
    #[arg(long, value_enum)]
    pub output: Option<Form>,
    /// Stops with a checkpoint after this time, such as 10s or 5min
    #[arg(long = "for", value_name = "DURATION")]
    pub duration: Option<String>,
    /// Ends where the topics end now
    #[arg(long)]
    pub stop_at_latest: bool,
    /// Writes what the run came to as JSON
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// `velosql check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// SQL files
    #[arg(required = true)]
    pub files: Vec<String>,
    /// Names each place that Flink 2.3 would refuse (exit status 1)
    #[arg(long)]
    pub portable: bool,
    /// What changes the meaning of the files
    #[command(flatten)]
    pub sql: SqlArgs,
}

/// `velosql explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// SQL files
    #[arg(required = true)]
    pub files: Vec<String>,
    /// What changes the meaning of the files
    #[command(flatten)]
    pub sql: SqlArgs,
}

/// A session for one run of the process.
///
/// # Errors
/// User: an option that is not of the form K=V.
pub fn session(sql: &SqlArgs, job: &str) -> Result<Session> {
    let pair = |what: &str, text: &String| -> Result<(String, String)> {
        let (k, v) = text.split_once('=').ok_or_else(|| {
            Error::user(format!("--{what} {text}: expected {}", if what == "option" { "TABLE.KEY=VALUE" } else { "KEY=VALUE" }))
        })?;
        Ok((k.trim().to_string(), v.to_string()))
    };
    let table_option = |text: &String| -> Result<(String, String, String)> {
        let (path, value) = pair("option", text)?;
        let (table, key) =
            path.split_once('.').ok_or_else(|| Error::user(format!("--option {text}: expected TABLE.KEY=VALUE (* for all tables)")))?;
        Ok((table.to_string(), key.to_string(), value))
    };
    Session::new(SessionOptions {
        sets: sql.sets.iter().map(|s| pair("set", s)).collect::<Result<_>>()?,
        table_options: sql.options.iter().map(table_option).collect::<Result<_>>()?,
        defines: sql.defines.iter().map(|s| pair("define", s)).collect::<Result<_>>()?,
        models: sql.models.clone(),
        context: context(job),
    })
}

/// What connectors need of this process.
pub fn context(job: &str) -> Context {
    Context { job: job.to_string(), zone: chrono_tz::UTC, base: PathBuf::from("."), memory: memory::Hub::default() }
}

/// Reads a SQL file; `-` is standard input.
///
/// # Errors
/// User: it cannot be read.
pub fn read_file(file: &str) -> Result<(String, String)> {
    if file == "-" {
        return Ok((
            "<stdin>".into(),
            std::io::read_to_string(std::io::stdin()).map_err(|e| Error::user("cannot read standard input").caused_by(e))?,
        ));
    }
    let text = std::fs::read_to_string(file).map_err(|e| {
        Error::user(format!("cannot read the SQL file {file}"))
            .caused_by(e)
            .help("give the path of a text file in UTF-8, or - for standard input")
    })?;
    Ok((file.to_string(), text))
}

/// The stem of the last file: the job's name where nobody says.
pub fn stem(files: &[String]) -> String {
    let last = files.last().map_or("job", String::as_str);
    Path::new(last).file_stem().and_then(|s| s.to_str()).filter(|s| *s != "-").unwrap_or("job").to_string()
}

/// Runs files. Answers the exit status.
///
/// # Errors
/// What ended the run.
pub fn run(mut args: RunArgs) -> Result<u8> {
    let name = args.job.clone().unwrap_or_else(|| stem(&args.files));
    if args.stop_at_latest {
        args.sql.options.push("*.scan.bounded.mode=latest-offset".into());
    }
    let duration = args.duration.as_deref().map(parse_time).transpose()?;
    let stop = Stop::default();
    super::signals::stop_on_signal(&stop)?;
    let mut session = session(&args.sql, &name)?;
    let mut texts = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    for file in &args.files {
        let (file, text) = read_file(file)?;
        let of_file = session.plan_file(&file, &text)?;
        train::check(&of_file, &name).map_err(|e| e.with_sql(&file, &text))?;
        steps.extend(of_file);
        texts.push(text);
    }
    session.check_names()?;
    if steps.is_empty() {
        eprintln!("note: nothing to run: {} defines tables at most; add an INSERT INTO or a SELECT", args.files.join(", "));
    }
    let options = ExecuteOptions {
        name,
        forced_name: args.job.clone(),
        state_dir: args.state.clone(),
        sql: crate::sql::masked(&texts.join("\n")),
        fresh: args.fresh,
        from: args.from.map(Epoch),
        refresh_static: args.refresh_static,
        models: args.sql.models.clone(),
        workers: args.workers.map(usize::from),
        duration,
        form: args.output.unwrap_or_else(Form::default_for_stdout),
        progress: !args.quiet,
        stop: stop.clone(),
    };
    let jobs = steps.iter().filter(|s| matches!(s, Step::Job(_))).count();
    // A first Ctrl-C ends the job; what it has committed by then is still trained on.
    let followers = Followers::start(&steps, &options.name, &Registry::new(&args.sql.models), !args.quiet, &Stop::default())?;
    let mut started = 0;
    let mut ran = Vec::new();
    let mut result = Ok(());
    for step in &steps {
        let mut options = options.clone();
        if matches!(step, Step::Job(_)) && jobs > 1 && !ran.is_empty() {
            // A file with SELECTs between its INSERTs has several jobs: each has a state of its own.
            options.name = format!("{}-{}", options.name, ran.len() + 1);
            options.state_dir = options.state_dir.map(|d| d.join((ran.len() + 1).to_string()));
        }
        let done = match step {
            Step::Job(plan) => {
                started += 1;
                let metrics = Arc::new(JobMetrics::default());
                if started == jobs {
                    followers.last_job(&metrics);
                }
                run_with(plan, &options, false, metrics).map(Some)
            }
            // Trained by a follower.
            Step::Train(train) if train.mode == TrainingMode::Cumulative => continue,
            step => execute(step, &options),
        };
        match done {
            Ok(one) => ran.extend(one),
            Err(e) => {
                result = Err(e);
                break;
            }
        }
    }
    let result = followers.end(result);
    if let Some(path) = &args.summary {
        write_summary(path, &ran, &result, args.stop_at_latest)?;
    }
    result.map(|()| 0)
}

fn parse_time(text: &str) -> Result<Duration> {
    parse_duration(text).ok_or_else(|| Error::user(format!("--for {text}: expected a duration such as 10s or 5min")))
}

fn write_summary(path: &Path, ran: &[Ran], result: &Result<()>, at_latest: bool) -> Result<()> {
    let mut sources = serde_json::Map::new();
    let mut sinks = serde_json::Map::new();
    let (mut late, mut late_after_idle, mut rejected, mut unscored, mut epochs) = (0, 0, 0, 0, 0);
    for one in ran {
        for (table, source) in one.metrics.sources.lock().expect("no panic while locked").iter() {
            sources.insert(table.clone(), json!(*source.records.lock().expect("no panic while locked")));
        }
        for (table, rows) in one.metrics.sinks.lock().expect("no panic while locked").iter() {
            sinks.insert(table.clone(), json!(rows.get()));
        }
        late += one.metrics.late.get();
        late_after_idle += one.metrics.late_after_idle.get();
        rejected += one.metrics.rejected();
        unscored += one.metrics.unscored.get();
        epochs += one.metrics.epochs.get();
    }
    let ended_by = match (result, ran.last().map(|r| r.outcome.ended_by)) {
        (Err(_), _) => "error",
        (_, Some(EndedBy::Signal)) => "signal",
        (_, Some(EndedBy::For)) => "for",
        (_, Some(EndedBy::End)) if at_latest => "latest",
        _ => "end",
    };
    let restored = ran.last().and_then(|r| r.outcome.restored_from).map(|e| e.0);
    let summary = json!({
        "sources": sources, "sinks": sinks, "late": late, "late_after_idle": late_after_idle, "rejected": rejected,
        "unscored": unscored, "epochs": epochs,
        "restored_from": restored, "ended_by": ended_by, "cpu_s": usage::cpu_seconds(), "peak_rss_bytes": usage::peak_rss_bytes(),
    });
    std::fs::write(path, format!("{summary:#}\n")).map_err(|e| {
        Error::external(format!("cannot write the summary {}", path.display()))
            .caused_by(e)
            .help("give --summary a file in a folder that exists")
    })
}

/// Checks files. 0: fine; 1: Flink would refuse a place; 2 (an error): refused here.
///
/// # Errors
/// User: the file is refused.
pub fn check(args: &CheckArgs) -> Result<u8> {
    let mut session = session(&args.sql, &stem(&args.files))?;
    let mut found = 0;
    for file in &args.files {
        let (file, text) = read_file(file)?;
        let steps = session.plan_file(&file, &text)?;
        train::check(&steps, &stem(&args.files)).map_err(|e| e.with_sql(&file, &text))?;
        if args.portable {
            for finding in session.portable_findings() {
                found += 1;
                print(&format!("{file}:{}:{}: {}", finding.span.line, finding.span.column, finding.what));
                print(&format!("  portable: {}", finding.portable));
            }
        }
        let jobs = steps.iter().filter(|s| matches!(s, Step::Job(_) | Step::Select(_))).count();
        eprintln!("{file}: fine ({jobs} job{})", if jobs == 1 { "" } else { "s" });
    }
    session.check_names()?;
    Ok(u8::from(found > 0))
}

/// Prints the plan of each job.
///
/// # Errors
/// User: the file is refused.
pub fn explain_files(args: &ExplainArgs) -> Result<u8> {
    let mut session = session(&args.sql, &stem(&args.files))?;
    for file in &args.files {
        let (file, text) = read_file(file)?;
        for step in session.plan_file(&file, &text)? {
            match step {
                Step::Job(plan) | Step::Select(plan) => print(&explain(&plan)),
                Step::Train(train) => print(&format!("Train({})\n{}", train.name, explain(&train.plan))),
                Step::Text(text) => print(&text),
                Step::Show { .. } => {}
            }
        }
    }
    Ok(0)
}
