//! Data in, text out: `cases/accepted.txt` and `cases/refused.txt` hold statements, and behind `=> ` what
//! becomes of them. With UPDATE_CASES set to the folder of the cases they are written anew, and then read.

use super::*;
use crate::sql::ast::{CreateModel, CreateTable, Insert, Statement};

fn shown(statement: &Statement) -> String {
    match statement {
        Statement::Query(q) => q.to_string(),
        Statement::CreateTable(t) => table(t),
        Statement::CreateView(v) => format!("{}: {}", render::show_create_view(v).replace('\n', " "), v.query),
        Statement::CreateModel(m) => {
            let options: Vec<String> = m.options.iter().map(|(k, v)| format!("{} {}={}", place(v.span), k.value, v.value)).collect();
            let CreateModel { name, if_not_exists, comment, query, .. } = &**m;
            format!("model {} {} {if_not_exists} {comment:?} {options:?} {query}", place(name.span), name.value)
        }
        Statement::Insert(i) => insert(i),
        Statement::StatementSet(all) => all.iter().map(|(i, at)| format!("{} {}", place(*at), insert(i))).collect::<Vec<_>>().join("; "),
        Statement::Explain(p) => format!("explain {} {} [{}]", place(p.span), shown(&p.statement), p.text),
        Statement::ShowCreateTable(n) | Statement::ShowCreateView(n) | Statement::Describe(n) | Statement::DescribeModel(n) => {
            let text = format!("{statement:?}");
            format!("{} {} {}", text.split('(').next().unwrap_or_default(), place(n.span), n.value)
        }
        Statement::Drop { view, name, if_exists } => format!("drop view={view} {} {} if_exists={if_exists}", place(name.span), name.value),
        other => format!("{other:?}"),
    }
}

fn table(t: &CreateTable) -> String {
    let watermark = t.watermark.as_ref().map_or(String::new(), |w| format!(" (watermark at {})", place(w.span)));
    format!("{}{watermark}", render::show_create_table(t).replace('\n', " ").replace("  ", " "))
}

fn insert(i: &Insert) -> String {
    let partition: Vec<String> = i.partition.iter().map(|(n, e)| format!("{}={e}", n.value)).collect();
    let columns: Vec<&str> = i.columns.iter().map(|n| n.value.as_str()).collect();
    format!("insert {} {} {partition:?} {columns:?} {}", place(i.table.span), i.table.value, i.query)
}

fn place(s: Span) -> String {
    format!("{}:{}+{}", s.line, s.column, s.width)
}

fn outcome(sql: &str) -> String {
    match parse(sql) {
        Ok(all) => all.iter().map(|p| format!("=> {}\n", shown(&p.statement).trim_end())).collect(),
        Err(e) => {
            let at = e.span().map_or("nowhere".to_string(), place);
            let help = e.help_text().map_or(String::new(), |h| format!("=> help: {h}\n"));
            format!("=> {at} {}\n{help}", e.message())
        }
    }
}

/// Runs every case of a file; differences are shown together.
fn check(file: &str, cases: &str) {
    let anew: String = cases
        .split("\n\n")
        .filter(|c| !c.trim().is_empty())
        .map(|case| {
            let sql: Vec<&str> = case.lines().filter(|l| !l.starts_with("=> ")).collect();
            let sql = sql.join("\n");
            format!("{}\n{}\n", sql.trim(), outcome(sql.trim()))
        })
        .collect();
    if let Ok(folder) = std::env::var("UPDATE_CASES") {
        std::fs::write(format!("{folder}/{file}"), &anew).expect("the folder of the cases can be written");
        return;
    }
    let differences: Vec<String> =
        anew.lines().zip(cases.lines()).filter(|(a, b)| a != b).map(|(a, b)| format!("now    {a}\nbefore {b}")).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(anew.trim(), cases.trim());
}

#[test]
fn accepted_statements() {
    check("accepted.txt", include_str!("cases/accepted.txt"));
}

#[test]
fn refused_statements() {
    let cases = include_str!("cases/refused.txt");
    check("refused.txt", cases);
    assert!(!cases.contains("=> nowhere") && !cases.contains("=> 0:"), "every error has a place");
}

