//! JSON records into columns.
//!
//! sonic-rs finds the fields of a record in one pass and checks it to its end; only the wanted ones are
//! interpreted, straight into builders. Records are taken a few at a time: first their wanted fields are
//! found, then one column after the other is filled, while their text is still in the cache.

use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;

use super::text::{Raw, for_each_field, for_each_item};
use super::value::Reader;
use super::{JsonOptions, check_type};
use crate::error::Result;
use crate::formats::column::{Rows, shortened};
use crate::formats::{Decoded, Decoder, Records, Rejected};
use crate::stream::SqlType;

/// Rows whose fields are found before they are converted.
const ROWS_AT_ONCE: usize = 256;
/// Objects and arrays inside each other; more than Jackson's limit of 1000 would be no JSON to Flink either.
const DEPTH_MAX: usize = 500;

/// Reads JSON records.
pub struct JsonDecoder {
    rows: Rows,
    reader: Reader,
    names: Names,
}

impl JsonDecoder {
    /// A decoder of the `wanted` columns (ascending) of `physical`.
    ///
    /// # Errors
    /// User: a type that JSON cannot hold.
    pub fn new(options: &JsonOptions, physical: &SchemaRef, wanted: &[usize]) -> Result<Self> {
        for i in wanted {
            let field = physical.field(*i);
            check_type(field.name(), &SqlType::of(field))?;
        }
        let rows = Rows::new(physical, wanted)?;
        let names = Names::new(rows.columns.iter().map(|c| c.field.name().as_str()));
        Ok(Self { rows, reader: Reader::new(options), names })
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, records: &Records) -> Result<Decoded> {
        let escaped = with_escaped_controls(records);
        let records = escaped.as_ref().unwrap_or(records);
        let width = self.rows.columns.len();
        let mut fill = Fill { dead: Vec::new(), rejected: Vec::new(), done: 0 };
        let mut slots: Vec<Raw<'_>> = Vec::with_capacity(width * ROWS_AT_ONCE.min(records.len()));
        let mut origin: Vec<u32> = Vec::with_capacity(records.len());
        for (index, text) in records.texts().enumerate() {
            // A blank or absent record is no row; of an array that breaks off, the rows before that are.
            let (rows, broken) = match text {
                Ok(text) => self.names.find(text.unwrap_or_default(), width, &mut slots),
                Err(reason) => (0, Some(reason)),
            };
            origin.extend(std::iter::repeat_n(index as u32, rows));
            if let Some(reason) = broken {
                slots.truncate((origin.len() - fill.done) * width);
                fill.rejected.push(Rejected { index, reason });
            }
            if origin.len() - fill.done >= ROWS_AT_ONCE {
                fill.columns(&mut self.rows, &mut self.reader, &mut slots, &origin);
            }
        }
        fill.columns(&mut self.rows, &mut self.reader, &mut slots, &origin);
        let Fill { mut dead, mut rejected, .. } = fill;
        if !dead.is_empty() {
            dead.resize(origin.len(), false);
        }
        let batch = self.rows.finish(origin.len(), &dead)?;
        // Rejected while finding fields and while converting: back in the order of the records, one reason each.
        rejected.sort_by_key(|r| r.index);
        rejected.dedup_by_key(|r| r.index);
        if !dead.is_empty() {
            let mut row = dead.iter();
            origin.retain(|_| row.next() == Some(&false));
        }
        let one_each = origin.len() == records.len() && origin.iter().enumerate().all(|(i, o)| i == *o as usize);
        Ok(Decoded { batch, origin: (!one_each).then_some(origin), rejected, nulled_values: std::mem::take(&mut self.reader.nulled) })
    }
}

/// The rows converted so far.
struct Fill {
    /// Rows that were rejected while they were converted; empty while there are none.
    dead: Vec<bool>,
    rejected: Vec<Rejected>,
    done: usize,
}

