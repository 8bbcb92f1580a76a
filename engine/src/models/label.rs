//! The label: what a model of rows with answers learns to give, and the weight of each class.
//!
//! Classes are sorted by value (text by bytes, numbers by size, false before true), so their order does not depend on
//! the rows' order; they keep their SQL type, and a prediction has it again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use super::features::{Reason, Refusal};
use super::task::Task;
use crate::config::Options;
use crate::error::{Error, Result, nearest};
use crate::stream::types::SqlType;

/// Classes at most: each costs a probability in every answer.
pub const CLASSES_MAX: usize = 1000;

/// What is predicted, frozen with the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// Name of the column in the training rows.
    pub field: String,
    /// Its SQL type, as Flink writes it.
    pub sql_type: String,
    /// The classes; `None` for a regression.
    pub classes: Option<Classes>,
    /// What a row of each class counts for; empty: 1 each.
    pub weights: Vec<f64>,
}

/// Class values, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Classes {
    /// Of a text column.
    Text(Vec<String>),
    /// Of an integer column.
    Integer(Vec<i64>),
    /// Of a boolean column.
    Boolean(Vec<bool>),
}

/// Counts the classes in one mergeable pass over the training rows.
#[derive(Debug, Clone)]
pub struct LabelObserver {
    owner: String,
    field: String,
    sql_type: SqlType,
    class_weight: Option<String>,
    seen: Seen,
    rows: u64,
}

/// Labels of some rows as the algorithms take them.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// The number, or the index of the class.
    pub y: Vec<f64>,
    /// The weight of each row's class; empty where all are 1.
    pub w: Vec<f64>,
    /// Rows whose label is null, not finite or no class; their `y` is 0.
    pub refused: Vec<Refusal>,
}

#[derive(Debug, Clone)]
enum Seen {
    Number,
    Text(BTreeMap<String, u64>),
    Integer(BTreeMap<i64, u64>),
    Boolean(BTreeMap<bool, u64>),
}

impl LabelObserver {
    /// For the label column `field` of `task`. The option `class_weight` is `balanced`, or a weight by class:
    /// `'1=5, 2=2'` (the others count 1).
    ///
    /// # Errors
    /// User: the column's type cannot be a label of the task.
    pub fn new(field: &Field, task: Task, options: &mut Options) -> Result<Self> {
        let sql_type = SqlType::of(field);
        let seen = match (task, &sql_type) {
            (Task::Regression, t) if t.is_numeric() => Seen::Number,
            (Task::Classification, SqlType::Boolean) => Seen::Boolean(BTreeMap::new()),
            (Task::Classification, t) if t.is_text() => Seen::Text(BTreeMap::new()),
            (Task::Classification, SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt) => Seen::Integer(BTreeMap::new()),
            _ => {
                let e = Error::user(format!("{}: label '{}' of type {sql_type} does not do for {task}", options.owner(), field.name()));
                return Err(match task {
                    Task::Clustering => e.help("clustering has no label: leave the option 'label' out"),
                    Task::Regression => e.help("CAST it to a number in the query"),
                    Task::Classification => e.help("CAST it to STRING, BOOLEAN or an integer in the query"),
                });
            }
        };
        let class_weight = if task == Task::Classification { options.text("class_weight") } else { None };
        Ok(Self { owner: options.owner().to_string(), field: field.name().clone(), sql_type, class_weight, seen, rows: 0 })
    }

    /// Takes the labels of some rows; nulls are no class.
    ///
    /// # Errors
    /// Data: another type than the schema's.
    pub fn observe(&mut self, column: &ArrayRef) -> Result<()> {
        self.rows += column.len() as u64;
        match &mut self.seen {
            Seen::Number => {}
            Seen::Text(counts) => {
                for value in texts(column)?.iter().flatten() {
                    match counts.get_mut(value) {
                        Some(count) => *count += 1,
                        None => drop(counts.insert(value.to_string(), 1)),
                    }
                }
            }
            Seen::Integer(counts) => integers(column)?.iter().flatten().for_each(|v| *counts.entry(v).or_default() += 1),
            Seen::Boolean(counts) => booleans(column)?.iter().flatten().for_each(|v| *counts.entry(v).or_default() += 1),
        }
        self.check_number()
    }

