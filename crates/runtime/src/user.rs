//! Users and groups by name or number, from the container's own `/etc/passwd` and `/etc/group`.
//!
//! The files are the image's: read inside the root only, regular files only, and bounded. A string of digits is
//! first looked up as a name, as Docker does, but never becomes another number by it being too large.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// The largest `/etc/passwd` or `/etc/group` that is read. Bytes; real ones are a few KiB.
pub const FILE_LIMIT_BYTES: u64 = 1024 * 1024;
/// The largest user or group id there is (`2^31 - 1`, Docker's own limit).
pub const ID_MAX: u32 = 0x7fff_ffff;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// Who a process is to be, in the words of a client or an image; only the container's own files say what they mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wanted {
    /// `user`, `user:group`, by name or number; empty is uid 0.
    pub user: String,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
}

/// Who a process is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, sorted, without duplicates.
    pub groups: Vec<u32>,
    /// Home directory, `/` when the user has no entry.
    pub home: String,
}

/// Why a user cannot be had; the texts are Docker's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// No such name.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number outside of 0 to 2147483647.
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
    /// The file in the image is no regular file, too large or unreadable.
    #[error("{path} in the container cannot be used: {reason}")]
    File {
        /// Which file.
        path: &'static str,
        /// Why not.
        reason: String,
    },
}

/// Resolves who is wanted in the root behind `root`.
///
/// # Errors
/// [`Error`]; nobody is ever taken for root because a name is not known.
pub fn resolve(root: BorrowedFd<'_>, wanted: &Wanted) -> Result<User, Error> {
    let passwd = read(root, PASSWD)?;
    let group = read(root, GROUP)?;
    find(&passwd, &group, &wanted.user, &wanted.groups)
}

/// As [`resolve`], in the root of a process that the caller knows to be there (it is its parent, or holds a pidfd
/// and asks that afterwards).
pub(crate) fn resolve_in(pid: u32, wanted: &Wanted) -> Result<User, crate::Error> {
    let path = format!("/proc/{pid}/root");
    let root = sys::path::open_directory(Path::new(&path))
        .map_err(crate::launch::host("open the root of the container"))?;
    Ok(resolve(root.as_fd(), wanted)?)
}

/// The home of a user by number; `None` without an entry or a usable file.
pub(crate) fn home(root: BorrowedFd<'_>, uid: u32) -> Option<String> {
    let passwd = read(root, PASSWD).ok()?;
    let entry = accounts(&passwd).find(|account| account.uid == Some(uid))?;
    (!entry.home.is_empty()).then(|| entry.home.to_owned())
}

/// A file that is not there is an empty one: many images have neither.
fn read(root: BorrowedFd<'_>, path: &'static str) -> Result<String, Error> {
    match sys::path::read_bounded(root, Path::new(path), FILE_LIMIT_BYTES) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::File {
            path,
            reason: match error.raw_os_error() {
                Some(EINVAL) => "it is not a regular file".to_owned(),
                Some(EFBIG) => format!("it is larger than {FILE_LIMIT_BYTES} bytes"),
                Some(errno) => sys::error::text(errno),
                None => error.to_string(),
            },
        }),
    }
}

const EINVAL: i32 = 22;
const EFBIG: i32 = 27;

struct Account<'a> {
    name: &'a str,
    uid: Option<u32>,
    gid: Option<u32>,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let name = *fields.first()?;
        (!name.is_empty() && !name.starts_with('#')).then(|| Account {
            name,
            uid: fields.get(2).and_then(|text| id(text)),
            gid: fields.get(3).and_then(|text| id(text)),
            home: fields.get(5).copied().unwrap_or_default(),
        })
    })
}

struct Group<'a> {
    name: &'a str,
    gid: Option<u32>,
    members: &'a str,
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let name = *fields.first()?;
        (!name.is_empty() && !name.starts_with('#')).then(|| Group {
            name,
            gid: fields.get(2).and_then(|text| id(text)),
            members: fields.get(3).copied().unwrap_or_default(),
        })
    })
}

/// An id of a file or of a user: in range, or none at all. Never a wrapped one.
fn id(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|id| *id <= ID_MAX)
}

/// What a user wrote that is no known name: a number, one out of range, or neither.
fn number(text: &str) -> Option<Result<u32, Error>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(id(text).ok_or(Error::Range))
}

