//! Text functions. Positions and lengths count code points, from 1.

use arrow::array::ArrayRef;
use arrow::datatypes::Int32Type;
use base64::Engine;
use sha2::Digest;

use super::columns::Batch;
use super::scalar::{Definition, Site, function};
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// Text functions.
pub(super) const FUNCTIONS: &[Definition] = &[
    function(&["LOWER"], "t", text, |b| map(b, lower)),
    function(&["UPPER"], "t", text, |b| map(b, upper)),
    function(&["TRIM", "BTRIM"], "tt?", text, |b| trim(b, true, true)),
    function(&["LTRIM"], "tt?", text, |b| trim(b, true, false)),
    function(&["RTRIM"], "tt?", text, |b| trim(b, false, true)),
    function(&["SUBSTRING", "SUBSTR"], "tii?", text, substring),
    function(&["CONCAT"], "tt*", text, concat),
    function(&["CONCAT_WS"], "tt*", text, concat_ws),
    function(&["CHAR_LENGTH", "CHARACTER_LENGTH"], "t", int, |b| {
        let s = b.text(0)?;
        b.primitive::<Int32Type>(|row| Ok(s.get(row).map(|s| s.chars().count() as i32)))
    }),
    function(&["POSITION"], "tt", int, |b| locate(b, 0, 1)),
    function(&["LOCATE"], "tti?", int, |b| locate(b, 0, 1)),
    function(&["INSTR"], "tti?i?", int, |b| if b.len() == 2 { locate(b, 1, 0) } else { instr(b) }),
    function(&["REPLACE"], "ttt", text, replace),
    function(&["TRANSLATE"], "ttt", text, translate),
    function(&["REVERSE"], "t", text, |b| map(b, |s, out| out.extend(s.chars().rev()))),
    function(&["REPEAT"], "ti", text, repeat),
    function(&["LPAD"], "tit", text, |b| pad(b, true)),
    function(&["RPAD"], "tit", text, |b| pad(b, false)),
    function(&["LEFT"], "ti", text, |b| edge(b, true)),
    function(&["RIGHT"], "ti", text, |b| edge(b, false)),
    function(&["OVERLAY"], "ttii?", text, overlay),
    function(&["INITCAP"], "t", text, |b| map(b, initcap)),
    function(&["ASCII"], "t", int, |b| {
        let s = b.text(0)?;
        b.primitive::<Int32Type>(|row| Ok(s.get(row).map(|s| s.bytes().next().map_or(0, |b| b as i8 as i32))))
    }),
    function(&["CHR"], "i", text, chr),
    function(&["STARTSWITH"], "tt", boolean, |b| test(b, |s, t| s.starts_with(t))),
    function(&["ENDSWITH"], "tt", boolean, |b| test(b, |s, t| s.ends_with(t))),
    function(&["SPLIT_INDEX"], "tai", text, split_index),
    function(&["SHA224"], "t", text, |b| map(b, |s, out| hex(&sha2::Sha224::digest(s), out))),
    function(&["SHA256"], "t", text, |b| map(b, |s, out| hex(&sha2::Sha256::digest(s), out))),
    function(&["SHA384"], "t", text, |b| map(b, |s, out| hex(&sha2::Sha384::digest(s), out))),
    function(&["SHA512"], "t", text, |b| map(b, |s, out| hex(&sha2::Sha512::digest(s), out))),
    function(&["MD5"], "t", text, |b| map(b, |s, out| hex(&super::md5::digest(s.as_bytes()), out))),
    function(&["TO_BASE64"], "y", text, |b| {
        let s = b.bytes(0)?;
        b.texts(|row, out| Ok(s.get(row).map(|s| base64::engine::general_purpose::STANDARD.encode_string(s, out)).is_some()))
    }),
    function(&["FROM_BASE64"], "t", text, from_base64),
    function(&["HEX"], "a", text, to_hex),
    function(&["BIN"], "i", text, |b| {
        let v = b.longs(0)?;
        b.texts(|row, out| Ok(v.get(row).map(|v| out.push_str(&format!("{v:b}"))).is_some()))
    }),
    Definition { volatile: true, ..function(&["UUID"], "", text, uuid) },
];

fn text(_: &Site) -> Result<SqlType> {
    Ok(SqlType::STRING)
}

fn int(_: &Site) -> Result<SqlType> {
    Ok(SqlType::Int)
}

fn boolean(_: &Site) -> Result<SqlType> {
    Ok(SqlType::Boolean)
}

fn map(batch: &Batch, f: fn(&str, &mut String)) -> Result<ArrayRef> {
    let s = batch.text(0)?;
    batch.texts(|row, out| Ok(s.get(row).map(|s| f(s, out)).is_some()))
}

