//! Seccomp: an OCI policy becomes one classic BPF program, and Docker's default policy in our own encoding.
//!
//! Pure: it computes, and loads nothing (`sys::seccomp` does).

mod assemble;
mod default;
mod policy;
mod table;

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sys::bpf::SockFilter;

use crate::oci;

/// Policies kept by [`compile_cached`]: those of a handful of capability sets, some 10 KiB each.
const CACHED_MAX: usize = 8;

/// `SECCOMP_FILTER_FLAG_*` of `linux/seccomp.h`.
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Why a policy cannot be compiled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// An argument index above 5.
    #[error("seccomp rule for {syscall}: argument index {index} is not below 6")]
    Argument {
        /// The rule's first name.
        syscall: String,
        /// The index.
        index: usize,
    },
    /// The program would be longer than the kernel takes.
    #[error("seccomp program has {0} instructions, more than the kernel takes (4096)")]
    TooLong(usize),
    /// An error number above 4095 (`MAX_ERRNO`) or beyond 16 bits for trace.
    #[error("seccomp return value {0} is too large")]
    ReturnValue(u32),
}

/// A program for `seccomp(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    #[serde(with = "packed")]
    instructions: Vec<SockFilter>,
    flags: u32,
    needs_listener: bool,
}

impl Program {
    /// The instructions, at most 4096.
    #[must_use]
    pub fn instructions(&self) -> &[SockFilter] {
        &self.instructions
    }

    /// The `SECCOMP_FILTER_FLAG_*` bits the policy asks for; `TSYNC` is never among them, the caller has one thread.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Whether a rule notifies user space, so that the loader must ask for a listener.
    #[must_use]
    pub fn needs_listener(&self) -> bool {
        self.needs_listener
    }
}

/// Docker's default policy for a process with these (bounding) capabilities on this machine.
#[must_use]
pub fn docker_default(capabilities: &oci::Capabilities) -> oci::LinuxSeccomp {
    default::policy(capabilities, table::Abi::native())
}

/// Compiles a policy; unknown system call names are left out, as runc does.
///
/// # Errors
/// When the policy is malformed or too long, by [`Error`].
pub fn compile(policy: &oci::LinuxSeccomp) -> Result<Program, Error> {
    compile_for(policy, table::Abi::native())
}

fn compile_for(policy: &oci::LinuxSeccomp, native: table::Abi) -> Result<Program, Error> {
    let instructions = assemble::program(&policy::architectures(policy, native)?)?;
    let flag = |flag: &oci::LinuxSeccompFilterFlag| match flag {
        oci::LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
        oci::LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
        oci::LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
        oci::LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE_RECV,
    };
    let mut actions = policy
        .syscalls()
        .iter()
        .flatten()
        .map(oci::LinuxSyscall::action);
    Ok(Program {
        instructions,
        flags: policy
            .flags()
            .iter()
            .flatten()
            .map(flag)
            .fold(0, |all, flag| all | flag),
        needs_listener: actions.any(|action| action == oci::LinuxSeccompAction::ScmpActNotify),
    })
}

/// [`compile`] behind a small cache, for the policies that come again and again.
///
/// # Errors
/// As [`compile`].
pub fn compile_cached(policy: &oci::LinuxSeccomp) -> Result<Arc<Program>, Error> {
    type Entry = (oci::LinuxSeccomp, Arc<Program>);
    static CACHE: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
    // A panic elsewhere leaves the list whole: it is only ever pushed to and cut.
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, program)) = cache.iter().find(|(known, _)| known == policy) {
        return Ok(Arc::clone(program));
    }
    let program = Arc::new(compile(policy)?);
    cache.truncate(CACHED_MAX - 1);
    cache.insert(0, (policy.clone(), Arc::clone(&program)));
    Ok(program)
}

/// Each instruction as one number, which a reader takes in without an allocation of its own.
mod packed {
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::Serializer;
    use sys::bpf::SockFilter;

    pub(super) fn serialize<S: Serializer>(
        instructions: &[SockFilter],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(instructions.iter().map(|one| {
            let [a, b] = one.code.to_le_bytes();
            let [c, d, e, f] = one.k.to_le_bytes();
            u64::from_le_bytes([a, b, one.jt, one.jf, c, d, e, f])
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<SockFilter>, D::Error> {
        let numbers = Vec::<u64>::deserialize(deserializer)?;
        let unpack = |number: u64| {
            let [a, b, jt, jf, c, d, e, f] = number.to_le_bytes();
            SockFilter {
                code: u16::from_le_bytes([a, b]),
                jt,
                jf,
                k: u32::from_le_bytes([c, d, e, f]),
            }
        };
        Ok(numbers.into_iter().map(unpack).collect())
    }
}

#[cfg(test)]
mod tests;
