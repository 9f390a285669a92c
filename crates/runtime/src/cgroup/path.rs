//! Names of cgroups: a parent path and one name below it, validated before anything is opened.

use serde::{Deserialize, Serialize};

use super::Error;

/// Cooper's own top-level cgroup in every hierarchy.
pub const PARENT: &str = "/cooper";

/// Longest component, in bytes (`NAME_MAX`).
const COMPONENT_BYTES_MAX: usize = 255;

/// Longest parent, in bytes: leaves room for the name within `PATH_MAX`.
const PARENT_BYTES_MAX: usize = 2048;

/// A cgroup below a parent: `<parent>/<name>`, the same in every hierarchy.
///
/// The parent is absolute below the mount of the hierarchy and has no `..`; the name is one component.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct CgroupPath {
    parent: String,
    name: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct Raw {
    parent: String,
    name: String,
}

impl CgroupPath {
    /// The cgroup `name` below Cooper's own parent, [`PARENT`].
    ///
    /// # Errors
    /// [`Error::Name`] when the name is not one plain path component.
    pub fn own(name: &str) -> Result<Self, Error> {
        Self::new(PARENT, name)
    }

    /// The cgroup `name` below `parent` (`--cgroup-parent`); a parent without a leading slash gets one, `/` is the
    /// root of the hierarchy.
    ///
    /// # Errors
    /// [`Error::Name`] when a component is empty, `.` or `..`, too long, or has a control character.
    pub fn new(parent: &str, name: &str) -> Result<Self, Error> {
        check_component(name)?;
        let mut normal = String::new();
        for component in components(parent)? {
            normal.push('/');
            normal.push_str(component);
        }
        Ok(Self {
            parent: normal,
            name: name.to_owned(),
        })
    }

    /// The parent, with a leading and without a trailing slash; empty for the root of the hierarchy.
    #[must_use]
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same parent with another name.
    ///
    /// # Errors
    /// [`Error::Name`] as for [`CgroupPath::new`].
    pub fn with_name(&self, name: &str) -> Result<Self, Error> {
        Self::new(&self.parent, name)
    }

    /// Whether the parent is Cooper's own, the only one the pool serves.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.parent == PARENT
    }
}

/// The components of a parent path, validated; repeated and trailing slashes do not count.
pub(super) fn components(parent: &str) -> Result<Vec<&str>, Error> {
    if parent.len() > PARENT_BYTES_MAX {
        return Err(Error::Name(parent.to_owned()));
    }
    let components: Vec<&str> = parent
        .split('/')
        .filter(|component| !component.is_empty())
        .collect();
    for component in &components {
        check_component(component)?;
    }
    Ok(components)
}

fn check_component(name: &str) -> Result<(), Error> {
    let bad = name.is_empty()
        || name == "."
        || name == ".."
        || name.len() > COMPONENT_BYTES_MAX
        || name.chars().any(|c| c == '/' || c.is_control());
    // A group named like a control file would hide it from us: `cgroup.procs` is a file, `memory.max` may be one.
    let reserved = name.starts_with("cgroup.") || name == "tasks" || name == "notify_on_release";
    if bad || reserved {
        Err(Error::Name(name.to_owned()))
    } else {
        Ok(())
    }
}

impl std::fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.parent, self.name)
    }
}

impl TryFrom<Raw> for CgroupPath {
    type Error = Error;
    fn try_from(raw: Raw) -> Result<Self, Error> {
        Self::new(&raw.parent, &raw.name)
    }
}

impl From<CgroupPath> for Raw {
    fn from(path: CgroupPath) -> Self {
        Self {
            parent: path.parent,
            name: path.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_normalised() {
        for (parent, normal) in [
            ("/cooper", "/cooper"),
            ("a/b/", "/a/b"),
            ("//a", "/a"),
            ("/", ""),
            ("", ""),
        ] {
            assert_eq!(
                CgroupPath::new(parent, "x").unwrap().parent(),
                normal,
                "{parent}"
            );
        }
        assert_eq!(CgroupPath::new("a", "x").unwrap().to_string(), "/a/x");
        assert!(CgroupPath::own("x").unwrap().is_own());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(COMPONENT_BYTES_MAX + 1);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "a\nb",
            "a\0",
            "cgroup.procs",
            "tasks",
            long.as_str(),
        ] {
            assert!(
                matches!(CgroupPath::own(name), Err(Error::Name(_))),
                "{name:?}"
            );
        }
        for parent in ["..", "/a/../b", "/a/./b", "/a\n"] {
            assert!(
                matches!(CgroupPath::new(parent, "x"), Err(Error::Name(_))),
                "{parent:?}"
            );
        }
    }

    #[test]
    fn a_path_from_json_is_validated_too() {
        let bad = r#"{"parent":"/cooper","name":"../x"}"#;
        assert!(serde_json::from_str::<CgroupPath>(bad).is_err());
        let path = CgroupPath::own("x").unwrap();
        let text = serde_json::to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<CgroupPath>(&text).unwrap(), path);
    }
}
