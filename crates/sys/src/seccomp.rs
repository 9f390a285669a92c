//! Loading a seccomp program.

use std::io;

use crate::bpf::SockFilter;
use crate::error::check;

/// Loads `program` for this process, which has one thread.
///
/// # Errors
/// The errno of `seccomp(2)`; `EACCES` without CAP_SYS_ADMIN and without no_new_privs.
pub fn load(program: &[SockFilter], flags: u32) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `filter` points to `len` instructions laid out as `struct sock_filter` (a test in bpf.rs), only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    check(result).map(drop)
}
