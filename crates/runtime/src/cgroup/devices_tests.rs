//! Device rules: the text of v1, and the program of v2 run by a small interpreter.

use proptest::prelude::*;

use super::*;

fn rule(text: &str) -> oci::LinuxDeviceCgroup {
    let mut fields = text.split([' ', ':']);
    let allow = fields.next() == Some("allow");
    let kind = fields.next().unwrap();
    let number = |field: Option<&str>| field.and_then(|digits| digits.parse::<i64>().ok());
    let json = serde_json::json!({
        "allow": allow, "type": kind, "major": number(fields.next()), "minor": number(fields.next()),
        "access": fields.next().unwrap_or("rwm"),
    });
    serde_json::from_value(json).unwrap()
}

fn rules(list: &[&str]) -> Rules {
    Rules::from_oci(&list.iter().map(|text| rule(text)).collect::<Vec<_>>()).unwrap()
}

/// What a device controller is asked.
#[derive(Clone, Copy, Debug)]
struct Question {
    kind: u32,
    major: u32,
    minor: u32,
    access: u32,
}

/// Runs the program as the kernel would: 64-bit registers, 32-bit arithmetic with a zero upper half.
fn run(program: &[Instruction], question: Question) -> bool {
    let context = [
        question.access << 16 | question.kind,
        question.major,
        question.minor,
    ];
    let mut registers = [0u64; 11];
    let mut at = 0;
    loop {
        let instruction = program[at];
        let (to, from) = (
            usize::from(instruction.registers & 15),
            usize::from(instruction.registers >> 4),
        );
        let immediate = instruction.immediate.cast_unsigned();
        let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap();
        at += 1;
        match instruction.code {
            LOAD_WORD => {
                assert_eq!(from, 1, "loads only from the context");
                registers[to] =
                    u64::from(context[usize::try_from(instruction.offset).unwrap() / 4]);
            }
            MOVE_IMMEDIATE => registers[to] = u64::from(immediate),
            MOVE_REGISTER => registers[to] = u64::from(low(registers[from])),
            AND_IMMEDIATE => registers[to] = u64::from(low(registers[to]) & immediate),
            SHIFT_RIGHT => registers[to] = u64::from(low(registers[to]) >> immediate),
            JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL => {
                let equal = registers[to] == i64::from(instruction.immediate).cast_unsigned();
                if equal == (instruction.code == JUMP_IF_EQUAL) {
                    at += usize::try_from(instruction.offset).unwrap();
                }
            }
            EXIT => return registers[0] != 0,
            other => panic!("operation {other:#x}"),
        }
    }
}

/// `c 1:3 rw` asked of the program.
fn allows(rules: &Rules, question: &str) -> bool {
    let mut fields = question.split([' ', ':']);
    let kind = if fields.next() == Some("b") { 1 } else { 2 };
    let mut number = || fields.next().unwrap().parse().unwrap();
    let (major, minor) = (number(), number());
    let access = u32::from(access_of(fields.next().unwrap()).unwrap());
    run(
        &program_v2(rules),
        Question {
            kind,
            major,
            minor,
            access,
        },
    )
}

#[test]
fn the_program_decides_as_the_rules_say() {
    let rules = rules(&[
        "deny a",
        "allow c 1:3 rwm",
        "allow c 136:* rw",
        "allow b *:* m",
        "allow c 10:200 r",
        "allow c 10:200 w",
    ]);
    for (question, allowed) in [
        ("c 1:3 rwm", true),
        ("c 1:5 r", false),
        ("b 1:3 r", false),
        ("c 136:77 rw", true),
        ("c 136:77 m", false),
        ("c 136:77 rwm", false),
        ("b 8:0 m", true),
        ("b 8:0 rm", false),
        ("c 10:200 rw", true),
        ("c 10:201 r", false),
    ] {
        assert_eq!(allows(&rules, question), allowed, "{question}");
    }
}

#[test]
fn an_allowing_default_denies_any_part() {
    let rules = rules(&["allow a", "deny c 1:3 w"]);
    assert!(allows(&rules, "c 1:3 r"));
    assert!(!allows(&rules, "c 1:3 rw"));
    assert!(allows(&rules, "b 1:3 w"));
}

#[test]
fn a_later_rule_wins_within_a_wider_one() {
    let rules = rules(&["deny a", "allow c 1:* rwm", "deny c 1:3 w"]);
    assert!(allows(&rules, "c 1:5 rw"));
    assert!(!allows(&rules, "c 1:3 rw"));
    assert!(allows(&rules, "c 1:3 r"));
    let current = Rules {
        allow_all: false,
        exceptions: vec![],
    };
    let error = changes_v1(&current, &rules).unwrap_err().to_string();
    assert_eq!(
        error,
        "invalid device rule: c 1:3 w within a wider rule, on cgroup v1"
    );
}

