//! The stream plan: what a job does, as plain data.
//!
//! A DAG of [`Node`]s in topological order; a node's id is its index. The planner makes it, `EXPLAIN`
//! prints it, the runtime builds tasks from it, and checkpoints refer to its nodes by [`Node::fingerprint`].
//! Expressions are DataFusion's physical ones over the input's columns by index, so nothing in here
//! depends on generated names.
//!
//! What must hold: every node's `schema` is exactly what its operator emits; a node takes only the row
//! kinds that its inputs can give ([`Node::updates`] is checked by the planner against sinks).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use chrono_tz::Tz;
use datafusion::physical_expr::PhysicalExpr;

use crate::connectors::{Scan, SinkTable, SourceTable, TableSpec};
use crate::models::registry::Selector;
pub use crate::stream::window::WindowShape;

/// Index of a node in its plan.
pub type NodeId = usize;
/// A physical expression over the columns of a node's input.
pub type Expr = Arc<dyn PhysicalExpr>;

/// One job.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    /// In topological order: inputs come before their users.
    pub nodes: Vec<Node>,
    /// What SET and the command line say about the job.
    pub settings: JobSettings,
}

/// One operator of the plan.
#[derive(Debug, Clone)]
pub struct Node {
    /// Index in the plan.
    pub id: NodeId,
    /// Where its rows come from. Only [`Op::Union`] has more than one.
    pub inputs: Vec<NodeId>,
    /// What it does.
    pub op: Op,
    /// What it emits.
    pub schema: SchemaRef,
    /// Index of the rowtime attribute in `schema`, where there is one.
    pub rowtime: Option<usize>,
    /// Whether it emits row kinds other than `+I`.
    pub updates: bool,
    /// Columns (indices) whose values identify a row of an updating result; empty where unknown.
    pub upsert_key: Vec<usize>,
    /// Merkle hash of kind, keys, aggregates, schemas and inputs, in hex: state belongs to it.
    pub fingerprint: String,
}

/// What a node does.
#[derive(Debug, Clone)]
pub enum Op {
    /// Reads a table.
    Source(SourceOp),
    /// Filters, then computes columns.
    Calc(CalcOp),
    /// A window table function without aggregation: appends window_start, window_end, window_time.
    WindowAssign(WindowAssignOp),
    /// Aggregates per window and key; emits append-only when the watermark passes a window.
    WindowAggregate(WindowAggregateOp),
    /// Aggregates per key without a window; emits updates.
    GroupAggregate(GroupAggregateOp),
    /// Joins with a static table.
    StaticJoin(StaticJoinOp),
    /// Scores rows with a model.
    Predict(PredictOp),
    /// UNION ALL.
    Union,
    /// LIMIT.
    Limit(LimitOp),
    /// Writes a table, or the terminal.
    Sink(SinkOp),
}

impl Op {
    /// The operator's name in EXPLAIN, messages and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Source(_) => "Source",
            Self::Calc(_) => "Calc",
            Self::WindowAssign(_) => "WindowAssign",
            Self::WindowAggregate(_) => "WindowAggregate",
            Self::GroupAggregate(_) => "GroupAggregate",
            Self::StaticJoin(_) => "StaticJoin",
            Self::Predict(_) => "Predict",
            Self::Union => "Union",
            Self::Limit(_) => "Limit",
            Self::Sink(_) => "Sink",
        }
    }
}

/// Reads a table: connector columns → computed columns → watermark.
#[derive(Clone)]
pub struct SourceOp {
    /// The table.
    pub table: Arc<TableSpec>,
    /// Its connector.
    pub source: Arc<dyn SourceTable>,
    /// The columns wanted of the connector.
    pub scan: Scan,
    /// One expression a column of the node's schema, over [`Scan::schema`]. Time zone and cast rules are in them.
    pub columns: Vec<Expr>,
    /// The watermark, where one is declared.
    pub watermark: Option<WatermarkOp>,
    /// What happens to bad records and NULL event times.
    pub bad_records: BadRecords,
    /// Idle timeout of a split (`scan.watermark.idle-timeout`, else `table.exec.source.idle-timeout`).
    pub idle_timeout: Option<Duration>,
}

/// `WATERMARK FOR rowtime AS candidate`.
#[derive(Debug, Clone)]
pub struct WatermarkOp {
    /// Index of the rowtime column in the node's schema: Timestamp(ms), with or without UTC.
    pub rowtime: usize,
    /// The watermark expression, over the node's schema; of the rowtime's type.
    pub candidate: Expr,
}

/// Policy for records that cannot be read (`velosql.table.T.bad-records`).
#[derive(Debug, Clone)]
pub enum BadRecords {
    /// The job ends with exit status 3.
    Fail,
    /// They are counted.
    Skip,
    /// They are counted and kept in this sink (columns: topic, partition, offset, reason, raw).
    DeadLetter(Arc<TableSpec>, Arc<dyn SinkTable>),
}

/// Filters, then computes columns.
#[derive(Debug, Clone)]
pub struct CalcOp {
    /// Rows stay where this is true.
    pub predicate: Option<Expr>,
    /// One expression a column of the node's schema; `None`: the input's columns as they are.
    pub project: Option<Vec<Expr>>,
}

/// Where the windows of a row come from.
#[derive(Debug, Clone)]
pub enum WindowSource {
    /// Assigned from a rowtime column by shape. `zone` is set where the column is TIMESTAMP_LTZ: windows go
    /// by the wall clock of the zone, and window_start/window_end are wall-clock times.
    Rowtime {
        /// Index of the rowtime column.
        column: usize,
        /// Shape.
        shape: WindowShape,
        /// Zone of wall-clock windows.
        zone: Option<Tz>,
    },
    /// The input's rows carry them (an earlier window operator): one window a row.
    Attached {
        /// Index of window_start, TIMESTAMP(3).
        start: usize,
        /// Index of window_end, TIMESTAMP(3).
        end: usize,
        /// Zone in which start and end are wall-clock times.
        zone: Option<Tz>,
    },
}

