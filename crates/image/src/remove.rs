//! Removing images by Docker's rules: what is untagged, what is deleted, and what is in the way.
//!
//! The rules are those of moby's `daemon/images/image_delete.go`, decided and done in one transaction, so
//! that no container can take hold of an image between the two.

use std::collections::BTreeSet;

use db::rusqlite::Connection;

use crate::digest::Digest;
use crate::error::Error;
use crate::reference::Reference;
use crate::rows;
use crate::store::{self, Store};

/// How to remove an image.
#[derive(Clone, Copy)]
pub struct RemoveOptions<'a> {
    /// Remove it although a stopped container uses it or several names point to it.
    pub force: bool,
    /// Remove parents that have no name too.
    pub prune: bool,
    /// Whether the holder (container id) runs at present.
    pub is_running: &'a dyn Fn(&str) -> bool,
}

/// What a removal did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name (familiar form) was taken from an image.
    Untagged {
        /// `busybox:latest`.
        reference: String,
        /// The image that had it.
        image: Digest,
    },
    /// An image was deleted.
    Deleted(Digest),
    /// A layer (chain id) was deleted.
    DeletedLayer(Digest),
}

/// What can be in the way of deleting an image, hardest first.
enum Obstacle {
    /// Other images were built from it.
    Child,
    /// A running container (short id) uses it.
    Running(String),
    /// It has other names.
    Referenced,
    /// A stopped container (short id) uses it.
    Stopped(String),
}

impl Obstacle {
    fn text(&self, image: &Digest) -> String {
        let forced = match self {
            Self::Child | Self::Running(_) => "cannot be forced",
            Self::Referenced | Self::Stopped(_) => "must be forced",
        };
        let reason = match self {
            Self::Child => "image has dependent child images".to_owned(),
            Self::Running(id) => format!("image is being used by running container {id}"),
            Self::Referenced => "image is referenced in multiple repositories".to_owned(),
            Self::Stopped(id) => format!("image is being used by stopped container {id}"),
        };
        format!("unable to delete {} ({forced}) - {reason}", image.short())
    }

    fn is_use(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Stopped(_))
    }
}

impl Store {
    /// Removes what `name` means, as `docker rmi` does. Safe against a power cut when this returns.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::Conflict`] with Docker's text.
    pub fn remove(&self, name: &str, options: RemoveOptions<'_>) -> Result<Vec<Removed>, Error> {
        let removal = self.db().write_synced::<_, Error>(|tx| {
            let (id, shown) = store::find(tx, name)?;
            let id = id.map(|id| rows::digest(&id)).transpose()?;
            let Some(image) = id else {
                return Err(Error::NoSuchImage(shown));
            };
            if rows::image(tx, image.as_str())?.is_none() {
                return Err(Error::NoSuchImage(shown));
            }
            let mut removal = Removal {
                tx,
                options,
                done: Vec::new(),
                blobs: Vec::new(),
            };
            removal.run(name, &image)?;
            Ok((removal.done, removal.blobs))
        })?;
        sys::fault!("image.removed");
        let (mut done, blobs) = removal;
        if done.iter().any(|step| matches!(step, Removed::Deleted(_))) {
            for step in &done {
                if let Removed::Deleted(id) = step {
                    self.forget_config(id);
                }
            }
            let layers = self.collect(&blobs)?;
            done.extend(layers.into_iter().map(Removed::DeletedLayer));
        }
        Ok(done)
    }
}

struct Removal<'a> {
    tx: &'a Connection,
    options: RemoveOptions<'a>,
    done: Vec<Removed>,
    blobs: Vec<Digest>,
}

/// Whether `name` is a beginning of the id: then it is not a reference.
fn is_id_prefix(image: &Digest, name: &str) -> bool {
    image.as_str().starts_with(name) || image.hex().starts_with(name)
}

/// At most one name with a tag, and digests only of that name's repository.
fn is_single_reference(names: &[Reference]) -> bool {
    if names.len() <= 1 {
        return true;
    }
    let digests = names
        .iter()
        .filter(|name| name.digest().is_some())
        .map(Reference::name);
    let repositories: BTreeSet<String> = digests.collect();
    let mut tagged = names.iter().filter(|name| name.digest().is_none());
    let single = tagged.next().unwrap_or(&names[0]);
    tagged.next().is_none() && repositories.len() == 1 && repositories.contains(&single.name())
}

