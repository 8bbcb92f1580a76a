//! Both halves against a folder: what is written, when it is seen, and that reading goes on anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::time::Duration;

use arrow::array::{Int32Array, StringArray};
use arrow::datatypes::Schema;
use serde_json::Value;

use super::*;
use crate::connectors::{BatchLimits, Committer, Fetched, MetadataColumn, Scan, SinkWriter, Split};
use crate::formats::text;
use crate::stream::{Epoch, SqlType, StreamBatch, Watermark};

struct Case {
    dir: tempfile::TempDir,
    spec: TableSpec,
    job: &'static str,
}

impl Case {
    /// A table `(a INT, s STRING)` in a new folder.
    fn new(format: &str, more: &[(&str, &str)]) -> Self {
        let mut options = BTreeMap::from([("connector", "filesystem"), ("path", "t"), ("format", format)]);
        options.extend(more.iter().copied());
        let spec = TableSpec {
            name: "t".into(),
            physical: Arc::new(Schema::new(vec![SqlType::Int.field("a", true), SqlType::STRING.field("s", true)])),
            metadata: vec![],
            partition_keys: vec![],
            primary_key: vec![],
            options: options.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            knobs: BTreeMap::new(),
        };
        Self { dir: tempfile::tempdir().expect("a folder"), spec, job: "j" }
    }

    fn partitioned(mut self) -> Self {
        self.spec.partition_keys = vec!["s".into()];
        self
    }

    fn knob(mut self, key: &str, value: &str) -> Self {
        self.spec.knobs.insert(key.into(), value.into());
        self
    }

    fn context(&self) -> Context {
        Context { job: self.job.into(), zone: chrono_tz::UTC, base: self.dir.path().into(), memory: Default::default() }
    }

    fn put(&self, name: &str, content: &[u8]) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        fs::write(path, content).expect("writes");
    }

    /// All rows as `a|s`, in batches of `rows`, from `restore` on, and the positions behind each batch.
    fn read(&self, rows: usize, restore: Option<&Split>) -> (Vec<String>, Vec<Split>) {
        let table = source(&self.spec, &self.context()).expect("a source");
        let scan = Scan::all(&self.spec);
        let mut fetcher = table.open(&scan, restore.map(std::slice::from_ref)).expect("opens");
        let mut reader = table.reader(&scan).expect("a reader");
        let limits = BatchLimits { rows, bytes: 1 << 20, latency: Duration::ZERO };
        let (mut lines, mut splits) = (vec![], fetcher.splits());
        loop {
            match fetcher.fetch(&limits, Duration::ZERO).expect("fetches") {
                Fetched::Batch { payload, position, .. } => {
                    let decoded = reader.read(&payload).expect("reads");
                    assert_eq!(decoded.batch.schema(), scan.schema(&self.spec));
                    for row in 0..decoded.batch.num_rows() {
                        let mut line = String::new();
                        for (i, (column, field)) in decoded.batch.columns().iter().zip(decoded.batch.schema().fields()).enumerate() {
                            line += if i > 0 { "|" } else { "" };
                            text::write_value(column, field, row, chrono_tz::UTC, &mut line);
                        }
                        lines.push(line);
                    }
                    splits.push(Split { position, ..splits[0].clone() });
                }
                Fetched::SplitEnded(0) => {}
                Fetched::End | Fetched::Nothing => return (lines, splits),
                other => panic!("{other:?}"),
            }
        }
    }

    fn committer(&self) -> Box<dyn Committer> {
        sink(&self.spec, &self.context()).expect("a sink").committer().expect("a committer")
    }

    fn writer(&self, kept: Vec<RecordBatch>) -> Box<dyn SinkWriter> {
        sink(&self.spec, &self.context()).expect("a sink").writer(0, kept).expect("a writer")
    }

    /// The visible files and the commit entries, as text.
    fn tree(&self) -> String {
        let mut found = Vec::new();
        let mut folders = vec![self.dir.path().join("t")];
        while let Some(folder) = folders.pop() {
            for item in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = item.file_name().to_string_lossy().into_owned();
                if item.path().is_dir() && !name.starts_with('.') {
                    folders.push(item.path());
                } else if !name.starts_with('.') {
                    found.push(item.path().strip_prefix(self.dir.path()).expect("below").display().to_string());
                }
            }
        }
        found.sort();
        found.join(" ")
    }
}

