//! The stub: a child that waits inside cgroups, and from which a container's init is born inside them.
//!
//! On cgroup v1 moving a process costs 5–16 ms; a stub has paid that before anyone asked. At create it gets the
//! plan and the descriptors, calls clone3 with `CLONE_PARENT`, so that the caller is the parent of init, and ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use sys::bpf::SockFilter;
use sys::process::{self, CloneRequest, CloseHow};

use crate::launch::{self, Guard, Way, host};
use crate::plan::Plan;
use crate::{Error, cgroup};

/// Where the stub keeps its socket.
const SOCKET: i32 = 3;

/// A waiting stub. Dropping it ends and reaps the process.
#[derive(Debug)]
pub struct Stub {
    pid: u32,
    guard: Guard,
    socket: OwnedFd,
}

/// What a stub is told, as a file in memory.
#[derive(Serialize, Deserialize)]
struct Order {
    plan: Plan,
    /// Instructions as code, jt, jf, k.
    program: Vec<(u16, u8, u8, u32)>,
    flags: u32,
}

/// Forks a stub and moves it into `cgroup`. The caller is single-threaded.
///
/// # Errors
/// [`Error::Host`] when it cannot be made, [`Error::Cgroup`] when it cannot be moved.
pub fn spawn(cgroup: &cgroup::Cgroup) -> Result<Stub, Error> {
    let (ours, theirs) =
        sys::socket::message_pair().map_err(host("make the channel of the stub"))?;
    let way = Way::open(cgroup)?;
    let request = CloneRequest {
        cgroup: way.clone_into(),
        ..CloneRequest::default()
    };
    let child = process::clone(request, || match way.enter() {
        Ok(()) => main(theirs),
        Err(_) => 1, // the order that finds it gone is refused
    })
    .map_err(host("clone3"))?;
    Ok(Stub {
        pid: child.pid,
        guard: Guard(Some(child.pidfd)),
        socket: ours,
    })
}

impl Stub {
    /// Its pid in the caller's pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Has the stub make the child; gives its pid. The stub has ended then.
    pub(crate) fn make(
        self,
        plan: &Plan,
        seccomp: &(Vec<SockFilter>, u32),
        files: &[OwnedFd],
        theirs: OwnedFd,
        ours: BorrowedFd<'_>,
    ) -> Result<u32, Error> {
        let order = Order {
            plan: plan.clone(),
            program: seccomp
                .0
                .iter()
                .map(|one| (one.code, one.jt, one.jf, one.k))
                .collect(),
            flags: seccomp.1,
        };
        let bytes = serde_json::to_vec(&order)
            .map_err(|error| host("write the plan for the stub")(error.into()))?;
        let file = process::memory_file("plan", &bytes).map_err(host("make a file in memory"))?;
        // One message takes 253 descriptors: the plan and the channel, then the first of the plan's own.
        let mut rest = files.chunks(sys::socket::FDS_MAX - 2);
        let mut first = vec![file.as_fd(), theirs.as_fd()];
        first.extend(rest.next().unwrap_or_default().iter().map(AsFd::as_fd));
        let count = u32::try_from(files.len()).map_err(|_| Error::Died)?;
        let send = |message: &[u8], fds: &[BorrowedFd<'_>]| {
            sys::socket::send_with_fds(self.socket.as_fd(), message, fds).map_err(|_| Error::Died)
        };
        send(&count.to_ne_bytes(), &first)?;
        for chunk in rest {
            let more: Vec<_> = chunk.iter().map(AsFd::as_fd).collect();
            send(&[0], &more)?;
        }
        drop(theirs);
        let pid = launch::pid_of_child(ours, "")?;
        self.guard.reap()?;
        Ok(pid)
    }
}

/// The stub's life: nothing but its socket, one order, one child.
fn main(socket: OwnedFd) -> i32 {
    live(socket).unwrap_or(1)
}

fn live(socket: OwnedFd) -> Option<i32> {
    process::set_not_dumpable().ok()?;
    process::set_name(c"cooper-stub").ok()?;
    let socket = process::move_to(
        process::duplicate_above(socket.as_fd(), SOCKET + 1).ok()?,
        SOCKET,
    )
    .ok()
    .inspect(|_| std::mem::forget(socket))?;
    process::close_range(4, u32::MAX, CloseHow::Now).ok()?;
    let (bytes, mut fds) = sys::socket::receive_message(socket.as_fd()).ok()?;
    let count = usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok()?;
    while fds.len() < count + 2 {
        let (_, more) = sys::socket::receive_message(socket.as_fd()).ok()?;
        if more.is_empty() {
            return None;
        }
        fds.extend(more);
    }
    let files = fds.split_off(2);
    let channel = fds.pop()?;
    let text = std::io::read_to_string(std::fs::File::from(fds.pop()?)).ok()?;
    let order: Order = serde_json::from_str(&text).ok()?;
    let program = order
        .program
        .iter()
        .map(|&(code, jt, jf, k)| SockFilter { code, jt, jf, k })
        .collect();
    drop(socket);
    Some(launch::between_main(
        &order.plan,
        &(program, order.flags),
        files,
        channel,
    ))
}
