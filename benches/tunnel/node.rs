//! Erlang nodes that do as they are told over their standard input.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::fleet::Site;
use crate::fleet::cell::mortal;

/// Ticks of `/proc/PID/stat` in milliseconds: the same on all of Linux's architectures that pmd runs on.
const TICK_MS: u64 = 10;

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// Starts a node on a host, with more arguments and maybe a resolver file.
    pub(crate) fn start(
        site: &Site,
        home: &Path,
        name: &str,
        args: &[String],
        inetrc: Option<&Path>,
    ) -> Result<Node> {
        let module = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/tunnel/tunnel_bench.erl");
        let load = format!(
            "{{ok, M, B}} = compile:file(\"{module}\", [binary]), {{module, M}} = code:load_binary(M, \"\", B), \
             spawn(fun() -> {{_, R}} = spawn_monitor(M, listen, []), \
             receive {{'DOWN', R, _, _, Why}} -> io:format(standard_error, \"~p~n\", [Why]), halt(1) end end)."
        );
        let mut command = mortal("erl");
        command.args(["-noshell", "-setcookie", "benchmark", "-sname", name]).args(args);
        command.args(["-eval", &load]).env("HOME", home).env("ERL_CRASH_DUMP_SECONDS", "0");
        command.env_remove("ERL_INETRC").env_remove("ERL_EPMD_PORT");
        if let Some(inetrc) = inetrc {
            command.env("ERL_INETRC", inetrc);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = site.cell.run(move || command.spawn()).context("erl")?;
        let input = child.stdin.take().context("a pipe")?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let mut node = Node { name: format!("{name}@{}", site.name), child, input, output };
        let ready = node.line()?;
        ensure!(ready == "ready", "{} says {ready:?}", node.name);
        Ok(node)
    }

    fn line(&mut self) -> Result<String> {
        self.output.next().with_context(|| format!("{} has ended", self.name))?.context("reading from erl")
    }

    /// Gives an order and returns the numbers that it is answered with.
    pub(crate) fn order(&mut self, order: &str) -> Result<Vec<f64>> {
        writeln!(self.input, "{order}")?;
        let line = self.line()?;
        let numbers = line.split(' ').map(str::parse).collect::<Result<_, _>>();
        numbers.with_context(|| format!("{order:?} is answered with {line:?}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of these processes.
pub(crate) fn processor_time(pids: &[u32]) -> Result<Duration> {
    let mut ticks = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/stat");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{path}: has it ended?"))?;
        let (_, fields) = text.rsplit_once(") ").context("a name in parentheses")?;
        ticks +=
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(Duration::from_millis(ticks * TICK_MS))
}
