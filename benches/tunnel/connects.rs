//! The time until a node is connected, by the ways to find the other one.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use pmd_bench::daemon::socket;
use tokio::runtime::Runtime;

use crate::figures::{Connects, Way};
use crate::hosts::{Hosts, wait};
use crate::node::{Finds, Node};
use crate::options::Plan;

/// The pause after a connection, so that the other node has noticed its end.
const PAUSE: Duration = Duration::from_millis(5);

/// Connects to a node on the second host in each way in turn, as often as the plan says.
pub(crate) fn measure(plan: &Plan, runtime: &Runtime, hosts: &Hosts, code: &Path) -> Result<Connects> {
    let home = hosts.home(0);
    let list =
        runtime.block_on(hosts.client(0).tunnels()).with_context(|| socket(home).display().to_string())?;
    let alias =
        list.aliases.iter().find(|alias| alias.host == "h2").context("the other host has no alias")?;
    let resolver = home.join("resolver");
    let text = format!(
        "{{host, {{{}}}, [\"h2\"]}}.\n{{lookup, [file, native]}}.\n",
        alias.address.to_string().replace('.', ",")
    );
    fs::write(&resolver, text)?;
    let mut target = Node::start(hosts.site(1), hosts.home(1), code, "called", &[], &Finds::Itself)?;
    let mut callers = Way::ALL
        .map(|way| {
            let finds = match way {
                Way::Module => Finds::ByModule(home.join("erlang-4369")),
                Way::Alias => Finds::ByResolver(resolver.clone()),
                Way::Plain => Finds::Itself,
            };
            Node::start(hosts.site(0), home, code, &format!("{way:?}_caller").to_lowercase(), &[], &finds)
        })
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    target.wait_until_ready()?;
    for caller in &mut callers {
        caller.wait_until_ready()?;
        let ping = format!("ping {}", target.name);
        wait(&ping, || Ok(caller.order(&ping)? == [1.0]))?;
    }
    let mut figures = Connects::default();
    let order = format!("connect {}", target.name);
    for _ in 0..plan.connects {
        for (caller, figures) in callers.iter_mut().zip(&mut figures) {
            let [took] = caller.order(&order)?;
            figures.push(took);
            thread::sleep(PAUSE);
        }
    }
    // The first one found the nodes connected.
    for figures in &mut figures {
        figures.remove(0);
    }
    Ok(figures)
}
