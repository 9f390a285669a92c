//! The kernel behind safe calls: the only crate that may use `unsafe`, libc or rustix.
//!
//! Every call takes and returns owned or borrowed file descriptors and answers [`std::io::Result`]:
//! an errno is all that the kernel says, and only the caller knows what it was doing. The crate holds
//! no policy: what to mount, whom to kill and which limit to set is decided above.
pub mod command;
pub mod fault;
