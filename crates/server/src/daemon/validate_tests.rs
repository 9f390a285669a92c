//! daemon.json as `dockerd --validate` takes it: a table recorded from 28.5.2, and where we differ from it.

use std::ffi::OsString;

use serde::Deserialize;

use super::{Sources, flags};

#[derive(Deserialize)]
struct Table {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    file: String,
    flags: Vec<String>,
    /// Empty: the configuration is OK.
    says: String,
}

const MERGED: &str = "merged configuration validation from file and command line flags failed: ";

/// What we say to a file where dockerd says something else, and why.
fn differs(file: &str) -> Option<(String, &'static str)> {
    let (says, because) = match file {
        "{} {}" => ("invalid JSON: unexpected content after JSON".to_owned(), "other words"),
        r#"{"labels":["a=b","a=c"]}"# => (String::new(), "the later one counts"),
        r#"{"dns":["x"]}"# => (format!("{MERGED}invalid IP address: x"), "found one step later"),
        r#"{"log-opts":{"foo":"1"}}"# => (
            format!(
                "{MERGED}failed to set log opts: unknown log opt 'foo' for json-file log driver"
            ),
            "dockerd says so at its start",
        ),
        r#"{"insecure-registries":["x:99999999"]}"# => (
            format!("{MERGED}insecure registry x:99999999 is not valid: invalid host \"x:99999999\""),
            "dockerd says so at its start",
        ),
        r#"{"default-ulimits":{"nofile":"1:2"}}"# => (String::new(), "ulimits as on the command line"),
        r#"{"default-shm-size":64}"# => (String::new(), "a number is a size"),
        r#"{"default-shm-size":"x"}"# => {
            (format!("{MERGED}invalid size: 'x'"), "found one step later")
        }
        r#"{"default-runtime":"nosuch"}"# => (
            "--default-runtime=nosuch: this restriction is not there yet, and without it the daemon would be more \
             open than you asked for: take it away and name it with each container that needs it, and see it refused"
                .to_owned(),
            "a daemon is never more open than it was told to be",
        ),
        r#"{"exec-opts":["a=b"]}"# => (String::new(), "there are no options of that kind"),
        r#"{"bip":"x"}"# => (
            format!("{MERGED}invalid CIDR address: x"),
            "dockerd says so at its start",
        ),
        r#"{"features":{"a":"b"}}"# => (String::new(), "nothing reads them"),
        r#"{"default-address-pools":[{"base":"x","size":24}]}"# => (
            format!("{MERGED}invalid default address pool: {{\"base\":\"x\",\"size\":24}}"),
            "other words",
        ),
        _ => return None,
    };
    Some((says, because))
}

#[test]
fn files_are_taken_and_refused_as_by_dockerd() {
    let table: Table = serde_json::from_str(include_str!("validate.json")).unwrap();
    assert!(table.rows.len() > 60);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daemon.json");
    let prefix = format!(
        "unable to configure the Docker daemon with file {}: ",
        path.display()
    );
    for Row {
        file,
        flags: line,
        says,
    } in table.rows
    {
        std::fs::write(&path, &file).unwrap();
        let mut words: Vec<OsString> = vec![
            "dockerd".into(),
            "--config-file".into(),
            path.clone().into(),
        ];
        words.extend(line.iter().map(OsString::from));
        let sources = Sources {
            arguments: flags::from_arguments(words).unwrap(),
            default_file: path.clone(),
        };
        let said = sources.read().err().unwrap_or_default();
        let said = said.strip_prefix(&prefix).unwrap_or(&said);
        // dockerd shows a mirror of the command line with a slash at its end.
        let says = says.replace("(from flag: [https://b/]", "(from flag: [https://b]");
        let (wanted, because) = differs(&file).unwrap_or((says, "as dockerd"));
        assert_eq!(said, wanted, "{file} {line:?} ({because})");
    }
}
