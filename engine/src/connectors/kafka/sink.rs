//! Writing topics: rows become records with a key, a value, and the timestamp and headers that INSERT sets.
//!
//! At least once: a checkpoint waits until the cluster has acknowledged every record before its barrier, so
//! there is nothing to commit; after a crash the rows since the last checkpoint come twice. What must
//! always hold: `prepare` answers success only when every record is acknowledged.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use chrono::{DateTime, TimeZone, Utc};

use super::client::Connection;
use super::metadata::Key;
use super::options::{Guarantee, KafkaOptions, Partitioning, Topics};
use super::producer::{Outgoing, Producer};
use crate::connectors::{Accepts, Committer, Context, Prepared, SinkTable, SinkWriter, TableSpec};
use crate::error::{Error, Result};
use crate::formats::{Encoder, Records};
use crate::stream::{Epoch, StreamBatch};

/// A topic that a job writes.
pub(super) struct KafkaSink {
    options: Arc<KafkaOptions>,
    connection: Connection,
    topic: String,
    /// Places of the writable metadata columns in the rows given.
    timestamp: Option<usize>,
    headers: Option<usize>,
    zone: chrono_tz::Tz,
}

impl KafkaSink {
    pub(super) fn new(spec: &TableSpec, options: KafkaOptions, connection: Connection, ctx: &Context) -> Result<Self> {
        let Topics::Named(names) = &options.topics else {
            return Err(Error::internal("a written table with a topic pattern"));
        };
        let topic = names.first().cloned().ok_or_else(|| Error::internal("a written table without a topic"))?;
        let (mut timestamp, mut headers) = (None, None);
        let first = spec.physical.fields().len();
        for (at, column) in (first..).zip(spec.metadata.iter().filter(|m| !m.is_virtual)) {
            let key = Key::of(&options.owner, column)?;
            if !key.is_writable() {
                return Err(Error::user(format!(
                    "{}: column '{}' cannot be written: Kafka sets '{}'",
                    options.owner,
                    column.field.name(),
                    column.key
                ))
                .help(format!(
                    "declare it METADATA VIRTUAL: {} … METADATA FROM '{}' VIRTUAL",
                    column.field.name(),
                    column.key
                )));
            }
            match key {
                Key::Timestamp => {
                    if !matches!(column.field.data_type(), DataType::Timestamp(..)) {
                        return Err(Error::user(format!("{}: column '{}' is written as a timestamp", options.owner, column.field.name()))
                            .help("declare it as TIMESTAMP_LTZ(3)"));
                    }
                    timestamp = Some(at);
                }
                _ => headers = Some(at),
            }
        }
        Ok(Self { options: Arc::new(options), connection, topic, timestamp, headers, zone: ctx.zone })
    }
}

