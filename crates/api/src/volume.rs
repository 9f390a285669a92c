//! Volumes on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::go;
use crate::time::Time;

/// A volume, as every `/volumes` endpoint shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Volume {
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// `local`.
    pub driver: String,
    /// Metadata.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its directory on the host.
    pub mountpoint: String,
    /// Its name.
    pub name: String,
    /// Driver options.
    pub options: Option<BTreeMap<String, String>>,
    /// `local`.
    pub scope: String,
    /// What the driver tells.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub status: Option<BTreeMap<String, serde_json::Value>>,
    /// Only in `/system/df`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<UsageData>,
}

/// How much a volume takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UsageData {
    /// Containers that use it; -1 when not counted.
    pub ref_count: i64,
    /// Bytes; -1 when not computed.
    pub size: i64,
}

/// The answer to `GET /volumes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ListResponse {
    /// The volumes; never `null`.
    pub volumes: Vec<Volume>,
    /// What went wrong with drivers; `null` when nothing.
    pub warnings: Option<Vec<String>>,
}

/// The body of `POST /volumes/create`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateRequest {
    /// Empty means `local`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Driver options.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// Metadata.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Empty means a random one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// The answer to `POST /volumes/prune`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PruneReport {
    /// Names.
    pub volumes_deleted: Option<Vec<String>>,
    /// Bytes.
    pub space_reclaimed: u64,
}
