//! Numeric functions. Exact types stay exact: ABS, ROUND, CEIL, FLOOR, SIGN of an INT or DECIMAL never pass
//! through a DOUBLE; the rest computes in DOUBLE.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};

use datafusion::error::Result as DfResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, Operator};

use super::columns::Batch;
use super::decimal::digits;
use super::scalar::{Definition, Site, function, is_integer};
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// Numeric functions.
pub(super) const FUNCTIONS: &[Definition] = &[
    function(&["ABS"], "n", same, |b| exact(b, |v, _| v.checked_abs(), f64::abs)),
    function(&["SIGN"], "n", same, |b| {
        exact(b, |v, unit| Some(v.signum() * unit), |v| if v == 0.0 || v.is_nan() { v } else { v.signum() })
    }),
    function(&["CEIL", "CEILING"], "n", whole, |b| exact(b, |v, unit| Some(-(-v).div_euclid(unit)), f64::ceil)),
    function(&["FLOOR"], "n", whole, |b| exact(b, |v, unit| Some(v.div_euclid(unit)), f64::floor)),
    function(&["ROUND"], "ni?", rounded, |b| places(b, true)),
    function(&["TRUNCATE"], "ni?", rounded, |b| places(b, false)),
    Definition { simplify: Some(plain_mod), ..function(&["MOD"], "nn", remainder_type, remainder) },
    function(&["POWER"], "nn", double, |b| two(b, f64::powf)),
    function(&["SQRT"], "n", double, |b| one(b, f64::sqrt)),
    function(&["EXP"], "n", double, |b| one(b, f64::exp)),
    function(&["LN"], "n", double, |b| one(b, f64::ln)),
    function(&["LOG10"], "n", double, |b| one(b, f64::log10)),
    function(&["LOG2"], "n", double, |b| one(b, |v| v.ln() / 2f64.ln())),
    function(&["LOG"], "nn?", double, |b| if b.len() == 1 { one(b, f64::ln) } else { two(b, |base, v| v.ln() / base.ln()) }),
    function(&["SIN"], "n", double, |b| one(b, f64::sin)),
    function(&["COS"], "n", double, |b| one(b, f64::cos)),
    function(&["TAN"], "n", double, |b| one(b, f64::tan)),
    function(&["COT"], "n", double, |b| one(b, |v| 1.0 / v.tan())),
    function(&["ASIN"], "n", double, |b| one(b, f64::asin)),
    function(&["ACOS"], "n", double, |b| one(b, f64::acos)),
    function(&["ATAN"], "n", double, |b| one(b, f64::atan)),
    function(&["ATAN2"], "nn", double, |b| two(b, f64::atan2)),
    function(&["SINH"], "n", double, |b| one(b, f64::sinh)),
    function(&["COSH"], "n", double, |b| one(b, f64::cosh)),
    function(&["TANH"], "n", double, |b| one(b, f64::tanh)),
    function(&["DEGREES"], "n", double, |b| one(b, f64::to_degrees)),
    function(&["RADIANS"], "n", double, |b| one(b, |v| v / 180.0 * std::f64::consts::PI)),
    function(&["PI"], "", double, |b| b.primitive::<Float64Type>(|_| Ok(Some(std::f64::consts::PI)))),
    function(&["E"], "", double, |b| b.primitive::<Float64Type>(|_| Ok(Some(std::f64::consts::E)))),
    Definition { volatile: true, ..function(&["RAND"], "", double, |b| b.primitive::<Float64Type>(|_| Ok(Some(rand::random())))) },
    Definition { volatile: true, ..function(&["RAND_INTEGER"], "i", |_| Ok(SqlType::Int), random_int) },
];

fn double(_: &Site) -> Result<SqlType> {
    Ok(SqlType::Double)
}

/// The argument's type; DOUBLE for a bare NULL.
fn same(site: &Site) -> Result<SqlType> {
    Ok(if site.is_null(0) { SqlType::Double } else { site.sql(0) })
}

fn whole(site: &Site) -> Result<SqlType> {
    Ok(match same(site)? {
        SqlType::Decimal(p, s) => SqlType::Decimal(p, 0.min(s)),
        t => t,
    })
}

fn rounded(site: &Site) -> Result<SqlType> {
    let SqlType::Decimal(p, s) = same(site)? else { return same(site) };
    let places = match (site.len(), site.int_literal(1)) {
        (1, _) => 0,
        (_, Some(n)) => n,
        _ => {
            return Err(Error::user(format!("the places of {} must be a literal for a DECIMAL: the type depends on them", site.name))
                .help("cast the number to DOUBLE, or write the places as a number"));
        }
    };
    if places >= s.into() {
        return Ok(SqlType::Decimal(p, s));
    }
    // Rounding up may give one digit more.
    let scale = places.max(0) as i8;
    Ok(SqlType::Decimal((p as i64 - s as i64 + scale as i64 + 1).clamp(1, 38) as u8, scale))
}

