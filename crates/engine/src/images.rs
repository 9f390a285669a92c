//! Images as the API shows them: list, inspect, history. Pure renderings of the store's records.

use std::collections::BTreeSet;

use api::filters::Filters;
use api::go::Empty;
use api::image::{
    GraphDriver, HistoryItem, ImageConfig, ImageInspect, ImageMetadata, ImageSummary, RootFs,
};
use api::options::ImageListOptions;
use api::time::Time;
use image::{Digest, Image};

use crate::error::Class;
use crate::inspect::STORAGE_DRIVER;
use crate::{Error, definition};

/// The filters that `GET /images/json` takes.
const ACCEPTED: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];

/// What the list asks of others.
pub struct Lookups<'a> {
    /// The image that a client calls so.
    pub image: &'a dyn Fn(&str) -> Result<Image, Error>,
    /// How many containers have the image.
    pub containers: &'a dyn Fn(&Digest) -> i64,
    /// The bytes that the image shares with others, if that was asked for.
    pub shared_bytes: &'a dyn Fn(&Image) -> Result<u64, Error>,
}

fn created(image: &Image) -> Option<Time> {
    image.config.created.parse().ok()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn tags(image: &Image) -> Vec<String> {
    image
        .references
        .iter()
        .map(image::Reference::familiar)
        .collect()
}

fn digests(image: &Image) -> Vec<String> {
    image
        .repo_digests
        .iter()
        .map(image::Reference::familiar)
        .collect()
}

/// The images' lines, newest first. `now_ns` is in Unix nanoseconds.
///
/// # Errors
/// InvalidParameter for bad filters, NotFound for an image named by `before` or `since`.
pub fn list(
    images: &[Image],
    options: &ImageListOptions,
    lookups: &Lookups<'_>,
    now_ns: i64,
) -> Result<Vec<ImageSummary>, Error> {
    let wanted = Wanted::parse(&options.filters, lookups, now_ns)?;
    let mut lines = Vec::new();
    for image in images {
        let Some(references) = wanted.references(image)? else {
            continue;
        };
        let shared_size = if options.shared_size {
            signed((lookups.shared_bytes)(image)?)
        } else {
            -1
        };
        lines.push(ImageSummary {
            containers: (lookups.containers)(&image.id),
            created: created(image).map_or(0, Time::unix_seconds),
            id: image.id.to_string(),
            labels: image
                .config
                .config
                .as_ref()
                .and_then(|config| config.labels.clone()),
            parent_id: image
                .parent
                .as_ref()
                .map(Digest::to_string)
                .unwrap_or_default(),
            descriptor: None,
            repo_digests: digests(image),
            repo_tags: references,
            shared_size,
            size: signed(image.size_bytes),
            virtual_size: 0,
        });
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.created));
    Ok(lines)
}

struct Wanted<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
    before: Option<Time>,
    since: Option<Time>,
}

impl<'a> Wanted<'a> {
    fn parse(filters: &'a Filters, lookups: &Lookups<'_>, now_ns: i64) -> Result<Self, Error> {
        let bad = |error: api::filters::FilterError| Error::invalid(error.to_string());
        filters.validate(ACCEPTED).map_err(bad)?;
        let of =
            |name: &str| -> Result<Option<Time>, Error> { Ok(created(&(lookups.image)(name)?)) };
        let mut before: Option<Time> = None;
        for name in filters.values("before") {
            before = earlier(before, of(name)?);
        }
        for value in filters.values("until") {
            before = earlier(before, Some(until(value, now_ns)?));
        }
        let mut since: Option<Time> = None;
        for name in filters.values("since") {
            since = since.max(of(name)?);
        }
        Ok(Self {
            filters,
            dangling: filters.boolean("dangling").map_err(bad)?,
            before,
            since,
        })
    }

