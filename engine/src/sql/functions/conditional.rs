//! Functions over any type that choose one of their arguments: COALESCE, IFNULL, IF, NULLIF, GREATEST,
//! LEAST, and the IN list.
//!
//! Their arguments get one common type. COALESCE and IF become CASE where no conversion is needed, so that
//! an argument that is not chosen is not computed.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::boolean::or_kleene;
use arrow::compute::kernels::cmp;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{is_not_null, nullif};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Case, Expr};

use super::binary::comparable;
use super::cast::{convert, convert_all};
use super::columns::Batch;
use super::decimal::digits;
use super::scalar::{Definition, Site, function, is_integer, is_time};
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// Choosing functions.
pub(super) const FUNCTIONS: &[Definition] = &[
    Definition { simplify: Some(coalesce_as_case), ..function(&["COALESCE"], "aa*", |s| common(s, 0), coalesce) },
    Definition { simplify: Some(coalesce_as_case), ..function(&["IFNULL"], "aa", |s| common(s, 0), coalesce) },
    Definition { simplify: Some(if_as_case), ..function(&["IF"], "baa", |s| common(s, 1), choose) },
    function(&["NULLIF"], "aa", null_if_type, null_if),
    function(&["GREATEST"], "aa*", |s| common(s, 0), |b| extreme(b, true)),
    function(&["LEAST"], "aa*", |s| common(s, 0), |b| extreme(b, false)),
    Definition { simplify: Some(in_list), ..function(&["$in"], "aa*", in_type, is_in) },
];

/// The one type of all arguments from `from` on.
fn common(site: &Site, from: usize) -> Result<SqlType> {
    let mut out: Option<SqlType> = None;
    for i in from..site.len() {
        if site.is_null(i) {
            continue;
        }
        let t = site.sql(i);
        out = Some(match out {
            None => t,
            Some(seen) => common_type(&seen, &t).ok_or_else(|| {
                let e = Error::user(format!("{} does not take {seen} together with {t}", site.name));
                if seen.is_text() || t.is_text() { e.help("convert to text: CAST(x AS STRING)") } else { e }
            })?,
        });
    }
    Ok(out.unwrap_or(SqlType::STRING))
}

