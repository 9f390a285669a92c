//! One worker for each volume at a time: making, filling and removing it exclude one another.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// The volumes that somebody works on.
#[derive(Debug, Default)]
pub(crate) struct Names {
    busy: Mutex<HashSet<String>>,
    changed: Condvar,
}

/// The right to work on one volume, until it is dropped. Nobody holds two, so nobody waits for ever.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    names: &'a Names,
    name: String,
}

impl Names {
    /// Waits until nobody works on the volume.
    pub(crate) fn claim(&self, name: &str) -> Claim<'_> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while busy.contains(name) {
            busy = self
                .changed
                .wait(busy)
                .unwrap_or_else(PoisonError::into_inner);
        }
        busy.insert(name.to_owned());
        Claim {
            names: self,
            name: name.to_owned(),
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut busy = self
            .names
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.name);
        self.names.changed.notify_all();
    }
}
