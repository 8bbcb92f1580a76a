//! Cumulative training: a follower of the commits of one table.
//!
//! ```text
//!  _commits/   e1   e2   e3 …            version 1 on the files of e1, version 2 on those of e1 and e2, …
//! ```
//!
//! What must hold: version k names exactly the files of the entries 1 to k; a version that exists is not trained again,
//! so a follower that was killed anywhere goes on where it stood; no entry is passed over while it can be trained on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::options::Training;
use super::query;
use super::recorded::Record;
use super::trainer::{self, Progress, Trained, Watch};
use crate::connectors::filesystem::{self, Commit};
use crate::connectors::{self, Context, TableSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::models::registry::{CHAMPION, InputFile, Listed, Manifest, Registry};
use crate::runtime::job::Stop;
use crate::sql::plan::{NodeId, Op, StreamPlan};

/// How often the table is looked at when nothing has come.
const LOOK: Duration = Duration::from_millis(100);

/// What the job that writes the table is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has not started: what lies in the table may still be taken back.
    Before,
    /// It runs.
    Running,
    /// It has ended: what is there is all.
    Ended,
}

/// What a follower tells.
#[derive(Debug)]
pub enum Told {
    /// The version for so many entries is there.
    Trained(u64, Box<Trained>),
    /// Entries up to this one had their versions already.
    Resumed(u64),
    /// What lies in the table is not what the versions were trained on: they start over with the first entry.
    StartsOver,
    /// A version is newer than the champion although nothing held it back.
    NotChampion(u64),
    /// No model can be trained on the entries up to this one.
    Skipped(u64, Error),
}

/// Follows one table for one model.
pub struct Follower {
    training: Training,
    plan: StreamPlan,
    /// The node that reads the table.
    node: NodeId,
    table: Arc<TableSpec>,
    context: Context,
    registry: Registry,
}

impl Follower {
    /// A follower for `training`, whose query is `plan`.
    ///
    /// # Errors
    /// User: the query does not read exactly one filesystem table beside static ones.
    pub fn new(training: Training, plan: StreamPlan, context: Context, registry: Registry) -> Result<Self> {
        let sources: Vec<(NodeId, Arc<TableSpec>)> =
            plan.nodes.iter().filter_map(|n| if let Op::Source(op) = &n.op { Some((n.id, op.table.clone())) } else { None }).collect();
        let files = |table: &TableSpec| table.options.get("connector").is_some_and(|c| c == "filesystem");
        let (node, table) = match &sources[..] {
            [(node, table)] if files(table) => (*node, table.clone()),
            _ => {
                let names = sources.iter().map(|(_, t)| format!("'{}'", t.name)).collect::<Vec<_>>().join(", ");
                let e = Error::user(format!(
                    "model '{}': 'training.mode' = 'cumulative' follows the commits of one filesystem table, but its query reads {}",
                    training.name,
                    if names.is_empty() { "none".to_string() } else { names }
                ));
                return Err(e.help("INSERT the rows into one filesystem table, with 'roll-rows', and select from that"));
            }
        };
        Ok(Self { training, plan, node, table, context, registry })
    }

    /// The training.
    pub fn training(&self) -> &Training {
        &self.training
    }

    /// Trains a version for each entry, in order, until the writing job has ended and the last one is trained, or the
    /// caller stops it.
    ///
    /// # Errors
    /// External: a disk refused. Else why no version at all could be trained.
    pub fn run(&self, phase: &(dyn Fn() -> Phase + Sync), stop: &Stop, watch: &Watch<'_>, tell: &dyn Fn(Told)) -> Result<()> {
        let mut done: Option<usize> = None;
        let (mut any, mut last) = (false, None);
        loop {
            // Asked first: what is committed after the answer is seen in the next turn.
            let at = phase();
            if stop.is_asked() {
                return Ok(());
            }
            if at == Phase::Before {
                std::thread::sleep(LOOK);
                continue;
            }
            let commits = filesystem::commits(&self.table, &self.context)?;
            let before = match done {
                Some(done) if done <= commits.len() => done,
                _ => self.resume(&commits, tell)?,
            };
            done = Some(before);
            any |= before > 0;
            if commits.len() == before {
                if at == Phase::Ended {
                    return if !any { last.map_or(Ok(()), Err) } else { Ok(()) };
                }
                std::thread::sleep(LOOK);
                continue;
            }
            for k in before + 1..=commits.len() {
                match self.train(&commits[..k], stop, watch) {
                    Ok(None) => return Ok(()),
                    Ok(Some(version)) => {
                        any = true;
                        tell(Told::Trained(k as u64, Box::new(version)));
                    }
                    // Too few rows or classes so far: the next entry may bring them.
                    Err(e) if matches!(e.kind(), ErrorKind::User | ErrorKind::Data) => {
                        last = Some(Error::new(e.kind(), e.to_string()));
                        tell(Told::Skipped(k as u64, e));
                    }
                    Err(e) => return Err(e),
                }
                done = Some(k);
            }
        }
    }

