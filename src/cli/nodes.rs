//! `pmd nodes`: the hosts of the cluster.

use serde::Serialize;

use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::Result;
use super::common::output::{Colour, Format, List, Output};
use super::common::runtime::block_on;
use super::common::target::Target;
use super::status::{clear, repeat, watched};
use crate::base::text::metadata;
use crate::control::api::{Node, NodeState};
use crate::control::json;

/// Characters of metadata that leave room for the rest of the line.
const SHORT_METADATA: usize = 32;
/// The headings; the state is last, where its colour moves nothing.
const HEADINGS: [&str; 9] =
    ["HOST", "NAMES", "SERVICES", "VERSION", "ADDRESS", "+ID", "+STARTED", "+METADATA", "STATE"];
/// The same where all metadata is short.
const HEADINGS_WITH_METADATA: [&str; 9] =
    ["HOST", "NAMES", "SERVICES", "VERSION", "ADDRESS", "+ID", "+STARTED", "METADATA", "STATE"];

/// Lists the hosts of the cluster, once or again and again.
pub fn run(target: &Target, watch: bool, output: Output) -> Result<Exit> {
    let output = if watch { watched(output) } else { output };
    let client = target.client();
    block_on(repeat(watch, async || {
        let found = explain(target, client.nodes().await).await?;
        if watch {
            clear()?;
        }
        let rows = rows(&found.nodes, output.format);
        output.list(&found, &rows, &list(&rows))
    }))
}

/// A daemon, and what its host is called where it is shown.
#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    node: &'a Node,
    #[serde(skip)]
    host: String,
}

fn rows(nodes: &[Node], format: Format) -> Vec<Row<'_>> {
    let people = matches!(format, Format::Table | Format::Wide);
    let show = |node: &Node| {
        let Node { host, oneself, .. } = node;
        match (people, host.is_empty(), *oneself) {
            (true, true, _) => "(not heard yet)".to_owned(),
            (true, false, true) => format!("{host} (this one)"),
            _ => host.clone(),
        }
    };
    nodes.iter().map(|node| Row { node, host: show(node) }).collect()
}

fn list<'a>(rows: &[Row<'a>]) -> List<Row<'a>> {
    let lengths = || rows.iter().map(|row| metadata(&row.node.metadata).chars().count());
    let show = lengths().any(|length| length > 0) && lengths().all(|length| length <= SHORT_METADATA);
    List {
        headings: if show { &HEADINGS_WITH_METADATA } else { &HEADINGS },
        cells: |Row { node, host }| {
            vec![
                host.clone(),
                node.names.to_string(),
                node.services.to_string(),
                node.version.clone(),
                node.addresses.first().map(ToString::to_string).unwrap_or_default(),
                node.id.clone(),
                json::rfc3339(node.started_at),
                metadata(&node.metadata),
                match node.state {
                    NodeState::Alive => "alive".to_owned(),
                    NodeState::Suspect => "suspect".to_owned(),
                },
            ]
        },
        colour: |row| match row.node.state {
            NodeState::Alive => Some(Colour::Green),
            NodeState::Suspect => Some(Colour::Yellow),
        },
        empty: "The cluster has no members.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::control::api::NodeList;

    fn node(host: &str, oneself: bool, pairs: &[(&str, &str)]) -> Node {
        Node {
            id: "0123456789abcdef".repeat(4),
            host: host.into(),
            oneself,
            state: if host.is_empty() { NodeState::Suspect } else { NodeState::Alive },
            addresses: vec!["10.0.0.1:4369".parse().expect("an address"), "[::1]:1".parse().expect("one")],
            version: if host.is_empty() { "" } else { "0.1.0" }.into(),
            metadata: pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            names: 2,
            services: 1,
            started_at: json::timestamp(1_700_000_000_000),
        }
    }

    fn shown(format: Format, nodes: &[Node]) -> String {
        let document = NodeList { cluster: "pmd".into(), nodes: nodes.to_vec() };
        let rows = rows(nodes, format);
        let mut out = Vec::new();
        Output::new(format, false)
            .write_list(&mut out, &document, &rows, &list(&rows))
            .expect("memory takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn hosts_are_listed_and_this_one_is_marked() {
        let nodes = [node("host1", true, &[]), node("host2.example.org", false, &[]), node("", false, &[])];
        assert_snapshot!(shown(Format::Table, &nodes), @r"
        HOST               NAMES  SERVICES  VERSION  ADDRESS        STATE
        host1 (this one)   2      1         0.1.0    10.0.0.1:4369  alive
        host2.example.org  2      1         0.1.0    10.0.0.1:4369  alive
        (not heard yet)    2      1                  10.0.0.1:4369  suspect
        ");
        assert_snapshot!(shown(Format::Plain, &nodes[..1]).replace('\t', "|"), @r"host1|2|1|0.1.0|10.0.0.1:4369|0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef|2023-11-14T22:13:20.000Z||alive");
    }

    #[test]
    fn metadata_is_shown_where_there_is_room_for_it() {
        let short = [node("host1", true, &[("role", "db")]), node("host2", false, &[])];
        assert_snapshot!(shown(Format::Table, &short), @r"
        HOST              NAMES  SERVICES  VERSION  ADDRESS        METADATA  STATE
        host1 (this one)  2      1         0.1.0    10.0.0.1:4369  role=db   alive
        host2             2      1         0.1.0    10.0.0.1:4369            alive
        ");
        let long = [node("host1", true, &[("role", "a role of more than thirty-two letters")])];
        assert_snapshot!(shown(Format::Table, &long), @r"
        HOST              NAMES  SERVICES  VERSION  ADDRESS        STATE
        host1 (this one)  2      1         0.1.0    10.0.0.1:4369  alive
        ");
        assert_snapshot!(shown(Format::Wide, &long), @r"
        HOST              NAMES  SERVICES  VERSION  ADDRESS        ID                                                                STARTED                   METADATA                                     STATE
        host1 (this one)  2      1         0.1.0    10.0.0.1:4369  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  2023-11-14T22:13:20.000Z  role=a role of more than thirty-two letters  alive
        ");
    }

    #[test]
    fn programs_get_the_whole_list() {
        let nodes = [node("host1", true, &[])];
        let document: NodeList = serde_json::from_str(&shown(Format::Json, &nodes)).expect("JSON");
        assert_eq!((document.cluster.as_str(), document.nodes.as_slice()), ("pmd", nodes.as_slice()));
        let line: Node = serde_json::from_str(&shown(Format::Jsonl, &nodes)).expect("JSON");
        assert_eq!(line, nodes[0]);
    }
}
