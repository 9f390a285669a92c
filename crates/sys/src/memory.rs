//! What this process keeps without need: the allocator's free memory, and code that ran once.

/// Arenas of the allocator that a process with many threads may have (glibc: eight for each processor). What is free
/// in one serves only the threads that share it, and each keeps the pages around what is still in use.
const ARENAS_MAX: libc::c_int = 2;

/// Buffers from this size on are mapped each for itself and go back to the kernel when they are freed. Above the blocks
/// of logs, which are made anew for each answer, and below the buffers of a pull.
const MAPPED_BYTES_MIN: libc::c_int = 400 << 10;

/// Free memory at the end of an arena that is kept for the next buffers. glibc raises this and the size above with each
/// mapping that is freed, unless they are set: up to 64 MiB in each arena.
const KEPT_BYTES_MAX: libc::c_int = 1 << 20;

/// Bounds what the allocator of a process with many threads keeps; to be called before the threads begin.
pub fn bound() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, ARENAS_MAX),
        (libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN),
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX),
    ] {
        // SAFETY: mallopt takes no pointer, and takes the allocator's lock itself.
        let taken = unsafe { libc::mallopt(parameter, value) };
        debug_assert_eq!(taken, 1, "glibc knows these parameters");
    }
}

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
    use super::*;

    /// Set in a process that runs this test alone: what others do at the same time would be counted too.
    const ALONE: &str = "SYS_TEST_ALONE";

    #[test]
    fn code_is_unmapped_and_runs_on() {
        if std::env::var_os(ALONE).is_none() {
            let itself = crate::command::Command::new(std::env::current_exe().unwrap())
                .arg("memory::tests::code_is_unmapped_and_runs_on")
                .arg("--exact")
                .env(ALONE, "1");
            let output = itself.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            return;
        }
        let (begin, end) = code();
        // Mapping by mapping: before Linux 6.2 the sums lag behind by what each thread has counted for itself.
        let resident = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let (mut inside, mut kib) = (false, 0);
            for line in smaps.lines() {
                let head = line
                    .split_once('-')
                    .map(|(at, _)| usize::from_str_radix(at, 16));
                if let Some(Ok(at)) = head {
                    inside = (begin.addr()..end).contains(&at);
                } else if let (true, Some(rest)) = (inside, line.strip_prefix("Rss:")) {
                    let number = rest.trim().trim_end_matches(" kB");
                    kib += number.parse::<usize>().unwrap();
                }
            }
            kib
        };
        for page in (begin.addr()..end).step_by(4096) {
            let at = begin.with_addr(page);
            // SAFETY: between the linker's two marks, which are mapped without a hole in a static program.
            std::hint::black_box(unsafe { at.read_volatile() });
        }
        let before = resident();
        release_code();
        assert!(resident() < before / 2);
    }
}
