//! What is journaled about volumes (moby `daemon/events.go`, `LogVolumeEvent`).

use std::collections::BTreeMap;

use api::event::EventMessage;

use super::DRIVER;
use crate::Definition;
use crate::events::event;

/// A volume came or went.
pub(super) fn plain(action: &str, name: &str) -> EventMessage {
    let attributes = BTreeMap::from([("driver".to_owned(), DRIVER.to_owned())]);
    event("volume", action, name, attributes)
}

/// What happens to the volumes of a container right before this event of its own: mounted before it starts,
/// unmounted before it has died.
pub(crate) fn around(definition: &Definition, action: &str) -> Vec<EventMessage> {
    let volumes = definition
        .mounts
        .iter()
        .filter(|point| point.r#type == "volume");
    let of = |action: &str, name: &str, own: &[(&str, &str)]| {
        let mut attributes = BTreeMap::from([
            ("container".to_owned(), definition.id.to_string()),
            ("driver".to_owned(), DRIVER.to_owned()),
        ]);
        attributes.extend(
            own.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        event("volume", action, name, attributes)
    };
    match action {
        "start" => volumes
            .map(|point| {
                let own = [
                    ("destination", point.destination.as_str()),
                    ("propagation", point.propagation.as_str()),
                    ("read/write", if point.rw { "true" } else { "false" }),
                ];
                of("mount", &point.name, &own)
            })
            .collect(),
        "die" => volumes
            .map(|point| of("unmount", &point.name, &[]))
            .collect(),
        _ => Vec::new(),
    }
}
