//! A fast producer: what sinks, `velosql produce` and tests write with.
//!
//! Records are queued and sent in batches by the client library; only failures are reported back, so that
//! a record costs no callback. What must always hold: every wait is bounded; a record that was not
//! delivered is in [`Producer::failure`]; [`Producer::flush`] answers success only when none is left.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{CONNECT_PATIENCE, Connection, Reasons};
use super::properties::Role;
use crate::error::{Error, Result};

/// Java's default of `delivery.timeout.ms`: how long a record is tried.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(120);

/// Writes records to topics of one cluster.
pub struct Producer {
    connection: Connection,
    producer: BaseProducer<Deliveries>,
    patience: Duration,
    sent: u64,
    bytes: u64,
}

/// One record to send.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outgoing<'a> {
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The partition; `None`: by key as the Java client does, without a key at random in batches.
    pub partition: Option<i32>,
    /// Timestamp in ms; `None`: now.
    pub timestamp: Option<i64>,
    /// Headers in order.
    pub headers: &'a [(String, Vec<u8>)],
}

impl Producer {
    /// A producer for the cluster of `connection`.
    ///
    /// # Errors
    /// User: a setting that cannot be used.
    pub fn open(connection: &Connection) -> Result<Self> {
        let defaults = [
            ("enable.idempotence", "true"),
            ("message.timeout.ms", "120000"),
            ("linger.ms", "20"),
            ("queue.buffering.max.kbytes", "65536"),
            ("queue.buffering.max.messages", "500000"),
            // As the Java client places keys, so that both agree on a key's partition.
            ("partitioner", "murmur2_random"),
        ];
        let fixed = [("delivery.report.only.error", "true")];
        let config = connection.config(Role::Producer, &defaults, &fixed)?;
        let patience = config.get("message.timeout.ms").and_then(|v| v.parse().ok()).map_or(DELIVERY_PATIENCE, Duration::from_millis);
        let producer = config.create_with_context(Deliveries::default()).map_err(|e| connection.refused(e))?;
        Ok(Self { connection: connection.clone(), producer, patience, sent: 0, bytes: 0 })
    }

