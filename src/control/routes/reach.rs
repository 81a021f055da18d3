//! Why daemons cannot connect: rejected connections, and the step at which a connection to another daemon fails.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Json;
use futures_util::future::join_all;
use pmd_epmd::descriptors::Descriptors;
use pmd_protocol::limits::MAX_ADDRESSES;
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::Reason;

use super::cluster::{join_error, of};
use super::request::{Answer, ApiError, RequestBody};
use crate::auth::tls::ALPN_PACKET;
use crate::base::permit::Permit;
use crate::cluster::membership::{Cluster, JoinError};
use crate::control::api::{self, ErrorCode, ReachStep};
use crate::control::handles::{MaybeMember, Measured};
use crate::control::json::timestamp;
use crate::link::dial::DialError;
use crate::link::handshake::{HandshakeError, close};

pub(super) async fn refusals(State(measured): State<Measured>) -> Answer<api::RefusalList> {
    let refusals = measured.refusals.list().into_iter().map(|refusal| api::Refusal {
        address: refusal.address,
        dialled: refusal.dialled,
        reason: refusal.reason.to_owned(),
        what: refusal.what,
        count: refusal.count,
        first_at: timestamp(refusal.first_ms),
        last_at: timestamp(refusal.last_ms),
    });
    Ok(Json(api::RefusalList { refusals: refusals.collect() }))
}

pub(super) async fn reach(
    State(member): State<MaybeMember>,
    State(measured): State<Measured>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::Reached> {
    let cluster = &of(&member)?.cluster;
    let asked: api::Reach = body.parse()?;
    if asked.addresses.is_empty() || asked.addresses.len() > MAX_ADDRESSES {
        let message = format!("{} addresses given", asked.addresses.len());
        return Err(ApiError::new(ErrorCode::InvalidRequest, message, format!("give 1 to {MAX_ADDRESSES}")));
    }
    let id = match asked.id.as_deref().map(str::parse::<NodeId>) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => {
            let message = "the id is not a daemon id";
            return Err(ApiError::new(ErrorCode::InvalidRequest, message, "give 64 hexadecimal digits"));
        }
    };
    let tried = asked
        .addresses
        .iter()
        .map(async |address| (address, try_address(&measured.descriptors, cluster, address, id).await));
    let mut reached = api::Reached::default();
    for (asked, outcome) in join_all(tried).await {
        match outcome {
            Ok(address) => reached.address = reached.address.or(Some(address)),
            Err(error @ (JoinError::Full | JoinError::Ended(_))) => return Err(join_error(asked, &error)),
            Err(error) => {
                let (asked, step) = (asked.clone(), failed_step(&error));
                let error = join_error(&asked, &error).into_info();
                reached.failed.push(api::ReachFailure { asked, step, error });
            }
        }
    }
    Ok(Json(reached))
}

/// Connects to an address, completes both handshakes and closes; returns the address that answered.
async fn try_address(
    descriptors: &Arc<Descriptors>,
    cluster: &Cluster,
    asked: &str,
    id: Option<NodeId>,
) -> Result<SocketAddr, JoinError> {
    let mut addresses = cluster.resolve(asked).await?;
    addresses.truncate(MAX_ADDRESSES);
    let _permit = Permit::take(descriptors).ok_or(JoinError::Full)?;
    let mut peer = cluster.dialer().reach(&addresses, id, ALPN_PACKET).await?;
    close(&mut peer.frames, Reason::NotNeeded, String::new()).await;
    Ok(peer.address)
}

fn failed_step(error: &JoinError) -> ReachStep {
    match error {
        JoinError::Unresolvable { .. } | JoinError::Malformed(_) => ReachStep::Name,
        JoinError::Timeout => ReachStep::Timeout,
        JoinError::Full | JoinError::Left | JoinError::Ended(_) | JoinError::Dial(DialError::NoAddress) => {
            ReachStep::Name
        }
        JoinError::Dial(DialError::Connect { source, .. }) => match source.kind() {
            ErrorKind::TimedOut => ReachStep::Timeout,
            ErrorKind::ConnectionRefused => ReachStep::Listener,
            _ => ReachStep::Route,
        },
        JoinError::Dial(DialError::Handshake { source, .. }) => match source {
            HandshakeError::Cookie => ReachStep::Cookie,
            HandshakeError::Refused { reason: Reason::Cookie, .. } => ReachStep::Cookie,
            HandshakeError::Tls(_) | HandshakeError::Id | HandshakeError::Name(_) | HandshakeError::Twin => {
                ReachStep::Tls
            }
            HandshakeError::Refused { .. } | HandshakeError::Cluster(_) | HandshakeError::Protocol(_) => {
                ReachStep::Cluster
            }
            _ => ReachStep::Handshake,
        },
    }
}
