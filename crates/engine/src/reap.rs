//! The shims that this daemon started, seen to their end: none of them may stay behind as a zombie.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::peer;

/// How long a shim may take to end after it was let go, before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a killed shim may take to be gone: only one that hangs in the kernel takes longer.
const DEATH_TIMEOUT: Duration = Duration::from_secs(2);

/// The process of a shim. Whoever drops it may forget it: it is reaped when it ends.
#[derive(Debug)]
pub(crate) struct Process(Option<Child>);

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        Self(Some(child))
    }

    /// Sees it to its end. If it does not end, it is killed.
    pub(crate) async fn end(mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        // Awaited at once; who gives up leaves a wait behind that has a limit.
        let ended = tokio::task::spawn_blocking(move || {
            let give_up = Instant::now() + END_TIMEOUT;
            let pidfd = peer::pidfd(child.id())?;
            if !peer::ends_by(&pidfd, give_up)? {
                child.kill()?;
            }
            child.wait()
        })
        .await;
        match ended {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "wait for a shim"),
            Err(error) => tracing::warn!(%error, "wait for a shim"),
        }
    }
}

impl Process {
    /// The process itself, which is not reaped yet.
    pub(crate) fn pidfd(&self) -> std::io::Result<OwnedFd> {
        match &self.0 {
            Some(child) => peer::pidfd(child.id()),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    /// Ends it now. One that hangs in the kernel is reaped when that lets it go.
    pub(crate) async fn kill(mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        // Awaited at once; who gives up leaves a wait behind that has a limit.
        let ended = tokio::task::spawn_blocking(move || {
            let give_up = Instant::now() + DEATH_TIMEOUT;
            let pidfd = peer::pidfd(child.id())?;
            child.kill()?;
            if peer::ends_by(&pidfd, give_up)? {
                child.wait()?;
                return Ok(None);
            }
            Ok::<_, std::io::Error>(Some(child))
        })
        .await;
        match ended {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(child))) => {
                tracing::warn!(pid = child.id(), "a killed shim does not end");
                drop(Self(Some(child)));
            }
            Ok(Err(error)) => tracing::warn!(%error, "kill a shim"),
            Err(error) => tracing::warn!(%error, "kill a shim"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without a runtime the daemon is ending, and its children are not its own any more.
        if let Some(child) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(reap(child));
        }
    }
}

async fn reap(mut child: Child) {
    let ended = async {
        let mut ends = signal(SignalKind::child())?;
        while child.try_wait()?.is_none() {
            ends.recv().await;
        }
        Ok::<(), std::io::Error>(())
    };
    if let Err(error) = ended.await {
        tracing::warn!(%error, "wait for a shim");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_forgotten_shim_is_no_zombie() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let child = sys::command::Command::new("/bin/cat")
            .stdin(theirs.into())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}", child.id());
        drop(Process::new(child));
        assert!(std::path::Path::new(&status).exists(), "it is not killed");
        drop(ours);
        let gone = async {
            while std::path::Path::new(&status).exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(END_TIMEOUT, gone)
            .await
            .expect("it is reaped");
    }
}
