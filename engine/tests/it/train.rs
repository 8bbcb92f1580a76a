//! Models trained by the built binary: from SQL to a registry, once and batch by batch, killed on the way.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::process::{Place, finish};

/// Rows whose label is nearly a line, in a table of 100 rows a file; a model for each file.
const CUMULATIVE: &str = "
SET 'pipeline.name' = 'batches';
SET 'execution.checkpointing.interval' = '100 ms';
SET 'velosql.table.t.roll-rows' = '100';
CREATE TABLE made (n BIGINT, a DOUBLE) WITH (
  'connector' = 'datagen', 'rows-per-second' = '${RATE}',
  'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '${LAST}', 'fields.a.min' = '0', 'fields.a.max' = '1'
);
CREATE TABLE t (a DOUBLE, y DOUBLE) WITH ('connector' = 'filesystem', 'path' = 't', 'format' = 'parquet');
INSERT INTO t SELECT a, 2 * a + CAST(MOD(n, 7) AS DOUBLE) / 10 FROM made;
CREATE MODEL m WITH ('task' = 'regression', 'algorithm' = 'linear', 'label' = 'y', 'training.mode' = 'cumulative') AS SELECT a, y FROM t;
";

/// Two classes that one of three columns tells apart, the text only sometimes.
fn flowers(rows: usize) -> String {
    let row = |i: usize| {
        let petal = (i * 37 % 100) as f64 / 10.0;
        let kind = if (petal > 5.0) != i.is_multiple_of(17) { "big" } else { "small" };
        format!("{petal},{},{},{kind}\n", ["red", "white", "blue"][i % 3], (i * 7919) % 1000)
    };
    (0..rows).map(row).collect::<Vec<_>>().concat()
}

const FLOWERS: &str = "
CREATE TABLE flowers (petal DOUBLE, colour STRING, noise INT, kind STRING) WITH ('connector' = 'filesystem', 'path' = 'flowers.csv', 'format' = 'csv');
CREATE TABLE kept (petal DOUBLE, colour STRING, noise INT, kind STRING) WITH ('connector' = 'filesystem', 'path' = 'kept', 'format' = 'parquet');
";

fn manifest(registry: &Path, name: &str, version: u64) -> Value {
    let text = std::fs::read(registry.join(name).join(version.to_string()).join("manifest.json")).expect("a manifest");
    serde_json::from_slice(&text).expect("JSON")
}

fn versions(registry: &Path, name: &str) -> BTreeSet<u64> {
    let entries = std::fs::read_dir(registry.join(name)).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_string_lossy().parse().ok()).collect()
}

/// The files of a table's commits, in their order.
fn committed(table: &Path) -> Vec<(String, u64)> {
    let mut entries: Vec<_> = std::fs::read_dir(table.join("_commits")).expect("commits").flatten().map(|e| e.path()).collect();
    entries.retain(|p| p.extension().is_some_and(|e| e == "json"));
    entries.sort();
    let files = |path: &std::path::PathBuf| -> Vec<(String, u64)> {
        let entry: Value = serde_json::from_slice(&std::fs::read(path).expect("an entry")).expect("JSON");
        let files = entry["files"].as_array().expect("files").iter();
        files.map(|f| (f["path"].as_str().expect("a path").to_string(), f["rows"].as_u64().expect("rows"))).collect()
    };
    entries.iter().flat_map(files).collect()
}

/// Every version k names exactly the files of the first k entries; answers the number of versions.
fn check_cumulative(place: &Place) -> u64 {
    let registry = place.path("models");
    let files = committed(&place.path("t"));
    let versions = versions(&registry, "m");
    for version in &versions {
        let named: Vec<(String, u64)> = manifest(&registry, "m", *version)["lineage"]["files"]
            .as_array()
            .expect("files")
            .iter()
            .map(|f| (f["path"].as_str().expect("a path").trim_start_matches("t/").to_string(), f["rows"].as_u64().expect("rows")))
            .collect();
        assert_eq!(named, files[..*version as usize], "version {version} names the files of its entries");
    }
    assert_eq!(versions.iter().copied().collect::<Vec<_>>(), (1..=versions.len() as u64).collect::<Vec<_>>());
    versions.len() as u64
}

