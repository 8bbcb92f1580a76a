//! Reading topics: the fetcher of a Kafka table.
//!
//! Partitions are assigned, never subscribed to: positions belong to the job's checkpoint, and offsets
//! committed to a group are for other people's dashboards. What must always hold: batches of a partition
//! come in offset order without a gap; a partition ends when its *position* reaches the end offset that was
//! fixed at the first open (markers and compaction may leave no record there); nothing is skipped silently.
//!
//! ```text
//!  consume ─▶ [p0 p0 p1 p1 p0 …] ─▶ one buffer a partition ─▶ ready: Batch(p0) Batch(p1) SplitEnded(p1) ─▶ fetch()
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::client::Connection;
use super::fetch::{BatchQueue, Message};
use super::options::{Bound, KafkaOptions};
use super::splits::{SplitState, all_parts, consumer, fresh, restored};
use super::startup::{Part, deleted, extent, list};
use crate::connectors::{BatchLimits, Fetched, Fetcher, Position, Split};
use crate::error::{Error, Result};

/// An assigned partition that says nothing for this long makes us ask whether the cluster is there.
const SILENCE: Duration = Duration::from_secs(30);
/// A cluster that is away for this long fails the job.
const OUTAGE_PATIENCE: Duration = Duration::from_secs(120);
/// After this time a commit has arrived.
const TELLING: Duration = Duration::from_secs(5);

/// What the readers need beside values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wants {
    pub keys: bool,
    pub timestamps: bool,
    pub headers: bool,
    pub leader_epochs: bool,
}

/// Fetches the batches of one table.
pub(super) struct KafkaFetcher {
    queue: BatchQueue,
    intake: Intake,
    connection: Connection,
    /// When to look for new partitions; `None`: never.
    discovery: Option<Instant>,
    heard: Instant,
    asked: Instant,
    away_since: Option<Instant>,
    /// What the group was last told, and when.
    told: Option<(Instant, TopicPartitionList)>,
}

/// What arrives, by partition.
struct Intake {
    options: Arc<KafkaOptions>,
    wants: Wants,
    splits: Vec<SplitState>,
    /// (topic handle, partition) → split.
    index: HashMap<(usize, i32), usize>,
    last: Option<((usize, i32), usize)>,
    /// Splits with records in their buffer, in order of arrival.
    touched: Vec<usize>,
    ready: VecDeque<Fetched>,
    /// Splits that have just ended and are still assigned.
    ending: Vec<usize>,
    failed: Option<Error>,
    /// Bytes of an average record, for the size of the next call.
    record_bytes: usize,
}

impl KafkaFetcher {
    /// Opens the table: at `restore`, else at its start mode.
    pub(super) fn open(
        options: Arc<KafkaOptions>,
        connection: Connection,
        wants: Wants,
        job: &str,
        restore: Option<&[Split]>,
    ) -> Result<Self> {
        let consumer = consumer(&options, &connection, job)?;
        let parts = all_parts(&options, &connection, &consumer)?;
        let splits = match restore {
            Some(restore) => restored(&options, &connection, &consumer, &parts, restore)?,
            None => fresh(&options, &connection, &consumer, &parts)?,
        };
        let now = Instant::now();
        let discovery = (options.bound == Bound::Unbounded).then_some(options.discovery).flatten().map(|every| match restore {
            // Partitions may have been added while the job was down.
            Some(_) => now,
            None => now + every,
        });
        let intake = Intake {
            options,
            wants,
            index: HashMap::new(),
            last: None,
            touched: Vec::new(),
            ready: VecDeque::new(),
            ending: Vec::new(),
            failed: None,
            record_bytes: 256,
            splits: Vec::new(),
        };
        let queue = BatchQueue::new(consumer)?;
        let mut fetcher = Self { queue, intake, connection, discovery, heard: now, asked: now, away_since: None, told: None };
        let open: Vec<usize> =
            (0..splits.len()).filter(|i| !splits[*i].ended && splits[*i].end.is_none_or(|e| splits[*i].position < e)).collect();
        fetcher.intake.splits = splits;
        fetcher.assign(&open)?;
        Ok(fetcher)
    }

    fn assign(&mut self, splits: &[usize]) -> Result<()> {
        if splits.is_empty() {
            return Ok(());
        }
        let parts: Vec<Part> = splits.iter().map(|i| self.intake.splits[*i].part.clone()).collect();
        let list = list(&parts, |i| Offset::Offset(self.intake.splits[splits[i]].position))?;
        self.queue.consumer().incremental_assign(&list).map_err(|e| self.connection.failed("assigning partitions", &e))?;
        for at in splits {
            self.intake.splits[*at].assigned = true;
        }
        Ok(())
    }

    fn unassign(&mut self) -> Result<()> {
        let ending: Vec<Part> = self.intake.ending.drain(..).map(|i| self.intake.splits[i].part.clone()).collect();
        if ending.is_empty() {
            return Ok(());
        }
        let list = list(&ending, |_| Offset::Invalid)?;
        self.queue.consumer().incremental_unassign(&list).map_err(|e| self.connection.failed("letting partitions go", &e))
    }