impl Fill {
    /// Converts the rows in `slots`, column by column, and empties it. `origin` names their records.
    fn columns(&mut self, rows: &mut Rows, reader: &mut Reader, slots: &mut Vec<Raw<'_>>, origin: &[u32]) {
        let width = rows.columns.len();
        for (c, column) in rows.columns.iter_mut().enumerate() {
            for (r, index) in origin[self.done..].iter().enumerate() {
                if let Err(bad) = reader.append(column, slots[r * width + c]) {
                    let row = self.done + r;
                    self.dead.resize(self.dead.len().max(row + 1), false);
                    if !self.dead[row] {
                        self.dead[row] = true;
                        self.rejected.push(Rejected { index: *index as usize, reason: bad.reason(column.field.name()) });
                    }
                }
            }
        }
        slots.clear();
        self.done = origin.len();
    }
}

/// Finds the wanted fields by name.
struct Names {
    wanted: HashMap<Box<str>, u32>,
    /// Name and place of the fields of the first record, in its order: the next records mostly have the same.
    shape: Vec<(Box<str>, Option<u32>)>,
}

impl Names {
    fn new<'a>(wanted: impl Iterator<Item = &'a str>) -> Self {
        let mut places = HashMap::new();
        for (i, name) in wanted.enumerate() {
            places.entry(Box::from(name)).or_insert(i as u32);
        }
        Self { wanted: places, shape: Vec::new() }
    }

    /// Appends `width` slots for each row of the record to `slots`; answers how many rows are whole, and why the rest is not.
    fn find<'a>(&mut self, text: &'a str, width: usize, slots: &mut Vec<Raw<'a>>) -> (usize, Option<String>) {
        let text = text.trim_ascii_start();
        match text.as_bytes().first() {
            None => (0, None),
            Some(_) if is_too_deep(text) => (0, Some(format!("more than {DEPTH_MAX} objects or arrays inside each other"))),
            Some(b'{') => match self.find_row(text, width, slots) {
                Ok(()) => (1, None),
                Err(reason) => (0, Some(reason)),
            },
            Some(b'[') => {
                let (mut rows, mut failed) = (0, None);
                let walked = for_each_item(text, |item| {
                    failed = self.find_row(item.text, width, slots).err();
                    rows += usize::from(failed.is_none());
                    failed.is_none()
                });
                (rows, walked.err().map(|e| failed.unwrap_or(e)))
            }
            Some(_) => (0, Some(format!("expected a JSON object, found '{}'", shortened(text)))),
        }
    }

    fn find_row<'a>(&mut self, text: &'a str, width: usize, slots: &mut Vec<Raw<'a>>) -> Result<(), String> {
        let start = slots.len();
        slots.resize(start + width, Raw::MISSING);
        let row = &mut slots[start..];
        let mut position = 0;
        for_each_field(text, |name, value| {
            if let Some(place) = self.place(position, name) {
                let slot = &mut row[place as usize];
                // The first of two equal names counts.
                if slot.text.is_empty() {
                    *slot = value;
                }
            }
            position += 1;
            true
        })
        .map(|_| ())
    }

    fn place(&mut self, position: usize, name: &str) -> Option<u32> {
        const SHAPE_MAX: usize = 256;
        match self.shape.get(position) {
            Some((known, place)) if **known == *name => *place,
            None if position == self.shape.len() && position < SHAPE_MAX => {
                let place = self.wanted.get(name).copied();
                self.shape.push((name.into(), place));
                place
            }
            _ => self.wanted.get(name).copied(),
        }
    }
}

