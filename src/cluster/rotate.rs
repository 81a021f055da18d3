//! Carries out rotations of the cluster secret: writes the secret, spreads it over the links, follows how far it has come,
//! and closes links that the new secret does not stand behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pmd_core::attest::id_of;
use pmd_protocol::peer::{NodeId, Rotation};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::core::{Core, Spread};
use super::rotation::{Heard, Latest, Rotations};
use super::rotation_file;
use super::rotator::{Progress, Request, Requests, RotateError};
use super::secret_file::{StoreError, put};
use crate::auth::cookie::{CookieKey, Cookies, Transition, is_erlang, random_cookie, read_secrets};
use crate::base::clock::now_ms;
use crate::base::log::limited::LimitedLog;
use crate::directory::cluster::ClusterDirectory;
use crate::link::inbox::Ended;
use crate::link::local_identity::LocalIdentity;
use crate::link::session::HeardRotation;

/// How often the state is looked at while a rotation is going on, besides when the members have changed. Peers that have
/// not proven the new secret are sent the rotation again then, because the queue of a link may have been full.
const WHILE_OFFERED: Duration = Duration::from_millis(500);
/// How often all peers are sent it again: one that has finished it answers.
const AGAIN: Duration = Duration::from_secs(5);
/// How often the state is looked at while members that were away may still return.
const WHILE_LATE: Duration = Duration::from_secs(5);
/// Time between the end of a rotation and the closing of links that have not proven the new secret: enough for proofs
/// that are on their way.
const SETTLE: Duration = Duration::from_secs(2);
/// Whoever has become a member within this time does not get the new secret when somebody is expelled, who may
/// try to come back under another key while the news spreads. It does not count at the start of this daemon, to which
/// all members are new.
const NEWCOMER: Duration = Duration::from_secs(3);
/// Members that were seen alive are remembered up to this number, as many as the member table knows.
const MAX_SEEN: usize = 65_536;
/// Rotations heard from peers that wait here.
pub(super) const HEARD: usize = 64;

/// The parts that rotations need.
#[derive(Debug)]
pub(super) struct Parts {
    /// The daemon's keys and secrets.
    pub local: Arc<LocalIdentity>,
    /// The core thread.
    pub core: Core,
    /// What the members publish.
    pub directory: Arc<ClusterDirectory>,
    /// Changes with every membership change.
    pub members: watch::Receiver<u64>,
    /// The file of the cluster secret.
    pub cookie_file: PathBuf,
    /// The file that remembers the latest rotation.
    pub rotation_file: PathBuf,
    /// Limits log lines that peers can cause.
    pub log: Arc<LimitedLog>,
}

/// What a daemon that starts knows of the latest rotation: which keys peers may prove.
///
/// Returns the transition, and the secrets in place of those in the file if the file could not be written then.
pub(super) fn resumed(latest: &Latest, file: &[String]) -> Option<(Transition, Option<Cookies>)> {
    let current = file.first()?;
    let is_new = *current == latest.rotation.secret;
    // Otherwise an administrator has replaced the secret by hand since.
    let applies = is_new || (*current == latest.old && !latest.old.is_empty());
    applies.then(|| (transition(latest), (!is_new).then(|| Cookies::of_text(&latest.rotation.secret))))
}

/// Which keys peers may prove; takes long if the old secret is weak.
fn transition(latest: &Latest) -> Transition {
    let key = |secret: &str| CookieKey::new(secret);
    let former = latest.former.iter().map(|former| (key(&former.secret), former.late.clone())).collect();
    Transition { new: key(&latest.rotation.secret), old: key(&latest.old), late: latest.late.clone(), former }
}

