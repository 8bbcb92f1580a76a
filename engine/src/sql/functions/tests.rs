//! Expressions in, texts out, compared with what a real Flink answered (`tests/flink.txt`).

use std::sync::Arc;

use arrow::array::AsArray;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;

use super::{expr_planners, scalar_functions, type_literals_ast};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::parser::parse_query;
use crate::stream::SqlType;

fn session(optimize: bool) -> SessionContext {
    let zone = chrono_tz::Europe::Berlin;
    let config = SessionConfig::new()
        .set_bool("datafusion.sql_parser.enable_ident_normalization", false)
        .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
    let builder = SessionStateBuilder::new()
        .with_config(config)
        .with_scalar_functions(scalar_functions(zone))
        .with_expr_planners(expr_planners(zone));
    let builder = if optimize { builder } else { builder.with_optimizer_rules(Vec::new()) };
    SessionContext::new_with_state(builder.build())
}

/// The rows of a query whose columns are texts, and the types of its columns.
async fn run(ctx: &SessionContext, sql: &str) -> Result<(Vec<String>, Vec<String>)> {
    let mut query = parse_query(sql)?;
    type_literals_ast(&mut query);
    let plan = ctx.state().statement_to_plan(DfStatement::Statement(Box::new(Statement::Query(query)))).await?;
    let types = plan.schema().fields().iter().map(|f| SqlType::of(f).to_string()).collect();
    let mut rows = Vec::new();
    for batch in ctx.execute_logical_plan(plan).await?.collect().await? {
        for row in 0..batch.num_rows() {
            let texts = batch.columns().iter().filter(|c| c.as_string_opt::<i32>().is_some()).map(|c| {
                let c = c.as_string::<i32>();
                if arrow::array::Array::is_null(c, row) { "NULL".to_string() } else { c.value(row).to_string() }
            });
            rows.push(texts.collect::<Vec<_>>().join("|"));
        }
    }
    Ok((rows, types))
}

async fn value(ctx: &SessionContext, expr: &str) -> Result<(String, String)> {
    // The type is that of the expression, read from a plan that is not run.
    let (rows, _) = run(ctx, &format!("SELECT CAST({expr} AS STRING) AS r")).await?;
    let mut query = parse_query(&format!("SELECT {expr} AS r"))?;
    type_literals_ast(&mut query);
    let plan = ctx.state().statement_to_plan(DfStatement::Statement(Box::new(Statement::Query(query)))).await?;
    let plan = ctx.state().optimize(&plan)?;
    let t = SqlType::of(plan.schema().field(0)).to_string();
    Ok((rows.into_iter().next().ok_or_else(|| Error::internal("no row"))?, t))
}

/// Lengths of texts are not kept, so all texts are one type here.
fn plain(t: &str) -> String {
    match t {
        t if t.starts_with("CHAR(") || t.starts_with("VARCHAR(") => "STRING".into(),
        t if t.starts_with("BINARY(") => "BYTES".into(),
        t => t.into(),
    }
}

async fn compare(optimize: bool) {
    let ctx = session(optimize);
    let mut wrong = Vec::new();
    let mut checked = 0;
    for line in include_str!("tests/flink.txt").lines().filter(|l| !l.starts_with('#')) {
        let mut parts = line.splitn(3, " => ");
        let (expr, want, t) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or("?"));
        checked += 1;
        match value(&ctx, expr).await {
            Ok((got, got_t)) if got == want && (t == "?" || plain(t) == plain(&got_t)) => {}
            Ok((got, got_t)) => wrong.push(format!("{expr}\n    want {want} : {t}\n    got  {got} : {got_t}")),
            Err(e) => wrong.push(format!("{expr}\n    want {want} : {t}\n    got  {e}")),
        }
    }
    assert!(checked > 400, "only {checked} expressions");
    assert!(wrong.is_empty(), "{} of {checked} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn values_and_types_are_flinks() {
    compare(true).await;
}

#[tokio::test]
async fn values_are_the_same_without_the_optimizer() {
    compare(false).await;
}
