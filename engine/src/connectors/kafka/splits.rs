//! The partitions of a table: which there are, where each begins, and what has arrived of it.
//!
//! At the first open begins and ends come from the table's modes; after that from the checkpoint, which is
//! held against what the cluster still has. What must always hold: a position that the cluster cannot serve
//! is an error at opening, never a silent jump.

use std::sync::Arc;

use super::client::{CONNECT_PATIENCE, Connection, QuietConsumer};
use super::options::{Bound, KafkaOptions, Topics};
use super::properties::Role;
use super::startup::{Part, deleted, ends, extent, starts};
use crate::connectors::{Envelope, Fetched, Payload, Position, Split};
use crate::error::{Error, Result};
use crate::formats::Records;

/// A partition on its way.
pub(super) struct SplitState {
    id: String,
    pub part: Part,
    origin: Arc<str>,
    pub position: i64,
    pub end: Option<i64>,
    pub ended: bool,
    pub assigned: bool,
    pub values: Records,
    pub envelope: Envelope,
    /// Records of the last batch, to size the next buffers.
    usual: (usize, usize),
}

impl SplitState {
    /// A partition that is read from `position` on.
    pub(super) fn new(options: &KafkaOptions, part: Part, position: i64, end: Option<i64>) -> Self {
        let origin: Arc<str> = part.0.as_str().into();
        let mut state = Self {
            id: split_id(options, &part),
            part,
            origin,
            position,
            end,
            ended: false,
            assigned: false,
            values: Records::default(),
            envelope: Envelope::default(),
            usual: (0, 0),
        };
        state.envelope = state.empty_envelope();
        state
    }

    fn empty_envelope(&self) -> Envelope {
        Envelope { origin: self.origin.clone(), partition: self.part.1, ..Envelope::default() }
    }

    /// Makes room for a batch like the last one.
    pub(super) fn reserve(&mut self) {
        let (records, bytes) = self.usual;
        self.values.ends.reserve(records);
        self.values.bytes.reserve(bytes);
        self.envelope.offsets.reserve(records);
    }

    /// The buffered records as a batch of split `at`.
    pub(super) fn hand_out(&mut self, at: usize) -> Fetched {
        self.usual = (self.values.len(), self.values.bytes.len());
        let empty = self.empty_envelope();
        let payload = Payload::Raw { values: std::mem::take(&mut self.values), envelope: std::mem::replace(&mut self.envelope, empty) };
        Fetched::Batch { split: at, payload, position: Position { file: None, offset: self.position } }
    }

    /// As a checkpoint keeps it.
    pub(super) fn split(&self) -> Split {
        Split { id: self.id.clone(), position: Position { file: None, offset: self.position }, end: self.end, ended: self.ended }
    }
}

/// The consumer that reads the table.
pub(super) fn consumer(options: &KafkaOptions, connection: &Connection, job: &str) -> Result<QuietConsumer> {
    // A group is needed even to be assigned partitions; without one of the user's, nothing is committed.
    let group = options.group.clone().unwrap_or_else(|| format!("velosql-{job}"));
    let defaults = [
        ("isolation.level", "read_committed"),
        // One bound for all partitions, and no pause of a second each time it is met.
        ("queued.max.messages.kbytes", "32768"),
        ("queued.min.messages", "100000"),
        ("fetch.queue.backoff.ms", "5"),
        ("fetch.error.backoff.ms", "100"),
        ("fetch.message.max.bytes", "4194304"),
        ("fetch.max.bytes", "16777216"),
        ("fetch.wait.max.ms", "100"),
    ];
    let fixed = [
        ("group.id", group.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "error"),
        // Back-pressure may keep us from polling for as long as it takes.
        ("max.poll.interval.ms", "86400000"),
    ];
    connection.consumer(&connection.config(Role::Consumer, &defaults, &fixed)?)
}

