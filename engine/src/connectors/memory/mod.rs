//! Tables in the memory of the process, for tests: `'connector' = 'memory'`.
//!
//! A test fills a [`Hub`], hands it to the job in [`Context::memory`](super::Context), and reads from it
//! what the job has committed. Everything that a broker does by chance happens here at a place that the
//! test names: the order of arrival over splits, silence, a split that is added, the moment of a stop.
//!
//! What must hold: a source answers the same batches each time it is opened at the same positions with the
//! same limits; output is visible at commit only, and what was staged outlives the job (a job killed in the
//! process finds it again), as files do.
//!
//! Options: `format` (json), `static` (true: may be the static side of a join), `accepts` (append-only,
//! upsert, changelog), `durable` (true).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use crate::formats::text;
use crate::stream::{Epoch, RowKind, StreamBatch};

mod sink;
mod source;

pub use sink::sink;
pub use source::source;

/// All memory tables of one process or test, by name. Clones share them.
#[derive(Clone, Default)]
pub struct Hub(Arc<Shared>);

#[derive(Default)]
struct Shared {
    tables: Mutex<Tables>,
    /// Told whenever a table changes: fetchers and waiting tests look again.
    changed: Condvar,
}

#[derive(Default)]
struct Tables {
    inputs: BTreeMap<String, Input>,
    outputs: BTreeMap<String, Output>,
}

/// What a source table answers, and how far it has been read.
#[derive(Default)]
struct Input {
    splits: Vec<Content>,
    /// Splits known when the table is opened; the others are added by events.
    initial: usize,
    /// The split of each record in global order; `None`: round robin in chunks of the batch limit.
    arrivals: Option<Vec<usize>>,
    /// What happens once as many records as said have been answered, in that order.
    events: Vec<(usize, Event)>,
    unbounded: bool,
    pause_after: Option<usize>,
    /// Records answered since the table's start, restored ones included.
    fetched: usize,
}

/// The records of one split.
enum Content {
    Raw(Vec<Vec<u8>>),
    Rows(RecordBatch),
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Raw(records) => records.len(),
            Self::Rows(batch) => batch.num_rows(),
        }
    }
}

#[derive(Clone, Copy)]
enum Event {
    /// The next split of the list appears.
    AddSplit,
    /// Nothing arrives for this time.
    Gap(Duration),
}

/// What a sink table holds.
#[derive(Default)]
struct Output {
    job: String,
    staged: BTreeMap<(Epoch, usize), Vec<StreamBatch>>,
    committed: BTreeMap<(Epoch, usize), Vec<StreamBatch>>,
}

impl Hub {
    /// Fills `table` with splits of undecoded records, which arrive in turns: a batch of each split.
    pub fn put<R: Into<Vec<u8>>>(&self, table: &str, splits: Vec<Vec<R>>) {
        let splits: Vec<_> = splits.into_iter().map(|s| Content::Raw(s.into_iter().map(Into::into).collect())).collect();
        self.fill(table, splits, None);
    }

    /// Fills `table` with splits of rows in all physical columns, which arrive in turns.
    pub fn put_rows(&self, table: &str, splits: Vec<RecordBatch>) {
        self.fill(table, splits.into_iter().map(Content::Rows).collect(), None);
    }

    /// Fills `table` with undecoded records that arrive in exactly this order over `splits` splits.
    pub fn put_arrivals<R: Into<Vec<u8>>>(&self, table: &str, splits: usize, records: Vec<(usize, R)>) {
        let mut contents = vec![Vec::new(); splits];
        let mut arrivals = Vec::with_capacity(records.len());
        for (split, record) in records {
            contents[split].push(record.into());
            arrivals.push(split);
        }
        self.fill(table, contents.into_iter().map(Content::Raw).collect(), Some(arrivals));
    }

    /// Holds back the newest `count` splits of `table` that are known at opening: each is added once `at` records
    /// have been answered. With given arrivals none of its records may come earlier.
    pub fn add_splits_at(&self, table: &str, at: usize, count: usize) {
        let mut tables = self.lock();
        let input = tables.inputs.entry(table.to_string()).or_default();
        input.initial = input.initial.saturating_sub(count);
        input.events.extend(std::iter::repeat_n((at, Event::AddSplit), count));
        input.events.sort_by_key(|(at, _)| *at);
    }

    /// Once `at` records of `table` have been answered, nothing arrives for the time of `gap`.
    pub fn gap_at(&self, table: &str, at: usize, gap: Duration) {
        let mut tables = self.lock();
        let input = tables.inputs.entry(table.to_string()).or_default();
        input.events.push((at, Event::Gap(gap)));
        input.events.sort_by_key(|(at, _)| *at);
    }

