//! The allocator's bounds, in a program of their own: they hold for the whole process.

use std::sync::{Arc, Barrier};

/// glibc reserves this much for an arena, at a multiple of it (malloc/arena.c, `HEAP_MAX_SIZE`).
const ARENA_RESERVED_BYTES: usize = 64 << 20;

/// Arenas that lie outside the program's first heap.
fn arenas() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("our own maps");
    let begins = maps.lines().filter_map(|line| {
        let (begin, rest) = line.split_once('-')?;
        rest.contains(" rw-p 00000000 00:00 0").then_some(begin)
    });
    let begins = begins.map(|begin| usize::from_str_radix(begin, 16).expect("an address"));
    begins
        .filter(|begin| begin.is_multiple_of(ARENA_RESERVED_BYTES))
        .count()
}

/// Whether the buffer is a mapping of its own: its first page holds the allocator's 16 bytes and then the buffer.
fn is_mapped_alone(buffer: &[u8]) -> bool {
    buffer.as_ptr().addr() % 4096 == 16
}

#[test]
fn many_threads_share_few_arenas_and_big_buffers_go_back() {
    sys::memory::bound();
    const THREADS: usize = 16;
    let together = Arc::new(Barrier::new(THREADS + 1));
    let threads = (0..THREADS).map(|_| {
        let together = together.clone();
        std::thread::spawn(move || {
            let small: Vec<_> = (0..64).map(|_| vec![1_u8; 2_000]).collect();
            // Without bounds, what is freed here would make the next ones part of an arena.
            drop(vec![1_u8; 2 << 20]);
            let big = vec![1_u8; 512 << 10];
            together.wait();
            together.wait();
            (small.len(), is_mapped_alone(&big))
        })
    });
    let threads: Vec<_> = threads.collect();
    together.wait();
    let arenas = arenas();
    together.wait();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), (64, true));
    }
    assert!((1..=2).contains(&arenas), "{arenas} arenas");
}