fn lower(s: &str, out: &mut String) {
    if s.is_ascii() {
        out.push_str(s);
        out.make_ascii_lowercase();
    } else {
        out.push_str(&s.to_lowercase());
    }
}

fn upper(s: &str, out: &mut String) {
    if s.is_ascii() {
        out.push_str(s);
        out.make_ascii_uppercase();
    } else {
        out.push_str(&s.to_uppercase());
    }
}

fn test(batch: &Batch, f: fn(&str, &str) -> bool) -> Result<ArrayRef> {
    let (s, t) = (batch.text(0)?, batch.text(1)?);
    batch.truths(|row| Ok(s.get(row).zip(t.get(row)).map(|(s, t)| f(s, t))))
}

fn trim(batch: &Batch, left: bool, right: bool) -> Result<ArrayRef> {
    let s = batch.text(0)?;
    let chars = if batch.len() > 1 { Some(batch.text(1)?) } else { None };
    batch.texts(|row, out| {
        let Some(s) = s.get(row) else { return Ok(false) };
        let set = match &chars {
            Some(c) => match c.get(row) {
                Some(set) => set,
                None => return Ok(false),
            },
            None => " ",
        };
        let s = if left { s.trim_start_matches(|c| set.contains(c)) } else { s };
        out.push_str(if right { s.trim_end_matches(|c| set.contains(c)) } else { s });
        Ok(true)
    })
}

/// The bytes at which the code points `from..from + count` of `s` lie.
fn slice(s: &str, from: usize, count: usize) -> &str {
    if s.is_ascii() {
        let from = from.min(s.len());
        return &s[from..from.saturating_add(count).min(s.len())];
    }
    let start = s.char_indices().nth(from).map_or(s.len(), |(i, _)| i);
    let rest = &s[start..];
    let end = rest.char_indices().nth(count).map_or(rest.len(), |(i, _)| i);
    &rest[..end]
}

fn substring(batch: &Batch) -> Result<ArrayRef> {
    let (s, from) = (batch.text(0)?, batch.longs(1)?);
    let count = if batch.len() > 2 { Some(batch.longs(2)?) } else { None };
    batch.texts(|row, out| {
        let (Some(s), Some(from)) = (s.get(row), from.get(row)) else { return Ok(false) };
        let count = match &count {
            Some(c) => match c.get(row) {
                Some(c) if c >= 0 => c as usize,
                _ => return Ok(false),
            },
            None => usize::MAX,
        };
        // A negative start counts from the end; one before the text gives nothing.
        let start = match from {
            1.. => from as usize - 1,
            0 => 0,
            _ => match (s.chars().count() as i64).checked_add(from) {
                Some(start @ 0..) => start as usize,
                _ => return Ok(true),
            },
        };
        out.push_str(slice(s, start, count));
        Ok(true)
    })
}

fn concat(batch: &Batch) -> Result<ArrayRef> {
    let parts = (0..batch.len()).map(|i| batch.text(i)).collect::<Result<Vec<_>>>()?;
    batch.texts(|row, out| Ok(parts.iter().all(|p| p.get(row).map(|s| out.push_str(s)).is_some())))
}

fn concat_ws(batch: &Batch) -> Result<ArrayRef> {
    let parts = (0..batch.len()).map(|i| batch.text(i)).collect::<Result<Vec<_>>>()?;
    batch.texts(|row, out| {
        let Some(separator) = parts[0].get(row) else { return Ok(false) };
        for (i, part) in parts[1..].iter().filter_map(|p| p.get(row)).enumerate() {
            out.push_str(if i > 0 { separator } else { "" });
            out.push_str(part);
        }
        Ok(true)
    })
}

/// The 1-based position of argument `needle` in argument `hay`, 0 where it is not found.
fn locate(batch: &Batch, needle: usize, hay: usize) -> Result<ArrayRef> {
    let (needle, hay) = (batch.text(needle)?, batch.text(hay)?);
    let from = if batch.len() > 2 { Some(batch.longs(2)?) } else { None };
    batch.primitive::<Int32Type>(|row| {
        let (Some(needle), Some(hay)) = (needle.get(row), hay.get(row)) else { return Ok(None) };
        let from = match &from {
            Some(f) => match f.get(row) {
                Some(f @ 1..) => f as usize - 1,
                Some(_) => return Ok(Some(0)),
                None => return Ok(None),
            },
            None => 0,
        };
        let Some((start, _)) = hay.char_indices().map(|(i, c)| (i, Some(c))).chain([(hay.len(), None)]).nth(from) else {
            return Ok(Some(0));
        };
        Ok(Some(hay[start..].find(needle).map_or(0, |i| hay[..start + i].chars().count() as i32 + 1)))
    })
}

