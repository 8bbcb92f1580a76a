//! The OpenAPI 3.1 document, made from the models that are served, and the page that shows it without a network.
//!
//! Each model has its own path, its own request and its own answer, so that the page's forms and generated clients know
//! every feature by name and type.

use std::sync::Arc;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use utoipa_swagger_ui::Config;

use super::answers::kind_of;
use super::catalog::{Loaded, Snapshot};
use super::failure::{Failure, Reason};
use crate::models::task::Task;
use crate::stream::types::SqlType;
use arrow::datatypes::{DataType, Field};

/// The document.
pub fn document(snapshot: &Snapshot, token_asked: bool) -> Value {
    let served: Vec<&Arc<Loaded>> = snapshot.models.values().filter_map(|entry| entry.served.as_ref()).collect();
    let mut paths = Map::new();
    let mut schemas = Map::from_iter([("Failure".to_string(), failure_schema()), ("Model".to_string(), model_schema())]);
    for loaded in &served {
        let name = &loaded.name;
        schemas.insert(format!("{name}.features"), features_schema(loaded));
        schemas.insert(format!("{name}.answer"), answer_schema(loaded));
        paths.insert(format!("/predict/{name}"), json!({ "post": predict(loaded) }));
    }
    for task in [Task::Classification, Task::Regression, Task::Clustering] {
        let models: Vec<&&Arc<Loaded>> = served.iter().filter(|loaded| loaded.task == task).collect();
        if models.is_empty() {
            continue;
        }
        let any_of: Vec<Value> = models.iter().map(|loaded| reference(&format!("{}.features", loaded.name))).collect();
        let answered = if task == Task::Clustering { "cluster" } else { "prediction" };
        paths.insert(
            format!("/predict_{task}"),
            json!({ "post": {
                "tags": ["predictions"], "operationId": format!("predict_{task}"),
                "summary": format!("Scores by the default model for {task}"),
                "requestBody": { "required": true, "content": content(one_or_many(json!({ "anyOf": any_of }))) },
                "responses": responses(one_or_many(json!({ "type": "object", "properties": { answered: {} }, "required": [answered] }))),
            } }),
        );
    }
    let version =
        json!({ "name": "version", "in": "query", "schema": { "type": "integer" }, "description": "This version, not the served one." });
    let alias = json!({ "name": "alias", "in": "query", "schema": { "type": "string" }, "description": "The version of this alias." });
    let model = json!({ "name": "model", "in": "path", "required": true, "schema": { "type": "string" } });
    paths.insert(
        "/models".into(),
        json!({ "get": {
            "tags": ["models"], "operationId": "models", "summary": "The models that are served",
            "responses": responses(json!({ "type": "array", "items": reference("Model") })),
        } }),
    );
    paths.insert(
        "/models/{model}".into(),
        json!({ "get": {
            "tags": ["models"], "operationId": "model", "summary": "What a model takes and answers", "parameters": [model, version, alias],
            "responses": responses(reference("Model")),
        } }),
    );
    paths.insert(
        "/metrics".into(),
        json!({ "get": {
            "tags": ["server"], "operationId": "metrics", "summary": "Counters as Prometheus text",
            "responses": { "200": { "description": "The counters.", "content": { "text/plain": { "schema": { "type": "string" } } } } },
        } }),
    );
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "VeloSQL predictions", "version": env!("CARGO_PKG_VERSION"),
            "description": "One port: these paths, the Open Inference Protocol under /v2, and gRPC with reflection.",
        },
        "paths": paths,
        "components": { "schemas": schemas },
    });
    if token_asked {
        document["components"]["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
        document["security"] = json!([{ "token": [] }]);
    }
    document
}

