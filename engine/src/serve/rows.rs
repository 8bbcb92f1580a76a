//! Values as callers send them, by name, become the batch that a model scores.
//!
//! Every protocol ends here, one conversion for all: that is why the same row gives the same bits by typed gRPC, by
//! tensors and by JSON. What must hold: a value is taken as it is or refused with its field's name, never rounded
//! silently (but for what FLOAT and the precision of a time cut off, as SQL does); each input is there, nothing else is.

use std::borrow::Cow;
use std::sync::Arc;

use ahash::AHashMap;
use arrow::array::{
    Array, ArrayBuilder, ArrayRef, BooleanBuilder, Decimal128Builder, Float32Array, Float64Array, Float64Builder, Int64Array,
};
use arrow::array::{AsArray, Int64Builder, RecordBatch, RecordBatchOptions, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, SchemaRef, TimeUnit};

use super::failure::{Answered, Failure, Reason};
use crate::error::nearest;
use crate::formats::text::{Decimal, Moment, TimestampText, parse_date, parse_decimal, parse_time, parse_timestamp};
use crate::stream::types::SqlType;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// A truth value.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A double.
    Double(f64),
    /// A text.
    Text(&'a str),
    /// A point in time.
    Moment(Moment),
    /// Something that no input takes; the text says what.
    Other(&'static str),
}

/// Many values of one kind, one for each row.
#[derive(Debug, Clone, PartialEq)]
pub enum Values<'a> {
    /// Truth values.
    Booleans(Vec<bool>),
    /// Whole numbers.
    Integers(Vec<i64>),
    /// Doubles.
    Doubles(Vec<f64>),
    /// Texts.
    Texts(Vec<Cow<'a, str>>),
    /// Points in time.
    Moments(Vec<Moment>),
    /// Of mixed kinds.
    Cells(Vec<Cell<'a>>),
}

/// What a model takes.
#[derive(Debug)]
pub struct Inputs {
    schema: SchemaRef,
    kinds: Vec<Kind>,
    by_name: AHashMap<String, usize>,
}

/// Takes rows one by one.
#[derive(Debug)]
pub struct Rows<'i> {
    inputs: &'i Inputs,
    columns: Vec<Builder>,
    rows: usize,
}

/// How an input is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Boolean,
    Integer { low: i64, high: i64 },
    Float,
    Double,
    Decimal { precision: u8, scale: i8 },
    Text,
    Date,
    Time,
    Timestamp { unit: TimeUnit, utc: bool },
    Unknown,
}

/// A column that grows, in the type that holds its kind without loss; [`Builder::finish`] makes it the field's.
#[derive(Debug)]
enum Builder {
    Booleans(BooleanBuilder),
    Integers(Int64Builder),
    Doubles(Float64Builder),
    Decimals(Decimal128Builder),
    Texts(StringBuilder),
}

impl Inputs {
    /// The inputs of `schema`.
    pub fn new(schema: SchemaRef) -> Self {
        let kinds = schema.fields().iter().map(|f| Kind::of(f.data_type())).collect();
        let by_name = schema.fields().iter().enumerate().map(|(i, f)| (f.name().clone(), i)).collect();
        Self { schema, kinds, by_name }
    }

