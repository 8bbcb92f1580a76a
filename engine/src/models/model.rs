//! A model: feature spec, label and fitted state in one piece, what it takes and gives, and its bytes.
//!
//! The bytes are a format of our own: magic, version, length, body (CBOR), sha256 of all before it. What must hold:
//! whatever [`Model::from_bytes`] lets through can be scored with, so that a foreign, cut, flipped or newer file is
//! refused where it is read, never where it is used.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int32Array, MapArray, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::algorithms::{Scores, State};
use super::features::{Binding, FeatureSpec, Mismatch, Refusal};
use super::label::{Classes, Label};
use super::task::{Algorithm, Task};
use crate::error::{Error, Result};
use crate::stream::types::SqlType;

const MAGIC: &[u8; 8] = b"VELOSQLM";
/// The version of the format that this program writes; it reads no newer one.
pub const FORMAT_VERSION: u32 = 1;
const HEAD: usize = 8 + 4 + 8;
const HASH: usize = 32;

/// A fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    body: Body,
    inputs: Schema,
    outputs: SchemaRef,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Body {
    task: Task,
    algorithm: Algorithm,
    features: FeatureSpec,
    label: Option<Label>,
    state: State,
}

/// The answers to some rows.
#[derive(Debug, Clone)]
pub struct Scored {
    /// The columns of [`Model::outputs`], null where a row was refused.
    pub columns: RecordBatch,
    /// What could not be scored, by row.
    pub refused: Vec<Refusal>,
    /// The bare scores; those of refused rows have no meaning.
    pub scores: Scores,
}

/// The answers to some rows, with no more than the first column made of the scores.
#[derive(Debug, Clone)]
pub struct Bare {
    /// The first column of [`Model::outputs`]: the prediction, or the cluster; null where a row was refused.
    pub first: ArrayRef,
    /// What could not be scored, by row.
    pub refused: Vec<Refusal>,
    /// The bare scores; those of refused rows have no meaning.
    pub scores: Scores,
}

impl Model {
    /// Puts the parts together.
    ///
    /// # Errors
    /// State: parts that do not fit each other.
    pub fn new(task: Task, algorithm: Algorithm, features: FeatureSpec, label: Option<Label>, state: State) -> Result<Self> {
        features.check()?;
        let label_fits = match (task, &label) {
            (Task::Classification, Some(label)) => label.classes.is_some(),
            (Task::Regression, Some(label)) => label.classes.is_none(),
            (Task::Clustering, label) => label.is_none(),
            (_, None) => false,
        };
        if !label_fits {
            return Err(Error::state(format!("the model's label does not do for {task}")));
        }
        label.as_ref().map_or(Ok(()), Label::check)?;
        state.check(features.width())?;
        // A row of zeros is one that every state can score: it shows of what kind the answers are, and of how many classes.
        let fits = match (task, state.score(Array2::zeros((1, features.width())).view())) {
            (Task::Classification, Scores::Probabilities(p)) => Some(p.ncols()) == label.as_ref().map(|l| l.names().len()),
            (Task::Regression, Scores::Values(_)) | (Task::Clustering, Scores::Clusters { .. }) => true,
            _ => false,
        };
        if !fits {
            return Err(Error::state(format!("the model's state is none of {algorithm} for {task} with these classes")));
        }
        let inputs = features.schema()?;
        let outputs = Arc::new(outputs(task, label.as_ref())?);
        Ok(Self { body: Body { task, algorithm, features, label, state }, inputs, outputs })
    }

    /// What it predicts.
    pub fn task(&self) -> Task {
        self.body.task
    }

    /// How it was learnt.
    pub fn algorithm(&self) -> Algorithm {
        self.body.algorithm
    }

    /// How rows become numbers.
    pub fn features(&self) -> &FeatureSpec {
        &self.body.features
    }

    /// What was learnt from; none for clustering.
    pub fn label(&self) -> Option<&Label> {
        self.body.label.as_ref()
    }

