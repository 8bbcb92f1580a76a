//! The source half: hands out a hub's records at positions, in the order that the test asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};

use super::{Content, Event, Hub, Input, Tables};
use crate::config::Options;
use crate::connectors::metadata::{self, MetadataReader};
use crate::connectors::{
    BatchLimits, Context, Envelope, Fetched, Fetcher, Payload, Position, RowReader, Scan, SourceTable, Split, TableSpec,
};
use crate::error::{Error, Result, nearest};
use crate::formats::{self, FormatKind, Records};

/// Metadata keys of a memory table.
const METADATA: &[&str] = &["partition", "offset"];

/// The source of a memory table.
///
/// # Errors
/// User: an option or metadata key that does not exist, or a table that no test has filled.
pub fn source(spec: &TableSpec, ctx: &Context) -> Result<Arc<dyn SourceTable>> {
    let mut options = Options::new(format!("table '{}'", spec.name), spec.options.clone());
    options.declare(&["connector", "accepts", "durable"]);
    let name = options.text("format").unwrap_or_else(|| "json".to_string());
    let format = formats::read_format(&name, &mut options, "")?;
    let is_static = options.flag("static", false)?;
    options.finish()?;
    metadata::check(spec, METADATA)?;
    let tables = ctx.memory.lock();
    let Some(input) = tables.inputs.get(&spec.name) else {
        let e = Error::user(format!("memory table '{}' holds nothing to read", spec.name));
        return Err(match nearest(&spec.name, tables.inputs.keys().map(String::as_str)) {
            Some(n) => e.help(format!("did you mean '{n}'?")),
            None => e.help("memory tables are filled by tests, through a Hub"),
        });
    };
    let bounded = !input.unbounded;
    drop(tables);
    Ok(Arc::new(MemorySource { spec: spec.clone(), ctx: ctx.clone(), format, bounded, is_static }))
}

struct MemorySource {
    spec: TableSpec,
    ctx: Context,
    format: FormatKind,
    bounded: bool,
    is_static: bool,
}

impl SourceTable for MemorySource {
    fn is_bounded(&self) -> bool {
        self.bounded
    }

    fn is_static(&self) -> bool {
        self.is_static && self.bounded
    }

    fn open(&self, scan: &Scan, restore: Option<&[Split]>) -> Result<Box<dyn Fetcher>> {
        let mut tables = self.ctx.memory.lock();
        let Some(input) = tables.inputs.get_mut(&self.spec.name) else {
            return Err(Error::user(format!("memory table '{}' holds nothing to read", self.spec.name)));
        };
        let splits = match restore {
            Some(splits) => splits.to_vec(),
            None => (0..input.initial).map(new_split).collect(),
        };
        let global = splits.iter().map(|s| s.position.offset as usize).sum();
        input.fetched = global;
        // Splits that the checkpoint knows need not be added again; silence before its place is over.
        let mut known = splits.len().saturating_sub(input.initial);
        let mut events = input.events.clone();
        events.retain(|(at, event)| match event {
            Event::AddSplit if known > 0 => {
                known -= 1;
                false
            }
            Event::AddSplit => true,
            Event::Gap(_) => *at >= global,
        });
        drop(tables);
        Ok(Box::new(MemoryFetcher {
            hub: self.ctx.memory.clone(),
            spec: self.spec.clone(),
            scan: scan.clone(),
            opened: splits.clone(),
            splits,
            turn: 0,
            events: events.into(),
            silent_until: None,
        }))
    }

    fn reader(&self, scan: &Scan) -> Result<Box<dyn RowReader>> {
        let decoder = self.format.decoder(&self.spec.physical, &scan.physical, self.ctx.zone)?;
        Ok(Box::new(MetadataReader::new(decoder, scan.schema(&self.spec), keys(&self.spec, scan), value)))
    }
}

fn new_split(index: usize) -> Split {
    Split { id: index.to_string(), position: Position::default(), end: None, ended: false }
}

fn keys(spec: &TableSpec, scan: &Scan) -> Vec<String> {
    scan.metadata.iter().map(|i| spec.metadata[*i].key.clone()).collect()
}

/// The values of metadata `key` for each of `rows` records.
fn value(key: &str, envelope: &Envelope, rows: usize) -> ArrayRef {
    match key {
        "partition" => Arc::new(Int32Array::from(vec![envelope.partition; rows])),
        _ => Arc::new(Int64Array::from(envelope.offsets.clone())),
    }
}

struct MemoryFetcher {
    hub: Hub,
    spec: TableSpec,
    scan: Scan,
    opened: Vec<Split>,
    splits: Vec<Split>,
    /// The split whose turn it is, without given arrivals.
    turn: usize,
    events: std::collections::VecDeque<(usize, Event)>,
    silent_until: Option<Instant>,
}

impl Fetcher for MemoryFetcher {
    fn splits(&self) -> Vec<Split> {
        self.opened.clone()
    }

    fn fetch(&mut self, limits: &BatchLimits, wait: Duration) -> Result<Fetched> {
        let end = Instant::now() + wait;
        loop {
            if let Some(fetched) = self.step(limits)? {
                return Ok(fetched);
            }
            let now = Instant::now();
            let until = self.silent_until.map_or(end, |silent| silent.min(end));
            if now >= end {
                return Ok(Fetched::Nothing);
            }
            let mut woken = false;
            // Any change of the hub ends the wait early; the loop then looks again.
            self.hub.clone().wait(until.saturating_duration_since(now), |_| std::mem::replace(&mut woken, true));
        }
    }
}

