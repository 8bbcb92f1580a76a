//! Tensors of the Open Inference Protocol: one for each input of a model, one element for each row.
//!
//! gRPC and REST both read into [`Tensor`] and write from [`Output`], so that they cannot differ. A single numeric
//! tensor of rows × inputs whose name is no input's is taken too, its columns in the order of the model's schema.

use std::borrow::Cow;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::answers::{kind_of, text_at};
use super::catalog::Loaded;
use super::failure::{Answered, Failure, Reason};
use super::rows::Values;
use super::serving::{Scored, Serving};
use crate::models::algorithms::Scores;
use crate::models::task::Task;

/// An input as it came.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [i64],
    /// Its elements, row-major.
    pub values: Values<'a>,
}

/// An answer.
#[derive(Debug, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its elements, row-major.
    pub data: Data,
    /// For probabilities: the classes, a JSON array.
    pub classes: Option<String>,
}

/// The elements of an answer.
#[derive(Debug, PartialEq)]
pub enum Data {
    /// BOOL.
    Bool(Vec<bool>),
    /// INT32.
    Int32(Vec<i32>),
    /// INT64.
    Int64(Vec<i64>),
    /// FP64.
    Fp64(Vec<f64>),
    /// BYTES, always UTF-8.
    Bytes(Vec<String>),
}

/// Makes the batch that `model` scores.
///
/// # Errors
/// A shape does not fit, or as [`Inputs::batch`](super::rows::Inputs::batch).
pub fn batch(serving: &Serving, model: &Loaded, tensors: Vec<Tensor<'_>>) -> Answered<RecordBatch> {
    for tensor in &tensors {
        let Tensor { name, shape, values } = tensor;
        let elements = shape.iter().try_fold(1i64, |n, size| n.checked_mul(*size).filter(|_| *size >= 0));
        if shape.is_empty() || elements != Some(values.len() as i64) {
            let message = format!("field '{name}' has {} elements, but its shape is {shape:?}", values.len());
            return Err(Failure::of(Reason::Malformed, name, message));
        }
    }
    let inputs = &model.inputs;
    let width = inputs.schema().fields().len();
    let tensors = match <[Tensor<'_>; 1]>::try_from(tensors) {
        Ok([matrix]) if !inputs.has(matrix.name) && is_matrix(matrix.shape, width) => return of_matrix(serving, model, matrix),
        Ok([one]) => vec![one],
        Err(tensors) => tensors,
    };
    let rows = tensors.first().map_or(0, |tensor| tensor.shape[0]) as usize;
    serving.limit_rows(rows)?;
    let columns = tensors.into_iter().map(|Tensor { name, shape, values }| match shape {
        [_] | [_, 1] => Ok((name, values, &[][..])),
        _ => Err(Failure::of(Reason::Malformed, name, format!("field '{name}' has the shape {shape:?}; it must be [rows] or [rows, 1]"))),
    });
    inputs.batch(rows, columns.collect::<Answered<_>>()?)
}

/// The outputs that are wanted; all where none is named.
///
/// # Errors
/// The model has no such output.
pub fn outputs(scored: &Scored, wanted: &[&str]) -> Answered<Vec<Output>> {
    let known = output_names(scored.model.task);
    if let Some(name) = wanted.iter().find(|name| !known.contains(*name)) {
        let message = format!("the model has no output '{name}'; it has {}", known.join(", "));
        return Err(Failure::of(Reason::ExtraField, name, message));
    }
    let rows = scored.answers.rows() as i64;
    let all = known.iter().filter(|name| wanted.is_empty() || wanted.contains(*name)).map(|&name| {
        let (shape, data, classes) = match (name, &scored.answers.scores) {
            ("probabilities", Scores::Probabilities(p)) => {
                let classes = serde_json::Value::from(scored.model.classes.clone()).to_string();
                (vec![rows, p.ncols() as i64], Data::Fp64(p.iter().copied().collect()), Some(classes))
            }
            ("cluster", Scores::Clusters { cluster, .. }) => (vec![rows], Data::Int32(cluster.clone()), None),
            ("distance", Scores::Clusters { cluster, distances }) => {
                let nearest = cluster.iter().enumerate().map(|(row, c)| distances[(row, *c as usize)]);
                (vec![rows], Data::Fp64(nearest.collect()), None)
            }
            ("distances", Scores::Clusters { distances, .. }) => {
                (vec![rows, distances.ncols() as i64], Data::Fp64(distances.iter().copied().collect()), None)
            }
            _ => (vec![rows], prediction(scored), None),
        };
        Output { name, shape, data, classes }
    });
    Ok(all.collect())
}

