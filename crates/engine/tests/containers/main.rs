//! Containers on a real engine with network none, in a temporary root (STYLE 1.5, level 3).
#![expect(clippy::unwrap_used, reason = "this is a test, helpers included")]

mod adopted;
mod common;
mod crash;
mod exec;
mod foreign;
mod interrupted;
mod lifecycle;
mod trouble;
mod volumes;
