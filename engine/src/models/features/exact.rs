//! Moments of a column whose bits do not depend on the order of the rows.
//!
//! Σx and Σx² are kept exactly: for each exponent the mantissas (at most 53 bits, squared 106) are summed as integers,
//! so adding and merging are integer additions and commute. Mean and variance are worked out from one wide integer
//! each and round at the end: a column of large, close numbers (years, time stamps) keeps its true spread.

use std::collections::HashMap;

/// Exponents of a double, one number for subnormal and the least normal ones.
const EXPONENTS: usize = 2047;
/// Limbs of 32 bits: from the square of the smallest double (2^-2148) to beyond 2^2048 times 2^64 rows.
const LIMBS: usize = 138;
/// The exponent of the lowest bit: a whole number of limbs.
const LOWEST: i32 = -32 * LOWEST_LIMBS as i32;
const LOWEST_LIMBS: usize = 68;

/// Count, extremes, exact sum and exact sum of squares of finite numbers.
#[derive(Debug, Clone)]
pub struct Moments {
    count: u64,
    min: f64,
    max: f64,
    /// By exponent.
    sums: Box<[Sums]>,
}

/// Sums over the numbers of one exponent.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// Of signed mantissas.
    mantissas: i128,
    /// Of the low 64 bits of their squares, and of the bits above.
    squares: (u128, u128),
}

/// A number with a tail: hi + lo, |lo| ≤ ulp(hi) / 2.
#[derive(Debug, Clone, Copy)]
struct Twofold(f64, f64);

/// A whole number times 2^[`LOWEST`], in limbs of 32 bits; the last one has the sign.
struct Wide(Vec<i64>);

/// Counts by magnitude, from which any quantile comes with a relative error below 0.4 %. Merging commutes.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    counts: HashMap<i32, u64>,
}

impl Default for Moments {
    fn default() -> Self {
        let sums = vec![Sums::default(); EXPONENTS].into_boxed_slice();
        Self { count: 0, min: f64::INFINITY, max: f64::NEG_INFINITY, sums }
    }
}

impl Moments {
    /// Adds a finite number.
    pub fn add(&mut self, x: f64) {
        self.add_times(x, 1);
    }

    /// Adds a finite number `times` times.
    #[inline]
    pub fn add_times(&mut self, x: f64, times: u64) {
        debug_assert!(x.is_finite());
        if times == 0 {
            return;
        }
        self.count += times;
        self.min = self.min.min(x);
        self.max = self.max.max(x);
        let bits = x.to_bits();
        let (biased, fraction) = ((bits >> 52 & 0x7ff) as usize, bits & ((1 << 52) - 1));
        let (mantissa, at) = if biased == 0 { (fraction, 1) } else { (fraction | 1 << 52, biased) };
        let sums = &mut self.sums[at];
        let signed = if x < 0.0 { -i128::from(mantissa) } else { i128::from(mantissa) };
        sums.mantissas += signed * i128::from(times);
        let square = u128::from(mantissa) * u128::from(mantissa);
        sums.squares.0 += (square & u128::from(u64::MAX)) * u128::from(times);
        sums.squares.1 += (square >> 64) * u128::from(times);
    }

