//! Leases: what an operation under way needs, and garbage collection must not take.
//!
//! Held in memory: they end with the process, and what they protected is then garbage. One lock covers the
//! table and every removal, so that "it is there" and "it is mine" cannot be torn apart.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;
use crate::store::Store;

/// How many leases name each blob and each layer.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) blobs: HashMap<Digest, usize>,
    pub(crate) layers: HashMap<i64, usize>,
}

/// Protects blobs and layers until it is dropped; what nothing needs then is removed.
#[derive(Debug)]
#[must_use = "dropping the lease releases what it protects"]
pub struct Lease {
    pub(crate) store: Store,
    mine: Mutex<Mine>,
}

#[derive(Debug, Default)]
struct Mine {
    blobs: Vec<Digest>,
    layers: Vec<i64>,
}

impl Lease {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            mine: Mutex::default(),
        }
    }

    /// Protects a blob; `table` is locked by the caller, who then looks whether it is there.
    pub(crate) fn add_blob(&self, table: &mut Table, digest: &Digest) {
        *table.blobs.entry(digest.clone()).or_default() += 1;
        lock(&self.mine).blobs.push(digest.clone());
    }

    /// Protects a layer, as [`Lease::add_blob`].
    pub(crate) fn add_layer(&self, table: &mut Table, number: i64) {
        *table.layers.entry(number).or_default() += 1;
        lock(&self.mine).layers.push(number);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mine = std::mem::take(&mut *lock(&self.mine));
        {
            let mut table = self.store.leases();
            for digest in &mine.blobs {
                decrement(&mut table.blobs, digest);
            }
            for number in &mine.layers {
                decrement(&mut table.layers, number);
            }
        }
        if mine.blobs.is_empty() && mine.layers.is_empty() {
            return;
        }
        if let Err(error) = self.store.collect(&mine.blobs) {
            tracing::warn!(%error, "garbage stays until the next collection");
        }
    }
}

fn decrement<K: std::hash::Hash + Eq + Clone>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
