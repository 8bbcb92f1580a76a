//! `'format' = '…'`: from its name and options to decoder, encoder and framer.

use arrow::datatypes::SchemaRef;
use chrono_tz::Tz;

use crate::config::Options;
use crate::error::{Error, Result, nearest};
use crate::formats::csv::{CsvDecoder, CsvEncoder, CsvOptions};
use crate::formats::frame::{LineFramer, QuotedLineFramer};
use crate::formats::json::{JsonDecoder, JsonEncoder, JsonOptions};
use crate::formats::parquet::ParquetOptions;
use crate::formats::raw::{RawDecoder, RawEncoder, RawOptions};
use crate::formats::{Decoder, Encoder, Framer};

/// The formats there are.
const KNOWN: &[&str] = &["json", "csv", "raw", "parquet"];
/// Formats of Flink that are not here yet.
const LATER: &[&str] =
    &["avro", "avro-confluent", "protobuf", "debezium-json", "debezium-avro-confluent", "canal-json", "maxwell-json", "ogg-json", "orc"];

/// A format with its options.
#[derive(Debug, Clone, PartialEq)]
pub enum FormatKind {
    /// One JSON object a record.
    Json(JsonOptions),
    /// One CSV line a record.
    Csv(CsvOptions),
    /// The record is the value.
    Raw(RawOptions),
    /// Whole files: no records, so neither decoder, encoder nor framer.
    Parquet(ParquetOptions),
}

/// Takes the options of the format `name` from `options`; `prefix` is empty, `key.` or `value.`.
///
/// # Errors
/// User: an unknown format, with the known ones, or an option's bad value.
pub fn read_format(name: &str, options: &mut Options, prefix: &str) -> Result<FormatKind> {
    let under = format!("{prefix}{name}.");
    match name {
        "json" => JsonOptions::take(options, &under).map(FormatKind::Json),
        "csv" => CsvOptions::take(options, &under).map(FormatKind::Csv),
        "raw" => RawOptions::take(options, &under).map(FormatKind::Raw),
        "parquet" => ParquetOptions::take(options, &under).map(FormatKind::Parquet),
        _ if LATER.contains(&name) => {
            let e = Error::user(format!("{}: the format '{name}' is not yet supported", options.owner()));
            Err(e.help(format!("supported are {}", KNOWN.join(", "))))
        }
        _ => {
            let e = Error::user(format!("{} has an unknown format '{name}'", options.owner()));
            Err(match nearest(name, KNOWN.iter().chain(LATER).copied()) {
                Some(known) => e.help(format!("did you mean '{known}'?")),
                None => e.help(format!("supported are {}", KNOWN.join(", "))),
            })
        }
    }
}

impl FormatKind {
    /// The format's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Csv(_) => "csv",
            Self::Raw(_) => "raw",
            Self::Parquet(_) => "parquet",
        }
    }

    /// A decoder of the `wanted` columns (ascending indices) of `physical`. `zone` is the session's; no format
    /// needs it yet, for JSON and CSV write a TIMESTAMP_LTZ in UTC.
    ///
    /// # Errors
    /// User: a column type that the format cannot hold, or a format of whole files.
    pub fn decoder(&self, physical: &SchemaRef, wanted: &[usize], _zone: Tz) -> Result<Box<dyn Decoder>> {
        Ok(match self {
            Self::Json(options) => Box::new(JsonDecoder::new(options, physical, wanted)?),
            Self::Csv(options) => Box::new(CsvDecoder::new(options, physical, wanted)?),
            Self::Raw(options) => Box::new(RawDecoder::new(options, physical, wanted)?),
            Self::Parquet(_) => return Err(whole_files()),
        })
    }

    /// An encoder of rows of `schema`. Of `zone` the same is true as for [`Self::decoder`].
    ///
    /// # Errors
    /// User: a column type that the format cannot hold, or a format of whole files.
    pub fn encoder(&self, schema: &SchemaRef, _zone: Tz) -> Result<Box<dyn Encoder>> {
        Ok(match self {
            Self::Json(options) => Box::new(JsonEncoder::new(options, schema)?),
            Self::Csv(options) => Box::new(CsvEncoder::new(options, schema)?),
            Self::Raw(options) => Box::new(RawEncoder::new(options, schema)?),
            Self::Parquet(_) => return Err(whole_files()),
        })
    }

    /// A framer for one file.
    ///
    /// # Errors
    /// User: a format of whole files.
    pub fn framer(&self) -> Result<Box<dyn Framer>> {
        Ok(match self {
            Self::Csv(CsvOptions { quote: Some(quote), delimiter, escape, allow_comments, trim_spaces, .. }) => {
                Box::new(QuotedLineFramer::new(*quote, *delimiter, *escape, *allow_comments, *trim_spaces))
            }
            Self::Json(_) | Self::Csv(_) | Self::Raw(_) => Box::<LineFramer>::default(),
            Self::Parquet(_) => return Err(whole_files()),
        })
    }

    /// Whether bad records are skipped: the format's `ignore-parse-errors`.
    pub fn ignores_errors(&self) -> bool {
        match self {
            Self::Json(options) => options.ignore_parse_errors,
            Self::Csv(options) => options.ignore_parse_errors,
            Self::Raw(_) | Self::Parquet(_) => false,
        }
    }
}

fn whole_files() -> Error {
    Error::user("the format 'parquet' is made of whole files, not of records")
        .help("use it with 'connector' = 'filesystem'; for messages use 'json'")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check(name: &str, prefix: &str, options: &[(&str, &str)], want: &str) {
        let map: BTreeMap<String, String> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut options = Options::new("table 't'", map);
        let got = read_format(name, &mut options, prefix).and_then(|kind| options.finish().map(|()| kind));
        let text = got.map_or_else(|e| e.to_string(), |kind| kind.name().to_string());
        assert_eq!(text, want);
    }

    #[test]
    fn options_are_taken_under_their_prefix_and_others_refused() {
        check("json", "value.", &[("value.json.ignore-parse-errors", "true")], "json");
        check(
            "json",
            "",
            &[("json.ignore-parse-error", "true")],
            "table 't' has an unknown option 'json.ignore-parse-error'\nhelp: did you mean 'json.ignore-parse-errors'?",
        );
        check(
            "json",
            "",
            &[("json.timestamp-format.standard", "sql")],
            "table 't': option 'json.timestamp-format.standard' is 'sql', but must be SQL or ISO-8601",
        );
        check(
            "csv",
            "",
            &[("csv.field-delimiter", ";;")],
            "table 't': option 'csv.field-delimiter' is ';;', but must be a single ASCII character",
        );
        check("csv", "", &[("csv.field-delimiter", "\\t"), ("csv.null-literal", "")], "csv");
    }

    #[test]
    fn an_unknown_format_is_answered_with_the_known_ones() {
        check("avro", "", &[], "table 't': the format 'avro' is not yet supported\nhelp: supported are json, csv, raw, parquet");
        check("jsn", "", &[], "table 't' has an unknown format 'jsn'\nhelp: did you mean 'json'?");
    }
}
