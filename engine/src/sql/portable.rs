//! What runs here and what Flink would refuse: for `check --portable`.

use std::collections::BTreeSet;

use super::ast::ColumnKind;
use super::catalog::{Catalog, Entry};
use super::settings::Settings;
use crate::error::Span;

/// One place of a file that is not portable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where it stands.
    pub span: Span,
    /// What it is, and what Flink makes of it.
    pub what: String,
    /// How to write it so that Flink takes it too.
    pub portable: String,
}

/// The findings of a file, in its order, each once.
pub fn portable_findings(found: &[Finding], settings: &Settings, catalog: &Catalog) -> Vec<Finding> {
    let mut all: BTreeSet<Finding> = found.iter().cloned().collect();
    for (name, knob) in settings.tables_with_knobs() {
        let Some(Entry::Table(table)) = catalog.get(name) else { continue };
        let on = knob == "csv-header" && settings.knobs(name).get(knob).is_some_and(|v| v == "true");
        let lenient = table.options.get("csv.ignore-parse-errors").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        // To Flink a header is one more row, which does no harm where it can be read as one.
        let broken = table.columns.iter().find(|c| matches!(&c.kind, ColumnKind::Physical { sql_type, .. } if !sql_type.is_text()));
        if let (true, false, Some(column)) = (on, lenient, broken) {
            all.insert(Finding {
                span: column.name.span,
                what: format!("the CSV header of '{name}': Flink reads it as a row and fails at the column '{}'", column.name.value),
                portable: format!("declare '{}' as STRING and cast it in the query", column.name.value),
            });
        }
    }
    all.into_iter().collect()
}
