//! `velosql produce`: a file into a topic, as fast as it goes, at a rate, or as its own times say.
//!
//! ```text
//!   file ─ input (csv, parquet → JSON; JSON lines as they are) ─ where ─ pace ─▶ topic
//! ```
//! What must always hold: JSON lines arrive byte for byte; what was left out is counted and said; the command
//! succeeds only where every record was delivered.

mod columns;
mod csv;
mod input;
pub mod pace;
mod parquet;

use std::collections::VecDeque;

use clap::Args;

use super::brokers::{Brokers, create_if_absent};
use super::progress::count;
use super::sending::Sending;
use super::signals;
use crate::error::{Error, Result};
use columns::{Where, check_column, text_of, value};
use input::{CsvForm, FileFormat, Records};
use pace::{Pace, event_ms, parse_rate, parse_speedup};

/// Records that show which columns there are.
const SAMPLE: usize = 1000;
/// Records that are filtered together.
const BATCH: usize = 1024;

/// `velosql produce`
#[derive(Debug, Clone, Args)]
pub struct ProduceArgs {
    /// CSV, JSON lines (either also as .gz) or Parquet; - is JSON lines from standard input
    pub file: String,
    /// Topic to write
    #[arg(long)]
    pub topic: String,
    /// The cluster.
    #[command(flatten)]
    pub brokers: Brokers,
    /// Creates the topic with this many partitions where it does not exist
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
    /// What the file holds, where its name does not say
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// The CSV file's first line is data: columns are f0, f1, …
    #[arg(long)]
    pub no_header: bool,
    /// Between the values of a CSV file (\t is a tab)
    #[arg(long, default_value = ",")]
    pub delimiter: String,
    /// Records a second, such as 1000/s or 30/min [default: as fast as it goes]
    #[arg(long, conflicts_with = "event_time")]
    pub rate: Option<String>,
    /// Sends records as far apart as the times in this column
    #[arg(long, value_name = "COL")]
    pub event_time: Option<String>,
    /// How much faster than the events happened, such as 60
    #[arg(long, value_name = "X", requires = "event_time")]
    pub speedup: Option<String>,
    /// Column whose text is the Kafka key
    #[arg(long, value_name = "COL")]
    pub key: Option<String>,
    /// Sends only records for which this SQL condition is true, such as "stationcode IN ('16107','32017')"
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// Sends at most this many records
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// Runs the command. Answers the exit status.
///
/// # Errors
/// User: a file, topic or option that cannot be used. Data: a record that cannot be sent. External: no broker
/// answers, or records were not delivered.
pub fn produce(args: &ProduceArgs) -> Result<u8> {
    let pace = pace_of(args)?;
    // The file first: it is nearer than a broker.
    let records = input::open(&args.file, args.format, CsvForm { header: !args.no_header, delimiter: delimiter(&args.delimiter)? })?;
    let mut feed = Feed::new(args, records)?;
    let connection = args.brokers.connection("produce")?;
    if let Some(partitions) = args.partitions {
        create_if_absent(&connection, &args.topic, partitions)?;
    }
    let stop = signals::interrupted()?;
    let sending = Sending::open(&connection, &args.topic, stop, args.quiet).map_err(|e| absent_help(e, args))?;
    let sent = send(&mut feed, sending, pace, args)?;
    eprintln!("{}{}", sent.summary(&args.topic), feed.left_out());
    Ok(0)
}

/// Where a topic does not exist, this command can create it.
fn absent_help(e: Error, args: &ProduceArgs) -> Error {
    if args.partitions.is_some() || !e.message().contains("does not exist") {
        return e;
    }
    let known = e.help_text().map(|h| format!("{h}\n      ")).unwrap_or_default();
    e.help(format!("{known}or add --partitions 4 to create it"))
}

fn send(feed: &mut Feed, mut sending: Sending, mut pace: Pace, args: &ProduceArgs) -> Result<super::sending::Sent> {
    let limit = args.limit.unwrap_or(u64::MAX);
    let mut n = 0;
    while n < limit && !sending.stopped() {
        let Some(record) = feed.next()? else { break };
        let event = args.event_time.as_ref().and_then(|c| value(&record, c)).and_then(|v| event_ms(&v));
        feed.untimed += u64::from(args.event_time.is_some() && event.is_none());
        if pace != Pace::Free && !sending.wait(pace.due(n, event))? {
            break;
        }
        let key = args.key.as_ref().and_then(|c| value(&record, c));
        feed.unkeyed += u64::from(args.key.is_some() && key.is_none());
        sending.send(key.as_ref().map(|k| text_of(k).as_bytes()), &record)?;
        n += 1;
    }
    sending.finish()
}

fn pace_of(args: &ProduceArgs) -> Result<Pace> {
    let speedup = args.speedup.as_deref().map(parse_speedup).transpose()?.unwrap_or(1.0);
    match (&args.rate, &args.event_time) {
        (Some(rate), _) => Ok(Pace::Rate(parse_rate(rate)?)),
        (None, Some(_)) => Ok(Pace::event_time(speedup)),
        (None, None) => Ok(Pace::Free),
    }
}

fn delimiter(text: &str) -> Result<u8> {
    match text.as_bytes() {
        b"\\t" | b"tab" => Ok(b'\t'),
        [one] if one.is_ascii() && *one != b'"' && *one != b'\n' => Ok(*one),
        _ => Err(Error::user(format!("--delimiter '{text}': expected one character, such as ';' or \\t"))),
    }
}

/// The records of the file that are kept, with what was left out.
struct Feed {
    records: Box<dyn Records>,
    condition: Option<Where>,
    /// Records that showed the columns and are still to come.
    sampled: VecDeque<(Vec<u8>, String)>,
    kept: VecDeque<Vec<u8>>,
    /// Records that are filtered together: one where they come as they happen.
    batch: usize,
    filtered: u64,
    unreadable: u64,
    untimed: u64,
    unkeyed: u64,
}

impl Feed {
    fn new(args: &ProduceArgs, mut records: Box<dyn Records>) -> Result<Self> {
        let named = [("--event-time", &args.event_time), ("--key", &args.key)];
        let live = args.file == "-";
        let mut sampled = VecDeque::new();
        if args.condition.is_some() || named.iter().any(|(_, c)| c.is_some()) {
            // A pipe may be slow: its first record must do.
            while sampled.len() < if live { 1 } else { SAMPLE } {
                let mut record = Vec::new();
                if !records.next(&mut record)? {
                    break;
                }
                sampled.push_back((record, records.place()));
            }
        }
        let sample: Vec<Vec<u8>> = sampled.iter().map(|(r, _)| r.clone()).collect();
        for (option, column) in named {
            if let Some(column) = column {
                check_column(option, column, &args.file, &sample)?;
            }
        }
        if let Some(column) = &args.event_time
            && !sample.is_empty()
            && !sample.iter().any(|r| value(r, column).and_then(|v| event_ms(&v)).is_some())
        {
            let shown = sample.iter().find_map(|r| value(r, column)).map_or("NULL".to_string(), |v| v.as_raw_str().to_string());
            let e = Error::user(format!("--event-time: column '{column}' holds no time that can be read, but {shown}"));
            return Err(e.help("times are ISO-8601 or SQL texts, or numbers of seconds or milliseconds since 1970"));
        }
        let condition = args.condition.as_deref().map(|c| Where::new(c, &args.file, &sample)).transpose()?;
        let batch = if live { 1 } else { BATCH };
        Ok(Self { records, condition, sampled, kept: VecDeque::new(), batch, filtered: 0, unreadable: 0, untimed: 0, unkeyed: 0 })
    }

