//! The service `velosql.v1.Prediction`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, SchemaRef};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use velosql_proto::prost_types::Timestamp;
use velosql_proto::v1::prediction_server::Prediction;
use velosql_proto::v1::{self, column, get_model_request, predict_batch_request, predict_request, predict_stream_request, value};

use super::answers::{double_at, integer_at, kind_of, text_at};
use super::catalog::{Entry, Loaded};
use super::failure::{Answered, Failure, Reason};
use super::guard::Slot;
use super::rows::{Cell, Values};
use super::serving::{Scored, Serving};
use crate::formats::text::Moment;
use crate::models::algorithms::Scores;
use crate::models::registry::Selector;
use crate::stream::types::SqlType;

/// The service.
#[derive(Clone)]
pub struct Typed(pub Arc<Serving>);

#[tonic::async_trait]
impl Prediction for Typed {
    async fn predict(&self, request: Request<v1::PredictRequest>) -> Result<Response<v1::PredictResponse>, Status> {
        let request = request.into_inner();
        let selector = match request.selector {
            None => Selector::Champion,
            Some(predict_request::Selector::Version(version)) => Selector::Version(version),
            Some(predict_request::Selector::Alias(ref alias)) => Selector::Alias(alias.clone()),
        };
        Ok(Response::new(self.one("Predict", &request.model, &selector, &request.features).await?))
    }

    async fn predict_batch(&self, request: Request<v1::PredictBatchRequest>) -> Result<Response<v1::PredictBatchResponse>, Status> {
        let request = request.into_inner();
        let selector = match request.selector {
            None => Selector::Champion,
            Some(predict_batch_request::Selector::Version(version)) => Selector::Version(version),
            Some(predict_batch_request::Selector::Alias(alias)) => Selector::Alias(alias),
        };
        let by_columns = !request.columns.is_empty();
        let (rows, mut columns) = (request.rows, request.columns);
        let read = |model: &Loaded| {
            if !by_columns {
                self.0.limit_rows(rows.len())?;
                let mut batch = model.inputs.rows(rows.len());
                for (i, row) in rows.iter().enumerate() {
                    batch.push(cells(&row.features)).map_err(|e| e.at(i))?;
                }
                return batch.finish();
            }
            if !rows.is_empty() {
                return Err(Failure::new(Reason::Malformed, "give rows or columns, not both"));
            }
            let nulls: Vec<Vec<u32>> = columns.values_mut().map(|column| std::mem::take(&mut column.nulls)).collect();
            let given = std::mem::take(&mut columns);
            let names: Vec<String> = given.keys().cloned().collect();
            let values = given.into_iter().map(|(name, column)| values(&name, column)).collect::<Answered<Vec<_>>>()?;
            let count = values.first().map_or(0, Values::len);
            self.0.limit_rows(count)?;
            let columns = names.iter().zip(values).zip(&nulls).map(|((name, values), nulls)| (name.as_str(), values, &nulls[..]));
            model.inputs.batch(count, columns.collect())
        };
        let scored = self.0.answer("PredictBatch", &request.model, &selector, read).await?;
        let mut response =
            v1::PredictBatchResponse { model: scored.model.name.clone(), version: scored.model.version, ..Default::default() };
        if by_columns {
            response.columns = Some(answer_columns(scored));
        } else {
            response.answers = (0..scored.answers.rows()).map(|row| answer(&scored, row)).collect();
        }
        Ok(Response::new(response))
    }

    type PredictStreamStream = Pin<Box<dyn Stream<Item = Result<v1::PredictStreamResponse, Status>> + Send>>;

