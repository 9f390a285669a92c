//! Pulls and logins: what the registry client does, in the API's types and Docker's messages.

use api::auth::{AuthConfig, AuthResponse};
use api::options::PullOptions;
use api::stream::{Message, ProgressDetail};
use image::Reference;
use image::manifest::Platform;
use registry::auth::Credentials;
use registry::progress::{Phase, Progress as Step};
use registry::pull::Request;
use tokio::sync::mpsc;

use crate::image_calls::{PROGRESS_MESSAGES, Progress};
use crate::{Engine, Error, image_calls};

/// The registry that a login without a name means, as Docker spells it in credentials.
const DOCKER_IO: &str = "docker.io";

/// Columns of the drawn bar.
const BAR: usize = 50;

impl Engine {
    /// Pulls an image, or without tag and digest every tag (`POST /images/create?fromImage=…`). An error that is
    /// the first message came before anything was pulled. Dropping the receiver ends the pull.
    ///
    /// # Errors
    /// InvalidParameter for a name that is none.
    pub fn image_pull(&self, options: PullOptions) -> Result<Progress, Error> {
        let reference = reference(&options.from_image, &options.tag)?;
        let request = Request {
            reference,
            platform: options.platform.map(|platform| Platform {
                architecture: platform.architecture,
                os: platform.os,
                variant: platform.variant,
                os_version: platform.os_version,
            }),
            credentials: credentials(options.auth),
        };
        let (sender, messages) = mpsc::channel(PROGRESS_MESSAGES);
        let engine = self.clone();
        self.inner().spawn(async move {
            tokio::select! {
                // A client that leaves while the registry is still silent.
                () = sender.closed() => {}
                outcome = engine.pull(&request, &sender) => {
                    if let Err(error) = outcome
                        && sender.send(Err(error)).await.is_err()
                    {
                        tracing::debug!("the client of a failed pull is gone");
                    }
                }
            }
        });
        Ok(messages)
    }

    async fn pull(
        &self,
        request: &Request,
        client: &mpsc::Sender<Result<Message, Error>>,
    ) -> Result<(), Error> {
        let defaults = self.inner().defaults.load_full();
        let (steps, mut told) = mpsc::channel(PROGRESS_MESSAGES);
        let all = request.reference.tag().is_none() && request.reference.digest().is_none();
        let pulling = async {
            let (settings, puller) = (defaults.registries.settings(), &self.inner().puller);
            let outcome = if all {
                puller.pull_all(request, settings, &steps).await.map(drop)
            } else {
                puller.pull(request, settings, &steps).await.map(drop)
            };
            drop(steps);
            outcome
        };
        let forwarding = async {
            while let Some(step) = told.recv().await {
                if client.send(Ok(message(step))).await.is_err() {
                    return;
                }
            }
        };
        let (outcome, ()) = tokio::join!(pulling, forwarding);
        outcome?;
        let (engine, reference) = (self.clone(), request.reference.clone());
        let note = move || {
            engine.note_pull(&reference);
            Ok(())
        };
        self.inner().blocking(note).await?;
        self.warn_of_platform(request, client).await
    }

    /// Journals the pull as dockerd does: under the name that was asked for.
    fn note_pull(&self, reference: &Reference) {
        // All tags of a repository are no image.
        let image = self.images().resolve(&reference.familiar()).ok();
        let (id, name) = (reference.familiar(), reference.familiar_name());
        image_calls::note(self, "pull", &id, &name, image.as_ref());
    }

    /// dockerd's last line when the only image there is was made for another platform.
    async fn warn_of_platform(
        &self,
        request: &Request,
        client: &mpsc::Sender<Result<Message, Error>>,
    ) -> Result<(), Error> {
        let Some(wanted) = request.platform.clone() else {
            return Ok(());
        };
        let (images, name) = (self.images().clone(), request.reference.familiar());
        let lookup = name.clone();
        let image = self
            .inner()
            .blocking(move || Ok(images.resolve(&lookup)?))
            .await?;
        let found = Platform {
            architecture: image.config.architecture.clone(),
            os: image.config.os.clone(),
            variant: image.config.variant.clone(),
            ..Platform::default()
        };
        if (&found.os, &found.architecture) == (&wanted.os, &wanted.architecture) {
            return Ok(());
        }
        let warning = Message {
            status: format!(
                "WARNING: image with reference {name} was found but its platform ({found}) does not match the specified platform ({wanted})"
            ),
            ..Message::default()
        };
        if client.send(Ok(warning)).await.is_err() {
            tracing::debug!("the client of a pull is gone before its last line");
        }
        Ok(())
    }