    /// The version for these entries; `None` where the caller stopped it.
    fn train(&self, commits: &[Commit], stop: &Stop, watch: &Watch<'_>) -> Result<Option<Trained>> {
        let files: Vec<PathBuf> = commits.iter().flat_map(|c| c.files.iter().map(|(path, _, _)| path.clone())).collect();
        let table = Arc::new(filesystem::made_of(&self.table, &files));
        let mut plan = self.plan.clone();
        if let Op::Source(op) = &mut plan.nodes[self.node].op {
            op.source = connectors::source(&table, &self.context)?;
            op.table = table;
        }
        let record = Record::default();
        let plan = record.over(&plan);
        let reading = |rows| watch(Progress::Reading(rows));
        let Some(spool) = query::rows(&plan, self.registry.root(), self.training.memory_bytes_max, stop, &reading)? else {
            return Ok(None);
        };
        trainer::train(&self.training, &spool, record.lineage()?, &self.registry, watch).map(Some)
    }

    /// The number of entries that have their version.
    fn resume(&self, commits: &[Commit], tell: &dyn Fn(Told)) -> Result<usize> {
        let name = &self.training.name;
        let versions: Vec<Manifest> = self.registry.list()?.into_iter().filter(|l| l.name == *name).filter_map(of_version).collect();
        let ours = versions.iter().filter(|m| m.query.as_ref() == Some(&self.training.query) && m.options == masked(&self.training));
        let newest = ours.clone().next_back();
        let covered = ours.filter_map(|m| covered(&m.lineage.files, commits)).max().unwrap_or(0);
        match newest {
            None => {}
            Some(_) if covered == 0 => tell(Told::StartsOver),
            Some(newest) => {
                tell(Told::Resumed(covered as u64));
                let champion = self.registry.aliases(name)?.get(CHAMPION).copied();
                let held_back = newest.verdict.as_ref().is_some_and(|v| !v.passed);
                if champion != Some(newest.version) && !held_back {
                    tell(Told::NotChampion(newest.version));
                }
            }
        }
        Ok(covered)
    }
}

fn of_version(listed: Listed) -> Option<Manifest> {
    listed.manifest.map(|m| *m)
}

fn masked(training: &Training) -> std::collections::BTreeMap<String, String> {
    training.given.iter().map(|(k, v)| (k.clone(), crate::config::masked(k, v).to_string())).collect()
}

/// The number of entries whose files are the first ones that a version names; static tables come after them, or before.
fn covered(named: &[InputFile], commits: &[Commit]) -> Option<usize> {
    let same = |file: &(PathBuf, u64, u64)| {
        let path = file.0.to_string_lossy();
        let path = path.strip_prefix("./").unwrap_or(&path);
        named.iter().any(|n| n.path == path && n.rows == file.1 && n.bytes == file.2)
    };
    let whole = commits.iter().take_while(|c| c.files.iter().all(same)).count();
    let files: usize = commits[..whole].iter().map(|c| c.files.len()).sum();
    // A file of the table that no entry names any more: the table was written anew.
    let folder = commits.first()?.files.first()?.0.parent()?.to_path_buf();
    let folder = folder.strip_prefix(".").unwrap_or(&folder);
    let of_table = named.iter().filter(|n| std::path::Path::new(&n.path).starts_with(folder)).count();
    (whole > 0 && of_table == files).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_covers_the_entries_whose_files_it_names() {
        let commit = |k: u64| Commit { name: format!("{k}"), files: vec![(PathBuf::from(format!("./out/part-{k}")), 100, 10 + k)] };
        let commits: Vec<Commit> = (1..=5).map(commit).collect();
        let file = |path: String, bytes| InputFile { path, rows: 100, bytes, sha256: String::new() };
        let upto = |n: u64| (1..=n).map(|k| file(format!("out/part-{k}"), 10 + k)).collect::<Vec<_>>();
        let named = |files: Vec<InputFile>| covered(&files, &commits);
        assert_eq!(named(upto(3)), Some(3));
        let mut with_static = vec![file("data/stations.csv".into(), 7)];
        with_static.extend(upto(5));
        assert_eq!(named(with_static), Some(5));
        // The third file was written anew, of another size: no version of it counts.
        let mut other = upto(3);
        other[2].bytes = 99;
        assert_eq!(named(other), None);
        assert_eq!(named(vec![]), None);
        assert_eq!(covered(&upto(6), &commits), None, "the table had more entries once");
    }
}
