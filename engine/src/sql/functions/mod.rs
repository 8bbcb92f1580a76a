//! Scalar functions, operators and literals with Flink's types and values.
//!
//! | file | holds |
//! |---|---|
//! | `scalar` | one shape for every function: names, argument kinds, type, values of a batch |
//! | `columns`, `session` | reading and building columns; the zone and compiled patterns |
//! | `literals` | the pass that types literals before planning |
//! | `binary` | operators, field access, constructors |
//! | `decimal`, `math`, `conditional`, `strings`, `matching`, `time`, `time_text`, `nested`, `cast` | the functions |
//! | `cast_text`, `pattern`, `md5` | text forms of CAST, Java's date patterns, a digest |
//!
//! To plan a query: run [`type_literals_ast`] on it (the parser has already spelled casts and time units as
//! calls, see `sql/ast.rs`), then plan it with a `SqlToRel` whose context provider answers
//! [`scalar_functions`] by name (names are lower-case; a back-quoted `"$cast"` keeps its own) and
//! [`expr_planners`]. Needed settings: `enable_ident_normalization = false`, `parse_float_as_decimal = true`,
//! `map_string_types_to_utf8view = false`. Unnamed outputs are called after their calls
//! (`$number(Utf8("1"))`): give them Flink's names, `EXPR$0`, before planning. The optimizer folds constants
//! and turns COALESCE, IF, LIKE and IN into DataFusion's own; run it, or at least the simplifier, on every
//! expression, so that an argument that COALESCE does not need is not computed.
//!
//! Flink's mistakes that are not repeated: HOUR, MINUTE and SECOND before 1970 are not negative and casts of
//! fractional times there do not round up; FLOOR(ltz TO DAY) is midnight after a clock change too; TRY_CAST
//! of a letter to DECIMAL is NULL; INITCAP knows accents; NaN is not equal to NaN folded away.

use std::sync::{Arc, LazyLock};

use chrono_tz::Tz;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::ExprPlanner;

mod binary;
mod cast;
mod cast_text;
mod columns;
mod conditional;
mod decimal;
mod literals;
mod matching;
mod math;
mod md5;
mod nested;
mod pattern;
mod scalar;
mod session;
mod strings;
#[cfg(test)]
mod tests;
mod time;
mod time_text;

pub use literals::{type_literals, type_literals_ast, type_literals_expr};

/// All scalar functions; `zone` is `table.local-time-zone`.
pub fn scalar_functions(zone: Tz) -> Vec<Arc<ScalarUDF>> {
    let session = Arc::new(session::Session::new(zone));
    definitions().map(|d| Arc::new(ScalarUDF::from(scalar::Scalar::new(*d, session.clone())))).collect()
}

/// What plans operators, field access and constructors with Flink's types.
pub fn expr_planners(zone: Tz) -> Vec<Arc<dyn ExprPlanner>> {
    vec![Arc::new(binary::Planner { functions: scalar_functions(zone) })]
}

/// The names that users can write, for suggestions and completion. Those that are syntax in part (CAST,
/// EXTRACT, YEAR, TIMESTAMPDIFF, …) are among them.
pub fn known_functions() -> &'static [&'static str] {
    static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let syntax = [
            "CAST",
            "TRY_CAST",
            "EXTRACT",
            "YEAR",
            "QUARTER",
            "MONTH",
            "WEEK",
            "DAYOFYEAR",
            "DAYOFMONTH",
            "DAYOFWEEK",
            "HOUR",
            "MINUTE",
            "SECOND",
            "TIMESTAMPDIFF",
            "TIMESTAMPADD",
        ];
        let mut names: Vec<&str> =
            definitions().flat_map(|d| d.names.iter().copied()).filter(|n| !n.starts_with('$')).chain(syntax).collect();
        names.sort_unstable();
        names.dedup();
        names
    });
    &NAMES
}

fn definitions() -> impl Iterator<Item = &'static scalar::Definition> {
    [
        literals::FUNCTIONS,
        decimal::FUNCTIONS,
        math::FUNCTIONS,
        conditional::FUNCTIONS,
        strings::FUNCTIONS,
        matching::FUNCTIONS,
        time::FUNCTIONS,
        time_text::FUNCTIONS,
        nested::FUNCTIONS,
        cast::FUNCTIONS,
    ]
    .into_iter()
    .flatten()
}
