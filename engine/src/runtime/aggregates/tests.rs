//! Every state against plain references, over shuffles and splits of the rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array,
    StringArray, UInt32Array,
};
use arrow::compute;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use arrow::util::display::array_value_to_string;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::sql::aggregate_types::result_type;
use crate::stream::SqlType;

use AggregateFunction::{Avg, Count, Max, Min, Sum};

const GROUPS: usize = 5;

fn state_of(function: AggregateFunction, distinct: bool, argument: &DataType) -> Box<dyn GroupedState> {
    let output = result_type(function, &SqlType::of_arrow(argument)).expect("a type that it takes").arrow();
    let call = AggregateCall { function, distinct, argument: Some(0), argument_type: argument.clone(), filter: None, output_type: output };
    grouped_state(&call).expect("a state")
}

/// The results of all rows as one group, as text.
fn check(function: AggregateFunction, distinct: bool, column: impl arrow::array::Array + 'static, expected: &str) {
    let column: ArrayRef = Arc::new(column);
    let mut state = state_of(function, distinct, column.data_type());
    state.resize(1);
    state.update(&vec![0; column.len()], Some(&column), None).expect("update");
    let result = state.evaluate(0..1).expect("evaluate");
    let found = if result.is_null(0) { "NULL".into() } else { array_value_to_string(&result, 0).expect("text") };
    assert_eq!(found, expected, "{function:?} distinct={distinct} {column:?}");
}

fn decimals(values: Vec<Option<i128>>) -> Decimal128Array {
    Decimal128Array::from(values).with_precision_and_scale(38, 2).expect("fits")
}

#[test]
fn values_are_those_of_flink() {
    check(Sum, false, Int8Array::from(vec![100, 100, -1]), "-57");
    check(Avg, false, Int8Array::from(vec![100, 100, -1]), "66");
    check(Avg, false, Int8Array::from(vec![-100, -1, -1]), "-34");
    check(Avg, false, Int32Array::from(vec![i32::MAX, i32::MAX]), "2147483647");
    check(Sum, false, Int32Array::from(vec![i32::MAX, 1]), "-2147483648");
    check(Sum, false, Int64Array::from(vec![i64::MAX, 1]), "-9223372036854775808");
    check(Sum, false, Int64Array::from(vec![None, None]), "NULL");
    check(Count, false, Int64Array::from(vec![None, Some(3)]), "1");
    check(Avg, false, decimals(vec![Some(100), Some(101), Some(101)]), "1.006667");
    check(Avg, false, decimals(vec![Some(-100), Some(-101), Some(-101)]), "-1.006667");
    check(Avg, false, decimals(vec![Some(100), None, Some(0), Some(0)]), "0.333333");
    check(Min, false, Float64Array::from(vec![3.0, f64::NAN, 1.0]), "1.0");
    check(Max, false, Float64Array::from(vec![f64::NAN, 3.0, f64::NAN, f64::NEG_INFINITY]), "3.0");
    check(Max, false, Float64Array::from(vec![f64::NAN, f64::NAN]), "NaN");
    check(Min, false, Float64Array::from(vec![0.0, -0.0]), "-0.0");
    check(Sum, false, Float64Array::from(vec![f64::NAN, 1.0]), "NaN");
    check(Avg, false, Float32Array::from(vec![1.0, 2.0]), "1.5");
    check(Min, false, BooleanArray::from(vec![true, false]), "false");
    check(Max, false, BooleanArray::from(vec![None, Some(false)]), "false");
    check(Max, false, StringArray::from(vec!["a", "é", "z"]), "é");
    check(Min, false, StringArray::from(vec![Some("b"), None, Some("")]), "");
    check(Max, false, Date32Array::from(vec![0, 1]), "1970-01-02");
    check(Count, true, Float64Array::from(vec![Some(0.0), Some(-0.0), Some(f64::NAN), Some(f64::NAN), None]), "2");
    check(Sum, true, decimals(vec![Some(100), Some(101), Some(101)]), "2.01");
    check(Avg, true, Int32Array::from(vec![1, 1, 1, 4]), "2");
    check(Max, true, Int32Array::from(vec![1, 1, 4]), "4");
}

#[test]
fn a_decimal_sum_is_null_only_where_the_whole_does_not_fit() {
    let nines = 10i128.pow(38) - 1;
    check(Sum, false, decimals(vec![Some(nines), Some(1)]), "NULL");
    check(Avg, false, decimals(vec![Some(nines), Some(1)]), "NULL");
    check(Sum, false, decimals(vec![Some(nines), Some(nines), Some(-nines), Some(-1)]), "999999999999999999999999999999999999.98");
    check(Sum, false, decimals(vec![Some(-nines); 1000]), "NULL");
}

/// Makes a column of as many rows.
type RandomColumn = dyn Fn(&mut ChaCha8Rng, usize) -> ArrayRef;

/// Rows of one shuffled run.
struct Rows {
    groups: Vec<u32>,
    column: ArrayRef,
    keep: BooleanArray,
}

