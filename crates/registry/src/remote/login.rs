//! Logging in: what a registry's challenge asks for, and what is sent with each request afterwards.

use std::sync::PoisonError;
use std::time::Instant;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode, Uri};

use super::error::failure;
use super::{Error, Remote};
use crate::auth::{self, Challenge, Credentials, Token};
use crate::endpoint::{Endpoint, Scheme};
use crate::transport;

/// As Docker calls itself to token servers.
const CLIENT_ID: &str = "docker";

/// Base64 of `user:password` (RFC 7617).
fn basic(credentials: &Credentials) -> HeaderValue {
    let text = format!("{}:{}", credentials.username, credentials.password);
    let mut value = HeaderValue::try_from(format!("Basic {}", base64(text.as_bytes())))
        .expect("base64 is a header value");
    value.set_sensitive(true);
    value
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[derive(Clone, Debug)]
pub(super) enum Login {
    /// Nothing was asked for.
    None,
    Basic,
    Token(Token, Instant),
}

impl Remote {
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        if !self.credentials.registry_token.is_empty() {
            return bearer(&self.credentials.registry_token);
        }
        match &*self.login.lock().unwrap_or_else(PoisonError::into_inner) {
            Login::None => None,
            Login::Basic => Some(basic(&self.credentials)),
            Login::Token(token, until) => (Instant::now() < *until).then(|| bearer(&token.text))?,
        }
    }

    /// Does what the registry asks; false when there is nothing that we could do.
    pub(super) async fn log_in(&self, challenges: &[Challenge]) -> Result<bool, Error> {
        let has_password = !self.credentials.username.is_empty();
        let login = match challenges
            .iter()
            .find(|challenge| matches!(challenge, Challenge::Bearer { .. }))
        {
            Some(Challenge::Bearer { realm, service, .. }) => {
                let token = self.token(realm, service.as_deref()).await?;
                let until = Instant::now() + token.usable;
                Login::Token(token, until)
            }
            Some(Challenge::Basic) | None
                if has_password && challenges.contains(&Challenge::Basic) =>
            {
                Login::Basic
            }
            Some(Challenge::Basic) | None => return Ok(false),
        };
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = login;
        Ok(true)
    }

    /// Asks the token server: by POST with a secret (OAuth 2), by GET without one or when it knows no POST.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<Token, Error> {
        let refused = |why| Error::Realm {
            realm: realm.to_owned(),
            why,
        };
        let uri: Uri = realm.parse().map_err(|_| refused("it is not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(refused("only http and https are used")),
        };
        let host = uri
            .authority()
            .ok_or_else(|| refused("it has no host"))?
            .as_str()
            .to_owned();
        let anonymous = self.credentials.is_anonymous();
        if !anonymous
            && !auth::may_send_secret((self.endpoint.scheme, &self.endpoint.host), (scheme, &host))
        {
            return Err(refused("credentials are not sent there in plain text"));
        }
        if scheme == Scheme::Http && self.endpoint.scheme == Scheme::Https {
            return Err(refused("it leaves TLS"));
        }
        let server = self.endpoint.token_server(scheme, host);
        let mut query = Vec::new();
        if !self.path.is_empty() {
            query.push(("scope", auth::scope(&self.path, false)));
        }
        query.extend(service.map(|service| ("service", service.to_owned())));
        if !anonymous && let Some(token) = self.token_by_post(&server, realm, &query).await? {
            return Ok(token);
        }
        let mut headers = HeaderMap::new();
        if !self.credentials.username.is_empty() {
            headers.insert(header::AUTHORIZATION, basic(&self.credentials));
            query.push(("account", self.credentials.username.clone()));
        }
        let separator = if uri.query().is_some() { '&' } else { '?' };
        let url = format!("{realm}{separator}{}", form(&query));
        let answer = self
            .transport
            .send(&server, Method::GET, &url, headers, Bytes::new())
            .await?
            .response;
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(match failure(answer).await {
                Error::Denied { code, message } => Error::TokenDenied { code, message },
                other => other,
            });
        }
        auth::token(&transport::document(answer.into_body()).await?).ok_or(Error::Token(status))
    }

    async fn token_by_post(
        &self,
        server: &Endpoint,
        realm: &str,
        query: &[(&str, String)],
    ) -> Result<Option<Token>, Error> {
        let mut fields = query.to_vec();
        fields.push(("client_id", CLIENT_ID.to_owned()));
        if self.credentials.identity_token.is_empty() {
            fields.push(("grant_type", "password".to_owned()));
            fields.push(("username", self.credentials.username.clone()));
            fields.push(("password", self.credentials.password.clone()));
        } else {
            fields.push(("grant_type", "refresh_token".to_owned()));
            fields.push(("refresh_token", self.credentials.identity_token.clone()));
        }
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, kind);
        let answer = self
            .transport
            .send(server, Method::POST, realm, headers, form(&fields).into())
            .await?
            .response;
        let status = answer.status();
        if !status.is_success() {
            return Ok(None);
        }
        Ok(auth::token(&transport::document(answer.into_body()).await?))
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn form(fields: &[(&str, String)]) -> String {
    let pairs: Vec<_> = fields
        .iter()
        .map(|(key, value)| format!("{key}={}", auth::encode(value)))
        .collect();
    pairs.join("&")
}

pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(auth::challenges)
        .collect()
}
