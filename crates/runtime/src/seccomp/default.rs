//! Docker's default policy in our own encoding: what every container may call, what a capability adds, and what is
//! allowed with some arguments only. Everything else fails with EPERM.
//!
//! Kernels before 4.8 need a rule more (ptrace): ours are 5.10 and newer.

use super::table::Abi;
use crate::oci::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator as Operator, LinuxSyscall,
    LinuxSyscallBuilder,
};

/// What every container may call. `chown/32` is chown and chown32: calls that 32-bit architectures have twice.
const EVERYBODY: [&str; 11] = [
    // Files and directories by name or descriptor.
    "access cachestat chdir chmod chown/32 close close_range creat dup dup2 dup3 faccessat \
     faccessat2 fallocate fchdir fchmod fchmodat fchmodat2 fchown/32 fchownat fcntl/64 flock \
     fstat/64 fstatat64 fstatfs/64 ftruncate/64 futimesat getcwd getdents/64 ioctl lchown/32 \
     link linkat listmount lstat/64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat \
     open openat openat2 readlink readlinkat rename renameat renameat2 rmdir stat/64 \
     statfs/64 statmount statx symlink symlinkat truncate/64 umask unlink unlinkat utime \
     utimensat/_time64 utimes",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr \
     listxattrat llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr \
     setxattrat",
    // Reading, writing and waiting for descriptors.
    "_llseek _newselect copy_file_range epoll_create epoll_create1 epoll_ctl epoll_ctl_old \
     epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 fadvise64 \
     fadvise64_64 fanotify_mark fdatasync fsync inotify_add_watch inotify_init inotify_init1 \
     inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents/_time64 io_setup \
     io_submit lseek pipe pipe2 poll ppoll/_time64 pread64 preadv preadv2 pselect6/_time64 \
     pwrite64 pwritev pwritev2 read readahead readv select sendfile/64 signalfd signalfd4 \
     splice sync sync_file_range syncfs tee timerfd_create timerfd_gettime/64 \
     timerfd_settime/64 vmsplice write writev",
    // Sockets; `socket` itself is below.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom \
     recvmmsg/_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall \
     socketpair",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 \
     mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc \
     pkey_free pkey_mprotect process_mrelease remap_file_pages",
    // Shared memory, semaphores and queues.
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive/_time64 mq_timedsend/_time64 \
     mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop/_time64 shmat \
     shmctl shmdt shmget",
    // Processes, threads and their limits.
    "execve execveat exit exit_group fork futex/_time64 futex_requeue futex_wait futex_waitv \
     futex_wake get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid \
     getpriority getrlimit getrusage getsid gettid ioprio_get ioprio_set kill pause \
     pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq sched_get_priority_max \
     sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
     sched_rr_get_interval/_time64 sched_setaffinity sched_setattr sched_setparam \
     sched_setscheduler sched_yield set_robust_list set_thread_area set_tid_address setpgid \
     setpriority setrlimit setsid tgkill times tkill ugetrlimit vfork wait4 waitid waitpid",
    // Identity.
    "capget capset getegid/32 geteuid/32 getgid/32 getgroups/32 getresgid/32 getresuid/32 \
     getuid/32 landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp \
     setfsgid/32 setfsuid/32 setgid/32 setgroups/32 setregid/32 setresgid/32 setresuid/32 \
     setreuid/32 setuid/32",
    // Signals.
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait/_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn uretprobe",
    // Time.
    "adjtimex alarm clock_adjtime/64 clock_getres/_time64 clock_gettime/64 \
     clock_nanosleep/_time64 getitimer gettimeofday nanosleep setitimer time timer_create \
     timer_delete timer_getoverrun timer_gettime/64 timer_settime/64",
    // The rest.
    "getrandom riscv_hwprobe sysinfo uname",
];

/// ptrace and its kin: safe since Linux 4.8, where seccomp is asked after the tracer.
const TRACING: &str = "process_vm_readv process_vm_writev ptrace";

/// What the x86 family has beside.
const X86: &str = "arch_prctl modify_ldt";

