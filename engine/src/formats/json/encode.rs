//! Columns into JSON records: one object a row, fields in the order of the schema.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, FieldRef, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef,
    Time32MillisecondType,
};

use super::text::write_string;
use super::{JsonOptions, MapNullKey, check_type};
use crate::error::{Error, Result};
use crate::formats::column::normalized;
use crate::formats::text::{
    Fraction, timestamp_at, write_base64, write_date, write_decimal, write_decimal_java, write_double, write_float, write_time,
    write_timestamp,
};
use crate::formats::{Encoder, Records};
use crate::stream::SqlType;

/// Writes JSON records.
pub struct JsonEncoder {
    options: JsonOptions,
    fields: Fields,
    names: Vec<String>,
    line: String,
}

impl JsonEncoder {
    /// An encoder of rows of `schema`.
    ///
    /// # Errors
    /// User: a type that JSON cannot hold.
    pub fn new(options: &JsonOptions, schema: &SchemaRef) -> Result<Self> {
        for field in schema.fields() {
            check_type(field.name(), &SqlType::of(field))?;
        }
        let names = quoted_names(schema.fields());
        Ok(Self { options: options.clone(), fields: schema.fields().clone(), names, line: String::new() })
    }
}

impl Encoder for JsonEncoder {
    fn encode(&mut self, rows: &RecordBatch, out: &mut Records) -> Result<()> {
        let columns = normalized(rows, &self.fields)?;
        for row in 0..rows.num_rows() {
            self.line.clear();
            write_row(&columns, &self.fields, &self.names, row, &self.options, &mut self.line)?;
            out.push(self.line.as_bytes());
        }
        Ok(())
    }
}

/// `"name":` of each field.
fn quoted_names(fields: &Fields) -> Vec<String> {
    let quoted = |f: &FieldRef| {
        let mut name = String::new();
        write_string(f.name(), &mut name);
        name.push(':');
        name
    };
    fields.iter().map(quoted).collect()
}

fn write_row(columns: &[ArrayRef], fields: &Fields, names: &[String], row: usize, options: &JsonOptions, out: &mut String) -> Result<()> {
    out.push('{');
    let mut first = true;
    for ((column, field), name) in columns.iter().zip(fields).zip(names) {
        if options.ignore_null_fields && column.is_null(row) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        out.push_str(name);
        write_json(column, field, row, options, out).map_err(|e| e.context(format_args!("column '{}'", field.name())))?;
    }
    out.push('}');
    Ok(())
}

fn write_json(array: &ArrayRef, field: &FieldRef, row: usize, options: &JsonOptions, out: &mut String) -> Result<()> {
    if array.nulls().is_some_and(|n: &NullBuffer| n.is_null(row)) {
        out.push_str("null");
        return Ok(());
    }
    macro_rules! integer {
        ($t:ty) => {{
            use std::fmt::Write;
            write!(out, "{}", array.as_primitive::<$t>().value(row)).expect("writing to a String cannot fail");
        }};
    }
    match array.data_type() {
        DataType::Boolean => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            quoted_unless(value.is_finite(), out, |out| write_float(value, out));
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            quoted_unless(value.is_finite(), out, |out| write_double(value, out));
        }
        DataType::Decimal128(_, scale) => {
            let value = array.as_primitive::<Decimal128Type>().value(row);
            if options.plain_decimals { write_decimal(value, *scale, out) } else { write_decimal_java(value, *scale, true, out) }
        }
        DataType::Utf8 => write_string(array.as_string::<i32>().value(row), out),
        DataType::Binary => quoted_unless(false, out, |out| write_base64(array.as_binary::<i32>().value(row), out)),
        DataType::Date32 => quoted_unless(false, out, |out| write_date(array.as_primitive::<Date32Type>().value(row), out)),
        DataType::Time32(_) => quoted_unless(false, out, |out| {
            write_time(array.as_primitive::<Time32MillisecondType>().value(row), Fraction::Trimmed, out);
        }),
        DataType::Timestamp(unit, zone) => quoted_unless(false, out, |out| {
            let separator = if options.iso_timestamps { 'T' } else { ' ' };
            write_timestamp(timestamp_at(array, *unit, row), *unit, separator, Fraction::Trimmed, out);
            if zone.is_some() {
                out.push('Z');
            }
        }),
        DataType::List(item) => {
            let list = array.as_list::<i32>().value(row);
            out.push('[');
            for i in 0..list.len() {
                if i > 0 {
                    out.push(',');
                }
                write_json(&list, item, i, options, out)?;
            }
            out.push(']');
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(kv) = entries.data_type() else { return Err(Error::internal("a map without entries")) };
            let map = array.as_map().value(row);
            let (keys, values) = (map.column(0).as_string::<i32>(), map.column(1));
            out.push('{');
            let mut first = true;
            for i in 0..map.len() {
                let key = match &options.map_null_key {
                    _ if keys.is_valid(i) => keys.value(i),
                    MapNullKey::Literal(literal) => literal,
                    MapNullKey::Drop => continue,
                    MapNullKey::Fail => {
                        let e = Error::data("JSON cannot hold a MAP with a NULL key");
                        return Err(e.help("set 'json.map-null-key.mode' to DROP or LITERAL"));
                    }
                };
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_json(values, &kv[1], i, options, out)?;
            }
            out.push('}');
        }
        DataType::Struct(fields) => write_row(array.as_struct().columns(), fields, &quoted_names(fields), row, options, out)?,
        other => return Err(Error::internal(format!("JSON of the Arrow type {other} (column '{}')", field.name()))),
    }
    Ok(())
}

