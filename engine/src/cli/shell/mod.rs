//! `velosql sql`: a shell. SET and DDL stay for the session; a SELECT runs until it ends or Ctrl-C.
//!
//! On a terminal it reads lines with history and completion, and goes on after an error. From a pipe or a
//! file it reads statements without a prompt and ends at the first error. What must always hold: a secret is
//! never written to the history.

mod editor;
mod split;

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use sha2::{Digest, Sha256};

use self::editor::Editing;
use self::split::split;
use super::execute::{ExecuteOptions, execute};
use super::output::Form;
use super::progress::count;
use super::run::{SqlArgs, read_file, session};
use super::signals::StatementSignals;
use crate::error::{Error, Result, nearest};
use crate::runtime::job::Stop;
use crate::sql::{Session, Step, masked};

const RESULT_MODE: &str = "sql-client.execution.result-mode";
const HELP: &str = "\
Statements end with ';'. Tab completes; up and down go through the history; Ctrl-C stops a running statement.
  CREATE TABLE …; CREATE VIEW …; DROP …;    stay for this session
  SHOW TABLES; DESCRIBE t; EXPLAIN …;       look at what there is
  SELECT …;                                 runs until its input ends, or Ctrl-C
  INSERT INTO …;                            runs a job; its state lies in .velosql/NAME
  CREATE MODEL m WITH (…) AS SELECT …;      trains a model
  SET 'key' = 'value'; SET; RESET 'key';    settings
  SET 'sql-client.execution.result-mode' = 'table' | 'changelog' | 'json' | 'csv';
  help;  quit; (or \\q, or Ctrl-D)";

/// `velosql sql`
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// SQL file to run first, such as one with the CREATE TABLE statements
    pub file: Option<String>,
    /// What changes the meaning of statements.
    #[command(flatten)]
    pub sql: SqlArgs,
    /// Worker threads (else parallelism.default, else the cores)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub workers: Option<u16>,
    /// Form of a SELECT's rows, unless 'sql-client.execution.result-mode' is set
    #[arg(long, value_enum)]
    pub output: Option<Form>,
    /// Each INSERT removes its committed files and state, then starts over
    #[arg(long)]
    pub fresh: bool,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// What is no SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Quit,
    Help,
}

/// The command that `text` is, with or without a semicolon.
fn command(text: &str) -> Option<Command> {
    match text.trim().trim_end_matches(';').trim_end().to_ascii_lowercase().as_str() {
        "\\q" | "quit" | "exit" => Some(Command::Quit),
        "\\h" | "\\?" | "help" => Some(Command::Help),
        _ => None,
    }
}

/// Runs the shell. Answers the exit status.
///
/// # Errors
/// What ended it: on a terminal, only a terminal or a FILE that cannot be read.
pub fn shell(args: &ShellArgs) -> Result<u8> {
    let session = session(&args.sql, "sql")?;
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && args.file.as_deref() != Some("-");
    // The editor first: it takes SIGINT for itself, and signals heard after it are passed on to it.
    let editor = interactive.then(editor).transpose()?;
    let signals = StatementSignals::listen()?;
    let mut shell = Shell { session, signals, args, interactive };
    if let Some(file) = &args.file {
        let (file, text) = read_file(file)?;
        if let Some(status) = shell.script(&file, &text)? {
            return Ok(status);
        }
    }
    if args.file.as_deref() == Some("-") {
        return Ok(0);
    }
    match editor {
        Some(editor) => shell.prompt(editor),
        None => shell.piped(),
    }
}

type LineEditor = Editor<Editing, FileHistory>;

fn editor() -> Result<LineEditor> {
    let config = Config::builder().completion_type(CompletionType::List).history_ignore_dups(true).map_err(no_terminal)?.build();
    Editor::with_config(config).map_err(no_terminal)
}

fn no_terminal(e: ReadlineError) -> Error {
    Error::external("cannot read from the terminal").caused_by(e)
}

struct Shell<'a> {
    session: Session,
    signals: StatementSignals,
    args: &'a ShellArgs,
    interactive: bool,
}

/// What a statement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    On,
    Interrupted,
    Quit,
}

