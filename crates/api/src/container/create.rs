//! Reading the body of `POST /containers/create`, with the legacy forms that clients still send.
//!
//! Until API 1.15 the host configuration came with *start*; clients of that time, and the tutorials they left
//! behind, put its fields at the top level of this body. Docker 1.7 to 26 honoured that by the rule here; later
//! ones silently publish no port. We keep the rule for every version: it takes nothing from newer clients.

use serde::Deserialize;
use serde_json::Value;

use super::CreateRequest;
use super::config::Config;
use super::host_config::HostConfig;
use crate::go::{self, DecodeError};
use crate::network::NetworkingConfig;

/// A create body that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateBodyError {
    /// Not JSON, or a field that does not fit.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No field of the configuration at all.
    #[error("config cannot be empty in order to create a container")]
    NoConfig,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Parts {
    host_config: Option<HostConfig>,
    networking_config: Option<NetworkingConfig>,
    cpuset: String,
}

impl CreateRequest {
    /// Reads a create body.
    ///
    /// # Errors
    /// When it is not JSON, a field does not fit, or there is no configuration in it.
    pub fn decode(body: &[u8]) -> Result<Self, CreateBodyError> {
        let value = go::parse(body)?;
        if !has_field(&value, go::field_names::<Config>()) {
            if !value.is_object() && !value.is_null() {
                go::decode_value::<CreateBody>(&value)?;
            }
            // What does not fit is told before what is missing.
            go::decode_value::<Parts>(&value)?;
            return Err(CreateBodyError::NoConfig);
        }
        let config = go::decode_value(&value)?;
        let parts: Parts = go::decode_value(&value)?;
        let host_config = match parts.host_config {
            None => go::decode_value(&value)?,
            // Top-level fields beside a HostConfig were never more than a hint: unusable ones are ignored.
            Some(inner) => match go::decode_value(&value) {
                Ok(outer) => merged(inner, &outer, &parts.cpuset),
                Err(_) => inner,
            },
        };
        let endpoints = parts
            .networking_config
            .and_then(|networking| networking.endpoints_config);
        Ok(Self {
            config,
            host_config,
            endpoints: endpoints.unwrap_or_default(),
        })
    }

    /// Writes the default network as what it is, the bridge: in the network mode and among the endpoints
    /// (moby `postContainersCreate`). An endpoint that was given for the default network is the bridge's.
    pub fn name_default_network(&mut self) {
        if matches!(self.host_config.network_mode.as_str(), "" | "default") {
            "bridge".clone_into(&mut self.host_config.network_mode);
            if let Some(endpoint) = self.endpoints.remove("default") {
                self.endpoints.insert("bridge".to_owned(), endpoint);
            }
        }
    }
}

/// Named for the error text of a body that is no object.
#[derive(Deserialize)]
struct CreateBody {}

fn has_field(value: &Value, fields: &[&str]) -> bool {
    let Value::Object(map) = value else {
        return false;
    };
    map.iter().any(|(key, value)| {
        !value.is_null() && fields.iter().any(|field| field.eq_ignore_ascii_case(key))
    })
}