#[derive(Debug)]
struct RotationTask {
    parts: Parts,
    rotations: Rotations,
    /// The key of the latest rotation's secret.
    key: Option<CookieKey>,
    /// Whether the secret is in the file.
    is_stored: bool,
    /// When each member was first seen alive. Only they get the new secret, and not whoever is only told of.
    seen: BTreeMap<NodeId, Instant>,
    /// When this daemon began to look.
    begun: Instant,
    /// When links that have not proven it are closed.
    close_at: Option<Instant>,
    /// When the state is looked at again.
    look_at: Instant,
    /// When all peers are sent the rotation again.
    again_at: Instant,
}

/// Carries out rotations until the daemon shuts down.
pub(super) async fn run(
    parts: Parts,
    rotations: Rotations,
    mut heard: mpsc::Receiver<HeardRotation>,
    mut requests: Requests,
) {
    let mut members = parts.members.clone();
    let now = Instant::now();
    let mut task = RotationTask {
        parts,
        rotations,
        key: None,
        is_stored: true,
        seen: BTreeMap::new(),
        begun: now,
        close_at: None,
        look_at: now,
        again_at: now,
    };
    if task.resume().await.is_err() {
        return std::future::pending().await;
    }
    loop {
        let pause = task.pause();
        task.look_at = task.look_at.min(Instant::now() + pause.unwrap_or_default());
        let done = tokio::select! {
            heard = heard.recv() => match heard {
                Some(HeardRotation { peer, rotation }) => task.heard(peer, rotation).await,
                None => Err(Ended),
            },
            request = requests.0.recv() => match request {
                Some(request) => task.answer(request).await,
                None => Err(Ended),
            },
            changed = members.changed() => match changed {
                Ok(()) => task.members_changed().await,
                Err(_) => Err(Ended),
            },
            () = tokio::time::sleep_until(task.look_at), if pause.is_some() => task.follow().await,
        };
        if done.is_err() {
            // The core has ended. It is supervised itself, so this task must not report it as well.
            return std::future::pending().await;
        }
    }
}

impl RotationTask {
    /// Continues a rotation of an earlier run.
    async fn resume(&mut self) -> Result<(), Ended> {
        let Some(latest) = self.rotations.latest() else { return Ok(()) };
        if self.parts.local.transition().is_none() {
            return Ok(());
        }
        let key = CookieKey::new(&latest.rotation.secret);
        let rotation = latest.rotation.clone();
        self.key = Some(key.clone());
        self.spread(rotation, key, Spread::All).await
    }

    /// Time until the state is looked at again; `None` if nothing is going on.
    fn pause(&self) -> Option<Duration> {
        let latest = self.rotations.latest()?;
        let settle = self.close_at.map(|at| at.saturating_duration_since(Instant::now()));
        let rest = if latest.is_over() {
            None
        } else if latest.rotation.finished {
            Some(WHILE_LATE)
        } else {
            Some(WHILE_OFFERED)
        };
        settle.into_iter().chain(rest).min()
    }

    async fn members_changed(&mut self) -> Result<(), Ended> {
        self.see();
        if self.pause().is_some() { self.follow().await } else { Ok(()) }
    }

    /// Remembers the members that are alive. The read model knows them, so this costs the core thread nothing.
    fn see(&mut self) {
        let now = Instant::now();
        for (id, _) in self.parts.directory.origins() {
            if self.seen.len() < MAX_SEEN {
                self.seen.entry(id).or_insert(now);
            }
        }
    }

    async fn heard(&mut self, peer: NodeId, rotation: Rotation) -> Result<(), Ended> {
        if !self.rotations.is_news(&rotation) {
            let is_older = self.rotations.latest().is_some_and(|latest| latest.rotation != rotation);
            return if is_older { self.parts.core.send_rotation(peer).await } else { Ok(()) };
        }
        let before = self.rotations.latest().map(|latest| latest.rotation.begun_ms);
        match self.hear(rotation).await? {
            Heard::New => {
                let begun = self.rotations.latest().map(|latest| latest.rotation.begun_ms);
                let text = if begun == before {
                    "the old cluster secret is no longer accepted"
                } else {
                    "received a new cluster secret"
                };
                self.parts.log.line(text.to_owned(), move |more| tracing::info!(?peer, "{text}{more}"));
                self.carry_out().await
            }
            Heard::Known => Ok(()),
            wrong @ (Heard::Ignored | Heard::Forged) => {
                let why = if wrong == Heard::Forged {
                    "its author has not signed it"
                } else {
                    "its author is not an administrator, or is expelled"
                };
                self.parts.log.line(format!("rotation from {peer}: {why}"), move |more| {
                    tracing::warn!(?peer, "ignored a new cluster secret: {why}{more}");
                });
                Ok(())
            }
        }
    }

