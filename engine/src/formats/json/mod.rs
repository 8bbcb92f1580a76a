//! JSON as Flink reads and writes it.
//!
//! A record is one object, or an array of objects (a row each). Names match with case; the first of two
//! equal names counts. Without any option already: empty records are no rows, text after the object is
//! ignored, `2.9` into INT is 2, BOOLEAN is TRUE only for "true" in any case, STRING takes numbers and
//! objects as their text, decimals round half up and become NULL where they are too large.

use crate::config::Options;
use crate::error::{Error, Result};

mod decode;
mod encode;
mod text;
mod value;

pub use decode::JsonDecoder;
pub use encode::JsonEncoder;

/// How a NULL key of a MAP is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapNullKey {
    /// An error.
    Fail,
    /// The entry is left out.
    Drop,
    /// The key is this text.
    Literal(String),
}

/// The options of `'format' = 'json'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonOptions {
    /// `ignore-parse-errors`: a value that cannot be read is NULL, a record that cannot is skipped.
    pub ignore_parse_errors: bool,
    /// `fail-on-missing-field`: a field that is not there makes the record bad, instead of NULL.
    pub fail_on_missing_field: bool,
    /// `timestamp-format.standard` is ISO-8601 (`T` between date and time), not SQL (a blank).
    pub iso_timestamps: bool,
    /// `map-null-key.mode` and `.literal`.
    pub map_null_key: MapNullKey,
    /// `encode.decimal-as-plain-number`: never `1E+2`.
    pub plain_decimals: bool,
    /// `encode.ignore-null-fields`: NULL fields are left out.
    pub ignore_null_fields: bool,
}

impl JsonOptions {
    /// Takes the options under `prefix` (`json.`, `value.json.`).
    ///
    /// # Errors
    /// User: a value that is none of an option's, or two that exclude each other.
    pub fn take(options: &mut Options, prefix: &str) -> Result<Self> {
        let key = |name: &str| format!("{prefix}{name}");
        let ignore_parse_errors = options.flag(&key("ignore-parse-errors"), false)?;
        let fail_on_missing_field = options.flag(&key("fail-on-missing-field"), false)?;
        if ignore_parse_errors && fail_on_missing_field {
            let message =
                format!("{}: '{}' and '{}' cannot both be true", options.owner(), key("fail-on-missing-field"), key("ignore-parse-errors"));
            return Err(Error::user(message).help("keep the one that says what a missing field is"));
        }
        // Flink compares this one with case.
        let standard = key("timestamp-format.standard");
        let iso_timestamps = match options.text(&standard).as_deref() {
            None | Some("SQL") => false,
            Some("ISO-8601") => true,
            Some(other) => return Err(options.bad(&standard, other, "SQL or ISO-8601")),
        };
        let literal = options.text(&key("map-null-key.literal")).unwrap_or_else(|| "null".to_string());
        let mode = options.choice(&key("map-null-key.mode"), &[("FAIL", 0), ("DROP", 1), ("LITERAL", 2)], 0)?;
        let map_null_key = match mode {
            0 => MapNullKey::Fail,
            1 => MapNullKey::Drop,
            _ => MapNullKey::Literal(literal),
        };
        // Chooses between two parsers of Flink that read the same; there is one here.
        options.flag(&key("decode.json-parser.enabled"), true)?;
        Ok(Self {
            ignore_parse_errors,
            fail_on_missing_field,
            iso_timestamps,
            map_null_key,
            plain_decimals: options.flag(&key("encode.decimal-as-plain-number"), false)?,
            ignore_null_fields: options.flag(&key("encode.ignore-null-fields"), false)?,
        })
    }
}

impl Default for JsonOptions {
    fn default() -> Self {
        Self {
            ignore_parse_errors: false,
            fail_on_missing_field: false,
            iso_timestamps: false,
            map_null_key: MapNullKey::Fail,
            plain_decimals: false,
            ignore_null_fields: false,
        }
    }
}

/// Refuses what JSON cannot hold: a MAP whose key is no text.
fn check_type(column: &str, t: &crate::stream::SqlType) -> Result<()> {
    use crate::stream::SqlType;
    match t {
        SqlType::Map(key, _, _) if !key.is_text() => {
            let e = Error::user(format!("column '{column}': JSON has text keys only, but the type is {t}"));
            Err(e.help("declare the key of the MAP as STRING"))
        }
        SqlType::Map(_, value, _) => check_type(column, value),
        SqlType::Array(item, _) => check_type(column, item),
        SqlType::Row(fields) => fields.iter().try_for_each(|(_, t, _)| check_type(column, t)),
        _ => Ok(()),
    }
}