    /// The next record to send; `None` at the end.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(record) = self.kept.pop_front() {
                return Ok(Some(record));
            }
            let mut batch = Vec::new();
            while batch.len() < self.batch {
                match self.raw()? {
                    Some(record) => batch.push(record),
                    None => break,
                }
            }
            if batch.is_empty() {
                return Ok(None);
            }
            let Some(condition) = &self.condition else {
                self.kept.extend(batch.into_iter().map(|(record, _)| record));
                continue;
            };
            let (keeps, unreadable) = condition.keeps(&batch)?;
            self.unreadable += unreadable;
            self.filtered += keeps.iter().filter(|k| !**k).count() as u64;
            self.kept.extend(batch.into_iter().zip(keeps).filter(|(_, keep)| *keep).map(|((record, _), _)| record));
        }
    }

    fn raw(&mut self) -> Result<Option<(Vec<u8>, String)>> {
        if let Some(sampled) = self.sampled.pop_front() {
            return Ok(Some(sampled));
        }
        let mut record = Vec::new();
        if !self.records.next(&mut record)? {
            return Ok(None);
        }
        // Only a condition has messages about single records.
        let place = if self.condition.is_some() { self.records.place() } else { String::new() };
        Ok(Some((record, place)))
    }

    fn left_out(&self) -> String {
        let mut out = String::new();
        if self.condition.is_some() {
            out.push_str(&format!("; {} left out by --where", count(self.filtered)));
        }
        for (n, what) in [
            (self.unreadable, "of the records read were no JSON"),
            (self.untimed, "without a readable event time were sent at once"),
            (self.unkeyed, "had no key"),
        ] {
            if n > 0 {
                out.push_str(&format!("; {} {what}", count(n)));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
