//! A caller of our own service: what `velosql demo` shows that the service works with.

use std::net::SocketAddr;

use serde_json::Value as Json;
use tonic::transport::Endpoint;
use velosql_proto::v1::prediction_client::PredictionClient;
use velosql_proto::v1::value::Kind;
use velosql_proto::v1::{PredictRequest, PredictResponse, Value};

use crate::error::{Error, Result};

/// Asks the service at `address` for one prediction of `model`, as `grpcurl` would: `features` are `Value`s in the JSON
/// of protobuf, with the kinds null, bool, int64, double, string and timestamp. Answers one line.
///
/// # Errors
/// External: the service does not answer, or refuses. Internal: a value of another kind.
pub async fn predict(address: SocketAddr, model: &str, features: &serde_json::Map<String, Json>) -> Result<String> {
    let features = features.iter().map(|(name, v)| Ok((name.clone(), value(v)?))).collect::<Result<_>>()?;
    let failed = |e: &dyn std::fmt::Display| Error::external(format!("the service at {address} does not answer: {e}"));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| failed(&e))?;
    let mut client = PredictionClient::new(endpoint.connect().await.map_err(|e| failed(&e))?);
    let request = PredictRequest { model: model.to_string(), features, selector: None };
    let answer = client.predict(request).await;
    let answer = answer.map_err(|e| Error::external(format!("the service at {address} refused: {}", e.message())))?;
    Ok(shown(&answer.into_inner()))
}

fn value(json: &Json) -> Result<Value> {
    let unknown = || Error::internal(format!("{json} is no value of a feature"));
    let (kind, value) = json.as_object().and_then(|o| o.iter().next()).ok_or_else(unknown)?;
    let text = value.as_str().unwrap_or_default();
    let kind = match kind.as_str() {
        "null" => Kind::Null(0),
        "bool" => Kind::Bool(value.as_bool().ok_or_else(unknown)?),
        "int64" => Kind::Int64(text.parse().map_err(|_| unknown())?),
        "double" => Kind::Double(value.as_f64().ok_or_else(unknown)?),
        "string" => Kind::String(text.to_string()),
        "timestamp" => {
            let at = chrono::DateTime::parse_from_rfc3339(text).map_err(|_| unknown())?;
            Kind::Timestamp(velosql_proto::prost_types::Timestamp { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos() as i32 })
        }
        _ => return Err(unknown()),
    };
    Ok(Value { kind: Some(kind) })
}

fn shown(answer: &PredictResponse) -> String {
    let mut parts = Vec::new();
    match answer.prediction.as_ref().and_then(|v| v.kind.as_ref()) {
        Some(Kind::Double(v)) => parts.push(format!("prediction {v}")),
        Some(Kind::Int64(v)) => parts.push(format!("prediction {v}")),
        Some(Kind::Bool(v)) => parts.push(format!("prediction {v}")),
        Some(Kind::String(v)) => parts.push(format!("prediction {v}")),
        _ => {}
    }
    parts.extend(answer.probabilities.iter().map(|(class, p)| format!("{class}: {p:.4}")));
    parts.extend(answer.cluster.map(|c| format!("cluster {c}")));
    parts.extend(answer.distance.map(|d| format!("distance {d:.4}")));
    format!("→ {} (model {} version {})", parts.join(", "), answer.model, answer.version)
}
