//! Rows and late count of a window aggregation, against the rule of lateness written down once more.
//!
//! The reference below is the rule itself, row by row: a split's watermark is the maximum over its rows of
//! time minus delay, taken before the row; a window is open for the row while `end - 1` is above it. The
//! job reads the same rows in batches, on several workers, from one split and from four.

use std::collections::BTreeMap;

use velosql::connectors::memory::Hub;
use velosql::runtime;
use velosql::runtime::job::JobOptions;

use crate::case::materialise;
use crate::job;

/// Milliseconds of 2024-01-01.
const START: i64 = 1_704_067_200_000;

/// xorshift64*: the same rows for the same seed, anywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

struct Row {
    split: usize,
    key: u64,
    value: i64,
    time: i64,
}

/// `n` rows in order of arrival: each split goes on at its own speed, and a third of the rows lies behind.
fn rows(seed: u64, n: usize, splits: usize) -> Vec<Row> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut now = vec![START; splits];
    let mut row = || {
        let split = random.below(splits as u64) as usize;
        now[split] += random.below(800 * (split as u64 + 1)) as i64;
        let back = if random.below(3) == 0 { random.below(25_000) as i64 } else { 0 };
        Row { split, key: random.below(5), value: random.below(1000) as i64, time: (now[split] - back).max(START) }
    };
    (0..n).map(|_| row()).collect()
}

/// Rows and late count by the rule.
fn reference(rows: &[Row], delay: i64, slide: i64, size: i64) -> (Vec<String>, u64) {
    let mut watermarks: BTreeMap<usize, i64> = BTreeMap::new();
    let mut groups: BTreeMap<(i64, u64), (i64, i64)> = BTreeMap::new();
    let mut late = 0;
    for row in rows {
        let before = watermarks.get(&row.split).copied().unwrap_or(i64::MIN);
        watermarks.insert(row.split, before.max(row.time - delay));
        let last = row.time - row.time.rem_euclid(slide);
        let starts = (0..size / slide).map(|i| last - i * slide);
        let open: Vec<i64> = starts.filter(|start| start + size - 1 > before).collect();
        late += u64::from(open.is_empty());
        for start in open {
            let group = groups.entry((start, row.key)).or_default();
            *group = (group.0 + 1, group.1 + row.value);
        }
    }
    let mut rows: Vec<String> =
        groups.iter().map(|((start, key), (n, sum))| format!("[{}, {key}, {n}, {sum}]", (start - START) / 1000)).collect();
    rows.sort();
    (rows, late)
}

/// Rows and late count of the engine.
fn engine(rows: &[Row], splits: usize, (delay, slide, size): (i64, i64, i64), workers: usize, batch: usize) -> (Vec<String>, u64) {
    let hub = Hub::default();
    let record = |r: &Row| (r.split, format!(r#"{{"k": {}, "v": {}, "ms": {}}}"#, r.key, r.value, r.time));
    hub.put_arrivals("t", splits, rows.iter().map(record).collect());
    let sql = format!(
        "CREATE TABLE t (k INT, v BIGINT, ms BIGINT, ts AS CAST(TO_TIMESTAMP_LTZ(ms, 3) AS TIMESTAMP(3)),
           WATERMARK FOR ts AS ts - INTERVAL '{}' SECOND) WITH ('connector' = 'memory');
         CREATE TABLE answers (s INT, k INT, n BIGINT, v BIGINT) WITH ('connector' = 'memory');
         INSERT INTO answers SELECT TIMESTAMPDIFF(SECOND, TIMESTAMP '2024-01-01 00:00:00', window_start), k, COUNT(*), SUM(v)
         FROM TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '{}' SECOND, INTERVAL '{}' SECOND)) GROUP BY window_start, window_end, k;",
        delay / 1000,
        slide / 1000,
        size / 1000
    );
    let options = JobOptions { sql: sql.clone(), ..job::options("lateness", workers, batch) };
    let metrics = options.metrics.clone();
    runtime::job::run(&job::plan("lateness", &sql, &hub), options).expect("the job ends");
    (materialise(&hub.committed("answers")), metrics.late.get())
}

#[test]
fn rows_and_late_count_are_those_of_the_rule() {
    let mut late_rows = 0;
    for seed in 1..=6 {
        for splits in [1, 4] {
            let rows = rows(seed, 600, splits);
            for (slide, size) in [(10_000, 10_000), (5_000, 20_000)] {
                let (expected, late) = reference(&rows, 5_000, slide, size);
                for (workers, batch) in [(1, 64), (3, 7), (2, 1000)] {
                    let got = engine(&rows, splits, (5_000, slide, size), workers, batch);
                    assert_eq!(
                        got,
                        (expected.clone(), late),
                        "seed {seed}, {splits} splits, slide {slide}, {workers} workers, {batch} rows a batch"
                    );
                }
                late_rows += late;
            }
        }
    }
    assert!(late_rows > 100, "the data must hold late rows, or nothing is shown: {late_rows}");
}
