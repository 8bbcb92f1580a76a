//! `'connector' = 'kafka'`: topics in, topics out.
//!
//! ```text
//!  options ─▶ startup ─▶ source (fetch) ─▶ reader (metadata)          rows ─▶ sink ─▶ producer
//!     └ properties ─▶ client ─▶ admin                                 embedded: a broker for tests and demo
//! ```
//! What must always hold: positions are the checkpoint's, never the group's; nothing that was not read is
//! passed over silently; no secret is printed.

use std::sync::Arc;

use super::{Context, Fetcher, RowReader, Scan, SinkTable, SourceTable, Split, TableSpec};
use crate::config::Options;
use crate::error::Result;

pub mod properties;

mod options;

pub mod client;

mod startup;

mod fetch;

mod source;

mod splits;

mod metadata;

mod reader;

pub mod producer;

mod sink;

pub mod admin;

pub mod embedded;

pub mod limit;

pub use client::Connection;

use options::{Bound, KafkaOptions};
use properties::Role;

/// The table `spec` as a source.
///
/// # Errors
/// User: an option or column that does not fit.
pub fn source(spec: &TableSpec, ctx: &Context) -> Result<Arc<dyn SourceTable>> {
    let options = options::read(spec, Role::Consumer)?;
    for column in &spec.metadata {
        metadata::Key::of(&options.owner, column)?;
    }
    let connection = connection(spec, &options)?;
    Ok(Arc::new(KafkaSource { spec: spec.clone(), options: Arc::new(options), connection, ctx: ctx.clone() }))
}

/// The table `spec` as a sink.
///
/// # Errors
/// User: an option or column that does not fit.
pub fn sink(spec: &TableSpec, ctx: &Context) -> Result<Arc<dyn SinkTable>> {
    let options = options::read(spec, Role::Producer)?;
    let connection = connection(spec, &options)?;
    Ok(Arc::new(sink::KafkaSink::new(spec, options, connection, ctx)?))
}

/// Properties of `spec` that have no effect here, one sentence each: for the user to know.
///
/// # Errors
/// User: an option that does not fit.
pub fn notes(spec: &TableSpec, is_sink: bool) -> Result<Vec<String>> {
    Ok(options::read(spec, if is_sink { Role::Producer } else { Role::Consumer })?.settings.notes)
}

fn connection(spec: &TableSpec, options: &KafkaOptions) -> Result<Connection> {
    let properties = Options::new(&options.owner, spec.options.clone()).with_prefix("properties.");
    Connection::new(&options.owner, &options.servers, &properties)
}

struct KafkaSource {
    spec: TableSpec,
    options: Arc<KafkaOptions>,
    connection: Connection,
    ctx: Context,
}

impl SourceTable for KafkaSource {
    fn is_bounded(&self) -> bool {
        self.options.bound != Bound::Unbounded
    }

    fn open(&self, scan: &Scan, restore: Option<&[Split]>) -> Result<Box<dyn Fetcher>> {
        let wants = reader::wants(&self.spec, &self.options, scan)?;
        let job = &self.ctx.job;
        Ok(Box::new(source::KafkaFetcher::open(self.options.clone(), self.connection.clone(), wants, job, restore)?))
    }

    fn reader(&self, scan: &Scan) -> Result<Box<dyn RowReader>> {
        Ok(Box::new(reader::KafkaReader::new(&self.spec, &self.options, scan, &self.ctx)?))
    }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod real;
