//! Java's DateTimeFormatter patterns (`yyyy-MM-dd''T''HH:mm:ss.SSS`), compiled once, then formatted with and
//! parsed by hand.
//!
//! Letters: `G y u Y Q q M L w W D d E e c F a h H k K m s S A n N X x Z`, quoted text, `[optional]`. Reading
//! is Java's SMART style: a day up to 31 that the month does not have becomes its last; fields that the
//! pattern lacks are those of 1970-01-01 00:00:00; an offset is read and, as in Flink, does not count. Weeks
//! are those of the United States (they start on Sunday, and the first day of January is in the first one),
//! because those are the weeks of a JVM without a country.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use crate::error::{Error, Result};

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct TimePattern {
    text: String,
    items: Vec<Item>,
    /// The first letter that asks for an offset.
    offset: Option<char>,
}

#[derive(Debug, Clone, PartialEq)]
enum Item {
    Text(String),
    Field(char, usize),
    Optional(Vec<Item>),
}

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/// Each letter and how often it may stand.
const LETTERS: &[(char, usize)] = &[
    ('G', 5),
    ('y', 19),
    ('u', 19),
    ('Y', 19),
    ('Q', 5),
    ('q', 5),
    ('M', 5),
    ('L', 5),
    ('w', 2),
    ('W', 1),
    ('D', 3),
    ('d', 2),
    ('E', 5),
    ('e', 5),
    ('c', 5),
    ('F', 1),
    ('a', 1),
    ('h', 2),
    ('H', 2),
    ('k', 2),
    ('K', 2),
    ('m', 2),
    ('s', 2),
    ('S', 9),
    ('A', 19),
    ('n', 19),
    ('N', 19),
    ('X', 3),
    ('x', 3),
    ('Z', 3),
];

impl TimePattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// User: a letter that is unknown or repeated too often, an open quote or bracket.
    pub fn compile(text: &str) -> Result<Self> {
        let bad = |why: String| Error::user(format!("in the date pattern '{text}' {why}")).help("for example yyyy-MM-dd HH:mm:ss.SSS");
        let mut open: Vec<Vec<Item>> = vec![Vec::new()];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let items = open.last_mut().expect("the outermost list is never taken");
            match c {
                '\'' if chars.next_if_eq(&'\'').is_some() => literal(items, '\''),
                '\'' => loop {
                    match chars.next() {
                        Some('\'') if chars.peek() == Some(&'\'') => {
                            chars.next();
                            literal(items, '\'');
                        }
                        Some('\'') => break,
                        Some(c) => literal(items, c),
                        None => return Err(bad("a quote is not closed".into())),
                    }
                },
                '[' => open.push(Vec::new()),
                ']' => {
                    let inner = open.pop().expect("the outermost list is never taken");
                    match open.last_mut() {
                        Some(outer) => outer.push(Item::Optional(inner)),
                        None => return Err(bad("a ']' has no '['".into())),
                    }
                }
                '{' | '}' | '#' => return Err(bad(format!("'{c}' is reserved; quote it"))),
                c if c.is_ascii_alphabetic() => {
                    let mut n = 1;
                    while chars.next_if_eq(&c).is_some() {
                        n += 1;
                    }
                    match LETTERS.iter().find(|(l, _)| *l == c) {
                        Some((_, most)) if n <= *most => items.push(Item::Field(c, n)),
                        Some((_, most)) => return Err(bad(format!("'{c}' stands {n} times, at most {most} are known"))),
                        None => return Err(bad(format!("the letter '{c}' is not supported; quote text like '{c}' with ''"))),
                    }
                }
                c => literal(items, c),
            }
        }
        match (open.pop(), open.is_empty()) {
            (Some(items), true) => Ok(Self { text: text.to_string(), offset: offset_letter(&items), items }),
            _ => Err(bad("a '[' is not closed".into())),
        }
    }

    /// Refuses what cannot be written for a value without a zone.
    pub fn check_format(&self, zoned: bool) -> Result<()> {
        match self.offset {
            Some(c) if !zoned => Err(Error::user(format!(
                "in the date pattern '{}' the letter '{c}' asks for an offset, which a TIMESTAMP has not",
                self.text
            ))
            .help("cast the value to TIMESTAMP_LTZ(3), or write the offset as quoted text")),
            _ => Ok(()),
        }
    }

    /// Appends `t` in this form; `offset` in seconds where the value has a zone.
    pub fn format(&self, t: NaiveDateTime, offset: Option<i32>, out: &mut String) -> Result<()> {
        self.check_format(offset.is_some())?;
        write(&self.items, t, offset.unwrap_or(0), out);
        Ok(())
    }

    /// Reads a whole text.
    pub fn parse(&self, text: &str) -> Option<NaiveDateTime> {
        let mut parsed = Parsed::default();
        read(&self.items, text, &mut parsed).filter(|rest| rest.is_empty())?;
        parsed.resolve(false)
    }

    /// The same, but a day that the month does not have is a day of the next month (Java's older
    /// SimpleDateFormat, which Flink uses in TO_DATE and UNIX_TIMESTAMP).
    pub fn parse_lenient(&self, text: &str) -> Option<NaiveDateTime> {
        let mut parsed = Parsed::default();
        read(&self.items, text, &mut parsed).filter(|rest| rest.is_empty())?;
        parsed.resolve(true)
    }
}

