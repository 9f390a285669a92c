//! Named crash points: `fault!("name")` stands right after every durable step.
//!
//! A test names a point in the environment (`COOPER_FAULT=name`, or `name:n` for the n-th passage) and
//! the process kills itself there with SIGKILL, as a power cut or an out-of-memory kill would; with
//! `name:panic` the thread panics there, as a defect would. Without the variable a point costs one relaxed load.
//!
//! A shim gets no environment from its daemon. To kill one, the daemon's environment names the point in
//! `COOPER_SHIM_FAULT`, and the daemon arms the first shim it starts with [`take_for_shim`]: those after it
//! live, so that a test sees what the daemon makes of the death.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The environment variable that arms one point.
pub const VARIABLE: &str = "COOPER_FAULT";

/// The environment variable of a daemon that arms one point of its first shim.
pub const SHIM_VARIABLE: &str = "COOPER_SHIM_FAULT";

struct Armed {
    point: String,
    passages_left: AtomicU64,
    panics: bool,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

fn armed() -> Option<&'static Armed> {
    ARMED
        .get_or_init(|| {
            let value = std::env::var(VARIABLE).ok()?;
            let (point, passage, panics) = match value.rsplit_once(':') {
                Some((point, "panic")) => (point.to_owned(), 1, true),
                Some((point, number)) => (point.to_owned(), number.parse().ok()?, false),
                None => (value, 1, false),
            };
            Some(Armed {
                point,
                passages_left: AtomicU64::new(passage),
                panics,
            })
        })
        .as_ref()
}

/// What the next shim is to have in [`VARIABLE`]: the value of [`SHIM_VARIABLE`] at the first call, then nothing.
#[must_use]
pub fn take_for_shim() -> Option<String> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let point = std::env::var(SHIM_VARIABLE).ok()?;
    (!TAKEN.swap(true, Ordering::Relaxed)).then_some(point)
}

/// Kills this process if `point` is armed and this is the chosen passage. Use [`fault!`](crate::fault!).
///
/// # Panics
/// Where it is armed so.
pub fn pass(point: &str) {
    let Some(armed) = armed() else { return };
    if armed.point == point && armed.passages_left.fetch_sub(1, Ordering::Relaxed) == 1 {
        assert!(!armed.panics, "armed to panic: {point}");
        crate::command::kill_self();
    }
}

/// Marks a durable step: a test can have the process killed exactly here.
#[macro_export]
macro_rules! fault {
    ($point:literal) => {
        $crate::fault::pass($point)
    };
}
