//! Named crash points: `fault!("name")` stands right after every durable step.
//!
//! A test names a point in the environment (`COOPER_FAULT=name`, or `name:n` for the n-th passage) and
//! the process kills itself there with SIGKILL, as a power cut or an out-of-memory kill would. Without
//! the variable a point costs one relaxed load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that arms one point.
pub const VARIABLE: &str = "COOPER_FAULT";

struct Armed {
    point: String,
    passages_left: AtomicU64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

fn armed() -> Option<&'static Armed> {
    ARMED
        .get_or_init(|| {
            let value = std::env::var(VARIABLE).ok()?;
            let (point, passage) = match value.rsplit_once(':') {
                Some((point, number)) => (point.to_owned(), number.parse().ok()?),
                None => (value, 1),
            };
            Some(Armed {
                point,
                passages_left: AtomicU64::new(passage),
            })
        })
        .as_ref()
}

/// Kills this process if `point` is armed and this is the chosen passage. Use [`fault!`](crate::fault!).
pub fn pass(point: &str) {
    let Some(armed) = armed() else { return };
    if armed.point == point && armed.passages_left.fetch_sub(1, Ordering::Relaxed) == 1 {
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
