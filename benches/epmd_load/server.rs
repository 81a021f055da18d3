//! The servers under load: child processes, each on its own port.

use std::env;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pmd_bench::fleet::cell::mortal;
use pmd_bench::process::Process;
use tempfile::TempDir;

use crate::client;
use crate::null::Variant;
use crate::options::Plan;

/// The kind of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Stock,
    Pmd,
    Null(Variant),
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    port: u16,
    /// Its log, and for pmd its `PMD_HOME`.
    _home: TempDir,
}

impl Server {
    /// Starts `peer` with `flags` after `-port N`, and waits until it answers.
    pub(crate) fn start(plan: &Plan, peer: Peer, flags: &[&str]) -> Result<Server> {
        let home = TempDir::new()?;
        let port = free_port()?;
        let command = if let Peer::Null(variant) = peer {
            let mut command = mortal(env::current_exe()?);
            command.args(["null", "--port", &port.to_string()]).args(variant.arguments());
            command
        } else {
            let (program, arguments) = epmd_command(plan, peer, home.path(), port)?;
            let mut command = mortal(program);
            command.args(arguments).args(flags);
            command
        };
        Server::spawn(command, port, home)
    }

    /// Starts stock or pmd without a wrapper, and returns the time until its first answer.
    pub(crate) fn time_to_answer(plan: &Plan, peer: Peer) -> Result<Duration> {
        let home = TempDir::new()?;
        let port = free_port()?;
        let (program, arguments) = epmd_command(plan, peer, home.path(), port)?;
        let mut command = Command::new(program);
        command.args(arguments);
        let begin = Instant::now();
        let _server = Server::spawn(command, port, home)?;
        Ok(begin.elapsed())
    }

    fn spawn(mut command: Command, port: u16, home: TempDir) -> Result<Server> {
        command
            .env("PMD_HOME", home.path())
            .env_remove("ERL_EPMD_PORT")
            .env_remove("ERL_EPMD_ADDRESS")
            .env_remove("ERL_EPMD_RELAXED_COMMAND_CHECK");
        let mut process = Process::start(&mut command, &home.path().join("log"))?;
        process.wait_until(Duration::from_micros(100), || client::probe(port).is_ok())?;
        Ok(Server { process, port, _home: home })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// The program and arguments of a foreground epmd. pmd acts as epmd when it is run under that name.
fn epmd_command(plan: &Plan, peer: Peer, home: &Path, port: u16) -> Result<(PathBuf, [OsString; 2])> {
    let program = if peer == Peer::Pmd {
        let link = home.join("epmd");
        symlink(&plan.pmd, &link)?;
        link
    } else {
        plan.stock.clone()
    };
    Ok((program, ["-port".into(), port.to_string().into()]))
}

/// A port that is free on both families and outside the ephemeral range. Each call continues after the last port, so
/// that no port is used twice in a run. The first port depends on the process id, so that concurrent runs use different
/// ports.
fn free_port() -> Result<u16> {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(process::id() % u32::from(COUNT))?;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step)) % COUNT;
        let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
        if v4.is_ok() && v6.is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}
