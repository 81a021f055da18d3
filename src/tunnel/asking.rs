//! Asks other daemons what is registered on their hosts.
//!
//! ```text
//!   lookup of bar@far, not found ──▶ inquiries ── Ask, over the link or a path of tunnels ──▶ far's daemon
//!         bar, or not found within 250 ms ◀── inquiries ◀────────────────── Answer ──────────────┘
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmd_protocol::peer::frame::{Answer, Ask};
use pmd_protocol::peer::{Decoded, Entry, Frame, NodeId};
use tokio::sync::mpsc;

use super::answering::answer;
use super::connect;
use super::inquiries::{Begun, Waiting};
use super::path::QUESTION_STEP_MS;
use super::state::Tunnels;
use crate::base::clock::Monotonic;
use crate::cluster::core::Sent;
use crate::directory::{Answers, Asking, Inquirer};
use crate::link::session::Heard;

/// How long a lookup waits for the answer of another daemon.
const PATIENCE: Duration = Duration::from_millis(250);

/// Asks for lookups of programs on this host.
#[derive(Debug)]
pub struct TunnelInquirer(pub Arc<Tunnels>);

impl Inquirer for TunnelInquirer {
    fn may_ask(&self, member: &NodeId, name: &str) -> bool {
        self.0.inquiries().may_ask(Monotonic::now().as_ms(), member, name)
    }

    fn ask(&self, member: NodeId, name: &str) -> Asking {
        let begun = self.0.inquiries().begin(Monotonic::now().as_ms(), member, name);
        let mut waiting = match begun {
            Begun::Fresh(answers) => return Box::pin(std::future::ready(answers)),
            Begun::No => return Box::pin(std::future::ready(Answers::default())),
            Begun::Joined(waiting) => waiting,
            Begun::New(number, waiting) => {
                let ask = Ask { number, name: name.to_owned() };
                // Others may wait for the same answer, so it does not depend on this lookup.
                self.0.parts.dialer.runtime().spawn(put(Arc::clone(&self.0), member, ask, waiting.clone()));
                waiting
            }
        };
        Box::pin(async move {
            let answered = waiting.wait_for(Option::is_some).await;
            answered.ok().and_then(|answers| answers.clone()).unwrap_or_default()
        })
    }

    fn spawn(&self, lookup: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.parts.dialer.runtime().spawn(lookup);
    }
}

/// Puts a question, and gives it up if it is not answered in time.
async fn put(tunnels: Arc<Tunnels>, member: NodeId, ask: Ask, mut waiting: Waiting) {
    let number = ask.number;
    tunnels.parts.counters.questions_asked.add();
    let answered = async {
        let sent = tunnels.parts.core.send(vec![member], Frame::Ask(ask.clone())).await;
        if sent.is_ok_and(|sent| sent == [Sent::Yes]) {
            // The answer comes over the link, to `hear`.
            std::future::pending::<()>().await;
        }
        over_a_connection(&tunnels, member, ask).await;
    };
    tokio::select! {
        _ = tokio::time::timeout(PATIENCE, answered) => {}
        _ = waiting.wait_for(Option::is_some) => {}
    }
    tunnels.inquiries().give_up(Monotonic::now().as_ms(), number);
}

/// Puts a question on a connection of its own, over the paths that a tunnel would take.
async fn over_a_connection(tunnels: &Arc<Tunnels>, member: NodeId, ask: Ask) -> Option<()> {
    let permits = tunnels.opening_permits(member);
    let _opening = permits.acquire().await.ok()?;
    let _descriptor = tunnels.permit()?;
    let addresses = tunnels.parts.directory.addresses_of(&member);
    let mut peer = Box::pin(connect::reach(tunnels, member, addresses, true, QUESTION_STEP_MS)).await.ok()?.0;
    peer.frames.send(&Frame::Ask(ask)).await.ok()?;
    loop {
        match peer.frames.next().await {
            Some(Ok(Decoded::Frame(Frame::Answer(answer)))) => return hear_answer(tunnels, &member, &answer),
            Some(Ok(Decoded::Skipped { .. })) => {}
            _ => return None,
        }
    }
}

fn hear_answer(tunnels: &Tunnels, member: &NodeId, answer: &Answer) -> Option<()> {
    // First, so that nobody makes this daemon decode what it did not ask for.
    if !tunnels.inquiries().is_asked(member, answer.number) {
        return None;
    }
    let entries = answer.entries.iter().filter_map(|(key, value)| Entry::read(key, value).ok());
    let answers = entries.map(Arc::new).collect();
    let now_ms = Monotonic::now().as_ms();
    tunnels.inquiries().answered(now_ms, member, answer.number, answers).then_some(())
}

/// Handles the questions and answers that peers send over their links.
pub(super) async fn hear(tunnels: Arc<Tunnels>, mut heard: mpsc::Receiver<Heard>) {
    while let Some(heard) = heard.recv().await {
        match heard {
            Heard::Answer(peer, answer) => drop(hear_answer(&tunnels, &peer, &answer)),
            Heard::Ask(peer, ask, answers, _room) => {
                if let Some(answer) = answer(&tunnels, peer, &ask) {
                    // If the peer does not read its answers, it gets no more of them.
                    let _ = answers.try_send(answer);
                }
            }
        }
    }
    // The channel closes when the core ends, which is supervised on its own.
    std::future::pending::<()>().await;
}