/// Applies `decimal(value, one)` to exact numbers, where `one` is the unscaled 1, and `double` to the others.
/// `whole` results of a DECIMAL are unscaled by their functions.
fn exact(batch: &Batch, decimal: fn(i128, i128) -> Option<i128>, double: fn(f64) -> f64) -> Result<ArrayRef> {
    let array = batch.full(0)?;
    Ok(match batch.sql(0) {
        SqlType::Decimal(_, s) => {
            let unit = 10i128.pow(s.max(0) as u32);
            let values = array.as_primitive::<Decimal128Type>().iter().map(|v| v.and_then(|v| decimal(v, unit)));
            Arc::new(values.collect::<Decimal128Array>().with_data_type(batch.out.arrow()))
        }
        t if is_integer(&t) => {
            let longs = cast(&array, &DataType::Int64)?;
            let values = longs.as_primitive::<Int64Type>().unary::<_, Int64Type>(|v| decimal(v.into(), 1).unwrap_or_default() as i64);
            narrow(Arc::new(values), &t)?
        }
        _ => {
            let doubles = cast(&array, &DataType::Float64)?;
            let out: ArrayRef = Arc::new(doubles.as_primitive::<Float64Type>().unary::<_, Float64Type>(double));
            cast(&out, &batch.out.arrow())?
        }
    })
}

/// BIGINT values as a smaller integer type, wrapping as Java does.
fn narrow(longs: ArrayRef, t: &SqlType) -> Result<ArrayRef> {
    use arrow::datatypes::{Int8Type, Int16Type, Int32Type};
    let longs = longs.as_primitive::<Int64Type>();
    Ok(match t {
        SqlType::TinyInt => Arc::new(longs.unary::<_, Int8Type>(|v| v as i8)),
        SqlType::SmallInt => Arc::new(longs.unary::<_, Int16Type>(|v| v as i16)),
        SqlType::Int => Arc::new(longs.unary::<_, Int32Type>(|v| v as i32)),
        _ => Arc::new(longs.clone()),
    })
}

/// ROUND (half up) and TRUNCATE.
fn places(batch: &Batch, half_up: bool) -> Result<ArrayRef> {
    let array = batch.full(0)?;
    let n = if batch.len() > 1 { Some(batch.longs(1)?) } else { None };
    let at = |row: usize| n.as_ref().map_or(Some(0), |n| n.get(row));
    let shorten = |v: i128, drop: i64| -> i128 {
        match drop {
            i64::MIN..=0 => v,
            1..=38 => {
                let unit = 10i128.pow(drop as u32);
                let cut = v / unit * unit;
                let rest = v - cut;
                if half_up && rest.abs() >= unit - rest.abs() { cut + rest.signum() * unit } else { cut }
            }
            _ => 0,
        }
    };
    Ok(match batch.sql(0) {
        SqlType::Decimal(_, s) => {
            let SqlType::Decimal(p, out) = batch.out else { return Err(Error::internal("a DECIMAL rounds to a DECIMAL")) };
            let values = array.as_primitive::<Decimal128Type>();
            let unit = 10i128.pow((s - out).max(0) as u32);
            let limit = 10i128.pow(p.into());
            let mut rows = Vec::with_capacity(batch.rows);
            for (row, v) in values.iter().enumerate() {
                let v = v.zip(at(row)).map(|(v, n)| shorten(v, (s as i64).saturating_sub(n)) / unit);
                rows.push(v.filter(|v| v.abs() < limit));
            }
            Arc::new(rows.into_iter().collect::<Decimal128Array>().with_data_type(batch.out.arrow()))
        }
        t if is_integer(&t) => {
            let longs = cast(&array, &DataType::Int64)?;
            let longs = longs.as_primitive::<Int64Type>();
            let values = longs.iter().enumerate().map(|(row, v)| v.zip(at(row)).map(|(v, n)| shorten(v.into(), n.saturating_neg()) as i64));
            narrow(Arc::new(values.collect::<arrow::array::Int64Array>()), &t)?
        }
        _ => {
            let doubles = batch.doubles(0)?;
            let mut text = String::new();
            let out: Vec<Option<f64>> =
                (0..batch.rows).map(|row| doubles.get(row).zip(at(row)).map(|(v, n)| round_double(v, n, half_up, &mut text))).collect();
            let out: ArrayRef = Arc::new(out.into_iter().collect::<arrow::array::Float64Array>());
            cast(&out, &batch.out.arrow())?
        }
    })
}

