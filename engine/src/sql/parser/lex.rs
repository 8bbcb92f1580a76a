//! Text → tokens, with everything refused that no statement may hold.
//!
//! sqlparser's tokenizer accepts more than Flink's (`"x"`, `!=`, `::`, nameless operators) and drops
//! hints like comments. So a scan of the characters comes first: it walks strings, names and comments,
//! refuses what is foreign with the place and the dialect's own way of writing it, and turns `//`
//! comments into `--` ones of the same width. After it the tokens hold no white space, `>>` is two
//! tokens, and a string that goes on in the next line is one token.

use datafusion::sql::sqlparser::tokenizer::{Location, Span as TokenSpan, Token, TokenWithSpan, Tokenizer, Whitespace};

use super::dialect::FlinkDialect;
use crate::error::{Error, Result, Span};

/// The deepest direct nesting of parentheses. Deeper ones make the table-or-query guess behind FROM
/// take exponential time.
const PARENTHESES_MAX: usize = 12;

/// A text and where its lines start, to cut statements out of it.
pub(super) struct Source<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1)).collect();
        Self { text, lines }
    }

    fn offset(&self, at: Location) -> usize {
        let line = (at.line.max(1) - 1) as usize;
        let Some(start) = self.lines.get(line).copied() else { return self.text.len() };
        let rest = &self.text[start..];
        start + rest.char_indices().nth((at.column.max(1) - 1) as usize).map_or(rest.len(), |(i, _)| i)
    }

    /// The text between two places.
    pub(super) fn slice(&self, from: Location, to: Location) -> &'a str {
        let (from, to) = (self.offset(from), self.offset(to));
        &self.text[from.min(to)..to]
    }
}

/// The place of a token. What goes over a line end is underlined at its first character.
pub(super) fn span(s: TokenSpan) -> Span {
    let width = if s.start.line == s.end.line { s.end.column.saturating_sub(s.start.column) } else { 1 };
    Span { line: s.start.line as u32, column: s.start.column as u32, width: width.max(1) as u32 }
}

/// The tokens of `text`, without white space.
pub(super) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>> {
    let (clean, _) = scan(text)?;
    let dialect = FlinkDialect::default();
    let raw = Tokenizer::new(&dialect, &clean)
        .tokenize_with_location()
        .map_err(|e| Error::user(e.message).at(span(TokenSpan::new(e.location, e.location))))?;
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(raw.len() / 2);
    let mut line_end = false;
    let mut open = 0;
    for mut t in raw {
        if let Token::Whitespace(w) = &t.token {
            // The tokenizer keeps a line comment's end in the comment.
            line_end |= matches!(w, Whitespace::Newline | Whitespace::SingleLineComment { .. });
            continue;
        }
        open = if t.token == Token::LParen { open + 1 } else { 0 };
        if open > PARENTHESES_MAX {
            return Err(Error::user(format!("more than {PARENTHESES_MAX} parentheses are opened in a row")).at(span(t.span)));
        }
        if let Token::UnicodeStringLiteral(s) = &mut t.token {
            t.token = Token::SingleQuotedString(std::mem::take(s));
        }
        match (&t.token, out.last_mut().map(|l| (&mut l.token, &mut l.span))) {
            (Token::SingleQuotedString(next), Some((Token::SingleQuotedString(last), last_span))) => {
                if !line_end {
                    return Err(Error::user("two strings stand side by side on one line")
                        .at(span(t.span))
                        .help("write || between them, or double the quote that belongs to the text: 'it''s'"));
                }
                last.push_str(next);
                last_span.end = t.span.end;
            }
            (Token::ShiftRight, _) => {
                let mut middle = t.span.start;
                middle.column += 1;
                out.push(TokenWithSpan::new(Token::Gt, TokenSpan::new(t.span.start, middle)));
                out.push(TokenWithSpan::new(Token::Gt, TokenSpan::new(middle, t.span.end)));
            }
            _ => {
                check(&t)?;
                out.push(t);
            }
        }
        line_end = false;
    }
    Ok(out)
}

/// Refuses tokens that the scan cannot see.
fn check(t: &TokenWithSpan) -> Result<()> {
    let refuse = |message: &str, help: &str| Err(Error::user(message).at(span(t.span)).help(help));
    match &t.token {
        Token::Number(n, true) => refuse(&format!("'{n}L' is not a number of this dialect"), "write the number without L"),
        Token::NationalStringLiteral(_) => refuse("N'…' is not supported", "write '…': all text is Unicode"),
        Token::HexStringLiteral(h) if t.span.end.column.saturating_sub(t.span.start.column) == h.chars().count() as u64 + 2 => {
            refuse(&format!("'0x{h}' is not a number of this dialect"), &format!("write X'{h}' for bytes"))
        }
        Token::HexStringLiteral(h) if h.len() % 2 == 1 || !h.bytes().all(|b| b.is_ascii_hexdigit()) => {
            refuse(&format!("X'{h}' is not made of pairs of hexadecimal digits"), "write two digits for each byte, such as X'00FF'")
        }
        _ => Ok(()),
    }
}

/// A `//` comment: Flink reads it as a comment, other tools may not.
pub(super) fn slash_comments(text: &str) -> Result<Vec<Span>> {
    scan(text).map(|(_, slashes)| slashes)
}

