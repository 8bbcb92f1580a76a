//! What features promise: order does not show, a row alone is the row in a batch, every refusal names its field.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::array::{TimestampMillisecondArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::config::Options;

const HOUR_MS: i64 = 3_600_000;

fn options(given: &[(&str, &str)]) -> Options {
    Options::new("model 'm'", given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>())
}

/// Sixty rows of each kind of column; `age` has nulls, `code` has −1 for missing, `price` and `kind` have neither.
fn rows() -> RecordBatch {
    let n = 60;
    let kinds = ["red", "green", "blue", "teal"];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("price", Arc::new((0..n).map(|i| Some(f64::from(i * 37 % 61) * 0.1)).collect::<Float64Array>())),
        ("age", Arc::new((0..n).map(|i| (i % 5 != 0).then_some(i * 7)).collect::<Int32Array>())),
        ("code", Arc::new((0..n).map(|i| Some(if i % 6 == 0 { -1 } else { i % 4 })).collect::<Int32Array>())),
        (
            "fee",
            Arc::new((0..n).map(|i| Some(i128::from(i) * 5)).collect::<Decimal128Array>().with_precision_and_scale(9, 2).expect("fits")),
        ),
        ("kind", Arc::new((0..n).map(|i| Some(kinds[(i % 10).min(3) as usize])).collect::<StringArray>())),
        ("open", Arc::new((0..n).map(|i| Some(i % 3 == 0)).collect::<BooleanArray>())),
        ("ts", Arc::new((0..n).map(|i| Some(1_731_146_700_000 + i64::from(i) * 5 * HOUR_MS)).collect::<TimestampMillisecondArray>())),
        ("day", Arc::new((0..n).map(|i| (i % 9 != 0).then_some(20_000 + i)).collect::<Date32Array>())),
    ];
    let nullable = ["age", "day"];
    let fields: Vec<Field> = columns.iter().map(|(name, a)| Field::new(*name, a.data_type().clone(), nullable.contains(name))).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, a)| a).collect()).expect("fits")
}

fn spec(given: &[(&str, &str)], tree: bool) -> Result<FeatureSpec> {
    let rows = rows();
    let mut options = options(given);
    let mut observer = Observer::new(&rows.schema(), &[], &mut options)?;
    options.finish()?;
    observer.observe(&rows)?;
    observer.freeze(tree)
}

fn bits(x: &Array2<f64>) -> Vec<u64> {
    x.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn one_row_has_the_bits_it_has_in_a_batch() {
    for tree in [false, true] {
        let given = [("features.code", "categorical"), ("features.code.missing", "-1"), ("features.kind.encoding", "hash")];
        let spec = spec(&given, tree).expect("freezes");
        let rows = rows();
        let all = spec.encode(&rows).expect("encodes");
        assert_eq!(all.refused, []);
        assert_eq!(all.x.ncols(), spec.names().len());
        for i in 0..rows.num_rows() {
            let one = spec.encode(&rows.slice(i, 1)).expect("encodes");
            assert_eq!(bits(&one.x), all.x.row(i).iter().map(|v| v.to_bits()).collect::<Vec<_>>(), "row {i}");
        }
        assert!(all.x.iter().all(|v| tree || v.is_finite()));
        let back: FeatureSpec = serde_json::from_str(&serde_json::to_string(&spec).expect("json")).expect("json");
        assert_eq!(back, spec);
    }
}

#[test]
fn observers_merge_in_any_order_to_the_same_spec() {
    let rows = rows();
    let given = [("features.age.impute", "median"), ("max_categories", "2")];
    let observer = |from: usize, n: usize| {
        let mut observer = Observer::new(&rows.schema(), &[], &mut options(&given)).expect("plans");
        observer.observe(&rows.slice(from, n)).expect("observes");
        observer
    };
    let whole = observer(0, 60).freeze(false).expect("freezes");
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let parts = [observer(0, 7), observer(7, 33), observer(40, 20)];
        let mut merged = parts[order[0]].clone();
        merged.merge(&parts[order[1]]);
        merged.merge(&parts[order[2]]);
        assert_eq!(merged.freeze(false).expect("freezes"), whole);
    }
}

