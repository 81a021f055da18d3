//! Rotations of the cluster secret.

use axum::Extension;
use axum::extract::State;
use axum::response::Json;

use super::cluster::of;
use super::request::{Answer, ApiError, RequestBody};
use crate::base::clock::now_ms;
use crate::base::text::{count, listed, span};
use crate::cluster::membership::Cluster;
use crate::cluster::rotator::{Progress, RotateError};
use crate::control::api::{self, ErrorCode};
use crate::control::handles::MaybeMember;
use crate::control::json::timestamp;

/// A rotation that takes longer than this waits for a host. It takes less than five seconds on 30 hosts.
const ROTATION_MS: u64 = 10_000;
/// Time for an administrator to give a secret to all hosts by hand.
const BY_HAND_MS: u64 = 24 * 3_600 * 1_000;

pub(super) async fn progress(State(member): State<MaybeMember>) -> Answer<api::Rotation> {
    let progress = of(&member)?.cluster.rotator().progress().await;
    progress.map(|progress| Json(rotation(progress))).ok_or_else(|| error(&RotateError::NotBegun))
}

pub(super) async fn rotate(
    State(member): State<MaybeMember>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::Rotation> {
    let rotator = of(&member)?.cluster.rotator();
    let asked: api::Rotate = body.parse()?;
    let done = if asked.finish { rotator.finish().await } else { rotator.begin().await };
    done.map(|progress| Json(rotation(progress))).map_err(|failed| error(&failed))
}

pub(super) fn rotation(progress: Progress) -> api::Rotation {
    let Progress { begun_ms, finished, have, missing, late } = progress;
    api::Rotation {
        begun_at: timestamp(begun_ms),
        finished,
        members: have + missing.len(),
        have,
        missing,
        late,
    }
}

pub(super) fn error(error: &RotateError) -> ApiError {
    let (code, hint) = match error {
        RotateError::InProgress => {
            (ErrorCode::Conflict, "wait until it has finished, or end it: pmd cookie rotate --finish")
        }
        // The command then changes the file by hand.
        RotateError::Alone => (
            ErrorCode::NoCluster,
            "join the cluster first (pmd join), or change only the file on this host: pmd cookie rotate --by-hand",
        ),
        RotateError::NotAdministrator => (
            ErrorCode::Refused,
            "do it on a host that administrators names in the configuration, or change the file by hand: pmd cookie rotate --by-hand",
        ),
        RotateError::Overtaken => (ErrorCode::Conflict, "look who has begun it: pmd cookie rotate"),
        RotateError::NotBegun => (ErrorCode::NotFound, "begin one: pmd cookie rotate"),
        RotateError::Erlang(_) => (
            ErrorCode::Refused,
            "remove cookie_file from the configuration to give pmd its own cluster secret, or edit this file manually",
        ),
        RotateError::Store(_) => (ErrorCode::Full, "make room in the directory of the secret, and try again"),
        RotateError::Ended => (ErrorCode::Ending, "start it again: pmd start"),
    };
    ApiError::new(code, error.to_string(), hint)
}

/// The warning about two secrets that have been accepted for too long.
pub(super) async fn warning(cluster: &Cluster) -> Option<String> {
    if cluster.local().cookies().keys().count() < 2 {
        return None;
    }
    let (progress, stored_ms) = (cluster.rotator().progress().await, cluster.secret_stored_ms().await);
    two_secrets(now_ms(), progress.as_ref(), stored_ms)
}

/// The warning about a rotation of the cluster secret that does not come to its end. `progress` is how far the latest one
/// is, and `stored_ms` is when the file of the secret was changed.
fn two_secrets(now_ms: u64, progress: Option<&Progress>, stored_ms: Option<u64>) -> Option<String> {
    let since = |begun_ms: u64, at_least: u64| {
        Some(now_ms.saturating_sub(begun_ms))
            .filter(|since| *since >= at_least)
            .map(|since| span(since / 1_000))
    };
    let Some(rotation) = progress.filter(|progress| !progress.finished) else {
        let since = since(stored_ms?, BY_HAND_MS)?;
        return Some(format!(
            "two cluster secrets have been accepted for {since}: once every host has the new one, drop the old one with \
             pmd cookie rotate --finish"
        ));
    };
    let since = since(rotation.begun_ms, ROTATION_MS)?;
    let missing = match rotation.missing.as_slice() {
        [] => String::new(),
        hosts => format!(", but not {}", listed(hosts)),
    };
    let hosts = count(rotation.have + rotation.missing.len(), "host has", "hosts have");
    Some(format!(
        "two cluster secrets have been accepted for {since}, because a rotation has not finished: {} of {hosts} the new one\
         {missing}; to drop the old one now, run pmd cookie rotate --finish",
        rotation.have
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_does_not_finish_is_a_warning() {
        let rotation = |finished, missing: &[&str]| Progress {
            begun_ms: 1_000,
            finished,
            have: 7,
            missing: missing.iter().map(|host| (*host).to_owned()).collect(),
            late: 0,
        };
        let offered = rotation(false, &["h8", "h9"]);
        assert_eq!(two_secrets(10_999, Some(&offered), Some(0)), None);
        assert_eq!(
            two_secrets(61_000, Some(&offered), Some(0)).as_deref(),
            Some(
                "two cluster secrets have been accepted for 1m, because a rotation has not finished: 7 of 9 hosts have the \
                 new one, but not h8 and h9; to drop the old one now, run pmd cookie rotate --finish"
            )
        );
        let all = two_secrets(61_000, Some(&rotation(false, &[])), None).expect("a warning");
        assert!(all.contains("7 of 7 hosts have the new one; to drop"), "{all}");
        // By hand, whatever was rotated before.
        for progress in [None, Some(rotation(true, &[]))] {
            assert_eq!(two_secrets(BY_HAND_MS, progress.as_ref(), Some(1)), None);
            assert_eq!(
                two_secrets(BY_HAND_MS + 1, progress.as_ref(), Some(1)).as_deref(),
                Some(
                    "two cluster secrets have been accepted for 1d: once every host has the new one, drop the old one \
                     with pmd cookie rotate --finish"
                )
            );
            assert_eq!(two_secrets(BY_HAND_MS, progress.as_ref(), None), None);
        }
    }
}
