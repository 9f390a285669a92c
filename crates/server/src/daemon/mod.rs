//! The daemon around the engine: flags, file, sockets, signals.
//!
//! Order: flags and file → log → pidfile → data root → sockets → engine → accept. Sockets come before the engine, so a
//! client that connects while containers are adopted waits in the socket's queue instead of being refused; and after the
//! lock of the data root, so that nobody waits for a daemon that never will be.

mod flags;
mod hosts;
mod lines;
mod pidfile;
mod report;
mod settings;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod validate_tests;

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use engine::{Claim, Engine};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt as log, reload};

use self::flags::Values;
use self::hosts::Host;
use self::lines::Lines;
use self::pidfile::Pidfile;
use self::settings::Settings;
use crate::gate::Network;
use crate::listen::{Listener, serve};
use crate::service::App;

/// daemon.json of Cooper; as `dockerd` it reads Docker's.
const CONFIG_FILE: &str = "/etc/cooper/daemon.json";
const DOCKER_CONFIG_FILE: &str = "/etc/docker/daemon.json";
/// Where every Docker client looks.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// The daemon's threads: requests are short and wait for others, so a few serve many.
const MIN_THREADS: usize = 2;
const MAX_THREADS: usize = 4;
/// How long work that blocks a thread may take at the end, beyond what the engine waited for.
const THREADS_TIMEOUT: Duration = Duration::from_secs(5);

type Level = reload::Handle<LevelFilter, Registry>;

/// Runs the daemon until it is told to stop. `args` begins with the program's name.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let default_file = match args.first().and_then(|name| Path::new(name).file_name()) {
        Some(name) if name == "dockerd" => DOCKER_CONFIG_FILE,
        _ => CONFIG_FILE,
    };
    let arguments = match flags::from_arguments(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(1);
            return if error.print().is_ok() {
                ExitCode::from(code)
            } else {
                ExitCode::FAILURE
            };
        }
    };
    let sources = Sources {
        arguments,
        default_file: default_file.into(),
    };
    match start(&sources) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the daemon's last words belong to whoever started it"
)]
fn say(message: &str) {
    eprintln!("{message}");
}

#[expect(
    clippy::print_stderr,
    reason = "dockerd prints this line there as well"
)]
fn say_valid() {
    eprintln!("configuration OK");
}

/// Where settings come from; read again at SIGHUP.
struct Sources {
    arguments: Values,
    default_file: PathBuf,
}

impl Sources {
    fn file(&self) -> (PathBuf, bool) {
        match self.arguments.get("config-file") {
            Some(flags::Value::Text(path)) => (path.into(), true),
            _ => (self.default_file.clone(), false),
        }
    }

    fn read(&self) -> Result<(Settings, Values), String> {
        let (path, asked) = self.file();
        let told = |why: String| {
            format!(
                "unable to configure the Docker daemon with file {}: {why}",
                path.display()
            )
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !asked => {
                // A flag alone is at fault then.
                let all = flags::merge(&self.arguments, flags::from_file("")?)?;
                return with_settings(all, |why| why);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(told(format!(
                    "open {}: no such file or directory",
                    path.display()
                )));
            }
            Err(error) => return Err(told(error.to_string())),
        };
        let file = flags::from_file(&text).map_err(told)?;
        let all = flags::merge(&self.arguments, file).map_err(told)?;
        let merged = |why| {
            told(format!(
                "merged configuration validation from file and command line flags failed: {why}"
            ))
        };
        with_settings(all, merged)
    }
}

/// What the values mean; `told` says where those come from that mean nothing.
fn with_settings(
    all: Values,
    told: impl FnOnce(String) -> String,
) -> Result<(Settings, Values), String> {
    let settings = Settings::new(&all).map_err(told)?;
    let on_tcp = |host: &Host| matches!(host, Host::Tcp(_));
    let tcp = match settings.hosts.iter().any(on_tcp) {
        true => flags::Tcp::Listens,
        false => flags::Tcp::None,
    };
    flags::refuse_restrictions(&all, tcp)?;
    Ok((settings, all))
}

