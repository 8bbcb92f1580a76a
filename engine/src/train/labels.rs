//! Labels of an algorithm that leaves no model (`dbscan`): the query's rows with their clusters, as one Parquet file.
//!
//! The folder is a table of its own: `CREATE TABLE … WITH ('connector' = 'filesystem', 'path' = '<labels.path>',
//! 'format' = 'parquet')` with the query's columns and `cluster INT` reads it. What must hold: the file is seen whole,
//! and it is replaced by the next one.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch};
use arrow::datatypes::Schema;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

use super::holdout::Split;
use super::options::Training;
use super::spool::Spool;
use super::trainer::{self, Refused};
use super::{Outcome, Progress, Watch};
use crate::error::{Error, Result};
use crate::models::algorithms::{FitContext, Step};
use crate::stream::types::SqlType;

/// The column of the labels.
const CLUSTER: &str = "cluster";

/// Labels the rows of `spool` and writes them to `folder`; a row that cannot be used has no label.
///
/// # Errors
/// User: rows that cannot be labelled, or a folder of something else. External: a disk refused.
pub fn write(training: &Training, spool: &Spool, folder: &Path, watch: &Watch<'_>) -> Result<Outcome> {
    let owner = format!("model '{}'", training.name);
    if spool.schema().field_with_name(CLUSTER).is_ok() {
        return Err(Error::user(format!("{owner}: the query has a column '{CLUSTER}', which the labels are")).help("name it otherwise"));
    }
    let (spec, _) = trainer::observe(training, spool, &Split::None)?;
    let mut refused = Refused::default();
    let rows = trainer::encode(training, spool, &Split::None, &spec, None, &mut refused)?;
    if rows.is_empty() {
        return Err(refused.nothing_left(&owner, spool.rows()));
    }
    let fitting = |step: Step<'_>| watch(Progress::Fitting(step));
    let ctx = FitContext { threads: training.threads, seed: training.seed, progress: &fitting };
    let labels = training.recipe.label_rows(&rows, &ctx)?;

    let path = folder.join(format!("{}.parquet", training.name));
    // Hidden until it is whole.
    let staged = folder.join(format!(".{}.parquet", training.name));
    let failed = |e: std::io::Error| Error::external(format!("'{}' cannot be written", path.display())).caused_by(e);
    let refused_by_disk = |e: ParquetError| Error::external(format!("'{}' cannot be written", path.display())).caused_by(e);
    fs::create_dir_all(folder).map_err(failed)?;
    let mut fields = spool.schema().fields().to_vec();
    fields.push(Arc::new(SqlType::Int.field(CLUSTER, true)));
    let schema = Arc::new(Schema::new(fields));
    let mut writer = ArrowWriter::try_new(File::create(&staged).map_err(failed)?, schema.clone(), None).map_err(refused_by_disk)?;
    let mut next = labels.iter().copied();
    spool.for_each(|batch| {
        let usable = trainer::encode_batch(training, &spec, None, batch, &mut Refused::default())?.usable;
        let column: Int32Array = usable.iter().map(|usable| if *usable { next.next() } else { None }).collect();
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(column));
        writer.write(&RecordBatch::try_new(schema.clone(), columns)?).map_err(refused_by_disk)
    })?;
    writer.into_inner().map_err(refused_by_disk)?.sync_all().map_err(failed)?;
    fs::rename(&staged, &path).map_err(failed)?;
    let clusters = labels.iter().max().map_or(0, |last| (last + 1).max(0)) as u64;
    let noise = labels.iter().filter(|l| **l < 0).count() as u64;
    Ok(Outcome::Labels { path, rows: spool.rows(), clusters, noise })
}
