//! What came of the endpoints of a registry, tried one after the other, and how it is told.

use std::net::IpAddr;

use hyper::StatusCode;
use image::Reference;

use super::Error;
use crate::endpoint::{self, Scheme};
use crate::remote::{self, Remote};

/// What came of the endpoints so far.
pub(super) struct Tries {
    /// Of the registry's host.
    addresses: Vec<IpAddr>,
    last: Option<Outcome>,
}

/// Of an endpoint that was asked in vain.
enum Outcome {
    /// It gave nothing.
    Failed(Box<Remote>, remote::Error),
    /// It gave a part.
    BrokeOff(Error),
}

impl Tries {
    /// Nothing was tried yet.
    pub(super) fn new(addresses: Vec<IpAddr>) -> Self {
        Self {
            addresses,
            last: None,
        }
    }

    /// This endpoint gave nothing, and [`Tries::goes_on`] lets the next one be asked.
    pub(super) fn failed(&mut self, remote: Remote, error: remote::Error) {
        self.last = Some(Outcome::Failed(Box::new(remote), error));
    }

    /// This endpoint had the manifest and then failed; the next one is asked if it is a mirror.
    ///
    /// # Errors
    /// The same error when it has the last word: of the registry itself, of our disk or of a client that left.
    pub(super) fn broke_off(&mut self, remote: &Remote, error: Error) -> Result<(), Error> {
        let ours = matches!(error, Error::Store(_) | Error::Gone(_) | Error::Worker);
        if ours || !remote.endpoint().mirror {
            return Err(error);
        }
        let mirror = remote.endpoint().url("");
        tracing::info!(mirror, %error, "a mirror failed half-way, the next endpoint is asked");
        self.last = Some(Outcome::BrokeOff(error));
        Ok(())
    }

    /// Whether the next endpoint is asked: a registry that answers HTTP has answered, and plain text is tried only
    /// where no TLS connection came about; a mirror never has the last word.
    pub(super) fn goes_on(&self, remote: &Remote, error: &remote::Error) -> bool {
        remote.endpoint().mirror
            || matches!(error, remote::Error::Transport(error) if error.is_unconnected())
    }

    pub(super) fn give_up(mut self, reference: &Reference) -> Error {
        match self.last.take().expect("there is always an endpoint") {
            Outcome::Failed(remote, error) => self.explain(reference, &remote, error),
            Outcome::BrokeOff(error) => error,
        }
    }

    pub(super) fn give_up_login(mut self) -> Error {
        match self.last.take().expect("there is always an endpoint") {
            Outcome::Failed(remote, error) => self.login_failed(&remote, error),
            Outcome::BrokeOff(error) => error,
        }
    }

    /// The words of dockerd for what cannot be had.
    pub(super) fn explain(
        &self,
        reference: &Reference,
        remote: &Remote,
        source: remote::Error,
    ) -> Error {
        match source {
            remote::Error::NotFound { .. } | remote::Error::Status(StatusCode::NOT_FOUND) => {
                Error::NotFound {
                    reference: reference.familiar(),
                    source,
                }
            }
            // Docker explains a denial only, not a missing login.
            source @ remote::Error::Denied { .. } if source.is_unauthorized() => source.into(),
            remote::Error::Denied { .. } => Error::Denied {
                name: reference.familiar_name(),
                source,
            },
            source @ remote::Error::TokenDenied { .. } => Error::TokenRefused {
                url: remote.manifest_url(reference),
                source,
            },
            other => self.unreachable(remote, other),
        }
    }

    pub(super) fn login_failed(&self, remote: &Remote, source: remote::Error) -> Error {
        match source {
            remote::Error::TokenDenied { .. } => Error::LoginRefused {
                url: remote.endpoint().url(""),
                source,
            },
            remote::Error::Denied { .. } => Error::LoginFailed {
                url: remote.endpoint().url(""),
                source,
            },
            other => self.unreachable(remote, other),
        }
    }

    fn unreachable(&self, remote: &Remote, source: remote::Error) -> Error {
        let remote::Error::Transport(error) = &source else {
            return source.into();
        };
        let endpoint = remote.endpoint();
        let name = endpoint::host_name(&endpoint.host);
        let port = endpoint
            .host
            .get(name.len()..)
            .and_then(|port| port.strip_prefix(':'));
        let port = port.unwrap_or(match endpoint.scheme {
            Scheme::Https => "443",
            Scheme::Http => "80",
        });
        let address = self.addresses.first().map_or_else(
            || format!("{name}:{port}"),
            |address| match address {
                IpAddr::V4(address) => format!("{address}:{port}"),
                IpAddr::V6(address) => format!("[{address}]:{port}"),
            },
        );
        Error::Unreachable {
            url: endpoint.url(""),
            why: error.dialled(&address).unwrap_or_else(|| error.to_string()),
            source: Box::new(source),
        }
    }
}
