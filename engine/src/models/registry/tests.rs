//! The registry is whole whatever happens: killed, raced, tampered with, rolled back.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::crash::PUBLISHING;
use crate::models::algorithms::State;
use crate::models::model::tests::{rows, trained};
use crate::models::task::{Algorithm, Task};

fn model() -> Model {
    trained(Task::Regression, Algorithm::Ridge, &[], 200)
}

fn at(registry: &Registry, name: &str, rmse: f64, gate: Option<&Gate>, stop: Option<&'static str>) -> Result<Published> {
    let publication = Publication {
        name,
        model: &model(),
        golden: &rows(150),
        query: Some("SELECT * FROM flats".into()),
        options: &BTreeMap::from([("alpha".to_string(), "1".to_string()), ("store.token".to_string(), "s3cret".to_string())]),
        lineage: Lineage {
            files: vec![InputFile { path: "flats/part-0.parquet".into(), rows: 150, bytes: 4096, sha256: "ab".repeat(32) }],
            rows: 120,
            rows_held_out: 30,
            ..Lineage::default()
        },
        metrics: BTreeMap::from([("rmse".to_string(), rmse), ("roc_auc".to_string(), f64::NAN)]),
        confusion: None,
        seed: 7,
        gate,
        now: UNIX_EPOCH + Duration::from_secs(1_731_146_700),
    };
    registry.publish_at(&publication, |point| match stop == Some(point) {
        true => Err(Error::internal("killed")),
        false => Ok(()),
    })
}

fn publish(registry: &Registry, name: &str, rmse: f64) -> Published {
    at(registry, name, rmse, None, None).expect("publishes")
}

fn place() -> (tempfile::TempDir, Registry) {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Registry::new(folder.path().join("models"));
    (folder, registry)
}

#[test]
fn a_version_says_where_it_comes_from_and_keeps_no_secret() {
    let (_folder, registry) = place();
    assert_eq!(publish(&registry, "flats", 3.5), Published { version: 1, champion: true, verdict: None });
    let served = registry.load("flats", &Selector::Champion).expect("loads");
    assert_eq!((served.version, &served.model), (1, &model()));
    let manifest = &served.manifest;
    assert_eq!((manifest.created.as_str(), manifest.lineage.files[0].rows), ("2024-11-09T10:05:00Z", 150));
    assert_eq!(manifest.options["store.token"], "***");
    assert!(manifest.metrics["roc_auc"].is_nan() && manifest.metrics["rmse"] == 3.5);
    assert!(manifest.libraries.contains_key("arrow") && manifest.libraries.contains_key("ndarray"), "{:?}", manifest.libraries);
    let text = fs::read_to_string(registry.folder("flats", 1).join(MANIFEST)).expect("a manifest");
    assert!(!text.contains("s3cret"));
}

#[test]
fn killed_between_any_two_steps_the_registry_is_whole() {
    for point in PUBLISHING {
        let (_folder, registry) = place();
        publish(&registry, "flats", 3.5);
        at(&registry, "flats", 3.4, None, Some(point)).expect_err("killed");
        let listed = registry.list().expect("lists");
        assert!(listed.iter().all(|l| l.broken.is_none()), "{point}: {listed:?}");
        let champion = registry.load("flats", &Selector::Champion).expect("a champion").version;
        assert_eq!(champion, if *point == "registry.publish.after-alias" { 2 } else { 1 }, "{point}");
        // The next one goes through, and cleans up.
        let seen = listed.len() as u64;
        assert_eq!(publish(&registry, "flats", 3.3).version, seen + 1, "{point}");
        let left = fs::read_dir(registry.root().join("flats")).expect("a folder").flatten();
        assert!(!left.into_iter().any(|e| e.file_name().to_string_lossy().starts_with(".publishing")), "{point}");
        // Killed before anything was there, the model is not there.
        let (_folder, empty) = place();
        let _ = at(&empty, "first", 1.0, None, Some(point));
        assert!(empty.load("first", &Selector::Champion).is_ok() == (seen == 2), "{point}");
    }
}