    /// Makes `table` unbounded (before the job is planned), or lets it end.
    pub fn set_unbounded(&self, table: &str, unbounded: bool) {
        self.lock().inputs.entry(table.to_string()).or_default().unbounded = unbounded;
        self.0.changed.notify_all();
    }

    /// Appends records to a split while the job runs.
    pub fn push<R: Into<Vec<u8>>>(&self, table: &str, split: usize, records: Vec<R>) {
        let mut tables = self.lock();
        let input = tables.inputs.entry(table.to_string()).or_default();
        if let Some(arrivals) = &mut input.arrivals {
            arrivals.extend(std::iter::repeat_n(split, records.len()));
        }
        if let Some(Content::Raw(all)) = input.splits.get_mut(split) {
            all.extend(records.into_iter().map(Into::into));
        }
        drop(tables);
        self.0.changed.notify_all();
    }

    /// `table` answers nothing more once `records` have been answered since its start, until [`Hub::resume`].
    pub fn pause_after(&self, table: &str, records: usize) {
        self.lock().inputs.entry(table.to_string()).or_default().pause_after = Some(records);
    }

    /// Ends the pause of [`Hub::pause_after`].
    pub fn resume(&self, table: &str) {
        self.lock().inputs.entry(table.to_string()).or_default().pause_after = None;
        self.0.changed.notify_all();
    }

    /// Records of `table` answered since its start, those before a restored position included.
    pub fn fetched(&self, table: &str) -> usize {
        self.lock().inputs.get(table).map_or(0, |i| i.fetched)
    }

    /// Waits until [`Hub::fetched`] is at least `records`; false when that takes longer than `timeout`.
    pub fn wait_fetched(&self, table: &str, records: usize, timeout: Duration) -> bool {
        self.wait(timeout, |t| t.inputs.get(table).map_or(0, |i| i.fetched) >= records)
    }

    /// Waits until `table` has at least `rows` committed rows; false when that takes longer than `timeout`.
    pub fn wait_committed(&self, table: &str, rows: usize, timeout: Duration) -> bool {
        self.wait(timeout, |t| t.outputs.get(table).map_or(0, Output::committed_rows) >= rows)
    }

    /// The committed batches of `table`, by epoch, then writer.
    pub fn batches(&self, table: &str) -> Vec<StreamBatch> {
        self.lock().outputs.get(table).map(|o| o.committed.values().flatten().cloned().collect()).unwrap_or_default()
    }

    /// The committed rows of `table` in the print connector's form (NULL is `null`), by epoch, then writer.
    pub fn committed(&self, table: &str) -> Vec<(RowKind, Vec<String>)> {
        let mut rows = Vec::new();
        for batch in self.batches(table) {
            let columns = text_columns(&batch.rows);
            rows.extend((0..batch.num_rows()).map(|i| (batch.kind(i), columns.iter().map(|c| c[i].clone()).collect())));
        }
        rows
    }

    /// The epochs in which rows of `table` were committed, ascending.
    pub fn epochs(&self, table: &str) -> Vec<Epoch> {
        let tables = self.lock();
        let mut epochs: Vec<Epoch> = tables.outputs.get(table).into_iter().flat_map(|o| o.committed.keys().map(|(e, _)| *e)).collect();
        epochs.dedup();
        epochs
    }

