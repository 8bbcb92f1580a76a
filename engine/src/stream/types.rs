//! Flink's SQL types and how they are held in Arrow.
//!
//! | Flink | Arrow |
//! |---|---|
//! | BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE | Boolean, Int8 … Int64, Float32, Float64 |
//! | DECIMAL(p, s) | Decimal128(p, s) |
//! | CHAR(n), VARCHAR(n), STRING | Utf8 |
//! | BINARY(n), VARBINARY(n), BYTES | Binary |
//! | DATE, TIME(p) | Date32, Time32(ms) |
//! | TIMESTAMP(p) | Timestamp(s of p), p ≤ 3 → ms, ≤ 6 → µs, else ns, no zone |
//! | TIMESTAMP_LTZ(p) | the same with zone "UTC" |
//! | ARRAY, MAP, ROW | List, Map, Struct |
//!
//! What Arrow cannot say (precision, length) is kept as text in the field's metadata under [`SQL_TYPE`].
//! Expressions drop it, plain columns keep it. [`SqlType::of`] reads it back, and falls back to the
//! widest Flink type of the Arrow type.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

use crate::error::{Error, Result, nearest};

/// Metadata key of a field's Flink type.
pub const SQL_TYPE: &str = "sql_type";
/// Metadata key of a field that is a time attribute; its value is `rowtime` or `proctime`.
pub const TIME_ATTRIBUTE: &str = "time_attribute";
/// Zone name of TIMESTAMP_LTZ columns.
pub const UTC: &str = "UTC";
/// Length of STRING and BYTES.
pub const UNBOUNDED: u32 = i32::MAX as u32;

/// A Flink SQL type. Nullability belongs to the field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// BOOLEAN
    Boolean,
    /// TINYINT
    TinyInt,
    /// SMALLINT
    SmallInt,
    /// INT
    Int,
    /// BIGINT
    BigInt,
    /// FLOAT
    Float,
    /// DOUBLE
    Double,
    /// DECIMAL(precision, scale)
    Decimal(u8, i8),
    /// CHAR(n)
    Char(u32),
    /// VARCHAR(n); STRING is VARCHAR([`UNBOUNDED`])
    VarChar(u32),
    /// BINARY(n)
    Binary(u32),
    /// VARBINARY(n); BYTES is VARBINARY([`UNBOUNDED`])
    VarBinary(u32),
    /// DATE
    Date,
    /// TIME(p)
    Time(u8),
    /// TIMESTAMP(p)
    Timestamp(u8),
    /// TIMESTAMP_LTZ(p)
    TimestampLtz(u8),
    /// ROW<name type, …>; true = nullable
    Row(Vec<(String, SqlType, bool)>),
    /// ARRAY<type>; true = nullable elements
    Array(Box<SqlType>, bool),
    /// MAP<key, value>; true = nullable values
    Map(Box<SqlType>, Box<SqlType>, bool),
}

impl SqlType {
    /// STRING.
    pub const STRING: Self = Self::VarChar(UNBOUNDED);
    /// BYTES.
    pub const BYTES: Self = Self::VarBinary(UNBOUNDED);

