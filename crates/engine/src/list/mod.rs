//! `docker ps`: which containers, in which order, and their lines (moby `daemon/list.go`).
//!
//! Pure: renders views of containers, and asks for images and containers through [`Lookups`].

mod ports;
#[cfg(test)]
mod tests;
mod words;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::container::inspect::{Health, NetworkSettings, Sizes};
use api::container::mount::MountPoint;
use api::container::summary::{ContainerSummary, SummaryHostConfig, SummaryNetworkSettings};
use api::filters::{FilterError, Filters};
use api::options::ListOptions;

use crate::error::Class;
use crate::{ContainerId, Error, Snapshot};

pub use words::{human_duration, status_text};

/// One container, with what is not in its snapshot.
#[derive(Clone, Debug)]
pub struct View {
    /// What it is and does.
    pub snapshot: Arc<Snapshot>,
    /// Its networks and published ports.
    pub network: NetworkSettings,
    /// How it is, if it has a health check.
    pub health: Option<Health>,
    /// What it takes on disk, if that was asked for.
    pub sizes: Option<Sizes>,
}

/// What the list asks of others.
pub struct Lookups<'a> {
    /// The container that a client calls so.
    pub container: &'a dyn Fn(&str) -> Result<ContainerId, Error>,
    /// The id of the image that a reference or id names now.
    pub image: &'a dyn Fn(&str) -> Option<String>,
    /// Whether the first image was built on the second, or is it.
    pub descends: &'a dyn Fn(&str, &str) -> bool,
}

/// The filters that `GET /containers/json` takes.
const ACCEPTED: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

const STATUSES: &[&str] = &[
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
];

const HEALTHS: &[&str] = &["none", "starting", "healthy", "unhealthy"];

/// The containers' lines, newest first. `now_ns` is in Unix nanoseconds.
///
/// # Errors
/// InvalidParameter for bad filters, NotFound for a container named by `before` or `since`.
pub fn list(
    mut views: Vec<View>,
    options: &ListOptions,
    lookups: &Lookups<'_>,
    now_ns: i64,
) -> Result<Vec<ContainerSummary>, Error> {
    // Most containers are of a few images: each name is looked up once.
    let known = RefCell::new(HashMap::new());
    let image = |name: &str| -> Option<String> {
        if let Some(id) = known.borrow().get(name) {
            return Option::clone(id);
        }
        let id = (lookups.image)(name);
        known.borrow_mut().insert(name.to_owned(), id.clone());
        id
    };
    let lookups = &Lookups {
        image: &image,
        ..*lookups
    };
    let wanted = Wanted::parse(&options.filters, lookups)?;
    let all = options.all || options.limit > 0 || options.filters.contains("status");
    views.sort_by(|one, other| age(other).cmp(&age(one)));
    let limit = match usize::try_from(options.limit) {
        Ok(limit) if limit > 0 => limit,
        _ => usize::MAX,
    };
    let mut before = wanted.before.clone();
    let mut lines = Vec::new();
    for view in &views {
        if wanted.since.as_ref() == Some(view.snapshot.id()) || lines.len() == limit {
            break;
        }
        if let Some(id) = &before {
            if id == view.snapshot.id() {
                before = None;
            }
            continue;
        }
        if (all || view.snapshot.status.is_running()) && wanted.includes(view, lookups) {
            lines.push(summary(view, lookups, now_ns));
        }
    }
    Ok(lines)
}

/// When it was made; the id decides between two of one moment.
fn age(view: &View) -> (i64, &ContainerId) {
    (view.snapshot.definition.created_ns, view.snapshot.id())
}

/// The filters, parsed and checked.
struct Wanted<'a> {
    filters: &'a Filters,
    id: api::filters::Pattern,
    name: api::filters::Pattern,
    exited: Vec<i64>,
    before: Option<ContainerId>,
    since: Option<ContainerId>,
    ancestors: Vec<String>,
    publish: Vec<ports::Range>,
    expose: Vec<ports::Range>,
    task: Option<bool>,
}

fn bad(error: &FilterError) -> Error {
    Error::invalid(error.to_string())
}

fn check_values(filters: &Filters, key: &str, what: &str, known: &[&str]) -> Result<(), Error> {
    match filters.values(key).find(|value| !known.contains(value)) {
        Some(value) => Err(Error::invalid(format!(
            "invalid filter '{key}={value}': invalid value for {what} ({value}): must be one of {}",
            known.join(", ")
        ))),
        None => Ok(()),
    }
}

