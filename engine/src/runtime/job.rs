//! One run of a job: start or resume, coordinate, end.
//!
//! ```text
//!  lock ─▶ manifest ─▶ recover sinks ─▶ static tables ─▶ open sources ─▶ tasks on workers
//!                                                       coordinator: events ─▶ protocol ─▶ actions
//! ```
//!
//! The coordinator is the calling thread. It decides nothing itself: [`Protocol`] says what to do, this file
//! does it. What must hold: a commit follows its durable manifest (with the planted fault
//! `publish-before-manifest` it does not); `finished` is written only when the inputs have ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::{Duration, Instant};

use super::build::{self, JobSink, Parts, Restored};
use super::channel::Signal;
use super::checkpoint::manifest::Manifest;
use super::checkpoint::protocol::{Action, Event, Protocol};
use super::checkpoint::store::{LocalStore, Store};
use super::checkpoint::write::{self, Pending, Writer};
use super::checkpoint::{Ack, Place, Segment};
use super::models::JobModels;
use super::source::{SourceHub, run_fetcher};
use super::statics::{self, Statics};
use super::task::{JobEvent, send};
use super::worker;
use crate::connectors::{BatchLimits, Committer, Fetcher, Split};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::JobMetrics;
use crate::sql::plan::{NodeId, Op, StreamPlan};
use crate::stream::{Barrier, Epoch, StreamBatch, Watermark};

/// How a caller stops a running job.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Stop with a checkpoint; nothing is fired early.
    pub fn graceful(&self) {
        self.0.fetch_max(1, Ordering::Relaxed);
    }

    /// Drop everything now, as a crash would; the state directory stays as it is.
    pub fn kill(&self) {
        self.0.fetch_max(2, Ordering::Relaxed);
    }

    /// Whether the caller wants an end, of either kind.
    pub fn is_asked(&self) -> bool {
        self.level() > 0
    }

    fn level(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How to run a job.
pub struct JobOptions {
    /// Name: its output belongs to it.
    pub name: String,
    /// SQL text for the manifest, secrets masked.
    pub sql: String,
    /// Worker threads.
    pub workers: usize,
    /// State directory; used where a sink is durable.
    pub state_dir: Option<PathBuf>,
    /// A store in place of the directory, for tests.
    pub store: Option<Arc<dyn Store>>,
    /// Forget state and committed files first.
    pub fresh: bool,
    /// Resume from this epoch rather than the newest.
    pub from: Option<Epoch>,
    /// Take changed static files.
    pub refresh_static: bool,
    /// The registry that ML_PREDICT takes its models from.
    pub models: PathBuf,
    /// Limits of fetched batches.
    pub limits: BatchLimits,
    /// The caller's handle.
    pub stop: Stop,
    /// End after this time with a checkpoint.
    pub duration: Option<Duration>,
    /// Where rows of a plain SELECT go.
    pub rows: Option<SyncSender<StreamBatch>>,
    /// Counters.
    pub metrics: Arc<JobMetrics>,
    /// Takes messages for a person (stderr).
    pub notice: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// The inputs ended, or LIMIT was reached.
    End,
    /// The caller stopped it.
    Signal,
    /// Its duration passed.
    For,
    /// It had finished before: nothing was done.
    AlreadyFinished,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Why it ended.
    pub ended_by: EndedBy,
    /// The epoch it went on from.
    pub restored_from: Option<Epoch>,
    /// The newest durable epoch.
    pub epoch: Option<Epoch>,
}

/// The default checkpoint interval of jobs with a durable sink.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
/// How often the coordinator looks up when nothing happens.
const TICK: Duration = Duration::from_millis(10);

/// Runs `plan` to its end.
///
/// # Errors
/// State: another live run holds the directory, or its state does not fit. Else what ended the job.
pub fn run(plan: &StreamPlan, options: JobOptions) -> Result<Outcome> {
    let sinks = build::sinks(plan);
    let durable = sinks.iter().any(|s| s.sink.is_durable());
    let _lock = match &options.state_dir {
        Some(dir) if durable => Some(lock(dir)?),
        _ => None,
    };
    let store: Option<Arc<dyn Store>> = match (&options.store, &options.state_dir) {
        (Some(store), _) => Some(store.clone()),
        (None, Some(dir)) if durable => Some(Arc::new(LocalStore::open(dir)?)),
        _ => None,
    };
    let mut committers = sinks.iter().map(|s| s.sink.committer()).collect::<Result<Vec<_>>>()?;
    if options.fresh {
        forget(store.as_deref(), &mut committers, &options)?;
    }
    let manifest = match &store {
        Some(store) => Manifest::latest(store.as_ref(), options.from)?,
        None => None,
    };
    if let Some(manifest) = &manifest {
        check_fits(plan, manifest)?;
    }
    let restored_from = manifest.as_ref().map(|m| m.epoch);
    for (sink, committer) in sinks.iter().zip(&mut committers) {
        let state = manifest.as_ref().and_then(|m| m.sinks.iter().find(|s| s.table == sink.table.name));
        committer.recover(restored_from, state.map_or(&[], |s| &s.pending))?;
    }
    if manifest.as_ref().is_some_and(|m| m.finished) {
        return Ok(Outcome { ended_by: EndedBy::AlreadyFinished, restored_from, epoch: restored_from });
    }
    Run::start(plan, &options, sinks, committers, store, manifest)?.coordinate()
}

/// Takes the lock of a state directory; it is given back when the file is closed, however the process ends.
fn lock(dir: &std::path::Path) -> Result<std::fs::File> {
    let path = dir.join("lock");
    let made = std::fs::create_dir_all(dir).and_then(|()| std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path));
    let file = made.map_err(|e| {
        Error::external(format!("cannot write the state directory {}", dir.display()))
            .caused_by(e)
            .help("name another one with --state DIR")
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::state(format!("another run of this job holds {}", dir.display()))
            .help("wait for it or stop it; two jobs of one name need --job NAME")),
        Err(std::fs::TryLockError::Error(e)) => Err(Error::external(format!("cannot lock {}", path.display())).caused_by(e)),
    }
}

