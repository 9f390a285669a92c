//! Throttled disks: the files, and the time a write takes. They need root.

use super::*;

/// 2 MiB at 1 MiB/s, when the first slice of the throttle is free.
const SLOWED_AT_LEAST: Duration = Duration::from_millis(900);

/// Number of a disk, and whether temporary files lie on it.
fn disk() -> (u64, u64, bool) {
    use std::os::linux::fs::MetadataExt;
    let temporary = std::fs::metadata(std::env::temp_dir()).unwrap().st_dev();
    let (major, minor) = (
        temporary >> 8 & 0xfff,
        temporary & 0xff | temporary >> 12 & 0xf_ff00,
    );
    let numbers = |text: String| {
        let (major, minor) = text.trim().split_once(':').unwrap();
        (major.parse::<u64>().unwrap(), minor.parse::<u64>().unwrap())
    };
    let mut disks: Vec<(u64, u64)> = std::fs::read_dir("/sys/block")
        .unwrap()
        .map(|entry| numbers(std::fs::read_to_string(entry.unwrap().path().join("dev")).unwrap()))
        .collect();
    disks.sort_unstable();
    if disks.contains(&(major, minor)) {
        return (major, minor, true);
    }
    let (major, minor) = disks
        .into_iter()
        .find(|(major, _)| *major != 1 && *major != 7)
        .unwrap();
    (major, minor, false)
}

/// Writes 2 MiB at 1 MiB/s.
fn is_slowed_down(group: &Group, (major, minor): (u64, u64)) {
    let mut child = helper("write");
    group.get().join(child.id()).unwrap();
    let started = Instant::now();
    assert!(wait(&mut child).0.success());
    assert!(
        started.elapsed() > SLOWED_AT_LEAST,
        "2 MiB in {:?} at 1 MiB/s",
        started.elapsed()
    );
    let blkio = group.get().stats().unwrap().blkio;
    let op = if version() == Version::V1 {
        "Write"
    } else {
        "write"
    };
    let is_written =
        |entry: &BlkioEntry| (entry.major, entry.minor) == (major, minor) && entry.op == op;
    let written = blkio
        .service_bytes
        .iter()
        .find(|entry| is_written(entry))
        .unwrap();
    assert!(written.value >= 2 << 20, "{blkio:?}");
    assert!(
        blkio
            .serviced
            .iter()
            .any(|entry| is_written(entry) && entry.value > 0),
        "{blkio:?}"
    );
}

#[test]
fn block_devices_are_throttled_and_counted() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("blkio");
    let (major, minor, is_ours) = disk();
    let rate = |rate: u64| serde_json::json!([{ "major": major, "minor": minor, "rate": rate }]);
    let limits = |bytes: u64| {
        serde_json::json!({ "blockIO": {
            "throttleReadBpsDevice": rate(4 << 20), "throttleWriteBpsDevice": rate(bytes),
            "throttleReadIOPSDevice": rate(1000), "throttleWriteIOPSDevice": rate(2000),
        } })
    };
    group.get().apply(&resources(limits(1 << 20))).unwrap();
    match version() {
        Version::V1 => {
            for (file, value) in [
                ("read_bps", 4 << 20),
                ("write_bps", 1 << 20),
                ("read_iops", 1000),
                ("write_iops", 2000),
            ] {
                let text = group.file("blkio", &format!("blkio.throttle.{file}_device"));
                assert_eq!(text, format!("{major}:{minor} {value}"), "{file}");
            }
        }
        Version::V2 => assert_eq!(
            group.file("io", "io.max"),
            format!("{major}:{minor} rbps=4194304 wbps=1048576 riops=1000 wiops=2000")
        ),
    }
    if is_ours {
        is_slowed_down(&group, (major, minor));
    } else {
        println!("temporary files lie on no disk of their own: the rate is not measured");
    }
    group.get().apply(&resources(limits(0))).unwrap();
    let lifted = match version() {
        Version::V1 => group
            .file("blkio", "blkio.throttle.write_bps_device")
            .is_empty(),
        Version::V2 => group.file("io", "io.max").contains("wbps=max"),
    };
    assert!(lifted);
}
