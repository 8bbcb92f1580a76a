//! Topics: create, list, describe.
//!
//! Thin on purpose: answers are plain data for the command line to print. What must always hold: every
//! request has a time limit, and a refusal says which topic and why.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode;

use super::client::{CONNECT_PATIENCE, Connection, REQUEST_PATIENCE, Reasons};
use super::properties::Role;
use super::startup::extent;
use crate::error::{Error, Result};

/// A topic in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// Its number of partitions.
    pub partitions: usize,
}

/// A partition of a described topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number.
    pub id: i32,
    /// The broker that leads it.
    pub leader: i32,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Oldest offset.
    pub low: i64,
    /// Next offset.
    pub high: i64,
}

/// A topic in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its partitions, ascending.
    pub partitions: Vec<PartitionDescription>,
    /// Settings that are not defaults, in order of name; `None` where the cluster does not tell.
    pub configs: Option<Vec<(String, String)>>,
}

/// All topics but the cluster's own.
///
/// # Errors
/// External: no broker answers.
pub fn list_topics(connection: &Connection) -> Result<Vec<TopicSummary>> {
    let client = connection.asker()?;
    let metadata = connection.metadata(&client, None, CONNECT_PATIENCE)?;
    let own = |name: &str| name.starts_with("__");
    let mut topics: Vec<TopicSummary> = metadata
        .topics()
        .iter()
        .filter(|t| t.error().is_none() && !own(t.name()))
        .map(|t| TopicSummary { name: t.name().to_string(), partitions: t.partitions().len() })
        .collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(topics)
}

/// One topic in detail.
///
/// # Errors
/// User: it does not exist. External: no broker answers.
pub fn describe_topic(connection: &Connection, topic: &str) -> Result<TopicDescription> {
    let client = connection.asker()?;
    let ids = connection.partitions(&client, topic, CONNECT_PATIENCE)?;
    let parts: Vec<_> = ids.iter().map(|p| (topic.to_string(), *p)).collect();
    let extent = extent(connection, &client, &parts)?;
    let metadata = client.fetch_metadata(Some(topic), REQUEST_PATIENCE).map_err(|e| connection.failed("metadata", &e))?;
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    let mut partitions: Vec<PartitionDescription> = Vec::with_capacity(ids.len());
    for (i, id) in ids.iter().enumerate() {
        let p = found.and_then(|t| t.partitions().iter().find(|p| p.id() == *id));
        partitions.push(PartitionDescription {
            id: *id,
            leader: p.map_or(-1, |p| p.leader()),
            replicas: p.map(|p| p.replicas().to_vec()).unwrap_or_default(),
            low: extent.low[i],
            high: extent.high[i],
        });
    }
    Ok(TopicDescription { name: topic.to_string(), partitions, configs: configs(connection, topic)? })
}

/// The number of partitions of a topic, which is never created by asking.
///
/// # Errors
/// User: it does not exist. External: no broker answers.
pub fn partition_count(connection: &Connection, topic: &str) -> Result<i32> {
    let count = connection.partitions(&connection.asker()?, topic, CONNECT_PATIENCE)?.len();
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

/// Whether the broker is the embedded one, which does not speak the admin protocol.
///
/// # Errors
/// External: no broker answers.
pub fn is_embedded(connection: &Connection) -> Result<bool> {
    let client = connection.asker()?;
    connection.metadata(&client, None, CONNECT_PATIENCE)?;
    Ok(client.client().fetch_cluster_id(REQUEST_PATIENCE).is_some_and(|id| id.starts_with("mockCluster")))
}

/// Creates a topic; `configs` are the topic's settings, such as `retention.ms`.
///
/// # Errors
/// User: it exists, a setting is wrong, or the login may not. External: no broker answers.
pub fn create_topic(connection: &Connection, topic: &str, partitions: i32, replication: i32, configs: &[(String, String)]) -> Result<()> {
    // First a question that explains itself when nobody answers.
    let asker = connection.asker()?;
    let metadata = connection.metadata(&asker, None, CONNECT_PATIENCE)?;
    if metadata.topics().iter().any(|t| t.name() == topic && t.error().is_none()) {
        return Err(exists(connection, topic));
    }
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
    for (key, value) in configs {
        new = new.set(key, value);
    }
    if is_embedded(connection)? {
        return Err(Error::user(format!("the broker at {} is an embedded one: topics are not created from outside", connection.servers()))
            .help("start a Kafka broker (docker compose up -d) and name it with --brokers"));
    }
    let admin = admin(connection)?;
    let answers =
        block_on(admin.create_topics([&new], &options()))?.map_err(|e| connection.failed(&format!("creating topic '{topic}'"), &e))?;
    for answer in answers {
        if let Err((name, code)) = answer {
            return Err(match code {
                RDKafkaErrorCode::TopicAlreadyExists => exists(connection, &name),
                RDKafkaErrorCode::InvalidReplicationFactor => Error::user(format!(
                    "topic '{name}' cannot have {replication} replicas: the cluster has {} brokers",
                    metadata.brokers().len()
                )),
                RDKafkaErrorCode::InvalidPartitions => Error::user(format!("topic '{name}' cannot have {partitions} partitions")),
                RDKafkaErrorCode::InvalidTopic => Error::user(format!("'{name}' is no name for a topic"))
                    .help("use letters, digits, '.', '_' and '-', at most 249 of them"),
                RDKafkaErrorCode::InvalidConfig => Error::user(format!("topic '{name}' cannot be created: a setting is not accepted"))
                    .help("see 'Topic Configs' in Kafka's documentation"),
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                    Error::user(format!("the cluster at {} does not permit creating topic '{name}'", connection.servers()))
                }
                other => Error::external(format!("topic '{name}' cannot be created at {}: {other}", connection.servers())),
            });
        }
    }
    Ok(())
}

fn exists(connection: &Connection, topic: &str) -> Error {
    Error::user(format!("topic '{topic}' exists already at {}", connection.servers())).help(format!("velosql topics describe {topic}"))
}

/// Settings that somebody set; `None` where the cluster does not answer such questions.
fn configs(connection: &Connection, topic: &str) -> Result<Option<Vec<(String, String)>>> {
    let admin = admin(connection)?;
    // The embedded broker never answers this: not worth a long wait.
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(3)));
    let Ok(answers) = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options))? else { return Ok(None) };
    let Some(Ok(resource)) = answers.into_iter().next() else { return Ok(None) };
    let set = resource.entries.into_iter().filter(|e| !e.is_default && !e.is_sensitive);
    let mut set: Vec<(String, String)> = set.filter_map(|e| Some((e.name, e.value?))).collect();
    set.sort();
    Ok(Some(set))
}

fn admin(connection: &Connection) -> Result<AdminClient<Reasons>> {
    use rdkafka::config::FromClientConfigAndContext;
    AdminClient::from_config_and_context(&connection.config(Role::Admin, &[], &[])?, Reasons::default()).map_err(|e| connection.refused(e))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_PATIENCE)).operation_timeout(Some(REQUEST_PATIENCE))
}

/// Waits for an answer of the admin client, which has a thread of its own.
fn block_on<T>(answer: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    Ok(runtime.map_err(|e| Error::external("no thread for a question to Kafka").caused_by(e))?.block_on(answer))
}