#[test]
fn numbers_are_what_scikit_learn_makes_of_them() {
    let spec = spec(&[("features.age.scale", "minmax"), ("features.code.missing", "-1")], false).expect("freezes");
    let x = spec.encode(&rows()).expect("encodes").x;
    let names = spec.names();
    let column = |name: &str| x.column(names.iter().position(|n| n == name).unwrap_or_else(|| panic!("{name} in {names:?}"))).to_vec();
    // StandardScaler on the same sixty prices; MinMaxScaler (7 … 413) on ages; row 0 has neither age nor code.
    let price = column("price");
    assert!((price.iter().sum::<f64>()).abs() < 1e-12);
    assert!((price.iter().map(|v| v * v).sum::<f64>() / 60.0 - 1.0).abs() < 1e-12);
    let age = column("age");
    assert_eq!((age[1], age[59]), (0.0, 1.0));
    let mean = (0..60).filter(|i| i % 5 != 0).map(|i| f64::from(i * 7)).sum::<f64>() / 48.0;
    assert!((age[0] - (mean - 7.0) / 406.0).abs() < 1e-15);
    assert_eq!(column("code")[0], 0.0, "the mean, scaled");
    assert_eq!(column("kind=green")[..4], [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(names.iter().filter(|n| n.starts_with("kind=")).count(), 4);
    // 10:05 on a Saturday.
    let angle = (10.0 * 3600.0 + 300.0) / 86_400.0 * std::f64::consts::TAU;
    assert!((column("ts.hour.sin")[0] - angle.sin()).abs() < 1e-15 && (column("ts.hour.cos")[0] - angle.cos()).abs() < 1e-15);
    assert!(!names.iter().any(|n| n == "day.hour.sin"), "a date has no hour");
}

#[test]
fn a_tree_gets_numbers_as_they_are_and_nan_for_missing() {
    let spec = spec(&[("features.code.missing", "-1")], true).expect("freezes");
    let x = spec.encode(&rows()).expect("encodes").x;
    let names = spec.names();
    let at = |name: &str, row: usize| x[(row, names.iter().position(|n| n == name).expect("a column"))];
    assert!(at("age", 0).is_nan() && at("code", 0).is_nan() && at("day.month", 0).is_nan());
    assert_eq!((at("age", 1), at("code", 1), at("fee", 3), at("open", 3)), (7.0, 1.0, 0.15, 1.0));
    assert_eq!((at("kind", 0), at("kind", 1)), (2.0, 1.0), "blue, green, red, teal");
    assert_eq!((at("ts.hour", 0), at("ts.weekday", 0), at("ts.year", 0)), (10.0, 5.0, 2024.0));
}

#[test]
fn every_reason_names_its_field() {
    let spec = spec(&[("features.code", "categorical")], false).expect("freezes");
    let rows = rows();
    let with = |field: &str, column: ArrayRef| {
        let at = rows.schema().index_of(field).expect("a field");
        let mut columns = rows.columns().to_vec();
        columns[at] = column;
        let fields: Vec<Field> = rows.schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let mut fields = fields;
        fields[at] = Field::new(field, columns[at].data_type().clone(), true);
        spec.encode(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("fits"))
    };
    let one = |field: &str, column: ArrayRef| {
        let refused = with(field, column).expect("encodes").refused;
        (refused[0].row, refused.len(), refused[0].to_string())
    };
    let nan = Float64Array::from_iter_values((0..60).map(|i| if i == 7 { f64::NAN } else { 1.0 }));
    assert_eq!(one("price", Arc::new(nan)), (7, 1, "field 'price' is not a finite number".into()));
    let null = one("price", new_null_array(&DataType::Float64, 60));
    assert_eq!(null, (0, 60, "field 'price' is null, and the model was trained without nulls there".into()));
    assert_eq!(one("ts", new_null_array(&DataType::Null, 60)).1, 60, "once a row, not once a part");
    let kinds = StringArray::from_iter_values((0..60).map(|i| if i == 59 { "mauve" } else { "red" }));
    let unknown = "field 'kind' is 'mauve', a category that the model was not trained on";
    assert_eq!(one("kind", Arc::new(kinds)), (59, 1, unknown.into()));
    let codes = Int32Array::from_iter_values((0..60).map(|i| i % 5));
    assert!(one("code", Arc::new(codes)).2.contains("'code' is '4'"));
    // Training saw nulls here.
    assert_eq!(with("age", new_null_array(&DataType::Int32, 60)).expect("encodes").refused, []);
    let error = with("kind", Arc::new(Int32Array::from(vec![1; 60]))).expect_err("a number").to_string();
    assert_eq!(error, "field 'kind' is INT, but the model was trained on STRING");
}

#[test]
fn a_schema_that_does_not_fit_is_refused_by_field() {
    let spec = spec(&[], false).expect("freezes");
    let schema = rows().schema();
    assert!(!spec.schema().expect("types").field(4).is_nullable());
    let bind = |change: &dyn Fn(&mut Vec<Field>)| {
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        change(&mut fields);
        spec.bind(&Schema::new(fields)).map_err(|e| e.to_string())
    };
    assert!(bind(&|f| f.reverse()).is_ok(), "by name, in any order");
    assert!(bind(&|f| f[0] = Field::new("price", DataType::Float32, false)).is_ok(), "a number is a number");
    assert_eq!(bind(&|f| f.truncate(7)).expect_err("missing"), "field 'day' is missing");
    let renamed = bind(&|f| f[4] = Field::new("kinds", DataType::Utf8, false)).expect_err("missing");
    assert_eq!(renamed, "field 'kind' is missing; there is 'kinds'");
    let extra = bind(&|f| f.push(Field::new("prices", DataType::Utf8, false))).expect_err("extra");
    assert_eq!(extra, "the model has no field 'prices'; it has 'price'");
    let time = bind(&|f| f[6] = Field::new("ts", DataType::Date32, false)).expect_err("no timestamp");
    assert_eq!(time, "field 'ts' is DATE, but the model was trained on TIMESTAMP(3)");
}

#[test]
fn options_are_held_to_their_names_and_values() {
    let error = |given: &[(&str, &str)]| spec(given, false).expect_err("refused").to_string();
    assert!(error(&[("features.price.imput", "mean")]).ends_with("did you mean 'features.price.impute'?"));
    assert!(error(&[("features.prize", "skip")]).ends_with("did you mean 'features.price'?"));
    assert!(error(&[("features.kind", "numeric")]).contains("field 'kind' of type STRING cannot be numeric"));
    assert!(error(&[("features.price.fill", "3")]).contains("go together"));
    assert!(error(&[("features.day.parts", "hour")]).contains("field 'day': a DATE has no part 'hour'"));
    assert!(error(&[("max_categories", "2"), ("features.kind.unknown", "error")]).contains("more categories than 'max_categories'"));
    assert!(error(&[("features.code.missing", "none")]).contains("numbers, commas between"));
    let skipped = spec(&[("features.ts", "skip"), ("features.ts.cyclic", "true")], false).expect("skips");
    assert!(skipped.names().iter().all(|n| !n.starts_with("ts")));
}

#[test]
fn rare_and_unknown_categories_go_where_the_policy_says() {
    let kinds: ArrayRef = Arc::new(StringArray::from(vec![Some("teal"), Some("mauve"), None]));
    let batch = RecordBatch::try_from_iter([("kind", kinds)]).expect("fits");
    let encode = |given: &[(&str, &str)], tree: bool| {
        let skip = ["features.price", "features.age", "features.code", "features.fee", "features.open", "features.ts", "features.day"];
        let all: Vec<_> = skip.into_iter().map(|key| (key, "skip")).chain(given.iter().copied()).collect();
        let spec = spec(&all, tree).expect("freezes");
        (spec.names().join(" "), spec.encode(&batch).expect("encodes"))
    };
    let (names, encoded) = encode(&[("max_categories", "2"), ("features.kind.impute", "mode")], false);
    assert_eq!(names, "kind=blue kind=teal kind=(other)", "a tie goes to the lesser");
    assert_eq!(encoded.x, ndarray::arr2(&[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]));
    let (names, encoded) = encode(&[("unknown", "ignore"), ("features.kind.impute", "missing"), ("features.kind.weight", "2")], false);
    assert_eq!(names, "kind=blue kind=green kind=red kind=teal kind=(missing)");
    assert_eq!(encoded.x, ndarray::arr2(&[[0.0, 0.0, 0.0, 2.0, 0.0], [0.0; 5], [0.0, 0.0, 0.0, 0.0, 2.0]]));
    let (_, encoded) = encode(&[("unknown", "other"), ("features.kind.impute", "missing")], true);
    assert_eq!((encoded.x[(0, 0)], encoded.x[(1, 0)]), (3.0, 4.0));
    assert!(encoded.x[(2, 0)].is_nan());
}
