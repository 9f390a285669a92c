//! The table: what is typed, and what may differ. Expected values are dockerd's, played beside.

mod images;
mod life;
mod options;
mod reach;

use super::normal::Normal;
use super::{Allowed, Scene, row};

/// Every scene. The long ones stand first: the last to end decides how long all take.
pub(super) const TABLE: &[Scene] = &[
    life::VERBS,
    options::FIRST,
    options::SECOND,
    images::PULL,
    images::LOAD,
    images::TAGS,
    reach::PORTS,
    reach::VOLUMES,
    life::STREAMS,
    life::TERMINALS,
    life::INSPECT,
    options::RUN,
    options::EXEC,
    DAEMON,
];

/// Needs no files.
fn nothing(_: &std::path::Path, _: &str) {}

/// Where an image's and a container's files lie.
const LAYOUT: Allowed = Allowed {
    place: "/0/GraphDriver/Data",
    because: "section 3: our own layout on disk",
};

const fn own(place: &'static str, because: &'static str) -> Allowed {
    Allowed { place, because }
}

const NAMED: &str = "section 1, 3: one file, and version says which";
const LEGACY: &str = "decision 18: from 1.12";
const ONE_BINARY: &str = "decision 2: our own runtime, shim and init";

/// What is told of versions, and of what else stands beside dockerd.
const VERSIONS: &[Allowed] = &[
    own("stdout: Server:", NAMED),
    own("stdout: Version:", NAMED),
    own("stdout: API version: 1.51 (minimum version 1.", LEGACY),
    own("stdout: Go version:", NAMED),
    own("stdout: Git commit:", NAMED),
    own("stdout: Built:", NAMED),
    own("stdout: containerd:", ONE_BINARY),
    own("stdout: runc:", ONE_BINARY),
    own("stdout: docker-init:", ONE_BINARY),
    own("stdout: cooper:", ONE_BINARY),
    own("stdout: GitCommit:", ONE_BINARY),
];

/// What Cooper is.
const ABOUT: &[Allowed] = &[
    own(
        "stdout: Server Version: 28.5.2",
        "the reference is Debian's package of 28.5.2",
    ),
    own(
        "stdout: Operating System:",
        "the reference lives in a Debian of its own",
    ),
    own(
        "stdout: Network:",
        "section 6: no Swarm, and no networks of other kinds yet",
    ),
    own(
        "stdout: Log:",
        "decision 11: remote drivers are tailers, which come later",
    ),
    own(
        "stdout: CDI spec directories:",
        "section 6: no devices of CDI",
    ),
    own("stdout: /etc/cdi", "section 6: no devices of CDI"),
    own("stdout: /var/run/cdi", "section 6: no devices of CDI"),
    own("stdout: Runtimes:", ONE_BINARY),
    own("stdout: Init Binary:", ONE_BINARY),
    own("stdout: runc version:", ONE_BINARY),
    own(
        "stdout: Live Restore Enabled:",
        "section 1, 1: containers survive the daemon, always",
    ),
];

/// What nearly every line needs, and counts of all that an engine holds.
const HELD: &[Normal] = &[
    Normal::Times,
    Normal::Ids,
    Normal::Spans,
    Normal::Columns,
    Normal::Addresses,
    Normal::Held,
];

/// What the daemon tells of itself.
const DAEMON: Scene = Scene {
    name: "daemon",
    prepare: nothing,
    rows: &[
        row("docker version").allow(VERSIONS),
        row("docker version --format '{{.Server.APIVersion}}|{{.Server.Os}}|{{.Server.Arch}}'"),
        row("docker info").but(HELD).allow(ABOUT),
        row(
            "docker info --format '{{.OSType}}|{{.CgroupVersion}}|{{.LoggingDriver}}|{{.NCPU}}|{{.MemTotal}}'",
        ),
        row("docker network inspect nope"),
        row("docker volume inspect nope"),
        row("docker ps --filter nope=1"),
        row("docker images --filter nope=1"),
    ],
};
