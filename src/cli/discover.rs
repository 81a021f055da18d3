//! `pmd discover`: who was found on the networks.

use std::time::Duration;

use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::Result;
use super::common::output::{Colour, List, Output};
use super::common::runtime::{block_on, with_progress};
use super::common::target::Target;
use crate::base::text::{ago, printable, time};
use crate::control::api::Found;

/// Lists the daemons that were found; listens for a while first if that is asked for.
pub fn run(target: &Target, wait: Option<Duration>, output: Output) -> Result<Exit> {
    block_on(async {
        let client = target.client();
        let mut found = explain(target, client.discover().await).await?;
        if let Some(wait) = wait {
            // All of it: that one daemon was heard does not mean that nobody else will be.
            with_progress(&format!("listening for {}", time(wait)), tokio::time::sleep(wait)).await;
            found = explain(target, client.discover().await).await?;
        }
        output.list(&found, &found.found, &list(wait))?;
        Ok(Exit::Done)
    })
}

fn list(wait: Option<Duration>) -> List<Found> {
    let advice = match wait {
        Some(_) => "see that discovery is on in their configuration and in that of this host",
        None => "pmd discover --wait 5s listens for a while",
    };
    List {
        headings: &["ADDRESS", "CLUSTER", "SOURCE", "HEARD", "MEMBER"],
        cells: |found| {
            vec![
                found.address.clone(),
                cluster(found),
                found.source.clone(),
                ago(found.heard_ms),
                if found.member { "yes" } else { "no" }.to_owned(),
            ]
        },
        colour: |found| found.member.then_some(Colour::Green),
        empty: format!("No daemons were found; {advice}."),
    }
}

fn cluster(found: &Found) -> String {
    let name = found.cluster.as_deref().map(printable).unwrap_or_default();
    if found.other_cookie { format!("{name} (another cookie)") } else { name.into_owned() }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::cli::common::output::Format;
    use crate::control::api::Discovered;

    #[test]
    fn what_was_found_is_listed() {
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
        output.write_list(&mut out, &document, &document.found, &list(None)).expect("memory takes it");
        assert_snapshot!(String::from_utf8(out).expect("text"), @r"
        ADDRESS        CLUSTER                SOURCE     HEARD  MEMBER
        host1:4369                            seeds      1m 1s  yes
        10.0.0.9:4369  shop (another cookie)  broadcast  0.9s   no
        ");
    }
}
