//! What runs here and what Flink would refuse: for `check --portable`.

use std::collections::BTreeSet;

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

/// The findings of a file, in its order, each once; settings that change what a table's rows are included.
pub fn portable_findings(found: &[Finding], settings: &Settings) -> Vec<Finding> {
    let mut all: BTreeSet<Finding> = found.iter().cloned().collect();
    for (table, knob) in settings.tables_with_knobs() {
        let on = settings.knobs(table).get(knob).is_some_and(|v| v == "true");
        if knob == "csv-header" && on {
            all.insert(Finding {
                span: Span { line: 1, column: 1, width: 1 },
                what: format!("the CSV header of '{table}': to Flink it is one more row"),
                portable:
                    "declare columns that a header would break as STRING, and cast them in the query, which drops or survives that row"
                        .to_string(),
            });
        }
    }
    all.into_iter().collect()
}
