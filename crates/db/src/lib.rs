//! The state database: one SQLite file in WAL mode, shared by the crates that keep state in it.
//!
//! Owns the connections, the pragmas, the migrations and the durability of a commit. Holds no query:
//! those live with the crate that owns the table. The database is an index; what a user cannot make
//! again also lies as a file beside its data (DESIGN section 3).
//!
//! Durability (DESIGN decision 16): `synchronous=NORMAL` means a commit survives kill -9 and a full disk
//! at once and a power cut after the next sync, which [`Db::sync`] (called every second by the daemon)
//! and [`Db::write_synced`] make. No commit pays for a checkpoint: [`Db::checkpoint`] makes it beside.
//!
//! Room for commits is kept where they are written: blocks are reserved for the write-ahead log beyond its end.
//! A file beside it that is given up on a full disk would go to whoever fills the disk; these go to nobody else.

mod schema;

use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

pub use rusqlite;

/// How long a statement waits for another process's lock: the daemon holds the data root alone, so only somebody who
/// opens the file beside it (sqlite3, a backup) can hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections kept open for readers; more readers at once open a connection for the moment.
const IDLE_READERS_MAX: usize = 4;

/// Page cache of one connection, in KiB (SQLite's default is 2,000): the daemon's memory is budgeted.
const CACHE_KIB: i64 = 512;

/// The write-ahead log is moved into the database once it has grown to this (SQLite's default: 1,000 pages).
const CHECKPOINT_BYTES: u64 = 4 << 20;

/// A log that readers or a full disk let grow to this stops writers for as long as its checkpoint takes.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// Blocks kept for the log beyond its end: hundreds of commits that stop, end and remove what fills a disk. SQLite's
/// index of a log of [`CHECKPOINT_BYTES`] and this is one block of 32 KiB, which is there from the start.
const RESERVE_BYTES: u64 = 8 << 20;

/// The part of a small file system that the reserve may take, as a divisor.
const RESERVE_PART: u64 = 32;

/// Of the database and what lies beside it.
const FILE_MODE: u32 = 0o600;