impl MemoryFetcher {
    /// What is there without waiting.
    fn step(&mut self, limits: &BatchLimits) -> Result<Option<Fetched>> {
        let hub = self.hub.clone();
        let mut tables = hub.lock();
        let input = input(&mut tables, &self.spec.name)?;
        let global: usize = self.splits.iter().map(|s| s.position.offset as usize).sum();
        if let Some(silent) = self.silent_until {
            if Instant::now() < silent {
                return Ok(None);
            }
            self.silent_until = None;
        }
        if let Some(split) = self.next_ended(input) {
            self.splits[split].ended = true;
            return Ok(Some(Fetched::SplitEnded(split)));
        }
        if let Some((at, event)) = self.events.front().copied()
            && (at <= global || !input.unbounded && !self.has_rows(input))
        {
            self.events.pop_front();
            return Ok(match event {
                Event::Gap(gap) => {
                    self.silent_until = Some(Instant::now() + gap);
                    None
                }
                Event::AddSplit => {
                    let split = new_split(self.splits.len());
                    self.splits.push(split.clone());
                    Some(Fetched::SplitAdded(split))
                }
            });
        }
        let next_event = self.events.front().map_or(usize::MAX, |(at, _)| *at);
        let stop = next_event.min(input.pause_after.unwrap_or(usize::MAX));
        let room = limits.rows.max(1).min(stop.saturating_sub(global));
        if room == 0 {
            return Ok(None);
        }
        let Some((split, rows)) = self.next_run(input, room) else {
            let over = !input.unbounded && self.events.is_empty() && self.splits.iter().all(|s| s.ended);
            return Ok(over.then_some(Fetched::End));
        };
        let start = self.splits[split].position.offset as usize;
        let (payload, rows) = self.payload(&input.splits[split], split, start, rows, limits.bytes)?;
        let position = Position { file: None, offset: (start + rows) as i64 };
        self.splits[split].position = position.clone();
        input.fetched = global + rows;
        drop(tables);
        hub.0.changed.notify_all();
        Ok(Some(Fetched::Batch { split, payload, position }))
    }

    /// A split that has been read whole and has not been reported.
    fn next_ended(&self, input: &Input) -> Option<usize> {
        let paused = input.pause_after.is_some_and(|at| input.fetched >= at);
        if input.unbounded || paused {
            return None;
        }
        (0..self.splits.len()).find(|i| !self.splits[*i].ended && self.splits[*i].position.offset as usize >= input.splits[*i].len())
    }

    /// Whether a known split has a record left.
    fn has_rows(&self, input: &Input) -> bool {
        self.splits.iter().zip(&input.splits).any(|(s, content)| (s.position.offset as usize) < content.len())
    }

    /// The split to read now, and how many of its records follow each other (at most `room`).
    fn next_run(&mut self, input: &Input, room: usize) -> Option<(usize, usize)> {
        let Some(arrivals) = &input.arrivals else {
            for _ in 0..self.splits.len() {
                let split = self.turn % self.splits.len();
                self.turn += 1;
                let left = input.splits[split].len().saturating_sub(self.splits[split].position.offset as usize);
                if left > 0 {
                    return Some((split, left.min(room)));
                }
            }
            return None;
        };
        // Everything before the sum of the positions has been answered: arrivals are one total order.
        let global: usize = self.splits.iter().map(|s| s.position.offset as usize).sum();
        let rest = &arrivals[global.min(arrivals.len())..];
        let split = *rest.first().filter(|s| **s < self.splits.len())?;
        Some((split, rest.iter().take(room).take_while(|s| **s == split).count()))
    }

    fn payload(&self, content: &Content, split: usize, start: usize, rows: usize, bytes: usize) -> Result<(Payload, usize)> {
        match content {
            Content::Raw(records) => {
                let mut values = Records::default();
                for record in &records[start..start + rows] {
                    if !values.is_empty() && values.bytes.len() + record.len() > bytes {
                        break;
                    }
                    values.push(record);
                }
                let rows = values.len();
                let envelope = self.envelope(split, start, rows);
                Ok((Payload::Raw { values, envelope }, rows))
            }
            Content::Rows(batch) => {
                let schema = self.scan.schema(&self.spec);
                let envelope = self.envelope(split, start, rows);
                let mut columns: Vec<ArrayRef> = self.scan.physical.iter().map(|i| batch.column(*i).slice(start, rows)).collect();
                for (key, field) in keys(&self.spec, &self.scan).iter().zip(&schema.fields()[columns.len()..]) {
                    columns.push(metadata::cast(value(key, &envelope, rows), field)?);
                }
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
                Ok((Payload::Rows(RecordBatch::try_new_with_options(schema, columns, &options)?), rows))
            }
        }
    }

    fn envelope(&self, split: usize, start: usize, rows: usize) -> Envelope {
        let offsets = (start..start + rows).map(|i| i as i64).collect();
        Envelope { origin: self.spec.name.as_str().into(), partition: split as i32, offsets, ..Envelope::default() }
    }
}

fn input<'a>(tables: &'a mut Tables, name: &str) -> Result<&'a mut Input> {
    tables.inputs.get_mut(name).ok_or_else(|| Error::internal(format!("memory table '{name}' has gone")))
}