#[test]
fn publishers_at_the_same_time_get_versions_of_their_own() {
    let (_folder, registry) = place();
    let versions: Vec<u64> = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..6).map(|_| scope.spawn(|| publish(&registry, "flats", 3.5).version)).collect();
        publishers.into_iter().map(|p| p.join().expect("publishes")).collect()
    });
    let mut sorted = versions.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1, 2, 3, 4, 5, 6]);
    assert_eq!(registry.resolve("flats", &Selector::Champion).expect("a champion"), 6);
}

#[test]
fn a_flipped_byte_a_missing_file_and_a_foreign_folder_are_refused_by_name() {
    let (_folder, registry) = place();
    publish(&registry, "flats", 3.5);
    let folder = registry.folder("flats", 1);
    for file in [MANIFEST, MODEL, GOLDEN, SUMS] {
        let path = folder.join(file);
        let bytes = fs::read(&path).expect("a file");
        for at in (0..bytes.len()).step_by(97) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).expect("writes");
            let error = registry.load("flats", &Selector::Champion).expect_err(file).to_string();
            assert!(error.starts_with("version 1 of model 'flats': '"), "{error}");
        }
        fs::remove_file(&path).expect("removes");
        let error = registry.load("flats", &Selector::Version(1)).expect_err(file).to_string();
        assert!(error.contains(&format!("has no {file}")), "{error}");
        fs::write(&path, &bytes).expect("writes");
    }
    registry.load("flats", &Selector::Champion).expect("it is whole again");

    // A version under another's number, a folder that is none, half a version.
    fs::create_dir_all(registry.folder("flats", 3)).expect("a folder");
    fs::copy(folder.join(MODEL), registry.folder("flats", 3).join(MODEL)).expect("copies");
    fs::create_dir_all(registry.root().join("flats/notes")).expect("a folder");
    registry.export("flats", &Selector::Version(1), &registry.root().join("x")).expect("exports");
    fs::rename(registry.root().join("x/flats/1"), registry.folder("flats", 2)).expect("moves");
    let broken: Vec<_> = registry.list().expect("lists").into_iter().map(|l| (l.name, l.version, l.broken.unwrap_or_default())).collect();
    let why = |name: &str, version: Option<u64>| &broken.iter().find(|b| b.0 == name && b.1 == version).expect("listed").2;
    assert_eq!(why("flats", Some(1)), "");
    assert!(why("flats", Some(2)).contains("is of version 1 of model 'flats'"), "{broken:?}");
    assert!(why("flats", Some(3)).contains("has no SHA256SUMS"), "{broken:?}");
    assert_eq!(why("flats", None), "'notes' is no version");
    // The champion is still served, and a new version goes on from the highest number.
    assert_eq!(registry.load("flats", &Selector::Champion).expect("loads").version, 1);
    assert_eq!(publish(&registry, "flats", 3.0).version, 4);
}

#[test]
fn golden_rows_catch_a_coefficient_that_was_changed_with_all_its_sums() {
    let (_folder, registry) = place();
    publish(&registry, "flats", 3.5);
    let model = model();
    let State::Linear(mut state) = model.state().clone() else { panic!("a ridge is linear") };
    state.coefficients[0] = f64::from_bits(state.coefficients[0].to_bits() + 8);
    let changed = Model::new(model.task(), model.algorithm(), model.features().clone(), model.label().cloned(), State::Linear(state));
    let bytes = changed.expect("fits").to_bytes().expect("writes");
    let folder = registry.folder("flats", 1);
    fs::write(folder.join(MODEL), &bytes).expect("writes");
    let sums = || [GOLDEN, MANIFEST, MODEL].map(|f| (hash_file(&folder.join(f)).expect("hashes").0, f));
    let write_sums = || {
        let text = publish::sums(sums().iter().map(|(sum, f)| (*f, sum.as_str())));
        fs::write(folder.join(SUMS), text).expect("writes");
    };
    write_sums();
    let error = registry.load("flats", &Selector::Champion).expect_err("changed").to_string();
    assert!(error.contains("is not the file that manifest.json names"), "{error}");
    let manifest = fs::read_to_string(folder.join(MANIFEST)).expect("a manifest");
    let mut manifest: Manifest = serde_json::from_str(&manifest).expect("reads");
    let (sha256, size) = hash_file(&folder.join(MODEL)).expect("hashes");
    manifest.files.insert(MODEL.to_string(), FileEntry { bytes: size, sha256 });
    fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest).expect("writes")).expect("writes");
    write_sums();
    let error = registry.load("flats", &Selector::Champion).expect_err("changed").to_string();
    assert!(error.contains("golden row") && error.contains("does not give its 'prediction' again"), "{error}");
}

