//! What each row of the answers' tables does.

use api::container::inspect::ContainerInspect;
use api::container::summary::ContainerSummary;
use api::event::EventMessage;
use api::image::ImageSummary;
use serde_json::{Map, Value, json};

/// Digits of a short id.
const SHORT_ID: usize = 12;

pub(super) fn no_summary_annotations(container: &mut ContainerSummary) {
    container.host_config.annotations = None;
}

pub(super) fn no_summary_manifest(container: &mut ContainerSummary) {
    container.image_manifest_descriptor = None;
}

/// What an event was before it had a type: of containers and images alone.
pub(super) fn event_has_its_first_fields(event: &mut EventMessage) {
    if !matches!(event.r#type.as_str(), "container" | "image") {
        return;
    }
    event.status.clone_from(&event.action);
    event.id.clone_from(&event.actor.id);
    if event.r#type == "container"
        && let Some(image) = event.actor.attributes.get("image")
    {
        event.from.clone_from(image);
    }
}

pub(super) fn no_annotations(container: &mut ContainerInspect) {
    container.host_config.annotations = None;
}

pub(super) fn no_manifest(container: &mut ContainerInspect) {
    container.image_manifest_descriptor = None;
}

pub(super) fn aliases_hold_the_short_id(container: &mut ContainerInspect) {
    let short = container.id.get(..SHORT_ID).unwrap_or_default().to_owned();
    let networks = container.network_settings.networks.iter_mut().flatten();
    for (name, endpoint) in networks {
        if matches!(name.as_str(), "bridge" | "host" | "none") {
            continue;
        }
        if let Some(endpoint) = endpoint {
            let aliases = endpoint.aliases.get_or_insert_default();
            if !aliases.contains(&short) {
                aliases.push(short.clone());
            }
        }
    }
}

pub(super) fn nameless_images_are_none(image: &mut ImageSummary) {
    if image.repo_tags.is_empty() && image.repo_digests.is_empty() {
        image.repo_tags = vec!["<none>:<none>".to_owned()];
        image.repo_digests = vec!["<none>@<none>".to_owned()];
    }
}

pub(super) fn digests_were_null(image: &mut Value) {
    for field in ["RepoDigests", "RepoTags"] {
        if image[field] == json!([]) {
            image[field] = Value::Null;
        }
    }
}

pub(super) fn virtual_size(image: &mut ImageSummary) {
    image.virtual_size = image.size;
}

pub(super) fn no_descriptor(image: &mut ImageSummary) {
    image.descriptor = None;
}

pub(super) fn containers_were_not_counted(image: &mut ImageSummary) {
    image.containers = -1;
}

pub(super) fn image_was_always_created(image: &mut Value) {
    if image.get("Created").is_none() {
        insert_after(image, "Comment", "Created", json!("0001-01-01T00:00:00Z"));
    }
}

pub(super) fn image_virtual_size(image: &mut Value) {
    let size = image["Size"].clone();
    insert_after(image, "Size", "VirtualSize", size);
}

/// The container that an image was made from was not known for years before the field went.
pub(super) fn image_container_config(image: &mut Value) {
    let config = api::container::config::Config::default();
    let config = serde_json::to_value(config).expect("wire types have string keys");
    insert_after(image, "Created", "ContainerConfig", config);
}

pub(super) fn image_no_descriptor(image: &mut Value) {
    remove(image, "Descriptor");
}

/// Fields that only containers have, at their zero values. dockerd writes this object through a map: sorted.
pub(super) fn image_config_was_a_containers(image: &mut Value) {
    let Some(config) = image.get_mut("Config").and_then(Value::as_object_mut) else {
        return;
    };
    for field in ["Domainname", "Hostname", "Image"] {
        config.entry(field).or_insert(json!(""));
    }
    for field in [
        "AttachStderr",
        "AttachStdin",
        "AttachStdout",
        "OpenStdin",
        "StdinOnce",
        "Tty",
    ] {
        config.entry(field).or_insert(json!(false));
    }
    config.sort_keys();
}

pub(super) fn info_kernel_memory(info: &mut Value) {
    insert_after(info, "SwapLimit", "KernelMemory", json!(true));
}

pub(super) fn info_no_runtime_status(info: &mut Value) {
    for runtime in info["Runtimes"]
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
    {
        remove(runtime, "status");
    }
}

pub(super) fn info_no_containerd(info: &mut Value) {
    remove(info, "Containerd");
}

pub(super) fn info_nondistributable(info: &mut Value) {
    if let Some(registries) = info
        .get_mut("RegistryConfig")
        .and_then(Value::as_object_mut)
    {
        registries.insert(
            "AllowNondistributableArtifactsCIDRs".to_owned(),
            Value::Null,
        );
        registries.insert(
            "AllowNondistributableArtifactsHostnames".to_owned(),
            Value::Null,
        );
        registries.sort_keys();
    }
}

pub(super) fn info_no_firewall(info: &mut Value) {
    remove(info, "FirewallBackend");
}

pub(super) fn info_expected_commits(info: &mut Value) {
    for field in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
        if let Some(commit) = info.get_mut(field).and_then(Value::as_object_mut)
            && let Some(id) = commit.get("ID").filter(|id| **id != json!("")).cloned()
        {
            commit.insert("Expected".to_owned(), id);
        }
    }
}

pub(super) fn info_bridge_nf(info: &mut Value) {
    insert_after(info, "IPv4Forwarding", "BridgeNfIptables", json!(false));
    insert_after(info, "BridgeNfIptables", "BridgeNfIp6tables", json!(false));
}

fn remove(value: &mut Value, field: &str) {
    if let Some(object) = value.as_object_mut() {
        object.shift_remove(field);
    }
}

/// Puts a field behind another one; clients do not mind the order, but people compare answers.
fn insert_after(value: &mut Value, before: &str, field: &str, new: Value) {
    let Some(object) = value.as_object_mut() else {
        return;
    };
    let at = object
        .keys()
        .position(|key| key == before)
        .map_or(object.len(), |at| at + 1);
    object.shift_remove(field);
    object.shift_insert(at.min(object.len()), field.to_owned(), new);
}
