//! Records that cannot be used: the policy, the count, the dead letter.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;

use crate::connectors::{Envelope, Payload, SinkWriter};
use crate::error::{Error, Result};
use crate::metrics::SourceMetrics;
use crate::sql::plan::{BadRecords, SourceOp};
use crate::stream::StreamBatch;

/// Where bad records go, where the policy keeps them.
pub struct DeadLetter {
    /// Number of the sink in the job.
    pub sink: usize,
    /// This worker's writer.
    pub writer: Box<dyn SinkWriter>,
    /// Its columns.
    pub schema: SchemaRef,
}

/// Applies the policy of `op` to records of `payload`, each with the reason why it cannot be used.
///
/// # Errors
/// Data: the policy is `fail`. Others from the dead-letter sink.
pub(super) fn reject(
    op: &SourceOp,
    dead_letter: Option<&mut DeadLetter>,
    metrics: &SourceMetrics,
    payload: &Payload,
    bad: &[(usize, String)],
) -> Result<()> {
    let Some((first, reason)) = bad.first() else { return Ok(()) };
    let (values, envelope) = match payload {
        Payload::Raw { values, envelope } => (Some(values), envelope),
        Payload::Rows(_) => (None, &Envelope::default()),
    };
    let raw = |i: usize| values.and_then(|v| v.get(i)).map(|b| String::from_utf8_lossy(b).into_owned());
    let table = &op.table.name;
    if matches!(op.bad_records, BadRecords::Fail) {
        let place = place_of(envelope, *first);
        let shown: String = raw(*first).unwrap_or_default().chars().take(200).collect();
        return Err(Error::data(format!("table '{table}': a record cannot be read ({place}): {reason}\n  record: {shown}"))
            .help(format!("SET 'velosql.table.{table}.bad-records' = 'skip' counts and skips such records; 'dead-letter' keeps them")));
    }
    metrics.rejected.add(bad.len() as u64);
    let Some(dead) = dead_letter else { return Ok(()) };
    let column = |of: &dyn Fn(usize, &str) -> Option<String>| -> ArrayRef {
        Arc::new(bad.iter().map(|(i, reason)| of(*i, reason)).collect::<StringArray>())
    };
    let columns = dead.schema.fields().iter().map(|f| {
        let text = match f.name().as_str() {
            "reason" => column(&|_, reason| Some(reason.to_string())),
            "raw" => column(&|i, _| raw(i)),
            "partition" => column(&|_, _| Some(envelope.partition.to_string())),
            "offset" => column(&|i, _| envelope.offsets.get(i).map(i64::to_string)),
            _ => column(&|_, _| Some(envelope.origin.to_string())),
        };
        arrow::compute::cast(&text, f.data_type()).map_err(Error::from)
    });
    let rows = RecordBatch::try_new(dead.schema.clone(), columns.collect::<Result<_>>()?)?;
    dead.writer.write(&StreamBatch::new(rows))
}

fn place_of(envelope: &Envelope, record: usize) -> String {
    let number = envelope.offsets.get(record).copied().unwrap_or(record as i64);
    if envelope.file.is_some() {
        format!("{}, record {}", envelope.origin, number + 1)
    } else {
        format!("topic {}, partition {}, offset {number}", envelope.origin, envelope.partition)
    }
}
