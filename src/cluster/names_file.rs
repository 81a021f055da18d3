//! The file in which a daemon remembers which daemon has each host name and each alias.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pmd_protocol::peer::NodeId;
use tokio::sync::watch;

use crate::base::clock::now_ms;
use crate::base::files;
use crate::base::files::{Reader, SecretError};
use crate::config::ranges::LoopbackRange;
use crate::directory::agreed_aliases::AgreedAliases;
use crate::directory::cluster::ClusterDirectory;
use crate::directory::held_names::HeldNames;

/// Maximum size of the file: as many of the longest names as are remembered, with their ids.
const MAX_FILE: u64 = 32 * 1024 * 1024;
/// Time after a change, so that changes in quick succession are written together.
const TOGETHER: Duration = Duration::from_secs(1);
/// How often names are given to those who claim them, if no member comes or goes meanwhile.
const SETTLE: Duration = Duration::from_secs(60);

/// How long a daemon that fails keeps what it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    /// Its host name.
    pub name: Duration,
    /// Its alias.
    pub alias: Duration,
}

/// A directory with the names and aliases in the file, for the daemon `own`, whose alias is in `range`. If the file cannot
/// be read, nothing is remembered, and names belong to whoever claims them first.
pub(super) fn read(path: &Path, hold: Hold, own: NodeId, range: LoopbackRange) -> ClusterDirectory {
    let text = match files::read_secret(path, MAX_FILE, Reader::Daemon) {
        Ok(text) => text,
        Err(SecretError::Read(error)) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(_) => {
            tracing::warn!("cannot read {}: whose host name is whose is not remembered", path.display());
            String::new()
        }
    };
    let ms = |hold: Duration| u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
    let names: Vec<&str> = text.lines().filter(|line| !line.contains('/')).collect();
    let names = HeldNames::read(ms(hold.name), now_ms(), &names.join("\n"));
    ClusterDirectory::new(names, AgreedAliases::new(range, own, ms(hold.alias), now_ms(), &text))
}

/// Writes the file when a name has got another daemon, and gives names that have become free to those who claim them.
pub(super) async fn keep(path: PathBuf, directory: Arc<ClusterDirectory>, mut members: watch::Receiver<u64>) {
    let mut known = 0;
    loop {
        tokio::select! {
            changed = members.changed() => {
                if changed.is_err() {
                    // The core has ended. It is supervised itself, so this task must not report it as well.
                    return std::future::pending().await;
                }
                tokio::time::sleep(TOGETHER).await;
            }
            () = tokio::time::sleep(SETTLE) => {}
        }
        directory.settle_names();
        let Some((version, text)) = directory.held_names(known) else { continue };
        known = version;
        let path = path.clone();
        let written = tokio::task::spawn_blocking(move || files::replace(&path, &text, files::SECRET)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!("cannot remember whose host name is whose: {error}");
        }
    }
}
