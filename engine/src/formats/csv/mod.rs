//! CSV as Flink reads and writes it: fields by position, no header.
//!
//! Without ignore-parse-errors a record must have exactly the table's fields (one empty field more is a trailing
//! delimiter); with it, a short record is filled up with NULL and a long one is skipped. A blank line is a record
//! with one empty field. A quoted null literal is NULL too. An unclosed quote takes the rest of the file with it.

use crate::config::Options;
use crate::error::{Error, Result};
use crate::stream::SqlType;

mod decode;
mod encode;
mod split;

pub use decode::CsvDecoder;
pub use encode::CsvEncoder;

/// The options of `'format' = 'csv'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    /// `field-delimiter`.
    pub delimiter: u8,
    /// `quote-character`; `None` with `disable-quote-character`.
    pub quote: Option<u8>,
    /// `escape-character`.
    pub escape: Option<u8>,
    /// `null-literal`: the text that is NULL. Written as nothing where there is none.
    pub null_literal: Option<String>,
    /// `array-element-delimiter`, for ARRAY and ROW.
    pub element_delimiter: String,
    /// `ignore-parse-errors`.
    pub ignore_parse_errors: bool,
    /// `allow-comments`: lines that start with `#` are no records.
    pub allow_comments: bool,
    /// `trim-spaces`: blanks around fields without quotes do not count.
    pub trim_spaces: bool,
    /// `empty-string-as-null`.
    pub empty_string_as_null: bool,
    /// `write-bigdecimal-in-scientific-notation`: 100 is written `1E+2`.
    pub scientific_decimals: bool,
}

impl CsvOptions {
    /// Takes the options under `prefix` (`csv.`, `value.csv.`).
    ///
    /// # Errors
    /// User: a value that is none of an option's, or two that exclude each other.
    pub fn take(options: &mut Options, prefix: &str) -> Result<Self> {
        let key = |name: &str| format!("{prefix}{name}");
        let delimiter = character(options, &key("field-delimiter"))?.unwrap_or(b',');
        let disable_quote = options.flag(&key("disable-quote-character"), false)?;
        let quote = character(options, &key("quote-character"))?;
        if disable_quote && quote.is_some() {
            let (a, b) = (key("quote-character"), key("disable-quote-character"));
            return Err(Error::user(format!("{}: '{a}' and '{b}' exclude each other", options.owner())).help("keep one of them"));
        }
        let escape = character(options, &key("escape-character"))?;
        let element_key = key("array-element-delimiter");
        let element_delimiter = options.text(&element_key).unwrap_or_else(|| ";".to_string());
        if element_delimiter.is_empty() {
            return Err(options.bad(&element_key, "", "at least one character"));
        }
        Ok(Self {
            delimiter,
            quote: if disable_quote { None } else { Some(quote.unwrap_or(b'"')) },
            escape,
            null_literal: options.text(&key("null-literal")),
            element_delimiter,
            ignore_parse_errors: options.flag(&key("ignore-parse-errors"), false)?,
            allow_comments: options.flag(&key("allow-comments"), false)?,
            trim_spaces: options.flag(&key("trim-spaces"), false)?,
            empty_string_as_null: options.flag(&key("empty-string-as-null"), false)?,
            scientific_decimals: options.flag(&key("write-bigdecimal-in-scientific-notation"), true)?,
        })
    }
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: Some(b'"'),
            escape: None,
            null_literal: None,
            element_delimiter: ";".to_string(),
            ignore_parse_errors: false,
            allow_comments: false,
            trim_spaces: false,
            empty_string_as_null: false,
            scientific_decimals: true,
        }
    }
}

/// An option that is one character; Java's `\t` for a tab is one too.
fn character(options: &mut Options, key: &str) -> Result<Option<u8>> {
    let Some(text) = options.text(key) else { return Ok(None) };
    match text.as_bytes() {
        b"\\t" => Ok(Some(b'\t')),
        b"\\\\" => Ok(Some(b'\\')),
        [b'\n' | b'\r'] => Err(options.bad(key, "\\n", "a character that does not end lines")),
        [b] if b.is_ascii() => Ok(Some(*b)),
        _ => Err(options.bad(key, &text, "a single ASCII character")),
    }
}