#[test]
fn fifty_batches_give_fifty_models_that_name_exactly_their_files() {
    let place = Place::new();
    place.put("job.sql", CUMULATIVE);
    let ran = place.done(&["run", "job.sql", "--define", "RATE=5000", "--define", "LAST=4999"]);
    assert_eq!(check_cumulative(&place), 50, "{}", ran.stderr);
    let last = manifest(&place.path("models"), "m", 50);
    assert_eq!(last["lineage"]["rows"].as_u64().unwrap_or(0) + last["lineage"]["rows_held_out"].as_u64().unwrap_or(0), 5000);
    assert!(last["metrics"]["r2"].as_f64().expect("r2") > 0.8, "{}", last["metrics"]);
    // What is trained is not trained again, by the same command or by the one that only trains.
    place.done(&["run", "job.sql", "--define", "RATE=5000", "--define", "LAST=4999"]);
    let again = place.done(&["train", "job.sql", "--define", "RATE=5000", "--define", "LAST=4999"]);
    assert!(again.stderr.contains("50 commits are trained already"), "{}", again.stderr);
    assert_eq!(check_cumulative(&place), 50);
}

#[test]
fn killed_between_any_two_steps_of_publishing_the_registry_is_whole_and_training_goes_on() {
    for point in velosql::crash::PUBLISHING {
        let place = Place::new();
        place.put("job.sql", CUMULATIVE);
        let args = ["run", "job.sql", "--define", "RATE=100000", "--define", "LAST=399"];
        let mut command = place.command(&args);
        command.env(velosql::crash::VARIABLE, format!("{point}:2"));
        let died = finish(command, &args);
        assert!(died.stderr.contains(&format!("crash point {point}")), "{point} was not hit: {}", died.stderr);
        // Every version that can be seen loads, and so does the champion.
        let listed: Value = serde_json::from_str(&place.done(&["models", "list", "--json"]).stdout).expect("JSON");
        for version in listed.as_array().expect("versions") {
            assert!(version["broken"].is_null(), "{point}: {version}");
            place.done(&["models", "show", "m", &version["version"].to_string()]);
        }
        place.done(&["models", "show", "m"]);
        let resumed = place.done(&args);
        assert_eq!(check_cumulative(&place), 4, "{point}, resumed: {}", resumed.stderr);
        let hidden = std::fs::read_dir(place.path("models/m")).expect("a model").flatten();
        let left: Vec<String> =
            hidden.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.starts_with(".publishing")).collect();
        assert!(left.is_empty(), "{point}: {left:?}");
    }
}

#[test]
fn a_model_is_trained_where_it_stands_and_its_versions_are_kept() {
    let place = Place::new();
    place.put("flowers.csv", flowers(600));
    let train = "
        INSERT INTO kept SELECT * FROM flowers;
        CREATE MODEL kinds WITH ('task' = 'classification', 'algorithm' = '${ALGORITHM}', 'label' = 'kind') AS
        SELECT petal, colour, kind FROM kept;";
    place.put("job.sql", format!("{FLOWERS}{train}"));
    let ran = place.done(&["run", "job.sql", "--define", "ALGORITHM=gbdt"]);
    assert!(ran.stderr.contains("model 'kinds' version 1: gbdt on "), "{}", ran.stderr);
    assert!(ran.stderr.contains("; champion"), "{}", ran.stderr);
    let first = manifest(&place.path("models"), "kinds", 1);
    let (rows, held_out) = (first["lineage"]["rows"].as_u64().expect("rows"), first["lineage"]["rows_held_out"].as_u64().expect("rows"));
    assert!(rows + held_out == 600 && (60..=180).contains(&held_out), "{rows} and {held_out}");
    assert!(first["metrics"]["accuracy"].as_f64().expect("accuracy") > 0.85, "{}", first["metrics"]);

    // Only the training, of another kind; then everything that can be done with two versions.
    place.done(&["train", "job.sql", "--define", "ALGORITHM=logistic"]);
    assert_eq!(versions(&place.path("models"), "kinds").len(), 2);
    let list = place.done(&["models", "list"]).stdout;
    assert!(list.contains("gbdt") && list.contains("logistic") && list.contains("champion"), "{list}");
    assert!(place.done(&["models", "show", "kinds"]).stdout.contains("kinds version 2 (champion)"));
    let compared = place.done(&["models", "compare", "kinds", "1", "2"]).stdout;
    assert!(compared.contains("macro_f1") && compared.contains("algorithm"), "{compared}");
    assert!(place.done(&["models", "rollback", "kinds"]).stderr.contains("the champion is version 1 again"));
    place.done(&["models", "alias", "kinds", "challenger", "2"]);
    place.done(&["models", "export", "kinds", "challenger", "--to", "elsewhere"]);
    assert!(place.done(&["models", "list", "--models", "elsewhere"]).stdout.contains("logistic"));
    let unknown = place.run(&["models", "show", "kind"]);
    assert!(unknown.status == 2 && unknown.stderr.contains("did you mean 'kinds'?"), "{}", unknown.stderr);
}

