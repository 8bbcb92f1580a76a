//! The plan while it is being made: operators over whole columns, equal ones kept once.
//!
//! The converter appends nodes; [`Draft::add`] answers the node that is already there where an equal one
//! is, so that a view used twice, a CTE copied at each use, or a table read by two INSERTs becomes one
//! node. Nothing is pruned while drafting: a source has all its columns until [`finish`] knows what the
//! whole file wants, and that is also why fingerprints are taken here: they do not change when another
//! INSERT of the file asks for one more column of a shared table.
//!
//! What must hold: inputs have smaller numbers than their users; `fields` and `facts` are as long as the
//! columns that the operator emits.

mod columns;
mod finish;
mod fuse;
mod prune;
mod push;

pub use columns::{Role, WindowMark, column_index, expr_text, for_each_column, is_safe, remap};
pub use finish::finish;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use chrono_tz::Tz;
use sha2::{Digest, Sha256};

use crate::connectors::{SinkTable, SourceTable, TableSpec};
use crate::error::Span;
use crate::sql::plan::{BadRecords, CalcOp, Expr, GroupAggregateOp, LimitOp, Matching, NodeId, PredictOp, WindowAggregateOp, WindowShape};

/// All nodes of one job so far.
#[derive(Default)]
pub struct Draft {
    /// In topological order.
    pub nodes: Vec<DraftNode>,
    known: HashMap<String, NodeId>,
}

/// A node, before pruning.
#[derive(Clone)]
pub struct DraftNode {
    /// What it does.
    pub op: DraftOp,
    /// Where its rows come from. A static join has the stream first, then the static side.
    pub inputs: Vec<NodeId>,
    /// What it emits.
    pub fields: Vec<FieldRef>,
    /// What is known of each column beyond its type.
    pub facts: Vec<ColumnFact>,
    /// Why it emits updates, where it does.
    pub updates: Option<Updating>,
    /// Columns whose values identify a row of an updating result.
    pub upsert_key: Vec<usize>,
    /// Columns of the table's PRIMARY KEY that are still whole.
    pub primary_key: Vec<usize>,
    /// The plain JOIN with a static table that lies below, and whether it is a LEFT JOIN: Flink's own plain
    /// JOIN has no rowtime, and updates where it is LEFT.
    pub plain_join: Option<(Span, bool)>,
    /// Merkle hash of the content: equal nodes are one.
    pub content: String,
    /// Merkle hash of what the rows mean; what users of this node put into their fingerprints.
    pub meaning: String,
    /// What state belongs to. The meaning's hash, except for sources and sinks.
    pub fingerprint: String,
}

/// The operator that makes a result updating, for messages.
#[derive(Clone, Debug)]
pub struct Updating {
    /// Such as "GROUP BY without a window".
    pub what: String,
    /// Where it stands.
    pub span: Option<Span>,
}

/// What is known of a column beyond its type. Plain references keep it, expressions do not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnFact {
    /// Whether it is the rowtime attribute.
    pub rowtime: bool,
    /// Whether it is a boundary of the row's window.
    pub window: Option<WindowMark>,
}

/// Operators of the draft.
#[derive(Clone)]
pub enum DraftOp {
    /// Reads a table.
    Source(Arc<SourceDraft>),
    /// Filters, then computes.
    Calc(CalcOp),
    /// Appends window columns.
    WindowAssign {
        /// The rowtime column.
        column: usize,
        /// The windows.
        shape: WindowShape,
        /// Zone of wall-clock windows.
        zone: Option<Tz>,
    },
    /// Aggregates per window.
    WindowAggregate(WindowAggregateOp),
    /// Aggregates without a window.
    GroupAggregate(GroupAggregateOp),
    /// Joins with a static table, which is the second input.
    StaticJoin(JoinDraft),
    /// Appends what a model says.
    Predict(PredictOp),
    /// UNION ALL.
    Union,
    /// LIMIT.
    Limit(LimitOp),
    /// Writes.
    Sink(SinkDraft),
}

