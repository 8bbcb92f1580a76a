//! Public data, dirt and all, decodes through SQL: row counts and aggregates against a reading of the test's own.
//!
//! The files lie in `../shared/data` beside the project's folder (or in `VELOSQL_TEST_DATA`); where they are not,
//! a test says so and does nothing. Each has a twin on records that are made here, with the same dirt: those
//! always run.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use velosql::cli::generate::{VelibOptions, make_stations, velib_records, write_stations};

use crate::process::Place;

/// A file of the public data; says so where it is absent.
fn public(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let path = std::env::var_os("VELOSQL_TEST_DATA").map_or_else(beside, PathBuf::from).join(name);
    if !path.exists() {
        eprintln!("{name}: skipped, there is no such file beside the project (VELOSQL_TEST_DATA names another folder)");
        return None;
    }
    Some(path.canonicalize().expect("an existing file"))
}

fn text_of(path: &Path) -> String {
    let mut file = std::fs::File::open(path).expect("a file");
    let mut text = String::new();
    let read = if path.extension().is_some_and(|e| e == "gz") {
        flate2::read::GzDecoder::new(file).read_to_string(&mut text)
    } else {
        file.read_to_string(&mut text)
    };
    read.expect("text");
    text
}

fn packed(content: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(content).and_then(|()| gz.finish()).expect("packs")
}

/// What is asked of each table: rows, a sum, a number of different values, the ends of a number.
#[derive(Debug, PartialEq)]
struct Facts {
    rows: i64,
    sum: i64,
    different: i64,
    least: f64,
    most: f64,
}

impl Facts {
    fn of(rows: impl Iterator<Item = (Option<i64>, Option<String>, Option<f64>)>) -> Self {
        let mut facts = Self { rows: 0, sum: 0, different: 0, least: f64::INFINITY, most: f64::NEG_INFINITY };
        let mut values = BTreeSet::new();
        for (number, value, measure) in rows {
            facts.rows += 1;
            facts.sum += number.unwrap_or(0);
            values.extend(value);
            facts.least = measure.map_or(facts.least, |m| facts.least.min(m));
            facts.most = measure.map_or(facts.most, |m| facts.most.max(m));
        }
        facts.different = values.len() as i64;
        facts
    }

    /// The last change of `SELECT COUNT(*), SUM(…), COUNT(DISTINCT …), MIN(…), MAX(…)`.
    fn read(stdout: &str) -> Self {
        let last = stdout.lines().last().unwrap_or_else(|| panic!("no rows"));
        let cells: Vec<&str> = last.split_once('[').map_or(last, |(_, c)| c).trim_end_matches(']').split(", ").collect();
        let [rows, sum, different, least, most] = cells[..] else { panic!("{last}: five columns were asked for") };
        let whole = |t: &str| t.parse().unwrap_or_else(|_| panic!("{last}: '{t}' is no whole number"));
        let measure = |t: &str| t.parse().unwrap_or_else(|_| panic!("{last}: '{t}' is no number"));
        Self { rows: whole(rows), sum: whole(sum), different: whole(different), least: measure(least), most: measure(most) }
    }
}

/// Which columns of a CSV file with a header are asked for.
struct Columns {
    sum: &'static str,
    different: &'static str,
    measure: &'static str,
    /// What stands for nothing.
    null: &'static str,
}

/// One CSV file through SQL and through the test's own reading.
fn csv(path: &Path, columns: &Columns) -> Facts {
    let text = text_of(path);
    let mut records = records(&text);
    let header = records.remove(0);
    let at = |name: &str| header.iter().position(|h| h == name).unwrap_or_else(|| panic!("{}: no column {name}", path.display()));
    let (sum, different, measure) = (at(columns.sum), at(columns.different), at(columns.measure));
    let some = |record: &[String], i: usize| Some(record[i].clone()).filter(|t| t != columns.null);
    let number = |t: String| t.trim().parse::<i64>().unwrap_or_else(|_| panic!("'{t}' is no whole number"));
    let expected = Facts::of(records.iter().map(|r| {
        assert_eq!(r.len(), header.len(), "{}: {r:?}", path.display());
        (some(r, sum).map(number), some(r, different), some(r, measure).map(|t| t.trim().parse().expect("a number")))
    }));

    let type_of = |i: usize| match i {
        _ if i == sum => "BIGINT",
        _ if i == measure => "DOUBLE",
        _ => "STRING",
    };
    // A column without a name is an index that somebody's tool has left there.
    let declared: Vec<String> =
        header.iter().enumerate().map(|(i, h)| format!("`{}` {}", if h.is_empty() { "index" } else { h }, type_of(i))).collect();
    let place = Place::new();
    place.put(
        "q.sql",
        format!(
            "SET 'velosql.table.t.csv-header' = 'true';\nCREATE TABLE t ({}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv', 'csv.null-literal' = '{}');\n
             SELECT COUNT(*), SUM(`{}`), COUNT(DISTINCT `{}`), MIN(`{m}`), MAX(`{m}`) FROM t;",
            declared.join(", "),
            path.display(),
            columns.null,
            columns.sum,
            columns.different,
            m = columns.measure
        ),
    );
    let got = Facts::read(&place.done(&["run", "q.sql", "--quiet"]).stdout);
    assert_eq!(got, expected, "{}", path.display());
    got
}