    /// The references that the line shows, or `None` when the image is not wanted.
    fn references(&self, image: &Image) -> Result<Option<Vec<String>>, Error> {
        let at = created(image).unwrap_or_default();
        if self.before.is_some_and(|before| at >= before)
            || self.since.is_some_and(|since| at <= since)
        {
            return Ok(None);
        }
        let none = std::collections::BTreeMap::new();
        let labels = image
            .config
            .config
            .as_ref()
            .and_then(|config| config.labels.as_ref());
        if !self
            .filters
            .matches_labels("label", labels.unwrap_or(&none))
        {
            return Ok(None);
        }
        let mut shown = tags(image);
        if self.filters.contains("reference") {
            let mut matching = Vec::new();
            for reference in &image.references {
                let familiar = reference.familiar();
                let name = reference.familiar_name();
                for pattern in self.filters.values("reference") {
                    if matches(pattern, &familiar)? || matches(pattern, &name)? {
                        matching.push(familiar.clone());
                        break;
                    }
                }
            }
            if matching.is_empty() {
                return Ok(None);
            }
            shown = matching;
        }
        let is_dangling = image.references.is_empty();
        Ok((self.dangling.is_none_or(|wanted| wanted == is_dangling)).then_some(shown))
    }
}

fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A time, or a duration before now.
fn until(text: &str, now_ns: i64) -> Result<Time, Error> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(Time::from_unix_nanos(seconds.saturating_mul(1_000_000_000)));
    }
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let duration = api::time::parse_duration(text).ok_or_else(|| {
        // dockerd hands both of these through without a class.
        let text = format!("failed to parse value as time or duration: \"{text}\"");
        Error::new(Class::Internal, text)
    })?;
    Ok(Time::from_unix_nanos(now_ns.saturating_sub(duration)))
}

/// Go's `path.Match`: `*` and `?` stop at a slash, `[a-z]` and `[^a-z]` are sets.
fn matches(pattern: &str, text: &str) -> Result<bool, Error> {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    matches_chars(&pattern, &text, &mut BTreeSet::new())
        .ok_or_else(|| Error::new(Class::Internal, "syntax error in pattern"))
}

/// `None` for a broken pattern. `failed` holds which rests of pattern and text, by their lengths, do not match: without
/// it the time would double with each `*`.
fn matches_chars(
    pattern: &[char],
    text: &[char],
    failed: &mut BTreeSet<(usize, usize)>,
) -> Option<bool> {
    let Some((first, rest)) = pattern.split_first() else {
        return Some(text.is_empty());
    };
    match first {
        '*' => {
            // A row of stars is one star; each would be a call deeper.
            let stars = rest.iter().take_while(|c| **c == '*').count();
            let rest = &rest[stars..];
            let reach = text.iter().position(|c| *c == '/').unwrap_or(text.len());
            for taken in 0..=reach {
                let rests = (rest.len(), text.len() - taken);
                if failed.contains(&rests) {
                    continue;
                }
                if matches_chars(rest, &text[taken..], failed)? {
                    return Some(true);
                }
                failed.insert(rests);
            }
            Some(false)
        }
        '[' => {
            let close = rest.iter().skip(1).position(|c| *c == ']')? + 1;
            let (set, rest) = (&rest[..close], &rest[close + 1..]);
            let (negated, set) = match set {
                ['^', set @ ..] => (true, set),
                set => (false, set),
            };
            let Some((c, text)) = text.split_first() else {
                return Some(false);
            };
            let is_in = set.contains(c)
                || set
                    .windows(3)
                    .any(|range| range[1] == '-' && (range[0]..=range[2]).contains(c));
            if is_in == negated {
                Some(false)
            } else {
                matches_chars(rest, text, failed)
            }
        }
        '\\' => {
            let (escaped, rest) = rest.split_first()?;
            match text.split_first() {
                Some((c, text)) if c == escaped => matches_chars(rest, text, failed),
                _ => Some(false),
            }
        }
        _ => match text.split_first() {
            Some((c, text)) if c == first || (*first == '?' && *c != '/') => {
                matches_chars(rest, text, failed)
            }
            _ => {
                // A broken pattern is one even where the text differs before.
                if rest.contains(&'[') && !rest.contains(&']') {
                    None
                } else {
                    Some(false)
                }
            }
        },
    }
}

