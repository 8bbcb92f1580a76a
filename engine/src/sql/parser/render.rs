//! Statements as SHOW CREATE prints them. Secret options are masked.

use super::statements::{CATALOG, DATABASE};
use crate::config::masked;
use crate::sql::ast::{ColumnKind, CreateTable, CreateView, Name};
use crate::stream::SqlType;

/// What SHOW CREATE TABLE prints.
pub fn show_create_table(t: &CreateTable) -> String {
    let mut elements: Vec<String> = t
        .columns
        .iter()
        .map(|c| {
            let kind = match &c.kind {
                ColumnKind::Physical { sql_type, nullable } => {
                    // Flink keeps NOT NULL of the key's columns in their types.
                    let not_null = !nullable || t.primary_key.iter().any(|k| k.value == c.name.value);
                    format!("{}{}", type_text(sql_type), if not_null { " NOT NULL" } else { "" })
                }
                ColumnKind::Metadata { sql_type, nullable, key, is_virtual } => format!(
                    "{}{} METADATA{}{}",
                    type_text(sql_type),
                    if *nullable { "" } else { " NOT NULL" },
                    key.as_ref().map_or(String::new(), |k| format!(" FROM {}", text(k))),
                    if *is_virtual { " VIRTUAL" } else { "" }
                ),
                ColumnKind::Computed(e) => format!("AS {e}"),
            };
            let comment = c.comment.as_ref().map_or(String::new(), |s| format!(" COMMENT {}", text(s)));
            format!("  {} {kind}{comment}", name(&c.name.value))
        })
        .collect();
    if let Some(w) = &t.watermark {
        elements.push(format!("  WATERMARK FOR {} AS {}", name(&w.column.value), w.expr));
    }
    if !t.primary_key.is_empty() {
        elements.push(format!("  CONSTRAINT {} PRIMARY KEY ({}) NOT ENFORCED", name(&key_name(&t.primary_key)), names(&t.primary_key)));
    }
    let mut out = format!("CREATE {}TABLE {} (\n{}\n)", temporary(t.temporary), path(&t.name), elements.join(",\n"));
    if let Some(c) = &t.comment {
        out.push_str(&format!("\nCOMMENT {}", text(c)));
    }
    if !t.partition_keys.is_empty() {
        out.push_str(&format!("\nPARTITIONED BY ({})", names(&t.partition_keys)));
    }
    if !t.options.is_empty() {
        let options: Vec<String> = t.options.iter().map(|(k, v, _)| format!("  {} = {}", text(k), text(masked(k, v)))).collect();
        out.push_str(&format!("\nWITH (\n{}\n)", options.join(",\n")));
    }
    out.push('\n');
    out
}

/// What SHOW CREATE VIEW prints.
pub fn show_create_view(v: &CreateView) -> String {
    let columns = if v.columns.is_empty() {
        String::new()
    } else {
        format!("(\n  {}\n)", v.columns.iter().map(|c| name(&c.value)).collect::<Vec<_>>().join(",\n  "))
    };
    let comment = v.comment.as_ref().map_or(String::new(), |c| format!("\nCOMMENT {}", text(c)));
    format!(
        "CREATE {}VIEW {}{}{comment}\nAS {}\n",
        temporary(v.temporary),
        path(&v.name),
        if columns.is_empty() { columns } else { format!(" {columns}") },
        v.query_text
    )
}

fn temporary(yes: bool) -> &'static str {
    if yes { "TEMPORARY " } else { "" }
}

fn path(n: &Name) -> String {
    format!("`{CATALOG}`.`{DATABASE}`.{}", name(&n.value))
}

fn name(n: &str) -> String {
    format!("`{}`", n.replace('`', "``"))
}

fn names(list: &[Name]) -> String {
    list.iter().map(|n| name(&n.value)).collect::<Vec<_>>().join(", ")
}

fn text(s: &str) -> String {
    format!("'{}'", s.replace('\'', "''"))
}

/// Flink names a key without a name after its columns.
fn key_name(keys: &[Name]) -> String {
    format!("PK_{}", keys.iter().map(|k| k.value.as_str()).collect::<Vec<_>>().join("_"))
}

/// Flink prints STRING as VARCHAR(2147483647) and BYTES likewise.
fn type_text(t: &SqlType) -> String {
    t.to_string()
}