impl Shell<'_> {
    /// A whole file: answers an exit status where the session shall end.
    fn script(&mut self, file: &str, text: &str) -> Result<Option<u8>> {
        let parts = split(text);
        let rest = parts.rest_says.then_some(parts.rest..text.len());
        for range in parts.complete.into_iter().chain(rest) {
            match self.statement(file, &padded(&text[..range.start], &text[range.clone()]))? {
                Went::On => {}
                Went::Interrupted => return Ok(Some(130)),
                Went::Quit => return Ok(Some(0)),
            }
        }
        Ok(None)
    }

    /// Statements of a pipe, each run as soon as it is complete.
    fn piped(&mut self) -> Result<u8> {
        let (mut text, mut before) = (String::new(), String::new());
        let mut input = std::io::stdin().lock();
        loop {
            let read = input.read_line(&mut text).map_err(|e| Error::user("cannot read standard input").caused_by(e))?;
            let parts = split(&text);
            // At the end of the input a statement needs no semicolon.
            let rest = (read == 0 && parts.rest_says).then_some(parts.rest..text.len());
            for range in parts.complete.into_iter().chain(rest) {
                match self.statement("<stdin>", &padded(&format!("{before}{}", &text[..range.start]), &text[range.clone()]))? {
                    Went::On => {}
                    Went::Interrupted => return Ok(130),
                    Went::Quit => return Ok(0),
                }
            }
            if read == 0 {
                return Ok(0);
            }
            if command(&text) == Some(Command::Quit) {
                return Ok(0);
            }
            // Of what has run only the place in the text matters.
            before.push_str(&blank(&text[..parts.rest]));
            text.drain(..parts.rest);
        }
    }

    /// Reads statements from the terminal.
    fn prompt(&mut self, mut editor: LineEditor) -> Result<u8> {
        let history = history_file();
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        eprintln!("VeloSQL {}. Statements end with ';'. help; says more, quit; ends.", env!("CARGO_PKG_VERSION"));
        loop {
            let names = self.session.table_names().into_iter().chain(self.session.column_names()).collect();
            editor.set_helper(Some(Editing { names }));
            match editor.readline("velosql> ") {
                Ok(text) => {
                    if text.trim().is_empty() {
                        continue;
                    }
                    let _ = editor.add_history_entry(masked(text.trim_end()));
                    if self.typed(&text) == Went::Quit {
                        break;
                    }
                }
                // Ctrl-C gives the line up, not the shell; one that stopped a statement is heard here once more.
                Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => {}
                Err(ReadlineError::Eof) => break,
                Err(e) => return Err(no_terminal(e)),
            }
        }
        if let Some(path) = &history {
            let kept = path.parent().map_or(Ok(()), std::fs::create_dir_all).is_ok() && editor.save_history(path).is_ok();
            if !kept {
                eprintln!("note: the history cannot be written to {}", path.display());
            }
        }
        Ok(0)
    }

    /// Statements of one input: an error ends them, not the shell.
    fn typed(&mut self, text: &str) -> Went {
        let parts = split(text);
        let rest = (parts.rest_says).then_some(parts.rest..text.len());
        for range in parts.complete.into_iter().chain(rest) {
            let (before, after) = (&text[..range.start], &text[range.clone()]);
            match self.statement("input", &padded(before, after)) {
                Ok(Went::On) => {}
                Ok(other) => return other,
                Err(e) => {
                    eprintln!("error: {e}");
                    break;
                }
            }
        }
        Went::On
    }

    fn statement(&mut self, file: &str, text: &str) -> Result<Went> {
        match command(text) {
            Some(Command::Quit) => return Ok(Went::Quit),
            Some(Command::Help) => {
                eprintln!("{HELP}");
                return Ok(Went::On);
            }
            None => {}
        }
        self.session.name_job(&job_name(text));
        let steps = self.session.plan_file(file, text)?;
        if steps.is_empty() && self.interactive {
            eprintln!("ok");
        }
        if steps.iter().any(|s| matches!(s, Step::Job(_) | Step::Select(_)))
            && let Err(e) = self.session.check_names()
        {
            // The table may still be declared: no more than a note.
            eprintln!("note: {}", e.message());
        }
        for step in &steps {
            if self.step(step, text)? == Went::Interrupted {
                return Ok(Went::Interrupted);
            }
        }
        Ok(Went::On)
    }

    fn step(&self, step: &Step, text: &str) -> Result<Went> {
        let stop = Stop::default();
        let is_job = matches!(step, Step::Job(_));
        let options = ExecuteOptions {
            name: job_name(text),
            forced_name: None,
            state_dir: None,
            sql: masked(text.trim()),
            fresh: is_job && self.args.fresh,
            from: None,
            refresh_static: false,
            models: self.args.sql.models.clone(),
            workers: self.args.workers.map(usize::from),
            duration: None,
            form: self.form()?,
            // A SELECT shows by its rows that it runs.
            progress: (is_job || matches!(step, Step::Train(_))) && !self.args.quiet,
            stop: stop.clone(),
        };
        let started = std::time::Instant::now();
        let (ran, interrupted) = self.signals.during(&stop, || execute(step, &options));
        match ran {
            Ok(Some(ran)) if !is_job && self.interactive => {
                eprintln!("{} rows in {:.1} s", count(ran.metrics.rows_out()), started.elapsed().as_secs_f64());
            }
            Ok(_) => {}
            // What a dropped statement says of its end is no news.
            Err(e) if !interrupted => return Err(e),
            Err(e) => eprintln!("stopped: {}", e.message()),
        }
        Ok(if interrupted { Went::Interrupted } else { Went::On })
    }

    /// How a SELECT's rows are shown.
    fn form(&self) -> Result<Form> {
        let given = self.args.output.unwrap_or_else(Form::default_for_stdout);
        let Some(mode) = self.session.settings().get(RESULT_MODE) else { return Ok(given) };
        result_mode(mode)
    }
}