impl Rows {
    fn random(rng: &mut ChaCha8Rng, column: &RandomColumn) -> Self {
        let n = 400;
        // The last group never gets a row.
        let groups = (0..n).map(|_| rng.random_range(0..GROUPS as u32 - 1)).collect();
        let keep = (0..n).map(|_| [Some(true), Some(true), Some(false), None][rng.random_range(0..4)]).collect();
        Self { groups, column: column(rng, n), keep }
    }

    fn take(&self, rows: &[u32]) -> Self {
        let rows = UInt32Array::from(rows.to_vec());
        Self {
            groups: rows.values().iter().map(|r| self.groups[*r as usize]).collect(),
            column: compute::take(&self.column, &rows, None).expect("take"),
            keep: compute::take(&self.keep, &rows, None).expect("take").as_boolean().clone(),
        }
    }

    fn update(&self, state: &mut dyn GroupedState) {
        state.update(&self.groups, Some(&self.column), Some(&self.keep)).expect("update");
    }
}

/// Random columns of every type that something is computed over.
fn columns() -> Vec<Box<RandomColumn>> {
    fn some<T>(rng: &mut ChaCha8Rng, v: T) -> Option<T> {
        rng.random_bool(0.9).then_some(v)
    }
    vec![
        Box::new(|rng, n| {
            Arc::new(
                (0..n)
                    .map(|_| {
                        let v = rng.random();
                        some(rng, v)
                    })
                    .collect::<Int8Array>(),
            )
        }),
        Box::new(|rng, n| {
            Arc::new(
                (0..n)
                    .map(|_| {
                        let v = rng.random_range(-30..30);
                        some(rng, v)
                    })
                    .collect::<Int64Array>(),
            )
        }),
        Box::new(|rng, n| {
            Arc::new(decimals(
                (0..n)
                    .map(|_| {
                        let v = rng.random_range(-99..10i128.pow(38));
                        some(rng, v)
                    })
                    .collect(),
            ))
        }),
        Box::new(|rng, n| {
            let value = |rng: &mut ChaCha8Rng| rng.random_range(-1.0..1.0) * 10f64.powi(rng.random_range(-200..200));
            Arc::new(
                (0..n)
                    .map(|_| {
                        let v = value(rng);
                        some(rng, v)
                    })
                    .collect::<Float64Array>(),
            )
        }),
        Box::new(|rng, n| {
            Arc::new(
                (0..n)
                    .map(|_| {
                        let v = rng.random_range(0..50) as f64 / 10.0;
                        some(rng, v)
                    })
                    .collect::<Float64Array>(),
            )
        }),
        Box::new(|rng, n| {
            let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -0.0, 0.0, 1.0];
            Arc::new(
                (0..n)
                    .map(|_| {
                        let v = special[rng.random_range(0..7)];
                        some(rng, v)
                    })
                    .collect::<Float64Array>(),
            )
        }),
        Box::new(|rng, n| {
            Arc::new(
                (0..n)
                    .map(|_| {
                        let v = format!("s{}", rng.random_range(0..40));
                        some(rng, v)
                    })
                    .collect::<StringArray>(),
            )
        }),
        Box::new(|rng, n| {
            Arc::new(
                (0..n)
                    .map(|_| {
                        let v = rng.random();
                        some(rng, v)
                    })
                    .collect::<BooleanArray>(),
            )
        }),
    ]
}

/// Bit for bit: equal arrays, where −0 is not 0 and a NaN is itself.
fn assert_same(a: &ArrayRef, b: &ArrayRef, what: &str) {
    match (a.as_primitive_opt::<Float64Type>(), b.as_primitive_opt::<Float64Type>()) {
        (Some(a), Some(b)) => {
            let bits = |x: &Float64Array| x.iter().map(|v| v.map(f64::to_bits)).collect::<Vec<_>>();
            assert_eq!(bits(a), bits(b), "{what}");
        }
        _ => assert_eq!(a, b, "{what}"),
    }
}

#[test]
fn neither_order_nor_batches_nor_merging_show() {
    let mut rng = ChaCha8Rng::seed_from_u64(2026);
    for column in columns() {
        let rows = Rows::random(&mut rng, &*column);
        let data_type = rows.column.data_type().clone();
        for (function, distinct) in [Count, Sum, Avg, Min, Max].into_iter().flat_map(|f| [(f, false), (f, true)]) {
            if result_type(function, &SqlType::of_arrow(&data_type)).is_err() {
                continue;
            }
            let new = || {
                let mut state = state_of(function, distinct, &data_type);
                state.resize(GROUPS);
                state
            };
            let what = format!("{function:?} distinct={distinct} {data_type}");
            let mut whole = new();
            rows.update(&mut *whole);
            let expected = whole.evaluate(0..GROUPS).expect("evaluate");
            let reverse: Vec<u32> = (0..GROUPS as u32).rev().collect();
            let chosen = compute::take(&expected, &UInt32Array::from(reverse.clone()), None).expect("take");
            assert_same(&chosen, &whole.evaluate_at(&reverse).expect("evaluate"), &what);

            for _ in 0..3 {
                let mut order: Vec<u32> = (0..rows.groups.len() as u32).collect();
                order.shuffle(&mut rng);
                // Two workers pre-aggregate pieces, and flush each piece; the owner merges them as they come.
                let mut owner = new();
                let mut part = new();
                let mut rest = &order[..];
                while !rest.is_empty() {
                    let (piece, later) = rest.split_at(rng.random_range(1..=rest.len()));
                    rest = later;
                    rows.take(piece).update(&mut *part);
                    if rng.random_bool(0.3) {
                        rows.take(&[]).update(&mut *part);
                        continue;
                    }
                    flush(&mut *part, &mut *owner);
                }
                flush(&mut *part, &mut *owner);
                assert_same(&expected, &owner.evaluate(0..GROUPS).expect("evaluate"), &what);
                // A checkpoint and its return.
                let mut back = new();
                flush(&mut *owner, &mut *back);
                assert_same(&expected, &back.evaluate(0..GROUPS).expect("evaluate"), &what);
            }
        }
    }
}

