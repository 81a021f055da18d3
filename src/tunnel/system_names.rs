//! Asks the system's resolver which names of members it knows.
//!
//! Those keep their meaning for all programs, so the hosts file for Erlang nodes does not list them. A name that means an
//! alias already, because the lines of `pmd hosts` are in `/etc/hosts`, does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use crate::config::ranges::LoopbackRange;

/// Interval between questions about a name. It is longer if there are so many names that there would be more than one
/// question a second.
const AGAIN: Duration = Duration::from_secs(60);
/// How long an answer may take. A resolver that is slower does not help a program either.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of questions at a time; each occupies a thread.
const AT_ONCE: usize = 4;

/// What the system's resolver knows.
#[derive(Debug)]
pub(super) struct SystemNames {
    /// The range of aliases.
    aliases: LoopbackRange,
    asked: BTreeMap<String, Instant>,
    answers: Arc<Answers>,
}

#[derive(Debug)]
struct Answers {
    /// Whether each name is known.
    known: Mutex<BTreeMap<String, bool>>,
    news: Notify,
    at_once: Semaphore,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers { known: Mutex::default(), news: Notify::new(), at_once: Semaphore::new(AT_ONCE) }
    }
}

impl SystemNames {
    /// Nothing was asked yet; aliases are in this range.
    pub(super) fn new(aliases: LoopbackRange) -> SystemNames {
        SystemNames { aliases, asked: BTreeMap::new(), answers: Arc::default() }
    }

    /// Whether the resolver has said that it does not know this name.
    pub(super) fn are_without(&self, name: &str) -> bool {
        self.answers.known.lock().unwrap_or_else(PoisonError::into_inner).get(name) == Some(&false)
    }

    /// Whether there is no answer yet to some questions.
    pub(super) fn are_pending(&self) -> bool {
        self.answers.known.lock().unwrap_or_else(PoisonError::into_inner).len() < self.asked.len()
    }

    /// Waits until an answer differs from the one before.
    pub(super) async fn changed(&self) {
        self.answers.news.notified().await;
    }

    /// Asks about the names that are due, in the background, and forgets all others.
    pub(super) fn ask(&mut self, names: &BTreeSet<String>) {
        self.asked.retain(|name, _| names.contains(name));
        self.answers
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|name, _| names.contains(name));
        let again = AGAIN.max(Duration::from_secs(u64::try_from(names.len()).unwrap_or(u64::MAX)));
        for name in names {
            if self.asked.get(name).is_some_and(|asked| asked.elapsed() < again) {
                continue;
            }
            self.asked.insert(name.clone(), Instant::now());
            let (name, answers, aliases) = (name.clone(), Arc::clone(&self.answers), self.aliases);
            let is_alias = move |found: SocketAddr| match found.ip() {
                IpAddr::V4(address) => aliases.contains(address),
                IpAddr::V6(_) => false,
            };
            tokio::spawn(async move {
                let known = {
                    // The semaphore is never closed.
                    let _permit = answers.at_once.acquire().await;
                    // The system call cannot be cancelled, and its thread ends when the resolver gives up.
                    let found =
                        tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name.as_str(), 0))).await;
                    found.is_ok_and(|found| {
                        found.is_ok_and(|mut addresses| addresses.any(|found| !is_alias(found)))
                    })
                };
                let mut all = answers.known.lock().unwrap_or_else(PoisonError::into_inner);
                if all.insert(name, known) != Some(known) {
                    answers.news.notify_one();
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_names_that_the_system_does_not_know_are_without() {
        let mut names = SystemNames::new("127.77.0.0/16".parse().expect("a range"));
        let both = BTreeSet::from(["localhost".to_owned(), "no-such-host.invalid".to_owned()]);
        assert!(!names.are_without("no-such-host.invalid"), "nobody has asked yet");
        names.ask(&both);
        while names.are_pending() {
            names.changed().await;
        }
        assert!(names.are_without("no-such-host.invalid"));
        assert!(!names.are_without("localhost"));
        names.ask(&BTreeSet::new());
        assert!(!names.are_without("no-such-host.invalid"), "forgotten");
        names.ask(&BTreeSet::from(["127.77.1.2".to_owned()]));
        while names.are_pending() {
            names.changed().await;
        }
        assert!(names.are_without("127.77.1.2"), "it is an alias already");
    }
}