/// RFC 4180, by hand: quotes, doubled quotes, line ends within quotes, CRLF.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.push(chars.next().expect("peeked")),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            c => field.push(c),
        }
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    records
}

const STATIONS: Columns = Columns { sum: "capacity", different: "postcode", measure: "lat", null: "" };

#[test]
fn public_csv_files_decode() {
    let files: [(&str, Columns); 8] = [
        ("velib/stations_information.csv", STATIONS),
        (
            "accidents/uk_accident_stats19_london_2005_original.csv.gz",
            Columns { sum: "Number_of_Casualties", different: "Road_Type", measure: "Longitude", null: "" },
        ),
        ("accidents/edinburgh_stats19_2010_2013.csv.gz", Columns { sum: "no_casualt", different: "weather", measure: "lat", null: "" }),
        ("crime/la_crime_2020.csv.gz", Columns { sum: "TIME OCC", different: "Weapon Desc", measure: "LON", null: "" }),
        ("cars/ford.csv.gz", Columns { sum: "year", different: "model", measure: "mpg", null: "" }),
        (
            "smart_home/smart_home_device_usage_data.csv.gz",
            Columns { sum: "MalfunctionIncidents", different: "DeviceType", measure: "EnergyConsumption", null: "" },
        ),
        ("crypto/Binance_BTCUSDT_1h.csv.gz", Columns { sum: "tradecount", different: "date", measure: "unix", null: "NULL" }),
        ("crypto/Binance_ETHUSDT_1h.csv.gz", Columns { sum: "tradecount", different: "unix", measure: "close", null: "NULL" }),
    ];
    for (name, columns) in files {
        if let Some(path) = public(name) {
            eprintln!("{name}: {} rows", csv(&path, &columns).rows);
        }
    }
}

#[test]
fn generated_csv_files_decode() {
    let place = Place::new();
    let day = VelibOptions::default();
    let mut stations = Vec::new();
    write_stations(&mut stations, &make_stations(day.seed, day.stations)).expect("written to memory");
    place.put("stations.csv", &stations);
    place.put("stations.csv.gz", packed(&stations));
    assert_eq!(csv(&place.path("stations.csv"), &STATIONS).rows, 1485);
    assert_eq!(csv(&place.path("stations.csv.gz"), &STATIONS).rows, 1485);
    // The dirt of the public files in one: an index column, blanks, quotes, line ends, nothing, a byte order mark.
    let mut dirty = String::from("\u{feff},make,model,year,note,price\r\n");
    for i in 0..2_500 {
        let year = if i == 1_234 { 2060 } else { 2000 + i % 24 };
        let note = ["plain", "\"with, comma\"", "\"say \"\"so\"\"\"", "\"two\nlines\"", ""][i % 5];
        let price = if i % 11 == 0 { String::new() } else { format!("{}.{:08}", i * 7, i) };
        dirty += &format!("{i},ford, Model {},{year},{note},{price}\r\n", i % 37);
    }
    place.put("dirty.csv", dirty);
    let facts = csv(&place.path("dirty.csv"), &Columns { sum: "year", different: "note", measure: "price", null: "" });
    assert_eq!((facts.rows, facts.different), (2_500, 4));
    csv(&place.path("dirty.csv"), &Columns { sum: "year", different: "model", measure: "price", null: "" });
}

const FEED: &str =
    "stationcode STRING, numbikesavailable INT, ebike INT, duedate STRING, coordonnees_geo ROW<lon DOUBLE, lat DOUBLE>, is_renting STRING";