fn offset_letter(items: &[Item]) -> Option<char> {
    items.iter().find_map(|i| match i {
        Item::Field(c @ ('X' | 'x' | 'Z'), _) => Some(*c),
        Item::Optional(inner) => offset_letter(inner),
        _ => None,
    })
}

fn literal(items: &mut Vec<Item>, c: char) {
    match items.last_mut() {
        Some(Item::Text(t)) => t.push(c),
        _ => items.push(Item::Text(c.into())),
    }
}

/// Week-based year and week of the year.
fn week_of(d: NaiveDate) -> (i32, u32) {
    let first_weekday = |year: i32| NaiveDate::from_ymd_opt(year, 1, 1).map_or(0, |d| d.weekday().num_days_from_sunday());
    let next = first_weekday(d.year() + 1);
    let last = if d.leap_year() { 366 } else { 365 };
    if next > 0 && d.ordinal() + next > last {
        return (d.year() + 1, 1);
    }
    (d.year(), (d.ordinal0() + first_weekday(d.year())) / 7 + 1)
}

fn write(items: &[Item], t: NaiveDateTime, offset: i32, out: &mut String) {
    use std::fmt::Write;
    for item in items {
        let (letter, n) = match item {
            Item::Text(text) => {
                out.push_str(text);
                continue;
            }
            Item::Optional(inner) => {
                write(inner, t, offset, out);
                continue;
            }
            Item::Field(letter, n) => (*letter, *n),
        };
        let mut number = |v: i64, width: usize| match (v, width) {
            // Nearly all fields: hours, days, months; a formatter would cost more than the rest of the row.
            (0..=9, 1) => out.push((b'0' + v as u8) as char),
            (0..=99, 2) => out.extend([(b'0' + v as u8 / 10) as char, (b'0' + v as u8 % 10) as char]),
            _ => write!(out, "{v:0width$}").expect("writing to a String cannot fail"),
        };
        match letter {
            'y' | 'u' | 'Y' => {
                let year = match letter {
                    'Y' => week_of(t.date()).0,
                    'y' if t.year() < 1 => 1 - t.year(),
                    _ => t.year(),
                };
                match n {
                    2 => number(year.rem_euclid(100).into(), 2),
                    4 if (0..=9999).contains(&year) => {
                        number((year / 100).into(), 2);
                        number((year % 100).into(), 2);
                    }
                    n => {
                        if n >= 4 && year > 9999 {
                            out.push('+');
                        }
                        if year < 0 {
                            out.push('-');
                        }
                        write!(out, "{:0n$}", year.unsigned_abs()).expect("writing to a String cannot fail");
                    }
                }
            }
            'M' | 'L' if n >= 3 => out.push_str(word(MONTHS[t.month0() as usize], n)),
            'M' | 'L' => number(t.month().into(), n),
            'Q' | 'q' => {
                let quarter = t.month0() / 3 + 1;
                match n {
                    3 => write!(out, "Q{quarter}").expect("writing to a String cannot fail"),
                    4 => out.push_str(["1st quarter", "2nd quarter", "3rd quarter", "4th quarter"][quarter as usize - 1]),
                    5 => number(quarter.into(), 1),
                    n => number(quarter.into(), n),
                }
            }
            'E' => out.push_str(word(DAYS[t.weekday().num_days_from_sunday() as usize], n.max(3))),
            'e' | 'c' if n >= 3 => out.push_str(word(DAYS[t.weekday().num_days_from_sunday() as usize], n)),
            'e' | 'c' => number(t.weekday().number_from_sunday().into(), n),
            'w' => number(week_of(t.date()).1.into(), n),
            'W' => {
                let first = t.date().with_day(1).map_or(0, |d| d.weekday().num_days_from_sunday());
                number(((t.day0() + first) / 7 + 1).into(), 1);
            }
            'F' => number((t.day0() % 7 + 1).into(), 1),
            'D' => number(t.ordinal().into(), n),
            'd' => number(t.day().into(), n),
            'G' => out.push_str(match (t.year() > 0, n) {
                (true, 1..=3) => "AD",
                (true, 4) => "Anno Domini",
                (true, _) => "A",
                (false, 1..=3) => "BC",
                (false, 4) => "Before Christ",
                (false, _) => "B",
            }),
            'a' => out.push_str(if t.hour() < 12 { "AM" } else { "PM" }),
            'H' => number(t.hour().into(), n),
            'h' => number((((t.hour() + 11) % 12) + 1).into(), n),
            'K' => number((t.hour() % 12).into(), n),
            'k' => number((((t.hour() + 23) % 24) + 1).into(), n),
            'm' => number(t.minute().into(), n),
            's' => number(t.second().into(), n),
            'S' => number((t.nanosecond() / 10u32.pow(9 - n as u32)).into(), n),
            'A' => number(nanos_of_day(t) / 1_000_000, n),
            'n' => number(t.nanosecond().into(), n),
            'N' => number(nanos_of_day(t), n),
            _ => write_offset(letter, n, offset, out),
        }
    }
}

