//! The REST half of the Open Inference Protocol, with its binary tensor extension, which Triton's client uses.
//!
//! With the extension the header `Inference-Header-Content-Length` says how long the JSON is; behind it lie the
//! elements of each tensor that has a `binary_data_size`.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::catalog::{Loaded, selector};
use super::failure::{Answered, Failure, Reason};
use super::oip_grpc::EXTENSIONS;
use super::rows::{Cell, Values};
use super::serving::Serving;
use super::tensors::{self, Data, Output, Tensor};
use super::{json, rest};

const JSON_LENGTH: &str = "inference-header-content-length";

type Shared = State<Arc<Serving>>;

#[derive(Debug, Deserialize)]
struct InferRequest {
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Vec<Wanted>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    data: Option<Value>,
    #[serde(default)]
    parameters: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Wanted {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// The routes.
pub fn routes() -> axum::Router<Arc<Serving>> {
    axum::Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(|| async { Json(json!({ "live": true })) }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(|s: Shared, Path(m): Path<String>| metadata(s, m, String::new())))
        .route("/v2/models/{model}/versions/{version}", get(|s: Shared, Path((m, v)): Path<(String, String)>| metadata(s, m, v)))
        .route("/v2/models/{model}/ready", get(|s: Shared, Path(m): Path<String>| model_ready(s, m, String::new())))
        .route("/v2/models/{model}/versions/{version}/ready", get(|s: Shared, Path((m, v)): Path<(String, String)>| model_ready(s, m, v)))
        .route("/v2/models/{model}/infer", post(|s: Shared, Path(m): Path<String>, h: HeaderMap, b: Body| infer(s, m, String::new(), h, b)))
        .route(
            "/v2/models/{model}/versions/{version}/infer",
            post(|s: Shared, Path((m, v)): Path<(String, String)>, h: HeaderMap, b: Body| infer(s, m, v, h, b)),
        )
}

async fn server() -> Json<Value> {
    Json(json!({ "name": "velosql", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS }))
}

async fn ready(State(serving): Shared) -> Result<Json<Value>, Failure> {
    if serving.ready() { Ok(Json(json!({ "ready": true }))) } else { Err(Failure::new(Reason::Busy, "the server is stopping")) }
}

async fn model_ready(State(serving): Shared, model: String, version: String) -> Result<Json<Value>, Failure> {
    let loaded = serving.catalog.get(&model, &selector(&version)?).await?;
    Ok(Json(json!({ "name": loaded.name, "ready": true })))
}

async fn metadata(State(serving): Shared, model: String, version: String) -> Result<Json<Value>, Failure> {
    let loaded = serving.catalog.get(&model, &selector(&version)?).await?;
    let snapshot = serving.catalog.snapshot();
    let versions: Vec<String> = snapshot.entry(&model)?.listing.versions.iter().map(u64::to_string).collect();
    let tensor = |(name, datatype, shape): (String, &str, Vec<i64>)| json!({ "name": name, "datatype": datatype, "shape": shape });
    Ok(Json(json!({
        "name": loaded.name, "versions": versions, "platform": format!("velosql_{}", loaded.algorithm),
        "inputs": tensors::describe_inputs(&loaded).into_iter().map(tensor).collect::<Value>(),
        "outputs": tensors::describe_outputs(&loaded).into_iter().map(tensor).collect::<Value>(),
    })))
}

async fn infer(State(serving): Shared, model: String, version: String, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let body = rest::read(&serving, body).await?;
    let mut request = None;
    let read = |model: &Loaded| {
        let (text, binary) = split(&headers, &body)?;
        let request: &InferRequest = request.insert(json::parse(text)?);
        let tensors = read_tensors(&request.inputs, binary)?;
        tensors::batch(&serving, model, tensors)
    };
    let scored = serving.answer("rest_infer", &model, &selector(&version)?, read).await?;
    let Some(request) = request else { return Err(Failure::new(Reason::Internal, "a request was scored, but not read")) };
    let wanted: Vec<&str> = request.outputs.iter().map(|output| output.name.as_str()).collect();
    let outputs = tensors::outputs(&scored, &wanted)?;

    let all_binary = is_true(&request.parameters, "binary_data_output");
    let mut binary = vec![];
    let outputs: Vec<Value> = outputs
        .into_iter()
        .map(|output| {
            let own = request.outputs.iter().find(|wanted| wanted.name == output.name).and_then(|w| w.parameters.get("binary_data"));
            write_tensor(output, own.map_or(all_binary, |own| own == true), &mut binary)
        })
        .collect();
    let mut answer = json!({ "model_name": scored.model.name, "model_version": scored.model.version.to_string(), "outputs": outputs });
    if let Some(id) = &request.id {
        answer["id"] = id.clone().into();
    }
    if binary.is_empty() {
        return Ok(Json(answer).into_response());
    }
    let mut bytes = answer.to_string().into_bytes();
    let length = HeaderValue::from(bytes.len());
    bytes.append(&mut binary);
    let mut response = ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response();
    response.headers_mut().insert(JSON_LENGTH, length);
    Ok(response)
}

/// The JSON of a body and the bytes behind it.
fn split<'a>(headers: &HeaderMap, body: &'a [u8]) -> Answered<(&'a [u8], &'a [u8])> {
    let Some(length) = headers.get(JSON_LENGTH) else { return Ok((body, &[])) };
    let length = length.to_str().ok().and_then(|text| text.parse().ok()).and_then(|length: usize| body.split_at_checked(length));
    length.ok_or_else(|| Failure::new(Reason::Malformed, "Inference-Header-Content-Length is no length inside the body"))
}

fn read_tensors<'a>(inputs: &'a [Input], mut binary: &'a [u8]) -> Answered<Vec<Tensor<'a>>> {
    let mut tensors = Vec::with_capacity(inputs.len());
    for Input { name, shape, datatype, data, parameters } in inputs {
        let malformed = |what: &str| Failure::of(Reason::Malformed, name, format!("field '{name}' {what}"));
        let size = parameters.get("binary_data_size").map(|size| size.as_u64().ok_or_else(|| malformed("has a bad binary_data_size")));
        let values = match (data, size.transpose()?) {
            (Some(data), None) => Values::Cells(elements(data, datatype, name)?),
            (None, Some(size)) => {
                let size = usize::try_from(size).ok().and_then(|size| binary.split_at_checked(size));
                let (own, rest) = size.ok_or_else(|| malformed("has a binary_data_size beyond the end of the body"))?;
                binary = rest;
                tensors::from_bytes(name, datatype, own)?
            }
            (None, None) => return Err(malformed("has no data")),
            (Some(_), Some(_)) => return Err(malformed("has data and binary_data_size")),
        };
        tensors.push(Tensor { name, shape, values });
    }
    if !binary.is_empty() {
        return Err(Failure::new(Reason::Malformed, format!("{} bytes behind the last tensor", binary.len())));
    }
    Ok(tensors)
}

/// The elements of `data`, which may be nested by its shape or flat.
fn elements<'a>(data: &'a Value, datatype: &str, name: &str) -> Answered<Vec<Cell<'a>>> {
    // The type is part of the contract: elements of FP32 are what a client holds in 32 bits.
    let to_float = datatype == "FP32";
    if !to_float && tensors::from_bytes(name, datatype, &[]).is_err() {
        return Err(tensors::unknown_datatype(name, datatype));
    }
    let (mut out, mut left) = (vec![], VecDeque::from([data]));
    while let Some(value) = left.pop_front() {
        match value {
            Value::Array(values) => values.iter().rev().for_each(|value| left.push_front(value)),
            value => out.push(match json::cell(value) {
                Cell::Double(double) if to_float => Cell::Double((double as f32).into()),
                cell => cell,
            }),
        }
    }
    Ok(out)
}

fn write_tensor(output: Output, as_binary: bool, binary: &mut Vec<u8>) -> Value {
    let mut tensor = json!({ "name": output.name, "datatype": output.data.datatype(), "shape": output.shape });
    let mut parameters = Map::new();
    if let Some(classes) = output.classes {
        parameters.insert("classes".into(), classes.into());
    }
    if as_binary {
        let bytes = tensors::to_bytes(&output.data);
        parameters.insert("binary_data_size".into(), bytes.len().into());
        binary.extend(bytes);
    } else {
        tensor["data"] = match output.data {
            Data::Bool(v) => v.into(),
            Data::Int32(v) => v.into(),
            Data::Int64(v) => v.into(),
            Data::Fp64(v) => v.into(),
            Data::Bytes(v) => v.into(),
        };
    }
    if !parameters.is_empty() {
        tensor["parameters"] = parameters.into();
    }
    tensor
}

fn is_true(parameters: &Map<String, Value>, name: &str) -> bool {
    parameters.get(name) == Some(&Value::Bool(true))
}
