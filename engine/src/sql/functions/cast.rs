//! CAST and TRY_CAST between all types, with Flink's values.
//!
//! What does not fit is one of three things, and each is Flink's: a number too large for an integer type
//! wraps or saturates; a DECIMAL with too many digits is NULL; a text that is no value fails the job under
//! CAST and is NULL under TRY_CAST.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, ListArray, MapArray, PrimitiveArray,
    StringArray, StringBuilder, StructArray, new_null_array,
};
use arrow::compute::cast as arrow_cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};

use super::cast_text::{Writer, parse_bool, parse_date, parse_int, parse_sql_timestamp, parse_time};
use super::columns::{Batch, datetime, from_ticks, repeated, ticks, to_ticks};
use super::decimal::to_scale;
use super::scalar::{Definition, Site, function, is_integer, is_time};
use super::session::Session;
use crate::error::{Error, Result};
use crate::formats::text::{Decimal, parse_decimal, parse_double, parse_float, write_double};
use crate::stream::SqlType;

/// What casts become.
pub(super) const FUNCTIONS: &[Definition] =
    &[function(&["$cast"], "at", target, |b| eval(b, false)), function(&["$try_cast"], "at", target, |b| eval(b, true))];

fn target(site: &Site) -> Result<SqlType> {
    let text = site.text_literal(1).ok_or_else(|| Error::internal("a cast lost its type"))?;
    let to = SqlType::parse(text)?;
    if !site.is_null(0) && !castable(&site.sql(0), &to) {
        let e = Error::user(format!("CAST from {} to {to} does not exist", site.sql(0)));
        return Err(match (&site.sql(0), &to) {
            (from, SqlType::Timestamp(_) | SqlType::TimestampLtz(_)) if from.is_numeric() => {
                e.help("write TO_TIMESTAMP_LTZ(x, 3) for milliseconds since 1970, TO_TIMESTAMP_LTZ(x, 0) for seconds")
            }
            (SqlType::Timestamp(_) | SqlType::TimestampLtz(_), t) if t.is_numeric() => e.help("write UNIX_TIMESTAMP(CAST(x AS STRING))"),
            _ => e,
        });
    }
    Ok(to)
}

fn eval(batch: &Batch, attempt: bool) -> Result<ArrayRef> {
    let out = convert(batch.raw(0), &batch.sql(0), &batch.out, batch.session, attempt)?;
    if batch.is_constant(0) && batch.rows > 1 {
        return repeated(&out, batch.rows);
    }
    Ok(out)
}

