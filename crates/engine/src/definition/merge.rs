//! What a container takes from its image (moby `daemon/commit.go`, `merge`): the request wins, lists of
//! names are united.

use std::collections::BTreeMap;

use api::container::config::{Config, HealthConfig};
use api::go::Empty;
use image::{ContainerConfig, Healthcheck};
use serde_json::Value;

/// Fills in what the request leaves to the image.
pub(super) fn image_into(config: &mut Config, image: Option<&ContainerConfig>) {
    let Some(image) = image else {
        return;
    };
    fill_text(&mut config.user, &image.user);
    fill_text(&mut config.working_dir, &image.working_dir);
    fill_text(&mut config.stop_signal, &image.stop_signal);
    unite(&mut config.exposed_ports, &image.exposed_ports);
    unite(&mut config.volumes, &image.volumes);
    merge_env(config, image);
    merge_command(config, image);
    if let Some(labels) = &image.labels {
        let own = config.labels.get_or_insert_default();
        for (key, value) in labels {
            own.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if let Some(healthcheck) = &image.healthcheck {
        merge_health(config, healthcheck);
    }
    config.stop_timeout = config.stop_timeout.or(image.stop_timeout);
    if is_empty(&config.shell) {
        config.shell.clone_from(&image.shell);
    }
}

fn fill_text(own: &mut String, image: &str) {
    if own.is_empty() {
        image.clone_into(own);
    }
}

fn is_empty(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

fn unite(own: &mut Option<BTreeMap<String, Empty>>, image: &BTreeMap<String, Value>) {
    if !image.is_empty() {
        let own = own.get_or_insert_default();
        own.extend(image.keys().map(|key| (key.clone(), Empty::default())));
    } else if own.as_ref().is_some_and(BTreeMap::is_empty) {
        // The image's nothing in the place of the request's.
        *own = None;
    }
}

fn merge_env(config: &mut Config, image: &ContainerConfig) {
    if is_empty(&config.env) {
        config.env.clone_from(&image.env);
        return;
    }
    let own = config.env.get_or_insert_default();
    let names: Vec<String> = own
        .iter()
        .map(|variable| name_of(variable).to_owned())
        .collect();
    for variable in image.env.iter().flatten() {
        if !names.iter().any(|name| name == name_of(variable)) {
            own.push(variable.clone());
        }
    }
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// A request with an entrypoint replaces the image's command too, one without takes both; an empty
/// entrypoint takes the command alone.
fn merge_command(config: &mut Config, image: &ContainerConfig) {
    if !is_empty(&config.entrypoint) {
        return;
    }
    if is_empty(&config.cmd) {
        config.cmd.clone_from(&image.cmd);
        config.args_escaped = image.args_escaped;
    }
    if config.entrypoint.is_none() {
        config.entrypoint.clone_from(&image.entrypoint);
    }
}

/// A health check as the API shows it.
pub(crate) fn health(image: &Healthcheck) -> HealthConfig {
    HealthConfig {
        test: image.test.clone(),
        interval: image.interval,
        timeout: image.timeout,
        start_period: image.start_period,
        start_interval: image.start_interval,
        retries: image.retries,
    }
}

fn merge_health(config: &mut Config, image: &Healthcheck) {
    let own = config.healthcheck.get_or_insert_with(HealthConfig::default);
    if is_empty(&own.test) {
        own.test.clone_from(&image.test);
    }
    for (own, image) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *own == 0 {
            *own = image;
        }
    }
}
