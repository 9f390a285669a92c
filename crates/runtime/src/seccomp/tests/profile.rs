//! Our encoding of Docker's default policy decides as Docker's profile does, read on its own.

use super::*;

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
