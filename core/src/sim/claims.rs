//! A world of voters and members that claim names, under faults.
//!
//! Frames are lost, duplicated and reordered. Hosts crash, also while they write; daemons freeze while the guardians of
//! their commands live on; whole hosts are suspended; clocks are wrong. Commands run from the moment a claim is granted
//! until they end, or until the guardian kills them. [`History`] checks what the commands could see.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a broken simulation ends the test")]

mod faults;

use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::{ClaimName, Epoch, Frame, Reply, Request, Role};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::claims_history::History;
use crate::claims::holder::{Event, Holder, Until};
use crate::claims::store::{Record, Stored};
use crate::claims::voter::{Setup, Voter};

/// The duration of the leases.
const TTL_MS: u32 = 10_000;
/// The longest time that a command runs.
const WORK_MS: u64 = 20_000;

/// What is broken on purpose, to see that the check finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing.
    None,
    /// Stores lose the end of what they were told to keep whenever a host crashes.
    ForgetfulStores,
    /// The clocks of members run at half the speed.
    SlowClocks,
    /// Nobody kills commands.
    NoGuardians,
}

#[derive(Clone, Debug)]
enum What {
    Wake(usize),
    Frame {
        from: usize,
        to: usize,
        frame: Frame,
    },
    Request {
        from: usize,
        to: usize,
        request: Request,
    },
    Reply {
        to: usize,
        boot: u64,
        reply: Reply,
    },
    /// A command has done its work and ends.
    Done {
        host: usize,
        boot: u64,
        attempt: u64,
    },
    /// A guardian's timer.
    Guard {
        host: usize,
        boot: u64,
        attempt: u64,
    },
    /// A user wants a claim.
    Want {
        host: usize,
        boot: u64,
        name: usize,
    },
    Restart(usize),
    Thaw(usize),
}

#[derive(Debug)]
struct Host {
    boot: u64,
    up: bool,
    frozen: bool,
    suspended: bool,
    /// Parts per million by which the clock is wrong.
    drift: i64,
    offset_ms: u64,
    voter: Option<Voter>,
    holder: Holder,
    records: Vec<Record>,
    stored: bool,
    waiting: Vec<What>,
    wake_ms: u64,
    /// The running commands, and until when, by the attempt.
    commands: BTreeMap<u64, (usize, Until)>,
    wanted: BTreeMap<u64, usize>,
}

/// The world.
#[derive(Debug)]
pub struct ClaimsWorld {
    now_ms: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), What>,
    hosts: Vec<Host>,
    voters: usize,
    names: Vec<ClaimName>,
    cut: BTreeSet<(usize, usize)>,
    loss_permille: u32,
    sabotage: Sabotage,
    lost_stores: usize,
    rng: ChaCha8Rng,
    history: History,
}

fn id(host: usize) -> NodeId {
    let mut hash = [0; 32];
    hash[0] = u8::try_from(host + 1).unwrap_or(u8::MAX);
    NodeId::new(hash)
}

impl ClaimsWorld {
    /// A world with this many voters and other members. Everything in it follows from the seed.
    #[must_use]
    pub fn new(seed: u64, voters: usize, members: usize, sabotage: Sabotage) -> ClaimsWorld {
        let mut world = ClaimsWorld {
            now_ms: 1,
            order: 0,
            queue: BTreeMap::new(),
            hosts: Vec::new(),
            voters,
            names: ["one", "two"].iter().filter_map(|name| name.parse().ok()).collect(),
            cut: BTreeSet::new(),
            loss_permille: 0,
            sabotage,
            lost_stores: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            history: History::default(),
        };
        for number in 0..voters + members {
            let drift = match sabotage {
                Sabotage::SlowClocks if number >= voters => -500_000,
                _ => world.rng.random_range(-50_000..=50_000),
            };
            world.hosts.push(Host {
                boot: 0,
                up: false,
                frozen: false,
                suspended: false,
                drift,
                offset_ms: world.rng.random_range(1..1_000_000),
                voter: None,
                holder: Holder::new(0, 1, 0),
                records: Vec::new(),
                stored: false,
                waiting: Vec::new(),
                wake_ms: 0,
                commands: BTreeMap::new(),
                wanted: BTreeMap::new(),
            });
            world.start(number);
        }
        world
    }

