//! Overlay file systems as detached mounts, on every kernel from 5.10.
//!
//! Three ways, the first that the kernel takes; a test can force one. On 6.5 and newer each layer is added by `lowerdir+`.
//! Before, one `lowerdir` string of at most 255 bytes goes through fsconfig. What is longer goes as mount(2)'s
//! data page, from a helper in a mount namespace of its own, and comes back as a detached copy. The helper is a child of
//! a process that has one thread and a thread of one that has several: the latter is neither copied nor moved to
//! another current directory.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::kernel;
use crate::mount::{self, Attributes, Depth, FSCONFIG_STRING_MAX, FsContext};

/// How the kernel is told about the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One `lowerdir+` for each layer (Linux 6.5).
    LowerPlus,
    /// One `lowerdir` string through fsconfig.
    LowerString,
    /// mount(2) with a data page, in a helper's mount namespace.
    Legacy,
}

/// An overlay to be mounted.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The directory with the layers.
    pub layers: &'a Path,
    /// Names below `layers`, topmost first.
    pub lower: &'a [String],
    /// Upper and work directory; without, the overlay is read-only and needs two layers.
    pub upper: Option<(&'a Path, &'a Path)>,
}

/// Nothing that could differ from kernel to kernel or by module parameter is left to a default.
const PINNED: [(&str, &str); 3] = [
    ("redirect_dir", "off"),
    ("metacopy", "off"),
    ("index", "off"),
];

/// Largest data string of mount(2), without its NUL. Bytes; one page.
const PAGE_BYTES: usize = 4095;

/// The first kernel with `lowerdir+`. An older one is not asked: it complains of the question in its log, and each shim is
/// a process of its own that would ask.
const LOWER_PLUS_SINCE: (u32, u32) = (6, 5);

/// 0 unknown, 1 the kernel has `lowerdir+`, 2 it has not.
static LOWER_PLUS: AtomicU8 = AtomicU8::new(0);

/// Mounts `request`, attached nowhere. `forced` picks one way, for tests.
///
/// # Errors
/// The errno of the mount calls, with the kernel's explanation when it gave one.
pub fn mount(request: &Request<'_>, forced: Option<Method>) -> io::Result<OwnedFd> {
    match forced {
        Some(Method::LowerPlus) => return lower_plus(request),
        Some(Method::LowerString) => return lower_string(request),
        Some(Method::Legacy) => return legacy(request),
        None => {}
    }
    if LOWER_PLUS.load(Ordering::Relaxed) == 0 && is_older(&kernel::release(), LOWER_PLUS_SINCE) {
        LOWER_PLUS.store(2, Ordering::Relaxed);
    }
    if LOWER_PLUS.load(Ordering::Relaxed) != 2 && fits(request, longest_layer(request)) {
        match lower_plus(request) {
            Ok(fd) => {
                LOWER_PLUS.store(1, Ordering::Relaxed);
                return Ok(fd);
            }
            Err(error)
                if LOWER_PLUS.load(Ordering::Relaxed) == 1
                    || crate::error::errno(&error) != Some(libc::EINVAL) =>
            {
                return Err(error);
            }
            Err(_) => {}
        }
        // EINVAL is "no such parameter" on an old kernel, and any mistake on a new one: a second way tells them apart.
        let fd = by_string(request)?;
        LOWER_PLUS.store(2, Ordering::Relaxed);
        return Ok(fd);
    }
    by_string(request)
}

/// Whether a release is older than a version; what cannot be read is not.
fn is_older(release: &str, version: kernel::Version) -> bool {
    kernel::version(release).is_some_and(|numbers| numbers < version)
}

fn by_string(request: &Request<'_>) -> io::Result<OwnedFd> {
    if fits(request, joined(request).len()) {
        lower_string(request)
    } else {
        legacy(request)
    }
}

fn fits(request: &Request<'_>, lower: usize) -> bool {
    let upper = request.upper.map_or(0, |(upper, work)| {
        escaped(upper.as_os_str().as_bytes(), b"\\")
            .len()
            .max(escaped(work.as_os_str().as_bytes(), b"\\").len())
    });
    lower.max(upper) <= FSCONFIG_STRING_MAX
}

fn longest_layer(request: &Request<'_>) -> usize {
    let directory = escaped(request.layers.as_os_str().as_bytes(), b"\\:").len();
    let longest = request.lower.iter().map(String::len).max().unwrap_or(0);
    directory + 1 + longest
}

