//! Programs are run by an interpreter and compared with a direct reading of the policy.

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::table::Abi;
use super::*;
use crate::oci::{Capabilities, Capability, LinuxSeccomp};

mod profile;
mod properties;

const ALLOW: u32 = 0x7fff_0000;

const ERRNO: u32 = 0x0005_0000;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: u32,
    audit: u32,
    args: [u64; 6],
}

impl Call {
    fn new(abi: Abi, number: u32, args: [u64; 6]) -> Self {
        Self {
            number,
            audit: abi.audit(),
            args,
        }
    }

    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, shift: u32| u32::try_from(value >> shift & 0xffff_ffff).unwrap();
        match offset {
            0 => self.number,
            4 => self.audit,
            16..64 => {
                let index = usize::try_from((offset - 16) / 8).unwrap();
                half(self.args[index], if offset % 8 == 4 { 32 } else { 0 })
            }
            other => panic!("load at {other}"),
        }
    }
}

/// Runs a program as the kernel does; the answer and the number of instructions it took.
fn run(program: &Program, call: Call) -> (u32, usize) {
    let mut accumulator = 0;
    let mut at = 0;
    let mut steps = 0;
    loop {
        let SockFilter { code, jt, jf, k } = program.instructions()[at];
        at += 1;
        steps += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x05 => at += usize::try_from(k).unwrap(),
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x06 => return (k, steps),
            other => panic!("operation {other:#x}"),
        }
    }
}

/// What the kernel checks before it takes a program.
fn check_form(program: &Program) {
    let code = program.instructions();
    assert!((1..=4096).contains(&code.len()));
    for (
        at,
        SockFilter {
            code: operation,
            jt,
            jf,
            k,
        },
    ) in code.iter().enumerate()
    {
        let skip = match operation {
            0x05 => usize::try_from(*k).unwrap(),
            0x15 | 0x25 | 0x35 => usize::from((*jt).max(*jf)),
            _ => 0,
        };
        assert!(at + skip < code.len(), "a jump out of the program at {at}");
        assert!(*operation != 0x20 || (*k < 64 && k % 4 == 0));
    }
    assert_eq!(code.last().unwrap().code, 0x06);
}

fn decide(program: &Program, abi: Abi, number: u32, args: [u64; 6]) -> u32 {
    run(program, Call::new(abi, number, args)).0
}

fn policy(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn docker_capabilities() -> Capabilities {
    let names = crate::capabilities::DOCKER_DEFAULT;
    serde_json::from_value(json!(names)).unwrap()
}

#[test]
fn the_default_is_small_and_quick() {
    let program = compile(&docker_default(&docker_capabilities())).unwrap();
    let steps = |name: &str| {
        let number = Abi::native().number(name).unwrap();
        let (answer, steps) = run(&program, Call::new(Abi::native(), number, [0; 6]));
        assert_eq!(answer, ALLOW, "{name}");
        steps
    };
    let length = program.instructions().len();
    let (read, write, futex) = (steps("read"), steps("write"), steps("futex"));
    println!("{length} instructions; read {read}, write {write}, futex {futex}");
    assert!(length < 800);
    assert!(read.max(write).max(futex) <= 10);
    assert!(
        steps("epoll_pwait")
            .max(steps("openat"))
            .max(steps("getrandom"))
            <= 14
    );
}

/// What `syscall(n, 0, 0, 0)` answered in a container of dockerd 28.5.2 (runc 1.3.6, libseccomp 2.6.1): newer calls
/// fail with ENOSYS, refused ones with EPERM, on x32 too.
#[test]
fn newer_calls_are_unknown_as_with_runc() {
    let program = compile_for(
        &default::policy(&docker_capabilities(), Abi::X86_64),
        Abi::X86_64,
    )
    .unwrap();
    for (number, answer) in [
        (169, ERRNO | 1),
        (435, ERRNO | 38),
        (442, ERRNO | 1),
        (462, ALLOW),
        (466, ALLOW),
        (467, ERRNO | 38),
        (5000, ERRNO | 38),
        (0x3fff_ffff, ERRNO | 38),
        (0x4000_0000 | 480, ERRNO | 1),
        (0x4000_0000 | 548, ERRNO | 38),
        (u32::MAX, ERRNO | 38),
    ] {
        assert_eq!(
            decide(&program, Abi::X86_64, number, [0; 6]),
            answer,
            "{number}"
        );
    }
}

#[test]
fn an_uncovered_architecture_is_killed() {
    let only_native = policy(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["reboot"], "action": "SCMP_ACT_ERRNO" }]
    }));
    let program = compile_for(&only_native, Abi::X86_64).unwrap();
    check_form(&program);
    assert_eq!(decide(&program, Abi::X86_64, 169, [0; 6]), ERRNO | 1);
    assert_eq!(decide(&program, Abi::X86_64, 0, [0; 6]), ALLOW);
    for (abi, number) in [
        (Abi::X86, 3),
        (Abi::Aarch64, 63),
        (Abi::X32, table::X32_BIT),
    ] {
        assert_eq!(decide(&program, abi, number, [0; 6]), 0, "{abi:?}");
    }
    // A call cancelled by a tracer.
    assert_eq!(decide(&program, Abi::X86_64, u32::MAX, [0; 6]), ALLOW);
}