    /// Adds what another has seen.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        for (mine, theirs) in self.sums.iter_mut().zip(&other.sums) {
            mine.mantissas += theirs.mantissas;
            mine.squares.0 += theirs.squares.0;
            mine.squares.1 += theirs.squares.1;
        }
    }

    /// The least and the greatest, where there is a number.
    pub fn range(&self) -> Option<(f64, f64)> {
        // Adding 0 makes one zero of two: which of them came first must not show.
        (self.count > 0).then_some((self.min + 0.0, self.max + 0.0))
    }

    /// The mean, where there is a number.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum().value().over(self.count as f64).0)
    }

    /// The population's standard deviation (as scikit-learn's scaler has it), where there is a number.
    pub fn deviation(&self) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        if self.min == self.max {
            return Some(0.0);
        }
        // n·Σx² − (Σx)², exactly: nothing cancels before it is rounded.
        let (_, sum) = self.sum().magnitude();
        let (_, squares) = self.squares().magnitude();
        let mut spread = vec![0; LOWEST_LIMBS];
        spread.extend(product(&squares, &[self.count & 0xffff_ffff, self.count >> 32]));
        let square = product(&sum, &sum);
        spread.resize(spread.len().max(square.len()), 0);
        let mut borrow = 0;
        for (k, limb) in spread.iter_mut().enumerate() {
            let value = *limb as i64 - square.get(k).copied().unwrap_or(0) as i64 - borrow;
            *limb = (value & 0xffff_ffff) as u64;
            borrow = i64::from(value < 0);
        }
        let n = self.count as f64;
        Some(rounded(&spread, 2 * LOWEST).over(n).over(n).0.max(0.0).sqrt())
    }

    fn sum(&self) -> Wide {
        let mut wide = Wide(vec![0; LIMBS]);
        for (sums, exponent) in self.sums.iter().zip(-1075..).filter(|(s, _)| s.mantissas != 0) {
            wide.add(sums.mantissas.unsigned_abs(), exponent, sums.mantissas < 0);
        }
        wide
    }

    fn squares(&self) -> Wide {
        let mut wide = Wide(vec![0; LIMBS]);
        for (sums, exponent) in self.sums.iter().zip(-1075..).filter(|(s, _)| s.squares != (0, 0)) {
            wide.add(sums.squares.0, 2 * exponent, false);
            wide.add(sums.squares.1, 2 * exponent + 64, false);
        }
        wide
    }
}

impl Wide {
    /// Adds ± `whole` · 2^`exponent`. Each call adds less than 2^33 to a limb of 64 bits, and there are a few thousand
    /// calls at most: carries can wait.
    fn add(&mut self, whole: u128, exponent: i32, negative: bool) {
        for (half, exponent) in [(whole & u128::from(u64::MAX), exponent), (whole >> 64, exponent + 64)] {
            if half == 0 {
                continue;
            }
            let shift = (exponent - LOWEST) as usize;
            let wide = half << (shift % 32);
            for (k, limb) in self.0[shift / 32..shift / 32 + 3].iter_mut().enumerate() {
                let part = i64::from((wide >> (32 * k)) as u32);
                *limb += if negative { -part } else { part };
            }
        }
    }

    /// Brings every limb but the last into 0..2^32; the last keeps the sign.
    fn carry(&mut self) {
        let mut carry = 0i64;
        let (last, limbs) = self.0.split_last_mut().expect("there are limbs");
        for limb in limbs {
            let value = *limb + carry;
            *limb = value & 0xffff_ffff;
            carry = value >> 32;
        }
        *last += carry;
    }

    /// Whether the number is negative, and its magnitude in limbs of 32 bits.
    fn magnitude(mut self) -> (bool, Vec<u64>) {
        self.carry();
        let negative = self.0[LIMBS - 1] < 0;
        if negative {
            self.0.iter_mut().for_each(|limb| *limb = -*limb);
            self.carry();
        }
        (negative, self.0.iter().map(|limb| *limb as u64).collect())
    }

    fn value(self) -> Twofold {
        let (negative, limbs) = self.magnitude();
        let total = rounded(&limbs, LOWEST);
        if negative { Twofold(-total.0, -total.1) } else { total }
    }
}

/// The whole number of these limbs, times 2^`lowest`, to the precision of two doubles.
fn rounded(limbs: &[u64], lowest: i32) -> Twofold {
    let top = limbs.iter().rposition(|limb| *limb != 0).unwrap_or(0);
    let mut total = Twofold(0.0, 0.0);
    // Six limbs hold at least 160 bits below the first one: more than two doubles can.
    for k in (top.saturating_sub(5)..=top).rev() {
        let mut term = limbs[k] as f64;
        // In steps, because 2^exponent alone may leave the range of a double.
        let mut exponent = lowest + 32 * k as i32;
        while exponent != 0 {
            let step = exponent.clamp(-512, 512);
            term *= 2f64.powi(step);
            exponent -= step;
        }
        total = total.plus(Twofold(term, 0.0));
    }
    total
}

fn product(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut limbs = vec![0u64; a.len() + b.len()];
    for (i, x) in a.iter().enumerate().filter(|(_, x)| **x != 0) {
        let mut carry = 0;
        for (j, y) in b.iter().enumerate() {
            let value = limbs[i + j] + x * y + carry;
            limbs[i + j] = value & 0xffff_ffff;
            carry = value >> 32;
        }
        limbs[i + b.len()] += carry;
    }
    limbs
}

