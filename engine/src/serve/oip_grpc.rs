//! The gRPC half of the Open Inference Protocol.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use velosql_proto::inference as oip;
use velosql_proto::inference::grpc_inference_service_server::GrpcInferenceService;
use velosql_proto::inference::model_infer_request::InferInputTensor;
use velosql_proto::inference::model_infer_response::InferOutputTensor;
use velosql_proto::inference::model_metadata_response::TensorMetadata;

use super::catalog::{Loaded, selector};
use super::failure::{Answered, Failure, Reason};
use super::rows::Values;
use super::serving::Serving;
use super::tensors::{self, Data, Output, Tensor};

/// What the server does beyond the protocol.
pub const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

/// The service.
#[derive(Clone)]
pub struct OipGrpc(pub Arc<Serving>);

#[tonic::async_trait]
impl GrpcInferenceService for OipGrpc {
    async fn server_live(&self, _: Request<oip::ServerLiveRequest>) -> Result<Response<oip::ServerLiveResponse>, Status> {
        Ok(Response::new(oip::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<oip::ServerReadyRequest>) -> Result<Response<oip::ServerReadyResponse>, Status> {
        Ok(Response::new(oip::ServerReadyResponse { ready: self.0.ready() }))
    }

    async fn model_ready(&self, request: Request<oip::ModelReadyRequest>) -> Result<Response<oip::ModelReadyResponse>, Status> {
        let request = request.into_inner();
        let found = match selector(&request.version) {
            Ok(selector) => self.0.catalog.get(&request.name, &selector).await,
            Err(e) => Err(e),
        };
        Ok(Response::new(oip::ModelReadyResponse { ready: found.is_ok() && self.0.ready() }))
    }

    async fn server_metadata(&self, _: Request<oip::ServerMetadataRequest>) -> Result<Response<oip::ServerMetadataResponse>, Status> {
        Ok(Response::new(oip::ServerMetadataResponse {
            name: "velosql".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: EXTENSIONS.map(str::to_string).to_vec(),
        }))
    }

    async fn model_metadata(&self, request: Request<oip::ModelMetadataRequest>) -> Result<Response<oip::ModelMetadataResponse>, Status> {
        let request = request.into_inner();
        let loaded = self.0.catalog.get(&request.name, &selector(&request.version)?).await?;
        let snapshot = self.0.catalog.snapshot();
        let entry = snapshot.entry(&request.name)?;
        let metadata = |(name, datatype, shape): (String, &str, Vec<i64>)| TensorMetadata { name, datatype: datatype.into(), shape };
        Ok(Response::new(oip::ModelMetadataResponse {
            name: loaded.name.clone(),
            versions: entry.listing.versions.iter().map(u64::to_string).collect(),
            platform: format!("velosql_{}", loaded.algorithm),
            inputs: tensors::describe_inputs(&loaded).into_iter().map(metadata).collect(),
            outputs: tensors::describe_outputs(&loaded).into_iter().map(metadata).collect(),
        }))
    }

    async fn model_infer(&self, request: Request<oip::ModelInferRequest>) -> Result<Response<oip::ModelInferResponse>, Status> {
        let request = request.into_inner();
        let raw = !request.raw_input_contents.is_empty();
        let (inputs, contents) = (&request.inputs, &request.raw_input_contents);
        let read = |model: &Loaded| {
            if raw && contents.len() != inputs.len() {
                let message = format!("there are {} inputs, but {} raw_input_contents", inputs.len(), contents.len());
                return Err(Failure::new(Reason::Malformed, message));
            }
            let values = inputs.iter().enumerate().map(|(i, input)| match raw {
                true => tensors::from_bytes(&input.name, &input.datatype, &contents[i]),
                false => of_contents(input),
            });
            let values = values.collect::<Answered<Vec<_>>>()?;
            let tensors = inputs.iter().zip(values).map(|(input, values)| Tensor { name: &input.name, shape: &input.shape, values });
            tensors::batch(&self.0, model, tensors.collect())
        };
        let scored = self.0.answer("ModelInfer", &request.model_name, &selector(&request.model_version)?, read).await?;
        let wanted: Vec<&str> = request.outputs.iter().map(|output| output.name.as_str()).collect();
        let outputs = tensors::outputs(&scored, &wanted)?;
        Ok(Response::new(oip::ModelInferResponse {
            model_name: scored.model.name.clone(),
            model_version: scored.model.version.to_string(),
            id: request.id,
            parameters: BTreeMap::new(),
            raw_output_contents: if raw { outputs.iter().map(|output| tensors::to_bytes(&output.data)).collect() } else { vec![] },
            outputs: outputs.into_iter().map(|output| to_contents(output, raw)).collect(),
        }))
    }
}

fn of_contents(input: &InferInputTensor) -> Answered<Values<'_>> {
    let Some(contents) = &input.contents else {
        return Err(Failure::of(Reason::Malformed, &input.name, format!("field '{}' has no contents", input.name)));
    };
    Ok(match input.datatype.as_str() {
        "BOOL" => Values::Booleans(contents.bool_contents.clone()),
        "INT8" | "INT16" | "INT32" => Values::Integers(contents.int_contents.iter().map(|v| i64::from(*v)).collect()),
        "INT64" => Values::Integers(contents.int64_contents.clone()),
        "UINT8" | "UINT16" | "UINT32" => Values::Integers(contents.uint_contents.iter().map(|v| i64::from(*v)).collect()),
        "UINT64" => Values::Doubles(contents.uint64_contents.iter().map(|v| *v as f64).collect()),
        "FP32" => Values::Doubles(contents.fp32_contents.iter().map(|v| f64::from(*v)).collect()),
        "FP64" => Values::Doubles(contents.fp64_contents.clone()),
        "BYTES" => {
            let texts = contents.bytes_contents.iter().map(|bytes| tensors::utf8(&input.name, bytes).map(Cow::Borrowed));
            Values::Texts(texts.collect::<Answered<_>>()?)
        }
        datatype => return Err(tensors::unknown_datatype(&input.name, datatype)),
    })
}

fn to_contents(output: Output, raw: bool) -> InferOutputTensor {
    let datatype = output.data.datatype().to_string();
    let mut contents = oip::InferTensorContents::default();
    match output.data {
        _ if raw => {}
        Data::Bool(v) => contents.bool_contents = v,
        Data::Int32(v) => contents.int_contents = v,
        Data::Int64(v) => contents.int64_contents = v,
        Data::Fp64(v) => contents.fp64_contents = v,
        Data::Bytes(v) => contents.bytes_contents = v.into_iter().map(String::into_bytes).collect(),
    }
    let mut parameters = BTreeMap::new();
    if let Some(classes) = output.classes {
        let choice = oip::infer_parameter::ParameterChoice::StringParam(classes);
        parameters.insert("classes".to_string(), oip::InferParameter { parameter_choice: Some(choice) });
    }
    let contents = (!raw).then_some(contents);
    InferOutputTensor { name: output.name.into(), datatype, shape: output.shape, parameters, contents }
}
