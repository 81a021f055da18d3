//! The file of the cluster secret.

use std::io::ErrorKind;
use std::path::Path;

use super::finding::Finding;
use crate::auth::cookie::{CookieError, read_secrets};

const CHECK: &str = "cookie file";

pub(super) fn check(path: &Path) -> Finding {
    judge(path, read_secrets(path).map(|secrets| secrets.len()))
}

/// `read` is the number of secrets in the file.
fn judge(path: &Path, read: Result<usize, CookieError>) -> Finding {
    let path = path.display();
    match read {
        Ok(1) => Finding::pass(CHECK, format!("{path} holds the cluster secret, readable only by its owner")),
        Ok(_) => Finding::warn(
            CHECK,
            format!("{path} holds two cluster secrets: a rotation is not finished"),
            "once every host has the new secret: pmd cookie rotate --finish",
        ),
        Err(CookieError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Finding::warn(
            CHECK,
            format!("{path} does not exist"),
            "copy it from a host of the cluster, or let pmd start create one",
        ),
        Err(error) => Finding::fail(CHECK, error.to_string(), error.hint()),
    }
}
