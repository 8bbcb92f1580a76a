//! The service contracts of VeloSQL: predictions, inference and job control.
//!
//! This package exists so that clients can depend on the contracts without the engine. It holds no service yet.
