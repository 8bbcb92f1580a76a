//! The training matrix: encoded rows in chunks of a fixed size, in memory up to a limit and in a file beyond it.
//!
//! Every reduction over rows goes chunk by chunk, and [`Chunks::fold`] merges what the chunks gave in their order:
//! that is why the number of threads does not change a model, and why a file larger than memory trains too
//! (each pass reads the file once more). What must hold: [`CHUNK_ROWS`] decides where a chunk ends, never a
//! thread, a batch or a file.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::Array2;

use crate::error::{Error, Result};

/// Rows of a chunk (the last one may have fewer).
pub const CHUNK_ROWS: usize = 4096;

/// Some consecutive rows: features row-major, then label and weight of each row.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// rows × features. Trees take NaN as missing; other algorithms never see one.
    pub x: Array2<f64>,
    /// The label: a number, or the index of the class. Empty for clustering.
    pub y: Vec<f64>,
    /// The weight of each row (class weight × sample weight); positive, 1 unless asked for.
    pub w: Vec<f64>,
}

/// All rows of a training set.
#[derive(Debug)]
pub struct Chunks {
    features: usize,
    labelled: bool,
    rows: usize,
    kept: Vec<Chunk>,
    /// Chunks beyond the memory limit, all of [`CHUNK_ROWS`] rows but the last.
    spilled: Option<Mutex<File>>,
}

/// Takes rows and cuts them into chunks.
#[derive(Debug)]
pub struct Builder {
    features: usize,
    labelled: bool,
    memory_limit: usize,
    x: Vec<f64>,
    y: Vec<f64>,
    w: Vec<f64>,
    rows: usize,
    kept: Vec<Chunk>,
    spill: Option<BufWriter<File>>,
}

impl Builder {
    /// Rows of `features` columns, with a label each where `labelled`; beyond `memory_limit` bytes they go to a
    /// temporary file that nobody else can see.
    pub fn new(features: usize, labelled: bool, memory_limit: usize) -> Self {
        Self { features, labelled, memory_limit, x: vec![], y: vec![], w: vec![], rows: 0, kept: vec![], spill: None }
    }

    /// Adds the rows of `x` with their labels (empty where there are none) and weights (empty: 1 each).
    ///
    /// # Errors
    /// External: the temporary file cannot be written.
    pub fn push(&mut self, x: &Array2<f64>, y: &[f64], w: &[f64]) -> Result<()> {
        for (i, row) in x.rows().into_iter().enumerate() {
            self.x.extend(row);
            if self.labelled {
                self.y.push(y[i]);
            }
            self.w.push(if w.is_empty() { 1.0 } else { w[i] });
            if self.w.len() == CHUNK_ROWS {
                self.cut()?;
            }
        }
        Ok(())
    }

    /// All rows are in.
    ///
    /// # Errors
    /// External: the temporary file cannot be written.
    pub fn finish(mut self) -> Result<Chunks> {
        if !self.w.is_empty() {
            self.cut()?;
        }
        let spilled = match self.spill {
            None => None,
            Some(writer) => Some(Mutex::new(writer.into_inner().map_err(|e| unwritable(e.into_error()))?)),
        };
        Ok(Chunks { features: self.features, labelled: self.labelled, rows: self.rows, kept: self.kept, spilled })
    }

    fn cut(&mut self) -> Result<()> {
        let rows = self.w.len();
        let (x, y, w) = (std::mem::take(&mut self.x), std::mem::take(&mut self.y), std::mem::take(&mut self.w));
        let bytes = (x.len() + y.len() + w.len()) * size_of::<f64>();
        self.rows += rows;
        if self.spill.is_none() && (self.kept.len() + 1) * bytes > self.memory_limit {
            self.spill = Some(BufWriter::new(tempfile::tempfile().map_err(unwritable)?));
        }
        match &mut self.spill {
            Some(file) => {
                for value in x.iter().chain(&y).chain(&w) {
                    file.write_all(&value.to_le_bytes()).map_err(unwritable)?;
                }
            }
            None => {
                let x = Array2::from_shape_vec((rows, self.features), x).map_err(|e| Error::internal(format!("a chunk's shape: {e}")))?;
                self.kept.push(Chunk { x, y, w });
            }
        }
        Ok(())
    }
}