    /// What the commands have seen.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Runs for this long.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= end
        {
            let ((at_ms, _), what) = entry.remove_entry();
            self.now_ms = at_ms;
            self.handle(what);
        }
        self.now_ms = end;
    }

    /// What each voter does.
    pub fn roles(&self) -> impl Iterator<Item = Role> {
        let voters = self.hosts.iter().take(self.voters);
        voters.filter_map(|host| host.voter.as_ref().map(|voter| voter.status(local(host, self.now_ms)).role))
    }

    fn blocks(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    fn after(&mut self, ms: u64, what: What) {
        self.order += 1;
        self.queue.insert((self.now_ms + ms, self.order), what);
    }

    fn now(&self, host: usize) -> u64 {
        local(&self.hosts[host], self.now_ms)
    }

    fn start(&mut self, number: usize) {
        let now_ms = self.now(number);
        let (seed, start) = (self.rng.random(), self.rng.random());
        let host = &mut self.hosts[number];
        if host.up {
            return;
        }
        host.up = true;
        host.boot += 1;
        (host.frozen, host.suspended) = (false, false);
        host.waiting.clear();
        host.wanted.clear();
        let voters = u8::try_from(self.voters).unwrap_or(u8::MAX);
        host.holder = Holder::new(start, voters, u8::try_from(number).unwrap_or(0) % voters);
        if number < self.voters {
            let mut stored =
                Stored::replay(host.records.clone()).expect("consistent records").unwrap_or_else(|| {
                    host.records.push(Record::Created { store: start });
                    Stored::new(start)
                });
            host.stored = stored.founding.is_some();
            let epoch = Record::Started(Epoch { starts: stored.epoch.starts + 1, nonce: start });
            host.records.push(epoch.clone());
            stored.apply(epoch).expect("a later start");
            let hosts = (0..self.voters).map(|voter| format!("host{voter}")).collect();
            let own = u8::try_from(number).unwrap_or(0);
            let own_id = id(number);
            let setup =
                Setup { hosts, own, own_id, stored, is_latest: true, seed, founding_number: Some(1), now_ms };
            host.voter = Some(Voter::new(setup));
        }
        let boot = host.boot;
        for name in 0..self.names.len() {
            let ms = self.rng.random_range(0..2_000);
            self.after(ms, What::Want { host: number, boot, name });
        }
        self.after(0, What::Wake(number));
        self.flush(number);
    }

    fn crash(&mut self, number: usize, lose_store: bool) {
        let host = &mut self.hosts[number];
        if !host.up {
            return;
        }
        host.up = false;
        host.voter = None;
        host.waiting.clear();
        for attempt in std::mem::take(&mut host.commands).into_keys() {
            self.history.end((number, host.boot, attempt));
        }
        if lose_store {
            host.records.clear();
        } else if self.sabotage == Sabotage::ForgetfulStores {
            // All but the founding.
            host.records.truncate(host.records.len().saturating_sub(40).max(4));
        }
        let ms = self.rng.random_range(10..20_000);
        self.after(ms, What::Restart(number));
        for other in 0..self.hosts.len() {
            self.hang_up(other, number);
        }
    }

    /// The host finds that its connection to a voter has ended.
    fn hang_up(&mut self, number: usize, voter: usize) {
        let now_ms = self.now(number);
        let Ok(index) = u8::try_from(voter) else { return };
        let host = &mut self.hosts[number];
        if voter >= self.voters || number == voter || !host.up || host.frozen || host.suspended {
            return;
        }
        host.holder.lost(index, now_ms);
        if let Some(voter) = &mut host.voter {
            voter.lost(index, now_ms);
            voter.connected(index, now_ms);
        }
        self.flush(number);
    }

    fn handle(&mut self, what: What) {
        let (What::Wake(number)
        | What::Frame { to: number, .. }
        | What::Request { to: number, .. }
        | What::Reply { to: number, .. }
        | What::Done { host: number, .. }
        | What::Guard { host: number, .. }
        | What::Want { host: number, .. }
        | What::Restart(number)
        | What::Thaw(number)) = &what;
        let number = *number;
        let now_ms = self.now(number);
        let host = &mut self.hosts[number];
        match &what {
            What::Restart(_) => return self.start(number),
            What::Thaw(_) => {
                (host.frozen, host.suspended) = (false, false);
                // After a suspension, the guardians look at the clock first.
                let attempts: Vec<u64> = host.commands.keys().copied().collect();
                attempts.into_iter().for_each(|attempt| self.guard(number, attempt));
                let waiting = std::mem::take(&mut self.hosts[number].waiting);
                waiting.into_iter().for_each(|what| self.handle(what));
                return self.handle(What::Wake(number));
            }
            _ if !host.up => return,
            What::Guard { boot, attempt, .. } => {
                // A suspended command does not run. When the host wakes up, the guardian comes first.
                if *boot == host.boot {
                    self.guard(number, *attempt);
                }
                return;
            }
            _ if host.frozen || host.suspended => {
                if host.waiting.len() < 1_000 {
                    host.waiting.push(what);
                }
                return;
            }
            _ => {}
        }
        match what {
            What::Wake(_) => {
                host.holder.tick(now_ms);
                if let Some(voter) = &mut host.voter {
                    voter.tick(now_ms);
                }
            }
            What::Frame { from, frame, .. } => {
                if let (Some(voter), Ok(index)) = (&mut host.voter, u8::try_from(from)) {
                    // A store that was lost is no voter.
                    let _ = voter.receive(index, id(from), frame, now_ms);
                }
            }
            What::Request { from, request, .. } => {
                if let Some(voter) = &mut host.voter {
                    voter.request(id(from), request, now_ms);
                }
            }
            What::Reply { boot, reply, .. } => {
                if boot == host.boot {
                    host.holder.receive(reply, now_ms);
                }
            }
            What::Done { boot, attempt, .. } => {
                if host.commands.contains_key(&attempt) && self.rng.random_range(0..20) == 0 {
                    // Nobody says that the command has ended. The guardian kills it in time.
                    host.holder.abandon(attempt, now_ms);
                } else if boot == host.boot {
                    if let Some((name, _)) = host.commands.remove(&attempt) {
                        self.history.end((number, boot, attempt));
                        let ms = self.rng.random_range(0..1_000);
                        self.after(ms, What::Want { host: number, boot, name });
                    }
                    self.hosts[number].holder.release(attempt, now_ms);
                }
            }
            What::Want { boot, name, .. } => {
                if boot == host.boot
                    && let Some(wanted) = self.names.get(name)
                {
                    let attempt = host.holder.claim(wanted.clone(), TTL_MS, now_ms);
                    host.wanted.insert(attempt, name);
                }
            }
            What::Guard { .. } | What::Restart(_) | What::Thaw(_) => {}
        }
        self.flush(number);
    }

    /// A guardian looks at the clock, and kills the command if its time is over.
    fn guard(&mut self, number: usize, attempt: u64) {
        let now_ms = self.now(number);
        let host = &mut self.hosts[number];
        let Some((name, until)) = host.commands.get(&attempt).copied() else { return };
        if now_ms < until.dead_ms || self.sabotage == Sabotage::NoGuardians {
            return;
        }
        host.commands.remove(&attempt);
        let boot = host.boot;
        self.history.end((number, boot, attempt));
        // The command line sees the end of the command, if the daemon reads it.
        self.after(1, What::Done { host: number, boot, attempt });
        self.after(500, What::Want { host: number, boot, name });
    }

    /// Carries out what the state machines of a host have produced.
    fn flush(&mut self, number: usize) {
        let now_ms = self.now(number);
        while let Some(voter) = &mut self.hosts[number].voter {
            let output = voter.take_output();
            if output == Default::default() {
                break;
            }
            let host = &mut self.hosts[number];
            if !output.records.is_empty() && self.rng.random_range(0..2_000) == 0 {
                // It crashes while it writes: some records are there, and no frame has left.
                let some = self.rng.random_range(0..=output.records.len());
                host.records.extend(output.records.into_iter().take(some));
                return self.crash(number, false);
            }
            host.stored |= output.records.iter().any(|record| matches!(record, Record::Founded(_)));
            host.records.extend(output.records);
            for (to, frame) in output.sends {
                self.send(number, usize::from(to), |_| What::Frame {
                    from: number,
                    to: usize::from(to),
                    frame: frame.clone(),
                });
            }
            for (member, reply) in output.replies {
                if let Some(to) = (0..self.hosts.len()).find(|host| id(*host) == member) {
                    self.send(number, to, |world| What::Reply {
                        to,
                        boot: world.hosts[to].boot,
                        reply: reply.clone(),
                    });
                }
            }
            if let Some(voter) = &mut self.hosts[number].voter {
                voter.written(output.own, now_ms);
            }
        }
        for (to, request) in self.hosts[number].holder.take_requests() {
            let to = usize::from(to);
            self.send(number, to, |_| What::Request { from: number, to, request: request.clone() });
        }
        for event in self.hosts[number].holder.take_events() {
            self.happened(number, &event);
        }
        let host = &self.hosts[number];
        let voter = host.voter.as_ref().and_then(Voter::wake_ms);
        let Some(wake_ms) = host.holder.wake_ms().into_iter().chain(voter).min() else { return };
        // A little late by the slowest clock.
        let ms = wake_ms.saturating_sub(now_ms) * 106 / 100 + 1;
        if host.wake_ms <= self.now_ms || self.now_ms + ms < host.wake_ms {
            self.hosts[number].wake_ms = self.now_ms + ms;
            self.after(ms, What::Wake(number));
        }
    }

    fn happened(&mut self, number: usize, event: &Event) {
        let boot = self.hosts[number].boot;
        let (attempt, until) = match *event {
            Event::Granted(attempt, claim_number, until) => {
                let Some(name) = self.hosts[number].wanted.remove(&attempt) else { return };
                self.hosts[number].commands.insert(attempt, (name, until));
                self.history.begin(self.now_ms, (number, boot, attempt), name, claim_number);
                let ms = self.rng.random_range(0..WORK_MS);
                self.after(ms, What::Done { host: number, boot, attempt });
                (attempt, until)
            }
            Event::Renewed(attempt, until) => (attempt, until),
            // The command is told to end, and does not hear it. The guardian kills it.
            Event::Lost(..) | Event::Busy(..) | Event::Full(_) | Event::Listed(..) => return,
        };
        let now_ms = self.now(number);
        if let Some((_, known)) = self.hosts[number].commands.get_mut(&attempt) {
            *known = until;
            // The timer fires when the clock of the host says so.
            let left = i128::from(until.dead_ms.saturating_sub(now_ms));
            let rate = 1_000_000 + i128::from(self.hosts[number].drift);
            let ms = u64::try_from(left * 1_000_000 / rate).unwrap_or(0) + 1;
            self.after(ms, What::Guard { host: number, boot, attempt });
        }
    }

    fn send(&mut self, from: usize, to: usize, what: impl Fn(&ClaimsWorld) -> What) {
        if from == to {
            let what = what(self);
            return self.after(0, what);
        }
        if self.blocks(from, to) || self.rng.random_range(0..1_000) < self.loss_permille {
            return;
        }
        let copies = if self.rng.random_range(0..100) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            let ms = if self.rng.random_range(0..50) == 0 {
                self.rng.random_range(1..3_000)
            } else {
                self.rng.random_range(1..10)
            };
            let what = what(self);
            self.after(ms, what);
        }
    }
}

/// What the clock of a host shows.
fn local(host: &Host, now_ms: u64) -> u64 {
    let rate = u64::try_from(1_000_000 + host.drift).unwrap_or(1_000_000);
    host.offset_ms + now_ms * rate / 1_000_000
}
