//! Parquet rows as JSON objects, in the forms of the `json` format (`timestamp-format.standard` = `SQL`).

use std::fs::File;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::input::Records as RecordsOf;
use crate::config::Options;
use crate::error::{Error, Result};
use crate::formats::{Encoder, Records, read_format};
use crate::stream::SqlType;

/// A Parquet file.
pub struct ParquetRecords {
    file: String,
    reader: ParquetRecordBatchReader,
    /// The columns in the engine's types.
    schema: SchemaRef,
    encoder: Box<dyn Encoder>,
    encoded: Records,
    next: usize,
    row: u64,
}

impl ParquetRecords {
    /// Opens a file.
    ///
    /// # Errors
    /// User: it is no Parquet file, or a type has no JSON form.
    pub fn open(file: &str, opened: File) -> Result<Self> {
        let unreadable = |e: parquet::errors::ParquetError| Error::user(format!("{file} cannot be read as Parquet")).caused_by(e);
        let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(unreadable)?;
        let fields: Vec<_> = builder.schema().fields().iter().map(|f| SqlType::of(f).field(f.name(), true)).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let reader = builder.with_batch_size(4096).build().map_err(unreadable)?;
        let mut options = Options::new(file, Default::default());
        let encoder = read_format("json", &mut options, "")?.encoder(&schema, chrono_tz::UTC)?;
        Ok(Self { file: file.to_string(), reader, schema, encoder, encoded: Records::default(), next: 0, row: 0 })
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<()> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let column = |(array, field): (&arrow::array::ArrayRef, &Arc<arrow::datatypes::Field>)| {
            cast_with_options(array, field.data_type(), &options)
                .map_err(|e| Error::user(format!("{}: column '{}' cannot be written as JSON", self.file, field.name())).caused_by(e))
        };
        let columns = batch.columns().iter().zip(self.schema.fields()).map(column).collect::<Result<Vec<_>>>()?;
        self.encoded.clear();
        self.next = 0;
        self.encoder.encode(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?, &mut self.encoded)
    }
}

impl RecordsOf for ParquetRecords {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        out.clear();
        while self.next == self.encoded.len() {
            let Some(batch) = self.reader.next() else { return Ok(false) };
            let batch = batch.map_err(|e| Error::user(format!("{}: cannot be read after row {}", self.file, self.row)).caused_by(e))?;
            self.encode(&batch)?;
        }
        out.extend_from_slice(self.encoded.get(self.next).unwrap_or(b"null"));
        self.next += 1;
        self.row += 1;
        Ok(true)
    }

    fn place(&self) -> String {
        format!("row {}", self.row)
    }
}