    /// Takes what has arrived into the buffers: at once what is there, else within `wait`; then fills up for
    /// as long as the latency budget lets it.
    fn fill(&mut self, limits: &BatchLimits, wait: Duration) -> Result<()> {
        let most = (limits.bytes / self.intake.record_bytes.max(1)).clamp(1, limits.rows.max(1));
        let (queue, intake) = (&mut self.queue, &mut self.intake);
        let mut take = |most: usize, wait: Duration| queue.consume(most, wait, |message| intake.take(message, limits));
        let mut got = take(most, Duration::ZERO);
        if got == 0 {
            got = take(1, wait);
        }
        if got > 0 && got < most && self.intake.is_collecting() {
            let (queue, intake) = (&mut self.queue, &mut self.intake);
            queue.consume(most - got, limits.latency, |message| intake.take(message, limits));
        }
        if got > 0 {
            self.heard = Instant::now();
            self.away_since = None;
        }
        self.intake.hand_out();
        self.unassign()?;
        match self.intake.failed.take() {
            Some(e) => Err(e),
            None if got == 0 => self.check_presence(),
            None => Ok(()),
        }
    }

    /// After a long silence: is the cluster still there?
    fn check_presence(&mut self) -> Result<()> {
        if self.heard.elapsed() < SILENCE || self.asked.elapsed() < SILENCE / 3 {
            return Ok(());
        }
        self.asked = Instant::now();
        let topic = self.intake.splits.first().map(|s| s.part.0.clone());
        match self.queue.consumer().fetch_metadata(topic.as_deref(), Duration::from_secs(5)) {
            Ok(_) => self.away_since = None,
            Err(e) => {
                let since = *self.away_since.get_or_insert(self.heard);
                if since.elapsed() >= OUTAGE_PATIENCE {
                    let seconds = since.elapsed().as_secs();
                    return Err(self.connection.failed(&format!("no broker has answered for {seconds} s"), &e));
                }
            }
        }
        Ok(())
    }

    /// Looks for partitions that did not exist before; they start at their oldest record.
    fn discover(&mut self) -> Result<()> {
        let (Some(due), Some(every)) = (self.discovery, self.intake.options.discovery) else { return Ok(()) };
        if Instant::now() < due {
            return Ok(());
        }
        self.discovery = Some(Instant::now() + every);
        // A cluster that is away is `check_presence`'s business.
        let Ok(parts) = all_parts(&self.intake.options, &self.connection, self.queue.consumer()) else { return Ok(()) };
        let known = &self.intake.splits;
        let new: Vec<Part> = parts.into_iter().filter(|p| !known.iter().any(|s| s.part == *p)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let low = extent(&self.connection, self.queue.consumer(), &new)?.low;
        let first = self.intake.splits.len();
        for (part, low) in new.into_iter().zip(low) {
            let state = SplitState::new(&self.intake.options, part, low, None);
            self.intake.ready.push_back(Fetched::SplitAdded(state.split()));
            self.intake.splits.push(state);
        }
        self.assign(&(first..self.intake.splits.len()).collect::<Vec<_>>())
    }
}

impl Fetcher for KafkaFetcher {
    fn splits(&self) -> Vec<Split> {
        self.intake.splits.iter().map(SplitState::split).collect()
    }

    fn fetch(&mut self, limits: &BatchLimits, wait: Duration) -> Result<Fetched> {
        if let Some(next) = self.intake.ready.pop_front() {
            return Ok(next);
        }
        self.intake.end_reached_splits();
        if self.intake.ready.is_empty() {
            if self.discovery.is_none() && self.intake.splits.iter().all(|s| s.ended) {
                return Ok(Fetched::End);
            }
            self.discover()?;
        }
        if self.intake.ready.is_empty() {
            self.fill(limits, wait)?;
        }
        Ok(self.intake.ready.pop_front().unwrap_or(Fetched::Nothing))
    }

