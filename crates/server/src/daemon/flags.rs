//! The daemon's flags and the keys of daemon.json: one table for both.
//!
//! Every flag of dockerd 28 parses. One whose feature is not there says so in one warning.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use serde_json::Value as Json;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--flag`, `--flag=false`.
    Switch,
    /// One text.
    Text,
    /// One integer.
    Number,
    /// Any number of texts.
    List,
    /// Any number of `name=value`; an object in the file.
    Map,
    /// An object in the file, which nothing here looks into; no flag.
    Object,
}

/// Whether a flag does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    /// It does what it says: the line (or two) that the help shows.
    Works(&'static str),
    /// It names a part of dockerd that does not exist here, or a default that always holds: nothing to say.
    Moot,
    /// Its feature is not there yet.
    NotYet,
    /// It takes something away from clients or containers, and nothing here does: to start without it would leave
    /// open what somebody closed. With what to do instead.
    Restricts(&'static str),
    /// The same, where the daemon listens on TCP.
    RestrictsTcp(&'static str),
}

/// One row.
pub(super) struct Flag {
    /// Without dashes.
    pub(super) long: &'static str,
    /// One letter, or a space.
    short: char,
    /// Its key in daemon.json; empty when it can stand on the command line only.
    key: &'static str,
    kind: Kind,
    pub(super) support: Support,
}

const fn flag(
    long: &'static str,
    short: char,
    key: &'static str,
    kind: Kind,
    support: Support,
) -> Flag {
    Flag {
        long,
        short,
        key,
        kind,
        support,
    }
}

use Kind::{List, Map, Number, Object, Switch, Text};
use Support::{Moot, NotYet, Restricts, RestrictsTcp, Works};

const NO_TLS: &str = "use ssh://, or a proxy that does TLS before the unix socket";

#[rustfmt::skip]
pub(super) static FLAGS: &[Flag] = &[
    flag("add-runtime", ' ', "runtimes", Map, NotYet),
    flag("allow-direct-routing", ' ', "allow-direct-routing", Switch, NotYet),
    flag("allow-nondistributable-artifacts", ' ', "allow-nondistributable-artifacts", List, Moot),
    flag("allow-origin", ' ', "allow-origins", List, Works("Web origin that may call the API")),
    flag("allow-plaintext", ' ', "allow-plaintext", List, Works("Network to serve without TLS (CIDR)")),
    flag("authorization-plugin", ' ', "authorization-plugins", List, Restricts("let a proxy that decides stand before the socket")),
    flag("bip", ' ', "bip", Text, Works("Address of the default bridge (CIDR)")),
    flag("bip6", ' ', "bip6", Text, NotYet),
    flag("bridge", 'b', "bridge", Text, Works("Bridge for containers, or \"none\"\n(default \"cooper0\")")),
    flag("bridge-accept-fwmark", ' ', "bridge-accept-fwmark", Text, NotYet),
    flag("builder", ' ', "builder", Object, NotYet),
    flag("cdi-spec-dir", ' ', "cdi-spec-dirs", List, NotYet),
    flag("cgroup-parent", ' ', "cgroup-parent", Text, Works("Cgroup above those of all containers\n(default \"/cooper\")")),
    flag("config-file", ' ', "", Text, Works("Configuration file\n(default \"/etc/cooper/daemon.json\",\nas dockerd \"/etc/docker/daemon.json\")")),
    flag("containerd", ' ', "containerd", Text, Moot),
    flag("containerd-namespace", ' ', "containerd-namespace", Text, Moot),
    flag("containerd-plugins-namespace", ' ', "containerd-plugin-namespace", Text, Moot),
    flag("cpu-rt-period", ' ', "cpu-rt-period", Number, NotYet),
    flag("cpu-rt-runtime", ' ', "cpu-rt-runtime", Number, NotYet),
    flag("cri-containerd", ' ', "cri-containerd", Switch, Moot),
    flag("data-root", ' ', "data-root", Text, Works("Images, containers, volumes\n(default \"/var/lib/cooper\")")),
    flag("debug", 'D', "debug", Switch, Works("Log more, as --log-level debug")),
    flag("default-address-pool", ' ', "default-address-pools", List, Works("Pools to take subnets from")),
    flag("default-cgroupns-mode", ' ', "default-cgroupns-mode", Text, Works("Cgroup namespace: \"host\", \"private\"")),
    flag("default-gateway", ' ', "default-gateway", Text, NotYet),
    flag("default-gateway-v6", ' ', "default-gateway-v6", Text, NotYet),
    flag("default-ipc-mode", ' ', "default-ipc-mode", Text, Works("IPC mode: \"shareable\", \"private\"")),
    flag("default-network-opt", ' ', "default-network-opts", Map, NotYet),
    flag("default-runtime", ' ', "default-runtime", Text, Restricts("name it with each container that needs it, and see it refused")),
    flag("default-shm-size", ' ', "default-shm-size", Text, Works("Size of /dev/shm (default 64m)")),
    flag("default-ulimit", ' ', "default-ulimits", Map, Works("Ulimits of containers\n(name=soft[:hard])")),
    flag("dns", ' ', "dns", List, Works("DNS servers of containers")),
    flag("dns-opt", ' ', "dns-opts", List, Works("DNS options of containers")),
    flag("dns-search", ' ', "dns-search", List, Works("DNS search domains of containers")),
    flag("exec-opt", ' ', "exec-opts", List, NotYet),
    flag("exec-root", ' ', "exec-root", Text, Works("Sockets and records of what runs\n(default \"/run/cooper\")")),
    flag("deprecated-key-path", ' ', "deprecated-key-path", Text, Moot),
    flag("experimental", ' ', "experimental", Switch, NotYet),
    flag("feature", ' ', "features", Map, NotYet),
    flag("firewall-backend", ' ', "firewall-backend", Text, Moot),
    flag("fixed-cidr", ' ', "fixed-cidr", Text, NotYet),
    flag("fixed-cidr-v6", ' ', "fixed-cidr-v6", Text, NotYet),
    flag("group", 'G', "group", Text, Works("Group of the unix socket\n(default \"docker\")")),
    flag("host", 'H', "hosts", List, Works("Listen on unix://, tcp:// or fd://")),
    flag("host-gateway-ip", ' ', "host-gateway-ips", List, NotYet),
    flag("host-name", ' ', "host-names", List, Works("Name of this host in requests")),
    flag("http-proxy", ' ', "http-proxy", Text, NotYet),
    flag("https-proxy", ' ', "https-proxy", Text, NotYet),
    flag("icc", ' ', "icc", Switch, Works("Containers may reach each other\n(default true)")),
    flag("init", ' ', "init", Switch, Works("Run an init in each container")),
    flag("init-path", ' ', "init-path", Text, Moot),
    flag("insecure-registry", ' ', "insecure-registries", List, Works("Registry without verified TLS")),
    flag("ip", ' ', "ip", Text, Works("Address for published ports\n(default 0.0.0.0)")),
    flag("ip-forward", ' ', "ip-forward", Switch, Works("Turn on the kernel's forwarding\n(default true)")),
    flag("ip-forward-no-drop", ' ', "ip-forward-no-drop", Switch, NotYet),
    flag("ip-masq", ' ', "ip-masq", Switch, Works("Masquerade for the default bridge\n(default true)")),
    flag("ip6tables", ' ', "ip6tables", Switch, NotYet),
    flag("iptables", ' ', "iptables", Switch, NotYet),
    flag("ipv6", ' ', "ipv6", Switch, NotYet),
    flag("label", ' ', "labels", List, Works("Label of the engine (key=value)")),
    flag("live-restore", ' ', "live-restore", Switch, Moot),
    flag("log-driver", ' ', "log-driver", Text, Works("Log driver of containers\n(default \"json-file\")")),
    flag("log-format", ' ', "log-format", Text, NotYet),
    flag("log-level", 'l', "log-level", Text, Works("\"debug\", \"info\", \"warn\", \"error\"\n(default \"info\")")),
    flag("log-opt", ' ', "log-opts", Map, Works("Log options of containers")),
    flag("max-concurrent-downloads", ' ', "max-concurrent-downloads", Number, NotYet),
    flag("max-concurrent-uploads", ' ', "max-concurrent-uploads", Number, NotYet),
    flag("max-download-attempts", ' ', "max-download-attempts", Number, NotYet),
    flag("metrics-addr", ' ', "metrics-addr", Text, NotYet),
    flag("min-api-version", ' ', "min-api-version", Text, Restricts("let a proxy that refuses old clients stand before the socket")),
    flag("mtu", ' ', "mtu", Number, Works("MTU of the default bridge")),
    flag("network-control-plane-mtu", ' ', "network-control-plane-mtu", Number, Moot),
    flag("no-new-privileges", ' ', "no-new-privileges", Switch, Restricts("give it to each container: --security-opt no-new-privileges")),
    flag("no-proxy", ' ', "no-proxy", Text, NotYet),
    flag("node-generic-resource", ' ', "node-generic-resources", List, Moot),
    flag("nri-opts", ' ', "nri-opts", Map, NotYet),
    flag("oom-score-adjust", ' ', "oom-score-adjust", Number, NotYet),
    flag("pidfile", 'p', "pidfile", Text, Works("PID file\n(default \"cooper.pid\" in the exec root)")),
    flag("raw-logs", ' ', "raw-logs", Switch, Moot),
    flag("registry-mirror", ' ', "registry-mirrors", List, Works("Mirror of docker.io")),
    flag("rootless", ' ', "rootless", Switch, Restricts("start the daemon knowing that it is root")),
    flag("seccomp-profile", ' ', "seccomp-profile", Text, Restricts("give it to each container: --security-opt seccomp=FILE; the built-in profile holds for the others")),
    flag("selinux-enabled", ' ', "selinux-enabled", Switch, Restricts("confine containers with seccomp, capabilities and --user")),
    flag("shutdown-timeout", ' ', "shutdown-timeout", Number, Moot),
    flag("storage-driver", 's', "storage-driver", Text, Moot),
    flag("storage-opt", ' ', "storage-opts", List, NotYet),
    flag("swarm-default-advertise-addr", ' ', "swarm-default-advertise-addr", Text, Moot),
    flag("tls", ' ', "tls", Switch, RestrictsTcp(NO_TLS)),
    flag("tlscacert", ' ', "tlscacert", Text, NotYet),
    flag("tlscert", ' ', "tlscert", Text, NotYet),
    flag("tlskey", ' ', "tlskey", Text, NotYet),
    flag("tlsverify", ' ', "tlsverify", Switch, RestrictsTcp(NO_TLS)),
    flag("userland-proxy", ' ', "userland-proxy", Switch, Moot),
    flag("userland-proxy-path", ' ', "userland-proxy-path", Text, Moot),
    flag("userns-remap", ' ', "userns-remap", Text, Restricts("run the programs as another user: --user")),
    flag("validate", ' ', "", Switch, Works("Check the configuration and exit")),
];

/// A value, from the command line or the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Switch(bool),
    Text(String),
    Number(i64),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl fmt::Display for Value {
    /// As Go's `%v` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::List(values) => write!(f, "[{}]", values.join(" ")),
            Self::Map(values) => {
                let pairs: Vec<String> = values.iter().map(|(k, v)| format!("{k}:{v}")).collect();
                write!(f, "map[{}]", pairs.join(" "))
            }
        }
    }
}

