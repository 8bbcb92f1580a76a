//! CSV rows as JSON objects.
//!
//! Columns that hold nothing but numbers (or TRUE and FALSE) in the first rows become JSON numbers (or
//! booleans), as they are written: `1.50` stays `1.50`, and `007` or a phone number stays text. A later value
//! that is none is sent as text, so that no value changes. An empty value is NULL.

use std::collections::VecDeque;
use std::io::BufRead;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::input::{CsvForm, Records};
use crate::error::{Error, Result};

/// Rows that decide what a column holds.
const SAMPLE_ROWS: usize = 1000;
/// Integers up to this many characters fit in 64 bits.
const INTEGER_CHARS_MAX: usize = 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No value so far.
    Empty,
    Number,
    Boolean,
    Text,
}

/// One CSV row: its line and its values.
#[derive(Debug, Default, Clone)]
struct Row {
    line: u64,
    text: String,
    ends: Vec<usize>,
}

impl Row {
    fn values(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, to)| &self.text[from..*to])
    }
}

/// A CSV file.
pub struct CsvRecords {
    file: String,
    reader: Box<dyn BufRead>,
    core: Reader,
    /// `"name":` of each column, as JSON.
    names: Vec<String>,
    kinds: Vec<Kind>,
    sampled: VecDeque<Row>,
    row: Row,
    line: u64,
}

impl CsvRecords {
    /// Reads the header and the first rows.
    ///
    /// # Errors
    /// User: no header, or rows that do not fit.
    pub fn open(file: &str, reader: Box<dyn BufRead>, form: CsvForm) -> Result<Self> {
        let core = ReaderBuilder::new().delimiter(form.delimiter).build();
        let (file, row) = (file.to_string(), Row::default());
        let mut this = Self { file, reader, core, names: vec![], kinds: vec![], sampled: VecDeque::new(), row, line: 0 };
        let Some(first) = this.read()? else {
            return Err(Error::user(format!("{} is empty", this.file)).help("a CSV file starts with the names of its columns"));
        };
        let mut names: Vec<String> = first.values().map(|v| v.trim().to_string()).collect();
        if !form.header {
            names = (0..names.len()).map(|i| format!("f{i}")).collect();
            this.sampled.push_back(first);
        }
        for (i, name) in names.iter().enumerate() {
            if name.is_empty() {
                let e = Error::user(format!("{} line 1: column {} has no name", this.file, i + 1));
                return Err(e.help("name it, or give --no-header where the first line is data"));
            }
            if names[..i].contains(name) {
                let e = Error::user(format!("{} line 1: two columns are named '{name}'", this.file));
                return Err(e.help("rename one, or give --no-header where the first line is data"));
            }
        }
        this.names = names.iter().map(|n| format!("{}:", json_text(n))).collect();
        while this.sampled.len() < SAMPLE_ROWS {
            let Some(row) = this.read()? else { break };
            this.sampled.push_back(row);
        }
        this.kinds = vec![Kind::Empty; names.len()];
        for row in &this.sampled {
            for (kind, value) in this.kinds.iter_mut().zip(row.values()) {
                *kind = both(*kind, kind_of(value));
            }
        }
        Ok(this)
    }

    /// The next row; `None` at the end.
    fn read(&mut self) -> Result<Option<Row>> {
        let mut bytes = vec![0; 1024];
        let mut ends = vec![0; self.names.len().max(16) + 1];
        let (mut bytes_used, mut ends_used) = (0, 0);
        let line = self.line + 1;
        loop {
            let input = self.reader.fill_buf();
            let input = input.map_err(|e| Error::user(format!("{} line {line}: cannot be read", self.file)).caused_by(e))?;
            let (result, taken, wrote, ended) = self.core.read_record(input, &mut bytes[bytes_used..], &mut ends[ends_used..]);
            self.line += input[..taken].iter().filter(|b| **b == b'\n').count() as u64;
            self.reader.consume(taken);
            bytes_used += wrote;
            ends_used += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => bytes.resize(bytes.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => ends.resize(ends.len() * 2, 0),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        bytes.truncate(bytes_used);
        ends.truncate(ends_used);
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::user(format!("{} line {line}: the text is not UTF-8", self.file))
                .caused_by(e)
                .help(format!("iconv -f latin1 -t utf8 {}", self.file))
        })?;
        // A quoted value that was cut inside a character would not be one: its ends are.
        if ends.iter().any(|e| !text.is_char_boundary(*e)) {
            return Err(Error::user(format!("{} line {line}: the text is not UTF-8", self.file)));
        }
        if !self.names.is_empty() && ends.len() != self.names.len() {
            let plural = if ends.len() == 1 { "" } else { "s" };
            let e = Error::user(format!("{} line {line}: {} value{plural}, but {} columns", self.file, ends.len(), self.names.len()));
            return Err(e.help("check quotes, or give --delimiter"));
        }
        Ok(Some(Row { line, text, ends }))
    }
}

