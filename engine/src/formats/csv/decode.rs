//! CSV records into columns. All fields are split, for their position counts; only wanted ones are converted.

use arrow::datatypes::SchemaRef;

use super::split::Fields;
use super::{CsvOptions, check_type};
use crate::error::Result;
use crate::formats::column::{Bad, Column, Data, Parsed, Rows};
use crate::formats::text::{day_number, decode_base64, parse_timestamp};
use crate::formats::{Decoded, Decoder, Records, Rejected};
use crate::stream::SqlType;

/// Reads CSV records.
pub struct CsvDecoder {
    options: CsvOptions,
    physical: usize,
    wanted: Vec<usize>,
    rows: Rows,
    fields: Fields,
    reader: Reader,
}

impl CsvDecoder {
    /// A decoder of the `wanted` columns (ascending) of `physical`, which are all fields of a record.
    ///
    /// # Errors
    /// User: a type that CSV cannot hold.
    pub fn new(options: &CsvOptions, physical: &SchemaRef, wanted: &[usize]) -> Result<Self> {
        for i in wanted {
            check_type(physical.field(*i).name(), &SqlType::of(physical.field(*i)), false)?;
        }
        Ok(Self {
            options: options.clone(),
            physical: physical.fields().len(),
            wanted: wanted.to_vec(),
            rows: Rows::new(physical, wanted)?,
            fields: Fields::default(),
            reader: Reader { nulled: 0, bytes: Vec::new() },
        })
    }

    /// Splits a record and says why it is none of this table's.
    fn split(&mut self, record: &str) -> Result<(), String> {
        self.fields.split(record, &self.options)?;
        let (found, expected) = (self.fields.len(), self.physical);
        let trailing_delimiter = found == expected + 1 && self.fields.get(record, expected) == Some("");
        if found > expected && !trailing_delimiter || found < expected && !self.options.ignore_parse_errors {
            return Err(format!("{expected} fields expected, {found} found"));
        }
        Ok(())
    }
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, records: &Records) -> Result<Decoded> {
        let mut dead: Vec<bool> = Vec::new();
        let mut rejected = Vec::new();
        let mut origin: Vec<u32> = Vec::with_capacity(records.len());
        let mut rows = 0;
        for (index, text) in records.texts().enumerate() {
            let record = match text {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(reason) => {
                    rejected.push(Rejected { index, reason });
                    continue;
                }
            };
            if self.options.allow_comments && record.trim_start().starts_with('#') {
                continue;
            }
            if let Err(reason) = self.split(record) {
                rejected.push(Rejected { index, reason });
                continue;
            }
            let mut bad = None;
            for (column, field) in self.rows.columns.iter_mut().zip(&self.wanted) {
                let appended = match self.fields.get(record, *field) {
                    Some(text) => self.reader.append(column, text, &self.options),
                    None => column.append_null(),
                };
                if let Err(e) = appended {
                    bad.get_or_insert_with(|| e.reason(column.field.name()));
                }
            }
            rows += 1;
            match bad {
                None => origin.push(index as u32),
                Some(reason) => {
                    rejected.push(Rejected { index, reason });
                    dead.resize(rows - 1, false);
                    dead.push(true);
                }
            }
        }
        if !dead.is_empty() {
            dead.resize(rows, false);
        }
        let batch = self.rows.finish(rows, &dead)?;
        let one_each = origin.len() == records.len();
        Ok(Decoded { batch, origin: (!one_each).then_some(origin), rejected, nulled_values: std::mem::take(&mut self.reader.nulled) })
    }
}

/// Converts fields, and counts what became NULL.
struct Reader {
    nulled: u64,
    bytes: Vec<u8>,
}

