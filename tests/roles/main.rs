//! What the one binary does with its name and its first word.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cooper");

/// Exit code, standard output, standard error.
fn run(program: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let command = sys::command::Command::new(program);
    let command = words
        .iter()
        .fold(command, |command, word| command.arg(word));
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn a_wrong_word_and_no_word_are_told_what_there_is() {
    let program = Path::new(PROGRAM);
    for words in [&["registry"][..], &[], &["--wrong"]] {
        let (code, out, told) = run(program, words);
        assert_eq!((code, out.as_str()), (Some(125), ""), "{words:?}");
        assert!(told.contains("Usage: cooper WORD"), "{told}");
        for word in words {
            assert!(told.contains(word), "{told}");
        }
    }
    let (code, help, told) = run(program, &["--help"]);
    assert_eq!((code, told.as_str()), (Some(0), ""));
    for word in ["daemon", "runtime", "starter"] {
        assert!(help.contains(word), "{help}");
    }
}

#[test]
fn the_version_is_told_in_one_way() {
    let program = Path::new(PROGRAM);
    let wanted = (
        Some(0),
        format!("cooper {}\n", env!("CARGO_PKG_VERSION")),
        String::new(),
    );
    for words in [
        &["--version"][..],
        &["-v"],
        &["daemon", "--version"],
        &["daemon", "-v"],
    ] {
        assert_eq!(run(program, words), wanted, "{words:?}");
    }
}

#[test]
fn called_as_docker_it_says_where_that_is() {
    let dir = tempfile::tempdir().unwrap();
    let docker = dir.path().join("docker");
    symlink(PROGRAM, &docker).unwrap();
    let (code, _, told) = run(&docker, &["ps"]);
    assert_eq!(code, Some(125));
    assert!(
        told.contains("not there yet") && told.contains("docker-cli"),
        "{told}"
    );
    // What the service of 2015 starts (T1): the engine, whatever it is called.
    let version = format!("cooper {}\n", env!("CARGO_PKG_VERSION"));
    let (code, told, _) = run(&docker, &["daemon", "--version"]);
    assert_eq!((code, told), (Some(0), version));
}

/// The first container of `cargo xtask run`.
#[test]
fn the_starter_greets_and_serves_a_page() {
    let (code, greeting, _) = run(Path::new(PROGRAM), &["starter"]);
    assert_eq!(code, Some(0));
    assert!(greeting.starts_with("Hello from Cooper!"), "{greeting}");
    let (mut said, theirs) = std::io::pipe().unwrap();
    let mut serving = sys::command::Command::new(PROGRAM)
        .arg("starter")
        .arg("serve")
        .stdout(theirs.into())
        .spawn()
        .unwrap();
    let mut line = [0; 32];
    // It says that it serves once it does.
    let read = said.read(&mut line).unwrap();
    let told = String::from_utf8_lossy(&line[..read]).into_owned();
    let page = TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).and_then(|mut visitor| {
        visitor.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        visitor.read_to_string(&mut page)?;
        Ok(page)
    });
    serving.kill().unwrap();
    serving.wait().unwrap();
    assert!(told.starts_with("serving a page on port 8080"), "{told}");
    assert!(page.unwrap().contains("<h1>Hello from Cooper!</h1>"));
}