/// The type that holds the values of both.
pub(super) fn common_type(a: &SqlType, b: &SqlType) -> Option<SqlType> {
    use SqlType as T;
    if a == b {
        return Some(a.clone());
    }
    if a.is_text() && b.is_text() {
        return Some(T::STRING);
    }
    if a.is_numeric() && b.is_numeric() {
        if let (Some((p1, s1)), Some((p2, s2))) = (digits(a), digits(b)) {
            if is_integer(a) && is_integer(b) {
                return Some(if p1 >= p2 { a.clone() } else { b.clone() });
            }
            let scale = s1.max(s2);
            let whole = (p1 as i8 - s1).max(p2 as i8 - s2);
            return Some(T::Decimal((whole + scale).clamp(1, 38) as u8, scale));
        }
        // Of two floating types the first decides, as in Flink; a DECIMAL makes it a DOUBLE.
        return Some(match (a, b) {
            (T::Decimal(..), _) | (_, T::Decimal(..)) => T::Double,
            (T::Float | T::Double, _) => a.clone(),
            _ => b.clone(),
        });
    }
    if is_time(a) && is_time(b) {
        let p = |t: &T| match t {
            T::Timestamp(p) | T::TimestampLtz(p) => *p,
            _ => 0,
        };
        return match (a, b) {
            (T::Time(x), T::Time(y)) => Some(T::Time(*x.max(y))),
            (T::Time(_), _) | (_, T::Time(_)) => None,
            (T::TimestampLtz(_), _) | (_, T::TimestampLtz(_)) => Some(T::TimestampLtz(p(a).max(p(b)))),
            _ => Some(T::Timestamp(p(a).max(p(b)))),
        };
    }
    let bytes = |t: &T| matches!(t, T::Binary(_) | T::VarBinary(_));
    if bytes(a) && bytes(b) {
        return Some(T::BYTES);
    }
    match (a, b) {
        (T::Array(x, n), T::Array(y, m)) => Some(T::Array(Box::new(common_type(x, y)?), *n || *m)),
        (T::Map(k, v, n), T::Map(k2, v2, m)) => Some(T::Map(Box::new(common_type(k, k2)?), Box::new(common_type(v, v2)?), *n || *m)),
        (T::Row(x), T::Row(y)) if x.len() == y.len() => {
            let field = |(a, b): (&(String, T, bool), &(String, T, bool))| Some((a.0.clone(), common_type(&a.1, &b.1)?, a.2 || b.2));
            Some(T::Row(x.iter().zip(y).map(field).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

fn coalesce(batch: &Batch) -> Result<ArrayRef> {
    let mut arrays = convert_all(batch, 0..batch.len(), &batch.out)?;
    let mut out = arrays.pop().unwrap_or_else(|| new_null_array(&batch.out.arrow(), batch.rows));
    while let Some(first) = arrays.pop() {
        out = zip(&is_not_null(&first)?, &first, &out)?;
    }
    Ok(out)
}

fn choose(batch: &Batch) -> Result<ArrayRef> {
    let condition = batch.bools(0)?;
    let condition: BooleanArray = (0..batch.rows).map(|row| Some(condition.get(row) == Some(true))).collect();
    let arrays = convert_all(batch, 1..3, &batch.out)?;
    Ok(zip(&condition, &arrays[0], &arrays[1])?)
}

fn null_if_type(site: &Site) -> Result<SqlType> {
    if site.is_null(0) {
        return Ok(SqlType::STRING);
    }
    if !site.is_null(1) {
        common(site, 0)?;
    }
    Ok(site.sql(0))
}

fn null_if(batch: &Batch) -> Result<ArrayRef> {
    let (a, b) = (batch.full(0)?, batch.full(1)?);
    if *a.data_type() == arrow::datatypes::DataType::Null || *b.data_type() == arrow::datatypes::DataType::Null {
        return convert(&a, &batch.sql(0), &batch.out, batch.session, false);
    }
    let t = common_type(&batch.sql(0), &batch.sql(1)).ok_or_else(|| Error::internal("NULLIF planned without a common type"))?;
    let arrays = convert_all(batch, 0..2, &t)?;
    Ok(nullif(&a, &cmp::eq(&arrays[0], &arrays[1])?)?)
}

fn extreme(batch: &Batch, greatest: bool) -> Result<ArrayRef> {
    let arrays = convert_all(batch, 0..batch.len(), &batch.out)?;
    let mut out = arrays[0].clone();
    for next in &arrays[1..] {
        // NULL if any argument is NULL: a NULL comparison takes `next` where `out` is known, else keeps NULL.
        let better = if greatest { cmp::lt(&out, next)? } else { cmp::gt(&out, next)? };
        let take: BooleanArray =
            (0..batch.rows).map(|i| Some(out.is_valid(i) && (next.is_null(i) || (better.is_valid(i) && better.value(i))))).collect();
        out = zip(&take, next, &out)?;
    }
    Ok(out)
}

fn in_type(site: &Site) -> Result<SqlType> {
    for i in 1..site.len() {
        let (x, v) = (site.sql(0), site.sql(i));
        let fits = site.is_null(0)
            || site.is_null(i)
            || comparable(&x, &v)
            || ((is_time(&x) || x.is_numeric()) && v.is_text())
            || (is_time(&x) && is_time(&v));
        if !fits {
            return Err(Error::user(format!("IN compares {x} with {v}")).help(format!("convert the values: CAST(v AS {x})")));
        }
    }
    Ok(SqlType::Boolean)
}

fn is_in(batch: &Batch) -> Result<ArrayRef> {
    let mut out = BooleanArray::new(BooleanBuffer::new_unset(batch.rows), None);
    let x_type = batch.sql(0);
    for i in 1..batch.len() {
        let v_type = batch.sql(i);
        // A list is read in the type on the left where that is an integer or the list is text, as in Flink.
        let t = match is_integer(&x_type) || (v_type.is_text() && !x_type.is_text()) {
            true => x_type.clone(),
            false => common_type(&x_type, &v_type).unwrap_or(x_type.clone()),
        };
        let x = convert(&batch.full(0)?, &x_type, &t, batch.session, false)?;
        let v = convert(&batch.full(i)?, &v_type, &t, batch.session, false)?;
        out = or_kleene(&out, &cmp::eq(&x, &v)?)?;
    }
    Ok(Arc::new(out))
}

/// Whether all arguments from `from` on have one Arrow type, so that CASE or IN LIST needs no cast.
fn alike(args: &[Expr], info: &SimplifyContext) -> DfResult<bool> {
    let types = args.iter().map(|a| info.get_data_type(a)).collect::<DfResult<Vec<_>>>()?;
    Ok(types.windows(2).all(|w| w[0] == w[1]))
}

fn coalesce_as_case(args: &[Expr], info: &SimplifyContext) -> DfResult<Option<Expr>> {
    if !alike(args, info)? {
        return Ok(None);
    }
    let (last, first) = args.split_last().expect("COALESCE has arguments");
    let whens = first.iter().map(|a| (Box::new(Expr::IsNotNull(Box::new(a.clone()))), Box::new(a.clone()))).collect();
    Ok(Some(Expr::Case(Case::new(None, whens, Some(Box::new(last.clone()))))))
}

fn if_as_case(args: &[Expr], info: &SimplifyContext) -> DfResult<Option<Expr>> {
    let [condition, yes, no] = args else { return Ok(None) };
    if !alike(&args[1..], info)? {
        return Ok(None);
    }
    let when = vec![(Box::new(condition.clone()), Box::new(yes.clone()))];
    Ok(Some(Expr::Case(Case::new(None, when, Some(Box::new(no.clone()))))))
}

fn in_list(args: &[Expr], info: &SimplifyContext) -> DfResult<Option<Expr>> {
    if !alike(args, info)? {
        return Ok(None);
    }
    let (x, list) = args.split_first().expect("IN has a left side");
    Ok(Some(Expr::InList(InList::new(Box::new(x.clone()), list.to_vec(), false))))
}