    /// Takes what `other`, made for the same column, has seen.
    pub fn merge(&mut self, other: &Self) {
        fn add<T: Ord + Clone>(mine: &mut BTreeMap<T, u64>, theirs: &BTreeMap<T, u64>) {
            theirs.iter().for_each(|(class, count)| *mine.entry(class.clone()).or_default() += count);
        }
        self.rows += other.rows;
        match (&mut self.seen, &other.seen) {
            (Seen::Text(a), Seen::Text(b)) => add(a, b),
            (Seen::Integer(a), Seen::Integer(b)) => add(a, b),
            (Seen::Boolean(a), Seen::Boolean(b)) => add(a, b),
            _ => {}
        }
    }

    /// The frozen label.
    ///
    /// # Errors
    /// User: fewer than two classes, too many, or weights for classes that are none.
    pub fn freeze(&self) -> Result<Label> {
        self.check_number()?;
        let (classes, counts) = match &self.seen {
            Seen::Number => (None, vec![]),
            Seen::Text(c) => (Some(Classes::Text(c.keys().cloned().collect())), c.values().copied().collect()),
            Seen::Integer(c) => (Some(Classes::Integer(c.keys().copied().collect())), c.values().copied().collect()),
            Seen::Boolean(c) => (Some(Classes::Boolean(c.keys().copied().collect())), c.values().copied().collect()),
        };
        if let Some(classes) = &classes
            && classes.len() < 2
        {
            let only = classes.names().first().map_or("no value".to_string(), |name| format!("the value '{name}' alone"));
            let e = Error::user(format!("{}: label '{}' has {only} in {} rows", self.owner, self.field, self.rows));
            return Err(e.help("a classification needs at least two classes"));
        }
        let weights = match (&classes, &self.class_weight) {
            (Some(classes), Some(text)) => self.weights(classes, &counts, text)?,
            _ => vec![],
        };
        Ok(Label { field: self.field.clone(), sql_type: self.sql_type.to_string(), classes, weights })
    }

    fn check_number(&self) -> Result<()> {
        let classes = match &self.seen {
            Seen::Text(counts) => counts.len(),
            Seen::Integer(counts) => counts.len(),
            _ => 0,
        };
        if classes > CLASSES_MAX {
            let e = Error::user(format!("{}: label '{}' has more than {CLASSES_MAX} classes", self.owner, self.field));
            return Err(e.help("for a number write 'task' = 'regression'; else group the classes in the query"));
        }
        Ok(())
    }

    fn weights(&self, classes: &Classes, counts: &[u64], text: &str) -> Result<Vec<f64>> {
        let total: u64 = counts.iter().sum();
        if text.trim().eq_ignore_ascii_case("balanced") {
            return Ok(counts.iter().map(|n| total as f64 / (counts.len() as f64 * *n as f64)).collect());
        }
        let names = classes.names();
        let mut weights = vec![1.0; names.len()];
        let bad = |what: String| Error::user(format!("{}: option 'class_weight': {what}", self.owner));
        for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            // The last '=', because a class may have one in its name.
            let Some((name, weight)) = entry.rsplit_once('=') else {
                return Err(bad(format!("'{entry}' is no class=weight")).help("write 'balanced', or such as 'yes=5, no=1'"));
            };
            let name = name.trim();
            let Some(at) = names.iter().position(|n| n == name) else {
                let e = bad(format!("label '{}' has no class '{name}'", self.field));
                return Err(match nearest(name, names.iter().map(String::as_str)) {
                    Some(near) => e.help(format!("did you mean '{near}'?")),
                    None => e.help(format!("its classes: {}", names.join(", "))),
                });
            };
            weights[at] = match weight.trim().parse::<f64>() {
                Ok(w) if w.is_finite() && w > 0.0 => w,
                _ => return Err(bad(format!("'{}' is no positive number", weight.trim()))),
            };
        }
        Ok(weights)
    }
}

impl Label {
    /// Class names, as probabilities are keyed; empty for a regression.
    pub fn names(&self) -> Vec<String> {
        self.classes.as_ref().map(Classes::names).unwrap_or_default()
    }