/// Refuses what CSV cannot hold: maps, and lists inside lists.
fn check_type(column: &str, t: &SqlType, nested: bool) -> Result<()> {
    match t {
        SqlType::Array(item, _) if !nested => check_type(column, item, true),
        SqlType::Row(fields) if !nested => fields.iter().try_for_each(|(_, t, _)| check_type(column, t, true)),
        SqlType::Map(..) | SqlType::Array(..) | SqlType::Row(_) => {
            let e = Error::user(format!("column '{column}': CSV has no form for {t}{}", if nested { " inside another list" } else { "" }));
            Err(e.help("use the format 'json', or declare the column as STRING"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Schema, SchemaRef};

    use super::*;
    use crate::formats::text::write_value;
    use crate::formats::{Decoder, Encoder, FormatKind, Records};

    fn schema(columns: &str) -> SchemaRef {
        let SqlType::Row(fields) = SqlType::parse(&format!("ROW<{columns}>")).expect("types") else { panic!("a row") };
        Arc::new(Schema::new(fields.iter().map(|(n, t, null)| t.field(n, *null)).collect::<Vec<_>>()))
    }

    /// Frames and decodes a file, and shows rows, rejected records and counts.
    fn show(options: &CsvOptions, columns: &str, file: &[u8]) -> String {
        let schema = schema(columns);
        let wanted: Vec<usize> = (0..schema.fields().len()).collect();
        let mut records = Records::default();
        let mut framer = FormatKind::Csv(options.clone()).framer().expect("records");
        framer.push(file, &mut records);
        framer.finish(&mut records);
        let decoded = CsvDecoder::new(options, &schema, &wanted).and_then(|mut d| d.decode(&records)).expect("decodes");
        let mut out = Vec::new();
        for row in 0..decoded.batch.num_rows() {
            let mut line = String::new();
            for (i, column) in decoded.batch.columns().iter().enumerate() {
                line.push_str(if i > 0 { "," } else { "" });
                write_value(column, schema.field(i), row, chrono_tz::UTC, &mut line);
            }
            out.push(line);
        }
        out.extend(decoded.rejected.iter().map(|r| format!("! {}: {}", r.index, r.reason)));
        if decoded.nulled_values > 0 {
            out.push(format!("nulled {}", decoded.nulled_values));
        }
        out.join(" | ")
    }

    const ABC: &str = "a STRING, b STRING, c INT";

    #[test]
    fn records_read_as_in_flink() {
        let plain = CsvOptions::default();
        assert_eq!(show(&plain, ABC, b"\"q,r\",\"s\"\"t\",2\n"), "q,r,s\"t,2");
        assert_eq!(show(&plain, ABC, b"a\"b, \"y\", 7 \r\nx,\"y\nz\" ,1,\n"), "a\"b, \"y\",7 | x,y\nz,1");
        assert_eq!(
            show(&plain, ABC, b"x,y\n1,2,3,4\n\nx,y,\n\"a\"b,y,1\nx,\xff,1\n\"never"),
            "! 0: 3 fields expected, 2 found | ! 1: 3 fields expected, 4 found | ! 2: 3 fields expected, 1 found | \
             ! 3: column 'c': '' cannot be read as INT | ! 4: 'b' behind the closing quote of field 1 | \
             ! 5: invalid UTF-8 at byte 2 | ! 6: the quote of field 1 is not closed"
        );
        let ignoring = CsvOptions { ignore_parse_errors: true, ..plain };
        assert_eq!(
            show(&ignoring, ABC, b"x,y\n1,2,3,4\n\n,,\n"),
            "x,y,null | ,null,null | ,,null | ! 1: 3 fields expected, 4 found | nulled 1"
        );
    }

    #[test]
    fn every_option_changes_what_is_read() {
        let plain = CsvOptions::default();
        let null = CsvOptions { null_literal: Some("N".into()), ..plain.clone() };
        assert_eq!(show(&null, ABC, b"x,\"N\",N\nx, N,3\n"), "x,null,null | x, N,3");
        let comments = CsvOptions { allow_comments: true, ..plain.clone() };
        assert_eq!(show(&comments, ABC, b"#x,y,\"1\nx,y,2\n #z,y,3\n"), "x,y,2");
        let trim = CsvOptions { trim_spaces: true, ..plain.clone() };
        assert_eq!(show(&trim, ABC, b" x , \"y\" , 1 \n\" q \",b,2\n"), "x,y,1 |  q ,b,2");
        let empty = CsvOptions { empty_string_as_null: true, ..plain.clone() };
        assert_eq!(show(&empty, ABC, b"x,\"\",\n"), "x,null,null");
        let unquoted = CsvOptions { delimiter: b'|', quote: None, ..plain.clone() };
        assert_eq!(show(&unquoted, ABC, b"\"x|y|1\n"), "\"x,y,1");
        let escaped = CsvOptions { escape: Some(b'\\'), ..plain };
        assert_eq!(show(&escaped, ABC, b"a\\,b,\"q\\\"r\",1\nx\\\\y,\\n,2\n"), "a,b,q\"r,1 | x\\y,\n,2");
    }

    #[test]
    fn values_read_as_in_flink() {
        let ignoring = CsvOptions { ignore_parse_errors: true, ..CsvOptions::default() };
        let columns = "t TIMESTAMP(3), l TIMESTAMP_LTZ(3), d DATE, m TIME(0), b BOOLEAN, e DECIMAL(5,2), f DOUBLE";
        let file = b"2020-02-30 00:00:01,2020-01-02 03:04:05Z,2020-1-2,10:11,TRUE,1.005, 2 \n2020-01-02T03:04:05,x,2020-02-30,10:11:12.5,,12345,inf\n";
        assert_eq!(
            show(&ignoring, columns, file),
            "2020-02-29T00:00:01,2020-01-02T03:04:05Z,2020-01-02,10:11,true,1.01,2.0 | null,null,2020-03-01,10:11:12,false,null,null | nulled 4"
        );
        assert_eq!(
            show(&ignoring, "a ARRAY<INT>, r ROW<x INT, y STRING>", b"1;2,3;q\n;,;\n,4;z\n"),
            "[1, 2],+I[3, q] | [null, null],+I[null, ] | [],+I[4, z] | nulled 3"
        );
    }

    #[test]
    fn records_are_quoted_as_flink_quotes_them() {
        let written = |options: &CsvOptions, columns: &str, file: &[u8]| {
            let schema = schema(columns);
            let wanted: Vec<usize> = (0..schema.fields().len()).collect();
            let mut records = Records::default();
            records.push(file);
            let reader = CsvOptions { null_literal: Some("NULL".into()), ..CsvOptions::default() };
            let decoded = CsvDecoder::new(&reader, &schema, &wanted).and_then(|mut d| d.decode(&records)).expect("decodes");
            assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
            let mut out = Records::default();
            CsvEncoder::new(options, &schema).and_then(|mut e| e.encode(&decoded.batch, &mut out)).expect("encodes");
            String::from_utf8_lossy(out.get(0).expect("a record")).into_owned()
        };
        let plain = CsvOptions::default();
        let five = "a STRING, b STRING, c STRING, d STRING, e STRING";
        assert_eq!(written(&plain, five, b"with space,[y]:-_,a\\b,NULL,\"q\"\"\""), "\"with space\",[y]:-_,\"a\\b\",,\"q\"\"\"");
        assert_eq!(
            written(&plain, "a STRING, b STRING", b"123456789012345678901234,1234567890123456789012345"),
            "123456789012345678901234,\"1234567890123456789012345\""
        );
        let numbers = "t TIMESTAMP(3), n DECIMAL(10,2), f DOUBLE, r ROW<a INT, b STRING>, x INT";
        assert_eq!(written(&plain, numbers, b"2020-01-02 03:04:05,100,1e10,1;x,NULL"), "\"2020-01-02 03:04:05\",1E+2,1.0E10,1;x,");
        let bars = CsvOptions { delimiter: b'|', scientific_decimals: false, null_literal: Some("NULL".into()), ..plain };
        assert_eq!(written(&bars, numbers, b"2020-01-02 03:04:05,100,1e10,1;x,NULL"), "\"2020-01-02 03:04:05\"|100|1.0E10|\"1;x\"|NULL");
    }
}
