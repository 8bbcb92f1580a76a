//! `velosql serve`: the models of a registry over gRPC and HTTP, until Ctrl-C, which lets calls on their way end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use super::example::{Secured, example, grpcurl};
use super::execute::cores;
use super::table::{TextTable, terminal_width};
use crate::config::{parse_bytes, parse_duration};
use crate::error::{Error, Result};
use crate::models::registry::{Registry, Selector};
use crate::models::task::Task;
use crate::serve::{Limits, Options, Server};

/// `velosql serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The registry of models; new versions are picked up
    #[arg(long, default_value = "models")]
    pub models: PathBuf,
    /// Address and port; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8815")]
    pub listen: SocketAddr,
    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Bearer tokens, one a line; every call must bring one
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The model that answers for a task where none is named
    #[arg(long = "default", value_name = "TASK=MODEL")]
    pub defaults: Vec<String>,
    /// Size of a message at most
    #[arg(long, value_name = "SIZE", default_value = "16mb")]
    pub message_bytes_max: String,
    /// Rows of a call at most
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub batch_rows_max: usize,
    /// Calls at once at most; a stream is one
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub calls_max: usize,
    /// How often the registry is looked at for new versions
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub poll: String,
    /// How long calls on their way may take to end after Ctrl-C
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub drain: String,
}

/// Serves. Answers the exit status.
///
/// # Errors
/// User: an option, a file, or a port that is taken. External: the port cannot be served.
pub fn serve(args: &ServeArgs) -> Result<u8> {
    let duration = |option: &str, text: &str| {
        parse_duration(text).ok_or_else(|| Error::user(format!("--{option} {text}: expected a duration such as 1s or 500ms")))
    };
    let bytes = parse_bytes(&args.message_bytes_max).filter(|b| *b > 0);
    let message_bytes_max =
        bytes.ok_or_else(|| Error::user(format!("--message-bytes-max {}: expected a size such as 16mb", args.message_bytes_max)))? as usize;
    let mut options = Options::new(&args.models, args.listen);
    options.tls = args.tls_cert.clone().zip(args.tls_key.clone());
    options.token_file = args.token_file.clone();
    options.defaults = args.defaults.iter().map(|d| default(d)).collect::<Result<_>>()?;
    options.limits = Limits { message_bytes_max, batch_rows_max: args.batch_rows_max, calls_max: args.calls_max };
    options.poll = duration("poll", &args.poll)?.max(Duration::from_millis(10));
    options.drain = duration("drain", &args.drain)?;
    options.log = Arc::new(|text| eprintln!("{text}"));

    let interrupted = super::signals::interrupted()?;
    let server = Server::bind(options)?;
    let secured = Secured { tls: args.tls_cert.is_some(), token: args.token_file.is_some() };
    greet(&Registry::new(&args.models), server.address(), secured)?;
    run(server, &interrupted)
}

/// Serves until the flag is set.
///
/// # Errors
/// External: the port cannot be served.
pub fn run(server: Server, interrupted: &AtomicBool) -> Result<u8> {
    runtime()?.block_on(server.run(async {
        while !interrupted.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        eprintln!("\nstopping: calls on their way may end; a second Ctrl-C ends at once");
    }))?;
    Ok(0)
}

/// Threads that answer calls.
///
/// # Errors
/// External: they cannot be started.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(cores()).enable_all().build();
    built.map_err(|e| Error::external("cannot start threads").caused_by(e))
}

fn default(text: &str) -> Result<(Task, String)> {
    let (task, model) =
        text.split_once('=').ok_or_else(|| Error::user(format!("--default {text}: expected TASK=MODEL, such as regression=bikes_next")))?;
    Ok((Task::parse(task.trim()).map_err(|e| e.context(format_args!("--default {text}")))?, model.trim().to_string()))
}

/// Says where the server listens, what it serves, and how to try it.
fn greet(registry: &Registry, address: SocketAddr, secured: Secured) -> Result<()> {
    let mut table = TextTable::new([("model", false), ("version", true), ("task", false), ("algorithm", false), ("inputs", false)]);
    let mut first = None;
    for name in registry.names()? {
        // One that cannot be loaded was named when the server loaded its models.
        let Ok(served) = registry.load(&name, &Selector::Champion) else { continue };
        let m = &served.manifest;
        let inputs = m.inputs.iter().map(|f| format!("{} {}", f.name, f.sql_type)).collect::<Vec<_>>().join(", ");
        table.push([name, m.version.to_string(), m.task.to_string(), m.algorithm.to_string(), inputs]);
        first.get_or_insert_with(|| m.clone());
    }
    let scheme = if secured.tls { "https" } else { "http" };
    eprintln!("listening on {address}: gRPC, and {scheme}://{address}/docs for HTTP");
    match first {
        None => eprintln!("there is no model in {} yet; what is published there is picked up", registry.root().display()),
        Some(manifest) => {
            eprintln!("\n{}", table.draw(terminal_width().or(Some(120))));
            let features = example(registry, &manifest)?;
            eprintln!("try it:\n  {}", grpcurl(&manifest.name, &features, address, secured));
        }
    }
    Ok(())
}
