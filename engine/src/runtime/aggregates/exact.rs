//! Exact sums of doubles: whatever the order, the same bits.
//!
//! A sum is kept as the unrounded value of three parts:
//!
//! ```text
//!  sum = high + low            two doubles, as two-sum leaves them: enough for nearly all data
//!      + wide                  a fixed-point number with every bit that a double can have; made on demand
//! ```
//!
//! A value that does not fit `high + low` without rounding sends both into `wide` and starts them anew, so a
//! row costs two two-sums, and now and then three additions of integers. Rounding happens once, at the end, to
//! the nearest double (ties to even). ±Inf and NaN are counted apart, so that they can be taken back.
//!
//! What must hold: `high + low + wide` is the sum without any error; no partial sum of `high` overflows
//! (values from 2⁹⁶⁰ on go to `wide` at once).

/// Smallest magnitude that goes to `wide` at once: 2⁶³ values below it do not overflow a double.
const HUGE: f64 = f64::from_bits((960 + 1023) << 52);
/// Bits in a limb of [`Wide`].
const LIMB_BITS: u32 = 32;
/// Limbs: 2098 bits for every double in units of 2⁻¹⁰⁷⁴, 64 more for their number, and the sign.
const LIMBS: usize = 68;
/// Additions after which carries are settled: each adds less than 2³² to a limb of 64 bits.
const PENDING_MAX: u32 = 1 << 30;

/// The part of a sum that two doubles cannot hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wide {
    /// Σ limbs[i]·2^(32·i − 1074); settled limbs are in 0..2³² but for the last, which has the sign.
    limbs: [i64; LIMBS],
    pending: u32,
    nan: i64,
    infinite: i64,
    minus_infinite: i64,
}

/// Length of [`Wide::to_words`].
pub const WIDE_WORDS: usize = LIMBS + 3;

/// A sum of two doubles without error: (rounded sum, what the rounding lost). No overflow may happen.
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

/// Adds `v` to `high + low`. False: it does not fit without rounding, and nothing has changed.
#[inline]
pub fn add(high: &mut f64, low: &mut f64, v: f64) -> bool {
    // NaN and ±Inf are not below it either.
    if !(v.abs() < HUGE && high.abs() < 4.0 * HUGE) {
        return false;
    }
    let (sum, lost) = two_sum(*high, v);
    let (rest, lost) = two_sum(*low, lost);
    if lost == 0.0 {
        (*high, *low) = (sum, rest);
        return true;
    }
    // Often it fits once the first part has taken over what it can.
    let (sum, moved) = two_sum(sum, rest);
    let (rest, lost) = two_sum(moved, lost);
    if lost == 0.0 {
        (*high, *low) = (sum, rest);
    }
    lost == 0.0
}

/// The sum, rounded once.
#[inline]
pub fn round(high: f64, low: f64, wide: Option<&Wide>) -> f64 {
    match wide {
        // The sum of two doubles is rounded correctly by the processor. Adding 0 makes −0 +0: it depends on no order.
        None => high + low + 0.0,
        Some(wide) => {
            let mut all = wide.clone();
            all.add(high, 1);
            all.add(low, 1);
            all.round()
        }
    }
}

impl Default for Wide {
    fn default() -> Self {
        Self { limbs: [0; LIMBS], pending: 0, nan: 0, infinite: 0, minus_infinite: 0 }
    }
}

impl Wide {
    /// Adds a double (`sign` 1), or takes it back (`sign` −1).
    pub fn add(&mut self, v: f64, sign: i64) {
        if !v.is_finite() {
            let count = match v {
                f64::INFINITY => &mut self.infinite,
                f64::NEG_INFINITY => &mut self.minus_infinite,
                _ => &mut self.nan,
            };
            *count += sign;
            return;
        }
        let bits = v.to_bits();
        let (exponent, fraction) = ((bits >> 52) & 0x7FF, bits & ((1 << 52) - 1));
        // |v| = mantissa·2^(shift − 1074); subnormal numbers have no hidden bit, and the shift of the smallest normal ones.
        let (mantissa, shift) = if exponent == 0 { (fraction, 0) } else { (fraction | (1 << 52), exponent as u32 - 1) };
        let sign = if v.is_sign_negative() { -sign } else { sign };
        let (first, shifted) = ((shift / LIMB_BITS) as usize, u128::from(mantissa) << (shift % LIMB_BITS));
        for i in 0..3 {
            self.limbs[first + i] += sign * i64::from((shifted >> (LIMB_BITS * i as u32)) as u32);
        }
        self.pending += 1;
        if self.pending == PENDING_MAX {
            self.settle();
        }
    }

