//! Plain HTTP: predictions as JSON objects, the models, metrics and the paths that earlier systems had.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde_json::{Map, Value, json};

use super::catalog::{Entry, Loaded};
use super::failure::{Answered, Failure, Reason};
use super::json::{self, Body};
use super::openapi;
use super::serving::{Scored, Serving};
use crate::models::registry::Selector;
use crate::models::task::Task;
use crate::stream::types::SqlType;

type Shared = State<Arc<Serving>>;

/// The routes.
pub fn routes() -> axum::Router<Arc<Serving>> {
    axum::Router::new()
        .route("/", get(|| async { axum::response::Redirect::to("/docs/") }))
        .route("/health", get(health))
        .route("/predict/{model}", post(predict))
        .route("/predict_classification", by_task(Task::Classification, "predict_classification"))
        .route("/predict_regression", by_task(Task::Regression, "predict_regression"))
        .route("/predict_clustering", by_task(Task::Clustering, "predict_clustering"))
        .route("/models", get(models))
        .route("/models/{model}", get(model))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(document))
        .route("/docs", get(|| async { axum::response::Redirect::to("/docs/") }))
        .route("/docs/", get(|| async { openapi::page("index.html") }))
        .route("/docs/{*file}", get(|Path(file): Path<String>| async move { openapi::page(&file) }))
}

/// A body, up to the limit.
///
/// # Errors
/// The message is larger than the limit, or broke off.
pub async fn read(serving: &Serving, body: HttpBody) -> Answered<Bytes> {
    let max = serving.limits.message_bytes_max;
    axum::body::to_bytes(body, max).await.map_err(|e| {
        let mut cause: Option<&dyn std::error::Error> = Some(&e);
        while let Some(e) = cause {
            if e.to_string().contains("length limit exceeded") {
                return Failure::new(Reason::MessageTooLarge, format!("the body is larger than the limit of {max} bytes"));
            }
            cause = e.source();
        }
        Failure::new(Reason::Malformed, format!("the body broke off: {e}"))
    })
}

/// A query, such as `?version=3`.
type Asked = Query<BTreeMap<String, String>>;

/// Which version a query asks for.
fn selector(Query(asked): &Asked) -> Answered<Selector> {
    let malformed = |message: String| Err(Failure::new(Reason::Malformed, message));
    let mut asked = asked.iter();
    match (asked.next(), asked.next()) {
        (None, _) => Ok(Selector::Champion),
        (Some((key, value)), None) => match (key.as_str(), value.parse()) {
            ("version", Ok(version)) => Ok(Selector::Version(version)),
            ("version", Err(_)) => malformed(format!("version is '{value}', but must be a number; for an alias write ?alias={value}")),
            ("alias", _) => Ok(Selector::Alias(value.clone())),
            _ => malformed(format!("the query knows 'version' and 'alias', but not '{key}'")),
        },
        _ => malformed("give a version or an alias, and nothing else, in the query".into()),
    }
}

async fn predict(State(serving): Shared, Path(model): Path<String>, asked: Asked, body: HttpBody) -> Result<Response, Failure> {
    let body = read(&serving, body).await?;
    let (scored, single) = score(&serving, "rest_predict", &model, &selector(&asked)?, &body).await?;
    let answer = |row| {
        let mut answer = json::answer(&scored, row);
        answer.insert("model".into(), scored.model.name.clone().into());
        answer.insert("version".into(), scored.model.version.into());
        answer
    };
    Ok(respond(&scored, single, answer))
}

/// A path of earlier systems: the answer is the bare prediction, such as `{"cluster": 2}`.
fn by_task(task: Task, method: &'static str) -> MethodRouter<Arc<Serving>> {
    post(move |State(serving): Shared, body: HttpBody| async move {
        let body = read(&serving, body).await?;
        let model = serving.default_model(task)?;
        let (scored, single) = score(&serving, method, &model, &Selector::Champion, &body).await?;
        let answer = |row| {
            let mut answer = json::answer(&scored, row);
            answer.retain(|name, _| name == "prediction" || name == "cluster");
            answer
        };
        Ok::<_, Failure>(respond(&scored, single, answer))
    })
}

async fn score(serving: &Serving, method: &'static str, model: &str, selector: &Selector, body: &[u8]) -> Answered<(Scored, bool)> {
    let mut single = false;
    let read = |model: &Loaded| {
        let body = Body::parse(body)?;
        single = matches!(body, Body::One(_));
        body.batch(serving, model)
    };
    let scored = serving.answer(method, model, selector, read).await?;
    Ok((scored, single))
}

fn respond(scored: &Scored, single: bool, answer: impl Fn(usize) -> Map<String, Value>) -> Response {
    if single { Json(answer(0)).into_response() } else { Json((0..scored.answers.rows()).map(answer).collect::<Vec<_>>()).into_response() }
}

async fn health(State(serving): Shared) -> Result<Json<Value>, Failure> {
    if serving.ready() { Ok(Json(json!({ "status": "serving" }))) } else { Err(Failure::new(Reason::Busy, "the server is stopping")) }
}

async fn models(State(serving): Shared) -> Json<Value> {
    let snapshot = serving.catalog.snapshot();
    Json(snapshot.models.values().filter_map(|entry| Some(describe(entry, entry.served.as_ref()?))).collect())
}

async fn model(State(serving): Shared, Path(model): Path<String>, asked: Asked) -> Result<Json<Value>, Failure> {
    let loaded = serving.catalog.get(&model, &selector(&asked)?).await?;
    let snapshot = serving.catalog.snapshot();
    Ok(Json(describe(snapshot.entry(&model)?, &loaded)))
}

async fn metrics(State(serving): Shared) -> impl IntoResponse {
    let text = serving.metrics.text(&serving.catalog.snapshot());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn document(State(serving): Shared) -> Json<Value> {
    Json(openapi::document(&serving.catalog.snapshot(), serving.token_asked))
}

fn describe(entry: &Entry, loaded: &Loaded) -> Value {
    let fields = |schema: &arrow::datatypes::SchemaRef| -> Value {
        let field =
            |f: &Arc<arrow::datatypes::Field>| json!({ "name": f.name(), "type": SqlType::of(f).to_string(), "nullable": f.is_nullable() });
        schema.fields().iter().map(field).collect()
    };
    json!({
        "name": loaded.name, "version": loaded.version, "task": loaded.task, "algorithm": loaded.algorithm,
        "inputs": fields(loaded.inputs.schema()), "outputs": fields(&loaded.outputs), "classes": loaded.classes,
        "versions": entry.listing.versions, "aliases": entry.listing.aliases,
    })
}
