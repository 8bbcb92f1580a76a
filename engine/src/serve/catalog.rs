//! The models that are served: one loaded version of each, others when they are asked for, and the swap to a new one.
//!
//! ```text
//!  source (a registry) ─ list, load ─ refresh ─▶ Snapshot ─▶ calls
//! ```
//!
//! A call takes the snapshot as it stands and keeps its model to the end, so a swap fails nobody. What must hold: a
//! version that cannot be loaded never replaces one that is; nothing is loaded while the lock is held.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::answers::Answers;
use super::failure::{Answered, Failure, Reason};
use super::rows::Inputs;
use crate::error::{Result, nearest};
use crate::models::registry::{CHAMPION, Selector};
use crate::models::task::{Algorithm, Task};

/// Versions kept loaded beside the ones that are served.
const OTHERS_MAX: usize = 16;

/// Where models come from.
pub trait Source: Send + Sync + 'static {
    /// The models there are.
    ///
    /// # Errors
    /// External: the place cannot be read.
    fn list(&self) -> Result<Vec<Listing>>;

    /// Loads one version, checked.
    ///
    /// # Errors
    /// State: the version is damaged or foreign.
    fn load(&self, name: &str, version: u64) -> Result<Loaded>;
}

/// One model of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its name.
    pub name: String,
    /// Its versions, ascending.
    pub versions: Vec<u64>,
    /// Aliases and what they stand for.
    pub aliases: BTreeMap<String, u64>,
    /// The version that answers when none is asked for, or why it cannot be said.
    pub served: std::result::Result<u64, String>,
}

/// A version that can be asked.
pub struct Loaded {
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: u64,
    /// What it answers.
    pub task: Task,
    /// How it was learnt.
    pub algorithm: Algorithm,
    /// What it takes.
    pub inputs: Inputs,
    /// What `ML_PREDICT` appends.
    pub outputs: SchemaRef,
    /// The texts of the classes, in the order of the probabilities.
    pub classes: Vec<String>,
    /// The model itself.
    pub scorer: Box<dyn Scorer>,
}

/// Scores rows.
pub trait Scorer: Send + Sync {
    /// The answers to `rows`, which have the model's inputs.
    ///
    /// # Errors
    /// The first row that is refused, named where `rows` are several.
    fn score(&self, rows: &RecordBatch) -> Answered<Answers>;
}

/// What a refresh found, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A model is served by a version for the first time.
    Loaded(String, u64),
    /// A version took the place of another.
    Swapped(String, u64, u64),
    /// A version could not be loaded; what was served stays.
    Failed(String, u64, String),
    /// A model is gone.
    Removed(String),
}

/// The models that are served.
pub struct Catalog {
    source: Box<dyn Source>,
    current: RwLock<Arc<Snapshot>>,
    others: Mutex<Vec<Arc<Loaded>>>,
    /// One refresh at a time: two would load the same version twice.
    refreshing: Mutex<()>,
}

/// The models at one moment.
#[derive(Default)]
pub struct Snapshot {
    /// By name.
    pub models: BTreeMap<String, Entry>,
}

/// One model at one moment.
#[derive(Clone)]
pub struct Entry {
    /// What the source says of it.
    pub listing: Listing,
    /// The version that answers; none where no version could be loaded yet.
    pub served: Option<Arc<Loaded>>,
    /// The version that failed last, which is not tried again, and why.
    failed: Option<(u64, String)>,
}

/// Which version is meant, as the Open Inference Protocol writes it: nothing, a number or an alias.
///
/// # Errors
/// Unknown version: no alias can have that name.
pub fn selector(text: &str) -> Answered<Selector> {
    Selector::parse(text).map_err(|e| Failure::new(Reason::UnknownVersion, e.message()))
}

impl Catalog {
    /// An empty catalogue of `source`; [`Catalog::refresh`] fills it.
    pub fn new(source: impl Source) -> Self {
        Self { source: Box::new(source), current: RwLock::default(), others: Mutex::default(), refreshing: Mutex::default() }
    }

    /// The models at this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Looks what the source has, loads what is to be served and swaps it in. Blocks on files.
    ///
    /// # Errors
    /// External: the source cannot be listed; everything stays.
    pub fn refresh(&self) -> Result<Vec<Event>> {
        let _one = self.refreshing.lock().unwrap_or_else(|e| e.into_inner());
        let old = self.snapshot();
        let (mut models, mut events) = (BTreeMap::new(), vec![]);
        for listing in self.source.list()? {
            let name = listing.name.clone();
            let before = old.models.get(&name);
            let mut entry = Entry { listing, served: before.and_then(|e| e.served.clone()), failed: before.and_then(|e| e.failed.clone()) };
            let has = entry.served.as_ref().map(|loaded| loaded.version);
            // What cannot be said is version 0, which no model has.
            let wanted = *entry.listing.served.as_ref().unwrap_or(&0);
            let failed_before = entry.failed.as_ref().is_some_and(|(version, _)| *version == wanted);
            if has != Some(wanted) && !failed_before {
                let loaded = match &entry.listing.served {
                    Ok(version) => self.source.load(&name, *version).map_err(|e| e.to_string()),
                    Err(why) => Err(why.clone()),
                };
                match loaded {
                    Ok(loaded) => {
                        entry.served = Some(Arc::new(loaded));
                        events.push(match has {
                            None => Event::Loaded(name.clone(), wanted),
                            Some(has) => Event::Swapped(name.clone(), has, wanted),
                        });
                    }
                    Err(why) => {
                        entry.failed = Some((wanted, why.clone()));
                        events.push(Event::Failed(name.clone(), wanted, why));
                    }
                }
            }
            if entry.served.as_ref().is_some_and(|loaded| loaded.version == wanted) {
                entry.failed = None;
            }
            models.insert(name, entry);
        }
        events.extend(old.models.keys().filter(|name| !models.contains_key(*name)).map(|name| Event::Removed(name.clone())));
        self.others
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .retain(|loaded| models.get(&loaded.name).is_some_and(|entry| entry.listing.versions.contains(&loaded.version)));
        *self.current.write().unwrap_or_else(|e| e.into_inner()) = Arc::new(Snapshot { models });
        Ok(events)
    }