fn result_mode(mode: &str) -> Result<Form> {
    match mode.trim().to_ascii_lowercase().as_str() {
        "table" => Ok(Form::Table),
        // Flink's tableau is a table of changes.
        "changelog" | "tableau" => Ok(Form::Changelog),
        "json" => Ok(Form::Json),
        "csv" => Ok(Form::Csv),
        other => {
            let e = Error::user(format!("'{RESULT_MODE}' is '{mode}', but must be table, changelog, tableau, json or csv"));
            Err(match nearest(other, ["table", "changelog", "tableau", "json", "csv"]) {
                Some(near) => e.help(format!("SET '{RESULT_MODE}' = '{near}';")),
                None => e,
            })
        }
    }
}

/// A job that is started again with the same text goes on where it stopped: its text is its name.
fn job_name(text: &str) -> String {
    let hash = Sha256::digest(masked(text.trim()).as_bytes());
    let short: String = hash.iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("sql-{short}")
}

/// `statement` behind as many lines and columns as `before` has, so that messages name its place.
fn padded(before: &str, statement: &str) -> String {
    let mut out = blank(before);
    out.push_str(statement);
    out
}

fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\t' { c } else { ' ' }).collect()
}

/// Where the history lies: the user's state directory; `None` where there is no home.
fn history_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local").join("state")))?;
    Some(state.join("velosql").join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_known_with_and_without_a_semicolon() {
        for text in ["\\q", "quit;", " QUIT ; ", "exit"] {
            assert_eq!(command(text), Some(Command::Quit), "{text}");
        }
        assert_eq!(command("\nhelp;"), Some(Command::Help));
        assert_eq!(command("SELECT quit;"), None);
    }

    #[test]
    fn places_are_those_of_the_whole_text() {
        let text = "SELECT 1;\n  SELECT é;";
        let second = split(text).complete[1].clone();
        assert_eq!(padded(&text[..second.start], &text[second.clone()]), "         \n  SELECT é;");
        assert_eq!(job_name("INSERT INTO a;"), job_name("  INSERT INTO a;\n"));
    }

    #[test]
    fn result_modes_are_those_of_flink_and_a_wrong_one_is_named() {
        assert_eq!(result_mode("TABLEAU").expect("a mode"), Form::Changelog);
        let e = result_mode("tabel").expect_err("no mode");
        assert_eq!(e.help_text(), Some("SET 'sql-client.execution.result-mode' = 'table';"));
    }
}