impl Chunks {
    /// Rows in all.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of each row.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Chunks in all.
    pub fn len(&self) -> usize {
        self.rows.div_ceil(CHUNK_ROWS)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Calls `each` with every chunk and its number, in order.
    ///
    /// # Errors
    /// External: the temporary file cannot be read; or what `each` answers.
    pub fn for_each(&self, mut each: impl FnMut(usize, &Chunk) -> Result<()>) -> Result<()> {
        for (i, chunk) in self.kept.iter().enumerate() {
            each(i, chunk)?;
        }
        if let Some(file) = &self.spilled {
            let file = file.lock().unwrap_or_else(|e| e.into_inner());
            let mut reader = BufReader::with_capacity(1 << 20, &*file);
            reader.seek(SeekFrom::Start(0)).map_err(unreadable)?;
            for i in self.kept.len()..self.len() {
                each(i, &self.read(&mut reader, i)?)?;
            }
        }
        Ok(())
    }

    /// One pass on `threads` threads: `map` makes something of each chunk, `merge` takes these things one by one
    /// **in the order of the chunks**. What comes out is the same for any `threads`.
    ///
    /// # Errors
    /// External: the temporary file cannot be read.
    pub fn fold<A, P: Send>(
        &self,
        threads: usize,
        start: A,
        map: impl Fn(usize, &Chunk) -> P + Sync,
        mut merge: impl FnMut(&mut A, P),
    ) -> Result<A> {
        let mut all = start;
        let threads = threads.max(1);
        // In rounds, so that at most a few answers a thread wait for their turn.
        let round = threads * 4;
        for first in (0..self.kept.len()).step_by(round) {
            let chunks = &self.kept[first..(first + round).min(self.kept.len())];
            for part in on_threads(threads, chunks, |i, chunk| map(first + i, chunk)) {
                merge(&mut all, part);
            }
        }
        if let Some(file) = &self.spilled {
            let file = file.lock().unwrap_or_else(|e| e.into_inner());
            let mut reader = BufReader::with_capacity(1 << 20, &*file);
            reader.seek(SeekFrom::Start(0)).map_err(unreadable)?;
            let mut next = self.kept.len();
            while next < self.len() {
                let first = next;
                let mut chunks = Vec::with_capacity(round);
                while next < self.len() && chunks.len() < round {
                    chunks.push(self.read(&mut reader, next)?);
                    next += 1;
                }
                for part in on_threads(threads, &chunks, |i, chunk| map(first + i, chunk)) {
                    merge(&mut all, part);
                }
            }
        }
        Ok(all)
    }

    fn read(&self, reader: &mut impl Read, i: usize) -> Result<Chunk> {
        let rows = CHUNK_ROWS.min(self.rows - i * CHUNK_ROWS);
        let mut values = |n: usize| -> Result<Vec<f64>> {
            let mut bytes = vec![0u8; n * size_of::<f64>()];
            reader.read_exact(&mut bytes).map_err(unreadable)?;
            Ok(bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes"))).collect())
        };
        let x = values(rows * self.features)?;
        let y = values(if self.labelled { rows } else { 0 })?;
        let w = values(rows)?;
        let x = Array2::from_shape_vec((rows, self.features), x).map_err(|e| Error::internal(format!("a chunk's shape: {e}")))?;
        Ok(Chunk { x, y, w })
    }
}

/// `map` of each item, in the items' order, worked out on `threads` threads.
pub fn on_threads<T: Sync, P: Send>(threads: usize, items: &[T], map: impl Fn(usize, &T) -> P + Sync) -> Vec<P> {
    if threads <= 1 || items.len() <= 1 {
        return items.iter().enumerate().map(|(i, item)| map(i, item)).collect();
    }
    let next = AtomicUsize::new(0);
    let mut parts: Vec<(usize, P)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(items.len()))
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = vec![];
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(i) else { return mine };
                        mine.push((i, map(i, item)));
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    parts.sort_unstable_by_key(|(i, _)| *i);
    parts.into_iter().map(|(_, part)| part).collect()
}

fn unwritable(e: std::io::Error) -> Error {
    Error::external("the temporary file for training rows cannot be written").caused_by(e).help("free some disk, or point TMPDIR elsewhere")
}

fn unreadable(e: std::io::Error) -> Error {
    Error::external("the temporary file for training rows cannot be read").caused_by(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(rows: usize, limit: usize) -> Chunks {
        let mut builder = Builder::new(2, true, limit);
        for first in (0..rows).step_by(1000) {
            let n = 1000.min(rows - first);
            let x = Array2::from_shape_fn((n, 2), |(i, j)| ((first + i) * 2 + j) as f64 * 0.1);
            let y: Vec<f64> = (first..first + n).map(|i| i as f64).collect();
            builder.push(&x, &y, &[]).expect("pushes");
        }
        builder.finish().expect("finishes")
    }

    fn sum(chunks: &Chunks, threads: usize) -> (f64, usize) {
        let sum_of = |_: usize, c: &Chunk| (c.x.iter().sum::<f64>() + c.y.iter().sum::<f64>() + c.w.iter().sum::<f64>(), c.w.len());
        chunks.fold(threads, (0.0, 0), sum_of, |all, part| (all.0, all.1) = (all.0 + part.0, all.1 + part.1)).expect("folds")
    }

    #[test]
    fn a_sum_is_the_same_bits_at_any_thread_count_and_on_disk() {
        let kept = chunks(50_001, usize::MAX);
        let spilled = chunks(50_001, 300_000);
        assert!(spilled.spilled.is_some() && !spilled.kept.is_empty());
        let expected = sum(&kept, 1);
        assert_eq!(expected.1, 50_001);
        for threads in [1, 2, 7] {
            assert_eq!(sum(&kept, threads).0.to_bits(), expected.0.to_bits());
            assert_eq!(sum(&spilled, threads).0.to_bits(), expected.0.to_bits());
        }
    }
}
