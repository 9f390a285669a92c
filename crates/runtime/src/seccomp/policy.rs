//! An OCI policy as decisions by number: what the compiler turns into instructions.
//!
//! The rules of combination are those of libseccomp and runc, which policies are written against:
//! * A rule whose action is the default action says nothing.
//! * A rule without conditions decides alone, whatever conditional rules the call has; the first such rule counts.
//! * Of conditional rules the first that matches decides, then the default.
//! * Two conditions on one argument make a rule for each condition (any may hold), else all must hold.
//! * The architecture of the machine is always covered, named or not.
//! * Where the default refuses, a call newer than every call the policy names fails with ENOSYS, so that a C library
//!   falls back to what it used before.

use std::collections::BTreeMap;

use super::Error;
use super::table::{Abi, X32_BIT};
use crate::oci::{self, LinuxSeccompAction as Action, LinuxSeccompOperator as Operator};

/// `SECCOMP_RET_*` of `linux/seccomp.h`.
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// The largest errno the kernel returns.
const MAX_ERRNO: u32 = 4095;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Arguments of a call.
const ARGUMENTS: usize = 6;

/// What a call of an architecture that the policy does not cover gets (libseccomp's default).
pub(super) const BAD_ARCHITECTURE: u32 = RET_KILL_THREAD;

/// One condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    pub(super) index: u8,
    pub(super) test: Test,
}

/// What an argument is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    Masked { mask: u64, value: u64 },
}

/// Conditions that must all hold, and what follows then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Decision {
    Always(u32),
    /// The first rule that matches, else the default; compared at the width of the convention.
    Conditional {
        rules: Vec<Rule>,
        default: u32,
        narrow: bool,
    },
}

/// Numbers from `start` up to the next segment share a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u32,
    pub(super) decision: Decision,
    /// Calls in it that programs make all the time.
    pub(super) hot: u32,
}

/// The segments of one architecture as the kernel reports it; the first starts at 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    pub(super) audit: u32,
    pub(super) segments: Vec<Segment>,
}

/// Calls that make up most of what programs call; their segments are put near the root of the search.
const HOT: [&str; 40] = [
    "read",
    "write",
    "futex",
    "epoll_wait",
    "epoll_pwait",
    "recvfrom",
    "sendto",
    "recvmsg",
    "sendmsg",
    "poll",
    "ppoll",
    "select",
    "close",
    "open",
    "openat",
    "mmap",
    "munmap",
    "mprotect",
    "madvise",
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "nanosleep",
    "stat",
    "fstat",
    "lstat",
    "newfstatat",
    "lseek",
    "pread64",
    "pwrite64",
    "readv",
    "writev",
    "ioctl",
    "fcntl",
    "rt_sigprocmask",
    "rt_sigaction",
    "sched_yield",
    "getpid",
    "gettid",
    "epoll_ctl",
];

/// Reads a policy for a machine, the machine's own architecture first.
pub(super) fn architectures(
    policy: &oci::LinuxSeccomp,
    native: Abi,
) -> Result<Vec<Architecture>, Error> {
    let rules = Rules::read(policy)?;
    let named: Vec<Abi> = policy
        .architectures()
        .iter()
        .flatten()
        .filter_map(|arch| Abi::from_oci(*arch, native))
        .collect();
    // What cannot run here needs no instructions: a policy may list every architecture there is.
    let covered = Abi::of_machine(native)
        .iter()
        .copied()
        .filter(|abi| *abi == native || named.contains(abi));
    let covered: Vec<Abi> = covered.collect();
    let mut architectures: Vec<Architecture> = Vec::new();
    for abi in &covered {
        // x32 lies in the number space of x86-64, which is always covered with it.
        if *abi != Abi::X32 {
            let mut segments = Segments::default();
            rules.lay_out(*abi, covered.contains(&Abi::X32), &mut segments);
            architectures.push(Architecture {
                audit: abi.audit(),
                segments: segments.list,
            });
        }
    }
    Ok(architectures)
}

/// Names, alternatives of conditions (one empty one for a rule without), action.
type NamedRule<'a> = (&'a [String], Vec<Vec<Condition>>, u32);

/// The policy's rules, by name.
struct Rules<'a> {
    default: u32,
    /// What newer calls get.
    newer: u32,
    rules: Vec<NamedRule<'a>>,
    /// Names in rules that repeat the default: they count for what is newer.
    idle: Vec<&'a [String]>,
}

impl<'a> Rules<'a> {
    fn read(policy: &'a oci::LinuxSeccomp) -> Result<Self, Error> {
        let default = action_value(policy.default_action(), policy.default_errno_ret())?;
        let newer = match policy.default_action() {
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace => default,
            Action::ScmpActKill
            | Action::ScmpActKillThread
            | Action::ScmpActKillProcess
            | Action::ScmpActTrap
            | Action::ScmpActErrno
            | Action::ScmpActNotify => RET_ERRNO | ENOSYS,
        };
        let mut read = Self {
            default,
            newer,
            rules: Vec::new(),
            idle: Vec::new(),
        };
        for rule in policy.syscalls().iter().flatten() {
            let action = action_value(rule.action(), rule.errno_ret())?;
            let name = rule.names().first().map_or("", String::as_str);
            let alternatives = alternatives(name, rule.args().as_deref().unwrap_or_default())?;
            if action == default {
                read.idle.push(rule.names());
            } else {
                read.rules.push((rule.names(), alternatives, action));
            }
        }
        Ok(read)
    }