/// Values by the long name of their flag.
pub(super) type Values = BTreeMap<&'static str, Value>;

/// What the help says below the flags.
const AFTER_HELP: &str = "\
Every other flag of dockerd is taken as well: one whose feature is not there yet
gives a warning, and one that would restrict what Cooper cannot keeps the daemon
from starting. The keys of the configuration file are those of dockerd.";

/// The command line as clap sees it.
fn command(name: &str) -> Command {
    let command = Command::new("cooper")
        .bin_name(name)
        .about("A container engine for Linux that speaks the Docker Remote API")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .args_override_self(true)
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .help("Print the version")
                .action(ArgAction::Version),
        )
        .after_help(AFTER_HELP);
    FLAGS
        .iter()
        .filter_map(argument)
        .fold(command, Command::arg)
}

fn argument(flag: &Flag) -> Option<Arg> {
    let arg = Arg::new(flag.long).long(flag.long);
    let arg = if flag.short == ' ' {
        arg
    } else {
        arg.short(flag.short)
    };
    let arg = match flag.support {
        Works(help) => arg.help(help),
        Moot | NotYet | Restricts(_) | RestrictsTcp(_) => arg.hide(true),
    };
    let arg = match flag.kind {
        Switch => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_name("bool")
            .default_missing_value("true")
            .value_parser(go_bool),
        Text => arg.action(ArgAction::Set).value_name("string"),
        Number => arg
            .action(ArgAction::Set)
            .value_name("int")
            .value_parser(clap::value_parser!(i64))
            .allow_negative_numbers(true),
        List => arg.action(ArgAction::Append).value_name("list"),
        Map => arg.action(ArgAction::Append).value_name("map"),
        Object => return None,
    };
    Some(arg)
}

/// Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

/// Reads the command line; the first word is the program.
///
/// # Errors
/// clap's, which prints itself; help and version come that way as well.
pub(super) fn from_arguments(args: Vec<OsString>) -> Result<Values, clap::Error> {
    let is_dockerd = args
        .first()
        .is_some_and(|program| Path::new(program).ends_with("dockerd"));
    let name = if is_dockerd {
        "dockerd"
    } else {
        "cooper daemon"
    };
    let matches = command(name).try_get_matches_from(args)?;
    let mut values = Values::new();
    for flag in FLAGS {
        let texts = || {
            matches
                .get_many::<String>(flag.long)
                .map(|texts| texts.cloned().collect::<Vec<_>>())
        };
        let value = match flag.kind {
            Switch => matches
                .get_one::<bool>(flag.long)
                .copied()
                .map(Value::Switch),
            Text => matches
                .get_one::<String>(flag.long)
                .cloned()
                .map(Value::Text),
            Number => matches
                .get_one::<i64>(flag.long)
                .copied()
                .map(Value::Number),
            List => texts().map(Value::List),
            Map => texts().map(|texts| Value::Map(texts.iter().map(|text| pair(text)).collect())),
            Object => None,
        };
        if let Some(value) = value {
            values.insert(flag.long, value);
        }
    }
    Ok(values)
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

/// Reads daemon.json.
///
/// # Errors
/// In dockerd's words: not JSON, an unknown key, a value of the wrong type.
pub(super) fn from_file(text: &str) -> Result<Values, String> {
    if text.trim().is_empty() {
        return Ok(Values::new());
    }
    let invalid = |error: api::go::DecodeError| match error.to_string().as_str() {
        "unexpected EOF" => "invalid JSON: unexpected end of JSON input".to_owned(),
        other => format!("invalid JSON: {other}"),
    };
    let parsed = api::go::parse(text.as_bytes()).map_err(invalid)?;
    let mut values = Values::new();
    let object = match parsed {
        Json::Object(object) => object,
        Json::Null => return Ok(values),
        _ => {
            return Err(format!(
                "invalid JSON: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                kind(&parsed)
            ));
        }
    };
    let mut unknown = Vec::new();
    for (key, value) in object.iter().flat_map(flattened) {
        match FLAGS.iter().find(|flag| flag.key == key && !key.is_empty()) {
            Some(flag) => values.extend(file_value(flag, value)?.map(|value| (flag.long, value))),
            None => unknown.push(key.as_str()),
        }
    }
    unknown.sort_unstable();
    if unknown.is_empty() {
        Ok(values)
    } else {
        Err(format!(
            "the following directives don't match any configuration option: {}",
            unknown.join(", ")
        ))
    }
}

/// The directives that a key means: those for proxies stand in an object of their own.
fn flattened<'a>((key, value): (&'a String, &'a Json)) -> Vec<(&'a String, &'a Json)> {
    match value {
        Json::Object(proxies) if key == "proxies" => proxies.iter().collect(),
        _ => vec![(key, value)],
    }
}

