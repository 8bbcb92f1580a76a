//! Runs `velosql generate`: to standard output, a file, or a topic.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::super::brokers::create_if_absent;
use super::super::produce::pace::{Pace, parse_rate};
use super::super::progress::count;
use super::super::sending::Sending;
use super::super::signals;
use super::{Destination, GenerateArgs, What};
use crate::error::{Error, Result};

/// Runs the command. Answers the exit status.
///
/// # Errors
/// User: a file or topic that cannot be written. External: no broker answers, or records were not delivered.
pub fn generate(args: &GenerateArgs) -> Result<u8> {
    match &args.what {
        What::Velib { to, .. } | What::Events { to, .. } => match &to.topic {
            Some(topic) => to_topic(&args.what, to, topic),
            None => to_file(&args.what, to.out.as_deref(), to.quiet),
        },
        What::Stations { out, .. } => to_file(&args.what, out.as_deref(), false),
    }
}

fn to_file(what: &What, out: Option<&Path>, quiet: bool) -> Result<u8> {
    let Some(path) = out else {
        return match what.write(&mut io::stdout().lock()) {
            // A reader that has seen enough, such as head, is no error.
            Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::external("cannot write to stdout").caused_by(e)),
            _ => Ok(0),
        };
    };
    let failed = |e: io::Error| {
        let missing = e.kind() == ErrorKind::NotFound;
        let error = Error::user(format!("cannot write {}", path.display())).caused_by(e);
        match path.parent().filter(|_| missing) {
            Some(folder) => error.help(format!("make its directory first: mkdir -p {}", folder.display())),
            None => error,
        }
    };
    let mut file = File::create(path).map_err(failed)?;
    let records = what.write(&mut file).map_err(failed)?;
    if !quiet {
        eprintln!("{} records written to {}", count(records), path.display());
    }
    Ok(0)
}

fn to_topic(what: &What, to: &Destination, topic: &str) -> Result<u8> {
    let mut pace = to.rate.as_deref().map(parse_rate).transpose()?.map_or(Pace::Free, Pace::Rate);
    let connection = to.brokers.connection("generate")?;
    if let Some(partitions) = to.partitions {
        create_if_absent(&connection, topic, partitions)?;
    }
    let stop = signals::interrupted()?;
    let mut sending = Sending::open(&connection, topic, stop, to.quiet).map_err(|e| match to.partitions {
        None if e.message().contains("does not exist") => e.help("add --partitions 4 to create it"),
        _ => e,
    })?;
    for (n, (_, record)) in what.records().into_iter().flatten().enumerate() {
        if sending.stopped() || pace != Pace::Free && !sending.wait(pace.due(n as u64, None))? {
            break;
        }
        let key = match &to.key {
            None => None,
            Some(field) => Some(key_of(&record, field)?),
        };
        sending.send(key.as_deref(), &record)?;
    }
    eprintln!("{}", sending.finish()?.summary(topic));
    Ok(0)
}

fn key_of(record: &[u8], field: &str) -> Result<Vec<u8>> {
    use sonic_rs::JsonValueTrait;
    match sonic_rs::get_from_slice(record, &[field]) {
        Ok(v) => Ok(v.as_str().unwrap_or_else(|| v.as_raw_str()).as_bytes().to_vec()),
        Err(_) => {
            let e = Error::user(format!("--key {field}: the records have no such field"));
            Err(e.help(format!("a record: {}", String::from_utf8_lossy(record))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::brokers::Brokers;
    use crate::cli::generate::EventsOptions;
    use crate::connectors::kafka::admin::describe_topic;
    use crate::connectors::kafka::embedded::EmbeddedBroker;

    #[test]
    fn bids_fill_a_topic() {
        let broker = EmbeddedBroker::start().expect("a broker");
        broker.create_topic("bids", 3).expect("a topic");
        let brokers = Brokers { servers: broker.servers().into(), properties: vec![] };
        let to = Destination {
            topic: Some("bids".into()),
            brokers: brokers.clone(),
            key: Some("auction".into()),
            quiet: true,
            ..Destination::default()
        };
        let what = What::Events { options: EventsOptions { records: 3000, ..EventsOptions::default() }, to };
        generate(&GenerateArgs { what }).expect("sent");
        let topic = describe_topic(&brokers.connection("test").expect("a connection"), "bids").expect("a topic");
        assert_eq!(topic.partitions.iter().map(|p| p.high).sum::<i64>(), 3000);
        assert!(key_of(br#"{"a":1}"#, "b").expect_err("no field").message().contains("--key b"));
    }
}
