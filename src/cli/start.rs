//! `pmd start`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::args::{Global, Start};
use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::output::{Output, note, stdout};
use super::common::runtime::{block_on, with_progress};
use super::common::target::{self, Target};
use crate::base::log::setup;
use crate::base::shutdown::Reason;
use crate::config::settings::{self, Settings};
use crate::control::api::Status;
use crate::control::client::ClientError;
use crate::control::handles::About;
use crate::control::socket::prepare_folder;
use crate::daemon::process::{self, BackgroundError};
use crate::daemon::run::{self, Ready, RunOptions, StartError};
use crate::daemon::systemd;
use crate::daemon::systemd::inherited_listeners;
use crate::takeover::port::Port;
use crate::takeover::process::Process;
use pmd_epmd::server::listener::{ListenError, Listener};

/// How long a daemon may take to answer. It needs some milliseconds; a loaded host may need longer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of a log from which on a new daemon begins a new one.
const MAX_LOG: u64 = 1024 * 1024;

/// What the command says it did.
#[derive(Debug, Serialize)]
struct Report {
    started: bool,
    pid: u32,
    port: i32,
    listening: Vec<std::net::SocketAddr>,
    socket: PathBuf,
}

/// Starts the daemon, unless it runs.
pub fn run(global: &Global, args: &Start, output: Output) -> Result<Exit> {
    let settings = target::settings(global, args)?;
    let target = Target::of_settings(global, &settings);
    // A daemon in the background was started by one that has looked already.
    if !process::starter_waits() && block_on(report_running(&target, output))? == Exit::Done {
        return Ok(Exit::Done);
    }
    if args.foreground {
        return in_foreground(settings, args, &target, output);
    }
    let words = words(global, args, &settings, &[]);
    block_on(async { report(&in_background(&target, &words).await?, true, output) })
}

/// Says so if the daemon runs already; ends with anything but `Done` if it does not.
async fn report_running(target: &Target, output: Output) -> Result<Exit> {
    match target.client().status().await {
        Ok(status) if status.port == i32::from(target.port) => report(&status, false, output),
        Ok(status) => Err(serves_another_port(&status, target)),
        Err(ClientError::NotReachable { .. }) => Ok(Exit::NotReachable),
        Err(error) => Err(error.into()),
    }
}

fn report(status: &Status, started: bool, output: Output) -> Result<Exit> {
    let report = Report {
        started,
        pid: status.pid,
        port: status.port,
        listening: status.listening.clone(),
        socket: status.socket.clone(),
    };
    let how = if started { "running" } else { "already running" };
    output.one(&report, |out| writeln!(out, "pmd is {how} on port {} (pid {})", status.port, status.pid))?;
    Ok(Exit::Done)
}

/// The words that start a daemon with these settings in the foreground, from whatever directory.
pub fn words(global: &Global, args: &Start, settings: &Settings, more: &[OsString]) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["start", "--foreground", "--port"].map(OsString::from).to_vec();
    words.push(settings.listen_port().to_string().into());
    words.extend(["--socket".into(), settings.socket.clone().into_os_string()]);
    let asked_for = global.config.is_some();
    if let Some(file) = settings.config_file.clone().filter(|file| asked_for || file.exists()) {
        words.extend(["--config".into(), file.into_os_string()]);
    }
    for address in args.addresses().unwrap_or_default() {
        words.extend(["--bind".into(), address.to_string().into()]);
    }
    if args.relaxed_command_check {
        words.push("--relaxed-command-check".into());
    }
    if let Some(timeout) = args.packet_timeout {
        words.extend(["--packet-timeout".into(), format!("{}ms", timeout.as_millis()).into()]);
    }
    let cluster = args.cluster.as_slice();
    for (flag, values) in [
        ("--join", args.join.as_slice()),
        ("--discovery", args.discovery.as_slice()),
        ("--cluster", cluster),
        ("--advertise", args.advertise.as_slice()),
    ] {
        // In one word, as a value may begin with a dash.
        words.extend(values.iter().map(|value| format!("{flag}={value}").into()));
    }
    words.extend_from_slice(more);
    words
}