    /// The number of partitions of `topic`; a cluster that creates topics by itself gets the chance to.
    ///
    /// # Errors
    /// User: the topic does not exist. External: no broker answers.
    pub fn partitions(&self, topic: &str) -> Result<i32> {
        let asker = self.connection.asker()?;
        // The consumer asks first: it never creates a topic, and it knows why nobody answers.
        self.connection.metadata(&asker, None, CONNECT_PATIENCE)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let metadata = self
                .producer
                .client()
                .fetch_metadata(Some(topic), Duration::from_secs(5))
                .map_err(|e| self.connection.failed("metadata", &e))?;
            if let Some(found) = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none() && !t.partitions().is_empty()) {
                return Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX));
            }
            let creating =
                metadata.topics().iter().any(|t| t.error().map(RDKafkaErrorCode::from) == Some(RDKafkaErrorCode::LeaderNotAvailable));
            if !creating || Instant::now() >= deadline {
                return Err(self.connection.absent(&asker, topic));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Queues a record for `topic`; waits while the queue is full.
    ///
    /// # Errors
    /// Data: the record is larger than the topic takes. External: the queue stays full, or an earlier record
    /// was not delivered.
    pub fn send(&mut self, topic: &str, record: &Outgoing<'_>) -> Result<()> {
        let mut out = BaseRecord::<[u8], [u8]>::to(topic);
        out.key = record.key;
        out.payload = record.value;
        out.partition = record.partition;
        out.timestamp = record.timestamp;
        if !record.headers.is_empty() {
            let add = |h: OwnedHeaders, (key, value): &(String, Vec<u8>)| h.insert(Header { key, value: Some(value) });
            out.headers = Some(record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), add));
        }
        let mut deadline = None;
        loop {
            match self.producer.send(out) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    out = back;
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.patience + Duration::from_secs(10));
                    if Instant::now() >= deadline {
                        return Err(self
                            .connection
                            .unreachable(self.producer.context().reasons.last())
                            .context(format!("writing to topic '{topic}'")));
                    }
                    self.producer.poll(Duration::from_millis(50));
                    self.check()?;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), back)) => {
                    let size = back.payload.map_or(0, <[u8]>::len) + back.key.map_or(0, <[u8]>::len);
                    return Err(Error::data(format!(
                        "{}: a record of {size} bytes is too large for topic '{topic}'",
                        self.connection.owner()
                    ))
                    .help("raise 'properties.max.request.size' and the topic's max.message.bytes"));
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition), _)) => {
                    let partition = record.partition.unwrap_or_default();
                    return Err(Error::user(format!("{}: topic '{topic}' has no partition {partition}", self.connection.owner())));
                }
                Err((e, _)) => return Err(self.connection.failed(&format!("writing to topic '{topic}'"), &e)),
            }
        }
        self.sent += 1;
        self.bytes += (record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len)) as u64;
        if self.sent.is_multiple_of(1024) {
            self.producer.poll(Duration::ZERO);
            self.check()?;
        }
        Ok(())
    }

    /// Hears what became of earlier records, for a caller that sends seldom.
    ///
    /// # Errors
    /// External: a record was not delivered.
    pub fn poll(&self) -> Result<()> {
        self.producer.poll(Duration::ZERO);
        self.check()
    }

    /// Waits until every record is delivered.
    ///
    /// # Errors
    /// External: a record was not delivered in time.
    pub fn flush(&mut self) -> Result<()> {
        let flushed = self.producer.flush(self.patience + Duration::from_secs(10));
        self.check()?;
        flushed.map_err(|e| self.connection.failed("waiting for delivery", &e))?;
        // A failure that flushing has just reported.
        self.producer.poll(Duration::ZERO);
        self.check()
    }

    /// The first delivery failure and the number of records that were lost, if there are any.
    pub fn failure(&self) -> Option<(String, u64)> {
        let failures = self.producer.context().failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        failures.first.clone().map(|first| (first, failures.count))
    }

    /// Records queued so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes of keys and values queued so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// An error if a record was not delivered.
    fn check(&self) -> Result<()> {
        match self.failure() {
            None => Ok(()),
            Some((first, count)) => {
                let records = if count == 1 { "1 record was".to_string() } else { format!("{count} records were") };
                Err(Error::external(format!(
                    "{}: {records} not delivered to {}: {first}",
                    self.connection.owner(),
                    self.connection.servers()
                )))
            }
        }
    }
}

#[derive(Debug, Default)]
struct Failures {
    first: Option<String>,
    count: u64,
}

/// Hears of failed deliveries only.
#[derive(Default)]
struct Deliveries {
    reasons: Reasons,
    failures: Arc<Mutex<Failures>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.reasons.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reasons.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((e, message)) = result {
            let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let why = e.rdkafka_error_code().map_or_else(|| e.to_string(), |c| c.to_string());
            failures.first.get_or_insert_with(|| format!("topic '{}': {why}", message.topic()));
            failures.count += 1;
        }
    }
}

/// Holds a producer back while a consumer is behind: the embedded broker forgets what lies unread too long.
pub struct Pace {
    /// Records that may lie unread.
    ahead: i64,
    /// How many records the consumer has read so far.
    consumed: Box<dyn Fn() -> i64 + Send>,
}

impl Pace {
    /// At most `ahead` records lie unread, of which `consumed` tells how many have been read.
    pub fn new(ahead: i64, consumed: impl Fn() -> i64 + Send + 'static) -> Self {
        Self { ahead, consumed: Box::new(consumed) }
    }

    /// Waits until record number `next` may be sent; false when `stop` said so first.
    pub fn wait(&self, next: i64, stop: impl Fn() -> bool) -> bool {
        while next - (self.consumed)() >= self.ahead {
            if stop() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}
