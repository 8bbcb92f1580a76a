//! The rows of a training query, kept so that they can be gone through again: in memory up to a limit, in a temporary
//! file beyond it. That is why a table larger than memory trains.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, SeekFrom};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::error::{Error, Result};

/// Takes rows.
pub struct SpoolWriter {
    schema: SchemaRef,
    memory_limit: usize,
    kept: Vec<RecordBatch>,
    kept_bytes: usize,
    file: Option<StreamWriter<BufWriter<File>>>,
    rows: u64,
}

/// All rows, in the order in which they came.
pub struct Spool {
    schema: SchemaRef,
    kept: Vec<RecordBatch>,
    file: Option<File>,
    rows: u64,
}

impl SpoolWriter {
    /// Rows of `schema`; beyond `memory_limit` bytes they go to a temporary file that nobody else can see.
    pub fn new(schema: SchemaRef, memory_limit: usize) -> Self {
        Self { schema, memory_limit, kept: vec![], kept_bytes: 0, file: None, rows: 0 }
    }

    /// Adds rows.
    ///
    /// # Errors
    /// External: the temporary file cannot be written.
    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        // What a query says of nullability or of names in nested types is its own: the columns count.
        let batch = RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())?;
        self.rows += batch.num_rows() as u64;
        let bytes = slice_bytes(&batch)?;
        if self.file.is_none() && self.kept_bytes + bytes <= self.memory_limit {
            self.kept_bytes += bytes;
            self.kept.push(batch);
            return Ok(());
        }
        let writer = match &mut self.file {
            Some(writer) => writer,
            None => {
                let file = BufWriter::with_capacity(1 << 20, tempfile::tempfile().map_err(unwritable)?);
                self.file.insert(StreamWriter::try_new(file, &self.schema).map_err(unwritable)?)
            }
        };
        writer.write(&batch).map_err(unwritable)
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// All rows are in.
    ///
    /// # Errors
    /// External: the temporary file cannot be written.
    pub fn finish(self) -> Result<Spool> {
        let file = match self.file {
            None => None,
            Some(writer) => {
                let writer = writer.into_inner().map_err(unwritable)?;
                Some(writer.into_inner().map_err(|e| unwritable(e.into_error()))?)
            }
        };
        Ok(Spool { schema: self.schema, kept: self.kept, file, rows: self.rows })
    }
}

impl Spool {
    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows in all.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Calls `each` with every batch, in order.
    ///
    /// # Errors
    /// External: the temporary file cannot be read; or what `each` answers.
    pub fn for_each(&self, mut each: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        self.kept.iter().try_for_each(&mut each)?;
        if let Some(file) = &self.file {
            let mut file = file;
            file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
            for batch in StreamReader::try_new(BufReader::with_capacity(1 << 20, file), None).map_err(unreadable)? {
                each(&batch.map_err(unreadable)?)?;
            }
        }
        Ok(())
    }
}

/// Bytes of the rows themselves: a slice of a large array counts for what it shows.
fn slice_bytes(batch: &RecordBatch) -> Result<usize> {
    batch.columns().iter().map(|c| Ok(c.to_data().get_slice_memory_size()?)).sum()
}

fn unwritable(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::external("the temporary file for training rows cannot be written").caused_by(e).help("free some disk, or point TMPDIR elsewhere")
}

fn unreadable(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::external("the temporary file for training rows cannot be read").caused_by(e)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, StringArray};
    use arrow::compute::concat_batches;

    use super::*;

    #[test]
    fn rows_come_back_as_they_went_in_from_memory_and_from_the_file() {
        let batch = |from: usize| {
            let numbers = Float64Array::from_iter((from..from + 100).map(|i| (i % 7 != 0).then_some(i as f64)));
            let texts = StringArray::from_iter((from..from + 100).map(|i| (i % 5 != 0).then(|| format!("row {i}"))));
            RecordBatch::try_from_iter_with_nullable([
                ("n", Arc::new(numbers) as arrow::array::ArrayRef, true),
                ("t", Arc::new(texts) as arrow::array::ArrayRef, true),
            ])
            .expect("a batch")
        };
        let all = |limit: usize| {
            let mut writer = SpoolWriter::new(batch(0).schema(), limit);
            for i in 0..20 {
                writer.push(batch(i * 100)).expect("pushes");
            }
            let spool = writer.finish().expect("finishes");
            let mut seen = vec![];
            // Twice: every pass sees all rows.
            for _ in 0..2 {
                seen.clear();
                let keep = |b: &RecordBatch| {
                    seen.push(b.clone());
                    Ok(())
                };
                spool.for_each(keep).expect("reads");
            }
            (concat_batches(spool.schema(), &seen).expect("one"), spool.file.is_some(), spool.kept.len())
        };
        let (kept, on_disk, _) = all(usize::MAX);
        assert!(!on_disk && kept.num_rows() == 2000);
        let (mixed, on_disk, in_memory) = all(10_000);
        assert!(on_disk && in_memory > 0 && in_memory < 20);
        assert_eq!(mixed, kept);
        assert_eq!(all(0).0, kept);
    }
}
