//! A case is a file: a query, its input, the rows that must come out.
//!
//! ```text
//!  -- what the case is about, and where its expected rows come from
//!  CREATE TABLE t (…) WITH ('connector' = 'memory');
//!  CREATE TABLE result (…) WITH ('connector' = 'memory');
//!  INSERT INTO result SELECT …;
//!  ==== input t splits 2 [added 1 at 4] [gap 300 ms at 6]…
//!  0 {"k": 1, "ts": "2024-01-01 00:00:01"}        split number, then the record
//!  ==== file stations.csv                          written beside the case; ${DIR} in the query names the folder
//!  ==== expect result [in order]
//!  +I[1, 2024-01-01T00:00, 3]
//!  ==== folder out [in order] fields k n           JSON lines of the visible files in ${DIR}/out, these fields of each
//!  [1, 3]
//!  ==== late 1 [after idle 0] [rejected 2] [unscored 3]
//! ```
//!
//! A result is compared as the table that its changes describe: a multiset of rows, as the print connector
//! shows them (a line break inside a value is written `\\n`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use velosql::connectors::memory::Hub;
use velosql::stream::RowKind;

/// A parsed case.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// File stem.
    pub name: String,
    /// The SQL text.
    pub sql: String,
    /// Input tables.
    pub inputs: Vec<Input>,
    /// Files beside the query: name, content.
    pub files: Vec<(String, String)>,
    /// Expected rows by table.
    pub expected: BTreeMap<String, Expected>,
    /// Expected JSON lines by folder.
    pub folders: BTreeMap<String, Folder>,
    /// Expected counters.
    pub counts: Counts,
}

/// Rows that must come out.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// `[a, b]`, in file order.
    pub rows: Vec<String>,
    /// The order counts.
    pub in_order: bool,
}

/// Lines that the files of a folder must hold.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    /// The fields compared.
    pub fields: Vec<String>,
    /// A JSON array a line.
    pub expected: Expected,
}

/// Rows that must not be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dropped from all their windows.
    pub late: u64,
    /// Dropped because their split slept.
    pub late_after_idle: u64,
    /// Could not be read.
    pub rejected: u64,
    /// Refused by a model.
    pub unscored: u64,
}

/// One input table.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// Table name.
    pub table: String,
    /// Number of splits.
    pub splits: usize,
    /// (count, at): so many of the last splits appear when so many records have been answered.
    pub added: Option<(usize, usize)>,
    /// (time, at): silence.
    pub gaps: Vec<(Duration, usize)>,
    /// (split, record) in order of arrival.
    pub records: Vec<(usize, String)>,
}