impl Records for CsvRecords {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        out.clear();
        let row = match self.sampled.pop_front() {
            Some(row) => row,
            None => match self.read()? {
                Some(row) => row,
                None => return Ok(false),
            },
        };
        if row.ends.len() != self.names.len() {
            // Only a first row without header comes by here unchecked.
            return Err(Error::user(format!(
                "{} line {}: {} values, but {} columns",
                self.file,
                row.line,
                row.ends.len(),
                self.names.len()
            )));
        }
        let mut before = b'{';
        for ((name, kind), value) in self.names.iter().zip(&self.kinds).zip(row.values()) {
            out.push(before);
            before = b',';
            out.extend_from_slice(name.as_bytes());
            match kind_of(value) {
                Kind::Empty => out.extend_from_slice(b"null"),
                Kind::Boolean if *kind == Kind::Boolean => out.extend_from_slice(value.to_ascii_lowercase().as_bytes()),
                Kind::Number if *kind == Kind::Number => out.extend_from_slice(value.as_bytes()),
                _ => out.extend_from_slice(json_text(value).as_bytes()),
            }
        }
        out.push(b'}');
        self.row = row;
        Ok(true)
    }

    fn place(&self) -> String {
        format!("line {}", self.row.line)
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn both(a: Kind, b: Kind) -> Kind {
    match (a, b) {
        (Kind::Empty, k) | (k, Kind::Empty) => k,
        (a, b) if a == b => a,
        _ => Kind::Text,
    }
}

fn kind_of(value: &str) -> Kind {
    if value.is_empty() {
        return Kind::Empty;
    }
    if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") {
        return Kind::Boolean;
    }
    if is_number(value) { Kind::Number } else { Kind::Text }
}

/// Whether JSON writes a number so, and 64 bits hold it.
fn is_number(value: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let unsigned = value.strip_prefix('-').unwrap_or(value);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
    if exponent.is_some_and(|e| !digits(e.strip_prefix(['+', '-']).unwrap_or(e)) || e.len() > 3) {
        return false;
    }
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    digits(whole) && !leading_zero && fraction.is_none_or(digits) && whole.len() <= INTEGER_CHARS_MAX
}

#[cfg(test)]
mod tests {
    use super::super::input::tests::read;
    use super::*;

    #[test]
    fn rows_become_objects_whose_values_are_as_they_were_written() {
        let text = "\u{feff}id,zip,price,open,name\n1,01000,1.50,true,\"a \"\"b\"\",\nc\"\n2,75001,,FALSE,\n";
        let expected = [
            r#"{"id":1,"zip":"01000","price":1.50,"open":true,"name":"a \"b\",\nc"}"#,
            r#"{"id":2,"zip":"75001","price":null,"open":false,"name":null}"#,
        ];
        assert_eq!(read("x.csv", text.as_bytes()).expect("rows"), expected);
    }

    #[test]
    fn rows_that_do_not_fit_are_named_by_line() {
        let message = |text: &[u8]| read("x.csv", text).expect_err("refused").message().to_string();
        assert!(
            message(b"a,b\n1,2\n\"x\ny\",2\n1,2,3\n").contains("line 5: 3 values, but 2 columns"),
            "{}",
            message(b"a,b\n1,2\n\"x\ny\",2\n1,2,3\n")
        );
        assert!(message(b"a,a\n1,2\n").contains("two columns are named 'a'"));
        assert!(message(b"").contains("is empty"));
        assert!(message(b"a\n\xff\n").contains("line 2: the text is not UTF-8"));
    }

    #[test]
    fn only_what_json_takes_for_a_number_is_one() {
        for yes in ["0", "-1", "12.50", "1e9", "2.302e-01"] {
            assert!(is_number(yes), "{yes}");
        }
        for no in ["", "-", "01", "+1", ".5", "5.", "1e", "NaN", "0x1", "12345678901234567890", "1 "] {
            assert!(!is_number(no), "{no}");
        }
    }
}
