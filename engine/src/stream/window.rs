//! Window arithmetic.
