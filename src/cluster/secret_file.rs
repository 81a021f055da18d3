//! Writing the secrets of a rotation to the file of the cluster secret.

use std::io;
use std::path::Path;

use super::rotation::Latest;
use crate::auth::cookie::{read_secrets, replace};

/// Erlang's own cookie file, which can hold only one cookie.
const ERLANG: &str = ".erlang.cookie";

/// Why the secrets were not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The file holds a secret that an administrator has put there.
    #[error("it was replaced by hand")]
    ByHand,
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Writes the secrets of a rotation, unless the file is Erlang's, or holds a secret that the rotation knows nothing of.
pub(super) fn put(path: &Path, secrets: &[String], latest: &Latest) -> Result<(), StoreError> {
    if is_erlang(path) {
        return Err(io::Error::other(format!("{} is the Erlang cookie", path.display())).into());
    }
    let known = [&latest.rotation.secret, &latest.old];
    let current = read_secrets(path).ok().and_then(|secrets| secrets.into_iter().next());
    if current.is_some_and(|current| !known.contains(&&current)) {
        return Err(StoreError::ByHand);
    }
    // If the path is a symbolic link, replace its target.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok(replace(&path, secrets).map_err(io::Error::other)?)
}

/// Whether this is Erlang's own cookie file, which pmd must not change.
pub(super) fn is_erlang(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == ERLANG)
}