    /// The schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Starts a batch of about `capacity` rows.
    pub fn rows(&self, capacity: usize) -> Rows<'_> {
        Rows { inputs: self, columns: self.kinds.iter().map(|kind| kind.builder(capacity)).collect(), rows: 0 }
    }

    /// A batch of `rows` rows from whole columns.
    pub fn batch(&self, rows: usize, columns: Vec<(&str, Values<'_>, &[u32])>) -> Answered<RecordBatch> {
        let mut arrays: Vec<Option<ArrayRef>> = vec![None; self.kinds.len()];
        for (name, values, nulls) in columns {
            let Some(&i) = self.by_name.get(name) else { return Err(self.extra(name)) };
            if arrays[i].is_some() {
                return Err(Failure::of(Reason::Malformed, name, format!("field '{name}' is given twice")));
            }
            let field = self.schema.field(i);
            if values.len() != rows {
                let message = format!("field '{name}' has {} values, but there are {rows} rows", values.len());
                return Err(Failure::of(Reason::Malformed, name, message));
            }
            arrays[i] = Some(self.kinds[i].column(field, values, nulls)?);
        }
        let arrays = arrays.into_iter().enumerate().map(|(i, array)| array.ok_or_else(|| self.missing(i)));
        let arrays = arrays.collect::<Answered<Vec<_>>>()?;
        self.assemble(rows, arrays)
    }

    /// Whether an input of that name is known.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    fn assemble(&self, rows: usize, arrays: Vec<ArrayRef>) -> Answered<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        // NOT NULL is the model's to judge, by field and row: a schema that takes nulls lets them reach it.
        let schema = if arrays.iter().zip(self.schema.fields()).any(|(a, f)| a.null_count() > 0 && !f.is_nullable()) {
            let fields = self.schema.fields().iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true)));
            Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
        } else {
            self.schema.clone()
        };
        RecordBatch::try_new_with_options(schema, arrays, &options).map_err(|e| Failure::new(Reason::Internal, e.to_string()))
    }

    fn extra(&self, name: &str) -> Failure {
        let known = self.schema.fields().iter().map(|f| f.name().as_str());
        let hint = match nearest(name, known.clone()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("it takes {}", known.collect::<Vec<_>>().join(", ")),
        };
        Failure::of(Reason::ExtraField, name, format!("the model has no field '{name}'; {hint}"))
    }

    fn missing(&self, i: usize) -> Failure {
        let field = self.schema.field(i);
        let (name, sql_type) = (field.name(), SqlType::of(field));
        Failure::of(Reason::MissingField, name, format!("field '{name}' ({sql_type}) is missing; null says that it is not known"))
    }
}

impl Rows<'_> {
    /// Adds a row: its fields in any order.
    pub fn push<'a>(&mut self, fields: impl IntoIterator<Item = (&'a str, Cell<'a>)>) -> Answered<()> {
        let inputs = self.inputs;
        for (name, cell) in fields {
            let Some(&i) = inputs.by_name.get(name) else { return Err(inputs.extra(name)) };
            if self.columns[i].len() != self.rows {
                return Err(Failure::of(Reason::Malformed, name, format!("field '{name}' is given twice")));
            }
            inputs.kinds[i].push(inputs.schema.field(i), cell, &mut self.columns[i])?;
        }
        if let Some(i) = self.columns.iter().position(|column| column.len() == self.rows) {
            return Err(inputs.missing(i));
        }
        self.rows += 1;
        Ok(())
    }

    /// The batch.
    pub fn finish(self) -> Answered<RecordBatch> {
        let fields = self.inputs.schema.fields();
        let arrays = self.columns.into_iter().zip(fields).map(|(column, field)| column.finish(field.data_type()));
        let arrays = arrays.collect::<Answered<Vec<_>>>()?;
        self.inputs.assemble(self.rows, arrays)
    }
}

impl Values<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Booleans(v) => v.len(),
            Self::Integers(v) => v.len(),
            Self::Doubles(v) => v.len(),
            Self::Texts(v) => v.len(),
            Self::Moments(v) => v.len(),
            Self::Cells(v) => v.len(),
        }
    }

    fn cell(&self, row: usize) -> Cell<'_> {
        match self {
            Self::Booleans(v) => Cell::Boolean(v[row]),
            Self::Integers(v) => Cell::Integer(v[row]),
            Self::Doubles(v) => Cell::Double(v[row]),
            Self::Texts(v) => Cell::Text(&v[row]),
            Self::Moments(v) => Cell::Moment(v[row]),
            Self::Cells(v) => v[row],
        }
    }
}