/// The value of a directive; `null` is no value, as Go reads it.
fn file_value(flag: &Flag, value: &Json) -> Result<Option<Value>, String> {
    let mismatch = |wanted: &str| {
        let (found, key) = (kind(value), flag.key);
        format!(
            "invalid JSON: json: cannot unmarshal {found} into Go struct field Config.{key} of type {wanted}"
        )
    };
    // What is nested deeper than names and values is kept as its JSON text.
    let text = |value: &Json| match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        other => other.to_string(),
    };
    let value = match (flag.kind, value) {
        (Text, Json::Null) if flag.key == "default-shm-size" => {
            Err("invalid JSON: invalid size: \"null\"".to_owned())
        }
        (_, Json::Null) => return Ok(None),
        (Object, Json::Object(_)) => Ok(Value::Text(value.to_string())),
        (Switch, Json::Bool(value)) => Ok(Value::Switch(*value)),
        (Text, Json::String(value)) => Ok(Value::Text(value.clone())),
        // A size may stand as a number.
        (Text, Json::Number(value)) if flag.key == "default-shm-size" => {
            Ok(Value::Text(value.to_string()))
        }
        (Number, Json::Number(value)) if value.is_i64() => {
            Ok(Value::Number(value.as_i64().unwrap_or_default()))
        }
        (List, Json::Array(values)) => Ok(Value::List(values.iter().map(text).collect())),
        (Map, Json::Object(values)) if flag.key == "log-opts" => {
            let options = values.iter().map(|(name, value)| match value {
                Json::String(_) | Json::Null => Ok((name.clone(), text(value))),
                other => Err(format!(
                    "invalid JSON: json: cannot unmarshal {} into Go struct field Config.log-opts.{name} of type string",
                    kind(other)
                )),
            });
            options.collect::<Result<_, _>>().map(Value::Map)
        }
        (Map, Json::Object(values)) => Ok(Value::Map(
            values
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
        )),
        (Switch, _) => Err(mismatch("bool")),
        (Text, _) => Err(mismatch("string")),
        (Number, _) => Err(mismatch("int")),
        (List, _) => Err(mismatch("[]string")),
        (Map, _) => Err(mismatch("map[string]string")),
        (Object, _) => Err(mismatch("config.BuilderConfig")),
    };
    value.map(Some)
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

