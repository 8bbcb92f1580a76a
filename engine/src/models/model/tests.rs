//! A model scores one row as in a batch, answers with typed columns, and reads back only what it wrote.

use std::collections::BTreeMap;

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::Float64Type;

use super::*;
use crate::config::Options;
use crate::models::algorithms::FitContext;
use crate::models::chunks;
use crate::models::features::Observer;
use crate::models::fit::Recipe;
use crate::models::label::LabelObserver;

/// Flats: rent goes with size and district, `cheap` with rent.
pub(crate) fn rows(n: usize) -> RecordBatch {
    let size: Float64Array = (0..n).map(|i| Some(20.0 + (i * 37 % 101) as f64)).collect();
    let district: StringArray = (0..n).map(|i| Some(["north", "south", "west"][i * 7 % 3])).collect();
    let rent: Float64Array = (0..n).map(|i| Some(200.0 + 9.5 * size.value(i) + (i * 7 % 3) as f64 * 55.0 + (i * 13 % 17) as f64)).collect();
    let cheap: BooleanArray = rent.iter().map(|r| r.map(|r| r < 700.0)).collect();
    let columns: [(&str, ArrayRef, bool); 4] = [
        ("size", Arc::new(size), false),
        ("district", Arc::new(district), false),
        ("rent", Arc::new(rent), false),
        ("cheap", Arc::new(cheap), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).expect("fits")
}

/// A model of the first two columns of [`rows`].
pub(crate) fn trained(task: Task, algorithm: Algorithm, given: &[(&str, &str)], n: usize) -> Model {
    let rows = rows(n);
    let mut options = Options::new("model 'm'", given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>());
    let recipe = Recipe::from_options(task, algorithm, &mut options).expect("options");
    let label = match task {
        Task::Classification => Some("cheap"),
        Task::Regression => Some("rent"),
        Task::Clustering => None,
    };
    let mut observer = Observer::new(&rows.schema(), &["rent", "cheap"], &mut options).expect("features");
    observer.observe(&rows).expect("observes");
    let spec = observer.freeze(algorithm.is_tree()).expect("freezes");
    let column =
        label.map(|name| (rows.schema().field_with_name(name).expect("a field").clone(), rows.column_by_name(name).expect("a column")));
    let label = column.as_ref().map(|(field, column)| {
        let mut observer = LabelObserver::new(field, task, &mut options).expect("a label");
        observer.observe(column).expect("observes");
        observer.freeze().expect("freezes")
    });
    options.finish().expect("all known");
    let mut builder = chunks::Builder::new(spec.width(), label.is_some(), usize::MAX);
    let labels = label.as_ref().zip(column.as_ref()).map(|(label, (_, column))| label.encode(column).expect("encodes"));
    let (y, w) = labels.map(|l| (l.y, l.w)).unwrap_or_default();
    builder.push(&spec.encode(&rows).expect("encodes").x, &y, &w).expect("pushes");
    let chunks = builder.finish().expect("finishes");
    let ctx = FitContext { threads: 1, seed: 1, progress: &|_| {} };
    let state = recipe.fit(&chunks, label.as_ref(), &ctx).expect("fits");
    Model::new(task, algorithm, spec, label, state).expect("fits together")
}

const ALL: [(Task, Algorithm); 11] = [
    (Task::Regression, Algorithm::Linear),
    (Task::Regression, Algorithm::Ridge),
    (Task::Classification, Algorithm::Logistic),
    (Task::Classification, Algorithm::NaiveBayes),
    (Task::Classification, Algorithm::DecisionTree),
    (Task::Regression, Algorithm::DecisionTree),
    (Task::Classification, Algorithm::RandomForest),
    (Task::Classification, Algorithm::Gbdt),
    (Task::Regression, Algorithm::Gbdt),
    (Task::Clustering, Algorithm::KMeans),
    (Task::Clustering, Algorithm::MiniBatchKMeans),
];

#[test]
fn a_row_alone_is_the_row_in_a_batch_and_read_back() {
    let input = rows(64).project(&[0, 1]).expect("two columns");
    for (task, algorithm) in ALL {
        let model = trained(task, algorithm, if task == Task::Clustering { &[("clusters", "3")] } else { &[] }, 500);
        let back = Model::from_bytes(&model.to_bytes().expect("writes")).expect("reads");
        assert_eq!(back, model, "{algorithm}");
        let all = model.score(&input).expect("scores").columns;
        assert_eq!(all.schema(), model.outputs());
        for i in 0..input.num_rows() {
            let one = back.score(&input.slice(i, 1)).expect("scores").columns;
            assert_eq!(one, all.slice(i, 1), "{algorithm}, row {i}");
        }
    }
}

#[test]
fn answers_have_the_labels_type_and_refused_rows_are_null() {
    let model = trained(Task::Classification, Algorithm::Logistic, &[], 500);
    let input: [(&str, ArrayRef); 2] = [
        ("district", Arc::new(StringArray::from(vec!["north", "east", "west"]))),
        ("size", Arc::new(Float64Array::from(vec![21.0, 30.0, f64::INFINITY]))),
    ];
    let scored = model.score(&RecordBatch::try_from_iter(input).expect("fits")).expect("scores");
    let refused: Vec<_> = scored.refused.iter().map(|r| (r.row, r.field.as_str())).collect();
    assert_eq!(refused, [(1, "district"), (2, "size")]);
    assert_eq!(scored.columns.column(0).as_boolean(), &BooleanArray::from(vec![Some(true), None, None]));
    let map = scored.columns.column(1).as_map();
    assert_eq!((map.len(), map.null_count(), map.value_length(0)), (3, 2, 2));
    let first = map.value(0);
    let keys: Vec<_> = first.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(keys, ["false", "true"]);
    let p = first.column(1).as_primitive::<Float64Type>();
    assert!((p.value(0) + p.value(1) - 1.0).abs() < 1e-12 && p.value(1) > 0.5);

    let clusters = trained(Task::Clustering, Algorithm::KMeans, &[("clusters", "3")], 500);
    let names: Vec<_> = clusters.outputs().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["cluster", "distance"]);
    assert!(clusters.inputs().field_with_name("size").is_ok_and(|f| !f.is_nullable()));
}