/// All partitions of the table's topics, in order of topic and number.
pub(super) fn all_parts(options: &KafkaOptions, connection: &Connection, consumer: &QuietConsumer) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let topics = match &options.topics {
        Topics::Named(names) => names.clone(),
        Topics::Matching(pattern) => {
            let names = connection.topic_names(consumer)?;
            let matching: Vec<String> = names.into_iter().filter(|n| pattern.is_match(n).unwrap_or(false)).collect();
            if matching.is_empty() && (options.bound != Bound::Unbounded || options.discovery.is_none()) {
                return Err(Error::user(format!("{}: no topic at {} matches 'topic-pattern'", options.owner, connection.servers())));
            }
            matching
        }
    };
    for topic in topics {
        let partitions = connection.partitions(consumer, &topic, CONNECT_PATIENCE)?;
        parts.extend(partitions.into_iter().map(|p| (topic.clone(), p)));
    }
    Ok(parts)
}

/// The partitions at the table's start mode.
pub(super) fn fresh(options: &KafkaOptions, connection: &Connection, consumer: &QuietConsumer, parts: &[Part]) -> Result<Vec<SplitState>> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let extent = extent(connection, consumer, parts)?;
    let starts = starts(options, connection, consumer, parts, &extent)?;
    let ends = ends(options, connection, consumer, parts, &extent)?;
    Ok(parts.iter().zip(starts).zip(ends).map(|((part, start), end)| SplitState::new(options, part.clone(), start, end)).collect())
}

/// The partitions of a checkpoint.
pub(super) fn restored(
    options: &KafkaOptions,
    connection: &Connection,
    consumer: &QuietConsumer,
    parts: &[Part],
    restore: &[Split],
) -> Result<Vec<SplitState>> {
    let mut splits = Vec::with_capacity(restore.len());
    for split in restore {
        let part = part_of(options, &split.id).ok_or_else(|| {
            Error::state(format!("{}: the checkpoint has a partition '{}', which is none of its topics", options.owner, split.id))
                .help("--fresh starts again without the checkpoint")
        })?;
        if !split.ended && !parts.contains(&part) {
            return Err(Error::state(format!(
                "{}: the checkpoint has partition {} of topic '{}', which does not exist any more",
                options.owner, part.1, part.0
            ))
            .help("was the topic deleted and created again? --fresh starts again without the checkpoint"));
        }
        splits.push(SplitState { ended: split.ended, ..SplitState::new(options, part, split.position.offset, split.end) });
    }
    let open: Vec<usize> = (0..splits.len()).filter(|i| !splits[*i].ended).collect();
    let open_parts: Vec<Part> = open.iter().map(|i| splits[*i].part.clone()).collect();
    if !open.is_empty() {
        let extent = extent(connection, consumer, &open_parts)?;
        for (i, at) in open.iter().enumerate() {
            let (position, part) = (splits[*at].position, &splits[*at].part);
            if splits[*at].end.is_some_and(|end| position >= end) {
                continue;
            }
            if position < extent.low[i] {
                return Err(deleted(options, part, position, extent.low[i]));
            }
            if position > extent.high[i] {
                return Err(Error::state(format!(
                    "{}: the checkpoint is at offset {position} of topic '{}', partition {}, which ends at {}",
                    options.owner, part.0, part.1, extent.high[i]
                ))
                .help("was the topic deleted and created again? --fresh starts again without the checkpoint"));
            }
        }
    }
    Ok(splits)
}

/// `0` where there is one topic, `topic:0` where there can be several.
fn split_id(options: &KafkaOptions, (topic, partition): &Part) -> String {
    match &options.topics {
        Topics::Named(names) if names.len() == 1 => partition.to_string(),
        _ => format!("{topic}:{partition}"),
    }
}

fn part_of(options: &KafkaOptions, id: &str) -> Option<Part> {
    let (topic, partition) = match (&options.topics, id.rsplit_once(':')) {
        (_, Some((topic, partition))) => (topic, partition),
        (Topics::Named(names), None) if names.len() == 1 => (names[0].as_str(), id),
        _ => return None,
    };
    Some((topic.to_string(), partition.parse().ok()?))
}
