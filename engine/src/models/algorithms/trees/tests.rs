//! Trees against what a person can work out by hand, and against each other.

use std::collections::BTreeSet;
use std::sync::Mutex;

use ndarray::Array2;
use rand::Rng;

use super::*;
use crate::models::algorithms::{FitContext, Scores, Step};
use crate::models::chunks::{Builder, Chunks};

fn chunks(x: &Array2<f64>, y: &[f64], w: &[f64]) -> Chunks {
    let mut builder = Builder::new(x.ncols(), true, usize::MAX);
    builder.push(x, y, w).expect("pushes");
    builder.finish().expect("finishes")
}

fn context(threads: usize) -> FitContext<'static> {
    FitContext { threads, seed: 7, progress: &|_| {} }
}

/// Rows of four features (the last one with missing values), a number and a class that hang on them.
fn rows(n: usize, seed: u64) -> (Array2<f64>, Vec<f64>, Vec<f64>) {
    let mut random = draw::stream(seed, 0);
    let x = Array2::from_shape_fn((n, 4), |(_, j)| {
        let x = random.random::<f64>() * 10.0;
        if j == 3 && x < 3.0 { f64::NAN } else { x }
    });
    let number = |x: &[f64]| (x[0] * 0.7).sin() * 5.0 + x[1] * x[2] * 0.1 + if x[3].is_nan() { 4.0 } else { 0.3 * x[3] };
    let numbers: Vec<f64> = x.rows().into_iter().map(|x| number(x.as_slice().expect("a row"))).collect();
    let classes = numbers.iter().map(|y| if *y < 4.0 { 0.0 } else { 1.0 + f64::from(*y > 8.0) }).collect();
    (x, numbers, classes)
}

fn values(scores: Scores) -> Vec<f64> {
    match scores {
        Scores::Values(values) => values,
        Scores::Probabilities(p) => p.into_raw_vec_and_offset().0,
        Scores::Clusters { .. } => panic!("no clusters from trees"),
    }
}

fn small_forest() -> ForestOptions {
    ForestOptions { trees: 5, ..ForestOptions::default() }
}

#[test]
fn a_split_is_the_one_that_brute_force_finds() {
    for seed in 0..20 {
        let (x, numbers, classes) = rows(60, seed);
        for (target, y) in [(Target::Number, &numbers), (Target::Classes(3), &classes)] {
            // By each sum of squares or Gini impurity, by each value of each feature, with the missing on either side.
            let impurity = |side: &[usize]| {
                let n = side.len() as f64;
                let square = |sum: f64| sum * sum / n;
                match target {
                    Target::Number => side.iter().map(|i| y[*i] * y[*i]).sum::<f64>() - square(side.iter().map(|i| y[*i]).sum()),
                    Target::Classes(k) => {
                        n - (0..k).map(|c| square(side.iter().filter(|i| y[**i] == c as f64).count() as f64)).sum::<f64>()
                    }
                }
            };
            let part = |feature: usize, threshold: f64, missing_left: bool| -> (Vec<usize>, Vec<usize>) {
                (0..60).partition(|i| if x[[*i, feature]].is_nan() { missing_left } else { x[[*i, feature]] <= threshold })
            };
            let mut best = f64::INFINITY;
            for feature in 0..4 {
                for threshold in x.column(feature).iter().copied().filter(|t| !t.is_nan()) {
                    for missing_left in [false, true] {
                        let (left, right) = part(feature, threshold, missing_left);
                        if left.len() >= 5 && right.len() >= 5 {
                            best = best.min(impurity(&left) + impurity(&right));
                        }
                    }
                }
            }
            let options = TreeOptions { max_depth: 1, min_leaf_rows: 5, ..TreeOptions::default() };
            let tree = fit_tree(&chunks(&x, y, &[]), target, &options, &context(1)).expect("fits");
            // What the tree tells apart is what it answers.
            let answers = values(tree.score(x.view()));
            let width = answers.len() / 60;
            let first: Vec<usize> = (0..60).filter(|i| answers[i * width..][..width] == answers[..width]).collect();
            let second: Vec<usize> = (0..60).filter(|i| !first.contains(i)).collect();
            let found = impurity(&first) + impurity(&second);
            assert!(second.len() >= 5 && (found - best).abs() < 1e-9, "{target:?} of seed {seed}: {found} is not {best}");
        }
    }
}

