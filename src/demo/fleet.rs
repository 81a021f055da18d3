//! The daemons and Erlang nodes of the demo: started, watched and stopped together.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::folder::Folder;
use crate::auth::cookie;
use crate::base::files;
use crate::config::environment;
use crate::control::client::{Client, ClientError};
use crate::daemon::process;

/// The range for daemon ports: below the ephemeral ports, and far from 4369.
const PORTS: std::ops::Range<u16> = 10_000..20_000;
/// Time limit for the daemons to answer and find each other.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between checks.
const POLL: Duration = Duration::from_millis(20);
/// Time limit for the daemons to leave the cluster and stop.
const STOP: Duration = Duration::from_secs(5);
/// Bytes of a log to read when explaining why a daemon did not start.
const MAX_LOG: u64 = 64 * 1024;
/// The code an Erlang node runs: it exits at the end of its standard input, a pipe from this process.
const NODE: &str = "spawn(fun Listen() -> case io:get_line(\"\") of eof -> halt(); {error, _} -> halt(); _ -> Listen() end end).";

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    System {
        /// The operation.
        doing: &'static str,
        /// The error.
        source: io::Error,
    },
    /// The cluster secret could not be created.
    #[error(transparent)]
    Cookie(#[from] cookie::CookieError),
    /// A daemon exited during startup.
    #[error("daemon {host} failed to start: {message}")]
    Ended {
        /// Its host name.
        host: String,
        /// Its last message.
        message: String,
    },
    /// A daemon was not ready in time.
    #[error("the daemons did not find each other within {} s", .0.as_secs())]
    Late(Duration),
    /// A request to a daemon failed.
    #[error("a daemon did not answer: {0}")]
    Silent(#[from] ClientError),
}

/// A daemon and its Erlang node.
#[derive(Debug)]
pub struct Member {
    /// The name of its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its directory.
    pub home: PathBuf,
    daemon: Option<Child>,
    node: Option<Child>,
    /// Reserves the port until the daemon is started.
    reserved: Option<(TcpListener, Option<TcpListener>)>,
}

impl Member {
    /// A client for the daemon.
    pub fn client(&self) -> Client {
        Client::new(self.home.join(format!("pmd-{}.sock", self.port)))
    }

    /// The name of the Erlang node.
    pub fn node(&self) -> String {
        format!("{}@{}", self.host.replace("demo", "node"), self.host)
    }
}

/// All daemons and nodes. Dropping this stops them and removes their files.
#[derive(Debug)]
pub struct Fleet {
    /// The members, in start order.
    pub members: Vec<Member>,
    /// The cluster secret, and the Erlang cookie of the nodes.
    secret: String,
    // The last field, so that it is dropped only after the processes that write into the directory have exited.
    folder: Folder,
}

impl Fleet {
    /// Reserves ports and directories for this many daemons.
    ///
    /// # Errors
    ///
    /// If the directory, the secret or a port is not available.
    pub fn new(daemons: u8) -> Result<Fleet, DemoError> {
        let folder = Folder::new("pmd-demo-").map_err(system("create a temporary directory"))?;
        let secret = cookie::random_cookie().map_err(system("create a cluster secret"))?;
        // Start at a random port, so that two demos started at the same time do not compete for the same ports.
        let first = rand::random_range(PORTS);
        let mut ports = (first..PORTS.end).chain(PORTS.start..first);
        let mut members = Vec::new();
        for number in 1..=daemons {
            let (port, reserved) = ports
                .find_map(|port| reserve(port).map(|reserved| (port, reserved)))
                .ok_or_else(|| system("find a free port")(io::ErrorKind::AddrInUse.into()))?;
            let host = format!("demo{number}");
            let home = folder.path().join(&host);
            members.push(Member { host, port, home, daemon: None, node: None, reserved: Some(reserved) });
        }
        Ok(Fleet { members, secret, folder })
    }

    /// Starts the daemons and waits until every daemon knows all others.
    ///
    /// # Errors
    ///
    /// If a daemon does not start, or does not find the others in time.
    pub async fn start(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + TIMEOUT;
        let first = self.members.first().map(|member| member.port);
        for (index, member) in self.members.iter_mut().enumerate() {
            start_daemon(member, index, &self.secret, first)?;
            if index == 0 {
                // If the others came first, they would retry joining only after a second.
                ready(member, 1, deadline).await?;
            }
        }
        let all = self.members.len();
        for member in &mut self.members {
            ready(member, all, deadline).await?;
        }
        Ok(())
    }

    /// Starts an Erlang node for each daemon. Returns whether Erlang is installed.
    ///
    /// # Errors
    ///
    /// If a daemon does not answer or a system call fails.
    pub async fn start_nodes(&mut self) -> Result<bool, DemoError> {
        let home = self.erlang_home();
        std::fs::create_dir(&home).map_err(system("create a directory"))?;
        // Erlang rejects a cookie file that others can read.
        files::make(&self.erlang_cookie(), &self.secret, 0o400).map_err(system("write an Erlang cookie"))?;
        files::make(&self.erlang_shell(), &self.script(), 0o700).map_err(system("write a script"))?;
        for member in &mut self.members {
            let tunnels = member.client().tunnels_for_a_node().await?;
            match node(member, &home, &tunnels.inetrc).spawn() {
                Ok(child) => member.node = Some(child),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(system("start erl")(error)),
            }
        }
        Ok(true)
    }

    /// The file of the Erlang cookie that the nodes share.
    pub fn erlang_cookie(&self) -> PathBuf {
        self.erlang_home().join(".erlang.cookie")
    }

    /// The script that starts an Erlang shell which reaches the nodes: it finds the daemon of the first one, and has the
    /// cookie.
    pub fn erlang_shell(&self) -> PathBuf {
        self.folder.path().join("shell")
    }

    fn script(&self) -> String {
        let quoted = |path: &Path| shell_words::quote(&path.to_string_lossy()).into_owned();
        let pmd = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("pmd"));
        let home = self.members.first().map(|member| quoted(&member.home)).unwrap_or_default();
        let (erlang, pmd) = (quoted(&self.erlang_home()), quoted(&pmd));
        format!(
            "#!/bin/sh\n# An Erlang shell that reaches the nodes of the demo: it has their Erlang cookie, in HOME.\n\
             PMD_HOME={home} HOME={erlang} exec {pmd} run -- erl -sname shell$$ \"$@\"\n"
        )
    }

    /// The status page of the first daemon.
    pub fn page(&self) -> Option<String> {
        Some(format!("http://127.0.0.1:{}/", self.members.first()?.port))
    }

    fn erlang_home(&self) -> PathBuf {
        self.folder.path().join("erlang")
    }

    /// Waits until every running Erlang node is registered.
    ///
    /// # Errors
    ///
    /// If a daemon does not answer, or a node does not register in time.
    pub async fn nodes_registered(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + TIMEOUT;
        for member in self.members.iter().filter(|member| member.node.is_some()) {
            while member.client().names(None).await?.names.is_empty() {
                pause(deadline).await?;
            }
        }
        Ok(())
    }

    /// Descriptions of the daemons and nodes that have exited since the last call.
    pub fn ended(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for member in &mut self.members {
            let node = member.node();
            for (child, what) in
                [(&mut member.daemon, format!("daemon {}", member.host)), (&mut member.node, node)]
            {
                let status = child.as_mut().and_then(|child| child.try_wait().ok().flatten());
                if let Some(status) = status {
                    ended.push(format!("{what} exited ({status})"));
                    *child = None;
                }
            }
        }
        ended
    }

    /// Whether any daemon is still running.
    pub fn is_alive(&self) -> bool {
        self.members.iter().any(|member| member.daemon.is_some())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let mut daemons = Vec::new();
        for member in &mut self.members {
            if let Some(mut node) = member.node.take() {
                let _ = node.kill();
                let _ = node.wait();
            }
            daemons.extend(member.daemon.take());
        }
        for daemon in &daemons {
            if let Some(pid) = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw) {
                // The child has not been reaped, so its process id cannot have been reused.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let deadline = Instant::now() + STOP;
        for mut daemon in daemons {
            while matches!(daemon.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(POLL);
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Reserves a port on both loopback addresses if it is free; on IPv4 only if the host has no IPv6.
fn reserve(port: u16) -> Option<(TcpListener, Option<TcpListener>)> {
    let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
        Ok(v6) => Some((v4, Some(v6))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        Err(_) => Some((v4, None)),
    }
}

fn start_daemon(
    member: &mut Member,
    index: usize,
    secret: &str,
    first: Option<u16>,
) -> Result<(), DemoError> {
    let home = &member.home;
    std::fs::create_dir(home).map_err(system("create a directory"))?;
    // The daemons share one loopback, so each needs its own aliases. With the port in the file, PMD_HOME is enough.
    let configuration =
        format!("port = {}\ncluster = \"demo\"\nalias_range = \"127.{}.0.0/16\"\n", member.port, 101 + index);
    files::make(&home.join("pmd.toml"), &configuration, files::SECRET).map_err(system("write a file"))?;
    files::make(&home.join("cookie"), &format!("{secret}\n"), files::SECRET)
        .map_err(system("write a cluster secret"))?;
    let log = File::create(home.join("log")).map_err(system("create a log file"))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("pmd").args(["start", "--foreground", "--bind", "127.0.0.1"]);
    command.arg(format!("--advertise=127.0.0.1:{}", member.port));
    if let Some(first) = first.filter(|_| index > 0) {
        command.arg(format!("--join=127.0.0.1:{first}"));
    }
    without_settings(&mut command);
    command
        .env("PMD_HOME", home)
        .env("PMD_HOST_NAME", &member.host)
        .env(process::STARTER, std::process::id().to_string())
        .current_dir("/")
        // Keeps Ctrl-C on the terminal away from the daemon.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    member.reserved = None;
    member.daemon = Some(command.spawn().map_err(system("start a daemon"))?);
    Ok(())
}

fn node(member: &Member, home: &Path, inetrc: &Path) -> Command {
    let mut command = Command::new("erl");
    command.args(["+S", "1:1", "+SDio", "1", "+A", "1", "-noshell", "-start_epmd", "false"]);
    command.args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-sname"]).arg(member.node());
    command.args(["-eval", NODE]);
    without_settings(&mut command);
    for flags in ["ERL_FLAGS", "ERL_AFLAGS", "ERL_ZFLAGS"] {
        command.env_remove(flags);
    }
    command
        .env("HOME", home)
        .env("ERL_INETRC", inetrc)
        .env(environment::PORT, member.port.to_string())
        .env("ERL_CRASH_DUMP_SECONDS", "0")
        .current_dir(home)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Removes environment variables that the user has set for another daemon.
fn without_settings(command: &mut Command) {
    let set: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in set {
        let text = name.to_string_lossy();
        if text.starts_with("PMD_") && text != "PMD_LOG" || text.starts_with("ERL_EPMD_") {
            command.env_remove(&name);
        }
    }
}

/// Waits until a daemon answers and knows at least this many members.
async fn ready(member: &mut Member, members: usize, deadline: Instant) -> Result<(), DemoError> {
    let client = member.client();
    loop {
        match client.status().await {
            Ok(status) if status.cluster.as_ref().is_none_or(|cluster| cluster.members >= members) => {
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.is_absence() => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(child) = &mut member.daemon
            && child.try_wait().is_ok_and(|status| status.is_some())
        {
            return Err(DemoError::Ended {
                host: member.host.clone(),
                message: last_message(&member.home.join("log")),
            });
        }
        pause(deadline).await?;
    }
}

async fn pause(deadline: Instant) -> Result<(), DemoError> {
    if Instant::now() >= deadline {
        return Err(DemoError::Late(TIMEOUT));
    }
    tokio::time::sleep(POLL).await;
    Ok(())
}

/// The error message in a daemon's log, or else its last line.
fn last_message(log: &Path) -> String {
    let mut text = String::new();
    let _ = File::open(log).and_then(|file| file.take(MAX_LOG).read_to_string(&mut text));
    let error = text.lines().find_map(|line| line.strip_prefix("error: "));
    error.or_else(|| text.lines().last()).unwrap_or("no error message").to_owned()
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::System { doing, source }
}