    /// Checks credentials with a registry (`POST /auth`).
    ///
    /// # Errors
    /// Unauthorized when the registry does not accept them, Internal when it does not answer.
    pub async fn auth(&self, credentials: AuthConfig) -> Result<AuthResponse, Error> {
        let domain = login_domain(&credentials.serveraddress);
        let defaults = self.inner().defaults.load_full();
        let settings = defaults.registries.settings();
        let credentials = self::credentials(credentials);
        let login = self.inner().puller.log_in(&domain, &credentials, settings);
        login.await?;
        Ok(AuthResponse {
            identity_token: String::new(),
            status: "Login Succeeded".to_owned(),
        })
    }
}

/// The reference of a pull: `tag` may be a digest, and replaces what the name says.
fn reference(from: &str, tag: &str) -> Result<Reference, Error> {
    let invalid = |error: image::ReferenceError| Error::invalid(error.to_string());
    let reference = Reference::parse(from).map_err(invalid)?;
    if tag.is_empty() {
        return Ok(reference);
    }
    match tag.parse::<image::Digest>() {
        Ok(digest) => Ok(reference.with_digest(digest)),
        Err(_) => reference.with_tag(tag).map_err(invalid),
    }
}

fn credentials(auth: AuthConfig) -> Credentials {
    Credentials {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identitytoken,
        registry_token: auth.registrytoken,
    }
}

/// The host of a login's server address, which may be a URL (`https://index.docker.io/v1/`).
fn login_domain(address: &str) -> String {
    let address = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address);
    match address.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" => DOCKER_IO.to_owned(),
        host => host.to_owned(),
    }
}

/// One step in the words and fields of Docker's stream.
fn message(step: Step) -> Message {
    match step {
        Step::Status { id, status } => Message {
            status,
            id: id.unwrap_or_default(),
            ..Message::default()
        },
        Step::Layer { id, phase } => {
            let (detail, progress) = match phase {
                Phase::Downloading {
                    current_bytes,
                    total_bytes,
                }
                | Phase::Extracting {
                    current_bytes,
                    total_bytes,
                } => {
                    let detail = ProgressDetail::of_bytes(current_bytes, total_bytes);
                    (detail, bar(current_bytes, total_bytes))
                }
                Phase::AlreadyExists
                | Phase::PullingFsLayer
                | Phase::Waiting
                | Phase::Retrying { .. }
                | Phase::VerifyingChecksum
                | Phase::DownloadComplete
                | Phase::PullComplete => (ProgressDetail::default(), String::new()),
            };
            Message {
                status: phase.words(),
                progress_detail: Some(detail),
                progress,
                id,
                ..Message::default()
            }
        }
    }
}

/// Docker's bar: `[==>      ]  1.2MB/3MB` (moby `pkg/jsonmessage`, a terminal of 200 columns).
fn bar(current_bytes: u64, total_bytes: u64) -> String {
    let current = human_size(current_bytes);
    if total_bytes == 0 {
        return format!("{current:>8}");
    }
    let percent = current_bytes.saturating_mul(100) / total_bytes;
    let done = usize::try_from(percent / 2).unwrap_or(BAR).min(BAR);
    let blank = " ".repeat(BAR - done);
    let total = human_size(total_bytes);
    let numbers = format!("{current:>8}/{total}");
    format!("[{}>{blank}] {numbers}", "=".repeat(done))
}

/// Go-units' `HumanSize`: four significant digits and a decimal unit.
fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        value if value < 10.0 => 3,
        value if value < 100.0 => 2,
        value if value < 1000.0 => 1,
        _ => 0,
    };
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + UNITS[unit]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_dockers() {
        // Recorded from dockerd 28.5.2.
        assert_eq!(
            bar(347, 347),
            "[==================================================>]     347B/347B"
        );
        assert_eq!(
            bar(36_445, 3_002_106),
            "[>                                                  ]  36.45kB/3.002MB"
        );
        assert_eq!(
            bar(3_002_106, 3_002_106),
            "[==================================================>]  3.002MB/3.002MB"
        );
    }

    #[test]
    fn the_tag_parameter_replaces_what_the_name_says() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let table = [
            ("tomcat", "9.0", "tomcat:9.0"),
            ("tomcat:9.0", "", "tomcat:9.0"),
            ("h:1/x:two", "one", "h:1/x:one"),
            ("tomcat", digest.as_str(), &format!("tomcat@{digest}")),
            ("tomcat", "", "tomcat"),
        ];
        for (from, tag, expected) in table {
            assert_eq!(reference(from, tag).unwrap().familiar(), expected);
        }
        assert_eq!(
            reference("busybox", "a b").unwrap_err().message,
            "invalid tag format"
        );
        assert_eq!(
            reference("x@sha256:12", "").unwrap_err().message,
            "invalid reference format"
        );
    }

    #[test]
    fn a_login_may_name_a_url() {
        for (address, domain) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("http://127.0.0.1:5000/v1/", "127.0.0.1:5000"),
            ("r.test", "r.test"),
        ] {
            assert_eq!(login_domain(address), domain, "{address}");
        }
    }
}
