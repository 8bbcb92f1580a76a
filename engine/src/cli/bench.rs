//! `velosql bench`: how fast a SQL file's job is, beside what its topics allow at all.
//!
//! Each run measures the job over the file's Kafka topics, from their start to where they end now, then the
//! limits in the same process: a bare loop that consumes the same records, and one that also decodes the
//! fields which the job reads. A claim is a ratio of rows per CPU second from one run: machines, brokers and
//! the weather cancel out. What must always hold: no state is kept, and sinks are real only where asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::execute::{ExecuteOptions, cores, print, run_with};
use super::output::Form;
use super::progress::count;
use super::run::{SqlArgs, read_file, session, stem};
use super::table::{TextTable, terminal_width};
use super::usage;
use crate::connectors::kafka::limit::{self, Limit};
use crate::connectors::{self, Context, TableSpec, memory};
use crate::error::{Error, Result};
use crate::metrics::JobMetrics;
use crate::runtime::job::{EndedBy, Stop};
use crate::sql::plan::{Op, StreamPlan};
use crate::sql::{Step, masked};

/// CPU time is counted in hundredths of a second: below this, figures are mostly rounding and start-up.
const STEADY_CPU_S: f64 = 1.0;

/// `velosql bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// SQL file with one job that reads Kafka
    pub file: String,
    /// What changes the meaning of the file.
    #[command(flatten)]
    pub sql: SqlArgs,
    /// Writes to the file's sinks; else to blackholes
    #[arg(long)]
    pub keep_sinks: bool,
    /// Worker threads (else parallelism.default, else the cores)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub workers: Option<u16>,
    /// Measures this often, and shows the median run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub runs: u16,
    /// Writes the figures of all runs as JSON; - is standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,
}

/// A Kafka table of the plan and the columns that it reads.
struct Topic {
    spec: Arc<TableSpec>,
    columns: BTreeSet<usize>,
}

/// The figures of one thing measured.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    records: u64,
    bytes: u64,
    /// Records that are no JSON object, of consume + decode.
    undecodable: u64,
    wall_s: f64,
    cpu_s: f64,
}

/// One run: the job and its limits.
struct Run {
    job: Figures,
    peak_rss_bytes: u64,
    rows_out: u64,
    late: u64,
    rejected: u64,
    consume: Figures,
    /// `None` where a topic is not JSON.
    decode: Option<Figures>,
}

/// Measures a file. Answers the exit status.
///
/// # Errors
/// User: a file without a job that reads Kafka, or an empty topic. Else what ended the job.
pub fn bench(args: &BenchArgs) -> Result<u8> {
    let name = format!("bench-{}", stem(std::slice::from_ref(&args.file)));
    let (file, text) = read_file(&args.file)?;
    let mut session = session(&bounded(&args.sql, &name), &name)?;
    let steps = session.plan_file(&file, &text)?;
    session.check_names()?;
    let mut plan = only_job(steps, &file)?;
    divert(&mut plan, args.keep_sinks)?;
    let topics = topics(&plan, &file)?;
    for topic in &topics {
        if limit::available(&topic.spec)? == 0 {
            return Err(empty(&topic.spec));
        }
    }
    if cfg!(debug_assertions) {
        eprintln!("note: this is a build without optimisation: its figures say nothing (cargo build --release)");
    }
    let mut runs = Vec::with_capacity(usize::from(args.runs));
    for number in 1..=args.runs {
        let run = measure(&plan, &topics, args, &name, &text)?;
        if args.runs > 1 {
            let ratio = run.ratio().map_or(String::new(), |r| format!(", {r:.2} of the limit"));
            eprintln!("run {number} of {}: {} rows per CPU second{ratio}", args.runs, count(run.job.rows_per_cpu_s() as u64));
        }
        runs.push(run);
    }
    let median = median(&runs);
    if runs[median].job.cpu_s < STEADY_CPU_S {
        eprintln!(
            "note: {:.2} CPU seconds are too few for steady figures; take a topic of some millions of records",
            runs[median].job.cpu_s
        );
    }
    let workers = args.workers.map(usize::from).or(plan.settings.workers).unwrap_or_else(cores).max(1);
    match args.json.as_deref() {
        Some("-") => print(&format!("{:#}", as_json(&file, workers, args.keep_sinks, &runs, median))),
        Some(path) => {
            let text = format!("{:#}\n", as_json(&file, workers, args.keep_sinks, &runs, median));
            std::fs::write(path, text).map_err(|e| Error::external(format!("cannot write {path}")).caused_by(e))?;
            print(&as_table(&runs, median, workers));
        }
        None => print(&as_table(&runs, median, workers)),
    }
    Ok(0)
}

