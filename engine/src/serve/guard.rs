//! What stands before every call: the bearer token and the number of calls at once. And the statuses of calls that the
//! libraries refuse by themselves, put into our words.
//!
//! What must hold: tokens are compared in a time that does not depend on them; a call that is refused here reaches no
//! model; health stays open, because those who ask for it carry no token.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::failure::{Answered, Failure, Reason};
use super::metrics::{InFlight, Metrics};
use super::typed;
use crate::error::{Error, Result};

/// The guard.
pub struct Guard {
    /// The hashes of the tokens; none: no token is asked for. Hashes have one length, and a comparison of them tells
    /// nothing of the token.
    tokens: Option<Vec<[u8; 32]>>,
    slots: Arc<Semaphore>,
    calls_max: usize,
    metrics: Arc<Metrics>,
}

/// A place among the calls at once; streams keep it in their extensions to their end.
#[derive(Clone)]
pub struct Slot(#[allow(dead_code)] Arc<(OwnedSemaphorePermit, InFlight)>);

impl Guard {
    /// A guard that asks for one of the tokens of `token_file` and lets `calls_max` calls in.
    ///
    /// # Errors
    /// User: the file cannot be read or holds no token.
    pub fn new(token_file: Option<&Path>, calls_max: usize, metrics: Arc<Metrics>) -> Result<Self> {
        let tokens = token_file.map(read_tokens).transpose()?;
        Ok(Self { tokens, slots: Arc::new(Semaphore::new(calls_max)), calls_max, metrics })
    }

    fn check(&self, headers: &HeaderMap) -> Answered<()> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let refused = |message: &str| Err(Failure::new(Reason::Unauthenticated, message));
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return refused("a token is needed: authorization: Bearer TOKEN");
        };
        let token = match value.to_str().ok().and_then(|text| text.split_once(' ')) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return refused("the authorization is no bearer token: authorization: Bearer TOKEN"),
        };
        let given: [u8; 32] = Sha256::digest(token).into();
        // Every token and every byte is looked at, whatever was equal before.
        let known = tokens.iter().fold(false, |known, token| known | (token.iter().zip(&given).fold(0, |d, (a, b)| d | (a ^ b)) == 0));
        if known { Ok(()) } else { refused("the token is not known") }
    }

    fn enter(&self) -> Answered<Slot> {
        let slot = self.slots.clone().try_acquire_owned();
        let slot =
            slot.map_err(|_| Failure::new(Reason::Busy, format!("{} calls are on their way, and that is the limit", self.calls_max)))?;
        Ok(Slot(Arc::new((slot, self.metrics.enter()))))
    }
}

/// The layer.
pub async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response<Body> {
    let is_grpc = is_grpc(request.headers());
    let entered = match is_open(request.uri().path()) {
        true => Ok(None),
        false => guard.check(request.headers()).and_then(|()| guard.enter().map(Some)),
    };
    let slot = match entered {
        Ok(slot) => slot,
        Err(failure) => {
            guard.metrics.call("guard", "", failure.reason.word(), 0, std::time::Duration::ZERO);
            return if is_grpc { Status::from(failure).into_http() } else { failure.into_response() };
        }
    };
    if let Some(slot) = &slot {
        request.extensions_mut().insert(slot.clone());
    }
    let response = next.run(request).await;
    drop(slot);
    if !is_grpc {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        // The library's status for a message over the limit, which it answers before our code is reached.
        Some(status) if status.code() == tonic::Code::OutOfRange => {
            let ours = typed::too_large(status.clone());
            if ours.code() == status.code() {
                return response;
            }
            guard.metrics.call("guard", "", Reason::MessageTooLarge.word(), 0, std::time::Duration::ZERO);
            ours.into_http()
        }
        _ => response,
    }
}

/// What is answered where there is no such path or service.
pub async fn nowhere(request: Request) -> Response<Body> {
    let failure = Failure::new(Reason::UnknownPath, format!("there is no {} {}", request.method(), request.uri().path()));
    if is_grpc(request.headers()) { Status::from(failure).into_http() } else { failure.into_response() }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn is_open(path: &str) -> bool {
    let open = ["/health", "/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady"];
    open.contains(&path) || path.starts_with("/v2/health/") || path.starts_with("/grpc.health.v1.Health/")
}

fn read_tokens(file: &Path) -> Result<Vec<[u8; 32]>> {
    let text =
        std::fs::read_to_string(file).map_err(|e| Error::user(format!("the token file {} cannot be read", file.display())).caused_by(e))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let tokens: Vec<[u8; 32]> = lines.map(|token| Sha256::digest(token).into()).collect();
    if tokens.is_empty() {
        let e = Error::user(format!("the token file {} holds no token", file.display()));
        return Err(e.help("write one token a line; a line that starts with # is a comment"));
    }
    Ok(tokens)
}
