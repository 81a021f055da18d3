//! Arguments of commands for Erlang nodes and their paths to other hosts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// Options of `pmd env`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Env {
    /// Print them for a POSIX shell (the default)
    #[arg(long, group = "shape")]
    pub sh: bool,
    /// Print them for a systemd unit file
    #[arg(long, group = "shape")]
    pub systemd: bool,
    /// Print them for an Elixir release
    #[arg(long, group = "shape")]
    pub elixir: bool,
    /// For what cannot load an epmd module: only hosts that no other resolver knows are found
    #[arg(long)]
    pub resolver_only: bool,
}

/// The syntax in which variables are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A POSIX shell.
    Sh,
    /// A systemd unit file.
    Systemd,
    /// An Elixir release.
    Elixir,
}

impl Env {
    /// The chosen syntax.
    pub fn shape(&self) -> Shape {
        match (self.systemd, self.elixir) {
            (true, _) => Shape::Systemd,
            (_, true) => Shape::Elixir,
            _ => Shape::Sh,
        }
    }
}

/// Options of `pmd alias`.
#[derive(Debug, Args)]
pub struct Alias {
    /// The host; this one by default
    #[arg(value_name = "HOST")]
    pub host: Option<String>,
}

/// Options of `pmd run`.
#[derive(Debug, Args)]
pub struct Run {
    /// For what cannot load an epmd module: only hosts that no other resolver knows are found
    #[arg(long)]
    pub resolver_only: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The Erlang cookie that a node is tested with.
#[derive(Debug, Args)]
pub struct OwnCookie {
    /// The Erlang cookie to test the node with [default: RELEASE_COOKIE, or in ~/.erlang.cookie]
    #[arg(long, value_name = "FILE")]
    pub erlang_cookie: Option<PathBuf>,
}

/// Options of `pmd ping`.
#[derive(Debug, Args)]
pub struct Ping {
    /// The node, with its host unless it is local
    #[arg(value_name = "NODE[@HOST]")]
    pub node: String,
    /// The Erlang cookie
    #[command(flatten)]
    pub cookie: OwnCookie,
}
