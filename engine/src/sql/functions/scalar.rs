//! One shape for every scalar function: a row of a table that says its names, what it takes, what it
//! returns and how a batch is computed.
//!
//! DataFusion sees each row as a `ScalarUDF`. Type errors are ours (they name the function, the argument
//! and what to write); values are computed over whole columns; a call whose arguments are all constants is
//! computed once, on one row. What must hold: the return type depends on the argument types and on
//! literals that the strict pass leaves bare, never on values, so constant folding cannot change a schema.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::columns::Batch;
use super::session::Session;
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// Rewrites the arguments of a call, or leaves the call as it is.
type Simplify = fn(&[Expr], &SimplifyContext) -> DfResult<Option<Expr>>;

/// A scalar function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Definition {
    /// Names, the first being the one of messages.
    pub names: &'static [&'static str],
    /// What it takes, one letter an argument: `t` text, `i` integer, `n` number, `b` boolean, `d` date or
    /// timestamp, `y` bytes, `a` anything; `?` after a letter: optional; `*`: any number of them.
    pub takes: &'static str,
    /// The type of the result.
    pub returns: fn(&Site) -> Result<SqlType>,
    /// The values of a batch.
    pub eval: fn(&Batch) -> Result<ArrayRef>,
    /// Whether each row may get another value (UUID, CURRENT_TIMESTAMP).
    pub volatile: bool,
    /// Rewrites a call into an expression that the optimizer knows better.
    pub simplify: Option<Simplify>,
}

/// A function whose result depends on its arguments alone.
pub(super) const fn function(
    names: &'static [&'static str],
    takes: &'static str,
    returns: fn(&Site) -> Result<SqlType>,
    eval: fn(&Batch) -> Result<ArrayRef>,
) -> Definition {
    Definition { names, takes, returns, eval, volatile: false, simplify: None }
}

/// A call, as planning sees it.
pub(super) struct Site<'a> {
    /// The function's name.
    pub name: &'static str,
    /// The arguments' fields.
    pub fields: &'a [FieldRef],
    /// The arguments that are literals.
    pub literals: &'a [Option<&'a ScalarValue>],
}

impl Site<'_> {
    /// Number of arguments.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether argument `i` is a bare NULL, of no type.
    pub fn is_null(&self, i: usize) -> bool {
        *self.fields[i].data_type() == DataType::Null
    }

    /// The type of argument `i`; STRING for a bare NULL.
    pub fn sql(&self, i: usize) -> SqlType {
        SqlType::of(&self.fields[i])
    }

    /// The text of argument `i`, where it is a literal.
    pub fn text_literal(&self, i: usize) -> Option<&str> {
        match self.literals.get(i).copied().flatten()? {
            ScalarValue::Utf8(Some(s)) | ScalarValue::LargeUtf8(Some(s)) | ScalarValue::Utf8View(Some(s)) => Some(s),
            _ => None,
        }
    }

    /// The value of argument `i`, where it is an integer literal.
    pub fn int_literal(&self, i: usize) -> Option<i64> {
        match self.literals.get(i).copied().flatten()? {
            ScalarValue::Int64(n) => *n,
            ScalarValue::Int32(n) => n.map(i64::from),
            _ => None,
        }
    }

    fn check(&self, takes: &str) -> Result<()> {
        let name = self.name.trim_start_matches('$').to_uppercase();
        let kinds: Vec<char> = takes.chars().filter(|c| c.is_ascii_alphabetic()).collect();
        let optional = takes.matches('?').count();
        let variadic = takes.ends_with('*');
        let least = kinds.len() - optional - variadic as usize;
        if self.len() < least || (!variadic && self.len() > kinds.len()) {
            let most = if variadic {
                " or more".to_string()
            } else if optional > 0 {
                format!(" to {}", kinds.len())
            } else {
                String::new()
            };
            let plural = if least == 1 && most.is_empty() { "" } else { "s" };
            return Err(Error::user(format!("{name} takes {least}{most} argument{plural}, found {}", self.len())));
        }
        for i in 0..self.len() {
            let kind = *kinds.get(i).or(kinds.last()).unwrap_or(&'a');
            if self.is_null(i) {
                continue;
            }
            let t = self.sql(i);
            let (fits, wanted, instead) = match kind {
                't' => (t.is_text(), "text", "CAST(x AS STRING)"),
                'i' => (is_integer(&t), "an integer", "CAST(x AS INT)"),
                'n' => (t.is_numeric(), "a number", "CAST(x AS DOUBLE)"),
                'b' => (t == SqlType::Boolean, "a boolean", "CAST(x AS BOOLEAN)"),
                'd' => (is_time(&t), "a date or timestamp", "CAST(x AS TIMESTAMP(3))"),
                'y' => (matches!(t, SqlType::Binary(_) | SqlType::VarBinary(_)) || t.is_text(), "bytes", "CAST(x AS BYTES)"),
                _ => continue,
            };
            if !fits {
                return Err(
                    Error::user(format!("argument {} of {name} must be {wanted}, found {t}", i + 1)).help(format!("convert it: {instead}"))
                );
            }
        }
        Ok(())
    }
}

