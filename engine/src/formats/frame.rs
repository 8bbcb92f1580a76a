//! Splitting the bytes of a file into records, chunk by chunk.
//!
//! What must hold: where the chunks are cut makes no difference to the records.

use crate::formats::Records;

/// Splits a byte stream into records. One framer per file.
pub trait Framer: Send {
    /// Takes the next bytes; records that end in them are appended to `out`.
    fn push(&mut self, chunk: &[u8], out: &mut Records);

    /// The file has ended: a last record without a line end is appended to `out`.
    fn finish(&mut self, out: &mut Records);
}

/// One record a line; a carriage return before the line feed belongs to the line end.
#[derive(Debug, Default)]
pub struct LineFramer {
    rest: Vec<u8>,
}

impl Framer for LineFramer {
    fn push(&mut self, chunk: &[u8], out: &mut Records) {
        let mut chunk = chunk;
        while let Some(end) = chunk.iter().position(|b| *b == b'\n') {
            if self.rest.is_empty() {
                out.push(without_return(&chunk[..end]));
            } else {
                self.rest.extend_from_slice(&chunk[..end]);
                out.push(without_return(&self.rest));
                self.rest.clear();
            }
            chunk = &chunk[end + 1..];
        }
        self.rest.extend_from_slice(chunk);
    }

    fn finish(&mut self, out: &mut Records) {
        if !self.rest.is_empty() {
            out.push(without_return(&self.rest));
            self.rest.clear();
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// One record a line, but a line end inside quotes belongs to the field.
#[derive(Debug)]
pub struct QuotedLineFramer {
    quote: u8,
    delimiter: u8,
    escape: Option<u8>,
    comments: bool,
    trim: bool,
    rest: Vec<u8>,
    at: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The start of a line, where a `#` begins a comment.
    Line,
    /// Behind blanks at the start of a line: a comment may begin, but no quote opens.
    Blank,
    /// The start of a field, where a quote opens.
    Field,
    /// Inside a field without quotes.
    Bare,
    /// Inside quotes.
    Quoted,
    /// Behind an escape character; then back into quotes or not.
    Escaped(bool),
    /// In a comment line.
    Comment,
}

impl QuotedLineFramer {
    /// A framer for fields in `quote`, separated by `delimiter`. With `comments`, lines may start with `#`; with
    /// `trim`, blanks may stand before a quote.
    pub fn new(quote: u8, delimiter: u8, escape: Option<u8>, comments: bool, trim: bool) -> Self {
        Self { quote, delimiter, escape, comments, trim, rest: Vec::new(), at: State::Line }
    }

    fn step(&self, at: State, b: u8) -> State {
        match at {
            State::Escaped(true) => State::Quoted,
            State::Escaped(false) => State::Bare,
            State::Comment => at,
            State::Line | State::Blank if b == b'#' && self.comments => State::Comment,
            _ if Some(b) == self.escape => State::Escaped(at == State::Quoted),
            // A doubled quote closes and opens again: the same for finding the end.
            State::Quoted if b == self.quote => State::Field,
            State::Quoted => at,
            State::Line | State::Field if b == self.quote => State::Quoted,
            _ if b == self.delimiter => State::Field,
            State::Line | State::Field if b == b' ' && self.trim => at,
            State::Line | State::Blank if b == b' ' => State::Blank,
            _ => State::Bare,
        }
    }
}

impl Framer for QuotedLineFramer {
    fn push(&mut self, chunk: &[u8], out: &mut Records) {
        let mut start = 0;
        for (i, b) in chunk.iter().enumerate() {
            let open = matches!(self.at, State::Quoted | State::Escaped(_));
            if *b != b'\n' || open {
                self.at = self.step(self.at, *b);
                continue;
            }
            if self.rest.is_empty() {
                out.push(without_return(&chunk[start..i]));
            } else {
                self.rest.extend_from_slice(&chunk[start..i]);
                out.push(without_return(&self.rest));
                self.rest.clear();
            }
            start = i + 1;
            self.at = State::Line;
        }
        self.rest.extend_from_slice(&chunk[start..]);
    }

    fn finish(&mut self, out: &mut Records) {
        if !self.rest.is_empty() {
            out.push(without_return(&self.rest));
            self.rest.clear();
        }
        self.at = State::Line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of `text`, for every size of chunks, joined by `|`.
    fn check(make: impl Fn() -> Box<dyn Framer>, text: &str, want: &str) {
        for size in 1..=text.len() {
            let (mut framer, mut out) = (make(), Records::default());
            text.as_bytes().chunks(size).for_each(|c| framer.push(c, &mut out));
            framer.finish(&mut out);
            let got: Vec<_> = out.iter().map(|r| String::from_utf8_lossy(r.expect("present")).into_owned()).collect();
            assert_eq!(got.join("|"), want, "chunks of {size}");
        }
    }

    #[test]
    fn lines_are_records() {
        check(|| Box::new(LineFramer::default()), "a\r\n\nb\nlast", "a||b|last");
    }

    #[test]
    fn a_quoted_field_spans_lines() {
        let csv = || -> Box<dyn Framer> { Box::new(QuotedLineFramer::new(b'"', b',', Some(b'\\'), true, false)) };
        check(csv, "a,\"b\nc\"\"\nd\",e\nf\"g\nh\n", "a,\"b\nc\"\"\nd\",e|f\"g|h");
        check(csv, "# it's \"open\nx,\"y\\\"\n\"\nz", "# it's \"open|x,\"y\\\"\n\"|z");
        check(csv, "a, \"b\nc\n", "a, \"b|c");
        check(csv, "\"never closed\nrest", "\"never closed\nrest");
    }
}