    async fn predict_stream(
        &self,
        request: Request<Streaming<v1::PredictStreamRequest>>,
    ) -> Result<Response<Self::PredictStreamStream>, Status> {
        let (mut last_model, mut last_selector) = (String::new(), Selector::Champion);
        let (_, mut extensions, messages) = request.into_parts();
        let slot = extensions.remove::<Slot>();
        let with_model = messages.map(move |message| {
            // A stream is one of the calls at once until its end.
            let _held = &slot;
            let message = message.map_err(too_large)?;
            let chosen = match &message.selector {
                None => None,
                Some(predict_stream_request::Selector::Version(version)) => Some(Selector::Version(*version)),
                Some(predict_stream_request::Selector::Alias(alias)) => Some(Selector::Alias(alias.clone())),
            };
            if !message.model.is_empty() {
                last_model.clone_from(&message.model);
                last_selector = Selector::Champion;
            }
            if let Some(selector) = chosen {
                last_selector = selector;
            }
            Ok::<_, Status>((message, last_model.clone(), last_selector.clone()))
        });
        let this = self.clone();
        let answers = with_model.then(move |message: Result<_, Status>| {
            let this = this.clone();
            async move {
                let (message, model, selector) = message?;
                let result = match this.one("PredictStream", &model, &selector, &message.features).await {
                    Ok(answer) => v1::predict_stream_response::Result::Answer(answer),
                    Err(e) => v1::predict_stream_response::Result::Failure(v1::Failure {
                        code: e.reason.code() as i32,
                        reason: e.reason.word().into(),
                        message: e.sentence(),
                        field: e.field.unwrap_or_default(),
                    }),
                };
                Ok(v1::PredictStreamResponse { id: message.id, result: Some(result) })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        let snapshot = self.0.catalog.snapshot();
        let models = snapshot.models.values().filter_map(|entry| Some(describe(entry, entry.served.as_ref()?)));
        Ok(Response::new(v1::ListModelsResponse { models: models.collect() }))
    }

    async fn get_model(&self, request: Request<v1::GetModelRequest>) -> Result<Response<v1::GetModelResponse>, Status> {
        let request = request.into_inner();
        let selector = match request.selector {
            None => Selector::Champion,
            Some(get_model_request::Selector::Version(version)) => Selector::Version(version),
            Some(get_model_request::Selector::Alias(alias)) => Selector::Alias(alias),
        };
        let loaded = self.0.catalog.get(&request.model, &selector).await?;
        let snapshot = self.0.catalog.snapshot();
        Ok(Response::new(v1::GetModelResponse { model: Some(describe(snapshot.entry(&request.model)?, &loaded)) }))
    }
}

impl Typed {
    async fn one(
        &self,
        method: &'static str,
        model: &str,
        selector: &Selector,
        features: &BTreeMap<String, v1::Value>,
    ) -> Answered<v1::PredictResponse> {
        let read = |model: &Loaded| {
            let mut batch = model.inputs.rows(1);
            batch.push(cells(features))?;
            batch.finish()
        };
        let scored = self.0.answer(method, model, selector, read).await?;
        let v1::Answer { prediction, probabilities, cluster, distance, distances } = answer(&scored, 0);
        let (model, version) = (scored.model.name.clone(), scored.model.version);
        Ok(v1::PredictResponse { prediction, probabilities, cluster, distance, distances, model, version })
    }
}

/// A message over the limit has the status that gRPC gives it, whatever the library says.
pub fn too_large(status: Status) -> Status {
    if status.code() == Code::OutOfRange && status.message().contains("message length too large") {
        return Failure::new(Reason::MessageTooLarge, status.message()).into();
    }
    status
}

fn cells(features: &BTreeMap<String, v1::Value>) -> impl Iterator<Item = (&str, Cell<'_>)> {
    features.iter().map(|(name, value)| (name.as_str(), cell(value)))
}

fn cell(value: &v1::Value) -> Cell<'_> {
    match &value.kind {
        None | Some(value::Kind::Null(_)) => Cell::Null,
        Some(value::Kind::Bool(value)) => Cell::Boolean(*value),
        Some(value::Kind::Int64(value)) => Cell::Integer(*value),
        Some(value::Kind::Double(value)) => Cell::Double(*value),
        Some(value::Kind::String(value)) => Cell::Text(value),
        Some(value::Kind::Timestamp(value)) => moment(value).map_or(Cell::Other("a timestamp out of its range"), Cell::Moment),
    }
}

fn moment(value: &Timestamp) -> Option<Moment> {
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Moment { seconds: value.seconds, nanos })
}

fn values(name: &str, column: v1::Column) -> Answered<Values<'static>> {
    Ok(match column.values {
        Some(column::Values::Doubles(v)) => Values::Doubles(v.values),
        Some(column::Values::Integers(v)) => Values::Integers(v.values),
        Some(column::Values::Booleans(v)) => Values::Booleans(v.values),
        Some(column::Values::Strings(v)) => Values::Texts(v.values.into_iter().map(Cow::Owned).collect()),
        Some(column::Values::Timestamps(v)) => {
            let moments = v.values.iter().map(moment).collect::<Option<_>>();
            let out_of_range = || Failure::of(Reason::WrongType, name, format!("field '{name}' has a timestamp out of its range"));
            Values::Moments(moments.ok_or_else(out_of_range)?)
        }
        None => return Err(Failure::of(Reason::Malformed, name, format!("field '{name}' has no values"))),
    })
}

