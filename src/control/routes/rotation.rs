//! Rotations of the cluster secret.

use axum::Extension;
use axum::extract::State;
use axum::response::Json;

use super::cluster::of;
use super::request::{Answer, ApiError, RequestBody};
use crate::cluster::rotator::{Progress, RotateError};
use crate::control::api::{self, ErrorCode};
use crate::control::handles::MaybeMember;
use crate::control::json::timestamp;

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
