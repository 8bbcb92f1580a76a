//! A disk that is full: the job stops and says so, and with more room it goes on to the table of a job that never stopped.
//!
//! The disk is a small `tmpfs` in a mount namespace of the test's own, which needs Linux and user namespaces; where
//! there are none, the test says so and does nothing.

use std::process::Command;

use crate::process::{Place, finish};

const SQL: &str = "SET 'execution.checkpointing.interval' = '100 ms';
CREATE TABLE t (n BIGINT, s STRING) WITH ('connector' = 'datagen', 'rows-per-second' = '20000', 'fields.s.length' = '20',
  'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '40000');
CREATE TABLE out_t (n BIGINT, s STRING) WITH ('connector' = 'filesystem', 'path' = 'disk/out', 'format' = 'parquet');
INSERT INTO out_t SELECT n, s FROM t;";

/// Fills the disk, makes room, and takes what lies there home before the namespace ends.
const SCRIPT: &str = r#"
mkdir disk && mount -t tmpfs -o size=200k none disk || exit 99
"$VELOSQL" run q.sql --quiet --state "$STATE" 2> first; echo $? > status
mount -o remount,size=64m disk
"$VELOSQL" run q.sql --quiet --state "$STATE" --summary summary.json 2> second || exit 98
cp -r disk/out home
"#;

#[test]
fn a_full_disk_stops_the_job_and_with_room_it_goes_on() {
    for state in ["state", "disk/state"] {
        let place = Place::new();
        place.put("q.sql", SQL);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", SCRIPT]).current_dir(place.path(""));
        command.env("VELOSQL", env!("CARGO_BIN_EXE_velosql")).env("STATE", state);
        if !Command::new("unshare").args(["--mount", "--map-root-user", "true"]).status().is_ok_and(|s| s.success()) {
            println!("skipped: this machine gives no mount namespaces, so there is no small disk");
            return;
        }
        let ran = finish(command, &["a small disk"]);
        let said = |name: &str| std::fs::read_to_string(place.path(name)).unwrap_or_default();
        if ran.status == 99 {
            println!("skipped: no tmpfs can be mounted here: {}", ran.stderr);
            return;
        }
        assert_eq!(ran.status, 0, "{}{}{}", ran.stderr, said("first"), said("second"));
        assert_eq!(said("status").trim(), "4", "{}", said("first"));
        let first = said("first");
        assert!(first.contains("disk/") && first.contains("help: ") && first.contains("last checkpoint"), "{first}");
        assert!(place.summary("summary.json")["restored_from"].is_u64(), "it goes on: {}", place.summary("summary.json"));
        let rows = place.parquet("home");
        assert_eq!(rows.len(), 40_000);
        let numbers: std::collections::BTreeSet<&str> = rows.iter().filter_map(|r| r.split('|').next()).collect();
        assert_eq!(numbers.len(), 40_000, "each row once, such as {}", rows[0]);
    }
}
