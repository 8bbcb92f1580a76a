//! Golden rows: some training rows with the predictions that the model gave when it was published.
//!
//! Loading scores them again; one bit of difference refuses the version. The file is Arrow IPC with two struct
//! columns, `input` and `output`, so that a field of the model may have any name.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;

use crate::error::{Error, Result};
use crate::models::model::Model;

/// Golden rows of a version at most.
pub const GOLDEN_ROWS_MAX: usize = 100;

/// The file of `rows` (the first [`GOLDEN_ROWS_MAX`]) and what `model` makes of them.
pub(super) fn file(rows: &RecordBatch, model: &Model) -> Result<Vec<u8>> {
    // Other columns (label, weight) may be there: the model's own are picked, as its inputs name them.
    let mut columns = Vec::new();
    for field in model.inputs().fields() {
        columns.push(rows.schema().index_of(field.name()).map_err(|_| Error::internal(format!("golden rows without '{}'", field.name())))?);
    }
    let rows = rows.project(&columns)?.slice(0, rows.num_rows().min(GOLDEN_ROWS_MAX));
    let answers = model.score(&rows)?.columns;
    let both = [("input", rows), ("output", answers)].map(|(name, batch)| {
        let part = StructArray::from(batch);
        (Arc::new(Field::new(name, part.data_type().clone(), false)), Arc::new(part) as ArrayRef)
    });
    let [(input, rows), (output, answers)] = both;
    let schema = Arc::new(Schema::new(vec![input, output]));
    let batch = RecordBatch::try_new(schema.clone(), vec![rows, answers])?;
    let mut writer = FileWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}

/// Scores the golden rows of `file` again.
///
/// # Errors
/// State: the file is none, or `model` does not give its predictions, bit for bit.
pub(super) fn replay(file: &[u8], model: &Model) -> Result<()> {
    let unreadable = |e| Error::state("the golden rows cannot be read").caused_by(e);
    for batch in FileReader::try_new(Cursor::new(file), None).map_err(unreadable)? {
        let batch = batch.map_err(unreadable)?;
        let part = |name: &str| {
            let column = batch.column_by_name(name).and_then(|c| c.as_struct_opt());
            column.map(RecordBatch::from).ok_or_else(|| Error::state(format!("the golden rows have no '{name}'")))
        };
        let (rows, expected) = (part("input")?, part("output")?);
        let answers = model.score(&rows).map_err(|e| Error::state("the model does not take its golden rows").caused_by(e))?.columns;
        if answers.num_columns() != expected.num_columns() {
            return Err(Error::state("the golden predictions are not those of such a model"));
        }
        for (field, (answer, expected)) in model.outputs().fields().iter().zip(answers.columns().iter().zip(expected.columns())) {
            if let Some(row) = first_difference(answer, expected) {
                let e = Error::state(format!("golden row {row} does not give its '{}' again", field.name()));
                return Err(e.help("the model's numbers were changed, or this program or machine computes differently: train it anew"));
            }
        }
    }
    Ok(())
}

/// The first row whose bits differ.
fn first_difference(a: &ArrayRef, b: &ArrayRef) -> Option<usize> {
    if a.data_type() != b.data_type() || a.len() != b.len() {
        return Some(0);
    }
    (0..a.len()).find(|i| !same(&a.slice(*i, 1), &b.slice(*i, 1)))
}

/// Whether two arrays of a type and length hold the same bits where they are not null.
fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    if (0..a.len()).any(|i| a.is_null(i) != b.is_null(i)) {
        return false;
    }
    match a.data_type() {
        DataType::Float64 => {
            let (a, b) = (a.as_primitive::<Float64Type>(), b.as_primitive::<Float64Type>());
            a.iter().zip(b).all(|(a, b)| a.map(f64::to_bits) == b.map(f64::to_bits))
        }
        DataType::Map(..) => {
            let (a, b) = (a.as_map(), b.as_map());
            (0..a.len()).all(|i| {
                let (a, b) = (a.value(i), b.value(i));
                a.len() == b.len() && same(a.column(0), b.column(0)) && same(a.column(1), b.column(1))
            })
        }
        _ => a == b,
    }
}