/// A table that is read, with all its columns.
pub struct SourceDraft {
    /// The table.
    pub table: Arc<TableSpec>,
    /// Its connector.
    pub source: Arc<dyn SourceTable>,
    /// One expression a column, over all physical and metadata columns of the table.
    pub columns: Vec<Expr>,
    /// Rowtime column and watermark expression over the node's columns.
    pub watermark: Option<(usize, Expr)>,
    /// Policy for bad records.
    pub bad_records: BadRecords,
    /// Idle timeout.
    pub idle_timeout: Option<Duration>,
    /// Where late rows go: `topic:X` or a path.
    pub late_rows: Option<String>,
}

/// A join with a static table.
#[derive(Clone)]
pub struct JoinDraft {
    /// Key columns of the stream.
    pub stream_keys: Vec<usize>,
    /// Key columns of the side.
    pub side_keys: Vec<usize>,
    /// Which rows match.
    pub matching: Matching,
    /// LEFT.
    pub left: bool,
    /// A further condition, over stream columns, then side columns.
    pub residual: Option<Expr>,
}

/// A table that is written.
#[derive(Clone)]
pub struct SinkDraft {
    /// The table; `None`: the terminal.
    pub table: Option<(Arc<TableSpec>, Arc<dyn SinkTable>)>,
    /// Whether NULL in a NOT NULL column drops the row.
    pub drop_nulls: bool,
}

impl DraftNode {
    /// A node without updates and keys; hashes are filled by [`Draft::add`].
    pub fn new(op: DraftOp, inputs: Vec<NodeId>, fields: Vec<FieldRef>, facts: Vec<ColumnFact>) -> Self {
        debug_assert_eq!(fields.len(), facts.len());
        Self {
            op,
            inputs,
            fields,
            facts,
            updates: None,
            upsert_key: vec![],
            primary_key: vec![],
            plain_join: None,
            content: String::new(),
            meaning: String::new(),
            fingerprint: String::new(),
        }
    }

    /// The columns as a schema.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields.clone()))
    }

    /// The rowtime attribute.
    pub fn rowtime(&self) -> Option<usize> {
        self.facts.iter().position(|f| f.rowtime)
    }
}

impl Draft {
    /// Adds a node, or answers the equal one that is already there.
    pub fn add(&mut self, mut node: DraftNode) -> NodeId {
        let (content, meaning, fingerprint) = self.hashes(&node);
        node.content = content;
        node.meaning = meaning;
        node.plain_join = node.plain_join.or_else(|| node.inputs.iter().find_map(|i| self.nodes[*i].plain_join));
        node.fingerprint = fingerprint;
        let names: Vec<&str> = node.fields.iter().map(|f| f.name().as_str()).collect();
        let key = format!("{} {names:?}", node.content);
        if let Some(id) = self.known.get(&key) {
            return *id;
        }
        let id = self.nodes.len();
        self.known.insert(key, id);
        self.nodes.push(node);
        id
    }

    /// Adds a calc over `input`; facts and keys of columns that pass unchanged pass too.
    pub fn calc(&mut self, input: NodeId, predicate: Option<Expr>, project: Option<(Vec<Expr>, Vec<FieldRef>)>) -> NodeId {
        let below = &self.nodes[input];
        let (updates, old_upsert, old_primary) = (below.updates.clone(), below.upsert_key.clone(), below.primary_key.clone());
        let (project, fields, facts, from) = match project {
            None => (None, below.fields.clone(), below.facts.clone(), (0..below.fields.len()).map(Some).collect::<Vec<_>>()),
            Some((exprs, fields)) => {
                let from: Vec<Option<usize>> = exprs.iter().map(column_index).collect();
                let facts = from.iter().map(|i| i.map_or_else(ColumnFact::default, |i| below.facts[i].clone())).collect();
                (Some(exprs), fields, facts, from)
            }
        };
        let moved = |key: &[usize]| -> Vec<usize> {
            let found: Option<Vec<usize>> = key.iter().map(|k| from.iter().position(|f| *f == Some(*k))).collect();
            found.unwrap_or_default()
        };
        let (upsert_key, primary_key) = (moved(&old_upsert), moved(&old_primary));
        let mut node = DraftNode::new(DraftOp::Calc(CalcOp { predicate, project }), vec![input], fields, facts);
        node.updates = updates;
        node.upsert_key = upsert_key;
        node.primary_key = primary_key;
        self.add(node)
    }

