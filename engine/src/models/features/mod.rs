//! Features: which columns a model reads, and how a row of them becomes a row of numbers.
//!
//! ```text
//!  schema + options ─ Observer ─ observe(batch)… merge(other)… ─ freeze(tree) ─ FeatureSpec ─ encode(batch) ─ numbers
//! ```
//!
//! A [`FeatureSpec`] is plain data, frozen with its model, and [`FeatureSpec::encode`] is the one code that training,
//! `ML_PREDICT` and serving run. What must hold: a row's numbers depend on that row and the spec alone, so that one row
//! and a batch give the same bits; a row that cannot be encoded is refused by field and reason, never guessed at; what
//! [`Observer::freeze`] answers does not depend on the order in which rows or observers came.
//!
//! Trees get numbers as they are, NaN where a value is missing, ordinal categories and plain date parts; every other
//! algorithm gets imputed and scaled numbers, one-hot categories and sin/cos of what goes in circles.

mod bind;
mod encode;
mod exact;
mod freeze;
mod observe;
mod options;
#[cfg(test)]
mod tests;
mod time;

use std::fmt;

use arrow::datatypes::Schema;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

pub use bind::{Binding, Mismatch};
pub use observe::Observer;
pub use time::Part;

use crate::error::{Error, Result};
use crate::stream::types::SqlType;

/// How rows become numbers: the columns in the order in which callers see them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureSpec {
    /// Whether the numbers are made for trees: unscaled, NaN for missing, ordinal categories.
    pub tree: bool,
    /// The columns.
    pub columns: Vec<Column>,
}

/// One column that callers give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its SQL type, as Flink writes it.
    pub sql_type: String,
    /// How it becomes numbers.
    pub encoding: Encoding,
}

/// How a column becomes numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// One number.
    Number {
        /// Values that mean "missing".
        coded: Vec<f64>,
        /// Whether NaN means "missing" instead of being refused.
        coded_nan: bool,
        /// What a missing value becomes.
        absent: Absent,
        /// How it is scaled.
        scale: Scale,
    },
    /// 0 or 1.
    Boolean {
        /// What a missing value becomes.
        absent: Absent,
        /// How it is scaled.
        scale: Scale,
    },
    /// One of a list of categories.
    Category {
        /// The categories, sorted.
        values: Values,
        /// Values that mean "missing".
        coded: Values,
        /// Where a missing value goes; without it, it is refused.
        absent: Option<Place>,
        /// Where a value goes that is no category; without it, it is refused.
        unknown: Option<Place>,
        /// The numbers that a place becomes.
        layout: Layout,
    },
    /// Parts of a date or time.
    Time {
        /// The parts.
        parts: Vec<TimePart>,
        /// What a missing value becomes: with [`Absent::Fill`], each part has its own filling.
        absent: Absent,
    },
}

/// What a missing value becomes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// The row is refused: training saw no missing value, and no imputation was asked for.
    Refuse,
    /// NaN, which trees know how to send on.
    Nan,
    /// This number, before scaling.
    Fill(f64),
}

/// `(x − shift) / divisor · weight`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Taken off first.
    pub shift: f64,
    /// Divided by then; never 0.
    pub divisor: f64,
    /// What the column counts for, 1 unless asked for; k-means' distances feel it.
    pub weight: f64,
}

/// Category values, sorted, so that a search finds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// Of a text column.
    Text(Vec<String>),
    /// Of an integer column.
    Integer(Vec<i64>),
    /// Of a text column: a hash decides which of so many places; nothing is unknown.
    HashedText(u32),
    /// The same for an integer column.
    HashedInteger(u32),
}

/// Where a value of a category column goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The place of this number.
    Slot(u32),
    /// None: zeros in a one-hot block, NaN in a tree, the mean of an ordinal number.
    Nothing,
}

/// The numbers that a [`Place`] becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A number for each place: its weight where the value goes, 0 elsewhere.
    OneHot {
        /// What each place stands for.
        names: Vec<String>,
        /// What a 1 counts for.
        weight: f64,
    },
    /// The number of the place.
    Ordinal {
        /// How it is scaled; `None` for trees, where [`Place::Nothing`] is NaN.
        scale: Option<Scale>,
        /// How many places there are.
        slots: u32,
    },
}

/// A part of a time column.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimePart {
    /// Which.
    pub part: Part,
    /// How it becomes numbers.
    pub form: PartForm,
}

/// How a part of a time becomes numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartForm {
    /// Its sine and cosine, so that 23:59 lies beside 00:00; missing is (0, 0), as far from each hour.
    Cyclic {
        /// What both count for.
        weight: f64,
    },
    /// The number itself.
    Plain {
        /// What a missing value becomes, before scaling.
        fill: f64,
        /// How it is scaled.
        scale: Scale,
    },
}

/// Rows as numbers.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// rows × [`FeatureSpec::width`]. Refused rows hold numbers without meaning.
    pub x: Array2<f64>,
    /// What could not be encoded, by row, then by column.
    pub refused: Vec<Refusal>,
}

/// A row that cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its number in the batch.
    pub row: usize,
    /// The field that is to blame.
    pub field: String,
    /// Why.
    pub reason: Reason,
}

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is null (or coded as missing), and the model was trained without nulls there.
    Null,
    /// Training never saw this category.
    UnknownCategory(String),
    /// It is NaN or infinite.
    NotFinite,
}

impl Scale {
    /// Leaves a number as it is.
    pub const NONE: Self = Self { shift: 0.0, divisor: 1.0, weight: 1.0 };

