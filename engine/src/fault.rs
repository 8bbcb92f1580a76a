//! Planted faults: rules broken on purpose, to show that the tests can fail.
//!
//! `VELOSQL_FAULT=<name>` breaks one rule of [`NAMES`] in this process. `engine/tests/faults` runs the tests
//! once for each and expects at least one of them to turn red. Outside of that nothing sets it.

/// Every fault that can be planted.
pub const NAMES: &[&str] =
    &["watermark-per-batch", "filter-before-watermark", "skip-fsync", "publish-before-manifest", "unaligned-barrier"];

/// Whether fault `name` is planted. Ask once, when a thing is built, not once a row.
pub fn planted(name: &str) -> bool {
    debug_assert!(NAMES.contains(&name), "an unlisted fault");
    std::env::var("VELOSQL_FAULT").is_ok_and(|v| v == name)
}