fn answer(scored: &Scored, row: usize) -> v1::Answer {
    let mut answer = v1::Answer { prediction: scored.answers.prediction.as_ref().map(|array| value_at(array, row)), ..Default::default() };
    match &scored.answers.scores {
        Scores::Values(_) => {}
        Scores::Probabilities(rows) => {
            answer.probabilities = scored.model.classes.iter().cloned().zip(rows.row(row).iter().copied()).collect();
        }
        Scores::Clusters { cluster, distances } => {
            answer.cluster = Some(cluster[row]);
            answer.distance = distances.get((row, cluster[row] as usize)).copied();
            answer.distances = distances.row(row).to_vec();
        }
    }
    answer
}

fn answer_columns(scored: Scored) -> v1::AnswerColumns {
    let mut columns = v1::AnswerColumns { prediction: scored.answers.prediction.as_ref().map(column_of), ..Default::default() };
    match scored.answers.scores {
        Scores::Values(_) => {}
        Scores::Probabilities(rows) => {
            let of_class = |i: usize| v1::Doubles { values: rows.column(i).to_vec() };
            columns.probabilities = scored.model.classes.iter().enumerate().map(|(i, class)| (class.clone(), of_class(i))).collect();
        }
        Scores::Clusters { cluster, distances } => {
            columns.distances = cluster.iter().enumerate().map(|(row, c)| distances[(row, *c as usize)]).collect();
            columns.centre_distances = distances.columns().into_iter().map(|c| v1::Doubles { values: c.to_vec() }).collect();
            columns.clusters = cluster;
        }
    }
    columns
}

fn column_of(array: &ArrayRef) -> v1::Column {
    let values = match kind_of(array.data_type()) {
        DataType::Float64 => {
            let doubles = arrow::compute::cast(array, &DataType::Float64).unwrap_or_else(|_| array.clone());
            column::Values::Doubles(v1::Doubles { values: doubles.as_primitive::<Float64Type>().values().to_vec() })
        }
        DataType::Int64 => {
            let integers = arrow::compute::cast(array, &DataType::Int64).unwrap_or_else(|_| array.clone());
            column::Values::Integers(v1::Integers { values: integers.as_primitive::<Int64Type>().values().to_vec() })
        }
        DataType::Boolean => column::Values::Booleans(v1::Booleans { values: array.as_boolean().values().iter().collect() }),
        _ => column::Values::Strings(v1::Strings { values: (0..array.len()).map(|row| text_at(array, row)).collect() }),
    };
    let nulls = (0..array.len()).filter(|row| array.is_null(*row)).map(|row| row as u32).collect();
    v1::Column { values: Some(values), nulls }
}

/// The value of a prediction.
fn value_at(array: &ArrayRef, row: usize) -> v1::Value {
    if array.is_null(row) {
        return v1::Value { kind: Some(value::Kind::Null(0)) };
    }
    let kind = match kind_of(array.data_type()) {
        DataType::Boolean => value::Kind::Bool(array.as_boolean().value(row)),
        DataType::Int64 => value::Kind::Int64(integer_at(array, row)),
        DataType::Float64 => value::Kind::Double(double_at(array, row)),
        _ => value::Kind::String(text_at(array, row)),
    };
    v1::Value { kind: Some(kind) }
}

fn describe(entry: &Entry, loaded: &Loaded) -> v1::Model {
    let fields = |schema: &SchemaRef| {
        let field = |f: &Arc<Field>| v1::Field { name: f.name().clone(), r#type: SqlType::of(f).to_string(), nullable: f.is_nullable() };
        schema.fields().iter().map(field).collect()
    };
    v1::Model {
        name: loaded.name.clone(),
        version: loaded.version,
        task: loaded.task.to_string(),
        algorithm: loaded.algorithm.to_string(),
        inputs: fields(loaded.inputs.schema()),
        outputs: fields(&loaded.outputs),
        classes: loaded.classes.clone(),
        versions: entry.listing.versions.clone(),
        aliases: entry.listing.aliases.clone(),
    }
}
