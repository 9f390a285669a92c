//! Device rules: the OCI list becomes a default and an ordered list of exceptions, and those become either the
//! smallest set of lines for v1's `devices.allow` and `devices.deny`, or a BPF program for v2. Pure.

use sys::bpf::Instruction;

use super::Error;
use crate::oci;

/// `BPF_DEVCG_ACC_*` and the letters of v1.
const ACCESS: [(char, u8); 3] = [('m', 1), ('r', 2), ('w', 4)];
const ACCESS_ALL: u8 = 7;

/// Largest major and minor number (`MINORBITS` is 20, and majors have the other 12).
const MAJOR_MAX: i64 = (1 << 12) - 1;
const MINOR_MAX: i64 = (1 << 20) - 1;

/// Kind of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Char,
}

/// Which devices a rule is about; `None` is every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Devices {
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

impl Devices {
    fn overlaps(self, other: Self) -> bool {
        let meets = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meets(self.major, other.major) && meets(self.minor, other.minor)
    }
}

/// One exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) devices: Devices,
    /// Bits of [`ACCESS`], never 0.
    pub(super) access: u8,
}

/// A default for all devices, and what differs; of two exceptions that cover a device, the later decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) allow_all: bool,
    pub(super) exceptions: Vec<Rule>,
}

impl Rules {
    /// Reads the list of the spec. A rule of type `a` (or without a type) is about everything: it sets the default and
    /// wipes what came before, whatever its numbers say, as v1 does.
    pub(super) fn from_oci(list: &[oci::LinuxDeviceCgroup]) -> Result<Self, Error> {
        // A new group on v1 inherits; runc starts from denying, and so does the list without a rule for everything.
        let mut rules = Self {
            allow_all: false,
            exceptions: Vec::new(),
        };
        for rule in list {
            let kind = match rule.typ().unwrap_or(oci::LinuxDeviceType::A) {
                oci::LinuxDeviceType::A => {
                    rules = Self {
                        allow_all: rule.allow(),
                        exceptions: Vec::new(),
                    };
                    continue;
                }
                oci::LinuxDeviceType::B => Kind::Block,
                oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => Kind::Char,
                oci::LinuxDeviceType::P => {
                    return Err(Error::Invalid {
                        what: "device rule type",
                        value: "p".to_owned(),
                    });
                }
            };
            let devices = Devices {
                kind,
                major: number(rule.major(), MAJOR_MAX, "device rule major number")?,
                minor: number(rule.minor(), MINOR_MAX, "device rule minor number")?,
            };
            let access = access_of(rule.access().as_deref().unwrap_or_default())?;
            rules.add(Rule {
                allow: rule.allow(),
                devices,
                access,
            });
        }
        Ok(rules)
    }

    /// Reads `devices.list` of v1: `a *:* rwm`, or the exceptions of a group that denies.
    ///
    /// The exceptions of a group that allows by default are not shown by the kernel, so such a group reads as having
    /// none; [`changes_v1`] resets it before it adds any.
    pub(super) fn from_list(text: &str) -> Self {
        let mut rules = Self {
            allow_all: false,
            exceptions: Vec::new(),
        };
        for line in text.lines() {
            let mut fields = line.split([' ', ':']);
            let kind = match fields.next() {
                Some("a") => {
                    return Self {
                        allow_all: true,
                        exceptions: Vec::new(),
                    };
                }
                Some("b") => Kind::Block,
                Some("c") => Kind::Char,
                _ => continue,
            };
            let (major, minor) = (fields.next(), fields.next());
            let number = |field: Option<&str>| field.and_then(|digits| digits.parse().ok());
            let devices = Devices {
                kind,
                major: number(major),
                minor: number(minor),
            };
            if let Ok(access) = access_of(fields.next().unwrap_or_default()) {
                rules.add(Rule {
                    allow: true,
                    devices,
                    access,
                });
            }
        }
        rules
    }

    /// Adds a rule after the others, merged with one about the same devices where no rule between them speaks of any
    /// of these, and left out where it says what holds anyway.
    fn add(&mut self, rule: Rule) {
        for exception in self.exceptions.iter_mut().rev() {
            if exception.devices == rule.devices {
                if exception.allow == rule.allow {
                    exception.access |= rule.access;
                } else {
                    exception.access &= !rule.access;
                    break;
                }
                return;
            }
            if exception.devices.overlaps(rule.devices) && exception.allow != rule.allow {
                break;
            }
        }
        self.exceptions.retain(|exception| exception.access != 0);
        let contradicted = self.exceptions.iter().any(|exception| {
            exception.allow != rule.allow && exception.devices.overlaps(rule.devices)
        });
        if rule.allow != self.allow_all || contradicted {
            self.exceptions.push(rule);
        }
    }
}

fn number(value: Option<i64>, max: i64, what: &'static str) -> Result<Option<u32>, Error> {
    match value {
        // runc's wildcard, and the spec's.
        None | Some(-1) => Ok(None),
        Some(value) if (0..=max).contains(&value) => Ok(u32::try_from(value).ok()),
        Some(value) => Err(Error::Invalid {
            what,
            value: value.to_string(),
        }),
    }
}

fn access_of(letters: &str) -> Result<u8, Error> {
    let invalid = || Error::Invalid {
        what: "device rule access",
        value: letters.to_owned(),
    };
    let mut access = 0;
    for letter in letters.chars() {
        access |= ACCESS
            .iter()
            .find(|(known, _)| *known == letter)
            .ok_or_else(invalid)?
            .1;
    }
    if access == 0 {
        Err(invalid())
    } else {
        Ok(access)
    }
}