    /// The labels of some rows.
    ///
    /// # Errors
    /// Data: another type than the label's.
    pub fn encode(&self, column: &ArrayRef) -> Result<Labels> {
        let mut labels = Labels { y: Vec::with_capacity(column.len()), w: vec![], refused: vec![] };
        match &self.classes {
            None => {
                let doubles = cast(column, &DataType::Float64).map_err(|e| self.wrong_type(column).caused_by(e))?;
                let doubles = doubles.as_any().downcast_ref::<arrow::array::Float64Array>().ok_or_else(|| self.wrong_type(column))?;
                for value in doubles {
                    labels.push(&self.field, value.filter(|v| v.is_finite()).ok_or(value.map_or(Reason::Null, |_| Reason::NotFinite)));
                }
            }
            Some(Classes::Text(known)) => {
                for value in texts(column)?.iter() {
                    labels.push(&self.field, class(value, |v| known.binary_search_by(|k| k.as_str().cmp(v)).ok()));
                }
            }
            Some(Classes::Integer(known)) => {
                for value in integers(column)?.iter() {
                    labels.push(&self.field, class(value, |v| known.binary_search(v).ok()));
                }
            }
            Some(Classes::Boolean(known)) => {
                for value in booleans(column)?.iter() {
                    labels.push(&self.field, class(value, |v| known.binary_search(v).ok()));
                }
            }
        }
        if !self.weights.is_empty() {
            labels.w = labels.y.iter().map(|y| self.weights[*y as usize]).collect();
        }
        Ok(labels)
    }

    /// The field of a prediction: the label's type, nullable.
    ///
    /// # Errors
    /// State: a type that this version does not know.
    pub fn prediction(&self) -> Result<Field> {
        match self.classes {
            None => Ok(SqlType::Double.field("prediction", true)),
            Some(_) => {
                let sql_type = SqlType::parse(&self.sql_type).map_err(|e| Error::state(format!("the label's type: {e}")))?;
                Ok(sql_type.field("prediction", true))
            }
        }
    }

    /// Whether the parts fit each other.
    ///
    /// # Errors
    /// State: what does not.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::state(format!("the label '{}': {what}", self.field)));
        let Ok(sql_type) = SqlType::parse(&self.sql_type) else { return wrong("its type is unknown") };
        let Some(classes) = &self.classes else { return Ok(()) };
        let (sorted, fits) = match classes {
            Classes::Text(c) => (c.is_sorted(), sql_type.is_text()),
            Classes::Integer(c) => {
                (c.is_sorted(), matches!(sql_type, SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt))
            }
            Classes::Boolean(c) => (c.is_sorted(), sql_type == SqlType::Boolean),
        };
        match () {
            _ if classes.len() < 2 || !sorted => wrong("its classes are fewer than two, or not sorted"),
            _ if !fits => wrong("its classes are not of its type"),
            _ if !self.weights.is_empty() && self.weights.len() != classes.len() => wrong("it has not a weight for each class"),
            _ => Ok(()),
        }
    }

    fn wrong_type(&self, column: &ArrayRef) -> Error {
        Error::data(format!("label '{}' is {}, but the model was trained on {}", self.field, column.data_type(), self.sql_type))
    }
}

impl Classes {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(c) => c.len(),
            Self::Integer(c) => c.len(),
            Self::Boolean(c) => c.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their names, in their order.
    pub fn names(&self) -> Vec<String> {
        fn all(values: &[impl fmt::Display]) -> Vec<String> {
            values.iter().map(ToString::to_string).collect()
        }
        match self {
            Self::Text(c) => c.clone(),
            Self::Integer(c) => all(c),
            Self::Boolean(c) => all(c),
        }
    }

    /// The values of these classes (`None`: null), as `wanted` has them.
    ///
    /// # Errors
    /// Internal: the values are not of that type.
    pub fn take(&self, indices: impl Iterator<Item = Option<usize>>, wanted: &DataType) -> Result<ArrayRef> {
        let array: ArrayRef = match self {
            Self::Text(c) => Arc::new(indices.map(|i| i.map(|i| c[i].as_str())).collect::<StringArray>()),
            Self::Integer(c) => Arc::new(indices.map(|i| i.map(|i| c[i])).collect::<Int64Array>()),
            Self::Boolean(c) => Arc::new(indices.map(|i| i.map(|i| c[i])).collect::<BooleanArray>()),
        };
        if array.data_type() == wanted { Ok(array) } else { Ok(cast(&array, wanted)?) }
    }
}

