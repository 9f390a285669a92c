//! Pull: from a reference to an image in the store. The tag moves last.
//!
//! ```text
//! endpoints in order ─▶ manifest (of our platform) ─▶ configuration
//!     ─▶ three downloads at a time ──┐ blob in the store
//!     unpackers, one a core  ◀───────┘ ─▶ second pass ─▶ blobs synced ─▶ one transaction: image and names
//! ```
//!
//! The future is the pull: dropped (the client left), its downloads end at once and its unpackers at their next
//! read; what is complete in the store is garbage when the lease ends, beginnings of blobs wait to be resumed.

mod documents;
mod download;
mod error;
mod tries;
mod unpack;

use std::sync::Arc;

use image::manifest::{Descriptor, Manifest, Platform};
use image::{Digest, Lease, NewImage, Reference, Store};
use tokio::sync::mpsc::Sender;

use self::documents::parsed;
pub use self::error::Error;
use self::tries::Tries;
use crate::auth::Credentials;
use crate::dns::Resolver;
use crate::endpoint::{self, Settings};
use crate::progress::{Gone, Progress};
use crate::remote::{self, Document, Remote};
use crate::transport::{self, Transport};

/// Pulls images into one store.
#[derive(Clone, Debug)]
pub struct Puller {
    store: Store,
    transport: Transport,
    resolver: Resolver,
}

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct Request {
    /// The image; without tag and digest, `latest` is meant.
    pub reference: Reference,
    /// The platform; absent: this machine's.
    pub platform: Option<Platform>,
    /// Who is asking.
    pub credentials: Credentials,
}

/// What was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: Digest,
    /// Of the manifest or index that the reference names.
    pub digest: Digest,
    /// Whether the reference named the same image before.
    pub up_to_date: bool,
}

/// What a pull has along the way.
struct Asked<'a> {
    request: &'a Request,
    progress: &'a Sender<Progress>,
    /// Holds what was downloaded, also from an endpoint that failed later.
    lease: Arc<Lease>,
}

