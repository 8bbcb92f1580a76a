//! Rows to a published version: observe, freeze, encode, fit, measure, publish.
//!
//! What must hold: the same rows, options and seed give the same model file, bit for bit, whatever the threads and the
//! memory limit; a row that cannot be used is counted and its reason said; nothing is published that was not measured.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::{cast, concat_batches, filter_record_batch, not};
use arrow::datatypes::{DataType, Float64Type};
use ndarray::{Array2, Axis};

use super::holdout::Split;
use super::options::Training;
use super::spool::Spool;
use crate::error::{Error, Result};
use crate::models::algorithms::{FitContext, Step};
use crate::models::chunks::{Builder, Chunks};
use crate::models::features::{FeatureSpec, Refusal};
use crate::models::label::Label;
use crate::models::measures::Measurer;
use crate::models::model::Model;
use crate::models::registry::{GOLDEN_ROWS_MAX, Lineage, Publication, Published, Registry};

/// Rows trained on that are measured too, about: their answers are in memory.
const MEASURED_ROWS_MAX: u64 = 1_000_000;
/// Reasons that are told apart.
const REASONS_MAX: usize = 1000;

/// What a training is at.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// So many rows have been read.
    Reading(u64),
    /// The fit goes on.
    Fitting(Step<'a>),
    /// The model is being measured.
    Measuring,
}

/// Hears what a training is at, on any thread.
pub type Watch<'a> = dyn Fn(Progress<'_>) + Sync + 'a;

/// What a training came to.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The version, and whether it is champion.
    pub published: Published,
    /// Rows trained on, held out and refused.
    pub lineage: Lineage,
    /// Metrics: on the rows held out, and, with `train_` before their names, on the rows trained on.
    pub metrics: BTreeMap<String, f64>,
    /// Why rows were refused, with how many.
    pub refused: Vec<(String, u64)>,
    /// How long it took, without reading.
    pub seconds: f64,
}

/// Rows as an algorithm takes them.
pub(super) struct Encoded {
    pub x: Array2<f64>,
    pub y: Vec<f64>,
    pub w: Vec<f64>,
    /// For each row of the batch whether it is among these.
    pub usable: Vec<bool>,
}

/// Trains on the rows of `spool` and publishes the model; `lineage` says where they come from.
///
/// # Errors
/// User: rows that the algorithm cannot learn from. External: a disk refused.
pub fn train(training: &Training, spool: &Spool, lineage: Lineage, registry: &Registry, watch: &Watch<'_>) -> Result<Trained> {
    let started = Instant::now();
    let owner = format!("model '{}'", training.name);
    let split = training.holdout.split(spool)?;
    let (spec, label) = observe(training, spool, &split).map_err(|e| in_training(e, &owner))?;

    let mut refused = Refused::default();
    let rows = encode(training, spool, &split, &spec, label.as_ref(), &mut refused)?;
    if rows.is_empty() {
        return Err(refused.nothing_left(&owner, spool.rows()));
    }
    let fitting = |step: Step<'_>| watch(Progress::Fitting(step));
    let ctx = FitContext { threads: training.threads, seed: training.seed, progress: &fitting };
    let state = training.recipe.fit(&rows, label.as_ref(), &ctx).map_err(|e| in_training(e, &owner))?;
    let trained_on = rows.rows() as u64;
    drop(rows);
    let model = Model::new(training.task, training.algorithm, spec, label, state)?;

    watch(Progress::Measuring);
    let classes = model.label().map_or(0, |label| label.names().len());
    let measurer = || Measurer::new(training.task, classes, training.seed);
    let (mut seen, mut unseen) = (measurer(), measurer());
    spool.for_each(|batch| {
        let mask = split.held_out(batch)?;
        let (kept, out) = (filter_record_batch(batch, &not(&mask)?)?, filter_record_batch(batch, &mask)?);
        if seen.rows() < MEASURED_ROWS_MAX {
            measure(training, &model, &kept, &mut seen, &mut Refused::default())?;
        }
        measure(training, &model, &out, &mut unseen, &mut refused)
    })?;
    let held_out = unseen.rows();
    let (seen, unseen) = (seen.finish(), unseen.finish());
    let mut metrics: BTreeMap<String, f64> = seen.metrics.iter().map(|(name, v)| (format!("train_{name}"), *v)).collect();
    // Without rows held out, the rows trained on are all that there is to measure on.
    let measured = if held_out > 0 { unseen } else { seen };
    metrics.extend(measured.metrics);

    let lineage = Lineage { rows: trained_on, rows_held_out: held_out, rows_refused: refused.rows, ..lineage };
    let publication = Publication {
        name: &training.name,
        model: &model,
        golden: &first_rows(spool)?,
        query: Some(training.query.clone()),
        options: &training.given,
        lineage: lineage.clone(),
        metrics: metrics.clone(),
        confusion: measured.confusion,
        seed: training.seed,
        gate: training.gate.as_ref(),
        now: SystemTime::now(),
    };
    let published = registry.publish(&publication)?;
    Ok(Trained { published, lineage, metrics, refused: refused.reasons(), seconds: started.elapsed().as_secs_f64() })
}