/// Name, element type and shape (−1: the rows) of what a model takes.
pub fn describe_inputs(model: &Loaded) -> Vec<(String, &'static str, Vec<i64>)> {
    model.inputs.schema().fields().iter().map(|f| (f.name().clone(), datatype(f.data_type()), vec![-1])).collect()
}

/// The same of what it answers.
pub fn describe_outputs(model: &Loaded) -> Vec<(String, &'static str, Vec<i64>)> {
    let prediction = model.outputs.field_with_name("prediction").map_or("FP64", |f| match kind_of(f.data_type()) {
        DataType::Boolean => "BOOL",
        DataType::Int64 => "INT64",
        DataType::Float64 => "FP64",
        _ => "BYTES",
    });
    let describe = |&name: &&'static str| {
        let (datatype, shape) = match name {
            "probabilities" => ("FP64", vec![-1, model.classes.len() as i64]),
            "cluster" => ("INT32", vec![-1]),
            "distance" => ("FP64", vec![-1]),
            "distances" => ("FP64", vec![-1, -1]),
            _ => (prediction, vec![-1]),
        };
        (name.to_string(), datatype, shape)
    };
    output_names(model.task).iter().map(describe).collect()
}

/// Reads elements from bytes, little-endian; a BYTES element is its length in four bytes, then itself.
///
/// # Errors
/// The bytes are no whole elements, the type is not known, a text is not UTF-8.
pub fn from_bytes<'a>(name: &str, datatype: &str, bytes: &'a [u8]) -> Answered<Values<'a>> {
    let torn = || Failure::of(Reason::Malformed, name, format!("field '{name}' has {} bytes, which are no whole {datatype}", bytes.len()));
    macro_rules! elements {
        ($t:ty, $to:ty, $wrap:ident) => {{
            let (chunks, rest) = bytes.as_chunks::<{ size_of::<$t>() }>();
            if !rest.is_empty() {
                return Err(torn());
            }
            Values::$wrap(chunks.iter().map(|b| <$t>::from_le_bytes(*b) as $to).collect())
        }};
    }
    Ok(match datatype {
        "BOOL" => Values::Booleans(bytes.iter().map(|b| *b != 0).collect()),
        "INT8" => elements!(i8, i64, Integers),
        "INT16" => elements!(i16, i64, Integers),
        "INT32" => elements!(i32, i64, Integers),
        "INT64" => elements!(i64, i64, Integers),
        "UINT8" => elements!(u8, i64, Integers),
        "UINT16" => elements!(u16, i64, Integers),
        "UINT32" => elements!(u32, i64, Integers),
        // Above 2^63 nothing takes it: as a double it is refused by name.
        "UINT64" => elements!(u64, f64, Doubles),
        "FP32" => elements!(f32, f64, Doubles),
        "FP64" => elements!(f64, f64, Doubles),
        "BYTES" => {
            let (mut texts, mut rest) = (vec![], bytes);
            while !rest.is_empty() {
                let (length, after) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
                let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(torn)?;
                texts.push(Cow::Borrowed(utf8(name, text)?));
                rest = after;
            }
            Values::Texts(texts)
        }
        _ => return Err(unknown_datatype(name, datatype)),
    })
}

