//! Side outputs of a table: where dead letters and late rows go.
//!
//! A target is `topic:X`, a topic of the table's own Kafka cluster, or a path. Both hold one JSON object a
//! row, so that they can be looked at without us.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::connectors::{self, Context, SinkTable, TableSpec};
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// The sink of `table`'s side output `knob`, for rows of `schema`.
///
/// # Errors
/// User: a topic of a table that is not in Kafka, or a place that cannot be a sink.
pub fn sink(
    table: &TableSpec,
    knob: &str,
    target: &str,
    schema: SchemaRef,
    context: &Context,
) -> Result<(Arc<TableSpec>, Arc<dyn SinkTable>)> {
    let mut options = BTreeMap::from([("format".to_string(), "json".to_string())]);
    match target.strip_prefix("topic:") {
        Some(topic) => {
            options.insert("connector".into(), "kafka".into());
            options.insert("topic".into(), topic.into());
            options.extend(table.options.iter().filter(|(k, _)| k.starts_with("properties.")).map(|(k, v)| (k.clone(), v.clone())));
            options.remove("properties.group.id");
            if !options.contains_key("properties.bootstrap.servers") {
                let e = Error::user(format!(
                    "'velosql.table.{}.{knob}' names a topic, but the table '{}' is not in Kafka",
                    table.name, table.name
                ));
                return Err(e.help("give a path instead"));
            }
        }
        None => {
            options.insert("connector".into(), "filesystem".into());
            options.insert("path".into(), target.into());
        }
    }
    let spec = TableSpec {
        name: format!("{}.{knob}", table.name),
        physical: schema,
        metadata: vec![],
        partition_keys: vec![],
        primary_key: vec![],
        options,
        knobs: BTreeMap::new(),
    };
    let sink = connectors::sink(&spec, context).map_err(|e| e.context(format!("'velosql.table.{}.{knob}'", table.name)))?;
    Ok((Arc::new(spec), sink))
}

/// The columns of a dead letter.
pub fn dead_letter_schema() -> SchemaRef {
    let fields: Vec<Field> = [
        ("topic", SqlType::STRING),
        ("partition", SqlType::Int),
        ("offset", SqlType::BigInt),
        ("reason", SqlType::STRING),
        ("raw", SqlType::BYTES),
    ]
    .into_iter()
    .map(|(name, t)| t.field(name, true))
    .collect();
    Arc::new(Schema::new(fields))
}
