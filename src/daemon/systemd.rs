//! Sockets handed over by systemd (or whoever speaks its protocol, `sd_listen_fds(3)`).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::base::text::listed;
use pmd_epmd::server::listener::{Listener, is_as_listed};

/// Sockets that may be handed over: stock epmd's limit.
const MAX_INHERITED: usize = 16;

/// Why sockets that were handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// Too many.
    #[error("cannot take over {0} sockets, the limit is {MAX_INHERITED}")]
    TooMany(usize),
    /// One of them does not listen, or is no stream socket.
    #[error("socket {index} from systemd {reason}")]
    Unusable {
        /// Its number, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// The variable in which systemd names the sockets: by their units, unless these say otherwise.
pub const NAMES: &str = "LISTEN_FDNAMES";

/// What to say about addresses that were asked for by `option`, if the sockets that were handed over are at others: they
/// are those of a unit, one of `names`.
pub fn without_effect(option: &str, asked: &[IpAddr], there: &[SocketAddr], names: &str) -> Option<String> {
    if asked.is_empty() || is_as_listed(asked, there) {
        return None;
    }
    let texts = |all: &mut dyn Iterator<Item = String>| listed(&all.collect::<Vec<_>>());
    let asked = texts(&mut asked.iter().map(ToString::to_string));
    let there = match there {
        [] => "no internet address".to_owned(),
        there => texts(&mut there.iter().map(ToString::to_string)),
    };
    let units: BTreeSet<&str> = names.split(':').filter(|name| name.ends_with(".socket")).collect();
    let edit = if units.is_empty() {
        "of its socket unit".to_owned()
    } else {
        let units: Vec<&str> = units.into_iter().collect();
        format!("there: systemctl edit {}", units.join(" "))
    };
    Some(format!(
        "{option} ({asked}) has no effect: systemd has handed over sockets that listen on {there}; set ListenStream= {edit}"
    ))
}

/// Takes over the sockets that were handed to this process; none if it was started in another way.
///
/// They are used as they are, whatever the settings say.
pub fn inherited_listeners() -> Result<Option<Vec<Listener>>, ActivationError> {
    let mut passed = listenfd::ListenFd::from_env();
    let count = passed.len();
    if count == 0 {
        return Ok(None);
    }
    if count > MAX_INHERITED {
        return Err(ActivationError::TooMany(count));
    }
    let take = |index| {
        let unusable = |reason: String| ActivationError::Unusable { index, reason };
        let tcp = passed.take_tcp_listener(index).ok().flatten().map(OwnedFd::from);
        let socket = match tcp {
            Some(socket) => Some(socket),
            None => passed.take_unix_listener(index).ok().flatten().map(OwnedFd::from),
        };
        let socket = socket.ok_or_else(|| unusable("is no stream socket".into()))?;
        Listener::inherited(socket).map_err(|error| unusable(format!("cannot be used: {error}")))
    };
    (0..count).map(take).collect::<Result<Vec<_>, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(asked: &[&str], there: &[&str], names: &str) -> Option<String> {
        let asked: Vec<IpAddr> = asked.iter().map(|text| text.parse().expect("an address")).collect();
        let there: Vec<SocketAddr> = there.iter().map(|text| text.parse().expect("an address")).collect();
        without_effect("--bind", &asked, &there, names)
    }

    #[test]
    fn addresses_that_a_unit_overrules_are_told_with_the_unit() {
        let everywhere = ["0.0.0.0:4369", "[::]:4369"];
        assert_eq!(
            said(&["10.0.0.5"], &everywhere, "pmd.socket:pmd.socket").as_deref(),
            Some(
                "--bind (10.0.0.5) has no effect: systemd has handed over sockets that listen on 0.0.0.0:4369 and \
                 [::]:4369; set ListenStream= there: systemctl edit pmd.socket"
            )
        );
        for names in ["", "unknown", "epmd:epmd"] {
            let said = said(&["10.0.0.5"], &[], names).expect("a warning");
            assert!(said.ends_with("no internet address; set ListenStream= of its socket unit"), "{said}");
        }
    }

    #[test]
    fn nothing_is_said_where_both_say_the_same() {
        assert_eq!(said(&[], &["10.0.0.5:4369"], ""), None);
        assert_eq!(said(&["10.0.0.5"], &["127.0.0.1:4369", "10.0.0.5:4369"], ""), None);
    }
}
