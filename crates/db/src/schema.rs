//! The schema of `cooper.db` and its migrations.
//!
//! ```text
//! cooper.db
//! ├── containers        a container's name and definition (JSON), by id; rowid ── the order of creation
//! │   └── container_states   phase (creating, ready, running, removing) and facts (JSON) of each
//! ├── event             the journal of events: time and body (JSON), by cursor
//! ├── event_journal     one row: bytes kept, events forgotten, time of the last one forgotten
//! ├── layers            layers/<number>, unpacked; a row exists only when the directory is whole
//! │                     parent ── the layer below; synced 0 ── a power cut may have damaged it,
//! │                     2 ── one did, and nothing mounts it
//! ├── images            an image, by the digest of its configuration; parent ── the image it was built from
//! │   ├── image_layers  its layers, bottom first, and the blob each came from
//! │   └── image_names   name:tag and name@digest, canonical; each points to one image
//! ├── image_holders     who (a container) needs an image's layers though the image may be gone
//! ├── network_bridge     one per bridge: subnet, own address, last address given out, since which boot
//! │   └── network_endpoint   one per attached container: address, interface, published ports
//! ├── volume             a volume's definition (JSON) and phase (creating, ready, removing), by name
//! │   └── volume_user    which container mounts it and where; anonymous ── it may go with the container
//! ├── network           a network's id and driver, by name: what clients know it by, whatever becomes of its bridge
//! └── (each owner draws its tables here)
//! ```
//!
//! A migration is appended, never edited: `PRAGMA user_version` is the number of those applied. A file
//! with a higher number was written by a newer Cooper and is refused untouched.

/// SQL of each migration, oldest first; entry *n* brings `user_version` from *n* to *n + 1*.
pub(crate) const MIGRATIONS: &[&str] = &[IMAGES, CONTAINERS, EVENTS, NETWORK, VOLUMES, NETWORKS];

/// The state is apart from the definition, since it changes often and the definition is long.
const CONTAINERS: &str = "
CREATE TABLE containers (
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL
) STRICT;
CREATE TABLE container_states (
    id TEXT PRIMARY KEY REFERENCES containers (id),
    phase TEXT NOT NULL,
    facts TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Without AUTOINCREMENT the cursor still only grows: the oldest go first, never all of them.
const EVENTS: &str = "
CREATE TABLE event (
    cursor INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX event_by_time ON event (time_ns);
CREATE TABLE event_journal (
    one INTEGER PRIMARY KEY CHECK (one = 0),
    bytes INTEGER NOT NULL,
    forgotten INTEGER NOT NULL,
    forgotten_until_ns INTEGER NOT NULL
) STRICT;
INSERT INTO event_journal VALUES (0, 0, 0, 0);
";

const IMAGES: &str = "
CREATE TABLE layers (
    number INTEGER PRIMARY KEY,
    chain_id TEXT NOT NULL UNIQUE,
    diff_id TEXT NOT NULL,
    parent INTEGER REFERENCES layers (number),
    size_bytes INTEGER NOT NULL,
    synced INTEGER NOT NULL DEFAULT 0,
    boot_id TEXT NOT NULL
) STRICT;
CREATE INDEX layers_parent ON layers (parent);
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    manifest TEXT,
    parent TEXT,
    created_ns INTEGER NOT NULL,
    last_tagged_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX images_parent ON images (parent);
CREATE TABLE image_layers (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer INTEGER NOT NULL REFERENCES layers (number),
    blob TEXT,
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_layer ON image_layers (layer);
CREATE INDEX image_layers_blob ON image_layers (blob);
CREATE TABLE image_names (
    reference TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX image_names_image ON image_names (image);
CREATE TABLE image_holders (
    holder TEXT PRIMARY KEY,
    image TEXT NOT NULL,
    top INTEGER REFERENCES layers (number)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_holders_image ON image_holders (image);
CREATE INDEX image_holders_top ON image_holders (top);
";

/// Owned by the crate `network`. Addresses are the 32-bit number, so that they sort; `ports` is JSON.
const NETWORK: &str = "
CREATE TABLE network_bridge (
    name TEXT PRIMARY KEY,
    gateway INTEGER NOT NULL,
    prefix INTEGER NOT NULL,
    last INTEGER NOT NULL,
    boot TEXT NOT NULL,
    forwarding INTEGER NOT NULL
) STRICT;
CREATE TABLE network_endpoint (
    container TEXT NOT NULL,
    bridge TEXT NOT NULL REFERENCES network_bridge (name),
    id TEXT NOT NULL,
    ipv4 INTEGER NOT NULL,
    mac TEXT NOT NULL,
    host_interface TEXT NOT NULL,
    ports TEXT NOT NULL,
    PRIMARY KEY (container, bridge),
    UNIQUE (bridge, ipv4)
) STRICT;
";

/// Owned by the engine. A container may mount one volume at several destinations.
const VOLUMES: &str = "
CREATE TABLE volume (
    name TEXT PRIMARY KEY,
    created_ns INTEGER NOT NULL,
    definition TEXT NOT NULL,
    phase TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE volume_user (
    volume TEXT NOT NULL REFERENCES volume (name),
    container TEXT NOT NULL,
    destination TEXT NOT NULL,
    anonymous INTEGER NOT NULL,
    PRIMARY KEY (container, destination)
) STRICT, WITHOUT ROWID;
CREATE INDEX volume_user_volume ON volume_user (volume);
";

/// Owned by the engine.
const NETWORKS: &str = "
CREATE TABLE network (
    name TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    driver TEXT NOT NULL,
    created_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";