/// Rounds the shortest decimal text of `v`, as Java's BigDecimal.valueOf does: 2.345 to 2 places is 2.35.
fn round_double(v: f64, n: i64, half_up: bool, text: &mut String) -> f64 {
    use std::fmt::Write;
    if !v.is_finite() || n > 17 {
        return v;
    }
    text.clear();
    write!(text, "{:e}", v.abs()).expect("writing to a String cannot fail");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let digits: i128 = mantissa.replace('.', "").parse().unwrap_or(0);
    let scale = mantissa.len().saturating_sub(2) as i64 - exponent;
    let drop = scale - n;
    if drop <= 0 {
        return v;
    }
    let kept = if drop > 30 {
        0
    } else {
        let unit = 10i128.pow(drop as u32);
        digits / unit + i128::from(half_up && digits % unit * 2 >= unit)
    };
    text.clear();
    write!(text, "{kept}e{}", -n).expect("writing to a String cannot fail");
    let magnitude: f64 = text.parse().unwrap_or(0.0);
    if v < 0.0 { -magnitude } else { magnitude }
}

fn remainder_type(site: &Site) -> Result<SqlType> {
    let (a, b) = (site.sql(if site.is_null(0) { 1 } else { 0 }), site.sql(if site.is_null(1) { 0 } else { 1 }));
    let ((Some((p1, s1)), Some((p2, s2))), false) = ((digits(&a), digits(&b)), is_integer(&a) && is_integer(&b)) else {
        if is_integer(&b) {
            return Ok(b);
        }
        return Err(Error::user(format!("MOD does not take {a} and {b}")).help("cast both sides to DECIMAL(p, s)"));
    };
    let scale = s1.max(s2);
    Ok(SqlType::Decimal(((p1 as i8 - s1).min(p2 as i8 - s2) + scale).clamp(1, 38) as u8, scale))
}

fn remainder(batch: &Batch) -> Result<ArrayRef> {
    let zero = || Error::data("division by zero").help("guard it: MOD(a, NULLIF(b, 0))");
    if is_integer(&batch.out) {
        let (a, b) = (batch.longs(0)?, batch.longs(1)?);
        let mut rows = Vec::with_capacity(batch.rows);
        for row in 0..batch.rows {
            rows.push(match (a.get(row), b.get(row)) {
                (Some(_), Some(0)) => return Err(zero()),
                (Some(a), Some(b)) => Some(a.wrapping_rem(b)),
                _ => None,
            });
        }
        return narrow(Arc::new(rows.into_iter().collect::<arrow::array::Int64Array>()), &batch.out);
    }
    super::decimal::remainder(batch)
}

/// MOD of integers is DataFusion's own, whose kernel is faster; the result has the divisor's type.
fn plain_mod(args: &[Expr], info: &SimplifyContext) -> DfResult<Option<Expr>> {
    let [a, b] = args else { return Ok(None) };
    let (ta, tb) = (info.get_data_type(a)?, info.get_data_type(b)?);
    if !ta.is_signed_integer() || !tb.is_signed_integer() {
        return Ok(None);
    }
    let wide = if ta.primitive_width() >= tb.primitive_width() { ta.clone() } else { tb.clone() };
    let cast = |e: Expr, from: &DataType, to: &DataType| if from == to { e } else { Expr::Cast(Cast::new(Box::new(e), to.clone())) };
    let rest = BinaryExpr::new(Box::new(cast(a.clone(), &ta, &wide)), Operator::Modulo, Box::new(cast(b.clone(), &tb, &wide)));
    Ok(Some(cast(Expr::BinaryExpr(rest), &wide, &tb)))
}

fn one(batch: &Batch, f: fn(f64) -> f64) -> Result<ArrayRef> {
    let v = batch.doubles(0)?;
    batch.primitive::<Float64Type>(|row| Ok(v.get(row).map(f)))
}

fn two(batch: &Batch, f: fn(f64, f64) -> f64) -> Result<ArrayRef> {
    let (a, b) = (batch.doubles(0)?, batch.doubles(1)?);
    batch.primitive::<Float64Type>(|row| Ok(a.get(row).zip(b.get(row)).map(|(a, b)| f(a, b))))
}

fn random_int(batch: &Batch) -> Result<ArrayRef> {
    let bound = batch.longs(0)?;
    batch.primitive::<arrow::datatypes::Int32Type>(|row| match bound.get(row) {
        Some(n) if n < 1 => Err(Error::data(format!("RAND_INTEGER needs a bound above 0, found {n}"))),
        Some(n) => Ok(Some(rand::random_range(0..n.min(i32::MAX.into())) as i32)),
        None => Ok(None),
    })
}
