//! The rows of a plain SELECT on stdout.

use std::collections::HashMap;
use std::io::{BufWriter, IsTerminal, Write};
use std::sync::mpsc::{Receiver, TryRecvError};

use arrow::datatypes::SchemaRef;
use chrono_tz::Tz;

use super::table::{TextTable, terminal_width};
use crate::error::{Error, Result};
use crate::formats::text::write_value;
use crate::runtime::job::Stop;
use crate::stream::{SqlType, StreamBatch};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A table of the final result, once the input has ended.
    Table,
    /// One line a change, as the print connector: `+I[a, b]`.
    Changelog,
    /// One JSON object a line.
    Json,
    /// Comma-separated, with a header.
    Csv,
}

impl Form {
    /// The form where nobody says: a table on a terminal.
    pub fn default_for_stdout() -> Self {
        if std::io::stdout().is_terminal() { Self::Table } else { Self::Changelog }
    }
}

/// Prints batches as they come.
pub struct Printer {
    form: Form,
    schema: SchemaRef,
    zone: Tz,
    out: BufWriter<std::io::Stdout>,
    /// The result so far, for tables: rows in order of arrival, with how often each stands.
    rows: Vec<Vec<String>>,
    header_written: bool,
}

impl Printer {
    /// A printer of rows of `schema`.
    ///
    /// # Errors
    /// None today: forms that need a format's encoder report its options here.
    pub fn new(form: Form, schema: SchemaRef, zone: Tz) -> Result<Self> {
        Ok(Self { form, schema, zone, out: BufWriter::with_capacity(64 << 10, std::io::stdout()), rows: Vec::new(), header_written: false })
    }

    /// Prints until the job has dropped its end. A reader of stdout that has gone stops the job.
    ///
    /// # Errors
    /// Data: a value that the form cannot express.
    pub fn run(mut self, batches: &Receiver<StreamBatch>, stop: &Stop) -> Result<()> {
        loop {
            let batch = match batches.try_recv() {
                Ok(batch) => batch,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // What has been printed is seen before the next wait.
                    if self.out.flush().is_err() {
                        stop.graceful();
                    }
                    match batches.recv() {
                        Ok(batch) => batch,
                        Err(_) => break,
                    }
                }
            };
            if let Err(e) = self.batch(&batch)? {
                if e.kind() != std::io::ErrorKind::BrokenPipe {
                    return Err(Error::external("cannot write to stdout").caused_by(e));
                }
                stop.graceful();
                // The job's last rows are taken, so that it does not wait for us.
                while batches.recv().is_ok() {}
                return Ok(());
            }
        }
        if self.form == Form::Table {
            let columns = self.schema.fields().iter().map(|f| (f.name().as_str(), SqlType::of(f).is_numeric()));
            let mut table = TextTable::new(columns);
            self.rows.iter().for_each(|row| table.push(row));
            let _ = write!(self.out, "{}", table.draw(terminal_width()));
        }
        let _ = self.out.flush();
        Ok(())
    }

    fn batch(&mut self, batch: &StreamBatch) -> Result<std::io::Result<()>> {
        match self.form {
            Form::Table => {
                self.collect(batch);
                Ok(Ok(()))
            }
            Form::Changelog => Ok(self.changelog(batch)),
            Form::Json => self.json(batch),
            Form::Csv => Ok(self.csv(batch)),
        }
    }

    fn cells(&self, batch: &StreamBatch, row: usize) -> Vec<String> {
        let fields = self.schema.fields();
        let cell = |(c, field): (usize, &std::sync::Arc<arrow::datatypes::Field>)| {
            let mut text = String::new();
            write_value(batch.rows.column(c).as_ref(), field, row, self.zone, &mut text);
            text
        };
        fields.iter().enumerate().map(cell).collect()
    }

    fn collect(&mut self, batch: &StreamBatch) {
        let mut gone: HashMap<Vec<String>, usize> = HashMap::new();
        for row in 0..batch.num_rows() {
            let cells = self.cells(batch, row);
            if batch.kind(row).adds() {
                self.rows.push(cells);
            } else {
                *gone.entry(cells).or_default() += 1;
            }
        }
        // A retracted row stands somewhere before: the table is a multiset.
        if !gone.is_empty() {
            self.rows.retain(|row| match gone.get_mut(row) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    false
                }
                _ => true,
            });
        }
    }

    fn changelog(&mut self, batch: &StreamBatch) -> std::io::Result<()> {
        for row in 0..batch.num_rows() {
            let cells = self.cells(batch, row);
            writeln!(self.out, "{}[{}]", batch.kind(row).short(), cells.join(", "))?;
        }
        Ok(())
    }

    fn csv(&mut self, batch: &StreamBatch) -> std::io::Result<()> {
        let quoted = |text: &str| {
            if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
        };
        let updating = batch.kinds.is_some();
        if !std::mem::replace(&mut self.header_written, true) {
            let names = self.schema.fields().iter().map(|f| quoted(f.name()));
            let names: Vec<String> = updating.then(|| "op".to_string()).into_iter().chain(names).collect();
            writeln!(self.out, "{}", names.join(","))?;
        }
        for row in 0..batch.num_rows() {
            let null = |c: usize| arrow::array::Array::is_null(batch.rows.column(c).as_ref(), row);
            let cells = self.cells(batch, row).into_iter().enumerate().map(|(c, text)| if null(c) { String::new() } else { quoted(&text) });
            let line: Vec<String> = updating.then(|| batch.kind(row).short().to_string()).into_iter().chain(cells).collect();
            writeln!(self.out, "{}", line.join(","))?;
        }
        Ok(())
    }

    fn json(&mut self, batch: &StreamBatch) -> Result<std::io::Result<()>> {
        let mut records = crate::formats::Records::default();
        let mut options = crate::config::Options::new("--output json", Default::default());
        crate::formats::read_format("json", &mut options, "")?.encoder(&self.schema, self.zone)?.encode(&batch.rows, &mut records)?;
        for row in 0..batch.num_rows() {
            let record = records.get(row).unwrap_or(b"null");
            let written = if batch.kinds.is_some() {
                // `{` of the object is replaced by the operation and the rest of it.
                let rest = if record.len() > 2 { &record[1..] } else { &b"}"[..] };
                let comma = if record.len() > 2 { "," } else { "" };
                write!(self.out, "{{\"op\":\"{}\"{comma}", batch.kind(row).short()).and_then(|()| self.out.write_all(rest))
            } else {
                self.out.write_all(record)
            };
            if let Err(e) = written.and_then(|()| self.out.write_all(b"\n")) {
                return Ok(Err(e));
            }
        }
        Ok(Ok(()))
    }
}
