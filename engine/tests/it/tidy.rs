//! The house rules that a compiler does not hold: layers, file heads, file lengths, rooms of heavy libraries.
//!
//! Text in, text out: each rule is a function from sources to complaints, so that each is also shown a source
//! that breaks it.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first: a module uses only modules before it.
const LAYERS: [&str; 16] = [
    "error",
    "config",
    "clock",
    "metrics",
    "crash",
    "fault",
    "stream",
    "formats",
    "connectors",
    "models",
    "sql",
    "runtime",
    "train",
    "serve",
    "cli",
    "main",
];
const LINES_MAX: usize = 700;

/// A source file: its path below `engine/` and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The layer a file under `src/` belongs to; `lib.rs` names them all and belongs to none.
    fn layer(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        let name = rest.split('/').next().map(|n| n.trim_end_matches(".rs"))?;
        (name != "lib").then_some(name)
    }
}

#[test]
fn a_module_uses_only_modules_to_its_left() {
    none(sources().iter().flat_map(against_layers).collect());
}

#[test]
fn every_file_says_what_it_is() {
    none(sources().iter().filter_map(without_head).collect());
}

#[test]
fn no_file_is_long() {
    none(sources().iter().filter_map(too_long).collect());
}

#[test]
fn nothing_is_left_to_do() {
    none(sources().iter().flat_map(unfinished).collect());
}

#[test]
fn rdkafka_stays_in_its_room() {
    none(sources().iter().filter_map(kafka_elsewhere).collect());
}

#[test]
fn there_is_one_arrow() {
    let lock = fs::read_to_string(engine().join("../Cargo.lock")).expect("the lock file is committed");
    for package in ["arrow", "arrow-array", "arrow-schema", "parquet", "datafusion", "sqlparser"] {
        let found = versions(&lock, package);
        assert_eq!(found.len(), 1, "Cargo.lock should have one {package}, and has {found:?}");
    }
}

#[test]
fn the_rules_can_be_broken() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let up = source("src/stream/x.rs", "//! x\nuse crate::sql::plan;\nuse crate::error::Error;\nfn f() { crate::cli::g() }\n");
    assert_eq!(against_layers(&up), ["src/stream/x.rs:2: stream uses sql", "src/stream/x.rs:4: stream uses cli"]);
    let group = source("src/formats/x.rs", "//! x\nuse crate::{error::Error, runtime::job::{self, sql}};\n");
    assert_eq!(against_layers(&group), ["src/formats/x.rs:2: formats uses runtime"]);
    let spread = source("src/formats/x.rs", "//! x\nuse crate::{\n    error::Error,\n    serve,\n};\n");
    assert_eq!(against_layers(&spread), ["src/formats/x.rs:2: formats uses serve"]);
    assert_eq!(against_layers(&source("src/nowhere/x.rs", "//! x\n")), ["src/nowhere/x.rs: nowhere is no layer"]);
    assert!(without_head(&source("src/sql/x.rs", "use a;\n//! late\n")).is_some());
    assert!(too_long(&source("src/sql/x.rs", &"\n".repeat(LINES_MAX + 1))).is_some());
    assert_eq!(unfinished(&source("src/sql/x.rs", &format!("a\n  {}!()\n", "todo"))).len(), 1);
    assert!(kafka_elsewhere(&source("src/cli/x.rs", "use rdkafka::client;\n")).is_some());
    assert!(kafka_elsewhere(&source("src/connectors/kafka/x.rs", "use rdkafka::client;\n")).is_none());
    let lock = "[[package]]\nname = \"arrow\"\nversion = \"59.3.0\"\n\n[[package]]\nname = \"arrow\"\nversion = \"60.0.0\"\n";
    assert_eq!(versions(lock, "arrow"), ["59.3.0", "60.0.0"]);
}

/// `crate::x` anywhere in code, and every first name in `use crate::{x::…, y}`.
fn against_layers(source: &Source) -> Vec<String> {
    let Some(own) = source.layer() else { return Vec::new() };
    let Some(height) = LAYERS.iter().position(|l| *l == own) else { return vec![format!("{}: {own} is no layer", source.path)] };
    let mut found = Vec::new();
    let code = without_comments(&source.text);
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_')) {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let used = if let Some(group) = rest.strip_prefix('{') { first_names(group) } else { vec![name(rest)] };
        for layer in used {
            if LAYERS.iter().position(|l| *l == layer).is_some_and(|h| h > height) {
                found.push(format!("{}:{line}: {own} uses {layer}", source.path));
            }
        }
    }
    found
}

/// The first name of each item of a brace group whose opening brace is already read.
fn first_names(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (1, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            names.push(name(group[start..i].trim_start()));
            start = i + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn name(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")
}

/// The text with line comments blanked: docs may link upwards.
fn without_comments(text: &str) -> String {
    let code = |line: &str| line.split_once("//").map_or(line, |(before, _)| before).to_string() + "\n";
    text.lines().map(code).collect()
}

fn without_head(source: &Source) -> Option<String> {
    (!source.text.starts_with("//!")).then(|| format!("{} does not open with //!", source.path))
}

fn too_long(source: &Source) -> Option<String> {
    let lines = source.text.lines().count();
    (lines > LINES_MAX).then(|| format!("{} has {lines} lines: at most {LINES_MAX}, please split it by idea", source.path))
}

fn unfinished(source: &Source) -> Vec<String> {
    let marks = ["todo", "unimplemented"].map(|m| format!("{m}!("));
    let lines = source.text.lines().enumerate().filter(|(_, l)| marks.iter().any(|m| l.contains(m)));
    lines.map(|(i, l)| format!("{}:{}: {}", source.path, i + 1, l.trim())).collect()
}

fn kafka_elsewhere(source: &Source) -> Option<String> {
    let at_home = source.path.starts_with("src/connectors/kafka") || source.path.starts_with("tests/");
    let used = without_comments(&source.text).contains("rdkafka");
    (used && !at_home).then(|| format!("{} uses rdkafka: only connectors/kafka does", source.path))
}

fn versions<'a>(lock: &'a str, package: &str) -> Vec<&'a str> {
    let head = format!("name = \"{package}\"");
    let mut lines = lock.lines();
    let mut found = Vec::new();
    while lines.any(|l| l == head) {
        found.extend(lines.next().and_then(|l| l.strip_prefix("version = ")).map(|v| v.trim_matches('"')));
    }
    found
}

fn engine() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "tests"] {
        rust_files(&engine().join(folder), &mut paths);
    }
    assert!(paths.len() > 10, "the sources lie in engine/src and engine/tests");
    paths.sort();
    let read = |p: PathBuf| Source {
        path: p.strip_prefix(engine()).expect("found below it").to_string_lossy().into_owned(),
        text: fs::read_to_string(&p).expect("a source is readable"),
    };
    paths.into_iter().map(read).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