#[test]
fn the_same_rows_and_seed_give_the_same_file_at_any_threads_and_memory() {
    let place = Place::new();
    place.put("flowers.csv", flowers(30_000));
    let train = "CREATE MODEL kinds WITH ('task' = 'classification', 'algorithm' = 'random_forest', 'trees' = '5', 'label' = 'kind',
        'threads' = '${THREADS}', 'memory' = '${MEMORY}') AS SELECT petal, colour, noise, kind FROM flowers;";
    place.put("job.sql", format!("{FLOWERS}{train}"));
    let model = |registry: &str, threads: &str, memory: &str| {
        let (threads, memory) = (format!("THREADS={threads}"), format!("MEMORY={memory}"));
        place.done(&["train", "job.sql", "--models", registry, "--define", &threads, "--define", &memory]);
        std::fs::read(place.path(registry).join("kinds/1/model.bin")).expect("a model")
    };
    let first = model("a", "1", "1 gb");
    assert_eq!(first, model("b", "3", "1 gb"));
    assert!(first == model("c", "2", "64 kb"), "rows that do not fit in memory give the same model");
}

#[test]
fn a_gate_keeps_the_champion() {
    let place = Place::new();
    place.put("flowers.csv", flowers(600));
    let train = "CREATE MODEL kinds WITH ('task' = 'classification', 'algorithm' = 'naive_bayes', 'label' = 'kind',
        'publish.gate' = 'accuracy >= champion - 0.01') AS SELECT ${COLUMN}, kind FROM flowers;";
    place.put("job.sql", format!("{FLOWERS}{train}"));
    let good = place.done(&["run", "job.sql", "--define", "COLUMN=petal"]);
    assert!(good.stderr.contains("; champion"), "{}", good.stderr);
    let bad = place.done(&["run", "job.sql", "--define", "COLUMN=noise"]);
    assert!(bad.stderr.contains("not champion: accuracy "), "{}", bad.stderr);
    assert_eq!(versions(&place.path("models"), "kinds").len(), 2, "it is published all the same");
    assert!(place.done(&["models", "show", "kinds"]).stdout.contains("kinds version 1 (champion)"));
}

#[test]
fn dbscan_writes_labels_and_leaves_no_model() {
    let place = Place::new();
    // Two heaps and one far away.
    let rows: String =
        (0..200).map(|i| format!("{},{}\n", f64::from(i % 2) * 10.0 + f64::from(i % 9) * 0.01, f64::from(i % 7) * 0.01)).collect();
    place.put("points.csv", format!("{rows}500,500\n"));
    place.put(
        "job.sql",
        "CREATE TABLE points (x DOUBLE, y DOUBLE) WITH ('connector' = 'filesystem', 'path' = 'points.csv', 'format' = 'csv');
         CREATE MODEL heaps WITH ('task' = 'clustering', 'algorithm' = 'dbscan', 'labels.path' = 'labels', 'scale' = 'none') AS SELECT x, y FROM points;",
    );
    let ran = place.done(&["run", "job.sql"]);
    assert!(ran.stderr.contains("2 clusters, 1 rows of none"), "{}", ran.stderr);
    let labels = place.parquet("labels");
    assert_eq!(labels.len(), 201);
    assert!(labels.contains(&"500.0|500.0|-1".to_string()));
    assert!(!place.path("models/heaps").exists());
}

#[test]
fn what_cannot_be_trained_is_said_before_anything_runs() {
    let place = Place::new();
    place.put("flowers.csv", flowers(50));
    let error = |with: &str| {
        let train = format!(
            "INSERT INTO kept SELECT * FROM flowers; CREATE MODEL m WITH ('task' = 'classification', 'algorithm' = 'gbdt', 'label' = 'kind', {with}) AS SELECT petal, kind FROM kept;"
        );
        place.put("job.sql", format!("{FLOWERS}{train}"));
        let ran = place.run(&["run", "job.sql"]);
        assert_eq!(ran.status, 2, "{}", ran.stderr);
        assert!(!place.path("kept").exists(), "the job did not run");
        ran.stderr
    };
    assert!(error("'leraning_rate' = '0.1'").contains("did you mean 'learning_rate'?"));
    assert!(error("'features.petl' = 'skip'").contains("did you mean 'features.petal'?"));
    assert!(error("'publish.gate' = 'rmse < 1'").contains("this task has no metric 'rmse'"));
    assert!(error("'holdout' = '1.5'").contains("from 0 (none) to 0.9"));
    assert!(error("'training.mode' = 'cumulative', 'trees' = '0'").contains("'trees'"));
}