fn start(sources: &Sources) -> Result<(), String> {
    let (settings, values) = sources.read()?;
    if values.get("validate") == Some(&flags::Value::Switch(true)) {
        say_valid();
        return Ok(());
    }
    let (filter, level) = reload::Layer::new(LevelFilter::from_level(settings.level));
    let lines = log::layer()
        .with_writer(|| Lines(io::stderr()))
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    for warning in flags::warnings(&values).iter().chain(&settings.warnings) {
        tracing::warn!("{warning}");
    }
    let _pidfile = Pidfile::create(&settings.pidfile)?;
    // Every container that runs takes descriptors of the daemon's.
    sys::limits::raise_open_files()
        .map_err(|error| format!("raise the limit of open files: {error}"))?;
    sys::memory::bound();
    let threads = std::thread::available_parallelism().map_or(MIN_THREADS, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.clamp(MIN_THREADS, MAX_THREADS))
        .enable_all()
        .build()
        .map_err(|error| format!("start the runtime: {error}"))?;
    let done = runtime.block_on(run(sources, settings, level));
    // What still blocks a thread then ends with the process, and so does the lock of the data root.
    match done {
        Ok(()) => runtime.shutdown_timeout(THREADS_TIMEOUT),
        Err(_) => runtime.shutdown_background(),
    }
    done
}

async fn run(sources: &Sources, settings: Settings, level: Level) -> Result<(), String> {
    let app = App::new(settings.gate.clone());
    let program =
        std::env::current_exe().map_err(|error| format!("find the program itself: {error}"))?;
    let config = settings.engine(&program);
    let claim = Claim::take(&config).await.map_err(|error| error.message)?;
    let listeners = listen(&settings)?;
    // Before the engine: a reload that comes while containers are adopted must not end the daemon.
    let mut signals = Signals::listen()?;
    let engine = tokio::select! {
        opened = Engine::open_claimed(config, claim) => opened.map_err(|error| error.message)?,
        () = signals.ending() => {
            tracing::info!("Processing signal: the daemon stops before it began");
            return Ok(());
        }
    };
    app.set_engine(engine.clone());
    let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
    app.connections().spawn(signals.obey(Reloading {
        sources: Sources {
            arguments: sources.arguments.clone(),
            default_file: sources.default_file.clone(),
        },
        app: Arc::clone(&app),
        engine: engine.clone(),
        level,
        stop: stop.clone(),
        at_once: at_once.clone(),
    }));
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "the service manager was not told that the daemon is ready");
    }
    tracing::info!("Daemon has completed initialization");
    let serving = async {
        serve(Arc::clone(&app), listeners, stop).await;
        let shutdown = engine.shutdown().await.map_err(|error| error.message);
        tracing::info!("Daemon shutdown complete");
        shutdown
    };
    tokio::select! {
        done = serving => done,
        // Whoever asks twice does not want to wait, and the daemon can be killed at any instant.
        () = at_once.cancelled() => Err("stopped at once by a second signal".to_owned()),
    }
}

/// Binds everything that was asked for. Cooper's own socket is always there; Docker's is taken when nothing was asked
/// for and nobody answers on it.
fn listen(settings: &Settings) -> Result<Vec<Listener>, String> {
    let group = group(settings)?;
    let mut held = activated()?;
    let own = settings.exec_root.join("cooper.sock");
    let mut listeners = vec![unix(&own, group)?];
    let default = Path::new(DOCKER_SOCKET);
    if settings.hosts.is_empty() {
        let bound = listen_unix(default, &mut listeners, &mut held, || unix(default, group));
        if let Err(error) = bound {
            tracing::warn!(%error, "serving {} only", own.display());
        }
    }
    if settings.hosts.contains(&Host::Activated) {
        if held.is_empty() {
            return Err("failed to load listeners: no sockets found via socket activation: make sure the service was started by systemd".to_owned());
        }
        listeners.append(&mut held);
    }
    for host in &settings.hosts {
        match host {
            Host::Unix(path) => {
                let path = path.as_deref().unwrap_or(default);
                listen_unix(path, &mut listeners, &mut held, || unix(path, group))?;
            }
            Host::Tcp(addresses) => {
                for address in addresses {
                    listeners.push(tcp(*address, settings)?);
                }
            }
            Host::Activated => {}
        }
    }
    Ok(listeners)
}

/// Makes sure that `path` is listened on: by a listener that is there, by a socket that the service manager `held` there
/// (the tutorials name its path, with or without `fd://`), or by a new one.
fn listen_unix(
    path: &Path,
    listeners: &mut Vec<Listener>,
    held: &mut Vec<Listener>,
    bind: impl FnOnce() -> Result<Listener, String>,
) -> Result<(), String> {
    if listeners.iter().any(|listener| listener.stands_at(path)) {
        return Ok(());
    }
    let listener = match held.iter().position(|listener| listener.stands_at(path)) {
        Some(position) => held.swap_remove(position),
        None => bind()?,
    };
    listeners.push(listener);
    Ok(())
}

