//! What the tests send and read: messages of rows, and a bare HTTP/1.1 client.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use velosql_proto::inference::{self as oip, model_infer_request::InferInputTensor};
use velosql_proto::v1::{self, column, value::Kind};

/// A request and its answer: status and body.
pub async fn http(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let path = path.replace('"', "%22");
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{head}\r\n").as_bytes()).await.expect("sent");
    stream.write_all(body).await.expect("sent");
    let mut answer = vec![];
    stream.read_to_end(&mut answer).await.expect("answered");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    let status = text(&answer[9..12]).parse().expect("a status");
    (status, answer.split_off(end))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn features(x: f64, n: i64, kind: &str) -> BTreeMap<String, v1::Value> {
    let value = |kind| v1::Value { kind: Some(kind) };
    BTreeMap::from([
        ("x".to_string(), value(Kind::Double(x))),
        ("n".to_string(), value(Kind::Int64(n))),
        ("kind".to_string(), value(Kind::String(kind.into()))),
    ])
}

/// A JSON object as features.
pub fn of_json(row: &Value) -> BTreeMap<String, v1::Value> {
    let kind = |value: &Value| match value {
        Value::Null => Kind::Null(0),
        Value::Bool(v) => Kind::Bool(*v),
        Value::Number(v) => v.as_i64().map_or_else(|| Kind::Double(v.as_f64().expect("a number")), Kind::Int64),
        Value::String(v) if v == "NaN" => Kind::Double(f64::NAN),
        other => Kind::String(other.as_str().expect("a text").to_string()),
    };
    row.as_object().expect("an object").iter().map(|(k, v)| (k.clone(), v1::Value { kind: Some(kind(v)) })).collect()
}

pub fn columns(rows: &[(f64, i64, &str)]) -> BTreeMap<String, v1::Column> {
    let column = |values| v1::Column { values: Some(values), nulls: vec![] };
    BTreeMap::from([
        ("x".to_string(), column(column::Values::Doubles(v1::Doubles { values: rows.iter().map(|r| r.0).collect() }))),
        ("n".to_string(), column(column::Values::Integers(v1::Integers { values: rows.iter().map(|r| r.1).collect() }))),
        ("kind".to_string(), column(column::Values::Strings(v1::Strings { values: rows.iter().map(|r| r.2.to_string()).collect() }))),
    ])
}

/// The rows as tensors of model `price`.
pub fn tensors(rows: &[(f64, i64, &str)], raw: bool) -> oip::ModelInferRequest {
    let tensor = |name: &str, datatype: &str, contents: oip::InferTensorContents| InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: vec![rows.len() as i64],
        contents: (!raw).then_some(contents),
        ..Default::default()
    };
    let x = oip::InferTensorContents { fp64_contents: rows.iter().map(|r| r.0).collect(), ..Default::default() };
    let n = oip::InferTensorContents { int64_contents: rows.iter().map(|r| r.1).collect(), ..Default::default() };
    let kind = oip::InferTensorContents { bytes_contents: rows.iter().map(|r| r.2.as_bytes().to_vec()).collect(), ..Default::default() };
    let raw_kind = rows.iter().flat_map(|r| [&(r.2.len() as u32).to_le_bytes()[..], r.2.as_bytes()].concat());
    let raw_contents = vec![
        rows.iter().flat_map(|r| r.0.to_le_bytes()).collect(),
        rows.iter().flat_map(|r| r.1.to_le_bytes()).collect(),
        raw_kind.collect::<Vec<u8>>(),
    ];
    oip::ModelInferRequest {
        model_name: "price".into(),
        id: "7".into(),
        inputs: vec![tensor("x", "FP64", x), tensor("n", "INT64", n), tensor("kind", "BYTES", kind)],
        raw_input_contents: if raw { raw_contents } else { vec![] },
        ..Default::default()
    }
}

pub fn bits(prediction: Option<v1::Value>) -> u64 {
    match prediction.expect("a prediction").kind {
        Some(Kind::Double(value)) => value.to_bits(),
        other => panic!("{other:?}"),
    }
}

pub fn double(value: &Value) -> u64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}")).to_bits()
}
