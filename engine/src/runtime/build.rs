//! Plan → tasks: which operators run in which task, and the lanes between tasks.
//!
//! ```text
//!  stage = a head and the nodes chained to it        heads: sources, unions, keyed operators behind an
//!    Source ─ Calc ─ StaticJoin ─ PartialWindow ═╗    exchange, and what one instance must see alone
//!                                    by key      ╚══▶ WindowAggregate ─ Calc ─ Sink
//! ```
//!
//! With one worker there is no exchange: everything behind a source is one chain, and a window aggregation
//! takes rows itself. What must hold: a node's instances see every row of its inputs exactly once, and one
//! key is seen by one instance.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;

use super::chain::{Chain, Exit, Route, Target};
use super::channel::{LaneReceiver, LaneSender, Signal, lane};
use super::checkpoint::Segment;
use super::inputs::Inputs;
use super::key_range::KeyRange;
use super::models::Slot;
use super::operators::calc::Calc;
use super::operators::group_aggregate::GroupAggregate;
use super::operators::limit::Limit;
use super::operators::predict::Predict;
use super::operators::static_join::{StaticJoin, StaticTable};
use super::operators::window_aggregate::{PartialWindow, WindowAggregate};
use super::operators::window_assign::WindowAssign;
use super::operators::window_intake::{LateRows, WindowIntake, window_columns};
use super::sink::{self, Order, SinkEnd};
use super::source::{DeadLetter, SourceHub, SourceTask};
use super::task::{JobEvent, LaneTask};
use super::worker::Task;
use crate::connectors::{SinkTable, TableSpec};
use crate::error::{Error, Result};
use crate::metrics::JobMetrics;
use crate::sql::plan::{BadRecords, Node, NodeId, Op, SinkOp, StreamPlan, WindowAggregateOp};
use crate::stream::{StreamBatch, Watermark};

/// Bytes that a lane holds.
const LANE_BYTES: usize = 8 << 20;

/// A table that the job writes. Several nodes may write one table; each writer has its own number.
pub struct JobSink {
    /// The table.
    pub table: Arc<TableSpec>,
    /// Its connector.
    pub sink: Arc<dyn SinkTable>,
    /// Rows kept for it by the checkpoint; the first writer takes them.
    pub kept: Mutex<Vec<RecordBatch>>,
    writers: std::sync::atomic::AtomicUsize,
}

impl JobSink {
    fn writer(&self) -> Result<Box<dyn crate::connectors::SinkWriter>> {
        let index = self.writers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let kept = std::mem::take(&mut *self.kept.lock().expect("no panic while locked"));
        self.sink.writer(index, kept)
    }
}

/// What a restart brings along, by node.
pub type Restored = HashMap<NodeId, (Watermark, Vec<Arc<Segment>>)>;

/// Everything that tasks are built from.
pub struct Parts<'a> {
    /// The plan.
    pub plan: &'a StreamPlan,
    /// Number of workers.
    pub workers: usize,
    /// One signal a worker.
    pub signals: &'a [Arc<Signal>],
    /// Hub of each source node.
    pub hubs: &'a HashMap<NodeId, Arc<SourceHub>>,
    /// Loaded static tables, by join node.
    pub statics: &'a HashMap<NodeId, Arc<StaticTable>>,
    /// Where each ML_PREDICT takes its model from.
    pub models: &'a HashMap<NodeId, Arc<Slot>>,
    /// The job's sinks ([`sinks`]).
    pub sinks: &'a [JobSink],
    /// State of a checkpoint.
    pub restored: &'a Restored,
    /// Where rows of a plain SELECT go.
    pub rows: Option<SyncSender<StreamBatch>>,
    /// Raised by each LIMIT that is full.
    pub limits: &'a HashMap<NodeId, Arc<AtomicBool>>,
    /// To the coordinator.
    pub events: Sender<JobEvent>,
    /// Counters.
    pub metrics: Arc<JobMetrics>,
}

