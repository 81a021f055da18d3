//! `pmd names --cluster` and `pmd services --cluster`: what is registered on all hosts.

use jiff::Timestamp;
use serde::Serialize;

use super::args::Names;
use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::Result;
use super::common::output::{List, Output};
use super::common::runtime::block_on;
use super::common::target::Target;
use super::names::node_type;
use super::status::{clear, repeat, watched};
use crate::base::text::{metadata, span};
use crate::control::api::{ClusterName, ClusterService};
use crate::control::json;

/// Lists Erlang nodes of all hosts, or of one.
pub fn names(target: &Target, args: &Names, output: Output) -> Result<Exit> {
    let watch = args.watch.watch;
    let output = if watch { watched(output) } else { output };
    let host = args.host.as_deref();
    let client = target.client();
    block_on(repeat(watch, async || {
        let found = explain(target, client.cluster_names(host).await).await?;
        if watch {
            clear()?;
        }
        let names = rows(found.names, Timestamp::now());
        output.list(&Document { names: &names }, &names, &names_list(host))
    }))
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    names: &'a [Row],
}

/// An Erlang node, with the name that it goes by, and with its age by the clock of this host.
#[derive(Debug, Serialize)]
struct Row {
    node: String,
    #[serde(flatten)]
    name: ClusterName,
    age_seconds: u64,
}

fn rows(names: Vec<ClusterName>, now: Timestamp) -> Vec<Row> {
    let row = |name: ClusterName| Row {
        node: format!("{}@{}", name.name, name.host),
        // The clock of another host may be ahead.
        age_seconds: u64::try_from(now.duration_since(name.registered_at).as_secs()).unwrap_or(0),
        name,
    };
    names.into_iter().map(row).collect()
}

fn names_list(host: Option<&str>) -> List<Row> {
    let place = host.map_or_else(|| "in the cluster".to_owned(), |host| format!("on {host}"));
    List {
        headings: &["NODE", "PORT", "AGE", "CREATION", "+TYPE", "+VERSIONS", "+REGISTERED", "+DAEMON"],
        cells: |Row { node, name, age_seconds }| {
            vec![
                node.clone(),
                name.port.to_string(),
                span(*age_seconds),
                name.creation.to_string(),
                node_type(name.node_type),
                format!("{}-{}", name.lowest_version, name.highest_version),
                json::rfc3339(name.registered_at),
                name.node_id.clone(),
            ]
        },
        colour: |_| None,
        empty: format!("No Erlang nodes are registered {place}."),
    }
}

/// Lists services of all hosts.
pub fn services(target: &Target, output: Output) -> Result<Exit> {
    block_on(async {
        let found = explain(target, target.client().cluster_services().await).await?;
        output.list(&found, &found.services, &services_list(target))?;
        Ok(Exit::Done)
    })
}

fn services_list(target: &Target) -> List<ClusterService> {
    List {
        headings: &["NAME", "HOST", "PORT", "METADATA", "+REGISTERED", "+DAEMON"],
        cells: |service| {
            vec![
                service.name.clone(),
                service.host.clone(),
                service.port.to_string(),
                metadata(&service.metadata),
                json::rfc3339(service.registered_at),
                service.node_id.clone(),
            ]
        },
        colour: |_| None,
        empty: format!(
            "No services are registered in the cluster. Register one: {}",
            target.command("register web -P 8080")
        ),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::cli::args::Global;
    use crate::cli::common::output::Format;
    use crate::control::api::ClusterServiceList;

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

    fn shown_names(format: Format) -> String {
        let names =
            vec![name("rabbit", "host1", START), name("rabbit", "host2.example.org", START + 900_000)];
        let rows = rows(names, json::timestamp(START + 62_000));
        let mut out = Vec::new();
        let output = Output::new(format, false);
        output
            .write_list(&mut out, &Document { names: &rows }, &rows, &names_list(None))
            .expect("memory takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn nodes_of_all_hosts_have_their_hosts_name() {
        assert_snapshot!(shown_names(Format::Table), @r"
        NODE                      PORT   AGE    CREATION
        rabbit@host1              25672  1m 2s  3
        rabbit@host2.example.org  25672  0s     3
        ");
        assert_snapshot!(shown_names(Format::Wide), @r"
        NODE                      PORT   AGE    CREATION  TYPE    VERSIONS  REGISTERED                DAEMON
        rabbit@host1              25672  1m 2s  3         normal  5-6       2023-11-14T22:13:20.000Z  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        rabbit@host2.example.org  25672  0s     3         normal  5-6       2023-11-14T22:28:20.000Z  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        ");
        assert_snapshot!(shown_names(Format::Jsonl), @r#"
        {"node":"rabbit@host1","name":"rabbit","host":"host1","node_id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","port":25672,"creation":3,"registered_at":"2023-11-14T22:13:20.000Z","node_type":77,"highest_version":6,"lowest_version":5,"age_seconds":62}
        {"node":"rabbit@host2.example.org","name":"rabbit","host":"host2.example.org","node_id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","port":25672,"creation":3,"registered_at":"2023-11-14T22:28:20.000Z","node_type":77,"highest_version":6,"lowest_version":5,"age_seconds":0}
        "#);
        assert_eq!(names_list(Some("host9")).empty, "No Erlang nodes are registered on host9.");
    }

    #[test]
    fn services_of_all_hosts_are_listed() {
        let service = ClusterService {
            name: "web".into(),
            host: "host1".into(),
            node_id: "0123456789abcdef".repeat(4),
            port: 8080,
            metadata: [("path".to_owned(), "/\n".to_owned())].into(),
            registered_at: json::timestamp(START),
        };
        let document = ClusterServiceList { services: vec![service] };
        let global = Global { port: "5000".parse().ok(), socket: Some("/x".into()), ..Global::default() };
        let list = services_list(&Target::of(&global).expect("it is all given"));
        let shown = |format| {
            let mut out = Vec::new();
            let output = Output::new(format, false);
            output.write_list(&mut out, &document, &document.services, &list).expect("memory takes it");
            String::from_utf8(out).expect("text")
        };
        assert_snapshot!(shown(Format::Wide), @r"
        NAME  HOST   PORT  METADATA  REGISTERED                DAEMON
        web   host1  8080  path=/\n  2023-11-14T22:13:20.000Z  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        ");
        assert_snapshot!(shown(Format::Plain).replace('\t', "|"), @r"web|host1|8080|path=/\n|2023-11-14T22:13:20.000Z|0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
        assert!(list.empty.ends_with("Register one: pmd --port 5000 --socket /x register web -P 8080"));
    }
}
