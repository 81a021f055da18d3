//! The local control API: HTTP and JSON over a Unix socket, and both sides of it.
//!
//! | module | job |
//! |---|---|
//! | [`endpoints`] | every path: method, parameters, body |
//! | [`api`] | the types on the wire, used by both sides |
//! | [`limits`] | how large and how slow a request may be |
//! | [`socket`] | the socket file: made, protected and removed |
//! | [`json`] | how times and bytes are written in JSON |
//! | [`server`] | connections and their limits |
//! | [`routes`] | what each path answers |
//! | [`handles`] | the parts of the daemon that the handlers read and change |
//! | [`hold`] | services that live as long as a connection |
//! | [`reload`] | reading the configuration again |
//! | [`events`] | the event stream, as it is sent and as it is read |
//! | [`client`] | the side of the command line |

pub mod api;
pub mod client;
pub mod endpoints;
pub mod events;
pub mod handles;
pub mod hold;
pub mod json;
pub mod limits;
pub mod reload;
pub mod routes;
pub mod server;
pub mod socket;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A daemon answers there.
    #[error("a daemon answers on {} already", .socket.display())]
    Answers {
        /// The socket.
        socket: PathBuf,
    },
    /// Something is in the way that is no socket and was not made by pmd.
    #[error("{} exists and is not a socket", .socket.display())]
    NotASocket {
        /// The path.
        socket: PathBuf,
    },
    /// There is no such group.
    #[error("there is no group {0:?} to open the control socket to")]
    NoSuchGroup(String),
    /// The system refused something.
    #[error("cannot make the control socket {}: {source}", .socket.display())]
    System {
        /// The socket.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}