    /// The Arrow type.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::TinyInt => DataType::Int8,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal(p, s) => DataType::Decimal128(*p, *s),
            Self::Char(_) | Self::VarChar(_) => DataType::Utf8,
            Self::Binary(_) | Self::VarBinary(_) => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time(_) => DataType::Time32(TimeUnit::Millisecond),
            Self::Timestamp(p) => DataType::Timestamp(time_unit(*p), None),
            Self::TimestampLtz(p) => DataType::Timestamp(time_unit(*p), Some(UTC.into())),
            Self::Row(fields) => DataType::Struct(fields.iter().map(|(n, t, null)| t.field(n, *null)).collect::<Fields>()),
            Self::Array(item, null) => DataType::List(Arc::new(item.field("item", *null))),
            Self::Map(key, value, null) => {
                let entries = Fields::from(vec![key.field("key", false), value.field("value", *null)]);
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
            }
        }
    }

    /// A field of this type, with its Flink type in the metadata.
    pub fn field(&self, name: &str, nullable: bool) -> Field {
        let metadata = HashMap::from([(SQL_TYPE.to_string(), self.to_string())]);
        Field::new(name, self.arrow(), nullable).with_metadata(metadata)
    }

    /// The Flink type of a field: its metadata where it agrees with the Arrow type, else the widest
    /// Flink type that the Arrow type can hold.
    pub fn of(field: &Field) -> Self {
        if let Some(Ok(t)) = field.metadata().get(SQL_TYPE).map(|text| Self::parse(text))
            && t.arrow() == *field.data_type()
        {
            return t;
        }
        Self::of_arrow(field.data_type())
    }

    /// The widest Flink type of an Arrow type.
    pub fn of_arrow(t: &DataType) -> Self {
        let nested = |f: &FieldRef| Box::new(Self::of(f));
        match t {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => Self::TinyInt,
            DataType::Int16 | DataType::UInt8 => Self::SmallInt,
            DataType::Int32 | DataType::UInt16 => Self::Int,
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => Self::BigInt,
            DataType::Float16 | DataType::Float32 => Self::Float,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(p, s) => Self::Decimal(*p, *s),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Self::BYTES,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Time32(_) | DataType::Time64(_) => Self::Time(3),
            DataType::Timestamp(unit, zone) => match zone {
                None => Self::Timestamp(precision(*unit)),
                Some(_) => Self::TimestampLtz(precision(*unit)),
            },
            DataType::Struct(fields) => Self::Row(fields.iter().map(|f| (f.name().clone(), Self::of(f), f.is_nullable())).collect()),
            DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => Self::Array(nested(f), f.is_nullable()),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(kv) if kv.len() == 2 => Self::Map(nested(&kv[0]), nested(&kv[1]), kv[1].is_nullable()),
                _ => Self::STRING,
            },
            _ => Self::STRING,
        }
    }

    /// Reads a type as Flink writes it: `DECIMAL(10, 2)`, `ROW<a INT NOT NULL, b STRING>`,
    /// `TIMESTAMP(3) WITH LOCAL TIME ZONE`, … Keywords ignore case. A trailing NOT NULL or NULL is not
    /// part of a type and is refused here.
    ///
    /// # Errors
    /// User: an unknown type (with the nearest name), a bad length or precision.
    pub fn parse(text: &str) -> Result<Self> {
        let mut p = TypeParser { tokens: tokens(text)?, at: 0, text };
        let t = p.sql_type()?;
        match p.peek() {
            None => Ok(t),
            Some(rest) => Err(Error::user(format!("unexpected '{rest}' after the type {t}"))),
        }
    }

    /// Whether this is CHAR, VARCHAR or STRING.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Char(_) | Self::VarChar(_))
    }

    /// Whether this is an integer, decimal or floating type.
    pub fn is_numeric(&self) -> bool {
        matches!(self, Self::TinyInt | Self::SmallInt | Self::Int | Self::BigInt | Self::Float | Self::Double | Self::Decimal(..))
    }
}

/// The Arrow unit that holds `precision` fractional digits.
pub fn time_unit(precision: u8) -> TimeUnit {
    match precision {
        0..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

/// Fractional digits of an Arrow unit.
pub fn precision(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_null = |null: &bool| if *null { "" } else { " NOT NULL" };
        match self {
            Self::Boolean => write!(f, "BOOLEAN"),
            Self::TinyInt => write!(f, "TINYINT"),
            Self::SmallInt => write!(f, "SMALLINT"),
            Self::Int => write!(f, "INT"),
            Self::BigInt => write!(f, "BIGINT"),
            Self::Float => write!(f, "FLOAT"),
            Self::Double => write!(f, "DOUBLE"),
            Self::Decimal(p, s) => write!(f, "DECIMAL({p}, {s})"),
            Self::Char(n) => write!(f, "CHAR({n})"),
            Self::VarChar(UNBOUNDED) => write!(f, "STRING"),
            Self::VarChar(n) => write!(f, "VARCHAR({n})"),
            Self::Binary(n) => write!(f, "BINARY({n})"),
            Self::VarBinary(UNBOUNDED) => write!(f, "BYTES"),
            Self::VarBinary(n) => write!(f, "VARBINARY({n})"),
            Self::Date => write!(f, "DATE"),
            Self::Time(p) => write!(f, "TIME({p})"),
            Self::Timestamp(p) => write!(f, "TIMESTAMP({p})"),
            Self::TimestampLtz(p) => write!(f, "TIMESTAMP_LTZ({p})"),
            Self::Row(fields) => {
                write!(f, "ROW<")?;
                for (i, (name, t, null)) in fields.iter().enumerate() {
                    write!(f, "{}`{}` {t}{}", if i > 0 { ", " } else { "" }, name.replace('`', "``"), not_null(null))?;
                }
                write!(f, ">")
            }
            Self::Array(t, null) => write!(f, "ARRAY<{t}{}>", not_null(null)),
            Self::Map(k, v, null) => write!(f, "MAP<{k}, {v}{}>", not_null(null)),
        }
    }
}

/// The names that [`SqlType::parse`] knows, for suggestions.
const NAMES: &[&str] = &[
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "DEC",
    "NUMERIC",
    "CHAR",
    "VARCHAR",
    "STRING",
    "BINARY",
    "VARBINARY",
    "BYTES",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMP_LTZ",
    "ROW",
    "ARRAY",
    "MAP",
];

struct TypeParser<'a> {
    tokens: Vec<String>,
    at: usize,
    text: &'a str,
}

