//! What a user says about features in `CREATE MODEL … WITH (…)`.
//!
//! | option | values |
//! |---|---|
//! | `features.<column>` | `numeric`, `categorical`, `time`, `boolean`, `skip`; else by its type |
//! | `features.<column>.missing` | values that mean "missing", commas between: `-1`, `NaN`, `?` |
//! | `features.<column>.impute` | numbers: `mean`, `median`; categories: `mode`; booleans: `mode`; all: `constant`, `missing` (NaN for a tree, a category of its own), `none` (a null is refused) |
//! | `features.<column>.fill` | the value of `constant` |
//! | `features.<column>.scale`, `scale` | `standard`, `minmax`, `none` |
//! | `features.<column>.encoding` | categories: `onehot`, `ordinal`, `hash` |
//! | `features.<column>.buckets` | places of a hash, 32 unless said |
//! | `features.<column>.max_categories`, `max_categories` | categories at most; rarer ones share a place |
//! | `features.<column>.unknown`, `unknown` | `error`, `ignore`, `other` |
//! | `features.<column>.parts` | of a time: `hour`, `weekday`, `day`, `month`, `year`, `epoch`, commas between |
//! | `features.<column>.cyclic` | whether hour, weekday and month become sine and cosine |
//! | `features.<column>.weight` | what the column counts for, 1 unless said |

use arrow::datatypes::{DataType, Field, Schema};

use super::time::{PARTS, Part};
use crate::config::Options;
use crate::error::{Error, Result, nearest};
use crate::stream::types::SqlType;