    /// Hashes of content and meaning, and the fingerprint.
    fn hashes(&self, node: &DraftNode) -> (String, String, String) {
        let own = match &node.op {
            DraftOp::Source(s) => source_identity(&s.table),
            DraftOp::Sink(s) => s.table.as_ref().map_or_else(|| "sink terminal".to_string(), |t| format!("sink {}", source_identity(&t.0))),
            other => op_text(other),
        };
        let (mut content, mut meaning) = (own.clone(), own.clone());
        for input in &node.inputs {
            let below = &self.nodes[*input];
            let types: String = below.fields.iter().map(|f| format!(" {}", f.data_type())).collect();
            content.push_str(&format!("\ninput {}{types}", below.content));
            meaning.push_str(&format!("\ninput {}{types}", below.meaning));
        }
        match &node.op {
            // A source's positions are still good when another computed column is declared; what is
            // computed from its rows is not.
            DraftOp::Source(s) => {
                content.push_str(&format!("\nknobs {:?}\noptions {:?}", s.table.knobs, s.table.options));
                let options: Vec<_> = s.table.options.iter().filter(|(k, _)| gives_meaning(k)).collect();
                let knobs: Vec<_> = s.table.knobs.iter().filter(|(k, _)| matches!(k.as_str(), "csv-header" | "seed")).collect();
                meaning.push_str(&format!("\nknobs {knobs:?}\noptions {options:?}"));
                let mut columns = String::new();
                for (expr, field) in s.columns.iter().zip(&node.fields) {
                    columns.push_str(&format!("\n{} {} {}", field.name(), field.data_type(), expr_text(expr)));
                }
                if let Some((column, candidate)) = &s.watermark {
                    columns.push_str(&format!("\nwatermark {column} {}", expr_text(candidate)));
                }
                (sha256(&(content + &columns)), sha256(&(meaning + &columns)), sha256(&own))
            }
            // What a sink has pending must be committed whatever the query has become.
            DraftOp::Sink(_) => (sha256(&content), sha256(&meaning), sha256(&own)),
            _ => (sha256(&content), sha256(&meaning), sha256(&meaning)),
        }
    }
}

/// Whether an option of a source says what its records mean. How they are reached, where reading starts or ends
/// and how fast it goes does not: state goes on under another address or bound.
fn gives_meaning(option: &str) -> bool {
    let passing = ["properties.", "scan.", "sink.", "source.", "rows-per-second", "number-of-rows"];
    !passing.iter().any(|p| option.starts_with(p))
}

/// What makes a table the same place in the outside world.
fn source_identity(table: &TableSpec) -> String {
    let place: Vec<_> = ["connector", "topic", "topic-pattern", "path"].iter().filter_map(|k| table.options.get(*k)).collect();
    format!("table {} {place:?}", table.name)
}

fn op_text(op: &DraftOp) -> String {
    match op {
        DraftOp::Calc(calc) => {
            let predicate = calc.predicate.as_ref().map(expr_text);
            let project = calc.project.as_ref().map(|p| p.iter().map(expr_text).collect::<Vec<_>>());
            format!("calc {predicate:?} {project:?}")
        }
        DraftOp::WindowAssign { column, shape, zone } => format!("assign {column} {shape:?} {zone:?}"),
        DraftOp::WindowAggregate(a) => format!("window aggregate {:?} {:?} {:?} {:?}", a.window, a.keys, a.aggregates, a.output),
        DraftOp::GroupAggregate(a) => format!("group aggregate {:?} {:?}", a.keys, a.aggregates),
        DraftOp::StaticJoin(j) => {
            let residual = j.residual.as_ref().map(expr_text);
            format!("static join {:?} {:?} {:?} {} {residual:?}", j.stream_keys, j.side_keys, j.matching, j.left)
        }
        DraftOp::Predict(p) => format!("predict {} {:?} {:?}", p.model, p.selector, p.arguments),
        DraftOp::Union => "union".to_string(),
        DraftOp::Limit(l) => format!("limit {} {}", l.limit, l.offset),
        DraftOp::Source(_) | DraftOp::Sink(_) => String::new(),
    }
}

pub fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}
