//! Which worker owns a key: our own specified hash, 128 key groups, contiguous ranges of them.
//!
//! Checkpoints keep state by key group, so this hash is a file format: it must never change, and it
//! depends on no library's internals (DataFusion's hashes and Arrow's row format may change with any
//! version). The specification:
//!
//! ```text
//! h0 = 0        h(i) = XXH3_64(canonical bytes of column i, seed = h(i-1))        key group = h(last) mod 128
//! ```
//!
//! | value | canonical bytes |
//! |---|---|
//! | NULL of any type | the byte FF (no UTF-8 text holds it) |
//! | BOOLEAN | one byte, 0 or 1 |
//! | integers, DATE, TIME, TIMESTAMP | the stored integer, sign-extended to 8 bytes, little-endian |
//! | FLOAT, DOUBLE | the bits of the DOUBLE, 8 bytes little-endian; −0 as +0, every NaN as 7FF8000000000000 |
//! | DECIMAL | the unscaled value, 16 bytes little-endian |
//! | STRING, BYTES | the bytes themselves |
//! | ROW | its fields one after the other, each *framed* |
//! | ARRAY, MAP | the number of elements (8 bytes little-endian), then each element *framed* (entries of a MAP as ROWs) |
//!
//! *Framed*: NULL is the byte FF; anything else is the byte 01, the length of its canonical bytes
//! (8 bytes little-endian), then these bytes.
//!
//! What must hold: equal keys hash equally on every machine, at every version, however rows are batched.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, GenericByteArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, ByteArrayType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, Result};

/// Key groups of every job: the most workers that can share keyed state.
pub const KEY_GROUPS: u16 = 128;

/// The byte that stands for NULL.
const NULL: u8 = 0xFF;
/// The byte before a nested value that is not NULL.
const PRESENT: u8 = 0x01;

/// Replaces `out` by one hash a row over the key columns in their order. Without columns the number of
/// rows is not known and `out` is left empty: such rows all belong to key group 0.
///
/// # Errors
/// Internal: a column of a type that no SQL type is held in.
pub fn hash_rows(columns: &[ArrayRef], out: &mut Vec<u64>) -> Result<()> {
    out.clear();
    out.resize(columns.first().map_or(0, |c| c.len()), 0);
    for column in columns {
        debug_assert_eq!(column.len(), out.len(), "key columns have one length");
        hash_column(column, out)?;
    }
    Ok(())
}

/// The key group of a hash.
pub fn key_group(hash: u64) -> u16 {
    (hash % u64::from(KEY_GROUPS)) as u16
}

/// The worker that owns a key group, of `workers` (1 to [`KEY_GROUPS`]).
pub fn worker_of(key_group: u16, workers: usize) -> usize {
    debug_assert!(key_group < KEY_GROUPS && workers > 0);
    usize::from(key_group) * workers / usize::from(KEY_GROUPS)
}

/// The key groups that a worker owns: contiguous, in the order of the workers.
pub fn range_of(worker: usize, workers: usize) -> Range<u16> {
    let start = |w: usize| (w * usize::from(KEY_GROUPS)).div_ceil(workers) as u16;
    start(worker)..start(worker + 1)
}

