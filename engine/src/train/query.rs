//! The rows of a training query: the plan as a job without state, on one worker, so that rows come in the files' order.
//!
//! A query that updates its result (`GROUP BY` without a window) is trained on the final result: the rows that no later
//! change has taken back, sorted, because their order of arrival means nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, SortField};

use super::spool::{Spool, SpoolWriter};
use crate::connectors::BatchLimits;
use crate::error::{Error, Result};
use crate::metrics::JobMetrics;
use crate::runtime::job::{self, EndedBy, JobOptions, Stop};
use crate::sql::plan::{Op, StreamPlan};
use crate::stream::StreamBatch;

/// Batches on their way from the query.
const IN_FLIGHT: usize = 16;
/// Rows of a batch of a final result.
const RESULT_ROWS: usize = 8192;

/// The columns that the plan, one of a plain SELECT, answers.
///
/// # Errors
/// Internal: the plan is empty.
pub fn schema(plan: &StreamPlan) -> Result<SchemaRef> {
    plan.nodes.last().map(|n| n.schema.clone()).ok_or_else(|| Error::internal("an empty plan"))
}

/// Refuses a query that never ends.
///
/// # Errors
/// User: names the table that does not end.
pub fn check_bounded(plan: &StreamPlan) -> Result<()> {
    for node in &plan.nodes {
        if let Op::Source(op) = &node.op
            && !op.source.is_bounded()
        {
            let e = Error::user(format!("the training query reads table '{}', which never ends", op.table.name));
            return Err(e.help(
                "give the table an end ('scan.bounded.mode' for Kafka, no 'source.monitor-interval' for files), or write it to a filesystem table with INSERT and train on that one with 'training.mode' = 'cumulative'",
            ));
        }
    }
    Ok(())
}

/// Runs the plan, which may ask models of the registry `models`, to its end; `seen` hears now and then how many rows there are. `None`: the caller stopped it.
///
/// # Errors
/// What ended the query.
pub fn rows(plan: &StreamPlan, models: &Path, memory_limit: usize, stop: &Stop, seen: &dyn Fn(u64)) -> Result<Option<Spool>> {
    check_bounded(plan)?;
    let schema = schema(plan)?;
    let updates = plan.nodes.last().is_some_and(|n| n.updates);
    let (sender, receiver) = sync_channel(IN_FLIGHT);
    let options = JobOptions {
        name: "training".to_string(),
        sql: String::new(),
        workers: 1,
        state_dir: None,
        store: None,
        fresh: false,
        from: None,
        refresh_static: true,
        models: models.to_path_buf(),
        limits: BatchLimits { rows: 8192, bytes: 4 << 20, latency: Duration::from_millis(5) },
        stop: stop.clone(),
        duration: None,
        rows: Some(sender),
        metrics: Arc::new(JobMetrics::default()),
        notice: Arc::new(|text| eprintln!("note: {text}")),
    };
    std::thread::scope(|scope| {
        let job = scope.spawn(move || job::run(plan, options));
        let mut spool = SpoolWriter::new(schema.clone(), memory_limit);
        let taken = if updates { final_rows(&receiver, &schema, &mut spool) } else { all_rows(&receiver, &mut spool, seen) };
        // A query whose rows nobody takes any more goes on to its end; nothing of it is kept.
        drop(receiver);
        let outcome = job.join().map_err(|_| Error::internal("the training query panicked"))?;
        taken?;
        if outcome?.ended_by != EndedBy::End {
            return Ok(None);
        }
        spool.finish().map(Some)
    })
}

fn all_rows(batches: &Receiver<StreamBatch>, spool: &mut SpoolWriter, seen: &dyn Fn(u64)) -> Result<()> {
    for batch in batches {
        spool.push(batch.rows)?;
        seen(spool.rows());
    }
    Ok(())
}

fn final_rows(batches: &Receiver<StreamBatch>, schema: &SchemaRef, spool: &mut SpoolWriter) -> Result<()> {
    let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let mut table: BTreeMap<OwnedRow, i64> = BTreeMap::new();
    for batch in batches {
        let rows = converter.convert_columns(batch.rows.columns())?;
        for (i, row) in rows.iter().enumerate() {
            let change = if batch.kind(i).adds() { 1 } else { -1 };
            let count = table.entry(row.owned()).or_default();
            *count += change;
            if *count == 0 {
                table.remove(&row.owned());
            }
        }
    }
    let mut left = table.iter().flat_map(|(row, count)| std::iter::repeat_n(row, (*count).max(0) as usize)).peekable();
    while left.peek().is_some() {
        let columns = converter.convert_rows(left.by_ref().take(RESULT_ROWS).map(OwnedRow::row))?;
        spool.push(RecordBatch::try_new(schema.clone(), columns)?)?;
    }
    Ok(())
}
