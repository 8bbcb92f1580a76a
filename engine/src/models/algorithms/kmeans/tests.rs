//! k-means against what can be worked out by hand.

use std::collections::BTreeMap;

use ndarray::{Array2, s};

use super::*;
use crate::models::algorithms::tests::{chunks_of, context};

fn options(clusters: usize) -> KMeansOptions {
    KMeansOptions { clusters, starts: 4, max_iterations: 300, tolerance: 1e-4, batch_rows: None, column_weights: vec![] }
}

/// Groups around (0,0,0), (10,10,10), … of equal size, in turn.
fn groups(n: usize, of: usize) -> Array2<f64> {
    Array2::from_shape_fn((n, 3), |(i, j)| 10.0 * (i % of) as f64 + ((i * 37 + j * 11) as f64).sin())
}

fn clusters(scores: Scores) -> (Vec<i32>, Array2<f64>) {
    let Scores::Clusters { cluster, distances } = scores else { panic!("clustering answers clusters") };
    (cluster, distances)
}

#[test]
fn plain_groups_are_found_by_rounds_and_by_batches_and_counted() {
    let x = groups(40_000, 5);
    for batch_rows in [None, Some(512)] {
        let state = fit(&chunks_of(&x, &[], &[]), &KMeansOptions { batch_rows, ..options(5) }, &context(2)).expect("fits");
        state.check(3).expect("sound");
        assert_eq!(state.counts, vec![8000.0; 5], "{batch_rows:?}");
        let (cluster, distances) = clusters(state.score(x.view()));
        assert!((0..x.nrows()).all(|i| cluster[i] == cluster[i % 5]));
        let inertia: f64 = (0..x.nrows()).map(|i| distances[[i, cluster[i] as usize]].powi(2)).sum();
        assert!((inertia / state.inertia - 1.0).abs() < 1e-9, "{inertia} {}", state.inertia);
    }
}

#[test]
fn at_the_end_each_centre_is_the_mean_of_its_rows() {
    let x = Array2::from_shape_fn((9000, 2), |(i, j)| ((i * 7919 + j * 104_729) as f64 * 0.618_033_988).fract());
    let w: Vec<f64> = (0..9000).map(|i| 1.0 + (i % 3) as f64).collect();
    let state = fit(&chunks_of(&x, &[], &w), &KMeansOptions { tolerance: 0.0, ..options(7) }, &context(1)).expect("fits");
    let (cluster, _) = clusters(state.score(x.view()));
    for k in 0..7 {
        let of: Vec<usize> = (0..9000).filter(|i| cluster[*i] == k as i32).collect();
        let weight: f64 = of.iter().map(|i| w[*i]).sum();
        assert_eq!(weight, state.counts[k]);
        for j in 0..2 {
            let mean = of.iter().map(|i| w[*i] * x[[*i, j]]).sum::<f64>() / weight;
            assert!((mean - state.centres[k * 2 + j]).abs() < 1e-12);
        }
    }
}

#[test]
fn threads_do_not_show_and_a_row_alone_has_the_batch_bits() {
    // More rows than the starts' sample, so that both stages run.
    let x = Array2::from_shape_fn((30_000, 3), |(i, j)| ((i * 7919 + j * 104_729) as f64 * 0.618_033_988).fract());
    let chunks = chunks_of(&x, &[], &[]);
    for batch_rows in [None, Some(256)] {
        let options = KMeansOptions { batch_rows, max_iterations: 20, ..options(6) };
        let one = fit(&chunks, &options, &context(1)).expect("fits");
        for threads in [2, 7] {
            assert_eq!(fit(&chunks, &options, &context(threads)).expect("fits"), one);
        }
        let (cluster, distances) = clusters(one.score(x.view()));
        let (alone, its_distances) = clusters(one.score(x.slice(s![29_999.., ..])));
        assert_eq!((alone[0], its_distances.row(0)), (cluster[29_999], distances.row(29_999)));
    }
}

#[test]
fn a_column_of_weight_0_has_no_say() {
    let mut x = groups(3000, 3);
    x.column_mut(2).iter_mut().enumerate().for_each(|(i, v)| *v = 1e3 * ((i / 3) as f64).sin());
    let options = KMeansOptions { column_weights: vec![1.0, 1.0, 0.0], ..options(3) };
    let state = fit(&chunks_of(&x, &[], &[]), &options, &context(1)).expect("fits");
    assert_eq!(state.counts, vec![1000.0; 3]);
}

#[test]
fn a_centre_without_rows_moves_and_equal_rows_do_not_hang() {
    // One start among rows that are nearly all equal: centres must find the few others.
    let x = Array2::from_shape_fn((5000, 1), |(i, _)| if i % 1000 == 7 { 100.0 + i as f64 } else { 1.0 });
    let state = fit(&chunks_of(&x, &[], &[]), &options(6), &context(1)).expect("fits");
    assert_eq!(state.inertia, 0.0, "{state:?}");
    let same = fit(&chunks_of(&Array2::ones((50, 2)), &[], &[]), &options(3), &context(1)).expect("fits");
    assert_eq!((same.counts.iter().sum::<f64>(), same.inertia), (50.0, 0.0));
    let same = KMeansOptions { batch_rows: Some(10), ..options(3) };
    assert_eq!(fit(&chunks_of(&Array2::ones((50, 2)), &[], &[]), &same, &context(1)).expect("fits").inertia, 0.0);
}

#[test]
fn what_cannot_be_fitted_or_scored_is_an_error() {
    let few = fit(&chunks_of(&Array2::ones((3, 2)), &[], &[]), &options(4), &context(1)).expect_err("too few");
    assert!(few.message().contains("4 clusters cannot be made of 3 rows"), "{few}");
    let none = fit(&chunks_of(&Array2::ones((0, 2)), &[], &[]), &options(4), &context(1)).expect_err("no rows");
    assert!(none.message().contains("no rows"), "{none}");
    let nan = fit(&chunks_of(&Array2::from_elem((9, 2), f64::NAN), &[], &[]), &options(4), &context(1)).expect_err("NaN");
    assert!(nan.message().contains("not finite"), "{nan}");
    let mut options = Options::new("model 'm'", BTreeMap::from([("clusters".to_string(), "0".to_string())]));
    assert!(KMeansOptions::from_options(false, &mut options).expect_err("zero").message().contains("'clusters' is '0'"));
    let state = KMeansState { centres: vec![0.0; 3], counts: vec![1.0; 2], inertia: 0.0, column_weights: vec![] };
    assert!(state.check(2).is_err());
}