    /// Adds another number.
    pub fn add_wide(&mut self, other: &Self) {
        let mut other = other.clone();
        other.settle();
        self.settle();
        for (limb, more) in self.limbs.iter_mut().zip(other.limbs) {
            *limb += more;
        }
        self.pending = 1;
        self.nan += other.nan;
        self.infinite += other.infinite;
        self.minus_infinite += other.minus_infinite;
    }

    /// The number as words for a checkpoint: settled limbs, then the numbers of NaN, +Inf and −Inf.
    pub fn to_words(&self) -> [i64; WIDE_WORDS] {
        let mut settled = self.clone();
        settled.settle();
        let mut words = [0; WIDE_WORDS];
        words[..LIMBS].copy_from_slice(&settled.limbs);
        words[LIMBS..].copy_from_slice(&[self.nan, self.infinite, self.minus_infinite]);
        words
    }

    /// Reads [`Self::to_words`]; `None` where they are not a number's.
    pub fn from_words(words: &[i64]) -> Option<Self> {
        let (limbs, counts) = words.split_at_checked(LIMBS)?;
        let settled = limbs[..LIMBS - 1].iter().all(|l| (0..1 << LIMB_BITS).contains(l));
        let [nan, infinite, minus_infinite] = *counts else { return None };
        settled.then_some(Self { limbs: limbs.try_into().ok()?, pending: 1, nan, infinite, minus_infinite })
    }

    /// The nearest double, ties to even.
    pub fn round(&self) -> f64 {
        match (self.nan != 0, self.infinite != 0, self.minus_infinite != 0) {
            (true, _, _) | (_, true, true) => return f64::NAN,
            (_, true, false) => return f64::INFINITY,
            (_, false, true) => return f64::NEG_INFINITY,
            (false, false, false) => {}
        }
        let mut magnitude = self.clone();
        magnitude.settle();
        let negative = magnitude.limbs[LIMBS - 1] < 0;
        if negative {
            magnitude.limbs.iter_mut().for_each(|l| *l = -*l);
            magnitude.settle();
        }
        let limbs = &magnitude.limbs;
        let Some(top) = limbs.iter().rposition(|l| *l != 0) else { return 0.0 };
        let highest = top as u32 * LIMB_BITS + limbs[top].ilog2();
        let bit = |i: u32| limbs[(i / LIMB_BITS) as usize] >> (i % LIMB_BITS) & 1;
        // The 53 highest bits, as the integer that they are; in units of 2⁻¹⁰⁷⁴ these are a double's own bits.
        let lowest = highest.saturating_sub(52);
        let mantissa = (lowest..=highest).rev().fold(0u64, |m, i| m << 1 | bit(i) as u64);
        let half = lowest > 0 && bit(lowest - 1) == 1;
        let beyond = || (0..lowest - 1).any(|i| bit(i) == 1);
        let up = half && (mantissa & 1 == 1 || beyond());
        // The hidden bit of the mantissa adds 1 to the exponent, and so does a carry out of it.
        let bits = ((u64::from(lowest)) << 52) + mantissa + u64::from(up);
        let rounded = f64::from_bits(bits.min(f64::INFINITY.to_bits()));
        if negative { -rounded } else { rounded }
    }

    /// Moves what exceeds 32 bits into the next limb.
    fn settle(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs[..LIMBS - 1] {
            let value = *limb + carry;
            *limb = value & ((1 << LIMB_BITS) - 1);
            carry = value >> LIMB_BITS;
        }
        self.limbs[LIMBS - 1] += carry;
        self.pending = 1;
    }
}

#[cfg(test)]
mod tests {
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// The sum as the state does it.
    fn sum(values: &[f64]) -> (f64, bool) {
        let (mut high, mut low, mut wide) = (0.0, 0.0, None::<Wide>);
        for &v in values {
            if !add(&mut high, &mut low, v) {
                let wide = wide.get_or_insert_default();
                for part in [high, low, v] {
                    wide.add(part, 1);
                }
                (high, low) = (0.0, 0.0);
            }
        }
        (round(high, low, wide.as_ref()), wide.is_some())
    }

