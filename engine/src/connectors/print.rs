//! `'connector' = 'print'`: one line a row on stdout (or stderr), such as `+I[1, a]`.
//!
//! Lines appear when rows arrive: printing is no durable output, and a job that is resumed may print a row
//! again. One writer prints all rows, so that lines keep their order.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use serde_json::Value;

use super::{Accepts, Committer, Context, Prepared, SinkTable, SinkWriter, TableSpec};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::formats::text;
use crate::stream::{Epoch, StreamBatch};

/// The sink of a print table.
///
/// # Errors
/// User: an option that does not exist.
pub fn sink(spec: &TableSpec, ctx: &Context) -> Result<Arc<dyn SinkTable>> {
    let mut options = Options::new(format!("table '{}'", spec.name), spec.options.clone());
    options.declare(&["connector", "sink.parallelism"]);
    let prefix = options.text("print-identifier").filter(|p| !p.is_empty()).map(|p| format!("{p}> ")).unwrap_or_default();
    let to_stderr = options.flag("standard-error", false)?;
    options.finish()?;
    Ok(Arc::new(Print { prefix, to_stderr, zone: ctx.zone }))
}

/// Appends the rows of `batch` to `out` as lines: `<prefix>+I[a, b]`.
pub fn write_lines(batch: &StreamBatch, prefix: &str, zone: chrono_tz::Tz, out: &mut String) {
    let schema = batch.rows.schema();
    for row in 0..batch.num_rows() {
        out.push_str(prefix);
        out.push_str(batch.kind(row).short());
        out.push('[');
        for (i, (column, field)) in batch.rows.columns().iter().zip(schema.fields()).enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            text::write_value(column, field, row, zone, out);
        }
        out.push_str("]\n");
    }
}

struct Print {
    prefix: String,
    to_stderr: bool,
    zone: chrono_tz::Tz,
}

impl SinkTable for Print {
    fn accepts(&self) -> Accepts {
        Accepts::Changelog
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn single_writer(&self) -> bool {
        true
    }

    fn writer(&self, _index: usize, _kept: Vec<RecordBatch>) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer { prefix: self.prefix.clone(), to_stderr: self.to_stderr, zone: self.zone, lines: String::new() }))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        Ok(Box::new(NothingToCommit))
    }
}

struct Writer {
    prefix: String,
    to_stderr: bool,
    zone: chrono_tz::Tz,
    lines: String,
}

impl SinkWriter for Writer {
    fn write(&mut self, batch: &StreamBatch) -> Result<()> {
        self.lines.clear();
        write_lines(batch, &self.prefix, self.zone, &mut self.lines);
        let (name, written) = if self.to_stderr {
            ("standard error", io::stderr().lock().write_all(self.lines.as_bytes()))
        } else {
            let mut out = io::stdout().lock();
            ("standard output", out.write_all(self.lines.as_bytes()).and_then(|()| out.flush()))
        };
        written.map_err(|e| Error::external(format!("{name} cannot be written")).caused_by(e))
    }

    fn prepare(&mut self, _epoch: Epoch, _last: bool) -> Result<Prepared> {
        Ok(Prepared::default())
    }
}

/// The committer of sinks whose output cannot be taken back.
pub struct NothingToCommit;

impl Committer for NothingToCommit {
    fn recover(&mut self, _epoch: Option<Epoch>, _pending: &[Value]) -> Result<()> {
        Ok(())
    }

    fn commit(&mut self, _epoch: Epoch, _pending: &[Value]) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Int32Array, StringArray};
    use arrow::datatypes::Schema;

    use super::*;
    use crate::stream::{RowKind, SqlType};

    #[test]
    fn lines_are_flinks() {
        let schema = Schema::new(vec![SqlType::Int.field("a", true), SqlType::STRING.field("s", true)]);
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(Int32Array::from(vec![Some(1), None])), Arc::new(StringArray::from(vec!["x", "y, z"]))];
        let rows = RecordBatch::try_new(Arc::new(schema), columns).expect("two columns");
        let mut out = String::new();
        write_lines(&StreamBatch::with_kinds(rows, vec![RowKind::Insert, RowKind::Delete]), "p> ", chrono_tz::UTC, &mut out);
        assert_eq!(out, "p> +I[1, x]\np> -D[null, y, z]\n");
    }

    #[test]
    fn a_connector_is_found_by_name_in_its_role() {
        let spec = |connector: &str| TableSpec {
            name: "t".into(),
            physical: Arc::new(Schema::empty()),
            metadata: vec![],
            partition_keys: vec![],
            primary_key: vec![],
            options: BTreeMap::from([("connector".to_string(), connector.to_string())]),
            knobs: BTreeMap::new(),
        };
        let ctx = Context { job: "j".into(), zone: chrono_tz::UTC, base: ".".into(), memory: Default::default() };
        let check = |e: Option<Error>, want: &str| assert_eq!(e.expect("refused").to_string(), want);
        check(super::super::sink(&spec("prnt"), &ctx).err(), "table 't' has an unknown connector 'prnt'\nhelp: did you mean 'print'?");
        check(
            super::super::source(&spec("print"), &ctx).err(),
            "table 't' cannot be read: the connector 'print' only takes rows\nhelp: read from a table with the connector kafka, filesystem or datagen",
        );
        assert!(super::super::sink(&spec("print"), &ctx).is_ok());
    }
}
