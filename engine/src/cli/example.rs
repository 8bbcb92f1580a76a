//! A row to try a model with: one of the golden rows that its version keeps, and the line that asks for its prediction.

use std::fs::File;
use std::net::SocketAddr;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMillisecondType};
use arrow::ipc::reader::FileReader;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::models::registry::{Manifest, Registry};

/// What a caller must bring.
#[derive(Debug, Clone, Copy, Default)]
pub struct Secured {
    /// The port speaks TLS.
    pub tls: bool,
    /// A bearer token is asked for.
    pub token: bool,
}

/// A line for a terminal that asks a model for one prediction, by the proto files that the server itself hands out.
pub fn grpcurl(model: &str, features: &Map<String, Value>, address: SocketAddr, secured: Secured) -> String {
    // A quote of a value would end the shell's.
    let request = json!({ "model": model, "features": features }).to_string().replace('\'', "'\\''");
    let plain = if secured.tls { "-cacert CA.pem" } else { "-plaintext" };
    let token = if secured.token { " -H 'authorization: Bearer TOKEN'" } else { "" };
    format!("grpcurl {plain}{token} -d '{request}' {address} velosql.v1.Prediction/Predict")
}

/// A golden row of a version as `velosql.v1.Value`s in the JSON of protobuf, one without NULLs where there is one.
///
/// # Errors
/// State: the golden rows cannot be read.
pub fn example(registry: &Registry, manifest: &Manifest) -> Result<Map<String, Value>> {
    let path = registry.root().join(&manifest.name).join(manifest.version.to_string()).join("golden.arrow");
    let unreadable = |e: &dyn std::fmt::Display| Error::state(format!("'{}' cannot be read: {e}", path.display()));
    let file = File::open(&path).map_err(|e| unreadable(&e))?;
    let batch = FileReader::try_new(file, None).map_err(|e| unreadable(&e))?.next();
    let batch = batch.ok_or_else(|| unreadable(&"it is empty"))?.map_err(|e| unreadable(&e))?;
    let rows = batch.column_by_name("input").and_then(|c| c.as_struct_opt()).ok_or_else(|| unreadable(&"it has no inputs"))?;
    if rows.is_empty() {
        return Err(unreadable(&"it has no row"));
    }
    let whole = (0..rows.len()).find(|row| rows.columns().iter().all(|c| c.is_valid(*row))).unwrap_or(0);
    rows.fields().iter().zip(rows.columns()).map(|(field, column)| Ok((field.name().clone(), value(&column.slice(whole, 1))?))).collect()
}

/// The value of an array of one.
fn value(array: &ArrayRef) -> Result<Value> {
    if array.is_null(0) {
        return Ok(json!({ "null": "NULL_VALUE" }));
    }
    let text = |array: &ArrayRef| -> Result<String> {
        let options = FormatOptions::default();
        Ok(ArrayFormatter::try_new(array.as_ref(), &options)?.value(0).to_string())
    };
    Ok(match array.data_type() {
        DataType::Boolean => json!({ "bool": array.as_boolean().value(0) }),
        // JSON of protobuf has whole numbers of 64 bits as texts.
        t if t.is_integer() => json!({ "int64": text(array)? }),
        t if t.is_floating() => json!({ "double": cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().value(0) }),
        DataType::Timestamp(_, zone) => {
            let ms = cast(array, &DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))?;
            let at = chrono::DateTime::from_timestamp_millis(ms.as_primitive::<TimestampMillisecondType>().value(0));
            json!({ "timestamp": at.unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true) })
        }
        _ => json!({ "string": text(array)? }),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int32Array, StringArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn values_are_those_of_the_service() {
        let shown = |array: ArrayRef| value(&array).expect("a value").to_string();
        assert_eq!(shown(Arc::new(Float64Array::from(vec![1.5]))), r#"{"double":1.5}"#);
        assert_eq!(shown(Arc::new(Int32Array::from(vec![7]))), r#"{"int64":"7"}"#);
        assert_eq!(shown(Arc::new(Int32Array::from(vec![None]))), r#"{"null":"NULL_VALUE"}"#);
        assert_eq!(shown(Arc::new(StringArray::from(vec!["it's"]))), r#"{"string":"it's"}"#);
        assert_eq!(shown(Arc::new(TimestampMillisecondArray::from(vec![1_731_139_200_000]))), r#"{"timestamp":"2024-11-09T08:00:00Z"}"#);
        let features = Map::from_iter([("t".to_string(), json!({ "string": "it's" }))]);
        let line = grpcurl("m", &features, ([127, 0, 0, 1], 1).into(), Secured { tls: false, token: true });
        assert!(line.contains(r"it'\''s") && line.contains("-H 'authorization: Bearer TOKEN'"), "{line}");
    }
}