    /// The model that is asked for.
    ///
    /// # Errors
    /// Unknown model or version, or a model that cannot be served.
    pub async fn get(self: &Arc<Self>, name: &str, selector: &Selector) -> Answered<Arc<Loaded>> {
        let snapshot = self.snapshot();
        let entry = snapshot.entry(name)?;
        let version = entry.version(selector)?;
        let loaded = match &entry.served {
            Some(loaded) if loaded.version == version => loaded.clone(),
            // A version that failed after another was served: that one goes on.
            Some(loaded) if *selector == Selector::Champion => loaded.clone(),
            _ => self.other(name, version).await?,
        };
        if loaded.algorithm == Algorithm::Dbscan {
            let message = format!("model '{name}' is of DBSCAN, which labels the rows it was given and cannot predict others");
            return Err(Failure::new(Reason::NotServable, message));
        }
        Ok(loaded)
    }

    async fn other(self: &Arc<Self>, name: &str, version: u64) -> Answered<Arc<Loaded>> {
        let found = |others: &[Arc<Loaded>]| others.iter().find(|l| l.name == name && l.version == version).cloned();
        if let Some(loaded) = found(&self.others.lock().unwrap_or_else(|e| e.into_inner())) {
            return Ok(loaded);
        }
        let (this, owned) = (self.clone(), name.to_string());
        let loaded = tokio::task::spawn_blocking(move || this.source.load(&owned, version));
        let loaded = match loaded.await {
            Ok(Ok(loaded)) => Arc::new(loaded),
            Ok(Err(_)) => return Err(unusable(name, version)),
            Err(e) => return Err(Failure::new(Reason::Internal, format!("loading a model failed: {e}"))),
        };
        let mut others = self.others.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(loaded) = found(&others) {
            return Ok(loaded);
        }
        if others.len() == OTHERS_MAX {
            others.remove(0);
        }
        others.push(loaded.clone());
        Ok(loaded)
    }
}

impl Snapshot {
    /// The model of that name.
    ///
    /// # Errors
    /// Unknown model, with the nearest name.
    pub fn entry(&self, name: &str) -> Answered<&Entry> {
        self.models.get(name).ok_or_else(|| {
            let hint = match nearest(name, self.models.keys().map(String::as_str)) {
                Some(near) => format!("; did you mean '{near}'?"),
                None => String::new(),
            };
            Failure::new(Reason::UnknownModel, format!("there is no model '{name}'{hint}"))
        })
    }

    /// The only model of `task`.
    ///
    /// # Errors
    /// Unknown model: there is none. Ambiguous: there are several, which are named.
    pub fn only(&self, task: Task) -> Answered<&str> {
        let of_task = |entry: &&Entry| entry.served.as_ref().is_some_and(|l| l.task == task && l.algorithm != Algorithm::Dbscan);
        let names: Vec<&str> = self.models.values().filter(of_task).map(|entry| entry.listing.name.as_str()).collect();
        match names[..] {
            [name] => Ok(name),
            [] => Err(Failure::new(Reason::UnknownModel, format!("there is no model for {task}"))),
            _ => {
                let message = format!("several models do {task}: {}; start with --default {task}=MODEL, or ask one", names.join(", "));
                Err(Failure::new(Reason::Ambiguous, message))
            }
        }
    }
}

impl Entry {
    fn version(&self, selector: &Selector) -> Answered<u64> {
        let name = &self.listing.name;
        let unknown = |what: String| Failure::new(Reason::UnknownVersion, format!("model '{name}' has no {what}"));
        match selector {
            Selector::Alias(alias) if alias == CHAMPION => self.version(&Selector::Champion),
            Selector::Champion => match (&self.served, &self.failed) {
                (Some(loaded), _) => Ok(loaded.version),
                (None, Some((version, _))) => Err(unusable(name, *version)),
                (None, None) => Err(unknown("version".into())),
            },
            Selector::Version(version) if self.listing.versions.contains(version) => Ok(*version),
            Selector::Version(version) => Err(unknown(format!("version {version}"))),
            Selector::Alias(alias) => self.listing.aliases.get(alias).copied().ok_or_else(|| unknown(format!("alias '{alias}'"))),
        }
    }
}

/// The reason names files of the server, and is not the caller's to know.
fn unusable(name: &str, version: u64) -> Failure {
    let message = format!("version {version} of model '{name}' is damaged or foreign; 'velosql models list' says how");
    Failure::new(Reason::NotServable, message)
}