fn rows(values: &[(i32, &str)]) -> StreamBatch {
    let a = Int32Array::from_iter_values(values.iter().map(|(a, _)| *a));
    let s = StringArray::from_iter(values.iter().map(|(_, s)| (!s.is_empty()).then_some(*s)));
    let schema = Case::new("json", &[]).spec.physical;
    StreamBatch::new(RecordBatch::try_new(schema, vec![Arc::new(a), Arc::new(s)]).expect("two columns"))
}

fn pending(writer: &mut dyn SinkWriter, epoch: u64, last: bool) -> Vec<Value> {
    writer.prepare(Epoch(epoch), last).expect("prepares").pending.into_iter().collect()
}

#[test]
fn files_are_one_sequence_that_can_be_entered_anywhere() {
    let mut case = Case::new("csv", &[("path", "t/**/*.csv*")]).knob("csv-header", "true");
    case.put("t/b.csv", b"a,s\n4,\"four\nlines\"\n5,five");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(b"\xef\xbb\xbfa,s\r\n1,one\r\n2,two\r\n").expect("packs");
    case.put("t/a.csv.gz", &gz.finish().expect("packs"));
    case.put("t/sub/c.csv", b"a,s\n");
    case.put("t/sub/d.csv", b"a,s\n6,six\n");
    case.put("t/_commits/0.csv", b"a,s\n7,hidden\n");
    case.put("t/.b.csv", b"a,s\n7,hidden\n");
    case.put("t/b.txt", b"a,s\n7,other\n");
    case.spec.metadata.push(MetadataColumn {
        field: Arc::new(SqlType::STRING.field("f", false)),
        key: "file.name".into(),
        is_virtual: true,
    });
    let (whole, splits) = case.read(1, None);
    assert_eq!(whole, ["1|one|a.csv.gz", "2|two|a.csv.gz", "4|four\nlines|b.csv", "5|five|b.csv", "6|six|d.csv"]);
    assert_eq!(case.read(1000, None).0, whole);
    for (read, split) in splits.iter().enumerate() {
        assert_eq!(case.read(2, Some(split)).0, whole[read..], "from {split:?}");
    }
}

#[test]
fn output_is_seen_at_commit_whole_and_once() {
    for format in ["json", "csv", "parquet"] {
        let case = Case::new(format, &[("sink.partition-commit.policy.kind", "success-file")]).partitioned();
        let mut committer = case.committer();
        committer.recover(None, &[]).expect("an empty folder");
        let mut writer = case.writer(vec![]);
        writer.write(&rows(&[(1, "x/y"), (2, ""), (3, "x/y")])).expect("writes");
        let first = pending(&mut *writer, 1, false);
        assert_eq!(case.tree(), "", "{format}");
        writer.write(&rows(&[(4, "x/y")])).expect("writes");
        let second = pending(&mut *writer, 2, false);

        // Killed after the checkpoint of epoch 1 and a part of its commit: epoch 1 is published, epoch 2 forgotten.
        committer.commit(Epoch(1), &first).expect("commits");
        fs::remove_dir_all(case.dir.path().join("t/_commits")).expect("as if it had never come to it");
        drop((writer, committer));
        let mut committer = case.committer();
        committer.recover(Some(Epoch(1)), &first).expect("completes the commit");
        committer.commit(Epoch(1), &first).expect("again");
        let e = committer.commit(Epoch(2), &second).expect_err("its files are gone");
        assert_eq!(e.kind(), crate::error::ErrorKind::State);
        let tree = format!(
            "t/_commits/000000000001-000000.json t/s=__DEFAULT_PARTITION__/_SUCCESS \
             t/s=__DEFAULT_PARTITION__/part-j-000000000001-0-000000.{format} t/s=x%2Fy/_SUCCESS t/s=x%2Fy/part-j-000000000001-0-000001.{format}"
        );
        assert_eq!(case.tree(), tree);
        assert_eq!(case.read(10, None).0, ["2|null", "1|x/y", "3|x/y"], "{format}");

        // Another job, and this one without its state, are refused; --fresh takes away exactly this job's files.
        let e = case.committer().recover(None, &[]).expect_err("not empty");
        assert!(e.to_string().contains("--fresh"), "{e}");
        case.put("t/s=x%2Fy/foreign.txt", b"");
        committer.remove_committed().expect("removes");
        assert_eq!(case.tree(), "t/s=x%2Fy/_SUCCESS t/s=x%2Fy/foreign.txt");
        let e = case.committer().recover(None, &[]).expect_err("not empty");
        assert!(e.to_string().contains("is not empty"), "{e}");
    }
}