/// INSTR(text, part, from, occurrence); a negative start searches backwards.
fn instr(batch: &Batch) -> Result<ArrayRef> {
    let (hay, needle, from) = (batch.text(0)?, batch.text(1)?, batch.longs(2)?);
    let nth = if batch.len() > 3 { Some(batch.longs(3)?) } else { None };
    batch.primitive::<Int32Type>(|row| {
        let (Some(hay), Some(needle), Some(from)) = (hay.get(row), needle.get(row), from.get(row)) else { return Ok(None) };
        let Some(nth) = nth.as_ref().map_or(Some(1), |n| n.get(row)) else { return Ok(None) };
        if nth < 1 {
            return Err(Error::data(format!("INSTR needs an occurrence above 0, found {nth}")));
        }
        let (hay, needle): (Vec<char>, Vec<char>) = (hay.chars().collect(), needle.chars().collect());
        let last = hay.len() as i64 - needle.len() as i64;
        let hit = |i: &i64| hay[*i as usize..].starts_with(&needle);
        let found = match from {
            0 => None,
            1.. => (from - 1..=last).filter(hit).nth(nth as usize - 1),
            _ => (0..=last.min(hay.len() as i64 + from)).rev().filter(hit).nth(nth as usize - 1),
        };
        Ok(Some(found.map_or(0, |i| i as i32 + 1)))
    })
}

fn replace(batch: &Batch) -> Result<ArrayRef> {
    let (s, from, to) = (batch.text(0)?, batch.text(1)?, batch.text(2)?);
    batch.texts(|row, out| {
        let (Some(s), Some(from), Some(to)) = (s.get(row), from.get(row), to.get(row)) else { return Ok(false) };
        let mut rest = 0;
        for (i, hit) in s.match_indices(from) {
            out.push_str(&s[rest..i]);
            out.push_str(to);
            rest = i + hit.len();
        }
        out.push_str(&s[rest..]);
        Ok(true)
    })
}

fn translate(batch: &Batch) -> Result<ArrayRef> {
    let (s, from, to) = (batch.text(0)?, batch.text(1)?, batch.text(2)?);
    batch.texts(|row, out| {
        let (Some(s), Some(from), Some(to)) = (s.get(row), from.get(row), to.get(row)) else { return Ok(false) };
        for c in s.chars() {
            match from.chars().position(|f| f == c) {
                Some(i) => out.extend(to.chars().nth(i)),
                None => out.push(c),
            }
        }
        Ok(true)
    })
}

fn repeat(batch: &Batch) -> Result<ArrayRef> {
    let (s, n) = (batch.text(0)?, batch.longs(1)?);
    batch.texts(|row, out| {
        let (Some(s), Some(n)) = (s.get(row), n.get(row)) else { return Ok(false) };
        let n = n.max(0) as usize;
        room(s.len().saturating_mul(n), "REPEAT")?;
        (0..n).for_each(|_| out.push_str(s));
        Ok(true)
    })
}

/// A text longer than this is a mistake in the query, and would take the process down.
const BYTES_MAX: usize = 64 << 20;

fn room(bytes: usize, name: &str) -> Result<()> {
    match bytes > BYTES_MAX {
        true => Err(Error::data(format!("{name} would give a text of {bytes} bytes; the limit is {BYTES_MAX}"))),
        false => Ok(()),
    }
}

fn pad(batch: &Batch, left: bool) -> Result<ArrayRef> {
    let (s, n, fill) = (batch.text(0)?, batch.longs(1)?, batch.text(2)?);
    batch.texts(|row, out| {
        let (Some(s), Some(n), Some(fill)) = (s.get(row), n.get(row), fill.get(row)) else { return Ok(false) };
        let length = s.chars().count();
        let Ok(n) = usize::try_from(n) else { return Ok(false) };
        if n <= length {
            out.push_str(slice(s, 0, n));
            return Ok(true);
        }
        if fill.is_empty() {
            return Ok(false);
        }
        room(n.saturating_mul(4), batch.name)?;
        let filling = fill.chars().cycle().take(n - length);
        if left {
            out.extend(filling);
            out.push_str(s);
        } else {
            out.push_str(s);
            out.extend(filling);
        }
        Ok(true)
    })
}

fn edge(batch: &Batch, left: bool) -> Result<ArrayRef> {
    let (s, n) = (batch.text(0)?, batch.longs(1)?);
    batch.texts(|row, out| {
        let (Some(s), Some(n)) = (s.get(row), n.get(row)) else { return Ok(false) };
        let n = n.max(0) as usize;
        let from = if left { 0 } else { s.chars().count().saturating_sub(n) };
        out.push_str(slice(s, from, n));
        Ok(true)
    })
}