    fn fill(&self, table: &str, splits: Vec<Content>, arrivals: Option<Vec<usize>>) {
        let initial = splits.len();
        self.lock().inputs.insert(table.to_string(), Input { splits, initial, arrivals, ..Input::default() });
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A test that panics while it holds the lock has failed already: the others may still look.
        self.0.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done` holds.
    fn wait(&self, timeout: Duration, mut done: impl FnMut(&Tables) -> bool) -> bool {
        let end = Instant::now() + timeout;
        let mut tables = self.lock();
        while !done(&tables) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            tables = self.0.changed.wait_timeout(tables, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Output {
    fn committed_rows(&self) -> usize {
        self.committed.values().flatten().map(StreamBatch::num_rows).sum()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.lock();
        f.debug_struct("Hub")
            .field("inputs", &tables.inputs.keys().collect::<Vec<_>>())
            .field("outputs", &tables.outputs.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Each column's values as text.
fn text_columns(rows: &RecordBatch) -> Vec<Vec<String>> {
    let schema = rows.schema();
    let texts = rows.columns().iter().zip(schema.fields()).map(|(column, field)| {
        let value = |row| {
            let mut out = String::new();
            text::write_value(column, field, row, chrono_tz::UTC, &mut out);
            out
        };
        (0..column.len()).map(value).collect()
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use crate::stream::SqlType;

    fn spec() -> TableSpec {
        TableSpec {
            name: "t".into(),
            physical: Arc::new(Schema::new(vec![SqlType::Int.field("a", true)])),
            metadata: vec![MetadataColumn { field: Arc::new(SqlType::BigInt.field("p", true)), key: "partition".into(), is_virtual: true }],
            partition_keys: vec![],
            primary_key: vec![],
            options: BTreeMap::from([("connector".into(), "memory".into())]),
            knobs: BTreeMap::new(),
        }
    }

    fn context(hub: &Hub) -> Context {
        Context { job: "j".into(), zone: chrono_tz::UTC, base: ".".into(), memory: hub.clone() }
    }

    fn ints(values: &[i32]) -> RecordBatch {
        let column = Arc::new(arrow::array::Int32Array::from(values.to_vec()));
        RecordBatch::try_new(spec().physical, vec![column]).expect("one column")
    }

    /// Reads on until nothing comes, and answers what came as text.
    fn read(hub: &Hub, rows: usize, restore: Option<&[Split]>) -> (String, Vec<Split>) {
        let table = super::source(&spec(), &context(hub)).expect("a source");
        let scan = Scan::all(&spec());
        let mut fetcher = table.open(&scan, restore).expect("opens");
        let mut reader = table.reader(&scan).expect("a reader");
        let limits = BatchLimits { rows, bytes: 1 << 20, latency: Duration::ZERO };
        let mut splits = fetcher.splits();
        let mut out = String::new();
        loop {
            match fetcher.fetch(&limits, Duration::ZERO).expect("fetches") {
                Fetched::Batch { split, payload, position } => {
                    splits[split].position = position;
                    let decoded = reader.read(&payload).expect("reads");
                    let columns = text_columns(&decoded.batch);
                    out += &format!("{}@{} ", columns[0].join(","), columns[1][0]);
                }
                Fetched::SplitAdded(split) => {
                    out += &format!("+{} ", split.id);
                    splits.push(split);
                }
                Fetched::SplitEnded(split) => {
                    splits[split].ended = true;
                    out += &format!("/{split} ");
                }
                Fetched::Nothing => return (out + "-", splits),
                Fetched::End => return (out + ".", splits),
            }
        }
    }

    #[test]
    fn splits_take_turns_and_a_restored_fetcher_goes_on() {
        let hub = Hub::default();
        hub.put_rows("t", vec![ints(&[1, 2, 3]), ints(&[4]), ints(&[5, 6])]);
        hub.add_splits_at("t", 3, 1);
        let whole = "1,2@0 4@1 /1 +2 5,6@2 /2 3@0 /0 .";
        assert_eq!(read(&hub, 2, None).0, whole);
        hub.pause_after("t", 4);
        let (first, splits) = read(&hub, 2, None);
        assert_eq!(first, "1,2@0 4@1 /1 +2 5@2 -");
        assert_eq!(hub.fetched("t"), 4);
        hub.resume("t");
        assert_eq!(read(&hub, 1, Some(&splits)).0, "3@0 /0 6@2 /2 .");
    }

    #[test]
    fn arrivals_keep_their_order_and_json_is_decoded() {
        let hub = Hub::default();
        hub.put_arrivals("t", 2, vec![(1, r#"{"a":1}"#), (1, r#"{"a":2}"#), (0, r#"{"a":3}"#), (1, "{}")]);
        assert_eq!(read(&hub, 8, None).0, "1,2@1 3@0 /0 null@1 /1 .");
        hub.set_unbounded("t", true);
        let (_, splits) = read(&hub, 8, None);
        hub.push("t", 0, vec![r#"{"a":9}"#]);
        assert_eq!(read(&hub, 8, Some(&splits)).0, "9@0 -");
    }

    #[test]
    fn output_appears_at_commit_once_and_survives_a_kill() {
        let hub = Hub::default();
        let table = super::sink(&spec(), &context(&hub)).expect("a sink");
        let mut committer = table.committer().expect("a committer");
        committer.recover(None, &[]).expect("an empty table");
        let mut writer = table.writer(0, vec![]).expect("a writer");
        writer.write(&StreamBatch::new(ints(&[1, 2]))).expect("writes");
        let pending = writer.prepare(Epoch(1), false).expect("prepares").pending.into_iter().collect::<Vec<_>>();
        writer.write(&StreamBatch::new(ints(&[3]))).expect("writes");
        writer.prepare(Epoch(2), false).expect("prepares");
        assert!(hub.committed("t").is_empty());
        drop(committer);
        let mut committer = table.committer().expect("a committer");
        for _ in 0..2 {
            committer.recover(Some(Epoch(1)), &pending).expect("commits epoch 1 and forgets epoch 2");
        }
        assert_eq!(hub.committed("t").len(), 2);
        committer.commit(Epoch(2), &[serde_json::json!({"writer": 0})]).expect_err("staged rows are gone");
        let e = committer.recover(None, &[]).expect_err("not a fresh table");
        assert!(e.help_text().is_some_and(|h| h.contains("--fresh")), "{e}");
    }
}
