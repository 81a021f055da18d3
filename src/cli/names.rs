//! `pmd names` and `pmd services`, of one host.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::args::Names;
use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::output::{Colour, List, Output, note};
use super::common::runtime::{block_on, with_progress};
use super::common::target::Target;
use super::services;
use super::status::{clear, repeat, watched};
use crate::base::text::{metadata, span};
use crate::control::api::{Name, ServiceInfo};
use crate::control::json;
use crate::takeover::ask;

/// How long another host's port mapper may take to answer.
const REMOTE: Duration = Duration::from_secs(5);

/// Lists Erlang nodes.
pub fn run(target: &Target, args: &Names, output: Output) -> Result<Exit> {
    if args.cluster {
        return services::names(target, args, output);
    }
    let watch = args.watch.watch;
    let output = if watch { watched(output) } else { output };
    block_on(repeat(watch, async || match &args.host {
        None => local(target, output, watch).await,
        Some(host) => remote(target, host, output, watch).await,
    }))
}

/// A node with the host that it runs on, which the daemon does not repeat for each.
#[derive(Debug, Serialize)]
struct Node {
    node: String,
    #[serde(flatten)]
    name: Name,
}

#[derive(Debug, Serialize)]
struct Nodes<'a> {
    host: &'a str,
    names: &'a [Node],
}

async fn local(target: &Target, output: Output, watch: bool) -> Result<()> {
    let found = explain(target, target.client().names(None).await).await?;
    let host = found.host;
    let nodes: Vec<Node> =
        found.names.into_iter().map(|name| Node { node: format!("{}@{host}", name.name), name }).collect();
    if watch {
        clear()?;
    }
    output.list(
        &Nodes { host: &host, names: &nodes },
        &nodes,
        &List {
            headings: &["NODE", "PORT", "AGE", "CREATION", "+TYPE", "+VERSIONS", "+REGISTERED", "STATE"],
            cells: |node| {
                let name = &node.name;
                vec![
                    node.node.clone(),
                    name.port.to_string(),
                    span(name.age_seconds),
                    name.creation.to_string(),
                    node_type(name.node_type),
                    format!("{}-{}", name.lowest_version, name.highest_version),
                    json::rfc3339(name.registered_at),
                    if name.adopted { "not back yet".into() } else { "registered".into() },
                ]
            },
            colour: |node| node.name.adopted.then_some(Colour::Yellow),
            empty: format!(
                "No Erlang nodes are registered on port {}. Start one: erl -sname foo",
                target.port
            ),
        },
    )
}

/// What a node calls its own kind.
pub fn node_type(number: u8) -> String {
    match number {
        77 => "normal".into(),
        72 => "hidden".into(),
        104 => "c".into(),
        110 => "java".into(),
        other => other.to_string(),
    }
}

#[derive(Debug, Serialize)]
struct RemoteName {
    name: String,
    port: u16,
}

#[derive(Debug, Serialize)]
struct RemoteNames<'a> {
    host: &'a str,
    address: std::net::SocketAddr,
    names: &'a [RemoteName],
}

async fn remote(target: &Target, host: &str, output: Output, watch: bool) -> Result<()> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let asked = with_progress(&format!("asking {host}"), ask_host(bare, target.port)).await;
    let (address, listing) = asked.map_err(|reason| {
        Failure::new(
            Exit::NotReachable,
            format!("no port mapper answers on port {} of {host}: {reason}", target.port),
            format!("see that one runs there (epmd or pmd) and that no firewall is in between; --port chooses another port than {}", target.port),
        )
    })?;
    let names: Vec<RemoteName> =
        listing.entries().map(|entry| RemoteName { name: entry.name.to_owned(), port: entry.port }).collect();
    if i32::from(target.port) != listing.port {
        note(&format!(
            "note: {host} says that its port is {}, so Erlang nodes do not understand it",
            listing.port
        ));
    }
    if watch {
        clear()?;
    }
    output.list(
        &RemoteNames { host, address, names: &names },
        &names,
        &List {
            headings: &["NAME", "PORT"],
            cells: |entry| vec![entry.name.clone(), entry.port.to_string()],
            colour: |_| None,
            empty: format!("No Erlang nodes are registered on {host}."),
        },
    )
}

/// Asks every address of a host until one answers; or the last reason why none does.
async fn ask_host(
    host: &str,
    port: u16,
) -> std::result::Result<(std::net::SocketAddr, pmd_protocol::epmd::Listing), String> {
    let addresses: Vec<_> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![(ip, port).into()],
        Err(_) => tokio::net::lookup_host((host, port)).await.map_err(|error| error.to_string())?.collect(),
    };
    let mut reason = "the name has no address".to_owned();
    for address in addresses {
        match ask::names(address, REMOTE).await {
            Ok(listing) => return Ok((address, listing)),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

/// Lists services.
pub fn services(target: &Target, cluster: bool, output: Output) -> Result<Exit> {
    if cluster {
        return services::services(target, output);
    }
    block_on(async {
        let found = explain(target, target.client().services().await).await?;
        output.list(
            &found,
            &found.services,
            &List {
                headings: &["NAME", "PORT", "METADATA", "+REGISTERED", "+EXPIRES", "LIVES"],
                cells: |service| {
                    vec![
                        service.name.clone(),
                        service.port.to_string(),
                        metadata(&service.metadata),
                        json::rfc3339(service.registered_at),
                        service.expires_at.map(json::rfc3339).unwrap_or_default(),
                        lives(service).to_owned(),
                    ]
                },
                colour: |_| None,
                empty: format!(
                    "No services are registered. Register one: {}",
                    target.command("register web -P 8080")
                ),
            },
        )?;
        Ok(Exit::Done)
    })
}

fn lives(service: &ServiceInfo) -> &'static str {
    if service.held {
        "with its command"
    } else if service.expires_at.is_some() {
        "until it expires"
    } else {
        "until unregistered"
    }
}
