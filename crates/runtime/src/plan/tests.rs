//! Plans of known specs, checked step by step: no root, no system call.

use super::*;
use crate::Error;

fn options() -> Options {
    Options {
        terminal: false,
        size: None,
        network: false,
        init: false,
        gate: false,
        preserve: 0,
        cgroups: cgroup::Version::V2,
        id: "id".to_owned(),
        hook_state: String::new(),
        seccomp: false,
    }
}

fn spec(change: impl FnOnce(&mut serde_json::Value)) -> oci::Spec {
    let mut value = serde_json::json!({
        "ociVersion": "1.0.2", "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "ro", "hidepid=2"]}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}]},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn position(plan: &Plan, wanted: impl Fn(&Step) -> bool) -> usize {
    plan.steps
        .iter()
        .position(wanted)
        .unwrap_or_else(|| panic!("no such step in {:?}", plan.steps))
}

fn refusal(spec: &oci::Spec) -> String {
    match create(spec, &options()) {
        Err(Error::Spec(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn namespaces_begin_at_clone_and_a_pooled_network_is_joined() {
    let plan = create(&spec(|_| {}), &options()).unwrap();
    assert_eq!(
        Set::from_bits(plan.begins),
        Set::MOUNT.with(Set::PID).with(Set::NET)
    );
    assert!(plan.joins_before.is_empty());
    let pooled = Options {
        network: true,
        ..options()
    };
    let plan = create(&spec(|_| {}), &pooled).unwrap();
    assert_eq!(Set::from_bits(plan.begins), Set::MOUNT.with(Set::PID));
    let slot = plan
        .sources
        .iter()
        .position(|source| *source == Source::Network)
        .unwrap();
    let kinds = Set::NET.bits();
    assert!(plan.steps.contains(&Step::Join(Join { slot, kinds })));
}

#[test]
fn a_pid_namespace_is_joined_by_a_process_in_between() {
    let plan = create(
        &spec(|value| value["linux"]["namespaces"][1]["path"] = "/proc/9/ns/pid".into()),
        &options(),
    )
    .unwrap();
    assert_eq!(plan.joins_before.len(), 1);
    assert_eq!(plan.joins_before[0].kinds, Set::PID.bits());
}

#[test]
fn a_cgroup_namespace_begins_only_inside_the_cgroup() {
    let plan = create(
        &spec(|value| value["linux"]["namespaces"][1]["type"] = "cgroup".into()),
        &options(),
    )
    .unwrap();
    assert!(!Set::from_bits(plan.begins).has(Set::CGROUP));
    assert!(plan.steps.contains(&Step::UnshareCgroup));
}

#[test]
fn the_order_of_what_takes_rights_away_is_runcs() {
    let with = |no_new_privileges: bool| {
        let spec = spec(|value| {
            value["process"]["noNewPrivileges"] = no_new_privileges.into();
            value["linux"]["maskedPaths"] = serde_json::json!(["/proc/kcore"]);
            value["linux"]["sysctl"] = serde_json::json!({"net.ipv4.ip_forward": "1"});
            value["linux"]["readonlyPaths"] = serde_json::json!(["/proc/sys"]);
            value["root"]["readonly"] = true.into();
        });
        let options = Options {
            seccomp: true,
            ..options()
        };
        create(&spec, &options).unwrap()
    };
    for plan in [with(false), with(true)] {
        let pivot = position(&plan, |step| *step == Step::Pivot);
        let sysctl = position(&plan, |step| matches!(step, Step::Sysctl { .. }));
        let readonly = position(&plan, |step| matches!(step, Step::ReadonlyPath(_)));
        let root = position(&plan, |step| *step == Step::ReadonlyRoot);
        let close = position(&plan, |step| matches!(step, Step::CloseFiles { .. }));
        let credentials = position(&plan, |step| matches!(step, Step::Credentials(_)));
        assert!(
            pivot < sysctl
                && sysctl < readonly
                && readonly < root
                && root < close
                && close < credentials
        );
    }
    let early = with(false);
    assert!(
        position(&early, |step| *step == Step::Seccomp)
            < position(&early, |step| matches!(step, Step::Credentials(_)))
    );
    let late = with(true);
    assert!(
        position(&late, |step| *step == Step::Seccomp)
            > position(&late, |step| *step == Step::AwaitStart)
    );
}

#[test]
fn mount_options_become_attributes_and_data() {
    let plan = create(&spec(|_| {}), &options()).unwrap();
    let Step::Mount(mount) = &plan.steps[position(&plan, |step| matches!(step, Step::Mount(_)))]
    else {
        panic!("no mount");
    };
    assert_eq!(mount.attributes.0, 1 | 2, "ro and nosuid");
    let MountKind::New {
        filesystem,
        options,
    } = &mount.kind
    else {
        panic!("{:?}", mount.kind);
    };
    assert_eq!(filesystem, "proc");
    assert_eq!(*options, [("hidepid".to_owned(), Some("2".to_owned()))]);
}

#[test]
fn binds_are_opened_before_and_are_slaves_unless_told_otherwise() {
    let plan = |options_of_mount: &[&str]| {
        let spec = spec(|value| {
            value["mounts"] = serde_json::json!([
                {"destination": "/x", "source": "/host", "options": options_of_mount}
            ]);
        });
        create(&spec, &options()).unwrap()
    };
    let mount =
        |plan: &Plan| match &plan.steps[position(plan, |step| matches!(step, Step::Mount(_)))] {
            Step::Mount(mount) => (**mount).clone(),
            other => panic!("{other:?}"),
        };
    let recursive = plan(&["rbind", "rro"]);
    assert!(recursive.sources.contains(&Source::Tree {
        path: "/host".into(),
        recursive: true
    }));
    assert_eq!(mount(&recursive).recursive.0, 1);
    assert_eq!(mount(&recursive).spread, [Spread::named("rslave").unwrap()]);
    let private = plan(&["bind", "private"]);
    assert_eq!(mount(&private).spread, [Spread::named("private").unwrap()]);
}

#[test]
fn default_devices_are_made_unless_dev_is_bound() {
    let count = |spec: &oci::Spec| {
        let plan = create(spec, &options()).unwrap();
        plan.steps
            .iter()
            .filter(|step| matches!(step, Step::Device(_)))
            .count()
    };
    assert_eq!(count(&spec(|_| {})), 6);
    let bound = spec(|value| {
        value["mounts"] =
            serde_json::json!([{"destination": "/dev/", "source": "/dev", "options": ["rbind"]}]);
    });
    assert_eq!(count(&bound), 0);
}

#[test]
fn specs_that_cannot_be_are_refused() {
    assert!(refusal(&spec(|value| value["process"]["cwd"] = "tmp".into())).contains("absolute"));
    assert!(
        refusal(&spec(
            |value| value["process"]["args"] = serde_json::json!([])
        ))
        .contains("args")
    );
    assert!(
        refusal(&spec(
            |value| value["linux"]["namespaces"][1]["type"] = "network".into()
        ))
        .contains("duplicated")
    );
    assert!(
        refusal(&spec(
            |value| value["linux"]["namespaces"] = serde_json::json!([])
        ))
        .contains("mount namespace")
    );
    assert!(
        refusal(&spec(
            |value| value["linux"]["namespaces"][1]["type"] = "user".into()
        ))
        .contains("mappings")
    );
    assert!(
        refusal(&spec(
            |value| value["process"]["user"]["uid"] = 4_294_967_295_u32.into()
        ))
        .contains("range")
    );
    for key in [
        "kernel.core_pattern",
        "vm.swappiness",
        "net/../kernel/panic",
    ] {
        let spec = spec(|value| value["linux"]["sysctl"] = serde_json::json!({key: "1"}));
        assert!(
            refusal(&spec).contains("separate kernel namespace"),
            "{key}"
        );
    }
}

#[test]
fn an_exec_joins_what_the_container_has_and_makes_nothing() {
    let spec = spec(|_| {});
    let plan = exec(&spec, spec.process().as_ref().unwrap(), &options()).unwrap();
    assert_eq!(
        plan.joins_before[0].kinds,
        Set::MOUNT.with(Set::PID).with(Set::NET).bits()
    );
    assert_eq!(
        plan.joins_before[0].slot,
        plan.sources.len(),
        "the pidfd comes after the plan's own"
    );
    assert_eq!(plan.begins, 0);
    assert!(
        !plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::Mount(_) | Step::Pivot))
    );
}
