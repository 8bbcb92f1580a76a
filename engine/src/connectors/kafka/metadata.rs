//! Metadata columns of Kafka records: what each key is, and its column for a batch.
//!
//! Keys and types are Flink's. A column may be declared with another type that its value casts to; what
//! must always hold: a type that cannot be filled is refused when the table is made, never while it runs.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, Int32Array, Int64Array, MapBuilder, MapFieldNames, StringArray, StringBuilder,
    TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, TimeUnit};
use chrono::{DateTime, Offset, TimeZone, Utc};

use super::source::Wants;
use crate::connectors::{Envelope, MetadataColumn};
use crate::error::{Error, Result, nearest};
use crate::stream::SqlType;

/// A key of Kafka's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Topic,
    Partition,
    Offset,
    Timestamp,
    TimestampType,
    Headers,
    LeaderEpoch,
}

const KEYS: &[(&str, Key, bool)] = &[
    ("topic", Key::Topic, false),
    ("partition", Key::Partition, false),
    ("offset", Key::Offset, false),
    ("timestamp", Key::Timestamp, true),
    ("timestamp-type", Key::TimestampType, false),
    ("headers", Key::Headers, true),
    ("leader-epoch", Key::LeaderEpoch, false),
];

impl Key {
    /// The key of a declared column, with its type checked.
    ///
    /// # Errors
    /// User: an unknown key, or a type that it cannot fill.
    pub(super) fn of(owner: &str, column: &MetadataColumn) -> Result<Self> {
        let Some((_, key, _)) = KEYS.iter().find(|(name, ..)| *name == column.key) else {
            let e = Error::user(format!("{owner}: column '{}': Kafka records have no metadata '{}'", column.field.name(), column.key));
            return Err(match nearest(&column.key, KEYS.iter().map(|(n, ..)| *n)) {
                Some(n) => e.help(format!("did you mean METADATA FROM '{n}'?")),
                None => e.help(format!("there are {}", KEYS.iter().map(|(n, ..)| *n).collect::<Vec<_>>().join(", "))),
            });
        };
        let t = column.field.data_type();
        let fits = match key {
            Key::Timestamp => matches!(t, DataType::Timestamp(..) | DataType::Utf8),
            Key::Headers => matches!(t, DataType::Map(entries, _) if is_header_entries(entries)),
            Key::Topic | Key::TimestampType => *t == DataType::Utf8,
            Key::Partition | Key::Offset | Key::LeaderEpoch => t.is_numeric() || *t == DataType::Utf8,
        };
        if !fits {
            let natural = match key {
                Key::Topic | Key::TimestampType => "STRING",
                Key::Partition | Key::LeaderEpoch => "INT",
                Key::Offset => "BIGINT",
                Key::Timestamp => "TIMESTAMP_LTZ(3)",
                Key::Headers => "MAP<STRING, BYTES>",
            };
            return Err(Error::user(format!(
                "{owner}: column '{}' is {}, which metadata '{}' does not fit",
                column.field.name(),
                SqlType::of(&column.field),
                column.key
            ))
            .help(format!("declare it as {natural}")));
        }
        Ok(*key)
    }

    /// Whether INSERT can set it.
    pub(super) fn is_writable(self) -> bool {
        KEYS.iter().any(|(_, key, writable)| *key == self && *writable)
    }

    /// What the fetcher must keep for it.
    pub(super) fn want(self, wants: &mut Wants) {
        match self {
            Self::Timestamp | Self::TimestampType => wants.timestamps = true,
            Self::Headers => wants.headers = true,
            Self::LeaderEpoch => wants.leader_epochs = true,
            Self::Topic | Self::Partition | Self::Offset => {}
        }
    }

