//! The raw format: a record is the value of the table's only column.
//!
//! STRING in `raw.charset`, BYTES as they are, BOOLEAN as one byte, numbers as their bytes in `raw.endianness`.
//! An absent record is NULL, and NULL is written as an absent record.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef};

use crate::config::Options;
use crate::error::{Error, Result};
use crate::formats::column::{Bad, Column, Data, Rows, normalized};
use crate::formats::{Decoded, Decoder, Encoder, Records, Rejected};
use crate::stream::SqlType;

/// How text is held in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8.
    Utf8,
    /// One byte a character, the first 256 of Unicode.
    Latin1,
    /// The first 128 of them.
    Ascii,
}

/// The options of `'format' = 'raw'`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawOptions {
    /// `raw.charset`.
    pub charset: Charset,
    /// `raw.endianness` is little-endian.
    pub little_endian: bool,
}

impl RawOptions {
    /// Takes the options under `prefix` (`raw.`, `key.raw.`).
    ///
    /// # Errors
    /// User: a value that is none of an option's.
    pub fn take(options: &mut Options, prefix: &str) -> Result<Self> {
        let charsets = [
            ("UTF-8", Charset::Utf8),
            ("UTF8", Charset::Utf8),
            ("ISO-8859-1", Charset::Latin1),
            ("LATIN1", Charset::Latin1),
            ("US-ASCII", Charset::Ascii),
            ("ASCII", Charset::Ascii),
        ];
        Ok(Self {
            charset: options.choice(&format!("{prefix}charset"), &charsets, Charset::Utf8)?,
            little_endian: options.choice(&format!("{prefix}endianness"), &[("big-endian", false), ("little-endian", true)], false)?,
        })
    }
}

/// Refuses every schema but one column of a type that is a row of bytes.
fn check(schema: &Schema) -> Result<()> {
    if schema.fields().len() != 1 {
        let message = format!("the format 'raw' is for tables with one column, but there are {}", schema.fields().len());
        return Err(Error::user(message).help("declare one STRING or BYTES column, or use another format"));
    }
    let t = SqlType::of(schema.field(0));
    match t {
        SqlType::Boolean | SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt | SqlType::Float | SqlType::Double => {
            Ok(())
        }
        SqlType::Char(_) | SqlType::VarChar(_) | SqlType::Binary(_) | SqlType::VarBinary(_) => Ok(()),
        _ => Err(Error::user(format!("column '{}': the format 'raw' cannot hold {t}", schema.field(0).name()))
            .help("declare it STRING or BYTES")),
    }
}

/// Reads raw records.
pub struct RawDecoder {
    options: RawOptions,
    rows: Rows,
}

impl RawDecoder {
    /// A decoder of the `wanted` columns of `physical`, which has one column.
    ///
    /// # Errors
    /// User: more columns than one, or a type that has no bytes.
    pub fn new(options: &RawOptions, physical: &SchemaRef, wanted: &[usize]) -> Result<Self> {
        check(physical)?;
        Ok(Self { options: *options, rows: Rows::new(physical, wanted)? })
    }

    fn append(options: RawOptions, column: &mut Column, record: Option<&[u8]>) -> Result<(), Bad> {
        let Some(record) = record else { return column.append_null() };
        macro_rules! number {
            ($builder:expr, $t:ty) => {
                match record.try_into() {
                    Ok(bytes) if options.little_endian => $builder.append_value(<$t>::from_le_bytes(bytes)),
                    Ok(bytes) => $builder.append_value(<$t>::from_be_bytes(bytes)),
                    Err(_) => {
                        let wanted = std::mem::size_of::<$t>();
                        return Err(Bad::new(format!("{} bytes cannot be read as {} ({wanted} bytes)", record.len(), column.sql)));
                    }
                }
            };
        }
        match &mut column.data {
            Data::Text(b) => match options.charset {
                Charset::Utf8 => match std::str::from_utf8(record) {
                    Ok(text) => b.append_value(text),
                    Err(e) => return Err(Bad::new(format!("invalid UTF-8 at byte {}", e.valid_up_to()))),
                },
                Charset::Ascii if !record.is_ascii() => return Err(Bad::new("a byte that is not ASCII")),
                Charset::Latin1 | Charset::Ascii => b.append_value(record.iter().map(|b| char::from(*b)).collect::<String>()),
            },
            Data::Bytes(b) => b.append_value(record),
            Data::Boolean(b) => match record {
                [byte] => b.append_value(*byte != 0),
                _ => return Err(Bad::new(format!("{} bytes cannot be read as BOOLEAN (1 byte)", record.len()))),
            },
            Data::TinyInt(b) => number!(b, i8),
            Data::SmallInt(b) => number!(b, i16),
            Data::Int(b) => number!(b, i32),
            Data::BigInt(b) => number!(b, i64),
            Data::Float(b) => number!(b, f32),
            Data::Double(b) => number!(b, f64),
            _ => return Err(Bad::new("a type without bytes")),
        }
        Ok(())
    }
}