fn unix(path: &Path, group: Option<u32>) -> Result<Listener, String> {
    let listener = Listener::unix(path, group).map_err(|error| {
        format!(
            "failed to load listeners: can't create unix socket {}: {error}",
            path.display()
        )
    })?;
    tracing::info!("API listen on {}", path.display());
    Ok(listener)
}

fn tcp(address: SocketAddr, settings: &Settings) -> Result<Listener, String> {
    let listener = Listener::tcp(address)
        .map_err(|error| format!("failed to load listeners: listen tcp {address}: {error}"))?;
    if let Some(warning) = exposure(address, &settings.gate.plaintext) {
        tracing::warn!("{warning}");
    }
    tracing::info!("API listen on {}", listener.address().unwrap_or(address));
    Ok(listener)
}

/// What is to be said about an address that others may reach.
fn exposure(address: SocketAddr, plaintext: &[Network]) -> Option<String> {
    if address.ip().is_loopback() {
        return None;
    }
    if plaintext.is_empty() {
        return Some(format!(
            "{address} has no TLS: it serves this machine only (see --allow-plaintext)"
        ));
    }
    plaintext.iter().any(|network| network.is_everyone()).then(|| {
        format!(
            "DANGER: --allow-plaintext opens {address} to EVERYBODY: whoever reaches it is root on this machine, \
             and such ports are found and misused within hours. Name the networks that you trust, or use ssh://"
        )
    })
}

/// The sockets that the service manager opened for this process.
fn activated() -> Result<Vec<Listener>, String> {
    let told = |error: io::Error| format!("failed to load listeners: {error}");
    sys::activation::listen_fds()
        .map_err(told)?
        .into_iter()
        .map(|socket| Listener::activated(socket).map_err(told))
        .collect()
}

/// Number of the socket's group. The default one need not exist.
fn group(settings: &Settings) -> Result<Option<u32>, String> {
    let (name, asked) = &settings.group;
    let found = match name.parse() {
        Ok(number) => Some(number),
        Err(_) => group_number(&fs::read_to_string("/etc/group").unwrap_or_default(), name),
    };
    if found.is_none() && *asked && !name.is_empty() {
        return Err(format!("failed to load listeners: group {name} not found"));
    }
    Ok(found)
}

fn group_number(groups: &str, name: &str) -> Option<u32> {
    let line = groups
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

/// What a signal may change.
struct Reloading {
    sources: Sources,
    app: Arc<App>,
    engine: Engine,
    level: Level,
    stop: CancellationToken,
    at_once: CancellationToken,
}

impl Reloading {
    fn reload(&self) {
        let (path, _) = self.sources.file();
        tracing::info!(
            "Got signal to reload configuration, reloading from: {}",
            path.display()
        );
        let settings = match self.sources.read() {
            Ok((settings, _)) => settings,
            Err(error) => return tracing::error!("{error}"),
        };
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        self.app.set_gate(settings.gate);
        if let Err(error) = self.engine.reload(settings.defaults) {
            tracing::error!(error = error.message, "the reload is not in the journal");
        }
        if let Err(error) = self.level.reload(LevelFilter::from_level(settings.level)) {
            tracing::error!(%error, "the log level stays as it was");
        }
    }
}

/// The signals that the daemon obeys: SIGHUP reloads, SIGUSR1 reports, SIGTERM and SIGINT stop it, SIGQUIT does after
/// a report; containers go on.
struct Signals {
    hang_up: Signal,
    report: Signal,
    quit: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("listen for signals: {error}"));
        Ok(Self {
            hang_up: listen(SignalKind::hangup())?,
            report: listen(SignalKind::user_defined1())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal that stops the daemon.
    async fn ending(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }

    async fn obey(mut self, reloading: Reloading) {
        loop {
            tokio::select! {
                _ = self.hang_up.recv() => reloading.reload(),
                _ = self.report.recv() => report::write(&reloading.engine),
                _ = self.quit.recv() => {
                    report::write(&reloading.engine);
                    break;
                }
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
            }
        }
        tracing::info!("Processing signal: the daemon stops, containers go on");
        reloading.stop.cancel();
        self.ending().await;
        reloading.at_once.cancel();
    }
}