fn nanos_of_day(t: NaiveDateTime) -> i64 {
    t.num_seconds_from_midnight() as i64 * 1_000_000_000 + t.nanosecond() as i64
}

/// A name in its short (3), full (4) or one-letter (5) form.
fn word(name: &str, n: usize) -> &str {
    match n {
        3 => &name[..3],
        4 => name,
        _ => &name[..1],
    }
}

fn write_offset(letter: char, n: usize, offset: i32, out: &mut String) {
    use std::fmt::Write;
    if letter == 'X' && offset == 0 {
        return out.push('Z');
    }
    let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs() / 60);
    let (h, m) = (minutes / 60, minutes % 60);
    let colon = if letter != 'Z' && n == 3 { ":" } else { "" };
    write!(out, "{sign}{h:02}").expect("writing to a String cannot fail");
    if letter == 'Z' || n > 1 || m > 0 {
        write!(out, "{colon}{m:02}").expect("writing to a String cannot fail");
    }
}

#[derive(Default, Clone)]
struct Parsed {
    year: Option<i64>,
    before_christ: bool,
    quarter: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    weekday: Option<i64>,
    hour: Option<i64>,
    half_hour: Option<i64>,
    pm: Option<bool>,
    minute: Option<i64>,
    second: Option<i64>,
    nanos: Option<i64>,
    nanos_of_day: Option<i64>,
}

