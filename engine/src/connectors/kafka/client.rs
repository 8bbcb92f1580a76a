//! Talking to a cluster: settings, clients, metadata, and what to say when nobody answers.
//!
//! What must always hold: every wait is bounded ([`CONNECT_PATIENCE`]); an error names the address and the
//! reason that the client library gave (a refused login, a name that does not resolve), never a secret.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use super::properties::{Role, translate};
use crate::error::{Error, Result, nearest};

const IS_IT_RUNNING: &str =
    "is it running there? 'properties.bootstrap.servers' says where; for all tables: --option '*.properties.bootstrap.servers=HOST:PORT'";

/// How long an unreachable cluster is waited for before the job gives up at its start.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Bound of one question to a cluster that has already answered.
pub(super) const REQUEST_PATIENCE: Duration = Duration::from_secs(15);

/// Where a cluster is and how to log in.
#[derive(Clone)]
pub struct Connection {
    servers: String,
    owner: String,
    properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("servers", &self.servers).field("properties", &self.properties.keys()).finish()
    }
}

/// A consumer that says nothing by itself.
pub(super) type QuietConsumer = BaseConsumer<Reasons>;

impl Connection {
    /// A cluster at `servers` (`host:port,…`) with further properties in the Java client's names. `owner`
    /// is what messages call the place, such as "table 'status'".
    ///
    /// # Errors
    /// User: an unknown property, or a login that cannot be used.
    pub fn new(owner: &str, servers: &str, properties: &BTreeMap<String, String>) -> Result<Self> {
        let mut properties = properties.clone();
        properties.insert("bootstrap.servers".into(), servers.into());
        translate(owner, &properties, Role::Admin)?;
        Ok(Self { servers: servers.to_string(), owner: owner.to_string(), properties })
    }

    /// The bootstrap addresses.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Whom messages name.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Settings for a client: ours, then the user's, then those that must hold.
    pub(super) fn config(&self, role: Role, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> Result<ClientConfig> {
        let mut config = ClientConfig::new();
        // A wrong broker is reported by errors of ours; the library's own lines would go to stderr.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config.set("reconnect.backoff.max.ms", "2000").set("client.id", "velosql");
        for (k, v) in defaults {
            config.set(*k, *v);
        }
        for (k, v) in translate(&self.owner, &self.properties, role)?.values {
            config.set(k, v);
        }
        for (k, v) in fixed {
            config.set(*k, *v);
        }
        Ok(config)
    }

    /// A consumer for questions and, with a group, for reading.
    pub(super) fn consumer(&self, config: &ClientConfig) -> Result<QuietConsumer> {
        config.create_with_context(Reasons::default()).map_err(|e| self.refused(e))
    }

    /// A consumer without a group: for questions only.
    pub(super) fn asker(&self) -> Result<QuietConsumer> {
        self.consumer(&self.config(Role::Admin, &[], &[("isolation.level", "read_committed")])?)
    }

    /// A setting that the client library does not take.
    pub(super) fn refused(&self, e: KafkaError) -> Error {
        match e {
            KafkaError::ClientConfig(_, why, name, value) => {
                let shown = crate::config::masked(&name, &value).to_string();
                Error::user(format!("{}: the Kafka setting '{name}' = '{shown}' is not usable: {why}", self.owner))
            }
            KafkaError::ClientCreation(why) => Error::user(format!("{}: the Kafka client cannot be set up: {why}", self.owner)),
            other => Error::external(format!("{}: the Kafka client cannot be set up", self.owner)).caused_by(other),
        }
    }

    /// A failed request to the cluster, in words.
    pub(super) fn failed(&self, what: &str, e: &KafkaError) -> Error {
        let code = e.rdkafka_error_code();
        match code {
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed,
            ) => Error::user(format!("{}: the cluster at {} does not permit it: {what}", self.owner, self.servers))
                .help("ask for the right, or use another login"),
            Some(code) => Error::external(format!("{}: the Kafka cluster at {} failed: {what}: {code}", self.owner, self.servers)),
            None => Error::external(format!("{}: the Kafka cluster at {} failed: {what}: {e}", self.owner, self.servers)),
        }
    }

    /// Metadata of one topic, or of all.
    ///
    /// # Errors
    /// External: no broker answers. User: the login is refused.
    pub(super) fn metadata(&self, client: &QuietConsumer, topic: Option<&str>, patience: Duration) -> Result<Metadata> {
        match client.fetch_metadata(topic, patience / 2) {
            Ok(m) => Ok(m),
            // The consumer keeps the reason to itself: a second client asks, and hears it.
            Err(_) => {
                if let Some(e) = self.reason_of_silence(patience / 2) {
                    return Err(e);
                }
                client.fetch_metadata(topic, patience / 2).map_err(|e| self.failed("metadata", &e))
            }
        }
    }