/// The tables that a plan writes, dead letters and late rows included.
pub fn sinks(plan: &StreamPlan) -> Vec<JobSink> {
    let mut found: Vec<JobSink> = Vec::new();
    let mut add = |table: &Arc<TableSpec>, sink: &Arc<dyn SinkTable>| {
        if !found.iter().any(|s| s.table.name == table.name) {
            found.push(JobSink { table: table.clone(), sink: sink.clone(), kept: Mutex::default(), writers: Default::default() });
        }
    };
    for node in &plan.nodes {
        match &node.op {
            Op::Sink(SinkOp { table: Some((table, sink)), .. }) => add(table, sink),
            Op::Source(source) => {
                if let BadRecords::DeadLetter(table, sink) = &source.bad_records {
                    add(table, sink);
                }
            }
            Op::WindowAggregate(WindowAggregateOp { late_rows: Some((table, sink)), .. }) => add(table, sink),
            _ => {}
        }
    }
    found
}

/// The tasks of one worker, downstream first.
pub type WorkerTasks = Vec<Box<dyn Task>>;

struct Stage {
    head: NodeId,
    parallelism: usize,
    nodes: Vec<NodeId>,
}

/// The tasks of each worker, downstream first, and their number.
///
/// # Errors
/// Those of readers, writers and operators when they are made.
pub fn build(parts: &Parts<'_>) -> Result<(Vec<WorkerTasks>, usize)> {
    let (stages, stage_of) = stages(parts.plan, parts.workers);
    let mut chains: Vec<Vec<Chain>> = stages.iter().map(|s| (0..s.parallelism).map(|_| Chain::default()).collect()).collect();
    let mut receivers: Vec<Vec<Vec<Vec<LaneReceiver>>>> = stages.iter().map(|s| (0..s.parallelism).map(|_| Vec::new()).collect()).collect();
    // Number of each node's operator in its chain (None: the node is the task's input itself).
    let mut slots: HashMap<NodeId, Option<usize>> = HashMap::new();

    for node in &parts.plan.nodes {
        let at = stage_of[node.id];
        let stage = &stages[at];
        let is_head = stage.head == node.id;
        if is_head {
            for input in &node.inputs {
                let from = stage_of[*input];
                connect(parts, node, *input, &mut chains[from], (stage, &mut receivers[at]), &slots)?;
            }
        }
        for (worker, chain) in chains[at].iter_mut().enumerate() {
            let before = if is_head { None } else { slots[&node.inputs[0]] };
            let slot = add_node(parts, node, chain, before, worker, stage.parallelism, is_head)?;
            slots.insert(node.id, slot);
        }
    }

    let mut workers: Vec<WorkerTasks> = (0..parts.workers).map(|_| Vec::new()).collect();
    let mut count = 0;
    let built = stages.iter().zip(chains).zip(receivers).collect::<Vec<_>>();
    for ((stage, chains), receivers) in built.into_iter().rev() {
        for (worker, (chain, lanes)) in chains.into_iter().zip(receivers).enumerate() {
            workers[worker].push(task(parts, stage, worker, chain, lanes, count)?);
            count += 1;
        }
    }
    Ok((workers, count))
}

/// Cuts the plan into stages.
fn stages(plan: &StreamPlan, workers: usize) -> (Vec<Stage>, Vec<usize>) {
    let mut stages: Vec<Stage> = Vec::new();
    let mut stage_of = Vec::with_capacity(plan.nodes.len());
    for node in &plan.nodes {
        let upstream = node.inputs.iter().map(|i| stage_of[*i]).collect::<Vec<usize>>();
        let parallel = upstream.iter().map(|s| stages[*s].parallelism).max().unwrap_or(workers);
        let head = match &node.op {
            Op::Source(_) => Some(workers),
            Op::Union => Some(parallel),
            Op::WindowAggregate(_) | Op::GroupAggregate(_) if parallel > 1 => Some(workers),
            Op::Limit(_) if parallel > 1 => Some(1),
            Op::Sink(sink) if parallel > 1 && needs_one_writer(sink) => Some(1),
            _ => None,
        };
        match head {
            Some(parallelism) => {
                stage_of.push(stages.len());
                stages.push(Stage { head: node.id, parallelism, nodes: vec![node.id] });
            }
            None => {
                stage_of.push(upstream[0]);
                stages[upstream[0]].nodes.push(node.id);
            }
        }
    }
    (stages, stage_of)
}

fn needs_one_writer(sink: &SinkOp) -> bool {
    sink.table.as_ref().is_none_or(|(_, sink)| sink.single_writer())
}

