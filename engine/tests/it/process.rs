//! The built binary, run as a user runs it: in a folder of its own, with files, to an exit status.
//!
//! What must hold: no run outlives its test. A process that does not end by itself is killed after
//! [`PATIENCE`], and the test fails with what it said until then.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// How long a run may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder that is removed at the end of its test.
pub struct Place {
    dir: tempfile::TempDir,
}

/// What a run said.
#[derive(Debug)]
pub struct Ran {
    /// Exit status; -1 where a signal ended it.
    pub status: i32,
    /// Rows.
    pub stdout: String,
    /// Messages.
    pub stderr: String,
}

impl Place {
    /// An empty folder.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in it, with the folders above.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }

    /// `velosql` with these arguments, in the folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_velosql"));
        command.current_dir(self.dir.path()).args(args).stdin(Stdio::null());
        for variable in [velosql::crash::VARIABLE, "VELOSQL_FAULT"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs `velosql` to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args), args)
    }

    /// Runs `velosql`, which must succeed.
    pub fn done(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.status, 0, "velosql {args:?}: {}", ran.stderr);
        ran
    }

    /// The rows of a Parquet folder, sorted.
    pub fn parquet(&self, folder: &str) -> Vec<String> {
        parquet(&self.path(folder))
    }

    /// The name and content of the summary that `--summary` wrote.
    pub fn summary(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).expect("a summary")).expect("JSON")
    }
}

/// Runs a command to its end.
pub fn finish(mut command: Command, args: &[&str]) -> Ran {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the built binary starts");
    let id = child.id();
    let (ended, watch) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let late = watch.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            send_signal(id, libc::SIGKILL);
        }
        late
    });
    let output = child.wait_with_output().expect("the process ends");
    drop(ended);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let ran = Ran { status: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!watchdog.join().expect("the watchdog"), "velosql {args:?} did not end: {}", ran.stderr);
    ran
}

/// Sends a signal to a process.
pub fn send_signal(id: u32, signal: i32) {
    let sent = Command::new("kill").args([format!("-{signal}"), id.to_string()]).stderr(Stdio::null()).status();
    assert!(sent.is_ok(), "kill is a command of every system");
}

/// A process that dies with its test.
pub struct Running(pub Child);

impl Running {
    /// Starts a command whose messages nobody reads.
    pub fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the built binary starts"))
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> i32 {
        self.0.wait().expect("the process ends").code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `ready` says so.
pub fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The rows of every visible file below `folder`, sorted. No folder: no rows.
pub fn parquet(folder: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for path in visible(folder) {
        let file = std::fs::File::open(&path).expect("a file that was just listed");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(ParquetRecordBatchReaderBuilder::build);
        for batch in reader.unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
            let batch = batch.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let options = FormatOptions::default().with_null("NULL");
            let columns: Vec<_> =
                batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).expect("a printable column")).collect();
            rows.extend((0..batch.num_rows()).map(|i| columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join("|")));
        }
    }
    rows.sort();
    rows
}

/// Files that a reader of a table sees: hidden names (`.`, `_`) are none of its business.
fn visible(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name.starts_with('_') {
            continue;
        }
        if entry.path().is_dir() { found.extend(visible(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}
