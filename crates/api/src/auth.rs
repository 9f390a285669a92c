//! Credentials for registries on the wire: `POST /auth` and the `X-Registry-Auth` header.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

use crate::go;

/// Credentials for one registry. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub struct AuthConfig {
    /// User name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Password or personal token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// base64 of `username:password`; legacy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// Which registry.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serveraddress: String,
    /// OAuth refresh token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    /// Bearer token for the registry itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registrytoken: String,
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

/// Go's `base64.URLEncoding`, which wants padding; clients that leave it out are understood too.
const URL_ENCODING: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl AuthConfig {
    /// Reads an `X-Registry-Auth` header. As in dockerd, one that cannot be read counts as no credentials.
    #[must_use]
    pub fn from_header(value: &str) -> Self {
        URL_ENCODING
            .decode(value)
            .ok()
            .and_then(|json| go::decode(&json).ok())
            .unwrap_or_default()
    }
}

/// The answer to `POST /auth`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AuthResponse {
    /// A token to use instead of the password; may be empty.
    pub identity_token: String,
    /// For a person.
    pub status: String,
}
