//! Finding a model's columns in a schema: by name, with types of the same family.
//!
//! Serving is strict ([`FeatureSpec::bind`]: a field that the model does not know is an error); training picks its
//! features from among other columns ([`FeatureSpec::bind_among`]).

use std::fmt;

use arrow::datatypes::{DataType, Schema};

use super::{Column, Encoding, FeatureSpec, Values};
use crate::error::{Error, nearest};
use crate::stream::types::SqlType;

/// Where each column of a spec lies in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub(super) columns: Vec<usize>,
}

/// Why a schema does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// A field is not there.
    Missing {
        /// Its name.
        field: String,
        /// A given name that may be meant.
        near: Option<String>,
    },
    /// A field is there that the model does not know.
    Extra {
        /// Its name.
        field: String,
        /// A field of the model that may be meant.
        near: Option<String>,
    },
    /// A field has a type that cannot be taken.
    WrongType {
        /// Its name.
        field: String,
        /// The type that it has.
        given: String,
        /// The type that the model was trained on.
        wanted: String,
    },
}

impl Mismatch {
    /// The field that is to blame.
    pub fn field(&self) -> &str {
        match self {
            Self::Missing { field, .. } | Self::Extra { field, .. } | Self::WrongType { field, .. } => field,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meant = |f: &mut fmt::Formatter<'_>, near: &Option<String>, what: &str| match near {
            Some(near) => write!(f, "; {what} '{near}'"),
            None => Ok(()),
        };
        match self {
            Self::Missing { field, near } => {
                write!(f, "field '{field}' is missing")?;
                meant(f, near, "there is")
            }
            Self::Extra { field, near } => {
                write!(f, "the model has no field '{field}'")?;
                meant(f, near, "it has")
            }
            Self::WrongType { field, given, wanted } => write!(f, "field '{field}' is {given}, but the model was trained on {wanted}"),
        }
    }
}

impl std::error::Error for Mismatch {}

impl From<Mismatch> for Error {
    fn from(e: Mismatch) -> Self {
        Self::user(e.to_string())
    }
}

impl FeatureSpec {
    /// Finds every column, and refuses fields that are none.
    ///
    /// # Errors
    /// The first field that is missing, of a wrong type, or not the model's.
    pub fn bind(&self, schema: &Schema) -> Result<Binding, Mismatch> {
        let binding = self.bind_among(schema)?;
        if schema.fields().len() > self.columns.len() {
            let known = |name: &str| self.columns.iter().any(|c| c.name == name);
            if let Some(extra) = schema.fields().iter().find(|f| !known(f.name())) {
                let near = nearest(extra.name(), self.columns.iter().map(|c| c.name.as_str()));
                return Err(Mismatch::Extra { field: extra.name().clone(), near: near.map(str::to_string) });
            }
        }
        Ok(binding)
    }

    /// Finds every column among others.
    ///
    /// # Errors
    /// The first field that is missing or of a wrong type.
    pub fn bind_among(&self, schema: &Schema) -> Result<Binding, Mismatch> {
        let fields = schema.fields();
        let mut columns = Vec::with_capacity(self.columns.len());
        for (i, column) in self.columns.iter().enumerate() {
            // Most callers give the fields in the model's order.
            let here = fields.get(i).is_some_and(|f| *f.name() == column.name);
            let found = if here { Some(i) } else { fields.iter().position(|f| *f.name() == column.name) };
            let Some(at) = found else {
                let unused = fields.iter().map(|f| f.name().as_str()).filter(|n| !self.columns.iter().any(|c| c.name == *n));
                return Err(Mismatch::Missing { field: column.name.clone(), near: nearest(&column.name, unused).map(str::to_string) });
            };
            if !column.takes(fields[at].data_type()) {
                let given = match fields[at].data_type() {
                    t @ (DataType::Dictionary(..) | DataType::Decimal256(..)) => t.to_string(),
                    _ => SqlType::of(&fields[at]).to_string(),
                };
                return Err(Mismatch::WrongType { field: column.name.clone(), given, wanted: column.sql_type.clone() });
            }
            columns.push(at);
        }
        Ok(Binding { columns })
    }
}

impl Column {
    fn takes(&self, given: &DataType) -> bool {
        if *given == DataType::Null {
            return true;
        }
        match &self.encoding {
            Encoding::Number { .. } => given.is_numeric(),
            Encoding::Boolean { .. } => *given == DataType::Boolean,
            Encoding::Category { values: Values::Text(_) | Values::HashedText(_), .. } => is_text(given),
            Encoding::Category { .. } => given.is_integer(),
            Encoding::Time { .. } => match given {
                DataType::Date32 | DataType::Date64 => self.sql_type == "DATE",
                DataType::Time32(_) | DataType::Time64(_) => self.sql_type.starts_with("TIME("),
                DataType::Timestamp(_, None) => self.sql_type.starts_with("TIMESTAMP("),
                DataType::Timestamp(_, Some(_)) => self.sql_type.starts_with("TIMESTAMP_LTZ("),
                _ => false,
            },
        }
    }
}

/// Whether values of this type are text.
pub(super) fn is_text(t: &DataType) -> bool {
    match t {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}
