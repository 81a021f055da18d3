//! Lists of revoked certificates.

use axum::Extension;
use axum::extract::State;
use axum::response::Json;

use super::cluster::of;
use super::request::{Answer, ApiError, RequestBody};
use crate::auth::revocation::{RevocationError, VerifiedList, lists_of_pem};
use crate::cluster::revoke::InstallError;
use crate::control::api::{self, ErrorCode};
use crate::control::handles::MaybeMember;

pub(super) async fn list(State(member): State<MaybeMember>) -> Answer<api::RevocationLists> {
    let lists = of(&member)?.cluster.local().revocations();
    Ok(Json(api::RevocationLists { lists: lists.iter().map(|list| shown(list)).collect() }))
}

pub(super) async fn install(
    State(member): State<MaybeMember>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::InstalledRevocations> {
    let revoker = of(&member)?.cluster.revoker();
    let asked: api::InstallRevocations = body.parse()?;
    let lists = lists_of_pem(&asked.pem).map_err(|failed| error(&failed.into()))?;
    let Ok([der]) = <[Vec<u8>; 1]>::try_from(lists) else {
        return Err(error(&RevocationError::Malformed("is missing, or one of several").into()));
    };
    let done = revoker.install(der).await.map_err(|failed| error(&failed))?;
    Ok(Json(api::InstalledRevocations {
        issuer: done.list.issuer_name.clone(),
        number: done.list.number,
        revoked: done.list.revoked.len(),
        changed: done.is_new,
    }))
}

fn shown(list: &VerifiedList) -> api::RevocationList {
    let revoked = list.revoked.iter().map(|(serial, time)| api::RevokedCertificate {
        serial: serial.to_string(),
        host: None,
        revoked_at: *time,
    });
    api::RevocationList {
        issuer: list.issuer_name.clone(),
        number: list.number,
        updated_at: list.updated,
        revoked: revoked.collect(),
        pem: list.pem(),
    }
}

fn error(error: &InstallError) -> ApiError {
    let (code, hint) = match error {
        InstallError::NoAuthority => (
            ErrorCode::Conflict,
            "hand it to a member that has ca_cert_path in its configuration (pmd status shows \"identity ca\")",
        ),
        InstallError::List(RevocationError::Foreign | RevocationError::Forged) => (
            ErrorCode::Refused,
            "hand over the list that pmd ca revoke has written beside the ca.pem which this daemon has as ca_cert_path",
        ),
        InstallError::List(RevocationError::TooLong(_)) => {
            (ErrorCode::TooLarge, "create a new authority with pmd ca init, and issue new certificates")
        }
        InstallError::List(RevocationError::Malformed(_)) => {
            (ErrorCode::InvalidRequest, "hand over the file that pmd ca revoke has written")
        }
        InstallError::Older { .. } => (
            ErrorCode::Conflict,
            "the authority's folder is an old copy: revoke on a host that runs a daemon, which knows the newer list",
        ),
        InstallError::Ended(_) => (ErrorCode::Ending, "start it again: pmd start"),
    };
    ApiError::new(code, error.to_string(), hint)
}
