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
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(2).unwrap().parse::<usize>().unwrap() // shared pages: those of files
        };
        let (begin, end) = code();
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
