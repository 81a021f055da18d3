//! Finding whatever goes by a name.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::State;
use axum::response::Json;

use super::request::{ApiError, Parameters};
use super::{Answer, Asked, Shared, cluster, tunnel};
use crate::base::clock::now_ms;
use crate::control::api::{self, ErrorCode};
use crate::daemon::Context;
use crate::directory::cluster::same_host;
use crate::directory::services::Metadata;

pub(super) async fn lookup(State(context): Shared, query: Asked) -> Answer<api::Lookup> {
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
    let own = context.settings.host.clone();
    let (name, host) = asked.rsplit_once('@').map_or((asked, None), |(name, host)| (name, Some(host)));
    let is_wanted = |found: &api::Match| kind.is_none_or(|kind| kind == found.kind);
    if let Some(cluster) = context.cluster.get() {
        let host = host.map(|host| if is_this_host(host, &own) { own.as_str() } else { host });
        let (mut matches, known) =
            cluster::look_up(cluster, name.to_owned(), host.map(str::to_owned)).await?;
        matches.retain(is_wanted);
        tunnel::add_entries(cluster, &own, &mut matches);
        return match (matches.is_empty(), host.filter(|_| !known)) {
            (false, _) => Ok(Json(api::Lookup { query: asked.to_owned(), matches })),
            (true, Some(host)) => Err(ApiError::new(
                ErrorCode::NotFound,
                format!("no host of the cluster is called {host:?}"),
                "pmd nodes lists the hosts; pmd join adds one",
            )),
            (true, None) => Err(ApiError::new(
                ErrorCode::NotFound,
                format!("nothing named {asked:?} is registered in the cluster"),
                "pmd names --cluster and pmd services --cluster list what is; --wait waits for it",
            )),
        };
    }
    if let Some(host) = host.filter(|host| !is_this_host(host, &own)) {
        return Err(ApiError::new(
            ErrorCode::NotFound,
            format!("this pmd does not know the host {host:?}"),
            format!(
                "it is not a member here, and this pmd knows only its own host, {own}: ask it with `pmd names {host}`"
            ),
        ));
    }
    let matches: Vec<_> = [find_name(&context, name, &own), find_service(&context, name, &own)]
        .into_iter()
        .flatten()
        .filter(is_wanted)
        .collect();
    if matches.is_empty() {
        return Err(ApiError::new(
            ErrorCode::NotFound,
            format!("nothing named {name:?} is registered on {own}"),
            "pmd names and pmd services list what is; --wait waits for it",
        ));
    }
    Ok(Json(api::Lookup { query: asked.to_owned(), matches }))
}

fn find_name(context: &Context, name: &str, host: &str) -> Option<api::Match> {
    let entry = context.registry.name(name)?;
    Some(api::Match {
        kind: api::Kind::Name,
        name: name.to_owned(),
        host: host.to_owned(),
        node_id: None,
        port: entry.port,
        entry: Some((Ipv4Addr::LOCALHOST, entry.port).into()),
        metadata: Metadata::new(),
    })
}

fn find_service(context: &Context, name: &str, host: &str) -> Option<api::Match> {
    let service = context.registry.service(name)?;
    // One whose time is over but which nobody has removed yet.
    if service.expires_ms.is_some_and(|end| end <= now_ms()) {
        return None;
    }
    Some(api::Match {
        kind: api::Kind::Service,
        name: name.to_owned(),
        host: host.to_owned(),
        node_id: None,
        port: service.port,
        entry: Some((Ipv4Addr::LOCALHOST, service.port).into()),
        metadata: service.metadata,
    })
}

/// Whether `host` means the host that calls itself `own`: by its short or its long name, or as "this one".
fn is_this_host(host: &str, own: &str) -> bool {
    if host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return true;
    }
    same_host(host, own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_by_its_short_and_its_long_name() {
        for host in ["web1", "WEB1", "web1.example.org", "localhost", "127.0.0.1", "::1"] {
            assert!(is_this_host(host, "web1"), "{host}");
            assert!(is_this_host(host, "web1.example.org"), "{host}");
        }
        assert!(!is_this_host("web1.example.com", "web1.example.org"));
        for host in ["web2", "web", "", "10.0.0.1", "web1x.example.org"] {
            assert!(!is_this_host(host, "web1"), "{host}");
        }
    }
}
