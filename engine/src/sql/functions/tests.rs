//! Expressions in, texts out, compared with what a real Flink answered (`tests/*.txt`).

use arrow::array::{Array, AsArray};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;

use super::{expr_planners, known_functions, scalar_functions, type_literals_ast};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::parser::parse_query;
use crate::stream::SqlType;

/// Two rows whose columns are no constants.
const VIEW: &str = "(SELECT CAST(d AS DATE) AS d, CAST(t AS TIME) AS t, CAST(ts AS TIMESTAMP(3)) AS ts, CAST(ts AS TIMESTAMP_LTZ(3)) AS l, i, \
     CAST(x AS DOUBLE) AS x, CAST(big AS DECIMAL(38, 0)) AS big, s, CAST(NULL AS STRING) AS n, ARRAY[i, 2] AS a, MAP[s, i] AS m, ROW(i, s) AS r \
     FROM (VALUES \
       ('2024-01-31', '23:30:00', '2024-03-31 02:30:00.123', 7, 2.5, '99999999999999999999999999999999999999', 'héllo'), \
       ('1969-12-31', '00:10:00', '1969-12-31 23:59:59.999', -7, -0.5, '1', '')) AS q(d, t, ts, i, x, big, s)) AS v";

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

async fn plan(ctx: &SessionContext, sql: &str) -> Result<LogicalPlan> {
    let mut query = parse_query(sql)?;
    type_literals_ast(&mut query);
    Ok(ctx.state().statement_to_plan(DfStatement::Statement(Box::new(Statement::Query(query)))).await?)
}

/// The values of each expression, as texts: one list a row.
async fn values(ctx: &SessionContext, exprs: &[&str], from: &str) -> Result<Vec<Vec<String>>> {
    let columns: Vec<String> = exprs.iter().enumerate().map(|(i, e)| format!("CAST({e} AS STRING) AS c{i}")).collect();
    let plan = plan(ctx, &format!("SELECT {} {from}", columns.join(", "))).await?;
    let mut rows = Vec::new();
    for batch in ctx.execute_logical_plan(plan).await?.collect().await? {
        for row in 0..batch.num_rows() {
            let text =
                |c: &arrow::array::ArrayRef| if c.is_null(row) { "NULL".to_string() } else { c.as_string::<i32>().value(row).to_string() };
            rows.push(batch.columns().iter().map(text).collect());
        }
    }
    Ok(rows)
}