/// What went wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or its pragmas set.
    #[error("open the state database {}", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The file cannot be made, or not for its owner alone.
    #[error("make the state database {} its owner's alone", path.display())]
    Private {
        /// The database file.
        path: PathBuf,
        /// The errno.
        #[source]
        source: std::io::Error,
    },
    /// The file was written by a newer version of Cooper.
    #[error(
        "the state database {} has schema {found}, this Cooper knows {known}: start the newer Cooper again, or choose another --data-root",
        path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its `user_version`.
        found: u32,
        /// The number of migrations in this binary.
        known: u32,
    },
    /// A statement failed; the transaction was rolled back.
    #[error("the state database")]
    Statement(#[from] rusqlite::Error),
    /// The write-ahead log could not be synced to disk.
    #[error("sync the state database")]
    Sync(#[source] std::io::Error),
}

/// A handle on the state database; clones share its connections. All calls block.
#[derive(Clone, Debug)]
pub struct Db {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    wal: File,
    /// Whether there were commits since the last checkpoint.
    written: AtomicBool,
    /// Whether there were commits since the last sync.
    unsynced: AtomicBool,
    /// Whether there was no database before.
    new: bool,
}

impl Db {
    /// Opens or creates the database at `path` and migrates it.
    ///
    /// # Errors
    /// [`Error::Open`] and [`Error::Statement`] by SQLite, [`Error::Newer`] for a file of a newer Cooper.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = |source| Error::Open {
            path: path.to_owned(),
            source,
        };
        keep_private(path).map_err(|source| Error::Private {
            path: path.to_owned(),
            source,
        })?;
        let mut writer = connect(path).map_err(opened)?;
        let new = migrate(path, &mut writer, schema::MIGRATIONS)? == 0;
        // A write makes SQLite create the log, so that it can be opened for syncing.
        writer
            .execute_batch("BEGIN IMMEDIATE; PRAGMA application_id = 0x436f6f70; COMMIT")
            .map_err(opened)?;
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let wal = File::options().write(true).open(wal).map_err(Error::Sync)?;
        let inner = Inner {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::default(),
            wal,
            // What an earlier process left in the log.
            written: AtomicBool::new(true),
            unsynced: AtomicBool::new(true),
            new,
        };
        let db = Self {
            inner: Arc::new(inner),
        };
        db.keep_reserve();
        Ok(db)
    }

    /// Whether [`Db::open`] found no database and made one.
    pub fn is_new(&self) -> bool {
        self.inner.new
    }

    /// Reserves blocks for the log again, after it has grown or was cut. A disk that is full already, or a file system that
    /// cannot reserve, leaves the log as it is.
    fn keep_reserve(&self) {
        let wal = &self.inner.wal;
        let reserved = sys::file::filesystem_bytes(wal).and_then(|total| {
            let wanted = RESERVE_BYTES.min(total / RESERVE_PART);
            sys::file::reserve(wal, wanted)
        });
        drop(reserved);
    }

    /// Runs `query` on a connection that sees the last commit. Never waits for a writer.
    ///
    /// # Errors
    /// Whatever `query` answers, or [`Error`] converted by it when no connection can be opened.
    pub fn read<T, E: From<Error>>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let idle = lock(&self.inner.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.inner.path).map_err(|source| Error::Open {
                path: self.inner.path.clone(),
                source,
            })?,
        };
        let answer = query(&connection);
        let mut readers = lock(&self.inner.readers);
        if readers.len() < IDLE_READERS_MAX {
            readers.push(connection);
        }
        answer
    }

    /// Runs `change` in one transaction and commits it: safe against kill -9 when this returns.
    /// An error from `change` rolls back.
    ///
    /// # Errors
    /// Whatever `change` answers, or [`Error::Statement`] converted by it for begin and commit.
    pub fn write<T, E: From<Error>>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut writer = lock(&self.inner.writer);
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(Error::from)?;
        let answer = change(&transaction)?;
        transaction.commit().map_err(Error::from)?;
        self.inner.written.store(true, Ordering::Relaxed);
        self.inner.unsynced.store(true, Ordering::Release);
        Ok(answer)
    }

    /// As [`Db::write`], and safe against a power cut when this returns.
    ///
    /// # Errors
    /// As [`Db::write`], and [`Error::Sync`].
    pub fn write_synced<T, E: From<Error>>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let answer = self.write(change)?;
        self.sync()?;
        Ok(answer)
    }

    /// Whether there was no commit since the last [`Db::sync`] that succeeded.
    pub fn is_synced(&self) -> bool {
        !self.inner.unsynced.load(Ordering::Acquire)
    }

    /// Makes every commit so far safe against a power cut.
    ///
    /// # Errors
    /// [`Error::Sync`].
    pub fn sync(&self) -> Result<(), Error> {
        // Before: a commit during the sync needs another one.
        self.inner.unsynced.store(false, Ordering::Release);
        self.inner.wal.sync_data().map_err(|source| {
            self.inner.unsynced.store(true, Ordering::Release);
            Error::Sync(source)
        })
    }

    /// Gives back the memory that reads and writes have filled: pages of the database, statements of readers. What comes
    /// next takes it again.
    ///
    /// # Errors
    /// [`Error::Statement`].
    pub fn release_memory(&self) -> Result<(), Error> {
        lock(&self.inner.readers).clear();
        let writer = lock(&self.inner.writer);
        Ok(writer.execute_batch("PRAGMA shrink_memory")?)
    }

    /// Moves the write-ahead log into the database when it has grown; the daemon calls it within a second
    /// of a commit.
    /// Neither readers nor writers wait for it, unless the log has outgrown all bounds. A failure loses
    /// nothing: the log goes on and the next call tries again.
    ///
    /// # Errors
    /// [`Error::Statement`] when the disk refuses, [`Error::Sync`] when the log cannot be looked at.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.keep_reserve();
        let log_bytes = self.inner.wal.metadata().map_err(Error::Sync)?.len();
        if log_bytes < CHECKPOINT_BYTES || !self.inner.written.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let moved = if log_bytes < LOG_BYTES_MAX {
            self.read(|connection| move_log(connection, "PRAGMA wal_checkpoint(PASSIVE)"))
        } else {
            move_log(&lock(&self.inner.writer), "PRAGMA wal_checkpoint(TRUNCATE)")
        };
        if !matches!(moved, Ok(true)) {
            self.inner.written.store(true, Ordering::Relaxed);
        }
        moved.map(drop)
    }
}