impl Removal<'_> {
    fn run(&mut self, name: &str, image: &Digest) -> Result<(), Error> {
        let names = rows::names(self.tx, image)?;
        if !is_id_prefix(image, name) {
            return self.by_reference(name, image, &names);
        }
        if is_single_reference(&names) {
            let mut conflict = self.hard_obstacle(image)?;
            if conflict.is_none() && !self.options.force {
                conflict = self.user(image, false)?.map(Obstacle::Stopped);
            }
            if let Some(obstacle) = conflict {
                return Err(Error::Conflict(obstacle.text(image)));
            }
            for reference in &names {
                self.untag(reference, image)?;
            }
        }
        self.delete(image, self.options.force, false)
    }

    fn by_reference(
        &mut self,
        name: &str,
        image: &Digest,
        names: &[Reference],
    ) -> Result<(), Error> {
        if !self.options.force
            && is_single_reference(names)
            && let Some(holder) = self.any_user(image)?
        {
            return Err(Error::Conflict(format!(
                "unable to remove repository reference {name:?} (must force) - container {holder} \
                 is using its referenced image {}",
                image.short()
            )));
        }
        let reference = Reference::parse(name)?.or_latest();
        self.untag(&reference, image)?;
        let mut left = rows::names(self.tx, image)?;
        let same = |other: &Reference| other.name() == reference.name();
        let has_tag = left
            .iter()
            .any(|other| other.digest().is_none() && same(other));
        if reference.digest().is_none() && !has_tag {
            // Only digests of this repository are left: they go with its last tag.
            for digest in left.iter().filter(|other| same(other)) {
                self.untag(digest, image)?;
            }
            left.retain(|other| !same(other));
        }
        if left.is_empty() {
            self.delete(image, self.options.force, true)
        } else {
            Ok(())
        }
    }

    fn untag(&mut self, reference: &Reference, image: &Digest) -> Result<(), Error> {
        let sql = "DELETE FROM image_names WHERE reference = ?1";
        self.tx.execute(sql, [store::stored_name(reference)])?;
        let reference = reference.familiar();
        self.done.push(Removed::Untagged {
            reference,
            image: image.clone(),
        });
        Ok(())
    }

    /// Deletes an image, and its parents if asked for. A quiet deletion stops at what is in the way.
    fn delete(&mut self, image: &Digest, force: bool, quiet: bool) -> Result<(), Error> {
        let Some(row) = rows::image(self.tx, image.as_str())? else {
            return Ok(());
        };
        let mut obstacle = self.hard_obstacle(image)?;
        let names = rows::names(self.tx, image)?;
        if obstacle.is_none() && !force {
            obstacle = if names.is_empty() {
                self.user(image, false)?.map(Obstacle::Stopped)
            } else {
                Some(Obstacle::Referenced)
            };
        }
        if let Some(obstacle) = obstacle {
            let is_dangling = names.is_empty() && !self.has_children(image)?;
            if quiet && (!is_dangling || obstacle.is_use()) {
                return Ok(());
            }
            return Err(Error::Conflict(obstacle.text(image)));
        }
        for reference in &names {
            self.untag(reference, image)?;
        }
        self.blobs.extend(rows::blobs(self.tx, &row)?);
        self.tx
            .execute("DELETE FROM images WHERE id = ?1", [image.as_str()])?;
        self.done.push(Removed::Deleted(image.clone()));
        match &row.parent {
            Some(parent) if self.options.prune => self.delete(parent, false, true),
            _ => Ok(()),
        }
    }

    fn hard_obstacle(&self, image: &Digest) -> Result<Option<Obstacle>, Error> {
        if self.has_children(image)? {
            return Ok(Some(Obstacle::Child));
        }
        Ok(self.user(image, true)?.map(Obstacle::Running))
    }

    fn has_children(&self, image: &Digest) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT 1 FROM images WHERE parent = ?1)";
        Ok(self.tx.query_row(sql, [image.as_str()], |row| row.get(0))?)
    }

    fn holders(&self, image: &Digest) -> Result<Vec<String>, Error> {
        let sql = "SELECT holder FROM image_holders WHERE image = ?1 ORDER BY holder";
        let mut statement = self.tx.prepare_cached(sql)?;
        let rows = statement.query_map([image.as_str()], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The short id of a holder that runs, or of one that does not.
    fn user(&self, image: &Digest, running: bool) -> Result<Option<String>, Error> {
        let holders = self.holders(image)?;
        let found = holders
            .iter()
            .find(|holder| (self.options.is_running)(holder) == running);
        Ok(found.map(|holder| short(holder)))
    }

    fn any_user(&self, image: &Digest) -> Result<Option<String>, Error> {
        Ok(self.holders(image)?.first().map(|holder| short(holder)))
    }
}

fn short(holder: &str) -> String {
    holder.chars().take(12).collect()
}
