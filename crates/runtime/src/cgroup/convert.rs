//! Arithmetic between the limits of the OCI spec, which are those of v1, and the files of v2. Pure.

use super::Error;

/// Range of v1 `cpu.shares` (kernel/sched: `MIN_SHARES`, `MAX_SHARES`).
pub(super) const SHARES_MIN: u64 = 2;
/// See [`SHARES_MIN`].
pub(super) const SHARES_MAX: u64 = 262_144;

/// `cpu.cfs_period_us` of a new group, in microseconds.
pub(super) const PERIOD_DEFAULT_US: u64 = 100_000;

/// Range of v2 `cpu.weight` and `io.weight` (Documentation/admin-guide/cgroup-v2.rst).
const WEIGHT_MAX: u64 = 10_000;

/// v1 shares (2…262144, default 1024) as v2 weight (1…10000, default 100); 0 means unset and stays 0.
///
/// The curve of runc since 1.3.2: a quadratic in log2 that maps both ends and the default onto each other.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares are at most 2^18 here, and the result lies between 1 and 10000"
)]
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=SHARES_MIN => 1,
        SHARES_MAX.. => WEIGHT_MAX,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// v1 blkio weight (10…1000) as v2 `io.weight` (1…10000), linear; 0 means unset and stays 0.
pub(super) fn io_weight_of_blkio(weight: u16) -> u64 {
    match u64::from(weight) {
        0 => 0,
        weight => (1 + weight.saturating_sub(10) * 9999 / 990).min(WEIGHT_MAX),
    }
}

/// Memory plus swap (v1) as swap alone (v2): `None` leaves `memory.swap.max` as it is, -1 is no limit.
///
/// `memory` and `both` are 0 when not given.
pub(super) fn swap_of_memsw(both: i64, memory: i64) -> Result<Option<i64>, Error> {
    let invalid = |value: String| {
        Err(Error::Invalid {
            what: "memory swap limit",
            value,
        })
    };
    match (both, memory) {
        (0, -1) | (-1, _) => Ok(Some(-1)),
        (0, _) => Ok(None),
        (_, 0) => invalid(format!("{both} without a memory limit")),
        (both, memory) if both < 0 || memory < 0 => {
            invalid(format!("{both} with a memory limit of {memory}"))
        }
        (both, memory) if both < memory => {
            invalid(format!("{both} is below the memory limit {memory}"))
        }
        (both, memory) => Ok(Some(both - memory)),
    }
}

/// A limit as v2 writes it: `max` for none.
pub(super) fn or_max(limit: i64) -> String {
    if limit < 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_ends_and_default() {
        // Both ends and the default are fixed points; between them 10^((l² + 125 l)/612 - 7/34) rounded up, l = log2.
        for (shares, weight) in [
            (0, 0),
            (1, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (300_000, 10_000),
            (512, 59),
            (2048, 174),
            (4096, 303),
        ] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        let weights: Vec<u64> = (2..=SHARES_MAX).step_by(37).map(weight_of_shares).collect();
        assert!(weights.is_sorted());
    }

    #[test]
    fn blkio_weight_maps_ends() {
        for (blkio, io) in [
            (0, 0),
            (10, 1),
            (100, 910),
            (500, 4950),
            (1000, 10_000),
            (u16::MAX, 10_000),
        ] {
            assert_eq!(io_weight_of_blkio(blkio), io, "{blkio}");
        }
    }

    #[test]
    fn swap_is_what_is_left() {
        for ((both, memory), swap) in [
            ((0, 0), None),
            ((0, 100), None),
            ((0, -1), Some(-1)),
            ((-1, 100), Some(-1)),
            ((-1, 0), Some(-1)),
            ((300, 100), Some(200)),
            ((100, 100), Some(0)),
        ] {
            assert_eq!(
                swap_of_memsw(both, memory).unwrap(),
                swap,
                "{both} {memory}"
            );
        }
        for (both, memory) in [(100, 0), (100, -1), (50, 100), (-2, 100)] {
            assert!(
                matches!(swap_of_memsw(both, memory), Err(Error::Invalid { .. })),
                "{both} {memory}"
            );
        }
    }

    #[test]
    fn no_limit_is_max() {
        assert_eq!(
            (or_max(-1), or_max(0), or_max(7)),
            ("max".to_owned(), "0".to_owned(), "7".to_owned())
        );
    }
}
