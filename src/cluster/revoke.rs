//! Lists of revoked certificates: verified, put in force on this daemon, remembered, and passed on to all peers.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::core::Core;
use super::revocation_file;
use crate::auth::revocation::{RevocationError, VerifiedList, VerifiedLists};
use crate::base::log::limited::LimitedLog;
use crate::base::text::count;
use crate::link::inbox::Ended;
use crate::link::local_identity::LocalIdentity;
use crate::link::session::HeardList;

/// Lists heard from peers that wait here. When there are more, the links that they come over are read later.
pub(super) const HEARD: usize = 8;
/// Requests of this daemon's users that wait here; further callers wait in turn.
const REQUESTS: usize = 4;

/// The parts that are needed to put lists in force.
#[derive(Debug)]
pub(super) struct Parts {
    /// The lists in force, and who signs them.
    pub local: Arc<LocalIdentity>,
    /// The core thread.
    pub core: Core,
    /// The file that remembers the lists.
    pub file: PathBuf,
    /// Limits log lines that peers can cause.
    pub log: Arc<LimitedLog>,
}

/// A list that was put in force.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The list.
    pub list: Arc<VerifiedList>,
    /// Whether it is new; otherwise it was in force before.
    pub is_new: bool,
}

/// Why a list was not put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// The daemon has no certificate of an authority.
    #[error("this daemon uses no certificate authority")]
    NoAuthority,
    /// It is not a list of this daemon's authority.
    #[error(transparent)]
    List(#[from] RevocationError),
    /// A newer one is in force.
    #[error("this daemon has list number {known}, which is newer than number {number}")]
    Older {
        /// The number of the list.
        number: u64,
        /// The number of the one in force.
        known: u64,
    },
    /// The daemon is shutting down.
    #[error(transparent)]
    Ended(#[from] Ended),
}

type Request = (Vec<u8>, oneshot::Sender<Result<Installed, InstallError>>);

/// Puts lists in force.
#[derive(Debug, Clone)]
pub struct Revoker(mpsc::Sender<Request>);

impl Revoker {
    /// Creates the queue; returns both ends.
    pub(super) fn new() -> (Revoker, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(REQUESTS);
        (Revoker(sender), receiver)
    }

    /// Puts a list in DER in force on all members.
    ///
    /// # Errors
    ///
    /// If it is not the newest list of this daemon's authority.
    pub async fn install(&self, der: Vec<u8>) -> Result<Installed, InstallError> {
        let (answer, answered) = oneshot::channel();
        self.0.send((der, answer)).await.map_err(|_| Ended)?;
        answered.await.map_err(|_| Ended)?
    }
}

/// Puts lists in force until the daemon shuts down.
pub(super) async fn run(
    parts: Parts,
    mut heard: mpsc::Receiver<HeardList>,
    mut requests: mpsc::Receiver<Request>,
) {
    parts.warn_of_own();
    loop {
        let done = tokio::select! {
            heard = heard.recv() => match heard {
                Some(heard) => parts.heard(heard).await,
                None => Err(Ended),
            },
            request = requests.recv() => match request {
                Some((der, answer)) => parts.install(&der).await.map(|done| drop(answer.send(done))),
                None => Err(Ended),
            },
        };
        if done.is_err() {
            // The core has ended. It is supervised itself, so this task must not report it as well.
            return std::future::pending().await;
        }
    }
}

impl Parts {
    async fn heard(&self, HeardList { peer, link, der }: HeardList) -> Result<(), Ended> {
        match self.judge(&der) {
            Ok((list, true)) => {
                let (number, revoked) = (list.number, list.revoked.len());
                self.log.line(format!("revocations {number}"), move |more| {
                    let revoked = count(revoked, "certificate", "certificates");
                    tracing::info!(?peer, "received list number {number}: {revoked} revoked{more}");
                });
                self.put_in_force(list).await
            }
            // A daemon without an authority has nothing to check a list with.
            Ok((_, false))
            | Err(
                InstallError::Older { .. }
                | InstallError::NoAuthority
                | InstallError::Ended(_)
                | InstallError::List(RevocationError::Foreign),
            ) => Ok(()),
            Err(InstallError::List(error)) => {
                self.log.line(format!("revocations of {peer}: {error}"), move |more| {
                    tracing::warn!(?peer, "protocol violation by a peer, closing its link: {error}{more}");
                });
                self.core.violated(link).await
            }
        }
    }

    async fn install(&self, der: &[u8]) -> Result<Result<Installed, InstallError>, Ended> {
        let (list, is_new) = match self.judge(der) {
            Ok(judged) => judged,
            Err(error) => return Ok(Err(error)),
        };
        if is_new {
            tracing::info!(
                "list number {} of revoked certificates was put in force on this host",
                list.number
            );
            self.put_in_force(Arc::clone(&list)).await?;
        }
        Ok(Ok(Installed { list, is_new }))
    }

    /// Verifies a list. Returns it, and whether it is newer than the one in force.
    fn judge(&self, der: &[u8]) -> Result<(Arc<VerifiedList>, bool), InstallError> {
        let known = self.local.revocations();
        // The same list comes over every link. Its signature was verified once.
        if let Some(known) = known.iter().find(|known| known.der == der) {
            return Ok((Arc::clone(known), false));
        }
        let tls = self.local.tls();
        let list = tls.list_signers().ok_or(InstallError::NoAuthority)?.verify(der)?;
        match known.of_same_authority(&list) {
            Some(known) if !list.is_newer_than(known) => {
                Err(InstallError::Older { number: list.number, known: known.number })
            }
            _ => Ok((Arc::new(list), true)),
        }
    }

    /// Refuses handshakes, closes links and tunnels, and passes the list on before it is written to the disk, which may be
    /// slow: whoever has it sends it again after a restart.
    async fn put_in_force(&self, list: Arc<VerifiedList>) -> Result<(), Ended> {
        let mut lists = VerifiedLists::clone(&self.local.revocations());
        lists.add(Arc::clone(&list));
        self.local.set_revocations(lists.clone());
        self.warn_of_own();
        self.core.revoke(list).await?;
        let path = self.file.clone();
        let written = tokio::task::spawn_blocking(move || revocation_file::write(&path, &lists)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(
                "cannot remember which certificates are revoked: {error}; after a restart, other members will say it"
            );
        }
        Ok(())
    }

    fn warn_of_own(&self) {
        if let Some(serial) = self.local.own_revocation() {
            let host = self.local.host();
            tracing::error!(
                "the certificate of this host is revoked (serial number {serial}), so no other member accepts it: issue a \
                 new one with pmd ca issue {host}, copy it here with its key, and restart pmd"
            );
        }
    }
}
