//! Text forms of values, as Flink writes and reads them: dates, times, timestamps, decimals, Java's doubles.
//!
//! Formats, the print connector and CAST share them, so that one value has one text everywhere. The
//! parsers (in [`parse`]) are written by hand: time stamps are read once a record, and pattern
//! interpreters cost more than everything else in a decoder.

use std::fmt::Write;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use chrono_tz::Tz;

mod parse;

pub use parse::{
    Decimal, Moment, TimestampText, decode_base64, parse_boolean, parse_date, parse_decimal, parse_double, parse_float, parse_integer,
    parse_time, parse_timestamp,
};

/// How the fraction of a second is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fraction {
    /// Always this many digits (CAST to STRING).
    Digits(u8),
    /// As many digits as it has, none when it is zero (JSON, CSV).
    Trimmed,
    /// Java's `LocalDateTime.toString`: groups of three digits; zero seconds are left out too (print).
    Java,
    /// Java's `Instant.toString`: groups of three digits, seconds always (print of TIMESTAMP_LTZ).
    Instant,
}

/// `2020-01-02`; years outside 0…9999 carry a sign.
pub fn write_date(days: i32, out: &mut String) {
    let (year, month, day) = civil(days.into());
    match year {
        0..=9999 => push_digits(year as u64, 4, out),
        10_000.. => {
            out.push('+');
            push_digits(year as u64, 4, out);
        }
        _ => {
            out.push('-');
            push_digits(year.unsigned_abs(), 4, out);
        }
    }
    out.push('-');
    push_digits(month.into(), 2, out);
    out.push('-');
    push_digits(day.into(), 2, out);
}

/// `10:11:12.345` of milliseconds since midnight.
pub fn write_time(ms: i32, fraction: Fraction, out: &mut String) {
    let ms = ms.rem_euclid(86_400_000) as u32;
    write_clock(ms / 1000, ms % 1000 * 1_000_000, fraction, out);
}

/// `2020-01-02 03:04:05.6` of a value in `unit`, with `separator` between date and time.
pub fn write_timestamp(value: i64, unit: TimeUnit, separator: char, fraction: Fraction, out: &mut String) {
    let per_second = units_per_second(unit);
    let seconds = value.div_euclid(per_second);
    let nanos = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    // 64 bits of seconds reach further than 32 bits of days: such a value cannot be a date at all.
    let days = i32::try_from(seconds.div_euclid(86_400)).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX });
    write_date(days, out);
    out.push(separator);
    write_clock(seconds.rem_euclid(86_400) as u32, nanos as u32, fraction, out);
}

/// A double as Java writes it: `1.5`, `1.0E10`, `NaN`, `-Infinity`.
pub fn write_double(value: f64, out: &mut String) {
    // Java keeps two digits of the smallest number; one is enough to be unique.
    if value.abs() == f64::from_bits(1) {
        return out.push_str(if value < 0.0 { "-4.9E-324" } else { "4.9E-324" });
    }
    if write_not_finite(value, out) {
        return;
    }
    let plain = value == 0.0 || (1e-3..1e7).contains(&value.abs());
    if plain { write_plain(format_args!("{value}"), out) } else { write_scientific(format_args!("{value:e}"), out) }
}

/// A float as Java writes it.
pub fn write_float(value: f32, out: &mut String) {
    if value.abs() == f32::from_bits(1) {
        return out.push_str(if value < 0.0 { "-1.4E-45" } else { "1.4E-45" });
    }
    if write_not_finite(value.into(), out) {
        return;
    }
    let plain = value == 0.0 || (1e-3..1e7).contains(&value.abs());
    if plain { write_plain(format_args!("{value}"), out) } else { write_scientific(format_args!("{value:e}"), out) }
}

/// A decimal with all digits of its scale: `1.50`.
pub fn write_decimal(value: i128, scale: i8, out: &mut String) {
    if value < 0 {
        out.push('-');
    }
    let scale = scale.max(0) as usize;
    let start = out.len();
    push_display(value.unsigned_abs(), out);
    if scale > 0 {
        let digits = out.len() - start;
        if digits <= scale {
            let zeros = scale + 1 - digits;
            out.insert_str(start, &"0".repeat(zeros));
        }
        out.insert(out.len() - scale, '.');
    }
}