#[test]
fn each_action_has_its_value() {
    for (action, data, value) in [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("SCMP_ACT_TRAP", None, 0x0003_0000),
        ("SCMP_ACT_ERRNO", None, ERRNO | 1),
        ("SCMP_ACT_ERRNO", Some(38), ERRNO | 38),
        ("SCMP_ACT_TRACE", Some(7), 0x7ff0_0007),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        ("SCMP_ACT_NOTIFY", None, 0x7fc0_0000),
    ] {
        let json = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls": [{ "names": ["reboot", "no_such_call"], "action": action, "errnoRet": data }],
        });
        let program = compile_for(&policy(json), Abi::X86_64).unwrap();
        assert_eq!(
            decide(&program, Abi::X86_64, 169, [0; 6]),
            value,
            "{action}"
        );
        assert_eq!(
            decide(&program, Abi::X86_64, 5000, [0; 6]),
            ALLOW,
            "newer calls under a default that allows"
        );
        assert_eq!(program.needs_listener(), action == "SCMP_ACT_NOTIFY");
        assert_eq!(program.flags(), 2);
    }
}

#[test]
fn malformed_policies_are_refused() {
    let compile_rule = |rule: Value| {
        compile(&policy(
            serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }),
        ))
    };
    let args = serde_json::json!([{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }]);
    assert_eq!(
        compile_rule(
            serde_json::json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": args })
        ),
        Err(Error::Argument {
            syscall: "read".to_owned(),
            index: 6
        })
    );
    assert_eq!(
        compile_rule(
            serde_json::json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096 })
        ),
        Err(Error::ReturnValue(4096))
    );
    let many: Vec<Value> = (0..2000u64)
        .map(|value| {
            serde_json::json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] })
        })
        .collect();
    let long = compile(&policy(
        serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": many }),
    ));
    assert!(
        matches!(long, Err(Error::TooLong(length)) if length > 4096),
        "{long:?}"
    );
}

#[test]
fn a_policy_is_compiled_once() {
    let policy = docker_default(&Capabilities::new());
    let first = compile_cached(&policy).unwrap();
    assert!(Arc::ptr_eq(&first, &compile_cached(&policy).unwrap()));
    assert_eq!(*first, compile(&policy).unwrap());
}

#[test]
fn a_program_survives_the_way_to_another_process() {
    let program = compile(&docker_default(&Capabilities::new())).unwrap();
    let text = serde_json::to_string(&program).unwrap();
    assert_eq!(serde_json::from_str::<Program>(&text).unwrap(), program);
}