/// A window table function without aggregation. Emits the input's columns, then window_start, window_end
/// (TIMESTAMP(3)), window_time (the rowtime's type). Late rows pass (Flink does so too).
#[derive(Debug, Clone)]
pub struct WindowAssignOp {
    /// Always [`WindowSource::Rowtime`].
    pub window: WindowSource,
}

/// Aggregation per window and key.
#[derive(Debug, Clone)]
pub struct WindowAggregateOp {
    /// The windows.
    pub window: WindowSource,
    /// Input columns that are the key; window columns are not among them.
    pub keys: Vec<usize>,
    /// The aggregates.
    pub aggregates: Vec<AggregateCall>,
    /// The columns emitted, in order of the node's schema.
    pub output: Vec<WindowOutput>,
    /// Where rows go that are late for all their windows (`velosql.table.T.late-rows`), input columns.
    pub late_rows: Option<(Arc<TableSpec>, Arc<dyn SinkTable>)>,
}

/// A column that a window aggregation emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowOutput {
    /// Key number i.
    Key(usize),
    /// Aggregate number i.
    Aggregate(usize),
    /// window_start
    Start,
    /// window_end
    End,
    /// window_time
    Time,
}

/// Aggregation per key over all rows so far. Emits keys, then aggregates.
#[derive(Debug, Clone)]
pub struct GroupAggregateOp {
    /// Input columns that are the key; none: one group, which exists once a row has come.
    pub keys: Vec<usize>,
    /// The aggregates; none: SELECT DISTINCT.
    pub aggregates: Vec<AggregateCall>,
}

/// Flink's aggregate functions that this version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// COUNT(*) and COUNT(x): BIGINT
    Count,
    /// SUM: the argument's type (wraps); DECIMAL(38, s)
    Sum,
    /// AVG: the argument's type (truncates); DECIMAL(38, max(6, s))
    Avg,
    /// MIN
    Min,
    /// MAX
    Max,
}

/// One aggregate of an aggregation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AggregateCall {
    /// The function.
    pub function: AggregateFunction,
    /// DISTINCT.
    pub distinct: bool,
    /// Input column of the argument; `None`: COUNT(*).
    pub argument: Option<usize>,
    /// Type of that column.
    pub argument_type: DataType,
    /// Input BOOLEAN column of FILTER (WHERE …).
    pub filter: Option<usize>,
    /// Type of the result.
    pub output_type: DataType,
}

/// A join of the stream with a static table. Emits the stream's columns, then the static table's.
#[derive(Debug, Clone)]
pub struct StaticJoinOp {
    /// How the static side is read: source (bounded), then filters and columns on it.
    pub side: SourceOp,
    /// Schema of the side's source.
    pub side_source_schema: SchemaRef,
    /// Steps over the side's source, in order, each with its schema.
    pub side_calcs: Vec<(CalcOp, SchemaRef)>,
    /// Schema of the side behind its steps.
    pub side_schema: SchemaRef,
    /// Key columns of the stream.
    pub stream_keys: Vec<usize>,
    /// Key columns of the side; as many.
    pub side_keys: Vec<usize>,
    /// Which row of a key matches.
    pub matching: Matching,
    /// LEFT rather than INNER: rows without a match are padded with NULL.
    pub left: bool,
    /// A further condition over stream columns, then side columns.
    pub residual: Option<Expr>,
}

/// Which static rows of a key match a stream row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// FOR SYSTEM_TIME AS OF: the last version whose time is not after the stream row's.
    Version {
        /// The stream's rowtime column.
        stream_time: usize,
        /// The side's rowtime column.
        side_time: usize,
    },
    /// Every row.
    All,
}

/// ML_PREDICT. Emits the input's columns, then the model's; NULL there for a row that the model refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictOp {
    /// The model.
    pub model: String,
    /// Which version of it, where no checkpoint says.
    pub selector: Selector,
    /// The model's inputs: its name of each, and the input column.
    pub arguments: Vec<(String, usize)>,
}

/// LIMIT.
#[derive(Debug, Clone, Copy)]
pub struct LimitOp {
    /// Rows passed at most.
    pub limit: u64,
    /// Rows skipped first.
    pub offset: u64,
}

/// Writes rows.
#[derive(Clone)]
pub struct SinkOp {
    /// The table; `None`: the result of a plain SELECT, which the caller shows.
    pub table: Option<(Arc<TableSpec>, Arc<dyn SinkTable>)>,
    /// Whether NULL in a NOT NULL column drops the row (`table.exec.sink.not-null-enforcer` = `DROP`)
    /// rather than failing the job.
    pub drop_nulls: bool,
}

/// What SET says about a job.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// `pipeline.name`.
    pub name: Option<String>,
    /// `parallelism.default`.
    pub workers: Option<usize>,
    /// `execution.checkpointing.interval`; `None`: the default (10 s where a sink is durable).
    pub checkpoint_interval: Option<Duration>,
    /// `table.local-time-zone`.
    pub zone: Tz,
    /// Every other setting as it stands, for knobs read by the runtime (`velosql.*`).
    pub all: std::collections::BTreeMap<String, String>,
}

impl fmt::Debug for SourceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceOp({})", self.table.name)
    }
}

impl fmt::Debug for SinkOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SinkOp({})", self.table.as_ref().map_or("terminal", |t| &t.0.name))
    }
}

impl fmt::Debug for dyn SinkTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SinkTable")
    }
}