impl Reader {
    /// Appends `text` to `column`: exactly one entry, also where it answers why the record is bad.
    fn append(&mut self, column: &mut Column, text: &str, options: &CsvOptions) -> Result<(), Bad> {
        let is_null = options.null_literal.as_deref() == Some(text) || options.empty_string_as_null && text.is_empty();
        if is_null {
            return column.append_null();
        }
        let parsed = match &mut column.data {
            Data::TinyInt(_) | Data::SmallInt(_) | Data::Int(_) | Data::BigInt(_) => column.append_text(text.trim(), false),
            Data::Bytes(b) => {
                self.bytes.clear();
                if decode_base64(text.as_bytes(), &mut self.bytes) {
                    b.append_value(&self.bytes);
                    Parsed::Done
                } else {
                    Parsed::Not
                }
            }
            Data::Date(b) => match lenient_date(text.as_bytes()) {
                Some(days) => {
                    b.append_value(days);
                    Parsed::Done
                }
                None => Parsed::Not,
            },
            Data::Time(b) => match iso_time(text) {
                Some(ms) => {
                    b.append_value(ms);
                    Parsed::Done
                }
                None => Parsed::Not,
            },
            Data::Array(item, lists) => {
                let mut bad = None;
                if !text.is_empty() {
                    for element in text.split(options.element_delimiter.as_str()) {
                        if let Err(e) = self.append(item, element, options) {
                            bad.get_or_insert(e);
                        }
                    }
                }
                lists.push(item.len(), true);
                return bad.map_or(Ok(()), Err);
            }
            Data::Row(fields, valid) => {
                let expected = fields.len();
                let mut elements = text.split(options.element_delimiter.as_str());
                let mut bad = None;
                for field in fields {
                    let appended = match elements.next() {
                        Some(element) => self.append(field, element, options),
                        None => {
                            field.append_filler();
                            Err(Bad::new(format!("{expected} elements expected in '{}'", super::super::column::shortened(text))))
                        }
                    };
                    if let Err(e) = appended {
                        bad.get_or_insert_with(|| e.below(field.field.name()));
                    }
                }
                valid.append(true);
                return bad.map_or(Ok(()), Err);
            }
            _ => column.append_text(text, false),
        };
        match parsed {
            Parsed::Done => Ok(()),
            Parsed::TooLarge | Parsed::Not if column.nullable() && (options.ignore_parse_errors || matches!(parsed, Parsed::TooLarge)) => {
                self.nulled += 1;
                column.append_null()
            }
            Parsed::TooLarge | Parsed::Not => {
                column.append_filler();
                Err(Bad::value(text, &column.sql))
            }
        }
    }
}

/// A date as Java's `Date.valueOf` reads it: month and day may have one digit, and a day that the month does not
/// have runs into the next.
fn lenient_date(text: &[u8]) -> Option<i32> {
    let mut parts = text.split(|b| *b == b'-');
    let mut part = |widths: std::ops::RangeInclusive<usize>, high: u32| {
        let digits = parts.next()?;
        if !widths.contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        Some(digits.iter().fold(0, |n, d| n * 10 + u32::from(d - b'0'))).filter(|n| *n <= high)
    };
    let (year, month, day) = (part(4..=4, 9999)?, part(1..=2, 12)?, part(1..=2, 31)?);
    if parts.next().is_some() || month == 0 || day == 0 {
        return None;
    }
    i32::try_from(day_number(year.into(), month, 1) + i64::from(day) - 1).ok()
}

/// `10:11`, `10:11:12` or with a fraction, which is cut.
fn iso_time(text: &str) -> Option<i32> {
    const DAY: &str = "1970-01-01T";
    let mut whole = [0u8; DAY.len() + 18];
    let bytes = whole.get_mut(..DAY.len() + text.len())?;
    bytes[..DAY.len()].copy_from_slice(DAY.as_bytes());
    bytes[DAY.len()..].copy_from_slice(text.as_bytes());
    let moment = parse_timestamp(bytes, crate::formats::text::TimestampText { iso: true, zulu: false })?;
    i32::try_from(moment.seconds * 1000).ok()
}
