//! What this process keeps without need: the allocator's free memory, and code that ran once.

/// Gives free memory of the allocator back to the kernel. Worth its time before a long wait, and after work that
/// took much.
pub fn trim() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Unmaps this program's code and constants, which stay in the page cache and come back where they are used: each
/// fault maps 64 KiB, so that a process that has done many things once keeps megabytes mapped for nothing.
pub fn release_code() {
    let (begin, end) = code();
    // SAFETY: the range holds the program's headers, constants and code, private mappings of its file that nothing
    // writes to (the linker puts what is written after `etext`), so that what is dropped is read again unchanged.
    unsafe {
        libc::madvise(
            begin.cast_mut().cast(),
            end - begin.addr(),
            libc::MADV_DONTNEED,
        )
    };
}

/// Where the code and what is before it begins, and the address of the first page after its last whole one.
fn code() -> (*const u8, usize) {
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    let page = rustix::param::page_size();
    let end = (&raw const etext).addr() & !(page - 1);
    (&raw const __executable_start, end)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn code_is_unmapped_and_runs_on() {
        // Other tests run in this process at the same time: it is looked at from a child that does nothing else.
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(2).unwrap().parse::<usize>().unwrap() // shared pages: those of files
        };
        let child = crate::process::clone(crate::process::CloneRequest::default(), || {
            let (begin, end) = code();
            for page in (begin.addr()..end).step_by(4096) {
                let at = begin.with_addr(page);
                // SAFETY: between the linker's two marks, which are mapped without a hole in a static program.
                std::hint::black_box(unsafe { at.read_volatile() });
            }
            let before = resident();
            release_code();
            i32::from(resident() >= before / 2)
        })
        .unwrap();
        assert_eq!(crate::process::wait(child.pidfd.as_fd()).unwrap().code, 0);
    }
}
