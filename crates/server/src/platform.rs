//! `os[/architecture[/variant]]` by the rules and in the words of containerd's `platforms.Parse`.

use api::image::Platform;

/// What Go calls this machine's architecture.
const HOST_ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};

/// Go's operating systems and architectures (`go tool dist list`, containerd `platforms/database.go`).
const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// How the texts quote their rules, as Go's `%q` prints them.
const SYSTEM_RULE: &str =
    r"^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$";
const PART_RULE: &str = "^[A-Za-z0-9_.-]+$";

/// Reads a platform; what is left out is this machine's.
///
/// # Errors
/// containerd's words.
pub(crate) fn parse(text: &str) -> Result<Platform, String> {
    let refused = |why: String| Err(format!("{why}: invalid argument"));
    if text.contains('*') {
        return refused(format!("{text:?}: wildcards not yet supported"));
    }
    let parts: Vec<&str> = text.split('/').collect();
    for (number, part) in parts.iter().enumerate() {
        if number == 0 && !is_system(part) {
            return refused(format!(
                "{part:?} is an invalid OS component of {text:?}: OSAndVersion specifier component must match \"{SYSTEM_RULE}\""
            ));
        }
        if number > 0 && !is_part(part) {
            return refused(format!(
                "{part:?} is an invalid component of {text:?}: platform specifier component must match \"{PART_RULE}\""
            ));
        }
    }
    let system = |text: &str| match text.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    };
    let (os, (architecture, variant)) = match parts[..] {
        [only] if SYSTEMS.contains(&system(only).as_str()) => {
            (system(only), (HOST_ARCHITECTURE.to_owned(), String::new()))
        }
        [only] => {
            let found = architecture(only, "");
            if !ARCHITECTURES.contains(&found.0.as_str()) {
                return refused(format!(
                    "{text:?}: unknown operating system or architecture"
                ));
            }
            ("linux".to_owned(), found)
        }
        [os, arch] => {
            let (arch, variant) = architecture(arch, "");
            // 32-bit ARM is version 7 unless it says otherwise.
            let variant = if arch == "arm" && variant == "v7" {
                String::new()
            } else {
                variant
            };
            (system(os), (arch, variant))
        }
        [os, arch, variant] => (system(os), architecture(arch, variant)),
        _ => return refused(format!("{text:?}: cannot parse platform specifier")),
    };
    Ok(Platform {
        os,
        architecture,
        variant,
        ..Platform::default()
    })
}

fn is_system(part: &str) -> bool {
    let name = part.split('(').next().unwrap_or_default();
    let plain = |text: &str, more: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || more.as_bytes().contains(&byte))
    };
    let version = &part[name.len()..];
    let version_is_fine = version.is_empty()
        || version
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'))
            .is_some_and(|rest| {
                plain(rest, "_.%-+") && !rest.contains("++") && !rest.ends_with('+')
            });
    !name.is_empty() && plain(name, "_-") && version_is_fine
}

fn is_part(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// One spelling of each architecture and variant.
fn architecture(name: &str, variant: &str) -> (String, String) {
    let (name, variant) = (name.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (name, variant) = match (name.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", other) => ("arm64", other),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (name.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_containerds() {
        for (text, wanted) in [
            ("linux", ["linux", HOST_ARCHITECTURE, ""]),
            ("arm64", ["linux", "arm64", ""]),
            ("Linux/x86_64", ["linux", "amd64", ""]),
            ("linux/arm", ["linux", "arm", ""]),
            ("linux/arm/6", ["linux", "arm", "v6"]),
            ("linux/arm64/v8", ["linux", "arm64", ""]),
            ("linux/amd64/v8", ["linux", "amd64", "v8"]),
            (
                "windows(10.0.17763)/amd64",
                ["windows(10.0.17763)", "amd64", ""],
            ),
            ("linux/bogus", ["linux", "bogus", ""]),
        ] {
            let found = parse(text).unwrap();
            assert_eq!(
                [found.os, found.architecture, found.variant],
                wanted,
                "{text}"
            );
        }
    }

    /// Recorded from dockerd 28.5.2 (`POST /images/create?platform=…`).
    #[test]
    fn refusals_are_containerds() {
        for (text, wanted) in [
            (
                "nonsense",
                r#""nonsense": unknown operating system or architecture"#,
            ),
            (
                "a b",
                r#""a b" is an invalid OS component of "a b": OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$""#,
            ),
            (
                "linux/",
                r#""" is an invalid component of "linux/": platform specifier component must match "^[A-Za-z0-9_.-]+$""#,
            ),
            (
                "linux/amd64/v1/x",
                r#""linux/amd64/v1/x": cannot parse platform specifier"#,
            ),
        ] {
            assert_eq!(
                parse(text).unwrap_err(),
                format!("{wanted}: invalid argument")
            );
        }
    }
}
