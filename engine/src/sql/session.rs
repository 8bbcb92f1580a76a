//! One run: statements in, steps out.
//!
//! DDL and SET are applied as they come. INSERTs gather in one job until something else is executed, so
//! that a file is one DAG: each of them is bound and converted where it stands (with the settings of that
//! place), and the job is finished when it ends. CREATE MODEL ends it too, unless the model is trained again
//! with each batch that a job writes: then both live together.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Query;

use super::ast::{CreateModel, CreateTable, CreateView, Insert, Name, Parsed, Statement};
use super::catalog::{Catalog, Entry, Origin, Table};
use super::convert::Converter;
use super::draft::{Draft, SinkDraft, finish};
use super::models::{Mode, Models, Shape};
use super::portable::{Finding, portable_findings};
use super::provider::{Dialect, Provider};
use super::settings::Settings;
use super::{bind, describe, explain, insert, parser, source};
use crate::connectors::Context;
use crate::error::{Error, Result, Span};
use crate::models::registry::{Registry, Selector};
use crate::sql::plan::{NodeId, Op, StreamPlan};

/// What the command line gives a run.
pub struct SessionOptions {
    /// `--set`: beats SET.
    pub sets: Vec<(String, String)>,
    /// `--option TABLE.KEY=VALUE`: table (or `*`), key, value; over the WITH clause.
    pub table_options: Vec<(String, String, String)>,
    /// `--define`: fills `${K}`.
    pub defines: Vec<(String, String)>,
    /// The registry's folder.
    pub models: PathBuf,
    /// For connectors.
    pub context: Context,
}

/// Catalog and settings of one run.
pub struct Session {
    catalog: Catalog,
    settings: Settings,
    options: SessionOptions,
    dialects: HashMap<Tz, Arc<Dialect>>,
    pending: Option<Job>,
    findings: Vec<Finding>,
    /// The text being planned.
    origin: Origin,
}

/// What a statement asks the caller to do.
#[derive(Debug)]
pub enum Step {
    /// Rows to show: SHOW, DESCRIBE, SET.
    Show {
        /// Column names.
        columns: Vec<String>,
        /// Rows.
        rows: Vec<Vec<String>>,
    },
    /// A text to show: EXPLAIN, SHOW CREATE.
    Text(String),
    /// INSERTs to run: one DAG.
    Job(StreamPlan),
    /// A plain SELECT to run: its sink has no table.
    Select(StreamPlan),
    /// A model to train.
    Train(Box<TrainStep>),
}

/// `CREATE MODEL … AS SELECT …`. One that is trained once stands between jobs: what is before it has ended, what is
/// behind it may use the model. One of the mode `cumulative` stands before the job that it lives with.
#[derive(Debug)]
pub struct TrainStep {
    /// The model.
    pub name: String,
    /// WITH: `task`, `algorithm` and `label` are checked, the rest is the training's.
    pub options: BTreeMap<String, String>,
    /// The query, planned as a plain SELECT: its rows go to the caller.
    pub plan: StreamPlan,
    /// The statement's text, its COMMENT included, secrets masked.
    pub sql: String,
    /// When it is trained.
    pub mode: Mode,
    /// Where the statement stands.
    pub span: Span,
}

/// INSERTs that run together.
struct Job {
    draft: Draft,
    sinks: Vec<(NodeId, SinkDraft)>,
    settings: Settings,
    /// For EXPLAIN.
    logical: Vec<LogicalPlan>,
}

impl Session {
    /// A run without tables.
    ///
    /// # Errors
    /// User: an unknown `velosql.` key in `--set`.
    pub fn new(options: SessionOptions) -> Result<Self> {
        let settings = Settings::new(&options.sets)?;
        Ok(Self {
            catalog: Catalog::new(Models::new(Registry::new(&options.models))),
            settings,
            options,
            dialects: HashMap::new(),
            pending: None,
            findings: vec![],
            origin: Origin::default(),
        })
    }

    /// Plans a whole file. `file_name` is how the user knows it.
    ///
    /// # Errors
    /// User: the first statement that is refused, with its place in the text.
    pub fn plan_file(&mut self, file_name: &str, text: &str) -> Result<Vec<Step>> {
        let text = self.filled(text)?;
        self.origin = Origin::file(file_name, &super::masked::hidden(&text));
        self.findings.clear();
        let steps = self.plan_text(&text).map_err(|e| e.with_sql(file_name, &super::masked::hidden(&text)));
        self.origin = Origin::default();
        steps
    }

