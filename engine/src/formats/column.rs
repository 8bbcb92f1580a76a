//! Columns under construction: Arrow builders by SQL type, filled value by value while decoding.
//!
//! What must hold: every append adds exactly one entry, also where it fails, so that columns of a batch
//! never differ in length. What stands in for a value that failed is [`Column::append_filler`]; the record
//! it belongs to is rejected, and its row filtered out before anybody sees it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int8Builder,
    Int16Builder, Int32Builder, Int64Builder, ListArray, MapArray, NullBufferBuilder, StringBuilder, StructArray, Time32MillisecondBuilder,
    make_array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};

use crate::error::{Error, Result};
use crate::formats::text::{self, Decimal, TimestampText};
use crate::stream::SqlType;

/// Why a value could not be read: where below the column, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Bad {
    /// Path of nested fields below the column, such as `.a.b`; empty for the column itself.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) what: String,
}

impl Bad {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { path: String::new(), what: what.into() }
    }

    /// `value` is not a `wanted`.
    pub(crate) fn value(value: &str, wanted: &SqlType) -> Self {
        Self::new(format!("'{}' cannot be read as {wanted}", shortened(value)))
    }

    /// The same, seen from the ROW that holds the field.
    pub(crate) fn below(mut self, field: &str) -> Self {
        self.path.insert_str(0, field);
        self.path.insert(0, '.');
        self
    }

    /// The reason of a rejected record.
    pub(crate) fn reason(&self, column: &str) -> String {
        format!("column '{column}{}': {}", self.path, self.what)
    }
}

