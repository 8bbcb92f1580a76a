//! Metadata columns: facts about a record that stand beside its value.
//!
//! Shared by the connectors: a check of the keys that a table asks for, and a reader that puts the facts of
//! each record behind the decoded columns of its rows.

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::{Field, SchemaRef};

use super::{Envelope, Payload, RowReader, TableSpec};
use crate::error::{Error, Result, nearest};
use crate::formats::{Decoded, Decoder};

/// Refuses metadata keys that are not in `known`.
///
/// # Errors
/// User: such a key, with the nearest known one.
pub fn check(spec: &TableSpec, known: &[&str]) -> Result<()> {
    for column in &spec.metadata {
        if known.contains(&column.key.as_str()) {
            continue;
        }
        let e =
            Error::user(format!("table '{}', column '{}': the connector has no metadata '{}'", spec.name, column.field.name(), column.key));
        return Err(match nearest(&column.key, known.iter().copied()) {
            Some(n) => e.help(format!("did you mean METADATA FROM '{n}'?")),
            None if known.is_empty() => e.help("this connector has no metadata columns"),
            None => e.help(format!("known here: {}", known.join(", "))),
        });
    }
    Ok(())
}

/// `values` in the type of the declared column.
///
/// # Errors
/// User: a type that the values cannot be cast to.
pub fn cast(values: ArrayRef, field: &Field) -> Result<ArrayRef> {
    if values.data_type() == field.data_type() {
        return Ok(values);
    }
    compute::cast(&values, field.data_type()).map_err(|e| {
        Error::user(format!("metadata column '{}' cannot be of the declared type", field.name()))
            .help("declare the type that the connector gives: see docs/SQL.md")
            .caused_by(e)
    })
}

/// Decodes raw payloads and appends metadata columns.
pub struct MetadataReader<F> {
    decoder: Box<dyn Decoder>,
    schema: SchemaRef,
    keys: Vec<String>,
    value: F,
}

impl<F: Fn(&str, &Envelope, usize) -> ArrayRef + Send> MetadataReader<F> {
    /// A reader that answers `schema`: what `decoder` answers, then one column for each of `keys`, whose values for
    /// all records of a payload come from `value(key, envelope, records)`.
    pub fn new(decoder: Box<dyn Decoder>, schema: SchemaRef, keys: Vec<String>, value: F) -> Self {
        Self { decoder, schema, keys, value }
    }
}

impl<F: Fn(&str, &Envelope, usize) -> ArrayRef + Send> RowReader for MetadataReader<F> {
    fn read(&mut self, payload: &Payload) -> Result<Decoded> {
        let (values, envelope) = match payload {
            Payload::Rows(batch) => {
                return Ok(Decoded { batch: batch.clone(), origin: None, rejected: vec![], nulled_values: 0 });
            }
            Payload::Raw { values, envelope } => (values, envelope),
        };
        let mut decoded = self.decoder.decode(values)?;
        if self.keys.is_empty() {
            return Ok(decoded);
        }
        let rows = decoded.batch.num_rows();
        let mut columns = decoded.batch.columns().to_vec();
        let origin = decoded.origin.as_ref().map(|o| UInt32Array::from(o.clone()));
        for key in &self.keys {
            let of_records = (self.value)(key, envelope, values.len());
            let of_rows = match &origin {
                Some(origin) => compute::take(&of_records, origin, None)?,
                None => of_records,
            };
            debug_assert_eq!(of_rows.len(), rows);
            columns.push(cast(of_rows, &self.schema.fields()[columns.len()])?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        decoded.batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(decoded)
    }
}