/// A file of the page.
pub fn page(file: &str) -> Response {
    let config = Config::new(["/openapi.json"]).validator_url("none").try_it_out_enabled(true);
    match utoipa_swagger_ui::serve(file, Arc::new(config)) {
        Ok(Some(file)) => {
            let mut response = ([(header::CONTENT_TYPE, file.content_type)], file.bytes.into_owned()).into_response();
            if file.gzpipped {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Ok(None) => Failure::new(Reason::UnknownPath, format!("the page has no file '{file}'")).into_response(),
        Err(e) => Failure::new(Reason::Internal, format!("the page cannot be made: {e}")).into_response(),
    }
}

fn predict(loaded: &Loaded) -> Value {
    let name = &loaded.name;
    json!({
        "tags": ["predictions"], "operationId": format!("predict_{name}"),
        "summary": format!("Scores by model {name}: {} by {}", loaded.task, loaded.algorithm),
        "description": format!("An object is answered by an object, an array by an array. Version {} answers now.", loaded.version),
        "parameters": [
            { "name": "version", "in": "query", "schema": { "type": "integer" }, "description": "This version, not the served one." },
            { "name": "alias", "in": "query", "schema": { "type": "string" }, "description": "The version of this alias." },
        ],
        "requestBody": { "required": true, "content": content(one_or_many(reference(&format!("{name}.features")))) },
        "responses": responses(one_or_many(reference(&format!("{name}.answer")))),
    })
}

fn features_schema(loaded: &Loaded) -> Value {
    let fields = loaded.inputs.schema().fields();
    let properties: Map<String, Value> = fields.iter().map(|field| (field.name().clone(), input_schema(field))).collect();
    let required: Vec<&String> = fields.iter().map(|field| field.name()).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn input_schema(field: &Field) -> Value {
    let sql_type = SqlType::of(field);
    let (kind, format) = match &sql_type {
        SqlType::Boolean => ("boolean", None),
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int => ("integer", Some("int32")),
        SqlType::BigInt => ("integer", Some("int64")),
        SqlType::Float => ("number", Some("float")),
        SqlType::Double => ("number", Some("double")),
        SqlType::Decimal(..) => ("number", None),
        SqlType::Date => ("string", Some("date")),
        SqlType::Time(_) => ("string", Some("time")),
        SqlType::Timestamp(_) | SqlType::TimestampLtz(_) => ("string", Some("date-time")),
        _ => ("string", None),
    };
    let kinds = if field.is_nullable() { json!([kind, "null"]) } else { json!(kind) };
    let mut schema = json!({ "type": kinds, "description": sql_type.to_string() });
    if let Some(format) = format {
        schema["format"] = format.into();
    }
    schema
}

fn answer_schema(loaded: &Loaded) -> Value {
    let number = || json!({ "type": "number", "format": "double" });
    let mut properties = Map::new();
    match loaded.task {
        Task::Classification => {
            let kind = loaded.outputs.field_with_name("prediction").map_or(DataType::Utf8, |f| kind_of(f.data_type()));
            let prediction = match kind {
                DataType::Boolean => json!({ "type": "boolean" }),
                DataType::Int64 => json!({ "type": "integer", "format": "int64" }),
                DataType::Float64 => number(),
                _ => json!({ "type": "string", "enum": loaded.classes }),
            };
            let of_classes: Map<String, Value> = loaded.classes.iter().map(|class| (class.clone(), number())).collect();
            properties.insert("prediction".into(), prediction);
            properties.insert("probabilities".into(), json!({ "type": "object", "properties": of_classes, "required": loaded.classes }));
        }
        Task::Regression => {
            properties.insert("prediction".into(), number());
        }
        Task::Clustering => {
            properties.insert("cluster".into(), json!({ "type": "integer", "format": "int32" }));
            properties.insert("distance".into(), number());
            properties.insert("distances".into(), json!({ "type": "array", "items": number() }));
        }
    }
    properties.insert("model".into(), json!({ "type": "string" }));
    properties.insert("version".into(), json!({ "type": "integer" }));
    let required: Vec<&String> = properties.keys().collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn failure_schema() -> Value {
    json!({
        "type": "object", "required": ["error", "reason"],
        "properties": {
            "error": { "type": "string", "description": "A sentence." },
            "reason": { "type": "string", "description": "One word: MISSING_FIELD, EXTRA_FIELD, WRONG_TYPE, NOT_FINITE, NULL_VALUE, …" },
            "field": { "type": "string", "description": "The field that is to blame." },
            "row": { "type": "integer", "description": "The row that is to blame, counted from 0." },
        },
    })
}

fn model_schema() -> Value {
    let field = json!({ "type": "object", "properties": { "name": { "type": "string" }, "type": { "type": "string" }, "nullable": { "type": "boolean" } } });
    let fields = json!({ "type": "array", "items": field });
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" }, "version": { "type": "integer" }, "task": { "type": "string" }, "algorithm": { "type": "string" },
            "inputs": fields, "outputs": fields, "classes": { "type": "array", "items": { "type": "string" } },
            "versions": { "type": "array", "items": { "type": "integer" } },
            "aliases": { "type": "object", "additionalProperties": { "type": "integer" } },
        },
    })
}

fn responses(schema: Value) -> Value {
    json!({
        "200": { "description": "The answer.", "content": content(schema) },
        "default": { "description": "Why there is none.", "content": content(reference("Failure")) },
    })
}

fn one_or_many(schema: Value) -> Value {
    json!({ "oneOf": [schema.clone(), { "type": "array", "items": schema }] })
}

fn content(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