/// Whether CAST exists between the two types.
fn castable(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as T;
    let bytes = |t: &T| matches!(t, T::Binary(_) | T::VarBinary(_));
    match (from, to) {
        (_, to) if to.is_text() => true,
        (from, T::Array(..) | T::Map(..) | T::Row(_)) if from.is_text() => false,
        (from, _) if from.is_text() => true,
        (a, b) if a.is_numeric() && b.is_numeric() => true,
        (a, T::Boolean) if a.is_numeric() => true,
        (T::Boolean, b) => b.is_numeric() || *b == T::Boolean,
        (a, b) if bytes(a) && bytes(b) => true,
        (T::Time(_), T::Date) | (T::Date, T::Time(_)) => false,
        (a, b) if is_time(a) && is_time(b) => true,
        (T::Array(a, _), T::Array(b, _)) => castable(a, b),
        (T::Map(k, v, _), T::Map(k2, v2, _)) => castable(k, k2) && castable(v, v2),
        (T::Row(a), T::Row(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| castable(&a.1, &b.1)),
        _ => false,
    }
}

/// `array`, of type `from`, as `to`. With `attempt`, what is no value of `to` becomes NULL.
pub(super) fn convert(array: &ArrayRef, from: &SqlType, to: &SqlType, session: &Session, attempt: bool) -> Result<ArrayRef> {
    use SqlType as T;
    if *array.data_type() == DataType::Null {
        return Ok(new_null_array(&to.arrow(), array.len()));
    }
    if from == to && *array.data_type() == to.arrow() {
        return Ok(array.clone());
    }
    let cast = Cast { to, session, attempt };
    match (from, to) {
        (_, T::Char(_) | T::VarChar(_)) => cast.write_text(array, from),
        (from, _) if from.is_text() => cast.read_text(arrow_cast(array, &DataType::Utf8)?.as_string()),
        (T::Boolean, T::Boolean) => Ok(array.clone()),
        (T::Boolean, _) => {
            let ints: ArrayRef = Arc::new(array.as_boolean().iter().map(|b| b.map(i32::from)).collect::<PrimitiveArray<Int32Type>>());
            cast.numbers(&ints, &T::Int)
        }
        (_, T::Boolean) => {
            let doubles = arrow_cast(array, &DataType::Float64)?;
            Ok(Arc::new(doubles.as_primitive::<Float64Type>().iter().map(|v| v.map(|v| v != 0.0)).collect::<BooleanArray>()))
        }
        (from, to) if from.is_numeric() && to.is_numeric() => cast.numbers(array, from),
        (from, to) if is_time(from) && is_time(to) => cast.times(array, from),
        (_, T::Binary(_) | T::VarBinary(_)) => Ok(arrow_cast(array, &DataType::Binary)?),
        (T::Array(a, _), T::Array(b, null)) => {
            let list = array.as_list::<i32>();
            let values = convert(list.values(), a, b, session, attempt)?;
            let item = Arc::new(b.field("item", *null));
            Ok(Arc::new(ListArray::try_new(item, list.offsets().clone(), values, list.nulls().cloned())?))
        }
        (T::Map(k, v, _), T::Map(k2, v2, _)) => {
            let map = array.as_map();
            let keys = convert(map.keys(), k, k2, session, attempt)?;
            let values = convert(map.values(), v, v2, session, attempt)?;
            let DataType::Map(entries, sorted) = to.arrow() else { return Err(Error::internal("a MAP is an Arrow map")) };
            let DataType::Struct(fields) = entries.data_type() else { return Err(Error::internal("entries are structs")) };
            let rows = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
            Ok(Arc::new(MapArray::try_new(entries.clone(), map.offsets().clone(), rows, map.nulls().cloned(), sorted)?))
        }
        (T::Row(a), T::Row(b)) => {
            let row = array.as_struct();
            let columns = row.columns().iter().zip(a.iter().zip(b));
            let columns = columns.map(|(c, (a, b))| convert(c, &a.1, &b.1, session, attempt)).collect::<Result<Vec<_>>>()?;
            let DataType::Struct(fields) = to.arrow() else { return Err(Error::internal("a ROW is an Arrow struct")) };
            Ok(Arc::new(StructArray::try_new_with_length(fields, columns, row.nulls().cloned(), row.len())?))
        }
        (from, to) => Err(Error::user(format!("CAST from {from} to {to} does not exist"))),
    }
}

struct Cast<'a> {
    to: &'a SqlType,
    session: &'a Session,
    attempt: bool,
}

