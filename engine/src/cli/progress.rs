//! What a running job looks like to a person: one line that renews itself, or plain lines in a log.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::metrics::JobMetrics;
use crate::runtime::job::Outcome;

/// A thread that prints progress until it is ended.
pub struct Progress {
    end: Sender<()>,
    thread: JoinHandle<()>,
    started: Instant,
    metrics: Arc<JobMetrics>,
    name: String,
}

impl Progress {
    /// Starts printing about job `name`.
    pub fn start(name: &str, metrics: Arc<JobMetrics>) -> Self {
        let (end, ended) = channel();
        let shared = metrics.clone();
        let terminal = std::io::stderr().is_terminal();
        let every = if terminal { Duration::from_millis(500) } else { Duration::from_secs(5) };
        let label = name.to_string();
        let thread = std::thread::spawn(move || {
            let (mut before, mut at) = ((0, 0), Instant::now());
            let mut warned = Vec::new();
            while ended.recv_timeout(every).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout) {
                let now = (shared.records_in(), shared.rows_out());
                let seconds = at.elapsed().as_secs_f64();
                let line = line(&label, &shared, now, before, seconds);
                if terminal {
                    eprint!("\r\x1b[2K{line}");
                } else {
                    eprintln!("{line}");
                }
                for text in blocked(&shared) {
                    if !warned.contains(&text) {
                        eprintln!("{}note: {text}", if terminal { "\n" } else { "" });
                        warned.push(text);
                    }
                }
                (before, at) = (now, Instant::now());
            }
            if terminal {
                eprint!("\r\x1b[2K");
            }
        });
        Self { end, thread, started: Instant::now(), metrics, name: name.to_string() }
    }

    /// Stops printing and says what the run came to, where it came to an end.
    pub fn end(self, outcome: Option<&Outcome>) {
        let _ = self.end.send(());
        let _ = self.thread.join();
        let Some(outcome) = outcome else { return };
        if outcome.ended_by == crate::runtime::job::EndedBy::AlreadyFinished {
            return;
        }
        let m = &self.metrics;
        let mut parts = vec![format!("{} in", count(m.records_in())), format!("{} out", count(m.rows_out()))];
        for (n, what) in [
            (m.late.get(), "late"),
            (m.late_after_idle.get(), "late after idle"),
            (m.rejected(), "rejected"),
            (m.null_dropped.get(), "dropped for NULL"),
            (m.unscored.get(), "without a prediction"),
        ] {
            if n > 0 {
                parts.push(format!("{} {what}", count(n)));
            }
        }
        let how = match outcome.ended_by {
            crate::runtime::job::EndedBy::End => "ended",
            crate::runtime::job::EndedBy::Signal => "stopped with a checkpoint",
            crate::runtime::job::EndedBy::For => "stopped after its time",
            crate::runtime::job::EndedBy::AlreadyFinished => "had finished",
        };
        let from = outcome.restored_from.map(|e| format!(", resumed from epoch {e}")).unwrap_or_default();
        eprintln!("{}: {how} after {:.1} s{from}: {}", self.name, self.started.elapsed().as_secs_f64(), parts.join(", "));
    }
}

fn line(name: &str, m: &JobMetrics, now: (u64, u64), before: (u64, u64), seconds: f64) -> String {
    let rate = |a: u64, b: u64| count(((a.saturating_sub(b)) as f64 / seconds.max(0.001)) as u64);
    let mut text = format!("{name}: {} in ({}/s), {} out ({}/s)", count(now.0), rate(now.0, before.0), count(now.1), rate(now.1, before.1));
    let sources = m.sources.lock().expect("no panic while locked");
    let watermark =
        sources.values().filter(|s| s.has_watermark.load(std::sync::atomic::Ordering::Relaxed)).map(|s| s.watermark.get()).min();
    drop(sources);
    match watermark {
        Some(ms) if ms != i64::MIN && ms != i64::MAX => {
            let at = chrono::DateTime::from_timestamp_millis(ms).map(|t| t.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
            let lag = (chrono::Utc::now().timestamp_millis() - ms) / 1000;
            text.push_str(&format!(", watermark {at} (lag {})", span(lag)));
        }
        Some(i64::MIN) => text.push_str(", no watermark yet"),
        _ => {}
    }
    let counts = [
        (m.late.get(), "late"),
        (m.late_after_idle.get(), "late after idle"),
        (m.rejected(), "rejected"),
        (m.unscored.get(), "without a prediction"),
    ];
    for (n, what) in counts {
        if n > 0 {
            text.push_str(&format!(", {} {what}", count(n)));
        }
    }
    if m.epochs.get() > 0 {
        text.push_str(&format!(", {} checkpoints", m.epochs.get()));
    }
    text
}

/// What holds the job up, in words that say what to do.
fn blocked(m: &JobMetrics) -> Vec<String> {
    let sources = m.sources.lock().expect("no panic while locked");
    let mut out = Vec::new();
    for (table, source) in sources.iter() {
        if !source.has_watermark.load(std::sync::atomic::Ordering::Relaxed)
            || source.records.lock().expect("no panic while locked").values().sum::<u64>() == 0
        {
            continue;
        }
        for split in source.holders.lock().expect("no panic while locked").iter() {
            out.push(format!("table '{table}': partition {split} has no rows and holds the watermark; set 'scan.watermark.idle-timeout'"));
        }
    }
    out
}

/// A number with thousands separated.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn span(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