/// The elements as bytes; the reverse of [`from_bytes`].
pub fn to_bytes(data: &Data) -> Vec<u8> {
    match data {
        Data::Bool(v) => v.iter().map(|v| u8::from(*v)).collect(),
        Data::Int32(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::Int64(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::Fp64(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::Bytes(v) => {
            let mut out = vec![];
            for text in v {
                out.extend((text.len() as u32).to_le_bytes());
                out.extend(text.as_bytes());
            }
            out
        }
    }
}

/// A BYTES element.
///
/// # Errors
/// It is not UTF-8.
pub fn utf8<'a>(name: &str, bytes: &'a [u8]) -> Answered<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| Failure::of(Reason::WrongType, name, format!("field '{name}' has a text that is not UTF-8")))
}

/// An element type that is not taken.
pub fn unknown_datatype(name: &str, datatype: &str) -> Failure {
    let known = "BOOL, INT8 to INT64, UINT8 to UINT64, FP32, FP64, BYTES";
    Failure::of(Reason::WrongType, name, format!("field '{name}' has the datatype '{datatype}'; known are {known}"))
}

impl Data {
    /// The element type.
    pub fn datatype(&self) -> &'static str {
        match self {
            Self::Bool(_) => "BOOL",
            Self::Int32(_) => "INT32",
            Self::Int64(_) => "INT64",
            Self::Fp64(_) => "FP64",
            Self::Bytes(_) => "BYTES",
        }
    }
}

fn output_names(task: Task) -> &'static [&'static str] {
    match task {
        Task::Classification => &["prediction", "probabilities"],
        Task::Regression => &["prediction"],
        Task::Clustering => &["cluster", "distance", "distances"],
    }
}

fn prediction(scored: &Scored) -> Data {
    let Some(array) = &scored.answers.prediction else { return Data::Fp64(vec![]) };
    // Values that are null are 0: tensors have no null, and a scored row always has a prediction.
    let cast = |to: &DataType| arrow::compute::cast(array, to).unwrap_or_else(|_| array.clone());
    match kind_of(array.data_type()) {
        DataType::Boolean => Data::Bool(array.as_boolean().values().iter().collect()),
        DataType::Int64 => Data::Int64(cast(&DataType::Int64).as_primitive::<Int64Type>().values().to_vec()),
        DataType::Float64 => Data::Fp64(cast(&DataType::Float64).as_primitive::<Float64Type>().values().to_vec()),
        _ => Data::Bytes((0..array.len()).map(|row| text_at(array, row)).collect()),
    }
}

fn is_matrix(shape: &[i64], width: usize) -> bool {
    shape.len() <= 2 && shape.last() == Some(&(width as i64))
}

fn of_matrix(serving: &Serving, model: &Loaded, matrix: Tensor<'_>) -> Answered<RecordBatch> {
    let fields = model.inputs.schema().fields();
    let width = fields.len();
    let rows = matrix.values.len() / width.max(1);
    serving.limit_rows(rows)?;
    let column = |i: usize| match &matrix.values {
        Values::Booleans(v) => Values::Booleans(v.iter().skip(i).step_by(width).copied().collect()),
        Values::Integers(v) => Values::Integers(v.iter().skip(i).step_by(width).copied().collect()),
        Values::Doubles(v) => Values::Doubles(v.iter().skip(i).step_by(width).copied().collect()),
        Values::Texts(v) => Values::Texts(v.iter().skip(i).step_by(width).cloned().collect()),
        Values::Moments(v) => Values::Moments(v.iter().skip(i).step_by(width).copied().collect()),
        Values::Cells(v) => Values::Cells(v.iter().skip(i).step_by(width).copied().collect()),
    };
    let columns = fields.iter().enumerate().map(|(i, field)| (field.name().as_str(), column(i), &[][..]));
    model.inputs.batch(rows, columns.collect())
}

fn datatype(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "BOOL",
        DataType::Int8 => "INT8",
        DataType::Int16 => "INT16",
        DataType::Int32 => "INT32",
        DataType::Int64 => "INT64",
        DataType::UInt8 => "UINT8",
        DataType::UInt16 => "UINT16",
        DataType::UInt32 => "UINT32",
        DataType::UInt64 => "UINT64",
        DataType::Float32 => "FP32",
        DataType::Float64 => "FP64",
        // Decimals, dates and times travel as text.
        _ => "BYTES",
    }
}
