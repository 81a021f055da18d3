//! The thread of claims: it owns what this daemon claims and, if it is a voter, the voter and its store.
//!
//! Writing blocks the thread, so that nothing leaves before the records that it follows from are durable, and everything
//! that arrived meanwhile is written together.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pmd_core::claims::engine::Index;
use pmd_core::claims::holder::{Event, Holder, Loss};
use pmd_core::claims::voter::{Output, Voter};
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::{Answer, Ask, ClaimName, Frame, Reply, Request, Role, Status, Table};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

use super::connection::keep;
use super::handle::{Accepted, Claims, Command, State, VoterView};
use super::own_voter;
use super::store::Store;
use crate::base::clock::boot_ms;
use crate::base::log::limited::{LimitedLog, Limits};
use crate::base::shutdown::Shutdown;
use crate::base::stats::Counters;
use crate::directory::cluster::ClusterDirectory;
use crate::link::dial::Dialer;
use crate::link::local_identity::LocalIdentity;

/// Commands that are handled before what they lead to is written and sent.
const BATCH: usize = 64;
/// How long the voters have to say how they are.
const STATUS_MS: u64 = 2_000;
/// Connections of members that are remembered for answers.
const MOST_MEMBERS: usize = 4_096;
/// The longest pause of the thread: any, because it wakes up for each command.
const LONGEST_MS: u64 = 24 * 3_600 * 1_000;

/// What the thread depends on.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) hosts: Vec<String>,
    /// The index of this host, if it is a voter.
    pub(super) own: Option<Index>,
    pub(super) file: PathBuf,
    pub(super) local: Arc<LocalIdentity>,
    pub(super) directory: Arc<ClusterDirectory>,
    pub(super) dialer: Dialer,
    pub(super) counters: Arc<Counters>,
    pub(super) claims: Arc<Claims>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) runtime: Handle,
}

/// Runs until the daemon shuts down. A panic ends claims, and nothing else.
pub(super) fn supervised(thread: &Runtime, setup: Setup, shutdown: &Shutdown) {
    let claims = Arc::clone(&setup.claims);
    let run = AssertUnwindSafe(|| {
        thread.block_on(async {
            tokio::select! {
                () = Driver::start(setup).run() => {}
                _ = shutdown.wait() => {}
            }
        });
    });
    if std::panic::catch_unwind(run).is_err() {
        tracing::error!("claims panicked: this host neither votes nor claims until pmd is restarted");
        claims.set_problem("a fault in the daemon; restart it, and report the lines in pmd debug".to_owned());
        thread.block_on(shutdown.wait());
    }
}

/// A claim of a user of this host.
#[derive(Debug)]
struct User {
    name: ClaimName,
    state: watch::Sender<State>,
}

/// A question to all voters.
#[derive(Debug)]
struct Asked {
    until_ms: u64,
    answers: Vec<Option<Status>>,
    /// The requests, by voter.
    requests: Vec<u64>,
    reply: oneshot::Sender<Vec<VoterView>>,
}

#[derive(Debug)]
struct Driver {
    hosts: Vec<String>,
    own: Option<Index>,
    id: NodeId,
    directory: Arc<ClusterDirectory>,
    claims: Arc<Claims>,
    counters: Arc<Counters>,
    commands: mpsc::Receiver<Command>,
    log: Arc<LimitedLog>,
    store: Option<Store>,
    voter: Option<Voter>,
    role: Option<Role>,
    holder: Holder,
    users: BTreeMap<u64, User>,
    lists: BTreeMap<u64, oneshot::Sender<Table>>,
    asked: Vec<Asked>,
    last_asked: u64,
    voters: Vec<Option<mpsc::Sender<Frame>>>,
    members: HashMap<NodeId, mpsc::Sender<Frame>>,
    /// Whether connections to the voters are wanted.
    wanted: watch::Sender<bool>,
}