fn feed_query(path: &Path, settings: &str) -> String {
    format!(
        "{settings}CREATE TABLE t ({FEED}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         SELECT COUNT(*), SUM(numbikesavailable), COUNT(DISTINCT duedate), MIN(coordonnees_geo.lon), MAX(coordonnees_geo.lon) FROM t;",
        path.display()
    )
}

fn facts_of(records: &[Value]) -> Facts {
    Facts::of(
        records
            .iter()
            .map(|r| (r["numbikesavailable"].as_i64(), r["duedate"].as_str().map(str::to_string), r["coordonnees_geo"]["lon"].as_f64())),
    )
}

/// A day of station records: JSON lines.
fn day(path: &Path) -> Facts {
    let records: Vec<Value> = text_of(path).lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let place = Place::new();
    place.put("q.sql", feed_query(path, ""));
    let got = Facts::read(&place.done(&["run", "q.sql", "--quiet"]).stdout);
    assert_eq!(got, facts_of(&records), "{}", path.display());
    got
}

#[test]
fn a_public_day_of_station_records_decodes() {
    if let Some(path) = public("velib/velib_2024-11-09.jsonl.gz") {
        assert_eq!(day(&path).rows, 151_470);
    }
}

#[test]
fn a_generated_day_of_station_records_decodes() {
    let place = Place::new();
    let mut lines = Vec::new();
    for (_, record) in velib_records(&VelibOptions { polls: 3, ..VelibOptions::default() }) {
        lines.extend(record);
        lines.push(b'\n');
    }
    place.put("day.jsonl", &lines);
    place.put("packed.jsonl.gz", packed(&lines));
    assert_eq!(day(&place.path("day.jsonl")).rows, 3 * 1485);
    day(&place.path("packed.jsonl.gz"));
}

/// A poll that lacks codes: `MIN` and `MAX` of nothing are NULL, so the ends are not asked for.
fn without_codes(path: &Path) {
    let records: Vec<Value> = serde_json::from_str(&text_of(path)).expect("an array");
    let place = Place::new();
    place.put(
        "q.sql",
        format!(
            "CREATE TABLE t ({FEED}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
             SELECT COUNT(*), COUNT(stationcode), COUNT(ebike), SUM(numbikesavailable), COUNT(DISTINCT duedate), COUNT(coordonnees_geo) FROM t;",
            path.display()
        ),
    );
    let stdout = place.done(&["run", "q.sql", "--quiet"]).stdout;
    let facts = facts_of(&records);
    let there = |key: &str| records.iter().filter(|r| !r[key].is_null()).count();
    let cells =
        [facts.rows, there("stationcode") as i64, there("ebike") as i64, facts.sum, facts.different, there("coordonnees_geo") as i64];
    let expected = cells.map(|c| c.to_string()).join(", ");
    assert!(
        stdout.lines().last().is_some_and(|l| l.ends_with(&format!("[{expected}]"))),
        "{}: [{expected}] is expected: {stdout}",
        path.display()
    );
}

/// A poll that ends inside a string: refused, or kept apart, as the policy says. As in Flink, the records before
/// the break have been read by then; the one that breaks is never half a row.
fn cut_off(path: &Path) {
    let text = text_of(path);
    let whole = text.rfind("},{").or_else(|| text.rfind("}, {")).expect("several records");
    let whole: Vec<Value> = serde_json::from_str(&format!("{}}}]", &text[..whole])).expect("an array");
    let before: String = whole.iter().map(|r| format!("+I[{}]\n", r["stationcode"].as_str().expect("a code"))).collect();
    let run = |settings: &str| {
        let place = Place::new();
        place.put(
            "q.sql",
            feed_query(path, settings).replace(
                "SELECT COUNT(*), SUM(numbikesavailable), COUNT(DISTINCT duedate), MIN(coordonnees_geo.lon), MAX(coordonnees_geo.lon)",
                "SELECT stationcode",
            ),
        );
        let ran = place.run(&["run", "q.sql", "--quiet", "--summary", "summary.json"]);
        assert!(before.starts_with(&ran.stdout), "{}: half a record is a row", path.display());
        assert!(ran.status == 3 || ran.stdout == before, "{}: the records before the break are rows", path.display());
        (ran, place)
    };
    let (ran, _) = run("");
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains(&path.display().to_string()) && ran.stderr.contains("help: "), "{}", ran.stderr);
    let (ran, place) = run("SET 'velosql.table.t.bad-records' = 'skip';\n");
    assert_eq!((ran.status, &place.summary("summary.json")["rejected"]), (0, &1.into()), "{}", ran.stderr);
    let (ran, place) = run("SET 'velosql.table.t.bad-records' = 'dead-letter';\nSET 'velosql.table.t.dead-letter' = 'dead';\n");
    assert_eq!((ran.status, &place.summary("summary.json")["rejected"]), (0, &1.into()), "{}", ran.stderr);
    let kept = std::fs::read_dir(place.path("dead")).expect("a folder of dead letters").flatten().filter(|e| e.path().is_file()).count();
    assert_eq!(kept, 1, "the record is kept");
}

