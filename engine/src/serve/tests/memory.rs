//! Models in memory, and a server of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, Schema, SchemaRef};
use ndarray::array;
use serde_json::Value;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use velosql_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use velosql_proto::v1::prediction_client::PredictionClient;

use super::clients;
use crate::error::{Error, Result};
use crate::models::algorithms::Scores;
use crate::models::task::{Algorithm, Task};
use crate::serve::answers::Answers;
use crate::serve::catalog::{Listing, Loaded, Scorer, Source};
use crate::serve::failure::{Answered, Failure, Reason};
use crate::serve::rows::Inputs;
use crate::serve::{Options, Server};
use crate::stream::types::SqlType;

/// `weight · x + n + 1 for kind b`: what the models of regression answer.
pub fn linear(weight: f64, x: f64, n: i64, kind: &str) -> f64 {
    weight * x + n as f64 + if kind == "b" { 1.0 } else { 0.0 }
}

/// Models by name, versions by number.
#[derive(Clone, Default)]
pub struct Memory {
    models: Arc<Mutex<BTreeMap<String, BTreeMap<u64, Made>>>>,
    slow: bool,
}

/// How a version is made.
#[derive(Clone, Copy)]
enum Made {
    Linear(f64),
    Clusters,
    Dbscan,
    Damaged,
}

impl Memory {
    /// Models of regression: name, version, weight of x.
    pub fn with(models: &[(&str, u64, f64)]) -> Self {
        let memory = Self::default();
        models.iter().for_each(|(name, version, weight)| memory.publish(name, *version, *weight));
        memory
    }

    /// A model that answers cluster 1 of 2.
    pub fn and_clusters(self, name: &str) -> Self {
        self.put(name, 1, Made::Clusters);
        self
    }

    /// A model that cannot be asked.
    pub fn and_dbscan(self, name: &str) -> Self {
        self.put(name, 1, Made::Dbscan);
        self
    }

    /// Scoring takes 200 ms.
    pub fn slow(self) -> Self {
        Self { slow: true, ..self }
    }

    pub fn publish(&self, name: &str, version: u64, weight: f64) {
        self.put(name, version, Made::Linear(weight));
    }

    pub fn publish_damaged(&self, name: &str, version: u64) {
        self.put(name, version, Made::Damaged);
    }

    pub fn remove(&self, name: &str, version: u64) {
        self.models.lock().expect("no panic").get_mut(name).expect("known").remove(&version);
    }

    fn put(&self, name: &str, version: u64, made: Made) {
        self.models.lock().expect("no panic").entry(name.to_string()).or_default().insert(version, made);
    }
}

impl Source for Memory {
    fn list(&self) -> Result<Vec<Listing>> {
        let models = self.models.lock().expect("no panic");
        let listing = |(name, versions): (&String, &BTreeMap<u64, Made>)| {
            let versions: Vec<u64> = versions.keys().copied().collect();
            let newest = *versions.last().expect("one");
            let aliases = BTreeMap::from([("champion".to_string(), newest)]);
            Listing { name: name.clone(), versions, aliases, served: Ok(newest) }
        };
        Ok(models.iter().map(listing).collect())
    }

    fn load(&self, name: &str, version: u64) -> Result<Loaded> {
        let made = self.models.lock().expect("no panic")[name][&version];
        let inputs = [SqlType::Double.field("x", true), SqlType::BigInt.field("n", false), SqlType::STRING.field("kind", true)];
        let (task, algorithm, outputs) = match made {
            Made::Linear(_) => (Task::Regression, Algorithm::Linear, vec![SqlType::Double.field("prediction", true)]),
            Made::Clusters | Made::Dbscan => {
                let algorithm = if matches!(made, Made::Clusters) { Algorithm::KMeans } else { Algorithm::Dbscan };
                (Task::Clustering, algorithm, vec![SqlType::Int.field("cluster", true), SqlType::Double.field("distance", true)])
            }
            Made::Damaged => return Err(Error::state("the model's bytes were changed")),
        };
        let outputs: SchemaRef = Arc::new(Schema::new(outputs));
        let inputs = Inputs::new(Arc::new(Schema::new(inputs.to_vec())));
        let scorer = Box::new(Scoring { made, slow: self.slow });
        Ok(Loaded { name: name.to_string(), version, task, algorithm, inputs, outputs, classes: vec![], scorer })
    }
}

struct Scoring {
    made: Made,
    slow: bool,
}

impl Scorer for Scoring {
    fn score(&self, rows: &RecordBatch) -> Answered<Answers> {
        if self.slow {
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(200)));
        }
        let (x, n, kind) =
            (rows.column(0).as_primitive::<Float64Type>(), rows.column(1).as_primitive::<Int64Type>(), rows.column(2).as_string::<i32>());
        let refused = |reason, field: &str, row| Err(Failure::of(reason, field, format!("field '{field}' is refused")).at(row));
        for row in 0..rows.num_rows() {
            if x.is_null(row) {
                return refused(Reason::NullValue, "x", row);
            }
            if !x.value(row).is_finite() {
                return refused(Reason::NotFinite, "x", row);
            }
            if !["a", "b"].contains(&kind.value(row)) {
                return refused(Reason::UnknownCategory, "kind", row);
            }
        }
        let rows = 0..rows.num_rows();
        Ok(match self.made {
            Made::Linear(weight) => {
                let values: Vec<f64> = rows.map(|row| linear(weight, x.value(row), n.value(row), kind.value(row))).collect();
                Answers { prediction: Some(Arc::new(Float64Array::from(values.clone()))), scores: Scores::Values(values) }
            }
            _ => {
                let scores = Scores::Clusters {
                    cluster: vec![1; rows.len()],
                    distances: array![[2.0, 1.0]].broadcast((rows.len(), 2)).expect("fits").to_owned(),
                };
                Answers { prediction: None, scores }
            }
        })
    }
}

/// A server on a free port.
pub struct Running {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Running {
    pub async fn start(memory: Memory, set: impl FnOnce(&mut Options)) -> Self {
        Self::start_with(memory, set, |app| app).await
    }

    /// A server with more routes than the product's.
    pub async fn start_with(memory: Memory, set: impl FnOnce(&mut Options), more: impl FnOnce(axum::Router) -> axum::Router) -> Self {
        Self::start_source(memory, set, more).await
    }

    pub async fn start_source(
        source: impl Source,
        set: impl FnOnce(&mut Options),
        more: impl FnOnce(axum::Router) -> axum::Router,
    ) -> Self {
        let mut options = Options::new("", "127.0.0.1:0".parse().expect("address"));
        set(&mut options);
        let server = Server::with_source(options, source).expect("starts");
        let (address, (app, health)) = (server.address(), server.app().expect("routes"));
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let task = tokio::spawn(server.run_app(more(app), health, shutdown));
        Self { address, stop, task }
    }

    pub async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.task.await.expect("joins").expect("ends well");
    }

    pub fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).expect("address").connect_lazy()
    }

    pub fn clients(&self) -> (PredictionClient<Channel>, GrpcInferenceServiceClient<Channel>) {
        (PredictionClient::new(self.channel()), GrpcInferenceServiceClient::new(self.channel()))
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, answer) = clients::http(self.address, "POST", path, &[], body.to_string().as_bytes()).await;
        (status, serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    pub async fn get_json(&self, path: &str) -> Value {
        serde_json::from_slice(&clients::http(self.address, "GET", path, &[], &[]).await.1).expect("json")
    }
}
