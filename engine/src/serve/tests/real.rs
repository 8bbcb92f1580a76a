//! Models of a real registry: trained, published, asked by every protocol, replaced.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use serde_json::{Value, json};
use velosql_proto::v1::{self, value::Kind};

use super::clients::{self, double};
use super::memory::Running;
use crate::config;
use crate::models::algorithms::{FitContext, Scores};
use crate::models::chunks;
use crate::models::features::Observer;
use crate::models::fit::Recipe;
use crate::models::label::LabelObserver;
use crate::models::model::Model;
use crate::models::registry::{Lineage, Publication, Registry};
use crate::models::task::{Algorithm, Task};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trained_models_answer_the_bits_that_they_score() {
    let directory = tempfile::tempdir().expect("directory");
    let registry = Registry::new(directory.path());
    let rent = trained(Task::Regression, Algorithm::Ridge, &[], 300);
    let cheap = trained(Task::Classification, Algorithm::Logistic, &[], 300);
    let groups = trained(Task::Clustering, Algorithm::KMeans, &[("clusters", "3")], 300);
    for (name, model) in [("rent", &rent), ("cheap", &cheap), ("groups", &groups)] {
        publish(&registry, name, model);
    }
    let server = Running::start_registry(directory.path()).await;
    let (mut typed, _) = server.clients();
    let input = rows(40).project(&[0, 1]).expect("two columns");
    let (size, district) = (input.column(0).as_primitive::<Float64Type>(), input.column(1).as_string::<i32>());
    let objects: Vec<Value> = (0..40).map(|i| json!({ "size": size.value(i), "district": district.value(i) })).collect();

    for (name, model) in [("rent", &rent), ("cheap", &cheap), ("groups", &groups)] {
        let want = model.score(&input).expect("scores").scores;
        let (status, answers) = server.post(&format!("/predict/{name}"), &json!(objects)).await;
        assert_eq!(status, 200, "{answers}");
        for i in 0..40 {
            let features = clients::of_json(&objects[i]);
            let one =
                typed.predict(v1::PredictRequest { model: name.into(), features, selector: None }).await.expect("predicts").into_inner();
            let rest = &answers[i];
            match &want {
                Scores::Values(values) => {
                    assert_eq!(clients::bits(one.prediction), values[i].to_bits());
                    assert_eq!(double(&rest["prediction"]), values[i].to_bits());
                }
                Scores::Probabilities(p) => {
                    for (class, want) in ["false", "true"].iter().zip(p.row(i)) {
                        assert_eq!(one.probabilities[*class].to_bits(), want.to_bits());
                        assert_eq!(double(&rest["probabilities"][class]), want.to_bits());
                    }
                    let want = p[(i, 1)] > p[(i, 0)];
                    assert_eq!((one.prediction.expect("a class").kind, &rest["prediction"]), (Some(Kind::Bool(want)), &json!(want)));
                }
                Scores::Clusters { cluster, distances } => {
                    assert_eq!((one.cluster, &rest["cluster"]), (Some(cluster[i]), &json!(cluster[i])));
                    let want: Vec<u64> = distances.row(i).iter().map(|d| d.to_bits()).collect();
                    assert_eq!(one.distances.iter().map(|d| d.to_bits()).collect::<Vec<_>>(), want);
                    assert_eq!(rest["distances"].as_array().expect("an array").iter().map(double).collect::<Vec<_>>(), want);
                    assert_eq!(double(&rest["distance"]), want[cluster[i] as usize]);
                }
            }
        }
    }

    for (field, value, reason) in
        [("district", json!("east"), "UNKNOWN_CATEGORY"), ("size", json!("NaN"), "NOT_FINITE"), ("size", Value::Null, "NULL_VALUE")]
    {
        let mut row = objects[0].clone();
        row[field] = value;
        let (status, answer) = server.post("/predict/rent", &row).await;
        assert_eq!((status, &answer["reason"], &answer["field"]), (422, &json!(reason), &json!(field)), "{answer}");
    }

    // A damaged version is not taken; the next good one is, and the one before can still be asked.
    fs::create_dir(directory.path().join("rent/2")).expect("a folder that is no version");
    fs::remove_file(directory.path().join("rent/aliases/champion")).ok();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.get_json("/models/rent").await["version"], 1);
    publish(&registry, "rent", &trained(Task::Regression, Algorithm::Linear, &[], 200));
    while server.get_json("/models/rent").await["version"] != 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (_, first) = server.post("/predict/rent?version=1", &objects[0]).await;
    let Scores::Values(want) = rent.score(&input).expect("scores").scores else { panic!("values") };
    assert_eq!((double(&first["prediction"]), &first["version"]), (want[0].to_bits(), &json!(1)));
    assert_eq!(server.post("/predict/rent?version=2", &objects[0]).await.0, 409, "a version that is damaged");
    server.stop().await;
}

