//! Which containers there are, by id and by name. The only lock around it is held for one map operation.
//!
//! A name is claimed here before anything else is made, and stays taken until the container's row is gone.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use crate::container::Container;
use crate::{ContainerId, Error, lookup};

/// All containers. Lookup by what a client typed is [`crate::lookup`]'s.
#[derive(Default)]
pub(crate) struct Index {
    maps: RwLock<Maps>,
}

#[derive(Default)]
struct Maps {
    by_id: BTreeMap<ContainerId, Arc<Container>>,
    by_name: HashMap<Arc<str>, ContainerId>,
}

impl lookup::Directory for Index {
    type Item = Arc<Container>;

    fn with_id(&self, id: &str) -> Option<Arc<Container>> {
        self.read(|maps| maps.by_id.get(id).cloned())
    }

    /// A container still in the making has its name already, but is not there yet.
    fn with_name(&self, name: &str) -> Option<Arc<Container>> {
        self.read(|maps| {
            let id = maps.by_name.get(name)?;
            maps.by_id.get(id).cloned()
        })
    }

    fn with_prefix(&self, prefix: &str, limit: usize) -> Vec<Arc<Container>> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.read(|maps| {
            maps.by_id
                .range::<str, _>(from)
                .take_while(|(id, _)| id.as_str().starts_with(prefix))
                .take(limit)
                .map(|(_, container)| container.clone())
                .collect()
        })
    }
}

impl Index {
    /// Every container, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.read(|maps| maps.by_id.values().cloned().collect())
    }

    /// The container with exactly this id.
    pub(crate) fn by_id(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.read(|maps| maps.by_id.get(id).cloned())
    }

    /// Whether a name is taken, also by a container in the making.
    pub(crate) fn is_taken(&self, name: &str) -> bool {
        self.read(|maps| maps.by_name.contains_key(name))
    }

    /// Takes a name for `id`.
    ///
    /// # Errors
    /// Conflict, with Docker's text, when another container has it.
    pub(crate) fn claim(&self, name: &Arc<str>, id: &ContainerId) -> Result<(), Error> {
        self.write(|maps| match maps.by_name.get(name) {
            Some(owner) => Err(lookup::name_taken(name, owner.as_str())),
            None => {
                maps.by_name.insert(name.clone(), id.clone());
                Ok(())
            }
        })
    }

    /// Gives a name back that `id` had claimed.
    pub(crate) fn release(&self, name: &str, id: &ContainerId) {
        self.write(|maps| {
            if maps.by_name.get(name) == Some(id) {
                maps.by_name.remove(name);
            }
        });
    }

    /// Shows a container to everyone; its name was claimed.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        self.write(|maps| maps.by_id.insert(container.id().clone(), container));
    }

    /// Takes a container away; its names are given back with it.
    pub(crate) fn remove(&self, id: &ContainerId) {
        self.write(|maps| {
            maps.by_name.retain(|_, owner| owner != id);
            maps.by_id.remove(id);
        });
    }

    fn read<T>(&self, look: impl FnOnce(&Maps) -> T) -> T {
        look(&self.maps.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Maps) -> T) -> T {
        change(&mut self.maps.write().unwrap_or_else(PoisonError::into_inner))
    }
}
