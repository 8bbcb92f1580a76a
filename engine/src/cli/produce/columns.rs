//! Columns of JSON records, for `--where`: which types they have, and their values as arrays.
//!
//! Types are those of the first records: whole numbers are BIGINT, other numbers DOUBLE, TRUE and FALSE
//! BOOLEAN, everything else STRING (objects and arrays as their JSON text). A record that cannot be read as
//! JSON has NULL everywhere.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use sonic_rs::{JsonType, JsonValueTrait, LazyValue};

use crate::error::{Error, Result, nearest};
use crate::sql::RowFilter;
use crate::stream::SqlType;

/// The condition of `--where` over JSON records.
pub struct Where {
    filter: RowFilter,
    schema: SchemaRef,
}

impl Where {
    /// The condition `text` over records such as those of `sample`.
    ///
    /// # Errors
    /// User: no condition, or one over columns that the sample does not have.
    pub fn new(text: &str, file: &str, sample: &[Vec<u8>]) -> Result<Self> {
        let mut fields: Vec<FieldRef> = Vec::new();
        for name in RowFilter::columns(text)? {
            check_column("--where", &name, file, sample)?;
            fields.push(Arc::new(type_of(&name, sample).field(&name, true)));
        }
        Ok(Self { filter: RowFilter::new(text, fields.clone(), chrono_tz::UTC)?, schema: Arc::new(Schema::new(fields)) })
    }

    /// Which of `records` are kept, and how many could not be read as JSON.
    ///
    /// # Errors
    /// Data: a value that is of another type than those before it.
    pub fn keeps(&self, records: &[(Vec<u8>, String)]) -> Result<(Vec<bool>, u64)> {
        let columns = self.schema.fields().iter().map(|f| column(f, records)).collect::<Result<Vec<_>>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(records.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let kept = self.filter.keeps(&batch).map_err(|e| e.context("--where"))?;
        // Only where nothing was found can a record be no JSON: the others have been read up to a value.
        let empty = |i: usize| batch.num_columns() > 0 && batch.columns().iter().all(|c| arrow::array::Array::is_null(c.as_ref(), i));
        let broken = |i: &usize| empty(*i) && sonic_rs::from_slice::<LazyValue<'_>>(&records[*i].0).is_err();
        let unreadable = (0..records.len()).filter(broken).count() as u64;
        Ok((kept.iter().map(|k| k == Some(true)).collect(), unreadable))
    }
}

/// The field `name` of a JSON object; `None` where it is absent, NULL, or the record is no JSON object.
pub fn value<'a>(record: &'a [u8], name: &str) -> Option<LazyValue<'a>> {
    sonic_rs::get_from_slice(record, &[name]).ok().filter(|v| v.get_type() != JsonType::Null)
}

/// A value as text: a string's own, else its JSON.
pub fn text_of<'a>(value: &'a LazyValue<'_>) -> &'a str {
    value.as_str().unwrap_or_else(|| value.as_raw_str())
}

/// Whether records of `sample` have the field `name`.
///
/// # Errors
/// User: none has it, with the nearest name.
pub fn check_column(option: &str, name: &str, file: &str, sample: &[Vec<u8>]) -> Result<()> {
    if sample.iter().any(|r| sonic_rs::get_from_slice(r.as_slice(), &[name]).is_ok()) {
        return Ok(());
    }
    if sample.is_empty() {
        return Ok(());
    }
    let mut names: Vec<String> = Vec::new();
    for record in sample {
        let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(record) else { continue };
        for key in object.keys() {
            if !names.contains(key) {
                names.push(key.clone());
            }
        }
    }
    if names.is_empty() {
        return Err(Error::user(format!("{option}: no record at the start of {file} is a JSON object, so that none has '{name}'")));
    }
    let e = Error::user(format!("{option}: {file} has no column '{name}' in its first {} records", sample.len()));
    let near = names.iter().find(|n| n.eq_ignore_ascii_case(name)).map(String::as_str);
    Err(match near.or_else(|| nearest(name, names.iter().map(String::as_str))) {
        Some(near) => e.help(format!("did you mean {near}?")),
        None => e.help(format!("its columns: {}", names.join(", "))),
    })
}

