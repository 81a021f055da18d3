//! `pmd names`: the Erlang nodes of this host, of the cluster, or of another host with a port mapper.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use pmd_protocol::epmd::Listing;
use serde::Serialize;

use super::args::Names;
use super::common::{
    Colour, Column, Exit, Failure, Output, Result, Table, Target, explain, note, watch, with_progress,
};
use crate::base::text::span;
use crate::control::api::{ClusterName, Name};
use crate::control::json;
use crate::takeover::ask;

/// Time limit for an answer of another host's port mapper.
const REMOTE: Duration = Duration::from_secs(5);

/// Lists Erlang nodes.
pub fn run(target: &Target, args: &Names, output: Output) -> Result<Exit> {
    watch::run(args.watch.watch, output, async |output| match &args.host {
        host if args.cluster => of_cluster(target, host.as_deref(), output).await,
        None => of_this_host(target, output).await,
        Some(host) => of_another_host(target, host, output).await,
    })
}

/// A node of this host, with its full name, which the API does not repeat for each name.
#[derive(Debug, Serialize)]
struct Local {
    node: String,
    #[serde(flatten)]
    name: Name,
}

const LOCAL: [Column<Local>; 8] = [
    Column::new("NODE", |row| row.node.clone()),
    Column::new("PORT", |row| row.name.port.to_string()),
    Column::new("AGE", |row| span(row.name.age_seconds)),
    Column::new("CREATION", |row| row.name.creation.to_string()),
    Column::wide("TYPE", |row| node_type(row.name.node_type)),
    Column::wide("VERSIONS", |row| format!("{}-{}", row.name.lowest_version, row.name.highest_version)),
    Column::wide("REGISTERED", |row| json::rfc3339(row.name.registered_at)),
    Column::new("STATE", |row| if row.name.adopted { "not back yet" } else { "registered" }.to_owned()),
];

async fn of_this_host(target: &Target, output: Output) -> Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        host: &'a str,
        names: &'a [Local],
    }

    let found = explain(target, target.client().names(None).await).await?;
    let host = found.host;
    let names: Vec<Local> =
        found.names.into_iter().map(|name| Local { node: format!("{}@{host}", name.name), name }).collect();
    let table = Table {
        columns: &LOCAL,
        colour: |row| row.name.adopted.then_some(Colour::Yellow),
        empty: format!("No Erlang nodes are registered on port {}. Start one: erl -sname foo", target.port),
    };
    output.list(&Document { host: &host, names: &names }, &names, &table)
}

/// A node of the cluster, with its full name and its age according to the clock of this host.
#[derive(Debug, Serialize)]
struct Remote {
    node: String,
    #[serde(flatten)]
    name: ClusterName,
    age_seconds: u64,
}

const REMOTE_COLUMNS: [Column<Remote>; 8] = [
    Column::new("NODE", |row| row.node.clone()),
    Column::new("PORT", |row| row.name.port.to_string()),
    Column::new("AGE", |row| span(row.age_seconds)),
    Column::new("CREATION", |row| row.name.creation.to_string()),
    Column::wide("TYPE", |row| node_type(row.name.node_type)),
    Column::wide("VERSIONS", |row| format!("{}-{}", row.name.lowest_version, row.name.highest_version)),
    Column::wide("REGISTERED", |row| json::rfc3339(row.name.registered_at)),
    Column::wide("DAEMON", |row| row.name.node_id.clone()),
];

#[derive(Debug, Serialize)]
struct Document<'a, T> {
    names: &'a [T],
}

async fn of_cluster(target: &Target, host: Option<&str>, output: Output) -> Result<()> {
    let found = explain(target, target.client().cluster_names(host).await).await?;
    let rows = cluster_rows(found.names, Timestamp::now());
    output.list(&Document { names: &rows }, &rows, &cluster_table(host))
}

fn cluster_rows(names: Vec<ClusterName>, now: Timestamp) -> Vec<Remote> {
    let row = |name: ClusterName| Remote {
        node: format!("{}@{}", name.name, name.host),
        // The clock of another host may be ahead.
        age_seconds: u64::try_from(now.duration_since(name.registered_at).as_secs()).unwrap_or(0),
        name,
    };
    names.into_iter().map(row).collect()
}

fn cluster_table(host: Option<&str>) -> Table<'static, Remote> {
    let place = host.map_or_else(|| "in the cluster".to_owned(), |host| format!("on {host}"));
    let empty = format!("No Erlang nodes are registered {place}.");
    Table { columns: &REMOTE_COLUMNS, colour: |_| None, empty }
}

