//! Standing connections, held by a process of their own: the benchmark itself keeps the descriptor limit it was started
//! with, so that the servers inherit that one and not a raised one.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::client;
use crate::server::{Server, end_with_parent};
use crate::wire;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stand {
    /// Registered names 0..count
    Registered,
    /// Connected, nothing sent
    Silent,
    /// Half a look-up sent
    Half,
}

/// Arguments of the `hold` helper.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    count: u32,
    /// How many connect at the same time
    #[arg(long)]
    threads: u32,
    #[arg(long, value_enum)]
    stand: Stand,
}

/// The helper: makes the connections, writes the nanoseconds it took, and holds them until its input ends.
pub(crate) fn run(args: &HoldArgs) -> Result<()> {
    end_with_parent()?;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let begin = Instant::now();
    let held = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..args.threads).map(|first| scope.spawn(move || make_share(args, first))).collect();
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

/// A few thousand connections from each address: the more client ports towards one server are in use, the longer the
/// kernel looks for the next, and the client would be measured instead of the server.
fn source(i: u32) -> Ipv4Addr {
    const EACH: u32 = 2000;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 2, 0, 1)) + i / EACH)
}

fn make_share(args: &HoldArgs, first: u32) -> Result<Vec<TcpStream>> {
    let mut packet = Vec::new();
    let mut held = Vec::new();
    for i in (first..args.count).step_by(args.threads as usize) {
        let mut stream = client::open(args.port, source(i))
            .with_context(|| format!("connection {i} of {}", args.count))?;
        match args.stand {
            Stand::Registered => {
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
            Stand::Silent => {}
            Stand::Half => {
                wire::look_up(&mut packet, &wire::name(i));
                stream.write_all(&packet[..packet.len() / 2])?;
            }
        }
        held.push(stream);
    }
    Ok(held)
}

/// A running helper; its connections end with it.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    /// Time from the first connection to the last answer.
    pub(crate) took: Duration,
}

impl Holder {
    /// Has `count` connections made to `server` by `threads` clients at a time, and returns when they stand.
    pub(crate) fn start(server: &Server, stand: Stand, count: u32, threads: u32) -> Result<Holder> {
        let stand = match stand {
            Stand::Registered => "registered",
            Stand::Silent => "silent",
            Stand::Half => "half",
        };
        let child = Command::new(env::current_exe()?)
            .args(["hold", "--port", &server.port().to_string(), "--count", &count.to_string()])
            .args(["--threads", &threads.to_string(), "--stand", stand])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut holder = Holder { child, took: Duration::ZERO };
        let mut line = String::new();
        BufReader::new(holder.child.stdout.take().context("output of the holder")?).read_line(&mut line)?;
        let nanos =
            line.trim().parse().with_context(|| format!("{count} {stand} connections could not be made"))?;
        holder.took = Duration::from_nanos(nanos);
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