impl Labels {
    fn push(&mut self, field: &str, y: Result<f64, Reason>) {
        if let Err(reason) = &y {
            self.refused.push(Refusal { row: self.y.len(), field: field.to_string(), reason: reason.clone() });
        }
        self.y.push(y.unwrap_or(0.0));
    }
}

fn class<T: fmt::Display>(value: Option<T>, find: impl Fn(&T) -> Option<usize>) -> Result<f64, Reason> {
    let value = value.ok_or(Reason::Null)?;
    find(&value).map(|i| i as f64).ok_or_else(|| Reason::UnknownCategory(value.to_string()))
}

fn texts(column: &ArrayRef) -> Result<StringArray> {
    as_type(column, &DataType::Utf8)
}

fn integers(column: &ArrayRef) -> Result<Int64Array> {
    as_type(column, &DataType::Int64)
}

fn booleans(column: &ArrayRef) -> Result<BooleanArray> {
    as_type(column, &DataType::Boolean)
}

fn as_type<A: Array + Clone + 'static>(column: &ArrayRef, wanted: &DataType) -> Result<A> {
    let wrong = || Error::data(format!("the label is {}, not {wanted}", column.data_type()));
    let array = cast(column, wanted).map_err(|e| wrong().caused_by(e))?;
    array.as_any().downcast_ref::<A>().cloned().ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(values: &[Option<&str>], class_weight: Option<&str>) -> Result<Label> {
        let values: ArrayRef = Arc::new(values.iter().copied().collect::<StringArray>());
        let given = class_weight.map(|w| ("class_weight".to_string(), w.to_string()));
        let mut options = Options::new("model 'm'", given.into_iter().collect());
        let mut observer = LabelObserver::new(&SqlType::STRING.field("kind", true), Task::Classification, &mut options)?;
        observer.observe(&values)?;
        options.finish()?;
        observer.freeze()
    }

    #[test]
    fn classes_are_sorted_typed_and_weighted() {
        let label = observe(&[Some("b"), Some("a"), None, Some("b"), Some("b")], Some("balanced")).expect("two classes");
        assert_eq!(label.names(), ["a", "b"]);
        // What scikit-learn's compute_class_weight gives for [b, a, b, b].
        assert_eq!(label.weights, [2.0, 4.0 / 6.0]);
        let column: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), None, Some("c")]));
        let labels = label.encode(&column).expect("text");
        assert_eq!(labels.y, [1.0, 0.0, 0.0]);
        let reasons: Vec<_> = labels.refused.iter().map(|r| (r.row, r.reason.clone())).collect();
        assert_eq!(reasons, [(1, Reason::Null), (2, Reason::UnknownCategory("c".into()))]);

        let mut options = Options::new("model 'm'", BTreeMap::new());
        let field = SqlType::SmallInt.field("severity", false);
        let mut observer = LabelObserver::new(&field, Task::Classification, &mut options).expect("an integer");
        observer.observe(&(Arc::new(arrow::array::Int16Array::from(vec![10, 9, 10])) as ArrayRef)).expect("integers");
        let label = observer.freeze().expect("two classes");
        assert_eq!(label.names(), ["9", "10"], "by size, not by text");
        let back = label.classes.as_ref().expect("classes").take([Some(1), None].into_iter(), &DataType::Int16).expect("fits");
        assert_eq!(back.as_ref(), &arrow::array::Int16Array::from(vec![Some(10), None]) as &dyn Array);
    }

    #[test]
    fn errors_name_the_label_and_the_class() {
        let one = observe(&[Some("a"), None], None).expect_err("one class").to_string();
        assert!(one.starts_with("model 'm': label 'kind' has the value 'a' alone in 2 rows"), "{one}");
        let typo = observe(&[Some("slight"), Some("fatal")], Some("fatel=5")).expect_err("no class").to_string();
        assert!(typo.ends_with("did you mean 'fatal'?"), "{typo}");
        assert_eq!(observe(&[Some("a"), Some("b")], Some("b=2.5")).expect("fits").weights, [1.0, 2.5]);
    }
}
