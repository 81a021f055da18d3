//! The file of the cluster secret.

use std::io::ErrorKind;
use std::path::Path;

use super::finding::Finding;
use crate::auth::cookie::{CookieError, is_generated, read_secrets};
use crate::config::cluster::ClusterSettings;

const CHECK: &str = "cookie file";

pub(super) fn check(settings: &ClusterSettings) -> Finding {
    let path = &settings.cookie_file;
    judge(path, settings.broadcasts(), read_secrets(path))
}

/// `read` is the content of the file, the current secret first.
fn judge(path: &Path, broadcasts: bool, read: Result<Vec<String>, CookieError>) -> Finding {
    let path = path.display();
    match read {
        Ok(secrets) if secrets.len() > 1 => Finding::warn(
            CHECK,
            format!("{path} holds two cluster secrets: a rotation is not finished"),
            "once every host has the new secret: pmd cookie rotate --finish",
        ),
        Ok(secrets) if broadcasts && !secrets.iter().all(|secret| is_generated(secret)) => Finding::warn(
            CHECK,
            format!(
                "whoever records the beacons of broadcast discovery can try to guess the cluster secret in {path}, \
                 because pmd has not generated it"
            ),
            "generate a strong one: pmd cookie rotate",
        ),
        Ok(_) => Finding::pass(CHECK, format!("{path} holds the cluster secret, readable only by its owner")),
        Err(CookieError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Finding::warn(
            CHECK,
            format!("{path} does not exist"),
            "copy it from a host of the cluster, or let pmd start create one",
        ),
        Err(error) => Finding::fail(CHECK, error.to_string(), error.hint()),
    }
}