/// What the ARM family has beside.
const ARM: &str =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// What a capability adds: calls that check for it in the kernel anyway.
const BY_CAPABILITY: [(Capability, &str); 14] = [
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (
        Capability::SysModule,
        "delete_module init_module finit_module",
    ),
    (Capability::SysPacct, "acct"),
    (
        Capability::SysPtrace,
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (Capability::SysRawio, "iopl ioperm"),
    (Capability::SysTime, "settimeofday stime clock_settime/64"),
    (Capability::SysTtyConfig, "vhangup"),
    (
        Capability::SysNice,
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Socket families that are kept away: AF_ALG (its kernel code has had many holes) and AF_VSOCK (it reaches the
/// hypervisor past every network namespace).
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// Personalities that are allowed: Linux, Linux 32, both with UNAME26, and the question (0xffffffff).
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: who may not make namespaces may not through clone either.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// The answer to clone3, whose flags lie in memory and cannot be judged: callers fall back to clone.
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The policy for a machine and a set of (bounding) capabilities.
pub(super) fn policy(capabilities: &Capabilities, native: Abi) -> LinuxSeccomp {
    let mut allowed: Vec<String> = EVERYBODY.iter().flat_map(|names| expand(names)).collect();
    allowed.extend(expand(TRACING));
    allowed.extend(match native {
        Abi::X86_64 | Abi::X86 | Abi::X32 => expand(X86),
        Abi::Aarch64 | Abi::Arm => expand(ARM),
    });
    for (capability, names) in BY_CAPABILITY {
        if capabilities.contains(&capability) {
            allowed.extend(expand(names));
        }
    }
    let mut rules = vec![rule(allowed, Action::ScmpActAllow, None, None)];
    let mut allow = |name: &str, condition: LinuxSeccompArg| {
        rules.push(rule(
            vec![name.to_owned()],
            Action::ScmpActAllow,
            None,
            Some(condition),
        ));
    };
    allow("socket", argument(Operator::ScmpCmpLt, AF_ALG));
    allow("socket", argument(Operator::ScmpCmpEq, AF_ALG + 1));
    allow("socket", argument(Operator::ScmpCmpGt, AF_VSOCK));
    for personality in PERSONALITIES {
        allow("personality", argument(Operator::ScmpCmpEq, personality));
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        allow("clone", argument(Operator::ScmpCmpMaskedEq, NEW_NAMESPACES));
        rules.push(rule(
            vec!["clone3".to_owned()],
            Action::ScmpActErrno,
            Some(ENOSYS),
            None,
        ));
    }
    let architectures = match native {
        Abi::X86_64 | Abi::X86 | Abi::X32 => {
            vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
        }
        Abi::Aarch64 | Abi::Arm => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
    };
    LinuxSeccompBuilder::default()
        .default_action(Action::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures)
        .syscalls(rules)
        .build()
        .expect("every required field is set")
}

/// `chown/32 read` is chown, chown32, read.
fn expand(names: &str) -> Vec<String> {
    names
        .split_whitespace()
        .flat_map(|word| {
            let mut parts = word.split('/');
            let base = parts.next().unwrap_or_default();
            std::iter::once(base.to_owned())
                .chain(parts.map(move |suffix| format!("{base}{suffix}")))
        })
        .collect()
}

fn argument(operator: Operator, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(0usize)
        .op(operator)
        .value(value)
        .build()
        .expect("every required field is set")
}

fn rule(
    names: Vec<String>,
    action: Action,
    errno: Option<u32>,
    condition: Option<LinuxSeccompArg>,
) -> LinuxSyscall {
    let mut builder = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        builder = builder.errno_ret(errno);
    }
    if let Some(condition) = condition {
        builder = builder.args(vec![condition]);
    }
    builder.build().expect("every required field is set")
}

/// The capabilities that add something.
#[cfg(test)]
pub(super) fn capabilities() -> impl Iterator<Item = Capability> {
    BY_CAPABILITY.iter().map(|(capability, _)| *capability)
}
