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