/// Puts both together.
///
/// # Errors
/// In dockerd's words when a directive stands in both.
pub(super) fn merge(arguments: &Values, file: Values) -> Result<Values, String> {
    let conflicts: Vec<String> = FLAGS
        .iter()
        .filter_map(|flag| {
            let (given, filed) = (arguments.get(flag.long)?, file.get(flag.long)?);
            Some(format!(
                "{}: (from flag: {given}, from file: {filed})",
                flag.key
            ))
        })
        .collect();
    if !conflicts.is_empty() {
        return Err(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            conflicts.join(", ")
        ));
    }
    let mut all = file;
    all.extend(arguments.iter().map(|(name, value)| (*name, value.clone())));
    Ok(all)
}

/// One warning for each directive whose feature is not there.
pub(super) fn warnings(values: &Values) -> Vec<String> {
    let missing = FLAGS.iter().filter(|flag| match flag.support {
        NotYet | RestrictsTcp(_) => true,
        // `unconfined` asks for more than there is; what is off or built in holds anyway.
        Restricts(_) => values.get(flag.long) == Some(&Value::Text("unconfined".to_owned())),
        Works(_) | Moot => false,
    });
    missing
        .filter_map(|flag| {
            let value = values.get(flag.long)?;
            let dashes = if flag.kind == Object { "" } else { "--" };
            Some(format!(
                "{dashes}{}={value} has no effect: this feature is not there yet",
                flag.long
            ))
        })
        .collect()
}

/// Refuses a directive that restricts and would not: the daemon must not start more open than it was told to be.
///
/// # Errors
/// One line that names the directive and the way out.
pub(super) fn refuse_restrictions(values: &Values, tcp: Tcp) -> Result<(), String> {
    for flag in FLAGS {
        let way_out = match (flag.support, tcp) {
            (Restricts(way_out), _) | (RestrictsTcp(way_out), Tcp::Listens) => way_out,
            (Works(_) | Moot | NotYet, _) | (RestrictsTcp(_), Tcp::None) => continue,
        };
        if let Some(value) = values.get(flag.long).filter(|value| restricts(value)) {
            return Err(format!(
                "--{}={value}: this restriction is not there yet, and without it the daemon would be more open than \
                 you asked for: take it away and {way_out}",
                flag.long
            ));
        }
    }
    Ok(())
}

/// Whether the daemon listens on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tcp {
    Listens,
    None,
}

/// Whether a value asks for less than there is by default; `builtin` and `unconfined` are words for seccomp, the
/// other names are those of the one runtime.
fn restricts(value: &Value) -> bool {
    match value {
        Value::Switch(on) => *on,
        Value::Text(text) => {
            !matches!(text.as_str(), "" | "builtin" | "unconfined")
                && !engine::RUNTIMES.contains(&text.as_str())
        }
        Value::Number(_) => true,
        Value::List(list) => !list.is_empty(),
        Value::Map(map) => !map.is_empty(),
    }
}