fn type_of(name: &str, sample: &[Vec<u8>]) -> SqlType {
    let mut found: Option<SqlType> = None;
    for value in sample.iter().filter_map(|r| value(r, name)) {
        let this = match value.get_type() {
            JsonType::Boolean => SqlType::Boolean,
            JsonType::Number if value.as_i64().is_some() => SqlType::BigInt,
            JsonType::Number => SqlType::Double,
            _ => SqlType::STRING,
        };
        found = Some(match (found, this) {
            (None, t) => t,
            (Some(a), b) if a == b => a,
            (Some(SqlType::BigInt | SqlType::Double), SqlType::BigInt | SqlType::Double) => SqlType::Double,
            _ => SqlType::STRING,
        });
    }
    found.unwrap_or(SqlType::STRING)
}

fn column(field: &Field, records: &[(Vec<u8>, String)]) -> Result<ArrayRef> {
    let values = records.iter().map(|(record, place)| (value(record, field.name()), place));
    let misfit = |place: &str, wanted: &str| {
        Error::data(format!("--where: {place}: '{}' is not {wanted}, unlike the records before it", field.name()))
            .help("write a condition that works without this column, or correct the record")
    };
    Ok(match field.data_type() {
        DataType::Boolean => {
            let mut out = BooleanBuilder::with_capacity(records.len());
            for (v, place) in values {
                out.append_option(v.map(|v| v.as_bool().ok_or_else(|| misfit(place, "TRUE or FALSE"))).transpose()?);
            }
            Arc::new(out.finish())
        }
        DataType::Int64 => {
            let mut out = Int64Builder::with_capacity(records.len());
            for (v, place) in values {
                let v = v.map(|v| v.as_i64().or_else(|| text_of(&v).trim().parse().ok()).ok_or_else(|| misfit(place, "a whole number")));
                out.append_option(v.transpose()?);
            }
            Arc::new(out.finish())
        }
        DataType::Float64 => {
            let mut out = Float64Builder::with_capacity(records.len());
            for (v, place) in values {
                let v = v.map(|v| v.as_f64().or_else(|| text_of(&v).trim().parse().ok()).ok_or_else(|| misfit(place, "a number")));
                out.append_option(v.transpose()?);
            }
            Arc::new(out.finish())
        }
        _ => {
            let mut out = StringBuilder::with_capacity(records.len(), records.len() * 16);
            for (v, _) in values {
                out.append_option(v.as_ref().map(text_of));
            }
            Arc::new(out.finish())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 4] = [r#"{"code":"16107","n":3,"at":{"lon":2}}"#, r#"{"code":"7","n":20}"#, "{broken", r#"{"code":null,"n":30.5}"#];

    fn kept(condition: &str) -> Result<(Vec<bool>, u64)> {
        let sample: Vec<Vec<u8>> = LINES.iter().map(|l| l.as_bytes().to_vec()).collect();
        let records: Vec<(Vec<u8>, String)> = sample.iter().cloned().map(|l| (l, "line 1".to_string())).collect();
        Where::new(condition, "x.jsonl", &sample)?.keeps(&records)
    }

    #[test]
    fn conditions_see_strings_and_numbers_as_the_records_have_them() {
        assert_eq!(kept("code IN ('16107','32017')").expect("a condition"), (vec![true, false, false, false], 1));
        assert_eq!(kept("n > 10").expect("a condition"), (vec![false, true, false, true], 1));
        assert_eq!(kept("`at` LIKE '%lon%' OR n IS NULL").expect("a condition").0, [true, false, true, false]);
        assert_eq!(kept("TRUE").expect("a condition").0, [true; 4]);
    }

    #[test]
    fn a_column_that_no_record_has_is_an_error_with_the_nearest() {
        let help = |c: &str| kept(c).expect_err("refused").help_text().map(str::to_string);
        assert_eq!(help("cod = 'x'").as_deref(), Some("did you mean code?"));
        assert_eq!(help("CODE = 'x'").as_deref(), Some("did you mean code?"));
        assert_eq!(help("something_else = 'x'").as_deref(), Some("its columns: at, code, n"));
    }
}