    #[test]
    fn known_sums() {
        let max = f64::MAX;
        let tiny = f64::from_bits(1);
        for (values, expected) in [
            (vec![], 0.0),
            (vec![-0.0], 0.0),
            (vec![0.1; 10], 1.0),
            (vec![1e100, 1.0, -1e100], 1.0),
            (vec![1e16, 1.0, 2e-16, -1e16], 1.0000000000000002),
            (vec![1e100, 1.0, -1e100, tiny, -1.0], tiny),
            (vec![max, max, -max], max),
            (vec![max, max], f64::INFINITY),
            (vec![-max, -max, tiny], f64::NEG_INFINITY),
            (vec![max, max, -max, -max, tiny, tiny], 2.0 * tiny),
            // Ties go to even; any bit beyond, however small, decides them.
            (vec![2f64.powi(53), 1.0], 2f64.powi(53)),
            (vec![2f64.powi(53), 1.0, 1e-300], 2f64.powi(53) + 2.0),
            (vec![2f64.powi(53), 1.0, -1e-300], 2f64.powi(53)),
            (vec![-(2f64.powi(53)), -3.0], -(2f64.powi(53)) - 4.0),
            (vec![f64::INFINITY, 1.0], f64::INFINITY),
            (vec![f64::INFINITY, f64::NEG_INFINITY], f64::NAN),
            (vec![f64::NEG_INFINITY, 1e300], f64::NEG_INFINITY),
            (vec![f64::NAN, f64::INFINITY], f64::NAN),
            (vec![f64::MIN_POSITIVE, -tiny], f64::from_bits((1 << 52) - 1)),
        ] {
            let (found, _) = sum(&values);
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{values:?}: {found:e}, not {expected:e}"
            );
        }
    }

    #[test]
    fn no_order_shows_and_every_value_can_be_taken_back() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for exponents in [0..2, -20..40, -300..300] {
            let mut values: Vec<f64> =
                (0..500).map(|_| rng.random_range(-1.0..1.0) * 10f64.powi(rng.random_range(exponents.clone()))).collect();
            let mut all = Wide::default();
            values.iter().for_each(|v| all.add(*v, 1));
            let expected = all.round();
            for _ in 0..5 {
                values.shuffle(&mut rng);
                assert_eq!(sum(&values).0.to_bits(), expected.to_bits());
            }
            let mut halves = [Wide::default(), Wide::default()];
            values.iter().enumerate().for_each(|(i, v)| halves[i % 2].add(*v, 1));
            let [mut merged, other] = halves;
            merged.add_wide(&Wide::from_words(&other.to_words()).expect("its own words"));
            assert_eq!(merged.to_words(), all.to_words());
            values.iter().for_each(|v| merged.add(*v, -1));
            assert_eq!(merged.round().to_bits(), 0);
        }
    }

    #[test]
    fn the_integers_are_a_reference() {
        // Multiples of 2⁻⁴⁰ below 2⁶⁰ sum exactly in i128; its own conversion rounds to nearest, ties to even.
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let unit = 2f64.powi(-40);
        for _ in 0..200 {
            let integers: Vec<i64> = (0..50).map(|_| rng.random::<i64>() >> rng.random_range(11..60)).collect();
            let scales: Vec<u32> = (0..50).map(|_| rng.random_range(0..40)).collect();
            let values: Vec<f64> = integers.iter().zip(&scales).map(|(i, s)| *i as f64 * 2f64.powi(*s as i32) * unit).collect();
            let exact: i128 = integers.iter().zip(&scales).map(|(i, s)| i128::from(*i) << s).sum();
            assert_eq!(sum(&values).0, exact as f64 * unit);
        }
    }

    #[test]
    fn common_data_needs_no_wide_number() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let prices: Vec<f64> = (0..20_000).map(|_| f64::from(rng.random_range(0..1_000_000)) / 100.0).collect();
        assert!(!sum(&prices).1);
        let uniform: Vec<f64> = (0..20_000).map(|_| rng.random_range(0.0..1.0)).collect();
        assert!(!sum(&uniform).1);
    }
}
