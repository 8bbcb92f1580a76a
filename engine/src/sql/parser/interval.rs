//! INTERVAL literals: text and unit → an exact number.
//!
//! `INTERVAL '5' MINUTE`, `'1 02:30' DAY TO MINUTE`, `'1-6' YEAR TO MONTH`. Day-time intervals are
//! milliseconds, year-month intervals are months; the two never mix.

use datafusion::sql::sqlparser::ast::{DateTimeField, Expr, Interval, Spanned, UnaryOperator, Value};

use super::lex;
use crate::error::{Error, Result};

/// The value of an INTERVAL literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalValue {
    /// A day-time interval.
    Milliseconds(i64),
    /// A year-month interval.
    Months(i64),
}

/// The milliseconds of a day-time INTERVAL literal.
///
/// # Errors
/// User: no INTERVAL literal, or one of months or years, whose length changes.
pub fn interval_ms(expr: &Expr) -> Result<i64> {
    let at = lex::span(expr.span());
    match expr {
        Expr::Nested(inner) => interval_ms(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => interval_ms(expr).map(|ms| -ms),
        Expr::Interval(interval) => match interval_value(interval)? {
            IntervalValue::Milliseconds(ms) => Ok(ms),
            IntervalValue::Months(_) => Err(Error::user("an interval of months or years has no fixed length, so it cannot be used here")
                .at(at)
                .help("write it in days, hours, minutes or seconds: INTERVAL '30' DAY")),
        },
        other => {
            Err(Error::user(format!("an INTERVAL literal is needed here, not {other}")).at(at).help("write, say, INTERVAL '5' MINUTE"))
        }
    }
}

/// The value of an INTERVAL literal.
///
/// # Errors
/// User: text that does not fit the units.
pub fn interval_value(interval: &Interval) -> Result<IntervalValue> {
    let text = match interval.value.as_ref() {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) => s.as_str(),
            _ => "",
        },
        _ => "",
    };
    let at = lex::span(interval.value.span());
    // The pass over the statement leaves compound intervals as `'… milliseconds'` and `'… months'`.
    let Some(from) = interval.leading_field.as_ref() else {
        let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
        return match (number.parse(), unit) {
            (Ok(n), "milliseconds") => Ok(IntervalValue::Milliseconds(n)),
            (Ok(n), "months") => Ok(IntervalValue::Months(n)),
            _ => Err(Error::user("an INTERVAL needs a unit").at(at).help("write, say, INTERVAL '5' MINUTE")),
        };
    };
    let first = unit(from).ok_or_else(|| Error::user(format!("{from} is no unit of an INTERVAL")).at(at))?;
    let last = match &interval.last_field {
        None => first,
        Some(f) => unit(f).ok_or_else(|| Error::user(format!("{f} is no unit of an INTERVAL")).at(at))?,
    };
    value(text, first, last).ok_or_else(|| {
        let units = if first == last { first.name().to_string() } else { format!("{} TO {}", first.name(), last.name()) };
        Error::user(format!("'{text}' is not an INTERVAL of {units}"))
            .at(at)
            .help(format!("write, say, INTERVAL {} {units}", example(first, last)))
    })
}

/// Units, from long to short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
}

impl Unit {
    pub(super) fn of(word: &str) -> Option<Self> {
        Some(match word.to_ascii_uppercase().as_str() {
            "YEAR" | "YEARS" => Self::Year,
            "QUARTER" | "QUARTERS" => Self::Quarter,
            "MONTH" | "MONTHS" => Self::Month,
            "WEEK" | "WEEKS" => Self::Week,
            "DAY" | "DAYS" => Self::Day,
            "HOUR" | "HOURS" => Self::Hour,
            "MINUTE" | "MINUTES" => Self::Minute,
            "SECOND" | "SECONDS" => Self::Second,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Year => "YEAR",
            Self::Quarter => "QUARTER",
            Self::Month => "MONTH",
            Self::Week => "WEEK",
            Self::Day => "DAY",
            Self::Hour => "HOUR",
            Self::Minute => "MINUTE",
            Self::Second => "SECOND",
        }
    }

    pub(super) fn field(self) -> DateTimeField {
        match self {
            Self::Year => DateTimeField::Year,
            Self::Quarter => DateTimeField::Quarter,
            Self::Month => DateTimeField::Month,
            Self::Week => DateTimeField::Week(None),
            Self::Day => DateTimeField::Day,
            Self::Hour => DateTimeField::Hour,
            Self::Minute => DateTimeField::Minute,
            Self::Second => DateTimeField::Second,
        }
    }

    fn ms(self) -> i64 {
        match self {
            Self::Second => 1_000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
            Self::Week => 7 * 86_400_000,
            Self::Month | Self::Quarter | Self::Year => 0,
        }
    }

    fn months(self) -> Option<i64> {
        match self {
            Self::Year => Some(12),
            Self::Quarter => Some(3),
            Self::Month => Some(1),
            _ => None,
        }
    }
}

fn unit(field: &DateTimeField) -> Option<Unit> {
    match field {
        DateTimeField::Week(Some(_)) => None,
        other => Unit::of(&other.to_string()),
    }
}

fn example(first: Unit, last: Unit) -> &'static str {
    match (first, last) {
        (Unit::Year, Unit::Month) => "'1-6'",
        (Unit::Day, Unit::Hour) => "'1 10'",
        (Unit::Day, Unit::Minute) => "'1 10:30'",
        (Unit::Day, Unit::Second) => "'1 10:30:00'",
        (Unit::Hour, Unit::Minute) | (Unit::Minute, Unit::Second) => "'10:30'",
        (Unit::Hour, Unit::Second) => "'10:30:00'",
        _ => "'5'",
    }
}

