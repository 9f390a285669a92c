//! BPF: the instruction formats, classic and extended, and `bpf(2)` as far as device rules of cgroup v2 need it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One classic BPF instruction, `struct sock_filter`: what seccomp runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the test holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// One extended BPF instruction, `struct bpf_insn`: what device rules run.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    /// Offset of a jump or of a memory access.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

/// `bpf(2)` commands (`enum bpf_cmd`).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_PROG_QUERY: libc::c_long = 16;

/// `BPF_PROG_TYPE_CGROUP_DEVICE` of `enum bpf_prog_type`, `BPF_CGROUP_DEVICE` of `enum bpf_attach_type`.
const PROGRAM_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;

/// `BPF_F_ALLOW_MULTI`: programs of groups above and below are asked too, and all must allow.
const ALLOW_MULTI: u32 = 1 << 1;

/// Most programs the kernel attaches to one group (`BPF_CGROUP_MAX_PROGS`).
const PROGRAMS_MAX: usize = 64;

/// The licence string of our programs; the helpers that need a GPL one are not used.
const LICENCE: &CStr = c"Apache-2.0";

/// Head of `union bpf_attr` for `BPF_PROG_LOAD`; the rest is zero for the kernel, which takes the size given.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replace: u32,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    identifiers: u64,
    count: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct ByIdAttributes {
    identifier: u32,
    next: u32,
    open_flags: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    let size = size_of::<T>();
    // SAFETY: `attributes` is a live, exclusively borrowed, fully initialised prefix of `union bpf_attr`, and its own
    // size goes along; what its pointer fields point to outlives the call in each function below.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor =
        i32::try_from(descriptor).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just returned this descriptor to us (close-on-exec), and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    u32::try_from(descriptor.as_raw_fd()).expect("a borrowed descriptor is never negative")
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN or CAP_BPF, `EINVAL` or `EACCES` when the verifier refuses the program.
pub fn load_cgroup_device(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        program_type: PROGRAM_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: address(instructions.as_ptr()),
        licence: address(LICENCE.as_ptr()),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"cooper_devices\0\0",
    };
    loop {
        match bpf(BPF_PROG_LOAD, &mut attributes) {
            // The verifier was interrupted by a signal.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            loaded => return owned(loaded?),
        }
    }
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// Attaches a device program to a cgroup v2 directory in place of all device programs that are attached there.
///
/// The new one is attached before the old are taken off, so no moment is without rules.
///
/// # Errors
/// As `bpf(2)` says for `BPF_PROG_ATTACH`, `BPF_PROG_QUERY` and `BPF_PROG_DETACH`.
pub fn replace_cgroup_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let old = attached_cgroup_device(cgroup)?;
    let mut attributes = AttachAttributes {
        target: number(cgroup),
        program: number(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        replace: 0,
    };
    bpf(BPF_PROG_ATTACH, &mut attributes)?;
    for identifier in old {
        let mut attributes = ByIdAttributes {
            identifier,
            next: 0,
            open_flags: 0,
        };
        let old = owned(bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes)?)?;
        let mut attributes = AttachAttributes {
            target: number(cgroup),
            program: number(old.as_fd()),
            attach_type: ATTACH_CGROUP_DEVICE,
            flags: 0,
            replace: 0,
        };
        bpf(BPF_PROG_DETACH, &mut attributes)?;
    }
    Ok(())
}

/// The ids of the device programs attached to a cgroup itself.
///
/// # Errors
/// As `bpf(2)` says for `BPF_PROG_QUERY`.
pub fn attached_cgroup_device(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut identifiers = [0u32; PROGRAMS_MAX];
    let mut attributes = QueryAttributes {
        target: number(cgroup),
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        identifiers: address(identifiers.as_mut_ptr()),
        count: u32::try_from(PROGRAMS_MAX).expect("64 fits"),
        padding: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    let count = usize::try_from(attributes.count)
        .unwrap_or(0)
        .min(PROGRAMS_MAX);
    Ok(identifiers[..count].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        // linux/filter.h, linux/bpf.h: sizes up to the last field we set.
        assert_eq!(size_of::<SockFilter>(), 8);
        assert_eq!(size_of::<Instruction>(), 8);
        assert_eq!(size_of::<LoadAttributes>(), 64);
        assert_eq!(std::mem::offset_of!(LoadAttributes, licence), 16);
        assert_eq!(std::mem::offset_of!(LoadAttributes, name), 48);
        assert_eq!(size_of::<AttachAttributes>(), 20);
        assert_eq!(std::mem::offset_of!(QueryAttributes, identifiers), 16);
        assert_eq!(std::mem::offset_of!(QueryAttributes, count), 24);
        assert_eq!(size_of::<ByIdAttributes>(), 12);
    }
}
