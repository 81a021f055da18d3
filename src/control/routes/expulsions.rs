//! Members that administrators have expelled.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Json;
use pmd_protocol::peer::NodeId;

use super::cluster::of;
use super::request::{Answer, ApiError, RequestBody};
use crate::cluster::expel::Decided;
use crate::control::api::{self, ErrorCode};
use crate::control::handles::MaybeMember;
use crate::control::json::timestamp;

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
    answer(
        &asked.member,
        cluster.expel(&asked.member).await?,
        "pmd nodes lists the members; name one that is gone by its whole id",
    )
}

pub(super) async fn readmit(
    State(member): State<MaybeMember>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::Decision> {
    let cluster = &of(&member)?.cluster;
    let asked: api::Expel = body.parse()?;
    answer(&asked.member, cluster.readmit(&asked.member).await?, "pmd expelled lists them")
}

fn answer(asked: &str, decided: Decided, unknown: &str) -> Answer<api::Decision> {
    let (id, host, changed) = match decided {
        Decided::Done(id, host) => (id, host, true),
        Decided::Unchanged(id) => (id, String::new(), false),
        Decided::Unknown => {
            let message = format!("nobody has the id, name or address {asked:?}");
            return Err(ApiError::new(ErrorCode::NotFound, message, unknown));
        }
        Decided::Oneself => {
            return Err(ApiError::new(
                ErrorCode::Oneself,
                format!("{asked} is this daemon itself"),
                "to make this daemon leave, run pmd leave; to expel it, run pmd expel on another host",
            ));
        }
        Decided::Several(ids) => return Err(several(asked, &ids)),
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

/// The error for a name that several members have.
pub(super) fn several(asked: &str, ids: &[NodeId]) -> ApiError {
    let listed: Vec<_> = ids.iter().map(|id| format!("{id:.8}")).collect();
    ApiError::new(
        ErrorCode::Conflict,
        format!("{} daemons have the name or address {asked:?}: {}", ids.len(), listed.join(", ")),
        "give the id of one of them; pmd nodes -o wide shows them",
    )
}