fn hash_column(column: &ArrayRef, out: &mut [u64]) -> Result<()> {
    use DataType as T;
    match column.data_type() {
        T::Null => out.iter_mut().for_each(|h| *h = xxh3_64_with_seed(&[NULL], *h)),
        T::Boolean => booleans(column.as_boolean(), out),
        T::Int8 => fixed::<Int8Type, 8>(column.as_primitive(), out, |v| i64::from(v).to_le_bytes()),
        T::Int16 => fixed::<Int16Type, 8>(column.as_primitive(), out, |v| i64::from(v).to_le_bytes()),
        T::Int32 => fixed::<Int32Type, 8>(column.as_primitive(), out, |v| i64::from(v).to_le_bytes()),
        T::Int64 => fixed::<Int64Type, 8>(column.as_primitive(), out, i64::to_le_bytes),
        T::Float32 => fixed::<Float32Type, 8>(column.as_primitive(), out, |v| float_bytes(f64::from(v))),
        T::Float64 => fixed::<Float64Type, 8>(column.as_primitive(), out, float_bytes),
        T::Decimal128(..) => fixed::<Decimal128Type, 16>(column.as_primitive(), out, i128::to_le_bytes),
        T::Date32 => fixed::<Date32Type, 8>(column.as_primitive(), out, |v| i64::from(v).to_le_bytes()),
        T::Time32(TimeUnit::Second) => fixed::<Time32SecondType, 8>(column.as_primitive(), out, |v| i64::from(v).to_le_bytes()),
        T::Time32(_) => fixed::<Time32MillisecondType, 8>(column.as_primitive(), out, |v| i64::from(v).to_le_bytes()),
        T::Time64(TimeUnit::Microsecond) => fixed::<Time64MicrosecondType, 8>(column.as_primitive(), out, i64::to_le_bytes),
        T::Time64(_) => fixed::<Time64NanosecondType, 8>(column.as_primitive(), out, i64::to_le_bytes),
        T::Timestamp(TimeUnit::Second, _) => fixed::<TimestampSecondType, 8>(column.as_primitive(), out, i64::to_le_bytes),
        T::Timestamp(TimeUnit::Millisecond, _) => fixed::<TimestampMillisecondType, 8>(column.as_primitive(), out, i64::to_le_bytes),
        T::Timestamp(TimeUnit::Microsecond, _) => fixed::<TimestampMicrosecondType, 8>(column.as_primitive(), out, i64::to_le_bytes),
        T::Timestamp(TimeUnit::Nanosecond, _) => fixed::<TimestampNanosecondType, 8>(column.as_primitive(), out, i64::to_le_bytes),
        T::Utf8 => bytes(column.as_string::<i32>(), out),
        T::Binary => bytes(column.as_binary::<i32>(), out),
        T::List(_) | T::Map(..) | T::Struct(_) => {
            let mut buffer = Vec::new();
            for (row, hash) in out.iter_mut().enumerate() {
                buffer.clear();
                if column.is_null(row) {
                    buffer.push(NULL)
                } else {
                    canonical(column, row, &mut buffer)?
                }
                *hash = xxh3_64_with_seed(&buffer, *hash);
            }
        }
        other => return Err(Error::internal(format!("a key column of type {other} cannot be hashed"))),
    }
    Ok(())
}

fn fixed<T: ArrowPrimitiveType, const N: usize>(column: &PrimitiveArray<T>, out: &mut [u64], canonical: impl Fn(T::Native) -> [u8; N]) {
    match column.nulls() {
        None => {
            for (hash, value) in out.iter_mut().zip(column.values()) {
                *hash = xxh3_64_with_seed(&canonical(*value), *hash);
            }
        }
        Some(nulls) => {
            for ((hash, value), valid) in out.iter_mut().zip(column.values()).zip(nulls) {
                *hash = if valid { xxh3_64_with_seed(&canonical(*value), *hash) } else { xxh3_64_with_seed(&[NULL], *hash) };
            }
        }
    }
}

fn booleans(column: &BooleanArray, out: &mut [u64]) {
    for (hash, value) in out.iter_mut().zip(column) {
        *hash = xxh3_64_with_seed(&[value.map_or(NULL, u8::from)], *hash);
    }
}

fn bytes<T: ByteArrayType>(column: &GenericByteArray<T>, out: &mut [u64]) {
    for (hash, value) in out.iter_mut().zip(column) {
        *hash = xxh3_64_with_seed(value.map_or(&[NULL][..], |v| v.as_ref()), *hash);
    }
}

fn float_bytes(v: f64) -> [u8; 8] {
    canonical_float(v).to_bits().to_le_bytes()
}

