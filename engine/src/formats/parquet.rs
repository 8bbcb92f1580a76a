//! Parquet: options, writing with the right types, and reading the wanted columns of a file.
//!
//! Time stamps are written as INT64 (milliseconds, microseconds or nanoseconds by precision), as UTC only for
//! TIMESTAMP_LTZ. Flink writes INT96 instead, moved from local time to UTC unless `parquet.utc-timezone` is
//! true; both are read.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, GzipLevel, Type as PhysicalType, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::config::Options;
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// The options of `'format' = 'parquet'`.
#[derive(Debug, Clone, PartialEq)]
pub struct ParquetOptions {
    /// `parquet.compression`.
    pub compression: Compression,
    /// `parquet.block.size`: bytes of a row group.
    pub row_group_bytes: u64,
    /// `parquet.page.size`.
    pub page_bytes: u64,
    /// `parquet.enable.dictionary`.
    pub dictionary: bool,
    /// `parquet.utc-timezone`: INT96 time stamps of a file are UTC, not local time.
    pub utc_timezone: bool,
}

impl Default for ParquetOptions {
    fn default() -> Self {
        Self { compression: Compression::SNAPPY, row_group_bytes: 128 << 20, page_bytes: 1 << 20, dictionary: true, utc_timezone: false }
    }
}

impl ParquetOptions {
    /// Takes the options under `prefix` (`parquet.`).
    ///
    /// # Errors
    /// User: a value that is none of an option's.
    pub fn take(options: &mut Options, prefix: &str) -> Result<Self> {
        let defaults = Self::default();
        let key = |name: &str| format!("{prefix}{name}");
        let compressions = [
            ("UNCOMPRESSED", Compression::UNCOMPRESSED),
            ("NONE", Compression::UNCOMPRESSED),
            ("SNAPPY", Compression::SNAPPY),
            ("GZIP", Compression::GZIP(GzipLevel::default())),
            ("ZSTD", Compression::ZSTD(ZstdLevel::default())),
            ("LZ4", Compression::LZ4_RAW),
            ("LZ4_RAW", Compression::LZ4_RAW),
        ];
        // Time stamps are always INT64 here, and the batch size is the job's.
        options.declare(&[&key("batch-size"), &key("write.int64.timestamp"), &key("timestamp.time.unit")]);
        Ok(Self {
            compression: options.choice(&key("compression"), &compressions, defaults.compression)?,
            row_group_bytes: options.bytes(&key("block.size"))?.unwrap_or(defaults.row_group_bytes).max(1),
            page_bytes: options.bytes(&key("page.size"))?.unwrap_or(defaults.page_bytes).max(1),
            dictionary: options.flag(&key("enable.dictionary"), defaults.dictionary)?,
            utc_timezone: options.flag(&key("utc-timezone"), defaults.utc_timezone)?,
        })
    }

    /// The writer's properties.
    pub fn writer_properties(&self) -> WriterProperties {
        WriterProperties::builder()
            .set_compression(self.compression)
            .set_max_row_group_bytes(Some(usize::try_from(self.row_group_bytes).unwrap_or(usize::MAX)))
            .set_data_page_size_limit(usize::try_from(self.page_bytes).unwrap_or(usize::MAX))
            .set_dictionary_enabled(self.dictionary)
            .set_coerce_types(true)
            .set_created_by(concat!("velosql version ", env!("CARGO_PKG_VERSION")).to_string())
            .build()
    }

    /// A writer of rows of `schema` to `out`. The Arrow schema is not written along: other readers have no use for it.
    ///
    /// # Errors
    /// User: a type that Parquet cannot hold.
    pub fn writer<W: Write + Send>(&self, out: W, schema: &SchemaRef) -> Result<ArrowWriter<W>> {
        let options = ArrowWriterOptions::new().with_properties(self.writer_properties()).with_skip_arrow_metadata(true);
        ArrowWriter::try_new_with_options(out, schema.clone(), options)
            .map_err(|e| Error::user("Parquet cannot hold these columns").caused_by(e))
    }
}

