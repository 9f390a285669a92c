//! Programs are run by an interpreter and compared with a direct reading of the policy.

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::table::Abi;
use super::*;
use crate::oci::{Capabilities, Capability, LinuxSeccomp};

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

/// A profile in Docker's format, read on its own: nothing of `default`, `policy` or `assemble` is used.
struct Reference<'a> {
    rules: Vec<&'a Value>,
    highest: HashMap<Abi, u32>,
}

impl<'a> Reference<'a> {
    fn new(profile: &'a Value, native: Abi, capabilities: &[&str]) -> Self {
        let goarch = if native == Abi::Aarch64 {
            "arm64"
        } else {
            "amd64"
        };
        let listed = |rule: &Value, part: &str, list: &str, wanted: &dyn Fn(&str) -> bool| {
            rule[part][list].as_array().map(|list| {
                list.iter()
                    .map(|item| wanted(item.as_str().unwrap()))
                    .collect::<Vec<_>>()
            })
        };
        let holds = |rule: &&Value| {
            let has_cap = |cap: &str| capabilities.contains(&cap);
            let is_arch = |arch: &str| arch == goarch;
            let arch_in = listed(rule, "includes", "arches", &is_arch)
                .is_none_or(|hits| hits.contains(&true));
            let caps_in = listed(rule, "includes", "caps", &has_cap)
                .is_none_or(|hits| !hits.contains(&false));
            let arch_out = listed(rule, "excludes", "arches", &is_arch)
                .is_some_and(|hits| hits.contains(&true));
            let caps_out =
                listed(rule, "excludes", "caps", &has_cap).is_some_and(|hits| hits.contains(&true));
            // `minKernel` is below our floor wherever it stands.
            arch_in && caps_in && !arch_out && !caps_out
        };
        let rules: Vec<&Value> = profile["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .filter(holds)
            .collect();
        let mut highest = HashMap::new();
        for name in rules
            .iter()
            .flat_map(|rule| rule["names"].as_array().unwrap())
        {
            for abi in [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64, Abi::Arm] {
                let number = abi.number(name.as_str().unwrap()).unwrap_or(0);
                let entry = highest.entry(abi).or_insert(0);
                *entry = number.max(*entry);
            }
        }
        Self { rules, highest }
    }

    fn decide(&self, abi: Abi, number: u32, name: Option<&str>, args: [u64; 6]) -> u32 {
        if number > self.highest[&abi] {
            return ERRNO | 38;
        }
        let Some(name) = name else { return ERRNO | 1 };
        let about = |rule: &&&Value| {
            rule["names"]
                .as_array()
                .unwrap()
                .iter()
                .any(|other| other == name)
        };
        let action = |rule: &Value| match rule["action"].as_str().unwrap() {
            "SCMP_ACT_ALLOW" => ALLOW,
            "SCMP_ACT_ERRNO" => ERRNO | u32::try_from(rule["errnoRet"].as_u64().unwrap()).unwrap(),
            other => panic!("{other}"),
        };
        let is_plain = |rule: &&&Value| rule["args"].as_array().is_none_or(Vec::is_empty);
        if let Some(rule) = self.rules.iter().filter(about).find(is_plain) {
            return action(rule);
        }
        let wide = matches!(abi, Abi::X86_64 | Abi::Aarch64);
        let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
        let matches = |rule: &&&Value| {
            rule["args"].as_array().unwrap().iter().all(|arg| {
                let index = usize::try_from(arg["index"].as_u64().unwrap()).unwrap();
                let (found, value) = (cut(args[index]), cut(arg["value"].as_u64().unwrap()));
                match arg["op"].as_str().unwrap() {
                    "SCMP_CMP_EQ" => found == value,
                    "SCMP_CMP_LT" => found < value,
                    "SCMP_CMP_GT" => found > value,
                    "SCMP_CMP_MASKED_EQ" => {
                        found & value == cut(arg["valueTwo"].as_u64().unwrap_or(0))
                    }
                    other => panic!("{other}"),
                }
            })
        };
        self.rules
            .iter()
            .filter(about)
            .find(matches)
            .map_or(ERRNO | 1, |rule| action(rule))
    }
}

/// Values at which a rule of the profile changes its mind, and their like in the upper half.
const ARGUMENTS: [u64; 22] = [
    0,
    1,
    8,
    17,
    37,
    38,
    39,
    40,
    41,
    0x2_0000,
    0x2_0008,
    0x2_0009,
    0x0200_0000,
    0x1000_0000,
    0x4000_0011,
    0x7e02_0000,
    0x0100_0f00,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0026,
    0xffff_ffff_0000_0000,
    u64::MAX,
];

#[test]
fn decisions_are_those_of_dockers_profile() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/spec/seccomp-default.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!(
            "skipped: the comparison needs ../shared, which is absent ({})",
            path.display()
        );
        return;
    };
    let profile: Value = serde_json::from_str(&text).unwrap();
    let mut sets: Vec<Capabilities> = vec![Capabilities::new(), docker_capabilities()];
    let known: Vec<Capability> = default::capabilities().collect();
    sets.extend(
        known
            .iter()
            .map(|capability| [*capability].into_iter().collect()),
    );
    sets.push(known.iter().copied().collect());
    let mut compared = 0u64;
    for native in [Abi::X86_64, Abi::Aarch64] {
        for capabilities in &sets {
            let names: Vec<String> = capabilities
                .iter()
                .map(|capability| format!("CAP_{capability}"))
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let reference = Reference::new(&profile, native, &names);
            let program = compile_for(&default::policy(capabilities, native), native).unwrap();
            check_form(&program);
            for abi in Abi::of_machine(native) {
                compared += compare(&reference, &program, *abi, &names);
            }
        }
    }
    println!("compared {compared} decisions");
    assert!(compared > 1_000_000);
}

