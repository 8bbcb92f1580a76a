//! `velosql models list|show|compare|alias|rollback|export`: what lies in a registry, and which version is meant.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::execute::print;
use super::progress::count;
use super::table::{TextTable, terminal_width};
use crate::error::Result;
use crate::models::registry::{Comparison, Manifest, Registry, Selector};
use crate::models::task::Task;

/// Files that `show` names before it counts the others.
const FILES_SHOWN: usize = 10;

/// `velosql models …`
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: ModelsCommand,
    /// The registry of models
    #[arg(long, global = true, value_name = "DIR", default_value = "models")]
    pub models: PathBuf,
    /// Answers as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What can be done with models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Lists versions of all models, or of one
    List {
        /// The model
        name: Option<String>,
    },
    /// Shows what is known about a version
    Show {
        /// The model
        name: String,
        /// A version or an alias (else the champion, or the newest)
        version: Option<String>,
    },
    /// Shows metrics of two versions side by side, and what else differs
    Compare {
        /// The model
        name: String,
        /// A version or an alias
        a: String,
        /// Another one (else the champion, or the newest)
        b: Option<String>,
    },
    /// Lets an alias, such as champion, name a version
    Alias {
        /// The model
        name: String,
        /// The alias
        alias: String,
        /// The version, or an alias of it
        #[arg(required_unless_present = "remove")]
        version: Option<String>,
        /// Takes the alias away
        #[arg(long, conflicts_with = "version")]
        remove: bool,
    },
    /// Lets the champion be the version that it was before
    Rollback {
        /// The model
        name: String,
    },
    /// Copies a version into another registry
    Export {
        /// The model
        name: String,
        /// A version or an alias (else the champion, or the newest)
        version: Option<String>,
        /// The folder, which is then a registry with this version
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

/// Runs the command. Answers the exit status.
///
/// # Errors
/// User: no such model, version or alias. State: a version that is broken. External: the folder cannot be read.
pub fn models(args: &ModelsArgs) -> Result<u8> {
    let registry = Registry::new(&args.models);
    match &args.what {
        ModelsCommand::List { name } => list(&registry, name.as_deref(), args.json)?,
        ModelsCommand::Show { name, version } => {
            let version = registry.resolve(name, &selector(version.as_deref())?)?;
            // A broken version is shown as far as it can be, by the error that says why.
            let served = registry.load(name, &Selector::Version(version))?;
            let aliases = registry.aliases(name)?.into_iter().filter(|(_, v)| *v == version).map(|(alias, _)| alias).collect::<Vec<_>>();
            match args.json {
                true => print(&pretty(&json!({ "aliases": aliases, "manifest": served.manifest }))),
                false => print(&shown(&served.manifest, &aliases)),
            }
        }
        ModelsCommand::Compare { name, a, b } => {
            let comparison = registry.compare(name, &selector(Some(a))?, &selector(b.as_deref())?)?;
            match args.json {
                true => print(&pretty(&json!(comparison))),
                false => compared(&comparison),
            }
        }
        ModelsCommand::Alias { name, alias, version: None, .. } => {
            registry.remove_alias(name, alias)?;
            eprintln!("model '{name}' has no alias '{alias}' any more");
        }
        ModelsCommand::Alias { name, alias, version: Some(version), .. } => {
            let version = registry.set_alias(name, alias, &Selector::parse(version)?)?;
            match args.json {
                true => print(&pretty(&json!({ "model": name, "alias": alias, "version": version }))),
                false => eprintln!("model '{name}': {alias} is version {version}"),
            }
        }
        ModelsCommand::Rollback { name } => {
            let (from, to) = registry.rollback(name)?;
            match args.json {
                true => print(&pretty(&json!({ "model": name, "from": from, "to": to }))),
                false => eprintln!("model '{name}': the champion is version {to} again, and was {from}"),
            }
        }
        ModelsCommand::Export { name, version, to } => {
            let place = registry.export(name, &selector(version.as_deref())?, to)?;
            match args.json {
                true => print(&pretty(&json!({ "path": place }))),
                false => eprintln!("copied to {}; '--models {}' reads it", place.display(), to.display()),
            }
        }
    }
    Ok(0)
}

fn selector(text: Option<&str>) -> Result<Selector> {
    Selector::parse(text.unwrap_or_default())
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

fn list(registry: &Registry, name: Option<&str>, as_json: bool) -> Result<()> {
    if let Some(name) = name {
        // Says that there is no such model, and which is near.
        registry.resolve(name, &Selector::Champion)?;
    }
    let mut all = registry.list()?;
    all.retain(|l| name.is_none_or(|name| l.name == name));
    if as_json {
        print(&pretty(&json!(all)));
        return Ok(());
    }
    if all.is_empty() {
        eprintln!("there is no model in {}; train one with CREATE MODEL", registry.root().display());
        return Ok(());
    }
    let mut table = TextTable::new([
        ("model", false),
        ("version", true),
        ("aliases", false),
        ("task", false),
        ("algorithm", false),
        ("rows", true),
        ("measured", false),
        ("created", false),
    ]);
    for listed in &all {
        let version = listed.version.map(|v| v.to_string()).unwrap_or_default();
        let aliases = listed.aliases.join(", ");
        match (&listed.manifest, &listed.broken) {
            (Some(m), _) => table.push([
                listed.name.clone(),
                version,
                aliases,
                m.task.to_string(),
                m.algorithm.to_string(),
                count(m.lineage.rows),
                measured(m),
                m.created.clone(),
            ]),
            (None, broken) => table.push([
                listed.name.clone(),
                version,
                aliases,
                String::new(),
                String::new(),
                String::new(),
                format!("refused: {}", first_line(broken)),
                String::new(),
            ]),
        }
    }
    print(&table.draw(terminal_width()));
    Ok(())
}

fn first_line(text: &Option<String>) -> &str {
    text.as_deref().and_then(|t| t.lines().next()).unwrap_or("it cannot be read")
}

/// The metrics that a person asks for first.
fn measured(m: &Manifest) -> String {
    let wanted: &[&str] = match m.task {
        Task::Classification => &["accuracy", "macro_f1"],
        Task::Regression => &["rmse", "r2"],
        Task::Clustering => &["silhouette", "inertia"],
    };
    let one = |name: &&str| m.metrics.get(*name).map(|v| format!("{name} {}", number(*v)));
    wanted.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

/// Four digits that count.
pub fn number(v: f64) -> String {
    match v.abs() {
        _ if v.is_nan() => "—".to_string(),
        0.0 => "0".to_string(),
        a if !(1e-4..1e15).contains(&a) => format!("{v:.3e}"),
        a => {
            let decimals = (3 - a.log10().floor() as i32).max(0) as usize;
            let text = format!("{v:.decimals$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
        }
    }
}

fn shown(m: &Manifest, aliases: &[String]) -> String {
    let mut out = format!("{} version {}", m.name, m.version);
    if !aliases.is_empty() {
        out += &format!(" ({})", aliases.join(", "));
    }
    out += &format!("\n{} by {}, seed {}, published {}\n", m.task, m.algorithm, m.seed, m.created);
    let l = &m.lineage;
    out += &format!("{} rows trained on, {} held out, {} refused\n", count(l.rows), count(l.rows_held_out), count(l.rows_refused));
    if let Some(verdict) = &m.verdict {
        out += &format!("gate {}: {}\n", verdict.gate, verdict.terms.join("; "));
    }

    let mut metrics =
        TextTable::new([("metric", false), (if l.rows_held_out > 0 { "held out" } else { "rows" }, true), ("trained on", true)]);
    let value = |name: &str| m.metrics.get(name).map(|v| number(*v)).unwrap_or_default();
    for name in m.metrics.keys().filter(|name| !name.starts_with("train_")) {
        metrics.push([name.clone(), value(name), value(&format!("train_{name}"))]);
    }
    out += &format!("\n{}", metrics.draw(terminal_width()));

    if let (Some(rows), Some(label)) = (&m.confusion, &m.label) {
        let names = label.names();
        let title = format!("{} is \\ said", label.field);
        let mut table = TextTable::new(std::iter::once((title.as_str(), false)).chain(names.iter().map(|n| (n.as_str(), true))));
        for (name, row) in names.iter().zip(rows) {
            table.push(std::iter::once(name.clone()).chain(row.iter().map(|v| number(*v))));
        }
        out += &format!("\n{}", table.draw(terminal_width()));
    }

    let mut fields = TextTable::new([("input", false), ("type", false), ("may be null", false)]);
    m.inputs.iter().for_each(|f| fields.push([f.name.as_str(), f.sql_type.as_str(), if f.nullable { "yes" } else { "no" }]));
    out += &format!("\n{}", fields.draw(terminal_width()));

    if !l.files.is_empty() {
        let mut files = TextTable::new([("file", false), ("rows", true), ("bytes", true), ("sha256", false)]);
        for f in l.files.iter().take(FILES_SHOWN) {
            files.push([f.path.clone(), count(f.rows), count(f.bytes), f.sha256.chars().take(12).collect()]);
        }
        out += &format!("\n{}", files.draw(terminal_width()));
        if l.files.len() > FILES_SHOWN {
            out += &format!("and {} more files (--json names them all)\n", l.files.len() - FILES_SHOWN);
        }
    }
    for (topic, partitions) in &l.offsets {
        for (partition, (from, to)) in partitions {
            out += &format!("\ntopic {topic} partition {partition}: offsets {from} to {to} (exclusive)");
        }
    }
    if !m.options.is_empty() {
        let mut options = TextTable::new([("option", false), ("value", false)]);
        m.options.iter().for_each(|(k, v)| options.push([k, v]));
        out += &format!("\n{}", options.draw(terminal_width()));
    }
    if let Some(query) = &m.query {
        out += &format!("\n{}\n", query.trim());
    }
    let libraries: Vec<String> = m.libraries.iter().map(|(k, v)| format!("{k} {v}")).collect();
    out + &format!("\nmade by {}\n", libraries.join(", "))
}

fn compared(c: &Comparison) {
    let [a, b] = c.versions.map(|v| format!("version {v}"));
    let mut table = TextTable::new([("metric", false), (a.as_str(), true), (b.as_str(), true), ("change", true)]);
    for (name, [x, y]) in &c.metrics {
        let shown = |v: &Option<f64>| v.map(number).unwrap_or_else(|| "—".into());
        let change = x.zip(*y).map(|(x, y)| if y > x { format!("+{}", number(y - x)) } else { number(y - x) }).unwrap_or_default();
        table.push([name.clone(), shown(x), shown(y), change]);
    }
    print(&format!("{}\n\n{}", c.name, table.draw(terminal_width())));
    if !c.differences.is_empty() {
        let mut table = TextTable::new([("differs", false), (a.as_str(), false), (b.as_str(), false)]);
        c.differences.iter().for_each(|d| table.push([&d.what, &d.values[0], &d.values[1]]));
        // A query is long: its beginning does.
        print(&format!("\n{}", table.draw(terminal_width().or(Some(160)))));
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn four_digits_count() {
        let shown: Vec<String> = [0.0, 0.81234567, 12.3456, -1234.56, 98765.4, 2.5, 1e-7, f64::NAN, 1e20].map(number).to_vec();
        assert_eq!(shown, ["0", "0.8123", "12.35", "-1235", "98765", "2.5", "1.000e-7", "—", "1.000e20"]);
    }
}