/// The wanted columns of one Parquet file, batch by batch, in the types of the table.
pub struct ParquetRows {
    reader: ParquetRecordBatchReader,
    path: String,
    schema: SchemaRef,
    /// For each wanted column its place in the reader's batches, and whether its INT96 values are local time.
    places: Vec<Option<(usize, bool)>>,
    zone: Tz,
}

impl ParquetRows {
    /// Opens `file`, known as `path`, for the `wanted` columns (ascending) of `physical`, by name, behind its first
    /// `skip` rows (row groups before them are not read). A column that the file does not have is NULL.
    ///
    /// # Errors
    /// User: no Parquet file, or one that lacks a NOT NULL column.
    #[allow(clippy::too_many_arguments, reason = "what a file is opened with, once, by one caller")]
    pub fn open(
        options: &ParquetOptions,
        file: File,
        path: &str,
        physical: &SchemaRef,
        wanted: &[usize],
        zone: Tz,
        batch_rows: usize,
        skip: usize,
    ) -> Result<Self> {
        let unreadable = |e: parquet::errors::ParquetError| {
            Error::user(format!("'{path}' cannot be read as Parquet"))
                .caused_by(e)
                .help("it is damaged, still being written, or of another format: copy it again, or move what is no Parquet file out of the table's path")
        };
        let read = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let mut metadata = ArrowReaderMetadata::load(&file, read()).map_err(unreadable)?;
        let descriptor = metadata.metadata().file_metadata().schema_descr_ptr();
        let of_file = metadata.schema().clone();
        let is_int96: Vec<bool> = (0..of_file.fields().len())
            .map(|root| {
                let leaf = (0..descriptor.num_columns()).find(|leaf| descriptor.get_column_root_idx(*leaf) == root);
                leaf.is_some_and(|leaf| descriptor.column(leaf).physical_type() == PhysicalType::INT96)
            })
            .collect();
        // As nanoseconds, INT96 would lose every year outside 1677…2262.
        if is_int96.contains(&true) {
            let micros = |(field, int96): (&Arc<Field>, &bool)| match field.data_type() {
                DataType::Timestamp(..) if *int96 => {
                    Arc::new(field.as_ref().clone().with_data_type(DataType::Timestamp(TimeUnit::Microsecond, None)))
                }
                _ => field.clone(),
            };
            let hinted: Schema = Schema::new(of_file.fields().iter().zip(&is_int96).map(micros).collect::<Vec<_>>());
            metadata =
                ArrowReaderMetadata::try_new(metadata.metadata().clone(), read().with_schema(Arc::new(hinted))).map_err(unreadable)?;
        }
        let schema = Arc::new(physical.project(wanted)?);
        let roots: Vec<Option<usize>> = schema.fields().iter().map(|f| of_file.index_of(f.name()).ok()).collect();
        for (field, root) in schema.fields().iter().zip(&roots) {
            if root.is_none() && !field.is_nullable() {
                return Err(Error::user(format!("'{path}' has no column '{}', which is NOT NULL", field.name())));
            }
        }
        let mut read_roots: Vec<usize> = roots.iter().flatten().copied().collect();
        read_roots.sort_unstable();
        read_roots.dedup();
        let place = |root: usize| read_roots.binary_search(&root).ok().map(|place| (place, is_int96[root] && !options.utc_timezone));
        let places = roots.iter().map(|root| root.and_then(place)).collect();
        let mask = ProjectionMask::roots(&descriptor, read_roots.iter().copied());
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_projection(mask)
            .with_batch_size(batch_rows.max(1))
            .with_offset(skip)
            .build()
            .map_err(unreadable)?;
        Ok(Self { reader, path: path.to_string(), schema, places, zone })
    }