impl Parsed {
    fn resolve(self, lenient: bool) -> Option<NaiveDateTime> {
        let year = i32::try_from(self.year.unwrap_or(1970)).ok()?;
        let year = if self.before_christ { 1 - year } else { year };
        let date = match (self.day_of_year, self.month) {
            (Some(n), None) => NaiveDate::from_yo_opt(year, u32::try_from(n).ok()?)?,
            (_, month) => {
                let month = u32::try_from(month.or(self.quarter.map(|q| q * 3 - 2)).unwrap_or(1)).ok().filter(|m| (1..=12).contains(m))?;
                let day = u32::try_from(self.day.unwrap_or(1)).ok().filter(|d| (1..=31).contains(d))?;
                let last = crate::formats::text::days_in_month(year.into(), month);
                let within = NaiveDate::from_ymd_opt(year, month, day.min(last))?;
                if lenient { within.checked_add_signed(chrono::Duration::days(i64::from(day.saturating_sub(last))))? } else { within }
            }
        };
        if self.weekday.is_some_and(|w| w != date.weekday().number_from_sunday() as i64) {
            return None;
        }
        if let Some(n) = self.nanos_of_day {
            let time = NaiveTime::from_num_seconds_from_midnight_opt(u32::try_from(n / 1_000_000_000).ok()?, (n % 1_000_000_000) as u32)?;
            return Some(date.and_time(time));
        }
        let hour = match (self.hour, self.half_hour, self.pm) {
            (Some(h), ..) => h,
            (None, Some(h), Some(pm)) => h + if pm { 12 } else { 0 },
            _ => 0,
        };
        let field = |v: Option<i64>| u32::try_from(v.unwrap_or(0)).ok();
        let time = NaiveTime::from_hms_nano_opt(u32::try_from(hour).ok()?, field(self.minute)?, field(self.second)?, field(self.nanos)?)?;
        Some(date.and_time(time))
    }
}

fn read<'t>(items: &[Item], mut text: &'t str, out: &mut Parsed) -> Option<&'t str> {
    for (i, item) in items.iter().enumerate() {
        text = match item {
            Item::Text(t) => text.strip_prefix(t.as_str())?,
            Item::Optional(inner) => {
                let before = out.clone();
                match read(inner, text, out) {
                    Some(rest) => rest,
                    None => {
                        *out = before;
                        text
                    }
                }
            }
            Item::Field(letter, n) => {
                // Digits that fixed-width fields right behind will need.
                let reserved = items[i + 1..].iter().map_while(fixed_width).sum();
                field(*letter, *n, reserved, text, out)?
            }
        };
    }
    Some(text)
}

/// The width of a field that always has the same number of digits.
fn fixed_width(item: &Item) -> Option<usize> {
    match item {
        Item::Field('M' | 'L' | 'd' | 'H' | 'h' | 'k' | 'K' | 'm' | 's' | 'w' | 'y' | 'u' | 'Y' | 'Q' | 'q', 2) => Some(2),
        Item::Field('D', 3) => Some(3),
        Item::Field('S', n) => Some(*n),
        _ => None,
    }
}

