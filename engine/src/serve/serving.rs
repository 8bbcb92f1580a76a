//! What every protocol does between its own reading and writing: find the model, make the batch, score, count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use arrow::array::RecordBatch;

use super::Limits;
use super::answers::Answers;
use super::catalog::{Catalog, Loaded};
use super::failure::{Answered, Failure, Reason};
use super::metrics::Metrics;
use crate::models::registry::Selector;
use crate::models::task::Task;

/// Batches above this leave the threads that answer the network: scoring them takes longer than a message.
const ROWS_INLINE_MAX: usize = 2048;

/// The server's state, shared by all protocols.
pub struct Serving {
    /// The models.
    pub catalog: Arc<Catalog>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The limits.
    pub limits: Limits,
    /// Which model answers for a task where none is named.
    pub defaults: Vec<(Task, String)>,
    /// Whether callers must bring a token.
    pub token_asked: bool,
    /// Whether the server has been told to stop.
    pub draining: AtomicBool,
}

/// Rows that were scored.
pub struct Scored {
    /// The model that did it.
    pub model: Arc<Loaded>,
    /// The answers.
    pub answers: Answers,
}

impl Serving {
    /// Scores the rows that `read` makes of a call for a model, and counts the call under `method`.
    ///
    /// # Errors
    /// The call is refused.
    pub async fn answer<R>(&self, method: &'static str, name: &str, selector: &Selector, read: R) -> Answered<Scored>
    where
        R: FnOnce(&Loaded) -> Answered<RecordBatch>,
    {
        let started = Instant::now();
        let found = self.catalog.get(name, selector).await;
        // Only names that exist become labels.
        let label = if matches!(&found, Err(e) if e.reason == Reason::UnknownModel) { "" } else { name };
        let result = match found {
            Ok(model) => self.score(model, read).await,
            Err(e) => Err(e),
        };
        let (status, rows) = match &result {
            Ok(scored) => ("OK", scored.answers.rows()),
            Err(e) => (e.reason.word(), 0),
        };
        self.metrics.call(method, label, status, rows, started.elapsed());
        result
    }

    /// The model that answers for `task` where none is named.
    ///
    /// # Errors
    /// There is none, or there are several and no default was given.
    pub fn default_model(&self, task: Task) -> Answered<String> {
        match self.defaults.iter().find(|(of, _)| *of == task) {
            Some((_, name)) => Ok(name.clone()),
            None => self.catalog.snapshot().only(task).map(str::to_string),
        }
    }

    /// Refuses more rows than the limit.
    ///
    /// # Errors
    /// Too many rows.
    pub fn limit_rows(&self, rows: usize) -> Answered<()> {
        let max = self.limits.batch_rows_max;
        if rows <= max {
            return Ok(());
        }
        Err(Failure::new(Reason::TooManyRows, format!("the call has {rows} rows, but the limit is {max}")))
    }

    /// Whether new predictions are taken.
    pub fn ready(&self) -> bool {
        !self.draining.load(Relaxed)
    }

    async fn score<R>(&self, model: Arc<Loaded>, read: R) -> Answered<Scored>
    where
        R: FnOnce(&Loaded) -> Answered<RecordBatch>,
    {
        let batch = read(&model)?;
        let rows = batch.num_rows();
        let score = move || match model.scorer.score(&batch) {
            Ok(answers) => Ok(Scored { model, answers }),
            Err(e) => Err(Failure { row: e.row.filter(|_| rows > 1), ..e }),
        };
        if rows <= ROWS_INLINE_MAX {
            return score();
        }
        let scored = tokio::task::spawn_blocking(score).await;
        scored.map_err(|e| Failure::new(Reason::Internal, format!("scoring failed: {e}")))?
    }
}