impl Driver {
    fn start(setup: Setup) -> Driver {
        let Setup { hosts, own, file, local, directory, dialer, counters, claims, commands, runtime } = setup;
        let now = boot_ms();
        let id = local.id();
        let (mut store, mut voter) = (None, None);
        if let Some(own) = own {
            claims.set_votes(false);
            match own_voter::open(&file, hosts.clone(), own, id, now) {
                Ok(opened) => (store, voter) = (Some(opened.0), Some(opened.1)),
                Err(error) => {
                    tracing::error!("this host is a voter for claims and does not vote: {error}");
                    claims.set_problem(error.to_string());
                }
            }
        }
        let (wanted, watched) = watch::channel(voter.is_some());
        let count = u8::try_from(hosts.len()).unwrap_or(u8::MAX);
        for (index, host) in (0..count).zip(&hosts).filter(|(index, _)| Some(*index) != own) {
            let (directory, dialer, claims) = (Arc::clone(&directory), dialer.clone(), Arc::clone(&claims));
            runtime.spawn(keep(index, host.clone(), watched.clone(), directory, dialer, claims));
        }
        let target = own.filter(|_| voter.is_some()).unwrap_or(0);
        Driver {
            voters: vec![None; hosts.len()],
            hosts,
            own,
            id,
            directory,
            claims,
            counters,
            commands,
            log: LimitedLog::new(runtime, Limits::REPETITIONS),
            store,
            voter,
            role: None,
            holder: Holder::new(rand::random(), count, target),
            users: BTreeMap::new(),
            lists: BTreeMap::new(),
            asked: Vec::new(),
            last_asked: 1 << 63,
            members: HashMap::new(),
            wanted,
        }
    }