impl Cast<'_> {
    /// A value that `to` cannot hold.
    fn bad<T>(&self, value: &str) -> Result<Option<T>> {
        if self.attempt {
            return Ok(None);
        }
        let shown: String = value.chars().take(100).collect();
        Err(Error::data(format!("'{shown}' is no {}", self.to)).help("TRY_CAST gives NULL instead of failing the job"))
    }

    fn read_text(&self, texts: &StringArray) -> Result<ArrayRef> {
        use SqlType as T;
        Ok(match self.to {
            T::Boolean => {
                let parse = |s: Option<&str>| s.map_or(Ok(None), |s| parse_bool(s).map_or_else(|| self.bad(s), |b| Ok(Some(b))));
                Arc::new(texts.iter().map(parse).collect::<Result<BooleanArray>>()?)
            }
            T::TinyInt => self.parse::<Int8Type>(texts, |s| parse_int(s)?.try_into().ok())?,
            T::SmallInt => self.parse::<Int16Type>(texts, |s| parse_int(s)?.try_into().ok())?,
            T::Int => self.parse::<Int32Type>(texts, |s| parse_int(s)?.try_into().ok())?,
            T::BigInt => self.parse::<Int64Type>(texts, parse_int)?,
            T::Float => self.parse::<Float32Type>(texts, parse_float)?,
            T::Double => self.parse::<Float64Type>(texts, parse_double)?,
            T::Decimal(p, s) => {
                let mut out = Vec::with_capacity(texts.len());
                for text in texts {
                    out.push(match text {
                        None => None,
                        Some(text) => match parse_decimal(text.trim().as_bytes(), *p, *s) {
                            Some(Decimal::Value(v)) => Some(v),
                            Some(Decimal::TooLarge) => None,
                            None => self.bad(text)?,
                        },
                    });
                }
                Arc::new(out.into_iter().collect::<Decimal128Array>().with_data_type(self.to.arrow()))
            }
            T::Date => self.parse_ticks(texts, |s| parse_date(s.trim()))?,
            T::Time(_) => self.parse_ticks(texts, |s| parse_time(s.trim()))?,
            T::Timestamp(_) | T::TimestampLtz(_) => self.parse_ticks(texts, |s| parse_sql_timestamp(s.trim()))?,
            T::Binary(_) | T::VarBinary(_) => Arc::new(texts.iter().map(|s| s.map(str::as_bytes)).collect::<BinaryArray>()),
            other => return Err(Error::user(format!("CAST from STRING to {other} does not exist"))),
        })
    }

    fn parse<T: ArrowPrimitiveType>(&self, texts: &StringArray, parse: impl Fn(&str) -> Option<T::Native>) -> Result<ArrayRef> {
        let value = |s: Option<&str>| match s {
            None => Ok(None),
            Some(s) => parse(s).map_or_else(|| self.bad(s), |v| Ok(Some(v))),
        };
        Ok(Arc::new(texts.iter().map(value).collect::<Result<PrimitiveArray<T>>>()?))
    }

    fn parse_ticks(&self, texts: &StringArray, parse: impl Fn(&str) -> Option<chrono::NaiveDateTime>) -> Result<ArrayRef> {
        let value = |s: Option<&str>| match s {
            None => Ok(None),
            Some(s) => match parse(s) {
                Some(t) => to_ticks(self.to, t, self.session),
                None => self.bad(s),
            },
        };
        from_ticks(self.to, texts.iter().map(value).collect::<Result<_>>()?)
    }

    fn numbers(&self, array: &ArrayRef, from: &SqlType) -> Result<ArrayRef> {
        use SqlType as T;
        if let T::Decimal(p, s) = self.to {
            let values: Vec<Option<i128>> = match from {
                T::Float | T::Double => {
                    let doubles = arrow_cast(array, &DataType::Float64)?;
                    let mut text = String::new();
                    let mut value = |v: f64| {
                        text.clear();
                        write_double(v, &mut text);
                        match parse_decimal(text.as_bytes(), *p, *s) {
                            Some(Decimal::Value(v)) => Ok(Some(v)),
                            Some(Decimal::TooLarge) => Ok(None),
                            None => self.bad(&text),
                        }
                    };
                    doubles.as_primitive::<Float64Type>().iter().map(|v| v.map_or(Ok(None), &mut value)).collect::<Result<_>>()?
                }
                T::Decimal(_, scale) => {
                    array.as_primitive::<Decimal128Type>().iter().map(|v| v.and_then(|v| to_scale(v, *scale, *p, *s))).collect()
                }
                _ => {
                    let longs = arrow_cast(array, &DataType::Int64)?;
                    longs.as_primitive::<Int64Type>().iter().map(|v| v.and_then(|v| to_scale(v.into(), 0, *p, *s))).collect()
                }
            };
            return Ok(Arc::new(values.into_iter().collect::<Decimal128Array>().with_data_type(self.to.arrow())));
        }
        // One wide column, then narrow it: whole numbers wrap, floating ones saturate at INT or BIGINT first.
        if is_integer(self.to) {
            return Ok(match from {
                T::Float | T::Double => {
                    let wide = arrow_cast(array, &DataType::Float64)?;
                    let wide = wide.as_primitive::<Float64Type>();
                    match self.to {
                        T::TinyInt => Arc::new(wide.unary::<_, Int8Type>(|v| v as i32 as i8)),
                        T::SmallInt => Arc::new(wide.unary::<_, Int16Type>(|v| v as i32 as i16)),
                        T::Int => Arc::new(wide.unary::<_, Int32Type>(|v| v as i32)),
                        _ => Arc::new(wide.unary::<_, Int64Type>(|v| v as i64)),
                    }
                }
                _ => {
                    let wide = match from {
                        T::Decimal(_, s) => {
                            let unit = 10i128.pow((*s).max(0) as u32);
                            array.as_primitive::<Decimal128Type>().unary::<_, Int64Type>(|v| (v / unit) as i64)
                        }
                        _ => arrow_cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
                    };
                    match self.to {
                        T::TinyInt => Arc::new(wide.unary::<_, Int8Type>(|v| v as i8)),
                        T::SmallInt => Arc::new(wide.unary::<_, Int16Type>(|v| v as i16)),
                        T::Int => Arc::new(wide.unary::<_, Int32Type>(|v| v as i32)),
                        _ => Arc::new(wide),
                    }
                }
            });
        }
        let double: Float64Array = match from {
            T::Decimal(_, s) => array.as_primitive::<Decimal128Type>().unary::<_, Float64Type>(|v| decimal_to_double(v, *s)),
            _ => arrow_cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone(),
        };
        Ok(match (self.to, from) {
            (T::Double, _) => Arc::new(double),
            (_, T::Decimal(..) | T::Double) => Arc::new(double.unary::<_, Float32Type>(|v| v as f32)) as ArrayRef,
            // BIGINT to FLOAT rounds once, not twice.
            _ => Arc::new(arrow_cast(array, &DataType::Float32)?.as_primitive::<Float32Type>().clone() as Float32Array),
        })
    }

    fn times(&self, array: &ArrayRef, from: &SqlType) -> Result<ArrayRef> {
        let (numbers, nanos) = ticks(array)?;
        let local = matches!(from, SqlType::TimestampLtz(_));
        let mut out = Vec::with_capacity(numbers.len());
        for v in &numbers {
            out.push(match v.and_then(|v| datetime(v, nanos)) {
                Some(t) => to_ticks(self.to, if local { self.session.to_local(t) } else { t }, self.session)?,
                None => None,
            });
        }
        from_ticks(self.to, out)
    }

    fn write_text(&self, array: &ArrayRef, from: &SqlType) -> Result<ArrayRef> {
        let (length, pad) = match self.to {
            SqlType::Char(n) => (*n as usize, true),
            SqlType::VarChar(n) => (*n as usize, false),
            other => return Err(Error::internal(format!("{other} is no text"))),
        };
        if from.is_text() && *self.to == SqlType::STRING {
            return Ok(arrow_cast(array, &DataType::Utf8)?);
        }
        let writer = Writer::new(array, from, self.session)?;
        let mut out = StringBuilder::with_capacity(array.len(), array.len() * 12);
        let mut text = String::new();
        for row in 0..array.len() {
            if array.is_null(row) {
                out.append_null();
                continue;
            }
            text.clear();
            writer.write(row, &mut text);
            if *self.to != SqlType::STRING {
                if let Some((cut, _)) = text.char_indices().nth(length) {
                    text.truncate(cut);
                } else if pad {
                    text.extend(std::iter::repeat_n(' ', length - text.chars().count()));
                }
            }
            out.append_value(&text);
        }
        Ok(Arc::new(out.finish()))
    }
}

/// The double nearest to a decimal.
fn decimal_to_double(v: i128, scale: i8) -> f64 {
    if v.unsigned_abs() < 1 << 53 && scale <= 22 {
        return v as f64 / 10f64.powi(scale.into());
    }
    let mut text = String::new();
    crate::formats::text::write_decimal(v, scale, &mut text);
    text.parse().unwrap_or(f64::NAN)
}

/// Converts each of `arrays` to `to`; a helper of functions with a common type.
pub(super) fn convert_all(batch: &Batch, range: std::ops::Range<usize>, to: &SqlType) -> Result<Vec<ArrayRef>> {
    range.map(|i| convert(&batch.full(i)?, &batch.sql(i), to, batch.session, false)).collect()
}
