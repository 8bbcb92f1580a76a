//! What the server counts, and the Prometheus text of it.
//!
//! What must hold: labels come from the models that exist, never from what a caller sends, so that no caller can grow
//! them; a call is counted once, also one that is refused.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use super::catalog::{Event, Snapshot};
use crate::metrics::Counter;

/// Upper bounds of the latency buckets, in microseconds.
const BUCKETS_US: [u64; 14] = [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000];

/// All counters of a server.
#[derive(Debug, Default)]
pub struct Metrics {
    calls: RwLock<BTreeMap<String, Arc<Calls>>>,
    swaps: Mutex<BTreeMap<String, u64>>,
    load_failures: Mutex<BTreeMap<String, u64>>,
    in_flight: AtomicI64,
}

/// The calls of one model, by (method, status).
#[derive(Debug, Default)]
struct Calls {
    series: RwLock<BTreeMap<(&'static str, &'static str), Arc<Series>>>,
    rows: Counter,
}

#[derive(Debug, Default)]
struct Series {
    calls: Counter,
    micros: Counter,
    buckets: [Counter; BUCKETS_US.len()],
}

/// A call that is on its way; it ends when this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Metrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// Counts one more call on its way.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    /// Counts a call that ended. `model` is empty where it is not known.
    pub fn call(&self, method: &'static str, model: &str, status: &'static str, rows: usize, took: Duration) {
        let calls = get_or_insert(&self.calls, model);
        calls.rows.add(rows as u64);
        let key = (method, status);
        let known = calls.series.read().unwrap_or_else(|e| e.into_inner()).get(&key).cloned();
        let series = known.unwrap_or_else(|| calls.series.write().unwrap_or_else(|e| e.into_inner()).entry(key).or_default().clone());
        let micros = took.as_micros() as u64;
        series.calls.add(1);
        series.micros.add(micros);
        if let Some(bucket) = BUCKETS_US.iter().position(|bound| micros <= *bound) {
            series.buckets[bucket].add(1);
        }
    }

    /// Counts what a refresh did.
    pub fn event(&self, event: &Event) {
        let counted = match event {
            Event::Swapped(name, ..) => Some((&self.swaps, name)),
            Event::Failed(name, ..) => Some((&self.load_failures, name)),
            Event::Loaded(..) | Event::Removed(_) => None,
        };
        if let Some((counts, name)) = counted {
            *counts.lock().unwrap_or_else(|e| e.into_inner()).entry(name.clone()).or_default() += 1;
        }
    }

    /// The Prometheus text, version 0.0.4.
    pub fn text(&self, snapshot: &Snapshot) -> String {
        let mut out = String::new();
        let calls = self.calls.read().unwrap_or_else(|e| e.into_inner()).clone();
        let series: Vec<_> = calls
            .iter()
            .flat_map(|(model, calls)| {
                let series = calls.series.read().unwrap_or_else(|e| e.into_inner()).clone();
                series.into_iter().map(move |((method, status), series)| {
                    (format!("method=\"{method}\",model=\"{}\",status=\"{status}\"", escaped(model)), series)
                })
            })
            .collect();
        head(&mut out, "velosql_requests_total", "counter", "Calls that ended, by method, model and status.");
        for (labels, series) in &series {
            line(&mut out, "velosql_requests_total", labels, series.calls.get());
        }
        head(&mut out, "velosql_request_duration_seconds", "histogram", "How long a call took in the server.");
        for (labels, series) in &series {
            let mut sum = 0;
            for (bucket, bound) in series.buckets.iter().zip(BUCKETS_US) {
                sum += bucket.get();
                let labels = format!("{labels},le=\"{}\"", bound as f64 / 1e6);
                line(&mut out, "velosql_request_duration_seconds_bucket", &labels, sum);
            }
            let count = series.calls.get();
            line(&mut out, "velosql_request_duration_seconds_bucket", &format!("{labels},le=\"+Inf\""), count);
            line(&mut out, "velosql_request_duration_seconds_sum", labels, series.micros.get() as f64 / 1e6);
            line(&mut out, "velosql_request_duration_seconds_count", labels, count);
        }
        head(&mut out, "velosql_rows_total", "counter", "Rows that were scored.");
        for (model, calls) in calls.iter().filter(|(model, _)| !model.is_empty()) {
            line(&mut out, "velosql_rows_total", &of_model(model), calls.rows.get());
        }
        head(&mut out, "velosql_requests_in_flight", "gauge", "Calls on their way.");
        let _ = writeln!(out, "velosql_requests_in_flight {}", self.in_flight.load(Relaxed));
        head(&mut out, "velosql_model_version", "gauge", "The version that answers when none is asked for.");
        for (name, entry) in &snapshot.models {
            if let Some(loaded) = &entry.served {
                line(&mut out, "velosql_model_version", &of_model(name), loaded.version);
            }
        }
        head(&mut out, "velosql_model_swaps_total", "counter", "Versions that took the place of another.");
        for (name, n) in &*self.swaps.lock().unwrap_or_else(|e| e.into_inner()) {
            line(&mut out, "velosql_model_swaps_total", &of_model(name), n);
        }
        head(&mut out, "velosql_model_load_failures_total", "counter", "Versions that could not be loaded.");
        for (name, n) in &*self.load_failures.lock().unwrap_or_else(|e| e.into_inner()) {
            line(&mut out, "velosql_model_load_failures_total", &of_model(name), n);
        }
        out
    }
}

fn get_or_insert(all: &RwLock<BTreeMap<String, Arc<Calls>>>, model: &str) -> Arc<Calls> {
    if let Some(calls) = all.read().unwrap_or_else(|e| e.into_inner()).get(model) {
        return calls.clone();
    }
    all.write().unwrap_or_else(|e| e.into_inner()).entry(model.to_string()).or_default().clone()
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{name}{{{labels}}} {value}");
}

fn of_model(name: &str) -> String {
    format!("model=\"{}\"", escaped(name))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
