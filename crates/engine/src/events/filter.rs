//! Which events a subscriber wants (moby `daemon/events/filter.go`).

use api::event::EventMessage;
use api::filters::Filters;

/// Actions that carry a text behind a colon: a filter without one means all of them.
const WITH_TEXT: &[&str] = &["exec_create", "exec_start", "health_status"];

/// Filters that match the beginning of an id or of a name, whatever the event's type.
const BY_NAME: &[&str] = &["daemon", "container", "plugin", "volume", "network"];

/// Filters of Swarm's objects: none of ours ever has one.
const OF_SWARM: &[&str] = &["node", "service", "secret", "config"];

/// Whether the event passes the filters.
pub(super) fn includes(filters: &Filters, event: &EventMessage) -> bool {
    let attribute = |key: &str| event.actor.attributes.get(key).map_or("", String::as_str);
    let named = |key: &&str| {
        filters.matches_prefix(key, &event.actor.id)
            || filters.matches_prefix(key, attribute("name"))
    };
    matches_action(filters, &event.action)
        && filters.matches_exactly("type", &event.r#type)
        && filters.matches_exactly("scope", &event.scope)
        && BY_NAME.iter().all(named)
        && OF_SWARM.iter().all(named)
        && matches_image(filters, event)
        && filters.matches_labels("label", &event.actor.attributes)
}

fn matches_action(filters: &Filters, action: &str) -> bool {
    let by_prefix = filters
        .values("event")
        .any(|value| WITH_TEXT.contains(&value));
    if by_prefix {
        filters.matches_prefix("event", action)
    } else {
        filters.matches_exactly("event", action)
    }
}

fn matches_image(filters: &Filters, event: &EventMessage) -> bool {
    let key = if event.r#type == "image" {
        "name"
    } else {
        "image"
    };
    let name = event.actor.attributes.get(key).map_or("", String::as_str);
    [&event.actor.id, name].iter().any(|text| {
        filters.matches_exactly("image", text) || filters.matches_exactly("image", bare(text))
    })
}

/// A reference without its tag.
fn bare(reference: &str) -> &str {
    let name = reference.rfind('/').map_or(0, |slash| slash + 1);
    match reference[name..].find(':') {
        Some(colon) => &reference[..name + colon],
        None => reference,
    }
}
