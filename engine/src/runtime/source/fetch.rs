//! The I/O thread of a source: fetches, gives each batch to the worker with the least to do, and everybody the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::hub::{FETCH_WAIT, Item, ItemKind, SourceHub, item_bytes};
use crate::connectors::{BatchLimits, Fetched, Fetcher, Split};
use crate::error::Result;
use crate::runtime::task::{JobEvent, send};

/// Items that wait at one worker, at most; and bytes of them.
const QUEUE_ITEMS_MAX: usize = 8;
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// The I/O thread of one source: fetches until `abort`, or until the last barrier has been handed out.
///
/// # Errors
/// Those of the fetcher.
pub fn run_fetcher(
    hub: &SourceHub,
    mut fetcher: Box<dyn Fetcher>,
    mut splits: Vec<Split>,
    limits: BatchLimits,
    idle_timeout: Option<Duration>,
    events: &Sender<JobEvent>,
    abort: &AtomicBool,
) -> Result<()> {
    let (mut turn, mut seq) = (0, 0);
    let mut ended = false;
    let mut active: Vec<(Instant, bool)> = splits.iter().map(|_| (Instant::now(), false)).collect();
    if !splits.is_empty() && splits.iter().all(|s| s.ended) {
        ended = true;
        send(events, JobEvent::SourceEnded(hub.index));
    }
    loop {
        if abort.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (barrier, durable) = {
            let mut commands = hub.commands.lock().expect("no panic while locked");
            (commands.barriers.pop_front(), commands.durable.take())
        };
        if let Some(positions) = durable {
            fetcher.checkpointed(&positions);
        }
        if let Some(barrier) = barrier {
            let at = Arc::new(splits.clone());
            hub.broadcast(turn, || ItemKind::Barrier(barrier, at.clone()));
            turn += 1;
            if barrier.last {
                hub.broadcast(turn, || ItemKind::End);
                hub.tell_last(&mut *fetcher, abort);
                return Ok(());
            }
            continue;
        }
        if ended || !has_room(hub) {
            let commands = hub.commands.lock().expect("no panic while locked");
            if commands.barriers.is_empty() {
                // A lost wake-up costs one wait.
                drop(hub.space.wait_timeout(commands, FETCH_WAIT));
            }
            continue;
        }
        match fetcher.fetch(&limits, FETCH_WAIT)? {
            Fetched::Batch { split, payload, position } => {
                active[split] = (Instant::now(), false);
                splits[split].position = position;
                let item = Item { turn, kind: ItemKind::Batch { split, payload, seq } };
                turn += 1;
                seq += 1;
                hand_out(hub, item);
            }
            Fetched::SplitAdded(split) => {
                hub.split_names.lock().expect("no panic while locked").push(split.id.clone());
                splits.push(split);
                active.push((Instant::now(), false));
                hub.broadcast(turn, || ItemKind::Added);
                turn += 1;
            }
            Fetched::SplitEnded(split) => {
                splits[split].ended = true;
                hub.broadcast(turn, || ItemKind::Ended(split));
                turn += 1;
            }
            Fetched::Nothing => {}
            Fetched::End => {
                // A fetcher may end without having named each split's end.
                for (number, split) in splits.iter_mut().enumerate() {
                    if !std::mem::replace(&mut split.ended, true) {
                        hub.broadcast(turn, || ItemKind::Ended(number));
                        turn += 1;
                    }
                }
                ended = true;
                send(events, JobEvent::SourceEnded(hub.index));
            }
        }
        if let Some(timeout) = idle_timeout {
            for split in 0..splits.len() {
                let (since, idle) = active[split];
                if !idle && !splits[split].ended && since.elapsed() >= timeout {
                    active[split].1 = true;
                    hub.broadcast(turn, || ItemKind::Idle(split));
                    turn += 1;
                }
            }
        }
    }
}

fn has_room(hub: &SourceHub) -> bool {
    hub.queues.iter().any(|q| {
        let queue = q.lock().expect("no panic while locked");
        queue.items.len() < QUEUE_ITEMS_MAX && queue.bytes < QUEUE_BYTES_MAX
    })
}

/// Gives a batch to the worker with the least to do.
fn hand_out(hub: &SourceHub, item: Item) {
    let length = |i: &usize| {
        let queue = hub.queues[*i].lock().expect("no panic while locked");
        (queue.items.len(), queue.bytes)
    };
    let worker = (0..hub.queues.len()).min_by_key(length).expect("a job has at least one worker");
    let mut queue = hub.queues[worker].lock().expect("no panic while locked");
    queue.bytes += item_bytes(&item);
    queue.items.push_back(item);
    drop(queue);
    hub.signals[worker].raise();
}
