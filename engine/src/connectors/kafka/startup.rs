//! Where partitions start and end: start and bounded modes resolved to plain offsets at the first open.
//!
//! Everything later (the checkpoint, the assignment, the end of a run) works on numbers. What must always
//! hold: nothing is skipped silently: an offset that the cluster does not have is an error that names it.

use std::collections::BTreeMap;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Connection, QuietConsumer, REQUEST_PATIENCE};
use super::options::{Bound, KafkaOptions, Reset, Start};
use crate::error::{Error, Result};

/// A partition of a topic.
pub(super) type Part = (String, i32);

/// The oldest and the next offset of each of `parts`.
#[derive(Debug)]
pub(super) struct Extent {
    pub low: Vec<i64>,
    pub high: Vec<i64>,
}

/// Asks for the extent of `parts`.
///
/// # Errors
/// External: the cluster does not answer.
pub(super) fn extent(connection: &Connection, client: &QuietConsumer, parts: &[Part]) -> Result<Extent> {
    let known = |offsets: Vec<Option<i64>>| offsets.into_iter().map(|o| o.unwrap_or(0)).collect();
    Ok(Extent {
        low: known(offsets_at(connection, client, parts, Offset::Beginning)?),
        high: known(offsets_at(connection, client, parts, Offset::End)?),
    })
}

/// Where each of `parts` starts.
///
/// # Errors
/// User: an offset that is not there, or no committed one. External: the cluster does not answer.
pub(super) fn starts(
    options: &KafkaOptions,
    connection: &Connection,
    client: &QuietConsumer,
    parts: &[Part],
    extent: &Extent,
) -> Result<Vec<i64>> {
    match &options.start {
        Start::Earliest => Ok(extent.low.clone()),
        Start::Latest => Ok(extent.high.clone()),
        Start::Timestamp(millis) => {
            let found = offsets_at(connection, client, parts, Offset::Offset(*millis))?;
            Ok(found.iter().zip(&extent.high).map(|(o, high)| o.unwrap_or(*high)).collect())
        }
        Start::Group => {
            let committed = committed(connection, client, parts)?;
            let start = |(i, committed): (usize, &Option<i64>)| match (committed, options.reset) {
                (Some(o), _) if *o >= extent.low[i] => Ok(*o),
                (_, Reset::Earliest) => Ok(extent.low[i]),
                (_, Reset::Latest) => Ok(extent.high[i]),
                (Some(o), Reset::None) => Err(deleted(options, &parts[i], *o, extent.low[i])),
                (None, Reset::None) => Err(no_commit(options, &parts[i])),
            };
            committed.iter().enumerate().map(start).collect()
        }
        Start::Specific(wanted) => {
            known_partitions(options, "scan.startup.specific-offsets", wanted, parts)?;
            let fallback = match options.group {
                Some(_) if parts.iter().any(|p| !wanted.contains_key(&p.1)) => committed(connection, client, parts)?,
                _ => vec![None; parts.len()],
            };
            (0..parts.len())
                .map(|i| {
                    let Some(at) = wanted.get(&parts[i].1) else { return Ok(fallback[i].unwrap_or(extent.low[i])) };
                    if *at < extent.low[i] || *at > extent.high[i] {
                        let (topic, partition) = &parts[i];
                        return Err(Error::user(format!(
                            "{}: 'scan.startup.specific-offsets' says offset {at}, but partition {partition} of topic '{topic}' holds offsets {} to {}",
                            options.owner, extent.low[i], extent.high[i]
                        )));
                    }
                    Ok(*at)
                })
                .collect()
        }
    }
}

