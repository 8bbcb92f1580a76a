//! SHOW and DESCRIBE, as Flink prints them.

use arrow::datatypes::{FieldRef, Fields};

use super::ast::ColumnKind;
use super::catalog::Table;
use super::models::Shape;
use super::session::Step;
use super::settings::Settings;
use crate::config::masked;
use crate::stream::SqlType;
use crate::stream::types::TIME_ATTRIBUTE;

/// One column of names.
pub fn names<'a>(column: &str, names: impl Iterator<Item = &'a str>) -> Step {
    Step::Show { columns: vec![column.to_string()], rows: names.map(|n| vec![n.to_string()]).collect() }
}

/// SET without a key.
pub fn settings(settings: &Settings) -> Step {
    let rows = settings.all().iter().map(|(k, v)| vec![k.clone(), masked(k, v).to_string()]).collect();
    Step::Show { columns: vec!["key".to_string(), "value".to_string()], rows }
}

/// DESCRIBE of a table whose columns are `fields`.
pub fn table(table: &Table, fields: &[FieldRef]) -> Step {
    let comments = table.columns.iter().any(|c| c.comment.is_some());
    let mut rows = Vec::new();
    for (column, field) in table.columns.iter().zip(fields) {
        let name = &column.name.value;
        let in_key = table.primary_key.contains(name);
        let extras = match &column.kind {
            ColumnKind::Physical { .. } => String::new(),
            ColumnKind::Computed(expr) => format!("AS {}", expr),
            ColumnKind::Metadata { key, is_virtual, .. } => {
                let from = key.as_ref().map(|k| format!(" FROM '{k}'")).unwrap_or_default();
                format!("METADATA{from}{}", if *is_virtual { " VIRTUAL" } else { "" })
            }
        };
        let watermark = table.watermark.as_ref().filter(|w| w.column.value == *name).map(|w| w.expr.to_string()).unwrap_or_default();
        let key = if in_key { format!("PRI({})", table.primary_key.join(", ")) } else { String::new() };
        let nullable = field.is_nullable() && !in_key;
        let mut row = vec![name.clone(), type_text(field), yes(nullable), key, extras, watermark];
        if comments {
            row.push(column.comment.clone().unwrap_or_default());
        }
        rows.push(row);
    }
    let mut columns = header();
    if comments {
        columns.push("comment".to_string());
    }
    Step::Show { columns, rows }
}

/// DESCRIBE of a view.
pub fn view(fields: &Fields) -> Step {
    let row = |f: &FieldRef| vec![f.name().clone(), type_text(f), yes(f.is_nullable()), String::new(), String::new(), String::new()];
    Step::Show { columns: header(), rows: fields.iter().map(row).collect() }
}

/// DESCRIBE MODEL.
pub fn model(shape: &Shape) -> Step {
    let row = |is_input: bool| move |f: &FieldRef| vec![f.name().clone(), type_text(f), yes(f.is_nullable()), yes(is_input)];
    let rows = shape.inputs.iter().map(row(true)).chain(shape.outputs.iter().map(row(false))).collect();
    Step::Show { columns: ["name", "type", "null", "is input"].map(str::to_string).to_vec(), rows }
}

fn header() -> Vec<String> {
    ["name", "type", "null", "key", "extras", "watermark"].map(str::to_string).to_vec()
}

fn type_text(field: &FieldRef) -> String {
    match field.metadata().get(TIME_ATTRIBUTE) {
        Some(kind) => format!("{} *{}*", SqlType::of(field), kind.to_uppercase()),
        None => SqlType::of(field).to_string(),
    }
}

fn yes(b: bool) -> String {
    if b { "TRUE" } else { "FALSE" }.to_string()
}
