//! The file of the cluster's cookie.

use std::io::ErrorKind;
use std::path::Path;

use super::Finding;
use crate::auth::cookie::{CookieError, read_secrets};

const CHECK: &str = "cookie file";

pub(super) fn check(path: &Path) -> Finding {
    judge(path, read_secrets(path).map(|secrets| secrets.len()))
}

/// `read` is how many cookies are in the file.
fn judge(path: &Path, read: Result<usize, CookieError>) -> Finding {
    let path = path.display();
    match read {
        Ok(1) => Finding::pass(CHECK, format!("{path} has a cookie, for its owner alone")),
        Ok(_) => Finding::warn(
            CHECK,
            format!("{path} has two cookies: a change of the cookie is not finished"),
            "once all hosts have the new one: pmd cookie rotate --finish",
        ),
        Err(CookieError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Finding::warn(
            CHECK,
            format!("{path} is not there"),
            "copy it from a host of the cluster, or let pmd start make one",
        ),
        Err(error) => Finding::fail(CHECK, error.to_string(), error.hint()),
    }
}
