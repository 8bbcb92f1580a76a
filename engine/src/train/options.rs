//! What `CREATE MODEL … WITH (…)` says, checked against the columns of its query before a row is read.
//!
//! | option | values |
//! |---|---|
//! | `task` | `classification`, `regression`, `clustering` |
//! | `algorithm` | see [`Algorithm`] |
//! | `label` | the column that is predicted (not for clustering) |
//! | `weight` | a column of positive numbers: what each row counts for |
//! | `seed` | decides every random choice; 1 unless said |
//! | `threads` | threads at most, the cores unless said; the model does not depend on it |
//! | `memory` | bytes of rows kept in memory, 1 gb unless said; the rest goes to a temporary file |
//! | `holdout`, `holdout.by`, `holdout.column` | see [`HoldOut`] |
//! | `training.mode` | `once`, `cumulative` |
//! | `publish.gate` | such as `macro_f1 >= champion - 0.01` |
//! | `labels.path` | `dbscan` only: the folder that its labels are written to |
//!
//! The options of features (`features.<column>…`), of the label (`class_weight`) and of the algorithm are read where they
//! are used. Every option that nobody knows is refused with the nearest name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::datatypes::{Field, Schema};

use super::holdout::HoldOut;
use crate::config::Options;
use crate::error::{Error, Result, nearest};
use crate::models::features::Observer;
use crate::models::fit::Recipe;
use crate::models::label::LabelObserver;
use crate::models::measures;
use crate::models::registry::{Gate, check_name};
use crate::models::task::{Algorithm, Task};
use crate::sql::{TrainStep, TrainingMode};
use crate::stream::types::SqlType;

const MEMORY_BYTES: u64 = 1 << 30;
/// The part of the rows that a model is measured on, where it has a label.
const HOLDOUT: f64 = 0.2;

/// A `CREATE MODEL` that can be trained.
#[derive(Debug, Clone)]
pub struct Training {
    /// The model's name.
    pub name: String,
    /// What it predicts.
    pub task: Task,
    /// How it learns.
    pub algorithm: Algorithm,
    /// When it is trained.
    pub mode: TrainingMode,
    /// The column that is predicted.
    pub label: Option<String>,
    /// The column of row weights.
    pub weight: Option<String>,
    /// Decides every random choice.
    pub seed: u64,
    /// Threads at most.
    pub threads: usize,
    /// Bytes of rows kept in memory.
    pub memory_bytes_max: usize,
    /// Rows that it is measured on.
    pub holdout: HoldOut,
    /// What a version must hold to become champion.
    pub gate: Option<Gate>,
    /// Where the labels of an algorithm go that leaves no model.
    pub labels: Option<PathBuf>,
    /// The algorithm with its options.
    pub recipe: Recipe,
    /// Knows the feature columns; has seen no row.
    pub features: Observer,
    /// Knows the label column; has seen no row.
    pub classes: Option<LabelObserver>,
    /// The options as they were given.
    pub given: BTreeMap<String, String>,
    /// The statement, secrets masked.
    pub query: String,
}

impl Training {
    /// Reads a step's options.
    ///
    /// # Errors
    /// User: an option that is missing, unknown or does not fit the query's columns, at the statement's place.
    pub fn new(step: &TrainStep) -> Result<Self> {
        let schema = super::query::schema(&step.plan)?;
        read(&step.name, &step.options, &schema, &step.sql).map_err(|e| e.at(step.span))
    }
}

/// Reads the options of model `name` over the columns of `schema`.
///
/// # Errors
/// User: an option that is missing, unknown or does not fit.
pub fn read(name: &str, given: &BTreeMap<String, String>, schema: &Schema, query: &str) -> Result<Training> {
    check_name(name)?;
    let mut options = Options::new(format!("model '{name}'"), given.clone());
    let o = &mut options;
    let task = Task::parse(&o.required("task")?).map_err(|e| e.context(o.owner()))?;
    let algorithm = Algorithm::parse(&o.required("algorithm")?, task).map_err(|e| e.context(o.owner()))?;
    let label = match task {
        Task::Clustering => None,
        _ => Some(o.required("label")?),
    };
    let label_field = label.as_ref().map(|label| column(o, schema, "label", label)).transpose()?;
    let weight = o.text("weight");
    if let Some(weight) = &weight
        && !SqlType::of(column(o, schema, "weight", weight)?).is_numeric()
    {
        return Err(o.bad("weight", weight, "a column of numbers"));
    }
    let seed = o.number("seed")?.unwrap_or(1);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = match o.number::<usize>("threads")? {
        Some(0) => return Err(o.bad("threads", "0", "at least 1")),
        threads => threads.unwrap_or(cores).min(256),
    };
    let memory_bytes_max = o.bytes("memory")?.unwrap_or(MEMORY_BYTES) as usize;
    let holdout = HoldOut::from_options(o, schema, if label.is_some() { HOLDOUT } else { 0.0 })?;
    let mode = o.choice("training.mode", &[("once", TrainingMode::Once), ("cumulative", TrainingMode::Cumulative)], TrainingMode::Once)?;
    let gate = o.text("publish.gate").map(|text| Gate::parse(&text, measures::names(task))).transpose();
    let gate = gate.map_err(|e| e.context(o.owner()))?;
    let labels = if algorithm == Algorithm::Dbscan { Some(PathBuf::from(o.required("labels.path")?)) } else { None };
    if labels.is_some() && (gate.is_some() || mode == TrainingMode::Cumulative || holdout.fraction > 0.0) {
        let e = Error::user(format!("{}: 'dbscan' labels its rows and leaves no model", o.owner()));
        return Err(e.help("leave 'publish.gate', 'holdout' and 'training.mode' out"));
    }
    let excluded: Vec<&str> = label.iter().chain(&weight).map(String::as_str).collect();
    let recipe = Recipe::from_options(task, algorithm, o)?;
    let features = Observer::new(schema, &excluded, o)?;
    let classes = label_field.map(|field| LabelObserver::new(field, task, o)).transpose()?;
    o.finish()?;
    Ok(Training {
        name: name.to_string(),
        task,
        algorithm,
        mode,
        label,
        weight,
        seed,
        threads,
        memory_bytes_max,
        holdout,
        gate,
        labels,
        recipe,
        features,
        classes,
        given: given.clone(),
        query: query.to_string(),
    })
}

fn column<'a>(options: &Options, schema: &'a Schema, key: &str, name: &str) -> Result<&'a Field> {
    schema.field_with_name(name).map_err(|_| {
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let e = Error::user(format!("{}: option '{key}' is '{name}', but the query has no such column", options.owner()));
        match nearest(name, names.iter().copied()) {
            Some(near) => e.help(format!("did you mean '{near}'?")),
            None => e.help(format!("its columns: {}", names.join(", "))),
        }
    })
}
