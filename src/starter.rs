//! What the starter image of `cargo xtask run` does: greets, or serves a page on port 8080.
//!
//! The image holds this very binary and nothing else, so that the first container needs no network.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// The port of the page.
const PORT: u16 = 8080;

/// A visitor who sends nothing is let go, since one at a time is served.
const VISITOR_PATIENCE: Duration = Duration::from_secs(5);

const GREETING: &str = "\
Hello from Cooper!

This is a container: its own processes, files, users and host name. To get here
  1. a client asked the engine to create it from the image cooper/starter,
  2. the engine handed a small shim the root file system and its limits,
  3. the shim started this program and kept its output for you.
";

/// `cooper starter` greets; `cooper starter serve` serves a page until it is told to stop.
pub(crate) fn main(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let mut out = std::io::stdout();
    let done = match arguments.next() {
        Some(word) if word == "serve" => serve(),
        _ => out.write_all(GREETING.as_bytes()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Who has closed that too is told by the exit code.
            drop(writeln!(std::io::stderr(), "starter: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    writeln!(std::io::stdout(), "serving a page on port {PORT}")?;
    for visitor in listener.incoming() {
        // A visitor who leaves early is no reason to stop serving the next.
        if let Err(error) = visitor.and_then(answer) {
            writeln!(std::io::stderr(), "visitor: {error}")?;
        }
    }
    Ok(())
}

fn answer(mut visitor: TcpStream) -> std::io::Result<()> {
    visitor.set_read_timeout(Some(VISITOR_PATIENCE))?;
    let mut request = String::new();
    BufReader::new(&visitor).read_line(&mut request)?;
    let page = "<!doctype html><title>Cooper</title><h1>Hello from Cooper!</h1><p>This page comes out of a container.";
    write!(
        visitor,
        "HTTP/1.0 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    )
}
