//! A server with models in memory, asked as clients ask: over its port, by every protocol.

mod clients;
mod load;
mod memory;
mod real;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tonic::Code;
use velosql_proto::inference as oip;
use velosql_proto::v1::{self, predict_request, predict_stream_response};

use super::*;
use clients::{bits, double, features, http, text};
use memory::{Memory, Running};

/// Rows whose sums have no short text, so that a lost bit shows.
fn rows() -> Vec<(f64, i64, &'static str)> {
    vec![(0.1, 3, "a"), (1.0 / 3.0, -7, "b"), (1e-17, 1 << 40, "a"), (-2.5e17, 0, "b"), (0.30000000000000004, 1, "a")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_rows_get_the_same_bits_by_every_protocol() {
    let server = Running::start(Memory::with(&[("price", 1, 0.7)]), |_| {}).await;
    let (mut typed, mut tensors) = server.clients();
    let rows = rows();
    let want: Vec<u64> = rows.iter().map(|(x, n, kind)| memory::linear(0.7, *x, *n, kind).to_bits()).collect();
    let of_rows: Vec<_> = rows.iter().map(|(x, n, kind)| features(*x, *n, kind)).collect();

    let mut single = vec![];
    for features in &of_rows {
        let request = v1::PredictRequest { model: "price".into(), features: features.clone(), ..Default::default() };
        single.push(bits(typed.predict(request).await.expect("predict").into_inner().prediction));
    }
    assert_eq!(single, want, "Predict");

    let request = v1::PredictBatchRequest {
        model: "price".into(),
        rows: of_rows.iter().map(|features| v1::Row { features: features.clone() }).collect(),
        ..Default::default()
    };
    let answers = typed.predict_batch(request).await.expect("rows").into_inner().answers;
    assert_eq!(answers.into_iter().map(|a| bits(a.prediction)).collect::<Vec<_>>(), want, "PredictBatch of rows");

    let request = v1::PredictBatchRequest { model: "price".into(), columns: clients::columns(&rows), ..Default::default() };
    let columns = typed.predict_batch(request).await.expect("columns").into_inner().columns.expect("columns");
    let Some(v1::column::Values::Doubles(doubles)) = columns.prediction.expect("prediction").values else { panic!("doubles") };
    assert_eq!(doubles.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), want, "PredictBatch of columns");

    let messages: Vec<_> = of_rows
        .iter()
        .enumerate()
        .map(|(i, features)| v1::PredictStreamRequest {
            id: i as u64,
            model: if i == 0 { "price".into() } else { String::new() },
            features: features.clone(),
            selector: None,
        })
        .collect();
    let mut stream = typed.predict_stream(tokio_stream::iter(messages)).await.expect("stream").into_inner();
    let mut streamed = vec![];
    while let Some(answer) = stream.message().await.expect("message") {
        assert_eq!(answer.id, streamed.len() as u64);
        let Some(predict_stream_response::Result::Answer(answer)) = answer.result else { panic!("{answer:?}") };
        streamed.push(bits(answer.prediction));
    }
    assert_eq!(streamed, want, "PredictStream");

    for raw in [false, true] {
        let answer = tensors.model_infer(clients::tensors(&rows, raw)).await.expect("infer").into_inner();
        assert_eq!((answer.model_name.as_str(), answer.model_version.as_str(), answer.id.as_str()), ("price", "1", "7"));
        let got = if raw {
            let bytes = answer.raw_output_contents[0].as_chunks::<8>().0;
            bytes.iter().map(|b| f64::from_le_bytes(*b)).collect()
        } else {
            answer.outputs[0].contents.clone().expect("contents").fp64_contents
        };
        assert_eq!(got.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), want, "ModelInfer, raw {raw}");
    }

    let inputs = json!([
        { "name": "x", "datatype": "FP64", "shape": [5, 1], "data": rows.iter().map(|r| [r.0]).collect::<Vec<_>>() },
        { "name": "n", "datatype": "INT64", "shape": [5], "data": rows.iter().map(|r| r.1).collect::<Vec<_>>() },
        { "name": "kind", "datatype": "BYTES", "shape": [5], "data": rows.iter().map(|r| r.2).collect::<Vec<_>>() },
    ]);
    let (status, answer) = server.post("/v2/models/price/versions/champion/infer", &json!({ "inputs": inputs })).await;
    assert_eq!(status, 200, "{answer}");
    let data = answer["outputs"][0]["data"].as_array().expect("data");
    assert_eq!(data.iter().map(double).collect::<Vec<_>>(), want, "infer");

    let objects: Vec<Value> = rows.iter().map(|(x, n, kind)| json!({ "x": x, "n": n, "kind": kind })).collect();
    let (_, answer) = server.post("/predict/price", &json!(objects)).await;
    let answers = answer.as_array().expect("an array for an array");
    assert_eq!(answers.iter().map(|a| double(&a["prediction"])).collect::<Vec<_>>(), want, "/predict of an array");
    for (object, want) in objects.iter().zip(&want) {
        let (_, answer) = server.post("/predict/price?version=1", object).await;
        assert_eq!(double(&answer["prediction"]), *want, "/predict of an object");
        assert_eq!((&answer["model"], &answer["version"]), (&json!("price"), &json!(1)));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_has_its_reason_its_statuses_and_its_field() {
    let models = Memory::with(&[("price", 1, 0.7)]).and_dbscan("density");
    let server = Running::start(models, |options| options.limits.batch_rows_max = 3).await;
    let (mut typed, _) = server.clients();
    let good = json!({ "x": 1.5, "n": 2, "kind": "a" });
    let with = |field: &str, value: Value| {
        let mut row = good.clone();
        row[field] = value;
        row
    };
    let mut missing = good.clone();
    missing.as_object_mut().expect("object").remove("n");
    let cases: Vec<(&str, Value, &str, Code, u16, &str)> = vec![
        ("/predict/price", with("x", Value::Null), "NULL_VALUE", Code::InvalidArgument, 422, "x"),
        ("/predict/price", with("x", json!("NaN")), "NOT_FINITE", Code::InvalidArgument, 422, "x"),
        ("/predict/price", with("kind", json!("z")), "UNKNOWN_CATEGORY", Code::OutOfRange, 422, "kind"),
        ("/predict/price", missing, "MISSING_FIELD", Code::InvalidArgument, 400, "n"),
        ("/predict/price", with("xx", json!(1)), "EXTRA_FIELD", Code::InvalidArgument, 400, "xx"),
        ("/predict/price", with("n", json!(1.5)), "WRONG_TYPE", Code::InvalidArgument, 400, "n"),
        ("/predict/price", with("kind", json!(3)), "WRONG_TYPE", Code::InvalidArgument, 400, "kind"),
        ("/predict/prize", good.clone(), "UNKNOWN_MODEL", Code::NotFound, 404, ""),
        ("/predict/price?version=9", good.clone(), "UNKNOWN_VERSION", Code::NotFound, 404, ""),
        ("/predict/price?alias=blue", good.clone(), "UNKNOWN_VERSION", Code::NotFound, 404, ""),
        ("/predict/density", good.clone(), "NOT_SERVABLE", Code::FailedPrecondition, 409, ""),
        ("/predict/price", json!([good, good, good, good]), "TOO_MANY_ROWS", Code::InvalidArgument, 413, ""),
    ];
    for (path, body, reason, code, http_status, field) in cases {
        let (status, answer) = server.post(path, &body).await;
        assert_eq!((status, answer["reason"].as_str()), (http_status, Some(reason)), "{path} {body}: {answer}");
        assert_eq!(answer["field"].as_str().unwrap_or_default(), field, "{answer}");

        let (model, selector) = match path.trim_start_matches("/predict/").split_once('?') {
            None => (path.trim_start_matches("/predict/"), None),
            Some((model, "version=9")) => (model, Some(predict_request::Selector::Version(9))),
            Some((model, _)) => (model, Some(predict_request::Selector::Alias("blue".into()))),
        };
        let status = match &body {
            Value::Array(rows) => {
                let rows = rows.iter().map(|row| v1::Row { features: clients::of_json(row) }).collect();
                typed.predict_batch(v1::PredictBatchRequest { model: model.into(), rows, ..Default::default() }).await.expect_err(reason)
            }
            row => {
                let request = v1::PredictRequest { model: model.into(), features: clients::of_json(row), selector };
                typed.predict(request).await.expect_err(reason)
            }
        };
        assert_eq!(status.code(), code, "{status:?}");
        let details = String::from_utf8_lossy(status.details()).into_owned();
        assert!(details.contains(reason) && details.contains(field), "{details:?}");
        assert!(status.message().contains(field), "{status:?}");
    }
    // The row is named where there are several, and a bare NaN is no JSON, but its field is still found.
    let (_, answer) = server.post("/predict/price", &json!([good, with("x", Value::Null)])).await;
    assert_eq!((&answer["row"], &answer["field"]), (&json!(1), &json!("x")), "{answer}");
    let (status, answer) = http(server.address, "POST", "/predict/price", &[], br#"{"x": NaN, "n": 2, "kind": "a"}"#).await;
    assert!(status == 422 && text(&answer).contains("\"field\":\"x\""), "{}", text(&answer));

    // A stream goes on after a refused row.
    let bad = clients::of_json(&with("kind", json!("z")));
    let messages =
        [bad, clients::of_json(&good)].map(|features| v1::PredictStreamRequest { model: "price".into(), features, ..Default::default() });
    let mut stream = typed.predict_stream(tokio_stream::iter(messages)).await.expect("stream").into_inner();
    let first = stream.message().await.expect("message").expect("first");
    let Some(predict_stream_response::Result::Failure(failure)) = first.result else { panic!("{first:?}") };
    assert_eq!((failure.reason.as_str(), failure.field.as_str(), failure.code), ("UNKNOWN_CATEGORY", "kind", Code::OutOfRange as i32));
    let second = stream.message().await.expect("message").expect("second");
    assert!(matches!(second.result, Some(predict_stream_response::Result::Answer(_))), "{second:?}");
    drop(stream);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_sizes_and_calls_at_once_are_limited() {
    let directory = tempfile::tempdir().expect("directory");
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "# ours\nsesame\n").expect("tokens");
    let memory = Memory::with(&[("price", 1, 0.7)]).slow();
    let server = Running::start(memory, |options| {
        options.token_file = Some(tokens.clone());
        options.limits.message_bytes_max = 1000;
        options.limits.calls_max = 1;
    })
    .await;
    let good = json!({ "x": 1.5, "n": 2, "kind": "a" });
    let body = good.to_string().into_bytes();

    let (status, answer) = http(server.address, "POST", "/predict/price", &[], &body).await;
    assert!(status == 401 && text(&answer).contains("UNAUTHENTICATED"), "{}", text(&answer));
    let wrong = ("authorization", "Bearer sesam");
    assert_eq!(http(server.address, "GET", "/models", &[wrong], &[]).await.0, 401);
    assert_eq!(http(server.address, "GET", "/v2/health/live", &[], &[]).await.0, 200, "health is open");
    let (mut typed, _) = server.clients();
    let request = v1::PredictRequest { model: "price".into(), features: clients::of_json(&good), selector: None };
    assert_eq!(typed.predict(request.clone()).await.expect_err("no token").code(), Code::Unauthenticated);
    let token = ("authorization", "Bearer sesame");
    assert_eq!(http(server.address, "POST", "/predict/price", &[token], &body).await.0, 200);

    let large = json!({ "x": 1.5, "n": 2, "kind": "a".repeat(2000) });
    let (status, answer) = http(server.address, "POST", "/predict/price", &[token], large.to_string().as_bytes()).await;
    assert!(status == 413 && text(&answer).contains("MESSAGE_TOO_LARGE"), "{}", text(&answer));
    let with_token = |features| {
        let mut request = tonic::Request::new(v1::PredictRequest { model: "price".into(), features, selector: None });
        request.metadata_mut().insert("authorization", "Bearer sesame".parse().expect("ascii"));
        let mut typed = typed.clone();
        async move { typed.predict(request).await }
    };
    let status = with_token(clients::of_json(&large)).await.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");

    // The model takes a while: one call is in, the others are turned away at once.
    let calls = (0..4).map(|_| tokio::spawn(with_token(clients::of_json(&good)))).collect::<Vec<_>>();
    let mut codes = vec![];
    for call in calls {
        codes.push(call.await.expect("joins").map_or_else(|status| status.code(), |_| Code::Ok));
    }
    assert!(codes.contains(&Code::Ok) && codes.contains(&Code::Unavailable), "{codes:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_of_earlier_systems_answer_the_default_or_the_only_model() {
    let memory = Memory::with(&[("price", 1, 0.7), ("rent", 1, 0.1)]).and_clusters("stations");
    let server = Running::start(memory, |_| {}).await;
    let row = json!({ "x": 1.5, "n": 2, "kind": "a" });
    let (status, answer) = server.post("/predict_clustering", &row).await;
    assert_eq!((status, &answer), (200, &json!({ "cluster": 1 })));
    let (status, answer) = server.post("/predict_regression", &row).await;
    assert!(status == 409 && answer["error"].as_str().is_some_and(|e| e.contains("price, rent")), "{answer}");
    assert_eq!(server.post("/predict_classification", &row).await.0, 404);
    server.stop().await;

    let defaults = vec![(Task::Regression, "rent".to_string())];
    let server = Running::start(Memory::with(&[("price", 1, 0.7), ("rent", 1, 0.1)]), |options| options.defaults = defaults).await;
    let (_, answer) = server.post("/predict_regression", &json!([row])).await;
    assert_eq!(double(&answer[0]["prediction"]), memory::linear(0.1, 1.5, 2, "a").to_bits());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_has_can_be_found_out() {
    let server = Running::start(Memory::with(&[("price", 1, 0.7)]).and_clusters("stations"), |_| {}).await;
    let get = |path: &'static str| http(server.address, "GET", path, &[], &[]);
    let document: Value = serde_json::from_slice(&get("/openapi.json").await.1).expect("json");
    assert_eq!(document["openapi"], "3.1.0");
    let features = &document["components"]["schemas"]["price.features"];
    assert_eq!(features["properties"]["x"], json!({ "type": ["number", "null"], "format": "double", "description": "DOUBLE" }));
    assert_eq!(features["required"], json!(["x", "n", "kind"]));
    assert!(document["paths"]["/predict/stations"].is_object() && document["paths"]["/predict_clustering"].is_object());

    // The page and all that it names come from this server.
    let (status, page) = get("/docs/").await;
    let page = text(&page);
    assert!(status == 200 && !page.contains("http://") && !page.contains("https://"), "{page}");
    for file in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        assert!(page.contains(file), "{page}");
        let (status, bytes) = http(server.address, "GET", &format!("/docs/{file}"), &[], &[]).await;
        assert!(status == 200 && !bytes.is_empty(), "{file}");
    }
    assert!(text(&get("/docs/swagger-initializer.js").await.1).contains("/openapi.json"));

    server.post("/predict/price", &json!({ "x": 1.5, "n": 2, "kind": "a" })).await;
    server.post("/predict/price", &json!({ "x": 1.5, "n": 2, "kind": "z" })).await;
    server.post("/predict/no\"where", &json!({})).await;
    let metrics = text(&get("/metrics").await.1);
    for line in [
        "velosql_requests_total{method=\"rest_predict\",model=\"price\",status=\"OK\"} 1",
        "velosql_requests_total{method=\"rest_predict\",model=\"price\",status=\"UNKNOWN_CATEGORY\"} 1",
        "velosql_requests_total{method=\"rest_predict\",model=\"\",status=\"UNKNOWN_MODEL\"} 1",
        "velosql_request_duration_seconds_bucket{method=\"rest_predict\",model=\"price\",status=\"OK\",le=\"+Inf\"} 1",
        "velosql_rows_total{model=\"price\"} 1",
        "velosql_model_version{model=\"price\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }

    let (mut typed, mut tensors) = server.clients();
    let models = typed.list_models(v1::ListModelsRequest {}).await.expect("models").into_inner().models;
    assert_eq!(models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["price", "stations"]);
    let metadata = oip::ModelMetadataRequest { name: "price".into(), version: String::new() };
    let metadata = tensors.model_metadata(metadata).await.expect("metadata").into_inner();
    assert_eq!(metadata.inputs.iter().map(|t| t.datatype.as_str()).collect::<Vec<_>>(), ["FP64", "INT64", "BYTES"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_versions_are_swapped_in_under_load_and_no_call_fails() {
    let memory = Memory::with(&[("price", 1, 1.0)]);
    let server = Running::start(memory.clone(), |options| options.poll = Duration::from_millis(5)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = (0..4).map(|_| {
        let ((mut typed, _), stop) = (server.clients(), stop.clone());
        tokio::spawn(async move {
            let mut seen = BTreeMap::<u64, u64>::new();
            while !stop.load(Relaxed) {
                let request = v1::PredictRequest { model: "price".into(), features: features(1.5, 2, "a"), selector: None };
                let answer = typed.predict(request).await.expect("no call fails").into_inner();
                // The answer is that of the version it names, whichever that is.
                let want = memory::linear(answer.version as f64, 1.5, 2, "a");
                assert_eq!(bits(answer.prediction), want.to_bits());
                *seen.entry(answer.version).or_default() += 1;
            }
            seen
        })
    });
    let load: Vec<_> = load.collect();
    for version in 2..=21 {
        // A damaged version between the good ones changes nothing.
        if version == 10 {
            memory.publish_damaged("price", 100);
            tokio::time::sleep(Duration::from_millis(20)).await;
            memory.remove("price", 100);
        }
        memory.publish("price", version, version as f64);
        while server.get_json("/models/price").await["version"] != version {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    stop.store(true, Relaxed);
    for seen in load {
        let seen = seen.await.expect("no call failed");
        assert!(seen.len() > 10 && !seen.contains_key(&100), "{seen:?}");
    }
    let metrics = text(&http(server.address, "GET", "/metrics", &[], &[]).await.1);
    assert!(metrics.contains("velosql_model_swaps_total{model=\"price\"} 20"), "{metrics}");
    assert!(metrics.contains("velosql_model_load_failures_total{model=\"price\"} 1"), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_its_way_ends_before_the_server_does() {
    let server = Running::start(Memory::with(&[("price", 1, 0.7)]).slow(), |_| {}).await;
    let (mut typed, _) = server.clients();
    let request = v1::PredictRequest { model: "price".into(), features: features(1.5, 2, "a"), selector: None };
    let call = tokio::spawn(async move { typed.predict(request).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let address = server.address;
    server.stop().await;
    call.await.expect("joins").expect("the call ends well");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