fn compare(reference: &Reference<'_>, program: &Program, abi: Abi, capabilities: &[&str]) -> u64 {
    let profile_names: Vec<&str> = reference
        .rules
        .iter()
        .flat_map(|rule| rule["names"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    let by_number: HashMap<u32, &str> = profile_names
        .iter()
        .filter_map(|name| Some((abi.number(name)?, *name)))
        .collect();
    let base = if abi == Abi::X32 { table::X32_BIT } else { 0 };
    let edges = [1000, 0x0f_ffff, 0x3fff_ffff];
    let mut compared = 0;
    for number in (0..700)
        .chain(edges)
        .map(|number| number | base)
        .chain([u32::MAX])
    {
        if abi != Abi::X32 && number == u32::MAX && program_has_x32(program) {
            continue;
        }
        for first in ARGUMENTS {
            let args = [first, first, 0, 0, 0, 0];
            let wanted = reference.decide(abi, number, by_number.get(&number).copied(), args);
            let found = decide(program, abi, number, args);
            assert_eq!(
                found,
                wanted,
                "{abi:?} {number} {:?} {first:#x} {capabilities:?}",
                by_number.get(&number)
            );
            compared += 1;
        }
    }
    compared
}

/// -1 lies in the x32 half of the number space: it is compared there.
fn program_has_x32(program: &Program) -> bool {
    decide(program, Abi::X32, table::X32_BIT, [0; 6]) == ALLOW
}

#[test]
fn the_profile_knows_every_capability_that_matters() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/spec/seccomp-default.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!(
            "skipped: the comparison needs ../shared, which is absent ({})",
            path.display()
        );
        return;
    };
    let profile: Value = serde_json::from_str(&text).unwrap();
    let mut named: Vec<&str> = profile["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["includes"]["caps"].as_array().into_iter().flatten())
        .map(|cap| cap.as_str().unwrap())
        .collect();
    named.sort_unstable();
    named.dedup();
    let mut ours: Vec<String> = default::capabilities()
        .map(|capability| format!("CAP_{capability}"))
        .collect();
    ours.sort_unstable();
    assert_eq!(ours, named);
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

/// One rule of a random policy.
type AnyRule = (Vec<&'static str>, u8, Vec<(usize, u64, u64, u8)>);

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
const NAMES: [&str; 12] = [
    "read",
    "write",
    "open",
    "futex",
    "socket",
    "clone",
    "socketcall",
    "mmap2",
    "rt_sigaction",
    "mseal",
    "openat2",
    "nope",
];

/// Values around the edges of both halves.
fn any_value() -> impl Strategy<Value = u64> {
    let half = || {
        prop_oneof![
            Just(0u64),
            Just(1),
            Just(2),
            Just(0x7fff_ffff),
            Just(0x8000_0000),
            Just(0xffff_ffff)
        ]
    };
    (half(), half()).prop_map(|(upper, lower)| upper << 32 | lower)
}

fn any_rule() -> impl Strategy<Value = AnyRule> {
    let arg = (0usize..3, any_value(), any_value(), 0u8..7);
    (
        prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4),
        0u8..4,
        prop::collection::vec(arg, 0..3),
    )
}

fn action_of(choice: u8) -> (&'static str, Option<u32>, u32) {
    match choice {
        0 => ("SCMP_ACT_ALLOW", None, ALLOW),
        1 => ("SCMP_ACT_ERRNO", Some(13), ERRNO | 13),
        2 => ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        _ => ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
    }
}

/// The rules of combination in the words of `policy`'s documentation, one call at a time.
fn direct(default: u8, rules: &[AnyRule], abi: Abi, name: &str, args: [u64; 6]) -> u32 {
    let number = abi.number(name).unwrap();
    let highest = rules
        .iter()
        .flat_map(|(names, ..)| names)
        .filter_map(|name| abi.number(name))
        .max();
    let refuses = matches!(default, 1 | 3);
    if refuses && highest.is_some_and(|highest| number > highest) {
        return ERRNO | 38;
    }
    let about = || {
        rules
            .iter()
            .filter(|(names, action, _)| *action != default && names.contains(&name))
    };
    if let Some((_, action, _)) = about().find(|(.., args)| args.is_empty()) {
        return action_of(*action).2;
    }
    let cut = |value: u64| {
        if abi.is_narrow() {
            value & 0xffff_ffff
        } else {
            value
        }
    };
    let holds = |(index, value, two, operator): &(usize, u64, u64, u8)| {
        let (found, value) = (cut(args[*index]), cut(*value));
        match operator {
            0 => found != value,
            1 => found < value,
            2 => found <= value,
            3 => found == value,
            4 => found >= value,
            5 => found > value,
            _ => found & value == cut(*two),
        }
    };
    let matched = about().find(|(.., conditions)| {
        let twice = conditions.len() == 2 && conditions[0].0 == conditions[1].0;
        if twice {
            conditions.iter().any(holds)
        } else {
            conditions.iter().all(holds)
        }
    });
    action_of(matched.map_or(default, |(_, action, _)| *action)).2
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn programs_decide_as_their_policies(
        default in 0u8..4,
        rules in prop::collection::vec(any_rule(), 0..8),
        calls in prop::collection::vec((prop::sample::select(&NAMES[..11]), any_value(), any_value(), any_value()), 20),
    ) {
        let json = |(names, action, args): &AnyRule| {
            let args: Vec<Value> = args.iter().map(|(index, value, two, operator)| serde_json::json!({
                "index": index, "value": value, "valueTwo": two, "op": OPERATORS[usize::from(*operator)],
            })).collect();
            let (action, data, _) = action_of(*action);
            serde_json::json!({ "names": names, "action": action, "errnoRet": data, "args": args })
        };
        let (action, data, _) = action_of(default);
        let policy = policy(serde_json::json!({
            "defaultAction": action, "defaultErrnoRet": data,
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"],
            "syscalls": rules.iter().map(json).collect::<Vec<_>>(),
        }));
        for native in [Abi::X86_64, Abi::Aarch64] {
            let program = compile_for(&policy, native).unwrap();
            check_form(&program);
            for abi in Abi::of_machine(native) {
                for (name, a, b, c) in &calls {
                    let args = [*a, *b, *c, 0, 0, 0];
                    let Some(number) = abi.number(name) else { continue };
                    let found = decide(&program, *abi, number, args);
                    prop_assert_eq!(found, direct(default, &rules, *abi, name, args), "{:?} {} {:?}", abi, name, args);
                }
            }
        }
    }
}
