//! Tables and views of one run, as CREATE TABLE and CREATE VIEW describe them.
//!
//! A table keeps its computed columns and its watermark as text trees: they are bound when a query reads
//! the table, so that the time zone and the functions are those of that moment, and once at CREATE so that
//! a mistake is reported there. `PRIMARY KEY … NOT ENFORCED` is never told to DataFusion: its rules would
//! trust it.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::logical_expr::TableSource;

use super::models::Models;
use crate::connectors::{MetadataColumn, TableSpec};
use crate::error::{Error, Result, Span, nearest};
use crate::sql::ast::{Column, ColumnKind, CreateTable, CreateView, Name, WatermarkClause};
use crate::stream::SqlType;

/// All tables and views by name, and the models, which have names of their own.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    entries: BTreeMap<String, Entry>,
    models: Arc<Models>,
}

/// A table or a view.
#[derive(Debug, Clone)]
pub enum Entry {
    /// CREATE TABLE
    Table(Arc<Table>),
    /// CREATE VIEW
    View(Arc<CreateView>, Origin),
}

/// The text that a table or view was declared in, so that a later error can show the place: it may be
/// another file than the one that is being planned. `None` in a shell.
#[derive(Debug, Clone, Default)]
pub struct Origin(Option<Arc<(String, String)>>);

impl Origin {
    /// The text of a file.
    pub fn file(name: &str, text: &str) -> Self {
        Self(Some(Arc::new((name.to_string(), text.to_string()))))
    }

    /// The error, placed in this text.
    pub fn place(&self, e: Error, span: Span) -> Error {
        match &self.0 {
            Some(file) => e.at(span).with_sql(&file.0, &file.1),
            None => e,
        }
    }
}

/// A table as declared.
#[derive(Debug)]
pub struct Table {
    /// Name.
    pub name: Name,
    /// Where it was declared.
    pub origin: Origin,
    /// The statement, its options after `--option`.
    pub create: CreateTable,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// WATERMARK FOR.
    pub watermark: Option<WatermarkClause>,
    /// PRIMARY KEY columns.
    pub primary_key: Vec<String>,
    /// PARTITIONED BY columns.
    pub partition_keys: Vec<String>,
    /// WITH, after `--option`.
    pub options: BTreeMap<String, String>,
}

/// What a declared column is in the table's connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Physical column number i.
    Physical(usize),
    /// Metadata column number i.
    Metadata(usize),
    /// Not in the connector.
    Computed,
}

impl Catalog {
    /// An empty catalog with these models.
    pub fn new(models: Models) -> Self {
        Self { entries: BTreeMap::new(), models: Arc::new(models) }
    }

    /// The models.
    pub fn models(&self) -> &Arc<Models> {
        &self.models
    }