    async fn run(mut self) {
        loop {
            self.flush();
            let now = boot_ms();
            let voter = self.voter.as_ref().and_then(Voter::wake_ms);
            let asked = self.asked.iter().map(|asked| asked.until_ms).min();
            let wake = voter.into_iter().chain(self.holder.wake_ms()).chain(asked).min();
            let pause =
                Duration::from_millis(wake.map_or(u64::MAX, |wake| wake.saturating_sub(now)).min(LONGEST_MS));
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(command) = command else { return };
                    self.handle(command);
                    for _ in 0..BATCH {
                        let Ok(command) = self.commands.try_recv() else { break };
                        self.handle(command);
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
            let now = boot_ms();
            if let Some(voter) = &mut self.voter {
                voter.tick(now);
            }
            self.holder.tick(now);
        }
    }

    fn handle(&mut self, command: Command) {
        let now = boot_ms();
        match command {
            Command::Claim { name, ttl_ms, state, attempt } => {
                let number = self.holder.claim(name.clone(), ttl_ms, now);
                self.users.insert(number, User { name, state });
                if attempt.send(number).is_err() {
                    self.users.remove(&number);
                    self.holder.release(number, now);
                }
            }
            Command::Release(attempt) => {
                self.users.remove(&attempt);
                self.holder.release(attempt, now);
            }
            Command::Abandon(attempt) => {
                if self.users.remove(&attempt).is_some() {
                    self.holder.abandon(attempt, now);
                }
            }
            Command::ReleaseNumber { name, number, found } => {
                let attempt = self.holder.release_number(&name, number, now);
                if let Some(attempt) = attempt {
                    self.users.remove(&attempt);
                }
                let _ = found.send(attempt.is_some());
            }
            Command::List(reply) => {
                let gone: Vec<u64> = self
                    .lists
                    .iter()
                    .filter(|(_, reply)| reply.is_closed())
                    .map(|(query, _)| *query)
                    .collect();
                for query in gone {
                    self.lists.remove(&query);
                    self.holder.forget(query);
                }
                let query = self.holder.list(now);
                self.lists.insert(query, reply);
            }
            Command::Voters(reply) => self.ask_voters(reply, now),
            Command::Connected(voter, frames) => {
                let at = usize::from(voter);
                for asked in self.asked.iter().filter(|asked| asked.answers.get(at) == Some(&None)) {
                    if let Some(id) = asked.requests.get(at) {
                        let _ = frames.try_send(Frame::Request(Request { id: *id, ask: Ask::Status }));
                    }
                }
                if let Some(known) = self.voters.get_mut(at) {
                    *known = Some(frames);
                }
                if let Some(own) = &mut self.voter {
                    own.connected(voter, now);
                }
            }
            Command::Disconnected(voter) => {
                if let Some(known) = self.voters.get_mut(usize::from(voter)) {
                    *known = None;
                }
                if let Some(own) = &mut self.voter {
                    own.lost(voter, now);
                }
                self.holder.lost(voter, now);
            }
            Command::Replied(reply) => self.replied(reply, now),
            Command::Arrived(from, frame) => self.arrived(from, frame, now),
        }
    }

    /// Handles a frame on a connection that a member has opened.
    fn arrived(&mut self, from: Accepted, frame: Frame, now: u64) {
        let Some(voter) = &mut self.voter else { return from.close.cancel() };
        voter.number_founding(own_voter::founding_number());
        if let Frame::Request(request) = frame {
            if self.members.len() >= MOST_MEMBERS {
                self.members.retain(|_, frames| !frames.is_closed());
            }
            if self.members.len() < MOST_MEMBERS || self.members.contains_key(&from.id) {
                self.members.insert(from.id, from.frames);
            }
            return voter.request(from.id, request, now);
        }
        let index =
            self.hosts.iter().position(|host| *host == from.host).and_then(|at| Index::try_from(at).ok());
        // Of two daemons with one name, the one that has it is meant.
        let has_name = self.directory.on_host(&from.host).first().is_some_and(|(id, _)| *id == from.id);
        let received = match index.filter(|_| has_name) {
            Some(index) => voter.receive(index, from.id, frame, now).is_ok(),
            None => false,
        };
        if !received {
            self.counters.violations.add();
            from.close.cancel();
            let (host, id) = (crate::base::foreign::ForeignText::new(&from.host), from.id);
            self.log.line(format!("no voter {id}"), move |more| {
                tracing::warn!(
                    "member {host} ({id:.8}) has sent a vote and is no voter, closing its connection{more}"
                );
            });
        }
    }

    fn replied(&mut self, reply: Reply, now: u64) {
        if let Answer::Status(status) = reply.answer {
            for asked in &mut self.asked {
                if let Some(at) = asked.requests.iter().position(|id| *id == reply.id)
                    && let Some(answer) = asked.answers.get_mut(at)
                {
                    *answer = Some(status);
                }
            }
            return self.finish_asked(now);
        }
        self.holder.receive(reply, now);
    }

    fn ask_voters(&mut self, reply: oneshot::Sender<Vec<VoterView>>, now: u64) {
        let mut asked = Asked { until_ms: now + STATUS_MS, answers: Vec::new(), requests: Vec::new(), reply };
        let own = self.own.map(usize::from);
        for (at, voter) in self.voters.iter().enumerate() {
            self.last_asked += 1;
            let request = Frame::Request(Request { id: self.last_asked, ask: Ask::Status });
            asked.requests.push(self.last_asked);
            if own == Some(at) {
                let broken =
                    Status { role: Role::Broken, founding: 0, accepted: Default::default(), list: 0 };
                let status = self.voter.as_ref().map_or(broken, |voter| voter.status(now));
                asked.answers.push(Some(status));
            } else {
                asked.answers.push(None);
                if let Some(frames) = voter {
                    let _ = frames.try_send(request);
                }
            }
        }
        self.asked.push(asked);
        self.finish_asked(now);
    }

    /// Answers the questions for which all answers are there, or the time is over.
    fn finish_asked(&mut self, now: u64) {
        for asked in std::mem::take(&mut self.asked) {
            // A voter that this daemon has no connection to may be about to be connected.
            if now < asked.until_ms && asked.answers.iter().any(Option::is_none) {
                self.asked.push(asked);
                continue;
            }
            let views = self.hosts.iter().zip(asked.answers).enumerate().map(|(at, (host, status))| {
                VoterView { host: host.clone(), own: self.own.map(usize::from) == Some(at), status }
            });
            let _ = asked.reply.send(views.collect());
        }
    }

    /// Writes, sends and tells what the state machines have produced.
    fn flush(&mut self) {
        let now = boot_ms();
        while let Some(voter) = &mut self.voter {
            let output = voter.take_output();
            if output == Output::default() {
                break;
            }
            if !output.records.is_empty()
                && let Some(store) = &mut self.store
                && let Err(error) = store.append(output.records)
            {
                tracing::error!("this host does not vote any more: {error}");
                self.claims.set_problem(error.to_string());
                voter.break_off();
                self.store = None;
                break;
            }
            for (to, frame) in output.sends {
                if let Some(Some(frames)) = self.voters.get(usize::from(to)) {
                    // When the queue is full, the frame is lost, as on a network.
                    let _ = frames.try_send(frame);
                }
            }
            let mut own = Vec::new();
            for (member, reply) in output.replies {
                if member == self.id {
                    own.push(reply);
                } else if let Some(frames) = self.members.get(&member) {
                    let _ = frames.try_send(Frame::Reply(reply));
                }
            }
            voter.written(output.own, now);
            for reply in own {
                self.holder.receive(reply, now);
            }
            self.send_requests(now);
        }
        self.send_requests(now);
        for event in self.holder.take_events() {
            self.happened(event);
        }
        self.finish_asked(now);
        let needed = self.voter.is_some() || !self.holder.is_idle() || !self.asked.is_empty();
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, needed) != needed);
        let held =
            self.users.values().filter(|user| matches!(*user.state.borrow(), State::Held { .. })).count();
        self.claims.set_held(held);
        self.note_role(now);
    }

    fn send_requests(&mut self, now: u64) {
        for (to, request) in self.holder.take_requests() {
            match &mut self.voter {
                Some(voter) if self.own == Some(to) => voter.request(self.id, request, now),
                _ => {
                    if let Some(Some(frames)) = self.voters.get(usize::from(to)) {
                        let _ = frames.try_send(Frame::Request(request));
                    }
                }
            }
        }
    }

    fn happened(&mut self, event: Event) {
        let (attempt, state) = match event {
            Event::Granted(attempt, number, until) => (attempt, State::Held { number, until }),
            Event::Renewed(attempt, until) => {
                if let Some(user) = self.users.get(&attempt) {
                    user.state.send_modify(|state| {
                        if let State::Held { until: known, .. } = state {
                            *known = until;
                        }
                    });
                }
                return;
            }
            Event::Busy(attempt, claim) => (attempt, State::Busy(claim)),
            Event::Full(attempt) => (attempt, State::Full),
            Event::Lost(attempt, loss) => (attempt, State::Lost(loss)),
            Event::Listed(query, table) => {
                if let Some(reply) = self.lists.remove(&query) {
                    let _ = reply.send(table);
                }
                return;
            }
        };
        if let Some(user) = self.users.get(&attempt) {
            if !matches!(state, State::Busy(_)) {
                tracing::info!(claim = %user.name, "{}", described(state));
            }
            user.state.send_replace(state);
        }
    }

    /// Logs what the voter does when that changes, and keeps what stops it from voting.
    fn note_role(&mut self, now: u64) {
        let Some(role) = self.voter.as_ref().map(|voter| voter.status(now).role) else { return };
        self.claims.set_votes(matches!(role, Role::Leader | Role::Follower));
        if self.role.replace(role) == Some(role) {
            return;
        }
        let problem = match role {
            Role::Unfounded | Role::Leader | Role::Follower | Role::Leaderless => {
                return tracing::debug!(?role, "voter");
            }
            Role::Stranger => {
                "the other voters know this host by another store, which is lost: it must not vote in its place"
            }
            Role::ListDiffers => {
                "voters in the configuration is not the list with which the voters were founded"
            }
            Role::RolledBack => {
                "its store is older than what this host has promised, such as a backup that was restored"
            }
            Role::Broken => return,
        };
        tracing::error!("this host is a voter for claims and does not vote: {problem}");
        self.claims.set_problem(problem.to_owned());
    }
}

fn described(state: State) -> String {
    match state {
        State::Asked => "asked".to_owned(),
        State::Busy(claim) => {
            format!("held by daemon {:.8} with number {}", claim.lease.member, claim.number)
        }
        State::Full => "there are too many claims".to_owned(),
        State::Held { number, .. } => format!("held with number {number}"),
        State::Lost(Loss::NotRenewed) => "lost, because it was not renewed in time".to_owned(),
        State::Lost(Loss::Revoked) => "lost, because the voters do not know it any more".to_owned(),
    }
}
