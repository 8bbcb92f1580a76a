//! Reading the text forms: numbers as Java's `parse` methods take them, dates and times as Flink's
//! formatters do. All return `None` for a text that is no value; none allocates.

use arrow::datatypes::TimeUnit;

use super::{day_number, days_in_month, units_per_second};

/// A point on the time line or on the local calendar: seconds since 1970-01-01 00:00:00, and nanoseconds in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970-01-01 00:00:00.
    pub seconds: i64,
    /// Nanoseconds in that second.
    pub nanos: u32,
}

impl Moment {
    /// The value in `unit`, finer digits cut (not rounded); `None` where it does not fit in 64 bits.
    pub fn value(self, unit: TimeUnit) -> Option<i64> {
        let per_second = units_per_second(unit);
        self.seconds.checked_mul(per_second)?.checked_add(i64::from(self.nanos) / (1_000_000_000 / per_second))
    }
}

/// One of the forms in which formats write a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampText {
    /// `T` between date and time, and seconds may be missing; else a blank, and they may not.
    pub iso: bool,
    /// A `Z` must follow (TIMESTAMP_LTZ).
    pub zulu: bool,
}

/// `2020-01-02 03:04:05.123` (SQL) or `2020-01-02T03:04:05.123` (ISO-8601), exactly, with up to nine digits of
/// fraction. As in Flink, a day up to 31 that the month does not have becomes its last one in three of the
/// four forms; ISO-8601 without zone is strict.
pub fn parse_timestamp(text: &[u8], form: TimestampText) -> Option<Moment> {
    let (year, month, day, rest) = date_parts(text)?;
    let strict = form.iso && !form.zulu;
    let last = days_in_month(year, month);
    if day > last && strict {
        return None;
    }
    let (&separator, rest) = rest.split_first()?;
    let fits = if form.iso { separator == b'T' || separator == b't' && strict } else { separator == b' ' };
    if !fits {
        return None;
    }
    let rest = if form.zulu { rest.strip_suffix(b"Z")? } else { rest };
    let (second_of_day, nanos) = clock(rest, form.iso, !strict)?;
    Some(Moment { seconds: day_number(year, month, day.min(last)) * 86_400 + i64::from(second_of_day), nanos })
}

/// `2020-01-02`, exactly; a day that the month does not have is no date. Days since 1970-01-01.
pub fn parse_date(text: &[u8]) -> Option<i32> {
    let (year, month, day, rest) = date_parts(text)?;
    if !rest.is_empty() || day > days_in_month(year, month) {
        return None;
    }
    i32::try_from(day_number(year, month, day)).ok()
}

/// `10:11:12` with an optional fraction. Milliseconds since midnight.
pub fn parse_time(text: &[u8]) -> Option<i32> {
    let (second_of_day, nanos) = clock(text, false, true)?;
    Some((second_of_day % 86_400 * 1000 + nanos / 1_000_000) as i32)
}

