//! Go's name of a Rust type, for error texts only.

use std::any::type_name;

/// Go's name: `Vec<String>` → `[]string`, `HostConfig` → `container.HostConfig`.
pub(super) fn go_type<T>() -> String {
    translate(type_name::<T>())
}

/// What dockerd's texts call the whole body: most types that it decodes are wrapped in one without a name.
pub(super) fn root_name<T>() -> &'static str {
    match go_type::<T>().as_str() {
        "container.ExecOptions" => "ExecOptions",
        "container.ExecStartOptions" => "ExecStartOptions",
        "volume.CreateOptions" => "CreateOptions",
        _ => "",
    }
}

fn translate(name: &str) -> String {
    let (outer, inner) = match name.split_once('<') {
        Some((outer, rest)) => (outer, rest.strip_suffix('>').unwrap_or(rest)),
        None => (name, ""),
    };
    match outer.rsplit("::").next().unwrap_or(outer) {
        "Vec" => format!("[]{}", translate(inner)),
        "Option" => translate(inner),
        "BTreeMap" => match inner.split_once(", ") {
            Some((key, value)) => format!("map[{}]{}", translate(key), translate(value)),
            None => "map".to_owned(),
        },
        "String" | "str" => "string".to_owned(),
        "bool" => "bool".to_owned(),
        "Empty" => "struct {}".to_owned(),
        "i8" => "int8".to_owned(),
        "i16" => "int16".to_owned(),
        "i32" => "int32".to_owned(),
        "i64" => "int64".to_owned(),
        "u8" => "uint8".to_owned(),
        "u16" => "uint16".to_owned(),
        "u32" => "uint32".to_owned(),
        "u64" => "uint64".to_owned(),
        "f64" => "float64".to_owned(),
        "CreateBody" => "container.CreateRequest".to_owned(),
        "ExecConfig" => "container.ExecOptions".to_owned(),
        "ExecStart" => "container.ExecStartOptions".to_owned(),
        "CreateRequest" if outer.contains("::volume::") => "volume.CreateOptions".to_owned(),
        "PortBinding" => "nat.PortBinding".to_owned(),
        other => format!("{}.{other}", package(outer)),
    }
}

/// The Go package is the first module below this crate (`api::container::config::Config` → `container`), except
/// for what stands beside it in Go.
fn package(path: &str) -> &str {
    if path.contains("::mount::") {
        return "mount";
    }
    match path.split("::").nth(1).unwrap_or_default() {
        "exec" => "container",
        "auth" => "registry",
        first => first,
    }
}
