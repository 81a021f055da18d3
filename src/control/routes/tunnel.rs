//! Aliases and tunnels.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Json;
use pmd_protocol::peer::Kind;

use super::cluster;
use super::request::{Answer, ApiError, Asked, Parameters};
use crate::control::api::{self, ErrorCode};
use crate::control::handles::{About, MaybeMember, Member};
use crate::tunnel::state::Unlisted;
use crate::tunnel::table::Side;

/// How long a node waits for a daemon that has just started to join the daemons it knows of.
const FIRST_JOIN: Duration = Duration::from_secs(2);

/// The tunnel section of `/v1/status`.
pub(super) fn status(member: &Member) -> api::TunnelStatus {
    let tunnels = &member.tunnels;
    api::TunnelStatus {
        open: tunnels.table().all().len(),
        limit: tunnels.table().limit(),
        bytes: tunnels.table().bytes(),
        entries: member.entrances.count(),
        aliases: tunnels.aliases().len(),
    }
}

fn for_a_node(query: Asked) -> Result<bool, ApiError> {
    match Parameters::of(query, &["for"])?.get("for") {
        None => Ok(false),
        Some("node") => Ok(true),
        Some(other) => {
            let message = format!("unknown purpose {other:?}");
            Err(ApiError::new(ErrorCode::InvalidRequest, message, "the only purpose is: for=node"))
        }
    }
}

fn unlisted(why: Unlisted) -> api::Unlisted {
    match why {
        Unlisted::Absent => api::Unlisted::Absent,
        Unlisted::OtherDomain => api::Unlisted::OtherDomain,
        Unlisted::PortTaken => api::Unlisted::PortTaken,
        Unlisted::Known => api::Unlisted::Known,
    }
}

pub(super) async fn list(
    State(about): State<Arc<About>>,
    State(member): State<MaybeMember>,
    query: Asked,
) -> Answer<api::TunnelList> {
    let member = cluster::of(&member)?;
    let tunnels = &member.tunnels;
    if for_a_node(query)? {
        let is_new = about.started.elapsed() < FIRST_JOIN;
        let has_candidates = is_new && !member.cluster.joiner().list().await.is_empty();
        // Hosts that join later are found too: nodes reread the file every few seconds.
        let _ = tokio::time::timeout(FIRST_JOIN, tunnels.until_shown(has_candidates)).await;
    }
    let settings = tunnels.settings();
    let mut aliases: Vec<_> = tunnels
        .aliases()
        .into_iter()
        .map(|(address, alias)| api::AliasInfo {
            plain: tunnels.is_plain(&alias.host),
            host: alias.host,
            address,
            listed: !alias.names.is_empty(),
            names: alias.names,
            unlisted: alias.unlisted.map(unlisted),
            agreed: alias.agreed,
        })
        .collect();
    aliases.sort_by(|a, b| a.host.cmp(&b.host));
    let open = tunnels.table().all().into_iter().map(|tunnel| {
        let (side, kind, name) = match &tunnel.side {
            Side::Entry(target, _) => (api::TunnelSide::Entry, target.kind == Kind::SERVICE, &target.name),
            Side::Exit { name, service, .. } => (api::TunnelSide::Exit, *service, name),
        };
        api::TunnelInfo {
            side,
            kind: if kind { api::Kind::Service } else { api::Kind::Name },
            name: name.to_string(),
            host: tunnel.host.clone(),
            path: tunnel.path.to_owned(),
            bytes: tunnel.bytes.get(),
        }
    });
    let mut open: Vec<_> = open.collect();
    open.sort_by(|a, b| (&a.host, &a.name).cmp(&(&b.host, &b.name)));
    Ok(Json(api::TunnelList {
        inetrc: settings.inetrc.clone(),
        hosts_file: settings.hosts_file.clone(),
        module_folder: settings.module.parent().unwrap_or(&settings.module).to_owned(),
        port: about.listen_port,
        host: member.cluster.local().host().to_string(),
        alias: Some(member.cluster.directory().own_alias()),
        aliases,
        tunnels: open,
    }))
}
