//! One JSON value into one column: Flink's conversions.

use super::JsonOptions;
use super::text::{Raw, for_each_field, for_each_item, write_compact};
use crate::formats::column::{Bad, Column, Data, Parsed};
use crate::formats::text::decode_base64;

/// What conversions need beside the value, and what they count.
pub(super) struct Reader {
    pub(super) ignore_errors: bool,
    pub(super) fail_on_missing: bool,
    pub(super) iso: bool,
    /// Values that became NULL.
    pub(super) nulled: u64,
    scratch: String,
    bytes: Vec<u8>,
}

impl Reader {
    pub(super) fn new(options: &JsonOptions) -> Self {
        Self {
            ignore_errors: options.ignore_parse_errors,
            fail_on_missing: options.fail_on_missing_field,
            iso: options.iso_timestamps,
            nulled: 0,
            scratch: String::new(),
            bytes: Vec::new(),
        }
    }

    /// Appends `raw` to `column`: exactly one entry, also where it answers why the record is bad.
    #[inline]
    pub(super) fn append(&mut self, column: &mut Column, raw: Raw<'_>) -> Result<(), Bad> {
        let parsed = match raw.text.as_bytes() {
            [] if self.fail_on_missing => {
                column.append_filler();
                return Err(Bad::new("the field is missing"));
            }
            [] | b"null" => return column.append_null(),
            [first, ..] => match (&mut column.data, first) {
                (Data::Text(b), b'"') if !raw.escaped => {
                    b.append_value(&raw.text[1..raw.text.len() - 1]);
                    Parsed::Done
                }
                (Data::Text(b), b'{' | b'[') => {
                    self.scratch.clear();
                    if write_compact(raw, &mut self.scratch) {
                        b.append_value(&self.scratch);
                        Parsed::Done
                    } else {
                        Parsed::Not
                    }
                }
                // INT and BIGINT cut the fraction of a number; of a text they do not.
                (Data::Int(b), b'-' | b'0'..=b'9') if is_fractional(raw.text) => {
                    match truncated(raw.text, i32::MIN.into(), i32::MAX.into()) {
                        Some(n) => {
                            b.append_value(n as i32);
                            Parsed::Done
                        }
                        None => Parsed::Not,
                    }
                }
                (Data::BigInt(b), b'-' | b'0'..=b'9') if is_fractional(raw.text) => match truncated(raw.text, i64::MIN, i64::MAX) {
                    Some(n) => {
                        b.append_value(n);
                        Parsed::Done
                    }
                    None => Parsed::Not,
                },
                (Data::Bytes(b), b'"') => {
                    self.bytes.clear();
                    match raw.content(&mut self.scratch) {
                        Some(content) if decode_base64(content.as_bytes(), &mut self.bytes) => {
                            b.append_value(&self.bytes);
                            Parsed::Done
                        }
                        _ => Parsed::Not,
                    }
                }
                (Data::Array(..), b'[') => return self.append_array(column, raw.text),
                (Data::Map(..), b'{') => return self.append_map(column, raw.text),
                (Data::Row(..), b'{') => return self.append_row(column, raw.text),
                _ => match raw.content(&mut self.scratch) {
                    Some(content) if matches!(column.data, Data::Decimal(..)) => column.append_text(content.trim(), self.iso),
                    Some(content) => column.append_text(content, self.iso),
                    None => Parsed::Not,
                },
            },
        };
        match parsed {
            Parsed::Done => Ok(()),
            Parsed::TooLarge if column.nullable() => {
                self.nulled += 1;
                column.append_null()
            }
            Parsed::Not | Parsed::TooLarge => self.failed(column, raw),
        }
    }

    /// A value that is none of the column's type.
    #[cold]
    fn failed(&mut self, column: &mut Column, raw: Raw<'_>) -> Result<(), Bad> {
        column.append_filler();
        if self.ignore_errors && column.nullable() {
            self.nulled += 1;
            return Ok(());
        }
        Err(Bad::value(raw.text, &column.sql))
    }

    fn append_array(&mut self, column: &mut Column, text: &str) -> Result<(), Bad> {
        let Data::Array(item, lists) = &mut column.data else { return Err(Bad::new("not an array")) };
        let mut bad = None;
        let walked = for_each_item(text, |raw| {
            if let Err(e) = self.append(item, raw) {
                bad.get_or_insert(e);
            }
            true
        });
        lists.push(item.len(), true);
        finished(bad, walked)
    }

    fn append_map(&mut self, column: &mut Column, text: &str) -> Result<(), Bad> {
        let Data::Map(entries, lists) = &mut column.data else { return Err(Bad::new("not a map")) };
        // Of equal keys the last value counts, so none may be appended before all are known.
        let mut found: Vec<(String, Raw<'_>)> = Vec::new();
        let walked = for_each_field(text, |key, raw| {
            match found.iter_mut().find(|(k, _)| k == key) {
                Some((_, value)) => *value = raw,
                None => found.push((key.to_string(), raw)),
            }
            true
        });
        let (keys, values) = (&mut entries.0, &mut entries.1);
        let mut bad = None;
        for (key, raw) in &found {
            if !matches!(keys.append_text(key, self.iso), Parsed::Done) {
                keys.append_filler();
                bad.get_or_insert_with(|| Bad::value(key, &keys.sql));
            }
            if let Err(e) = self.append(values, *raw) {
                bad.get_or_insert(e.below(key));
            }
        }
        lists.push(keys.len(), true);
        finished(bad, walked.map(|_| ()))
    }

    fn append_row(&mut self, column: &mut Column, text: &str) -> Result<(), Bad> {
        let Data::Row(fields, valid) = &mut column.data else { return Err(Bad::new("not a row")) };
        let mut slots = vec![Raw::MISSING; fields.len()];
        let mut next = 0;
        let walked = for_each_field(text, |key, raw| {
            // Fields mostly come in the declared order, so the search starts behind the last hit.
            if let Some(i) = (0..fields.len()).map(|i| (next + i) % fields.len()).find(|i| fields[*i].field.name() == key) {
                next = i + 1;
                if slots[i].text.is_empty() {
                    slots[i] = raw;
                }
            }
            true
        });
        let mut bad = None;
        for (field, raw) in fields.iter_mut().zip(slots) {
            if let Err(e) = self.append(field, raw) {
                bad.get_or_insert(e.below(field.field.name()));
            }
        }
        valid.append(true);
        finished(bad, walked.map(|_| ()))
    }
}

fn finished(bad: Option<Bad>, walked: Result<(), String>) -> Result<(), Bad> {
    walked.map_err(Bad::new)?;
    bad.map_or(Ok(()), Err)
}

fn is_fractional(number: &str) -> bool {
    number.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'))
}

/// A number with a fraction as an integer, where it is in range.
fn truncated(number: &str, low: i64, high: i64) -> Option<i64> {
    let d: f64 = number.parse().ok()?;
    // The upper bound of BIGINT is no double: the nearest one is already out of range.
    (d >= low as f64 && (d <= high as f64 && d < 9_223_372_036_854_775_807.0)).then(|| d.trunc() as i64)
}