/// Whether `t` is TINYINT, SMALLINT, INT or BIGINT.
pub(super) fn is_integer(t: &SqlType) -> bool {
    matches!(t, SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt)
}

/// Whether `t` is a date, a time or a timestamp.
pub(super) fn is_time(t: &SqlType) -> bool {
    matches!(t, SqlType::Date | SqlType::Time(_) | SqlType::Timestamp(_) | SqlType::TimestampLtz(_))
}

/// A [`Definition`] as DataFusion sees it.
#[derive(Debug)]
pub(super) struct Scalar {
    definition: Definition,
    name: String,
    aliases: Vec<String>,
    signature: Signature,
    session: Arc<Session>,
}

impl Scalar {
    pub fn new(definition: Definition, session: Arc<Session>) -> Self {
        // Volatile keeps the optimizer from folding or sharing a call.
        let volatility = if definition.volatile { Volatility::Volatile } else { Volatility::Immutable };
        let mut names = definition.names.iter().map(|n| n.to_lowercase());
        Self {
            definition,
            name: names.next().expect("every definition has a name"),
            aliases: names.collect(),
            signature: Signature::new(TypeSignature::UserDefined, volatility),
            session,
        }
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.session.zone == other.session.zone
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Scalar {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    // Arguments arrive as they are: each function reads its columns in the type it needs, and refuses the
    // rest in `return_field_from_args`, where the message stays ours.
    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Err(Error::internal(format!("{} was asked for its type without its arguments", self.definition.names[0])).into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let site = Site { name: self.definition.names[0], fields: args.arg_fields, literals: args.scalar_arguments };
        site.check(self.definition.takes)?;
        let sql = (self.definition.returns)(&site)?;
        let arrow = sql.arrow();
        // What the Arrow type says by itself needs no metadata; plans stay readable.
        let said = SqlType::of_arrow(&arrow) == sql;
        Ok(Arc::new(if said { Field::new(&self.name, arrow, true) } else { sql.field(&self.name, true) }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = !self.definition.volatile && args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let batch = Batch::new(self.definition.names[0], args, rows, &self.session)?;
        let out = (self.definition.eval)(&batch)?;
        debug_assert_eq!(out.len(), rows, "{} answers every row", self.name);
        match constant {
            true => Ok(ColumnarValue::Scalar(match out.as_list_opt::<i32>() {
                // ScalarValue::try_from_array would drop the metadata of the elements' field.
                Some(list) => ScalarValue::List(Arc::new(list.clone())),
                None => ScalarValue::try_from_array(&out, 0)?,
            })),
            false => Ok(ColumnarValue::Array(out)),
        }
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        match self.definition.simplify {
            Some(simplify) => match simplify(&args, info)? {
                Some(expr) => Ok(ExprSimplifyResult::Simplified(expr)),
                None => Ok(ExprSimplifyResult::Original(args)),
            },
            None => Ok(ExprSimplifyResult::Original(args)),
        }
    }
}
