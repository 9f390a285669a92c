//! The schema of `cooper.db` and its migrations.
//!
//! ```text
//! cooper.db
//! └── (each owner draws its tables here)
//! ```
//!
//! A migration is appended, never edited: `PRAGMA user_version` is the number of those applied. A file
//! with a higher number was written by a newer Cooper and is refused untouched.

/// SQL of each migration, oldest first; entry *n* brings `user_version` from *n* to *n + 1*.
pub(crate) const MIGRATIONS: &[&str] = &[];