/// In which order rows reach a sink's single writer.
fn order_at(plan: &StreamPlan, node: &Node, sink: &SinkOp) -> Order {
    if !needs_one_writer(sink) {
        return Order::Any;
    }
    let mut at = node;
    loop {
        match &at.op {
            Op::WindowAggregate(_) => return Order::Windows,
            Op::Source(_) => return Order::Arrival,
            Op::Union | Op::GroupAggregate(_) | Op::Limit(_) => return Order::Any,
            _ => at = &plan.nodes[at.inputs[0]],
        }
    }
}

/// Adds the exits of stage `from` and the lanes into `to` for the edge `input` → `node`.
fn connect(
    parts: &Parts<'_>,
    node: &Node,
    input: NodeId,
    chains: &mut [Chain],
    (to, receivers): (&Stage, &mut [Vec<Vec<LaneReceiver>>]),
    slots: &HashMap<NodeId, Option<usize>>,
) -> Result<()> {
    let input_schema = &parts.plan.nodes[input].schema;
    let route = match &node.op {
        Op::WindowAggregate(op) => {
            let windows = window_columns(&op.window);
            Route::Keys((windows..windows + op.keys.len()).collect())
        }
        Op::GroupAggregate(op) => Route::Keys(op.keys.clone()),
        _ => Route::One,
    };
    let keep_empty = matches!(&node.op, Op::Sink(sink) if order_at(parts.plan, node, sink) == Order::Arrival);
    receivers.iter_mut().for_each(|inputs| inputs.push(Vec::new()));
    for (a, chain) in chains.iter_mut().enumerate() {
        let targets: Vec<usize> = match (&route, to.parallelism) {
            (Route::Keys(_), n) => (0..n).collect(),
            (Route::One, 1) => vec![0],
            (Route::One, _) => vec![a],
        };
        let mut senders: Vec<LaneSender> = Vec::with_capacity(targets.len());
        for b in targets {
            let (sender, receiver) = lane(LANE_BYTES, parts.signals[a].clone(), parts.signals[b].clone());
            senders.push(sender);
            receivers[b].last_mut().expect("one was added above").push(receiver);
        }
        let mut before = slots[&input];
        if let Op::WindowAggregate(op) = &node.op {
            let watermark = parts.restored.get(&node.id).map_or(Watermark::MIN, |(watermark, _)| *watermark);
            let partial = PartialWindow::new(op, input_schema, intake(parts, op)?, watermark)?;
            let slot = chain.add_operator(node.id, Box::new(partial), watermark);
            chain.connect(before, Target::Operator(slot));
            before = Some(slot);
        }
        let exit = chain.add_exit(Exit { route: route.clone(), lanes: senders, keep_empty, pending: Default::default() });
        chain.connect(before, Target::Exit(exit));
    }
    Ok(())
}

fn intake(parts: &Parts<'_>, op: &WindowAggregateOp) -> Result<WindowIntake> {
    let late = match &op.late_rows {
        None => None,
        Some((table, _)) => {
            let sink = sink_number(parts, &table.name)?;
            Some(LateRows { sink, writer: parts.sinks[sink].writer()? })
        }
    };
    Ok(WindowIntake::new(op, parts.metrics.clone(), late))
}

fn sink_number(parts: &Parts<'_>, table: &str) -> Result<usize> {
    parts.sinks.iter().position(|s| s.table.name == table).ok_or_else(|| Error::internal(format!("sink '{table}' was not enumerated")))
}