/// Starts a daemon with these words in the background and returns how it is.
///
/// One that cannot be talked to is ended again: a failed start leaves nothing behind.
pub async fn in_background(target: &Target, words: &[OsString]) -> Result<Status> {
    // Blocks this thread, which has nothing else to do.
    let started = match process::background(words, PATIENCE) {
        Ok(started) => started,
        Err(error) => return Err(explain(error, target).await),
    };
    match with_progress("waiting for the daemon", target.client().status()).await {
        Ok(status) if status.pid == started.pid => Ok(status),
        Ok(status) => {
            end(started.pid).await;
            Err(serves_another_port(&status, target))
        }
        Err(error) => {
            end(started.pid).await;
            Err(Failure::new(
                Exit::General,
                format!(
                    "the daemon started, but its control socket does not answer, so it was ended: {error}"
                ),
                "choose a place for the socket that this user may write to with --socket or PMD_HOME",
            ))
        }
    }
}

/// Ends a daemon that was just started.
async fn end(pid: u32) {
    let Some(process) = i32::try_from(pid).ok().and_then(|pid| Process::open(pid).ok()) else { return };
    // It is a child of this process; nothing can keep it but its own end.
    let _ = process.terminate();
    let _ = process.ended(PATIENCE).await;
}

fn serves_another_port(status: &Status, target: &Target) -> Failure {
    Failure::new(
        Exit::Conflict,
        format!(
            "the pmd behind {} (pid {}) serves port {}, not {}",
            target.socket.display(),
            status.pid,
            status.port,
            target.port
        ),
        "choose another socket with --socket, or another port with --port",
    )
}

async fn explain(error: BackgroundError, target: &Target) -> Failure {
    match error {
        BackgroundError::Ended { code: Some(code), .. } if code == i32::from(Exit::Conflict.code()) => {
            Port::look(target.port).await.conflict(target)
        }
        BackgroundError::Ended { code, complaint } => {
            // What the other process has to say is in the form of `Output::failure`, after its notes.
            let line = |prefix: &str| {
                complaint.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned)
            };
            let exit = code.map_or(Exit::General, Exit::of_code);
            let message = line("error: ").unwrap_or_else(|| format!("the daemon ended at once: {complaint}"));
            let hint = line("hint: ");
            Failure::new(
                exit,
                message,
                hint.unwrap_or_else(|| "try `pmd start --foreground` to see more".into()),
            )
        }
        BackgroundError::Late(_) => Failure::new(
            Exit::TimedOut,
            error.to_string(),
            "see whether the host is overloaded, and try `pmd start --foreground`",
        ),
        BackgroundError::Spawn(_) => Failure::new(
            Exit::General,
            error.to_string(),
            "see whether the host has memory and processes left",
        ),
    }
}

fn in_foreground(settings: Settings, args: &Start, target: &Target, output: Output) -> Result<Exit> {
    setup::init();
    if !process::end_with_starter() {
        return Ok(Exit::Done);
    }
    let starter_waits = process::starter_waits();
    if starter_waits {
        process::leave_session();
    }
    let inherited = inherited_listeners().map_err(|error| {
        Failure::new(Exit::General, error.to_string(), "correct the socket unit, or start pmd without one")
    })?;
    if let Some(sockets) = &inherited {
        let there: Vec<_> = sockets.iter().filter_map(Listener::address).collect();
        let names = std::env::var(systemd::NAMES).unwrap_or_default();
        let option = target::bind_option(args);
        if let Some(said) = systemd::without_effect(option, &settings.bind, &there, &names) {
            tracing::warn!("{said}");
        }
    }
    let banner = if output.format.is_json() { json_banner } else { human_banner };
    let options = RunOptions {
        inherited,
        notify: true,
        on_ready: (!starter_waits).then_some(banner),
        announce: starter_waits.then(|| open_log(&settings)),
        ..RunOptions::default()
    };
    match run::foreground(settings, options) {
        // Which part it was is in the log.
        Ok(Reason::Failed) => Ok(Exit::General),
        Ok(_) => Ok(Exit::Done),
        Err(StartError::Listen(ListenError::InUse(address))) if starter_waits => {
            // Whoever waits for this process finds out who holds the port.
            Err(Failure::new(Exit::Conflict, format!("{address} is in use"), "choose another port"))
        }
        Err(StartError::Listen(ListenError::InUse(_))) => {
            let mut conflict = None;
            block_on(async {
                conflict = Some(Port::look(target.port).await.conflict(target));
                Ok(Exit::Done)
            })?;
            Err(conflict.unwrap_or_else(Failure::broken_pipe))
        }
        Err(error @ StartError::Listen(_)) => Err(Failure::new(
            Exit::Refused,
            error.to_string(),
            "choose addresses of this host with --bind, and a port that this user may have with --port",
        )),
        Err(StartError::Cluster(error)) => Err(Failure::new(Exit::General, error.to_string(), error.hint())),
        Err(error @ StartError::System(_)) => {
            Err(Failure::new(Exit::General, error.to_string(), "free what is full, and try again"))
        }
    }
}

