//! What `pmd takeover` and `pmd handover` have in common: nodes that change from one port mapper to another.

use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::super::status::nodes;
use super::exit::Exit;
use super::failure::{Failure, Result};
use super::output::{Colour, List, Output, note};
use crate::takeover::port::{LOCAL, Port};
use crate::takeover::{ask, owner};

/// How long a port mapper may take to end, to let go of the port, or to begin to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks at which nodes are back.
pub const AGAIN: Duration = Duration::from_millis(250);
/// The last step of a plan.
pub const WAIT_FOR_NODES: &str =
    "wait until every node has registered again; OTP 23.3 and later do so within 2 s";

/// A node that changes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Whether it has come back.
    pub back: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The port.
    pub port: u16,
    /// What holds it now: `pmd` or `epmd`.
    pub held_by: &'static str,
    /// Whether this command did it, in place of having found it so.
    pub changed: bool,
    /// Its process id, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The nodes that were registered before.
    pub nodes: Vec<Node>,
}

/// What would be done.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Always.
    pub dry_run: bool,
    /// The steps, in words.
    pub steps: Vec<String>,
    /// The nodes that are registered.
    pub nodes: Vec<Node>,
}

impl Plan {
    /// Shows it.
    pub fn print(&self, output: Output) -> Result<Exit> {
        output.one(self, |out| {
            writeln!(out, "Nothing has been done. Without --dry-run:")?;
            for (number, step) in self.steps.iter().enumerate() {
                writeln!(out, "  {}. {step}", number + 1)?;
            }
            Ok(())
        })?;
        Ok(Exit::Done)
    }
}

impl Report {
    /// Shows it; ends with `Unhealthy` if nodes are missing.
    pub fn print(&self, output: Output) -> Result<Exit> {
        output.list(
            self,
            &self.nodes,
            &List {
                headings: &["NAME", "PORT", "STATE"],
                cells: |node| {
                    let state = if node.back { "back" } else { "missing" };
                    vec![node.name.clone(), node.port.to_string(), state.into()]
                },
                colour: |node| Some(if node.back { Colour::Green } else { Colour::Red }),
                empty: format!("Port {} is held by {}; no nodes were registered.", self.port, self.held_by),
            },
        )?;
        let missing = self.nodes.iter().filter(|node| !node.back).count();
        if missing == 0 {
            return Ok(Exit::Done);
        }
        note(&format!(
            "warning: {missing} of {} not come back\nhint: nodes older than OTP 23.3 do not register again by \
             themselves: restart them, or wait longer with --wait if the host is busy",
            match self.nodes.len() {
                1 => "1 node has".to_owned(),
                all => format!("{} have", nodes(all)),
            }
        ));
        Ok(Exit::Unhealthy)
    }
}

/// How many nodes are registered, as the beginning of a clause.
pub fn are(number: usize) -> String {
    clause(number, ["is", "are"])
}

/// How many nodes were registered, as the beginning of a clause.
pub fn were(number: usize) -> String {
    clause(number, ["was", "were"])
}

fn clause(number: usize, [one, many]: [&str; 2]) -> String {
    match number {
        0 => format!("no nodes {many}"),
        1 => format!("1 node {one}"),
        _ => format!("{number} nodes {many}"),
    }
}

/// Ctrl-C, which must not leave a host without a port mapper: it counts only where it is asked for.
#[derive(Debug)]
pub struct Interrupt(Signal);

impl Interrupt {
    /// From now on, Ctrl-C does not end this process by itself.
    pub fn new() -> Result<Interrupt> {
        Ok(Interrupt(signal(SignalKind::interrupt())?))
    }

    /// Whether it has come.
    pub fn came(&mut self) -> bool {
        self.0.recv().now_or_never().is_some()
    }

    /// Waits until it comes.
    pub async fn comes(&mut self) {
        self.0.recv().await;
    }
}

/// Waits until nobody listens on a port any more.
pub async fn wait_until_free(port: u16) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while owner::listening(port).is_ok_and(|sockets| !sockets.is_empty()) {
        if Instant::now() > deadline {
            let holder = Port::look(port).await.holder();
            return Err(Failure::new(
                Exit::Conflict,
                format!("port {port} did not become free: it is held by {holder}"),
                "see what starts it, and stop that first",
            ));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Waits until a port mapper answers on this host's loopback.
pub async fn wait_for_mapper(port: u16) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while ask::names(([127, 0, 0, 1], port).into(), LOCAL).await.is_err() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Looks again and again which nodes are back, until all are, time is up or the user has enough.
///
/// `look` marks those that are back and returns an error if it cannot tell; that too may pass.
pub async fn wait_for_nodes(
    nodes: &mut [Node],
    patience: Duration,
    interrupt: &mut Interrupt,
    mut look: impl AsyncFnMut(&mut [Node]) -> bool,
) -> Exit {
    let deadline = Instant::now() + patience;
    let mut told = false;
    loop {
        let looked = look(nodes).await;
        if looked && nodes.iter().all(|node| node.back) {
            return Exit::Done;
        }
        if Instant::now() >= deadline {
            return Exit::Done;
        }
        if !told {
            note("waiting for the nodes to come back ...");
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN.min(deadline - Instant::now())) => {}
            () = interrupt.comes() => return Exit::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_one_and_many_nodes_read_naturally() {
        assert_eq!([0, 1, 2].map(are), ["no nodes are", "1 node is", "2 nodes are"]);
        assert_eq!([0, 1, 2].map(were), ["no nodes were", "1 node was", "2 nodes were"]);
    }
}