/// A decimal as Java's `BigDecimal.toString` writes it: plain, but `1E-7` where the first digit stands
/// further than six places behind the point; with `strip`, trailing zeros are no digits (`100.00` is `1E+2`).
pub fn write_decimal_java(value: i128, scale: i8, strip: bool, out: &mut String) {
    let (mut value, mut scale) = (value, i32::from(scale));
    if strip {
        if value == 0 {
            return out.push('0');
        }
        while value % 10 == 0 {
            value /= 10;
            scale -= 1;
        }
    }
    let start = out.len();
    push_display(value.unsigned_abs(), out);
    let exponent = (out.len() - start) as i32 - 1 - scale;
    if scale >= 0 && exponent >= -6 {
        out.truncate(start);
        return write_decimal(value, scale as i8, out);
    }
    if out.len() - start > 1 {
        out.insert(start + 1, '.');
    }
    if value < 0 {
        out.insert(start, '-');
    }
    out.push('E');
    if exponent >= 0 {
        out.push('+');
    }
    push_display(exponent, out);
}

/// Bytes as base64.
pub fn write_base64(bytes: &[u8], out: &mut String) {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode_string(bytes, out);
}

/// Flink's print form of the value at `row`: `null`, `1.5`, `2020-01-01T00:00:01Z`, `[1, 2]`, `{k=v}`,
/// `+I[1, x]` for a ROW. A TIMESTAMP_LTZ is a point in time and printed in UTC, whatever `zone` is.
#[allow(clippy::only_used_in_recursion)] // part of the contract: a form that shows local time would need it
pub fn write_value(array: &dyn Array, field: &Field, row: usize, zone: Tz, out: &mut String) {
    if array.is_null(row) {
        return out.push_str("null");
    }
    match array.data_type() {
        DataType::Boolean => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Int8 => push_display(array.as_primitive::<Int8Type>().value(row), out),
        DataType::Int16 => push_display(array.as_primitive::<Int16Type>().value(row), out),
        DataType::Int32 => push_display(array.as_primitive::<Int32Type>().value(row), out),
        DataType::Int64 => push_display(array.as_primitive::<Int64Type>().value(row), out),
        DataType::Float32 => write_float(array.as_primitive::<Float32Type>().value(row), out),
        DataType::Float64 => write_double(array.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal128(_, scale) => write_decimal_java(array.as_primitive::<Decimal128Type>().value(row), *scale, false, out),
        DataType::Utf8 => out.push_str(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => out.push_str(array.as_string::<i64>().value(row)),
        DataType::Utf8View => out.push_str(array.as_string_view().value(row)),
        DataType::Binary => write_list(array.as_binary::<i32>().value(row), '[', ']', |b, out| push_display(*b as i8, out), out),
        DataType::Date32 => write_date(array.as_primitive::<Date32Type>().value(row), out),
        DataType::Time32(TimeUnit::Millisecond) => {
            write_time(array.as_primitive::<Time32MillisecondType>().value(row), Fraction::Java, out);
        }
        DataType::Timestamp(unit, utc) => {
            let fraction = if utc.is_some() { Fraction::Instant } else { Fraction::Java };
            write_timestamp(timestamp_at(array, *unit, row), *unit, 'T', fraction, out);
            if utc.is_some() {
                out.push('Z');
            }
        }
        DataType::List(item) => {
            let list = array.as_list::<i32>().value(row);
            write_list(0..list.len(), '[', ']', |i, out| write_value(&list, item, i, zone, out), out);
        }
        DataType::Map(entries, _) => {
            let map = array.as_map().value(row);
            let (keys, values) = (map.column(0), map.column(1));
            let DataType::Struct(fields) = entries.data_type() else { return };
            let entry = |i: usize, out: &mut String| {
                write_value(keys, &fields[0], i, zone, out);
                out.push('=');
                write_value(values, &fields[1], i, zone, out);
            };
            write_list(0..map.len(), '{', '}', entry, out);
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            out.push_str("+I");
            write_list(columns.iter().zip(fields), '[', ']', |(c, f), out| write_value(c, f, row, zone, out), out);
        }
        // Types that no SQL type maps to (an unsigned column of a foreign Parquet file, say) print as Arrow shows them.
        _ => match arrow::util::display::array_value_to_string(array, row) {
            Ok(text) => out.push_str(&text),
            Err(_) => push_display(field.data_type(), out),
        },
    }
}

/// The value of a timestamp array of any unit.
pub fn timestamp_at(array: &dyn Array, unit: TimeUnit, row: usize) -> i64 {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row),
    }
}

/// How many of `unit` are a second.
pub fn units_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// `[a, b]` of any elements.
fn write_list<I: IntoIterator>(items: I, open: char, close: char, mut item: impl FnMut(I::Item, &mut String), out: &mut String) {
    out.push(open);
    for (i, x) in items.into_iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        item(x, out);
    }
    out.push(close);
}