/// The options of a run: all of the topics, and a job of our own. The user's options come last and win.
fn bounded(sql: &SqlArgs, name: &str) -> SqlArgs {
    let ours = [
        "*.scan.startup.mode=earliest-offset",
        "*.scan.bounded.mode=latest-offset",
        // A measurement does not move the offsets of other people's group.
        "*.properties.commit.offsets.on.checkpoint=false",
    ];
    SqlArgs {
        options: ours.into_iter().map(String::from).chain(sql.options.iter().cloned()).collect(),
        sets: sql.sets.iter().cloned().chain([format!("pipeline.name={name}")]).collect(),
        defines: sql.defines.clone(),
        models: sql.models.clone(),
    }
}

/// The job of the file.
fn only_job(steps: Vec<Step>, file: &str) -> Result<StreamPlan> {
    let mut jobs = steps.into_iter().filter_map(|s| if let Step::Job(plan) | Step::Select(plan) = s { Some(plan) } else { None });
    match (jobs.next(), jobs.count()) {
        (Some(plan), 0) => Ok(plan),
        (Some(_), more) => Err(Error::user(format!("{file} has {} jobs: bench measures one", more + 1))
            .help("INSERTs next to each other are one job; move what stands between them to a file of its own")),
        (None, _) => {
            Err(Error::user(format!("{file} has nothing to run: no INSERT and no SELECT")).help("add the INSERT INTO … SELECT to measure"))
        }
    }
}

/// Sends rows to blackholes. Dead letters and late rows stay where they are: they are part of the job's work.
fn divert(plan: &mut StreamPlan, keep_sinks: bool) -> Result<()> {
    let context = Context { job: String::new(), zone: plan.settings.zone, base: ".".into(), memory: memory::Hub::default() };
    for node in &mut plan.nodes {
        let Op::Sink(sink) = &mut node.op else { continue };
        let (name, physical) = match &sink.table {
            Some(_) if keep_sinks => continue,
            Some((spec, _)) => (spec.name.clone(), spec.physical.clone()),
            // The rows of a SELECT have no place on stdout here: the figures stand there.
            None => ("terminal".to_string(), node.schema.clone()),
        };
        let spec = TableSpec {
            name,
            physical,
            metadata: vec![],
            partition_keys: vec![],
            primary_key: vec![],
            options: BTreeMap::from([("connector".to_string(), "blackhole".to_string())]),
            knobs: BTreeMap::new(),
        };
        let blackhole = connectors::sink(&spec, &context)?;
        sink.table = Some((Arc::new(spec), blackhole));
    }
    Ok(())
}

/// The Kafka tables that the plan streams, each once with all columns wanted of it.
fn topics(plan: &StreamPlan, file: &str) -> Result<Vec<Topic>> {
    let mut found: BTreeMap<String, Topic> = BTreeMap::new();
    for node in &plan.nodes {
        let Op::Source(op) = &node.op else { continue };
        if op.table.options.get("connector").is_none_or(|c| c != "kafka") {
            continue;
        }
        if !op.source.is_bounded() {
            return Err(Error::user(format!("table '{}' never ends: bench measures a whole topic", op.table.name))
                .help("leave 'scan.bounded.mode' away: bench sets 'latest-offset'"));
        }
        let topic = found.entry(op.table.name.clone()).or_insert_with(|| Topic { spec: op.table.clone(), columns: BTreeSet::new() });
        topic.columns.extend(&op.scan.physical);
    }
    if found.is_empty() {
        return Err(Error::user(format!("{file} reads no Kafka topic: bench measures a job over one"))
            .help("read from a table with 'connector' = 'kafka'; velosql generate events --topic NAME fills a topic"));
    }
    Ok(found.into_values().collect())
}

