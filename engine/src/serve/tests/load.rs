//! Load, on demand: `cargo test --release serve::tests::load -- --ignored --nocapture`.
//!
//! A claim is a ratio from one run: single calls beside an echo of the same messages through the same server (same
//! guard, same library, no model), in turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Request, Response, Status, Streaming};
use velosql_proto::v1::prediction_client::PredictionClient;
use velosql_proto::v1::prediction_server::{Prediction, PredictionServer};
use velosql_proto::v1::{self, value};

use super::clients;
use super::memory::{Memory, Running};

const IN_FLIGHT: usize = 32;
const CONNECTIONS: usize = 4;

/// Answers with what a prediction would hold, and works nothing out.
struct Echo;

#[tonic::async_trait]
impl Prediction for Echo {
    async fn predict(&self, request: Request<v1::PredictRequest>) -> Result<Response<v1::PredictResponse>, Status> {
        let request = request.into_inner();
        let prediction = request.features.get("x").cloned().or(Some(v1::Value { kind: Some(value::Kind::Double(0.0)) }));
        Ok(Response::new(v1::PredictResponse { prediction, model: request.model, version: 1, ..Default::default() }))
    }

    async fn predict_batch(&self, _: Request<v1::PredictBatchRequest>) -> Result<Response<v1::PredictBatchResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    type PredictStreamStream = tokio_stream::Empty<Result<v1::PredictStreamResponse, Status>>;

    async fn predict_stream(&self, _: Request<Streaming<v1::PredictStreamRequest>>) -> Result<Response<Self::PredictStreamStream>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn get_model(&self, _: Request<v1::GetModelRequest>) -> Result<Response<v1::GetModelResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }
}

/// Calls per second, and the sorted latencies.
async fn calls(server: &Running, origin: &str, time: Duration) -> (f64, Vec<Duration>) {
    let origin: axum::http::Uri = format!("http://{}{origin}", server.address).parse().expect("uri");
    let started = Instant::now();
    let channels: Vec<_> = (0..CONNECTIONS).map(|_| server.channel()).collect();
    let tasks: Vec<_> = (0..IN_FLIGHT)
        .map(|i| {
            let mut client = PredictionClient::with_origin(channels[i % CONNECTIONS].clone(), origin.clone());
            tokio::spawn(async move {
                let mut took = vec![];
                while started.elapsed() < time {
                    let features = clients::features(1.5, 2, "a");
                    let request = v1::PredictRequest { model: "price".into(), features, selector: None };
                    let sent = Instant::now();
                    client.predict(request).await.expect("no call fails");
                    took.push(sent.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = vec![];
    for task in tasks {
        took.extend(task.await.expect("joins"));
    }
    took.sort_unstable();
    (took.len() as f64 / started.elapsed().as_secs_f64(), took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "load, on demand"]
async fn single_calls_beside_an_echo_and_rows_of_batches() {
    let echo = axum::Router::new()
        .nest_service("/echo", axum::Router::new().route_service("/velosql.v1.Prediction/{*rest}", PredictionServer::new(Echo)));
    let server =
        Running::start_with(Memory::with(&[("price", 1, 0.7)]), |o| o.limits.message_bytes_max = 64 << 20, |app| app.merge(echo)).await;
    let server = Arc::new(server);
    let percentile = |took: &[Duration], p: usize| took[took.len() * p / 100];
    calls(&server, "", Duration::from_secs(1)).await;
    let mut ratios = vec![];
    for _ in 0..5 {
        let (echoed, of_echo) = calls(&server, "/echo", Duration::from_secs(2)).await;
        let (predicted, of_predict) = calls(&server, "", Duration::from_secs(2)).await;
        ratios.push(predicted / echoed);
        println!(
            "echo {echoed:.0}/s p50 {:?} p99 {:?}; Predict {predicted:.0}/s p50 {:?} p99 {:?}; ratio {:.2}",
            percentile(&of_echo, 50),
            percentile(&of_echo, 99),
            percentile(&of_predict, 50),
            percentile(&of_predict, 99),
            predicted / echoed
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("ratio, median: {:.2}", ratios[2]);

    let rows: Vec<(f64, i64, &str)> = (0..50_000).map(|i| (i as f64 * 0.37, i, if i % 3 == 0 { "a" } else { "b" })).collect();
    let (mut typed, mut tensors) = server.clients();
    let columns = v1::PredictBatchRequest { model: "price".into(), columns: clients::columns(&rows), ..Default::default() };
    let raw = clients::tensors(&rows, true);
    for what in ["columns", "tensors", "columns", "tensors"] {
        let (started, cpu) = (Instant::now(), cpu_s());
        let mut n = 0;
        while started.elapsed() < Duration::from_secs(2) {
            match what {
                "columns" => drop(typed.predict_batch(columns.clone()).await.expect("answers")),
                _ => drop(tensors.model_infer(raw.clone()).await.expect("answers")),
            }
            n += rows.len();
        }
        let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_s() - cpu);
        println!("{what}: {:.2} M rows/s, {:.2} M rows per CPU second of server and client", n as f64 / wall / 1e6, n as f64 / cpu / 1e6);
    }
    assert!(ratios[2] >= 0.6, "{ratios:?}");
}

/// CPU seconds of this process so far.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
}
