//! Partition folders: `k1=v1/k2=v2`, escaped as Flink and Hive escape them.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Component, Path};

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute;
use arrow::datatypes::Field;

use crate::error::{Error, Result};
use crate::formats::text;

/// Appends `text`, with what a path component may not hold as `%XX`.
pub fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\u{1}'..='\u{1f}' | '\u{7f}' | '"' | '#' | '%' | '\'' | '*' | '/' | ':' | '=' | '?' | '\\' | '{' | '[' | ']' | '^' => {
                let _ = write!(out, "%{:02X}", c as u32);
            }
            c => out.push(c),
        }
    }
}

/// Undoes [`escape`]; what is no escape stays.
pub fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match hex.filter(|_| bytes[i] == b'%').and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The value of partition column `field` in the path of a file below the table, as an array of one value.
///
/// # Errors
/// User: the path does not name the column, or its text is no value of its type.
pub fn value_in_path(file: &Path, field: &Field, default_name: &str) -> Result<ArrayRef> {
    let found = file.components().rev().skip(1).find_map(|c| match c {
        Component::Normal(name) => name.to_str()?.split_once('=').filter(|(k, _)| unescape(k) == *field.name()).map(|(_, v)| v),
        _ => None,
    });
    let Some(text) = found else {
        let e = Error::user(format!("the path of '{}' does not name the partition column '{}'", file.display(), field.name()));
        return Err(e.help(format!("put the file into a folder '{}=…', or leave the column out of PARTITIONED BY", field.name())));
    };
    let value = if text == default_name { None } else { Some(unescape(text)) };
    let array: ArrayRef = std::sync::Arc::new(StringArray::from(vec![value.clone()]));
    let options = compute::CastOptions { safe: false, ..Default::default() };
    compute::cast_with_options(&array, field.data_type(), &options).map_err(|e| {
        let text = value.unwrap_or_default();
        Error::user(format!("'{text}' in the path of '{}' is no value of partition column '{}'", file.display(), field.name())).caused_by(e)
    })
}

/// Splits rows by the partition folders they belong to.
#[derive(Debug)]
pub struct Partitioner {
    /// Partition columns by index, in the order of PARTITIONED BY.
    keys: Vec<usize>,
    /// The other columns.
    data: Vec<usize>,
    default_name: String,
    zone: chrono_tz::Tz,
}

impl Partitioner {
    /// `keys` and `data` index the columns of the rows.
    pub fn new(keys: Vec<usize>, data: Vec<usize>, default_name: String, zone: chrono_tz::Tz) -> Self {
        Self { keys, data, default_name, zone }
    }

    /// The rows of each folder (relative, `/` between), without the partition columns, folders in order of appearance.
    ///
    /// # Errors
    /// Internal only.
    pub fn split(&self, rows: &RecordBatch) -> Result<Vec<(String, RecordBatch)>> {
        let data = rows.project(&self.data)?;
        if self.keys.is_empty() {
            return Ok(vec![(String::new(), data)]);
        }
        let schema = rows.schema();
        let mut groups: Vec<(String, Vec<u32>)> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let (mut folder, mut value) = (String::new(), String::new());
        for row in 0..rows.num_rows() {
            folder.clear();
            for key in &self.keys {
                let (column, field) = (rows.column(*key), schema.field(*key));
                if !folder.is_empty() {
                    folder.push('/');
                }
                escape(field.name(), &mut folder);
                folder.push('=');
                value.clear();
                if !column.is_null(row) {
                    text::write_value(column, field, row, self.zone, &mut value);
                }
                escape(if value.is_empty() { &self.default_name } else { &value }, &mut folder);
            }
            let group = *known.entry_ref_or(&folder, || {
                groups.push((folder.clone(), Vec::new()));
                groups.len() - 1
            });
            groups[group].1.push(row as u32);
        }
        if let [(folder, _)] = groups.as_mut_slice() {
            return Ok(vec![(std::mem::take(folder), data)]);
        }
        groups.into_iter().map(|(folder, rows)| Ok((folder, compute::take_record_batch(&data, &UInt32Array::from(rows))?))).collect()
    }
}

/// `entry` that owns its key only where it is new.
trait EntryRef {
    fn entry_ref_or(&mut self, key: &str, new: impl FnOnce() -> usize) -> &usize;
}

impl EntryRef for HashMap<String, usize> {
    fn entry_ref_or(&mut self, key: &str, new: impl FnOnce() -> usize) -> &usize {
        if !self.contains_key(key) {
            self.insert(key.to_string(), new());
        }
        &self[key]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_in_flink_and_read_back() {
        let mut out = String::new();
        escape("00:00/é 50%", &mut out);
        assert_eq!(out, "00%3A00%2Fé 50%25");
        assert_eq!(unescape(&out), "00:00/é 50%");
        assert_eq!(unescape("100%"), "100%");
    }
}