/// The name of a node type of the EPMD protocol.
fn node_type(number: u8) -> String {
    match number {
        77 => "normal".into(),
        72 => "hidden".into(),
        104 => "c".into(),
        110 => "java".into(),
        other => other.to_string(),
    }
}

async fn of_another_host(target: &Target, host: &str, output: Output) -> Result<()> {
    #[derive(Serialize)]
    struct Entry {
        name: String,
        port: u16,
    }

    #[derive(Serialize)]
    struct Document<'a> {
        host: &'a str,
        address: SocketAddr,
        names: &'a [Entry],
    }

    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let asked = with_progress(&format!("asking {host}"), ask_host(bare, target.port)).await;
    let (address, listing) = asked.map_err(|reason| {
        Failure::new(
            Exit::NotReachable,
            format!("no port mapper answers on port {} of {host}: {reason}", target.port),
            format!(
                "check that epmd or pmd runs there and that no firewall blocks it; if it uses another port than {}, specify it with --port",
                target.port
            ),
        )
    })?;
    if i32::from(target.port) != listing.port {
        note(&format!("note: {host} reports port {}, so Erlang nodes reject its answers", listing.port));
    }
    let names: Vec<Entry> =
        listing.entries().map(|entry| Entry { name: entry.name.to_owned(), port: entry.port }).collect();
    let table = Table {
        columns: &[
            Column::new("NAME", |entry: &Entry| entry.name.clone()),
            Column::new("PORT", |entry| entry.port.to_string()),
        ],
        colour: |_| None,
        empty: format!("No Erlang nodes are registered on {host}."),
    };
    output.list(&Document { host, address, names: &names }, &names, &table)
}

/// Tries the addresses of a host in turn until a port mapper answers; fails with the error of the last one.
async fn ask_host(host: &str, port: u16) -> std::result::Result<(SocketAddr, Listing), String> {
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![(ip, port).into()],
        Err(_) => tokio::net::lookup_host((host, port)).await.map_err(|error| error.to_string())?.collect(),
    };
    let mut reason = "the host name has no address".to_owned();
    for address in addresses {
        match ask::names(address, REMOTE).await {
            Ok(listing) => return Ok((address, listing)),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::cli::args::Format;

    const START: u64 = 1_700_000_000_000;

    fn name(name: &str, host: &str, registered_ms: u64) -> ClusterName {
        ClusterName {
            name: name.into(),
            host: host.into(),
            node_id: "0123456789abcdef".repeat(4),
            port: 25672,
            creation: 3,
            registered_at: json::timestamp(registered_ms),
            node_type: 77,
            highest_version: 6,
            lowest_version: 5,
        }
    }

    fn shown(format: Format) -> String {
        let names =
            vec![name("rabbit", "host1", START), name("rabbit", "host2.example.org", START + 900_000)];
        let rows = cluster_rows(names, json::timestamp(START + 62_000));
        let mut out = Vec::new();
        let output = Output::new(format, false);
        output
            .write_list(&mut out, &Document { names: &rows }, &rows, &cluster_table(None))
            .expect("in-memory write");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn nodes_of_the_cluster_are_listed_with_their_full_names() {
        assert_snapshot!(shown(Format::Table), @r"
        NODE                      PORT   AGE    CREATION
        rabbit@host1              25672  1m 2s  3
        rabbit@host2.example.org  25672  0s     3
        ");
        assert_snapshot!(shown(Format::Wide), @r"
        NODE                      PORT   AGE    CREATION  TYPE    VERSIONS  REGISTERED                DAEMON
        rabbit@host1              25672  1m 2s  3         normal  5-6       2023-11-14T22:13:20.000Z  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        rabbit@host2.example.org  25672  0s     3         normal  5-6       2023-11-14T22:28:20.000Z  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        ");
        assert_snapshot!(shown(Format::Jsonl), @r#"
        {"node":"rabbit@host1","name":"rabbit","host":"host1","node_id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","port":25672,"creation":3,"registered_at":"2023-11-14T22:13:20.000Z","node_type":77,"highest_version":6,"lowest_version":5,"age_seconds":62}
        {"node":"rabbit@host2.example.org","name":"rabbit","host":"host2.example.org","node_id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","port":25672,"creation":3,"registered_at":"2023-11-14T22:28:20.000Z","node_type":77,"highest_version":6,"lowest_version":5,"age_seconds":0}
        "#);
        assert_eq!(cluster_table(Some("host9")).empty, "No Erlang nodes are registered on host9.");
    }
}
