//! Interleaved rounds: every server gets one slice of load per round, and figures are medians over the rounds.

use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::{Client, Outcome, Request, next_source};
use crate::options::Bench;
use crate::proc::CpuReading;
use crate::server::Server;

/// A server and what to ask of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contestant<'a> {
    pub(crate) server: &'a Server,
    pub(crate) request: Request,
}

/// What one slice of load gave.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) answered: usize,
    pub(crate) refused: usize,
    pub(crate) dropped: usize,
    wall: Duration,
    cpu: Duration,
    /// Nanoseconds of every request that was not dropped, sorted.
    latencies: Vec<u64>,
}

impl Slice {
    /// Requests that got an answer, also a refusal.
    fn served(&self) -> f64 {
        (self.answered + self.refused) as f64
    }

    /// Microseconds of the server's CPU per served request.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.served()
    }

    /// Microseconds of the server's CPU per request that was granted: the refused ones are overhead.
    pub(crate) fn cpu_us_granted(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.answered as f64
    }

    /// Served requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.served() / self.wall.as_secs_f64()
    }

    /// Microseconds that `percent` of the requests stayed within.
    pub(crate) fn latency_us(&self, percent: usize) -> f64 {
        let index = self.latencies.len() * percent / 100;
        self.latencies.get(index).or(self.latencies.last()).map_or(f64::NAN, |nanos| *nanos as f64 / 1e3)
    }
}

/// The slices of one contestant.
#[derive(Debug, Default)]
pub(crate) struct Series(pub(crate) Vec<Slice>);

impl Series {
    /// Median of a figure over the rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Slice) -> f64) -> f64 {
        median(self.0.iter().map(figure).collect())
    }

    /// Median of this figure's ratio to that of `base` in the same round.
    pub(crate) fn ratio(&self, base: &Series, figure: impl Fn(&Slice) -> f64) -> f64 {
        median(self.ratios(base, figure))
    }

    /// The ratios themselves, to be pooled with others.
    pub(crate) fn ratios(&self, base: &Series, figure: impl Fn(&Slice) -> f64) -> Vec<f64> {
        self.0.iter().zip(&base.0).map(|(mine, theirs)| figure(mine) / figure(theirs)).collect()
    }

    /// Sum of a count over the rounds.
    pub(crate) fn total(&self, count: impl Fn(&Slice) -> usize) -> usize {
        self.0.iter().map(count).sum()
    }
}

/// Loads the contestants in turn, `bench.rounds` times, each with `clients` concurrent clients. One short slice each
/// goes first and is not counted.
pub(crate) fn interleave(bench: &Bench, contestants: &[Contestant<'_>], clients: u32) -> Result<Vec<Series>> {
    for contestant in contestants {
        load(*contestant, clients, bench.slice / 4)?;
    }
    let mut all: Vec<Series> = contestants.iter().map(|_| Series::default()).collect();
    for round in 0..bench.rounds {
        for place in 0..contestants.len() {
            // The first place changes, so that no server always follows the same other.
            let who = (place + round) % contestants.len();
            all[who].0.push(load(contestants[who], clients, bench.slice)?);
        }
    }
    Ok(all)
}

/// One slice.
fn load(contestant: Contestant<'_>, clients: u32, span: Duration) -> Result<Slice> {
    let Contestant { server, request } = contestant;
    let source = next_source();
    let start = Barrier::new(clients as usize + 1);
    let (outcomes, before, wall) = thread::scope(|scope| -> Result<_> {
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
        let before = CpuReading::take(server.pid());
        start.wait();
        let begin = Instant::now();
        let outcomes: Vec<io::Result<Slice>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        Ok((outcomes, before?, begin.elapsed()))
    })?;
    // The last client sees the end of its stream a moment before the server goes to sleep and its time is booked.
    thread::sleep(Duration::from_millis(3));
    let cpu = CpuReading::take(server.pid())?.since(&before);
    let mut slice = Slice { wall, cpu, ..Slice::default() };
    for outcome in outcomes {
        let part = outcome
            .with_context(|| format!("{request:?} with {clients} clients on port {}", server.port()))?;
        slice.answered += part.answered;
        slice.refused += part.refused;
        slice.dropped += part.dropped;
        slice.latencies.extend(part.latencies);
    }
    slice.latencies.sort_unstable();
    Ok(slice)
}

fn ask_for(client: &mut Client, span: Duration) -> io::Result<Slice> {
    let mut slice = Slice { latencies: Vec::with_capacity(8192), ..Slice::default() };
    let begin = Instant::now();
    let mut now = begin;
    while now - begin < span {
        let outcome = client.ask()?;
        let then = Instant::now();
        match outcome {
            Outcome::Answered => slice.answered += 1,
            Outcome::Refused => slice.refused += 1,
            Outcome::Dropped => slice.dropped += 1,
        }
        if outcome != Outcome::Dropped {
            slice.latencies.push(u64::try_from((then - now).as_nanos()).unwrap_or(u64::MAX));
        }
        now = then;
    }
    Ok(slice)
}

/// The middle value; the mean of the two middle ones for an even count; not a number for none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
