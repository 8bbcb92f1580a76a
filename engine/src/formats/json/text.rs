//! JSON strings: reading escapes, writing them, and the text form of an object in a STRING column.

use sonic_rs::Read;
use sonic_rs::parser::Parser;

use crate::formats::text::write_double;

/// A JSON value as it stands in the record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    /// Its text; empty where the field is missing.
    pub(super) text: &'a str,
    /// A string with escapes.
    pub(super) escaped: bool,
}

impl<'a> Raw<'a> {
    pub(super) const MISSING: Raw<'static> = Raw { text: "", escaped: false };

    /// What stands between the quotes of a string.
    pub(super) fn quoted(self) -> Option<&'a str> {
        self.text.strip_prefix('"').and_then(|t| t.strip_suffix('"'))
    }

    /// The value as Java's parser gives its text: the content of a string, unescaped into `scratch` where
    /// needed, else the text as it stands. `None` for a broken escape.
    pub(super) fn content<'b>(self, scratch: &'b mut String) -> Option<&'b str>
    where
        'a: 'b,
    {
        match self.quoted() {
            Some(inner) if self.escaped => {
                scratch.clear();
                unescape(inner, scratch).then_some(scratch.as_str())
            }
            Some(inner) => Some(inner),
            None => Some(self.text),
        }
    }
}

/// Appends `text` with its escapes read; false where one is broken. Half a surrogate pair becomes `?`, as
/// it does when Java writes it out.
pub(super) fn unescape(text: &str, out: &mut String) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let Some(&kind) = rest.as_bytes().get(at + 1) else { return false };
        rest = &rest[at + 1..];
        let c = match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let Some(unit) = rest.get(1..5).and_then(hex) else { return false };
                rest = &rest[5..];
                let low = rest.strip_prefix("\\u").and_then(|r| r.get(..4)).and_then(hex).filter(|l| (0xDC00..0xE000).contains(l));
                match (unit, low) {
                    (0xD800..0xDC00, Some(low)) => {
                        rest = &rest[6..];
                        out.extend(char::from_u32(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)));
                    }
                    _ => out.push(char::from_u32(unit).unwrap_or('?')),
                }
                continue;
            }
            _ => return false,
        };
        out.push(c);
        rest = &rest[1..];
    }
    out.push_str(rest);
    true
}

fn hex(digits: &str) -> Option<u32> {
    // `from_str_radix` would take a sign.
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// Appends `text` in quotes, escaped as Jackson does: quotes, backslashes and control characters only.
pub(super) fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut start = 0;
    for (i, b) in text.bytes().enumerate() {
        if b >= 0x20 && b != b'"' && b != b'\\' {
            continue;
        }
        out.push_str(&text[start..i]);
        start = i + 1;
        out.push('\\');
        match b {
            b'"' | b'\\' => out.push(char::from(b)),
            0x8 => out.push('b'),
            0xc => out.push('f'),
            b'\n' => out.push('n'),
            b'\r' => out.push('r'),
            b'\t' => out.push('t'),
            _ => {
                out.push_str("u00");
                for digit in [b >> 4, b & 15] {
                    out.push(char::from_digit(digit.into(), 16).map_or('0', |c| c.to_ascii_uppercase()));
                }
            }
        }
    }
    out.push_str(&text[start..]);
    out.push('"');
}

/// Appends a value without blanks, as Jackson prints a tree: numbers with a fraction are doubles. False
/// where it is not JSON.
pub(super) fn write_compact(raw: Raw<'_>, out: &mut String) -> bool {
    match raw.text.as_bytes().first() {
        Some(b'{') => {
            out.push('{');
            let mut first = true;
            let well_formed = for_each_field(raw.text, |key, value| {
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_compact(value, out)
            });
            out.push('}');
            well_formed.is_ok()
        }
        Some(b'[') => {
            out.push('[');
            let mut first = true;
            let well_formed = for_each_item(raw.text, |value| {
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                write_compact(value, out)
            });
            out.push(']');
            well_formed.is_ok()
        }
        Some(b'"') => {
            let mut scratch = String::new();
            raw.content(&mut scratch).map(|s| write_string(s, out)).is_some()
        }
        Some(b'-' | b'0'..=b'9') if raw.text.contains(['.', 'e', 'E']) => raw.text.parse().map(|d| write_double(d, out)).is_ok(),
        _ => {
            out.push_str(raw.text);
            true
        }
    }
}