impl Case {
    /// Parses the text of a case file.
    pub fn parse(name: &str, text: &str) -> Self {
        let mut case = Self { name: name.into(), ..Self::default() };
        let mut sections = text.split("\n==== ");
        case.sql = sections.next().unwrap_or_default().to_string();
        for section in sections {
            let (head, body) = section.split_once('\n').unwrap_or((section, ""));
            let words: Vec<&str> = head.split_whitespace().collect();
            let number = |i: usize| words.get(i).and_then(|w| w.parse::<usize>().ok()).unwrap_or_else(|| panic!("{name}: '{head}'"));
            let places = |word: &str| words.iter().enumerate().filter(|(_, w)| **w == word).map(|(i, _)| i).collect::<Vec<_>>();
            let after = |word: &str| places(word).first().map(|i| number(i + 1));
            // The number behind the first `at` that follows word `i`.
            let at =
                |i: usize| words[i..].iter().position(|w| *w == "at").map_or_else(|| panic!("{name}: '{head}'"), |j| number(i + j + 1));
            let lines = || body.lines().filter(|l| !l.trim().is_empty());
            match words[0] {
                "input" => case.inputs.push(Input {
                    table: words[1].into(),
                    splits: after("splits").unwrap_or(1),
                    added: places("added").first().map(|i| (number(i + 1), at(*i))),
                    gaps: places("gap").iter().map(|i| (Duration::from_millis(number(i + 1) as u64), at(*i))).collect(),
                    records: lines()
                        .map(|l| l.split_once(' ').unwrap_or((l, "")))
                        .map(|(split, record)| {
                            (split.parse().unwrap_or_else(|_| panic!("{name}: '{split}' is no split")), record.to_string())
                        })
                        .collect(),
                }),
                "file" => case.files.push((words[1].into(), format!("{}\n", body.trim_end()))),
                "expect" => {
                    let rows = lines().map(|l| l.trim().trim_start_matches("+I").to_string()).collect();
                    case.expected.insert(words[1].into(), Expected { rows, in_order: head.contains("in order") });
                }
                "folder" => {
                    let fields = places("fields").first().map_or(Vec::new(), |i| words[i + 1..].iter().map(|w| w.to_string()).collect());
                    let row =
                        |l: &str| serde_json::from_str::<serde_json::Value>(l).unwrap_or_else(|e| panic!("{name}: {l}: {e}")).to_string();
                    let expected = Expected { rows: lines().map(row).collect(), in_order: head.contains("in order") };
                    case.folders.insert(words[1].into(), Folder { fields, expected });
                }
                "late" => {
                    let count = |word: &str| after(word).unwrap_or(0) as u64;
                    case.counts = Counts {
                        late: count("late"),
                        late_after_idle: count("idle"),
                        rejected: count("rejected"),
                        unscored: count("unscored"),
                    };
                }
                other => panic!("{name}: unknown section '{other}'"),
            }
        }
        assert!(!case.expected.is_empty() || !case.folders.is_empty(), "{name} expects nothing");
        case
    }

    /// Every case of the folder, by name.
    pub fn all() -> Vec<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases");
        let mut paths: Vec<_> = std::fs::read_dir(&dir).expect("the folder of cases").map(|e| e.expect("an entry").path()).collect();
        paths.sort();
        let stem = |p: &Path| p.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_string();
        paths
            .iter()
            .filter(|p| p.extension().is_some_and(|e| e == "case"))
            .map(|p| Self::parse(&stem(p), &std::fs::read_to_string(p).expect("a case")))
            .collect()
    }

    /// Fills the hub with the inputs.
    pub fn fill(&self, hub: &Hub) {
        for input in &self.inputs {
            hub.put_arrivals(&input.table, input.splits, input.records.clone());
            if let Some((count, at)) = input.added {
                hub.add_splits_at(&input.table, at, count);
            }
            for &(gap, at) in &input.gaps {
                hub.gap_at(&input.table, at, gap);
            }
        }
    }
}

/// The table that changes describe, as sorted rows.
pub fn materialise(changes: &[(RowKind, Vec<String>)]) -> Vec<String> {
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    for (kind, cells) in changes {
        *rows.entry(shown(cells)).or_default() += if kind.adds() { 1 } else { -1 };
    }
    assert!(rows.values().all(|n| *n >= 0), "a row left the table more often than it entered: {rows:?}");
    rows.into_iter().flat_map(|(row, n)| std::iter::repeat_n(row, n as usize)).collect()
}

/// A row on one line.
pub fn shown(cells: &[String]) -> String {
    format!("[{}]", cells.join(", ")).replace('\n', "\\n")
}

/// `fields` of every JSON line in the visible files below `dir`, files in path order.
pub fn lines_of(dir: &Path, fields: &[String]) -> Vec<String> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(['.', '_']));
            match (hidden, path.is_dir()) {
                (true, _) => {}
                (false, true) => open.push(path),
                (false, false) => files.push(path),
            }
        }
    }
    files.sort();
    let mut rows = Vec::new();
    for file in files {
        for line in std::fs::read_to_string(&file).expect("a file of the folder").lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {line}", file.display()));
            rows.push(fields.iter().map(|f| object[f].clone()).collect::<serde_json::Value>().to_string());
        }
    }
    rows
}
