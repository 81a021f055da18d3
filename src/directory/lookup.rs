//! Lookups over EPMD: what is asked, on which host, and what the reply says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pmd_epmd::server::{Asker, Later, NotFound};
use pmd_protocol::epmd::{Alive2, encode};

use super::Directory;
use super::cluster::alive2;
use super::dial_question::{DialQuestion, Family, NO_SUCH_NODE, THIS_HOST};
use super::hosts::same_host;
use super::meaning::{Domains, Meaning};
use super::others::{Node, Others};
use crate::config::types::EpmdAccess;

/// A lookup that is not, or not only, about the nodes of this host.
#[derive(Debug)]
struct Question<'a> {
    /// The node's name, without its host.
    name: &'a str,
    /// The host that it is on.
    meaning: Meaning,
    way: Way,
}

/// What the reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Where a node on this host connects to.
    Dial(Family),
    /// A port on this alias.
    Alias(IpAddr),
    /// The port that the node is registered with, or if its host is reached through tunnels, one on the address that was
    /// asked. Stock epmd does not support this question, a full name.
    Full,
}

impl<'a> Question<'a> {
    /// Parses a lookup; `None` if it is only about nodes of this host.
    fn parse(
        directory: &Directory,
        others: &Others,
        asker: &Asker<'_>,
        asked: &'a str,
    ) -> Option<Question<'a>> {
        if let Some(DialQuestion { name, host, family }) = DialQuestion::parse(asked)
            && asker.is_loopback()
        {
            let meaning = directory.meaning(host, Domains::Exact);
            return Some(Question { name, meaning, way: Way::Dial(family) });
        }
        if let Some((_, alias)) = directory.alias_asked(asker) {
            let (name, meaning) = others.at_alias(alias, asked);
            return Some(Question { name, meaning, way: Way::Alias(alias) });
        }
        let (name, host) = asked.rsplit_once('@')?;
        Some(Question { name, meaning: directory.meaning(host, Domains::OrNone), way: Way::Full })
    }

    /// The reply if there is no such node.
    fn missing(&self) -> NotFound {
        // Not everything at an address of a member needs to be the member.
        let is_certain = !self.meaning.is_unknown() && self.meaning.address.is_none();
        if matches!(self.way, Way::Dial(_)) && is_certain { NO_SUCH_NODE } else { NotFound::STOCK }
    }

    /// Passes the node to `answer` as the reply says it.
    fn reply(
        &self,
        others: &Others,
        asker: &Asker<'_>,
        node: Node,
        answer: &mut dyn FnMut(&Alive2<'_>),
    ) -> Result<(), NotFound> {
        let Node { host, entry, target, registered } = node;
        let entrances = &others.entrances;
        let found = alive2(&entry).ok_or(NotFound::STOCK)?;
        let at = match self.way {
            Way::Dial(family) => {
                let address = entrances.to_dial(target, registered, family).ok_or(NotFound::STOCK)?;
                let extra = family.extra(address.ip()).ok_or(NotFound::STOCK)?;
                answer(&Alive2 { port: address.port(), name: self.name, extra: &extra, ..found });
                return Ok(());
            }
            Way::Full if !entrances.tunnels_to(&host) => {
                answer(&found);
                return Ok(());
            }
            // An entry on any other address would be open to the network.
            Way::Full => asker.own_address().map(|asked| asked.to_canonical()).filter(IpAddr::is_loopback),
            Way::Alias(alias) => Some(alias),
        };
        let port = at.and_then(|at| entrances.entry(at, target, registered)).ok_or(NotFound::STOCK)?;
        answer(&Alive2 { port, ..found });
        Ok(())
    }
}

impl Directory {
    /// The other hosts and the alias to which this request was sent, if it was sent to one.
    fn alias_asked(&self, asker: &Asker<'_>) -> Option<(&Others, IpAddr)> {
        let others = self.others.as_ref()?;
        // Only programs on this host can connect to aliases, so the system call for the local address is saved for
        // others.
        if !others.entrances.any() || !asker.is_loopback() {
            return None;
        }
        let asked = asker.own_address()?.to_canonical();
        others.entrances.is_alias(asked).then_some((others, asked))
    }

