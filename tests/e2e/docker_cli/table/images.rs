//! Images: pulled, loaded, listed, tagged and removed. Their ids are their contents, so both engines show the same ones.

use std::path::Path;

use testkit::archive;

use super::super::normal::IMAGES;
use super::{Allowed, LAYOUT, Normal, Scene, nothing, row};

/// Ids of containers, in what refuses to remove their image.
const IN_USE: &[Normal] = &[Normal::Ids];

/// From Debian's docker-registry on loopback.
pub(super) const PULL: Scene = Scene {
    name: "pull",
    prepare: nothing,
    rows: &[
        row("docker pull {registry}/several:one").but(IMAGES),
        row("docker pull {registry}/several:one").but(IMAGES),
        row("docker pull -q {registry}/several:one").but(IMAGES),
        row("docker pull {registry}/several@{digest}").but(IMAGES),
        row("docker images --no-trunc --digests {registry}/several").but(IMAGES),
        row("docker pull -a {registry}/several").but(IMAGES),
        row("docker images {registry}/several").but(IMAGES),
        row("docker pull {registry}/several:nosuchtag").but(IMAGES),
        row("docker pull {registry}/nosuchrepository").but(IMAGES),
        row("docker pull {registry}/several@sha256:0123456789012345678901234567890123456789012345678901234567890123").but(IMAGES),
        row("docker pull {registry}/Several").but(IMAGES),
        row("docker pull 127.0.0.1:{port}/several").but(IMAGES),
        row("docker image inspect {registry}/several:one").json().but(IMAGES).allow(&[LAYOUT]),
        row("docker history --no-trunc {registry}/several:one").but(IMAGES),
        row("docker rmi {registry}/several:one").but(IMAGES),
        row("docker run --pull always --rm {registry}/several:two").but(&[Normal::Progress]),
        row("docker run --pull never --rm {registry}/several:three").but(&[]),
        row("docker rmi {registry}/several:two").but(IMAGES),
        row("docker rmi {registry}/several@{digest}").but(IMAGES),
        row("docker images -q {registry}/several").but(IMAGES),
    ],
};

/// An archive under the scene's name, and two that are none.
fn archives(directory: &Path, name: &str) {
    let layer = archive::layer(&archive::busybox());
    let config = archive::config(&["echo", "loaded", name]);
    let image = archive::docker_archive(&format!("{name}:one"), &[layer], &config);
    archive::write(&directory.join("image.tar"), &image);
    archive::write(&directory.join("cut.tar"), &image[..image.len() / 2]);
    archive::write(&directory.join("bare.tar"), &archive::layer(&[]));
    archive::write(&directory.join("noise.tar"), &[b'x'; 5000]);
    archive::write(&directory.join("empty.tar"), b"");
}

/// dockerd names a file of its own that is not there: the first file of archives that nobody writes any more.
const NO_MANIFEST: &[Allowed] = &[
    Allowed {
        place: "stderr: open {root}/tmp/docker-import-",
        because: "section 1, 10: errors say what to do next",
    },
    Allowed {
        place: "stderr: invalid archive: does not contain a manifest.json",
        because: "section 1, 10: errors say what to do next",
    },
];

/// From a file, from the input, and from what is no image.
pub(super) const LOAD: Scene = Scene {
    name: "load",
    prepare: archives,
    rows: &[
        row("docker load -i {dir}/image.tar").but(IMAGES),
        row("docker load < {dir}/image.tar").but(IMAGES),
        row("gzip < {dir}/image.tar | docker load").but(IMAGES),
        row("docker run --rm {name}:one"),
        row("docker load -qi {dir}/image.tar")
            .at_terminal(&[])
            .but(IMAGES),
        row("docker load -i {dir}/cut.tar").but(IMAGES),
        row("docker load -i {dir}/bare.tar")
            .but(IMAGES)
            .allow(NO_MANIFEST),
        row("docker load -i {dir}/noise.tar").but(IMAGES),
        row("docker load -i {dir}/empty.tar")
            .but(IMAGES)
            .allow(NO_MANIFEST),
        row("docker load < {dir}/empty.tar")
            .but(IMAGES)
            .allow(NO_MANIFEST),
        row("docker load -i {dir}/nosuchfile.tar").but(IMAGES),
        row("docker load").at_terminal(&[]).but(IMAGES),
        row("docker images {name}").but(IMAGES),
        row("docker rmi {name}:one").but(IMAGES),
        row("docker rmi {name}:one").but(IMAGES),
    ],
};

/// One image under several names; by its id, in use, by force.
pub(super) const TAGS: Scene = Scene {
    name: "tags",
    prepare: archives,
    rows: &[
        row("docker images {image}").but(IMAGES),
        row("docker images --format '{{.Repository}}:{{.Tag}}' '{image}*'").but(IMAGES),
        row("docker image inspect {image}")
            .json()
            .but(IMAGES)
            .allow(&[LAYOUT]),
        row("docker image inspect -f '{{.Id}}|{{.Config.Cmd}}|{{.Os}}' {image}").but(IMAGES),
        row("docker tag {image} {name}:x").but(IMAGES),
        row("docker images -q {name}").but(IMAGES),
        row("docker tag nope x").but(IMAGES),
        row("docker tag {image} {name}:bad:tag").but(IMAGES),
        row("docker rmi {name}:x").but(IMAGES),
        row("docker rmi {name}:x").but(IMAGES),
        row("docker load -qi {dir}/image.tar").but(IMAGES),
        row("docker tag {name}:one {name}:two").but(IMAGES),
        row("docker rmi $(docker images -q {name}:one)").but(IMAGES),
        row("docker rmi -f $(docker images -q {name}:one)").but(IMAGES),
        row("docker load -qi {dir}/image.tar").but(IMAGES),
        row("docker rmi $(docker images -q {name}:one)").but(IMAGES),
        row("docker load -qi {dir}/image.tar").but(IMAGES),
        row("docker run --name {name}-done {name}:one"),
        row("docker rmi {name}:one").but(IN_USE),
        row("docker rmi $(docker images -q {name}:one)").but(IN_USE),
        row("docker run -d --name {name}-runs {name}:one sleep 600"),
        row("docker rmi {name}:one").but(IN_USE),
        row("docker rmi -f $(docker images -q {name}:one)").but(IN_USE),
        row("docker rmi -f {name}:one").but(IN_USE),
        row("docker ps -a --filter name={name} --format '{{.Names}} {{.Image}}'"),
        row("docker rm -f {name}-runs {name}-done"),
        row("docker rmi nope nope2").but(IMAGES),
        row("docker rmi -f nope").but(IMAGES),
        row("docker load -qi {dir}/image.tar; docker rmi {name}:one").but(IMAGES),
    ],
};