/// The one pass from which features and classes are frozen: over the rows that are trained on, no others.
pub(super) fn observe(training: &Training, spool: &Spool, split: &Split) -> Result<(FeatureSpec, Option<Label>)> {
    let (mut features, mut classes) = (training.features.clone(), training.classes.clone());
    spool.for_each(|batch| {
        let batch = filter_record_batch(batch, &not(&split.held_out(batch)?)?)?;
        features.observe(&batch)?;
        if let (Some(classes), Some(label)) = (&mut classes, &training.label) {
            classes.observe(column(&batch, label)?)?;
        }
        Ok(())
    })?;
    let label = classes.map(|c| c.freeze()).transpose()?;
    Ok((features.freeze(training.algorithm.is_tree())?, label))
}

/// The rows that are trained on, in chunks.
pub(super) fn encode(
    training: &Training,
    spool: &Spool,
    split: &Split,
    spec: &FeatureSpec,
    label: Option<&Label>,
    refused: &mut Refused,
) -> Result<Chunks> {
    let mut builder = Builder::new(spec.width(), label.is_some(), training.memory_bytes_max);
    spool.for_each(|batch| {
        let batch = filter_record_batch(batch, &not(&split.held_out(batch)?)?)?;
        let rows = encode_batch(training, spec, label, &batch, refused)?;
        builder.push(&rows.x, &rows.y, &rows.w)
    })?;
    builder.finish()
}

/// The rows of a batch that can be used.
pub(super) fn encode_batch(
    training: &Training,
    spec: &FeatureSpec,
    label: Option<&Label>,
    batch: &RecordBatch,
    refused: &mut Refused,
) -> Result<Encoded> {
    let rows = batch.num_rows();
    let mut usable = vec![true; rows];
    let encoded = spec.encode(batch)?;
    let labels = match (label, &training.label) {
        (Some(label), Some(name)) => Some(label.encode(column(batch, name)?)?),
        _ => None,
    };
    for refusal in encoded.refused.iter().chain(labels.iter().flat_map(|l| &l.refused)) {
        refused.take(refusal, &mut usable);
    }
    let mut w = labels.as_ref().map(|l| l.w.clone()).unwrap_or_default();
    let y = labels.map(|l| l.y).unwrap_or_default();
    if let Some(name) = &training.weight {
        let weights = weights(column(batch, name)?)?;
        w.resize(rows, 1.0);
        for (row, w) in w.iter_mut().enumerate() {
            let weight = weights.value(row);
            if weights.is_null(row) || !weight.is_finite() || weight <= 0.0 {
                refused.say(row, format!("weight '{name}' is not a positive number"), &mut usable);
            } else {
                *w *= weight;
            }
        }
    }
    if usable.iter().all(|u| *u) {
        return Ok(Encoded { x: encoded.x, y, w, usable });
    }
    let at: Vec<usize> = (0..rows).filter(|row| usable[*row]).collect();
    let pick = |values: &[f64]| if values.is_empty() { vec![] } else { at.iter().map(|row| values[*row]).collect() };
    Ok(Encoded { x: encoded.x.select(Axis(0), &at), y: pick(&y), w: pick(&w), usable })
}

/// Adds the rows of `batch` that can be used to `measurer`.
fn measure(training: &Training, model: &Model, batch: &RecordBatch, measurer: &mut Measurer, refused: &mut Refused) -> Result<()> {
    if batch.num_rows() == 0 {
        return Ok(());
    }
    let rows = encode_batch(training, model.features(), model.label(), batch, refused)?;
    let scores = model.state().score(rows.x.view());
    measurer.push(rows.x.view(), &scores, &rows.y, |_| true)
}

/// The rows that a version is tried with whenever it is loaded.
fn first_rows(spool: &Spool) -> Result<RecordBatch> {
    let mut rows = Vec::new();
    let mut missing = GOLDEN_ROWS_MAX;
    spool.for_each(|batch| {
        let now = missing.min(batch.num_rows());
        rows.push(batch.slice(0, now));
        missing -= now;
        Ok(())
    })?;
    Ok(concat_batches(spool.schema(), &rows)?)
}

pub(super) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::internal(format!("the training column '{name}' is gone")))
}

fn weights(column: &arrow::array::ArrayRef) -> Result<Float64Array> {
    Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

/// Says of which model an error is, where it does not.
fn in_training(e: Error, owner: &str) -> Error {
    if e.message().contains(owner) { e } else { e.context(owner) }
}

/// Rows that cannot be used.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// How many.
    pub rows: u64,
    reasons: BTreeMap<String, u64>,
}

impl Refused {
    fn take(&mut self, refusal: &Refusal, usable: &mut [bool]) {
        self.say(refusal.row, refusal.to_string(), usable);
    }