    /// The scaled number.
    #[inline]
    pub fn apply(self, x: f64) -> f64 {
        (x - self.shift) / self.divisor * self.weight
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = &self.field;
        match &self.reason {
            Reason::Null => write!(f, "field '{field}' is null, and the model was trained without nulls there"),
            Reason::UnknownCategory(value) => write!(f, "field '{field}' is '{value}', a category that the model was not trained on"),
            Reason::NotFinite => write!(f, "field '{field}' is not a finite number"),
        }
    }
}

impl FeatureSpec {
    /// Numbers of an encoded row.
    pub fn width(&self) -> usize {
        self.columns.iter().map(|c| c.encoding.width()).sum()
    }

    /// What each number of an encoded row is: `price`, `color=red`, `ts.hour.sin`.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::with_capacity(self.width());
        for Column { name, encoding, .. } in &self.columns {
            match encoding {
                Encoding::Number { .. } | Encoding::Boolean { .. } => names.push(name.clone()),
                Encoding::Category { layout: Layout::Ordinal { .. }, .. } => names.push(name.clone()),
                Encoding::Category { layout: Layout::OneHot { names: slots, .. }, .. } => {
                    names.extend(slots.iter().map(|slot| format!("{name}={slot}")));
                }
                Encoding::Time { parts, .. } => {
                    for TimePart { part, form } in parts {
                        match form {
                            PartForm::Cyclic { .. } => names.extend([format!("{name}.{part}.sin"), format!("{name}.{part}.cos")]),
                            PartForm::Plain { .. } => names.push(format!("{name}.{part}")),
                        }
                    }
                }
            }
        }
        names
    }

    /// What callers must give: names, SQL types, and whether a null is taken.
    ///
    /// # Errors
    /// State: a type that this version does not know.
    pub fn schema(&self) -> Result<Schema> {
        let field = |c: &Column| {
            let sql_type = SqlType::parse(&c.sql_type).map_err(|e| Error::state(format!("the type of field '{}': {e}", c.name)))?;
            Ok(sql_type.field(&c.name, c.encoding.takes_null()))
        };
        Ok(Schema::new(self.columns.iter().map(field).collect::<Result<Vec<_>>>()?))
    }

    /// Whether the parts fit each other. A spec that came from a file is checked before it encodes anything.
    ///
    /// # Errors
    /// State: which field does not, and why.
    pub fn check(&self) -> Result<()> {
        if self.columns.is_empty() {
            return Err(Error::state("the feature spec has no columns"));
        }
        for (i, column) in self.columns.iter().enumerate() {
            let wrong = |what: &str| Err(Error::state(format!("the feature spec of field '{}': {what}", column.name)));
            if self.columns[..i].iter().any(|c| c.name == column.name) {
                return wrong("it is there twice");
            }
            if SqlType::parse(&column.sql_type).is_err() {
                return wrong("its type is unknown");
            }
            if let Some(what) = column.encoding.fault() {
                return wrong(what);
            }
        }
        Ok(())
    }
}

impl Encoding {
    /// Numbers that it becomes.
    pub fn width(&self) -> usize {
        match self {
            Self::Number { .. } | Self::Boolean { .. } => 1,
            Self::Category { layout: Layout::OneHot { names, .. }, .. } => names.len(),
            Self::Category { layout: Layout::Ordinal { .. }, .. } => 1,
            Self::Time { parts, .. } => parts.iter().map(|p| if matches!(p.form, PartForm::Cyclic { .. }) { 2 } else { 1 }).sum(),
        }
    }

    /// Whether a null is encoded instead of refused.
    pub fn takes_null(&self) -> bool {
        match self {
            Self::Number { absent, .. } | Self::Boolean { absent, .. } | Self::Time { absent, .. } => *absent != Absent::Refuse,
            Self::Category { absent, .. } => absent.is_some(),
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let bad_scale = |s: &Scale| !(s.shift.is_finite() && s.divisor.is_finite() && s.divisor != 0.0 && s.weight.is_finite());
        let bad_absent = |a: &Absent| matches!(a, Absent::Fill(x) if !x.is_finite());
        match self {
            Self::Number { absent, scale, .. } | Self::Boolean { absent, scale } => {
                (bad_scale(scale) || bad_absent(absent)).then_some("its scale or its imputed value is not a finite number")
            }
            Self::Category { values, absent, unknown, layout, .. } => {
                let slots = match layout {
                    Layout::OneHot { names, .. } => names.len() as u32,
                    Layout::Ordinal { slots, .. } => *slots,
                };
                let (sorted, needed) = match values {
                    Values::Text(v) => (v.is_sorted(), v.len() as u32),
                    Values::Integer(v) => (v.is_sorted(), v.len() as u32),
                    Values::HashedText(n) | Values::HashedInteger(n) => (*n > 0, *n),
                };
                let outside = |p: &Option<Place>| matches!(p, Some(Place::Slot(s)) if *s >= slots);
                let bad = matches!(layout, Layout::OneHot { weight, .. } if !weight.is_finite())
                    || matches!(layout, Layout::Ordinal { scale: Some(scale), .. } if bad_scale(scale));
                (!sorted || needed > slots || outside(absent) || outside(unknown) || bad).then_some("its categories do not fit its places")
            }
            Self::Time { parts, .. } => {
                let bad = parts.iter().any(|p| match p.form {
                    PartForm::Cyclic { weight } => !weight.is_finite(),
                    PartForm::Plain { fill, scale } => !fill.is_finite() || bad_scale(&scale),
                });
                (bad || parts.is_empty()).then_some("its parts are wrong")
            }
        }
    }
}
