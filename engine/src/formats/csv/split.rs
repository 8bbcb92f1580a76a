//! One CSV record into its fields.

use super::CsvOptions;

/// Where the text of a field is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: usize,
    end: usize,
    /// In the scratch text (quotes and escapes removed), not in the record.
    copied: bool,
}

/// The fields of one record; memory is kept from record to record.
#[derive(Debug, Default)]
pub(super) struct Fields {
    spans: Vec<Span>,
    scratch: String,
}

impl Fields {
    /// Number of fields.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Field `i` of `record`; `None` where the record is too short.
    pub(super) fn get<'a>(&'a self, record: &'a str, i: usize) -> Option<&'a str> {
        let span = self.spans.get(i)?;
        Some(if span.copied { &self.scratch[span.start..span.end] } else { &record[span.start..span.end] })
    }

    /// Splits `record`.
    ///
    /// # Errors
    /// What is wrong with its quotes.
    pub(super) fn split(&mut self, record: &str, options: &CsvOptions) -> Result<(), String> {
        self.spans.clear();
        self.scratch.clear();
        let bytes = record.as_bytes();
        let blank = |b: u8| b <= b' ' && b != options.delimiter;
        let mut at = 0;
        loop {
            if options.trim_spaces {
                at += bytes[at..].iter().take_while(|b| blank(**b)).count();
            }
            if options.quote.is_some_and(|q| bytes.get(at) == Some(&q)) {
                at = self.quoted(record, at + 1, options)?;
                at += bytes[at..].iter().take_while(|b| blank(**b)).count();
                if let Some(b) = bytes.get(at).filter(|b| **b != options.delimiter) {
                    let found = if b.is_ascii() { char::from(*b) } else { '?' };
                    return Err(format!("'{found}' behind the closing quote of field {}", self.spans.len()));
                }
            } else {
                at = self.bare(record, at, options)?;
            }
            if at >= bytes.len() {
                return Ok(());
            }
            at += 1;
        }
    }

    /// A field without quotes from `start`; answers where its delimiter is.
    fn bare(&mut self, record: &str, start: usize, options: &CsvOptions) -> Result<usize, String> {
        let bytes = &record.as_bytes()[start..];
        let stops = |b: &u8| *b == options.delimiter || Some(*b) == options.escape;
        let mut end = start + bytes.iter().position(stops).unwrap_or(bytes.len());
        let mut span = Span { start, end, copied: false };
        if options.escape.is_some() && record.as_bytes().get(end) == options.escape.as_ref() {
            let copy = self.scratch.len();
            self.scratch.push_str(&record[start..end]);
            while let Some(b) = record.as_bytes().get(end).filter(|b| **b != options.delimiter) {
                end = if Some(*b) == options.escape { self.escaped(record, end + 1)? } else { self.character(record, end) };
            }
            span = Span { start: copy, end: self.scratch.len(), copied: true };
        }
        if options.trim_spaces {
            let text = if span.copied { &self.scratch[span.start..span.end] } else { &record[span.start..span.end] };
            span.end = span.start + text.trim_end_matches(|c: char| c <= ' ').len();
        }
        self.spans.push(span);
        Ok(end)
    }

    /// A field behind its opening quote; answers what follows its closing one.
    fn quoted(&mut self, record: &str, start: usize, options: &CsvOptions) -> Result<usize, String> {
        let bytes = record.as_bytes();
        let stops = |b: &u8| Some(*b) == options.quote || Some(*b) == options.escape;
        let unclosed = || format!("the quote of field {} is not closed", self.spans.len() + 1);
        let plain = start + bytes[start..].iter().position(stops).ok_or_else(unclosed)?;
        if Some(bytes[plain]) == options.quote && bytes.get(plain + 1) != options.quote.as_ref() {
            self.spans.push(Span { start, end: plain, copied: false });
            return Ok(plain + 1);
        }
        let copy = self.scratch.len();
        self.scratch.push_str(&record[start..plain]);
        let mut at = plain;
        loop {
            let b = *bytes.get(at).ok_or_else(|| format!("the quote of field {} is not closed", self.spans.len() + 1))?;
            if Some(b) == options.quote {
                if bytes.get(at + 1) != Some(&b) {
                    self.spans.push(Span { start: copy, end: self.scratch.len(), copied: true });
                    return Ok(at + 1);
                }
                self.scratch.push(char::from(b));
                at += 2;
            } else if Some(b) == options.escape {
                at = self.escaped(record, at + 1)?;
            } else {
                at = self.character(record, at);
            }
        }
    }

    /// Copies the character at `at`; answers what follows it.
    fn character(&mut self, record: &str, at: usize) -> usize {
        let c = record[at..].chars().next().unwrap_or_default();
        self.scratch.push(c);
        at + c.len_utf8()
    }

    /// Copies the character that an escape stands for; answers what follows it.
    fn escaped(&mut self, record: &str, at: usize) -> Result<usize, String> {
        let c = record[at..].chars().next().ok_or_else(|| "the record ends behind an escape character".to_string())?;
        self.scratch.push(match c {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            other => other,
        });
        Ok(at + c.len_utf8())
    }
}
