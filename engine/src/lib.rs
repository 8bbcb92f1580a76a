//! VeloSQL: stream SQL on Apache Arrow DataFusion. Kafka in; Parquet, models and predictions out.
//!
//! Layers point one way: a module uses only modules above it in this list.

pub mod error;

pub mod config;

pub mod metrics;

pub mod crash;

pub mod fault;

pub mod stream;

pub mod formats;

pub mod connectors;

pub mod models;

pub mod sql;

pub mod runtime;

pub mod train;

pub mod serve;

pub mod cli;
