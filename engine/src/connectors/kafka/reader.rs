//! Raw Kafka records → columns: the value's, the key's and the metadata's, in the order of the scan.
//!
//! What must always hold: row `i` of every column comes from the same record. Value and key are decoded
//! apart and joined by record index; a record that either half cannot read is rejected once.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::SchemaRef;

use super::metadata::{Key, Rows};
use super::options::KafkaOptions;
use super::source::Wants;
use crate::connectors::{Context, Envelope, Payload, RowReader, Scan, TableSpec};
use crate::error::{Error, Result};
use crate::formats::{Decoded, Decoder, Records, Rejected};

/// Where a column of the scan comes from.
enum Part {
    Value(usize),
    Key(usize),
    Metadata(Key),
}

/// Reads payloads of one table.
pub(super) struct KafkaReader {
    schema: SchemaRef,
    parts: Vec<Part>,
    values: Box<dyn Decoder>,
    keys: Option<Box<dyn Decoder>>,
    zone: chrono_tz::Tz,
}

/// What the fetcher must keep for `scan`.
///
/// # Errors
/// User: a metadata column that Kafka cannot fill.
pub(super) fn wants(spec: &TableSpec, options: &KafkaOptions, scan: &Scan) -> Result<Wants> {
    let mut wants = Wants { keys: !key_columns(options, scan).is_empty(), ..Wants::default() };
    for at in &scan.metadata {
        Key::of(&options.owner, &spec.metadata[*at])?.want(&mut wants);
    }
    Ok(wants)
}

/// Places in the key of the wanted columns that only the key has: where both have one, the value's counts.
fn key_columns(options: &KafkaOptions, scan: &Scan) -> Vec<usize> {
    let layout = &options.layout;
    (0..layout.key_columns.len())
        .filter(|k| scan.physical.contains(&layout.key_columns[*k]) && !layout.value_columns.contains(&layout.key_columns[*k]))
        .collect()
}

impl KafkaReader {
    pub(super) fn new(spec: &TableSpec, options: &KafkaOptions, scan: &Scan, ctx: &Context) -> Result<Self> {
        let layout = &options.layout;
        let mut wanted_keys = key_columns(options, scan);
        wanted_keys.sort_unstable();
        let wanted_values: Vec<usize> =
            (0..layout.value_columns.len()).filter(|v| scan.physical.contains(&layout.value_columns[*v])).collect();
        let mut parts = Vec::new();
        for column in &scan.physical {
            let in_value = wanted_values.iter().position(|v| layout.value_columns[*v] == *column);
            let in_key = wanted_keys.iter().position(|k| layout.key_columns[*k] == *column);
            parts.push(match (in_value, in_key) {
                (Some(v), _) => Part::Value(v),
                (None, Some(k)) => Part::Key(k),
                (None, None) => return Err(Error::internal("a wanted column is in neither value nor key")),
            });
        }
        for at in &scan.metadata {
            parts.push(Part::Metadata(Key::of(&options.owner, &spec.metadata[*at])?));
        }
        let values = layout.value_format.decoder(&layout.value_schema, &wanted_values, ctx.zone)?;
        let keys = match &layout.key_format {
            Some(format) if !wanted_keys.is_empty() => Some(format.decoder(&layout.key_schema, &wanted_keys, ctx.zone)?),
            _ => None,
        };
        Ok(Self { schema: scan.schema(spec), parts, values, keys, zone: ctx.zone })
    }

    fn read_raw(&mut self, values: &Records, envelope: &Envelope) -> Result<Decoded> {
        let mut decoded = self.values.decode(values)?;
        let Some(keys) = &mut self.keys else {
            let rows = rows_of(&decoded);
            let columns = self.columns(&decoded.batch, None, envelope, rows)?;
            decoded.batch = batch(&self.schema, columns, rows.len())?;
            return Ok(decoded);
        };
        let key = keys.decode(&envelope.keys)?;
        let (value_rows, key_rows) = join(&mut decoded, key_origins(&key, values.len()), &key, values.len());
        decoded.nulled_values += key.nulled_values;
        let batch_values = take_record_batch(&decoded.batch, &value_rows)?;
        let batch_keys = key.batch.columns().iter().map(|c| take(c, &key_rows, None)).collect::<Result<Vec<_>, _>>()?;
        let rows = rows_of(&decoded);
        let columns = self.columns(&batch_values, Some(&batch_keys), envelope, rows)?;
        decoded.batch = batch(&self.schema, columns, rows.len())?;
        Ok(decoded)
    }

    fn columns(&self, values: &RecordBatch, keys: Option<&[ArrayRef]>, envelope: &Envelope, rows: Rows<'_>) -> Result<Vec<ArrayRef>> {
        let column = |(at, part): (usize, &Part)| match part {
            Part::Value(v) => Ok(values.column(*v).clone()),
            Part::Key(k) => keys.map(|keys| keys[*k].clone()).ok_or_else(|| Error::internal("a key column without keys")),
            Part::Metadata(key) => key.column(envelope, rows, self.schema.field(at), self.zone),
        };
        self.parts.iter().enumerate().map(column).collect()
    }
}

impl RowReader for KafkaReader {
    fn read(&mut self, payload: &Payload) -> Result<Decoded> {
        match payload {
            Payload::Raw { values, envelope } => self.read_raw(values, envelope),
            Payload::Rows(batch) => Ok(Decoded { batch: batch.clone(), origin: None, rejected: Vec::new(), nulled_values: 0 }),
        }
    }
}

fn rows_of(decoded: &Decoded) -> Rows<'_> {
    match &decoded.origin {
        Some(origin) => Rows::Of(origin),
        None => Rows::All(decoded.batch.num_rows()),
    }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

/// Row of each record in the decoded keys.
fn key_origins(key: &Decoded, records: usize) -> Vec<Option<u32>> {
    let mut row_of = vec![None; records];
    for (row, record) in rows_of(key).iter().enumerate() {
        if let Some(place) = row_of.get_mut(record) {
            *place = Some(row as u32);
        }
    }
    row_of
}

/// Joins rows of the value with rows of the key by record. Records without a readable key are rejected.
fn join(values: &mut Decoded, key_row: Vec<Option<u32>>, key: &Decoded, records: usize) -> (UInt32Array, UInt32Array) {
    let mut rejected = vec![false; records];
    for r in &values.rejected {
        rejected[r.index] = true;
    }
    let mut reasons: Vec<Option<&str>> = vec![None; records];
    for r in &key.rejected {
        reasons[r.index] = Some(&r.reason);
    }
    let (mut value_rows, mut key_rows, mut origin, mut keyless) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (row, record) in rows_of(values).iter().enumerate() {
        if let Some(k) = key_row[record] {
            value_rows.push(row as u32);
            key_rows.push(k);
            origin.push(record as u32);
        } else if !rejected[record] {
            rejected[record] = true;
            let reason = reasons[record].map_or("the record has no key".to_string(), |r| format!("key: {r}"));
            keyless.push(Rejected { index: record, reason });
        }
    }
    values.rejected.extend(keyless);
    values.rejected.sort_by_key(|r| r.index);
    values.origin = Some(origin);
    (UInt32Array::from(value_rows), UInt32Array::from(key_rows))
}
