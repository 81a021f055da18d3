//! `pmd cookie`: the cluster secret, which admits daemons to a cluster. It is not the Erlang cookie of the nodes.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{Cookie, Global, Rotate};
use super::common::target::{ConfigFile, absolute};
use super::common::{Exit, Failure, Output, Result, Target, block_on, note};
use super::rotate as over_links;
use crate::auth::cookie::{CookieError, is_erlang, make, random_cookie, read_secrets, replace};
use crate::config::paths::Paths;
use crate::control::client::ClientError;

/// Shows or changes the cluster secret.
pub fn run(global: &Global, action: &Cookie, output: Output) -> Result<Exit> {
    let path = file(global)?;
    match action {
        Cookie::Path => {
            let report = serde_json::json!({ "path": &path, "exists": path.exists() });
            output.one(&report, |out| writeln!(out, "{}", path.display()))?;
        }
        Cookie::Show => {
            let cookies = read_secrets(&path)?;
            let report = Shown { path: &path, cookies: &cookies };
            output.one(&report, |out| cookies.iter().try_for_each(|cookie| writeln!(out, "{cookie}")))?;
        }
        Cookie::Rotate(rotate @ Rotate { finish, by_hand, .. }) => {
            if !by_hand && let Some(done) = over_links::run(&Target::of(global)?, *rotate)? {
                output.one(&done, |out| writeln!(out, "{}", over_links::sentence(&done)))?;
                over_links::advise(&done);
                return Ok(Exit::Done);
            }
            let done = if *finish { finish_rotation(&path)? } else { self::rotate(&path)? };
            let reloaded = reload(global);
            let report = Report { path: &path, outcome: done, reloaded };
            output.one(&report, |out| writeln!(out, "{}", sentence(&report)))?;
            advise(&report);
        }
    }
    Ok(Exit::Done)
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    path: &'a Path,
    cookies: &'a [String],
}

/// The change to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// The file was created with a new secret.
    Made,
    /// The file holds a new secret and the old one.
    Rotated,
    /// The file holds only the new secret.
    Finished,
    /// The file holds one secret, as before.
    Unchanged,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    path: &'a Path,
    outcome: Outcome,
    /// Whether the daemon of this host has reloaded the file.
    reloaded: bool,
}

/// The configured file, or the default file of this user's daemon.
fn file(global: &Global) -> Result<PathBuf> {
    let paths = Paths::to_keep()?;
    // An unreadable configuration is an error because it may name another file.
    let config = ConfigFile::of(global, &paths).read()?;
    Ok(absolute(&config.cookie_file.unwrap_or_else(|| paths.cookie())))
}

/// Puts a new secret in front of the current one; creates the file if it does not exist.
fn rotate(path: &Path) -> Result<Outcome> {
    let old = match read_secrets(path) {
        Err(CookieError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            make(path)?;
            return Ok(Outcome::Made);
        }
        read => read?,
    };
    let [old] = old.as_slice() else {
        return Err(Failure::new(
            Exit::Conflict,
            format!("{} holds two secrets: a rotation is in progress", path.display()),
            "once every host has this file, drop the old secret: pmd cookie rotate --finish --by-hand",
        ));
    };
    if is_erlang(path) {
        return Err(Failure::new(
            Exit::Refused,
            format!("{} is the Erlang cookie, and Erlang reads only one cookie from it", path.display()),
            "remove cookie_file from the configuration to give pmd its own cluster secret, or edit this file manually",
        ));
    }
    let new = random_cookie().map_err(|error| {
        Failure::new(
            Exit::General,
            format!("cannot get random bytes from the system: {error}"),
            "try again later",
        )
    })?;
    replace(path, &[new, old.clone()])?;
    Ok(Outcome::Rotated)
}

/// Drops the old secret.
fn finish_rotation(path: &Path) -> Result<Outcome> {
    let cookies = read_secrets(path)?;
    match cookies.as_slice() {
        [new, _, ..] => {
            replace(path, std::slice::from_ref(new))?;
            Ok(Outcome::Finished)
        }
        _ => Ok(Outcome::Unchanged),
    }
}

