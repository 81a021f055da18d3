//! `pmd nodes`: the hosts of the cluster.

use serde::Serialize;

use super::args::Format;
use super::common::{Colour, Column, Exit, Output, Result, Table, Target, explain, watch};
use crate::base::text::metadata;
use crate::control::api::{Node, NodeState};
use crate::control::json;

/// Metadata of up to this many characters is also shown on narrow screens.
const SHORT_METADATA: usize = 32;

/// Lists the hosts of the cluster.
pub fn run(target: &Target, watch: bool, output: Output) -> Result<Exit> {
    let client = target.client();
    watch::run(watch, output, async |output| {
        let found = explain(target, client.nodes().await).await?;
        let rows = rows(&found.nodes, output.format);
        output.list(&found, &rows, &table(&columns(&rows)))
    })
}

/// A daemon and the displayed name of its host.
#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    node: &'a Node,
    #[serde(skip)]
    host: String,
}

fn rows(nodes: &[Node], format: Format) -> Vec<Row<'_>> {
    let show = |node: &Node| {
        let Node { host, oneself, .. } = node;
        match (format.is_for_people(), host.is_empty(), *oneself) {
            (true, true, _) => "(not heard yet)".to_owned(),
            (true, false, true) => format!("{host} (this one)"),
            _ => host.clone(),
        }
    };
    nodes.iter().map(|node| Row { node, host: show(node) }).collect()
}

/// The columns. Metadata is shown on narrow screens only if all of it is short.
fn columns<'a>(rows: &[Row<'a>]) -> [Column<Row<'a>>; 9] {
    let lengths = || rows.iter().map(|row| metadata(&row.node.metadata).chars().count());
    let short = lengths().any(|length| length > 0) && lengths().all(|length| length <= SHORT_METADATA);
    let metadata_column = if short { Column::new } else { Column::wide };
    [
        Column::new("HOST", |row| row.host.clone()),
        Column::new("NAMES", |row| row.node.names.to_string()),
        Column::new("SERVICES", |row| row.node.services.to_string()),
        Column::new("VERSION", |row| row.node.version.clone()),
        Column::new("ADDRESS", |row| row.node.addresses.first().map(ToString::to_string).unwrap_or_default()),
        Column::wide("ID", |row| row.node.id.clone()),
        Column::wide("STARTED", |row| json::rfc3339(row.node.started_at)),
        metadata_column("METADATA", |row: &Row<'a>| metadata(&row.node.metadata)),
        Column::new("STATE", |row| match row.node.state {
            NodeState::Alive => "alive".to_owned(),
            NodeState::Suspect => "suspect".to_owned(),
        }),
    ]
}

fn table<'a, 'b>(columns: &'b [Column<Row<'a>>]) -> Table<'b, Row<'a>> {
    Table {
        columns,
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
        let columns = columns(&rows);
        let mut out = Vec::new();
        Output::new(format, false)
            .write_list(&mut out, &document, &rows, &table(&columns))
            .expect("in-memory write");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn hosts_are_listed_and_this_host_is_marked() {
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
