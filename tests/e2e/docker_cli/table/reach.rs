//! Published ports, and what is mounted from the host and from volumes.

use std::path::Path;

use super::{Allowed, Normal, Scene, nothing, row};

/// The same words, and who has the port.
const TAKEN: &[Allowed] = &[Allowed {
    place: "stderr: docker: Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint {name}-second (<id>): Bind for 0.0.0.0:{port} failed: port is already allocated",
    because: "decision 7: the error names the holder",
}];

/// The same words without the container's address.
const NO_ADDRESS: &[Allowed] = &[Allowed {
    place: "stderr: docker: Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint {name} (<id>): failed to bind host port for 1.2.3.4:80",
    because: "decision 7: a port is reserved before the container has an address",
}];

/// The same words without the flags and the descriptor of runc's own mount.
const NOT_A_DIRECTORY: &[Allowed] = &[Allowed {
    place: "stderr: docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: error mounting \"{dir}/data\" to rootfs at \"/bin/echo\": ",
    because: "decision 2: our own runtime",
}];

/// Answered from the host, shown, and refused when taken.
pub(super) const PORTS: Scene = Scene {
    name: "ports",
    prepare: nothing,
    rows: &[
        row(
            "docker run -d -p {port}:80 -p 127.0.0.1:{port2}:81/udp --name {name} {image} sh -c 'mkdir /www; echo hello > /www/index.html; httpd -p 80 -h /www; exec sleep 600'",
        ),
        row(
            "for i in 1 2 3 4 5 6 7 8 9; do curl -sf --max-time 5 http://127.0.0.1:{port}/ && break; sleep 0.2; done",
        ),
        row("curl -sf --max-time 5 http://localhost:{port}/"),
        row("docker port {name}"),
        row("docker port {name} 80"),
        row("docker port {name} 80/udp"),
        row("docker port {name} 82"),
        row("docker ps --filter name={name}"),
        row("docker ps --filter publish={port} --format '{{.Names}} {{.Ports}}'"),
        row(
            "docker inspect -f '{{json .NetworkSettings.Ports}} {{json .HostConfig.PortBindings}} {{json .Config.ExposedPorts}}' {name}",
        ),
        row("docker run --name {name}-second -p {port}:80 {image} true").allow(TAKEN),
        row("docker ps -a --filter name={name}-second --format '{{.Status}}'"),
        row("docker rm {name}-second"),
        row(
            "docker stop -t 0 {name}; docker port {name}; curl -s --max-time 5 http://127.0.0.1:{port}/",
        ),
        row("docker ps -a --filter name={name} --format '{{.Names}}|{{.Ports}}'"),
        row("docker rm {name}"),
        row("docker run -d -p 80 -P --expose 90-91 --name {name} {image} sleep 600"),
        row("docker port {name}").but(&[Normal::Ports]),
        row("docker ps --filter name={name} --format '{{.Ports}}'").but(&[Normal::Ports]),
        row("docker rm -f {name}"),
        row("docker run --rm -p 70000:80 {image} true"),
        row("docker run --rm --name {name} -p 1.2.3.4:80:80 {image} true").allow(NO_ADDRESS),
        row("docker run --rm -p {port}-{port}:80/nope {image} true"),
        row("docker run --rm --network none -p {port}:80 {image} echo none"),
        row(
            "docker run --rm --network host {image} sh -c 'test -d /sys/class/net/lo && echo host'",
        ),
    ],
};

fn files(directory: &Path, _: &str) {
    std::fs::create_dir(directory.join("data")).expect("a directory");
    std::fs::write(directory.join("data/file"), "content\n").expect("a file");
}

/// Binds, named and anonymous volumes.
pub(super) const VOLUMES: Scene = Scene {
    name: "volumes",
    prepare: files,
    rows: &[
        row(
            "docker run --rm -v {dir}/data:/data {image} sh -c 'cat /data/file; echo more >> /data/file'; cat {dir}/data/file",
        ),
        row(
            "docker run --rm -v {dir}/data:/data:ro {image} sh -c 'cat /data/file; echo again >> /data/file'",
        ),
        row("docker run --rm -v {dir}/data/file:/file {image} cat /file"),
        row(
            "docker run --rm -v {dir}/made:/made {image} sh -c 'ls -ld /made | cut -c1-10'; ls -d {dir}/made",
        ),
        row("docker run --rm --mount type=bind,src={dir}/missing,dst=/x {image} true"),
        row("docker run --rm -v {dir}/data:/data:nope {image} true"),
        row("docker run --rm -v {dir}/data:relative {image} true"),
        row("docker run --rm -v bad/name:/data {image} true"),
        row("docker run --rm -v {dir}/data:/bin/echo {image} true").allow(NOT_A_DIRECTORY),
        row("docker create --name {name} -v {dir}/data:/data:ro,rslave {image} true"),
        row("docker inspect -f '{{json .Mounts}} {{json .HostConfig.Binds}}' {name}"),
        row("docker rm {name}"),
        row("docker run --rm -v {name}:/data {image} sh -c 'echo kept > /data/file'"),
        row("docker run --rm -v {name}:/data:ro {image} sh -c 'cat /data/file; touch /data/x'"),
        row("docker run --rm -v {name}-etc:/etc {image} cat /etc/passwd"),
        row("docker volume ls --filter name={name}"),
        row(
            "docker volume inspect -f '{{.Name}} {{.Driver}} {{.Scope}} {{.Options}} {{.Labels}}' {name}",
        ),
        row("docker run --name {name}-a -v /anonymous {image} sh -c 'mount | grep -c anonymous'"),
        row(
            "docker inspect -f '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.Driver}} {{.Mode}} {{.RW}} {{.Propagation}}{{end}}' {name}-a",
        ),
        row("docker run --rm --volumes-from {name}-a {image} sh -c 'mount | grep -c anonymous'"),
        row("docker create --name {name}-b -v {name}:/data {image} true; docker volume rm {name}"),
        row("docker rm -v {name}-a {name}-b"),
        row("docker volume rm {name} {name}-etc"),
        row("docker volume rm {name}"),
    ],
};
