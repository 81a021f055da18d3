//! Sockets handed over by systemd (or whoever speaks its protocol, `sd_listen_fds(3)`).

use std::os::fd::OwnedFd;

use crate::epmd::listener::Listener;

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