async fn types(ctx: &SessionContext, exprs: &[&str]) -> Result<Vec<String>> {
    let columns: Vec<String> = exprs.iter().enumerate().map(|(i, e)| format!("{e} AS c{i}")).collect();
    let plan = plan(ctx, &format!("SELECT {}", columns.join(", "))).await?;
    Ok(ctx.state().optimize(&plan)?.schema().fields().iter().map(|f| SqlType::of(f).to_string()).collect())
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
    let lines = include_str!("tests/flink.txt").lines().filter(|l| !l.starts_with('#'));
    let cases: Vec<Vec<&str>> = lines.map(|l| l.splitn(3, " => ").collect()).collect();
    assert!(cases.len() > 400, "only {} expressions", cases.len());
    let mut wrong = Vec::new();
    // Many in one query, because planning costs more than computing; one by one where something differs.
    for chunk in cases.chunks(30) {
        let check = |case: &[&str], value: &str, t: &str| {
            let right = value == case[1] && (case[2] == "?" || plain(case[2]) == plain(t));
            (!right).then(|| format!("{}\n    want {} : {}\n    got  {value} : {t}", case[0], case[1], case[2]))
        };
        let exprs: Vec<&str> = chunk.iter().map(|c| c[0]).collect();
        match (values(&ctx, &exprs, "").await, types(&ctx, &exprs).await) {
            (Ok(v), Ok(t)) => wrong.extend(chunk.iter().enumerate().filter_map(|(i, c)| check(c, &v[0][i], &t[i]))),
            _ => {
                for case in chunk {
                    match (values(&ctx, &case[..1], "").await, types(&ctx, &case[..1]).await) {
                        (Ok(v), Ok(t)) => wrong.extend(check(case, &v[0][0], &t[0])),
                        (Err(e), _) | (_, Err(e)) => wrong.push(format!("{}\n    want {} : {}\n    got  {e}", case[0], case[1], case[2])),
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn values_and_types_are_flinks() {
    compare(true).await;
}

#[tokio::test]
async fn values_are_the_same_without_the_optimizer() {
    compare(false).await;
}

#[tokio::test]
async fn columns_give_what_constants_give() {
    let mut wrong = Vec::new();
    for ctx in [session(true), session(false)] {
        for line in include_str!("tests/columns.txt").lines().filter(|l| !l.starts_with('#')) {
            let (expr, want) = line.split_once(" => ").expect("a case is `expression => row 1 | row 2`");
            let got = match values(&ctx, &[expr], &format!("FROM {VIEW}")).await {
                Ok(rows) => rows.into_iter().flatten().collect::<Vec<_>>().join(" | "),
                Err(e) => e.to_string(),
            };
            if got != want {
                wrong.push(format!("{expr}\n    want {want}\n    got  {got}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn what_flink_refuses_is_refused_with_a_reason() {
    let ctx = session(true);
    let mut wrong = Vec::new();
    for line in include_str!("tests/errors.txt").lines().filter(|l| !l.starts_with('#')) {
        let (expr, want) = line.split_once(" => ").expect("a case is `expression => kind: message`");
        let got = match values(&ctx, &[expr], "").await {
            Ok(rows) => format!("{rows:?}"),
            Err(e) => format!("{}: {}", if e.kind() == ErrorKind::Data { "data" } else { "user" }, full(&e)),
        };
        if got != want {
            wrong.push(format!("{expr} => {got}\n    want {want}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn full(e: &Error) -> String {
    match e.help_text() {
        Some(help) => format!("{} (help: {help})", e.message()),
        None => e.to_string(),
    }
}

#[tokio::test]
async fn counts_stay_plain_numbers_and_the_rest_folds_to_literals() {
    let ctx = session(true);
    let sql = "SELECT 1 AS a, 2147483648 AS b, -1.50 AS c, x BETWEEN 'a' AND 'b' AS d FROM (VALUES ('a'), ('b')) AS t(x) ORDER BY 1 LIMIT 1 OFFSET 1";
    let plan = ctx.state().optimize(&plan(&ctx, sql).await.expect("plans")).expect("optimizes").display_indent().to_string();
    assert!(plan.contains("Int32(1) AS a, Int64(2147483648) AS b, Decimal128(-1.50,3,2) AS c"), "{plan}");
    assert!(plan.contains("Limit: skip=1, fetch=1") && !plan.contains("$number"), "{plan}");
}

#[tokio::test]
async fn guarded_arguments_are_not_computed() {
    let ctx = session(true);
    let guarded = ["CASE WHEN i = 0 THEN 0 ELSE 7 / i END", "COALESCE(i, 1 / (i - i))", "IF(i <> 0, 7 / i, 0)"];
    let rows = values(&ctx, &guarded, "FROM (VALUES (0), (7)) AS t(i)").await.expect("no division by zero");
    assert_eq!(rows, [["0", "0", "0"], ["1", "7", "1"]]);
}

#[tokio::test]
async fn every_function_has_one_place_and_a_nearest_name() {
    let names = known_functions();
    assert!(names.contains(&"DATE_FORMAT") && names.iter().all(|n| !n.starts_with('$')));
    assert_eq!(crate::error::nearest("DATEFORMAT", names.iter().copied()), Some("DATE_FORMAT"));
    let mut all: Vec<String> = scalar_functions(chrono_tz::UTC)
        .iter()
        .flat_map(|f| std::iter::once(f.name().to_string()).chain(f.aliases().iter().cloned()))
        .collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "no name stands for two functions");
}