fn find(passwd: &str, group: &str, wanted: &str, additional: &[String]) -> Result<User, Error> {
    let (user, group_name) = wanted.split_once(':').unwrap_or((wanted, ""));
    // `u:` has an empty group, which is no group at all.
    let user_number = number(user).transpose()?;
    let account = accounts(passwd).find(|account| {
        (user.is_empty() && account.uid == Some(0))
            || account.name == user
            || (user_number.is_some() && account.uid == user_number)
    });
    let (uid, mut gid, home, name) = match (&account, user_number) {
        (Some(account), _) => {
            // An entry whose ids cannot be read must not turn into uid 0.
            let uid = account.uid.or(user_number).ok_or(Error::Range)?;
            if user_number.is_some_and(|number| number != uid) {
                // A name made of digits that maps elsewhere: the number wins (CVE-2016-3697's class).
                (user_number.unwrap_or(uid), 0, "", "")
            } else {
                (
                    uid,
                    account.gid.ok_or(Error::Range)?,
                    account.home,
                    account.name,
                )
            }
        }
        (None, Some(number)) => (number, 0, "", ""),
        (None, None) if user.is_empty() => (0, 0, "", ""),
        (None, None) => return Err(Error::NoUser(user.to_owned())),
    };
    let mut all = BTreeSet::new();
    if group_name.is_empty() {
        // The groups of a user count only when no group was asked for (Docker's rule).
        if !name.is_empty() {
            all.extend(
                groups(group)
                    .filter(|one| one.members.split(',').any(|member| member == name))
                    .filter_map(|one| one.gid),
            );
        }
    } else {
        gid = one_group(group, group_name)?;
    }
    for extra in additional {
        all.insert(one_group(group, extra)?);
    }
    Ok(User {
        uid,
        gid,
        groups: all.into_iter().collect(),
        home: if home.is_empty() { "/" } else { home }.to_owned(),
    })
}

fn one_group(group: &str, wanted: &str) -> Result<u32, Error> {
    if let Some(number) = number(wanted) {
        return number;
    }
    match groups(group).find(|one| one.name == wanted) {
        Some(found) => found.gid.ok_or(Error::Range),
        None => Err(Error::NoGroup(wanted.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # comment:x:1:1::/:\n\
        app:x:1000:1001::/home/app:/bin/sh\n\
        1234:x:0:0::/trap:/bin/sh\n\
        big:x:4294967296:0::/:\n\
        neg:x:-1:0::/:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\naudio:x:29:app\nbig:x:99999999999:app\n";

    fn user(wanted: &str) -> Result<User, Error> {
        find(PASSWD, GROUP, wanted, &[])
    }

    fn ids(wanted: &str) -> (u32, u32, Vec<u32>) {
        let found = user(wanted).unwrap();
        (found.uid, found.gid, found.groups)
    }

    #[test]
    fn names_numbers_and_nothing() {
        assert_eq!(ids(""), (0, 0, vec![10]));
        assert_eq!(ids("root"), (0, 0, vec![10]));
        assert_eq!(ids("app"), (1000, 1001, vec![10, 29]));
        assert_eq!(ids("1000"), (1000, 1001, vec![10, 29]));
        assert_eq!(ids("4242"), (4242, 0, vec![]));
        assert_eq!(ids("app:wheel"), (1000, 10, vec![]));
        assert_eq!(ids("app:7"), (1000, 7, vec![]));
        assert_eq!(ids("2147483647"), (ID_MAX, 0, vec![]));
        assert_eq!(user("app").unwrap().home, "/home/app");
        assert_eq!(user("4242").unwrap().home, "/");
    }

    #[test]
    fn overflow_never_becomes_root() {
        for wanted in [
            "-1",
            "2147483648",
            "4294967296",
            "18446744073709551616",
            "0:4294967296",
        ] {
            assert_eq!(user(wanted), Err(Error::Range), "{wanted}");
        }
        for wanted in ["big", "neg", "root:big"] {
            assert_eq!(user(wanted), Err(Error::Range), "{wanted}");
        }
        assert_eq!(user("0x0"), Err(Error::NoUser("0x0".into())));
        assert_eq!(user("root:nope"), Err(Error::NoGroup("nope".into())));
        assert_eq!(
            user("nope").unwrap_err().to_string(),
            "unable to find user nope: no matching entries in passwd file"
        );
    }

    #[test]
    fn a_name_of_digits_does_not_hijack_the_number() {
        assert_eq!(ids("1234"), (1234, 0, vec![]));
        assert_eq!(ids("01"), (1, 0, vec![]));
    }

    #[test]
    fn additional_groups_join_the_users_own() {
        let found = find(PASSWD, GROUP, "app", &["0".into(), "audio".into()]).unwrap();
        assert_eq!(found.groups, [0, 10, 29]);
    }

    #[test]
    fn a_fifo_a_device_and_a_giant_are_refused_without_blocking() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let fd = sys::path::open_directory(root.path()).unwrap();
        assert_eq!(resolve(fd.as_fd(), &Wanted::default()).unwrap().uid, 0);
        let at = sys::path::open_directory(&etc).unwrap();
        sys::file::make_node_at(at.as_fd(), b"passwd", sys::file::Kind::Fifo, 0o644).unwrap();
        assert!(matches!(
            resolve(fd.as_fd(), &Wanted::default()),
            Err(Error::File { .. })
        ));
        std::fs::remove_file(etc.join("passwd")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", etc.join("passwd")).unwrap();
        // The link leads inside the root, where there is no such device.
        assert_eq!(resolve(fd.as_fd(), &Wanted::default()).unwrap().uid, 0);
        std::fs::remove_file(etc.join("passwd")).unwrap();
        let giant = std::fs::File::create(etc.join("passwd")).unwrap();
        giant.set_len(10 << 30).unwrap();
        assert!(matches!(
            resolve(fd.as_fd(), &Wanted::default()),
            Err(Error::File { .. })
        ));
    }
}
