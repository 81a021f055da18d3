//! Lookup of nodes and services by name.

use std::cmp::Reverse;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use pmd_core::membership::Liveness;
use pmd_protocol::peer::{Entry, NodeId};

use super::request::{Answer, ApiError, Asked, Parameters};
use crate::cluster::view::ClusterView;
use crate::control::api::{self, ErrorCode};
use crate::control::handles::{MaybeMember, Member};
use crate::directory::services::Metadata;
use crate::directory::{Directory, Match, Target};

pub(super) async fn lookup(
    State(directory): State<Arc<Directory>>,
    State(member): State<MaybeMember>,
    query: Asked,
) -> Answer<api::Lookup> {
    let parameters = Parameters::of(query, &["name", "kind"])?;
    let Some(asked) = parameters.get("name") else {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "the parameter name is missing",
            "for example: /v1/lookup?name=rabbit",
        ));
    };
    let kind = match parameters.get("kind") {
        None => None,
        Some("name") => Some(api::Kind::Name),
        Some("service") => Some(api::Kind::Service),
        Some(kind) => {
            let message = format!("unknown kind {kind:?}");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message, "the kinds are: name, service"));
        }
    };
    let (name, host) = asked.rsplit_once('@').map_or((asked, None), |(name, host)| (name, Some(host)));
    let own = directory.local().host();
    let Some(found) = find(&directory, member.as_deref(), name, host).await? else {
        let host = host.unwrap_or_default();
        return Err(match &member {
            Some(_) => unknown_host(host),
            None => ApiError::new(
                ErrorCode::NotFound,
                format!("unknown host {host:?}"),
                format!(
                    "this daemon is not in a cluster and knows only {own}; query that host with `pmd names {host}`"
                ),
            ),
        });
    };
    let is_wanted = |found: &api::Match| kind.is_none_or(|kind| kind == found.kind);
    let matches = found.iter().filter_map(|found| on_the_wire(member.as_deref(), found));
    let matches: Vec<_> = matches.filter(is_wanted).collect();
    if !matches.is_empty() {
        return Ok(Json(api::Lookup { query: asked.to_owned(), matches }));
    }
    Err(match &member {
        Some(_) => ApiError::new(
            ErrorCode::NotFound,
            format!("nothing named {asked:?} is registered in the cluster"),
            "pmd names --cluster and pmd services --cluster list what is registered; --wait waits for it",
        ),
        None => ApiError::new(
            ErrorCode::NotFound,
            format!("nothing named {name:?} is registered on {own}"),
            "pmd names and pmd services list what is registered; --wait waits for it",
        ),
    })
}

/// The error for a host that is not a member.
pub(super) fn unknown_host(host: &str) -> ApiError {
    ApiError::new(
        ErrorCode::NotFound,
        format!("the cluster has no host named {host:?}"),
        "pmd nodes lists the hosts; pmd join adds one",
    )
}

/// All entries with this name, best first: this host, then members that are not suspected, then by round-trip time.
/// None if the host is unknown.
pub(super) async fn find(
    directory: &Directory,
    member: Option<&Member>,
    name: &str,
    host: Option<&str>,
) -> Result<Option<Vec<Match>>, ApiError> {
    let Some(mut found) = directory.matches(name, host).await else { return Ok(None) };
    if let Some(member) = member.filter(|_| found.len() > 1) {
        let view = member.cluster.core().view().await?;
        found.sort_by_cached_key(|found| rank(&view, found));
    }
    Ok(Some(found))
}

/// The sort key of a match. An unknown round-trip time becomes `Reverse(None)`, which sorts last.
fn rank(view: &ClusterView, found: &Match) -> impl Ord + use<> {
    let origin = found.origin.unwrap_or(NodeId::MIN);
    let suspect = |identity: &NodeId| {
        let is_it = |(member, liveness): &&(pmd_core::membership::Identity, Liveness)| {
            member.id == *identity && *liveness == Liveness::Suspect
        };
        view.members.iter().any(|member| is_it(&member))
    };
    let rtt_us = view.links_to(origin).next().and_then(|link| link.heartbeat_rtt_us);
    let kind = matches!(*found.entry, Entry::Service(_));
    (found.origin.is_some(), suspect(&origin), Reverse(rtt_us.map(Reverse)), origin, kind)
}

fn on_the_wire(member: Option<&Member>, found: &Match) -> Option<api::Match> {
    let (kind, metadata) = match &*found.entry {
        Entry::Name(_) => (api::Kind::Name, Metadata::new()),
        Entry::Service(service) => (api::Kind::Service, service.metadata.pairs().clone()),
        Entry::Host(_) => return None,
    };
    let port = found.entry.port()?;
    let name = found.entry.name().to_owned();
    let entry = match (found.origin, member) {
        (None, _) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        (Some(origin), Some(member)) => {
            let host = found.host.to_lowercase().into();
            let name = name.as_str().into();
            let target = Target { origin, host, kind: found.entry.kind(), name, pinned: None };
            member.entrances.address_of(&target)
        }
        (Some(_), None) => None,
    };
    let own = || member.map(|member| member.cluster.local().id());
    let node_id = found.origin.or_else(own).map(|id| id.to_string());
    Some(api::Match { kind, name, host: found.host.clone(), node_id, port, entry, metadata })
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
