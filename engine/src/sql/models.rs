//! Models as the planner sees them: what each takes and gives.
//!
//! A model is known from a CREATE MODEL before this place (by its query and its options: it is not trained yet), or
//! from the registry. What must hold: ML_PREDICT binds columns by name, in any order; what does not fit is refused
//! here with its place, and again by the model itself when the job starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{Column, DFSchema};

use super::ast::{CreateModel, Name};
use super::errors::unknown_column;
use super::parser::model::{PredictCall, Selected};
use crate::error::{Error, Result, Span, nearest};
use crate::models::features::Mismatch;
use crate::models::registry::{Registry, Selector, Served};
use crate::models::task::{Algorithm, Task};
use crate::stream::SqlType;

/// The models that a query can name.
#[derive(Debug, Clone, Default)]
pub struct Models {
    registry: Option<Registry>,
    declared: BTreeMap<String, Arc<Shape>>,
}

/// What a model takes and gives.
#[derive(Debug)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// The columns that it takes, in its order.
    pub inputs: Vec<FieldRef>,
    /// The columns that it gives; all may be NULL. None: it only labels the rows that it was trained on.
    pub outputs: Vec<FieldRef>,
    /// The published model, where it is one.
    served: Option<Arc<Served>>,
}

/// When a model is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Once, where CREATE MODEL stands.
    Once,
    /// Again with each batch that a table commits.
    Cumulative,
}

impl Models {
    /// The models of a registry, and those that are declared from now on.
    pub fn new(registry: Registry) -> Self {
        Self { registry: Some(registry), declared: BTreeMap::new() }
    }

    /// The query that follows may name this model.
    pub fn declare(&mut self, shape: Shape) {
        self.declared.insert(shape.name.clone(), Arc::new(shape));
    }

