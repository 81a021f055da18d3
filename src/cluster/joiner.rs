//! Looking for other daemons: what discovery finds is joined, and what was lost is sought again.
//!
//! Which address is dialled when is decided by [`Candidates`]; here are the tasks that carry it out.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pmd_protocol::peer::NodeId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::{Cluster, JoinError, Partner};
use crate::discovery::candidates::{Candidates, Listed};
use crate::discovery::{Discovery, FINDS, Find, run};

/// Questions that wait for an answer.
const QUESTIONS: usize = 16;
/// How long is waited while nothing is due: only a new find or a lost member brings something.
const IDLE: Duration = Duration::from_secs(3600);

/// What the seeker can be asked.
#[derive(Debug)]
pub enum Question {
    /// What was found.
    List(oneshot::Sender<Vec<Listed>>),
    /// Not to dial this address any more.
    Forget(String),
}

/// The way to the seeker.
#[derive(Debug, Clone)]
pub struct Seeker(mpsc::Sender<Question>);

/// What the seeker was asked and has not answered.
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

impl Seeker {
    /// The way to a seeker that does not run yet, and what it will be asked.
    pub fn new() -> (Seeker, Questions) {
        let (sender, receiver) = mpsc::channel(QUESTIONS);
        (Seeker(sender), Questions(receiver))
    }

    /// What was found.
    pub async fn list(&self) -> Vec<Listed> {
        let (sender, receiver) = oneshot::channel();
        // Without an answer the daemon is about to end.
        let _ = self.0.send(Question::List(sender)).await;
        receiver.await.unwrap_or_default()
    }

    /// Does not dial this address any more, until it is found again.
    pub async fn forget(&self, address: &str) {
        let _ = self.0.send(Question::Forget(address.to_owned())).await;
    }
}

/// Starts to seek by these plugins, for as long as there is the cluster; `members` changes whenever a member comes or goes.
pub fn start(
    cluster: &Arc<Cluster>,
    candidates: Candidates,
    plugins: Vec<Box<dyn Discovery>>,
    members: watch::Receiver<u64>,
    questions: Questions,
) {
    let cluster = Arc::downgrade(cluster);
    let seeking = Seeking {
        cluster,
        candidates,
        members,
        known: BTreeSet::new(),
        dials: JoinSet::new(),
        begin: Instant::now(),
    };
    tokio::spawn(seeking.run(plugins, questions.0));
}

#[derive(Debug)]
struct Seeking {
    cluster: Weak<Cluster>,
    candidates: Candidates,
    members: watch::Receiver<u64>,
    known: BTreeSet<NodeId>,
    dials: JoinSet<(String, Result<Partner, JoinError>)>,
    begin: Instant,
}

impl Seeking {
    async fn run(mut self, plugins: Vec<Box<dyn Discovery>>, mut questions: mpsc::Receiver<Question>) {
        let (sender, mut finds) = mpsc::channel(FINDS);
        let _plugins = run::start(plugins, &sender);
        loop {
            let Some(cluster) = self.cluster.upgrade() else { return };
            if !cluster.me().has_left() {
                for address in self.candidates.due(self.now_ms()) {
                    let cluster = Arc::clone(&cluster);
                    self.dials.spawn(async move {
                        let joined = cluster.join(&address).await;
                        (address, joined)
                    });
                }
            }
            drop(cluster);
            let due = self.candidates.poll_timeout().map_or(IDLE, |due_ms| {
                // While a daemon that has left waits to be told to join, what is due stays so.
                Duration::from_millis(due_ms.saturating_sub(self.now_ms()).max(100))
            });
            tokio::select! {
                find = finds.recv() => {
                    if let Some((source, find)) = find {
                        self.found(source, find);
                    }
                }
                Some(dialled) = self.dials.join_next() => {
                    if let Ok((address, outcome)) = dialled {
                        self.dialled(&address, outcome);
                    }
                }
                changed = self.members.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.look_at_members().await;
                }
                question = questions.recv() => match question {
                    Some(Question::List(answer)) => drop(answer.send(self.candidates.list(self.now_ms()))),
                    Some(Question::Forget(address)) => self.candidates.forget(&address),
                    None => return,
                },
                () = tokio::time::sleep(due) => {}
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn found(&mut self, source: &'static str, find: Find) {
        let now_ms = self.now_ms();
        let address = find.address.clone();
        if let Err(error) = self.candidates.found(now_ms, source, find, &mut rand::rng()) {
            tracing::warn!(source, address, "discovery has found what is no address: {error}");
        }
    }

    fn dialled(&mut self, address: &str, outcome: Result<Partner, JoinError>) {
        let now_ms = self.now_ms();
        match outcome {
            Ok(partner) => {
                tracing::info!(address, host = %partner.host, "joined");
                self.candidates.joined(now_ms, address, partner.id);
            }
            Err(error) if error.is_oneself() => self.candidates.oneself(address),
            Err(error) => {
                tracing::warn!(address, "cannot join: {error}");
                self.candidates.failed(now_ms, address, &mut rand::rng());
            }
        }
    }

    /// Tells the candidates who has come and who is gone.
    async fn look_at_members(&mut self) {
        let Some(cluster) = self.cluster.upgrade() else { return };
        let visit = cluster.core().visit(|running| {
            running.node().members().map(|(identity, _)| identity.id).collect::<BTreeSet<NodeId>>()
        });
        let Ok(ids) = visit.await else { return };
        let now_ms = self.now_ms();
        for id in ids.difference(&self.known) {
            self.candidates.member_found(*id);
        }
        for id in self.known.difference(&ids) {
            self.candidates.member_lost(now_ms, *id, &mut rand::rng());
        }
        self.known = ids;
    }
}