impl Decoder for RawDecoder {
    fn decode(&mut self, records: &Records) -> Result<Decoded> {
        let Some(column) = self.rows.columns.first_mut() else {
            // Nothing is wanted: only the number of records counts.
            let batch = self.rows.finish(records.len(), &[])?;
            return Ok(Decoded { batch, origin: None, rejected: Vec::new(), nulled_values: 0 });
        };
        let (mut rejected, mut dead) = (Vec::new(), Vec::new());
        for (index, record) in records.iter().enumerate() {
            if let Err(bad) = Self::append(self.options, column, record) {
                if column.len() == index {
                    column.append_filler();
                }
                dead.resize(records.len(), false);
                dead[index] = true;
                rejected.push(Rejected { index, reason: bad.reason(column.field.name()) });
            }
        }
        let batch = self.rows.finish(records.len(), &dead)?;
        let origin = (!dead.is_empty()).then(|| (0..records.len() as u32).filter(|i| !dead[*i as usize]).collect());
        Ok(Decoded { batch, origin, rejected, nulled_values: 0 })
    }
}

/// Writes raw records.
pub struct RawEncoder {
    options: RawOptions,
    schema: SchemaRef,
}

impl RawEncoder {
    /// An encoder of rows of `schema`, which has one column.
    ///
    /// # Errors
    /// User: more columns than one, or a type that has no bytes.
    pub fn new(options: &RawOptions, schema: &SchemaRef) -> Result<Self> {
        check(schema)?;
        Ok(Self { options: *options, schema: Arc::clone(schema) })
    }
}

impl Encoder for RawEncoder {
    fn encode(&mut self, rows: &RecordBatch, out: &mut Records) -> Result<()> {
        let columns = normalized(rows, self.schema.fields())?;
        let array = &columns[0];
        macro_rules! number {
            ($t:ty, $row:expr) => {{
                let value = array.as_primitive::<$t>().value($row);
                if self.options.little_endian { out.push(&value.to_le_bytes()) } else { out.push(&value.to_be_bytes()) }
            }};
        }
        for row in 0..rows.num_rows() {
            if array.is_null(row) {
                out.push_absent();
                continue;
            }
            match array.data_type() {
                DataType::Utf8 => {
                    let text = array.as_string::<i32>().value(row);
                    match self.options.charset {
                        Charset::Utf8 => out.push(text.as_bytes()),
                        // Java writes what a charset does not have as a question mark.
                        Charset::Latin1 => out.push(&text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect::<Vec<_>>()),
                        Charset::Ascii => out.push(&text.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }).collect::<Vec<_>>()),
                    }
                }
                DataType::Binary => out.push(array.as_binary::<i32>().value(row)),
                DataType::Boolean => out.push(&[u8::from(array.as_boolean().value(row))]),
                DataType::Int8 => number!(Int8Type, row),
                DataType::Int16 => number!(Int16Type, row),
                DataType::Int32 => number!(Int32Type, row),
                DataType::Int64 => number!(Int64Type, row),
                DataType::Float32 => number!(Float32Type, row),
                DataType::Float64 => number!(Float64Type, row),
                other => return Err(Error::internal(format!("raw bytes of the Arrow type {other}"))),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_length_and_nothing_else() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![SqlType::Int.field("v", true)]));
        let options = RawOptions { charset: Charset::Utf8, little_endian: false };
        let mut records = Records::default();
        records.push(&[0, 0, 1, 2]);
        records.push(b"abc");
        records.push_absent();
        let decoded = RawDecoder::new(&options, &schema, &[0]).expect("one column").decode(&records).expect("decodes");
        assert_eq!(format!("{:?}", decoded.batch.column(0).as_primitive::<Int32Type>().iter().collect::<Vec<_>>()), "[Some(258), None]");
        assert_eq!(decoded.origin, Some(vec![0, 2]));
        assert_eq!(decoded.rejected[0].reason, "column 'v': 3 bytes cannot be read as INT (4 bytes)");
        let mut out = Records::default();
        RawEncoder::new(&options, &schema).expect("one column").encode(&decoded.batch, &mut out).expect("encodes");
        assert_eq!(out.iter().collect::<Vec<_>>(), [Some(&[0, 0, 1, 2][..]), None]);
    }
}
