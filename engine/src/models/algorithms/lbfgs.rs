//! Minimises a smooth convex function by L-BFGS from a preconditioner that knows its curvature at the start.

use super::rows::{add_scaled, dot};
use crate::error::Result;

/// Steps remembered.
const MEMORY: usize = 10;
/// Shortenings of one step before the function is taken to be flat up to rounding.
const SHORTER_MAX: usize = 30;
/// A step that wins no more than this share of the value (of 1, where that is more) is the last.
const FLAT: f64 = 8.0 * f64::EPSILON;

/// Moves `at` to the minimum of `function` and answers the value there. `function` answers its value at a place and
/// fills in its gradient. `precondition` turns a gradient into the step that the curvature at the start suggests.
/// Ends when `done` says so of a gradient, after `steps_max` steps, or when a step hardly lowers the value any more.
/// `each` sees every step and its value.
///
/// # Errors
/// What `function` answers.
pub(super) fn minimise(
    at: &mut Vec<f64>,
    steps_max: usize,
    mut function: impl FnMut(&[f64], &mut [f64]) -> Result<f64>,
    precondition: impl Fn(&mut [f64]),
    done: impl Fn(&[f64]) -> bool,
    mut each: impl FnMut(usize, f64),
) -> Result<f64> {
    let n = at.len();
    let mut gradient = vec![0.0; n];
    let mut value = function(at, &mut gradient)?;
    // (step, change of gradient, 1 / their product), oldest first.
    let mut past: Vec<(Vec<f64>, Vec<f64>, f64)> = vec![];
    let (mut next, mut next_gradient) = (vec![0.0; n], vec![0.0; n]);
    for step in 0..steps_max {
        each(step, value);
        if done(&gradient) {
            return Ok(value);
        }
        let mut direction = direction(&gradient, &past, &precondition);
        let mut slope = dot(&gradient, &direction);
        if slope.is_nan() || slope >= 0.0 {
            past.clear();
            direction = self::direction(&gradient, &past, &precondition);
            slope = dot(&gradient, &direction);
        }
        let mut length = 1.0;
        let mut shorter = 0;
        let next_value = loop {
            next.copy_from_slice(at);
            add_scaled(&mut next, length, &direction);
            let v = function(&next, &mut next_gradient)?;
            if v <= value + 1e-4 * length * slope {
                break v;
            }
            shorter += 1;
            if shorter == SHORTER_MAX {
                return Ok(value);
            }
            // The minimum of the parabola through what is known, where there is one.
            let parabola = -0.5 * slope * length / ((v - value) / length - slope);
            length = if parabola.is_finite() { parabola.clamp(0.1 * length, 0.5 * length) } else { 0.1 * length };
        };
        let moved: Vec<f64> = next.iter().zip(at.iter()).map(|(a, b)| a - b).collect();
        let bent: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let product = dot(&moved, &bent);
        if product > f64::EPSILON * dot(&bent, &bent).sqrt() * dot(&moved, &moved).sqrt() {
            if past.len() == MEMORY {
                past.remove(0);
            }
            past.push((moved, bent, 1.0 / product));
        }
        std::mem::swap(at, &mut next);
        std::mem::swap(&mut gradient, &mut next_gradient);
        let won = value - next_value;
        value = next_value;
        if won <= FLAT * value.abs().max(1.0) {
            return Ok(value);
        }
    }
    Ok(value)
}

/// The two-loop recursion.
fn direction(gradient: &[f64], past: &[(Vec<f64>, Vec<f64>, f64)], precondition: &impl Fn(&mut [f64])) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = vec![0.0; past.len()];
    for (share, (moved, bent, rho)) in shares.iter_mut().zip(past).rev() {
        *share = rho * dot(moved, &q);
        add_scaled(&mut q, -*share, bent);
    }
    precondition(&mut q);
    if let Some((_, bent, rho)) = past.last() {
        let mut scaled = bent.clone();
        precondition(&mut scaled);
        let factor = 1.0 / (rho * dot(bent, &scaled));
        if factor.is_finite() && factor > 0.0 {
            q.iter_mut().for_each(|q| *q *= factor);
        }
    }
    for (share, (moved, bent, rho)) in shares.iter().zip(past) {
        let back = rho * dot(bent, &q);
        add_scaled(&mut q, share - back, moved);
    }
    q
}