/// The few top-level fields that count beside a HostConfig which does not set them.
fn merged(mut inner: HostConfig, outer: &HostConfig, cpuset: &str) -> HostConfig {
    if inner.memory == 0 {
        inner.memory = outer.memory;
    }
    if inner.memory_swap == 0 {
        inner.memory_swap = outer.memory_swap;
    }
    if inner.cpu_shares == 0 {
        inner.cpu_shares = outer.cpu_shares;
    }
    if inner.cpuset_cpus.is_empty() {
        inner.cpuset_cpus.clone_from(&outer.cpuset_cpus);
    }
    if inner.cpuset_cpus.is_empty() {
        cpuset.clone_into(&mut inner.cpuset_cpus);
    }
    if inner.volume_driver.is_empty() {
        inner.volume_driver.clone_from(&outer.volume_driver);
    }
    inner
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(body: &str) -> Result<CreateRequest, String> {
        CreateRequest::decode(body.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn tutorial_body_of_2015_is_read() {
        let body = r#"{"Hostname":"","User":"","Memory":0,"MemorySwap":0,"AttachStdin":false,
            "AttachStdout":true,"AttachStderr":true,"PortSpecs":null,"Privileged":false,"Tty":false,
            "OpenStdin":false,"StdinOnce":false,"Env":null,"Dns":null,"Image":"postgres:9.3",
            "Volumes":{},"VolumesFrom":{},"WorkingDir":""}"#;
        let request = decode(body).unwrap();
        assert_eq!(request.config.image, "postgres:9.3");
        assert_eq!(request.host_config.volumes_from, None);
        assert!(request.config.attach_stdout);
    }

    #[test]
    fn top_level_ports_are_published_without_a_host_config() {
        let body = r#"{"Image":"tomcat:9.0","PortBindings":{"8080/tcp":[{"HostPort":"9090"}]}}"#;
        let ports = decode(body).unwrap().host_config.port_bindings.unwrap();
        assert_eq!(ports["8080/tcp"].as_ref().unwrap()[0].host_port, "9090");
    }

    #[test]
    fn beside_a_host_config_only_six_fields_count() {
        let body = r#"{"Image":"x","Memory":7,"CpuShares":2,"Cpuset":"0","Privileged":true,
            "Binds":["/a:/b"],"HostConfig":{"CpuShares":9}}"#;
        let host = decode(body).unwrap().host_config;
        assert_eq!(
            (host.memory, host.cpu_shares, host.cpuset_cpus.as_str()),
            (7, 9, "0")
        );
        assert!(!host.privileged);
        assert_eq!(host.binds, None);
    }

    /// Bodies and the texts that dockerd 28.5.2 answered them with (after its `invalid JSON: `).
    const REFUSALS: &[(&str, &str)] = &[
        (
            "{}",
            "config cannot be empty in order to create a container",
        ),
        (
            "null",
            "config cannot be empty in order to create a container",
        ),
        (
            "[]",
            "json: cannot unmarshal array into Go value of type container.CreateRequest",
        ),
        (
            r#""x""#,
            "json: cannot unmarshal string into Go value of type container.CreateRequest",
        ),
        ("", "got EOF while reading request body"),
        (
            r#"{"Image":1}"#,
            "json: cannot unmarshal number into Go struct field .Image of type string",
        ),
        (
            r#"{"Image":"n","Cmd":1}"#,
            "json: cannot unmarshal number into Go value of type string",
        ),
        (
            r#"{"Image":"n","Cmd":[1]}"#,
            "json: cannot unmarshal array into Go value of type string",
        ),
        (
            r#"{"Image":"n","HostConfig":{"Memory":"x"}}"#,
            "json: cannot unmarshal string into Go struct field .HostConfig.Memory of type int64",
        ),
        (
            r#"{"Image":"n","HostConfig":{"Memory":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field .HostConfig.Memory of type int64",
        ),
        (
            r#"{"Image":"n","HostConfig":{"BlkioWeight":70000}}"#,
            "json: cannot unmarshal number 70000 into Go struct field .HostConfig.BlkioWeight of type uint16",
        ),
        (
            r#"{"Image":"n","Env":"x"}"#,
            "json: cannot unmarshal string into Go struct field .Env of type []string",
        ),
        (
            r#"{"Image":"n","Labels":{"a":1}}"#,
            "json: cannot unmarshal number into Go struct field .Labels.a of type string",
        ),
        (
            r#"{"Image":"n","Labels":[]}"#,
            "json: cannot unmarshal array into Go struct field .Labels of type map[string]string",
        ),
        (
            r#"{"Image":"n","HostConfig":[]}"#,
            "json: cannot unmarshal array into Go struct field .HostConfig of type container.HostConfig",
        ),
        (
            r#"{"Image":"n","HostConfig":{"PortBindings":{"80/tcp":{"HostPort":1}}}}"#,
            "json: cannot unmarshal object into Go struct field .HostConfig.PortBindings.80~1tcp of type []nat.PortBinding",
        ),
        (
            r#"{"Image":"n","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":1}]}}}"#,
            "json: cannot unmarshal number into Go struct field .HostConfig.PortBindings.80~1tcp.0.HostPort of type string",
        ),
        (
            r#"{"Image":"n","Volumes":[]}"#,
            "json: cannot unmarshal array into Go struct field .Volumes of type map[string]struct {}",
        ),
        (
            r#"{"Image":"n","Cmd":"x","HostConfig":{"RestartPolicy":"always"}}"#,
            "json: cannot unmarshal string into Go struct field .HostConfig.RestartPolicy of type container.RestartPolicy",
        ),
        ("{", "unexpected EOF"),
        (r#"{"Image":"no"#, "unexpected EOF"),
        (
            r#"{"a":x}"#,
            "invalid character 'x' looking for beginning of value",
        ),
        (r#"{"Image":"nope"} x"#, "unexpected content after JSON"),
        (r#"{"Image":"nope"}{}"#, "unexpected content after JSON"),
        (
            r#"{"Image":"nope" "x":1}"#,
            "invalid character '\"' after object key:value pair",
        ),
        (
            "{'a':1}",
            "invalid character '\\'' looking for beginning of object key string",
        ),
        (
            r#"{"a":1,}"#,
            "invalid character '}' looking for beginning of object key string",
        ),
    ];

    #[test]
    fn refusals_have_dockers_words() {
        for (body, wanted) in REFUSALS {
            assert_eq!(decode(body).unwrap_err(), *wanted, "{body}");
        }
    }

    #[test]
    fn keys_match_in_any_case_and_the_last_wins() {
        assert_eq!(
            decode(r#"{"image":"a","IMAGE":"b"}"#).unwrap().config.image,
            "b"
        );
    }

    #[test]
    fn a_string_is_a_command_of_one_word() {
        let config = decode(r#"{"Image":"a","Cmd":"true","Entrypoint":"/e"}"#)
            .unwrap()
            .config;
        assert_eq!(config.cmd.unwrap(), ["true"]);
        assert_eq!(config.entrypoint.unwrap(), ["/e"]);
    }

    #[test]
    fn null_ports_and_short_or_long_arrays_are_zero_filled() {
        let body = r#"{"Image":"a","HostConfig":{"PortBindings":{"80/tcp":null,"81/tcp":[]},
            "ConsoleSize":[4]},"Labels":{"x":null},"ExposedPorts":{"1/tcp":null}}"#;
        let request = decode(body).unwrap();
        let ports = request.host_config.port_bindings.unwrap();
        assert_eq!((&ports["80/tcp"], &ports["81/tcp"]), (&None, &Some(vec![])));
        assert_eq!(request.host_config.console_size, [4, 0]);
        assert_eq!(request.config.labels.unwrap()["x"], "");
        assert_eq!(request.config.exposed_ports.unwrap().len(), 1);
    }
}