fn value(text: &str, first: Unit, last: Unit) -> Option<IntervalValue> {
    let (negative, body) = match text.trim().strip_prefix(['-', '+']) {
        Some(rest) => (text.trim().starts_with('-'), rest),
        None => (false, text.trim()),
    };
    let sign = if negative { -1 } else { 1 };
    if let Some(months) = first.months() {
        let total = match last {
            _ if last == first => digits(body)?.checked_mul(months)?,
            Unit::Month if first == Unit::Year => {
                let (years, rest) = body.split_once('-')?;
                digits(years)?.checked_mul(12)?.checked_add(digits(rest).filter(|m| *m < 12)?)?
            }
            _ => return None,
        };
        return Some(IntervalValue::Months(sign * total));
    }
    if last < first || first == Unit::Week && last != first {
        return None;
    }
    let (mut total, mut rest, mut at) = (0i64, body, first);
    loop {
        let next = match at {
            Unit::Day => Some((' ', Unit::Hour)),
            Unit::Hour => Some((':', Unit::Minute)),
            Unit::Minute => Some((':', Unit::Second)),
            _ => None,
        };
        let ms = |part: &str| -> Option<i64> { if at == Unit::Second { seconds(part) } else { digits(part)?.checked_mul(at.ms()) } };
        if at == last {
            let part = ms(rest)?;
            let fits = at == first || part < limit(at);
            return fits.then_some(IntervalValue::Milliseconds(sign * total.checked_add(part)?));
        }
        let (mark, below) = next?;
        let (part, tail) = rest.split_once(mark)?;
        let part = ms(part)?;
        if at != first && part >= limit(at) {
            return None;
        }
        total = total.checked_add(part)?;
        rest = tail.trim_start();
        at = below;
    }
}

/// A field behind the first one stays below the next longer unit.
fn limit(unit: Unit) -> i64 {
    match unit {
        Unit::Hour => 24 * 3_600_000,
        Unit::Minute => 3_600_000,
        _ => 60_000,
    }
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Seconds with up to nine decimals, in ms; what is finer is cut.
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let ms = format!("{fraction:0<3}")[..3].parse::<i64>().ok()?;
    digits(whole)?.checked_mul(1_000)?.checked_add(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_exact_and_bad_ones_are_seen() {
        let ms = |text, first, last| match value(text, first, last) {
            Some(IntervalValue::Milliseconds(ms)) => ms.to_string(),
            Some(IntervalValue::Months(m)) => format!("{m} months"),
            None => "bad".to_string(),
        };
        assert_eq!(ms("5", Unit::Minute, Unit::Minute), "300000");
        assert_eq!(ms("1", Unit::Week, Unit::Week), "604800000");
        assert_eq!(ms("-0.25", Unit::Second, Unit::Second), "-250");
        assert_eq!(ms("1 02:03:04.5", Unit::Day, Unit::Second), "93784500");
        assert_eq!(ms("10:30", Unit::Hour, Unit::Minute), "37800000");
        assert_eq!(ms("10:60", Unit::Hour, Unit::Minute), "bad");
        assert_eq!(ms("1-6", Unit::Year, Unit::Month), "18 months");
        assert_eq!(ms("5 min", Unit::Minute, Unit::Minute), "bad");
        assert_eq!(ms("", Unit::Minute, Unit::Minute), "bad");
    }
}
