//! `docker inspect` of a container. Pure: renders a view and the paths beside it.

use std::path::{Path, PathBuf};

use api::container::config::Config;
use api::container::inspect::{ContainerInspect, State};
use api::image::GraphDriver;
use api::time::Time;

use crate::list::View;
use crate::{Definition, Snapshot};

/// The name of the storage driver that clients know: what lies on the disk is overlayfs.
pub const STORAGE_DRIVER: &str = "overlay2";

/// Where a container's files lie.
#[derive(Clone, Debug)]
pub struct Paths<'a> {
    /// The container's own directory.
    pub directory: &'a Path,
    /// The image's layers, topmost first.
    pub layers: &'a [PathBuf],
    /// The directory of the container whose network it joins, with the network's files.
    pub network_directory: Option<&'a Path>,
}

/// Renders a container whole.
pub fn inspect(view: &View, paths: &Paths<'_>, exec_ids: Vec<String>) -> ContainerInspect {
    let snapshot = &view.snapshot;
    let definition = &snapshot.definition;
    let has_run = snapshot.facts.started_at_ns != 0;
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    // The files of the network are there from the first start on.
    let network = paths.network_directory.unwrap_or(paths.directory);
    let file = |name: &str| {
        if has_run {
            text(network.join(name))
        } else {
            String::new()
        }
    };
    let has_log = has_run
        && matches!(
            definition.host_config.log_config.r#type.as_str(),
            "json-file"
        );
    let log = paths.directory.join(format!("{}-json.log", definition.id));
    ContainerInspect {
        id: definition.id.to_string(),
        created: Time::from_unix_nanos(definition.created_ns),
        path: definition.path.clone(),
        args: definition.args.clone(),
        state: state(view),
        image: definition.image.clone(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: if has_log { text(log) } else { String::new() },
        name: format!("/{}", snapshot.name),
        restart_count: snapshot.facts.restart_count.into(),
        driver: STORAGE_DRIVER.to_owned(),
        platform: "linux".to_owned(),
        mount_label: String::new(),
        process_label: String::new(),
        app_armor_profile: String::new(),
        exec_ids: Some(exec_ids).filter(|ids| !ids.is_empty()),
        host_config: definition.host_config.clone(),
        graph_driver: graph_driver(snapshot, paths),
        size_rw: view.sizes.map(|sizes| sizes.rw),
        size_root_fs: view.sizes.map(|sizes| sizes.root_fs),
        mounts: definition.mounts.clone(),
        config: config(definition),
        network_settings: view.network.clone(),
        image_manifest_descriptor: None,
    }
}

/// With the hardware address that was asked for, where older clients look for it.
fn config(definition: &Definition) -> Config {
    let mode = definition.host_config.network_mode.as_str();
    let endpoint = definition.endpoints.get(mode).and_then(Option::as_ref);
    let mac_address = endpoint.map(|endpoint| endpoint.mac_address.clone());
    Config {
        mac_address: mac_address.unwrap_or_default(),
        ..definition.config.clone()
    }
}

fn state(view: &View) -> State {
    use crate::Status;
    let snapshot = &view.snapshot;
    let facts = &snapshot.facts;
    let time = |at_ns: i64| {
        if at_ns == 0 {
            Time::ZERO
        } else {
            Time::from_unix_nanos(at_ns)
        }
    };
    let has_process = matches!(snapshot.status, Status::Running | Status::Paused);
    State {
        status: snapshot.status.as_str().to_owned(),
        running: snapshot.status.is_running(),
        paused: snapshot.status == Status::Paused,
        restarting: snapshot.status == Status::Restarting,
        oom_killed: facts.oom_killed,
        dead: snapshot.status == Status::Dead,
        pid: if has_process {
            facts.pid.map_or(0, i64::from)
        } else {
            0
        },
        exit_code: facts.exit_code.into(),
        error: facts.error.clone(),
        started_at: time(facts.started_at_ns),
        finished_at: time(facts.finished_at_ns),
        health: view.health.clone(),
    }
}

fn graph_driver(snapshot: &Snapshot, paths: &Paths<'_>) -> GraphDriver {
    let layers: Vec<_> = paths
        .layers
        .iter()
        .map(|layer| layer.to_string_lossy())
        .collect();
    let own = |name: &str| paths.directory.join(name).to_string_lossy().into_owned();
    let merged = snapshot.facts.pid.map(|pid| format!("/proc/{pid}/root"));
    let data = [
        ("ID", snapshot.id().to_string()),
        ("LowerDir", layers.join(":")),
        // Nothing of ours stands in the host's mount table: the whole tree is seen through a process in it.
        ("MergedDir", merged.unwrap_or_else(|| own("merged"))),
        ("UpperDir", own("upper")),
        ("WorkDir", own("work")),
    ];
    let data = data.map(|(key, value)| (key.to_owned(), value));
    GraphDriver {
        data: Some(data.into()),
        name: STORAGE_DRIVER.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::reference::{Case, cases, defined, id, with_id};
    use crate::{Facts, Status};

    /// A container as it was when the answer was recorded: what clocks, kernels and networks decide is
    /// taken from the answer.
    fn view(case: &Case, answer: &Value) -> View {
        let (mut definition, _) = defined(&case.request, &case.image).unwrap();
        let ns = |value: &Value| -> i64 {
            let time: Time = value.as_str().unwrap().parse().unwrap();
            if time.is_zero() { 0 } else { time.unix_nanos() }
        };
        definition.created_ns = ns(&answer["Created"]);
        let mounts = &answer["Mounts"];
        definition.mounts = serde_json::from_value(mounts.clone()).unwrap();
        let state = &answer["State"];
        let status = match state["Status"].as_str().unwrap() {
            "created" => Status::Created,
            "running" => Status::Running,
            _ => Status::Exited,
        };
        let number = |key: &str| state[key].as_i64().unwrap();
        let facts = Facts {
            pid: u32::try_from(number("Pid")).ok(),
            started_at_ns: ns(&state["StartedAt"]),
            finished_at_ns: ns(&state["FinishedAt"]),
            exit_code: i32::try_from(number("ExitCode")).unwrap(),
            error: state["Error"].as_str().unwrap().to_owned(),
            ..Facts::default()
        };
        let health = serde_json::from_value(state["Health"].clone()).unwrap();
        let name = answer["Name"].as_str().unwrap().trim_start_matches('/');
        View {
            snapshot: Arc::new(Snapshot {
                generation: 1,
                definition: Arc::new(definition),
                name: name.into(),
                status,
                facts,
                exits: 0,
                removed: false,
                removal_error: String::new(),
            }),
            network: serde_json::from_value(answer["NetworkSettings"].clone()).unwrap(),
            health,
            sizes: None,
        }
    }

    #[test]
    fn every_field_is_as_dockerds() {
        let mut wrong = Vec::new();
        let mut compared = 0;
        let directory = format!("/var/lib/docker/containers/{}", id());
        for (name, case) in cases() {
            for (moment, changes) in [
                ("created", &json!({})),
                ("running", &case.running),
                ("stopped", &case.stopped),
            ] {
                let mut answer = with_id(&case.created);
                let changes = with_id(changes);
                // A container that removes itself is gone, or on its way.
                let is_gone = |c: &serde_json::Map<String, Value>| {
                    c.contains_key("message")
                        || c.get("GraphDriver")
                            .is_some_and(|driver| driver["Data"].is_null())
                };
                let Some(changes) = changes.as_object().filter(|c| !is_gone(c)) else {
                    continue;
                };
                for (key, value) in changes {
                    answer[key] = value.clone();
                }
                let view = view(&case, &answer);
                let paths = Paths {
                    directory: Path::new(&directory),
                    layers: &[],
                    network_directory: None,
                };
                let mut ours = serde_json::to_value(inspect(&view, &paths, Vec::new())).unwrap();
                // Layers lie elsewhere (DESIGN section 3); the keys are the same.
                let keys = |value: &Value| -> Vec<String> {
                    value["GraphDriver"]["Data"]
                        .as_object()
                        .unwrap()
                        .keys()
                        .cloned()
                        .collect()
                };
                assert_eq!(keys(&ours), keys(&answer), "{name}");
                for value in [&mut ours, &mut answer] {
                    value["GraphDriver"]["Data"] = Value::Null;
                }
                for (key, theirs) in answer.as_object().unwrap() {
                    compared += 1;
                    if ours[key] != *theirs {
                        wrong.push(format!(
                            "{name} {moment} {key}\n  theirs {theirs}\n  ours   {}",
                            ours[key]
                        ));
                    }
                }
                let order = |value: &Value| -> Vec<String> {
                    value.as_object().unwrap().keys().cloned().collect()
                };
                assert_eq!(order(&ours), order(&answer), "{name}");
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
        assert!(compared > 2_000, "{compared}");
    }

    #[test]
    fn lines_of_the_list_are_as_dockerds() {
        let mut wrong = Vec::new();
        for (name, case) in cases() {
            for (theirs, changes) in [
                (&case.listed_created, &json!({})),
                (&case.listed_running, &case.running),
            ] {
                let theirs = with_id(theirs);
                let Some(line) = theirs.get(0) else {
                    continue;
                };
                let mut answer = with_id(&case.created);
                let changes = with_id(changes);
                for (key, value) in changes.as_object().unwrap() {
                    answer[key] = value.clone();
                }
                let view = view(&case, &answer);
                let now_ns = view.snapshot.facts.started_at_ns;
                let image = line["ImageID"].as_str().unwrap().to_owned();
                let lookups = crate::list::Lookups {
                    container: &|_| unreachable!("no filter asks"),
                    image: &|_| Some(image.clone()),
                    descends: &|_, _| unreachable!("no filter asks"),
                };
                let options = api::options::ListOptions {
                    all: true,
                    ..Default::default()
                };
                let ours = crate::list::list(vec![view], &options, &lookups, now_ns).unwrap();
                let ours = serde_json::to_value(&ours[0]).unwrap();
                for (key, theirs) in line.as_object().unwrap() {
                    let sorted = |value: &Value| {
                        let mut list: Vec<String> = value
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(Value::to_string)
                            .collect();
                        list.sort();
                        list
                    };
                    let equal = if key == "Ports" || key == "Mounts" {
                        sorted(theirs) == sorted(&ours[key])
                    } else {
                        *theirs == ours[key]
                    };
                    if !equal {
                        wrong.push(format!(
                            "{name} {key}\n  theirs {theirs}\n  ours   {}",
                            ours[key]
                        ));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    }
}