/// `--fresh`: what the job has committed, then its state.
fn forget(store: Option<&dyn Store>, committers: &mut [Box<dyn Committer>], options: &JobOptions) -> Result<()> {
    for committer in committers {
        if let Some(warning) = committer.remove_committed()? {
            (options.notice)(&warning);
        }
    }
    let Some(store) = store else { return Ok(()) };
    for name in store.list()?.into_iter().filter(|n| n != "lock") {
        store.remove(&name)?;
    }
    Ok(())
}

/// Refuses state of another query, naming what no longer has a place.
fn check_fits(plan: &StreamPlan, manifest: &Manifest) -> Result<()> {
    let known: BTreeSet<&str> = plan.nodes.iter().map(|n| n.fingerprint.as_str()).collect();
    let operators = manifest.operators.iter().map(|o| (&o.fingerprint, &o.name));
    let lost: BTreeSet<&String> = operators
        .chain(manifest.sources.iter().map(|s| (&s.fingerprint, &s.table)))
        .filter(|(f, _)| !known.contains(f.as_str()))
        .map(|(_, n)| n)
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    let names = lost.into_iter().cloned().collect::<Vec<_>>().join(", ");
    Err(Error::state(format!("the query has changed since epoch {}: the state of {names} has no place in it", manifest.epoch))
        .help("start over with --fresh, or run the changed file as another job with --job NAME"))
}

struct Run<'a> {
    plan: &'a StreamPlan,
    options: &'a JobOptions,
    sinks: Vec<JobSink>,
    committers: Vec<Box<dyn Committer>>,
    checkpoints: Option<Writer<'a>>,
    statics: Statics,
    models: JobModels,
    hubs: BTreeMap<NodeId, Arc<SourceHub>>,
    limits: HashMap<NodeId, Arc<AtomicBool>>,
    events: Receiver<JobEvent>,
    abort: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    signals: Vec<Arc<Signal>>,
    protocol: Protocol,
    acks: Vec<Ack>,
    restored_from: Option<Epoch>,
    ended_by: EndedBy,
    inputs_ended: bool,
    publish_first: bool,
    pending: Pending,
    epoch: Option<Epoch>,
}

