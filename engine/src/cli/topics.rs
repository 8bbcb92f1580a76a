//! `velosql topics create|list|describe`.

use clap::{Args, Subcommand};

use super::brokers::{Brokers, in_options};
use super::execute::print;
use super::progress::count;
use super::table::{TextTable, terminal_width};
use crate::connectors::kafka::admin::{self, TopicDescription};
use crate::error::{Error, Result};

/// `velosql topics …`
#[derive(Debug, Args)]
pub struct TopicsArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: TopicsCommand,
}

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Creates topics
    Create {
        /// Names
        #[arg(required = true)]
        topics: Vec<String>,
        /// Partitions of each
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
        /// Brokers that hold each partition
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
        replicas: i32,
        /// A setting of the topic, such as retention.ms=3600000
        #[arg(long = "config", value_name = "K=V")]
        configs: Vec<String>,
        /// Does nothing about a topic that exists
        #[arg(long)]
        if_not_exists: bool,
        /// The cluster.
        #[command(flatten)]
        brokers: Brokers,
    },
    /// Lists topics
    List {
        /// The cluster.
        #[command(flatten)]
        brokers: Brokers,
    },
    /// Shows partitions, offsets and settings of topics
    Describe {
        /// Names
        #[arg(required = true)]
        topics: Vec<String>,
        /// The cluster.
        #[command(flatten)]
        brokers: Brokers,
    },
}

/// Runs the command. Answers the exit status.
///
/// # Errors
/// User: a topic that exists, or does not. External: no broker answers.
pub fn topics(args: &TopicsArgs) -> Result<u8> {
    match &args.what {
        TopicsCommand::Create { topics, partitions, replicas, configs, if_not_exists, brokers } => {
            let connection = brokers.connection("topics create")?;
            let configs = configs.iter().map(|c| pair(c)).collect::<Result<Vec<_>>>()?;
            let known = if *if_not_exists { in_options(admin::list_topics(&connection))? } else { vec![] };
            for topic in topics {
                if known.iter().any(|k| k.name == *topic) {
                    eprintln!("topic '{topic}' exists");
                    continue;
                }
                in_options(admin::create_topic(&connection, topic, *partitions, *replicas, &configs))?;
                eprintln!("created topic '{topic}' with {partitions} partition{}", if *partitions == 1 { "" } else { "s" });
            }
        }
        TopicsCommand::List { brokers } => {
            let found = in_options(admin::list_topics(&brokers.connection("topics list")?))?;
            if found.is_empty() {
                eprintln!("the cluster at {} has no topics; create one: velosql topics create NAME --partitions 4", brokers.servers);
            }
            let mut table = TextTable::new([("topic", false), ("partitions", true)]);
            found.iter().for_each(|t| table.push([t.name.clone(), t.partitions.to_string()]));
            print(&table.draw(terminal_width()));
        }
        TopicsCommand::Describe { topics, brokers } => {
            let connection = brokers.connection("topics describe")?;
            for (i, topic) in topics.iter().enumerate() {
                if i > 0 {
                    print("");
                }
                print(&described(&in_options(admin::describe_topic(&connection, topic))?, terminal_width()));
            }
        }
    }
    Ok(0)
}

fn pair(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| Error::user(format!("--config {text}: expected K=V")))?;
    Ok((key.trim().to_string(), value.to_string()))
}

fn described(topic: &TopicDescription, width: Option<usize>) -> String {
    let records: i64 = topic.partitions.iter().map(|p| p.high - p.low).sum();
    let mut out =
        format!("topic '{}': {} partitions, {} offsets in use\n", topic.name, topic.partitions.len(), count(records.max(0) as u64));
    let mut table =
        TextTable::new([("partition", true), ("leader", true), ("replicas", false), ("oldest", true), ("next", true), ("between", true)]);
    for p in &topic.partitions {
        let replicas: Vec<String> = p.replicas.iter().map(i32::to_string).collect();
        // A partition without a leader cannot be read or written now.
        let leader = if p.leader < 0 { "none".to_string() } else { p.leader.to_string() };
        table.push([p.id.to_string(), leader, replicas.join(","), p.low.to_string(), p.high.to_string(), (p.high - p.low).to_string()]);
    }
    out.push_str(&table.draw(width));
    match &topic.configs {
        None => out.push_str("settings: the cluster does not tell\n"),
        Some(set) if set.is_empty() => out.push_str("settings: all defaults\n"),
        Some(set) => {
            let mut table = TextTable::new([("setting", false), ("value", false)]);
            set.iter().for_each(|(k, v)| table.push([k, v]));
            out.push('\n');
            out.push_str(&table.draw(width));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::kafka::admin::PartitionDescription;
    use crate::connectors::kafka::embedded::EmbeddedBroker;

    #[test]
    fn a_topic_is_a_table_of_partitions() {
        let part = |id, leader, low, high| PartitionDescription { id, leader, replicas: vec![1, 2], low, high };
        let topic = TopicDescription { name: "t".into(), partitions: vec![part(0, 1, 5, 1005), part(1, -1, 0, 0)], configs: Some(vec![]) };
        let expected = "\
topic 't': 2 partitions, 1,000 offsets in use
partition  leader  replicas  oldest  next  between
─────────  ──────  ────────  ──────  ────  ───────
        0       1  1,2            5  1005     1000
        1    none  1,2            0     0        0
settings: all defaults
";
        assert_eq!(described(&topic, None), expected);
    }

    #[test]
    fn the_embedded_broker_lists_and_describes_and_refuses_to_create() {
        let broker = EmbeddedBroker::start().expect("a broker");
        broker.create_topic("t", 2).expect("a topic");
        let brokers = Brokers { servers: broker.servers().into(), properties: vec![] };
        let connection = brokers.connection("test").expect("a connection");
        assert_eq!(admin::list_topics(&connection).expect("a list").len(), 1);
        assert_eq!(admin::describe_topic(&connection, "t").expect("a topic").partitions.len(), 2);
        let e = admin::create_topic(&connection, "u", 1, 1, &[]).expect_err("refused");
        assert!(e.message().contains("embedded"), "{e}");
    }
}