    /// The decisions of one convention by number, and the highest number the policy names.
    fn decisions(&self, abi: Abi) -> (BTreeMap<u32, Decision>, Option<u32>) {
        let mut decisions = BTreeMap::new();
        let numbers = |names: &'a [String]| names.iter().filter_map(move |name| abi.number(name));
        for (names, alternatives, action) in &self.rules {
            for number in numbers(names) {
                self.decide(
                    decisions.entry(number),
                    alternatives,
                    *action,
                    abi.is_narrow(),
                );
            }
        }
        let idle = self.idle.iter().flat_map(|names| numbers(names)).max();
        let highest = decisions.keys().next_back().copied();
        (decisions, highest.max(idle))
    }

    fn decide(
        &self,
        entry: std::collections::btree_map::Entry<'_, u32, Decision>,
        alternatives: &[Vec<Condition>],
        action: u32,
        narrow: bool,
    ) {
        let decision = entry.or_insert_with(|| Decision::Conditional {
            rules: Vec::new(),
            default: self.default,
            narrow,
        });
        let Decision::Conditional { rules, .. } = decision else {
            return;
        };
        for conditions in alternatives {
            if conditions.is_empty() {
                *decision = Decision::Always(action);
                return;
            }
            rules.push(Rule {
                conditions: conditions.clone(),
                action,
            });
        }
    }

    /// Lays the numbers of a convention out as segments over all of 32 bits.
    fn lay_out(&self, abi: Abi, with_x32: bool, segments: &mut Segments) {
        let hot: Vec<u32> = HOT.iter().filter_map(|name| abi.number(name)).collect();
        let mut place = |abi: Abi, first: u32| {
            let (decisions, highest) = self.decisions(abi);
            let mut next = first;
            for (number, decision) in decisions {
                if number > next {
                    segments.push(next, Decision::Always(self.default), 0);
                }
                segments.push(number, decision, u32::from(hot.contains(&number)));
                next = number + 1;
            }
            let Some(highest) = highest else {
                segments.push(next, Decision::Always(self.default), 0);
                return;
            };
            if highest >= next {
                segments.push(next, Decision::Always(self.default), 0);
            }
            segments.push(highest + 1, Decision::Always(self.newer), 0);
        };
        place(abi, 0);
        if abi == Abi::X86_64 && with_x32 {
            place(Abi::X32, X32_BIT);
        } else if abi == Abi::X86_64 && self.newer == self.default {
            segments.push(X32_BIT, Decision::Always(BAD_ARCHITECTURE), 0);
            // A tracer cancels a call by setting its number to -1, which is no x32 call.
            segments.push(u32::MAX, Decision::Always(self.default), 0);
        }
    }
}

/// Segments in the making: neighbours with the same decision are one.
#[derive(Default)]
struct Segments {
    list: Vec<Segment>,
}

impl Segments {
    fn push(&mut self, start: u32, decision: Decision, hot: u32) {
        match self.list.last_mut() {
            Some(last) if last.decision == decision => last.hot += hot,
            _ => self.list.push(Segment {
                start,
                decision,
                hot,
            }),
        }
    }
}

fn action_value(action: Action, data: Option<u32>) -> Result<u32, Error> {
    let bounded = |max: u32| {
        let data = data.unwrap_or(EPERM);
        if data > max {
            Err(Error::ReturnValue(data))
        } else {
            Ok(data)
        }
    };
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => RET_KILL_THREAD,
        Action::ScmpActKillProcess => RET_KILL_PROCESS,
        Action::ScmpActTrap => RET_TRAP,
        Action::ScmpActErrno => RET_ERRNO | bounded(MAX_ERRNO)?,
        Action::ScmpActNotify => RET_USER_NOTIF,
        Action::ScmpActTrace => RET_TRACE | bounded(u32::from(u16::MAX))?,
        Action::ScmpActLog => RET_LOG,
        Action::ScmpActAllow => RET_ALLOW,
    })
}

fn alternatives(
    syscall: &str,
    args: &[oci::LinuxSeccompArg],
) -> Result<Vec<Vec<Condition>>, Error> {
    let mut conditions = Vec::with_capacity(args.len());
    for arg in args {
        if arg.index() >= ARGUMENTS {
            return Err(Error::Argument {
                syscall: syscall.to_owned(),
                index: arg.index(),
            });
        }
        let index = u8::try_from(arg.index()).expect("below 6");
        let value = arg.value();
        let test = match arg.op() {
            Operator::ScmpCmpEq => Test::Equal(value),
            Operator::ScmpCmpNe => Test::NotEqual(value),
            Operator::ScmpCmpLt => Test::Less(value),
            Operator::ScmpCmpLe => Test::LessOrEqual(value),
            Operator::ScmpCmpGt => Test::Greater(value),
            Operator::ScmpCmpGe => Test::GreaterOrEqual(value),
            Operator::ScmpCmpMaskedEq => Test::Masked {
                mask: value,
                value: arg.value_two().unwrap_or(0),
            },
        };
        conditions.push(Condition { index, test });
    }
    let mut indices: Vec<u8> = conditions.iter().map(|condition| condition.index).collect();
    indices.sort_unstable();
    let repeated = indices.windows(2).any(|pair| pair[0] == pair[1]);
    Ok(if repeated {
        conditions
            .into_iter()
            .map(|condition| vec![condition])
            .collect()
    } else {
        vec![conditions]
    })
}