/// A line of v1.
fn line(devices: Devices, access: u8) -> String {
    let kind = match devices.kind {
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    let number =
        |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let letters: String = "rwm"
        .chars()
        .filter(|letter| {
            ACCESS
                .iter()
                .any(|(known, bit)| known == letter && access & bit != 0)
        })
        .collect();
    format!(
        "{kind} {}:{} {letters}",
        number(devices.major),
        number(devices.minor)
    )
}

/// The writes that turn `current` into `wanted`, in order: `(file, line)`.
///
/// Between two groups that deny by default only the difference is written, additions first, so that an update of a
/// running container takes nothing away even for a moment.
///
/// # Errors
/// [`Error::Invalid`] for an exception from an exception (allow `c 1:*`, deny `c 1:3`): v1 cannot express it.
pub(super) fn changes_v1(
    current: &Rules,
    wanted: &Rules,
) -> Result<Vec<(&'static str, String)>, Error> {
    if let Some(rule) = wanted
        .exceptions
        .iter()
        .find(|rule| rule.allow == wanted.allow_all)
    {
        let value = format!(
            "{} within a wider rule, on cgroup v1",
            line(rule.devices, rule.access)
        );
        return Err(Error::Invalid {
            what: "device rule",
            value,
        });
    }
    let (grant, revoke) = ("devices.allow", "devices.deny");
    if wanted.allow_all {
        // "a" wipes the exceptions.
        let mut changes = vec![(grant, "a".to_owned())];
        changes.extend(
            wanted
                .exceptions
                .iter()
                .map(|rule| (revoke, line(rule.devices, rule.access))),
        );
        return Ok(changes);
    }
    let mut changes = Vec::new();
    if current.allow_all {
        changes.push((revoke, "a".to_owned()));
    }
    let missing = |from: &Rules, rule: &Rule| {
        let same = from
            .exceptions
            .iter()
            .find(|other| other.devices == rule.devices);
        rule.access & !same.map_or(0, |other| other.access)
    };
    for (from, to, file) in [(current, wanted, grant), (wanted, current, revoke)] {
        for rule in &to.exceptions {
            let access = missing(from, rule);
            if access != 0 {
                changes.push((file, line(rule.devices, access)));
            }
        }
    }
    Ok(changes)
}

/// Registers of the program.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const REQUEST: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// The context is not needed once it is read.
const SCRATCH: u8 = CONTEXT;

/// Operations (`linux/bpf_common.h`, `linux/bpf.h`): class, size or operation, source.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE_IMMEDIATE: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOVE_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND_IMMEDIATE: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_IF_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JUMP_IF_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

fn operation(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: destination | source << 4,
        offset,
        immediate,
    }
}

fn answer(program: &mut Vec<Instruction>, allow: bool) {
    program.push(operation(MOVE_IMMEDIATE, RESULT, 0, 0, i32::from(allow)));
    program.push(operation(EXIT, 0, 0, 0, 0));
}

/// The program for v2: its context is `struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }` with the kind in
/// the low and the access in the high half of the first word; it answers 1 to allow.
///
/// The last rule comes first. One that allows must cover all of the access asked for, one that denies is met by any
/// part of it: as v1 decides.
pub(super) fn program_v2(rules: &Rules) -> Vec<Instruction> {
    let mut program = vec![
        operation(LOAD_WORD, KIND, CONTEXT, 0, 0),
        operation(MOVE_REGISTER, REQUEST, KIND, 0, 0),
        operation(AND_IMMEDIATE, KIND, 0, 0, 0xffff),
        operation(SHIFT_RIGHT, REQUEST, 0, 0, 16),
        operation(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        operation(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.exceptions.iter().rev() {
        program.extend(block(rule));
    }
    answer(&mut program, rules.allow_all);
    program
}

/// One rule: tests that jump to its end, then the answer.
fn block(rule: &Rule) -> Vec<Instruction> {
    let kind = match rule.devices.kind {
        Kind::Block => 1, // BPF_DEVCG_DEV_BLOCK
        Kind::Char => 2,  // BPF_DEVCG_DEV_CHAR
    };
    let mut code = vec![operation(JUMP_IF_NOT_EQUAL, KIND, 0, 0, kind)];
    for (register, number) in [(MAJOR, rule.devices.major), (MINOR, rule.devices.minor)] {
        if let Some(number) = number {
            let number = i32::try_from(number).expect("device numbers have at most 20 bits");
            code.push(operation(JUMP_IF_NOT_EQUAL, register, 0, 0, number));
        }
    }
    if !(rule.allow && rule.access == ACCESS_ALL) {
        let (mask, jump) = if rule.allow {
            (!rule.access & ACCESS_ALL, JUMP_IF_NOT_EQUAL)
        } else {
            (rule.access, JUMP_IF_EQUAL)
        };
        code.push(operation(MOVE_REGISTER, SCRATCH, REQUEST, 0, 0));
        code.push(operation(AND_IMMEDIATE, SCRATCH, 0, 0, i32::from(mask)));
        code.push(operation(jump, SCRATCH, 0, 0, 0));
    }
    answer(&mut code, rule.allow);
    let end = code.len();
    for (index, instruction) in code.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL) {
            instruction.offset =
                i16::try_from(end - index - 1).expect("a block has at most nine instructions");
        }
    }
    code
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