/// Makes the daemon of this host reload the file, if it is running. Returns whether it did.
fn reload(global: &Global) -> bool {
    let mut reloaded = false;
    let asked = Target::of(global).and_then(|target| {
        block_on(async {
            match target.client().reload().await {
                Ok(_) => reloaded = true,
                Err(ClientError::NotReachable { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(Exit::Done)
        })
    });
    if let Err(failure) = asked {
        note(&format!(
            "warning: the daemon did not reload the secret: {}; {}",
            failure.message, failure.hint
        ));
    }
    reloaded
}

fn sentence(report: &Report<'_>) -> String {
    let path = report.path.display();
    match report.outcome {
        Outcome::Made => format!("created {path} with a new cluster secret"),
        Outcome::Rotated => format!("{path} has a new cluster secret; the old one is still accepted"),
        Outcome::Finished => {
            format!("{path} has only the new cluster secret; the old one is no longer accepted")
        }
        Outcome::Unchanged => format!("{path} has one cluster secret; there is nothing to finish"),
    }
}

/// Prints the next steps to standard error.
fn advise(report: &Report<'_>) {
    let path = report.path.display();
    let here = if report.reloaded { "every other host" } else { "every host" };
    match report.outcome {
        Outcome::Made => {
            note(&format!("next: copy {path} to every host of the cluster, and run pmd reload there"));
        }
        Outcome::Rotated => note(&format!(
            "next: 1. copy {path} to every other host of the cluster\n      2. on {here}: pmd reload\n      \
             3. then, on every host: pmd cookie rotate --finish --by-hand"
        )),
        Outcome::Finished => note(&format!(
            "next: on every other host that still has both secrets: pmd cookie rotate --finish --by-hand{}",
            if report.reloaded { "" } else { "; and here: pmd reload" }
        )),
        Outcome::Unchanged => {}
    }
}

impl From<CookieError> for Failure {
    fn from(error: CookieError) -> Failure {
        let mut hint = error.hint();
        let exit = match &error {
            CookieError::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
                hint = "pmd start creates one; or create it now: pmd cookie rotate".to_owned();
                Exit::NotFound
            }
            CookieError::Read { source, .. } | CookieError::Make { source, .. }
                if source.kind() == ErrorKind::PermissionDenied =>
            {
                Exit::Refused
            }
            CookieError::Exposed { .. } | CookieError::Foreign { .. } => Exit::Refused,
            CookieError::Read { .. } | CookieError::Make { .. } => Exit::General,
            CookieError::Content { .. } => Exit::Usage,
        };
        Failure::new(exit, error.to_string(), hint)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

    use tempfile::TempDir;

    use super::*;

    fn home() -> (TempDir, PathBuf) {
        let home = TempDir::new().expect("a folder");
        let path = home.path().join("cookie");
        (home, path)
    }

    fn secrets(path: &Path) -> Vec<String> {
        read_secrets(path).expect("cookies")
    }

    #[test]
    fn a_secret_is_rotated_in_two_steps() {
        let (_home, path) = home();
        assert_eq!(rotate(&path).expect("room"), Outcome::Made);
        let old = secrets(&path);
        assert_eq!(finish_rotation(&path).expect("it exists"), Outcome::Unchanged);
        assert_eq!(rotate(&path).expect("room"), Outcome::Rotated);
        let both = secrets(&path);
        assert_eq!((both.len(), &both[1]), (2, &old[0]));
        let again = rotate(&path).expect_err("a rotation is in progress");
        assert_eq!(again.exit, Exit::Conflict);
        assert_eq!(secrets(&path), both);
        assert_eq!(finish_rotation(&path).expect("it exists"), Outcome::Finished);
        assert_eq!(secrets(&path), both[..1]);
    }

    #[test]
    fn the_file_behind_a_link_is_changed() {
        let (home, path) = home();
        rotate(&path).expect("room");
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        rotate(&link).expect("room");
        assert_eq!(secrets(&path).len(), 2);
        assert!(link.symlink_metadata().expect("a link").is_symlink());
    }

    #[test]
    fn the_erlang_cookie_is_left_alone() {
        let (home, _) = home();
        let path = home.path().join(".erlang.cookie");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o400).open(&path).expect("a file");
        std::io::Write::write_all(&mut file, b"ABCDEFGHIJKLMNOPQRST").expect("room");
        assert_eq!(rotate(&path).expect_err("it is not pmd's").exit, Exit::Refused);
        assert_eq!(secrets(&path), ["ABCDEFGHIJKLMNOPQRST"]);
    }

    #[test]
    fn failures_say_what_to_do() {
        let (_home, path) = home();
        let missing = Failure::from(read_secrets(&path).expect_err("it does not exist"));
        assert_eq!(missing.exit, Exit::NotFound);
        assert_eq!(missing.hint, "pmd start creates one; or create it now: pmd cookie rotate");
        rotate(&path).expect("room");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        let exposed = rotate(&path).expect_err("others may have read it");
        assert_eq!(exposed.exit, Exit::Refused);
        assert_eq!(exposed.hint, format!("chmod 600 {}", path.display()));
        fs::write(&path, "short").expect("room");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        assert_eq!(finish_rotation(&path).expect_err("it is too short").exit, Exit::Usage);
    }

    #[test]
    fn the_outcome_is_a_sentence() {
        let text = |outcome| sentence(&Report { path: Path::new("/x"), outcome, reloaded: true });
        assert_eq!(text(Outcome::Rotated), "/x has a new cluster secret; the old one is still accepted");
        assert_eq!(text(Outcome::Unchanged), "/x has one cluster secret; there is nothing to finish");
        let report = Report { path: Path::new("/x"), outcome: Outcome::Finished, reloaded: false };
        assert_eq!(
            serde_json::to_value(&report).expect("plain data"),
            serde_json::json!({ "path": "/x", "outcome": "finished", "reloaded": false })
        );
    }
}
