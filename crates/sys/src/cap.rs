//! Capabilities: the names, and the five sets of the calling thread.

use std::io;

use rustix::thread as rt;

/// THE names of all capabilities, in the order of the kernel's numbers.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities, bit n for number n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    /// The capability of this name, with or without `CAP_`, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES
            .iter()
            .position(|known| known.strip_prefix("CAP_") == Some(bare))?;
        Some(Self(1 << number))
    }

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The sets that are given to the process as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// What it can do.
    pub effective: Set,
    /// What it can make effective.
    pub permitted: Set,
    /// What survives execve of a file with inheritable capabilities.
    pub inheritable: Set,
}

fn numbers() -> impl Iterator<Item = (u32, Set)> {
    (0u32..64).map(|number| (number, Set(1 << number)))
}

/// Takes every capability that is not in `keep` out of the bounding set.
///
/// # Errors
/// The errno of `prctl(2)`.
pub fn drop_bounding(keep: Set) -> io::Result<()> {
    for (_, one) in numbers() {
        let capability = rt::CapabilitySet::from_bits_retain(one.0);
        if keep.0 & one.0 != 0 {
            continue;
        }
        match rt::capability_is_in_bounding_set(capability) {
            Ok(true) => rt::remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            Err(rustix::io::Errno::INVAL) => break, // the kernel knows no more
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sets effective, permitted and inheritable. What the kernel does not know is left out.
///
/// # Errors
/// The errno of `capset(2)`.
pub fn set(sets: Sets) -> io::Result<()> {
    let bits = |set: Set| rt::CapabilitySet::from_bits_retain(set.0);
    Ok(rt::set_capabilities(
        None,
        rt::CapabilitySets {
            effective: bits(sets.effective),
            permitted: bits(sets.permitted),
            inheritable: bits(sets.inheritable),
        },
    )?)
}

/// Makes the ambient set exactly `ambient`, as far as permitted and inheritable allow.
///
/// # Errors
/// The errno of `prctl(2)` for a capability that is permitted and inheritable.
pub fn set_ambient(ambient: Set) -> io::Result<()> {
    match rt::clear_ambient_capability_set() {
        Err(rustix::io::Errno::INVAL) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    for (_, one) in numbers() {
        if ambient.0 & one.0 != 0 {
            let capability = rt::CapabilitySet::from_bits_retain(one.0);
            match rt::configure_capability_in_ambient_set(capability, true) {
                Ok(()) | Err(rustix::io::Errno::PERM) => {} // runc: not permitted and inheritable, not ambient
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Whether permitted capabilities survive a change of user.
///
/// # Errors
/// The errno of `prctl(2)`.
pub fn keep_over_user_change(keep: Keep) -> io::Result<()> {
    Ok(rt::set_keep_capabilities(keep == Keep::Yes)?)
}

/// An answer for [`keep_over_user_change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They survive.
    Yes,
    /// They are dropped.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_kernels_numbers() {
        assert_eq!(Set::named("CAP_CHOWN"), Some(Set(1)));
        assert_eq!(Set::named("sys_admin"), Some(Set(1 << 21)));
        assert_eq!(Set::named("CAP_CHECKPOINT_RESTORE"), Some(Set(1 << 40)));
        assert_eq!(Set::named("CAP_NOPE"), None);
    }
}