/// Whether the parser, which calls itself for each level, must not see this text.
fn is_too_deep(text: &str) -> bool {
    // Cheap facts first: a short text cannot be deep, nor one with few brackets.
    if text.len() <= DEPTH_MAX || text.bytes().filter(|b| matches!(b, b'{' | b'[')).count() <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for b in text.bytes() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

/// A copy of `records` in which control characters inside strings are escaped, where there are any: Flink
/// takes them as they are, the parser does not.
fn with_escaped_controls(records: &Records) -> Option<Records> {
    // In blocks without an early end, which the compiler turns into vector instructions: this looks at every byte.
    let has_control = |block: &[u8]| block.iter().fold(false, |found, b| found | (*b < 0x20));
    if !records.bytes.chunks(256).any(has_control) {
        return None;
    }
    let mut out = Records { absent: records.absent.clone(), ..Records::default() };
    out.bytes.reserve(records.bytes.len() + 64);
    let (mut start, mut changed) = (0, false);
    for end in &records.ends {
        let (mut in_string, mut escaped) = (false, false);
        for b in &records.bytes[std::mem::replace(&mut start, *end)..*end] {
            if *b < 0x20 && in_string && !escaped {
                changed = true;
                out.bytes.extend_from_slice(format!("\\u{b:04x}").as_bytes());
                continue;
            }
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_string,
                b'"' => in_string = !in_string,
                _ => {}
            }
            out.bytes.push(*b);
        }
        out.ends.push(out.bytes.len());
    }
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::formats::text::write_value;

    /// Decodes `lines` as the columns `(name, type)` and shows rows, rejected records and counts.
    fn show(options: &JsonOptions, columns: &[(&str, &str)], wanted: &[usize], lines: &[&[u8]]) -> String {
        let field = |(name, text): &(&str, &str)| {
            let nullable = !text.ends_with(" NOT NULL");
            SqlType::parse(text.trim_end_matches(" NOT NULL")).expect("a type").field(name, nullable)
        };
        let schema: SchemaRef = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let mut records = Records::default();
        lines.iter().for_each(|l| records.push(l));
        let mut decoder = JsonDecoder::new(options, &schema, wanted).expect("a schema");
        // Twice, for the decoder keeps memory.
        decoder.decode(&records).expect("decodes");
        let decoded = decoder.decode(&records).expect("decodes");
        let mut out = String::new();
        for row in 0..decoded.batch.num_rows() {
            for (i, column) in decoded.batch.columns().iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_value(column, decoded.batch.schema_ref().field(i), row, chrono_tz::UTC, &mut out);
            }
            out.push('\n');
        }
        for r in &decoded.rejected {
            out.push_str(&format!("! {}: {}\n", r.index, r.reason));
        }
        if let Some(origin) = &decoded.origin {
            out.push_str(&format!("origin {origin:?}\n"));
        }
        if decoded.nulled_values > 0 {
            out.push_str(&format!("nulled {}\n", decoded.nulled_values));
        }
        out
    }

    fn ignoring() -> JsonOptions {
        JsonOptions { ignore_parse_errors: true, ..JsonOptions::default() }
    }

    /// The values of one nullable column under ignore-parse-errors, as Flink 2.3 gives them.
    fn values(t: &str, values: &[&str]) -> String {
        let lines: Vec<String> = values.iter().map(|v| format!("{{\"v\":{v}}}")).collect();
        let lines: Vec<&[u8]> = lines.iter().map(|l| l.as_bytes()).collect();
        let shown = show(&ignoring(), &[("v", t)], &[0], &lines);
        shown.lines().filter(|l| !l.starts_with("nulled")).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn scalars_convert_as_in_flink() {
        assert_eq!(
            values("INT", &["2.9", "-2.9", r#"" 4 ""#, r#""4.5""#, "2147483648", "1e3", r#""1e3""#, "true", "[1]"]),
            "2 | -2 | 4 | null | null | 1000 | null | null | null"
        );
        assert_eq!(values("TINYINT", &["127", "128", "1.5", r#""7""#]), "127 | null | null | 7");
        assert_eq!(values("BOOLEAN", &["true", r#"" TRUE ""#, "1", r#""yes""#]), "true | true | false | false");
        assert_eq!(values("DOUBLE", &["1", r#""NaN""#, r#""inf""#, r#""1d""#, "1e400"]), "1.0 | NaN | null | 1.0 | Infinity");
        assert_eq!(
            values("DECIMAL(5,2)", &["1.005", "-1.005", "999.995", "999.994", "1e2", r#"" 1 ""#, r#""abc""#]),
            "1.01 | -1.01 | null | 999.99 | 100.00 | 1.00 | null"
        );
        assert_eq!(
            values("STRING", &["1.50", "1e3", "true", r#"{"a": 1, "b":[1, 2.50]}"#, r#""\ud800x\u00e9\/""#]),
            r#"1.50 | 1e3 | true | {"a":1,"b":[1,2.5]} | ?xé/"#
        );
        assert_eq!(values("BYTES", &[r#""QUI=""#, r#""QUI""#, "1"]), "[65, 66] | null | null");
        assert_eq!(
            values("TIMESTAMP_LTZ(3)", &[r#""2020-01-02 03:04:05.5Z""#, r#""2020-01-02 03:04:05""#]),
            "2020-01-02T03:04:05.500Z | null"
        );
    }

    #[test]
    fn nested_values_convert_element_by_element() {
        assert_eq!(values("ARRAY<INT>", &[r#"[1,"x",null,2]"#, "{}", "[]"]), "[1, null, null, 2] | null | []");
        assert_eq!(values("MAP<STRING, INT>", &[r#"{"a":1,"b":"x","a":2}"#, "1"]), "{a=2, b=null} | null");
        assert_eq!(
            values("ROW<a INT, b ROW<c STRING>>", &[r#"{"b":{"c":{"d":1}},"a":2,"a":3}"#, "{}", r#"{"a":"x","b":3}"#]),
            r#"+I[2, +I[{"d":1}]] | +I[null, null] | +I[null, null]"#
        );
    }

    #[test]
    fn bad_records_are_rejected_with_their_reason_and_good_ones_stay() {
        let lines: &[&[u8]] = &[
            b"{\"v\":1,\"w\":{\"x\":[1,{}]}} text behind",
            b"",
            b"{\"v\":2, \"w\":",
            b"{\"w\":\"\xff\"}",
            b"{\"v\":\"a value that is long enough to be shortened somewhere\"}",
            b"{\"V\":3}",
            b"{\"w\":\"tab\there\",\"v\":4,\"v\":5}",
            b"5",
            b"{\"v\":6}",
        ];
        assert_eq!(
            show(&JsonOptions::default(), &[("w", "STRING"), ("v", "INT NOT NULL")], &[1], lines),
            "1\n4\n6\n\
             ! 2: EOF while parsing at line 1 column 12\n\
             ! 3: invalid UTF-8 at byte 6\n\
             ! 4: column 'v': '\"a value that is long enough to be short…' cannot be read as INT\n\
             ! 5: column 'v': NULL in a column that is INT NOT NULL\n\
             ! 7: expected a JSON object, found '5'\n\
             origin [0, 6, 8]\n"
        );
    }

    #[test]
    fn an_array_is_a_row_each_up_to_where_it_breaks() {
        let lines: &[&[u8]] = &[b"[{\"v\":1},{\"v\":\"x\"}]", b"[]", b"[{\"v\":2},5]"];
        assert_eq!(show(&ignoring(), &[("v", "INT")], &[0], lines), "1\nnull\n2\n! 2: expected an object\norigin [0, 0, 2]\nnulled 1\n");
    }

    #[test]
    fn a_record_of_brackets_is_refused_not_followed() {
        let deep = [b"{\"v\":".to_vec(), vec![b'['; 100_000]].concat();
        let shown = show(&ignoring(), &[("v", "STRING")], &[], &[&deep, b"{}"]);
        assert_eq!(shown, "\n! 0: more than 500 objects or arrays inside each other\norigin [1]\n");
    }

    #[test]
    fn many_records_pass_in_several_goes() {
        let lines: Vec<String> =
            (0..1000).map(|i| if i % 300 == 7 { "{\"v\":\"x\"}".into() } else { format!("{{\"w\":\"é\",\"v\":{i}}}") }).collect();
        let lines: Vec<&[u8]> = lines.iter().map(|l| l.as_bytes()).collect();
        let shown = show(&JsonOptions::default(), &[("v", "BIGINT")], &[0], &lines);
        assert_eq!(shown.lines().filter(|l| l.starts_with('!')).count(), 4);
        assert_eq!(shown.lines().nth(7), Some("8"));
        assert_eq!(shown.lines().nth(995), Some("999"));
    }
}
