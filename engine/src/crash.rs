//! Named places where a test lets the process die, to prove that what is on disk then can be recovered.
//!
//! `VELOSQL_CRASH_AT=<point>:<n>` aborts the process when it comes to `<point>` for the `n`-th time (`:1` may
//! be left out). Without it a point costs one comparison. What must hold: every point in the code is in
//! [`POINTS`] or [`PUBLISHING`], so that a test can walk the whole list.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every named point, in the order in which a checkpoint meets them.
pub const POINTS: &[&str] = &[
    "filesystem.prepare.before-sync",
    "filesystem.prepare.after-sync",
    "checkpoint.before-state",
    "checkpoint.before-manifest",
    "checkpoint.after-manifest",
    "sink.before-commit",
    "filesystem.commit.before-rename",
    "filesystem.commit.after-rename",
    "filesystem.commit.before-entry",
    "filesystem.commit.after-entry",
    "sink.after-commit",
];

/// The points that publishing a model meets, in their order.
pub const PUBLISHING: &[&str] = &[
    "registry.publish.before-files",
    "registry.publish.before-manifest",
    "registry.publish.before-sums",
    "registry.publish.before-rename",
    "registry.publish.after-rename",
    "registry.publish.before-alias",
    "registry.publish.after-alias",
];

/// The environment variable that names a point.
pub const VARIABLE: &str = "VELOSQL_CRASH_AT";

/// Dies here, if the environment says so.
pub fn at(point: &'static str) {
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static MET: AtomicU64 = AtomicU64::new(0);
    let Some((wanted, n)) = WANTED.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| parse(&text))) else { return };
    debug_assert!(POINTS.contains(&point) || PUBLISHING.contains(&point), "{point} is in no list of crash points");
    if wanted == point && MET.fetch_add(1, Ordering::Relaxed) + 1 == *n {
        eprintln!("crash point {point}: aborting, as {VARIABLE} says");
        std::process::abort();
    }
}

fn parse(text: &str) -> (String, u64) {
    match text.rsplit_once(':') {
        Some((point, n)) => (point.to_string(), n.parse().unwrap_or(1)),
        None => (text.to_string(), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_with_and_without_its_number() {
        assert_eq!(parse("sink.before-commit:3"), ("sink.before-commit".to_string(), 3));
        assert_eq!(parse("sink.before-commit"), ("sink.before-commit".to_string(), 1));
    }

    #[test]
    fn no_point_is_named_twice() {
        let mut points = [POINTS, PUBLISHING].concat();
        points.sort_unstable();
        points.dedup();
        assert_eq!(points.len(), POINTS.len() + PUBLISHING.len());
    }
}