#[test]
fn any_number_of_threads_fits_the_same_model() {
    let (x, numbers, classes) = rows(140_000, 1);
    let (few_x, few_classes) = (x.slice(ndarray::s![..9_000, ..]).to_owned(), &classes[..9_000]);
    let (number, class) = (chunks(&x, &numbers, &[]), chunks(&few_x, few_classes, &[]));
    let boost = BoostOptions { trees: 4, subsample: 0.9, feature_fraction: 0.8, ..BoostOptions::default() };
    let forest = ForestOptions { trees: 3, feature_fraction: Some(0.5), min_leaf_rows: 50, ..ForestOptions::default() };
    let fit = |threads| {
        let context = context(threads);
        [
            fit_forest(&number, Target::Number, &forest, &context).expect("fits"),
            fit_forest(&class, Target::Classes(3), &forest, &context).expect("fits"),
            fit_boost(&number, Target::Number, &boost, &context).expect("fits"),
            fit_boost(&class, Target::Classes(3), &boost, &context).expect("fits"),
        ]
    };
    let expected = fit(1);
    assert!(fit(2) == expected && fit(7) == expected);
}

#[test]
fn a_row_scores_the_same_bits_alone_and_in_a_batch() {
    let (x, numbers, classes) = rows(500, 2);
    let boost = BoostOptions { trees: 10, ..BoostOptions::default() };
    let models = [
        fit_forest(&chunks(&x, &classes, &[]), Target::Classes(3), &small_forest(), &context(2)).expect("fits"),
        fit_boost(&chunks(&x, &classes, &[]), Target::Classes(3), &boost, &context(2)).expect("fits"),
        fit_boost(&chunks(&x, &numbers, &[]), Target::Number, &boost, &context(2)).expect("fits"),
    ];
    for model in models {
        model.check(4).expect("whole");
        let all = values(model.score(x.view()));
        let width = all.len() / 500;
        for i in 0..500 {
            let alone = values(model.score(x.slice(ndarray::s![i..i + 1, ..])));
            assert_eq!(alone, all[i * width..][..width]);
            assert!(width == 1 || (alone.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}

#[test]
fn missing_values_go_where_they_do_best() {
    // What is missing is like the low half here, and like the high half there: neither is what a default side does.
    for like in [0.0, 1.0] {
        let x = Array2::from_shape_fn((300, 1), |(i, _)| if i % 3 == 0 { f64::NAN } else { (i % 100) as f64 });
        let y: Vec<f64> = x.iter().map(|x| if x.is_nan() { like } else { f64::from(*x >= 50.0) }).collect();
        let tree = fit_tree(&chunks(&x, &y, &[]), Target::Classes(2), &TreeOptions { max_depth: 1, ..TreeOptions::default() }, &context(1));
        let boost = BoostOptions { trees: 1, max_leaves: 2, ..BoostOptions::default() };
        let boosted = fit_boost(&chunks(&x, &y, &[]), Target::Classes(2), &boost, &context(1));
        for model in [tree.expect("fits"), boosted.expect("fits")] {
            let p = values(model.score(ndarray::array![[f64::NAN], [10.0], [90.0], [f64::INFINITY]].view()));
            assert_eq!(p[1], if like == 0.0 { p[3] } else { p[5] });
            assert!(p[3] < p[5] && p[1] == p[7], "{p:?}");
        }
    }
}

#[test]
fn a_weight_is_so_many_rows() {
    let (x, numbers, classes) = rows(400, 3);
    let x = x.mapv(|x| (x * 10.0).round()); // a bin for each value: bins hold rows, whatever their weight
    let times: Vec<f64> = (0..400).map(|i| f64::from(i % 3 + 1)).collect();
    let again: Vec<usize> = (0..400).flat_map(|i| std::iter::repeat_n(i, i % 3 + 1)).collect();
    let tree = TreeOptions { max_depth: 6, ..TreeOptions::default() };
    // Gains that tie but for rounding are chance, so boosting is shown on numbers, which do not tie.
    let boost = BoostOptions { trees: 5, min_leaf_rows: 1, min_leaf_weight: 3.0, ..BoostOptions::default() };
    let fit_tree = |data: &Chunks, target| fit_tree(data, target, &tree, &context(1)).expect("fits");
    let fit_boost = |data: &Chunks, target| fit_boost(data, target, &boost, &context(1)).expect("fits");
    type Fit<'a> = &'a dyn Fn(&Chunks, Target) -> Trees;
    let cases: [(&str, Target, &[f64], Fit<'_>); 3] = [
        ("classes", Target::Classes(3), &classes, &fit_tree),
        ("numbers", Target::Number, &numbers, &fit_tree),
        ("boosted", Target::Number, &numbers, &fit_boost),
    ];
    for (name, target, y, fit) in cases {
        let weighted = chunks(&x, y, &times);
        let repeated = chunks(&x.select(ndarray::Axis(0), &again), &again.iter().map(|i| y[*i]).collect::<Vec<_>>(), &[]);
        let (a, b) = (values(fit(&weighted, target).score(x.view())), values(fit(&repeated, target).score(x.view())));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
    }
}

#[test]
fn boosting_stops_when_held_out_rows_get_no_better() {
    let (x, mut numbers, _) = rows(2_000, 4);
    let mut random = draw::stream(4, 1);
    numbers.iter_mut().for_each(|y| *y += random.random::<f64>() * 20.0);
    let steps = Mutex::new(vec![]);
    let progress = |step: Step<'_>| steps.lock().expect("one thread").push(step.loss.expect("measured"));
    let context = FitContext { threads: 1, seed: 1, progress: &progress };
    let options = BoostOptions { trees: 500, early_stopping_rounds: 5, ..BoostOptions::default() };
    let model = fit_boost(&chunks(&x, &numbers, &[]), Target::Number, &options, &context).expect("fits");
    let losses = steps.into_inner().expect("one thread");
    let best = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).expect("rounds");
    assert!(losses.len() < 300 && losses.len() == best + 1 + 5, "{} rounds, best {best}", losses.len());
    assert_eq!(model.trees(), best + 1);
}

#[test]
fn boosting_learns_and_says_which_features_did() {
    let (x, numbers, classes) = rows(4_000, 5);
    let (test_x, test_numbers, test_classes) = rows(1_000, 6);
    let noisy = Array2::from_shape_fn((4_000, 5), |(i, j)| if j < 4 { x[[i, j]] } else { ((i * 7919) % 1000) as f64 });
    let model = fit_boost(&chunks(&noisy, &numbers, &[]), Target::Number, &BoostOptions::default(), &context(2)).expect("fits");
    assert!(model.importance()[4] < 0.01 && (model.importance().iter().sum::<f64>() - 1.0).abs() < 1e-9, "{:?}", model.importance());
    let with_noise = Array2::from_shape_fn((1_000, 5), |(i, j)| if j < 4 { test_x[[i, j]] } else { 500.0 });
    let mean = test_numbers.iter().sum::<f64>() / 1_000.0;
    let error: f64 = values(model.score(with_noise.view())).iter().zip(&test_numbers).map(|(a, b)| (a - b).powi(2)).sum();
    let all: f64 = test_numbers.iter().map(|y| (y - mean).powi(2)).sum();
    assert!(1.0 - error / all > 0.97, "R² {}", 1.0 - error / all);

    let forest = ForestOptions { trees: 30, ..ForestOptions::default() };
    let data = chunks(&x, &classes, &[]);
    let boosted = fit_boost(&data, Target::Classes(3), &BoostOptions::default(), &context(2)).expect("fits");
    for model in [boosted, fit_forest(&data, Target::Classes(3), &forest, &context(2)).expect("fits")] {
        let Scores::Probabilities(p) = model.score(test_x.view()) else { panic!("classes") };
        let top = |i: usize| (0..3).max_by(|a, b| p[[i, *a]].total_cmp(&p[[i, *b]])).expect("three");
        let right = (0..1_000).filter(|i| top(*i) as f64 == test_classes[*i]).count();
        assert!(right > 900, "{right} of 1000");
    }
}

#[test]
fn a_class_without_rows_changes_nothing_for_the_two_others() {
    let (x, _, classes) = rows(1_000, 11);
    let two: Vec<f64> = classes.iter().map(|y| y.min(1.0)).collect();
    let of_three: Vec<f64> = two.iter().map(|y| y * 2.0).collect(); // classes 0 and 2
    let options = BoostOptions { trees: 20, ..BoostOptions::default() };
    let fit = |y: &[f64], classes| fit_boost(&chunks(&x, y, &[]), Target::Classes(classes), &options, &context(1)).expect("fits");
    let (three, two) = (fit(&of_three, 3), fit(&two, 2));
    three.check(4).expect("whole");
    let (three, two) = (values(three.score(x.view())), values(two.score(x.view())));
    for (three, two) in three.chunks_exact(3).zip(two.chunks_exact(2)) {
        assert!((three[0] - two[0]).abs() < 1e-4 && three[1] < 1e-6 && (three[2] - two[1]).abs() < 1e-4, "{three:?} {two:?}");
    }
}

#[test]
fn leaves_and_depth_have_their_limits() {
    let (x, numbers, _) = rows(1_000, 8);
    let data = chunks(&x, &numbers, &[]);
    let different = |trees: &Trees| values(trees.score(x.view())).iter().map(|v| v.to_bits()).collect::<BTreeSet<_>>().len();
    let tree = |options: TreeOptions| different(&fit_tree(&data, Target::Number, &options, &context(1)).expect("fits"));
    assert_eq!(tree(TreeOptions { max_leaves: 7, ..TreeOptions::default() }), 7);
    assert_eq!(tree(TreeOptions { max_depth: 2, ..TreeOptions::default() }), 4);
    assert!(tree(TreeOptions { min_leaf_rows: 100, ..TreeOptions::default() }) <= 10);
    let boost = |options: BoostOptions| different(&fit_boost(&data, Target::Number, &options, &context(1)).expect("fits"));
    assert_eq!(boost(BoostOptions { trees: 1, max_leaves: 7, ..BoostOptions::default() }), 7);
    assert_eq!(boost(BoostOptions { trees: 1, max_depth: 2, ..BoostOptions::default() }), 4);
    assert!(boost(BoostOptions { trees: 1, min_leaf_rows: 300, ..BoostOptions::default() }) <= 3);
}

#[test]
fn what_cannot_be_fitted_is_an_error() {
    let (x, _, classes) = rows(50, 9);
    let none = chunks(&Array2::zeros((0, 4)), &[], &[]);
    let one = chunks(&x, &[1.0; 50], &[]);
    let missing = chunks(&x, &[f64::NAN; 50], &[]);
    let weightless = chunks(&x, &classes, &[0.0; 50]);
    for (data, target, says) in [
        (&none, Target::Number, "no rows"),
        (&none, Target::Classes(2), "no rows"),
        (&one, Target::Classes(2), "one class"),
        (&missing, Target::Number, "label of row 0"),
        (&weightless, Target::Classes(3), "weight of row 0"),
    ] {
        let tree = fit_tree(data, target, &TreeOptions::default(), &context(1)).expect_err(says);
        let boost = fit_boost(data, target, &BoostOptions::default(), &context(1)).expect_err(says);
        assert!(tree.message().contains(says) && boost.message().contains(says), "{tree}");
    }
    let options = BoostOptions { early_stopping_rounds: 5, validation_fraction: 1e-9, ..BoostOptions::default() };
    let e = fit_boost(&chunks(&x, &classes, &[]), Target::Classes(3), &options, &context(1)).expect_err("nothing held out");
    assert!(e.message().contains("'validation_fraction'"), "{e}");
    // A constant number, or features that never vary, are a model of one value.
    let flat =
        fit_boost(&chunks(&Array2::zeros((50, 4)), &[3.0; 50], &[]), Target::Number, &BoostOptions::default(), &context(1)).expect("fits");
    assert_eq!(values(flat.score(x.view())), [3.0; 50]);
}

#[test]
fn a_damaged_state_is_refused_and_never_walked_out_of() {
    let (x, _, classes) = rows(300, 10);
    let options = BoostOptions { trees: 3, ..BoostOptions::default() };
    let data = chunks(&x, &classes, &[]);
    let boosted = fit_boost(&data, Target::Classes(3), &options, &context(1)).expect("fits");
    let forest = fit_forest(&data, Target::Classes(3), &small_forest(), &context(1)).expect("fits");
    let (mut refused, mut passed) = (0, 0);
    for model in [boosted, forest] {
        let mut bytes = vec![];
        ciborium::into_writer(&model, &mut bytes).expect("writes");
        assert_eq!(ciborium::from_reader::<Trees, _>(&bytes[..]).expect("reads"), model);
        assert!(model.check(5).is_err());
        for at in 0..bytes.len().min(6_000) {
            for flip in [0x01, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let Ok(read) = ciborium::from_reader::<Trees, _>(&damaged[..]) else { continue };
                if read.check(4).is_err() {
                    refused += 1;
                } else {
                    passed += 1; // another number somewhere: wrong, but sound (a file's hash tells)
                    read.score(x.slice(ndarray::s![..5, ..]));
                }
            }
        }
    }
    assert!(refused > 100 && passed > 100, "{refused} refused, {passed} passed");
}