    /// The models, to declare one.
    pub fn models_mut(&mut self) -> &mut Models {
        Arc::make_mut(&mut self.models)
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The table of this name.
    ///
    /// # Errors
    /// User: there is none, with the nearest name; or it is a view.
    pub fn table(&self, name: &Name) -> Result<Arc<Table>> {
        match self.entries.get(&name.value) {
            Some(Entry::Table(t)) => Ok(Arc::clone(t)),
            Some(Entry::View(..)) => Err(Error::user(format!("'{}' is a view", name.value)).at(name.span)),
            None => Err(self.unknown(&name.value).at(name.span)),
        }
    }

    /// The error about a name that nothing has.
    pub fn unknown(&self, name: &str) -> Error {
        let e = Error::user(format!("table '{name}' not found"));
        if let Some(other) = self.entries.keys().find(|k| k.eq_ignore_ascii_case(name)) {
            return e.help(format!("names compare case: did you mean '{other}'?"));
        }
        match nearest(name, self.entries.keys().map(String::as_str)) {
            Some(near) => e.help(format!("did you mean '{near}'?")),
            None if self.entries.is_empty() => e.help("declare it with CREATE TABLE first"),
            None => e.help(format!("declared so far: {}", self.entries.keys().cloned().collect::<Vec<_>>().join(", "))),
        }
    }

    /// Adds a table or view; false where the name is taken and `if_not_exists` lets that pass.
    ///
    /// # Errors
    /// User: the name is taken.
    pub fn add(&mut self, name: &Name, entry: Entry, if_not_exists: bool, replace: bool) -> Result<bool> {
        match self.entries.get(&name.value) {
            Some(Entry::View(..)) if replace => {}
            Some(_) if if_not_exists => return Ok(false),
            Some(old) => {
                let kind = if matches!(old, Entry::View(..)) { "view" } else { "table" };
                return Err(Error::user(format!("a {kind} '{}' is already declared", name.value)).at(name.span).help(format!(
                    "DROP {} `{}` first, or choose another name",
                    kind.to_uppercase(),
                    name.value
                )));
            }
            None => {}
        }
        self.entries.insert(name.value.clone(), entry);
        Ok(true)
    }

    /// Takes an entry away.
    ///
    /// # Errors
    /// User: there is none, or it is of the other kind.
    pub fn remove(&mut self, name: &Name, view: bool, if_exists: bool) -> Result<()> {
        match (self.entries.get(&name.value), view) {
            (Some(Entry::Table(_)), false) | (Some(Entry::View(..)), true) => {
                self.entries.remove(&name.value);
                Ok(())
            }
            (Some(Entry::Table(_)), true) => {
                Err(Error::user(format!("'{}' is a table", name.value)).at(name.span).help("write DROP TABLE"))
            }
            (Some(Entry::View(..)), false) => Err(Error::user(format!("'{}' is a view", name.value)).at(name.span).help("write DROP VIEW")),
            (None, _) if if_exists => Ok(()),
            (None, _) => Err(self.unknown(&name.value).at(name.span)),
        }
    }

    /// Names in order; views only, or all.
    pub fn names(&self, views_only: bool) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(move |(_, e)| !views_only || matches!(e, Entry::View(..))).map(|(name, _)| name.as_str())
    }
}

impl Table {
    /// The declared table, with the options of the command line over its own.
    ///
    /// # Errors
    /// User: columns that are declared twice, or named but not declared.
    pub fn declare(create: &CreateTable, overrides: &[(String, String, String)], origin: Origin) -> Result<Self> {
        let mut create = create.clone();
        // Another connector knows nothing of this one's options: only overrides reach it.
        let swapped = overrides.iter().any(|(t, k, v)| {
            *t == create.name.value && k == "connector" && create.options.iter().any(|(own, was, _)| own == "connector" && was != v)
        });
        if swapped {
            create.options.clear();
        }
        let is_kafka = create.options.iter().any(|(k, v, _)| k == "connector" && v.ends_with("kafka"));
        for (table, key, value) in overrides {
            // `*` means every table that can have the option: a broker's address is none of a file's.
            let fits = *table == create.name.value
                || (table == "*" && (is_kafka || !(key.starts_with("properties.") || key.starts_with("scan."))));
            match create.options.iter_mut().find(|(k, ..)| k == key) {
                Some(option) if fits || table == "*" => option.1.clone_from(value),
                None if fits => create.options.push((key.clone(), value.clone(), create.name.span)),
                _ => {}
            }
        }
        let mut options = BTreeMap::new();
        for (key, value, span) in &create.options {
            if options.insert(key.clone(), value.clone()).is_some() {
                return Err(Error::user(format!("the option '{key}' is given twice")).at(*span));
            }
        }
        let table = Self {
            name: create.name.clone(),
            columns: create.columns.clone(),
            watermark: create.watermark.clone(),
            primary_key: create.primary_key.iter().map(|n| n.value.clone()).collect(),
            partition_keys: create.partition_keys.iter().map(|n| n.value.clone()).collect(),
            options,
            create,
            origin,
        };
        table.check()?;
        Ok(table)
    }

    fn check(&self) -> Result<()> {
        let create = &self.create;
        for (i, column) in self.columns.iter().enumerate() {
            if self.columns[..i].iter().any(|c| c.name.value == column.name.value) {
                return Err(Error::user(format!("column '{}' is declared twice", column.name.value)).at(column.name.span));
            }
        }
        for key in &create.primary_key {
            match self.column(key, "PRIMARY KEY")?.kind {
                ColumnKind::Physical { .. } => {}
                _ => return Err(Error::user(format!("the PRIMARY KEY column '{}' is not a physical column", key.value)).at(key.span)),
            }
        }
        for key in &create.partition_keys {
            match self.column(key, "PARTITIONED BY")?.kind {
                ColumnKind::Physical { .. } => {}
                _ => return Err(Error::user(format!("the partition column '{}' is not a physical column", key.value)).at(key.span)),
            }
        }
        if !self.columns.iter().any(|c| matches!(c.kind, ColumnKind::Physical { .. })) {
            return Err(Error::user(format!("table '{}' has no physical column", self.name.value)).at(self.name.span));
        }
        if !self.options.contains_key("connector") {
            let e = Error::user(format!("table '{}' has no option 'connector'", self.name.value)).at(self.name.span);
            return Err(e.help("add WITH ('connector' = 'kafka' | 'filesystem' | 'print' | 'blackhole' | 'datagen', …)"));
        }
        Ok(())
    }

