//! A job that dies at any moment gives, resumed, the table of the run that did not.
//!
//! Two ways to die: by itself at each point of [`velosql::crash::POINTS`], and by `kill -9` at random moments,
//! each resume with another number of workers. `VELOSQL_KILLS=100` kills more often than the ten of a plain
//! `cargo test`; `VELOSQL_SEED` moves the moments. The job writes what it reads and what it counts of it to
//! Parquet, so that a row that is lost or doubled is seen wherever that happens, and what it reads to a topic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use velosql::connectors::kafka::embedded::EmbeddedBroker;

use crate::process::{Place, Ran, Running, finish, parquet};

/// Rows of different keys, on an event time of 100 ms a row; a late row now and then.
const SQL: &str = "
SET 'pipeline.name' = 'crashing';
CREATE TABLE events (
  n BIGINT, k INT, v INT,
  ts AS TO_TIMESTAMP_LTZ(n * 100 - CASE WHEN MOD(n, 17) = 0 THEN 9000 ELSE 0 END, 3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH (
  'connector' = 'datagen', 'rows-per-second' = '${RATE}',
  'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '${LAST}',
  'fields.k.min' = '0', 'fields.k.max' = '20', 'fields.v.min' = '-100', 'fields.v.max' = '100'
);
CREATE TABLE rows_out (n BIGINT, k INT, v INT) WITH ('connector' = 'filesystem', 'path' = 'rows', 'format' = 'parquet');
CREATE TABLE windows_out (w TIMESTAMP_LTZ(3), k INT, c BIGINT, s BIGINT, mx INT, d BIGINT)
  WITH ('connector' = 'filesystem', 'path' = 'windows', 'format' = 'parquet');
CREATE TABLE extra (n BIGINT) WITH (${EXTRA});
EXECUTE STATEMENT SET BEGIN
  INSERT INTO rows_out SELECT n, k, v FROM events;
  INSERT INTO windows_out SELECT window_start, k, COUNT(*), SUM(CAST(v AS BIGINT)), MAX(v), COUNT(DISTINCT v)
    FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, k;
  INSERT INTO extra SELECT n FROM events;
END;
";

const NO_EXTRA: &str = "'connector' = 'blackhole'";
/// Faster than any machine: no throttle.
const AT_ONCE: u64 = 100_000_000;

/// One job in a folder of its own, at different speeds.
struct Job {
    place: Place,
    rows: u64,
    extra: String,
}

impl Job {
    fn new(rows: u64, extra: &str) -> Self {
        let place = Place::new();
        place.put("job.sql", SQL);
        Self { place, rows, extra: extra.into() }
    }

    fn command(&self, rate: u64, interval_ms: u64, workers: usize) -> std::process::Command {
        let defines = [format!("RATE={rate}"), format!("LAST={}", self.rows - 1), format!("EXTRA={}", self.extra)];
        let interval = format!("execution.checkpointing.interval={interval_ms} ms");
        let mut command =
            self.place.command(&["run", "job.sql", "--set", &interval, "--workers", &workers.to_string(), "--summary", "summary.json"]);
        defines.iter().for_each(|d| {
            command.args(["--define", d]);
        });
        command
    }

    fn finish(&self, rate: u64, interval_ms: u64, workers: usize, crash_at: Option<&str>) -> Ran {
        let mut command = self.command(rate, interval_ms, workers);
        command.envs(crash_at.map(|at| (velosql::crash::VARIABLE, at)));
        finish(command, &["run", "job.sql"])
    }

    fn tables(&self) -> [Vec<String>; 2] {
        [parquet(&self.place.path("rows")), parquet(&self.place.path("windows"))]
    }

    /// The newest durable epoch; 0 before the first.
    fn epoch(&self) -> u64 {
        let names = std::fs::read_dir(self.place.path(".velosql/crashing")).into_iter().flatten().flatten();
        // A kill may leave `manifest-….json.tmp`, which is none.
        let number = |name: String| name.strip_prefix("manifest-")?.strip_suffix(".json")?.parse::<u64>().ok();
        names.filter_map(|e| number(e.file_name().to_string_lossy().into_owned())).max().unwrap_or(0)
    }
}

/// What a run that nobody disturbs gives.
fn undisturbed(rows: u64) -> [Vec<String>; 2] {
    let job = Job::new(rows, NO_EXTRA);
    let ran = job.finish(AT_ONCE, 10_000, 2, None);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let tables = job.tables();
    assert_eq!(tables[0].len() as u64, rows, "the run that is compared with is whole");
    assert!(tables[1].len() > 20, "it has windows");
    tables
}

fn same(what: &str, got: &[Vec<String>; 2], expected: &[Vec<String>; 2]) {
    for (name, got, expected) in [("rows", &got[0], &expected[0]), ("windows", &got[1], &expected[1])] {
        if got != expected {
            let differ = |a: &[String], b: &[String]| a.iter().filter(|r| b.binary_search(r).is_err()).take(5).cloned().collect::<Vec<_>>();
            let (lost, more) = (differ(expected, got), differ(got, expected));
            panic!("{what}: {name}: {} rows, {} expected; missing {lost:?}…, too many {more:?}… (or doubled)", got.len(), expected.len());
        }
    }
}

#[test]
fn a_crash_at_every_named_point_loses_and_doubles_nothing() {
    const ROWS: u64 = 3_000;
    let expected = Arc::new(undisturbed(ROWS));
    let cells: Vec<(&str, usize)> = velosql::crash::POINTS.iter().flat_map(|p| [(*p, 1), (*p, 3)]).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((point, n)) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let job = Job::new(ROWS, NO_EXTRA);
                    let at = format!("{point}:{n}");
                    let died = job.finish(2_000, 50, 2, Some(&at));
                    assert_eq!(died.status, -1, "{at} was not hit: {}", died.stderr);
                    assert!(died.stderr.contains(&format!("crash point {point}")), "{at}: {}", died.stderr);
                    let seen = job.tables();
                    for (seen, expected) in seen.iter().zip(expected.iter()) {
                        assert!(seen.iter().all(|r| expected.binary_search(r).is_ok()), "{at}: a row was seen that does not belong there");
                    }
                    let resumed = job.finish(AT_ONCE, 50, 1 + n % 3, None);
                    assert_eq!(resumed.status, 0, "{at}, resumed: {}", resumed.stderr);
                    same(&at, &job.tables(), &expected);
                }
            });
        }
    });
    eprintln!("{} points, {} crashes, each resumed to the same tables", velosql::crash::POINTS.len(), cells.len());
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn random_kills_lose_and_double_nothing() {
    const ROWS: u64 = 24_000;
    const RATE: u64 = 4_000;
    let (wanted, seed) = (number("VELOSQL_KILLS", 10), number("VELOSQL_SEED", 1));
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let broker = EmbeddedBroker::start().expect("an embedded broker");
    let expected = undisturbed(ROWS);
    let (mut kills, mut resumes, mut resumed_later, mut rounds) = (0, 0, 0, 0);
    while kills < wanted {
        rounds += 1;
        let topic = format!("rows-{rounds}");
        broker.create_topic(&topic, 2).expect("a topic");
        let servers = broker.servers();
        let job = Job::new(
            ROWS,
            &format!("'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}', 'format' = 'json'"),
        );
        let mut started = 0;
        loop {
            let workers = random.random_range(1..=4);
            let epoch = job.epoch();
            if started > 0 {
                resumes += 1;
                resumed_later += u64::from(epoch > 0);
            }
            started += 1;
            let over = kills >= wanted;
            let mut run = Running::start(job.command(if over { AT_ONCE } else { RATE }, 100, workers));
            if over {
                assert_eq!(run.wait(), 0, "the last resume from epoch {epoch} ends well");
                let restored = job.place.summary("summary.json")["restored_from"].as_u64();
                assert_eq!(restored, Some(epoch), "it goes on from the newest epoch");
                break;
            }
            // Most kills wait for a round's first checkpoint, however slow the machine; some come before it.
            let early = random.random_bool(0.1);
            while epoch == 0 && !early && job.epoch() == 0 && run.0.try_wait().expect("a process").is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(random.random_range(50..700)));
            if run.0.try_wait().expect("a process").is_some() {
                assert_eq!(run.wait(), 0, "the run that ended before it was killed ended well");
                break;
            }
            // SIGKILL: nothing of the process runs any more.
            run.0.kill().expect("killed");
            run.wait();
            kills += 1;
        }
        same(&format!("round {rounds} (seed {seed})"), &job.tables(), &expected);
        let sent = topic_numbers(servers, &topic);
        let lost = (0..ROWS).filter(|n| !sent.contains(n)).count();
        assert_eq!(lost, 0, "round {rounds} (seed {seed}): rows that the topic lacks");
    }
    eprintln!("{kills} kills in {rounds} rounds (seed {seed}); {resumed_later} of {resumes} resumes went on from an epoch above 0");
    assert!(resumed_later * 10 >= resumes * 8, "{resumed_later} of {resumes} resumes from an epoch above 0: too few");
}

/// The different `n` of a topic, read by the binary itself.
fn topic_numbers(servers: &str, topic: &str) -> BTreeSet<u64> {
    let place = Place::new();
    let table = format!(
        "CREATE TABLE t (n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}',
         'format' = 'json', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset');\nSELECT n FROM t;"
    );
    place.put("read.sql", table);
    let ran = place.done(&["run", "read.sql", "--output", "csv", "--quiet"]);
    ran.stdout.lines().filter_map(|l| l.parse().ok()).collect()
}