    fn checkpointed(&mut self, positions: &[Position]) {
        let options = &self.intake.options;
        if options.group.is_none() || !options.commits_offsets {
            return;
        }
        let parts: Vec<Part> = self.intake.splits.iter().take(positions.len()).map(|s| s.part.clone()).collect();
        // Informative only: a group that cannot be told does not concern the job.
        if let Ok(list) = list(&parts, |i| Offset::Offset(positions[i].offset)) {
            let _ = self.queue.consumer().commit(&list, CommitMode::Async);
            self.told = Some((Instant::now(), list));
        }
    }
}

impl Drop for KafkaFetcher {
    /// What was told a moment ago may still be under way, and would go with the client.
    fn drop(&mut self) {
        if let Some((at, list)) = self.told.take()
            && at.elapsed() < TELLING
        {
            let _ = self.queue.consumer().commit(&list, CommitMode::Sync);
        }
    }
}

impl Intake {
    /// Takes one message into its partition's buffer.
    fn take(&mut self, message: &Message<'_>, limits: &BatchLimits) {
        let Some(at) = self.split_of(message) else {
            if let Some(code) = message.report() {
                self.report(None, code, message);
            }
            return;
        };
        if let Some(code) = message.report() {
            return self.report(Some(at), code, message);
        }
        let split = &mut self.splits[at];
        let offset = message.offset();
        if split.ended || offset < split.position {
            return;
        }
        if let Some(end) = split.end
            && offset >= end
        {
            split.position = end;
            self.touch(at);
            return;
        }
        let value = message.value();
        let size = value.map_or(0, <[u8]>::len);
        if !split.values.is_empty() && (split.values.len() >= limits.rows || split.values.bytes.len() + size > limits.bytes) {
            let batch = split.hand_out(at);
            self.ready.push_back(batch);
        }
        if split.values.is_empty() {
            self.touched.push(at);
            split.reserve();
        }
        match value {
            Some(value) => split.values.push(value),
            None => split.values.push_absent(),
        }
        split.position = offset + 1;
        let envelope = &mut split.envelope;
        envelope.offsets.push(offset);
        if self.wants.timestamps {
            let (millis, kind) = message.timestamp();
            envelope.timestamps.push(millis);
            envelope.timestamp_types.push(kind);
        }
        if self.wants.keys {
            match message.key() {
                Some(key) => envelope.keys.push(key),
                None => envelope.keys.push_absent(),
            }
        }
        if self.wants.headers {
            envelope.headers.push(message.headers());
        }
        if self.wants.leader_epochs {
            envelope.leader_epochs.push(message.leader_epoch());
        }
    }

    fn touch(&mut self, at: usize) {
        if !self.touched.contains(&at) {
            self.touched.push(at);
        }
    }

    fn split_of(&mut self, message: &Message<'_>) -> Option<usize> {
        let key = (message.topic_mark(), message.partition());
        if let Some((last, at)) = self.last
            && last == key
        {
            return Some(at);
        }
        let at = match self.index.get(&key) {
            Some(at) => *at,
            None => {
                let at = self.splits.iter().position(|s| s.part.1 == key.1 && s.part.0 == message.topic())?;
                self.index.insert(key, at);
                at
            }
        };
        self.last = Some((key, at));
        Some(at)
    }

    /// Something other than a message.
    fn report(&mut self, at: Option<usize>, code: RDKafkaErrorCode, message: &Message<'_>) {
        let options = &self.options;
        let error = match (code, at) {
            (RDKafkaErrorCode::PartitionEOF, Some(at)) => {
                // Markers and compaction leave gaps: the position is where reading goes on, not the last record.
                let split = &mut self.splits[at];
                let reached = split.end.map_or(message.offset(), |end| end.min(message.offset()));
                if !split.ended && reached > split.position {
                    split.position = reached;
                    self.touch(at);
                }
                return;
            }
            (RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset, Some(at)) => {
                let split = &self.splits[at];
                deleted(options, &split.part, split.position, split.position)
            }
            (RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition, Some(at)) => {
                let (topic, partition) = &self.splits[at].part;
                Error::external(format!("{}: topic '{topic}', partition {partition}, is gone: was the topic deleted?", options.owner))
            }
            (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed, _) => {
                Error::user(format!("{}: the cluster does not permit reading topic '{}'", options.owner, message.topic()))
            }
            (RDKafkaErrorCode::Fatal, _) => Error::external(format!("{}: the Kafka client gave up: {}", options.owner, text(message))),
            (RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::InvalidMessage | RDKafkaErrorCode::BadCompression, Some(at)) => {
                let split = &self.splits[at];
                Error::data(format!(
                    "{}: topic '{}', partition {}: the batch at offset {} is corrupt: {}",
                    options.owner,
                    split.part.0,
                    split.part.1,
                    split.position,
                    text(message)
                ))
            }
            // Brokers come and go: the library retries, and `check_presence` watches.
            _ => return,
        };
        self.failed.get_or_insert(error);
    }

    /// Whether more may still arrive for this batch.
    fn is_collecting(&self) -> bool {
        self.failed.is_none() && self.splits.iter().any(|s| !s.ended && s.end.is_none_or(|end| s.position < end))
    }

    /// Hands out the buffers, then the ends that they reach.
    fn hand_out(&mut self) {
        let (mut bytes, mut records) = (0_usize, 0_usize);
        for at in std::mem::take(&mut self.touched) {
            bytes += self.splits[at].values.bytes.len();
            records += self.splits[at].values.len();
            let batch = self.splits[at].hand_out(at);
            self.ready.push_back(batch);
        }
        if let Some(size) = bytes.checked_div(records) {
            self.record_bytes = usize::midpoint(self.record_bytes, size);
        }
        self.end_reached_splits();
    }

    fn end_reached_splits(&mut self) {
        for (at, split) in self.splits.iter_mut().enumerate() {
            if !split.ended && split.end.is_some_and(|end| split.position >= end) {
                split.ended = true;
                if std::mem::take(&mut split.assigned) {
                    self.ending.push(at);
                }
                self.ready.push_back(Fetched::SplitEnded(at));
            }
        }
    }
}

fn text(message: &Message<'_>) -> String {
    String::from_utf8_lossy(message.value().unwrap_or_default()).into_owned()
}