    fn column(&self, name: &Name, clause: &str) -> Result<&Column> {
        self.columns.iter().find(|c| c.name.value == name.value).ok_or_else(|| {
            let e = Error::user(format!("{clause} names the column '{}', which is not declared", name.value)).at(name.span);
            match nearest(&name.value, self.columns.iter().map(|c| c.name.value.as_str())) {
                Some(near) => e.help(format!("did you mean '{near}'?")),
                None => e,
            }
        })
    }

    /// The table as its connector writes it: PRIMARY KEY columns are NOT NULL.
    pub fn sink_spec(&self, knobs: BTreeMap<String, String>) -> TableSpec {
        self.spec(knobs, &self.primary_key)
    }

    /// The table as its connector reads it. A key that is NOT ENFORCED rejects no row where it is NULL.
    pub fn source_spec(&self, knobs: BTreeMap<String, String>) -> TableSpec {
        self.spec(knobs, &[])
    }

    fn spec(&self, knobs: BTreeMap<String, String>, not_null: &[String]) -> TableSpec {
        let mut physical = Vec::new();
        let mut metadata = Vec::new();
        for column in &self.columns {
            match &column.kind {
                ColumnKind::Physical { sql_type, nullable } => {
                    let nullable = *nullable && !not_null.contains(&column.name.value);
                    physical.push(sql_type.field(&column.name.value, nullable));
                }
                ColumnKind::Metadata { sql_type, nullable, key, is_virtual } => metadata.push(MetadataColumn {
                    field: Arc::new(sql_type.field(&column.name.value, *nullable)),
                    key: key.clone().unwrap_or_else(|| column.name.value.clone()),
                    is_virtual: *is_virtual,
                }),
                ColumnKind::Computed(_) => {}
            }
        }
        TableSpec {
            name: self.name.value.clone(),
            physical: Arc::new(Schema::new(physical)),
            metadata,
            partition_keys: self.partition_keys.clone(),
            primary_key: self.primary_key.clone(),
            options: self.options.clone(),
            knobs,
        }
    }

    /// Where each declared column is found in the connector.
    pub fn places(&self) -> Vec<Place> {
        let (mut physical, mut metadata) = (0, 0);
        let place = |column: &Column| match column.kind {
            ColumnKind::Physical { .. } => {
                physical += 1;
                Place::Physical(physical - 1)
            }
            ColumnKind::Metadata { .. } => {
                metadata += 1;
                Place::Metadata(metadata - 1)
            }
            ColumnKind::Computed(_) => Place::Computed,
        };
        self.columns.iter().map(place).collect()
    }
}

/// A table as DataFusion's planner sees it: columns, and nothing that it could conclude from.
#[derive(Debug)]
pub struct TableColumns {
    /// The table; `None` for the bare columns that computed columns are bound over.
    pub table: Option<Arc<Table>>,
    /// All columns in declared order.
    pub schema: SchemaRef,
}

impl TableColumns {
    /// Columns that belong to no table.
    pub fn bare(fields: Vec<FieldRef>) -> Arc<dyn TableSource> {
        Arc::new(Self { table: None, schema: Arc::new(Schema::new(fields)) })
    }
}

impl TableSource for TableColumns {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// The table behind a DataFusion table source.
pub fn table_of(source: &Arc<dyn TableSource>) -> Option<&Arc<Table>> {
    (source.as_ref() as &dyn Any).downcast_ref::<TableColumns>()?.table.as_ref()
}

/// A field of a computed column: the expression's, under the column's name.
pub fn computed_field(name: &str, of: &Field) -> Field {
    match of.data_type() {
        DataType::Null => SqlType::STRING.field(name, true),
        _ => of.clone().with_name(name),
    }
}
