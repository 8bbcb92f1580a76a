//! From a file to a topic of the embedded broker, and the options that are refused.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;

use super::*;
use crate::connectors::kafka::admin::describe_topic;
use crate::connectors::kafka::embedded::EmbeddedBroker;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ProduceArgs,
}

fn args(line: &[&str]) -> Result<ProduceArgs, clap::Error> {
    Line::try_parse_from(std::iter::once(&"produce").chain(line)).map(|l| l.args)
}

fn run(args: &ProduceArgs) -> Result<(u64, String)> {
    let records = input::open(&args.file, args.format, CsvForm { header: !args.no_header, delimiter: delimiter(&args.delimiter)? })?;
    let mut feed = Feed::new(args, records)?;
    let connection = args.brokers.connection("produce")?;
    let sending = Sending::open(&connection, &args.topic, Arc::new(AtomicBool::new(false)), true).map_err(|e| absent_help(e, args))?;
    let sent = send(&mut feed, sending, pace_of(args)?, args)?;
    Ok((sent.records, feed.left_out()))
}

#[test]
fn the_records_of_two_stations_reach_the_topic() {
    let broker = EmbeddedBroker::start().expect("a broker");
    broker.create_topic("t", 1).expect("a topic");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("x.jsonl");
    let lines: String = (0..3000).map(|i| format!("{{\"code\":\"{}\",\"n\":{i}}}\n", i % 10)).collect();
    std::fs::write(&file, lines).expect("written");
    let file = file.to_str().expect("UTF-8");
    let line = [file, "--topic", "t", "--brokers", broker.servers(), "--where", "code IN ('3', '5')", "--key", "code", "--limit", "500"];
    let args = args(&line).expect("arguments");
    let (sent, left_out) = run(&args).expect("sent");
    assert_eq!(sent, 500);
    assert!(left_out.contains("left out by --where"), "{left_out}");
    let connection = args.brokers.connection("test").expect("a connection");
    let topic = describe_topic(&connection, "t").expect("a topic");
    assert_eq!(topic.partitions.iter().map(|p| p.high).sum::<i64>(), 500);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    assert!(args(&["f.csv"]).is_err(), "no topic");
    assert!(args(&["f.csv", "--topic", "t", "--speedup", "3"]).is_err(), "a speedup of nothing");
    assert!(args(&["f.csv", "--topic", "t", "--rate", "3", "--event-time", "c"]).is_err(), "two paces");
    assert!(args(&["f.csv", "--topic", "t", "--partitions", "0"]).is_err());
    assert!(delimiter(";;").is_err() && delimiter("\\t").is_ok_and(|d| d == b'\t'));
    let absent = args(&["no/such/file.csv", "--topic", "t"]).expect("arguments");
    let e = produce(&absent).expect_err("no such file");
    assert!(e.message().contains("cannot open no/such/file.csv") && e.help_text().is_some_and(|h| h.contains("no directory")), "{e}");
}

#[test]
fn a_column_without_times_cannot_pace() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("x.csv");
    std::fs::write(&file, "id,name\n1,a\n2,b\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    let e = run(&args(&[file, "--topic", "t", "--event-time", "name"]).expect("arguments")).expect_err("no times");
    assert!(e.message().contains("column 'name' holds no time that can be read, but \"a\""), "{e}");
    let e = run(&args(&[file, "--topic", "t", "--key", "nam"]).expect("arguments")).expect_err("no column");
    assert_eq!(e.help_text(), Some("did you mean name?"));
}