/// The start of a value, on one line, for messages.
pub(crate) fn shortened(value: &str) -> String {
    const CHARS: usize = 40;
    let mut out: String = value.chars().take(CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if value.chars().nth(CHARS).is_some() {
        out.push('…');
    }
    out
}

/// What a value's text turned out to be.
pub(crate) enum Parsed {
    /// Appended.
    Done,
    /// No value of the type; nothing was appended.
    Not,
    /// A decimal with too many digits: NULL; nothing was appended.
    TooLarge,
}

/// One column under construction.
pub(crate) struct Column {
    pub(crate) field: FieldRef,
    pub(crate) sql: SqlType,
    pub(crate) data: Data,
}

pub(crate) enum Data {
    Boolean(BooleanBuilder),
    TinyInt(Int8Builder),
    SmallInt(Int16Builder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time32MillisecondBuilder),
    /// Values, their unit, and whether it is a TIMESTAMP_LTZ.
    Timestamp(Int64Builder, TimeUnit, bool),
    Array(Box<Column>, Lists),
    Map(Box<(Column, Column)>, Lists),
    Row(Vec<Column>, NullBufferBuilder),
}

/// Ends and validity of lists.
pub(crate) struct Lists {
    ends: Vec<i32>,
    valid: NullBufferBuilder,
}

impl Lists {
    fn new() -> Self {
        Self { ends: vec![0], valid: NullBufferBuilder::new(0) }
    }

    /// Ends a list after `items` items in all.
    pub(crate) fn push(&mut self, items: usize, valid: bool) {
        self.ends.push(i32::try_from(items).unwrap_or(i32::MAX));
        self.valid.append(valid);
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Option<arrow::buffer::NullBuffer>) {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        (OffsetBuffer::new(ScalarBuffer::from(ends)), self.valid.finish())
    }
}

impl Column {
    /// An empty column of `field`.
    ///
    /// # Errors
    /// User: a type that no text format can hold.
    pub(crate) fn new(field: &FieldRef) -> Result<Self> {
        let sql = SqlType::of(field);
        if sql.arrow() != *field.data_type() && !matches!(sql, SqlType::Row(_) | SqlType::Array(..) | SqlType::Map(..)) {
            return Err(Error::internal(format!(
                "column '{}' has the Arrow type {}, which is no SQL type's",
                field.name(),
                field.data_type()
            )));
        }
        let child = |f: &FieldRef| Self::new(f);
        let data = match (&sql, field.data_type()) {
            (SqlType::Boolean, _) => Data::Boolean(BooleanBuilder::new()),
            (SqlType::TinyInt, _) => Data::TinyInt(Int8Builder::new()),
            (SqlType::SmallInt, _) => Data::SmallInt(Int16Builder::new()),
            (SqlType::Int, _) => Data::Int(Int32Builder::new()),
            (SqlType::BigInt, _) => Data::BigInt(Int64Builder::new()),
            (SqlType::Float, _) => Data::Float(Float32Builder::new()),
            (SqlType::Double, _) => Data::Double(Float64Builder::new()),
            (SqlType::Decimal(p, s), t) => Data::Decimal(Decimal128Builder::new().with_data_type(t.clone()), *p, *s),
            (SqlType::Char(_) | SqlType::VarChar(_), _) => Data::Text(StringBuilder::new()),
            (SqlType::Binary(_) | SqlType::VarBinary(_), _) => Data::Bytes(BinaryBuilder::new()),
            (SqlType::Date, _) => Data::Date(Date32Builder::new()),
            (SqlType::Time(_), _) => Data::Time(Time32MillisecondBuilder::new()),
            (SqlType::Timestamp(_), DataType::Timestamp(unit, _)) => Data::Timestamp(Int64Builder::new(), *unit, false),
            (SqlType::TimestampLtz(_), DataType::Timestamp(unit, _)) => Data::Timestamp(Int64Builder::new(), *unit, true),
            (SqlType::Array(..), DataType::List(item)) => Data::Array(Box::new(child(item)?), Lists::new()),
            (SqlType::Map(..), DataType::Map(entries, _)) => match entries.data_type() {
                DataType::Struct(kv) if kv.len() == 2 => Data::Map(Box::new((child(&kv[0])?, child(&kv[1])?)), Lists::new()),
                other => return Err(Error::internal(format!("a map of {other}"))),
            },
            (SqlType::Row(_), DataType::Struct(fields)) => {
                Data::Row(fields.iter().map(child).collect::<Result<_>>()?, NullBufferBuilder::new(0))
            }
            (_, other) => return Err(Error::internal(format!("column '{}' has the Arrow type {other}", field.name()))),
        };
        Ok(Self { field: field.clone(), sql, data })
    }

    /// Whether a NULL may stand here.
    pub(crate) fn nullable(&self) -> bool {
        self.field.is_nullable()
    }

    /// Entries so far.
    pub(crate) fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        match &self.data {
            Data::Boolean(b) => b.len(),
            Data::TinyInt(b) => b.len(),
            Data::SmallInt(b) => b.len(),
            Data::Int(b) => b.len(),
            Data::BigInt(b) | Data::Timestamp(b, ..) => b.len(),
            Data::Float(b) => b.len(),
            Data::Double(b) => b.len(),
            Data::Decimal(b, ..) => b.len(),
            Data::Text(b) => b.len(),
            Data::Bytes(b) => b.len(),
            Data::Date(b) => b.len(),
            Data::Time(b) => b.len(),
            Data::Array(_, lists) | Data::Map(_, lists) => lists.ends.len() - 1,
            Data::Row(_, valid) => valid.len(),
        }
    }

    /// Appends NULL where the column may hold it.
    pub(crate) fn append_null(&mut self) -> Result<(), Bad> {
        self.append_filler();
        if self.nullable() { Ok(()) } else { Err(Bad::new(format!("NULL in a column that is {} NOT NULL", self.sql))) }
    }

    /// Appends what stands in for a value: NULL, or where the type has none, its zero.
    pub(crate) fn append_filler(&mut self) {
        let null = self.nullable();
        macro_rules! filler {
            ($builder:expr, $zero:expr) => {
                if null { $builder.append_null() } else { $builder.append_value($zero) }
            };
        }
        match &mut self.data {
            Data::Boolean(b) => filler!(b, false),
            Data::TinyInt(b) => filler!(b, 0),
            Data::SmallInt(b) => filler!(b, 0),
            Data::Int(b) => filler!(b, 0),
            Data::BigInt(b) | Data::Timestamp(b, ..) => filler!(b, 0),
            Data::Float(b) => filler!(b, 0.0),
            Data::Double(b) => filler!(b, 0.0),
            Data::Decimal(b, ..) => filler!(b, 0),
            Data::Text(b) => filler!(b, ""),
            Data::Bytes(b) => filler!(b, b""),
            Data::Date(b) => filler!(b, 0),
            Data::Time(b) => filler!(b, 0),
            Data::Array(item, lists) => lists.push(item.len(), !null),
            Data::Map(entries, lists) => lists.push(entries.0.len(), !null),
            Data::Row(fields, valid) => {
                fields.iter_mut().for_each(Self::append_filler);
                valid.append(!null);
            }
        }
    }

    /// Appends a scalar from its text, read as Java reads it. What is particular to a format (a JSON number for an
    /// INT, base64, nested values) is the format's business. A STRING takes any text.
    pub(crate) fn append_text(&mut self, value: &str, iso: bool) -> Parsed {
        macro_rules! integer {
            ($builder:expr, $t:ty) => {
                match text::parse_integer(value.trim().as_bytes(), <$t>::MIN.into(), <$t>::MAX.into()) {
                    Some(n) => $builder.append_value(n as $t),
                    None => return Parsed::Not,
                }
            };
        }
        macro_rules! append {
            ($builder:expr, $parsed:expr) => {
                match $parsed {
                    Some(v) => $builder.append_value(v),
                    None => return Parsed::Not,
                }
            };
        }
        match &mut self.data {
            Data::Boolean(b) => b.append_value(text::parse_boolean(value)),
            Data::TinyInt(b) => integer!(b, i8),
            Data::SmallInt(b) => integer!(b, i16),
            Data::Int(b) => integer!(b, i32),
            Data::BigInt(b) => integer!(b, i64),
            Data::Float(b) => append!(b, text::parse_float(value)),
            Data::Double(b) => append!(b, text::parse_double(value)),
            Data::Decimal(b, p, s) => match text::parse_decimal(value.as_bytes(), *p, *s) {
                Some(Decimal::Value(v)) => b.append_value(v),
                Some(Decimal::TooLarge) => return Parsed::TooLarge,
                None => return Parsed::Not,
            },
            Data::Text(b) => b.append_value(value),
            Data::Date(b) => append!(b, text::parse_date(value.as_bytes())),
            Data::Time(b) => append!(b, text::parse_time(value.as_bytes())),
            Data::Timestamp(b, unit, zulu) => {
                append!(b, text::parse_timestamp(value.as_bytes(), TimestampText { iso, zulu: *zulu }).and_then(|m| m.value(*unit)));
            }
            Data::Bytes(_) | Data::Array(..) | Data::Map(..) | Data::Row(..) => return Parsed::Not,
        }
        Parsed::Done
    }

    /// The column as an array; the builder is empty again.
    ///
    /// # Errors
    /// Internal: lengths that do not agree.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        let t = self.field.data_type().clone();
        Ok(match &mut self.data {
            Data::Boolean(b) => Arc::new(b.finish()),
            Data::TinyInt(b) => Arc::new(b.finish()),
            Data::SmallInt(b) => Arc::new(b.finish()),
            Data::Int(b) => Arc::new(b.finish()),
            Data::BigInt(b) => Arc::new(b.finish()),
            Data::Float(b) => Arc::new(b.finish()),
            Data::Double(b) => Arc::new(b.finish()),
            Data::Decimal(b, ..) => Arc::new(b.finish()),
            Data::Text(b) => Arc::new(b.finish()),
            Data::Bytes(b) => Arc::new(b.finish()),
            Data::Date(b) => Arc::new(b.finish()),
            Data::Time(b) => Arc::new(b.finish()),
            // 64 bits either way: only the type changes.
            Data::Timestamp(b, ..) => make_array(b.finish().into_data().into_builder().data_type(t).build()?),
            Data::Array(item, lists) => {
                let (offsets, nulls) = lists.take();
                Arc::new(ListArray::try_new(item.field.clone(), offsets, item.finish()?, nulls)?)
            }
            Data::Map(entries, lists) => {
                let (offsets, nulls) = lists.take();
                let DataType::Map(entry, sorted) = t else { return Err(Error::internal("a map column without a map type")) };
                let DataType::Struct(fields) = entry.data_type() else { return Err(Error::internal("a map without entries")) };
                let columns = vec![entries.0.finish()?, entries.1.finish()?];
                Arc::new(MapArray::try_new(entry.clone(), offsets, StructArray::try_new(fields.clone(), columns, None)?, nulls, sorted)?)
            }
            Data::Row(fields, valid) => {
                let DataType::Struct(types) = t else { return Err(Error::internal("a row column without a row type")) };
                let (length, nulls) = (valid.len(), valid.finish());
                let columns = fields.iter_mut().map(Self::finish).collect::<Result<Vec<_>>>()?;
                Arc::new(StructArray::try_new_with_length(types, columns, nulls, length)?)
            }
        })
    }
}