    /// The fitted numbers.
    pub fn state(&self) -> &State {
        &self.body.state
    }

    /// What callers must give: names, SQL types, and whether a null is taken.
    pub fn inputs(&self) -> &Schema {
        &self.inputs
    }

    /// What comes back: `prediction` and, for a classification, `probabilities`; or `cluster` and `distance`. All are
    /// nullable, because a refused row has no answer.
    pub fn outputs(&self) -> SchemaRef {
        self.outputs.clone()
    }

    /// Finds the model's fields in `schema`, and refuses others.
    ///
    /// # Errors
    /// The first field that is missing, of a wrong type, or not the model's.
    pub fn bind(&self, schema: &Schema) -> Result<Binding, Mismatch> {
        self.body.features.bind(schema)
    }

    /// Scores the rows of `batch`, which has the model's fields and no others.
    ///
    /// # Errors
    /// User: the batch has not the model's fields.
    pub fn score(&self, batch: &RecordBatch) -> Result<Scored> {
        let binding = self.bind(&batch.schema())?;
        self.score_bound(&binding, batch)
    }

    /// Scores the rows of `batch`, whose schema gave `binding`.
    ///
    /// # Errors
    /// Internal: the batch has not that schema.
    pub fn score_bound(&self, binding: &Binding, batch: &RecordBatch) -> Result<Scored> {
        let Bare { first, refused, scores } = self.score_bare(binding, batch)?;
        let nulls = first.nulls();
        let mut columns = vec![first.clone()];
        match &scores {
            Scores::Values(_) => {}
            Scores::Probabilities(p) => columns.push(probabilities(p, &self.classes()?.names(), nulls, &self.outputs)?),
            Scores::Clusters { cluster, distances } => {
                let nearest: Vec<f64> = cluster.iter().enumerate().map(|(row, c)| distances[(row, *c as usize)]).collect();
                columns.push(Arc::new(Float64Array::new(nearest.into(), nulls.cloned())));
            }
        }
        let columns = RecordBatch::try_new(self.outputs.clone(), columns)?;
        Ok(Scored { columns, refused, scores })
    }

    /// The same without what a caller that takes the bare scores has no use for.
    ///
    /// # Errors
    /// As [`Self::score_bound`].
    pub fn score_bare(&self, binding: &Binding, batch: &RecordBatch) -> Result<Bare> {
        let encoded = self.body.features.encode_bound(binding, batch)?;
        let scores = self.body.state.score(encoded.x.view());
        let (rows, refused) = (batch.num_rows(), encoded.refused);
        let nulls = (!refused.is_empty()).then(|| {
            let mut valid = vec![true; rows];
            refused.iter().for_each(|r| valid[r.row] = false);
            NullBuffer::from(valid)
        });
        let first: ArrayRef = match &scores {
            Scores::Values(values) => Arc::new(Float64Array::new(values.clone().into(), nulls)),
            Scores::Probabilities(p) => {
                let best = (0..rows).map(|i| nulls.as_ref().is_none_or(|n| n.is_valid(i)).then(|| largest(p.row(i).iter().copied())));
                self.classes()?.take(best, self.outputs.field(0).data_type())?
            }
            Scores::Clusters { cluster, .. } => Arc::new(Int32Array::new(cluster.clone().into(), nulls)),
        };
        Ok(Bare { first, refused, scores })
    }

    fn classes(&self) -> Result<&Classes> {
        let classes = self.body.label.as_ref().and_then(|l| l.classes.as_ref());
        classes.ok_or_else(|| Error::internal("probabilities of a model without classes"))
    }

