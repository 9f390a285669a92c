//! Debian's docker-registry on loopback, for as long as somebody needs it.

use std::net::TcpListener;
use std::path::Path;
use std::process::Child;

use anyhow::{Context, Result};

use crate::sh;

/// A running docker-registry; ended when dropped.
pub(crate) struct Registry {
    server: Child,
    port: u16,
}

impl Registry {
    /// Starts it on 127.0.0.1:`port`, with its blobs below `root`, and waits until it answers.
    pub(crate) fn start(port: u16, root: &Path) -> Result<Self> {
        let config = root.with_extension("yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
                root.display()
            ),
        )?;
        // A session of its own: the kernel shares a busy machine out by sessions, and the registry must not take from
        // the share of the engine that the same bench has started. It still goes when we do.
        let mut server = sh::command("setpriv");
        let server = server
            .args(["--pdeathsig", "TERM", "setsid", "docker-registry", "serve"])
            .arg(&config)
            .spawn()
            .context("start docker-registry")?;
        // From here on an early return ends it.
        let registry = Self { server, port };
        let url = format!("http://{}/v2/", registry.address());
        sh::run(sh::command("curl").args([
            "-sf",
            "--retry",
            "20",
            "--retry-delay",
            "1",
            "--retry-connrefused",
            &url,
        ]))?;
        Ok(registry)
    }

    /// As [`Registry::start`], on a port that is free now.
    pub(crate) fn start_anywhere(root: &Path) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        Self::start(port, root)
    }

    /// Host and port, as they stand in an image's name.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes the image at `source` (in skopeo's words) as `reference`, with its blobs as they are.
    pub(crate) fn push(&self, source: &str, reference: &str) -> Result<()> {
        let target = format!("docker://{}/{reference}", self.address());
        let mut copy = sh::command("skopeo");
        copy.args(["copy", "--quiet", "--insecure-policy"]);
        sh::run(copy.args(["--dest-tls-verify=false", source, &target]))
    }

    /// Waits until somebody else ends it.
    pub(crate) fn wait(mut self) -> Result<()> {
        self.server.wait()?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end and nothing to report.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