fn write_clock(second_of_day: u32, nanos: u32, fraction: Fraction, out: &mut String) {
    let (h, m, s) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    push_digits(h.into(), 2, out);
    out.push(':');
    push_digits(m.into(), 2, out);
    if fraction == Fraction::Java && s == 0 && nanos == 0 {
        return;
    }
    out.push(':');
    push_digits(s.into(), 2, out);
    let digits = match fraction {
        Fraction::Digits(n) => n.min(9),
        Fraction::Trimmed if nanos == 0 => 0,
        Fraction::Trimmed => (1..9).find(|n| nanos.is_multiple_of(10u32.pow(9 - n))).unwrap_or(9) as u8,
        Fraction::Java | Fraction::Instant if nanos == 0 => 0,
        Fraction::Java | Fraction::Instant if nanos.is_multiple_of(1_000_000) => 3,
        Fraction::Java | Fraction::Instant if nanos.is_multiple_of(1_000) => 6,
        Fraction::Java | Fraction::Instant => 9,
    };
    if digits > 0 {
        out.push('.');
        push_digits((nanos / 10u32.pow(9 - u32::from(digits))).into(), digits.into(), out);
    }
}

fn write_not_finite(value: f64, out: &mut String) -> bool {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value < 0.0 { "-Infinity" } else { "Infinity" });
    }
    !value.is_finite()
}

/// Rust's shortest digits, with the `.0` that Java never leaves out.
fn write_plain(digits: std::fmt::Arguments<'_>, out: &mut String) {
    let start = out.len();
    push_display(digits, out);
    if !out[start..].contains('.') {
        out.push_str(".0");
    }
}

/// Rust's `1.5e10` or `1e10` as Java's `1.5E10` or `1.0E10`.
fn write_scientific(digits: std::fmt::Arguments<'_>, out: &mut String) {
    let start = out.len();
    push_display(digits, out);
    let Some(e) = out[start..].find('e').map(|i| start + i) else { return };
    let mantissa_is_whole = !out[start..e].contains('.');
    out.replace_range(e..e + 1, if mantissa_is_whole { ".0E" } else { "E" });
}

fn push_display(value: impl std::fmt::Display, out: &mut String) {
    write!(out, "{value}").expect("writing to a String cannot fail");
}

/// `value` with at least `width` digits.
fn push_digits(value: u64, width: usize, out: &mut String) {
    let mut digits = [b'0'; 20];
    let (mut at, mut rest) = (digits.len(), value);
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let start = at.min(digits.len() - width);
    out.extend(digits[start..].iter().map(|d| char::from(*d)));
}

/// Year, month and day of a day number (days since 1970-01-01), after Howard Hinnant's `civil_from_days`.
pub fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Day number of a civil date: the inverse of [`civil`].
pub fn day_number(year: i64, month: u32, day: u32) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let shifted = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * shifted + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Days of a month.
pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        f(&mut out);
        out
    }

    #[test]
    fn doubles_are_written_as_java_does() {
        for (value, want) in [
            (1.0, "1.0"),
            (1e10, "1.0E10"),
            (1.25e-4, "1.25E-4"),
            (0.001, "0.001"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (-0.0, "-0.0"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::from_bits(1), "4.9E-324"),
        ] {
            assert_eq!(text(|o| write_double(value, o)), want);
        }
        assert_eq!(text(|o| write_float(16_777_216.0, o)), "1.6777216E7");
        assert_eq!(text(|o| write_float(1.1, o)), "1.1");
    }

    #[test]
    fn decimals_are_written_plain_or_as_java_does() {
        assert_eq!(text(|o| write_decimal(-5, 2, o)), "-0.05");
        assert_eq!(text(|o| write_decimal(150, 0, o)), "150");
        assert_eq!(text(|o| write_decimal_java(10000, 2, true, o)), "1E+2");
        assert_eq!(text(|o| write_decimal_java(-150, 2, true, o)), "-1.5");
        assert_eq!(text(|o| write_decimal_java(10, 8, false, o)), "1.0E-7");
        assert_eq!(text(|o| write_decimal_java(0, 2, false, o)), "0.00");
    }

    #[test]
    fn times_are_written_in_all_three_forms() {
        let at = |ms, fraction| text(|o| write_timestamp(ms, TimeUnit::Millisecond, ' ', fraction, o));
        assert_eq!(at(1_577_934_245_100, Fraction::Trimmed), "2020-01-02 03:04:05.1");
        assert_eq!(at(1_577_934_245_100, Fraction::Java), "2020-01-02 03:04:05.100");
        assert_eq!(at(1_577_934_240_000, Fraction::Java), "2020-01-02 03:04");
        assert_eq!(at(1_577_934_240_000, Fraction::Trimmed), "2020-01-02 03:04:00");
        assert_eq!(at(-1, Fraction::Digits(3)), "1969-12-31 23:59:59.999");
        assert_eq!(text(|o| write_date(-719_529, o)), "-0001-12-31");
    }
}