    fn find_here(&self, name: &str, answer: &mut dyn FnMut(&Alive2<'_>)) -> bool {
        self.local.names().find(name, answer)
    }
}

impl pmd_epmd::server::Directory for Directory {
    fn find(
        &self,
        asker: &Asker<'_>,
        asked: &str,
        answer: &mut dyn FnMut(&Alive2<'_>),
    ) -> Result<(), NotFound> {
        let others = self.others.as_ref();
        let question = others.and_then(|others| Some((others, Question::parse(self, others, asker, asked)?)));
        let is_here = question.as_ref().is_none_or(|(_, question)| question.way == Way::Full);
        if is_here && self.find_here(asked, answer) {
            return Ok(());
        }
        let Some((others, question)) = question else { return Err(NotFound::STOCK) };
        if question.meaning.this_host {
            match question.way {
                Way::Dial(_) => return Err(THIS_HOST),
                Way::Full if self.find_here(question.name, answer) => return Ok(()),
                Way::Full | Way::Alias(_) => {}
            }
        }
        match others.known_node(question.name, &question.meaning) {
            Some(node) => question.reply(others, asker, node, answer),
            None => {
                // Strangers must not be able to make this daemon ask others.
                let for_now = asker.is_loopback() && others.may_ask(question.name, &question.meaning);
                Err(NotFound { for_now, ..question.missing() })
            }
        }
    }

    fn find_later(&self, lookup: Later, asked: &str) {
        let Some(inquirer) = self.others.as_ref().map(|others| Arc::clone(&others.inquirer)) else { return };
        let (directory, asked) = (self.clone(), asked.to_owned());
        inquirer.spawn(Box::pin(async move {
            let Some(others) = directory.others.as_ref() else { return };
            let question = Question::parse(&directory, others, &lookup.asker(), &asked);
            let Some(question) = question else { return };
            let node = others.node(question.name, &question.meaning).await;
            lookup.answer(|asker, answer| match node {
                Some(node) => question.reply(others, asker, node, answer),
                None => Err(question.missing()),
            });
        }));
    }

    fn names(&self, asker: &Asker<'_>) -> Arc<[u8]> {
        match self.alias_asked(asker) {
            Some((others, alias)) => {
                let mut answer = encode::names_header(self.local.names().configured_port()).to_vec();
                answer.extend_from_slice(&others.names_at_alias(alias));
                answer.into()
            }
            None => self.local.names().render_names(),
        }
    }

    fn is_elsewhere(&self, asker: &Asker<'_>) -> bool {
        self.alias_asked(asker).is_some()
    }

    fn may_ask(&self, peer: Option<SocketAddr>) -> bool {
        match (self.access, &self.others) {
            (EpmdAccess::Open, _) | (_, None) => true,
            (EpmdAccess::Members, Some(others)) => {
                peer.is_some_and(|peer| others.cluster.is_member(peer.ip()))
            }
            (EpmdAccess::Local, Some(_)) => false,
        }
    }
}

impl Others {
    /// What a lookup at an alias asks for: the node's name, and the host.
    fn at_alias<'a>(&self, alias: IpAddr, asked: &'a str) -> (&'a str, Meaning) {
        let Some(host) = self.entrances.host_behind(alias) else { return (asked, Meaning::default()) };
        // The name may be a full one.
        let name = match asked.rsplit_once('@') {
            Some((name, asked)) if same_host(asked, &host) => name,
            _ => asked,
        };
        let members = self.cluster.members_named(&host, true);
        (name, Meaning { members, ..Meaning::default() })
    }

    /// Looks up the node `name` on the host of `alias`, and passes it to `answer`.
    pub async fn find_at_alias<T>(
        &self,
        alias: IpAddr,
        asked: &str,
        answer: impl FnOnce(&Alive2<'_>) -> T,
    ) -> Option<T> {
        let (name, meaning) = self.at_alias(alias, asked);
        let Node { entry, target, registered, .. } = self.node(name, &meaning).await?;
        let port = self.entrances.entry(alias, target, registered)?;
        Some(answer(&Alive2 { port, ..alive2(&entry)? }))
    }
}