    /// Why no broker answers; `None` if one does after all.
    fn reason_of_silence(&self, patience: Duration) -> Option<Error> {
        let probe: BaseProducer<Reasons> = match self.config(Role::Admin, &[], &[]) {
            Ok(config) => match config.create_with_context(Reasons::default()) {
                Ok(p) => p,
                Err(e) => return Some(self.refused(e)),
            },
            Err(e) => return Some(e),
        };
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if probe.client().fetch_metadata(None, Duration::from_millis(500)).is_ok() {
                return None;
            }
            probe.poll(Duration::from_millis(50));
            if matches!(probe.client().context().last(), Some((RDKafkaErrorCode::Authentication, _))) {
                break;
            }
        }
        Some(self.unreachable(probe.client().context().last()))
    }

    /// Nobody answers, with the last thing that was heard.
    pub(super) fn unreachable(&self, last: Option<(RDKafkaErrorCode, String)>) -> Error {
        let place = format!("{}: no Kafka broker answers at {}", self.owner, self.servers);
        match last {
            Some((RDKafkaErrorCode::Authentication, why)) => {
                Error::user(format!("{}: the Kafka cluster at {} refuses the login: {}", self.owner, self.servers, shorten(&why)))
                    .help("check user, password and mechanism ('properties.sasl.jaas.config', 'properties.sasl.mechanism')")
            }
            // The library reports a broken handshake as a lost connection.
            Some((code, why)) if code == RDKafkaErrorCode::SSL || why.contains("SSL handshake") => {
                Error::external(format!("{place} (TLS failed: {})", shorten(&why)))
                    .help("check 'properties.security.protocol' and 'properties.ssl.truststore.location'")
            }
            Some((_, why)) => Error::external(format!("{place} ({})", shorten(&why))).help(IS_IT_RUNNING),
            None => Error::external(place).help(IS_IT_RUNNING),
        }
    }

    /// The partitions of `topic`, ascending.
    ///
    /// # Errors
    /// User: the topic does not exist. External: no broker answers.
    pub(super) fn partitions(&self, client: &QuietConsumer, topic: &str, patience: Duration) -> Result<Vec<i32>> {
        let metadata = self.metadata(client, Some(topic), patience)?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        match found.map(|t| (t.error().map(RDKafkaErrorCode::from), t.partitions())) {
            Some((None, partitions)) if !partitions.is_empty() => Ok(sorted(partitions.iter().map(|p| p.id()).collect())),
            Some((Some(RDKafkaErrorCode::TopicAuthorizationFailed), _)) => {
                Err(self
                    .failed(&format!("reading topic '{topic}'"), &KafkaError::MetadataFetch(RDKafkaErrorCode::TopicAuthorizationFailed)))
            }
            _ => Err(self.absent(client, topic)),
        }
    }

    /// The topic does not exist: names the nearest one.
    pub(super) fn absent(&self, client: &QuietConsumer, topic: &str) -> Error {
        let e = Error::user(format!("{}: topic '{topic}' does not exist at {}", self.owner, self.servers));
        let names = self.topic_names(client).unwrap_or_default();
        match nearest(topic, names.iter().map(String::as_str)) {
            Some(near) => e.help(format!("did you mean '{near}'?")),
            None if names.is_empty() => e.help(format!("the cluster has no topics; create it: velosql topics create {topic}")),
            None => {
                let shown: Vec<&str> = names.iter().take(10).map(String::as_str).collect();
                e.help(format!("topics there: {}{}", shown.join(", "), if names.len() > 10 { ", …" } else { "" }))
            }
        }
    }

    /// All topics but the cluster's own, in order of name.
    pub(super) fn topic_names(&self, client: &QuietConsumer) -> Result<Vec<String>> {
        let metadata = self.metadata(client, None, CONNECT_PATIENCE)?;
        let names = metadata.topics().iter().filter(|t| t.error().is_none()).map(|t| t.name().to_string());
        Ok(sorted(names.filter(|n| !n.starts_with("__")).collect()))
    }
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items
}

/// The library's reasons carry client names and timings; the first sentence is what helps.
fn shorten(why: &str) -> String {
    let why = why.split(" (after ").next().unwrap_or(why);
    let why = why.rsplit_once("]: ").map_or(why, |(_, tail)| tail);
    why.trim().trim_end_matches(':').to_string()
}

/// Remembers the last error that a client reported, and keeps its log lines off the terminal.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Reasons {
    /// The last error: a refused login stays, as later ones only follow from it.
    pub(super) fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last.lock().ok()?.clone()
    }
}

impl ClientContext for Reasons {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _line: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        if let Ok(mut last) = self.last.lock() {
            let keep = match &*last {
                Some((RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL | RDKafkaErrorCode::Resolve, _)) => true,
                Some(_) => code == RDKafkaErrorCode::AllBrokersDown,
                None => false,
            };
            if !keep {
                *last = Some((code, reason.to_string()));
            }
        }
    }
}

impl ConsumerContext for Reasons {}

impl ProducerContext for Reasons {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
