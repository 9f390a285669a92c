//! What older versions of the API saw and meant: the one place where requests become the newest shape, and answers
//! the requested one.
//!
//! Each table is read whole: a rule stands below the version that ended it, and they are applied from top to
//! bottom. What depends on the version but is no change of a shape stands with its handler: content types of streams
//! (1.42), headers and conditions of wait (1.30, 1.34), `signal` of stop (1.42), `platform` of create (1.41),
//! `filter` of images (1.25). Rules were checked against dockerd 28.5.2's answers to each version.

mod answers;
mod requests;

use api::container::CreateRequest;
use api::container::inspect::ContainerInspect;
use api::container::summary::ContainerSummary;
use api::event::EventMessage;
use api::exec::{ExecConfig, ExecStart};
use api::go;
use api::image::{ImageInspect, ImageSummary};
use api::system::SystemInfo;
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::request::Requested;

/// When a rule applies.
#[derive(Debug, Clone, Copy)]
enum When {
    /// Below 1.N.
    Below(u16),
    /// Below 1.N, and without a version: unversioned is the newest plus what old clients look for.
    BelowOrUnversioned(u16),
    /// From 1.N on.
    From(u16),
    /// In every version.
    Always,
}

impl When {
    fn applies(self, requested: Requested) -> bool {
        match self {
            Self::Below(minor) => requested.below(minor),
            Self::BelowOrUnversioned(minor) => requested.below(minor) || requested.unversioned,
            Self::From(minor) => !requested.below(minor),
            Self::Always => true,
        }
    }
}

use When::{Always, Below, BelowOrUnversioned, From};

/// A rule for a request: it changes it, refuses it with the words for the client, or says what it ignored.
type RequestRule = (
    When,
    fn(&mut CreateRequest) -> Result<Option<String>, String>,
);

/// `POST /containers/create`.
#[rustfmt::skip]
const CREATE: &[RequestRule] = &[
    (Always,    requests::unlimited_pids_are_no_limit),
    (Always,    requests::the_default_network_is_the_bridge),
    (Below(40), requests::no_non_recursive_binds),
    (Below(40), requests::no_kernel_tcp_memory),
    (Below(40), requests::ipc_was_shareable),
    (Below(41), requests::cgroup_namespace_was_the_hosts_on_v1),
    (Below(42), requests::no_console_size),
    (Below(42), requests::options_of_other_mount_types_were_ignored),
    (Below(42), requests::no_create_mountpoint),
    (From(42),  requests::kernel_memory_is_gone),
    (Below(43), requests::no_annotations),
    (Below(44), requests::one_network_only),
    (Below(44), requests::no_start_interval),
    (Below(44), requests::read_only_binds_were_not_recursive),
    (Below(45), requests::no_volume_subpath),
    (Below(48), requests::no_gateway_priority),
    (Below(44), requests::no_mac_address_of_an_endpoint),
    (Below(44), requests::mac_address_of_the_container),
    (From(44),  requests::mac_address_of_the_container_is_deprecated),
];

/// A rule for a list.
type ListRule<T> = (When, fn(&mut T));

/// `GET /containers/json`.
#[rustfmt::skip]
const CONTAINERS: &[ListRule<ContainerSummary>] = &[
    (Below(46), answers::no_summary_annotations),
    (Below(48), answers::no_summary_manifest),
];

/// `GET /containers/{id}/json`.
#[rustfmt::skip]
const CONTAINER: &[ListRule<ContainerInspect>] = &[
    (Below(43), answers::no_annotations),
    (Below(45), answers::aliases_hold_the_short_id),
    (Below(48), answers::no_manifest),
];

/// `GET /images/json`.
#[rustfmt::skip]
const IMAGES: &[ListRule<ImageSummary>] = &[
    (Below(43),              answers::nameless_images_are_none),
    (BelowOrUnversioned(44), answers::virtual_size),
    (Below(48),              answers::no_descriptor),
    (Below(51),              answers::containers_were_not_counted),
];

/// A rule for an answer with fields that the newest shape lacks.
type ValueRule = (When, fn(&mut Value));