    /// The column of `field`'s type: one value for each record index in `rows`.
    ///
    /// # Errors
    /// Internal: a cast that [`Key::of`] should have refused.
    pub(super) fn column(self, envelope: &Envelope, rows: Rows<'_>, field: &Field, zone: chrono_tz::Tz) -> Result<ArrayRef> {
        let natural: ArrayRef = match self {
            Self::Topic => Arc::new(StringArray::from_iter_values(rows.iter().map(|_| envelope.origin.as_ref()))),
            Self::Partition => Arc::new(Int32Array::from_value(envelope.partition, rows.len())),
            Self::Offset => Arc::new(Int64Array::from_iter_values(rows.iter().map(|i| envelope.offsets[i]))),
            Self::Timestamp => return timestamps(envelope, rows, field.data_type(), zone),
            Self::TimestampType => Arc::new(StringArray::from_iter_values(rows.iter().map(|i| match envelope.timestamp_types[i] {
                1 => "CreateTime",
                2 => "LogAppendTime",
                _ => "NoTimestampType",
            }))),
            Self::Headers => return headers(envelope, rows, field),
            Self::LeaderEpoch => {
                let epochs = rows.iter().map(|i| Some(envelope.leader_epochs[i]).filter(|e| *e >= 0));
                Arc::new(epochs.collect::<Int32Array>())
            }
        };
        Ok(if natural.data_type() == field.data_type() { natural } else { cast(&natural, field.data_type())? })
    }
}

/// The records that rows came from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Every record gave one row.
    All(usize),
    /// Record index of each row.
    Of(&'a [u32]),
}

impl Rows<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::All(n) => n,
            Self::Of(origin) => origin.len(),
        }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(move |i| match self {
            Self::All(_) => i,
            Self::Of(origin) => origin[i] as usize,
        })
    }
}

fn timestamps(envelope: &Envelope, rows: Rows<'_>, to: &DataType, zone: chrono_tz::Tz) -> Result<ArrayRef> {
    let millis = rows.iter().map(|i| envelope.timestamps[i]);
    let local = |ms: i64| {
        let offset =
            DateTime::<Utc>::from_timestamp_millis(ms).map_or(0, |t| zone.offset_from_utc_datetime(&t.naive_utc()).fix().local_minus_utc());
        ms + i64::from(offset) * 1000
    };
    let base: ArrayRef = match to {
        DataType::Timestamp(_, Some(z)) => Arc::new(TimestampMillisecondArray::from_iter_values(millis).with_timezone(z.clone())),
        DataType::Timestamp(_, None) => Arc::new(TimestampMillisecondArray::from_iter_values(millis.map(local))),
        _ => {
            let text = |ms: i64| DateTime::<Utc>::from_timestamp_millis(local(ms)).map(|t| t.format("%Y-%m-%d %H:%M:%S%.3f").to_string());
            return Ok(Arc::new(millis.map(text).collect::<StringArray>()));
        }
    };
    Ok(match to {
        DataType::Timestamp(TimeUnit::Millisecond, _) => base,
        other => cast(&base, other)?,
    })
}

fn is_header_entries(entries: &Field) -> bool {
    matches!(entries.data_type(), DataType::Struct(fields)
        if fields.len() == 2 && *fields[0].data_type() == DataType::Utf8 && *fields[1].data_type() == DataType::Binary)
}

fn headers(envelope: &Envelope, rows: Rows<'_>, field: &Field) -> Result<ArrayRef> {
    let DataType::Map(entries, _) = field.data_type() else {
        return Err(Error::internal("headers asked for as something other than a map"));
    };
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(Error::internal("a map without entries"));
    };
    let names = MapFieldNames { entry: entries.name().clone(), key: fields[0].name().clone(), value: fields[1].name().clone() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), BinaryBuilder::new())
        .with_keys_field(fields[0].clone())
        .with_values_field(fields[1].clone());
    for i in rows.iter() {
        let list = &envelope.headers[i];
        for (at, (name, value)) in list.iter().enumerate() {
            // A map has a key once: the last header of a name wins, as in Flink.
            if list[at + 1..].iter().all(|(later, _)| later != name) {
                builder.keys().append_value(name);
                builder.values().append_value(value);
            }
        }
        builder.append(true)?;
    }
    let map = builder.finish();
    debug_assert_eq!(map.data_type(), field.data_type());
    Ok(Arc::new(map))
}