fn field<'t>(letter: char, n: usize, reserved: usize, text: &'t str, out: &mut Parsed) -> Option<&'t str> {
    let names = |names: &[&str]| {
        names.iter().position(|name| text.starts_with(word(name, n.max(3)))).map(|i| (i as i64, word(names[i], n.max(3)).len()))
    };
    // A name that begins like another (full ones never do) is found by its whole form only.
    match letter {
        'M' | 'L' if n >= 3 => {
            let (i, len) = names(&MONTHS)?;
            out.month = Some(i + 1);
            return Some(&text[len..]);
        }
        'E' => {
            let (i, len) = names(&DAYS)?;
            out.weekday = Some(i + 1);
            return Some(&text[len..]);
        }
        'e' | 'c' if n >= 3 => {
            let (i, len) = names(&DAYS)?;
            out.weekday = Some(i + 1);
            return Some(&text[len..]);
        }
        'Q' | 'q' if n == 3 => {
            let rest = text.strip_prefix('Q')?;
            let (v, rest) = digits(rest, 1, 1)?;
            out.quarter = Some(v).filter(|v| (1..=4).contains(v));
            return out.quarter.map(|_| rest);
        }
        'a' => {
            out.pm = Some(match text.get(..2)? {
                "AM" => false,
                "PM" => true,
                _ => return None,
            });
            return Some(&text[2..]);
        }
        'G' => {
            out.before_christ = match text.get(..2)? {
                "AD" => false,
                "BC" => true,
                _ => return None,
            };
            return Some(&text[2..]);
        }
        'X' | 'x' | 'Z' => return offset(text, letter == 'X'),
        'S' => {
            let (v, rest) = digits(text, n, n)?;
            out.nanos = Some(v * 10i64.pow(9 - n as u32));
            return Some(rest);
        }
        _ => {}
    }
    let year = matches!(letter, 'y' | 'u' | 'Y');
    let (sign, unsigned) = match text.as_bytes().first() {
        Some(b'-') if year && n != 2 => (-1, &text[1..]),
        Some(b'+') if year && n >= 4 => (1, &text[1..]),
        _ => (1, text),
    };
    let (least, most) = match (n, year) {
        (2, _) => (2, 2),
        // Four digits of a year, more only behind a sign.
        (n, true) if n >= 4 => (n, if unsigned.len() < text.len() { 18 } else { n }),
        (n, true) => (n, 18),
        (1, _) => (1, 18),
        (n, _) => (n, n.max(if matches!(letter, 'A' | 'n' | 'N') { 18 } else { n })),
    };
    let available = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let most = if least == most { most } else { most.min(available.saturating_sub(reserved)).max(least) };
    let (v, rest) = digits(unsigned, least, most)?;
    let v = v * sign;
    let within = |low: i64, high: i64| (low..=high).contains(&v).then_some(v);
    match letter {
        'y' | 'u' => out.year = Some(if n == 2 { 2000 + v } else { v }),
        'M' | 'L' => out.month = Some(within(1, 12)?),
        'Q' | 'q' => out.quarter = Some(within(1, 4)?),
        'd' => out.day = Some(within(1, 31)?),
        'D' => out.day_of_year = Some(within(1, 366)?),
        'H' => out.hour = Some(within(0, 23)?),
        'k' => out.hour = Some(within(1, 24)? % 24),
        'K' => out.half_hour = Some(within(0, 11)?),
        'h' => out.half_hour = Some(within(1, 12)? % 12),
        'm' => out.minute = Some(within(0, 59)?),
        's' => out.second = Some(within(0, 59)?),
        'n' => out.nanos = Some(within(0, 999_999_999)?),
        'A' => out.nanos_of_day = Some(within(0, 86_399_999)? * 1_000_000),
        'N' => out.nanos_of_day = Some(within(0, 86_399_999_999_999)?),
        'e' | 'c' => out.weekday = Some(within(1, 7)?),
        // Weeks alone name no day.
        _ => {}
    }
    Some(rest)
}

fn digits(text: &str, least: usize, most: usize) -> Option<(i64, &str)> {
    let n = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if n < least {
        return None;
    }
    Some((text[..n].parse().ok()?, &text[n..]))
}

/// `Z`, `+01`, `+0100`, `+01:00`.
fn offset(text: &str, z: bool) -> Option<&str> {
    if z && let Some(rest) = text.strip_prefix('Z') {
        return Some(rest);
    }
    let (_, rest) = digits(text.strip_prefix(['+', '-'])?, 2, 2)?;
    Some(digits(rest.strip_prefix(':').unwrap_or(rest), 2, 2).map_or(rest, |(_, rest)| rest))
}