#[test]
fn a_cut_or_changed_or_newer_or_foreign_file_is_refused() {
    let bytes = trained(Task::Regression, Algorithm::Ridge, &[], 100).to_bytes().expect("writes");
    for at in (0..bytes.len()).step_by(97).chain(0..HEAD) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        Model::from_bytes(&changed).expect_err("a flipped bit");
        Model::from_bytes(&bytes[..at]).expect_err("cut off");
    }
    let mut newer = bytes.clone();
    newer[8] = 2;
    let error = Model::from_bytes(&newer).expect_err("newer").to_string();
    assert!(error.contains("format version 2, and this program knows 1"), "{error}");
    assert!(Model::from_bytes(b"PAR1PAR1PAR1").expect_err("foreign").to_string().contains("no model of VeloSQL"));
    let mut longer = bytes;
    longer.push(0);
    Model::from_bytes(&longer).expect_err("more than a model");
}

#[test]
fn a_state_of_another_width_or_kind_is_refused() {
    let model = trained(Task::Classification, Algorithm::Logistic, &[], 200);
    let regression = trained(Task::Regression, Algorithm::Ridge, &[], 200);
    let with = |state: &State| {
        Model::new(Task::Classification, Algorithm::Logistic, model.features().clone(), model.label().cloned(), state.clone())
    };
    assert!(with(model.state()).is_ok());
    assert!(with(regression.state()).is_err(), "values where probabilities belong");
    let mut narrow = model.features().clone();
    narrow.columns.pop();
    assert!(Model::new(Task::Classification, Algorithm::Logistic, narrow, model.label().cloned(), model.state().clone()).is_err());
}
