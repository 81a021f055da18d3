//! Members that administrators have expelled.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Json;
use pmd_protocol::peer::NodeId;

use super::cluster::of;
use super::lookup::several;
use super::request::{Answer, ApiError, RequestBody};
use crate::base::foreign::ForeignText;
use crate::base::text::count;
use crate::cluster::expel::Decided;
use crate::control::api::{self, ErrorCode};
use crate::control::handles::MaybeMember;
use crate::control::json::timestamp;
use crate::link::local_identity::LocalIdentity;
use crate::link::refusals::Refusal;

/// An expelled daemon that has not tried for this long has stopped. One that runs tries about once a minute.
const LATELY_MS: u64 = 3_600 * 1_000;

pub(super) async fn list(State(member): State<MaybeMember>) -> Answer<api::ExpelledList> {
    let cluster = &of(&member)?.cluster;
    let decisions = Arc::clone(&cluster.local().watch_decisions().borrow());
    let expelled = decisions.values().filter(|decision| decision.expelled).map(|decision| api::Expelled {
        id: decision.member.to_string(),
        host: decision.host.clone(),
        by: decision.by.clone(),
        by_id: pmd_core::attest::id_of(&decision.author).to_string(),
        expelled_at: timestamp(decision.decided_ms),
    });
    let mut expelled: Vec<_> = expelled.collect();
    expelled.sort_by(|a, b| (a.expelled_at, &a.id).cmp(&(b.expelled_at, &b.id)));
    Ok(Json(api::ExpelledList { expelled }))
}

pub(super) async fn expel(
    State(member): State<MaybeMember>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::Decision> {
    let cluster = &of(&member)?.cluster;
    let asked: api::Expel = body.parse()?;
    let decided = cluster.expel(&asked.member, asked.keep_secret).await?;
    let unknown = || {
        let message = format!("nobody has the id, name or address {:?}", asked.member);
        let hint = "pmd nodes lists the members; name one that is gone by its whole id";
        ApiError::new(ErrorCode::NotFound, message, hint)
    };
    answer(&asked.member, decided, unknown)
}

pub(super) async fn readmit(
    State(member): State<MaybeMember>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::Decision> {
    let cluster = &of(&member)?.cluster;
    let asked: api::Expel = body.parse()?;
    let decided = cluster.readmit(&asked.member).await?;
    let unknown = || {
        let message = format!("nobody with the id or host name {:?} was expelled", asked.member);
        ApiError::new(ErrorCode::NotFound, message, "pmd expelled lists who was")
    };
    answer(&asked.member, decided, unknown)
}

fn answer(asked: &str, decided: Decided, unknown: impl Fn() -> ApiError) -> Answer<api::Decision> {
    let (id, host, changed) = match decided {
        Decided::Done(id, host) => (id, host, true),
        Decided::Unchanged(id) => (id, String::new(), false),
        Decided::Unknown => return Err(unknown()),
        Decided::ThisDaemon => {
            return Err(ApiError::new(
                ErrorCode::Oneself,
                format!("{asked} is this daemon itself"),
                "to make this daemon leave, run pmd leave; to expel it, run pmd expel on another host",
            ));
        }
        Decided::Several(ids) => return Err(several(asked, &ids)),
        Decided::NotReplaced(failed) => return Err(super::rotation::error(&failed)),
        Decided::NotAdministrator => {
            return Err(ApiError::new(
                ErrorCode::Refused,
                "this daemon is not among the administrators of the cluster",
                "decide it on a host that administrators names in the configuration",
            ));
        }
        Decided::Leaving => {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                "this daemon is leaving the cluster",
                "decide it on another host",
            ));
        }
    };
    Ok(Json(api::Decision { id: id.to_string(), host, changed }))
}

/// The warnings about daemons that were expelled and try to come back.
pub(super) fn warnings(now_ms: u64, local: &LocalIdentity, refusals: &[Refusal]) -> Vec<String> {
    let mut attempts: BTreeMap<NodeId, Vec<&Refusal>> = BTreeMap::new();
    for refusal in refusals.iter().filter(|refusal| now_ms.saturating_sub(refusal.last_ms) < LATELY_MS) {
        // A daemon that was readmitted since may join.
        if let Some(id) = refusal.expelled.filter(|id| local.expulsion_of(id).is_some()) {
            attempts.entry(id).or_default().push(refusal);
        }
    }
    let sentence = |(id, attempts): (NodeId, Vec<&Refusal>)| {
        let host = local.expulsion_of(&id).map(|expulsion| ForeignText::new(&expulsion.host))?;
        let number = attempts.iter().map(|refusal| refusal.count).fold(0, u64::saturating_add);
        let times = count(usize::try_from(number).unwrap_or(usize::MAX), "time", "times");
        let since_ms = attempts.iter().map(|refusal| refusal.first_ms).min()?;
        // The list begins with the latest.
        let address = attempts.first()?.address;
        Some(format!(
            "expelled {host} ({id:.8}) tries to come back, {times} since {:.0}, the last time from {address}: stop pmd \
             there, or let it return with pmd readmit {id:.8}",
            timestamp(since_ms)
        ))
    };
    attempts.into_iter().filter_map(sentence).collect()
}