/// Where each of `parts` ends (exclusive); `None`: never.
///
/// # Errors
/// User: an end that cannot be known. External: the cluster does not answer.
pub(super) fn ends(
    options: &KafkaOptions,
    connection: &Connection,
    client: &QuietConsumer,
    parts: &[Part],
    extent: &Extent,
) -> Result<Vec<Option<i64>>> {
    match &options.bound {
        Bound::Unbounded => Ok(vec![None; parts.len()]),
        Bound::Latest => Ok(extent.high.iter().copied().map(Some).collect()),
        Bound::Timestamp(millis) => {
            let found = offsets_at(connection, client, parts, Offset::Offset(*millis))?;
            Ok(found.iter().zip(&extent.high).map(|(o, high)| Some(o.unwrap_or(*high))).collect())
        }
        Bound::Group => {
            let committed = committed(connection, client, parts)?;
            committed.iter().zip(parts).map(|(o, part)| o.map(Some).ok_or_else(|| no_commit(options, part))).collect()
        }
        Bound::Specific(wanted) => {
            known_partitions(options, "scan.bounded.specific-offsets", wanted, parts)?;
            let end = |part: &Part| {
                wanted.get(&part.1).copied().map(Some).ok_or_else(|| {
                    Error::user(format!(
                        "{}: 'scan.bounded.specific-offsets' does not say where partition {} of topic '{}' ends",
                        options.owner, part.1, part.0
                    ))
                    .help(format!("add 'partition:{},offset:…'", part.1))
                })
            };
            parts.iter().map(end).collect()
        }
    }
}

/// Records that the job has not read are gone.
pub(super) fn deleted(options: &KafkaOptions, (topic, partition): &Part, position: i64, low: i64) -> Error {
    let gone = if low > position { format!("offsets {position} to {}", low - 1) } else { format!("the records from offset {position} on") };
    Error::data(format!("{}: {gone} of topic '{topic}', partition {partition}, were deleted before they were read", options.owner))
        .help("raise the topic's retention; --fresh starts again with what is left")
}

fn no_commit(options: &KafkaOptions, (topic, partition): &Part) -> Error {
    let group = options.group.as_deref().unwrap_or_default();
    Error::user(format!("{}: group '{group}' has no committed offset for partition {partition} of topic '{topic}'", options.owner)).help(
        "set 'scan.startup.mode' = 'earliest-offset', or say with 'properties.auto.offset.reset' = 'earliest' where such partitions start",
    )
}

fn known_partitions(options: &KafkaOptions, key: &str, wanted: &BTreeMap<i32, i64>, parts: &[Part]) -> Result<()> {
    for partition in wanted.keys() {
        if !parts.iter().any(|p| p.1 == *partition) {
            let count = parts.len();
            return Err(Error::user(format!(
                "{}: '{key}' names partition {partition}, but the topic has {count} (0 to {})",
                options.owner,
                count - 1
            )));
        }
    }
    Ok(())
}

/// The first offset at or after `at` (a time, or a logical offset) in each of `parts`; `None`: there is none.
fn offsets_at(connection: &Connection, client: &QuietConsumer, parts: &[Part], at: Offset) -> Result<Vec<Option<i64>>> {
    let list = list(parts, |_| at)?;
    let answer = client.offsets_for_times(list, REQUEST_PATIENCE).map_err(|e| connection.failed("asking for offsets", &e))?;
    read(connection, parts, &answer)
}

/// Committed offsets of the consumer's group.
fn committed(connection: &Connection, client: &QuietConsumer, parts: &[Part]) -> Result<Vec<Option<i64>>> {
    let list = list(parts, |_| Offset::Invalid)?;
    let answer =
        client.committed_offsets(list, REQUEST_PATIENCE).map_err(|e| connection.failed("asking for the offsets of the group", &e))?;
    read(connection, parts, &answer)
}

/// A partition list with an offset each.
pub(super) fn list(parts: &[Part], offset: impl Fn(usize) -> Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(parts.len());
    for (i, (topic, partition)) in parts.iter().enumerate() {
        list.add_partition_offset(topic, *partition, offset(i))
            .map_err(|e| Error::internal("an offset that Kafka cannot express").caused_by(e))?;
    }
    Ok(list)
}

fn read(connection: &Connection, parts: &[Part], answer: &TopicPartitionList) -> Result<Vec<Option<i64>>> {
    let mut out = Vec::with_capacity(parts.len());
    for (topic, partition) in parts {
        let Some(found) = answer.find_partition(topic, *partition) else {
            return Err(Error::external(format!(
                "{}: the cluster says nothing of partition {partition} of topic '{topic}'",
                connection.owner()
            )));
        };
        found.error().map_err(|e| connection.failed(&format!("asking for offsets of topic '{topic}', partition {partition}"), &e))?;
        out.push(match found.offset() {
            Offset::Offset(o) => Some(o),
            _ => None,
        });
    }
    Ok(out)
}