#[test]
fn aliases_move_roll_back_and_are_watched() {
    let (_folder, registry) = place();
    let mut watch = registry.watch("flats", Selector::Champion, None);
    assert!(watch.poll().expect_err("nothing there").to_string().contains("there is no model 'flats'"));
    publish(&registry, "flats", 3.5);
    assert_eq!(watch.poll().expect("polls"), Some(Change { from: None, to: 1 }));
    assert_eq!(watch.poll().expect("polls"), None);
    publish(&registry, "flats", 3.4);
    publish(&registry, "flats", 3.3);
    assert_eq!(watch.poll().expect("polls"), Some(Change { from: Some(1), to: 3 }));
    assert_eq!(registry.rollback("flats").expect("rolls back"), (3, 2));
    assert_eq!(watch.poll().expect("polls"), Some(Change { from: Some(3), to: 2 }));
    assert_eq!(registry.rollback("flats").expect("rolls back"), (2, 1));
    assert!(registry.rollback("flats").expect_err("the first").to_string().contains("none before it"));
    assert_eq!(registry.set_alias("flats", "challenger", &Selector::Version(3)).expect("sets"), 3);
    let selector = Selector::parse("challenger").expect("parses");
    assert_eq!(registry.load("flats", &selector).expect("loads").version, 3);
    let typo = registry.resolve("flats", &Selector::Alias("chalenger".into())).expect_err("typo").to_string();
    assert!(typo.ends_with("did you mean 'challenger'?"), "{typo}");
    registry.remove_alias("flats", "challenger").expect("removes");
    assert!(registry.resolve("flats", &selector).is_err());
    assert!(registry.set_alias("flats", "7", &Selector::Version(3)).is_err(), "a number is a version");
    assert!(registry.resolve("flats", &Selector::Version(9)).expect_err("none").to_string().contains("its newest is 3"));
    assert!(registry.resolve("../flats", &Selector::Champion).is_err());
}

#[test]
fn a_gate_keeps_the_champion_and_a_comparison_shows_why() {
    let (_folder, registry) = place();
    let gate = Gate::parse("rmse <= champion + 0.1", &["rmse"]).expect("parses");
    assert!(at(&registry, "flats", 3.5, Some(&gate), None).expect("publishes").champion, "a first model passes");
    let second = at(&registry, "flats", 3.7, Some(&gate), None).expect("publishes");
    assert_eq!((second.version, second.champion), (2, false));
    assert_eq!(second.verdict.expect("a verdict").terms, ["rmse 3.7 <= champion (3.5) + 0.1: no"]);
    assert_eq!(registry.resolve("flats", &Selector::Champion).expect("resolves"), 1);
    let compared = registry.compare("flats", &Selector::Version(1), &Selector::Version(2)).expect("compares");
    assert_eq!(compared.metrics, [("rmse".to_string(), [Some(3.5), Some(3.7)]), ("roc_auc".to_string(), [None, None])]);
    assert_eq!(compared.differences, []);

    let elsewhere = registry.root().with_file_name("exported");
    registry.export("flats", &Selector::Version(2), &elsewhere).expect("exports");
    assert_eq!(Registry::new(&elsewhere).load("flats", &Selector::Champion).expect("loads").version, 2);
}
