//! Terminals, handed over by a console socket.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use serde_json::json;

use super::support::Bundle;

/// Takes the master that a runtime sends.
fn take(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().unwrap();
    let (bytes, mut fds): (Vec<u8>, Vec<OwnedFd>) =
        sys::socket::receive_message(stream.as_fd()).unwrap();
    assert!(!bytes.is_empty());
    File::from(fds.pop().unwrap())
}

/// Reads until the terminal's other side is closed or the text has come.
fn read_until(master: &mut File, text: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0u8; 1024];
    while !String::from_utf8_lossy(&all).contains(text) {
        match master.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => all.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn with_terminal(bundle: &mut Bundle, script: &str) -> File {
    bundle.spec["process"]["terminal"] = json!(true);
    bundle.args(&["/bin/sh", "-c", script]);
    std::fs::write(bundle.path("config.json"), bundle.spec.to_string()).unwrap();
    let listener = UnixListener::bind(bundle.path("console.sock")).unwrap();
    let status = bundle
        .command(&[
            "create",
            "--console-socket",
            "console.sock",
            "--pid-file",
            "pid",
            &bundle.id,
        ])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let master = take(&listener);
    bundle.start().text();
    master
}

#[test]
fn the_process_has_a_terminal_of_its_own_devpts() {
    each!(bundle, {
        let script = "tty; stat -c '%F' /dev/console; ls /dev/pts | tr '\\n' ' '; \
                      test -t 0 && test -t 1 && test -t 2 && echo all; echo over > /dev/tty; echo END";
        let mut master = with_terminal(&mut bundle, script);
        let said = read_until(&mut master, "END").replace('\r', "");
        assert!(
            said.starts_with("/dev/pts/0\ncharacter special file\n0 ptmx all\nover\n"),
            "{said}"
        );
    });
}

#[test]
fn what_is_typed_arrives() {
    each!(bundle, {
        let mut master = with_terminal(
            &mut bundle,
            "echo ready; read line; echo got $line; echo END",
        );
        read_until(&mut master, "ready");
        master.write_all(b"hello\n").unwrap();
        let said = read_until(&mut master, "END");
        assert!(said.contains("got hello"), "{said}");
    });
}

#[test]
fn an_interrupt_from_the_terminal_reaches_the_foreground() {
    each!(bundle, {
        let script =
            "trap 'echo caught; echo END; exit' INT; echo ready; while :; do sleep 0.05; done";
        let mut master = with_terminal(&mut bundle, script);
        read_until(&mut master, "ready");
        master.write_all(&[3]).unwrap();
        assert!(read_until(&mut master, "END").contains("caught"));
        bundle.await_status("stopped");
    });
}

#[test]
fn the_size_of_the_spec_is_the_terminals() {
    each!(bundle, {
        bundle.spec["process"]["consoleSize"] = json!({"height": 33, "width": 101});
        let mut master = with_terminal(&mut bundle, "stty size; echo END");
        let said = read_until(&mut master, "END");
        assert!(said.contains("33 101"), "{said}");
    });
}

#[test]
fn an_exec_has_a_terminal_too() {
    each!(bundle, {
        bundle.sleeping();
        let listener = UnixListener::bind(bundle.path("exec.sock")).unwrap();
        let status = bundle
            .command(&[
                "exec",
                "--tty",
                "--detach",
                "--console-socket",
                "exec.sock",
                "--pid-file",
                "exec.pid",
                &bundle.id,
                "/bin/sh",
                "-c",
                "tty; test -t 1 && echo terminal; echo END",
            ])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let said = read_until(&mut take(&listener), "END").replace('\r', "");
        assert!(said.starts_with("/dev/pts/0\nterminal\n"), "{said}");
    });
}

#[test]
fn without_a_terminal_there_is_no_console() {
    each!(bundle, {
        assert_eq!(
            bundle.says("tty || true; test -e /dev/console || echo none"),
            "not a tty\nnone"
        );
    });
}