#[test]
fn a_file_is_read_in_order() {
    let all = parse("SET 'a' = 'b'; -- c\nSELECT /* x */ 1;;\nSHOW TABLES").expect("it is right");
    let read: Vec<(String, &str)> = all.iter().map(|p| (place(p.span), p.text.as_str())).collect();
    assert_eq!(read, [("1:1+3".into(), "SET 'a' = 'b'"), ("2:1+6".into(), "SELECT /* x */ 1"), ("3:1+4".into(), "SHOW TABLES")]);
}

#[test]
fn places_count_characters_not_bytes() {
    let e = parse("SELECT 'é😀',\n\t'é', value FROM t").expect_err("reserved");
    assert_eq!(e.span().map(place), Some("2:7+5".into()));
}

#[test]
fn expressions_and_queries_stand_alone() {
    assert_eq!(parse_expr("a > 1 AND YEAR(ts) = 2024").expect("it is right").to_string(), "a > 1 AND `$extract`('YEAR', ts) = 2024");
    assert_eq!(parse_query("SELECT 1").expect("it is right").to_string(), "SELECT 1");
    assert_eq!(parse_expr("a b").expect_err("too much").message(), "expected the end of the expression, or ';', found 'b'");
}

#[test]
fn aliases_in_group_by_are_found() {
    use datafusion::sql::sqlparser::ast::SetExpr;
    let q = parse_query("SELECT a AS x, b FROM t GROUP BY x, b").expect("it is right");
    let SetExpr::Select(s) = *q.body else { panic!("a SELECT") };
    assert_eq!(group_by_aliases(&s).iter().map(|n| n.value.as_str()).collect::<Vec<_>>(), ["x"]);
}

#[test]
fn slash_comments_are_warned_about() {
    assert_eq!(warnings("SELECT 1 // 'x\n, 'a//b'").iter().map(|(s, _)| place(*s)).collect::<Vec<_>>(), ["1:10+2"]);
}

#[test]
fn nesting_and_rubbish_end_in_an_error() {
    for (one, glue) in [("a = 1", " AND "), ("a", "."), ("a", " || ")] {
        let sql = format!("SELECT a FROM t WHERE {}", vec![one; 20_000].join(glue));
        assert!(parse(&sql).expect_err("too long").message().contains("in one chain"));
    }
    assert!(parse(&vec!["SELECT 1"; 5000].join(" UNION ALL ")).expect_err("too long").message().contains("in one chain"));
    assert!(parse(&format!("SELECT CAST(a AS {}", "ROW(x ".repeat(5000))).expect_err("too deep").message().contains("parentheses"));
    parse(&format!("SELECT a FROM t WHERE {}", vec!["a = 1"; 240].join(" OR "))).expect("long, not too long");
    for sql in [
        "SELECT ".to_string() + &"(".repeat(5000),
        "SELECT ".to_string() + &"NOT ".repeat(5000) + "a",
        "SELECT * FROM ".to_string() + &"(SELECT a FROM ".repeat(500),
    ] {
        assert!(parse(&sql).expect_err("too deep").span().is_some());
    }
    for sql in [
        "\u{0}",
        "'",
        "`",
        "/*",
        "`` ",
        "SELECT `` FROM t",
        "SELECT a.",
        "CREATE",
        "CREATE TABLE",
        "SELECT CAST(",
        "WITH",
        "SET =",
        "END",
        ")",
    ] {
        parse(sql).expect_err(sql);
    }
}

#[test]
fn a_window_call_has_its_lengths_by_meaning() {
    use datafusion::sql::sqlparser::ast::SetExpr;
    let q = parse_query("SELECT * FROM HOP(TABLE default_catalog.default_database.t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE, INTERVAL -'3' SECOND) AS w").expect("it is right");
    let SetExpr::Select(s) = *q.body else { panic!("a SELECT") };
    let w = tvf::window_call(&s.from[0].relation).expect("it is right").expect("a window");
    let tvf::WindowInput::Table(t) = &w.input else { panic!("a table") };
    assert_eq!(
        (t.to_string(), w.time_column.value, w.slide_ms, w.size_ms, w.offset_ms),
        ("t".into(), "ts".into(), Some(60_000), Some(300_000), -3_000)
    );
    assert_eq!((w.function.name(), w.alias.map(|a| a.name.value)), ("HOP", Some("w".into())));
}