/// `GET /images/{name}/json`.
#[rustfmt::skip]
const IMAGE: &[ValueRule] = &[
    (Below(44),              answers::image_was_always_created),
    (BelowOrUnversioned(44), answers::image_virtual_size),
    (Below(45),              answers::image_container_config),
    (Below(48),              answers::image_no_descriptor),
    (Below(50),              answers::image_config_was_a_containers),
];

/// `GET /info`.
#[rustfmt::skip]
const INFO: &[ValueRule] = &[
    (Below(42), answers::info_kernel_memory),
    (Below(44), answers::info_no_runtime_status),
    (Below(46), answers::info_no_containerd),
    (Below(47), answers::info_nondistributable),
    (Below(49), answers::info_no_firewall),
    (Below(49), answers::info_expected_commits),
    (Below(50), answers::info_bridge_nf),
];

/// `GET /events`.
#[rustfmt::skip]
const EVENT: &[ListRule<EventMessage>] = &[
    (Below(52), answers::event_has_its_first_fields),
];

/// Turns a create request of an older version into the newest shape; gives the warnings for its answer.
///
/// # Errors
/// When the version does not have what the request asks for.
pub(crate) fn create(
    requested: Requested,
    request: &mut CreateRequest,
) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    for (_, rule) in CREATE.iter().filter(|(when, _)| when.applies(requested)) {
        warnings.extend(rule(request).map_err(Failure::invalid)?);
    }
    Ok(warnings)
}

/// Turns an exec of an older version into the newest shape.
pub(crate) fn exec(requested: Requested, config: &mut ExecConfig) {
    if requested.below(42) {
        config.console_size = None;
    }
}

/// Turns the start of an exec of an older version into the newest shape.
pub(crate) fn exec_start(requested: Requested, start: &mut ExecStart) {
    if requested.below(42) {
        start.console_size = None;
    }
}

fn apply<T>(rules: &[ListRule<T>], requested: Requested, item: &mut T) {
    for (_, rule) in rules.iter().filter(|(when, _)| when.applies(requested)) {
        rule(item);
    }
}

/// Gives a list of containers the requested shape.
pub(crate) fn containers(requested: Requested, containers: &mut [ContainerSummary]) {
    for container in containers {
        apply(CONTAINERS, requested, container);
    }
}

/// Gives an event the requested shape.
pub(crate) fn event(requested: Requested, event: &EventMessage) -> EventMessage {
    let mut event = event.clone();
    apply(EVENT, requested, &mut event);
    event
}

/// Gives a container the requested shape.
pub(crate) fn container(requested: Requested, container: &mut ContainerInspect) {
    apply(CONTAINER, requested, container);
}

/// Encodes a list of images in the requested shape.
pub(crate) fn images(requested: Requested, mut images: Vec<ImageSummary>) -> Vec<u8> {
    for image in &mut images {
        apply(IMAGES, requested, image);
    }
    if !requested.below(43) {
        return go::encode(&images);
    }
    // Until 1.42 an image with a tag but without a digest had `null` there.
    let mut value = to_value(&images);
    for image in value.as_array_mut().into_iter().flatten() {
        answers::digests_were_null(image);
    }
    go::encode(&value)
}

/// Encodes an image in the requested shape.
pub(crate) fn image(requested: Requested, image: &ImageInspect) -> Vec<u8> {
    encode(IMAGE, requested, image)
}

/// Encodes the engine's description in the requested shape.
pub(crate) fn info(requested: Requested, info: &SystemInfo) -> Vec<u8> {
    encode(INFO, requested, info)
}

/// The newest shape is encoded as it is; others go through their rules.
fn encode<T: Serialize>(rules: &[ValueRule], requested: Requested, answer: &T) -> Vec<u8> {
    if !rules.iter().any(|(when, _)| when.applies(requested)) {
        return go::encode(answer);
    }
    let mut value = to_value(answer);
    for (_, rule) in rules.iter().filter(|(when, _)| when.applies(requested)) {
        rule(&mut value);
    }
    go::encode(&value)
}

fn to_value<T: Serialize>(answer: &T) -> Value {
    serde_json::to_value(answer).expect("wire types have string keys")
}

#[cfg(test)]
mod tests;
