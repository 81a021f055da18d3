//! What can be typed about Erlang nodes and their way to other hosts.

use std::ffi::OsString;

use clap::Args;

/// Options of `pmd env`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Env {
    /// For a POSIX shell: the default
    #[arg(long, group = "shape")]
    pub sh: bool,
    /// For a unit file of systemd
    #[arg(long, group = "shape")]
    pub systemd: bool,
    /// For an Elixir release
    #[arg(long, group = "shape")]
    pub elixir: bool,
}

/// For whom variables are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A shell.
    Sh,
    /// A unit file.
    Systemd,
    /// An Elixir release.
    Elixir,
}

impl Env {
    /// For whom they are.
    pub fn shape(&self) -> Shape {
        match (self.systemd, self.elixir) {
            (true, _) => Shape::Systemd,
            (_, true) => Shape::Elixir,
            _ => Shape::Sh,
        }
    }
}

/// Options of `pmd run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Options of `pmd ping`.
#[derive(Debug, Args)]
pub struct Ping {
    /// The node, if need be with its host
    #[arg(value_name = "NODE[@HOST]")]
    pub node: String,
}