    /// A row counts once, with the first reason.
    fn say(&mut self, row: usize, reason: String, usable: &mut [bool]) {
        if std::mem::replace(&mut usable[row], false) {
            self.rows += 1;
            // Unknown categories are as many as the data wants.
            let full = self.reasons.len() >= REASONS_MAX && !self.reasons.contains_key(&reason);
            let reason = if full { "other reasons".to_string() } else { reason };
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    /// The most frequent first.
    fn reasons(self) -> Vec<(String, u64)> {
        let mut reasons: Vec<_> = self.reasons.into_iter().collect();
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        reasons
    }

    /// The error where no row is left.
    pub(super) fn nothing_left(self, owner: &str, rows: u64) -> Error {
        if rows == 0 {
            return Error::user(format!("{owner}: the training query gave no row")).help("check its WHERE and the files it reads");
        }
        let e = Error::user(format!("{owner}: none of the {rows} rows can be trained on"));
        match self.reasons().first() {
            Some((reason, _)) => e.help(reason.clone()),
            None => e.help("all of them are held out: lower 'holdout'"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::super::options;
    use super::super::spool::SpoolWriter;
    use super::*;
    use crate::models::registry::{CHAMPION, Selector};

    /// A line with a little noise, some rows without a label and some with a value that no number is.
    fn rows(n: usize) -> RecordBatch {
        let number = |i: usize| if i % 50 == 3 { f64::NAN } else { (i * 37 % 100) as f64 };
        let x: ArrayRef = Arc::new(Float64Array::from_iter_values((0..n).map(number)));
        let t: ArrayRef = Arc::new(StringArray::from_iter_values((0..n).map(|i| ["a", "b"][i % 2])));
        let label = |i: usize| (i % 20 != 7).then(|| (i * 37 % 100) as f64 * 2.0 + f64::from(i as u32 % 2) + (i % 7) as f64 * 0.1);
        let y: ArrayRef = Arc::new(Float64Array::from_iter((0..n).map(label)));
        RecordBatch::try_from_iter_with_nullable([("x", x, true), ("t", t, true), ("y", y, true)]).expect("a batch")
    }

    fn trained(registry: &Registry, given: &[(&str, &str)], batch_rows: usize) -> Result<Trained> {
        let rows = rows(2000);
        let given: BTreeMap<String, String> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let training = options::read("m", &given, &rows.schema(), "SELECT x, t, y FROM rows")?;
        let mut writer = SpoolWriter::new(rows.schema(), training.memory_bytes_max);
        for first in (0..2000).step_by(batch_rows) {
            writer.push(rows.slice(first, batch_rows.min(2000 - first)))?;
        }
        train(&training, &writer.finish()?, Lineage::default(), registry, &|_| ())
    }

    const LINEAR: [(&str, &str); 3] = [("task", "regression"), ("algorithm", "linear"), ("label", "y")];

    #[test]
    fn a_version_is_published_with_what_it_was_measured_on() {
        let place = tempfile::tempdir().expect("a folder");
        let registry = Registry::new(place.path());
        let first = trained(&registry, &LINEAR, 2000).expect("trains");
        assert!(first.published.champion && first.metrics["r2"] > 0.99 && first.metrics["train_r2"] > 0.99, "{:?}", first.metrics);
        let l = &first.lineage;
        assert_eq!((l.rows + l.rows_held_out + l.rows_refused, l.rows_refused), (2000, 140));
        assert_eq!(first.refused[0], ("field 'y' is null, and the model was trained without nulls there".to_string(), 100));
        assert!(first.refused[1].0.contains("field 'x' is not a finite number") && first.refused[1].1 == 40);
        // In other batches, on other threads and from the file it is the same model.
        let bytes = |version| registry.load("m", &Selector::Version(version)).expect("loads").model.to_bytes().expect("bytes");
        for (batch_rows, more) in [(7, ("threads", "1")), (613, ("memory", "1kb"))] {
            let again = trained(&registry, &[LINEAR.as_slice(), &[more]].concat(), batch_rows).expect("trains");
            assert_eq!(bytes(again.published.version), bytes(1));
            assert_eq!(again.metrics, first.metrics);
        }
        // A worse one is published, and its gate says no.
        let worse = [LINEAR.as_slice(), &[("features.x", "skip"), ("publish.gate", "rmse <= champion")]].concat();
        let worse = trained(&registry, &worse, 2000).expect("trains");
        assert!(!worse.published.champion && worse.published.version == 4);
        assert_eq!(registry.aliases("m").expect("aliases")[CHAMPION], 3);
    }

    #[test]
    fn what_is_asked_for_is_checked_against_the_columns() {
        let place = tempfile::tempdir().expect("a folder");
        let error = |given: &[(&str, &str)]| trained(&Registry::new(place.path()), given, 2000).expect_err("refused").to_string();
        assert!(error(&[LINEAR[0], LINEAR[1], ("label", "why")]).contains("the query has no such column"));
        assert!(error(&[LINEAR.as_slice(), &[("sed", "1")]].concat()).contains("did you mean 'seed'?"));
        assert!(error(&[LINEAR.as_slice(), &[("weight", "t")]].concat()).contains("a column of numbers"));
        assert!(error(&[LINEAR.as_slice(), &[("publish.gate", "accuracy > 1")]].concat()).contains("this task has no metric 'accuracy'"));
        assert!(error(&[("task", "clustering"), ("algorithm", "dbscan")]).contains("needs the option 'labels.path'"));
    }
}
