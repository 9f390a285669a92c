//! Segments become classic BPF: a binary search over the call's number, weighted by how often calls are made.
//!
//! Outside of argument tests only loads of number and architecture, jumps and returns are used: for such paths kernels
//! since 5.11 find out at load time that a call is always allowed, and do not run the program for it at all
//! (kernel/seccomp.c, `seccomp_is_const_allow`).

use std::collections::HashMap;

use sys::bpf::SockFilter;

use super::Error;
use super::policy::{Architecture, BAD_ARCHITECTURE, Condition, Decision, Rule, Segment, Test};

/// The kernel's limit (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;

/// Conditional jumps reach this far; beyond, they go by an unconditional one.
const REACH: usize = 255;

/// Operations of `linux/bpf_common.h`.
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`; arguments are little-endian on every architecture we have.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;
const UPPER_HALF: u32 = 4;

/// How much closer to the root a segment comes for each call in it that programs make all the time.
const HOT_WEIGHT: u32 = 12;

/// An instruction by its place counted from the end, where the program grows towards its start: every jump goes
/// forward, so its target is always there already.
type Label = usize;

#[derive(Default)]
struct Assembler {
    /// Backwards.
    code: Vec<SockFilter>,
    /// The nearest place of each decision that stands in the program.
    placed: HashMap<Decision, Label>,
}

/// Assembles the program, the machine's own architecture first.
pub(super) fn program(architectures: &[Architecture]) -> Result<Vec<SockFilter>, Error> {
    let mut assembler = Assembler::default();
    let mut next = assembler.decision(&Decision::Always(BAD_ARCHITECTURE));
    for architecture in architectures.iter().rev() {
        let search = assembler.search(&architecture.segments);
        let body = assembler.load(OFFSET_NUMBER, search);
        next = assembler.branch(JUMP_EQUAL, architecture.audit, body, next);
    }
    assembler.load(OFFSET_ARCHITECTURE, next);
    let length = assembler.code.len();
    if length > INSTRUCTIONS_MAX {
        return Err(Error::TooLong(length));
    }
    assembler.code.reverse();
    Ok(assembler.code)
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.code.push(SockFilter { code, jt, jf, k });
        self.code.len() - 1
    }

    /// How many instructions a jump placed now would skip to reach `target`.
    fn distance(&self, target: Label) -> usize {
        self.code.len() - target - 1
    }

    /// Goes on at `next`, which may have to be jumped to.
    fn follow(&mut self, next: Label) {
        let skip = self.distance(next);
        if skip > 0 {
            self.push(
                JUMP,
                0,
                0,
                u32::try_from(skip).expect("a program has at most a few thousand instructions"),
            );
        }
    }

    /// Loads a word of `struct seccomp_data`, then goes on at `next`.
    fn load(&mut self, offset: u32, next: Label) -> Label {
        self.follow(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Brings a target within the reach of a conditional jump, with room for one more instruction between.
    fn near(&mut self, target: Label) -> Label {
        let skip = self.distance(target);
        if skip < REACH {
            return target;
        }
        self.push(
            JUMP,
            0,
            0,
            u32::try_from(skip).expect("a program has at most a few thousand instructions"),
        )
    }

    /// A conditional jump.
    fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        let no = self.near(no);
        let yes = self.near(yes);
        let skip = |target: Label| {
            u8::try_from(self.code.len() - target - 1).expect("brought within reach")
        };
        let (jt, jf) = (skip(yes), skip(no));
        self.push(code, jt, jf, k)
    }

    /// The search among segments; the accumulator holds the number.
    fn search(&mut self, segments: &[Segment]) -> Label {
        if let [only] = segments {
            return self.decision(&only.decision);
        }
        let weight = |segment: &Segment| 1 + HOT_WEIGHT * segment.hot;
        let total: u32 = segments.iter().map(weight).sum();
        let mut left = 0;
        let mut best = (u32::MAX, 1);
        for (index, segment) in segments.iter().enumerate().take(segments.len() - 1) {
            left += weight(segment);
            best = best.min((total.abs_diff(2 * left), index + 1));
        }
        let (below, above) = segments.split_at(best.1);
        let upper = self.search(above);
        let lower = self.search(below);
        self.branch(JUMP_GREATER_OR_EQUAL, above[0].start, upper, lower)
    }

    /// A decision; one that stands near enough is used again, a far one of a single instruction is cheaper anew.
    fn decision(&mut self, decision: &Decision) -> Label {
        if let Some(&label) = self.placed.get(decision) {
            let single = matches!(decision, Decision::Always(_));
            if !single || self.distance(label) < REACH / 2 {
                return label;
            }
        }
        let label = match decision {
            Decision::Always(action) => self.push(RETURN, 0, 0, *action),
            Decision::Conditional {
                rules,
                default,
                narrow,
            } => {
                let default = self.decision(&Decision::Always(*default));
                rules
                    .iter()
                    .rev()
                    .fold(default, |next, rule| self.rule(rule, *narrow, next))
            }
        };
        self.placed.insert(decision.clone(), label);
        label
    }

    fn rule(&mut self, rule: &Rule, narrow: bool, otherwise: Label) -> Label {
        let matched = self.decision(&Decision::Always(rule.action));
        rule.conditions
            .iter()
            .rev()
            .fold(matched, |next, condition| {
                self.condition(*condition, narrow, next, otherwise)
            })
    }

    fn condition(&mut self, condition: Condition, narrow: bool, yes: Label, no: Label) -> Label {
        let argument = Argument {
            index: condition.index,
            narrow,
        };
        match condition.test {
            Test::Equal(value) => self.equal(argument, (u64::MAX, value), yes, no),
            Test::NotEqual(value) => self.equal(argument, (u64::MAX, value), no, yes),
            Test::Masked { mask, value } => self.equal(argument, (mask, value), yes, no),
            Test::Greater(value) => self.greater(argument, (JUMP_GREATER, value), yes, no),
            Test::GreaterOrEqual(value) => {
                self.greater(argument, (JUMP_GREATER_OR_EQUAL, value), yes, no)
            }
            Test::Less(value) => self.greater(argument, (JUMP_GREATER_OR_EQUAL, value), no, yes),
            Test::LessOrEqual(value) => self.greater(argument, (JUMP_GREATER, value), no, yes),
        }
    }

    /// Whether the argument under the mask is the value: on wide conventions the upper half, then the lower one.
    fn equal(
        &mut self,
        argument: Argument,
        (mask, value): (u64, u64),
        yes: Label,
        no: Label,
    ) -> Label {
        let low = self.equal_half(argument.lower(), (lower(mask), lower(value)), yes, no);
        if argument.narrow {
            return low;
        }
        self.equal_half(argument.upper(), (upper(mask), upper(value)), low, no)
    }

    fn equal_half(
        &mut self,
        offset: u32,
        (mask, value): (u32, u32),
        yes: Label,
        no: Label,
    ) -> Label {
        match (mask, value) {
            (0, 0) => return yes,
            (0, _) => return no,
            _ => {}
        }
        let mut label = self.branch(JUMP_EQUAL, value, yes, no);
        if mask != u32::MAX {
            label = self.push(AND, 0, 0, mask);
        }
        self.load(offset, label)
    }

    /// Whether the argument is greater (or equal, by `code`): the upper half decides unless it is equal.
    fn greater(
        &mut self,
        argument: Argument,
        (code, value): (u16, u64),
        yes: Label,
        no: Label,
    ) -> Label {
        let test = self.branch(code, lower(value), yes, no);
        let low = self.load(argument.lower(), test);
        if argument.narrow {
            return low;
        }
        let equal = self.branch(JUMP_EQUAL, upper(value), low, no);
        let test = self.branch(JUMP_GREATER, upper(value), yes, equal);
        self.load(argument.upper(), test)
    }
}

/// An argument of the call, and whether only its lower half counts.
#[derive(Clone, Copy)]
struct Argument {
    index: u8,
    narrow: bool,
}

impl Argument {
    fn lower(self) -> u32 {
        OFFSET_ARGUMENTS + ARGUMENT_BYTES * u32::from(self.index)
    }

    fn upper(self) -> u32 {
        self.lower() + UPPER_HALF
    }
}

fn lower(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("masked to 32 bits")
}

fn upper(value: u64) -> u32 {
    lower(value >> 32)
}
