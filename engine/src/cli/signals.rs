//! Ctrl-C and SIGTERM: the first stops jobs with a checkpoint, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, Result};
use crate::runtime::job::Stop;

/// Exit status of a second signal.
const SECOND_SIGNAL: i32 = 130;

/// Lets signals stop what `stop` stops. Call once a process.
///
/// # Errors
/// External: the system refuses handlers.
pub fn stop_on_signal(stop: &Stop) -> Result<()> {
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Order matters: the shutdown looks at the flag before this signal sets it.
        flag::register_conditional_shutdown(signal, SECOND_SIGNAL, seen.clone())
            .and_then(|_| flag::register(signal, seen.clone()))
            .map_err(|e| Error::external("cannot listen to signals").caused_by(e))?;
    }
    let stop = stop.clone();
    std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("\nstopping with a checkpoint; a second Ctrl-C ends at once");
        stop.graceful();
    });
    Ok(())
}

/// A flag that the first Ctrl-C or SIGTERM sets; the second ends the process. Call once a process.
///
/// # Errors
/// External: the system refuses handlers.
pub fn interrupted() -> Result<Arc<AtomicBool>> {
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, SECOND_SIGNAL, seen.clone())
            .and_then(|_| flag::register(signal, seen.clone()))
            .map_err(|e| Error::external("cannot listen to signals").caused_by(e))?;
    }
    Ok(seen)
}

/// Ctrl-C for a shell: while a statement runs it stops the statement, else it ends the process.
pub struct StatementSignals {
    idle: Arc<AtomicBool>,
    pressed: Arc<AtomicBool>,
}

impl StatementSignals {
    /// Listens. Call once a process.
    ///
    /// # Errors
    /// External: the system refuses handlers.
    pub fn listen() -> Result<Self> {
        let (idle, pressed) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        flag::register_conditional_shutdown(SIGINT, SECOND_SIGNAL, idle.clone())
            .and_then(|_| flag::register(SIGINT, pressed.clone()))
            .map_err(|e| Error::external("cannot listen to signals").caused_by(e))?;
        Ok(Self { idle, pressed })
    }

    /// Runs a statement that `stop` stops: the first Ctrl-C with a checkpoint, the second at once. Answers
    /// whether there was one.
    pub fn during<T>(&self, stop: &Stop, run: impl FnOnce() -> T) -> (T, bool) {
        self.pressed.store(false, Ordering::SeqCst);
        self.idle.store(false, Ordering::SeqCst);
        let done = AtomicBool::new(false);
        let (value, presses) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut presses = 0_u32;
                while !done.load(Ordering::SeqCst) {
                    if self.pressed.swap(false, Ordering::SeqCst) {
                        presses += 1;
                        match presses {
                            1 => {
                                eprintln!("\nstopping; a second Ctrl-C drops the statement at once");
                                stop.graceful();
                            }
                            _ => stop.kill(),
                        }
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                presses
            });
            // The watcher ends whatever becomes of the statement.
            let ended = EndGuard(&done);
            let value = run();
            drop(ended);
            (value, watcher.join().unwrap_or(0))
        });
        self.idle.store(true, Ordering::SeqCst);
        (value, presses > 0)
    }
}

struct EndGuard<'a>(&'a AtomicBool);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
