//! The container's log: json-file lines as dockerd writes them, rotated files, a disk that may be full.
//!
//! Owns the format ([`escape`], [`line`]) and the file ([`file`]). It never blocks on anything
//! but the disk and never fails towards its caller: what cannot be written is dropped and counted.

mod escape;
mod file;
mod line;

pub(crate) use file::Writer;
pub(crate) use line::{Piece, Splitter};

#[cfg(test)]
mod tests;