impl<'a> Wanted<'a> {
    fn parse(filters: &'a Filters, lookups: &Lookups<'_>) -> Result<Self, Error> {
        filters.validate(ACCEPTED).map_err(|error| bad(&error))?;
        let exited: Result<Vec<i64>, Error> = filters
            .values("exited")
            .map(|value| {
                value.parse().map_err(|_| {
                    Error::invalid(format!(
                        "invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid \
                         syntax"
                    ))
                })
            })
            .collect();
        check_values(filters, "status", "state", STATUSES)?;
        check_values(filters, "health", "health", HEALTHS)?;
        let ranges = |key: &str| -> Result<Vec<ports::Range>, Error> {
            filters
                .values(key)
                .map(|value| {
                    ports::Range::parse(value).map_err(|why| {
                        Error::new(
                            Class::Internal,
                            format!("error while looking up for {key} {value}: {why}"),
                        )
                    })
                })
                .collect()
        };
        let one = |key: &str| {
            filters
                .values(key)
                .last()
                .map(lookups.container)
                .transpose()
        };
        Ok(Self {
            filters,
            id: filters.pattern("id"),
            name: filters.pattern("name"),
            exited: exited?,
            before: one("before")?,
            since: one("since")?,
            ancestors: filters
                .values("ancestor")
                .filter_map(lookups.image)
                .collect(),
            publish: ranges("publish")?,
            expose: ranges("expose")?,
            task: filters.boolean("is-task").map_err(|error| bad(&error))?,
        })
    }

    fn includes(&self, view: &View, lookups: &Lookups<'_>) -> bool {
        let snapshot = &view.snapshot;
        let definition = &snapshot.definition;
        let health = view
            .health
            .as_ref()
            .map_or("none", |health| health.status.as_str());
        let name = &snapshot.name;
        let has_run = snapshot.facts.started_at_ns != 0 && !snapshot.status.is_running();
        let none = BTreeMap::new();
        let labels = definition.config.labels.as_ref().unwrap_or(&none);
        self.id.matches(definition.id.as_str())
            && (self.name.matches(name) || self.name.matches(&format!("/{name}")))
            // Nothing is a task: there is no Swarm.
            && self.task != Some(true)
            && self.filters.matches_labels("label", labels)
            && self.filters.matches_exactly("status", snapshot.status.as_str())
            && self.filters.matches_exactly("health", health)
            && (self.exited.is_empty()
                || (has_run && self.exited.contains(&snapshot.facts.exit_code.into())))
            && self.matches_ancestor(&definition.image, lookups)
            && self.matches_volume(view)
            && self.matches_network(view)
            && (self.publish.is_empty() || ports::publishes(view, &self.publish))
            && (self.expose.is_empty() || ports::exposes(view, &self.expose))
    }

    fn matches_ancestor(&self, image: &str, lookups: &Lookups<'_>) -> bool {
        !self.filters.contains("ancestor")
            || self
                .ancestors
                .iter()
                .any(|ancestor| (lookups.descends)(image, ancestor))
    }

    fn matches_volume(&self, view: &View) -> bool {
        let points = &view.snapshot.definition.mounts;
        let is_mounted = |value: &str| {
            points.iter().any(|point| {
                let name = if point.name.is_empty() {
                    &point.source
                } else {
                    &point.name
                };
                point.destination == value || name == value
            })
        };
        !self.filters.contains("volume") || self.filters.values("volume").any(is_mounted)
    }

    fn matches_network(&self, view: &View) -> bool {
        let none = BTreeMap::new();
        let networks = view.network.networks.as_ref().unwrap_or(&none);
        let is_joined = |value: &str| {
            let mut ids = networks
                .values()
                .flatten()
                .map(|endpoint| &endpoint.network_id);
            networks.contains_key(value) || ids.any(|id| id.starts_with(value))
        };
        !self.filters.contains("network") || self.filters.values("network").any(is_joined)
    }
}

/// One line.
fn summary(view: &View, lookups: &Lookups<'_>, now_ns: i64) -> ContainerSummary {
    let snapshot = &view.snapshot;
    let definition = &snapshot.definition;
    let asked = &definition.config.image;
    // A name that means another image by now would mislead.
    let is_current = *asked == definition.image
        || (lookups.image)(asked).is_some_and(|id| id == definition.image);
    let image = if is_current { asked } else { &definition.image };
    let sizes = view.sizes.unwrap_or_default();
    ContainerSummary {
        id: definition.id.to_string(),
        names: vec![format!("/{}", snapshot.name)],
        image: image.clone(),
        image_id: definition.image.clone(),
        image_manifest_descriptor: None,
        command: words::command(&definition.path, &definition.args),
        created: definition.created_ns.div_euclid(1_000_000_000),
        ports: ports::list(&view.network.ports),
        size_rw: sizes.rw,
        size_root_fs: sizes.root_fs,
        labels: Some(definition.config.labels.clone().unwrap_or_default()),
        state: snapshot.status.as_str().to_owned(),
        status: status_text(snapshot, view.health.as_ref(), now_ns),
        host_config: SummaryHostConfig {
            network_mode: definition.host_config.network_mode.clone(),
            annotations: definition.host_config.annotations.clone(),
        },
        network_settings: Some(SummaryNetworkSettings {
            networks: view.network.networks.clone(),
        }),
        mounts: definition.mounts.iter().map(point).collect(),
    }
}

/// A mount as the list shows it: dockerd's does not know the source of a volume that only the
/// configuration asked for.
fn point(point: &MountPoint) -> MountPoint {
    let mut point = point.clone();
    if point.r#type == "volume" && point.mode.is_empty() {
        point.source.clear();
    }
    point
}
