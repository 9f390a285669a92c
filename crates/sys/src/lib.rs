//! The kernel behind safe calls: the only crate that may use `unsafe`, libc or rustix.
//!
//! Every call takes and returns owned or borrowed file descriptors and answers [`std::io::Result`]:
//! an errno is all that the kernel says, and only the caller knows what it was doing. The crate holds
//! no policy: what to mount, whom to kill and which limit to set is decided above.
#![expect(
    unsafe_code,
    reason = "the one crate where system calls without a safe wrapper are made"
)]

pub mod activation;
pub mod bpf;
pub mod cap;
pub mod cgroupfs;
pub mod clock;
pub mod command;
pub mod conntrack;
pub mod epoll;
pub mod error;
pub mod fault;
pub mod file;
pub mod inotify;
pub mod kernel;
pub mod limits;
pub mod link;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod overlay;
pub mod path;
pub mod port;
pub mod process;
pub mod pty;
pub mod random;
pub mod seccomp;
pub mod selfexe;
pub mod signal;
pub mod socket;
