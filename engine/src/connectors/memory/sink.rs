//! The sink half: rows are staged in the hub at a barrier and visible at commit.

use std::sync::Arc;

use arrow::array::RecordBatch;
use serde_json::{Value, json};

use super::{Hub, Output};
use crate::config::Options;
use crate::connectors::{Accepts, Committer, Context, Prepared, SinkTable, SinkWriter, TableSpec};
use crate::error::{Error, Result};
use crate::stream::{Epoch, StreamBatch};

/// The sink of a memory table.
///
/// # Errors
/// User: an option that does not exist.
pub fn sink(spec: &TableSpec, ctx: &Context) -> Result<Arc<dyn SinkTable>> {
    let mut options = Options::new(format!("table '{}'", spec.name), spec.options.clone());
    options.declare(&["connector", "static", "format"]);
    let kinds = [("append-only", Accepts::AppendOnly), ("upsert", Accepts::Upsert), ("changelog", Accepts::Changelog)];
    let accepts = options.choice("accepts", &kinds, Accepts::Changelog)?;
    let durable = options.flag("durable", true)?;
    options.with_prefix("json.");
    options.with_prefix("csv.");
    options.finish()?;
    Ok(Arc::new(MemorySink { place: Place { hub: ctx.memory.clone(), table: spec.name.clone() }, job: ctx.job.clone(), accepts, durable }))
}

#[derive(Clone)]
struct Place {
    hub: Hub,
    table: String,
}

impl Place {
    fn output<T>(&self, f: impl FnOnce(&mut Output) -> T) -> T {
        let answer = f(self.hub.lock().outputs.entry(self.table.clone()).or_default());
        self.hub.0.changed.notify_all();
        answer
    }
}

struct MemorySink {
    place: Place,
    job: String,
    accepts: Accepts,
    durable: bool,
}

impl SinkTable for MemorySink {
    fn accepts(&self) -> Accepts {
        self.accepts
    }

    fn is_durable(&self) -> bool {
        self.durable
    }

    fn writer(&self, index: usize, kept: Vec<RecordBatch>) -> Result<Box<dyn SinkWriter>> {
        let open = kept.into_iter().map(StreamBatch::new).collect();
        Ok(Box::new(Writer { place: self.place.clone(), index, open }))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        Ok(Box::new(MemoryCommitter { place: self.place.clone(), job: self.job.clone() }))
    }
}

struct Writer {
    place: Place,
    index: usize,
    open: Vec<StreamBatch>,
}

impl SinkWriter for Writer {
    fn write(&mut self, batch: &StreamBatch) -> Result<()> {
        self.open.push(batch.clone());
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch, _last: bool) -> Result<Prepared> {
        if self.open.is_empty() {
            return Ok(Prepared::default());
        }
        let batches = std::mem::take(&mut self.open);
        self.place.output(|o| o.staged.insert((epoch, self.index), batches));
        Ok(Prepared { pending: Some(json!({ "writer": self.index })), kept: vec![] })
    }
}

struct MemoryCommitter {
    place: Place,
    job: String,
}

impl Committer for MemoryCommitter {
    fn recover(&mut self, epoch: Option<Epoch>, pending: &[Value]) -> Result<()> {
        let Some(epoch) = epoch else {
            return self.place.output(|o| {
                if !o.committed.is_empty() {
                    let e = Error::user(format!("memory table '{}' already holds rows of job '{}'", self.place.table, o.job));
                    return Err(e.help("run with --fresh, or write to another table"));
                }
                o.staged.clear();
                o.job.clone_from(&self.job);
                Ok(())
            });
        };
        self.commit(epoch, pending)?;
        self.place.output(|o| o.staged.retain(|(staged, _), _| *staged <= epoch));
        Ok(())
    }

    fn commit(&mut self, epoch: Epoch, pending: &[Value]) -> Result<()> {
        self.place.output(|o| {
            for value in pending {
                let writer = value["writer"].as_u64().ok_or_else(|| Error::internal("a pending commit names no writer"))?;
                let key = (epoch, writer as usize);
                match o.staged.remove(&key) {
                    Some(batches) => {
                        o.committed.insert(key, batches);
                    }
                    // A second commit of the same epoch finds its rows published.
                    None if o.committed.contains_key(&key) => {}
                    None => return Err(Error::internal(format!("rows of epoch {epoch}, writer {writer} were never staged"))),
                }
            }
            Ok(())
        })
    }

    fn remove_committed(&mut self) -> Result<Option<String>> {
        self.place.output(|o| {
            o.committed.clear();
            o.staged.clear();
        });
        Ok(None)
    }
}