    async fn hear(&mut self, rotation: Rotation) -> Result<Heard, Ended> {
        let expelled = self.parts.local.expulsion_of(&id_of(&rotation.author)).is_some();
        let tls = self.parts.local.tls();
        let judged = self.rotations.judge(&*tls.keys(), now_ms(), &rotation, expelled);
        if judged != Heard::New {
            return Ok(judged);
        }
        self.see();
        // Whoever has left may come back, but not while somebody is expelled who may have left under other keys.
        let is_strict = rotation.without.is_some();
        let known = self.parts.core.known().await?.into_iter().filter(|(_, left)| !(is_strict && *left));
        let known: BTreeSet<NodeId> = known.map(|(id, _)| id).collect();
        let now = Instant::now();
        let is_entitled = |(id, since): (&NodeId, &Instant)| {
            let well_known = now.duration_since(*since) >= NEWCOMER
                || since.duration_since(self.begun) <= NEWCOMER
                || !is_strict;
            (well_known && known.contains(id)).then_some(*id)
        };
        let members = self.seen.iter().filter_map(is_entitled).collect();
        let path = self.parts.cookie_file.clone();
        let read = tokio::task::spawn_blocking(move || read_secrets(&path)).await;
        let current = read.ok().and_then(Result::ok).and_then(|secrets| secrets.into_iter().next());
        // The file is gone: what this daemon has heard last.
        let heard = || self.rotations.latest().map(|latest| latest.rotation.secret.clone());
        let current = current.or_else(heard).unwrap_or_default();
        // They were entitled to the secret that is replaced now, and nobody can tell whether they know it.
        let may_return = |id: &NodeId| !is_strict || known.contains(id);
        self.rotations.accept(now_ms(), rotation, &current, members, may_return);
        Ok(Heard::New)
    }