fn empty(spec: &TableSpec) -> Error {
    let option = |key: &str| spec.options.get(key).map(String::as_str);
    let servers = option("properties.bootstrap.servers").unwrap_or("localhost:9092");
    let topic = option("topic").or(option("topic-pattern")).unwrap_or_default();
    let elsewhere = if servers == "localhost:9092" { String::new() } else { format!(" --bootstrap-servers {servers}") };
    Error::user(format!("table '{}': topic '{topic}' at {servers} is empty: there is nothing to measure", spec.name))
        .help(format!("fill it: velosql generate events --topic {topic}{elsewhere}"))
}

fn measure(plan: &StreamPlan, topics: &[Topic], args: &BenchArgs, name: &str, sql: &str) -> Result<Run> {
    let state = tempfile::tempdir().map_err(|e| Error::external("cannot make a folder for the run's state").caused_by(e))?;
    let metrics = Arc::new(JobMetrics::default());
    let options = ExecuteOptions {
        name: name.to_string(),
        forced_name: Some(name.to_string()),
        state_dir: Some(state.path().to_path_buf()),
        sql: masked(sql),
        // The files of an earlier bench of this file go, nobody else's.
        fresh: args.keep_sinks,
        from: None,
        refresh_static: false,
        models: args.sql.models.clone(),
        workers: args.workers.map(usize::from),
        duration: None,
        form: Form::Changelog,
        progress: false,
        stop: Stop::default(),
    };
    usage::reset_peak_rss();
    let (started, cpu_before) = (Instant::now(), usage::cpu_seconds());
    let ran = run_with(plan, &options, false, metrics.clone())?;
    let (wall_s, cpu_s) = (started.elapsed().as_secs_f64(), usage::cpu_seconds() - cpu_before);
    let peak_rss_bytes = usage::peak_rss_bytes();
    if ran.outcome.ended_by != EndedBy::End {
        return Err(Error::internal(format!("the measured job ended by {:?}, not at the end of its topics", ran.outcome.ended_by)));
    }
    let mut job = Figures { wall_s, cpu_s, ..Figures::default() };
    for topic in topics {
        let source = metrics.source(&topic.spec.name);
        job.records += source.records.lock().expect("no panic while locked").values().sum::<u64>();
        job.bytes += source.bytes.get();
    }

    let mut consume = Figures::default();
    let mut decode = topics.iter().all(|t| is_json(&t.spec)).then(Figures::default);
    for topic in topics {
        consume.add(&limit::consume_only(&topic.spec, usage::cpu_seconds)?);
        if let Some(decode) = &mut decode {
            let fields: Vec<String> = topic.columns.iter().map(|i| topic.spec.physical.field(*i).name().clone()).collect();
            decode.add(&limit::consume_and_decode(&topic.spec, &fields, usage::cpu_seconds)?);
        }
    }
    let (rows_out, late, rejected) = (metrics.rows_out(), metrics.late.get() + metrics.late_after_idle.get(), metrics.rejected());
    Ok(Run { job, peak_rss_bytes, rows_out, late, rejected, consume, decode })
}

fn is_json(spec: &TableSpec) -> bool {
    spec.options.get("value.format").or_else(|| spec.options.get("format")).is_some_and(|f| f == "json")
}

impl Figures {
    fn add(&mut self, limit: &Limit) {
        self.records += limit.records;
        self.bytes += limit.bytes;
        self.undecodable += limit.undecodable;
        self.wall_s += limit.wall_s;
        self.cpu_s += limit.cpu_s;
    }

    fn rows_per_s(&self) -> f64 {
        per(self.records as f64, self.wall_s)
    }

    fn mb_per_s(&self) -> f64 {
        per(self.bytes as f64 / 1e6, self.wall_s)
    }

    fn rows_per_cpu_s(&self) -> f64 {
        per(self.records as f64, self.cpu_s)
    }

    fn as_json(&self) -> Value {
        json!({
            "records": self.records, "bytes": self.bytes, "wall_s": rounded(self.wall_s), "cpu_s": rounded(self.cpu_s),
            "rows_per_s": rounded(self.rows_per_s()), "mb_per_s": rounded(self.mb_per_s()), "rows_per_cpu_s": rounded(self.rows_per_cpu_s()),
        })
    }