impl Kind {
    fn of(data_type: &DataType) -> Self {
        let integer = |low: i64, high: i64| Self::Integer { low, high };
        match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => integer(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => integer(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => integer(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => integer(i64::MIN, i64::MAX),
            DataType::UInt8 => integer(0, u8::MAX.into()),
            DataType::UInt16 => integer(0, u16::MAX.into()),
            DataType::UInt32 => integer(0, u32::MAX.into()),
            DataType::UInt64 => integer(0, i64::MAX),
            DataType::Float32 => Self::Float,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(precision, scale) => Self::Decimal { precision: *precision, scale: *scale },
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Date32 => Self::Date,
            DataType::Time32(TimeUnit::Millisecond) => Self::Time,
            DataType::Timestamp(unit, zone) => Self::Timestamp { unit: *unit, utc: zone.is_some() },
            _ => Self::Unknown,
        }
    }

    fn builder(self, capacity: usize) -> Builder {
        match self {
            Self::Boolean => Builder::Booleans(BooleanBuilder::with_capacity(capacity)),
            Self::Float | Self::Double => Builder::Doubles(Float64Builder::with_capacity(capacity)),
            Self::Decimal { precision, scale } => {
                let data_type = DataType::Decimal128(precision, scale);
                Builder::Decimals(Decimal128Builder::with_capacity(capacity).with_data_type(data_type))
            }
            Self::Text | Self::Unknown => Builder::Texts(StringBuilder::with_capacity(capacity, capacity * 8)),
            _ => Builder::Integers(Int64Builder::with_capacity(capacity)),
        }
    }

    /// A whole column. What is in the field's own type already is not looked at one by one.
    fn column(self, field: &Field, values: Values<'_>, nulls: &[u32]) -> Answered<ArrayRef> {
        let rows = values.len();
        if let Some(row) = nulls.iter().find(|row| **row as usize >= rows) {
            let name = field.name();
            return Err(Failure::of(Reason::Malformed, name, format!("field '{name}': row {row} is null, but there are {rows} rows")));
        }
        let plain = nulls.is_empty();
        match (self, values) {
            (Self::Double, Values::Doubles(v)) if plain => Ok(Arc::new(Float64Array::from(v))),
            (Self::Integer { low: i64::MIN, .. }, Values::Integers(v)) if plain => Ok(Arc::new(Int64Array::from(v))),
            (Self::Text, Values::Texts(v)) if plain && *field.data_type() == DataType::Utf8 => {
                Ok(Arc::new(StringArray::from_iter_values(v.iter())))
            }
            (_, values) => {
                let mut null = vec![false; rows];
                nulls.iter().for_each(|row| null[*row as usize] = true);
                let mut column = self.builder(rows);
                for (row, null) in null.into_iter().enumerate() {
                    let cell = if null { Cell::Null } else { values.cell(row) };
                    self.push(field, cell, &mut column).map_err(|e| e.at(row))?;
                }
                column.finish(field.data_type())
            }
        }
    }

    fn push(self, field: &Field, cell: Cell<'_>, column: &mut Builder) -> Answered<()> {
        if cell == Cell::Null {
            column.push_null();
            return Ok(());
        }
        match (self, &mut *column, cell) {
            (Self::Boolean, Builder::Booleans(column), Cell::Boolean(value)) => column.append_value(value),
            (Self::Integer { low, high }, Builder::Integers(column), cell) => {
                let value = whole(field, cell)?.filter(|value| (low..=high).contains(value));
                column.append_value(value.ok_or_else(|| wrong(field, cell))?);
            }
            (Self::Float | Self::Double, Builder::Doubles(column), cell) => {
                column.append_value(double(cell).ok_or_else(|| wrong(field, cell))?);
            }
            (Self::Decimal { precision, scale }, Builder::Decimals(column), cell) => {
                column.append_value(decimal(cell, precision, scale).ok_or_else(|| wrong(field, cell))?);
            }
            (Self::Text, Builder::Texts(column), Cell::Text(value)) => column.append_value(value),
            (Self::Date | Self::Time | Self::Timestamp { .. }, Builder::Integers(column), cell) => {
                column.append_value(self.time(cell).ok_or_else(|| wrong(field, cell))?);
            }
            _ => return Err(wrong(field, cell)),
        }
        Ok(())
    }

    /// Days, milliseconds of the day, or units since 1970.
    fn time(self, cell: Cell<'_>) -> Option<i64> {
        match (self, cell) {
            (Self::Date, Cell::Text(text)) => parse_date(text.as_bytes()).map(i64::from),
            (Self::Date, Cell::Moment(moment)) => Some(moment.seconds.div_euclid(86_400)),
            (Self::Time, Cell::Text(text)) => parse_time(text.as_bytes()).map(i64::from),
            (Self::Timestamp { unit, utc }, Cell::Text(text)) => timestamp(text, utc)?.value(unit),
            (Self::Timestamp { unit, .. }, Cell::Moment(moment)) => moment.value(unit),
            (Self::Timestamp { unit, .. }, Cell::Integer(ms)) => {
                Moment { seconds: ms.div_euclid(1000), nanos: ms.rem_euclid(1000) as u32 * 1_000_000 }.value(unit)
            }
            _ => None,
        }
    }
}

impl Builder {
    fn len(&self) -> usize {
        match self {
            Self::Booleans(column) => column.len(),
            Self::Integers(column) => column.len(),
            Self::Doubles(column) => column.len(),
            Self::Decimals(column) => column.len(),
            Self::Texts(column) => column.len(),
        }
    }

    fn push_null(&mut self) {
        match self {
            Self::Booleans(column) => column.append_null(),
            Self::Integers(column) => column.append_null(),
            Self::Doubles(column) => column.append_null(),
            Self::Decimals(column) => column.append_null(),
            Self::Texts(column) => column.append_null(),
        }
    }

    fn finish(self, data_type: &DataType) -> Answered<ArrayRef> {
        let array: ArrayRef = match self {
            Self::Booleans(mut column) => Arc::new(column.finish()),
            Self::Integers(mut column) => Arc::new(column.finish()),
            Self::Doubles(mut column) => Arc::new(column.finish()),
            Self::Decimals(mut column) => Arc::new(column.finish()),
            Self::Texts(mut column) => Arc::new(column.finish()),
        };
        if array.data_type() == data_type {
            return Ok(array);
        }
        let failed = |e: arrow::error::ArrowError| Failure::new(Reason::Internal, e.to_string());
        match data_type {
            // As CAST does, and as the JSON decoder of a stream does.
            DataType::Float32 => {
                let doubles = array.as_primitive::<Float64Type>();
                Ok(Arc::new(doubles.iter().map(|v| v.map(|v| v as f32)).collect::<Float32Array>()))
            }
            DataType::Date32 | DataType::Time32(_) => cast(&cast(&array, &DataType::Int32).map_err(failed)?, data_type).map_err(failed),
            _ => cast(&array, data_type).map_err(failed),
        }
    }
}

/// A whole number, also one that is written as a double; NaN has its own reason.
fn whole(field: &Field, cell: Cell<'_>) -> Answered<Option<i64>> {
    const LOW: f64 = i64::MIN as f64;
    let value = match cell {
        Cell::Integer(value) => return Ok(Some(value)),
        _ => double(cell),
    };
    match value {
        Some(value) if !value.is_finite() => {
            let name = field.name();
            Err(Failure::of(Reason::NotFinite, name, format!("field '{name}' is {value}, not a finite number")))
        }
        // 2^63 as a double is one too many, −2^63 is not.
        Some(value) if value.fract() == 0.0 && (LOW..-LOW).contains(&value) => Ok(Some(value as i64)),
        _ => Ok(None),
    }
}

fn double(cell: Cell<'_>) -> Option<f64> {
    match cell {
        Cell::Integer(value) => Some(value as f64),
        Cell::Double(value) => Some(value),
        // JSON has no word for these; as in the JSON form of protobuf they are texts.
        Cell::Text("NaN") => Some(f64::NAN),
        Cell::Text("Infinity") => Some(f64::INFINITY),
        Cell::Text("-Infinity") => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn decimal(cell: Cell<'_>, precision: u8, scale: i8) -> Option<i128> {
    let parsed = match cell {
        Cell::Text(text) => parse_decimal(text.as_bytes(), precision, scale)?,
        Cell::Integer(value) => parse_decimal(value.to_string().as_bytes(), precision, scale)?,
        Cell::Double(value) => parse_decimal(format!("{value:e}").as_bytes(), precision, scale)?,
        _ => return None,
    };
    match parsed {
        Decimal::Value(value) => Some(value),
        Decimal::TooLarge => None,
    }
}

/// `2024-11-09T10:05:00` or with a blank; a `Z` may follow. An offset is for TIMESTAMP_LTZ only: what a local time with
/// an offset means is not clear.
fn timestamp(text: &str, utc: bool) -> Option<Moment> {
    let bytes = text.as_bytes();
    let forms = [(true, false), (true, true), (false, false), (false, true)];
    let mut found = forms.iter().filter_map(|&(iso, zulu)| parse_timestamp(bytes, TimestampText { iso, zulu }));
    found.next().or_else(|| {
        let moment = chrono::DateTime::parse_from_rfc3339(text).ok().filter(|_| utc)?;
        Some(Moment { seconds: moment.timestamp(), nanos: moment.timestamp_subsec_nanos() })
    })
}

fn wrong(field: &Field, cell: Cell<'_>) -> Failure {
    let (name, sql_type) = (field.name(), SqlType::of(field));
    let got = match cell {
        Cell::Null => "null".to_string(),
        Cell::Boolean(value) => value.to_string(),
        Cell::Integer(value) => format!("the number {value}"),
        Cell::Double(value) => format!("the number {value}"),
        Cell::Text(text) => format!("the text '{}'", text.chars().take(40).collect::<String>()),
        Cell::Moment(_) => "a point in time".to_string(),
        Cell::Other(what) => what.to_string(),
    };
    Failure::of(Reason::WrongType, name, format!("field '{name}' takes {sql_type}, but got {got}"))
}