/// −0 as +0, and every NaN as one.
pub(crate) fn canonical_float(v: f64) -> f64 {
    if v.is_nan() { f64::from_bits(0x7FF8_0000_0000_0000) } else { v + 0.0 }
}

/// Appends the canonical bytes of a value that is not NULL.
fn canonical(column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<()> {
    use DataType as T;
    macro_rules! integer {
        ($t:ty) => {
            out.extend_from_slice(&i64::from(column.as_primitive::<$t>().value(row)).to_le_bytes())
        };
    }
    match column.data_type() {
        T::Boolean => out.push(column.as_boolean().value(row).into()),
        T::Int8 => integer!(Int8Type),
        T::Int16 => integer!(Int16Type),
        T::Int32 => integer!(Int32Type),
        T::Int64 => integer!(Int64Type),
        T::Float32 => out.extend_from_slice(&float_bytes(column.as_primitive::<Float32Type>().value(row).into())),
        T::Float64 => out.extend_from_slice(&float_bytes(column.as_primitive::<Float64Type>().value(row))),
        T::Decimal128(..) => out.extend_from_slice(&column.as_primitive::<Decimal128Type>().value(row).to_le_bytes()),
        T::Date32 => integer!(Date32Type),
        T::Time32(TimeUnit::Second) => integer!(Time32SecondType),
        T::Time32(_) => integer!(Time32MillisecondType),
        T::Time64(TimeUnit::Microsecond) => integer!(Time64MicrosecondType),
        T::Time64(_) => integer!(Time64NanosecondType),
        T::Timestamp(TimeUnit::Second, _) => integer!(TimestampSecondType),
        T::Timestamp(TimeUnit::Millisecond, _) => integer!(TimestampMillisecondType),
        T::Timestamp(TimeUnit::Microsecond, _) => integer!(TimestampMicrosecondType),
        T::Timestamp(TimeUnit::Nanosecond, _) => integer!(TimestampNanosecondType),
        T::Utf8 => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
        T::Binary => out.extend_from_slice(column.as_binary::<i32>().value(row)),
        T::Struct(_) => {
            for field in column.as_struct().columns() {
                framed(field, row, out)?;
            }
        }
        T::List(_) => elements(&column.as_list::<i32>().value(row), out)?,
        T::Map(..) => {
            let entries: ArrayRef = std::sync::Arc::new(column.as_map().value(row));
            elements(&entries, out)?;
        }
        other => return Err(Error::internal(format!("a key of type {other} cannot be hashed"))),
    }
    Ok(())
}

fn elements(items: &ArrayRef, out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(&(items.len() as u64).to_le_bytes());
    (0..items.len()).try_for_each(|i| framed(items, i, out))
}

fn framed(column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<()> {
    if column.is_null(row) || matches!(column.data_type(), DataType::Null) {
        out.push(NULL);
        return Ok(());
    }
    out.push(PRESENT);
    let length_at = out.len();
    out.extend_from_slice(&[0; 8]);
    canonical(column, row, out)?;
    let length = (out.len() - length_at - 8) as u64;
    out[length_at..length_at + 8].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, Decimal128Array, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, ListArray, StringArray, StructArray,
        TimestampMillisecondArray,
    };

    use super::*;

    fn hashes(columns: &[ArrayRef]) -> Vec<u64> {
        let mut out = Vec::new();
        hash_rows(columns, &mut out).expect("hashable");
        out
    }

    /// These values are a file format: a failure here is a broken checkpoint, not a test to update.
    #[test]
    fn known_answers() {
        let int: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(-1), None]));
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some(""), Some("a"), Some("75001 Paris"), None]));
        let float: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.0), Some(1.5), Some(f64::NAN), None]));
        let decimal: ArrayRef =
            Arc::new(Decimal128Array::from(vec![Some(0), Some(150), Some(-150), None]).with_precision_and_scale(10, 2).expect("fits"));
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![]),
            Some(vec![Some(1), None]),
            Some(vec![Some(1)]),
            None,
        ]));
        let mut text_of = String::new();
        for (name, columns) in [
            ("int", vec![int.clone()]),
            ("text", vec![text.clone()]),
            ("float", vec![float]),
            ("decimal", vec![decimal]),
            ("list", vec![list]),
            ("int, text", vec![int, text]),
        ] {
            let row: Vec<String> = hashes(&columns).iter().map(|h| format!("{h:016x}/{}", key_group(*h))).collect();
            text_of += &format!("{name}: {}\n", row.join(" "));
        }
        assert_eq!(
            text_of,
            "int: c77b3abb6f87acd9/89 2fbc593564db792e/46 5111c7e47d784413/19 d6bcec3c6b29d72e/46\n\
             text: 2d06800538d394c2/66 e6c632b61e964e1f/31 0744a2318ba141b1/49 d6bcec3c6b29d72e/46\n\
             float: c77b3abb6f87acd9/89 2561a4889ff63458/88 0aa61dcfa381c167/103 d6bcec3c6b29d72e/46\n\
             decimal: d0a66a65c7528968/104 4bbf3cc0e6f6e751/81 9f0072ffb92bbad8/88 d6bcec3c6b29d72e/46\n\
             list: c77b3abb6f87acd9/89 e6c5eb74f48a983e/62 11638f830bb89168/104 d6bcec3c6b29d72e/46\n\
             int, text: 35096e34fb7ce7fa/122 b75e6b6565384fa1/33 936593be62355b3c/60 00cecdfe2cf2f0e2/98\n"
        );
    }

    #[test]
    fn equal_values_hash_equally_in_every_width_and_form() {
        let wide = hashes(&[Arc::new(Int64Array::from(vec![7, -7]))]);
        assert_eq!(wide, hashes(&[Arc::new(Int32Array::from(vec![7, -7]))]));
        assert_eq!(wide, hashes(&[Arc::new(Int8Array::from(vec![7, -7]))]));
        assert_eq!(wide, hashes(&[Arc::new(TimestampMillisecondArray::from(vec![7, -7]))]));
        let zeros = hashes(&[Arc::new(Float64Array::from(vec![0.0, -0.0]))]);
        assert_eq!(zeros[0], zeros[1]);
        assert_eq!(zeros, hashes(&[Arc::new(Float32Array::from(vec![-0.0, 0.0]))]));
        let nan = f64::from_bits(0xFFF8_0000_0000_0001);
        let nans = hashes(&[Arc::new(Float64Array::from(vec![f64::NAN, nan]))]);
        assert_eq!(nans[0], nans[1]);
        assert_eq!(hashes(&[Arc::new(StringArray::from(vec!["é"]))]), hashes(&[Arc::new(BinaryArray::from(vec!["é".as_bytes()]))]),);
    }

    #[test]
    fn neighbours_do_not_collide() {
        let a: ArrayRef = Arc::new(StringArray::from(vec![Some("ab"), Some("a"), None, Some("x")]));
        let b: ArrayRef = Arc::new(StringArray::from(vec![Some("c"), Some("bc"), Some("x"), None]));
        let row: ArrayRef = Arc::new(StructArray::try_from(vec![("a", a.clone()), ("b", b.clone())]).expect("one length"));
        for columns in [vec![a, b], vec![row]] {
            let mut found = hashes(&columns);
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.len(), 4);
        }
    }

    #[test]
    fn ranges_are_contiguous_and_agree_with_the_owner() {
        for workers in [1, 2, 3, 5, 7, 16, 100, 128] {
            let mut next = 0;
            for worker in 0..workers {
                let range = range_of(worker, workers);
                assert_eq!(range.start, next);
                assert!(!range.is_empty(), "{workers} workers: worker {worker} owns nothing");
                assert!(range.clone().all(|g| worker_of(g, workers) == worker));
                next = range.end;
            }
            assert_eq!(next, KEY_GROUPS);
        }
    }
}
