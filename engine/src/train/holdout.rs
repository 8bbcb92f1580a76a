//! Which rows are kept from training, so that a model is measured on rows that it has not seen.
//!
//! By hash: a row goes by its own values, so neither its place nor the other rows decide, and equal rows go together
//! (a model cannot have seen a row that it is asked about). By time: the newest rows, for what is predicted into
//! the future. The hash is the engine's own, so a row is on the same side in every version.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit};

use super::spool::Spool;
use crate::config::Options;
use crate::error::{Error, Result};
use crate::runtime::key_group::hash_rows;

/// How rows are held out.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldOut {
    /// The part of the rows, from 0 (none) to below 1.
    pub fraction: f64,
    /// The column whose greatest values are held out; `None`: by the rows' hash.
    pub column: Option<String>,
}

/// Says of each row on which side it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Split {
    /// All rows are trained on.
    None,
    /// Rows whose hash is below this part of all hashes are held out.
    Hash(f64),
    /// Rows at this time or later are held out; a row without a time is trained on.
    Time {
        /// The column.
        column: String,
        /// Microseconds, or whatever an integer column counts.
        from: i64,
    },
}

impl HoldOut {
    /// Reads `holdout` (a part of the rows; `default` unless said), `holdout.by` (`hash` or `time`) and
    /// `holdout.column`.
    ///
    /// # Errors
    /// User: a value that cannot be, a column that is not there or is no time.
    pub fn from_options(options: &mut Options, schema: &Schema, default: f64) -> Result<Self> {
        let said = options.text("holdout").unwrap_or_default();
        let fraction = options.number::<f64>("holdout")?.unwrap_or(default);
        if !(0.0..=0.9).contains(&fraction) {
            return Err(options.bad("holdout", &said, "a part of the rows from 0 (none) to 0.9, such as 0.2"));
        }
        let by_time = options.choice("holdout.by", &[("hash", false), ("time", true)], false)?;
        let column = if by_time { Some(options.required("holdout.column")?) } else { options.text("holdout.column") };
        let Some(column) = column else { return Ok(Self { fraction, column: None }) };
        if !by_time {
            let e = Error::user(format!("{}: 'holdout.column' is for 'holdout.by' = 'time'", options.owner()));
            return Err(e.help("write both or neither"));
        }
        let Ok(field) = schema.field_with_name(&column) else {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(options.bad("holdout.column", &column, &format!("a column of the query: {}", names.join(", "))));
        };
        let fits = matches!(field.data_type(), DataType::Timestamp(..) | DataType::Date32) || field.data_type().is_signed_integer();
        if !fits {
            return Err(options.bad("holdout.column", &column, "a column of type TIMESTAMP, TIMESTAMP_LTZ, DATE or an integer"));
        }
        Ok(Self { fraction, column: Some(column) })
    }

    /// Looks where the line is between the rows of `spool`.
    ///
    /// # Errors
    /// External: the rows cannot be read.
    pub fn split(&self, spool: &Spool) -> Result<Split> {
        let column = match &self.column {
            _ if self.fraction == 0.0 => return Ok(Split::None),
            None => return Ok(Split::Hash(self.fraction)),
            Some(column) => column,
        };
        let mut all: Vec<i64> = Vec::new();
        spool.for_each(|batch| {
            all.extend(times(batch, column)?.iter().flatten());
            Ok(())
        })?;
        let held_out = (all.len() as f64 * self.fraction).floor() as usize;
        if held_out == 0 {
            return Ok(Split::None);
        }
        let at = all.len() - held_out;
        let (_, from, _) = all.select_nth_unstable(at);
        Ok(Split::Time { column: column.clone(), from: *from })
    }
}

impl Split {
    /// True for each row that is held out.
    ///
    /// # Errors
    /// Internal: a column of a type that cannot be hashed.
    pub fn held_out(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        match self {
            Self::None => Ok(BooleanArray::from(vec![false; batch.num_rows()])),
            Self::Hash(fraction) => {
                let mut hashes = Vec::new();
                hash_rows(batch.columns(), &mut hashes)?;
                // The upper 53 bits, as a number from 0 to 1.
                Ok(hashes.into_iter().map(|h| Some(((h >> 11) as f64 / (1u64 << 53) as f64) < *fraction)).collect())
            }
            Self::Time { column, from } => Ok(times(batch, column)?.iter().map(|t| Some(t.is_some_and(|t| t >= *from))).collect()),
        }
    }
}

fn times(batch: &RecordBatch, column: &str) -> Result<arrow::array::Int64Array> {
    let values = batch.column_by_name(column).ok_or_else(|| Error::internal(format!("the column '{column}' is gone")))?;
    let values = match values.data_type() {
        DataType::Timestamp(_, zone) => cast(values, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?,
        DataType::Date32 => cast(values, &DataType::Int32)?,
        _ => values.clone(),
    };
    Ok(cast(&values, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::super::spool::SpoolWriter;
    use super::*;

    fn rows(n: i64) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..n).map(|i| format!("{}", i % 13))));
        RecordBatch::try_from_iter([("id", ids), ("t", texts)]).expect("a batch")
    }

    fn options(given: &[(&str, &str)]) -> Options {
        Options::new("model 'm'", given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn a_row_is_on_its_side_whatever_is_beside_it() {
        let batch = rows(20_000);
        let split = Split::Hash(0.2);
        let all = split.held_out(&batch).expect("hashes");
        let part = all.true_count() as f64 / 20_000.0;
        assert!((part - 0.2).abs() < 0.01, "{part}");
        for at in [0, 77, 19_999] {
            assert_eq!(split.held_out(&batch.slice(at, 1)).expect("hashes").value(0), all.value(at));
        }
    }

    #[test]
    fn by_time_the_newest_are_held_out() {
        let batch = rows(100);
        let mut writer = SpoolWriter::new(batch.schema(), usize::MAX);
        // Not in the order of time.
        writer.push(batch.slice(50, 50)).expect("pushes");
        writer.push(batch.slice(0, 50)).expect("pushes");
        let spool = writer.finish().expect("finishes");
        let mut given = options(&[("holdout", "0.25"), ("holdout.by", "time"), ("holdout.column", "id")]);
        let split = HoldOut::from_options(&mut given, &batch.schema(), 0.2).expect("reads").split(&spool).expect("splits");
        assert_eq!(split, Split::Time { column: "id".into(), from: 75 });
        assert_eq!(split.held_out(&batch).expect("compares").true_count(), 25);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let error =
            |given: &[(&str, &str)]| HoldOut::from_options(&mut options(given), &rows(1).schema(), 0.2).expect_err("refused").to_string();
        assert!(error(&[("holdout", "20")]).contains("from 0 (none) to 0.9"));
        assert!(error(&[("holdout.by", "time")]).contains("needs the option 'holdout.column'"));
        assert!(error(&[("holdout.by", "time"), ("holdout.column", "t")]).contains("a column of type TIMESTAMP"));
        assert!(error(&[("holdout.by", "time"), ("holdout.column", "x")]).contains("a column of the query: id, t"));
        assert!(error(&[("holdout.column", "id")]).contains("write both or neither"));
    }
}