    async fn answer(&mut self, request: Request) -> Result<(), Ended> {
        match request {
            Request::Begin(answer) => {
                let begun = self.begin().await?;
                let _ = answer.send(begun);
            }
            Request::Expel(member, host, answer) => {
                let expelled = self.expel(member, host).await?;
                let _ = answer.send(expelled);
            }
            Request::Finish(answer) => {
                let finished = self.finish().await?;
                let _ = answer.send(finished);
            }
            Request::Progress(answer) => {
                let progress = self.progress().await?;
                let _ = answer.send(progress);
            }
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<Result<Progress, RotateError>, Ended> {
        if self.rotations.latest().is_some_and(|latest| !latest.rotation.finished) {
            return Ok(Err(RotateError::InProgress));
        }
        if self.parts.core.view().await?.members.is_empty() {
            return Ok(Err(RotateError::Alone));
        }
        match self.replace(None).await? {
            Ok(()) => self.follow().await?,
            Err(error) => return Ok(Err(error)),
        }
        Ok(self.progress().await?.ok_or(RotateError::NotBegun))
    }

    /// The others hear of the new secret before the expelled member can learn that it is expelled. A rotation that is going
    /// on does not matter: the member may have its secret.
    async fn expel(&mut self, member: NodeId, host: String) -> Result<Result<Progress, RotateError>, Ended> {
        if let Err(error) = self.replace(Some(member)).await? {
            return Ok(Err(error));
        }
        self.parts.core.decide(member, host, true).await?;
        self.follow().await?;
        Ok(self.progress().await?.ok_or(RotateError::NotBegun))
    }

    /// Begins a rotation to a new secret, which `without` does not get.
    async fn replace(&mut self, without: Option<NodeId>) -> Result<Result<(), RotateError>, Ended> {
        let path = &self.parts.cookie_file;
        if is_erlang(path) {
            return Ok(Err(RotateError::Erlang(path.display().to_string())));
        }
        let tls = self.parts.local.tls();
        if !self.rotations.may_begin(&*tls.keys()) {
            return Ok(Err(RotateError::NotAdministrator));
        }
        let secret = match random_cookie() {
            Ok(secret) => secret,
            Err(error) => return Ok(Err(RotateError::Store(error.to_string()))),
        };
        let rotation = self.rotations.begin(&*tls.keys(), now_ms(), secret, without);
        if self.hear(rotation).await? != Heard::New {
            return Ok(Err(RotateError::Overtaken));
        }
        self.carry_out().await?;
        Ok(Ok(()))
    }

    async fn finish(&mut self) -> Result<Result<Progress, RotateError>, Ended> {
        let tls = self.parts.local.tls();
        if !self.rotations.may_begin(&*tls.keys()) {
            return Ok(Err(RotateError::NotAdministrator));
        }
        let Some(finished) = self.rotations.finish(&*tls.keys()) else {
            return Ok(Err(RotateError::NotBegun));
        };
        if self.hear(finished).await? != Heard::New {
            return Ok(Err(RotateError::Overtaken));
        }
        self.carry_out().await?;
        Ok(self.progress().await?.ok_or(RotateError::NotBegun))
    }

    /// Stores the latest rotation, accepts its secret, and passes it on.
    async fn carry_out(&mut self) -> Result<(), Ended> {
        let Some(latest) = self.rotations.latest().cloned() else { return Ok(()) };
        let mut secrets = vec![latest.rotation.secret.clone()];
        if !latest.rotation.finished {
            secrets.push(latest.old.clone());
        }
        let (cookie_file, rotation_file) = (self.parts.cookie_file.clone(), self.parts.rotation_file.clone());
        let for_file = latest.clone();
        // Deriving keys from weak secrets takes long on purpose.
        let stored = tokio::task::spawn_blocking(move || {
            let cookies = Cookies::of_text(&secrets.join("\n"));
            let transition = transition(&for_file);
            let key = CookieKey::new(&for_file.rotation.secret);
            let remembered = rotation_file::write(&rotation_file, &for_file).map_err(StoreError::from);
            let written = put(&cookie_file, &secrets, &for_file).and(remembered);
            (cookies, transition, key, written)
        });
        let Ok((cookies, transition, key, written)) = stored.await else { return Ok(()) };
        match &written {
            Ok(()) => {}
            Err(StoreError::ByHand) => {
                tracing::warn!(
                    "ignored a rotation of the cluster secret: the secret in {} was replaced by hand since",
                    self.parts.cookie_file.display()
                );
                return Ok(());
            }
            Err(StoreError::System(error)) => tracing::error!(
                "cannot store the new cluster secret: {error}; this daemon uses it, but after a restart it needs it in {}",
                self.parts.cookie_file.display()
            ),
        }
        self.parts.local.set_cookies(Arc::new(cookies));
        self.parts.local.set_transition(Some(transition));
        self.key = Some(key.clone());
        self.is_stored = written.is_ok();
        if latest.rotation.finished {
            self.close_at = Some(Instant::now() + SETTLE);
        }
        self.spread(latest.rotation, key, Spread::All).await
    }

    /// Sends the rotation to peers, and publishes that this daemon has the secret if a restart would not lose it.
    async fn spread(&self, rotation: Rotation, key: CookieKey, spread: Spread) -> Result<(), Ended> {
        self.parts.core.rotate(rotation, key, spread, self.is_stored).await
    }

    /// Looks at what the members have, and does what is due.
    async fn follow(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        self.look_at = now + self.pause().unwrap_or_default();
        let (Some(latest), Some(key)) = (self.rotations.latest().cloned(), self.key.clone()) else {
            return Ok(());
        };
        let mut changed = self.rotations.expire(now_ms());
        let mut have = self.parts.core.proven(key.clone()).await?;
        // Whoever says that it has the new secret needs the old one no more.
        have.extend(latest.all_late().into_iter().filter(|id| self.has(id, latest.rotation.begun_ms)));
        for id in have {
            changed |= self.rotations.proven(&id);
        }
        if changed {
            self.remember().await;
        }
        if !latest.rotation.finished {
            let spread = if self.again_at <= now { Spread::All } else { Spread::Unproven };
            if spread == Spread::All {
                self.again_at = now + AGAIN;
            }
            self.spread(latest.rotation.clone(), key, spread).await?;
            let missing = self.progress().await?.map(|progress| progress.missing);
            if missing.is_some_and(|missing| missing.is_empty()) && self.finishes(&latest.rotation).await? {
                let _ = self.finish().await?;
            }
        } else if self.close_at.is_some_and(|at| at > Instant::now()) {
            // A proof that a full queue has dropped must not cost the link.
            self.spread(latest.rotation.clone(), key, Spread::All).await?;
        } else {
            self.close_at = None;
            self.parts.core.close_unproven(key).await?;
        }
        Ok(())
    }

    /// Whether it is for this daemon to finish a rotation: the one that has begun it, or if that is gone, the live member
    /// with the lowest id.
    async fn finishes(&self, rotation: &Rotation) -> Result<bool, Ended> {
        let author = id_of(&rotation.author);
        let view = self.parts.core.view().await?;
        let own = view.identity.id;
        let is_first = || view.members.iter().all(|(identity, _)| identity.id > own);
        Ok(author == own || (view.member(&author).is_none() && is_first()))
    }

    /// Stores who may still prove the old secret.
    async fn remember(&self) {
        let Some(latest) = self.rotations.latest().cloned() else { return };
        let path = self.parts.rotation_file.clone();
        let stored = tokio::task::spawn_blocking(move || {
            let written = rotation_file::write(&path, &latest);
            // Once nobody may prove the old secret, nothing is left of the rotation but its order.
            ((!latest.is_over()).then(|| transition(&latest)), written)
        });
        let Ok((transition, written)) = stored.await else { return };
        if let Err(error) = written {
            tracing::warn!("cannot remember the rotation of the cluster secret: {error}");
        }
        self.parts.local.set_transition(transition);
    }

    /// Whether a member says that it has the secret of the rotation that was begun then, or of a later one.
    fn has(&self, id: &NodeId, begun_ms: u64) -> bool {
        let origin = self.parts.directory.origin(id).unwrap_or_default();
        origin.host().is_some_and(|host| host.secret_ms >= begun_ms)
    }

    async fn progress(&self) -> Result<Option<Progress>, Ended> {
        let Some(latest) = self.rotations.latest() else { return Ok(None) };
        let begun_ms = latest.rotation.begun_ms;
        let view = self.parts.core.view().await?;
        let mut missing = Vec::new();
        let mut members = 1;
        for (identity, _) in &view.members {
            let has = self.has(&identity.id, begun_ms);
            // Nobody waits for those that do not get it because another member was expelled.
            if !has && latest.rotation.without.is_some() && !latest.late.contains(&identity.id) {
                continue;
            }
            members += 1;
            if !has {
                let host = self.parts.directory.host_of(&identity.id).filter(|host| !host.is_empty());
                missing.push(host.unwrap_or_else(|| format!("{:.8}", identity.id)));
            }
        }
        missing.sort();
        let have = members - missing.len();
        let (finished, late) = (latest.rotation.finished, latest.all_late().len());
        Ok(Some(Progress { begun_ms, finished, have, missing, late }))
    }
}
