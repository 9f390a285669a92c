//! What may happen a moment after a call returns, gathered by one short-lived thread.
//!
//! Deleting a veth pair waits for RCU grace periods and, when the container's namespace is dying too,
//! for the kernel's own clean-up (measured: 20 to 70 ms); and forgetting tracked connections walks the
//! whole table of the machine, 262,144 buckets here (10 to 60 ms). Neither belongs into a stop. If the
//! process dies before, the namespace's death removes the pair, or the sweep does: its row is gone.

use std::collections::HashSet;
use std::mem;
use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::Duration;

use sys::conntrack::{self, Which};
use sys::link::{Changes, Links};

use super::{Inner, lock, missing_is_fine};

/// How long things are gathered. Most pairs are gone by then with their namespace.
const GATHER: Duration = Duration::from_millis(500);
/// Stack of the thread in bytes.
const STACK_BYTES: usize = 128 * 1024;

/// What is still to be done.
#[derive(Debug, Default)]
pub(super) struct Chores {
    /// Flows that already hurt.
    now: Vec<Which>,
    /// Flows of addresses that nobody has any more.
    flows: HashSet<Which>,
    /// Outer ends of pairs.
    links: Vec<String>,
    at_work: bool,
}

impl Inner {
    /// Forgets UDP flows that a new container's ports take over, at once but not here.
    pub(super) fn forget_soon(self: &Arc<Self>, flows: Vec<Which>) {
        if flows.is_empty() {
            return;
        }
        let mut chores = lock(&self.chores);
        chores.now.extend(flows);
        self.work(chores);
    }

    /// Deletes the pair and forgets the flows of a container that is gone.
    pub(super) fn clean_later(self: &Arc<Self>, link: String, flows: [Which; 2]) {
        let mut chores = lock(&self.chores);
        chores.links.push(link);
        chores.flows.extend(flows);
        self.work(chores);
    }

    fn work(self: &Arc<Self>, mut chores: MutexGuard<'_, Chores>) {
        if mem::replace(&mut chores.at_work, true) {
            return;
        }
        let inner = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("network-reaper".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || inner.do_chores());
        if let Err(error) = spawned {
            chores.at_work = false;
            tracing::warn!(%error, "leave gone containers' interfaces to the next one");
        }
    }

    fn do_chores(&self) {
        loop {
            let now = mem::take(&mut lock(&self.chores).now);
            forget(&now);
            let gathering = !lock(&self.chores).links.is_empty();
            if gathering {
                thread::sleep(GATHER);
            }
            let (links, flows) = {
                let mut chores = lock(&self.chores);
                let done = chores.now.is_empty() && chores.links.is_empty();
                if done {
                    chores.at_work = false;
                    return;
                }
                (mem::take(&mut chores.links), mem::take(&mut chores.flows))
            };
            delete(&links);
            forget(&flows.into_iter().collect::<Vec<_>>());
        }
    }
}

fn delete(links: &[String]) {
    if links.is_empty() {
        return;
    }
    // A socket of its own: deletions hold nobody up who waits for the shared one.
    let mut socket = match Links::open() {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "open a socket to delete interfaces"),
    };
    for name in links {
        let gone = socket.apply(Changes::new().delete_named(name));
        if let Err(error) = gone.or_else(missing_is_fine) {
            tracing::warn!(name, %error, "delete the interface of a gone container");
        }
    }
}

fn forget(flows: &[Which]) {
    if let Err(error) = conntrack::forget(flows) {
        tracing::warn!(%error, "forget connections of a gone container");
    }
}