fn quoted_unless(bare: bool, out: &mut String, write: impl FnOnce(&mut String)) {
    if !bare {
        out.push('"');
    }
    write(out);
    if !bare {
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::formats::Decoder;
    use crate::formats::json::JsonDecoder;

    /// Reads `line` and writes it again.
    fn rewritten(options: &JsonOptions, columns: &[(&str, &str)], line: &str) -> String {
        let fields: Vec<_> = columns.iter().map(|(n, t)| SqlType::parse(t).expect("a type").field(n, true)).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let mut records = Records::default();
        records.push(line.as_bytes());
        let wanted: Vec<usize> = (0..columns.len()).collect();
        let decoded = JsonDecoder::new(&JsonOptions::default(), &schema, &wanted).and_then(|mut d| d.decode(&records)).expect("decodes");
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
        let mut out = Records::default();
        JsonEncoder::new(options, &schema).and_then(|mut e| e.encode(&decoded.batch, &mut out)).expect("encodes");
        String::from_utf8_lossy(out.get(0).expect("a record")).into_owned()
    }

    const COLUMNS: &[(&str, &str)] = &[
        ("d", "DOUBLE"),
        ("n", "DECIMAL(10,2)"),
        ("t", "TIMESTAMP(3)"),
        ("l", "TIMESTAMP_LTZ(6)"),
        ("b", "BYTES"),
        ("s", "STRING"),
        ("r", "ROW<a INT, b ARRAY<DATE>>"),
        ("m", "MAP<STRING, TIME(0)>"),
        ("x", "INT"),
    ];
    const LINE: &str = r#"{"d":"NaN","n":100,"t":"2020-01-02 03:04:05.120","l":"2020-01-02 03:04:00Z","b":"QUI=","s":"q\"\u0001/é","r":{"b":["2020-01-02",null]},"m":{"k":"10:11:12"}}"#;

    #[test]
    fn records_are_written_as_flink_writes_them() {
        assert_eq!(
            rewritten(&JsonOptions::default(), COLUMNS, LINE),
            r#"{"d":"NaN","n":1E+2,"t":"2020-01-02 03:04:05.12","l":"2020-01-02 03:04:00Z","b":"QUI=","s":"q\"\u0001/é","r":{"a":null,"b":["2020-01-02",null]},"m":{"k":"10:11:12"},"x":null}"#
        );
        let options = JsonOptions { iso_timestamps: true, plain_decimals: true, ignore_null_fields: true, ..JsonOptions::default() };
        assert_eq!(
            rewritten(&options, COLUMNS, LINE),
            r#"{"d":"NaN","n":100.00,"t":"2020-01-02T03:04:05.12","l":"2020-01-02T03:04:00Z","b":"QUI=","s":"q\"\u0001/é","r":{"b":["2020-01-02",null]},"m":{"k":"10:11:12"}}"#
        );
    }
}