    fn plan_text(&mut self, text: &str) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for parsed in parser::parse(text)? {
            let place = parsed.span;
            steps.extend(self.step(parsed).map_err(|e| e.at(place))?);
        }
        steps.extend(self.end_job()?);
        Ok(steps)
    }

    /// Plans one statement, for a shell. An INSERT is a job of its own.
    ///
    /// # Errors
    /// User: the statement is refused.
    pub fn statement(&mut self, parsed: Parsed) -> Result<Vec<Step>> {
        let place = parsed.span;
        let mut steps = self.step(parsed).map_err(|e| e.at(place))?;
        steps.extend(self.end_job()?);
        Ok(steps)
    }

    /// Names the jobs that are planned from now on, unless `pipeline.name` does: their output belongs to it.
    pub fn name_job(&mut self, name: &str) {
        self.options.context.job = name.to_string();
    }

    /// The settings as they stand.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Names of tables and views, for completion.
    pub fn table_names(&self) -> Vec<String> {
        self.catalog.names(false).map(str::to_string).collect()
    }

    /// Names of models, for completion.
    pub fn model_names(&self) -> Vec<String> {
        self.catalog.models().names().unwrap_or_default()
    }

    /// Names of columns of tables and views, each once, for completion.
    pub fn column_names(&self) -> Vec<String> {
        let mut names = std::collections::BTreeSet::new();
        for table in self.catalog.names(false) {
            let name = Name { value: table.to_string(), span: Span::default() };
            // A view over something that was dropped has no columns now.
            if let Ok(Step::Show { rows, .. }) = self.describe(&name) {
                names.extend(rows.into_iter().filter_map(|row| row.into_iter().next()));
            }
        }
        names.into_iter().collect()
    }

    /// Refuses a knob or a `--option` of a table that no file has declared: it would be lost silently.
    /// For the caller to ask when all files have been planned.
    ///
    /// # Errors
    /// User: names the setting or the option, with the nearest table.
    pub fn check_names(&self) -> Result<()> {
        let knobs = self.settings.tables_with_knobs().map(|(table, knob)| (table, format!("the setting 'velosql.table.{table}.{knob}'")));
        let options = self.options.table_options.iter().map(|(table, key, _)| (table.as_str(), format!("--option {table}.{key}")));
        for (table, what) in knobs.chain(options) {
            if table != "*" && self.catalog.get(table).is_none() {
                return Err(self.catalog.unknown(table).context(what));
            }
        }
        Ok(())
    }

    /// What Flink would refuse of the file planned last.
    pub fn portable_findings(&self) -> Vec<Finding> {
        portable_findings(&self.findings, &self.settings, &self.catalog)
    }

    /// `text` with every `${K}` filled from `--define`.
    ///
    /// # Errors
    /// User: a `${K}` that nothing defines.
    pub fn filled(&self, text: &str) -> Result<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let Some(len) = rest[start..].find('}') else { break };
            let key = &rest[start + 2..start + len];
            if !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.' || c == '-') {
                let value = self.options.defines.iter().find(|(k, _)| k == key).map(|(_, v)| v);
                let value =
                    value.ok_or_else(|| Error::user(format!("${{{key}}} is not defined")).help(format!("give --define {key}=VALUE")))?;
                out.push_str(&rest[..start]);
                out.push_str(value);
            } else {
                out.push_str(&rest[..=start + len]);
            }
            rest = &rest[start + len + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn step(&mut self, parsed: Parsed) -> Result<Vec<Step>> {
        let span = parsed.span;
        match parsed.statement {
            Statement::Set { key, value } => self.settings.set(&key, &value)?,
            Statement::Reset { key } => self.settings.reset(key.as_deref()),
            Statement::CreateTable(create) => self.create_table(&create)?,
            Statement::CreateView(create) => self.create_view(*create)?,
            Statement::CreateModel(create) => return self.create_model(&create, &parsed.text, span),
            Statement::Drop { view, name, if_exists } => self.catalog.remove(&name, view, if_exists)?,
            Statement::Insert(insert) => self.insert(&insert, span)?,
            Statement::StatementSet(inserts) => {
                for (insert, place) in inserts {
                    self.insert(&insert, place).map_err(|e| e.at(place))?;
                }
            }
            Statement::Query(query) => {
                let mut steps = self.end_job()?;
                let job = self.select(&query, span)?;
                steps.push(Step::Select(self.finish(job)?));
                return Ok(steps);
            }
            Statement::Explain(inner) => return self.explain(*inner).map(|text| vec![Step::Text(text)]),
            Statement::ShowSettings => return Ok(vec![describe::settings(&self.settings)]),
            Statement::ShowTables => return Ok(vec![describe::names("table name", self.catalog.names(false))]),
            Statement::ShowViews => return Ok(vec![describe::names("view name", self.catalog.names(true))]),
            Statement::ShowModels => {
                let names = self.catalog.models().names()?;
                return Ok(vec![describe::names("model name", names.iter().map(String::as_str))]);
            }
            Statement::DescribeModel(name) => {
                return Ok(vec![describe::model(&*self.catalog.models().get(&name, &Selector::Champion, None)?)]);
            }
            Statement::ShowCreateTable(name) => {
                return Ok(vec![Step::Text(parser::render::show_create_table(&self.catalog.table(&name)?.create))]);
            }
            Statement::ShowCreateView(name) => return self.show_create_view(&name).map(|s| vec![s]),
            Statement::Describe(name) => return self.describe(&name).map(|s| vec![s]),
        }
        Ok(vec![])
    }

    fn create_table(&mut self, create: &CreateTable) -> Result<()> {
        let table = Table::declare(create, &self.options.table_options, self.origin.clone())?;
        source::bind(&self.dialect(), &table)?;
        self.catalog.add(&create.name, Entry::Table(Arc::new(table)), create.if_not_exists, false)?;
        Ok(())
    }

    fn create_view(&mut self, create: CreateView) -> Result<()> {
        let dialect = self.dialect();
        let plan = bind::view(&Provider::new(&self.catalog, &dialect).creating(&create.name.value), &create)?;
        let mut names: Vec<&String> = plan.schema().fields().iter().map(|f| f.name()).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(Error::user(format!("the view '{}' has two columns named '{}'", create.name.value, twice[0]))
                .at(create.name.span)
                .help("give each an alias of its own"));
        }
        bind::analyse(&dialect, plan)?;
        let (name, if_not_exists, replace) = (create.name.clone(), create.if_not_exists, create.or_replace);
        self.catalog.add(&name, Entry::View(Arc::new(create), self.origin.clone()), if_not_exists, replace)?;
        Ok(())
    }

    fn create_model(&mut self, create: &CreateModel, text: &str, span: Span) -> Result<Vec<Step>> {
        let published = self.catalog.models().is_published(&create.name)?;
        if create.if_not_exists && published {
            return Ok(vec![]);
        }
        let job = self.select(&create.query, span)?;
        let fields = job.sinks.first().map(|(input, _)| job.draft.nodes[*input].fields.clone()).unwrap_or_default();
        let (shape, mode) = Shape::of(create, &fields)?;
        let plan = self.finish(job)?;
        let mut steps = Vec::new();
        if mode == Mode::Once {
            steps = self.end_job()?;
            if let Some(table) = steps.iter().find_map(|s| if let Step::Job(plan) = s { endless(plan) } else { None }) {
                let e =
                    Error::user(format!("CREATE MODEL waits for the INSERTs before it, but they read table '{table}', which never ends"));
                return Err(e.at(span).help(ENDLESS));
            }
            if let Some(table) = endless(&plan) {
                return Err(Error::user(format!("CREATE MODEL reads table '{table}', which never ends")).at(span).help(ENDLESS));
            }
        }
        self.findings.push(Finding {
            span,
            what: format!("CREATE MODEL '{}' AS SELECT: Flink trains no models", create.name.value),
            portable: "train with velosql run or velosql train, in a file of its own".to_string(),
        });
        self.catalog.models_mut().declare(shape);
        steps.push(Step::Train(Box::new(TrainStep {
            name: create.name.value.clone(),
            options: create.options.iter().map(|(k, v)| (k.value.clone(), v.value.clone())).collect(),
            plan,
            sql: super::masked::masked(text),
            mode,
            span,
        })));
        Ok(steps)
    }

    fn insert(&mut self, insert: &Insert, span: Span) -> Result<()> {
        let mut job = match self.pending.take() {
            Some(job) => job,
            None => Job { draft: Draft::default(), sinks: vec![], settings: self.settings.clone(), logical: vec![] },
        };
        self.settings.same_job(&job.settings)?;
        self.add_insert(&mut job, insert, span)?;
        self.settings.mark_written(&insert.table.value);
        self.pending = Some(job);
        Ok(())
    }

    fn add_insert(&mut self, job: &mut Job, insert: &Insert, span: Span) -> Result<()> {
        let table = self.catalog.table(&insert.table)?;
        let context = self.context();
        let dialect = self.dialect();
        let spec = table.sink_spec(self.settings.knobs(&table.name.value));
        let plan = insert::plan(&Provider::new(&self.catalog, &dialect), insert, &spec, span)?;
        let mut converter = Converter {
            draft: &mut job.draft,
            dialect: &dialect,
            settings: &self.settings,
            context: &context,
            findings: &mut self.findings,
            span,
        };
        let input = converter.convert(&plan)?;
        let sink = insert::sink(&mut converter, input, &table, spec, &self.settings, &context)?;
        job.sinks.push((input, sink));
        job.logical.push(plan);
        Ok(())
    }

    fn select(&mut self, query: &Query, span: Span) -> Result<Job> {
        let mut job = Job { draft: Draft::default(), sinks: vec![], settings: self.settings.clone(), logical: vec![] };
        let context = self.context();
        let dialect = self.dialect();
        let plan = bind::query(&Provider::new(&self.catalog, &dialect), query)?;
        let mut converter = Converter {
            draft: &mut job.draft,
            dialect: &dialect,
            settings: &self.settings,
            context: &context,
            findings: &mut self.findings,
            span,
        };
        let input = converter.convert(&plan)?;
        job.sinks.push((input, SinkDraft { table: None, drop_nulls: false }));
        job.logical.push(plan);
        Ok(job)
    }

    fn explain(&mut self, inner: Parsed) -> Result<String> {
        let mut job = Job { draft: Draft::default(), sinks: vec![], settings: self.settings.clone(), logical: vec![] };
        match inner.statement {
            Statement::Query(query) => job = self.select(&query, inner.span)?,
            Statement::Insert(insert) => self.add_insert(&mut job, &insert, inner.span)?,
            Statement::StatementSet(inserts) => {
                for (insert, place) in inserts {
                    self.add_insert(&mut job, &insert, place).map_err(|e| e.at(place))?;
                }
            }
            _ => return Err(Error::user("EXPLAIN takes a query, an INSERT or a statement set").at(inner.span)),
        }
        let logical = job.logical.iter().map(|p| p.display_indent().to_string()).collect::<Vec<_>>().join("\n");
        Ok(format!("== Logical Plan ==\n{logical}\n\n== Stream Plan ==\n{}", explain::explain(&self.finish(job)?)))
    }

    fn describe(&self, name: &Name) -> Result<Step> {
        let dialect = Dialect::new(self.settings.zone());
        match self.catalog.get(&name.value) {
            Some(Entry::Table(table)) => Ok(describe::table(table, &source::bind(&dialect, table)?.fields)),
            Some(Entry::View(view, _)) => {
                let plan = bind::view(&Provider::new(&self.catalog, &dialect), view)?;
                let plan = bind::analyse(&dialect, plan)?;
                Ok(describe::view(plan.schema().fields()))
            }
            None => Err(self.catalog.unknown(&name.value).at(name.span)),
        }
    }

    fn show_create_view(&self, name: &Name) -> Result<Step> {
        match self.catalog.get(&name.value) {
            Some(Entry::View(view, _)) => Ok(Step::Text(parser::render::show_create_view(view))),
            Some(Entry::Table(_)) => Err(Error::user(format!("'{}' is a table", name.value)).at(name.span).help("write SHOW CREATE TABLE")),
            None => Err(self.catalog.unknown(&name.value).at(name.span)),
        }
    }

    fn end_job(&mut self) -> Result<Vec<Step>> {
        match self.pending.take() {
            Some(job) => Ok(vec![Step::Job(self.finish(job)?)]),
            None => Ok(vec![]),
        }
    }

    fn finish(&self, job: Job) -> Result<StreamPlan> {
        finish(job.draft, job.sinks, job.settings.job(), &self.context())
    }

    fn context(&self) -> Context {
        let mut context = self.options.context.clone();
        context.zone = self.settings.zone();
        if let Some(name) = self.settings.get("pipeline.name") {
            context.job = name.to_string();
        }
        context
    }

    fn dialect(&mut self) -> Arc<Dialect> {
        let zone = self.settings.zone();
        Arc::clone(self.dialects.entry(zone).or_insert_with(|| Arc::new(Dialect::new(zone))))
    }
}

/// What to do about a stream where an end is needed.
const ENDLESS: &str =
    "give the table an end ('scan.bounded.mode', or --stop-at-latest), or train with each batch: 'training.mode' = 'cumulative'";

/// A table that the plan reads and that has no end.
fn endless(plan: &StreamPlan) -> Option<&str> {
    plan.nodes.iter().find_map(|n| match &n.op {
        Op::Source(s) if !s.source.is_bounded() => Some(s.table.name.as_str()),
        _ => None,
    })
}
