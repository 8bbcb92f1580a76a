//! Models in SQL: `CREATE MODEL … AS SELECT …`, which trains one, and `ML_PREDICT`, which scores rows with one.
//!
//! `ML_PREDICT(TABLE t, MODEL m, DESCRIPTOR(a, b))` is Flink's, with or without `TABLE( )` around it, with arguments by
//! place or by name (INPUT, MODEL, ARGS, CONFIG). `CREATE MODEL … AS` is ours: Flink trains nothing.

use datafusion::sql::sqlparser::ast::{Expr, Spanned, TableAlias, TableFactor, Value};

use super::arguments::{self, Signature, place};
use super::statements::{Statements, unqualified};
use super::tvf::WindowInput;
use super::{forms, lex};
use crate::error::{Error, Result, Span, nearest};
use crate::sql::ast::{CreateModel, Name};

const ML_PREDICT: Signature = Signature {
    name: "ML_PREDICT",
    parameters: &["INPUT", "MODEL", "ARGS", "CONFIG"],
    optional: &["CONFIG"],
    example: "ML_PREDICT(TABLE t, MODEL m, DESCRIPTOR(a, b))",
};

/// What Flink's CONFIG says about calls of a service. Nothing is called here.
const OF_CALLS: &[&str] = &["async", "max-concurrent-operations", "output-mode", "timeout"];

/// A call of ML_PREDICT.
#[derive(Debug, Clone)]
pub struct PredictCall {
    /// The rows.
    pub input: WindowInput,
    /// The model.
    pub model: Name,
    /// The columns of DESCRIPTOR.
    pub columns: Vec<Name>,
    /// Where DESCRIPTOR stands.
    pub columns_span: Span,
    /// `CONFIG => MAP['version', '3']`, `CONFIG => MAP['alias', 'trial']`: which version, with the place of its value.
    pub version: Option<(Selected, Span)>,
    /// `[AS] alias`.
    pub alias: Option<TableAlias>,
    /// Where the function's name stands.
    pub span: Span,
}

/// Which version CONFIG asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// This one, for ever.
    Version(u64),
    /// The one that an alias names.
    Alias(String),
}

/// The ML_PREDICT of a table factor; `None`: it is something else.
///
/// # Errors
/// User: arguments that do not fit the function.
pub fn predict_call(factor: &TableFactor) -> Result<Option<PredictCall>> {
    let Some((name, args, alias)) = arguments::call(factor) else { return Ok(None) };
    if arguments::name(name).is_none_or(|n| n != ML_PREDICT.name) {
        return Ok(None);
    }
    arguments::only_alias(factor, &ML_PREDICT)?;
    let at = lex::span(name.span());
    let values = arguments::by_parameter(&ML_PREDICT, args, at)?;
    let [Some(data), Some(model), Some(columns), config] = values[..] else {
        return Err(Error::internal("ML_PREDICT has three parameters at least").at(at));
    };
    let (input, partition) = arguments::input(&ML_PREDICT, data)?;
    if !partition.is_empty() {
        return Err(Error::user("ML_PREDICT has no PARTITION BY")
            .at(place(data.span(), at))
            .help("leave it out: each row is scored alone"));
    }
    let columns_span = place(columns.span(), at);
    let columns = match arguments::descriptor(columns) {
        Some(columns) => columns?,
        None => {
            let e = Error::user("ML_PREDICT needs the columns that the model takes").at(columns_span);
            return Err(e.help("write them as DESCRIPTOR(a, b)"));
        }
    };
    for (i, column) in columns.iter().enumerate() {
        if columns[..i].iter().any(|c| c.value == column.value) {
            return Err(Error::user(format!("'{}' stands twice in DESCRIPTOR", column.value)).at(column.span));
        }
    }
    let version = config.map(|c| version(c, at)).transpose()?.flatten();
    Ok(Some(PredictCall { input, model: model_name(model, at)?, columns, columns_span, version, alias: alias.clone(), span: at }))
}

fn model_name(e: &Expr, at: Span) -> Result<Name> {
    let own = place(e.span(), at);
    match e {
        Expr::Function(f) if arguments::is_form(f, forms::MODEL) => {
            let (parts, _) = arguments::named(f, own)?;
            unqualified(parts.iter().map(|i| Name { value: i.value.clone(), span: lex::span(i.span) }).collect())
        }
        Expr::Identifier(i) => {
            Err(Error::user(format!("'{}' needs the word MODEL before it", i.value)).at(own).help(format!("write MODEL {i}")))
        }
        other => Err(Error::user(format!("ML_PREDICT needs a model, not {other}")).at(own).help(format!("write {}", ML_PREDICT.example))),
    }
}

/// What `MAP['key', 'value', …]` says about the version.
fn version(e: &Expr, at: Span) -> Result<Option<(Selected, Span)>> {
    let own = place(e.span(), at);
    let form = || Error::user("CONFIG is no map of texts").at(own).help("write CONFIG => MAP['version', '3']");
    let Expr::Map(map) = e else { return Err(form()) };
    let text = |e: &Expr| match e {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) => Ok((s.clone(), place(v.span, own))),
            _ => Err(form()),
        },
        _ => Err(form()),
    };
    let mut found = None;
    for entry in &map.entries {
        let ((key, key_at), (value, value_at)) = (text(&entry.key)?, text(&entry.value)?);
        let selected =
            match key.as_str() {
                "version" => Selected::Version(value.parse().map_err(|_| {
                    Error::user(format!("CONFIG: 'version' is '{value}', but must be the number of a version")).at(value_at)
                })?),
                "alias" => Selected::Alias(value),
                own if OF_CALLS.contains(&own) => continue,
                other => {
                    let e = Error::user(format!("ML_PREDICT has no configuration '{other}'")).at(key_at);
                    return Err(match nearest(other, ["version", "alias"].into_iter().chain(OF_CALLS.iter().copied())) {
                        Some(n) => e.help(format!("did you mean '{n}'?")),
                        None => e.help("there are 'version' and 'alias'"),
                    });
                }
            };
        if found.replace((selected, value_at)).is_some() {
            return Err(Error::user("CONFIG names the version twice").at(key_at).help("give 'version' or 'alias', once"));
        }
    }
    Ok(found)
}

impl Statements<'_> {
    /// What follows `CREATE MODEL`.
    pub(super) fn create_model(&mut self) -> Result<CreateModel> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name()?;
        for clause in ["INPUT", "OUTPUT"] {
            if self.at(clause) {
                let e = Error::user(format!("{clause} of CREATE MODEL is not supported")).at(lex::span(self.peek().span));
                return Err(e.help("a model is made of its query: leave it out and write WITH (…) AS SELECT …"));
            }
        }
        let comment = self.comment()?;
        let with = lex::span(self.peek().span);
        if !self.accept("WITH") {
            return Err(self.expected_help("WITH", EXAMPLE));
        }
        let options = self.with_options()?;
        if self.at("COMMENT") {
            return Err(self.expected_help("AS and the query", "the order is fixed: COMMENT, WITH, AS"));
        }
        if self.ends() {
            let e = Error::user("CREATE MODEL without AS, for a model that another system serves, is not supported").at(with);
            return Err(e.help(EXAMPLE));
        }
        if !self.accept("AS") {
            return Err(self.expected_help("AS and the query", EXAMPLE));
        }
        let query = self.query()?;
        Ok(CreateModel { name, if_not_exists, comment, options, query })
    }
}

const EXAMPLE: &str = "CREATE MODEL m WITH ('task' = 'regression', 'algorithm' = 'gbdt', 'label' = 'y') AS SELECT a, b, y FROM t";
