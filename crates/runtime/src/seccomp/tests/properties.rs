//! Random policies: the program decides as a direct reading of the rules does.

use super::*;

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