impl<'a> Run<'a> {
    fn start(
        plan: &'a StreamPlan,
        options: &'a JobOptions,
        sinks: Vec<JobSink>,
        committers: Vec<Box<dyn Committer>>,
        store: Option<Arc<dyn Store>>,
        manifest: Option<Manifest>,
    ) -> Result<Self> {
        let statics = statics::load(plan, manifest.as_ref(), store.as_deref(), options.refresh_static, &options.metrics)?;
        for table in &statics.changed {
            (options.notice)(&format!(
                "the static table '{table}' has changed since the job started; it goes on with the rows it has (--refresh-static takes the new ones)"
            ));
        }
        let models = JobModels::load(plan, &options.models, manifest.as_ref())?;
        let restored = read_state(plan, manifest.as_ref(), store.as_deref(), &sinks)?;
        let signals: Vec<Arc<Signal>> = (0..options.workers).map(|_| Arc::default()).collect();
        let checkpoints = store.map(|store| Writer {
            job: &options.name,
            sql: &options.sql,
            workers: options.workers,
            plan,
            sinks: sinks.iter().map(|s| s.table.name.clone()).collect(),
            statics: statics.states.clone(),
            store,
            files: manifest.as_ref().map(|m| m.files.clone()).unwrap_or_default(),
        });
        let (sender, events) = mpsc::channel();
        let abort = Arc::new(AtomicBool::new(false));
        let mut run = Self {
            plan,
            options,
            sinks,
            committers,
            statics,
            models,
            hubs: BTreeMap::new(),
            limits: HashMap::new(),
            events,
            abort,
            threads: Vec::new(),
            signals,
            protocol: Protocol::new(0, Epoch(0)),
            acks: Vec::new(),
            restored_from: manifest.as_ref().map(|m| m.epoch),
            ended_by: EndedBy::End,
            inputs_ended: false,
            publish_first: crate::fault::planted("publish-before-manifest"),
            pending: Pending::new(),
            epoch: manifest.as_ref().map(|m| m.epoch),
            checkpoints,
        };
        run.spawn(&restored, manifest.as_ref(), sender)?;
        Ok(run)
    }

    /// Opens the sources, builds the tasks and starts all threads.
    fn spawn(&mut self, restored: &Restored, manifest: Option<&Manifest>, sender: Sender<JobEvent>) -> Result<()> {
        let mut fetchers: Vec<(NodeId, Box<dyn Fetcher>, Vec<Split>)> = Vec::new();
        for node in &self.plan.nodes {
            match &node.op {
                Op::Source(op) => {
                    let state = manifest.and_then(|m| m.sources.iter().find(|s| s.fingerprint == node.fingerprint));
                    let kept: Option<Vec<Split>> = state.map(|s| s.splits.iter().map(|(split, _)| split.clone()).collect());
                    let fetcher = op.source.open(&op.scan, kept.as_deref())?;
                    let merged = state.map_or(Watermark::MIN, |s| s.merged);
                    let known: HashMap<&str, Watermark> =
                        state.iter().flat_map(|s| s.splits.iter().map(|(p, w)| (p.id.as_str(), *w))).collect();
                    let splits = fetcher.splits();
                    let timed: Vec<(Split, Watermark)> =
                        splits.iter().map(|s| (s.clone(), known.get(s.id.as_str()).copied().unwrap_or(merged))).collect();
                    let metrics = self.options.metrics.source(&op.table.name);
                    metrics.has_watermark.store(op.watermark.is_some(), Ordering::Relaxed);
                    for split in &splits {
                        metrics.records.lock().expect("no panic while locked").entry(split.id.clone()).or_default();
                    }
                    let hub = SourceHub::new(node.id, fetchers.len(), self.signals.clone(), &timed, merged, metrics);
                    self.hubs.insert(node.id, hub);
                    fetchers.push((node.id, fetcher, splits));
                }
                Op::Limit(_) => {
                    self.limits.insert(node.id, Arc::default());
                }
                _ => {}
            }
        }
        let hubs: HashMap<NodeId, Arc<SourceHub>> = self.hubs.iter().map(|(k, v)| (*k, v.clone())).collect();
        let (workers, tasks) = build::build(&Parts {
            plan: self.plan,
            workers: self.options.workers,
            signals: &self.signals,
            hubs: &hubs,
            statics: &self.statics.tables,
            models: &self.models.slots(),
            sinks: &self.sinks,
            restored,
            rows: self.options.rows.clone(),
            limits: &self.limits,
            events: sender.clone(),
            metrics: self.options.metrics.clone(),
        })?;
        self.protocol = Protocol::new(tasks, self.restored_from.unwrap_or(Epoch(0)));
        for (index, tasks) in workers.into_iter().enumerate() {
            let (signal, abort) = (self.signals[index].clone(), self.abort.clone());
            self.thread(format!("worker-{index}"), &sender, move || worker::run(tasks, &signal, &abort))?;
        }
        for (node, fetcher, splits) in fetchers {
            let Op::Source(op) = &self.plan.nodes[node].op else { continue };
            let (hub, limits, idle, abort, events) =
                (self.hubs[&node].clone(), self.options.limits, op.idle_timeout, self.abort.clone(), sender.clone());
            let work = move || run_fetcher(&hub, fetcher, splits, limits, idle, &events, &abort);
            self.thread(format!("source-{}", op.table.name), &sender, work)?;
        }
        Ok(())
    }