/// Walks the characters; gives the text with `//` comments rewritten, and their places.
fn scan(text: &str) -> Result<(String, Vec<Span>)> {
    let mut s = Scan { chars: text.chars().collect(), at: 0, line: 1, column: 1 };
    let mut clean = String::with_capacity(text.len());
    let mut slashes = Vec::new();
    while let Some(c) = s.peek(0) {
        let (start, from) = (s.place(1), s.at);
        match (c, s.peek(1)) {
            ('\'', _) => s.quoted('\'', start, "a string that starts here is not closed", "write '' for a quote inside a string")?,
            ('`', _) => s.quoted('`', start, "a back-tick is not closed", "write `` for a back-tick inside a name")?,
            ('-', Some('-')) => s.line_comment(),
            ('/', Some('/')) => {
                slashes.push(s.place(2));
                s.line_comment();
                clean.push_str("--");
                clean.extend(&s.chars[from + 2..s.at]);
                continue;
            }
            ('/', Some('*')) => s.block_comment(start)?,
            _ => {
                if let Some(e) = s.foreign(c) {
                    return Err(e);
                }
                s.next();
            }
        }
        clean.extend(&s.chars[from..s.at]);
    }
    Ok((clean, slashes))
}

struct Scan {
    chars: Vec<char>,
    at: usize,
    line: u32,
    column: u32,
}

impl Scan {
    fn peek(&self, n: usize) -> Option<char> {
        self.chars.get(self.at + n).copied()
    }

    fn next(&mut self) {
        if self.peek(0) == Some('\n') {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        self.at += 1;
    }

    fn place(&self, width: u32) -> Span {
        Span { line: self.line, column: self.column, width }
    }

    fn quoted(&mut self, quote: char, start: Span, open: &str, help: &str) -> Result<()> {
        self.next();
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(c), Some(d)) if c == quote && d == quote => {
                    self.next();
                    self.next();
                }
                (Some(c), _) if c == quote => {
                    self.next();
                    return Ok(());
                }
                (Some(_), _) => self.next(),
                (None, _) => return Err(Error::user(open).at(start).help(help)),
            }
        }
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.next();
        }
    }

    fn block_comment(&mut self, start: Span) -> Result<()> {
        let hint = self.peek(2) == Some('+');
        let from = self.at;
        self.next();
        self.next();
        while self.peek(0) != Some('*') || self.peek(1) != Some('/') {
            if self.peek(0).is_none() {
                return Err(Error::user("a comment that starts here is not closed").at(start).help("end it with */"));
            }
            self.next();
        }
        self.next();
        self.next();
        if !hint {
            return Ok(());
        }
        let name: String = self.chars[from + 3..self.at]
            .iter()
            .skip_while(|c| c.is_whitespace())
            .take_while(|c| c.is_alphanumeric() || **c == '_')
            .collect();
        let on_one_line = self.line == start.line;
        let width = if on_one_line { (self.at - from) as u32 } else { 3 };
        let help = match name.to_uppercase().as_str() {
            "OPTIONS" => "put the options into the table's WITH clause, or give them at the start with --option TABLE.KEY=VALUE",
            "STATE_TTL" => "use SET 'table.exec.state.ttl' = '…'",
            _ => "leave the hint out",
        };
        Err(Error::user(format!("the hint {name} is not yet supported")).at(Span { width, ..start }).help(help))
    }

    /// What stands here, where the dialect does not have it.
    fn foreign(&self, c: char) -> Option<Error> {
        let next = self.peek(1);
        let refuse = |width, message: &str, help: &str| Some(Error::user(message).at(self.place(width)).help(help));
        match (c, next) {
            ('"', _) => {
                refuse(1, "\"…\" does not exist in this dialect", "write a name in back-ticks: `name`, and text in single quotes: 'text'")
            }
            ('!', Some('=')) => refuse(2, "the operator != does not exist in this dialect", "write <>"),
            (':', Some(':')) => refuse(2, "the cast :: does not exist in this dialect", "write CAST(value AS type)"),
            ('=', Some('=')) => refuse(2, "the operator == does not exist in this dialect", "write ="),
            ('<', Some('=')) if self.peek(2) == Some('>') => {
                refuse(3, "the operator <=> does not exist in this dialect", "write IS NOT DISTINCT FROM")
            }
            ('-', Some('>')) => refuse(
                2,
                "the operator -> does not exist in this dialect",
                "use JSON_VALUE for JSON, row.field for a ROW, map['key'] for a MAP",
            ),
            ('<', Some('<')) => refuse(2, "the operator << does not exist in this dialect", "multiply by a power of two"),
            ('|', Some('|')) => None,
            ('|', _) if self.at > 0 && self.chars[self.at - 1] == '|' => None,
            ('$', Some('{')) => refuse(
                2,
                "variables such as ${NAME} are not part of SQL",
                "write the value, or override an option at the start with --option TABLE.KEY=VALUE",
            ),
            // A $ inside a name belongs to the name.
            ('$', _) if self.at > 0 && (self.chars[self.at - 1].is_alphanumeric() || matches!(self.chars[self.at - 1], '_' | '$')) => None,
            ('&' | '|' | '^' | '~', _) => {
                refuse(1, &format!("the operator {c} does not exist in this dialect"), "there are no operators on bits")
            }
            ('?' | '$' | '@' | ':' | '#', _) => {
                refuse(1, &format!("'{c}' does not exist in this dialect: a statement has no parameters"), "write the value itself")
            }
            ('!' | '{' | '}' | '\\', _) => refuse(
                1,
                &format!("'{c}' does not exist in this dialect"),
                "a name with such a character goes in back-ticks, text in single quotes",
            ),
            (c, _) if c.is_control() && !c.is_whitespace() => refuse(1, "a control character stands here", "remove it"),
            _ => None,
        }
    }
}