/// Renders an image whole; `layers` are the directories of its layers, topmost first.
pub fn inspect(image: &Image, layers: &[String]) -> ImageInspect {
    let config = &image.config;
    let upper = layers.first().cloned().unwrap_or_default();
    let mut data = vec![("UpperDir".to_owned(), upper)];
    if layers.len() > 1 {
        data.push(("LowerDir".to_owned(), layers[1..].join(":")));
    }
    ImageInspect {
        id: image.id.to_string(),
        repo_tags: tags(image),
        repo_digests: digests(image),
        parent: image
            .parent
            .as_ref()
            .map(Digest::to_string)
            .unwrap_or_default(),
        comment: config.comment.clone(),
        created: created(image),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        size: signed(image.size_bytes),
        virtual_size: 0,
        graph_driver: GraphDriver {
            data: Some(data.into_iter().collect()),
            name: STORAGE_DRIVER.to_owned(),
        },
        root_fs: RootFs {
            r#type: "layers".to_owned(),
            layers: Some(
                config
                    .rootfs
                    .diff_ids
                    .iter()
                    .map(Digest::to_string)
                    .collect(),
            ),
        },
        metadata: ImageMetadata {
            last_tag_time: if image.last_tagged_ns == 0 {
                Time::ZERO
            } else {
                Time::from_unix_nanos(image.last_tagged_ns)
            },
        },
        descriptor: None,
        config: Some(shown_config(config.config.clone().unwrap_or_default())),
    }
}

fn shown_config(config: image::ContainerConfig) -> ImageConfig {
    let set = |map: std::collections::BTreeMap<String, serde_json::Value>| {
        let keys = map.into_keys().map(|key| (key, Empty::default()));
        Some(keys.collect::<std::collections::BTreeMap<_, _>>()).filter(|map| !map.is_empty())
    };
    ImageConfig {
        args_escaped: config.args_escaped,
        cmd: config.cmd,
        entrypoint: config.entrypoint,
        env: config.env,
        exposed_ports: set(config.exposed_ports),
        healthcheck: config.healthcheck.as_ref().map(definition::health),
        labels: config.labels,
        on_build: config.on_build,
        shell: config.shell,
        stop_signal: config.stop_signal,
        user: config.user,
        volumes: set(config.volumes),
        working_dir: config.working_dir,
    }
}

/// The steps that made an image, newest first.
pub fn history(items: Vec<image::HistoryItem>) -> Vec<HistoryItem> {
    items
        .into_iter()
        .map(|item| HistoryItem {
            comment: item.comment,
            created: item.created,
            created_by: item.created_by,
            id: item
                .id
                .map_or_else(|| "<missing>".to_owned(), |id| id.to_string()),
            size: signed(item.size_bytes),
            tags: Some(item.tags).filter(|tags| !tags.is_empty()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gos() {
        let table = [
            ("busy*", "busybox", Some(true)),
            ("busy*", "busybox:latest", Some(true)),
            ("busy*", "busy/box", Some(false)),
            ("*/busybox", "me/busybox", Some(true)),
            ("b?sybox", "busybox", Some(true)),
            ("[a-c]usybox", "busybox", Some(true)),
            ("[^a-c]usybox", "busybox", Some(false)),
            ("\\*", "*", Some(true)),
            ("[", "busybox", None),
            ("x[", "busybox", None),
            ("", "", Some(true)),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern, text).ok(), expected, "{pattern} {text}");
        }
        assert_eq!(
            matches("[", "a").unwrap_err().message,
            "syntax error in pattern"
        );
    }

    #[test]
    fn many_stars_take_no_time() {
        let begin = std::time::Instant::now();
        let pattern = "*a".repeat(30) + "*b";
        assert_eq!(matches(&pattern, &"a".repeat(200)).ok(), Some(false));
        let row = "*".repeat(1 << 20);
        assert_eq!(matches(&row, "a").ok(), Some(true));
        assert!(begin.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn until_is_a_time_or_a_duration() {
        let now_ns = 10_000_000_000;
        assert_eq!(until("5", now_ns).unwrap().unix_nanos(), 5_000_000_000);
        assert_eq!(until("4s", now_ns).unwrap().unix_nanos(), 6_000_000_000);
        assert_eq!(
            until("1970-01-01T00:00:01Z", now_ns).unwrap().unix_nanos(),
            1_000_000_000
        );
        assert_eq!(
            until("x", now_ns).unwrap_err().message,
            "failed to parse value as time or duration: \"x\""
        );
    }
}