/// Puts a backslash before each of `special`.
fn escaped(path: &[u8], special: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &byte in path {
        if special.contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out
}

fn joined(request: &Request<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    for (index, name) in request.lower.iter().enumerate() {
        if index > 0 {
            all.push(b':');
        }
        all.extend_from_slice(&escaped(name.as_bytes(), b"\\:"));
    }
    all
}

fn finish(context: FsContext, request: &Request<'_>) -> io::Result<OwnedFd> {
    if let Some((upper, work)) = request.upper {
        context.set("upperdir", &escaped(upper.as_os_str().as_bytes(), b"\\"))?;
        context.set("workdir", &escaped(work.as_os_str().as_bytes(), b"\\"))?;
    }
    for (key, value) in PINNED {
        context.set(key, value.as_bytes())?;
    }
    context.mount(Attributes::default())
}

fn lower_plus(request: &Request<'_>) -> io::Result<OwnedFd> {
    let context = FsContext::open("overlay")?;
    context.set("source", b"overlay")?;
    for name in request.lower {
        let mut path = escaped(request.layers.as_os_str().as_bytes(), b"\\:");
        path.push(b'/');
        path.extend_from_slice(&escaped(name.as_bytes(), b"\\:"));
        context.set("lowerdir+", &path)?;
    }
    finish(context, request)
}

/// Runs `action` with the layers as current directory, so that their names can be short.
///
/// The current directory is the whole process's: where there are other threads, `action` gets a thread with one of
/// its own.
fn beside_layers<T: Send>(
    layers: &Path,
    action: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    use rustix::fs::{Mode, OFlags};
    if !crate::process::is_single_threaded()? {
        return apart(|| {
            rustix::process::chdir(layers)?;
            action()
        });
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let before = rustix::fs::open(".", flags, Mode::empty())?;
    rustix::process::chdir(layers)?;
    let result = action();
    rustix::process::fchdir(before.as_fd())?;
    result
}

/// Runs `action` on a thread that has a current directory and a mount namespace of its own, and ends then.
fn apart<T: Send>(action: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("overlay".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                // A mount namespace of its own implies a current directory of its own (unshare(2), CLONE_FS).
                crate::namespace::unshare(crate::namespace::Set::MOUNT)?;
                action()
            })?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Stack of the thread that mounts, in bytes: it runs a few system calls.
const STACK_BYTES: usize = 128 * 1024;

fn lower_string(request: &Request<'_>) -> io::Result<OwnedFd> {
    let lower = joined(request);
    beside_layers(request.layers, || {
        let context = FsContext::open("overlay")?;
        context.set("source", b"overlay")?;
        context.set("lowerdir", &lower)?;
        finish(context, request)
    })
}

fn legacy_data(request: &Request<'_>) -> io::Result<Vec<u8>> {
    let mut data = b"lowerdir=".to_vec();
    data.extend_from_slice(&escaped(&joined(request), b","));
    if let Some((upper, work)) = request.upper {
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            data.extend_from_slice(format!(",{key}=").as_bytes());
            data.extend_from_slice(&escaped(path.as_os_str().as_bytes(), b"\\:,"));
        }
    }
    for (key, value) in PINNED {
        data.extend_from_slice(format!(",{key}={value}").as_bytes());
    }
    if data.len() > PAGE_BYTES {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    Ok(data)
}

/// Mounts in a mount namespace that goes right after, and keeps a detached copy.
fn legacy(request: &Request<'_>) -> io::Result<OwnedFd> {
    let data = legacy_data(request)?;
    let target: &Path = request.upper.map_or(request.layers, |(upper, _)| upper);
    let make = || {
        mount::set_propagation(
            Path::new("/"),
            Depth::Recursive,
            mount::Propagation::Private,
        )?;
        mount::mount_legacy("overlay", target, &data)?;
        mount::clone_tree(rustix::fs::CWD, target, Depth::One)
    };
    if crate::process::is_single_threaded()? {
        crate::process::errand(|| {
            crate::namespace::unshare(crate::namespace::Set::MOUNT)?;
            beside_layers(request.layers, make)
        })
    } else {
        beside_layers(request.layers, make)
    }
}

/// Mounts two directories as a read-only overlay without an upper directory, which nothing can make writable.
pub(crate) fn sealed(directory: &Path, second: &Path) -> io::Result<OwnedFd> {
    let parent = Path::new("/");
    let lower = [directory, second].map(|path| {
        path.strip_prefix("/")
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned()
    });
    if fs::canonicalize(directory)?.to_str().is_none() {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    let request = Request {
        layers: parent,
        lower: &lower,
        upper: None,
    };
    let fd = mount(&request, None)?;
    let change = mount::Change {
        set: Attributes::RDONLY
            .with(Attributes::NOSUID)
            .with(Attributes::NODEV),
        ..Default::default()
    };
    match mount::set_attributes(fd.as_fd(), Depth::One, change) {
        // The overlay is read-only by itself; the mount's own flag is a second lock.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(fd),
        other => other.map(|()| fd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (release, older) in [
            ("6.1.0-56-cloud-amd64", true),
            ("5.10.0-32-amd64", true),
            ("6.4", true),
            ("6.5.0-rc1", false),
            ("6.12.5+bpo-amd64", false),
            ("10.0", false),
            ("unknown", false),
        ] {
            assert_eq!(is_older(release, LOWER_PLUS_SINCE), older, "{release}");
        }
    }
}