#[test]
fn public_polls_that_are_damaged() {
    if let Some(path) = public("velib/velib_raw_degraded_no_code_20241101_095502.json.gz") {
        without_codes(&path);
    }
    if let Some(path) = public("velib/velib_raw_truncated_20241105_112001.json.gz") {
        cut_off(&path);
    }
}

#[test]
fn generated_polls_that_are_damaged() {
    let place = Place::new();
    let mut records: Vec<Value> = velib_records(&VelibOptions { polls: 1, every: 5, ..VelibOptions::default() })
        .map(|(_, r)| serde_json::from_slice::<Value>(&r).expect("JSON"))
        .collect();
    let whole = serde_json::to_string(&records).expect("JSON");
    let inside = whole.rfind("\"nom_arrondissement_communes\":\"").expect("a field") + 33;
    place.put("cut.json", &whole[..inside]);
    cut_off(&place.path("cut.json"));
    for record in &mut records {
        for key in ["stationcode", "name", "capacity", "mechanical", "ebike", "coordonnees_geo"] {
            record[key] = Value::Null;
        }
    }
    place.put("no_code.json", serde_json::to_string(&records).expect("JSON"));
    without_codes(&place.path("no_code.json"));
}

/// One nested document: its list of stations is an array of rows.
fn nested(path: &Path, columns: &str, field: &str) {
    let document: Value = serde_json::from_str(&text_of(path)).expect("JSON");
    let stations = document["data"]["stations"].as_array().expect("a list");
    let place = Place::new();
    place.put(
        "q.sql",
        format!(
            "CREATE TABLE t (ttl INT, `data` ROW<stations ARRAY<ROW<{columns}>>>) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
             SELECT ttl, CARDINALITY(`data`.stations), `data`.stations[1].`stationCode`, `data`.stations[{n}].`{field}` FROM t;",
            path.display(),
            n = stations.len()
        ),
    );
    let stdout = place.done(&["run", "q.sql", "--quiet"]).stdout;
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let expected = format!(
        "+I[{}, {}, {}, {}]\n",
        document["ttl"],
        stations.len(),
        text(&stations[0]["stationCode"]),
        text(&stations[stations.len() - 1][field])
    );
    assert_eq!(stdout, expected, "{}", path.display());
}

const INFORMATION: &str =
    "station_id BIGINT, `stationCode` STRING, name STRING, lat DOUBLE, lon DOUBLE, capacity INT, rental_methods ARRAY<STRING>";
const STATUS: &str =
    "`stationCode` STRING, num_bikes_available INT, num_bikes_available_types ARRAY<MAP<STRING, INT>>, last_reported BIGINT";

#[test]
fn public_nested_documents_decode() {
    if let Some(path) = public("velib/velib_gbfs_station_information_2025-10-18.json.gz") {
        nested(&path, INFORMATION, "capacity");
    }
    if let Some(path) = public("velib/velib_gbfs_station_status_2025-10-18.json.gz") {
        nested(&path, STATUS, "last_reported");
    }
}

#[test]
fn generated_nested_documents_decode() {
    let place = Place::new();
    let stations: Vec<Value> = make_stations(1, 300)
        .iter()
        .map(|s| {
            serde_json::json!({"station_id": s.id, "stationCode": s.code.to_string(), "name": s.name, "lat": s.lat, "lon": s.lon, "capacity": s.capacity,
                "rental_methods": ["CREDITCARD"], "num_bikes_available": 3, "num_bikes_available_types": [{"mechanical": 1}, {"ebike": 2}], "last_reported": 1_760_776_294})
        })
        .collect();
    let document = serde_json::json!({"lastUpdatedOther": 1_760_778_679, "ttl": 3600, "data": {"stations": stations}});
    place.put("document.json.gz", packed(document.to_string().as_bytes()));
    nested(&place.path("document.json.gz"), INFORMATION, "capacity");
    nested(&place.path("document.json.gz"), STATUS, "last_reported");
}
