//! Statements as SHOW CREATE prints them. Secret options are masked.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, VisitMut, VisitorMut};

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
                ColumnKind::Computed(e) => format!("AS {}", sql(e)),
            };
            let comment = c.comment.as_ref().map_or(String::new(), |s| format!(" COMMENT {}", text(s)));
            format!("  {} {kind}{comment}", name(&c.name.value))
        })
        .collect();
    if let Some(w) = &t.watermark {
        elements.push(format!("  WATERMARK FOR {} AS {}", name(&w.column.value), sql(&w.expr)));
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

/// A type in Flink's long form: STRING is VARCHAR(2147483647), BYTES and TIMESTAMP_LTZ likewise.
fn type_text(t: &SqlType) -> String {
    let not_null = |null: &bool| if *null { "" } else { " NOT NULL" };
    match t {
        SqlType::VarChar(n) => format!("VARCHAR({n})"),
        SqlType::VarBinary(n) => format!("VARBINARY({n})"),
        SqlType::TimestampLtz(p) => format!("TIMESTAMP({p}) WITH LOCAL TIME ZONE"),
        SqlType::Row(fields) => {
            let fields: Vec<String> = fields.iter().map(|(n, t, null)| format!("{} {}{}", name(n), type_text(t), not_null(null))).collect();
            format!("ROW<{}>", fields.join(", "))
        }
        SqlType::Array(t, null) => format!("ARRAY<{}{}>", type_text(t), not_null(null)),
        SqlType::Map(k, v, null) => format!("MAP<{}, {}{}>", type_text(k), type_text(v), not_null(null)),
        other => other.to_string(),
    }
}

/// An expression as SQL again: names in back-ticks, `$`-calls in their own grammar.
fn sql(e: &Expr) -> String {
    let mut e = e.clone();
    let _ = VisitMut::visit(&mut e, &mut Unparse);
    e.to_string()
}

struct Unparse;

impl VisitorMut for Unparse {
    type Break = ();

    fn post_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<()> {
        match e {
            Expr::Identifier(i) => i.quote_style = Some('`'),
            Expr::CompoundIdentifier(parts) => parts.iter_mut().for_each(|i| i.quote_style = Some('`')),
            Expr::Function(f) => {
                if let Some(text) = own_grammar(f) {
                    // An identifier without quotes prints as it stands.
                    *e = Expr::Identifier(Ident::new(text));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The text of a `$`-call.
fn own_grammar(f: &Function) -> Option<String> {
    let FunctionArguments::List(list) = &f.args else { return None };
    let args: Vec<&Expr> = list
        .args
        .iter()
        .filter_map(|a| match a {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e),
            _ => None,
        })
        .collect();
    let bare = |e: &Expr| match e {
        Expr::Value(v) => v.value.clone().into_string(),
        _ => None,
    };
    let name = f.name.to_string();
    Some(match (name.trim_matches('`'), args.as_slice()) {
        ("$cast", [e, t]) => format!("CAST({e} AS {})", bare(t)?),
        ("$try_cast", [e, t]) => format!("TRY_CAST({e} AS {})", bare(t)?),
        ("$floor_to", [e, u]) => format!("FLOOR({e} TO {})", bare(u)?),
        ("$ceil_to", [e, u]) => format!("CEIL({e} TO {})", bare(u)?),
        ("$extract", [u, e]) => format!("EXTRACT({} FROM {e})", bare(u)?),
        ("$timestampdiff", [u, a, b]) => format!("TIMESTAMPDIFF({}, {a}, {b})", bare(u)?),
        ("$timestampadd", [u, a, b]) => format!("TIMESTAMPADD({}, {a}, {b})", bare(u)?),
        ("$date", [t]) => format!("DATE {t}"),
        ("$time", [t]) => format!("TIME {t}"),
        ("$timestamp", [t]) => format!("TIMESTAMP {t}"),
        _ => return None,
    })
}
