//! Answers recorded from dockerd 28.5.2 (`reference/*.json`; the command is in each), for tests alone.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::definition::{Controllers, Definition, Host, Machine, Origin, define};
use crate::{ContainerId, Defaults, Error};

/// One container from its request to its end.
#[derive(Deserialize)]
pub(crate) struct Case {
    /// Body of create.
    pub(crate) request: Value,
    /// Inspect of the image.
    pub(crate) image: Value,
    /// Warnings of create.
    pub(crate) warnings: Vec<String>,
    /// Inspect after create.
    pub(crate) created: Value,
    /// The list's entry after create.
    pub(crate) listed_created: Value,
    /// The list's entry while it ran.
    pub(crate) listed_running: Value,
    /// What inspect answered otherwise while it ran.
    pub(crate) running: Value,
    /// What inspect answered otherwise after it was killed.
    pub(crate) stopped: Value,
    /// The runtime's bundle configuration; its seccomp policy is replaced by the word `default`.
    pub(crate) spec: Value,
}

/// One answer of create.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pub(crate) label: String,
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) request: Value,
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    /// Fields of `HostConfig` that differ from those of a plain container.
    #[serde(default)]
    pub(crate) host_config: BTreeMap<String, Value>,
    /// Fields of `Config` that differ from those of a plain container.
    #[serde(default)]
    pub(crate) config: BTreeMap<String, Value>,
}

fn directory() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reference")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(directory().join(name)).unwrap()
}

/// All containers, by file name without ending.
pub(crate) fn cases() -> Vec<(String, Case)> {
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .filter(|name| name != "create-answers")
        .collect();
    names.sort();
    assert!(names.len() > 35, "{names:?}");
    names
        .into_iter()
        .map(|name| {
            let case = serde_json::from_str(&read(&format!("{name}.json"))).unwrap();
            (name, case)
        })
        .collect()
}

/// All answers of create.
pub(crate) fn answers() -> Vec<Answer> {
    #[derive(Deserialize)]
    struct File {
        answers: Vec<Answer>,
    }
    let file: File = serde_json::from_str(&read("create-answers.json")).unwrap();
    assert!(file.answers.len() > 300);
    file.answers
}

/// The id of the containers that tests make.
pub(crate) fn id() -> ContainerId {
    "0123456789ab".repeat(6)[..64].parse().unwrap()
}

/// The machine that the answers were recorded on.
pub(crate) fn machine() -> Machine {
    Machine {
        cpus: vec![0, 1],
        memory_nodes: vec![0],
        blkio_weight: false,
        blkio_weight_device: false,
        controllers: Controllers {
            memory: true,
            swap: true,
            swappiness: true,
            oom_kill_disable: true,
            tcp_memory: true,
            cpu: true,
            cpuset: true,
            pids: true,
            io_rates: true,
        },
    }
}

/// Makes a definition as on that machine.
pub(crate) fn defined(request: &Value, image: &Value) -> Result<(Definition, Vec<String>), Error> {
    let raw = serde_json::json!({ "config": image["Config"] });
    let config: image::ImageConfig = serde_json::from_value(raw).unwrap();
    let image_id = image["Id"].as_str().unwrap_or_default();
    let body = serde_json::to_vec(request).unwrap();
    let request = request_of(&body);
    let has_image = !request.config.image.is_empty();
    let nobody = |name: &str| -> Result<ContainerId, Error> {
        Err(Error::not_found(format!("No such container: {name}")))
    };
    let host = Host {
        defaults: &Defaults::default(),
        machine: &machine(),
        runtimes: &["runc".to_owned()],
        cgroup_v2: false,
        hostname: "vm",
        find: &nobody,
        mounts_of: &|_| Vec::new(),
        exists: &|path| path != "/nope-here",
    };
    let origin = Origin {
        id: id(),
        name: "probe",
        created_ns: 0,
        image: has_image.then_some((image_id, &config)),
    };
    define(request, origin, &host)
}

fn request_of(body: &[u8]) -> api::container::CreateRequest {
    let value: Value = serde_json::from_slice(body).unwrap();
    let part = |key: &str| match &value[key] {
        Value::Null => b"{}".to_vec(),
        part => serde_json::to_vec(part).unwrap(),
    };
    let networking: api::network::NetworkingConfig =
        api::go::decode(&part("NetworkingConfig")).unwrap();
    api::container::CreateRequest {
        config: api::go::decode(body).unwrap(),
        host_config: api::go::decode(&part("HostConfig")).unwrap(),
        endpoints: networking.endpoints_config.unwrap_or_default(),
    }
}

/// Puts the id of [`id`] where the recording has a mark for the container's own.
pub(crate) fn with_id(value: &Value) -> Value {
    let text = value.to_string();
    let text = text
        .replace("<id12>", id().short())
        .replace("<id>", id().as_str());
    serde_json::from_str(&text).unwrap()
}
