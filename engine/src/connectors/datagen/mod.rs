//! `'connector' = 'datagen'`: rows from a seed.
//!
//! The value of a column in row `n` depends on the seed, the column and `n` alone, so a resumed job makes the
//! same rows, and so do batches of any size. Only times cannot: without bounds a TIMESTAMP is the current time,
//! as in Flink. The seed is `SET 'velosql.table.<name>.seed'` (0 unless set).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};

use super::{BatchLimits, Fetched, Fetcher, Payload, Position, RowReader, Scan, SourceTable, Split, TableSpec, metadata};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::formats::Decoded;

mod field;

use field::Field;

/// Rows of one batch that are made for a table without a rate at most, for each call.
const DEFAULT_ROWS_PER_SECOND: u64 = 10_000;

/// The source of a datagen table.
///
/// # Errors
/// User: an option that does not fit, or a column of a type that cannot be made.
pub fn source(spec: &TableSpec) -> Result<Arc<dyn SourceTable>> {
    metadata::check(spec, &[])?;
    let mut options = Options::new(format!("table '{}'", spec.name), spec.options.clone());
    options.declare(&["connector", "scan.parallelism"]);
    let rate = options.number::<u64>("rows-per-second")?.unwrap_or(DEFAULT_ROWS_PER_SECOND);
    if rate == 0 {
        return Err(options.bad("rows-per-second", "0", "above 0"));
    }
    let mut rows = options.number::<u64>("number-of-rows")?;
    let seed_knob = format!("'velosql.table.{}.seed'", spec.name);
    let seed = match spec.knobs.get("seed") {
        None => 0,
        Some(text) => text.trim().parse().map_err(|_| Error::user(format!("{seed_knob} is '{text}', but must be a number")))?,
    };
    let mut fields = Vec::new();
    for (i, column) in spec.physical.fields().iter().enumerate() {
        let field = Field::read(&mut options, column, seed, i as u64)?;
        rows = match (rows, field.rows()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        fields.push(field);
    }
    options.finish()?;
    Ok(Arc::new(Datagen { spec: spec.clone(), fields: fields.into(), rate, rows }))
}

struct Datagen {
    spec: TableSpec,
    fields: Arc<[Field]>,
    rate: u64,
    /// Where the table ends.
    rows: Option<u64>,
}

impl SourceTable for Datagen {
    fn is_bounded(&self) -> bool {
        self.rows.is_some()
    }

    fn open(&self, scan: &Scan, restore: Option<&[Split]>) -> Result<Box<dyn Fetcher>> {
        let split = match restore.and_then(<[Split]>::first) {
            Some(split) => split.clone(),
            None => Split {
                id: "rows".to_string(),
                position: Position::default(),
                end: self.rows.map(|r| i64::try_from(r).unwrap_or(i64::MAX)),
                ended: false,
            },
        };
        let first = u64::try_from(split.position.offset).map_err(|_| Error::state("a row number below 0"))?;
        Ok(Box::new(Generator {
            schema: scan.schema(&self.spec),
            scan: scan.clone(),
            fields: self.fields.clone(),
            rate: self.rate,
            started: Instant::now(),
            first,
            next: first,
            reported_end: split.ended,
            split,
        }))
    }

    fn reader(&self, _scan: &Scan) -> Result<Box<dyn RowReader>> {
        Ok(Box::new(PassThrough))
    }
}

struct Generator {
    schema: arrow::datatypes::SchemaRef,
    scan: Scan,
    fields: Arc<[Field]>,
    rate: u64,
    started: Instant,
    first: u64,
    next: u64,
    reported_end: bool,
    split: Split,
}

impl Generator {
    /// Rows that may have been made by now.
    fn due(&self) -> u64 {
        let made = self.started.elapsed().as_secs_f64() * self.rate as f64;
        // The first row comes at once.
        self.first.saturating_add(made as u64).saturating_add(1)
    }
}

impl Fetcher for Generator {
    fn splits(&self) -> Vec<Split> {
        vec![self.split.clone()]
    }

    fn fetch(&mut self, limits: &BatchLimits, wait: Duration) -> Result<Fetched> {
        if self.reported_end {
            return Ok(Fetched::End);
        }
        let end = self.split.end.map_or(u64::MAX, |e| e as u64);
        if self.next >= end {
            self.reported_end = true;
            return Ok(Fetched::SplitEnded(0));
        }
        let until = Instant::now() + wait;
        // A batch is handed out when it is full, when the table ends with it, or when its first row is old enough.
        let wanted = (limits.rows.max(1) as u64).min(end - self.next);
        let opened = Instant::now();
        let ready = loop {
            let ready = self.due().saturating_sub(self.next).min(wanted);
            let now = Instant::now();
            if ready == wanted || ready > 0 && now >= opened + limits.latency {
                break ready;
            }
            if now >= until {
                if ready > 0 {
                    break ready;
                }
                return Ok(Fetched::Nothing);
            }
            std::thread::sleep(
                Duration::from_secs_f64(1.0 / self.rate as f64)
                    .clamp(Duration::from_micros(200), Duration::from_millis(20))
                    .min(until - now),
            );
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let columns: Vec<ArrayRef> =
            self.scan.physical.iter().map(|i| self.fields[*i].make(self.next, ready as usize, now)).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(ready as usize));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        self.next += ready;
        let position = Position { file: None, offset: self.next as i64 };
        self.split.position = position.clone();
        Ok(Fetched::Batch { split: 0, payload: Payload::Rows(batch), position })
    }
}

struct PassThrough;

impl RowReader for PassThrough {
    fn read(&mut self, payload: &Payload) -> Result<Decoded> {
        match payload {
            Payload::Rows(batch) => Ok(Decoded { batch: batch.clone(), origin: None, rejected: vec![], nulled_values: 0 }),
            Payload::Raw { .. } => Err(Error::internal("undecoded records of a generator")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::stream::SqlType;

    fn made(options: &[(&str, &str)], batch: usize, from: i64) -> Result<String> {
        let types = [("id", SqlType::BigInt), ("x", SqlType::Double), ("s", SqlType::STRING), ("d", SqlType::Decimal(6, 2))];
        let spec = TableSpec {
            name: "t".into(),
            physical: Arc::new(Schema::new(types.iter().map(|(n, t)| t.field(n, true)).collect::<Vec<_>>())),
            metadata: vec![],
            partition_keys: vec![],
            primary_key: vec![],
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            knobs: BTreeMap::new(),
        };
        let table = source(&spec)?;
        let restore = Split { id: "rows".into(), position: Position { file: None, offset: from }, end: Some(20), ended: false };
        let mut fetcher = table.open(&Scan::all(&spec), (from > 0).then_some(&[restore]))?;
        let limits = BatchLimits { rows: batch, bytes: 1 << 20, latency: Duration::ZERO };
        let mut batches = Vec::new();
        loop {
            match fetcher.fetch(&limits, Duration::from_secs(1))? {
                Fetched::Batch { payload: Payload::Rows(rows), .. } => batches.push(rows),
                Fetched::End => break,
                _ => {}
            }
        }
        let all = arrow::compute::concat_batches(&batches[0].schema(), &batches)?;
        Ok(arrow::util::pretty::pretty_format_batches(&[all])?.to_string())
    }

    #[test]
    fn rows_depend_on_their_number_alone() {
        let options = [
            ("connector", "datagen"),
            ("rows-per-second", "1000000"),
            ("fields.id.kind", "sequence"),
            ("fields.id.start", "5"),
            ("fields.id.end", "24"),
            ("fields.x.min", "-1"),
            ("fields.x.max", "1"),
            ("fields.s.length", "4"),
            ("fields.s.null-rate", "0.3"),
        ];
        let whole = made(&options, 1000, 0).expect("makes rows");
        assert_eq!(made(&options, 3, 0).expect("makes rows"), whole);
        let lines = |text: &str| text.lines().filter(|l| l.contains('.')).map(str::to_string).collect::<Vec<_>>();
        assert_eq!(lines(&whole).len(), 20, "{whole}");
        assert!(lines(&whole)[0].starts_with("| 5 "), "{whole}");
        assert_eq!(lines(&made(&options, 7, 12).expect("makes rows")), lines(&whole)[12..]);
        let nulls = whole.lines().filter(|l| l.contains("|      |")).count();
        assert!((1..15).contains(&nulls), "{whole}");
    }

    #[test]
    fn an_option_of_no_column_is_refused() {
        let e = made(&[("connector", "datagen"), ("fields.idd.min", "1")], 1, 0).expect_err("no such column");
        assert!(e.to_string().contains("did you mean 'fields.id.min'"), "{e}");
    }
}