/// Runs a checkpoint; whether it moved everything.
fn move_log(connection: &Connection, checkpoint: &str) -> Result<bool, Error> {
    let (busy, log, moved): (bool, i64, i64) = connection.query_row(checkpoint, [], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    Ok(!busy && log == moved)
}

/// A panic inside `change` unwound through the transaction, which rolled back: the connection is sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Definitions hold passwords: nobody else reads the file, nor the log and the index beside it, which SQLite makes with
/// its mode.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    for end in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        match std::fs::set_permissions(beside, Permissions::from_mode(FILE_MODE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // The log and its reserve stay: the next start may find the disk full.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // The file shrinks to this when the log begins anew: its length then says how much is in it.
    connection.pragma_update(
        None,
        "journal_size_limit",
        i64::try_from(CHECKPOINT_BYTES / 4).unwrap_or(-1),
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Brings the schema up to date, and answers which one was found: 0 in a new file.
fn migrate(path: &Path, connection: &mut Connection, migrations: &[&str]) -> Result<u32, Error> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = u32::try_from(migrations.len()).expect("a handful of migrations");
    if found > known {
        return Err(Error::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    for (number, sql) in (1..=known).zip(migrations) {
        if number <= found {
            continue;
        }
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Db) {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&directory.path().join("cooper.db")).unwrap();
        db.write::<_, Error>(|tx| Ok(tx.execute_batch("CREATE TABLE t (n INTEGER UNIQUE)")?))
            .unwrap();
        (directory, db)
    }

    fn insert(db: &Db, number: i64) -> Result<(), Error> {
        db.write(|tx| {
            Ok(tx
                .execute("INSERT INTO t VALUES (?1)", [number])
                .map(drop)?)
        })
    }

    fn count(db: &Db) -> i64 {
        db.read::<_, Error>(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?))
            .unwrap()
    }

    #[test]
    fn nobody_else_reads_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cooper.db");
        let modes = || {
            ["", "-wal", "-shm"].map(|end| {
                let mut path = path.as_os_str().to_owned();
                path.push(end);
                std::fs::metadata(path).unwrap().permissions().mode() & 0o777
            })
        };
        let db = Db::open(&path).unwrap();
        assert_eq!(modes(), [0o600; 3]);
        drop(db);
        // As an earlier Cooper left it.
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let _db = Db::open(&path).unwrap();
        assert_eq!(modes(), [0o600; 3]);
    }

    #[test]
    fn a_failed_change_leaves_nothing_behind() {
        let (_directory, db) = open();
        insert(&db, 1).unwrap();
        let failed = db.write::<(), Error>(|tx| {
            tx.execute("INSERT INTO t VALUES (2)", [])?;
            tx.execute("INSERT INTO t VALUES (1)", [])?;
            Ok(())
        });
        assert!(failed.is_err());
        assert_eq!(count(&db), 1);
    }

    #[test]
    fn readers_do_not_wait_for_a_writer() {
        let (_directory, db) = open();
        insert(&db, 1).unwrap();
        db.write::<_, Error>(|tx| {
            tx.execute("INSERT INTO t VALUES (2)", [])?;
            assert_eq!(
                count(&db),
                1,
                "a reader sees the last commit while a writer is at work"
            );
            Ok(())
        })
        .unwrap();
        assert_eq!(count(&db), 2);
    }

    #[test]
    fn memory_is_given_back_and_taken_again() {
        let (_directory, db) = open();
        insert(&db, 1).unwrap();
        assert_eq!(count(&db), 1);
        let idle = || lock(&db.inner.readers).len();
        assert_eq!(idle(), 1);
        db.release_memory().unwrap();
        assert_eq!(idle(), 0);
        insert(&db, 2).unwrap();
        assert_eq!(count(&db), 2);
    }

    #[test]
    fn a_file_of_a_newer_cooper_is_refused_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cooper.db");
        let mut connection = connect(&path).unwrap();
        migrate(
            &path,
            &mut connection,
            &["CREATE TABLE a (n)", "CREATE TABLE b (n)"],
        )
        .unwrap();
        let refused = migrate(&path, &mut connection, &["CREATE TABLE a (n)"]);
        assert!(
            matches!(
                refused,
                Err(Error::Newer {
                    found: 2,
                    known: 1,
                    ..
                })
            ),
            "{refused:?}"
        );
    }

    #[test]
    fn a_panic_in_a_change_does_not_poison_the_database() {
        let (_directory, db) = open();
        let inside = db.clone();
        let panicked = std::thread::spawn(move || {
            inside.write::<(), Error>(|tx| {
                tx.execute("INSERT INTO t VALUES (7)", [])?;
                panic!("on purpose")
            })
        });
        assert!(panicked.join().is_err());
        insert(&db, 8).unwrap();
        assert_eq!(count(&db), 1);
    }

    /// Writes about `bytes` into the log.
    fn fill(db: &Db, bytes: u64) {
        db.write::<_, Error>(|tx| Ok(tx.execute_batch("CREATE TABLE IF NOT EXISTS b (x)")?))
            .unwrap();
        for _ in 0..bytes.div_ceil(1 << 20) {
            db.write::<_, Error>(|tx| {
                Ok(tx
                    .execute("INSERT INTO b VALUES (randomblob(1 << 20))", [])
                    .map(drop)?)
            })
            .unwrap();
        }
    }

    #[test]
    fn only_a_checkpoint_moves_the_log_and_lets_it_begin_anew() {
        let (_directory, db) = open();
        let database = || std::fs::metadata(&db.inner.path).unwrap().len();
        let log = || db.inner.wal.metadata().unwrap().len();
        insert(&db, 1).unwrap();
        let before = database();
        fill(&db, 2 * CHECKPOINT_BYTES);
        assert_eq!(database(), before, "no commit moves the log");
        db.checkpoint().unwrap();
        assert!(database() > 2 * CHECKPOINT_BYTES, "all of it has moved");
        insert(&db, 2).unwrap();
        assert!(log() < CHECKPOINT_BYTES, "{} bytes of log", log());
        assert_eq!(count(&db), 2);
    }

    #[test]
    fn a_log_without_bounds_is_cut_and_a_reader_only_delays_that() {
        let (_directory, db) = open();
        let log = || db.inner.wal.metadata().unwrap().len();
        db.read::<_, Error>(|reader| {
            reader.execute_batch("BEGIN; SELECT * FROM t")?;
            fill(&db, LOG_BYTES_MAX);
            // It may not move what the reader does not see yet.
            lock(&db.inner.writer).busy_timeout(Duration::ZERO)?;
            db.checkpoint()?;
            assert!(log() >= LOG_BYTES_MAX);
            Ok(reader.execute_batch("COMMIT")?)
        })
        .unwrap();
        db.checkpoint().unwrap();
        assert_eq!(log(), 0);
    }

    #[test]
    fn only_a_commit_needs_a_sync() {
        let (_directory, db) = open();
        assert!(!db.is_synced());
        db.sync().unwrap();
        assert!(db.is_synced());
        insert(&db, 1).unwrap();
        assert!(!db.is_synced());
    }

    /// A file system of the test's own.
    struct Disk(tempfile::TempDir);

    impl Disk {
        fn mount() -> Option<Self> {
            if sys::file::effective_uid() != 0 {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root");
                println!("skipped: needs root");
                return None;
            }
            let disk = Self(tempfile::tempdir().unwrap());
            disk.command(
                "/usr/bin/mount",
                &["-t", "tmpfs", "-o", "size=24m", "small"],
            );
            Some(disk)
        }

        fn command(&self, program: &str, arguments: &[&str]) {
            let mut command = sys::command::Command::new(program);
            for argument in arguments {
                command = command.arg(argument);
            }
            let output = command.arg(self.0.path()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }

        fn fill(&self) {
            use std::io::Write as _;
            let mut file = File::create(self.0.path().join("ballast")).unwrap();
            while file.write_all(&[7; 512]).is_ok() {}
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            self.command("/usr/bin/umount", &["--lazy"]);
        }
    }

    #[test]
    fn a_full_disk_has_room_for_what_ends_containers() {
        let Some(disk) = Disk::mount() else { return };
        let path = disk.0.path().join("cooper.db");
        let db = Db::open(&path).unwrap();
        db.write::<_, Error>(|tx| Ok(tx.execute_batch("CREATE TABLE t (n INTEGER UNIQUE)")?))
            .unwrap();
        disk.fill();
        for number in 0..20 {
            insert(&db, number).unwrap();
        }
        drop(db);
        let db = Db::open(&path).unwrap();
        for number in 20..40 {
            insert(&db, number).unwrap();
        }
        assert_eq!(count(&db), 40);
    }
}