    fn cells(&self) -> Vec<String> {
        let whole = |n: f64| count(n.round() as u64);
        vec![
            count(self.records),
            format!("{:.2}", self.wall_s),
            whole(self.rows_per_s()),
            format!("{:.1}", self.mb_per_s()),
            format!("{:.2}", self.cpu_s),
            whole(self.rows_per_cpu_s()),
        ]
    }
}

impl Run {
    fn of(&self, limit: &Figures) -> f64 {
        per(self.job.rows_per_cpu_s(), limit.rows_per_cpu_s())
    }

    /// What share of consume + decode the job does per CPU second.
    fn ratio(&self) -> Option<f64> {
        self.decode.map(|d| self.of(&d))
    }
}

/// 0 where nothing was measured: too short for the clock.
fn per(n: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { n / seconds } else { 0.0 }
}

fn rounded(n: f64) -> f64 {
    (n * 1000.0).round() / 1000.0
}

/// The place of the median run; the lower one of two.
fn median(runs: &[Run]) -> usize {
    let key = |i: usize| runs[i].ratio().unwrap_or_else(|| runs[i].job.rows_per_cpu_s());
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by(|a, b| key(*a).total_cmp(&key(*b)));
    order.get(runs.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

fn as_table(runs: &[Run], median: usize, workers: usize) -> String {
    let run = &runs[median];
    let columns = ["records", "seconds", "rows/s", "MB/s", "CPU seconds", "rows per CPU second", "job's share", "peak memory"];
    let mut table = TextTable::new([("", false)].into_iter().chain(columns.map(|c| (c, true))));
    let title = format!("job, {workers} worker{}", if workers == 1 { "" } else { "s" });
    let share = |limit: &Figures| format!("{:.2}", run.of(limit));
    let mut push = |title: &str, figures: &Figures, share: String, memory: String| {
        table.push([title.to_string()].into_iter().chain(figures.cells()).chain([share, memory]));
    };
    // Later runs start with memory that earlier ones have freed, but the allocator still holds.
    let peak = runs.first().map_or(0, |first| first.peak_rss_bytes) / 1_000_000;
    push(&title, &run.job, String::new(), format!("{peak} MB"));
    push("limit: consume only", &run.consume, share(&run.consume), String::new());
    if let Some(decode) = &run.decode {
        push("limit: consume + decode", decode, share(decode), String::new());
    }
    let mut out = table.draw(terminal_width());
    let of = if runs.len() > 1 { format!(" Median of {} runs.", runs.len()) } else { String::new() };
    out.push_str(&format!("\n{} rows out, {} late, {} rejected.{of}\n", count(run.rows_out), count(run.late), count(run.rejected)));
    out.push_str(&match run.ratio() {
        Some(ratio) => format!("Per CPU second the job does {ratio:.2} of consume + decode.\n"),
        None => "No consume + decode: it decodes JSON, and this is another format.\n".to_string(),
    });
    out
}

fn as_json(file: &str, workers: usize, keep_sinks: bool, runs: &[Run], median: usize) -> Value {
    let one = |run: &Run| {
        let mut job = run.job.as_json();
        job["peak_rss_bytes"] = json!(run.peak_rss_bytes);
        job["rows_out"] = json!(run.rows_out);
        job["late"] = json!(run.late);
        job["rejected"] = json!(run.rejected);
        json!({
            "job": job,
            "limits": {
                "consume": run.consume.as_json(), "consume_decode": run.decode.map(|d| d.as_json()),
                "undecodable": run.decode.map(|d| d.undecodable),
            },
            "ratios": { "consume": rounded(run.of(&run.consume)), "consume_decode": run.ratio().map(rounded) },
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"), "optimised": !cfg!(debug_assertions), "file": file, "cores": cores(), "workers": workers,
        "keep_sinks": keep_sinks, "median_run": median, "runs": runs.iter().map(one).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQL: &str = "CREATE TABLE t (a INT, b INT, c INT) WITH ('connector' = 'kafka', 'topic' = 'x',
        'properties.bootstrap.servers' = 'nowhere:1', 'format' = 'json');
        CREATE TABLE g (a INT) WITH ('connector' = 'datagen', 'number-of-rows' = '1');
        CREATE TABLE files (a INT) WITH ('connector' = 'filesystem', 'path' = '/nonexistent/out', 'format' = 'json');\n";

    fn planned(statements: &str) -> Result<StreamPlan> {
        let sql = bounded(&SqlArgs::default(), "bench-x");
        only_job(session(&sql, "bench-x")?.plan_file("x.sql", &format!("{SQL}{statements}"))?, "x.sql")
    }

    #[test]
    fn a_file_is_bounded_and_its_sinks_take_everything() {
        let mut plan = planned("INSERT INTO files SELECT a FROM t WHERE c > 1;").expect("a plan");
        let found = topics(&plan, "x.sql").expect("a topic");
        assert_eq!(found.iter().map(|t| (t.spec.name.as_str(), t.columns.len())).collect::<Vec<_>>(), [("t", 2)]);
        assert_eq!(plan.settings.name.as_deref(), Some("bench-x"));
        let durable = |plan: &StreamPlan| {
            plan.nodes.iter().filter_map(|n| if let Op::Sink(s) = &n.op { s.table.as_ref() } else { None }).any(|(_, s)| s.is_durable())
        };
        divert(&mut plan, true).expect("kept");
        assert!(durable(&plan));
        divert(&mut plan, false).expect("diverted");
        assert!(!durable(&plan));
    }

    #[test]
    fn what_cannot_be_measured_says_what_to_do() {
        let refused = |sql: &str| match planned(sql).and_then(|p| topics(&p, "x.sql").map(|_| ())) {
            Ok(()) => "fine".to_string(),
            Err(e) => e.to_string().replace('\n', " / "),
        };
        assert!(refused("").starts_with("x.sql has nothing to run: no INSERT and no SELECT"));
        assert!(refused("INSERT INTO files SELECT a FROM g;").starts_with("x.sql reads no Kafka topic"));
        assert!(refused("SELECT a FROM t; INSERT INTO files SELECT a FROM t;").starts_with("x.sql has 2 jobs"));
        assert_eq!(refused("SELECT a FROM t;"), "fine");
        let plan = planned("SELECT a FROM t;").expect("a plan");
        let message = empty(&topics(&plan, "x.sql").expect("a topic")[0].spec).to_string();
        assert!(message.contains("topic 'x' at nowhere:1 is empty"), "{message}");
        assert!(message.contains("velosql generate events --topic x --bootstrap-servers nowhere:1"), "{message}");
    }

    #[test]
    fn the_median_run_and_its_ratio_are_shown() {
        let run = |cpu_s: f64| Run {
            job: Figures { records: 1_000_000, bytes: 200_000_000, undecodable: 0, wall_s: 1.0, cpu_s },
            peak_rss_bytes: 50_000_000,
            rows_out: 7,
            late: 0,
            rejected: 0,
            consume: Figures { records: 1_000_000, bytes: 200_000_000, undecodable: 0, wall_s: 0.5, cpu_s: 0.5 },
            decode: Some(Figures { records: 1_000_000, bytes: 200_000_000, undecodable: 0, wall_s: 1.0, cpu_s: 1.0 }),
        };
        let runs = [run(4.0), run(1.25), run(2.0)];
        let middle = median(&runs);
        assert_eq!(middle, 2);
        // The first line starts with blanks, which a continued string would lose.
        let expected =
            "                           records  seconds     rows/s   MB/s  CPU seconds  rows per CPU second  job's share  peak memory
───────────────────────  ─────────  ───────  ─────────  ─────  ───────────  ───────────────────  ───────────  ───────────
job, 2 workers           1,000,000     1.00  1,000,000  200.0         2.00              500,000                     50 MB
limit: consume only      1,000,000     0.50  2,000,000  400.0         0.50            2,000,000         0.25
limit: consume + decode  1,000,000     1.00  1,000,000  200.0         1.00            1,000,000         0.50

7 rows out, 0 late, 0 rejected. Median of 3 runs.
Per CPU second the job does 0.50 of consume + decode.
";
        assert_eq!(as_table(&runs, middle, 2), expected);
        let json = as_json("x.sql", 2, false, &runs, middle);
        assert_eq!(json["runs"][2]["ratios"]["consume_decode"], 0.5);
        assert_eq!(json["median_run"], 2);
    }
}
