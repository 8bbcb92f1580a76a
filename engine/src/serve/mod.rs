//! Serving: the models of a registry, asked over one port by gRPC and HTTP.
//!
//! ```text
//!            ┌ typed     velosql.v1.Prediction ────────┐
//!  guard ────┼ oip_grpc  Open Inference Protocol ──────┤ serving: catalog ─ rows ─ score ─ answers, metrics
//!  (token,   ├ oip_rest  the same over HTTP ───────────┤
//!   limits)  └ rest      /predict, /models, /docs … ───┘
//! ```
//!
//! What must hold: the same row gets the same bits whatever protocol asks; a new version is taken without a failed
//! call; every refusal names its field and has one status (see [`failure`]); what a caller sends is bounded.

mod answers;
mod catalog;
pub mod client;
mod failure;
mod guard;
mod json;
mod metrics;
mod oip_grpc;
mod oip_rest;
mod openapi;
mod registry;
mod rest;
mod rows;
mod serving;
mod tensors;
#[cfg(test)]
mod tests;
mod tls;
mod typed;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use velosql_proto::inference::grpc_inference_service_server::{GrpcInferenceServiceServer, SERVICE_NAME as OIP};
use velosql_proto::v1::prediction_server::{PredictionServer, SERVICE_NAME as TYPED};

use crate::error::{Error, Result};
use crate::models::registry::Registry;
use crate::models::task::Task;
use catalog::{Catalog, Event, Source};
use serving::Serving;

/// How to serve.
#[derive(Clone)]
pub struct Options {
    /// The registry's directory.
    pub models: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate chain and key, both PEM; without them the port speaks plain text.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A file of bearer tokens, one a line; without it nobody is asked.
    pub token_file: Option<PathBuf>,
    /// Which model answers for a task where none is named.
    pub defaults: Vec<(Task, String)>,
    /// What a caller may ask for.
    pub limits: Limits,
    /// How often the registry is looked at for new versions.
    pub poll: Duration,
    /// How long calls may take to end once the server is told to stop.
    pub drain: Duration,
    /// Where sentences about models that come and go are written.
    pub log: Arc<dyn Fn(&str) + Send + Sync>,
}

/// What a caller may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message or body.
    pub message_bytes_max: usize,
    /// Rows of a call.
    pub batch_rows_max: usize,
    /// Calls at once; a stream is one.
    pub calls_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_bytes_max: 16 << 20, batch_rows_max: 100_000, calls_max: 1024 }
    }
}

impl Options {
    /// The models of `models` at `listen`, all else as usual.
    pub fn new(models: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            models: models.into(),
            listen,
            tls: None,
            token_file: None,
            defaults: vec![],
            limits: Limits::default(),
            poll: Duration::from_secs(1),
            drain: Duration::from_secs(10),
            log: Arc::new(|_| {}),
        }
    }
}

/// A server that has its port and its models, and is ready to [`run`](Server::run).
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
    guard: Arc<guard::Guard>,
    serving: Arc<Serving>,
    options: Options,
}

/// Serves until `shutdown` ends; [`Server::bind`] and [`Server::run`] in one, for callers that know the port.
///
/// # Errors
/// As both.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<()> {
    Server::bind(options)?.run(shutdown).await
}

impl Server {
    /// Takes the port and loads the registry's models. A model that cannot be loaded is logged, and the others served.
    ///
    /// # Errors
    /// User: a file of the options is wrong, the port is taken. External: the models cannot be listed.
    pub fn bind(options: Options) -> Result<Self> {
        let registry = Registry::new(&options.models);
        Self::with_source(options, registry)
    }

