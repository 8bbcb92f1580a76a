//! Options of commands that talk to a Kafka cluster without a table: where it is, and how to log in.

use std::collections::BTreeMap;

use clap::Args;

use crate::connectors::kafka::Connection;
use crate::error::{Error, Result};

/// Where a cluster is and how to log in.
#[derive(Debug, Clone, Args)]
pub struct Brokers {
    /// Addresses of the cluster
    #[arg(long = "brokers", visible_alias = "bootstrap-servers", value_name = "HOST:PORT,…", default_value = "localhost:9092")]
    pub servers: String,
    /// A Kafka property by its Java name, such as security.protocol=SASL_SSL
    #[arg(long = "property", value_name = "K=V")]
    pub properties: Vec<String>,
}

impl Default for Brokers {
    fn default() -> Self {
        Self { servers: "localhost:9092".into(), properties: Vec::new() }
    }
}

impl Brokers {
    /// The cluster, for the command that messages call `owner`.
    ///
    /// # Errors
    /// User: a property that is not K=V, or not known.
    pub fn connection(&self, owner: &str) -> Result<Connection> {
        let mut properties = BTreeMap::new();
        for text in &self.properties {
            let (key, value) = text.split_once('=').ok_or_else(|| Error::user(format!("--property {text}: expected K=V")))?;
            // As in WITH, or without its prefix: both are meant.
            let key = key.trim();
            properties.insert(key.strip_prefix("properties.").unwrap_or(key).to_string(), value.to_string());
        }
        in_options(Connection::new(owner, &self.servers, &properties))
    }
}

/// The help of an error from the Kafka side in words of the command line, where it speaks of a WITH clause.
///
/// # Errors
/// The same.
pub fn in_options<T>(result: Result<T>) -> Result<T> {
    result.map_err(|e| match e.help_text().filter(|h| h.contains("'properties.")) {
        Some(help) => {
            let help = help.replace("'properties.bootstrap.servers'", "--brokers").replace("'properties.", "--property '");
            e.help(help)
        }
        None => e,
    })
}

/// Creates `topic` where it does not exist; says what it did.
///
/// # Errors
/// User: it may not be created. External: no broker answers.
pub fn create_if_absent(connection: &Connection, topic: &str, partitions: i32) -> Result<()> {
    use crate::connectors::kafka::admin;
    let found = in_options(admin::list_topics(connection))?.into_iter().find(|t| t.name == topic);
    match found {
        Some(found) if found.partitions == usize::try_from(partitions).unwrap_or(0) => {}
        Some(found) => {
            eprintln!("note: topic '{topic}' exists with {} partitions: --partitions {partitions} has no effect", found.partitions)
        }
        None => {
            in_options(admin::create_topic(connection, topic, partitions, 1, &[]))?;
            eprintln!("created topic '{topic}' with {partitions} partition{}", if partitions == 1 { "" } else { "s" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_those_of_with_and_their_messages_speak_of_options() {
        let brokers = |p: &str| Brokers { servers: "h:1".into(), properties: vec![p.into()] }.connection("produce");
        assert!(brokers("properties.client.id=x").is_ok() && brokers("client.id=x").is_ok());
        assert!(brokers("client.id").expect_err("no value").message().contains("expected K=V"));
        let e = brokers("securty.protocol=SSL").expect_err("misspelt");
        assert_eq!(e.help_text(), Some("did you mean --property 'security.protocol'?"));
    }
}
