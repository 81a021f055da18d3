//! `pmd discover`: the daemons found on the network.

use std::time::Duration;

use super::common::{Colour, Column, Exit, Output, Result, Table, Target, block_on, explain, with_progress};
use crate::base::text::{ago, time};
use crate::control::api::Found;

const COLUMNS: [Column<Found>; 5] = [
    Column::new("ADDRESS", |found| found.address.clone()),
    Column::new("CLUSTER", cluster),
    Column::new("SOURCE", |found| found.source.clone()),
    Column::new("HEARD", |found| ago(found.heard_ms)),
    Column::new("MEMBER", |found| if found.member { "yes" } else { "no" }.to_owned()),
];

/// Lists the daemons found, after listening for `wait`.
pub fn run(target: &Target, wait: Option<Duration>, output: Output) -> Result<Exit> {
    block_on(async {
        let client = target.client();
        let mut found = explain(target, client.discover().await).await?;
        if let Some(wait) = wait {
            // Waits the whole time, because more daemons may be heard after the first one.
            with_progress(&format!("listening for {}", time(wait)), tokio::time::sleep(wait)).await;
            found = explain(target, client.discover().await).await?;
        }
        output.list(&found, &found.found, &table(wait))?;
        Ok(Exit::Done)
    })
}

fn table(wait: Option<Duration>) -> Table<'static, Found> {
    let advice = match wait {
        Some(_) => "check that discovery is enabled on this host and on the others",
        None => "try pmd discover --wait 5s to listen for a while",
    };
    Table {
        columns: &COLUMNS,
        colour: |found| found.member.then_some(Colour::Green),
        empty: format!("No daemons found; {advice}."),
    }
}

fn cluster(found: &Found) -> String {
    let name = found.cluster.clone().unwrap_or_default();
    if found.other_cookie { format!("{name} (different cluster secret)") } else { name }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::cli::args::Format;
    use crate::control::api::Discovered;

    #[test]
    fn found_daemons_are_listed() {
        let seed = Found {
            source: "seeds".into(),
            address: "host1:4369".into(),
            cluster: None,
            other_cookie: false,
            heard_ms: 61_000,
            member: true,
        };
        let beacon = Found {
            source: "broadcast".into(),
            address: "10.0.0.9:4369".into(),
            cluster: Some("shop".into()),
            other_cookie: true,
            heard_ms: 900,
            member: false,
        };
        let document = Discovered { found: vec![seed, beacon] };
        let mut out = Vec::new();
        let output = Output::new(Format::Table, false);
        output.write_list(&mut out, &document, &document.found, &table(None)).expect("in-memory write");
        assert_snapshot!(String::from_utf8(out).expect("text"), @r"
        ADDRESS        CLUSTER                          SOURCE     HEARD  MEMBER
        host1:4369                                      seeds      1m 1s  yes
        10.0.0.9:4369  shop (different cluster secret)  broadcast  0.9s   no
        ");
    }
}
