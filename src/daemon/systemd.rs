//! Socket activation: listening sockets passed by systemd, or by others with its protocol (`sd_listen_fds(3)`).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::base::text::listed;
use pmd_epmd::server::listener::{Listener, is_as_listed};

/// Maximum number of passed sockets; the same as in stock epmd.
const MAX_INHERITED: usize = 16;

/// Why the passed sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// There are too many.
    #[error("systemd passed {0} sockets, the limit is {MAX_INHERITED}")]
    TooMany(usize),
    /// One of them is not a listening stream socket.
    #[error("socket {index} from systemd {reason}")]
    Unusable {
        /// Its number, starting at 0.
        index: usize,
        /// Why it cannot be used.
        reason: String,
    },
}

/// The variable in which systemd names the sockets, by default after their units.
pub const NAMES: &str = "LISTEN_FDNAMES";

/// The warning about addresses that were configured with `option` but have no effect, because the passed sockets listen
/// on others. `names` is the value of [`NAMES`].
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
        "in its socket unit instead".to_owned()
    } else {
        let units: Vec<&str> = units.into_iter().collect();
        format!("instead: systemctl edit {}", units.join(" "))
    };
    Some(format!(
        "{option} ({asked}) has no effect: systemd passed sockets that listen on {there}; set ListenStream= {edit}"
    ))
}

/// Takes the listening sockets that were passed to this process, or `None` if there are none.
///
/// They override the addresses in the settings.
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
        let socket = socket.ok_or_else(|| unusable("is not a stream socket".into()))?;
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
    fn the_warning_about_overridden_addresses_names_the_unit() {
        let everywhere = ["0.0.0.0:4369", "[::]:4369"];
        assert_eq!(
            said(&["10.0.0.5"], &everywhere, "pmd.socket:pmd.socket").as_deref(),
            Some(
                "--bind (10.0.0.5) has no effect: systemd passed sockets that listen on 0.0.0.0:4369 and \
                 [::]:4369; set ListenStream= instead: systemctl edit pmd.socket"
            )
        );
        for names in ["", "unknown", "epmd:epmd"] {
            let said = said(&["10.0.0.5"], &[], names).expect("a warning");
            assert!(
                said.ends_with("no internet address; set ListenStream= in its socket unit instead"),
                "{said}"
            );
        }
    }

    #[test]
    fn there_is_no_warning_if_the_addresses_agree() {
        assert_eq!(said(&[], &["10.0.0.5:4369"], ""), None);
        assert_eq!(said(&["10.0.0.5"], &["127.0.0.1:4369", "10.0.0.5:4369"], ""), None);
    }
}