/// Calls `field` with name and value of each field of the object that `text` starts with, and answers where it ends.
/// `field` may end the walk with false, which is an error.
///
/// # Errors
/// Why this is no object.
pub(super) fn for_each_field<'a>(text: &'a str, mut field: impl FnMut(&str, Raw<'a>) -> bool) -> Result<usize, String> {
    let mut parser = Parser::new(Read::from(text));
    if parser.skip_space() != Some(b'{') {
        return Err("expected an object".to_string());
    }
    let mut names = Vec::new();
    let mut first = true;
    loop {
        match parser.skip_space() {
            Some(b'"') => {}
            Some(b'}') if first => break,
            Some(_) => return Err(format!("expected a field name at byte {}", parser.offset())),
            None => return Err("the text ends inside an object".to_string()),
        }
        first = false;
        let name = parser.parse_str(&mut names).map_err(said)?;
        if parser.skip_space() != Some(b':') {
            return Err(format!("expected ':' after the field name '{}'", crate::formats::column::shortened(&name)));
        }
        let value = one(&mut parser, text)?;
        if !field(&name, value) {
            return Err("a value cannot be read".to_string());
        }
        match parser.skip_space() {
            Some(b',') => {}
            Some(b'}') => break,
            Some(_) => return Err(format!("expected ',' or '}}' at byte {}", parser.offset())),
            None => return Err("the text ends inside an object".to_string()),
        }
    }
    Ok(parser.offset())
}

/// Calls `item` with each value of the array that `text` starts with, like [`for_each_field`].
///
/// # Errors
/// Why this is no array.
pub(super) fn for_each_item<'a>(text: &'a str, mut item: impl FnMut(Raw<'a>) -> bool) -> Result<(), String> {
    let mut parser = Parser::new(Read::from(text));
    if parser.skip_space() != Some(b'[') {
        return Err("expected an array".to_string());
    }
    if parser.skip_space_peek() == Some(b']') {
        return Ok(());
    }
    loop {
        let value = one(&mut parser, text)?;
        if !item(value) {
            return Err("a value cannot be read".to_string());
        }
        match parser.skip_space() {
            Some(b',') => {}
            Some(b']') => return Ok(()),
            Some(_) => return Err(format!("expected ',' or ']' at byte {}", parser.offset())),
            None => return Err("the text ends inside an array".to_string()),
        }
    }
}

/// The next value, checked but not interpreted.
fn one<'a>(parser: &mut Parser<Read<'a>>, text: &'a str) -> Result<Raw<'a>, String> {
    let (raw, status) = parser.skip_one(true).map_err(said)?;
    let end = parser.offset();
    let value = text.get(end - raw.len()..end).ok_or("a broken character")?;
    Ok(Raw { text: value, escaped: status == sonic_rs::parser::ParseStatus::HasEscaped })
}

/// The first line of the parser's message: the others draw the record.
fn said(e: sonic_rs::Error) -> String {
    let text = e.to_string();
    text.lines().next().unwrap_or("not JSON").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_read_and_write() {
        let read = |text: &str| {
            let mut out = String::new();
            unescape(text, &mut out).then_some(out)
        };
        assert_eq!(read(r#"a\u00e9\ud83d\ude00\n\/"#).as_deref(), Some("aé😀\n/"));
        assert_eq!(read(r"\ud800x").as_deref(), Some("?x"));
        assert_eq!(read(r"\u12"), None);
        assert_eq!(read(r"\x"), None);
        let mut out = String::new();
        write_string("a\"\\\u{1}é\n/", &mut out);
        assert_eq!(out, r#""a\"\\\u0001é\n/""#);
    }

    #[test]
    fn an_object_becomes_its_compact_text() {
        let mut out = String::new();
        let text = r#"{"a": 1, "b":[1, 2.50,"x\u0041"], "c": {} }"#;
        assert!(write_compact(Raw { text, escaped: false }, &mut out));
        assert_eq!(out, r#"{"a":1,"b":[1,2.5,"xA"],"c":{}}"#);
    }
}
