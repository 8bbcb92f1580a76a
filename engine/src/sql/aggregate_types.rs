//! Result types of aggregate functions, as Flink 2.3 has them.
//!
//! | function | argument | result |
//! |---|---|---|
//! | COUNT | anything | BIGINT |
//! | SUM | integers, FLOAT, DOUBLE | the argument's type |
//! | SUM | DECIMAL(p, s) | DECIMAL(38, s) |
//! | AVG | integers, FLOAT, DOUBLE | the argument's type |
//! | AVG | DECIMAL(p, s) | DECIMAL(38, max(6, s)) |
//! | MIN, MAX | BOOLEAN, numbers, text, DATE, TIME, TIMESTAMP, TIMESTAMP_LTZ | the argument's type |
//!
//! What must hold: whatever passes here has a state in the runtime.

use super::plan::AggregateFunction;
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// Digits of every decimal sum.
const DECIMAL_DIGITS: u8 = 38;
/// Least scale of a decimal average.
const AVERAGE_SCALE_MIN: i8 = 6;

/// The type of `function(argument)`. COUNT(*) has no argument: its type is COUNT's of any.
///
/// # Errors
/// User: an argument that the function does not take, as in Flink.
pub fn result_type(function: AggregateFunction, argument: &SqlType) -> Result<SqlType> {
    use AggregateFunction as F;
    use SqlType as T;
    match (function, argument) {
        (F::Count, _) => Ok(T::BigInt),
        (F::Sum, T::Decimal(_, s)) => Ok(T::Decimal(DECIMAL_DIGITS, *s)),
        (F::Avg, T::Decimal(_, s)) => Ok(T::Decimal(DECIMAL_DIGITS, (*s).max(AVERAGE_SCALE_MIN))),
        (F::Sum | F::Avg, t) if t.is_numeric() => Ok(t.clone()),
        (F::Sum | F::Avg, t) => {
            let refused = Error::user(format!("{} takes a number, not {t}", name(function)));
            Err(match t {
                t if t.is_text() => refused.help(format!("convert the text first, for example {}(CAST(x AS DOUBLE))", name(function))),
                T::Boolean => refused.help("to count the rows where x is true, write COUNT(*) FILTER (WHERE x)"),
                _ => refused,
            })
        }
        (F::Min | F::Max, T::Row(_) | T::Array(..) | T::Map(..) | T::Binary(_) | T::VarBinary(_)) => {
            Err(Error::user(format!("{} takes a type with an order, not {argument}", name(function)))
                .help("numbers, text, BOOLEAN, dates and times have one"))
        }
        (F::Min | F::Max, t) => Ok(t.clone()),
    }
}

fn name(function: AggregateFunction) -> &'static str {
    match function {
        AggregateFunction::Count => "COUNT",
        AggregateFunction::Sum => "SUM",
        AggregateFunction::Avg => "AVG",
        AggregateFunction::Min => "MIN",
        AggregateFunction::Max => "MAX",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(function: AggregateFunction, argument: &str, expected: &str) {
        let found = match result_type(function, &SqlType::parse(argument).expect("a type")) {
            Ok(t) => t.to_string(),
            Err(e) => e.message().to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn types_are_those_of_flink() {
        use AggregateFunction::*;
        check(Count, "ARRAY<INT>", "BIGINT");
        check(Sum, "TINYINT", "TINYINT");
        check(Sum, "DECIMAL(10, 2)", "DECIMAL(38, 2)");
        check(Sum, "STRING", "SUM takes a number, not STRING");
        check(Sum, "BOOLEAN", "SUM takes a number, not BOOLEAN");
        check(Avg, "INT", "INT");
        check(Avg, "FLOAT", "FLOAT");
        check(Avg, "DECIMAL(10, 2)", "DECIMAL(38, 6)");
        check(Avg, "DECIMAL(38, 20)", "DECIMAL(38, 20)");
        check(Avg, "DATE", "AVG takes a number, not DATE");
        check(Min, "CHAR(3)", "CHAR(3)");
        check(Max, "TIMESTAMP_LTZ(3)", "TIMESTAMP_LTZ(3)");
        check(Max, "BYTES", "MAX takes a type with an order, not BYTES");
        check(Min, "ROW<a INT>", "MIN takes a type with an order, not ROW<`a` INT>");
    }
}
