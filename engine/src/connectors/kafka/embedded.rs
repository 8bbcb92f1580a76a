//! A broker inside the process, for the demo and for tests: the client library's mock cluster.
//!
//! It speaks the real protocol on loopback, so that other clients can connect too. Its limits, which its
//! users must respect:
//!
//! - **Each partition keeps 5 MiB and 100,000 record batches, and forgets older data silently**: pace the
//!   producer on the consumer's position ([`super::producer::Pace`]) and check row counts at the end.
//! - Topics are made by [`EmbeddedBroker::create_topic`]; the admin protocol does not work.
//! - No look-up of offsets by time: `scan.startup.mode` and `scan.bounded.mode` must not be `timestamp`.
//! - No transactions: rows of an aborted one are visible.
//!
//! The cluster is not made to be moved between threads: one thread of its own holds it, and does what it is
//! asked to. It ends with the last handle.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rdkafka::mocking::MockCluster;

use crate::error::{Error, Result};

/// What a partition of the embedded broker keeps.
pub const PARTITION_BYTES_MAX: usize = 5 << 20;

/// A running embedded broker.
pub struct EmbeddedBroker {
    servers: String,
    requests: Mutex<Option<Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Request {
    topic: String,
    partitions: i32,
    answer: Sender<Result<()>>,
}

impl EmbeddedBroker {
    /// Starts a broker on a free port of loopback.
    ///
    /// # Errors
    /// External: it cannot start.
    pub fn start() -> Result<Self> {
        let (requests, asked) = channel::<Request>();
        let (started, start) = channel();
        let thread = std::thread::Builder::new().name("embedded-broker".into()).spawn(move || {
            let cluster = match MockCluster::new(1) {
                Ok(cluster) => cluster,
                Err(e) => {
                    let _ = started.send(Err(Error::external("the embedded Kafka broker cannot start").caused_by(e)));
                    return;
                }
            };
            let _ = started.send(Ok(cluster.bootstrap_servers()));
            for Request { topic, partitions, answer } in asked {
                let made = cluster.create_topic(&topic, partitions, 1);
                let _ = answer
                    .send(made.map_err(|e| Error::user(format!("topic '{topic}' cannot be created on the embedded broker")).caused_by(e)));
            }
        });
        let thread = thread.map_err(|e| Error::external("the embedded Kafka broker cannot start").caused_by(e))?;
        let servers = start.recv().map_err(|_| Error::internal("the embedded broker's thread ended at its start"))??;
        Ok(Self { servers, requests: Mutex::new(Some(requests)), thread: Mutex::new(Some(thread)) })
    }

    /// Its address, for `properties.bootstrap.servers`.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// User: it exists, or the number of partitions is no good.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let (answer, answered) = channel();
        let requests = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let gone = || Error::internal("the embedded broker has ended");
        let request = Request { topic: topic.to_string(), partitions, answer };
        requests.as_ref().ok_or_else(gone)?.send(request).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        // Closing the channel ends the thread's loop, which drops the cluster.
        self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(thread) = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}