    /// Names of all models, in order.
    ///
    /// # Errors
    /// External: the registry cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self.declared.keys().cloned().collect();
        if let Some(registry) = &self.registry {
            names.extend(registry.names()?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Whether the registry has a version of the model.
    ///
    /// # Errors
    /// User: no model can have that name. External: the registry cannot be read.
    pub fn is_published(&self, name: &Name) -> Result<bool> {
        let versions = self.registry.as_ref().map_or(Ok(vec![]), |r| r.versions(&name.value)).map_err(|e| e.at(name.span))?;
        Ok(!versions.is_empty())
    }

    /// The model of this name.
    ///
    /// # Errors
    /// User: there is none, or not in this version. State: its version is broken.
    pub fn get(&self, name: &Name, selector: &Selector, selector_span: Option<Span>) -> Result<Arc<Shape>> {
        if let (Selector::Champion, Some(shape)) = (selector, self.declared.get(&name.value)) {
            if shape.outputs.is_empty() {
                let e = Error::user(format!("'{}' is of the algorithm dbscan, which leaves nothing to predict with", name.value));
                return Err(e.at(name.span).help("take 'algorithm' = 'kmeans'"));
            }
            return Ok(Arc::clone(shape));
        }
        let unknown = || Error::user(format!("model '{}' not found", name.value)).help("train it with CREATE MODEL … AS SELECT … before");
        let span = selector_span.unwrap_or(name.span);
        let served = match &self.registry {
            Some(registry) => registry.load(&name.value, selector),
            None => Err(unknown()),
        };
        let served = served.map_err(|e| {
            let others = self.declared.keys().map(String::as_str).filter(|n| *n != name.value);
            let meant = nearest(&name.value, others);
            match meant {
                Some(near) if !self.is_published(name).unwrap_or(false) => unknown().help(format!("did you mean '{near}'?")).at(name.span),
                _ => e.at(span),
            }
        })?;
        Ok(Arc::new(Shape {
            name: name.value.clone(),
            inputs: served.model.inputs().fields().iter().cloned().collect(),
            outputs: served.model.outputs().fields().iter().cloned().collect(),
            served: Some(served),
        }))
    }
}

/// Which version the call asks for.
pub fn selector(call: &PredictCall) -> (Selector, Option<Span>) {
    match &call.version {
        None => (Selector::Champion, None),
        Some((Selected::Version(version), span)) => (Selector::Version(*version), Some(*span)),
        Some((Selected::Alias(alias), span)) => (Selector::parse(alias).unwrap_or(Selector::Alias(alias.clone())), Some(*span)),
    }
}

impl Shape {
    /// The model that `create` will train on rows of `fields`, and when.
    ///
    /// # Errors
    /// User: an option that says what is learnt is missing or names nothing, with its place.
    pub fn of(create: &CreateModel, fields: &[FieldRef]) -> Result<(Self, Mode)> {
        let name = &create.name;
        crate::models::registry::check_name(&name.value).map_err(|e| e.at(name.span))?;
        let given = |key: &str| create.options.iter().find(|(k, _)| k.value == key).map(|(_, v)| v);
        let required = |key: &str, example: &str| {
            given(key).ok_or_else(|| {
                let e = Error::user(format!("CREATE MODEL needs the option '{key}'"));
                match create.options.iter().find(|(k, _)| nearest(&k.value, [key]).is_some()) {
                    Some((typo, _)) => e.at(typo.span).help(format!("it has '{}': did you mean '{key}'?", typo.value)),
                    None => e.at(name.span).help(format!("add {example} to its WITH clause")),
                }
            })
        };
        let task = required("task", "'task' = 'classification', 'regression' or 'clustering'")?;
        let task = Task::parse(&task.value).map_err(|e| e.at(task.span))?;
        let algorithm = required("algorithm", "'algorithm' = '…', such as 'gbdt' or 'kmeans',")?;
        let algorithm = Algorithm::parse(&algorithm.value, task).map_err(|e| e.at(algorithm.span))?;
        let label = match (task, given("label")) {
            (Task::Clustering, None) => None,
            (Task::Clustering, Some(label)) => {
                let e = Error::user("a clustering has no label").at(label.span);
                return Err(e.help("leave the option 'label' out"));
            }
            (_, None) => Some(required("label", "'label' = 'the column to predict'")?),
            (_, label) => label,
        };
        let label = label.map(|label| column(label, fields, "the label")).transpose()?;
        let mode = match given("training.mode") {
            None => Mode::Once,
            Some(v) if v.value.eq_ignore_ascii_case("once") => Mode::Once,
            Some(v) if v.value.eq_ignore_ascii_case("cumulative") => Mode::Cumulative,
            Some(v) => {
                let e = Error::user(format!("'training.mode' is '{}', but must be 'once' or 'cumulative'", v.value)).at(v.span);
                return Err(match nearest(&v.value, ["once", "cumulative"]) {
                    Some(near) => e.help(format!("did you mean '{near}'?")),
                    None => e,
                });
            }
        };
        let skipped = |field: &FieldRef| {
            let of_no_feature = |key: &str| given(key).is_some_and(|v| v.value == *field.name());
            let skip = given(&format!("features.{}", field.name())).is_some_and(|v| v.value.eq_ignore_ascii_case("skip"));
            skip || OF_NO_FEATURE.iter().any(|key| of_no_feature(key))
        };
        let inputs: Vec<FieldRef> = fields.iter().filter(|f| label.is_none_or(|l| l.name() != f.name()) && !skipped(f)).cloned().collect();
        if inputs.is_empty() {
            return Err(Error::user(format!("the query of '{}' gives nothing to learn from", name.value))
                .at(name.span)
                .help("select at least one column beside the label"));
        }
        let outputs = if algorithm == Algorithm::Dbscan { vec![] } else { outputs(task, label) };
        Ok((Self { name: name.value.clone(), inputs, outputs, served: None }, mode))
    }

    /// For each of the model's inputs its name and the column of `given` that has its values, in the model's order.
    ///
    /// # Errors
    /// User: a column that is not there, not the model's, missing, or of a wrong type, with its place.
    pub fn arguments(&self, call: &PredictCall, given: &DFSchema) -> Result<Vec<(String, usize)>> {
        let mut found: Vec<(&Name, usize)> = Vec::with_capacity(call.columns.len());
        for name in &call.columns {
            found.push((name, find(name, given)?));
            if !self.inputs.iter().any(|f| *f.name() == name.value) {
                let e = Error::user(format!("the model '{}' takes no '{}'", self.name, name.value)).at(name.span);
                let missing = self.inputs.iter().map(|f| f.name().as_str()).filter(|n| call.columns.iter().all(|c| c.value != *n));
                return Err(match nearest(&name.value, missing) {
                    Some(near) => {
                        e.help(format!("it takes '{near}': names must match; write {} AS {near} in a query or view below", name.value))
                    }
                    None => e.help(format!("it takes ({}), by name", self.takes())),
                });
            }
        }
        let mut arguments = Vec::with_capacity(self.inputs.len());
        for wanted in &self.inputs {
            let Some((name, column)) = found.iter().find(|(name, _)| name.value == *wanted.name()) else {
                let e = Error::user(format!("the model '{}' needs '{}' ({})", self.name, wanted.name(), SqlType::of(wanted)));
                return Err(e.at(call.columns_span).help(format!("name it in DESCRIPTOR: the model takes ({})", self.takes())));
            };
            let have = given.field(*column);
            if *have.data_type() != DataType::Null && family(&SqlType::of(have)) != family(&SqlType::of(wanted)) {
                return Err(self.wrong_type(name, &SqlType::of(have).to_string(), &SqlType::of(wanted).to_string()));
            }
            arguments.push((wanted.name().clone(), *column));
        }
        if let Some(served) = &self.served {
            let fields: Vec<FieldRef> = arguments.iter().map(|(_, column)| Arc::clone(&given.fields()[*column])).collect();
            if let Err(mismatch) = served.model.bind(&Schema::new(fields)) {
                let name = call.columns.iter().find(|c| c.value == mismatch.field());
                return Err(match (mismatch, name) {
                    (Mismatch::WrongType { given, wanted, .. }, Some(name)) => self.wrong_type(name, &given, &wanted),
                    (other, _) => Error::from(other).context(format_args!("the model '{}'", self.name)).at(call.columns_span),
                });
            }
        }
        Ok(arguments)
    }

    fn wrong_type(&self, name: &Name, have: &str, wanted: &str) -> Error {
        let e = Error::user(format!("the model '{}' takes '{}' as {wanted}, but here it is {have}", self.name, name.value)).at(name.span);
        e.help(format!("write CAST({} AS {wanted}) AS {} in a query or view below", name.value, name.value))
    }

    /// Such as `size DOUBLE, district STRING`.
    fn takes(&self) -> String {
        self.inputs.iter().map(|f| format!("{} {}", f.name(), SqlType::of(f))).collect::<Vec<_>>().join(", ")
    }
}

/// Options that name a column which is no feature.
const OF_NO_FEATURE: &[&str] = &["weight"];

/// What a model of this task gives, as [`crate::models::model::Model::outputs`] has it.
fn outputs(task: Task, label: Option<&FieldRef>) -> Vec<FieldRef> {
    let fields = match (task, label) {
        (Task::Clustering, _) => vec![SqlType::Int.field("cluster", true), SqlType::Double.field("distance", true)],
        (Task::Classification, Some(label)) => {
            let map = SqlType::Map(Box::new(SqlType::STRING), Box::new(SqlType::Double), true);
            vec![SqlType::of(label).field("prediction", true), map.field("probabilities", true)]
        }
        _ => vec![SqlType::Double.field("prediction", true)],
    };
    fields.into_iter().map(Arc::new).collect()
}

/// The column that an option names.
fn column<'a>(name: &Name, fields: &'a [FieldRef], what: &str) -> Result<&'a FieldRef> {
    fields.iter().find(|f| *f.name() == name.value).ok_or_else(|| {
        let e = Error::user(format!("{what} '{}' is no column of the query", name.value)).at(name.span);
        match nearest(&name.value, fields.iter().map(|f| f.name().as_str())) {
            Some(near) => e.help(format!("did you mean '{near}'?")),
            None => e.help(format!("it gives {}", fields.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", "))),
        }
    })
}

fn find(name: &Name, schema: &DFSchema) -> Result<usize> {
    let mut found = schema.fields().iter().enumerate().filter(|(_, f)| *f.name() == name.value).map(|(i, _)| i);
    match (found.next(), found.next()) {
        (Some(column), None) => Ok(column),
        (None, _) => Err(unknown_column(&Column::new_unqualified(&name.value), &schema.columns()).at(name.span)),
        (Some(_), Some(_)) => Err(Error::user(format!("column '{}' is ambiguous", name.value)).at(name.span)),
    }
}

/// Types that a model takes for each other.
fn family(t: &SqlType) -> u8 {
    match t {
        t if t.is_numeric() => 0,
        t if t.is_text() => 1,
        SqlType::Boolean => 2,
        SqlType::Date => 3,
        SqlType::Time(_) => 4,
        SqlType::Timestamp(_) => 5,
        SqlType::TimestampLtz(_) => 6,
        SqlType::Binary(_) | SqlType::VarBinary(_) => 7,
        _ => 8,
    }
}
