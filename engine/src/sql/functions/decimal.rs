//! DECIMAL arithmetic: Flink's result types, exact values rounded half up, NULL where a result has more
//! digits than its type holds.
//!
//! Integers take part as the decimals that hold them: TINYINT (3,0), SMALLINT (5,0), INT (10,0), BIGINT (19,0).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, i256};

use super::columns::Batch;
use super::scalar::{Definition, Site, function};
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// The arithmetic that [`super::binary`] plans where a DECIMAL takes part.
pub(super) const FUNCTIONS: &[Definition] = &[
    function(&["$plus"], "nn", |s| result(s, Op::Plus), |b| eval(b, Op::Plus)),
    function(&["$minus"], "nn", |s| result(s, Op::Minus), |b| eval(b, Op::Minus)),
    function(&["$times"], "nn", |s| result(s, Op::Times), |b| eval(b, Op::Times)),
    function(&["$divide"], "nn", |s| result(s, Op::Divide), |b| eval(b, Op::Divide)),
    function(&["$mod"], "nn", |s| result(s, Op::Mod), |b| eval(b, Op::Mod)),
];

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Plus,
    Minus,
    Times,
    Divide,
    Mod,
}

const DIGITS_MAX: i32 = 38;
/// Fractional digits that a result keeps when its digits do not fit.
const SCALE_KEPT: i32 = 6;

/// Precision and scale of a decimal or an integer.
pub(super) fn digits(t: &SqlType) -> Option<(u8, i8)> {
    Some(match t {
        SqlType::TinyInt => (3, 0),
        SqlType::SmallInt => (5, 0),
        SqlType::Int => (10, 0),
        SqlType::BigInt => (19, 0),
        SqlType::Decimal(p, s) => (*p, *s),
        _ => return None,
    })
}

fn result(site: &Site, op: Op) -> Result<SqlType> {
    // A bare NULL takes the other side's type.
    let side = |i: usize| digits(&site.sql(if site.is_null(i) { 1 - i } else { i })).unwrap_or((10, 0));
    let ((p1, s1), (p2, s2)) = (side(0), side(1));
    let (p1, s1, p2, s2) = (p1 as i32, s1 as i32, p2 as i32, s2 as i32);
    let s_max = s1.max(s2);
    Ok(match op {
        Op::Plus | Op::Minus => fitted((p1 - s1).max(p2 - s2) + s_max + 1, s_max),
        Op::Times => fitted(p1 + p2 + 1, s1 + s2),
        Op::Divide => {
            let s = SCALE_KEPT.max(s1 + p2 + 1);
            fitted(p1 - s1 + s2 + s, s)
        }
        Op::Mod => fitted((p1 - s1).min(p2 - s2) + s_max, s_max),
    })
}

fn fitted(p: i32, s: i32) -> SqlType {
    if p <= DIGITS_MAX {
        return SqlType::Decimal(p as u8, s as i8);
    }
    let s = (DIGITS_MAX - (p - s)).max(s.min(SCALE_KEPT));
    SqlType::Decimal(DIGITS_MAX as u8, s as i8)
}

fn eval(batch: &Batch, op: Op) -> Result<ArrayRef> {
    let SqlType::Decimal(p, s) = batch.out else {
        return Err(Error::internal("decimal arithmetic answers decimals"));
    };
    let (left, s1, left_constant) = operand(batch, 0)?;
    let (right, s2, right_constant) = operand(batch, 1)?;
    let limit = 10i128.pow(p as u32);
    let (s, s1, s2) = (s as i32, s1 as i32, s2 as i32);
    let mut out = Vec::with_capacity(batch.rows);
    for row in 0..batch.rows {
        let (i, j) = (if left_constant { 0 } else { row }, if right_constant { 0 } else { row });
        if left.is_null(i) || right.is_null(j) {
            out.push(None);
            continue;
        }
        let (a, b) = (left.value(i), right.value(j));
        if b == 0 && matches!(op, Op::Divide | Op::Mod) {
            return Err(Error::data("division by zero").help("guard it: CASE WHEN b <> 0 THEN a / b END, or a / NULLIF(b, 0)"));
        }
        let value = match op {
            Op::Plus | Op::Minus => {
                let common = s1.max(s2);
                scaled(a, common - s1).zip(scaled(b, common - s2)).and_then(|(a, b)| {
                    let sum = if op == Op::Plus { a.checked_add(b) } else { a.checked_sub(b) };
                    rescale(sum?, common - s)
                })
            }
            Op::Times => match a.checked_mul(b) {
                Some(product) if s == s1 + s2 => Some(i256::from_i128(product)),
                _ => i256::from_i128(a).checked_mul(i256::from_i128(b)).and_then(|v| rescale(v, s1 + s2 - s)),
            },
            Op::Divide => {
                let k = s + s2 - s1;
                let (n, d) = if k >= 0 { (scaled(a, k), Some(i256::from_i128(b))) } else { (Some(i256::from_i128(a)), scaled(b, -k)) };
                n.zip(d).and_then(|(n, d)| half_up(n, d))
            }
            Op::Mod => {
                let common = s1.max(s2);
                scaled(a, common - s1).zip(scaled(b, common - s2)).and_then(|(a, b)| rescale(a.checked_rem(b)?, common - s))
            }
        };
        out.push(value.and_then(|v| v.to_i128()).filter(|v| v.unsigned_abs() < limit.unsigned_abs()));
    }
    Ok(Arc::new(out.into_iter().collect::<Decimal128Array>().with_data_type(DataType::Decimal128(p, s as i8))))
}

fn operand(batch: &Batch, i: usize) -> Result<(Decimal128Array, i8, bool)> {
    let t = batch.sql(i);
    let (p, s) = digits(&t).unwrap_or((DIGITS_MAX as u8, 0));
    let array = cast(batch.raw(i), &DataType::Decimal128(p, s))?;
    Ok((array.as_primitive::<Decimal128Type>().clone(), s, batch.is_constant(i)))
}

fn scaled(v: i128, by: i32) -> Option<i256> {
    i256::from_i128(v).checked_mul(power(by)?)
}

fn power(n: i32) -> Option<i256> {
    let half = 10i128.checked_pow(n.min(DIGITS_MAX) as u32)?;
    let rest = 10i128.checked_pow((n - DIGITS_MAX).max(0) as u32)?;
    i256::from_i128(half).checked_mul(i256::from_i128(rest))
}

/// Takes `places` fractional digits away, rounding half up.
fn rescale(v: i256, places: i32) -> Option<i256> {
    match places {
        0 => Some(v),
        n if n > 0 => half_up(v, power(n)?),
        n => v.checked_mul(power(-n)?),
    }
}

fn half_up(n: i256, d: i256) -> Option<i256> {
    let (q, r) = (n.checked_div(d)?, n.checked_rem(d)?);
    if r.wrapping_abs() >= d.wrapping_abs().wrapping_sub(r.wrapping_abs()) && r != i256::ZERO {
        let one = if (n < i256::ZERO) == (d < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
        return q.checked_add(one);
    }
    Some(q)
}

/// `v` (scale `from`) at scale `to`, rounded half up; `None` where it has more than `precision` digits.
pub(super) fn to_scale(v: i128, from: i8, precision: u8, to: i8) -> Option<i128> {
    let v = rescale(i256::from_i128(v), from as i32 - to as i32)?.to_i128()?;
    (v.unsigned_abs() < 10u128.pow(precision as u32)).then_some(v)
}

/// MOD of decimals.
pub(super) fn remainder(batch: &Batch) -> Result<ArrayRef> {
    eval(batch, Op::Mod)
}
