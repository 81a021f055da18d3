//! `pmd peers`: the links to other daemons.

use super::common::{Colour, Column, Exit, Output, Result, Table, Target, explain, watch};
use crate::base::text::{ago, bytes, milliseconds, short, span};
use crate::control::api::{Path, Peer};

const COLUMNS: [Column<Peer>; 12] = [
    // A peer whose host name is not known yet is shown by its id.
    Column::new("HOST", |peer| if peer.host.is_empty() { short(&peer.id) } else { &peer.host }.to_owned()),
    Column::new("PATH", |peer| match peer.path {
        Path::Direct => "direct".to_owned(),
    }),
    Column::new("ADDRESS", |peer| peer.address.to_string()),
    Column::new("RTT", |peer| peer.rtt_us.map(milliseconds).unwrap_or_default()),
    Column::new("PHI", |peer| format!("{:.1}", peer.phi)),
    Column::new("HEARD", |peer| ago(peer.heard_ms)),
    Column::new("UP", |peer| span(peer.up_seconds)),
    Column::wide("SENT", |peer| bytes(peer.sent_bytes)),
    Column::wide("RECEIVED", |peer| bytes(peer.received_bytes)),
    Column::wide("DIALLED", |peer| if peer.dialled { "by this host" } else { "by the peer" }.to_owned()),
    Column::wide("CLOCK", |peer| peer.clock_ahead_ms.map(ahead).unwrap_or_default()),
    Column::new("AGREES", |peer| if peer.agrees { "yes" } else { "not yet" }.to_owned()),
];

/// Lists the links.
pub fn run(target: &Target, watch: bool, output: Output) -> Result<Exit> {
    let client = target.client();
    watch::run(watch, output, async |output| {
        let found = explain(target, client.peers().await).await?;
        output.list(&found, &found.peers, &table(target))
    })
}

fn table(target: &Target) -> Table<'static, Peer> {
    Table {
        columns: &COLUMNS,
        colour: |peer| Some(if peer.agrees { Colour::Green } else { Colour::Yellow }),
        empty: format!("No links to other daemons. Join a cluster: {}", target.command("join HOST")),
    }
}

/// The offset of the peer's clock in seconds, with a sign.
fn ahead(milliseconds: i64) -> String {
    format!("{:+.1} s", milliseconds as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::cli::args::Format;
    use crate::cli::args::Global;
    use crate::control::api::PeerList;

    fn shown(format: Format) -> String {
        let first = Peer {
            id: "0123456789abcdef".repeat(4),
            host: "host2".into(),
            address: "10.0.0.2:4369".parse().expect("an address"),
            path: Path::Direct,
            dialled: true,
            up_seconds: 7325,
            rtt_us: Some(420),
            clock_ahead_ms: Some(-12_340),
            phi: 0.31,
            heard_ms: 740,
            received_bytes: 123_456,
            sent_bytes: 999,
            agrees: true,
        };
        let second = Peer {
            host: String::new(),
            address: "[fd00::3]:51234".parse().expect("an address"),
            rtt_us: None,
            clock_ahead_ms: None,
            dialled: false,
            agrees: false,
            ..first.clone()
        };
        let document = PeerList { peers: vec![first, second] };
        let target =
            Target::of(&Global { port: "5000".parse().ok(), socket: Some("/x".into()), ..Global::default() });
        let table = table(&target.expect("port and socket are given"));
        let mut out = Vec::new();
        let output = Output::new(format, false);
        output.write_list(&mut out, &document, &document.peers, &table).expect("in-memory write");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn links_are_listed() {
        assert_snapshot!(shown(Format::Table), @r"
        HOST              PATH    ADDRESS          RTT      PHI  HEARD  UP     AGREES
        host2             direct  10.0.0.2:4369    0.42 ms  0.3  0.7s   2h 2m  yes
        0123456789abcdef  direct  [fd00::3]:51234           0.3  0.7s   2h 2m  not yet
        ");
        assert_snapshot!(shown(Format::Wide), @r"
        HOST              PATH    ADDRESS          RTT      PHI  HEARD  UP     SENT   RECEIVED  DIALLED       CLOCK    AGREES
        host2             direct  10.0.0.2:4369    0.42 ms  0.3  0.7s   2h 2m  999 B  123.4 kB  by this host  -12.3 s  yes
        0123456789abcdef  direct  [fd00::3]:51234           0.3  0.7s   2h 2m  999 B  123.4 kB  by the peer            not yet
        ");
        let json: PeerList = serde_json::from_str(&shown(Format::Json)).expect("JSON");
        assert_eq!(json.peers.len(), 2);
    }
}
