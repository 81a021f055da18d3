//! The servers under load, as child processes: started on a port of their own, ended by process id on every path.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};
use tempfile::TempDir;

use crate::client;
use crate::null::Variant;
use crate::options::Bench;

/// How long a server may take to give its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Stock,
    Pmd,
    Null(Variant),
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    port: u16,
    /// Its log, and for pmd its `PMD_HOME`.
    home: TempDir,
}

impl Server {
    /// Starts `peer` with `flags` after its `-port N`, and waits until it answers.
    pub(crate) fn start(bench: &Bench, peer: Peer, flags: &[&str]) -> Result<Server> {
        let home = TempDir::new()?;
        let port = free_port()?;
        let this = env::current_exe()?;
        let mut command = Command::new(&this);
        match peer {
            Peer::Null(variant) => {
                command.args(["null", "--port", &port.to_string()]).args(variant.arguments());
            }
            Peer::Stock | Peer::Pmd => {
                let (program, arguments) = epmd_command(bench, peer, home.path(), port)?;
                command.arg("exec").arg(program).args(arguments).args(flags);
            }
        }
        let mut server = Server::spawn(command, port, home)?;
        server.wait_for_answer()?;
        Ok(server)
    }

    /// Starts stock or pmd with nothing in between and returns how long its first answer took.
    pub(crate) fn time_to_answer(bench: &Bench, peer: Peer) -> Result<Duration> {
        let home = TempDir::new()?;
        let port = free_port()?;
        let (program, arguments) = epmd_command(bench, peer, home.path(), port)?;
        let mut command = Command::new(program);
        command.args(arguments);
        let begin = Instant::now();
        let mut server = Server::spawn(command, port, home)?;
        server.wait_for_answer()?;
        Ok(begin.elapsed())
    }

    fn spawn(mut command: Command, port: u16, home: TempDir) -> Result<Server> {
        let log = File::create(home.path().join("log"))?;
        command
            .env("PMD_HOME", home.path())
            .env_remove("ERL_EPMD_PORT")
            .env_remove("ERL_EPMD_ADDRESS")
            .env_remove("ERL_EPMD_RELAXED_COMMAND_CHECK")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Server { child, port, home })
    }

    fn wait_for_answer(&mut self) -> Result<()> {
        let begin = Instant::now();
        while client::probe(self.port).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || begin.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
                bail!(
                    "a server gives no answer on port {} (exit status {ended:?}); it said: {log}",
                    self.port
                );
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Program and arguments of a foreground epmd. pmd plays epmd when it is called by that name.
fn epmd_command(bench: &Bench, peer: Peer, home: &Path, port: u16) -> Result<(PathBuf, [OsString; 2])> {
    let program = if peer == Peer::Pmd {
        let link = home.join("epmd");
        symlink(&bench.pmd, &link)?;
        link
    } else {
        bench.stock.clone()
    };
    Ok((program, ["-port".into(), port.to_string().into()]))
}

/// A port that is free on both families and outside the range clients get theirs from. Each call goes on where the last
/// one ended, so that a port is not used twice in a run; the start depends on the process, so that two runs differ.
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

/// Arguments of the `exec` helper.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes `command`, but one that ends with the benchmark even if that is killed: the kernel keeps the death signal
/// over `exec`, and setting it between fork and exec in the parent would need `unsafe`.
pub(crate) fn exec(args: &ExecArgs) -> Result<()> {
    end_with_parent()?;
    let (program, arguments) = args.command.split_first().context("a program to run")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("{}", program.display()))
}

/// Has the kernel end this process when its parent goes.
pub(crate) fn end_with_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}
