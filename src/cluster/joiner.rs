//! The joiner: joins the daemons that discovery finds, and tries to rejoin lost members.
//!
//! [`Candidates`] decides which addresses are dialled and when; the joiner dials them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pmd_protocol::peer::NodeId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::joiner_handle::{Question, Questions};
use super::membership::{Cluster, JoinError, Partner};
use crate::discovery::candidates::Candidates;
use crate::discovery::{Discovery, FINDS, Find, run};

/// Longest sleep while no dial is due; a new find or a lost member ends it early.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs the joiner with these plugins until the daemon shuts down; `members` changes with every membership change.
pub(super) async fn run(
    cluster: Arc<Cluster>,
    candidates: Candidates,
    plugins: Vec<Box<dyn Discovery>>,
    members: watch::Receiver<u64>,
    questions: Questions,
) {
    let (known, dials, begin) = (BTreeSet::new(), JoinSet::new(), Instant::now());
    let joining = Joining { cluster, candidates, members, known, dials, begin };
    joining.run(plugins, questions.0).await;
}

#[derive(Debug)]
struct Joining {
    cluster: Arc<Cluster>,
    candidates: Candidates,
    members: watch::Receiver<u64>,
    known: BTreeSet<NodeId>,
    dials: JoinSet<(String, Result<Partner, JoinError>)>,
    begin: Instant,
}

impl Joining {
    async fn run(mut self, plugins: Vec<Box<dyn Discovery>>, mut questions: mpsc::Receiver<Question>) {
        let (sender, mut finds) = mpsc::channel(FINDS);
        let _plugins = run::start(plugins, &sender);
        loop {
            if !self.cluster.local().has_left() {
                for address in self.candidates.due(self.now_ms()) {
                    let cluster = Arc::clone(&self.cluster);
                    let is_seed = self.candidates.is_seed(&address);
                    self.dials.spawn(async move {
                        let joined = cluster.rejoin(&address, is_seed).await;
                        (address, joined)
                    });
                }
            }
            let due = self.candidates.poll_timeout().map_or(IDLE, |due_ms| {
                // After leaving, nothing is dialled and due addresses stay due. The minimum prevents a busy loop.
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
                    self.compare_members().await;
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
            tracing::warn!(source, address, "discovery found an invalid address: {error}");
        }
    }

    fn dialled(&mut self, address: &str, outcome: Result<Partner, JoinError>) {
        let now_ms = self.now_ms();
        match outcome {
            Ok(partner) => {
                tracing::info!(address, host = %partner.host, "joined");
                self.candidates.joined(now_ms, address, partner.id);
            }
            Err(error) if error.is_this_daemon() => self.candidates.mark_this_daemon(address),
            Err(error) => {
                tracing::warn!(address, "cannot join: {error}");
                self.candidates.failed(now_ms, address, &mut rand::rng());
            }
        }
    }

    /// Reports new and lost members to the candidates.
    async fn compare_members(&mut self) {
        let Ok(view) = self.cluster.core().view().await else { return };
        let ids: BTreeSet<NodeId> = view.members.iter().map(|(identity, _)| identity.id).collect();
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