/// Adds `node` to a chain behind operator `before`; answers its operator's number.
fn add_node(
    parts: &Parts<'_>,
    node: &Node,
    chain: &mut Chain,
    before: Option<usize>,
    worker: usize,
    parallelism: usize,
    is_head: bool,
) -> Result<Option<usize>> {
    let input = node.inputs.first().map(|i| &parts.plan.nodes[*i].schema);
    let input = || input.ok_or_else(|| Error::internal(format!("node {} has no input", node.id)));
    let range = KeyRange { worker, workers: parallelism };
    let nothing = (Watermark::MIN, Vec::new());
    let (watermark, segments) = parts.restored.get(&node.id).unwrap_or(&nothing);
    let operator: Box<dyn super::operators::Operator> = match &node.op {
        Op::Source(_) | Op::Union => return Ok(before),
        Op::Sink(op) => {
            let end = sink_end(parts, node, op)?;
            let sink = chain.add_sink(end);
            chain.connect(before, Target::Sink(sink));
            return Ok(before);
        }
        Op::Calc(op) => Box::new(Calc::new(op.clone(), node.schema.clone())),
        Op::WindowAssign(op) => Box::new(WindowAssign::new(op, node.schema.clone())?),
        Op::WindowAggregate(op) => {
            // Behind an exchange rows have been through a partial half.
            let intake = if is_head { None } else { Some(intake(parts, op)?) };
            let mut operator = WindowAggregate::new(op, input()?, node.schema.clone(), intake)?;
            operator.restore(*watermark, segments, &range)?;
            Box::new(operator)
        }
        Op::GroupAggregate(op) => {
            let mut operator = GroupAggregate::new(op, input()?, node.schema.clone())?;
            operator.restore(segments, &range)?;
            Box::new(operator)
        }
        Op::StaticJoin(op) => {
            let table = parts.statics.get(&node.id).ok_or_else(|| Error::internal("a static table was not loaded"))?;
            Box::new(StaticJoin::new(op.clone(), table.clone(), node.schema.clone()))
        }
        Op::Predict(_) => {
            let slot = parts.models.get(&node.id).ok_or_else(|| Error::internal("a model was not loaded"))?;
            Box::new(Predict::new(slot.clone(), node.schema.clone(), parts.metrics.clone()))
        }
        Op::Limit(op) => {
            let reached = parts.limits.get(&node.id).cloned().unwrap_or_default();
            Box::new(Limit::new(*op, Limit::seen_in(segments), reached))
        }
    };
    let slot = chain.add_operator(node.id, operator, *watermark);
    chain.connect(before, Target::Operator(slot));
    Ok(Some(slot))
}

fn sink_end(parts: &Parts<'_>, node: &Node, op: &SinkOp) -> Result<SinkEnd> {
    let (number, name, target) = match &op.table {
        Some((table, _)) => {
            let number = sink_number(parts, &table.name)?;
            (number, table.name.as_str(), sink::Target::Writer(parts.sinks[number].writer()?))
        }
        None => {
            let rows = parts.rows.clone().ok_or_else(|| Error::internal("nobody takes the rows of a SELECT"))?;
            (usize::MAX, "terminal", sink::Target::Rows(rows))
        }
    };
    let not_null = match &op.table {
        Some((table, _)) => (0..table.physical.fields().len()).filter(|i| !table.physical.field(*i).is_nullable()).collect(),
        None => Vec::new(),
    };
    Ok(SinkEnd::new(number, name, target, order_at(parts.plan, node, op), not_null, op.drop_nulls, parts.metrics.clone()))
}

fn task(parts: &Parts<'_>, stage: &Stage, worker: usize, chain: Chain, lanes: Vec<Vec<LaneReceiver>>, id: usize) -> Result<Box<dyn Task>> {
    let node = &parts.plan.nodes[stage.head];
    let Op::Source(op) = &node.op else {
        return Ok(Box::new(LaneTask {
            id,
            inputs: Inputs::new(lanes, Watermark::MIN),
            chain,
            events: parts.events.clone(),
            metrics: parts.metrics.clone(),
            ended: false,
        }));
    };
    let dead_letter = match &op.bad_records {
        BadRecords::DeadLetter(table, _) => {
            let sink = sink_number(parts, &table.name)?;
            Some(DeadLetter { sink, writer: parts.sinks[sink].writer()?, schema: table.physical.clone() })
        }
        _ => None,
    };
    Ok(Box::new(SourceTask {
        id,
        worker,
        hub: parts.hubs[&node.id].clone(),
        reader: op.source.reader(&op.scan)?,
        op: op.clone(),
        schema: node.schema.clone(),
        chain,
        dead_letter,
        early_filter: early_filter(parts.plan, node),
        events: parts.events.clone(),
        waiting: None,
        forwarded: Watermark::MIN,
        was_idle: false,
        started: false,
        ended: false,
    }))
}

/// Planted fault: the filter right behind a source.
fn early_filter(plan: &StreamPlan, source: &Node) -> Option<crate::sql::plan::Expr> {
    if !crate::fault::planted("filter-before-watermark") {
        return None;
    }
    plan.nodes.iter().find_map(|n| match &n.op {
        Op::Calc(calc) if n.inputs == [source.id] => calc.predicate.clone(),
        _ => None,
    })
}
