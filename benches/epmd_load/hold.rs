//! Connections that stay open, held by a helper process. The benchmark itself keeps its original descriptor limit, so
//! that the servers inherit that limit and not a raised one.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use pmd_bench::fleet::cell::mortal;
use pmd_bench::options::name_of;
use pmd_bench::process::Process;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::client;
use crate::wire;

/// The data that a held connection has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A registration of one of the names 0..count
    Registered,
    /// Nothing
    Silent,
    /// Half a lookup
    Half,
}

/// Arguments of the `hold` helper.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    count: u32,
    /// Concurrent connection attempts
    #[arg(long)]
    threads: u32,
    #[arg(long, value_enum)]
    kind: Kind,
}

/// Runs the helper: opens the connections, prints how many nanoseconds this took, and holds them until its input ends.
pub(crate) fn run(args: &HoldArgs) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let begin = Instant::now();
    let held = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..args.threads).map(|first| scope.spawn(move || open_share(args, first))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>>>()
    })?;
    println!("{}", begin.elapsed().as_nanos());
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(held);
    Ok(())
}

/// Uses a source address for a few thousand connections. The more client ports towards one server are in use, the
/// longer the kernel searches for a free one, and the client would be measured instead of the server.
fn source(i: u32) -> Ipv4Addr {
    const EACH: u32 = 2000;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 2, 0, 1)) + i / EACH)
}

fn open_share(args: &HoldArgs, first: u32) -> Result<Vec<TcpStream>> {
    let mut packet = Vec::new();
    let mut held = Vec::new();
    for i in (first..args.count).step_by(args.threads as usize) {
        let mut stream = client::open(args.port, source(i))
            .with_context(|| format!("connection {i} of {}", args.count))?;
        match args.kind {
            Kind::Registered => {
                wire::register(&mut packet, &wire::name(i), wire::port(i));
                stream.write_all(&packet)?;
                let mut answer = [0; 6];
                stream
                    .read_exact(&mut answer)
                    .with_context(|| format!("registration {i} of {}", args.count))?;
                if !answer.starts_with(&[0x76, 0]) {
                    bail!("registration {i} of {} refused: {answer:02x?}", args.count);
                }
            }
            Kind::Silent => {}
            Kind::Half => {
                wire::lookup(&mut packet, &wire::name(i));
                stream.write_all(&packet[..packet.len() / 2])?;
            }
        }
        held.push(stream);
    }
    Ok(held)
}

/// A running helper. Its connections are closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Holder {
    _process: Process,
    /// The time from the first connection to the last answer.
    pub(crate) took: Duration,
}

impl Holder {
    /// Opens `count` connections to `port` of 127.0.0.1, `threads` at a time, and returns once all are open.
    pub(crate) fn start(port: u16, kind: Kind, count: u32, threads: u32) -> Result<Holder> {
        let mut child = mortal(env::current_exe()?)
            .args(["hold", "--port", &port.to_string(), "--count", &count.to_string()])
            .args(["--threads", &threads.to_string(), "--kind", &name_of(&kind)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("the helper has no output")?;
        let process = Process::from(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let nanos =
            line.trim().parse().with_context(|| format!("{count} {} connections failed", name_of(&kind)))?;
        Ok(Holder { _process: process, took: Duration::from_nanos(nanos) })
    }
}
