//! `velosql generate`: seeded records, so that the demo, the tests and the benchmarks need nobody's data.
//!
//! Two kinds: bike-share station records with the schema and the dirt of the public Vélib' feed ([`velib`],
//! [`stations`]), and bids for benchmarks ([`events`]). Every name, code and coordinate is made up here.
//! What must always hold: the same options give the same bytes, on every machine; a test holds a hash.

pub mod events;
pub mod run;
pub mod stations;
pub mod velib;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::brokers::Brokers;

pub use events::{EventsOptions, events};
pub use stations::{Station, make_stations, write_stations};
pub use velib::{VelibOptions, velib_records};

/// A record as the generators make it: its time in milliseconds since 1970 and its JSON.
pub type Record = (i64, Vec<u8>);

/// `velosql generate …`
#[derive(Debug, Clone, Args)]
pub struct GenerateArgs {
    /// What to make.
    #[command(subcommand)]
    pub what: What,
}

/// What can be made.
#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// Station records of a bike-share day, as JSON lines
    Velib {
        /// How the records are made.
        #[command(flatten)]
        options: VelibOptions,
        /// Where the records go.
        #[command(flatten)]
        to: Destination,
    },
    /// The stations of that day, as CSV with a header
    Stations {
        /// How the stations are made: the same seed gives the same stations as `velib`.
        #[command(flatten)]
        options: VelibOptions,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Bids for benchmarks, as JSON lines
    Events {
        /// How the records are made.
        #[command(flatten)]
        options: EventsOptions,
        /// Where the records go.
        #[command(flatten)]
        to: Destination,
    },
}

/// A file, a Kafka topic, or (neither given) standard output.
#[derive(Debug, Clone, Default, Args)]
pub struct Destination {
    /// File to write, one record a line [default: standard output]
    #[arg(long, value_name = "FILE", conflicts_with = "topic")]
    pub out: Option<PathBuf>,
    /// Kafka topic to write
    #[arg(long)]
    pub topic: Option<String>,
    /// Creates the topic with this many partitions where it does not exist
    #[arg(long, requires = "topic", value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
    /// The cluster of the topic.
    #[command(flatten)]
    pub brokers: Brokers,
    /// Field whose text is the Kafka key
    #[arg(long, value_name = "FIELD", requires = "topic")]
    pub key: Option<String>,
    /// Records a second, such as 1000/s [default: as fast as it goes]
    #[arg(long, requires = "topic")]
    pub rate: Option<String>,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

impl What {
    /// The records, in order; `None` for the stations, which are no stream.
    pub fn records(&self) -> Option<Box<dyn Iterator<Item = Record> + Send>> {
        match self {
            Self::Velib { options, .. } => Some(Box::new(velib_records(options))),
            Self::Events { options, .. } => Some(Box::new(events(options))),
            Self::Stations { .. } => None,
        }
    }

    /// Writes lines to `out` and returns how many records they are (a header is none).
    ///
    /// # Errors
    /// `out` does not take them.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<u64> {
        if let Self::Stations { options, .. } = self {
            let stations = make_stations(options.seed, options.stations);
            write_stations(out, &stations)?;
            return Ok(stations.len() as u64);
        }
        let mut out = BufWriter::with_capacity(1 << 20, out);
        let mut count = 0;
        for (_, record) in self.records().into_iter().flatten() {
            out.write_all(&record)?;
            out.write_all(b"\n")?;
            count += 1;
        }
        out.flush()?;
        Ok(count)
    }
}