impl Twofold {
    fn plus(self, other: Self) -> Self {
        let (sum, error) = two_sum(self.0, other.0);
        let (hi, lo) = two_sum(sum, error + self.1 + other.1);
        Self(hi, lo)
    }

    fn over(self, n: f64) -> Self {
        let first = self.0 / n;
        let rest = (-first).mul_add(n, self.0) + self.1;
        let (hi, lo) = two_sum(first, rest / n);
        Self(hi, lo)
    }
}

fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let other = sum - a;
    (sum, (a - (sum - other)) + (b - other))
}

impl Sketch {
    /// Adds a finite number.
    pub fn add(&mut self, x: f64) {
        *self.counts.entry(bucket(x)).or_default() += 1;
    }

    /// Adds what another has seen.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_default() += count;
        }
    }

    /// The median, near enough, where there is a number.
    pub fn median(&self) -> Option<f64> {
        let total: u64 = self.counts.values().sum();
        let mut buckets: Vec<_> = self.counts.iter().collect();
        buckets.sort_unstable();
        let mut before = 0;
        for (bucket, count) in buckets {
            before += count;
            if 2 * before >= total {
                return Some(middle(*bucket));
            }
        }
        None
    }
}

/// Buckets in the order of the numbers: exponent and seven bits of mantissa, mirrored for negative numbers.
fn bucket(x: f64) -> i32 {
    if x == 0.0 {
        return 0;
    }
    let magnitude = ((x.abs().to_bits() >> 45) + 1) as i32;
    if x < 0.0 { -magnitude } else { magnitude }
}

fn middle(bucket: i32) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let low = u64::from(bucket.unsigned_abs() - 1) << 45;
    let magnitude = f64::from_bits(low | 1 << 44);
    // A bucket of whole numbers gives the whole number back where its edge is one.
    let edge = f64::from_bits(low);
    let value = if edge.fract() == 0.0 && edge.abs() < 256.0 { edge } else { magnitude };
    if bucket < 0 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Moments {
        let mut m = Moments::default();
        values.iter().for_each(|x| m.add(*x));
        m
    }

    #[test]
    fn no_order_and_no_split_changes_a_bit() {
        let values: Vec<f64> = (0..1000).map(|i| ((i * 7919) % 1013) as f64 * 0.1 * 10f64.powi(i % 30 - 15)).collect();
        let forward = of(&values);
        let mut backward = of(&values[500..].iter().rev().copied().collect::<Vec<_>>());
        backward.merge(&of(&values[..500]));
        for (a, b) in [(forward.mean(), backward.mean()), (forward.deviation(), backward.deviation())] {
            assert_eq!(a.map(f64::to_bits), b.map(f64::to_bits));
        }
    }

    #[test]
    fn close_large_and_extreme_numbers_keep_their_spread() {
        let m = of(&[1e15 + 1.0, 1e15 + 2.0, 1e15 + 3.0]);
        assert_eq!(m.mean(), Some(1e15 + 2.0));
        assert!((m.deviation().expect("three") - (2.0f64 / 3.0).sqrt()).abs() < 1e-15);
        let m = of(&[-1.0, -2.0, -6.0]);
        assert_eq!((m.mean(), m.range()), (Some(-3.0), Some((-6.0, -1.0))));
        assert!((m.deviation().expect("three") - (14.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(of(&[f64::MAX, -f64::MAX, 5e-324]).mean(), Some(0.0), "a third of the smallest number rounds to none");
        assert_eq!(Moments::default().mean(), None);
    }

    #[test]
    fn the_median_is_near_enough() {
        let mut sketch = Sketch::default();
        (0..=1000).for_each(|i| sketch.add(f64::from(i) - 100.0));
        let median = sketch.median().expect("numbers");
        assert!((median - 400.0).abs() < 2.0, "{median}");
        let mut whole = Sketch::default();
        [3.0, 7.0, 9.0].iter().for_each(|x| whole.add(*x));
        assert_eq!(whole.median(), Some(7.0));
    }
}