    fn thread(&mut self, name: String, events: &Sender<JobEvent>, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        let events = events.clone();
        let body = move || {
            let ended = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
                Err(Error::internal(format!("a thread panicked: {}", text.unwrap_or_default())))
            });
            if let Err(e) = ended {
                send(&events, JobEvent::Failed(e));
            }
        };
        let spawned = std::thread::Builder::new().name(name).spawn(body);
        self.threads.push(spawned.map_err(|e| Error::external("cannot start a thread").caused_by(e))?);
        Ok(())
    }

    /// The coordinator's loop.
    fn coordinate(mut self) -> Result<Outcome> {
        let result = self.until_done();
        // Threads end by themselves after the last barrier; after an error or a kill they are told to.
        self.abort.store(result.is_err() || !self.protocol.is_done(), Ordering::Relaxed);
        self.hubs.values().for_each(|h| h.finish());
        self.signals.iter().for_each(|s| s.raise());
        for thread in self.threads.drain(..) {
            // A panic was caught inside and reported.
            let _ = thread.join();
        }
        result.map(|()| Outcome { ended_by: self.ended_by, restored_from: self.restored_from, epoch: self.epoch })
    }

    fn until_done(&mut self) -> Result<()> {
        let started = Instant::now();
        let durable = self.checkpoints.is_some();
        // Where nothing is kept, a barrier is still what lets a new version of a model take over.
        let barriers = durable || !self.models.is_empty();
        let interval = Some(self.plan.settings.checkpoint_interval.unwrap_or(CHECKPOINT_INTERVAL)).filter(|_| barriers);
        let mut next_tick = interval.map(|i| started + i);
        let mut next_look = started;
        let mut sources_ended = BTreeSet::new();
        if self.hubs.is_empty() {
            return Err(Error::user("the job reads no table"));
        }
        while !self.protocol.is_done() {
            let event = match self.events.recv_timeout(TICK) {
                Ok(JobEvent::Acked(ack)) => {
                    let event = Event::Acked { task: ack.task, epoch: ack.epoch };
                    self.acks.push(*ack);
                    Some(event)
                }
                Ok(JobEvent::SourceEnded(source)) => {
                    sources_ended.insert(source);
                    self.inputs_ended = sources_ended.len() == self.hubs.len();
                    self.inputs_ended.then_some(Event::SourcesEnded)
                }
                Ok(JobEvent::Failed(e)) => return Err(e),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::internal("every thread of the job is gone")),
            };
            self.act(event)?;
            let now = Instant::now();
            match self.options.stop.level() {
                0 => {}
                1 => self.stop(EndedBy::Signal)?,
                _ => return Ok(()),
            }
            if self.options.duration.is_some_and(|d| started.elapsed() >= d) {
                self.stop(EndedBy::For)?;
            }
            if self.limits_reached() {
                if !durable && self.sinks.is_empty() {
                    // Every row that was asked for is with the caller, and there is nothing to keep.
                    return Ok(());
                }
                self.stop(EndedBy::End)?;
            }
            if next_tick.is_some_and(|at| now >= at) {
                next_tick = interval.map(|i| now + i);
                if durable || self.models.look(self.options.notice.as_ref()) {
                    self.act(Some(Event::Tick))?;
                }
            }
            if now >= next_look {
                next_look = now + Duration::from_millis(500);
                self.look();
            }
        }
        Ok(())
    }

    fn stop(&mut self, by: EndedBy) -> Result<()> {
        if self.ended_by == EndedBy::End && !self.inputs_ended {
            self.ended_by = by;
        }
        self.act(Some(Event::Stop))
    }

    /// Every sink lies behind a LIMIT that is full.
    fn limits_reached(&self) -> bool {
        let behind_full_limit = |mut id: NodeId| loop {
            let node = &self.plan.nodes[id];
            if self.limits.get(&id).is_some_and(|l| l.load(Ordering::Acquire)) {
                return true;
            }
            match node.inputs[..] {
                [input] => id = input,
                _ => return false,
            }
        };
        !self.limits.is_empty() && self.plan.nodes.iter().filter(|n| matches!(n.op, Op::Sink(_))).all(|n| behind_full_limit(n.id))
    }

    /// What progress shows beside counters.
    fn look(&self) {
        for hub in self.hubs.values() {
            hub.publish_holders();
        }
    }

    /// Hands an event to the protocol and does what it says, until it says nothing more.
    fn act(&mut self, event: Option<Event>) -> Result<()> {
        let mut next = event;
        while let Some(action) = next.take().and_then(|e| self.protocol.on(e)) {
            match action {
                Action::Inject(barrier) => {
                    self.acks.clear();
                    // Nothing is scored behind the last barrier: a version pinned there would never have been used.
                    if !barrier.last && self.models.look(self.options.notice.as_ref()) {
                        self.models.swap_at(barrier.epoch, self.options.notice.as_ref());
                    }
                    self.hubs.values().for_each(|h| h.inject(barrier));
                }
                Action::Write(barrier) => {
                    self.pending = write::pending(&self.acks);
                    if self.publish_first {
                        self.commit(barrier.epoch)?;
                    }
                    self.write(barrier)?;
                    next = Some(Event::Written);
                }
                Action::Commit(epoch) => {
                    if !self.publish_first {
                        self.commit(epoch)?;
                    }
                    self.after_commit()?;
                    next = Some(Event::Committed);
                }
                Action::End => {}
            }
        }
        Ok(())
    }

    /// The checkpoint, where there is a place for it.
    fn write(&mut self, barrier: Barrier) -> Result<()> {
        let finished = barrier.last && self.inputs_ended;
        let Some(checkpoints) = &mut self.checkpoints else { return Ok(()) };
        checkpoints.write(barrier, finished, &self.acks, &self.pending, &mut self.models)?;
        self.epoch = Some(barrier.epoch);
        self.options.metrics.epochs.add(1);
        Ok(())
    }

    fn commit(&mut self, epoch: Epoch) -> Result<()> {
        crate::crash::at("sink.before-commit");
        for (number, committer) in self.committers.iter_mut().enumerate() {
            committer.commit(epoch, self.pending.get(&number).map_or(&[], Vec::as_slice))?;
        }
        crate::crash::at("sink.after-commit");
        Ok(())
    }

    /// What the checkpoint has made superfluous goes; the sources hear how far they need never go back again.
    fn after_commit(&mut self) -> Result<()> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        Manifest::prune(checkpoints.store.as_ref())?;
        for source in self.acks.iter().flat_map(|a| &a.sources) {
            self.hubs[&source.node].durable(source.splits.iter().map(|(s, _)| s.position.clone()).collect());
        }
        Ok(())
    }
}

