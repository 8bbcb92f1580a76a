//! Numbers taken from options, within limits: an error names the option and says what it may be.

use std::fmt::Display;
use std::str::FromStr;

use crate::config::Options;
use crate::error::Result;

/// The number `key`, or `default` where it is not set.
///
/// # Errors
/// User: no number, or `fits` refuses it; `wanted` says what it may be.
pub(super) fn number<T: FromStr + Display + Copy>(
    options: &mut Options,
    key: &str,
    default: T,
    wanted: &str,
    fits: impl Fn(T) -> bool,
) -> Result<T> {
    match options.number::<T>(key)? {
        None => Ok(default),
        Some(value) if fits(value) => Ok(value),
        Some(value) => Err(options.bad(key, &value.to_string(), wanted)),
    }
}

/// A finite number of at least 0.
pub(super) fn at_least_zero(options: &mut Options, key: &str, default: f64) -> Result<f64> {
    number(options, key, default, "a number of at least 0", |v| v >= 0.0 && v.is_finite())
}

/// A finite number above 0.
pub(super) fn above_zero(options: &mut Options, key: &str, default: f64) -> Result<f64> {
    number(options, key, default, "a number above 0", |v| v > 0.0 && v.is_finite())
}

/// A whole number from 1 to `most`.
pub(super) fn count(options: &mut Options, key: &str, default: usize, most: usize) -> Result<usize> {
    number(options, key, default, &format!("a whole number from 1 to {most}"), |v| (1..=most).contains(&v))
}