fn overlay(batch: &Batch) -> Result<ArrayRef> {
    let (s, with, from) = (batch.text(0)?, batch.text(1)?, batch.longs(2)?);
    let count = if batch.len() > 3 { Some(batch.longs(3)?) } else { None };
    batch.texts(|row, out| {
        let (Some(s), Some(with), Some(from)) = (s.get(row), with.get(row), from.get(row)) else { return Ok(false) };
        let Some(count) = count.as_ref().map_or(Some(with.chars().count() as i64), |c| c.get(row)) else { return Ok(false) };
        let length = s.chars().count() as i64;
        if from <= 0 || from > length {
            out.push_str(s);
            return Ok(true);
        }
        out.push_str(slice(s, 0, from as usize - 1));
        out.push_str(with);
        if let Some(rest) = (from - 1).checked_add(count).filter(|rest| count > 0 && *rest < length) {
            out.push_str(slice(s, rest as usize, usize::MAX));
        }
        Ok(true)
    })
}

fn initcap(s: &str, out: &mut String) {
    let mut inside = false;
    for c in s.chars() {
        match (c.is_alphanumeric(), inside) {
            (true, false) => out.extend(c.to_uppercase()),
            _ => out.extend(c.to_lowercase()),
        }
        inside = c.is_alphanumeric();
    }
}

fn chr(batch: &Batch) -> Result<ArrayRef> {
    let v = batch.longs(0)?;
    batch.texts(|row, out| match v.get(row) {
        // Flink keeps the low byte and reads it as Latin-1.
        Some(v) => {
            if v >= 0 {
                out.push((v & 0xff) as u8 as char);
            }
            Ok(true)
        }
        None => Ok(false),
    })
}

/// SPLIT_INDEX(text, separator or its code point, 0-based index).
fn split_index(batch: &Batch) -> Result<ArrayRef> {
    let (s, n) = (batch.text(0)?, batch.longs(2)?);
    let codes = if batch.sql(1).is_text() { None } else { Some(batch.longs(1)?) };
    let separators = if codes.is_none() { Some(batch.text(1)?) } else { None };
    let mut buffer = [0u8; 4];
    batch.texts(|row, out| {
        let (Some(s), Some(n)) = (s.get(row), n.get(row)) else { return Ok(false) };
        let separator = match (&separators, &codes) {
            (Some(t), _) => t.get(row),
            (_, Some(c)) => c.get(row).and_then(|c| char::from_u32(c as u32)).map(|c| &*c.encode_utf8(&mut buffer)),
            _ => None,
        };
        let (Some(separator), Ok(n)) = (separator, usize::try_from(n)) else { return Ok(false) };
        if s.is_empty() {
            return Ok(false);
        }
        let part = if separator.is_empty() { (n == 0).then_some(s) } else { s.split(separator).nth(n) };
        Ok(part.map(|p| out.push_str(p)).is_some())
    })
}

fn hex(bytes: &[u8], out: &mut String) {
    for b in bytes {
        for digit in [b >> 4, b & 15] {
            out.push(char::from_digit(digit.into(), 16).expect("a half byte is one hexadecimal digit"));
        }
    }
}

fn to_hex(batch: &Batch) -> Result<ArrayRef> {
    if batch.sql(0).is_numeric() {
        let v = batch.longs(0)?;
        return batch.texts(|row, out| Ok(v.get(row).map(|v| out.push_str(&format!("{v:X}"))).is_some()));
    }
    let v = batch.bytes(0)?;
    batch.texts(|row, out| {
        let found = v.get(row).map(|v| hex(v, out)).is_some();
        out.make_ascii_uppercase();
        Ok(found)
    })
}

fn from_base64(batch: &Batch) -> Result<ArrayRef> {
    let s = batch.text(0)?;
    batch.texts(|row, out| {
        let Some(s) = s.get(row) else { return Ok(false) };
        let bytes = base64::engine::general_purpose::STANDARD.decode(s.trim().as_bytes());
        let bytes = bytes.map_err(|e| Error::data(format!("'{s}' is no base64: {e}")))?;
        out.push_str(&String::from_utf8_lossy(&bytes));
        Ok(true)
    })
}

fn uuid(batch: &Batch) -> Result<ArrayRef> {
    use std::fmt::Write;
    batch.texts(|_, out| {
        // Version 4, variant 1: 122 random bits.
        let v = (rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let (a, b, c, d, e) = (v >> 96, v >> 80 & 0xffff, v >> 64 & 0xffff, v >> 48 & 0xffff, v & 0xffff_ffff_ffff);
        write!(out, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}").expect("writing to a String cannot fail");
        Ok(true)
    })
}
