//! Specifications against the bundles of dockerd 28.5.2, field by field.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{Place, generate};
use crate::reference::{cases, defined, id, with_id};

/// Brings dockerd's bundle into the form to compare: what Cooper does otherwise is taken out on both
/// sides, each line with its reason.
fn comparable(mut spec: Value, theirs: bool) -> Value {
    // The root is opened by the shim from layers (DESIGN section 3), its path means nothing.
    spec["root"]["path"] = Value::Null;
    // Users are resolved inside the root by the runtime, not by the daemon.
    spec["process"]["user"] = Value::Null;
    // dockerd's rules of the default devices appear twice; allowing a node twice changes nothing.
    let rules = spec["linux"]["resources"]["devices"]
        .as_array_mut()
        .unwrap();
    let mut seen = Vec::new();
    rules.retain(|rule| {
        let is_new = !seen.contains(rule);
        seen.push(rule.clone());
        is_new
    });
    // An empty object limits nothing.
    let resources = spec["linux"]["resources"].as_object_mut().unwrap();
    resources.retain(|_, value| *value != json!({}));
    // Capabilities are sets.
    for (_, set) in spec["process"]["capabilities"].as_object_mut().unwrap() {
        sort(set);
    }
    // The order of mounts matters by depth only; those of volumes carry names the daemon chose.
    let mounts = spec["mounts"].as_array_mut().unwrap();
    // --init: our own init is no file in the container (DESIGN decision 2).
    mounts.retain(|mount| mount["destination"] != "/sbin/docker-init");
    for mount in mounts.iter_mut() {
        let source = mount["source"].as_str().unwrap_or_default().to_owned();
        if source.contains("/volumes/") || source.is_empty() {
            mount["source"] = json!("volume");
        }
    }
    mounts.sort_by_key(|mount| mount["destination"].to_string());
    let args = spec["process"]["args"].as_array_mut().unwrap();
    if args
        .first()
        .is_some_and(|first| first == "/sbin/docker-init")
    {
        args.drain(..2);
    }
    let environment = &mut spec["process"]["env"];
    sort(environment);
    sort(&mut spec["linux"]["namespaces"]);
    // Which policy, not its text: that is compared in the runtime's own tests.
    if !spec["linux"]["seccomp"].is_null() {
        spec["linux"]["seccomp"] = json!("default");
    }
    // Privileged containers get the nodes of this machine.
    if spec["linux"]["devices"]
        .as_array()
        .is_some_and(|nodes| nodes.len() > 5)
    {
        spec["linux"]["devices"] = json!("all");
    }
    if theirs {
        // dockerd's own cgroup parent and directory.
        let text = spec.to_string().replace("/docker/", "/cooper/");
        let text = text.replace("/var/lib/cooper/containers", "/containers");
        return serde_json::from_str(&text).unwrap();
    }
    spec
}

fn sort(list: &mut Value) {
    if let Some(list) = list.as_array_mut() {
        list.sort_by_key(Value::to_string);
    }
}

fn differences(path: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let keys: std::collections::BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or(Value::Null)
                };
                differences(&format!("{path}.{key}"), &of(theirs), &of(ours), found);
            }
        }
        (theirs, ours) if theirs != ours => {
            found.push(format!("{path}\n    theirs {theirs}\n    ours   {ours}"));
        }
        _ => {}
    }
}

fn place<'a>(
    directory: &'a Path,
    peers: &'a BTreeMap<crate::ContainerId, super::Peer>,
) -> Place<'a> {
    Place {
        directory,
        cgroup_v2: false,
        // The recording's dockerd had no CAP_SYS_RESOURCE.
        bounding: 0x1ff_feff_ffff,
        cgroup_parent: "/cooper",
        peers,
        sources: Box::leak(Box::default()),
    }
}

#[test]
fn specifications_equal_dockerds_bundles() {
    let directory = format!("/containers/{}", id());
    let peers = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (name, case) in cases() {
        if case.spec.is_null() {
            continue;
        }
        let (mut definition, _) = defined(&case.request, &case.image).unwrap();
        // The policy itself is the runtime's; here only whether there is one.
        let asked = definition
            .host_config
            .security_opt
            .iter()
            .flatten()
            .any(|o| o.starts_with("seccomp"));
        let is_default = !definition.host_config.privileged && !asked;
        if is_default {
            let own = r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#.to_owned();
            definition
                .host_config
                .security_opt
                .get_or_insert_default()
                .push(own);
        }
        let ours = match generate(&definition, &place(Path::new(&directory), &peers)) {
            Ok(spec) => serde_json::to_value(spec).unwrap(),
            // A device of the recording's machine that this one has not.
            Err(error) if error.message.contains("no such file") => continue,
            Err(error) => panic!("{name}: {error}"),
        };
        compared += 1;
        let mut found = Vec::new();
        let theirs = comparable(with_id(&case.spec), true);
        differences("", &theirs, &comparable(ours, false), &mut found);
        wrong.extend(
            found
                .into_iter()
                .map(|difference| format!("{name}{difference}")),
        );
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 35, "{compared}");
}
