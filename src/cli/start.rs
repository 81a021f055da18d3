//! `pmd start`: starts the daemon.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{Global, Start};
use super::common::diagnosis::port_conflict;
use super::common::output::{json, stdout};
use super::common::{Exit, Failure, Output, Result, Target, block_on, block_on_step, launch, note, target};
use crate::base::files;
use crate::base::log::setup;
use crate::base::shutdown::Reason;
use crate::config::settings::{self, Settings};
use crate::control::api::Status;
use crate::control::client::ClientError;
use crate::control::handles::About;
use crate::control::socket::prepare_folder;
use crate::daemon::process;
use crate::daemon::run::{self, Ready, RunOptions, StartError};
use crate::daemon::systemd;
use crate::daemon::systemd::inherited_listeners;
use crate::takeover::port::Port;
use pmd_epmd::server::listener::{ListenError, Listener};

/// Size in bytes above which a new daemon rotates the log file.
const MAX_LOG: u64 = 1024 * 1024;

/// The result of the command.
#[derive(Debug, Serialize)]
struct Report {
    started: bool,
    pid: u32,
    port: i32,
    listening: Vec<std::net::SocketAddr>,
    socket: PathBuf,
}

/// Starts the daemon unless it is already running.
pub fn run(global: &Global, args: &Start, output: Output) -> Result<Exit> {
    let settings = target::settings(global, args)?;
    let target = Target::of_settings(global, &settings);
    // The process that started a background daemon has already checked this.
    if !process::starter_waits() {
        let exit = block_on(report_running(&target, output))?;
        if exit != Exit::NotReachable {
            return Ok(exit);
        }
    }
    if args.foreground {
        return in_foreground(settings, args, &target, output);
    }
    let words = words(global, args, &target);
    block_on(async { report(&launch::start(&target, &words).await?, true, output) })
}

/// Reports a daemon that is already running; returns `NotReachable` if none is.
async fn report_running(target: &Target, output: Output) -> Result<Exit> {
    match target.client().status().await {
        Ok(status) if status.port == i32::from(target.port) => report(&status, false, output),
        Ok(status) => Err(launch::serves_another_port(&status, target)),
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

/// The arguments that start a daemon with these options in the foreground, valid in any directory.
fn words(global: &Global, args: &Start, target: &Target) -> Vec<OsString> {
    let bind = args.addresses().unwrap_or_default();
    let mut words = launch::words(global, target, &bind, args.relaxed_command_check);
    if let Some(timeout) = args.packet_timeout {
        words.extend(["--packet-timeout".into(), format!("{}ms", timeout.as_millis()).into()]);
    }
    for (flag, values) in [
        ("--join", args.join.as_slice()),
        ("--discovery", args.discovery.as_slice()),
        ("--cluster", args.cluster.as_slice()),
        ("--advertise", args.advertise.as_slice()),
    ] {
        // One argument, because a value may begin with a dash.
        words.extend(values.iter().map(|value| format!("{flag}={value}").into()));
    }
    words
}

fn in_foreground(settings: Settings, args: &Start, target: &Target, output: Output) -> Result<Exit> {
    let _flush = setup::init().map_err(|error| {
        Failure::new(
            Exit::General,
            format!("cannot start the log: {error}"),
            "check whether the host has run out of memory or processes",
        )
    })?;
    if !process::end_with_starter() {
        return Ok(Exit::Done);
    }
    let starter_waits = process::starter_waits();
    if starter_waits {
        process::set_name();
        process::leave_session();
    }
    let inherited = inherited_listeners().map_err(|error| {
        Failure::new(Exit::General, error.to_string(), "fix the socket unit, or start pmd without it")
    })?;
    if let Some(sockets) = &inherited {
        let addresses: Vec<_> = sockets.iter().filter_map(Listener::address).collect();
        let names = std::env::var(systemd::NAMES).unwrap_or_default();
        let option = target::bind_option(args);
        if let Some(warning) = systemd::without_effect(option, &settings.bind, &addresses, &names) {
            tracing::warn!("{warning}");
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
        // The log names the part that failed.
        Ok(Reason::Failed) => Ok(Exit::General),
        Ok(_) => Ok(Exit::Done),
        Err(StartError::Listen(ListenError::InUse(address))) if starter_waits => {
            // The parent process determines which process holds the port.
            Err(Failure::new(Exit::Conflict, format!("{address} is in use"), "choose another port"))
        }
        Err(StartError::Listen(ListenError::InUse(_))) => {
            let port = block_on_step(async { Ok(Port::look(target.port).await) })?;
            Err(port_conflict(&port, target))
        }
        Err(error @ StartError::Listen(_)) => Err(Failure::new(
            Exit::Refused,
            error.to_string(),
            "choose addresses of this host with --bind, and a port that this user may listen on with --port",
        )),
        Err(StartError::Cluster(error)) => Err(Failure::new(Exit::General, error.to_string(), error.hint())),
        Err(error @ StartError::System(_)) => Err(Failure::new(
            Exit::General,
            error.to_string(),
            "free memory or file descriptors, and try again",
        )),
    }
}

/// The log file of a background daemon, next to its socket.
fn log_file(socket: &Path) -> PathBuf {
    socket.with_extension("log")
}

/// Creates the log file; none if it cannot be written, since the daemon can run without it.
fn open_log(settings: &Settings) -> Option<PathBuf> {
    // Creates the directory with the permissions that the socket needs.
    prepare_folder(settings).ok()?;
    let log = log_file(&settings.socket);
    if std::fs::metadata(&log).is_ok_and(|found| found.len() > MAX_LOG) {
        std::fs::rename(&log, log.with_extension("log.old")).ok()?;
    }
    match files::open_log(&log) {
        Ok(_) => Some(log),
        Err(error) => {
            tracing::warn!("cannot open the log file {}, so nothing is logged: {error}", log.display());
            None
        }
    }
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
    // The daemon runs even if standard output is closed.
    let _ = json(&mut out, &report, false).and_then(|()| out.flush());
}

fn human_banner(ready: &Ready) {
    let mut out = stdout();
    let _ = write_banner(&mut out, &ready.about).and_then(|()| out.flush());
    let wildcard = ready.about.listening.iter().any(|address| address.ip().is_unspecified());
    if wildcard && ready.about.relaxed_command_check {
        note("note: anyone on this host can stop the daemon and unregister any node (relaxed command check)");
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
    fn a_background_daemon_gets_all_options() {
        let typed = "pmd start --bind 10.0.0.1,::1 --packet-timeout 5s --join host1 --join [fd00::1]:4370 \
                     --discovery broadcast --discovery dns:pmd.example.org --cluster shop --advertise 10.0.0.1";
        let start = |words: Vec<OsString>| match Cli::try_parse_from(words) {
            Ok(Cli { command: Command::Start(args), .. }) => args,
            other => panic!("{other:?}"),
        };
        let args = start(typed.split_whitespace().map(OsString::from).collect());
        let target = Target::of_settings(&Global::default(), &Settings::new(4369, "/x".into()));
        let mut again = vec![OsString::from("pmd")];
        again.extend(words(&Global::default(), &args, &target));
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
