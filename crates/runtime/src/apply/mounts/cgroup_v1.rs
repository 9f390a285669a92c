//! The v1 cgroup hierarchies in a container, one directory for each below one tmpfs.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sys::mount::{self, Attributes, Depth, FsContext};
use sys::path::{self, OpenFlags};

use super::{Context, changes, link};
use crate::plan::MountStep;

/// One v1 hierarchy as this process sees it.
struct Hierarchy {
    mounted: PathBuf,
    /// Mount options that name it.
    names: Vec<String>,
}

impl Context<'_> {
    /// A tmpfs with one directory for each hierarchy, as runc lays it out.
    pub(super) fn cgroup_v1(&self, step: &MountStep, namespace: bool) -> io::Result<()> {
        let root = self.root_io()?;
        let context = FsContext::open("tmpfs")?;
        context.set("source", b"tmpfs")?;
        context.set("mode", b"755")?;
        let (set, _) = step.attributes;
        let top = context.mount(Attributes(set & !Attributes::RDONLY.0))?;
        let target = path::make_directory(root, &step.destination, 0o755)?;
        mount::attach(top.as_fd(), target.as_fd())?;
        let own = self.read_proc("self/cgroup")?;
        for hierarchy in hierarchies(&self.read_proc("self/mountinfo")?) {
            let Some(name) = hierarchy.mounted.file_name().and_then(OsStr::to_str) else {
                continue;
            };
            let place = path::make_directory(top.as_fd(), Path::new(name), 0o755)?;
            let made = if namespace {
                let context = FsContext::open("cgroup")?;
                context.set("source", b"cgroup")?;
                for option in &hierarchy.names {
                    match option.split_once('=') {
                        Some((key, value)) => {
                            context.flag("none")?;
                            context.set(key, value.as_bytes())?;
                        }
                        None => context.flag(option)?,
                    }
                }
                context.mount(Attributes(set))?
            } else {
                let Some(below) = own_path(&own, &hierarchy.names) else {
                    continue;
                };
                let whole = hierarchy.mounted.join(below.trim_start_matches('/'));
                let at = path::open_directory(Path::new("/"))?;
                mount::clone_tree(at.as_fd(), &whole, Depth::One)?
            };
            self.attach(made.as_fd(), place.as_fd(), &changes(step))?;
            if name.contains(',') {
                for one in name.split(',') {
                    link(name, top.as_fd(), one)?;
                }
            }
        }
        Ok(())
    }

    fn read_proc(&self, name: &str) -> io::Result<String> {
        let file = path::open_in_procfs(self.proc_io()?, Path::new(name), OpenFlags::RDONLY)?;
        io::read_to_string(std::fs::File::from(file))
    }
}

/// The v1 hierarchies in a mountinfo, each once.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut right = right.split(' ');
        if right.next() != Some("cgroup") {
            continue;
        }
        let (Some(mounted), Some(options)) = (left.split(' ').nth(4), right.nth(1)) else {
            continue;
        };
        let names: Vec<String> = options
            .split(',')
            .filter(|option| {
                !matches!(
                    *option,
                    "rw" | "ro" | "xattr" | "clone_children" | "noprefix"
                )
            })
            .filter(|option| !option.starts_with("release_agent="))
            .map(str::to_owned)
            .collect();
        if !found.iter().any(|known| known.names == names) {
            found.push(Hierarchy {
                mounted: PathBuf::from(mounted),
                names,
            });
        }
    }
    found
}

/// Our path in the hierarchy of these names, from `/proc/self/cgroup`.
fn own_path<'a>(own: &'a str, names: &[String]) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1)?;
        let below = fields.next()?;
        controllers
            .split(',')
            .any(|controller| names.iter().any(|name| name == controller))
            .then_some(below)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_once_with_their_own_options() {
        let text = "31 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                    32 30 0:29 / /mnt/again rw - cgroup cgroup rw,cpu,cpuacct\n\
                    33 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup none rw,xattr,name=systemd\n\
                    34 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n";
        let found = hierarchies(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].names, ["cpu", "cpuacct"]);
        assert_eq!(found[1].names, ["name=systemd"]);
    }

    #[test]
    fn own_path_goes_by_controller_or_name() {
        let own = "3:cpu,cpuacct:/cooper/x\n1:name=systemd:/y\n0::/z\n";
        assert_eq!(
            own_path(own, &["cpu".into(), "cpuacct".into()]),
            Some("/cooper/x")
        );
        assert_eq!(own_path(own, &["name=systemd".into()]), Some("/y"));
        assert_eq!(own_path(own, &["pids".into()]), None);
    }
}
