//! The service contracts of VeloSQL: predictions by name and type, and the Open Inference Protocol.
//!
//! This package exists so that clients can depend on the contracts without the engine. The `.proto` files beside it
//! are the contract; what is here is made from them. What must hold: every field has a comment there, because
//! `grpcurl describe` and the documentation of this package print it.

/// Predictions by name and type: package `velosql.v1`.
pub mod v1 {
    tonic::include_proto!("velosql.v1");
}

/// The Open Inference Protocol, version 2: package `inference`.
pub mod inference {
    tonic::include_proto!("inference");
}

/// Why a call was refused, in Google's error model: package `google.rpc`.
pub mod rpc {
    tonic::include_proto!("google.rpc");
}

/// The messages of other packages that the contracts use.
pub use prost_types;

/// The descriptors of all files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