/// What is to become of one column.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub name: String,
    pub sql_type: SqlType,
    pub kind: Kind,
    pub missing: Vec<String>,
    pub impute: Option<Impute>,
    pub fill: Option<String>,
    pub scale: Scaling,
    pub encoding: Option<CategoryEncoding>,
    pub buckets: u32,
    pub categories_max: Option<usize>,
    pub unknown: Option<Unknown>,
    pub parts: Option<Vec<Part>>,
    pub cyclic: Option<bool>,
    pub weight: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Numeric,
    Text,
    Integer,
    Time,
    Boolean,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Impute {
    Mean,
    Median,
    Mode,
    Constant,
    Missing,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scaling {
    Standard,
    MinMax,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CategoryEncoding {
    OneHot,
    Ordinal,
    Hash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    Error,
    Ignore,
    Other,
}

const SCALES: [(&str, Scaling); 3] = [("standard", Scaling::Standard), ("minmax", Scaling::MinMax), ("none", Scaling::None)];
const UNKNOWNS: [(&str, Option<Unknown>); 3] =
    [("error", Some(Unknown::Error)), ("ignore", Some(Unknown::Ignore)), ("other", Some(Unknown::Other))];
const ENCODINGS: [(&str, Option<CategoryEncoding>); 3] =
    [("onehot", Some(CategoryEncoding::OneHot)), ("ordinal", Some(CategoryEncoding::Ordinal)), ("hash", Some(CategoryEncoding::Hash))];

/// A plan for each column of `schema` but those of `excluded` (label, weight) and those to skip.
pub(super) fn plans(schema: &Schema, excluded: &[&str], options: &mut Options) -> Result<Vec<Plan>> {
    let scale = options.choice("scale", &SCALES, Scaling::Standard)?;
    let unknown = options.choice("unknown", &UNKNOWNS, None)?;
    let categories_max = at_least_one("max_categories", options)?;
    let mut plans = Vec::new();
    for field in schema.fields() {
        if excluded.contains(&field.name().as_str()) {
            continue;
        }
        if let Some(plan) = plan(field, scale, unknown, categories_max, options)? {
            plans.push(plan);
        }
    }
    if plans.is_empty() {
        let e = Error::user(format!("{} has no features", options.owner()));
        return Err(e.help("select at least one column beside the label"));
    }
    Ok(plans)
}

fn plan(
    field: &Field,
    scale: Scaling,
    unknown: Option<Unknown>,
    categories_max: Option<usize>,
    options: &mut Options,
) -> Result<Option<Plan>> {
    let name = field.name();
    let key = |option: &str| format!("features.{name}.{option}");
    let Some(kind) = kind(field, options)? else {
        // What is said about a skipped column is known, but of no use.
        options.with_prefix(&format!("features.{name}."));
        return Ok(None);
    };
    let mut plan = Plan {
        name: name.clone(),
        sql_type: SqlType::of(field),
        kind,
        missing: Vec::new(),
        impute: None,
        fill: options.text(&key("fill")),
        scale,
        encoding: None,
        buckets: 32,
        categories_max,
        unknown,
        parts: None,
        cyclic: None,
        weight: options.number(&key("weight"))?.unwrap_or(1.0),
    };
    if !plan.weight.is_finite() || plan.weight <= 0.0 {
        return Err(options.bad(&key("weight"), &plan.weight.to_string(), "a positive number"));
    }
    let imputes: &[(&str, Option<Impute>)] = match kind {
        Kind::Numeric => &[("mean", Some(Impute::Mean)), ("median", Some(Impute::Median)), ("constant", Some(Impute::Constant))],
        Kind::Time => &[("mean", Some(Impute::Mean))],
        Kind::Text | Kind::Integer | Kind::Boolean => &[("mode", Some(Impute::Mode)), ("constant", Some(Impute::Constant))],
    };
    let imputes: Vec<_> = imputes.iter().copied().chain([("missing", Some(Impute::Missing)), ("none", Some(Impute::None))]).collect();
    plan.impute = options.choice(&key("impute"), &imputes, None)?;
    if (plan.impute == Some(Impute::Constant)) != plan.fill.is_some() {
        let e = Error::user(format!("{}: '{}' and '{}' = 'constant' go together", options.owner(), key("fill"), key("impute")));
        return Err(e.help("write both or neither"));
    }
    if matches!(kind, Kind::Numeric | Kind::Time | Kind::Integer | Kind::Text) {
        plan.scale = options.choice(&key("scale"), &SCALES, scale)?;
    }
    if matches!(kind, Kind::Numeric | Kind::Integer | Kind::Text) {
        plan.missing = options.text(&key("missing")).map(|text| list(&text)).unwrap_or_default();
    }
    match kind {
        Kind::Text | Kind::Integer => {
            plan.encoding = options.choice(&key("encoding"), &ENCODINGS, None)?;
            plan.unknown = options.choice(&key("unknown"), &UNKNOWNS, unknown)?;
            plan.buckets = at_least_one(&key("buckets"), options)?.map_or(32, |n| n.min(1 << 20) as u32);
            plan.categories_max = at_least_one(&key("max_categories"), options)?.or(categories_max);
        }
        Kind::Time => {
            plan.parts = options.text(&key("parts")).map(|text| parts(&key("parts"), &text, options)).transpose()?;
            plan.cyclic = options.choice(&key("cyclic"), &[("true", Some(true)), ("false", Some(false))], None)?;
        }
        Kind::Numeric | Kind::Boolean => {}
    }
    Ok(Some(plan))
}

/// What a column is taken for; `None` is skipped.
fn kind(field: &Field, options: &mut Options) -> Result<Option<Kind>> {
    #[derive(Clone, Copy)]
    enum Said {
        Numeric,
        Categorical,
        Time,
        Boolean,
        Skip,
    }
    let names = [
        ("numeric", Some(Said::Numeric)),
        ("categorical", Some(Said::Categorical)),
        ("time", Some(Said::Time)),
        ("boolean", Some(Said::Boolean)),
        ("skip", Some(Said::Skip)),
    ];
    let key = format!("features.{}", field.name());
    let said = options.choice(&key, &names, None)?;
    let sql_type = SqlType::of(field);
    let family = match &sql_type {
        SqlType::Boolean => Some(Kind::Boolean),
        SqlType::Date | SqlType::Time(_) | SqlType::Timestamp(_) | SqlType::TimestampLtz(_) => Some(Kind::Time),
        t if t.is_numeric() => Some(Kind::Numeric),
        // Whatever Flink has no name for is STRING to `SqlType`.
        t if t.is_text() && super::bind::is_text(field.data_type()) => Some(Kind::Text),
        _ => None,
    };
    let integer = matches!(sql_type, SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt);
    match (said, family) {
        (Some(Said::Skip), _) => Ok(None),
        (None, Some(kind)) => Ok(Some(kind)),
        (Some(Said::Numeric), Some(Kind::Numeric)) => Ok(Some(Kind::Numeric)),
        (Some(Said::Categorical), Some(Kind::Text)) => Ok(Some(Kind::Text)),
        (Some(Said::Categorical), Some(Kind::Numeric)) if integer => Ok(Some(Kind::Integer)),
        (Some(Said::Time), Some(Kind::Time)) => Ok(Some(Kind::Time)),
        (Some(Said::Boolean), Some(Kind::Boolean)) => Ok(Some(Kind::Boolean)),
        (None, None) => {
            Err(Error::user(format!("{}: field '{}' of type {} cannot be a feature", options.owner(), field.name(), shown(field)))
                .help(format!("select parts of it, CAST it, or write '{key}' = 'skip'")))
        }
        (Some(_), _) => {
            let said = options.text(&key).unwrap_or_default();
            let e = Error::user(format!("{}: field '{}' of type {} cannot be {said}", options.owner(), field.name(), shown(field)));
            Err(e.help("CAST it in the query"))
        }
    }
}

fn shown(field: &Field) -> String {
    match field.data_type() {
        DataType::Null => "NULL".into(),
        _ => SqlType::of(field).to_string(),
    }
}

fn at_least_one(key: &str, options: &mut Options) -> Result<Option<usize>> {
    match options.number::<usize>(key)? {
        Some(0) => Err(options.bad(key, "0", "at least 1")),
        n => Ok(n),
    }
}

fn parts(key: &str, text: &str, options: &Options) -> Result<Vec<Part>> {
    let mut found = Vec::new();
    for name in list(text) {
        let part = PARTS.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)).map(|(_, part)| *part);
        let names = PARTS.map(|(name, _)| name);
        let Some(part) = part else {
            let e = options.bad(key, text, &format!("some of {}", names.join(", ")));
            return Err(match nearest(&name, names) {
                Some(near) => e.help(format!("did you mean '{near}'?")),
                None => e,
            });
        };
        if !found.contains(&part) {
            found.push(part);
        }
    }
    if found.is_empty() { Err(options.bad(key, text, "some parts")) } else { Ok(found) }
}

/// Entries between commas.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(|entry| entry.trim().to_string()).filter(|entry| !entry.is_empty()).collect()
}