/// Moves all groups, in two ranges, and empties the giver.
fn flush(from: &mut dyn GroupedState, to: &mut dyn GroupedState) {
    for range in [0..2, 2..GROUPS] {
        let groups: Vec<u32> = range.clone().map(|g| g as u32).collect();
        let state = from.state(range).expect("state");
        for (column, field) in state.iter().zip(from.state_fields()) {
            assert_eq!(column.data_type(), field.data_type());
            assert!(field.is_nullable() || column.null_count() == 0);
        }
        to.merge(&groups, &state).expect("merge");
    }
    from.clear();
    from.resize(GROUPS);
}

#[test]
fn rows_taken_back_were_never_there() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for column in columns() {
        let rows = Rows::random(&mut rng, &*column);
        let data_type = rows.column.data_type().clone();
        for (function, distinct) in [Count, Sum, Avg].into_iter().flat_map(|f| [(f, false), (f, true)]) {
            if result_type(function, &SqlType::of_arrow(&data_type)).is_err() {
                continue;
            }
            let (stay, go): (Vec<u32>, Vec<u32>) = (0..rows.groups.len() as u32).partition(|r| r % 3 == 0);
            let (stay, go) = (rows.take(&stay), rows.take(&go));
            let [mut expected, mut state] = [0, 1].map(|_| state_of(function, distinct, &data_type));
            expected.resize(GROUPS);
            state.resize(GROUPS);
            stay.update(&mut *expected);
            go.update(&mut *state);
            stay.update(&mut *state);
            state.retract(&go.groups, Some(&go.column), Some(&go.keep)).expect("retract");
            let [expected, found] = [expected, state].map(|s| s.evaluate(0..GROUPS).expect("evaluate"));
            assert_same(&expected, &found, &format!("{function:?} distinct={distinct} {data_type}"));
        }
    }
}

#[test]
fn sums_agree_with_integers() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let values: Vec<i64> = (0..1000).map(|_| rng.random::<i64>() >> 8).collect();
    let sum: i128 = values.iter().map(|v| i128::from(*v)).sum();
    let groups = vec![0; values.len()];
    let result = |column: ArrayRef| {
        let mut state = state_of(Sum, false, column.data_type());
        state.resize(1);
        state.update(&groups, Some(&column), None).expect("update");
        state.evaluate(0..1).expect("evaluate")
    };
    let decimal = result(Arc::new(decimals(values.iter().map(|v| Some(i128::from(*v))).collect())));
    assert_eq!(decimal.as_primitive::<Decimal128Type>().value(0), sum);
    let integer = result(Arc::new(Int64Array::from(values.clone())));
    assert_eq!(integer.as_primitive::<Int64Type>().value(0), sum as i64);
    // As doubles the values are rounded one by one, then their exact sum once.
    let rounded: i128 = values.iter().map(|v| *v as f64 as i128).sum();
    let double = result(Arc::new(Float64Array::from_iter_values(values.iter().map(|v| *v as f64))));
    assert_eq!(double.as_primitive::<Float64Type>().value(0), rounded as f64);
}

#[test]
fn count_star_counts_rows_that_the_filter_keeps() {
    let call = AggregateCall {
        function: Count,
        distinct: false,
        argument: None,
        argument_type: DataType::Null,
        filter: Some(0),
        output_type: DataType::Int64,
    };
    let mut state = grouped_state(&call).expect("a state");
    state.resize(2);
    let keep = BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]);
    state.update(&[0, 0, 1, 0], None, Some(&keep)).expect("update");
    state.update(&[1], None, None).expect("update");
    assert_eq!(state.evaluate(0..2).expect("evaluate").as_primitive::<Int64Type>().values(), &[2, 1]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let mut state = state_of(Sum, false, &DataType::Int64);
    state.resize(1);
    let wrong: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let long: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    for refused in [Some(&wrong), Some(&long), None] {
        assert!(state.update(&[0], refused, None).is_err());
    }
    assert!(state.merge(&[0], &[long]).is_err());
    let mut min = state_of(Min, false, &DataType::Int32);
    min.resize(1);
    assert!(min.retract(&[0], Some(&wrong), None).is_err());
}