impl Puller {
    /// A puller into `store`.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(store: Store, resolver: Resolver) -> Result<Self, transport::Error> {
        Ok(Self {
            store,
            transport: Transport::new(resolver.clone())?,
            resolver,
        })
    }

    /// Pulls one image and tells how it goes. Cancelled when dropped.
    ///
    /// # Errors
    /// [`enum@Error`]; nothing is visible then, and the tag is where it was.
    pub async fn pull(
        &self,
        request: &Request,
        settings: &Settings,
        progress: &Sender<Progress>,
    ) -> Result<Pulled, Error> {
        let reference = request.reference.clone().or_latest();
        let asked = self.asked(request, progress);
        let (remotes, mut tries) = self.remotes(request, settings).await;
        for remote in remotes {
            let tag = reference.tag().unwrap_or_default();
            match remote.manifest(tag, reference.digest()).await {
                Ok(document) => {
                    let remote = Arc::new(remote);
                    match self.image(&reference, &remote, document, &asked).await {
                        Ok(pulled) => {
                            let name = request.reference.familiar();
                            conclude(progress, pulled.up_to_date, &name).await?;
                            return Ok(pulled);
                        }
                        Err(error) => tries.broke_off(&remote, error)?,
                    }
                }
                Err(error) if tries.goes_on(&remote, &error) => tries.failed(remote, error),
                Err(error @ remote::Error::Digest { .. }) => {
                    // dockerd has said what it pulls before it looks at what came.
                    begin(progress, &reference).await?;
                    return Err(error.into());
                }
                Err(error) => return Err(tries.explain(&reference, &remote, error)),
            }
        }
        Err(tries.give_up(&reference))
    }

    /// Pulls every tag of the repository, one after the other.
    ///
    /// # Errors
    /// [`enum@Error`]; tags before the one that failed are there.
    pub async fn pull_all(
        &self,
        request: &Request,
        settings: &Settings,
        progress: &Sender<Progress>,
    ) -> Result<Vec<Pulled>, Error> {
        let asked = self.asked(request, progress);
        let (remotes, mut tries) = self.remotes(request, settings).await;
        for remote in remotes {
            match remote.tags().await {
                Ok(tags) => {
                    let remote = Arc::new(remote);
                    match self.tags(&remote, tags, &asked).await {
                        Ok(pulled) => return Ok(pulled),
                        Err(error) => tries.broke_off(&remote, error)?,
                    }
                }
                Err(error) if tries.goes_on(&remote, &error) => tries.failed(remote, error),
                Err(source @ remote::Error::NotFound { .. }) => {
                    let name = request.reference.familiar_name();
                    return Err(Error::NoRepository { name, source });
                }
                Err(error) => return Err(tries.explain(&request.reference, &remote, error)),
            }
        }
        Err(tries.give_up(&request.reference))
    }

    async fn tags(
        &self,
        remote: &Arc<Remote>,
        tags: Vec<String>,
        asked: &Asked<'_>,
    ) -> Result<Vec<Pulled>, Error> {
        let (request, progress) = (asked.request, asked.progress);
        let mut all = Vec::with_capacity(tags.len());
        for tag in tags {
            // A tag that Docker could not name is not pulled by it either.
            let Ok(reference) = request.reference.with_tag(&tag) else {
                tracing::warn!(tag, "the registry lists a tag that is none");
                continue;
            };
            let document = remote.manifest(&tag, None).await?;
            all.push(self.image(&reference, remote, document, asked).await?);
        }
        let up_to_date = all.iter().all(|pulled| pulled.up_to_date);
        conclude(progress, up_to_date, &request.reference.familiar_name()).await?;
        Ok(all)
    }

    /// Pulls what `document` describes and names it `reference`.
    async fn image(
        &self,
        reference: &Reference,
        remote: &Arc<Remote>,
        document: Document,
        asked: &Asked<'_>,
    ) -> Result<Pulled, Error> {
        let (progress, lease) = (asked.progress, Arc::clone(&asked.lease));
        let from = document.digest.clone();
        // What is no manifest at all is refused before a word was said.
        parsed(&document)?;
        begin(progress, reference).await?;
        self.keep(&lease, &document).await?;
        let (manifest_digest, manifest) =
            self.choose(&lease, remote, document, asked.request).await?;
        let config = self.configuration(&lease, remote, &manifest).await;
        let config = config.map_err(|error| match error {
            Error::Gone(_) | Error::Store(_) | Error::Worker => error,
            other => Error::Configuration(Box::new(other)),
        })?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
            return Err(Error::RootFs { layers, diff_ids });
        }
        if config.operating_system() != "linux" {
            return Err(Error::OperatingSystem(config.operating_system().to_owned()));
        }
        let id = manifest.config.digest.clone();
        let before = self.current(reference).await?;
        let mut names = vec![reference.with_digest(from.clone())];
        names.extend(reference.digest().is_none().then(|| reference.clone()));
        let image = NewImage {
            id: id.clone(),
            config: Arc::new(config),
            manifest: Some(manifest_digest),
            parent: None,
            layers: Vec::new(),
            names,
        };
        let known = before.as_ref() == Some(&id);
        let layers = self.layers(lease, Arc::clone(remote), manifest, image, progress);
        layers.await.map_err(|error| match error {
            Error::Remote(source @ remote::Error::Denied { .. }) if !source.is_unauthorized() => {
                Error::Denied {
                    name: reference.familiar_name(),
                    source,
                }
            }
            other => other,
        })?;
        tell(progress, None, format!("Digest: {from}")).await?;
        Ok(Pulled {
            id,
            digest: from,
            up_to_date: known,
        })
    }

    fn asked<'a>(&self, request: &'a Request, progress: &'a Sender<Progress>) -> Asked<'a> {
        let lease = Arc::new(self.store.lease());
        Asked {
            request,
            progress,
            lease,
        }
    }

    /// The ways to reach the repository, in the order to try them.
    async fn remotes(&self, request: &Request, settings: &Settings) -> (Vec<Remote>, Tries) {
        let reference = &request.reference;
        // A name that does not resolve is reported by the request itself, with the right words.
        let addresses = self
            .resolver
            .lookup(endpoint::host_name(reference.domain()))
            .await
            .unwrap_or_default();
        let endpoints = endpoint::endpoints(reference.domain(), &addresses, settings);
        let remote = |endpoint| {
            Remote::new(
                self.transport.clone(),
                endpoint,
                reference.domain(),
                reference.path(),
                &request.credentials,
            )
        };
        let tries = Tries::new(addresses);
        (endpoints.into_iter().map(remote).collect(), tries)
    }

    /// Checks credentials with a registry (`docker login`).
    ///
    /// # Errors
    /// [`enum@Error`].
    pub async fn log_in(
        &self,
        domain: &str,
        credentials: &Credentials,
        settings: &Settings,
    ) -> Result<(), Error> {
        let host = endpoint::host_name(domain);
        // A name without a password is nobody's, as for Docker.
        let nobody = Credentials::default();
        let credentials = if credentials.password.is_empty()
            && credentials.identity_token.is_empty()
            && credentials.registry_token.is_empty()
        {
            &nobody
        } else {
            credentials
        };
        let addresses = self.resolver.lookup(host).await.unwrap_or_default();
        let endpoints = endpoint::endpoints(domain, &addresses, settings);
        let mut tries = Tries::new(addresses);
        for endpoint in endpoints.into_iter().filter(|endpoint| !endpoint.mirror) {
            let remote = Remote::new(self.transport.clone(), endpoint, domain, "", credentials);
            match remote.check().await {
                Ok(()) => return Ok(()),
                Err(error) if tries.goes_on(&remote, &error) => tries.failed(remote, error),
                Err(error) => return Err(tries.login_failed(&remote, error)),
            }
        }
        Err(tries.give_up_login())
    }

    /// The image that the reference names now.
    async fn current(&self, reference: &Reference) -> Result<Option<Digest>, Error> {
        let (store, name) = (self.store.clone(), reference.familiar());
        blocking(move || match store.resolve(&name) {
            Ok(image) => Ok(Some(image.id)),
            Err(image::Error::NoSuchImage(_) | image::Error::DamagedConfig { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        })
        .await
    }

    /// Downloads and unpacks what is missing, and makes the image visible.
    async fn layers(
        &self,
        lease: Arc<Lease>,
        remote: Arc<Remote>,
        manifest: Manifest,
        image: NewImage,
        progress: &Sender<Progress>,
    ) -> Result<(), Error> {
        let layers: Arc<[Descriptor]> = manifest.layers.into();
        let (missing, unpacking) = unpack::begin(
            self.store.clone(),
            Arc::clone(&lease),
            Arc::clone(&layers),
            image,
            progress.clone(),
        )
        .await?;
        let downloads = download::Downloads {
            store: self.store.clone(),
            lease,
            remote,
            layers,
            progress: progress.clone(),
        };
        let downloaded = downloads.run(missing, &unpacking).await;
        unpacking.end(downloaded).await
    }
}

/// The first line of a pull, about a tag, or about the whole reference when it is a digest's.
async fn begin(progress: &Sender<Progress>, reference: &Reference) -> Result<(), Gone> {
    let name = match reference.digest() {
        Some(_) => Some(reference.familiar()),
        None => reference.tag().map(str::to_owned),
    };
    let status = format!("Pulling from {}", reference.path());
    tell(progress, name, status).await
}

/// Runs blocking work of the store on its own thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    // Awaited at once: the engine counts the pull that waits for it.
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Worker))
}

async fn tell(progress: &Sender<Progress>, id: Option<String>, status: String) -> Result<(), Gone> {
    progress
        .send(Progress::Status { id, status })
        .await
        .map_err(|_| Gone)
}

/// The last line of a pull.
async fn conclude(progress: &Sender<Progress>, up_to_date: bool, name: &str) -> Result<(), Gone> {
    let news = if up_to_date {
        "Image is up to date for"
    } else {
        "Downloaded newer image for"
    };
    tell(progress, None, format!("Status: {news} {name}")).await
}
