//! Columns into CSV records, quoted as Flink's writer does: texts that are long or hold a character up to the
//! larger of delimiter and quote (so nearly every text where the delimiter is `|`), and backslashes.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, FieldRef, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef,
    Time32MillisecondType,
};

use super::{CsvOptions, check_type};
use crate::error::{Error, Result};
use crate::formats::column::normalized;
use crate::formats::text::{
    Fraction, timestamp_at, write_base64, write_date, write_decimal, write_decimal_java, write_double, write_float, write_time,
    write_timestamp,
};
use crate::formats::{Encoder, Records};
use crate::stream::SqlType;

/// Texts longer than this are quoted without looking.
const LOOKED_AT_MAX: usize = 24;

/// Writes CSV records.
pub struct CsvEncoder {
    options: CsvOptions,
    fields: Fields,
    line: String,
    value: String,
}

impl CsvEncoder {
    /// An encoder of rows of `schema`.
    ///
    /// # Errors
    /// User: a type that CSV cannot hold.
    pub fn new(options: &CsvOptions, schema: &SchemaRef) -> Result<Self> {
        for field in schema.fields() {
            check_type(field.name(), &SqlType::of(field), false)?;
        }
        Ok(Self { options: options.clone(), fields: schema.fields().clone(), line: String::new(), value: String::new() })
    }
}

impl Encoder for CsvEncoder {
    fn encode(&mut self, rows: &RecordBatch, out: &mut Records) -> Result<()> {
        let columns = normalized(rows, &self.fields)?;
        for row in 0..rows.num_rows() {
            self.line.clear();
            for (i, (column, field)) in columns.iter().zip(&self.fields).enumerate() {
                if i > 0 {
                    self.line.push(char::from(self.options.delimiter));
                }
                if column.is_null(row) {
                    self.line.push_str(self.options.null_literal.as_deref().unwrap_or_default());
                    continue;
                }
                self.value.clear();
                let is_text = write_field(column, field, row, &self.options, &mut self.value)?;
                if is_text { write_quoted(&self.value, &self.options, &mut self.line) } else { self.line.push_str(&self.value) }
            }
            out.push(self.line.as_bytes());
        }
        Ok(())
    }
}

/// Appends a value; answers whether it is a text, which may need quotes.
fn write_field(array: &ArrayRef, field: &FieldRef, row: usize, options: &CsvOptions, out: &mut String) -> Result<bool> {
    macro_rules! integer {
        ($t:ty) => {{
            use std::fmt::Write;
            write!(out, "{}", array.as_primitive::<$t>().value(row)).expect("writing to a String cannot fail");
            return Ok(false);
        }};
    }
    match array.data_type() {
        DataType::Boolean => {
            out.push_str(if array.as_boolean().value(row) { "true" } else { "false" });
            return Ok(false);
        }
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::Float32 => {
            write_float(array.as_primitive::<Float32Type>().value(row), out);
            return Ok(false);
        }
        DataType::Float64 => {
            write_double(array.as_primitive::<Float64Type>().value(row), out);
            return Ok(false);
        }
        DataType::Decimal128(_, scale) => {
            let start = out.len();
            let value = array.as_primitive::<Decimal128Type>().value(row);
            if options.scientific_decimals {
                write_decimal_java(value, *scale, true, out);
            } else {
                // Without trailing zeros either way: only the exponent is the option's.
                write_decimal(value, *scale, out);
                if out[start..].contains('.') {
                    let kept = out.trim_end_matches('0').trim_end_matches('.').len();
                    out.truncate(kept);
                }
            }
            return Ok(false);
        }
        DataType::Utf8 => out.push_str(array.as_string::<i32>().value(row)),
        DataType::Binary => write_base64(array.as_binary::<i32>().value(row), out),
        DataType::Date32 => write_date(array.as_primitive::<Date32Type>().value(row), out),
        DataType::Time32(_) => write_time(array.as_primitive::<Time32MillisecondType>().value(row), Fraction::Trimmed, out),
        DataType::Timestamp(unit, zone) => {
            write_timestamp(timestamp_at(array, *unit, row), *unit, ' ', Fraction::Trimmed, out);
            if zone.is_some() {
                out.push('Z');
            }
        }
        DataType::List(item) => {
            let list = array.as_list::<i32>().value(row);
            for i in 0..list.len() {
                write_element(&list, item, i, i > 0, options, out)?;
            }
        }
        DataType::Struct(fields) => {
            for (i, (column, field)) in array.as_struct().columns().iter().zip(fields).enumerate() {
                write_element(column, field, row, i > 0, options, out)?;
            }
        }
        other => return Err(Error::internal(format!("CSV of the Arrow type {other} (column '{}')", field.name()))),
    }
    Ok(true)
}

fn write_element(array: &ArrayRef, field: &FieldRef, row: usize, delimited: bool, options: &CsvOptions, out: &mut String) -> Result<()> {
    if delimited {
        out.push_str(&options.element_delimiter);
    }
    if array.is_null(row) {
        out.push_str(options.null_literal.as_deref().unwrap_or_default());
        return Ok(());
    }
    write_field(array, field, row, options, out).map(|_| ())
}

fn write_quoted(text: &str, options: &CsvOptions, out: &mut String) {
    let Some(quote) = options.quote else { return out.push_str(text) };
    let low = options.delimiter.max(quote);
    let needs_quotes = |b: u8| b <= low || b == b'\\' || Some(b) == options.escape;
    // Java counts UTF-16 units.
    let is_long = text.len() > LOOKED_AT_MAX && text.encode_utf16().count() > LOOKED_AT_MAX;
    if !is_long && !text.bytes().any(needs_quotes) {
        return out.push_str(text);
    }
    out.push(char::from(quote));
    for c in text.chars() {
        if c == char::from(quote) || options.escape.is_some_and(|e| c == char::from(e)) {
            out.push(c);
        }
        out.push(c);
    }
    out.push(char::from(quote));
}