/// The wanted columns of a decoder and the rows that were rejected while filling them.
pub(crate) struct Rows {
    pub(crate) columns: Vec<Column>,
    schema: arrow::datatypes::SchemaRef,
}

impl Rows {
    /// Empty columns for the `wanted` ones of `physical`.
    ///
    /// # Errors
    /// User: a type that no text format can hold.
    pub(crate) fn new(physical: &arrow::datatypes::Schema, wanted: &[usize]) -> Result<Self> {
        let schema = physical.project(wanted)?;
        let columns = schema.fields().iter().map(Column::new).collect::<Result<_>>()?;
        Ok(Self { columns, schema: Arc::new(schema) })
    }

    /// The batch of `rows` rows, without those where `dead` is true (`dead` may be empty).
    ///
    /// # Errors
    /// Internal: lengths that do not agree.
    pub(crate) fn finish(&mut self, rows: usize, dead: &[bool]) -> Result<arrow::array::RecordBatch> {
        let mut arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>>>()?;
        let mut kept = rows;
        if dead.iter().any(|d| *d) {
            let keep = arrow::array::BooleanArray::from_iter(dead.iter().map(|d| Some(!d)));
            kept = keep.true_count();
            for array in &mut arrays {
                *array = arrow::compute::filter(array, &keep)?;
            }
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(kept));
        Ok(arrow::array::RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}

/// Brings the columns of `rows` to the Arrow types of the fields' SQL types, so that writers meet no others.
///
/// # Errors
/// Internal: types that do not cast.
pub(crate) fn normalized(rows: &arrow::array::RecordBatch, fields: &[FieldRef]) -> Result<Vec<ArrayRef>> {
    let bring = |(column, field): (&ArrayRef, &FieldRef)| -> Result<ArrayRef> {
        let t = normal_type(field);
        Ok(if *column.data_type() == t { column.clone() } else { arrow::compute::cast(column, &t)? })
    };
    rows.columns().iter().zip(fields).map(bring).collect()
}

/// The Arrow type that a field is written from.
fn normal_type(field: &Field) -> DataType {
    let t = SqlType::of(field);
    match t {
        // Names and nullability inside nested types stay as they are; only foreign scalars are cast.
        SqlType::Row(_) | SqlType::Array(..) | SqlType::Map(..) => field.data_type().clone(),
        scalar => scalar.arrow(),
    }
}