#[test]
fn a_folder_of_another_job_is_refused() {
    let mut case = Case::new("json", &[]);
    let mut committer = case.committer();
    committer.recover(None, &[]).expect("an empty folder");
    case.job = "k";
    let e = case.committer().recover(None, &[]).expect_err("the other still runs");
    assert!(e.to_string().contains("job 'j' writes to"), "{e}");
    case.job = "j";
    let mut writer = case.writer(vec![]);
    writer.write(&rows(&[(1, "x")])).expect("writes");
    committer.commit(Epoch(1), &pending(&mut *writer, 1, true)).expect("commits");
    drop(committer);
    case.job = "k";
    let e = case.committer().recover(None, &[]).expect_err("not empty");
    assert!(e.to_string().contains("output of another job, 'j'"), "{e}");
}

#[test]
fn roll_rows_makes_the_same_files_however_rows_arrive() {
    let all: Vec<(i32, &str)> = (0..10).map(|i| (i, "x")).collect();
    let mut trees = Vec::new();
    for chunk in [1, 4, 10] {
        let case = Case::new("parquet", &[]).knob("roll-rows", "4");
        let mut committer = case.committer();
        committer.recover(None, &[]).expect("an empty folder");
        let mut kept = vec![];
        let mut epoch = 0;
        for chunk in all.chunks(chunk) {
            // A new writer each time: the rest lives in the checkpoint.
            let mut writer = case.writer(kept);
            writer.write(&rows(chunk)).expect("writes");
            epoch += 1;
            let prepared = writer.prepare(Epoch(epoch), false).expect("prepares");
            committer.commit(Epoch(epoch), &prepared.pending.into_iter().collect::<Vec<_>>()).expect("commits");
            committer.recover(Some(Epoch(epoch)), &[]).expect("a new process");
            kept = prepared.kept;
        }
        let mut writer = case.writer(kept);
        committer.commit(Epoch(epoch + 1), &pending(&mut *writer, epoch + 1, true)).expect("commits");
        let entries = commit::read_entries(&case.dir.path().join("t/_commits")).expect("entries");
        let table = case.read(100, None).0;
        assert_eq!(table.len(), 10);
        let files: Vec<Vec<String>> = entries
            .iter()
            .map(|(_, e)| {
                assert_eq!(e.files.len(), 1);
                let mut one = Case::new("parquet", &[]);
                one.spec.options.insert("path".into(), case.dir.path().join("t").join(&e.files[0].path).display().to_string());
                one.read(100, None).0
            })
            .collect();
        assert_eq!(files.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        trees.push(files);
    }
    assert_eq!(trees[0], trees[1]);
    assert_eq!(trees[0], trees[2]);
}

#[test]
fn a_partition_says_that_it_is_complete_once_the_watermark_has_passed_it() {
    let options = [
        ("sink.partition-commit.policy.kind", "success-file"),
        ("sink.partition-commit.trigger", "partition-time"),
        ("sink.partition-commit.delay", "1 h"),
        ("partition.time-extractor.timestamp-pattern", "$s:00"),
    ];
    let case = Case::new("csv", &options).partitioned();
    let mut committer = case.committer();
    committer.recover(None, &[]).expect("an empty folder");
    let mut writer = case.writer(vec![]);
    writer.write(&rows(&[(1, "1970-01-01 01:00"), (2, "1970-01-01 05:00")])).expect("writes");
    writer.watermark(Watermark(7_200_000));
    committer.commit(Epoch(1), &pending(&mut *writer, 1, false)).expect("commits");
    assert!(!case.tree().contains("_SUCCESS"));
    // A restart knows the open partitions by their files.
    let mut committer = case.committer();
    committer.recover(Some(Epoch(1)), &[]).expect("recovers");
    writer.watermark(Watermark(7_200_001));
    committer.commit(Epoch(2), &pending(&mut *writer, 2, false)).expect("commits");
    assert_eq!(case.tree().matches("_SUCCESS").count(), 1);
    committer.commit(Epoch(3), &pending(&mut *writer, 3, true)).expect("commits");
    assert_eq!(case.tree().matches("_SUCCESS").count(), 2);
}

#[test]
fn a_watched_folder_gives_each_file_once() {
    let case = Case::new("json", &[("source.monitor-interval", "1 ms")]);
    case.put("t/z.json", b"{\"a\":1}\n");
    let (first, splits) = case.read(10, None);
    assert_eq!(first, ["1|null"]);
    std::thread::sleep(Duration::from_millis(20));
    case.put("t/a.json", b"{\"a\":2}\n");
    assert_eq!(case.read(10, splits.last()).0, ["2|null"]);
    assert_eq!(case.read(10, None).0, ["1|null", "2|null"]);
}

#[test]
fn what_is_missing_is_named_with_what_is_there() {
    let check = |path: &str, want: &str| {
        let case = Case::new("csv", &[("path", path)]);
        case.put("data/stations.csv", b"1,x\n");
        let e = source(&case.spec, &case.context()).err().expect("nothing there").to_string();
        assert_eq!(e.replace(&case.dir.path().display().to_string(), "~"), want);
    };
    check("data/station.csv", "table 't': there is no file or folder '~/data/station.csv'\nhelp: did you mean '~/data/stations.csv'?");
    check("dta/stations.csv", "table 't': there is no file or folder '~/dta/stations.csv'\nhelp: did you mean '~/data'?");
    check("data/*.json", "table 't': no file matches 'data/*.json'\nhelp: '~/data' holds: stations.csv");
    check("s3://b/x", "table 't': files at 's3://' are not yet supported\nhelp: give a path on this machine");
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_nothing_is_seen() {
    let case = Case::new("parquet", &[("path", "file/t")]);
    case.put("file", b"");
    let e = case.committer().recover(None, &[]).expect_err("below a file");
    assert_eq!(e.kind(), crate::error::ErrorKind::External);
    assert!(e.to_string().contains("file/t"), "{e}");
    let case = Case::new("csv", &[]);
    case.committer().recover(None, &[]).expect("an empty folder");
    let mut writer = case.writer(vec![]);
    writer.write(&rows(&[(1, "x")])).expect("writes");
    drop(writer);
    assert_eq!(case.tree(), "");
    assert!(sink(&Case::new("csv", &[("path", "a/*.csv")]).spec, &case.context()).is_err(), "a glob is no output");
}

#[test]
fn what_is_published_is_not_replaced_by_what_a_later_run_has_left() {
    let case = Case::new("csv", &[]);
    let mut committer = case.committer();
    committer.recover(None, &[]).expect("an empty folder");
    let mut writer = case.writer(vec![]);
    writer.write(&rows(&[(1, "x")])).expect("writes");
    let pending = pending(&mut *writer, 1, false);
    committer.commit(Epoch(1), &pending).expect("commits");
    // The next run counts its staged files from 0 again, and is killed before its first checkpoint.
    drop(writer);
    case.committer().recover(Some(Epoch(1)), &pending).expect("recovers");
    let mut killed = case.writer(vec![]);
    killed.write(&rows(&[(2, "unfinished")])).expect("writes");
    std::mem::forget(killed);
    case.committer().recover(Some(Epoch(1)), &pending).expect("recovers again");
    assert_eq!(case.read(10, None).0, ["1|x"]);
}

#[test]
fn going_on_from_an_older_epoch_takes_back_what_came_after_it() {
    let case = Case::new("csv", &[]);
    let mut committer = case.committer();
    committer.recover(None, &[]).expect("an empty folder");
    let mut writer = case.writer(vec![]);
    for epoch in 1..=3 {
        writer.write(&rows(&[(epoch, "x")])).expect("writes");
        committer.commit(Epoch(epoch as u64), &pending(&mut *writer, epoch as u64, false)).expect("commits");
    }
    drop(committer);
    case.committer().recover(Some(Epoch(2)), &[]).expect("recovers");
    assert_eq!(case.read(10, None).0, ["1|x", "2|x"]);
}

/// The folder of the process that is to die in [`dies_at_a_crash_point`].
const DIES_IN: &str = "VELOSQL_TEST_DIES_IN";

/// A job of one epoch: writes, prepares, keeps what is pending as a checkpoint would, commits.
fn one_epoch(case: &Case) {
    let manifest = case.dir.path().join("manifest");
    let mut committer = case.committer();
    let pending: Vec<Value> = match fs::read(&manifest) {
        Ok(text) => serde_json::from_slice(&text).expect("a manifest"),
        Err(_) => {
            committer.recover(None, &[]).expect("nothing is visible before the first checkpoint");
            let mut writer = case.writer(vec![]);
            writer.write(&rows(&[(1, "x"), (2, "y"), (3, "x")])).expect("writes");
            let pending = pending(&mut *writer, 1, true);
            fs::write(manifest, serde_json::to_vec(&pending).expect("JSON")).expect("writes");
            return committer.commit(Epoch(1), &pending).expect("commits");
        }
    };
    committer.recover(Some(Epoch(1)), &pending).expect("completes the commit");
}

#[test]
#[ignore = "started by the test below, in a process of its own"]
fn dies_at_a_crash_point() {
    let Ok(folder) = std::env::var(DIES_IN) else { return };
    let mut case = Case::new("parquet", &[]).partitioned();
    case.spec.options.insert("path".into(), format!("{folder}/t"));
    case.dir = tempfile::Builder::new().disable_cleanup(true).prefix("run").tempdir_in(&folder).expect("a folder");
    let manifest = case.dir.path().join("manifest");
    std::os::unix::fs::symlink(format!("{folder}/manifest"), manifest).expect("links");
    one_epoch(&case);
}

#[test]
fn a_crash_at_any_point_leaves_all_or_nothing() {
    let points: Vec<_> = crate::crash::POINTS.iter().filter(|p| p.starts_with("filesystem.")).collect();
    assert!(points.len() >= 6);
    for (point, n) in points.into_iter().flat_map(|p| [(p, 1), (p, 2)]) {
        let case = Case::new("parquet", &[]).partitioned();
        let program = std::env::current_exe().expect("this program");
        let died = std::process::Command::new(program)
            .args(["--ignored", "--exact", "connectors::filesystem::tests::dies_at_a_crash_point"])
            .env(DIES_IN, case.dir.path())
            .env(crate::crash::VARIABLE, format!("{point}:{n}"))
            .output()
            .expect("runs");
        let met = std::os::unix::process::ExitStatusExt::signal(&died.status) == Some(libc::SIGABRT);
        assert!(met || died.status.success(), "{}", String::from_utf8_lossy(&died.stdout));
        assert!(met || n == 2, "{point} was not met");
        let seen = if case.dir.path().join("t").exists() { case.read(10, None).0 } else { vec![] };
        assert!(seen.len() <= 3, "{point}: {seen:?}");
        one_epoch(&case);
        assert_eq!(case.read(10, None).0, ["1|x", "3|x", "2|y"], "{point}");
        assert_eq!(
            case.tree(),
            "t/_commits/000000000001-000000.json t/s=x/part-j-000000000001-0-000000.parquet t/s=y/part-j-000000000001-0-000001.parquet",
            "{point}"
        );
        assert!(!case.dir.path().join("t/.staging-j").exists(), "{point}: something is still staged");
    }
}
