//! The reference engine: dockerd 28.5.2 from `../shared/peers`, where that directory is there.

use std::fs::File;
use std::path::PathBuf;

use crate::archive;
use crate::client::Client;

/// `../shared/<path>`, or nothing, with a line that says so: on a user's machine it does not exist.
pub fn shared(path: &str) -> Option<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let found = workspace.join("../shared").join(path);
    if found.exists() {
        return Some(found);
    }
    println!("skipped: ../shared/{path} is not on this machine");
    None
}

/// A client of a running dockerd 28.5.2 with busybox:latest in it, started at the first call on a machine.
pub fn dockerd() -> Option<Client> {
    let script = shared("peers/dockerd")?;
    // Tests run beside each other; the script may install and start things only once.
    let lock = File::create(std::env::temp_dir().join("cooper-peer.lock")).expect("a lock file");
    lock.lock().expect("the lock of the reference engine");
    let output = sys::command::Command::new(&script)
        .arg("up")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let socket = printed
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("unix://"));
    let socket = socket.unwrap_or_else(|| {
        panic!(
            "the reference engine does not start:\n{printed}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    let client = Client::new(socket);
    share_image(&client);
    Some(client)
}

/// Gives the reference engine our own busybox, so that both engines run and show one image. Under the lock.
fn share_image(client: &Client) {
    let (archive, id) = archive::shared_archive();
    let known = client.get(&format!("/images/{}/json", archive::SHARED_IMAGE));
    if known.status == 200 && known.json()["Id"] == *id {
        return;
    }
    let headers = [("content-type", "application/x-tar")];
    client
        .request("POST", "/images/load?quiet=1", &headers, archive)
        .expect(200);
}
