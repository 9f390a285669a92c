//! What the engine does when it has nothing to do: it gives back the memory that its work has filled.
//!
//! Whether there is something to do is told by the processor time that the process takes, which counts everything:
//! clients that only read, streams, a pull.

use std::sync::Arc;
use std::time::Duration;

use crate::open::Inner;

/// How often is looked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Less processor time between two looks than this is nothing to do. The looks themselves take a thirtieth of it.
const QUIET: Duration = Duration::from_millis(5);

/// Looks in a row that found nothing to do before memory is given back: work that comes in waves finds it where it was.
const QUIET_LOOKS: u32 = 3;

/// Processor time since the last rest that makes another one worth its own, which is a millisecond or two.
const WORTH: Duration = Duration::from_millis(50);

/// Finds the moments to rest.
#[derive(Default)]
struct Watch {
    /// Processor time at the last look.
    seen: Duration,
    /// Processor time at the last rest.
    rested: Duration,
    quiet_looks: u32,
}

impl Watch {
    /// Looks at the processor time taken so far; whether it is time to rest.
    fn look(&mut self, spent: Duration) -> bool {
        let is_quiet = spent.saturating_sub(self.seen) < QUIET;
        self.seen = spent;
        self.quiet_looks = if is_quiet { self.quiet_looks + 1 } else { 0 };
        let rests = self.quiet_looks >= QUIET_LOOKS && spent.saturating_sub(self.rested) >= WORTH;
        if rests {
            self.rested = spent;
        }
        rests
    }
}

/// Rests after each stretch of work, for as long as the engine is open.
pub(crate) async fn rest(inner: Arc<Inner>) {
    let mut watch = Watch::default();
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if !watch.look(sys::clock::process_time()) {
            continue;
        }
        let db = inner.db.clone();
        let released = inner.blocking(move || {
            db.release_memory()?;
            sys::memory::trim();
            sys::memory::release_code();
            Ok(())
        });
        if let Err(error) = released.await {
            tracing::debug!(error = %error.message, "memory was not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks after these milliseconds of processor time each; the numbers of the looks that rested.
    fn rests(spent_ms: &[u64]) -> Vec<usize> {
        let (mut watch, mut total) = (Watch::default(), Duration::ZERO);
        let mut looks = Vec::new();
        for (number, spent) in spent_ms.iter().enumerate() {
            total += Duration::from_millis(*spent);
            if watch.look(total) {
                looks.push(number);
            }
        }
        looks
    }

    #[test]
    fn it_rests_once_after_each_stretch_of_work() {
        let long = [
            vec![60, 900, 900, 4, 4, 4, 0, 0, 0, 60, 1, 1, 1],
            vec![0; 50],
        ]
        .concat();
        assert_eq!(rests(&long), [5, 12]);
    }

    #[test]
    fn work_in_waves_and_work_without_end_are_left_alone() {
        assert!(rests(&[100, 0, 0, 100, 0, 0, 100, 0, 0]).is_empty());
        assert!(rests(&[6; 1_000]).is_empty());
    }

    #[test]
    fn little_work_adds_up_and_none_is_not_worth_a_rest() {
        assert_eq!(rests(&[2; 50]), [24, 49]);
        assert!(rests(&[0; 1_000]).is_empty());
    }
}
