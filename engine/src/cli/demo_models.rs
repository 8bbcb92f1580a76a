//! The second half of the demo: models from the Parquet that the job has written, a service, and a call to it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::example::{Secured, example, grpcurl};
use super::execute::print;
use super::run::{SqlArgs, context, session};
use super::serve::runtime;
use super::train;
use crate::error::{Error, Result};
use crate::models::registry::{Registry, Selector};
use crate::runtime::job::Stop;
use crate::serve::{Options, Server, client};
use crate::sql::Step;

/// The shipped file that trains.
const SQL: &str = include_str!("../../../sql/velib/models.sql");
const SQL_FILE: &str = "sql/velib/models.sql";

/// Where the demo's files lie.
pub struct Folders<'a> {
    /// What the job has written.
    pub parquet: &'a Path,
    /// The list of stations.
    pub stations: &'a Path,
    /// The registry.
    pub models: &'a Path,
}

/// Trains both models, serves them, asks each once, and stays up where `stay` says so.
///
/// # Errors
/// What ended a training, or the service.
pub fn train_and_ask(folders: &Folders<'_>, started: Instant, stay: bool, stop: &Stop) -> Result<u8> {
    eprintln!("\n4. {SQL_FILE}: a regression on these windows, and clusters of the stations");
    let sql = SqlArgs {
        options: vec![format!("bikes.path={}", folders.parquet.display()), format!("stations.path={}", folders.stations.display())],
        models: folders.models.to_path_buf(),
        ..SqlArgs::default()
    };
    let registry = Registry::new(folders.models);
    let steps = session(&sql, "demo")?.plan_file(SQL_FILE, SQL)?;
    for step in &steps {
        if let Step::Train(step) = step {
            train::execute(step, &registry, &context("demo"), stop, true)?;
        }
    }
    if stop.is_asked() {
        return Ok(0);
    }
    let mut options = Options::new(folders.models, ([127, 0, 0, 1], 0).into());
    options.log = Arc::new(|text| eprintln!("   {text}"));
    let server = Server::bind(options)?;
    let address = server.address();
    eprintln!("5. a service at {address}: gRPC and HTTP on one port");
    let runtime = runtime()?;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let serving = runtime.spawn(server.run(async {
        let _ = ended.await;
    }));
    for name in registry.names()? {
        let manifest = &registry.load(&name, &Selector::Champion)?.manifest;
        let features = example(&registry, manifest)?;
        let answer = runtime.block_on(client::predict(address, &name, &features))?;
        print(&format!("\n{}\n{answer}", grpcurl(&name, &features, address, Secured::default())));
    }
    print(&format!("\nThe whole way took {:.1} s.", started.elapsed().as_secs_f64()));
    let dir = folders.models.display();
    if stay {
        print(&format!("Serving at {address} until Ctrl-C: try the lines above, or http://{address}/docs"));
        while !stop.is_asked() {
            std::thread::sleep(Duration::from_millis(50));
        }
    } else {
        print(&format!("The models lie in {dir}/: velosql models list --models {dir}; velosql serve --models {dir}"));
    }
    drop(end);
    runtime.block_on(serving).map_err(|e| Error::internal("the service's task failed").caused_by(e))??;
    Ok(0)
}