/// Year, month, day (1…31) and what follows. A year has four digits, or a sign and more.
fn date_parts(text: &[u8]) -> Option<(i64, u32, u32, &[u8])> {
    let (negative, unsigned) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let signed_plus = text[0] == b'+';
    let digits = unsigned.iter().take_while(|b| b.is_ascii_digit()).count();
    // A plus sign belongs to years of more than four digits, and only to them; ten digits are the limit.
    if !(4..=9).contains(&digits) || signed_plus != (digits > 4 && !negative) {
        return None;
    }
    let rest = &unsigned[digits..];
    if rest.len() < 6 || rest[0] != b'-' || rest[3] != b'-' {
        return None;
    }
    let year = unsigned[..digits].iter().fold(0i64, |n, d| n * 10 + i64::from(d - b'0'));
    let (month, day) = (two(rest, 1)?, two(rest, 4)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some((if negative { -year } else { year }, month, day, &rest[6..]))
}

/// Second of the day and nanoseconds. `24:00:00` is the end of the day where `midnight_ends_day`.
fn clock(text: &[u8], seconds_optional: bool, midnight_ends_day: bool) -> Option<(u32, u32)> {
    if text.len() < 5 || text[2] != b':' {
        return None;
    }
    let (hour, minute) = (two(text, 0)?, two(text, 3)?);
    let (second, nanos) = match text.len() {
        5 if seconds_optional => (0, 0),
        0..8 => return None,
        _ if text[5] != b':' => return None,
        8 => (two(text, 6)?, 0),
        9..=18 if text[8] == b'.' => {
            let mut nanos = 0;
            for i in 9..18 {
                let digit = match text.get(i) {
                    Some(d @ b'0'..=b'9') => u32::from(d - b'0'),
                    Some(_) => return None,
                    None => 0,
                };
                nanos = nanos * 10 + digit;
            }
            (two(text, 6)?, nanos)
        }
        _ => return None,
    };
    let at_end = hour == 24 && midnight_ends_day && minute == 0 && second == 0 && nanos == 0;
    (at_end || hour < 24 && minute < 60 && second < 60).then_some((hour * 3600 + minute * 60 + second, nanos))
}

fn two(text: &[u8], at: usize) -> Option<u32> {
    let (a, b) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (a < 10 && b < 10).then_some(u32::from(a) * 10 + u32::from(b))
}

/// A whole number in `low..=high`, with an optional sign.
pub fn parse_integer(text: &[u8], low: i64, high: i64) -> Option<i64> {
    let (negative, digits) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut n = 0i64;
    // Counting down reaches the one value more that the negative side has.
    for d in digits {
        let d = d.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        n = n.checked_mul(10)?.checked_sub(i64::from(d))?;
    }
    let n = if negative { n } else { n.checked_neg()? };
    (low..=high).contains(&n).then_some(n)
}

/// A double as Java reads it: `1.5`, `1e3`, `NaN`, `-Infinity`, `1d`; blanks around it do not count.
pub fn parse_double(text: &str) -> Option<f64> {
    let text = text.trim();
    java_number(text).map_or_else(|| not_finite(text), |digits| digits.parse().ok())
}

/// A float as Java reads it.
pub fn parse_float(text: &str) -> Option<f32> {
    let text = text.trim();
    java_number(text).map_or_else(|| not_finite(text).map(|f| f as f32), |digits| digits.parse().ok())
}

/// The digits of a number: without Java's type suffix, and never one of the words that Rust knows.
fn java_number(text: &str) -> Option<&str> {
    let digits = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')).then_some(digits)
}

fn not_finite(text: &str) -> Option<f64> {
    match text {
        "NaN" | "+NaN" | "-NaN" => Some(f64::NAN),
        "Infinity" | "+Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// TRUE only for "true" in any case, blanks around it not counted; everything else is FALSE.
pub fn parse_boolean(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("true")
}

/// What a text is as a DECIMAL(p, s).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decimal {
    /// The unscaled value, rounded half up to the scale.
    Value(i128),
    /// A number with more digits before the point than the type has: NULL in Flink.
    TooLarge,
}

/// A decimal number, with an optional exponent; `None` where the text is no number.
pub fn parse_decimal(text: &[u8], precision: u8, scale: i8) -> Option<Decimal> {
    let (negative, rest) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let mantissa_end = rest.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(rest.len());
    let exponent = match rest.get(mantissa_end + 1..) {
        Some(exponent) if mantissa_end < rest.len() => parse_integer(exponent, -1_000_000, 1_000_000)?,
        _ => 0,
    };
    let mantissa = &rest[..mantissa_end];
    let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
    let digits = || mantissa.iter().enumerate().filter(|(i, _)| *i != point).map(|(_, d)| d.wrapping_sub(b'0'));
    if digits().next().is_none() || digits().any(|d| d > 9) {
        return None;
    }
    // Digits that stand before the place where the scale ends are kept, the next one rounds.
    let kept = point as i64 + exponent + i64::from(scale);
    let (mut value, mut seen, mut round) = (0i128, 0i64, false);
    for d in digits() {
        if seen == kept {
            round = d >= 5;
            break;
        }
        if seen > kept {
            break;
        }
        match value.checked_mul(10).and_then(|v| v.checked_add(d.into())) {
            Some(v) => value = v,
            None => return Some(Decimal::TooLarge),
        }
        seen += 1;
    }
    while seen < kept && value != 0 {
        match value.checked_mul(10) {
            Some(v) => value = v,
            None => return Some(Decimal::TooLarge),
        }
        seen += 1;
    }
    value = value.saturating_add(i128::from(round));
    let limit = 10i128.pow(u32::from(precision.min(38)));
    if value >= limit {
        return Some(Decimal::TooLarge);
    }
    Some(Decimal::Value(if negative { -value } else { value }))
}

/// Base64 with padding, appended to `out`; false where the text is none.
pub fn decode_base64(text: &[u8], out: &mut Vec<u8>) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode_vec(text, out).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::{Fraction, write_timestamp};

    const SQL: TimestampText = TimestampText { iso: false, zulu: false };
    const ISO: TimestampText = TimestampText { iso: true, zulu: false };

    fn check(text: &str, form: TimestampText, want: &str) {
        let got = parse_timestamp(text.as_bytes(), form).and_then(|m| m.value(TimeUnit::Millisecond)).map_or("none".to_string(), |ms| {
            let mut out = String::new();
            write_timestamp(ms, TimeUnit::Millisecond, ' ', Fraction::Trimmed, &mut out);
            out
        });
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn timestamps_read_as_flink_reads_them() {
        check("2020-01-02 03:04:05", SQL, "2020-01-02 03:04:05");
        check("2020-01-02 03:04:05.123456789", SQL, "2020-01-02 03:04:05.123");
        check("2020-01-02 03:04:05.", SQL, "2020-01-02 03:04:05");
        check("2021-02-31 00:00:00", SQL, "2021-02-28 00:00:00");
        check("2020-01-02 24:00:00", SQL, "2020-01-03 00:00:00");
        check("-0001-01-02 03:04:05", SQL, "-0001-01-02 03:04:05");
        check("2020-01-02T03:04", ISO, "2020-01-02 03:04:00");
        check("2020-01-02 03:04:05Z", TimestampText { iso: false, zulu: true }, "2020-01-02 03:04:05");
        for bad in [
            "2020-01-02 03:04",
            "2020-01-02T03:04:05",
            "2020-01-02 3:04:05",
            "2020-01-02 03:04:05.1234567890",
            "2020-01-02 24:00:01",
            "",
            "é",
        ] {
            check(bad, SQL, "none");
        }
        check("2020-02-30T00:00:00", ISO, "none");
    }

    #[test]
    fn decimals_round_half_up_and_may_be_too_large() {
        let parse = |text: &str| parse_decimal(text.as_bytes(), 5, 2);
        assert_eq!(parse("1.005"), Some(Decimal::Value(101)));
        assert_eq!(parse("-1.005"), Some(Decimal::Value(-101)));
        assert_eq!(parse("1e2"), Some(Decimal::Value(10000)));
        assert_eq!(parse("1e-5"), Some(Decimal::Value(0)));
        assert_eq!(parse("999.995"), Some(Decimal::TooLarge));
        assert_eq!(parse("1e999999"), Some(Decimal::TooLarge));
        assert_eq!(parse("0e999999"), Some(Decimal::Value(0)));
        assert_eq!(parse("1.2.3"), None);
        assert_eq!(parse("."), None);
    }

    #[test]
    fn numbers_read_as_java_reads_them() {
        assert_eq!(parse_integer(b"-128", -128, 127), Some(-128));
        assert_eq!(parse_integer(b"9223372036854775808", i64::MIN, i64::MAX), None);
        assert_eq!(parse_integer(b"-9223372036854775808", i64::MIN, i64::MAX), Some(i64::MIN));
        assert_eq!(parse_double(" 1d "), Some(1.0));
        assert_eq!(parse_double("inf"), None);
        assert_eq!(parse_double("e"), None);
    }
}
