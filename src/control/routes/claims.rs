//! Claims and their voters.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use pmd_core::claims::lease::{MAX_TTL_MS, MIN_TTL_MS};
use pmd_protocol::peer::claims::{ClaimName, ClaimNameError, Role};

use super::cluster::of;
use super::request::{Answer, ApiError, RequestBody};
use crate::base::shutdown::Shutdown;
use crate::claims::{Claims, Failed, HeldClaim, State as ClaimState};
use crate::control::api::{self, ErrorCode};
use crate::control::claim_stream;
use crate::control::handles::{MaybeMember, Member};

/// The duration of a lease unless another is asked for.
const TTL_MS: u32 = 10_000;
/// How long a majority of voters has to answer.
const VOTERS_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn hold(
    State(member): State<MaybeMember>,
    State(shutdown): State<Shutdown>,
    Extension(body): Extension<RequestBody>,
) -> Result<Response, ApiError> {
    let claims = claims_of(of(&member)?)?;
    let new: api::NewClaim = body.parse()?;
    let name = name(&new.name)?;
    let ttl_ms = new.ttl_ms.unwrap_or(TTL_MS);
    if !(MIN_TTL_MS..=MAX_TTL_MS).contains(&ttl_ms) {
        let message = format!("a lease of {ttl_ms} ms is too short or too long");
        let hint = format!("use {MIN_TTL_MS} to {MAX_TTL_MS} ms");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message, hint));
    }
    let mut claim = claims.claim(name, ttl_ms).await?;
    let wait = new.wait_ms.map(Duration::from_millis);
    granted(claims, member.as_deref(), &mut claim, &new.name, wait).await?;
    if new.guarded {
        claim.keep_until_dead();
    }
    let lost = || ApiError::new(ErrorCode::Conflict, format!("{} was lost at once", new.name), "try again");
    let first = claim_stream::held(claim.state(), Some(&new.name)).ok_or_else(lost)?;
    let body = Body::from_stream(claim_stream::lines(claim, &first, shutdown));
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))], body).into_response())
}

/// Waits until the claim is granted.
async fn granted(
    claims: &Arc<Claims>,
    member: Option<&Member>,
    claim: &mut HeldClaim,
    name: &str,
    wait: Option<Duration>,
) -> Result<(), ApiError> {
    // Whoever does not want to wait for the holder still has to wait for the voters.
    let answered = async { while claim.state() == ClaimState::Asked && claim.changed().await {} };
    match wait {
        Some(wait) => drop(tokio::time::timeout(wait.max(VOTERS_TIMEOUT), answered).await),
        None => answered.await,
    }
    let held = async {
        while matches!(claim.state(), ClaimState::Asked | ClaimState::Busy(_)) && claim.changed().await {}
    };
    match wait {
        Some(wait) => drop(tokio::time::timeout(wait, held).await),
        None => held.await,
    }
    match claim.state() {
        ClaimState::Held { .. } => Ok(()),
        ClaimState::Busy(other) => {
            let holder = member.map(|member| host_of(member, &other.lease.member)).unwrap_or_default();
            let message = format!("{name} is held by {holder} with number {}", other.number);
            Err(ApiError::new(ErrorCode::Conflict, message, "wait for it with --wait, or see pmd claims"))
        }
        ClaimState::Full => Err(ApiError::new(
            ErrorCode::Full,
            "the cluster has too many claims",
            "release some; see pmd claims",
        )),
        ClaimState::Asked | ClaimState::Lost(_) => Err(no_majority(claims).await),
    }
}

pub(super) async fn release(
    State(member): State<MaybeMember>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::ReleaseClaim> {
    let claims = claims_of(of(&member)?)?;
    let claim: api::ReleaseClaim = body.parse()?;
    if claims.release(name(&claim.name)?, claim.number).await? {
        return Ok(Json(claim));
    }
    let message = format!("nobody on this host holds {} with number {}", claim.name, claim.number);
    Err(ApiError::new(ErrorCode::NotFound, message, "pmd claims lists the claims"))
}

pub(super) async fn list(State(member): State<MaybeMember>) -> Answer<api::ClaimList> {
    let member = of(&member)?;
    let claims = claims_of(member)?;
    let Some(table) = claims.list(VOTERS_TIMEOUT).await? else { return Err(no_majority(claims).await) };
    let claims = table.claims().map(|(name, claim)| api::ClaimInfo {
        name: name.to_string(),
        number: claim.number,
        host: host_of(member, &claim.lease.member),
        node_id: claim.lease.member.to_string(),
        ttl_ms: claim.lease.ttl_ms,
    });
    Ok(Json(api::ClaimList { claims: claims.collect() }))
}

pub(super) async fn voters(State(member): State<MaybeMember>) -> Answer<api::VoterList> {
    let claims = claims_of(of(&member)?)?;
    let own = pmd_core::claims::founding::digest(claims.hosts());
    let voters = claims.voters().await?.into_iter().map(|voter| api::VoterInfo {
        state: voter.status.map_or("unreachable", |status| state(status.role)).to_owned(),
        founding: voter.status.map_or(0, |status| status.founding),
        version: voter.status.map_or(0, |status| status.accepted.version),
        same_list: voter.status.filter(|status| status.list != 0).map(|status| status.list == own),
        host: voter.host,
    });
    Ok(Json(api::VoterList { problem: claims.problem(), voters: voters.collect() }))
}

fn state(role: Role) -> &'static str {
    match role {
        Role::Unfounded => "unfounded",
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Leaderless => "leaderless",
        Role::Stranger => "stranger",
        Role::ListDiffers => "list_differs",
        Role::RolledBack => "rolled_back",
        Role::Broken => "broken",
    }
}

fn claims_of(member: &Arc<Member>) -> Result<&Arc<Claims>, ApiError> {
    let none = || {
        let message = "there are no claims without voters";
        let hint = "name three hosts as voters in the configuration of every host, and restart pmd there";
        ApiError::new(ErrorCode::NoCluster, message, hint)
    };
    member.claims.as_ref().ok_or_else(none)
}

fn name(text: &str) -> Result<ClaimName, ApiError> {
    text.parse().map_err(|error: ClaimNameError| {
        let hint = "use up to 128 letters, digits, and any of - _ . :";
        ApiError::new(ErrorCode::InvalidRequest, error.to_string(), hint)
    })
}

fn host_of(member: &Member, id: &pmd_protocol::peer::NodeId) -> String {
    let own = member.cluster.local();
    if own.id() == *id {
        return own.host().to_string();
    }
    member.cluster.directory().host_of(id).unwrap_or_else(|| format!("daemon {id:.8}"))
}

/// The error when no majority of the voters answers.
async fn no_majority(claims: &Arc<Claims>) -> ApiError {
    let voters = match claims.voters().await {
        Ok(voters) => voters,
        Err(failed) => return failed.into(),
    };
    let missing: Vec<String> =
        voters.into_iter().filter(|voter| voter.status.is_none()).map(|voter| voter.host).collect();
    let message = if missing.is_empty() {
        "the voters have no leader".to_owned()
    } else {
        format!("no majority of the voters answers; not reached: {}", missing.join(", "))
    };
    ApiError::new(ErrorCode::Timeout, message, "see pmd voters, and pmd doctor on those hosts")
}

impl From<Failed> for ApiError {
    fn from(failed: Failed) -> ApiError {
        ApiError::new(ErrorCode::Ending, failed.to_string(), "see the daemon's log, and restart it")
    }
}
