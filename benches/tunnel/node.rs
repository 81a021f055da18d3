//! Erlang nodes that read commands from their standard input.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use pmd_bench::fleet::Site;
use pmd_bench::fleet::cell::mortal;
use pmd_bench::process::Process;

/// The module that carries out the commands.
const MODULE: &str = "tunnel_bench";

/// Compiles the module into this folder, once for all nodes.
pub(crate) fn compile(folder: &Path) -> Result<()> {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/tunnel").join(MODULE).with_extension("erl");
    let status = Command::new("erlc").arg("-o").arg(folder).arg(source).status().context("erlc")?;
    ensure!(status.success(), "erlc: {status}");
    Ok(())
}

/// How a node finds others.
#[derive(Debug)]
pub(crate) enum Finds {
    /// As without pmd.
    Itself,
    /// With pmd's epmd module, which is in this folder.
    ByModule(PathBuf),
    /// With this resolver file.
    ByResolver(PathBuf),
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    process: Process,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// Starts a node on a host, with additional arguments, without waiting for it. The folder `code` must contain the [compiled](compile) module.
    pub(crate) fn start(
        site: &Site,
        home: &Path,
        code: &Path,
        name: &str,
        args: &[String],
        finds: &Finds,
    ) -> Result<Node> {
        let mut command = mortal("erl");
        command.args(["-noshell", "-setcookie", "benchmark", "-sname", name]).args(args);
        command.arg("-pa").arg(code).args(["-s", MODULE]);
        command.env("HOME", home).env("ERL_CRASH_DUMP_SECONDS", "0");
        command.env_remove("ERL_AFLAGS").env_remove("ERL_EPMD_PORT").env_remove("ERL_INETRC");
        match finds {
            Finds::Itself => {}
            Finds::ByModule(folder) => {
                let flags = format!("-mode interactive -pa {} -epmd_module pmd_epmd", folder.display());
                command.env("ERL_AFLAGS", flags);
            }
            Finds::ByResolver(file) => {
                command.env("ERL_INETRC", file);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = site.cell.run(move || command.spawn()).context("erl")?;
        let input = child.stdin.take().context("the node has no pipe")?;
        let output = BufReader::new(child.stdout.take().context("the node has no pipe")?).lines();
        Ok(Node { name: format!("{name}@{}", site.name), process: child.into(), input, output })
    }

    /// Waits until the node accepts commands.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let ready = self.line()?;
        ensure!(ready == "ready", "{} printed {ready:?} instead of \"ready\"", self.name);
        Ok(())
    }

    /// Sends a command, and returns the numbers of the answer.
    pub(crate) fn order<const N: usize>(&mut self, order: &str) -> Result<[f64; N]> {
        writeln!(self.input, "{order}")?;
        let line = self.line()?;
        let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>().ok();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.with_context(|| format!("{} answered {order:?} with {line:?}", self.name))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn line(&mut self) -> Result<String> {
        self.output.next().with_context(|| format!("{} has exited", self.name))?.context("reading from erl")
    }
}
