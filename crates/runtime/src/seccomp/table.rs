//! System call numbers by name, for each calling convention that a machine can run.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::oci::Arch;

/// Set in the number of every x32 call.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// A calling convention: numbers, argument width and what the kernel reports as architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Abi {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Abi {
    /// All conventions a machine can run, its own first.
    pub(super) fn of_machine(native: Self) -> &'static [Self] {
        match native {
            Self::X86_64 | Self::X86 | Self::X32 => &[Self::X86_64, Self::X86, Self::X32],
            Self::Aarch64 | Self::Arm => &[Self::Aarch64, Self::Arm],
        }
    }

    /// The convention this program is built for.
    pub(super) const fn native() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    /// As the OCI spec names it.
    pub(super) fn from_oci(arch: Arch, native: Self) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Some(native),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*` of `linux/audit.h`: what `struct seccomp_data` has in `arch`.
    pub(super) fn audit(self) -> u32 {
        match self {
            // x32 differs from x86-64 by a bit in the number only.
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 32 significant bits; what the upper half of a register holds then is undefined.
    pub(super) fn is_narrow(self) -> bool {
        match self {
            Self::X86_64 | Self::Aarch64 => false,
            Self::X86 | Self::X32 | Self::Arm => true,
        }
    }

    /// The number of a call, if the convention has it.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        match self {
            Self::X32 => x32_number(name),
            _ => self.table().get(name).copied(),
        }
    }

    fn table(self) -> &'static HashMap<&'static str, u32> {
        static X86_64: OnceLock<HashMap<&'static str, u32>> = OnceLock::new();
        static X86: OnceLock<HashMap<&'static str, u32>> = OnceLock::new();
        static AARCH64: OnceLock<HashMap<&'static str, u32>> = OnceLock::new();
        static ARM: OnceLock<HashMap<&'static str, u32>> = OnceLock::new();
        macro_rules! collect {
            ($module:ident) => {
                || {
                    let number = |call: &syscalls::$module::Sysno| call.id().cast_unsigned();
                    syscalls::$module::Sysno::iter()
                        .map(|call| (call.name(), number(&call)))
                        .collect()
                }
            };
        }
        match self {
            Self::X86_64 | Self::X32 => X86_64.get_or_init(collect!(x86_64)),
            Self::X86 => X86.get_or_init(collect!(x86)),
            Self::Aarch64 => AARCH64.get_or_init(collect!(aarch64)),
            Self::Arm => ARM.get_or_init(collect!(arm)),
        }
    }
}

/// Calls whose x32 form has a number of its own, from 512 on without a gap: their arguments hold pointers or `long`s in
/// memory (arch/x86/entry/syscalls/syscall_64.tbl).
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];
const X32_OWN_FIRST: u32 = 512;

/// Calls of x86-64 that x32 never had (the same file, marked `64`).
const X32_MISSING: [&str; 8] = [
    "uselib",
    "create_module",
    "get_kernel_syms",
    "query_module",
    "nfsservctl",
    "_sysctl",
    "epoll_ctl_old",
    "epoll_wait_old",
];

fn x32_number(name: &str) -> Option<u32> {
    let own = X32_OWN
        .iter()
        .zip(X32_OWN_FIRST..)
        .find(|(own, _)| **own == name)
        .map(|(_, number)| number);
    let common = || {
        (!X32_MISSING.contains(&name))
            .then(|| Abi::X86_64.number(name))
            .flatten()
    };
    own.or_else(common).map(|number| number | X32_BIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_each_convention() {
        // unistd.h of each architecture; x32: 13 | bit is not rt_sigaction.
        for (abi, name, number) in [
            (Abi::X86_64, "read", Some(0)),
            (Abi::X86_64, "futex", Some(202)),
            (Abi::X86, "read", Some(3)),
            (Abi::X86, "socketcall", Some(102)),
            (Abi::X86_64, "socketcall", None),
            (Abi::X32, "read", Some(X32_BIT)),
            (Abi::X32, "rt_sigaction", Some(512 | X32_BIT)),
            (Abi::X32, "pwritev2", Some(547 | X32_BIT)),
            (Abi::X32, "_sysctl", None),
            (Abi::Aarch64, "read", Some(63)),
            (Abi::Aarch64, "open", None),
            (Abi::Arm, "read", Some(3)),
            (Abi::X86_64, "nonsense", None),
        ] {
            assert_eq!(abi.number(name), number, "{abi:?} {name}");
        }
    }
}
