//! `velosql demo`: the whole way on this machine, with nothing to install.
//!
//! Starts the embedded Kafka broker, replays a day of generated bike-share records into a topic, runs the
//! shipped SQL file on it, shows what lies in the Parquet folder, trains models on that, serves them and asks
//! them once ([`super::demo_models`]). The broker keeps 5 MiB a partition and forgets what is older, so the
//! producer stays a few thousand records ahead of the job, never more.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use clap::Args;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::demo_models::{self, Folders};
use super::execute::{ExecuteOptions, print, run_with};
use super::generate::{VelibOptions, make_stations, velib_records, write_stations};
use super::output::Form;
use super::progress::count;
use super::run::{SqlArgs, session};
use super::table::{TextTable, terminal_width};
use crate::connectors::kafka::client::Connection;
use crate::connectors::kafka::embedded::EmbeddedBroker;
use crate::connectors::kafka::producer::{Outgoing, Pace, Producer};
use crate::error::{Error, Result};
use crate::metrics::JobMetrics;
use crate::runtime::job::{EndedBy, Stop};
use crate::sql::Step;

/// The shipped file that the demo runs.
const SQL: &str = include_str!("../../../sql/velib/bikes_per_postcode.sql");
const SQL_FILE: &str = "sql/velib/bikes_per_postcode.sql";
const PARTITIONS: i32 = 4;
/// Records that may lie unread in the broker: far below what it keeps.
const AHEAD: i64 = 8_000;

/// `velosql demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where its files go; emptied first
    #[arg(long, default_value = ".velosql/demo")]
    pub dir: PathBuf,
    /// Polls of the day: each gives a record for every station
    #[arg(long, default_value_t = 102)]
    pub polls: usize,
    /// Worker threads
    #[arg(long)]
    pub workers: Option<u16>,
    /// Goes on serving the models until Ctrl-C
    #[arg(long)]
    pub serve: bool,
}

/// Runs the demo.
///
/// # Errors
/// External: a file or the broker. Internal: the job lost a record.
pub fn demo(args: &DemoArgs) -> Result<u8> {
    let started = Instant::now();
    let stop = Stop::default();
    super::signals::stop_on_signal(&stop)?;
    let models = args.dir.join("models");
    let parquet = args.dir.join("bikes_per_postcode");
    let stations = args.dir.join("stations_information.csv");
    let day = VelibOptions { polls: args.polls, ..VelibOptions::default() };
    let stations_made = prepare(&args.dir, &stations, &day)?;

    let broker = EmbeddedBroker::start()?;
    for topic in ["velib", "velib-bikes-per-postcode"] {
        broker.create_topic(topic, PARTITIONS)?;
    }
    let records = stations_made * args.polls;
    eprintln!("1. an embedded Kafka broker at {}, topic velib with {PARTITIONS} partitions", broker.servers());
    eprintln!("2. a day of bike-share records: {stations_made} stations, {} polls, {} records", args.polls, count(records as u64));
    eprintln!("3. {SQL_FILE}: stations joined by time, 15-minute windows a postcode, to Parquet and a topic");

    let ends: Vec<String> = (0..PARTITIONS as usize).map(|p| format!("partition:{p},offset:{}", partition_records(records, p))).collect();
    let sql = SqlArgs {
        options: vec![
            format!("*.properties.bootstrap.servers={}", broker.servers()),
            "status.scan.bounded.mode=specific-offsets".into(),
            format!("status.scan.bounded.specific-offsets={}", ends.join(";")),
            format!("stations.path={}", stations.display()),
            format!("bikes_parquet.path={}", parquet.display()),
            "bikes_print.connector=blackhole".into(),
        ],
        ..SqlArgs::default()
    };
    let steps = session(&sql, "demo")?.plan_file(SQL_FILE, SQL)?;
    let plan = steps.iter().find_map(|s| if let Step::Job(plan) = s { Some(plan) } else { None });
    let plan = plan.ok_or_else(|| Error::internal("the demo's file has no job"))?;

    let metrics = Arc::new(JobMetrics::default());
    let over = Arc::new(AtomicBool::new(false));
    let producer = produce(&broker, day, metrics.clone(), over.clone())?;
    let options = ExecuteOptions {
        name: "demo".into(),
        forced_name: Some("demo".into()),
        state_dir: Some(args.dir.join("state")),
        sql: SQL.into(),
        fresh: true,
        from: None,
        refresh_static: false,
        models: models.clone(),
        workers: args.workers.map(usize::from),
        duration: None,
        form: Form::Changelog,
        progress: true,
        stop: stop.clone(),
    };
    let ran = run_with(plan, &options, false, metrics.clone());
    over.store(true, Ordering::Relaxed);
    producer.join().map_err(|_| Error::internal("the demo's producer panicked"))??;
    if ran?.outcome.ended_by != EndedBy::End {
        eprintln!("stopped; run it again for the whole day");
        return Ok(0);
    }
    let read: u64 = metrics.source("status").records.lock().expect("no panic while locked").values().sum();
    if read != records as u64 {
        return Err(Error::internal(format!("the demo sent {records} records, but the job read {read}")));
    }
    show(&parquet, read, started)?;
    let folders = Folders { parquet: &parquet, stations: &stations, models: &models };
    demo_models::train_and_ask(&folders, started, args.serve, &stop)
}

/// Records that partition `p` gets of `records` dealt out in turn.
fn partition_records(records: usize, p: usize) -> usize {
    (records + PARTITIONS as usize - 1 - p) / PARTITIONS as usize
}