    /// The model as a file.
    ///
    /// # Errors
    /// Internal: the model cannot be written as CBOR.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        ciborium::into_writer(&self.body, &mut body).map_err(|e| Error::internal("a model cannot be written").caused_by(e))?;
        let mut bytes = Vec::with_capacity(HEAD + body.len() + HASH);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&body);
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        Ok(bytes)
    }

    /// The model of a file.
    ///
    /// # Errors
    /// State: the bytes are no model, were cut or changed, or are of a newer version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let word = |at: usize, n: usize| bytes.get(at..at + n);
        if word(0, 8) != Some(MAGIC) {
            return Err(Error::state("it is no model of VeloSQL"));
        }
        let cut = || Error::state(format!("the model is cut off after {} bytes", bytes.len()));
        let version = u32::from_le_bytes(word(8, 4).ok_or_else(cut)?.try_into().expect("four bytes"));
        if version != FORMAT_VERSION {
            let e = Error::state(format!("the model has format version {version}, and this program knows {FORMAT_VERSION}"));
            return Err(e.help("a newer VeloSQL wrote it, or its first bytes were changed"));
        }
        let length = u64::from_le_bytes(word(12, 8).ok_or_else(cut)?.try_into().expect("eight bytes"));
        let length = usize::try_from(length).ok().filter(|n| *n <= bytes.len()).ok_or_else(cut)?;
        let (body, hash) = (word(HEAD, length).ok_or_else(cut)?, word(HEAD + length, HASH).ok_or_else(cut)?);
        if bytes.len() != HEAD + length + HASH {
            return Err(Error::state("the model is followed by bytes that are not its own"));
        }
        if Sha256::digest(&bytes[..HEAD + length]).as_slice() != hash {
            return Err(Error::state("the model's bytes do not have the sha256 at their end: they were changed"));
        }
        let body: Body = ciborium::from_reader(body).map_err(|e| Error::state("the model cannot be read").caused_by(e))?;
        Self::new(body.task, body.algorithm, body.features, body.label, body.state)
    }
}

fn outputs(task: Task, label: Option<&Label>) -> Result<Schema> {
    let fields: Vec<Field> = match (task, label) {
        (Task::Clustering, _) => vec![SqlType::Int.field("cluster", true), SqlType::Double.field("distance", true)],
        (Task::Classification, Some(label)) => {
            let map = SqlType::Map(Box::new(SqlType::STRING), Box::new(SqlType::Double), true);
            vec![label.prediction()?, map.field("probabilities", true)]
        }
        _ => vec![SqlType::Double.field("prediction", true)],
    };
    Ok(Schema::new(fields))
}

/// The first of the greatest.
fn largest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, value) in values.enumerate() {
        if value > best.1 {
            best = (i, value);
        }
    }
    best.0
}

/// A map from class name to probability for each row that is not null.
fn probabilities(p: &Array2<f64>, names: &[String], nulls: Option<&NullBuffer>, outputs: &Schema) -> Result<ArrayRef> {
    let DataType::Map(entries, sorted) = outputs.field(1).data_type() else {
        return Err(Error::internal("probabilities are no map"));
    };
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(Error::internal("a map's entries are no struct"));
    };
    let valid = |row: &usize| nulls.is_none_or(|n| n.is_valid(*row));
    let rows = p.nrows();
    let filled = (0..rows).filter(valid).count();
    let mut values: Vec<f64> = Vec::with_capacity(filled * names.len());
    (0..rows).filter(valid).for_each(|row| values.extend(p.row(row)));
    let slots: UInt32Array = (0..filled).flat_map(|_| 0..names.len() as u32).collect();
    let keys = take(&StringArray::from_iter_values(names), &slots, None)?;
    let entry_columns: Vec<ArrayRef> = vec![keys, Arc::new(Float64Array::from(values))];
    let lengths = (0..rows).map(|row| if valid(&row) { names.len() } else { 0 });
    let map = MapArray::try_new(
        entries.clone(),
        OffsetBuffer::from_lengths(lengths),
        StructArray::try_new(fields.clone(), entry_columns, None)?,
        nulls.cloned(),
        *sorted,
    )?;
    debug_assert_eq!(map.len(), rows);
    Ok(Arc::new(map))
}

#[cfg(test)]
pub(crate) mod tests;