    fn converted(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let column = |(field, place): (&Arc<Field>, &Option<(usize, bool)>)| -> Result<ArrayRef> {
            let Some((place, is_local)) = place else { return Ok(new_null_array(field.data_type(), batch.num_rows())) };
            let array = match batch.column(*place) {
                array if *is_local => to_local(array, self.zone),
                array => array.clone(),
            };
            if array.data_type() == field.data_type() {
                return Ok(array);
            }
            // A value that does not fit is an error, never a NULL.
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(&array, field.data_type(), &strict).map_err(|e| {
                Error::data(format!("'{}': column '{}' cannot be read as {}", self.path, field.name(), SqlType::of(field))).caused_by(e)
            })
        };
        let columns = self.schema.fields().iter().zip(&self.places).map(column).collect::<Result<Vec<_>>>()?;
        if let Some((field, _)) = self.schema.fields().iter().zip(&columns).find(|(f, c)| !f.is_nullable() && c.null_count() > 0) {
            return Err(Error::data(format!("'{}': column '{}' is NOT NULL, but holds NULL", self.path, field.name())));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

impl Iterator for ParquetRows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        let batch = batch.map_err(|e| Error::data(format!("'{}' is damaged", self.path)).caused_by(e).help("copy the file again"));
        Some(batch.and_then(|b| self.converted(&b)))
    }
}

/// What the clocks of `zone` showed at each of these points in time.
fn to_local(array: &ArrayRef, zone: Tz) -> ArrayRef {
    let Some(times) = array.as_primitive_opt::<TimestampMicrosecondType>() else { return array.clone() };
    let shifted: TimestampMicrosecondArray = times.unary(|us| match DateTime::from_timestamp_micros(us) {
        Some(t) => us.wrapping_add(i64::from(zone.offset_from_utc_datetime(&t.naive_utc()).fix().local_minus_utc()) * 1_000_000),
        None => us,
    });
    Arc::new(shifted)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StringArray, TimestampMillisecondArray};

    use super::*;
    use crate::formats::text::write_value;

    #[test]
    fn wanted_columns_come_back_in_the_types_of_the_table() {
        let written: SchemaRef = Arc::new(Schema::new(vec![
            SqlType::Int.field("n", true),
            SqlType::TimestampLtz(3).field("ts", true),
            SqlType::STRING.field("s", true),
        ]));
        let batch = RecordBatch::try_new(
            written.clone(),
            vec![
                Arc::new(Int32Array::from(vec![Some(7), None])),
                Arc::new(TimestampMillisecondArray::from(vec![1, 2]).with_timezone("UTC")),
                Arc::new(StringArray::from(vec!["a", "b"])),
            ],
        )
        .expect("a batch");
        let mut file = tempfile::tempfile().expect("a file");
        let options = ParquetOptions { compression: Compression::ZSTD(ZstdLevel::default()), ..ParquetOptions::default() };
        let mut writer = options.writer(&mut file, &written).expect("a writer");
        writer.write(&batch).expect("writes");
        writer.close().expect("closes");

        // Another order, another type, a column that the file lacks, and one that is not wanted.
        let table: SchemaRef = Arc::new(Schema::new(vec![
            SqlType::STRING.field("s", true),
            SqlType::TimestampLtz(6).field("ts", true),
            SqlType::Double.field("missing", true),
            SqlType::BigInt.field("n", true),
        ]));
        let rows =
            ParquetRows::open(&options, file.try_clone().expect("a handle"), "f.parquet", &table, &[1, 2, 3], chrono_tz::UTC, 100, 0);
        let batch = rows.and_then(|mut r| r.next().expect("one batch")).expect("reads");
        let shown = |row: usize| {
            let mut out = String::new();
            for (column, field) in batch.columns().iter().zip(batch.schema_ref().fields()) {
                write_value(column, field, row, chrono_tz::UTC, &mut out);
                out.push(' ');
            }
            out
        };
        assert_eq!((shown(0), shown(1)), ("1970-01-01T00:00:00.001Z null 7 ".into(), "1970-01-01T00:00:00.002Z null null ".into()));

        let strict: SchemaRef = Arc::new(Schema::new(vec![SqlType::Int.field("n", false)]));
        let rows = ParquetRows::open(&options, file, "f.parquet", &strict, &[0], chrono_tz::UTC, 100, 0);
        let e = rows.and_then(|mut r| r.next().expect("one batch")).expect_err("NULL in NOT NULL");
        assert_eq!(e.to_string(), "'f.parquet': column 'n' is NOT NULL, but holds NULL");
    }
}