/// An empty folder with the station list; answers the number of stations.
fn prepare(dir: &Path, stations: &Path, day: &VelibOptions) -> Result<usize> {
    let failed = |e: std::io::Error| Error::external(format!("cannot write {}", dir.display())).caused_by(e);
    if dir.exists() {
        // Only a folder that an earlier demo made is emptied.
        if !dir.join("stations_information.csv").exists() && std::fs::read_dir(dir).map_err(failed)?.next().is_some() {
            return Err(Error::user(format!("{} is not empty and not a demo's folder", dir.display())).help("name another one with --dir"));
        }
        std::fs::remove_dir_all(dir).map_err(failed)?;
    }
    std::fs::create_dir_all(dir).map_err(failed)?;
    let made = make_stations(day.seed, day.stations);
    let mut file = std::io::BufWriter::new(std::fs::File::create(stations).map_err(failed)?);
    write_stations(&mut file, &made).map_err(failed)?;
    std::io::Write::flush(&mut file).map_err(failed)?;
    Ok(made.len())
}

/// Sends the day, a little ahead of what the job has read.
fn produce(
    broker: &EmbeddedBroker,
    day: VelibOptions,
    metrics: Arc<JobMetrics>,
    over: Arc<AtomicBool>,
) -> Result<std::thread::JoinHandle<Result<()>>> {
    let connection = Connection::new("the demo", broker.servers(), &Default::default())?;
    let mut producer = Producer::open(&connection)?;
    Ok(std::thread::spawn(move || {
        let source = metrics.source("status");
        let pace = Pace::new(AHEAD, move || source.records.lock().expect("no panic while locked").values().sum::<u64>() as i64);
        for (i, (time, record)) in velib_records(&day).enumerate() {
            if !pace.wait(i as i64, || over.load(Ordering::Relaxed)) {
                return Ok(());
            }
            let partition = Some((i % PARTITIONS as usize) as i32);
            producer.send("velib", &Outgoing { value: Some(&record), partition, timestamp: Some(time), ..Outgoing::default() })?;
        }
        producer.flush()
    }))
}

#[derive(Default, Clone)]
struct Postcode {
    bikes: i64,
    ebikes: i64,
    docks: i64,
    stations: i64,
    reports: i64,
    window: i64,
}

/// The busiest postcodes of the Parquet folder, and how to read it.
fn show(parquet: &Path, records: u64, started: Instant) -> Result<()> {
    let mut postcodes: std::collections::BTreeMap<String, Postcode> = Default::default();
    let mut rows = 0;
    for batch in read_parquet(parquet)? {
        let number = |name: &str| batch.column_by_name(name).map(|c| c.as_primitive::<Int64Type>().clone());
        let (Some(bikes), Some(ebike), Some(docks), Some(stations), Some(reports)) =
            (number("bikes"), number("ebike"), number("docks"), number("stations"), number("records"))
        else {
            return Err(Error::internal("the demo's Parquet lacks a column"));
        };
        let (Some(code), Some(start)) = (batch.column_by_name("postcode"), batch.column_by_name("window_start")) else {
            return Err(Error::internal("the demo's Parquet lacks a column"));
        };
        let (code, start) = (code.as_string::<i32>(), start.as_primitive::<TimestampMillisecondType>());
        for i in 0..batch.num_rows() {
            rows += 1;
            let one = postcodes.entry(code.value(i).to_string()).or_default();
            one.reports += reports.value(i);
            if start.value(i) >= one.window {
                *one = Postcode {
                    bikes: bikes.value(i),
                    ebikes: ebike.value(i),
                    docks: docks.value(i),
                    stations: stations.value(i),
                    reports: one.reports,
                    window: start.value(i),
                };
            }
        }
    }
    let mut busiest: Vec<(String, Postcode)> = postcodes.into_iter().collect();
    busiest.sort_by(|a, b| b.1.bikes.cmp(&a.1.bikes).then(a.0.cmp(&b.0)));
    let mut table = TextTable::new([
        ("postcode", false),
        ("stations", true),
        ("bikes", true),
        ("of them electric", true),
        ("free docks", true),
        ("reports that day", true),
    ]);
    for (code, p) in busiest.iter().take(10) {
        table.push([
            code.clone(),
            p.stations.to_string(),
            p.bikes.to_string(),
            p.ebikes.to_string(),
            p.docks.to_string(),
            count(p.reports as u64),
        ]);
    }
    print("The ten postcodes with most bikes, in the day's last quarter of an hour that each reported in:\n");
    print(&table.draw(terminal_width()));
    print(&format!("\n{} records became {} rows in {:.1} s.", count(records), count(rows), started.elapsed().as_secs_f64()));
    print(&format!(
        "The Parquet lies in {0}/; read it with DuckDB:\n\n  duckdb -c \"SELECT postcode, max(bikes) FROM '{0}/*.parquet' GROUP BY postcode ORDER BY 2 DESC LIMIT 10\"",
        parquet.display()
    ));
    Ok(())
}

fn read_parquet(dir: &Path) -> Result<Vec<RecordBatch>> {
    let failed = |e: &dyn std::fmt::Display| Error::external(format!("cannot read the Parquet in {}: {e}", dir.display()));
    let mut batches = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| failed(&e))? {
        let path = entry.map_err(|e| failed(&e))?.path();
        if path.extension().is_some_and(|e| e == "parquet") {
            let file = std::fs::File::open(&path).map_err(|e| failed(&e))?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|b| b.build()).map_err(|e| failed(&e))?;
            for batch in reader {
                batches.push(batch?);
            }
        }
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use super::partition_records;

    #[test]
    fn records_are_dealt_out_whole() {
        for records in [0, 1, 3, 4, 5, 151_470] {
            assert_eq!((0..4).map(|p| partition_records(records, p)).sum::<usize>(), records);
        }
        assert_eq!((partition_records(5, 0), partition_records(5, 1)), (2, 1));
    }
}
