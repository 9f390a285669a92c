//! Exits: reaping, recording, draining, announcing. In this order, whatever fails on the way.

use std::os::fd::AsFd;
use std::time::Instant;

use sys::clock::now_ns;

use crate::process::DRAIN_BYTES;
use crate::protocol::{Exit, ExitRecord, Notice, ProcessId};
use crate::record;
use crate::supervisor::Supervisor;

impl Supervisor {
    /// A process's pidfd is readable.
    pub(crate) fn reap(&mut self, id: &ProcessId) {
        let Some(process) = self.processes.get(id).filter(|p| p.exit.is_none()) else {
            return;
        };
        let code = match sys::process::try_wait(process.pidfd.as_fd()) {
            Ok(None) => return,
            Ok(Some(ended)) => ended.code,
            // Somebody else reaped it, which nobody should: it is gone all the same.
            Err(_) => UNKNOWN_EXIT,
        };
        self.check_memory();
        if *id == ProcessId::Init
            && let Some(container) = &mut self.container
        {
            // What it leaves behind in the cgroup is tried again when the cgroup is removed.
            drop(container.init_exited());
        }
        let container = self.container.as_ref();
        let exit = Exit {
            code,
            oom_killed: container.is_some_and(|container| container.oom_killed),
            at_ns: now_ns(),
        };
        if let Some(container) = container {
            let record = ExitRecord {
                id: container.id.clone(),
                process: id.clone(),
                exit,
            };
            // Without a record the notice is the only news; it is sent all the same.
            if let Err(error) = record::write(&container.run_dir, &record) {
                self.notify(&Notice::RecordFailed {
                    message: error.to_string(),
                });
            }
            sys::fault!("shim.exit.recorded");
        }
        self.exited(id, exit);
    }

    fn exited(&mut self, id: &ProcessId, exit: Exit) {
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        process.exit = Some(exit);
        process.exited_at = Some(Instant::now());
        // A pidfd stays readable.
        drop(self.epoll.delete(process.pidfd.as_fd()));
        if let Some(stdin) = process.stdin.take() {
            self.unwatch(stdin.key, stdin.file.as_fd());
            self.refresh_attached(id);
        }
        // What the pipes still hold may exceed the clients' limits now: it is bounded.
        self.refresh_outputs(id);
        self.drain(id);
        self.announce_if_drained(id);
    }

    /// Reads what the process has left in its pipes, so that its exit is not announced before it.
    fn drain(&mut self, id: &ProcessId) {
        let rounds = DRAIN_BYTES / crate::supervisor::READ_BYTES;
        for _ in 0..rounds {
            let Some(process) = self.processes.get(id) else {
                return;
            };
            let streams: Vec<_> = process.outputs.iter().map(|o| o.stream).collect();
            if streams.is_empty() {
                return;
            }
            for stream in streams {
                self.pass_on(id, stream);
            }
        }
    }

    /// Tells everyone that a process has exited. Its clients get the end of their streams.
    pub(crate) fn announce(&mut self, id: &ProcessId) {
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let Some(exit) = process.exit else { return };
        process.announced = true;
        self.finish_clients(id);
        if *id == ProcessId::Init {
            self.close_ports();
        }
        self.notify(&Notice::Exited {
            process: id.clone(),
            exit,
        });
        if *id == ProcessId::Init
            && let Some(container) = &mut self.container
        {
            let watch = container.memory_watch.take();
            if let Some((key, watch)) = watch {
                self.unwatch(key, watch.as_fd());
            }
        }
        if *id == ProcessId::Init
            && let Some(container) = &mut self.container
        {
            // While the daemon persists the exit; a failure is reported to `Acknowledge`, which tries again.
            drop(container.remove_cgroup());
        }
    }

    /// The memory watch has an event.
    pub(crate) fn memory_event(&mut self) {
        if let Some(container) = &mut self.container
            && container.memory_event()
        {
            self.notify(&Notice::OutOfMemory);
        }
    }

    /// Looks whether the kernel killed for memory, and says so once per kill seen.
    pub(crate) fn check_memory(&mut self) {
        let Some(container) = &mut self.container else {
            return;
        };
        if container.saw_memory_kill() {
            self.notify(&Notice::OutOfMemory);
        }
    }
}

/// The exit code of a process whose end could not be learned.
const UNKNOWN_EXIT: i32 = 255;