/// Where a daemon in the background writes what it has to say: beside its socket.
fn log_file(socket: &Path) -> PathBuf {
    socket.with_extension("log")
}

/// Makes room for the log; none if it cannot be written, which is no reason not to serve.
fn open_log(settings: &Settings) -> Option<PathBuf> {
    // Made as the socket needs it, which comes later.
    prepare_folder(settings).ok()?;
    let log = log_file(&settings.socket);
    if std::fs::metadata(&log).is_ok_and(|found| found.len() > MAX_LOG) {
        std::fs::rename(&log, log.with_extension("log.old")).ok()?;
    }
    std::fs::File::options().create(true).append(true).open(&log).ok()?;
    Some(log)
}

fn json_banner(ready: &Ready) {
    let report = Report {
        started: true,
        pid: std::process::id(),
        port: ready.about.port,
        listening: ready.about.listening.clone(),
        socket: ready.about.socket.clone(),
    };
    let mut out = stdout();
    // Nobody may be listening; the daemon is not there to be looked at.
    let _ = super::common::output::json(&mut out, &report, false).and_then(|()| out.flush());
}

fn human_banner(ready: &Ready) {
    let mut out = stdout();
    let _ = write_banner(&mut out, &ready.about).and_then(|()| out.flush());
    let wildcard = ready.about.listening.iter().any(|address| address.ip().is_unspecified());
    if wildcard && ready.about.relaxed_command_check {
        note(
            "note: anybody on this host can end the daemon and any node's registration (relaxed command check)",
        );
    }
}

fn write_banner(out: &mut impl Write, about: &About) -> io::Result<()> {
    let port = about.listen_port;
    let (variable, flag) = if port == settings::PORT {
        (String::new(), String::new())
    } else {
        (format!("ERL_EPMD_PORT={port} "), format!(" --port {port}"))
    };
    let addresses: Vec<String> = about.listening.iter().map(ToString::to_string).collect();
    writeln!(
        out,
        "pmd {} is running on port {port} of {} (pid {})",
        env!("CARGO_PKG_VERSION"),
        about.host,
        std::process::id()
    )?;
    writeln!(out, "  addresses       {}", addresses.join(", "))?;
    writeln!(out, "  control socket  {}", about.socket.display())?;
    writeln!(out, "\nTry in another terminal:")?;
    writeln!(out, "  {variable}erl -sname foo")?;
    writeln!(out, "  pmd{flag} names")?;
    writeln!(out, "  pmd{flag} status")?;
    writeln!(out, "\nStop with Ctrl-C.")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    #[test]
    fn a_daemon_in_the_background_is_told_everything() {
        let typed = "pmd start --bind 10.0.0.1,::1 --packet-timeout 5s --join host1 --join [fd00::1]:4370 \
                     --discovery broadcast --discovery dns:pmd.example.org --cluster shop --advertise 10.0.0.1";
        let start = |words: Vec<OsString>| match Cli::try_parse_from(words) {
            Ok(Cli { command: Command::Start(args), .. }) => args,
            other => panic!("{other:?}"),
        };
        let args = start(typed.split_whitespace().map(OsString::from).collect());
        let settings = Settings::new(4369, "/x".into());
        let mut again = vec![OsString::from("pmd")];
        again.extend(words(&Global::default(), &args, &settings, &[]));
        let again = start(again);
        assert!(again.foreground);
        assert_eq!(
            (args.addresses(), args.packet_timeout, args.join, args.discovery, args.cluster, args.advertise),
            (
                again.addresses(),
                again.packet_timeout,
                again.join,
                again.discovery,
                again.cluster,
                again.advertise
            )
        );
        assert_eq!(again.relaxed_command_check, args.relaxed_command_check);
    }
}
