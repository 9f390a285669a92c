//! Events on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::go;

/// One event, as `GET /events` streams it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventMessage {
    /// Legacy: as `action` (below 1.52).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Legacy: as the actor's id (below 1.52).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Legacy: the container's image (below 1.52).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `volume`, `network`, `daemon`, …
    #[serde(rename = "Type")]
    pub r#type: String,
    /// `create`, `die`, `exec_create: sh`, …
    #[serde(rename = "Action")]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Unix seconds.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub time: i64,
    /// Unix nanoseconds.
    #[serde(rename = "timeNano", skip_serializing_if = "go::is_zero")]
    pub time_nano: i64,
}

/// What an event happened to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Actor {
    /// Id, or a reference for images.
    #[serde(rename = "ID")]
    pub id: String,
    /// Labels and the event's own values; never `null`.
    pub attributes: BTreeMap<String, String>,
}