impl Running {
    async fn start_registry(path: &Path) -> Self {
        Self::start_source(Registry::new(path), |options| options.poll = Duration::from_millis(5), |app| app).await
    }
}

fn publish(registry: &Registry, name: &str, model: &Model) {
    let publication = Publication {
        name,
        model,
        golden: &rows(20),
        query: None,
        options: &BTreeMap::new(),
        lineage: Lineage::default(),
        metrics: BTreeMap::new(),
        confusion: None,
        seed: 1,
        gate: None,
        now: SystemTime::now(),
    };
    registry.publish(&publication).expect("publishes");
}

/// Flats: rent goes with size and district, `cheap` with rent.
fn rows(n: usize) -> RecordBatch {
    let size: Float64Array = (0..n).map(|i| Some(20.0 + (i * 37 % 101) as f64 / 3.0)).collect();
    let district: StringArray = (0..n).map(|i| Some(["north", "south", "west"][i * 7 % 3])).collect();
    let rent: Float64Array = (0..n).map(|i| Some(200.0 + 9.5 * size.value(i) + (i * 7 % 3) as f64 * 55.0 + (i * 13 % 17) as f64)).collect();
    let cheap: arrow::array::BooleanArray = rent.iter().map(|r| r.map(|r| r < 450.0)).collect();
    let columns: [(&str, ArrayRef, bool); 4] = [
        ("size", Arc::new(size), false),
        ("district", Arc::new(district), false),
        ("rent", Arc::new(rent), false),
        ("cheap", Arc::new(cheap), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).expect("fits")
}

fn trained(task: Task, algorithm: Algorithm, given: &[(&str, &str)], n: usize) -> Model {
    let rows = rows(n);
    let given = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let mut options = config::Options::new("model 'm'", given);
    let recipe = Recipe::from_options(task, algorithm, &mut options).expect("options");
    let mut observer = Observer::new(&rows.schema(), &["rent", "cheap"], &mut options).expect("features");
    observer.observe(&rows).expect("observes");
    let spec = observer.freeze(algorithm.is_tree()).expect("freezes");
    let column = match task {
        Task::Classification => Some("cheap"),
        Task::Regression => Some("rent"),
        Task::Clustering => None,
    };
    let label = column.map(|name| {
        let field = rows.schema().field_with_name(name).expect("a field").clone();
        let mut observer = LabelObserver::new(&field, task, &mut options).expect("a label");
        observer.observe(&rows[name]).expect("observes");
        observer.freeze().expect("freezes")
    });
    let labels = label.as_ref().zip(column).map(|(label, name)| label.encode(&rows[name]).expect("encodes"));
    let (y, w) = labels.map(|l| (l.y, l.w)).unwrap_or_default();
    let mut builder = chunks::Builder::new(spec.width(), label.is_some(), usize::MAX);
    builder.push(&spec.encode(&rows).expect("encodes").x, &y, &w).expect("pushes");
    let ctx = FitContext { threads: 1, seed: 1, progress: &|_| {} };
    let state = recipe.fit(&builder.finish().expect("finishes"), label.as_ref(), &ctx).expect("fits");
    Model::new(task, algorithm, spec, label, state).expect("fits together")
}
