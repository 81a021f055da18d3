//! Writing the secrets of a rotation to the file of the cluster secret.

use std::io;
use std::path::Path;

use super::rotation::Latest;
use crate::auth::cookie::{is_erlang, read_secrets, replace};

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
    Ok(replace(path, secrets).map_err(io::Error::other)?)
}
