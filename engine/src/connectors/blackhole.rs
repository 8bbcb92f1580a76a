//! `'connector' = 'blackhole'`: takes every row and keeps none, for measurements.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::print::NothingToCommit;
use super::{Accepts, Committer, Prepared, SinkTable, SinkWriter, TableSpec};
use crate::config::Options;
use crate::error::Result;
use crate::stream::{Epoch, StreamBatch};

/// The sink of a blackhole table.
///
/// # Errors
/// User: an option that does not exist.
pub fn sink(spec: &TableSpec) -> Result<Arc<dyn SinkTable>> {
    let mut options = Options::new(format!("table '{}'", spec.name), spec.options.clone());
    options.declare(&["connector"]);
    options.finish()?;
    Ok(Arc::new(Blackhole))
}

struct Blackhole;

impl SinkTable for Blackhole {
    fn accepts(&self) -> Accepts {
        Accepts::Changelog
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn writer(&self, _index: usize, _kept: Vec<RecordBatch>) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Self))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        Ok(Box::new(NothingToCommit))
    }
}

impl SinkWriter for Blackhole {
    fn write(&mut self, _batch: &StreamBatch) -> Result<()> {
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch, _last: bool) -> Result<Prepared> {
        Ok(Prepared::default())
    }
}
