//! What a container takes on disk (`?size=1`): its own layer, walked when somebody asks, and its image's layers.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use api::container::inspect::Sizes;
use sys::file::{self, Kind};
use sys::path;

use crate::{Engine, Error, files};

impl Engine {
    /// Sizes of a container's own layer and of everything it sees, in bytes.
    ///
    /// # Errors
    /// NotFound; Internal when the layer cannot be read.
    pub async fn sizes(&self, name: &str) -> Result<Sizes, Error> {
        let container = self.container(name)?;
        let images = self.images().clone();
        let upper = self.config().container_dir(container.id()).join("upper");
        let work = move || {
            let own = own_bytes(&upper)
                .map_err(|source| Error::internal("measure the container's layer", source))?;
            let image = images.held_bytes(container.id().as_str())?;
            let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
            Ok(Sizes {
                rw: signed(own),
                root_fs: signed(own.saturating_add(image)),
            })
        };
        self.inner().blocking(work).await
    }
}

/// Bytes of all files below `upper`, as dockerd counts them: lengths, hard links once, directories not at all. The
/// tree is a container's and may change meanwhile: what is gone is not counted, and no link is followed.
fn own_bytes(upper: &Path) -> io::Result<u64> {
    let root = match file::open_directory(upper) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let given = files::given_bytes(root.as_fd());
    let mut seen = HashSet::new();
    let mut bytes: u64 = 0;
    let mut left: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(place) = left.pop() {
        let Ok(directory) = path::open_directory_beneath(root.as_fd(), &place) else {
            continue;
        };
        for name in file::names_in(directory.as_fd())? {
            let Ok(stat) = file::stat_at(directory.as_fd(), &name) else {
                continue;
            };
            if stat.kind == Kind::Directory {
                let mut below = place.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(&name);
                left.push(below);
            } else if stat.links < 2 || seen.insert((stat.device, stat.inode)) {
                bytes = bytes.saturating_add(stat.size_bytes);
            }
        }
    }
    Ok(bytes.saturating_sub(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), [0; 1000]).unwrap();
        std::fs::hard_link(root.join("a/b/file"), root.join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", root.join("usr")).unwrap();
        // A symbolic link is as long as its target.
        assert_eq!(own_bytes(root).unwrap(), 1000 + 4);
        // What a container of Docker's has from the beginning is not its own.
        std::fs::create_dir(root.join("etc")).unwrap();
        std::os::unix::fs::symlink("/proc/mounts", root.join("etc/mtab")).unwrap();
        assert_eq!(own_bytes(root).unwrap(), 1000 + 4);
        std::fs::remove_file(root.join("etc/mtab")).unwrap();
        std::fs::write(root.join("etc/mtab"), [0; 12]).unwrap();
        assert_eq!(own_bytes(root).unwrap(), 1000 + 4 + 12);
        assert_eq!(own_bytes(&root.join("none")).unwrap(), 0);
    }
}
