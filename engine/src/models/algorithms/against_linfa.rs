//! The algorithms beside linfa's on the same rows: an independent reference that needs nothing but `cargo test`.
//!
//! docs/decisions/0004 says why the algorithms themselves are ours.

use linfa::DatasetBase;
use linfa::prelude::*;
use linfa_bayes::GaussianNb;
use linfa_clustering::{Dbscan, KMeans};
use linfa_linear::LinearRegression;
use ndarray::{Array1, Array2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::tests::{chunks_of, context};
use super::{Scores, bayes, dbscan, kmeans, linear};

const ROWS: usize = 3000;

/// Three clouds in four columns, and the cloud of each row.
fn clouds() -> (Array2<f64>, Vec<usize>) {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let cloud: Vec<usize> = (0..ROWS).map(|_| random.random_range(0..3)).collect();
    let x = Array2::from_shape_fn((ROWS, 4), |(i, j)| {
        let noise: f64 = (0..6).map(|_| random.random_range(-0.5..0.5)).sum();
        (cloud[i] * (j + 1)) as f64 * 1.5 + noise
    });
    (x, cloud)
}

#[test]
fn least_squares_are_those_of_linfa() {
    let (x, cloud) = clouds();
    let y: Vec<f64> = (0..ROWS).map(|i| 3.0 * x[(i, 0)] - x[(i, 1)] + 0.5 * x[(i, 3)] + (i % 7) as f64 * 0.1 + cloud[i] as f64).collect();
    let ours = linear::fit(&chunks_of(&x, &y, &[]), &linear::LinearOptions::LeastSquares, &context(2)).expect("fits");
    let theirs = LinearRegression::new().fit(&DatasetBase::new(x, Array1::from(y))).expect("fits");
    assert!((ours.intercept - theirs.intercept()).abs() < 1e-9, "{} {}", ours.intercept, theirs.intercept());
    for (a, b) in ours.coefficients.iter().zip(theirs.params()) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }
}

#[test]
fn naive_bayes_predicts_what_linfa_predicts() {
    let (x, cloud) = clouds();
    let y: Vec<f64> = cloud.iter().map(|c| *c as f64).collect();
    let ours = bayes::fit(&chunks_of(&x, &y, &[]), 3, &bayes::BayesOptions { smoothing: 1e-9 }, &context(2)).expect("fits");
    let Scores::Probabilities(ours) = ours.score(x.view()) else { panic!("classes") };
    let theirs = GaussianNb::params().fit(&DatasetBase::new(x.view(), Array1::from(cloud))).expect("fits").predict(&x);
    let most = |row: ndarray::ArrayView1<'_, f64>| (0..3).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("three");
    let same = ours.rows().into_iter().zip(&theirs).filter(|(row, class)| most(*row) == **class).count();
    assert_eq!(same, ROWS);
}

#[test]
fn kmeans_is_no_worse_than_linfa() {
    let (x, _) = clouds();
    let options =
        kmeans::KMeansOptions { clusters: 3, starts: 10, max_iterations: 300, tolerance: 1e-4, batch_rows: None, column_weights: vec![] };
    let ours = kmeans::fit(&chunks_of(&x, &[], &[]), &options, &context(2)).expect("fits");
    let theirs = KMeans::params(3).n_runs(10).fit(&DatasetBase::from(x.clone())).expect("fits");
    // Theirs is the mean squared distance.
    assert!(ours.inertia <= theirs.inertia() * ROWS as f64 * 1.001, "{} {}", ours.inertia, theirs.inertia() * ROWS as f64);
}

#[test]
fn dbscan_finds_the_cores_and_the_noise_that_linfa_finds() {
    let (x, _) = clouds();
    let ours = dbscan::cluster(&chunks_of(&x, &[], &[]), &dbscan::DbscanOptions { eps: 0.6, min_points: 5 }, &context(2)).expect("labels");
    let theirs = Dbscan::params(5).tolerance(0.6).transform(&x).expect("labels");
    let noise = ours.iter().filter(|label| **label < 0).count();
    assert!(noise > 0 && noise < ROWS / 2, "{noise} rows are noise: nothing is shown");
    let same = ours.iter().zip(&theirs).filter(|(a, b)| (**a < 0) == b.is_none()).count();
    assert_eq!(same, ROWS);
    let clusters = |labels: Vec<i64>| labels.into_iter().filter(|l| *l >= 0).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(
        clusters(ours.iter().map(|l| i64::from(*l)).collect()),
        clusters(theirs.iter().map(|l| l.map_or(-1, |l| l as i64)).collect())
    );
}