/// Words, numbers, back-ticked names (kept with their first back-tick) and single marks.
fn tokens(text: &str) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        let mut token = String::from(c);
        if c == '`' {
            loop {
                match chars.next() {
                    Some('`') if chars.peek() == Some(&'`') => token.extend(chars.next()),
                    Some('`') => break,
                    Some(other) => token.push(other),
                    None => return Err(Error::user(format!("a back-tick in the type '{text}' is not closed"))),
                }
            }
        } else if c.is_alphanumeric() || c == '_' {
            while let Some(next) = chars.next_if(|n| n.is_alphanumeric() || *n == '_' || *n == '$') {
                token.push(next);
            }
        }
        out.push(token);
    }
    Ok(out)
}

impl TypeParser<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn accept(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|t| t.eq_ignore_ascii_case(word));
        self.at += found as usize;
        found
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        if self.accept(word) {
            return Ok(());
        }
        let found = self.peek().unwrap_or("the end");
        Err(Error::user(format!("expected '{word}' in the type '{}', found '{found}'", self.text)))
    }

    fn number(&mut self, what: &str, low: u32, high: u32) -> Result<u32> {
        let token = self.peek().unwrap_or("").to_string();
        self.at += 1;
        match token.parse::<u32>() {
            Ok(n) if (low..=high).contains(&n) => Ok(n),
            _ => Err(Error::user(format!("{what} must be a number from {low} to {high}, found '{token}'"))),
        }
    }

    /// `(n)`, or the default without parentheses.
    fn argument(&mut self, what: &str, low: u32, high: u32, default: u32) -> Result<u32> {
        if !self.accept("(") {
            return Ok(default);
        }
        let n = self.number(what, low, high)?;
        self.expect(")")?;
        Ok(n)
    }

    fn nullable(&mut self) -> Result<bool> {
        if self.accept("NOT") {
            self.expect("NULL")?;
            return Ok(false);
        }
        self.accept("NULL");
        Ok(true)
    }

    fn sql_type(&mut self) -> Result<SqlType> {
        let Some(name) = self.peek().map(str::to_uppercase) else {
            return Err(Error::user("a type is missing"));
        };
        self.at += 1;
        let length = |p: &mut Self, default| p.argument("a length", 1, UNBOUNDED, default);
        Ok(match name.as_str() {
            "BOOLEAN" => SqlType::Boolean,
            "TINYINT" => SqlType::TinyInt,
            "SMALLINT" => SqlType::SmallInt,
            "INT" | "INTEGER" => SqlType::Int,
            "BIGINT" => SqlType::BigInt,
            "FLOAT" => SqlType::Float,
            "DOUBLE" => {
                self.accept("PRECISION");
                SqlType::Double
            }
            "DECIMAL" | "DEC" | "NUMERIC" => {
                let (mut p, mut s) = (10, 0);
                if self.accept("(") {
                    p = self.number("a precision", 1, 38)?;
                    if self.accept(",") {
                        s = self.number("a scale", 0, p)?;
                    }
                    self.expect(")")?;
                }
                SqlType::Decimal(p as u8, s as i8)
            }
            "CHAR" => SqlType::Char(length(self, 1)?),
            "VARCHAR" => SqlType::VarChar(length(self, UNBOUNDED)?),
            "STRING" => SqlType::STRING,
            "BINARY" => SqlType::Binary(length(self, 1)?),
            "VARBINARY" => SqlType::VarBinary(length(self, UNBOUNDED)?),
            "BYTES" => SqlType::BYTES,
            "DATE" => SqlType::Date,
            "TIME" => SqlType::Time(self.argument("a precision", 0, 9, 0)? as u8),
            "TIMESTAMP" => {
                let p = self.argument("a precision", 0, 9, 6)? as u8;
                if !self.accept("WITH") {
                    if self.accept("WITHOUT") {
                        self.expect("TIME")?;
                        self.expect("ZONE")?;
                    }
                    SqlType::Timestamp(p)
                } else {
                    if self.peek().is_some_and(|t| t.eq_ignore_ascii_case("TIME")) {
                        return Err(Error::user("TIMESTAMP WITH TIME ZONE does not exist in this dialect")
                            .help("write TIMESTAMP_LTZ(p), a point in time shown in the session's zone"));
                    }
                    for word in ["LOCAL", "TIME", "ZONE"] {
                        self.expect(word)?;
                    }
                    SqlType::TimestampLtz(p)
                }
            }
            "TIMESTAMP_LTZ" => SqlType::TimestampLtz(self.argument("a precision", 0, 9, 6)? as u8),
            "ARRAY" => {
                self.expect("<")?;
                let item = self.sql_type()?;
                let null = self.nullable()?;
                self.expect(">")?;
                SqlType::Array(Box::new(item), null)
            }
            "MAP" => {
                self.expect("<")?;
                let key = self.sql_type()?;
                self.nullable()?;
                self.expect(",")?;
                let value = self.sql_type()?;
                let null = self.nullable()?;
                self.expect(">")?;
                SqlType::Map(Box::new(key), Box::new(value), null)
            }
            "ROW" => {
                let close = if self.accept("(") { ")" } else { self.expect("<").map(|()| ">")? };
                let mut fields = Vec::new();
                while !self.accept(close) {
                    if !fields.is_empty() {
                        self.expect(",")?;
                    }
                    let name = self.peek().unwrap_or("").trim_start_matches('`').to_string();
                    self.at += 1;
                    let t = self.sql_type()?;
                    let null = self.nullable()?;
                    fields.push((name, t, null));
                }
                SqlType::Row(fields)
            }
            "REAL" => return Err(Error::user("the type REAL does not exist in this dialect").help("write FLOAT")),
            "MULTISET" | "VARIANT" | "RAW" | "INTERVAL" => {
                return Err(Error::user(format!("the type {name} is not supported for columns")));
            }
            _ => {
                let e = Error::user(format!("unknown type '{}'", self.tokens[self.at - 1]));
                return Err(match nearest(&name, NAMES.iter().copied()) {
                    Some(n) => e.help(format!("did you mean {n}?")),
                    None => e,
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_back_as_they_are_written() {
        for text in [
            "INT",
            "DECIMAL(10, 2)",
            "STRING",
            "VARCHAR(12)",
            "TIMESTAMP(3)",
            "TIMESTAMP_LTZ(3)",
            "BYTES",
            "ARRAY<INT NOT NULL>",
            "MAP<STRING, ROW<`a b` INT, `c` TIME(0) NOT NULL>>",
        ] {
            let t = SqlType::parse(text).expect(text);
            assert_eq!(t.to_string(), text);
            assert_eq!(SqlType::of(&t.field("f", true)), t);
        }
        assert_eq!(SqlType::parse("timestamp with local time zone").expect("parses"), SqlType::TimestampLtz(6));
        assert_eq!(SqlType::parse("decimal").expect("parses"), SqlType::Decimal(10, 0));
        assert_eq!(SqlType::parse("row(a int)").expect("parses").to_string(), "ROW<`a` INT>");
    }

    #[test]
    fn a_misspelt_type_is_answered_with_the_nearest() {
        let e = SqlType::parse("STRNG").expect_err("unknown");
        assert_eq!(e.help_text(), Some("did you mean STRING?"));
    }
}
