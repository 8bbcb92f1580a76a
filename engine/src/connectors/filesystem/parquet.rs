//! Parquet files: what is written, and how any writer's file is read as the declared columns.
//!
//! Written timestamps are INT64 in the unit of the declared precision, adjusted to UTC only for TIMESTAMP_LTZ.
//! Columns are read by name; a column that a file lacks is NULL. Flink's INT96 timestamps hold the wall time of
//! the machine's zone moved to UTC, unless it was told `parquet.utc-timezone`: they are moved back.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef, SchemaRef, TimeUnit, TimestampNanosecondType};
use chrono::{DateTime, TimeZone, Utc};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, GzipLevel, Type as PhysicalType, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::config::Options;
use crate::error::{Error, Result};

/// Options of the format.
#[derive(Debug, Clone)]
pub struct ParquetOptions {
    /// Compression of pages.
    pub compression: Compression,
    /// Bytes after which a row group is closed.
    pub block_bytes: u64,
    /// INT96 timestamps hold UTC, not the machine's zone.
    pub utc: bool,
}

impl ParquetOptions {
    /// Takes `parquet.*`.
    ///
    /// # Errors
    /// User: an unreadable value.
    pub fn read(options: &mut Options) -> Result<Self> {
        let choices = [
            ("UNCOMPRESSED", Compression::UNCOMPRESSED),
            ("SNAPPY", Compression::SNAPPY),
            ("GZIP", Compression::GZIP(GzipLevel::default())),
            ("ZSTD", Compression::ZSTD(ZstdLevel::default())),
            ("LZ4", Compression::LZ4),
            ("LZ4_RAW", Compression::LZ4_RAW),
        ];
        Ok(Self {
            compression: options.choice("parquet.compression", &choices, Compression::SNAPPY)?,
            block_bytes: options.bytes("parquet.block.size")?.unwrap_or(128 << 20),
            utc: options.flag("parquet.utc-timezone", false)?,
        })
    }

    /// How a file is written.
    pub fn writer_options(&self) -> ArrowWriterOptions {
        let properties = WriterProperties::builder()
            .set_compression(self.compression)
            // Lists and maps get the names that the Parquet format prescribes.
            .set_coerce_types(true)
            .set_created_by(concat!("velosql ", env!("CARGO_PKG_VERSION")).to_string())
            .build();
        // Without Arrow's own schema every reader, ours included, sees the same types.
        ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true)
    }
}

/// One file that is being read.
pub struct ParquetFile {
    reader: ParquetRecordBatchReader,
    /// The columns answered.
    wanted: Vec<FieldRef>,
    /// Which of them are INT96.
    int96: Vec<bool>,
    utc: bool,
    zone: chrono_tz::Tz,
    path: String,
    rest: Option<RecordBatch>,
}

impl ParquetFile {
    /// Opens `path` at row `skip` for the columns `wanted`.
    ///
    /// # Errors
    /// User: no Parquet file. External: it cannot be read.
    pub fn open(
        path: &Path,
        wanted: &SchemaRef,
        skip: usize,
        batch_rows: usize,
        options: &ParquetOptions,
        zone: chrono_tz::Tz,
    ) -> Result<Self> {
        let shown = path.display().to_string();
        let bad = |e: parquet::errors::ParquetError| Error::user(format!("'{shown}' cannot be read as Parquet")).caused_by(e);
        let file = File::open(path).map_err(|e| super::failed("cannot be read", path, e))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(bad)?;
        let of_file = builder.parquet_schema().clone();
        let roots: Vec<usize> = wanted.fields().iter().filter_map(|f| builder.schema().index_of(f.name()).ok()).collect();
        let int96 = wanted
            .fields()
            .iter()
            .map(|f| of_file.columns().iter().any(|c| c.path().string() == *f.name() && c.physical_type() == PhysicalType::INT96))
            .collect();
        let mask = ProjectionMask::roots(&of_file, roots);
        let reader = builder.with_projection(mask).with_offset(skip).with_batch_size(batch_rows.max(1)).build().map_err(bad)?;
        Ok(Self { reader, wanted: wanted.fields().to_vec(), int96, utc: options.utc, zone, path: shown, rest: None })
    }

    /// At most `rows` next rows in the declared types; `None` at the end.
    ///
    /// # Errors
    /// User: a column that cannot be of its declared type. External: the file is damaged.
    pub fn next(&mut self, rows: usize) -> Result<Option<(usize, Vec<ArrayRef>)>> {
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => loop {
                match self.reader.next().transpose().map_err(|e| Error::external(format!("'{}' is damaged", self.path)).caused_by(e))? {
                    None => return Ok(None),
                    Some(batch) if batch.num_rows() == 0 => {}
                    Some(batch) => break batch,
                }
            },
        };
        let now = batch.num_rows().min(rows.max(1));
        if now < batch.num_rows() {
            self.rest = Some(batch.slice(now, batch.num_rows() - now));
        }
        let batch = batch.slice(0, now);
        let columns = self.wanted.iter().zip(&self.int96).map(|(field, int96)| self.column(&batch, field, *int96));
        Ok(Some((now, columns.collect::<Result<_>>()?)))
    }

    fn column(&self, batch: &RecordBatch, field: &FieldRef, int96: bool) -> Result<ArrayRef> {
        let Some(column) = batch.column_by_name(field.name()) else { return Ok(new_null_array(field.data_type(), batch.num_rows())) };
        let mut column = column.clone();
        let declared = field.data_type();
        if int96 && !self.utc && matches!(declared, DataType::Timestamp(_, None)) {
            column = to_wall_time(&column, self.zone)?;
        }
        if column.data_type() == declared {
            return Ok(column);
        }
        let options = compute::CastOptions { safe: false, ..Default::default() };
        compute::cast_with_options(&column, declared, &options).map_err(|e| {
            Error::user(format!("column '{}' of '{}' is {} and cannot be read as declared", field.name(), self.path, column.data_type()))
                .help("declare the column with the type that the file has")
                .caused_by(e)
        })
    }
}

/// Points in time as the wall time of `zone`.
fn to_wall_time(column: &ArrayRef, zone: chrono_tz::Tz) -> Result<ArrayRef> {
    let nanos = compute::cast(column, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
    let shifted = nanos.as_primitive::<TimestampNanosecondType>().unary::<_, TimestampNanosecondType>(|n| {
        let instant: DateTime<Utc> = DateTime::from_timestamp_nanos(n);
        zone.from_utc_datetime(&instant.naive_utc()).naive_local().and_utc().timestamp_nanos_opt().unwrap_or(n)
    });
    Ok(Arc::new(shifted))
}

/// Columns with a number of rows, also where there is no column.
pub fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}