#[test]
fn rules_about_the_same_devices_become_one() {
    assert_eq!(
        rules(&["deny a", "allow c 1:3 r", "allow c 1:3 w"])
            .exceptions
            .len(),
        1
    );
    assert_eq!(
        rules(&["deny a", "allow c 1:3 rw", "deny c 1:3 rw"]).exceptions,
        []
    );
    assert_eq!(rules(&["deny a", "deny c 1:3 rw"]).exceptions, []);
    assert_eq!(
        rules(&["allow c 1:3", "deny a", "allow c 5:1 r"]),
        rules(&["allow c 5:1 r"])
    );
    // Not merged over a rule that contradicts one of them.
    let kept = rules(&["deny a", "allow c 1:3 r", "deny c 1:* r", "allow c 1:3 w"]);
    assert!(!allows(&kept, "c 1:3 r") && allows(&kept, "c 1:3 w"));
}

#[test]
fn v1_is_told_the_difference_only() {
    let list = Rules::from_list("c 1:3 rwm\nc 136:* rw\nb *:* m\n");
    assert_eq!(
        list,
        rules(&["allow c 1:3 rwm", "allow c 136:* rw", "allow b *:* m"])
    );
    let wanted = rules(&[
        "deny a",
        "allow c 1:3 r",
        "allow b *:* m",
        "allow c 5:1 rwm",
    ]);
    assert_eq!(
        changes_v1(&list, &wanted).unwrap(),
        [
            ("devices.allow", "c 5:1 rwm".to_owned()),
            ("devices.deny", "c 1:3 wm".to_owned()),
            ("devices.deny", "c 136:* rw".to_owned()),
        ]
    );
    assert_eq!(changes_v1(&wanted, &wanted).unwrap(), []);
    let open = Rules::from_list("a *:* rwm\n");
    assert!(open.allow_all);
    assert_eq!(
        changes_v1(&open, &rules(&["deny a", "allow c 1:3 r"])).unwrap(),
        [
            ("devices.deny", "a".to_owned()),
            ("devices.allow", "c 1:3 r".to_owned())
        ]
    );
    assert_eq!(
        changes_v1(&list, &rules(&["allow a", "deny c 1:3 w"])).unwrap(),
        [
            ("devices.allow", "a".to_owned()),
            ("devices.deny", "c 1:3 w".to_owned())
        ]
    );
}

#[test]
fn nonsense_is_refused() {
    for text in [
        "allow p 1:1 r",
        "allow c 1:3 x",
        "allow c 4096:0 r",
        "allow c 1:1048576 r",
        "allow c -2:0 r",
    ] {
        assert!(
            matches!(Rules::from_oci(&[rule(text)]), Err(Error::Invalid { .. })),
            "{text}"
        );
    }
}

fn any_rule() -> impl Strategy<Value = (bool, Option<bool>, Option<u32>, Option<u32>, u8)> {
    let number = || prop::option::of(0u32..3);
    (
        any::<bool>(),
        prop::option::weighted(0.9, any::<bool>()),
        number(),
        number(),
        1u8..8,
    )
}

proptest! {
    /// The normalised list and its program against a direct reading of the list: for each bit asked, the last rule
    /// that speaks of the device and the bit decides. A single bit at a time, where both views must agree.
    #[test]
    fn the_program_agrees_with_the_list(
        list in prop::collection::vec(any_rule(), 0..12),
        block: bool, major in 0u32..4, minor in 0u32..4, bit in 0u32..3,
    ) {
        let letters = |access: u8| ACCESS.iter().filter(|(_, b)| access & b != 0).map(|(c, _)| *c).collect::<String>();
        let oci: Vec<oci::LinuxDeviceCgroup> = list.iter().map(|(allow, kind, major, minor, access)| {
            let kind = match kind { None => "a", Some(true) => "b", Some(false) => "c" };
            serde_json::from_value(serde_json::json!({
                "allow": allow, "type": kind, "major": major, "minor": minor, "access": letters(*access),
            })).unwrap()
        }).collect();
        let mut allowed = false;
        for (allow, kind, rule_major, rule_minor, access) in &list {
            let covers = kind.is_none_or(|kind| {
                kind == block
                    && rule_major.is_none_or(|number| number == major)
                    && rule_minor.is_none_or(|number| number == minor)
                    && access & (1 << bit) != 0
            });
            if covers {
                allowed = *allow;
            }
        }
        let program = program_v2(&Rules::from_oci(&oci).unwrap());
        let question = Question { kind: if block { 1 } else { 2 }, major, minor, access: 1 << bit };
        prop_assert_eq!(run(&program, question), allowed);
    }
}