impl SinkTable for KafkaSink {
    fn accepts(&self) -> Accepts {
        Accepts::AppendOnly
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn writer(&self, index: usize, _kept: Vec<RecordBatch>) -> Result<Box<dyn SinkWriter>> {
        let layout = &self.options.layout;
        let producer = Producer::open(&self.connection)?;
        let partitions = producer.partitions(&self.topic)?;
        let keys = match &layout.key_format {
            Some(format) => Some((format.encoder(&layout.key_schema, self.zone)?, Records::default())),
            None => None,
        };
        Ok(Box::new(KafkaWriter {
            options: self.options.clone(),
            topic: self.topic.clone(),
            producer,
            partitions,
            fixed: i32::try_from(index % partitions.max(1) as usize).unwrap_or(0),
            turn: i32::try_from(index % partitions.max(1) as usize).unwrap_or(0),
            values: (layout.value_format.encoder(&layout.value_schema, self.zone)?, Records::default()),
            keys,
            timestamp: self.timestamp,
            headers: self.headers,
            zone: self.zone,
        }))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        Ok(Box::new(NothingToCommit { topic: self.topic.clone() }))
    }
}

struct KafkaWriter {
    options: Arc<KafkaOptions>,
    topic: String,
    producer: Producer,
    partitions: i32,
    fixed: i32,
    turn: i32,
    values: (Box<dyn Encoder>, Records),
    keys: Option<(Box<dyn Encoder>, Records)>,
    timestamp: Option<usize>,
    headers: Option<usize>,
    zone: chrono_tz::Tz,
}

impl SinkWriter for KafkaWriter {
    fn write(&mut self, batch: &StreamBatch) -> Result<()> {
        let layout = &self.options.layout;
        if let Some(kind) = (0..batch.num_rows()).map(|i| batch.kind(i)).find(|k| !k.adds()) {
            return Err(Error::internal(format!("{}: a {} row came to an append-only topic", self.options.owner, kind.short())));
        }
        let (encoder, values) = &mut self.values;
        values.clear();
        let columns = columns(&batch.rows, &layout.value_columns, &layout.value_schema)?;
        encoder.encode(&columns, values).map_err(|e| e.context(format!("{}, topic '{}'", self.options.owner, self.topic)))?;
        assert_eq!(values.len(), batch.num_rows(), "an encoder writes one record a row");
        if let Some((encoder, keys)) = &mut self.keys {
            keys.clear();
            let columns = self::columns(&batch.rows, &layout.key_columns, &layout.key_schema)?;
            encoder.encode(&columns, keys).map_err(|e| e.context(format!("{}, key of topic '{}'", self.options.owner, self.topic)))?;
            assert_eq!(keys.len(), batch.num_rows(), "an encoder writes one record a row");
        }
        let timestamps = self.timestamp.map(|at| epoch_millis(batch.rows.column(at).as_ref(), self.zone)).transpose()?;
        let headers = self.headers.map(|at| batch.rows.column(at).as_map());
        let mut row_headers = Vec::new();
        for row in 0..batch.num_rows() {
            let partition = match self.options.partitioning {
                Partitioning::Default => None,
                Partitioning::Fixed => Some(self.fixed),
                Partitioning::RoundRobin => {
                    self.turn = (self.turn + 1) % self.partitions.max(1);
                    Some(self.turn)
                }
            };
            row_headers.clear();
            if let Some(map) = headers.filter(|m| m.is_valid(row)) {
                let entries = map.value(row);
                let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_binary::<i32>());
                row_headers.extend((0..entries.len()).map(|i| (names.value(i).to_string(), values.value(i).to_vec())));
            }
            self.producer.send(
                &self.topic,
                &Outgoing {
                    key: self.keys.as_ref().and_then(|(_, keys)| keys.get(row)),
                    value: values.get(row),
                    partition,
                    timestamp: timestamps.as_ref().and_then(|t| t[row]),
                    headers: &row_headers,
                },
            )?;
        }
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch, last: bool) -> Result<Prepared> {
        // Without a guarantee a checkpoint does not wait; the end of the job still does.
        if last || self.options.guarantee == Guarantee::AtLeastOnce {
            self.producer.flush()?;
        }
        Ok(Prepared::default())
    }
}

/// Records are in the topic when `prepare` has answered.
struct NothingToCommit {
    topic: String,
}

impl Committer for NothingToCommit {
    fn recover(&mut self, _epoch: Option<Epoch>, _pending: &[serde_json::Value]) -> Result<()> {
        Ok(())
    }

    fn commit(&mut self, _epoch: Epoch, _pending: &[serde_json::Value]) -> Result<()> {
        Ok(())
    }

    fn remove_committed(&mut self) -> Result<Option<String>> {
        Ok(Some(format!("topic '{}' keeps what this job has written before: new rows are appended to it", self.topic)))
    }
}

/// The columns at `indices` under the names of `schema`.
fn columns(rows: &RecordBatch, indices: &[usize], schema: &arrow::datatypes::SchemaRef) -> Result<RecordBatch> {
    let columns = indices.iter().map(|i| rows.column(*i).clone()).collect();
    let count = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &count)?)
}

/// Milliseconds since the epoch; a timestamp without a zone is read in `zone`.
fn epoch_millis(column: &dyn Array, zone: chrono_tz::Tz) -> Result<Vec<Option<i64>>> {
    let is_local = matches!(column.data_type(), DataType::Timestamp(_, None));
    let to = match column.data_type() {
        DataType::Timestamp(_, z) => DataType::Timestamp(TimeUnit::Millisecond, z.clone()),
        _ => return Err(Error::internal("a timestamp column of another type")),
    };
    let millis = cast(column, &to)?;
    let millis = millis.as_primitive::<TimestampMillisecondType>();
    let absolute = |ms: i64| {
        let local = DateTime::<Utc>::from_timestamp_millis(ms)?.naive_utc();
        // In the hour that a clock change skips there is no such moment: the one with the old offset counts.
        zone.from_local_datetime(&local).earliest().map(|t| t.timestamp_millis()).or(Some(ms))
    };
    Ok(millis.iter().map(|ms| ms.and_then(|ms| if is_local { absolute(ms) } else { Some(ms) })).collect())
}