    /// Takes the port and loads `source`'s models.
    ///
    /// # Errors
    /// User: a file of the options is wrong, the port is taken. External: the models cannot be listed.
    fn with_source(options: Options, source: impl Source) -> Result<Self> {
        let metrics = Arc::new(metrics::Metrics::default());
        let guard = Arc::new(guard::Guard::new(options.token_file.as_deref(), options.limits.calls_max, metrics.clone())?);
        let tls = options.tls.as_ref().map(|(cert, key)| tls::config(cert, key)).transpose()?;
        let serving = Arc::new(Serving {
            catalog: Arc::new(Catalog::new(source)),
            metrics,
            limits: options.limits,
            defaults: options.defaults.clone(),
            token_asked: options.token_file.is_some(),
            draining: AtomicBool::new(false),
        });
        report(&serving, &options, serving.catalog.refresh()?);
        let failed = |e| Error::user(format!("cannot listen on {}", options.listen)).caused_by(e).help("is the port taken? try --listen");
        let listener = TcpListener::bind(options.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, tls, guard, serving, options })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` ends, then lets the calls that are on their way end.
    ///
    /// # Errors
    /// External: the port cannot be served.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let (app, health) = self.app()?;
        self.run_app(app, health, shutdown).await
    }

    async fn run_app(self, app: axum::Router, health: HealthReporter, shutdown: impl Future<Output = ()>) -> Result<()> {
        let services = ["", TYPED, OIP];
        for service in services {
            health.set_service_status(service, ServingStatus::Serving).await;
        }
        let handle = Handle::new();
        let server = {
            let (handle, tls, listener) = (handle.clone(), self.tls.clone(), self.listener);
            tokio::spawn(async move {
                let mut server = axum_server::from_tcp(listener)?.handle(handle).acceptor(NoDelayAcceptor::new());
                // A call of a batch should not wait for windows of 64 KiB; the limit of calls at once is ours.
                let mut http2 = server.http_builder().http2();
                http2.max_concurrent_streams(4096).initial_stream_window_size(1 << 20).initial_connection_window_size(8 << 20);
                match tls {
                    None => server.serve(app.into_make_service()).await,
                    Some(config) => {
                        let acceptor = RustlsAcceptor::new(config).acceptor(NoDelayAcceptor::new());
                        server.acceptor(acceptor).serve(app.into_make_service()).await
                    }
                }
            })
        };
        let (serving, options) = (self.serving, self.options);
        let follow = follow(&serving, &options);
        tokio::select! {
            () = shutdown => {}
            () = follow => {}
        }
        serving.draining.store(true, Relaxed);
        for service in services {
            health.set_service_status(service, ServingStatus::NotServing).await;
        }
        handle.graceful_shutdown(Some(options.drain));
        let ended = server.await.map_err(|e| Error::internal("the server's task failed").caused_by(e))?;
        ended.map_err(|e| Error::external(format!("serving on {} failed", self.address)).caused_by(e))
    }

    fn app(&self) -> Result<(axum::Router, HealthReporter)> {
        let serving = &self.serving;
        let broken = |e| Error::internal("the service descriptors cannot be read").caused_by(e);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(velosql_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let health = HealthReporter::new();
        let statuses = tonic_health::server::HealthService::from_health_reporter(health.clone());
        let bytes_max = self.options.limits.message_bytes_max;
        let http = rest::routes().merge(oip_rest::routes()).fallback(guard::nowhere).with_state(serving.clone());
        let routes = Routes::from(http)
            .add_service(PredictionServer::new(typed::Typed(serving.clone())).max_decoding_message_size(bytes_max))
            .add_service(GrpcInferenceServiceServer::new(oip_grpc::OipGrpc(serving.clone())).max_decoding_message_size(bytes_max))
            .add_service(tonic_health::pb::health_server::HealthServer::new(statuses))
            .add_service(reflection().build_v1().map_err(broken)?)
            .add_service(reflection().build_v1alpha().map_err(broken)?);
        let app = routes.into_axum_router();
        let app = app.layer(axum::middleware::from_fn_with_state(self.guard.clone(), guard::guard));
        Ok((app, health))
    }
}

/// Looks for new versions for ever.
async fn follow(serving: &Arc<Serving>, options: &Options) {
    loop {
        tokio::time::sleep(options.poll).await;
        let catalog = serving.catalog.clone();
        match tokio::task::spawn_blocking(move || catalog.refresh()).await {
            Ok(Ok(events)) => report(serving, options, events),
            Ok(Err(e)) => (options.log)(&format!("the models cannot be listed, what is loaded stays: {e}")),
            Err(e) => (options.log)(&format!("looking for new models failed: {e}")),
        }
    }
}

fn report(serving: &Serving, options: &Options, events: Vec<Event>) {
    for event in events {
        serving.metrics.event(&event);
        (options.log)(&match event {
            Event::Loaded(name, version) => format!("model '{name}': version {version} is served"),
            Event::Swapped(name, from, to) => format!("model '{name}': version {to} took the place of {from}"),
            Event::Failed(name, version, why) => format!("model '{name}': version {version} cannot be used: {why}"),
            Event::Removed(name) => format!("model '{name}' is gone"),
        });
    }
}
