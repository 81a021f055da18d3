//! Interleaved rounds: every server gets one slice of load per round, and figures are medians over the rounds.

use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pmd_bench::process::cpu_time;
use pmd_bench::stats::{Latencies, median};

use crate::client::{Client, Outcome, Request, next_source};
use crate::options::Plan;
use crate::server::Server;

/// A server and the request to load it with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contestant<'a> {
    pub(crate) server: &'a Server,
    pub(crate) request: Request,
}

/// The outcome of one slice of load.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) answered: usize,
    pub(crate) refused: usize,
    pub(crate) dropped: usize,
    wall: Duration,
    cpu: Duration,
    /// The latencies of all requests that were not dropped.
    latencies: Latencies,
}

impl Slice {
    /// The number of requests that got an answer, including refusals.
    fn served(&self) -> f64 {
        (self.answered + self.refused) as f64
    }

    /// The server's CPU time per served request, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.served()
    }

    /// The server's CPU time per granted request, in microseconds; refusals count as overhead.
    pub(crate) fn cpu_us_granted(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.answered as f64
    }

    /// Served requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.served() / self.wall.as_secs_f64()
    }

    /// Median latency in microseconds.
    pub(crate) fn p50_us(&self) -> f64 {
        self.latencies.micros(50.0)
    }

    /// 99th percentile of the latency in microseconds.
    pub(crate) fn p99_us(&self) -> f64 {
        self.latencies.micros(99.0)
    }
}

/// The slices of one contestant.
#[derive(Debug, Default)]
pub(crate) struct Series(Vec<Slice>);

impl Series {
    /// The median of a figure over the rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Slice) -> f64) -> f64 {
        median(self.0.iter().map(figure))
    }

    /// The median ratio of this figure to that of `base` in the same round.
    pub(crate) fn ratio(&self, base: &Series, figure: impl Fn(&Slice) -> f64) -> f64 {
        median(self.ratios(base, figure))
    }

    /// The ratios of all rounds, for pooling with others.
    pub(crate) fn ratios(&self, base: &Series, figure: impl Fn(&Slice) -> f64) -> Vec<f64> {
        self.0.iter().zip(&base.0).map(|(slice, base)| figure(slice) / figure(base)).collect()
    }

    /// The sum of a count over the rounds.
    pub(crate) fn total(&self, count: impl Fn(&Slice) -> usize) -> usize {
        self.0.iter().map(count).sum()
    }
}

/// Loads the contestants in turn in every round, each with `clients` concurrent clients, after one short warm-up slice
/// each.
pub(crate) fn interleave(plan: &Plan, contestants: &[Contestant<'_>], clients: u32) -> Result<Vec<Series>> {
    for contestant in contestants {
        load(*contestant, clients, plan.slice / 4)?;
    }
    let mut all: Vec<Series> = contestants.iter().map(|_| Series::default()).collect();
    for round in 0..usize::from(plan.rounds) {
        for turn in 0..contestants.len() {
            // The order rotates, so that no server always follows the same one.
            let next = (turn + round) % contestants.len();
            all[next].0.push(load(contestants[next], clients, plan.slice)?);
        }
    }
    Ok(all)
}

/// Runs one slice of load.
fn load(contestant: Contestant<'_>, clients: u32, span: Duration) -> Result<Slice> {
    let Contestant { server, request } = contestant;
    let source = next_source();
    let start = Barrier::new(clients as usize + 1);
    let (shares, before, wall) = thread::scope(|scope| -> Result<_> {
        let mut threads = Vec::new();
        for index in 0..clients {
            let mut client = Client::new(server.port(), source, request, index);
            let start = &start;
            let work = move || {
                start.wait();
                ask_for(&mut client, span)
            };
            threads.push(thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, work)?);
        }
        let before = cpu_time(&[server.pid()]);
        start.wait();
        let begin = Instant::now();
        let shares: Vec<io::Result<Share>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        Ok((shares, before?, begin.elapsed()))
    })?;
    // The last client sees the end of its stream shortly before the server has finished with the connection.
    thread::sleep(Duration::from_millis(3));
    let cpu = cpu_time(&[server.pid()])?.saturating_sub(before);
    let mut slice = Slice { wall, cpu, ..Slice::default() };
    for share in shares {
        let share =
            share.with_context(|| format!("{request:?} with {clients} clients on port {}", server.port()))?;
        slice.answered += share.answered;
        slice.refused += share.refused;
        slice.dropped += share.dropped;
        share.latencies.into_iter().for_each(|latency| slice.latencies.record(latency));
    }
    Ok(slice)
}

/// One client's share of a slice.
#[derive(Debug, Default)]
struct Share {
    answered: usize,
    refused: usize,
    dropped: usize,
    /// A plain list, because a histogram for each client would displace the server's data from the processor cache.
    latencies: Vec<Duration>,
}

fn ask_for(client: &mut Client, span: Duration) -> io::Result<Share> {
    let mut share = Share { latencies: Vec::with_capacity(8192), ..Share::default() };
    let begin = Instant::now();
    let mut now = begin;
    while now - begin < span {
        let outcome = client.ask()?;
        let then = Instant::now();
        match outcome {
            Outcome::Answered => share.answered += 1,
            Outcome::Refused => share.refused += 1,
            Outcome::Dropped => share.dropped += 1,
        }
        if outcome != Outcome::Dropped {
            share.latencies.push(then - now);
        }
        now = then;
    }
    Ok(share)
}