/// Reads operator segments and kept sink rows of a checkpoint.
fn read_state(plan: &StreamPlan, manifest: Option<&Manifest>, store: Option<&dyn Store>, sinks: &[JobSink]) -> Result<Restored> {
    let (Some(manifest), Some(store)) = (manifest, store) else { return Ok(Restored::new()) };
    let mut files: HashMap<String, Vec<arrow::array::RecordBatch>> = HashMap::new();
    let mut rows_at = |place: &Place| -> Result<arrow::array::RecordBatch> {
        if !files.contains_key(&place.file) {
            files.insert(place.file.clone(), manifest.read_file(store, &place.file)?);
        }
        files[&place.file]
            .get(place.index)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::State, format!("{} holds fewer segments than the manifest names", place.file)))
    };
    let mut restored = Restored::new();
    for state in &manifest.operators {
        let Some(node) = plan.nodes.iter().find(|n| n.fingerprint == state.fingerprint) else { continue };
        let entry = restored.entry(node.id).or_insert((state.watermark, Vec::new()));
        entry.0 = entry.0.min(state.watermark);
        for place in &state.segments {
            entry.1.push(Segment::stored(rows_at(place)?, place.clone()));
        }
    }
    for state in &manifest.sinks {
        let Some(sink) = sinks.iter().find(|s| s.table.name == state.table) else { continue };
        let kept = state.kept.iter().map(&mut rows_at).collect::<Result<Vec<_>>>()?;
        *sink.kept.lock().expect("no panic while locked") = kept;
    }
    Ok(restored)
}
