//! Requests, either owned or borrowed from the bytes they were read from.

use bytes::Bytes;

use crate::name::{NodeName, NodeNameError};

/// ALIVE2_REQ, EPMD Protocol "Register a Node in EPMD".
pub const ALIVE2_REQ: u8 = b'x';
/// PORT_PLEASE2_REQ, EPMD Protocol "Get the Distribution Port of Another Node".
pub const PORT_PLEASE2_REQ: u8 = b'z';
/// NAMES_REQ, EPMD Protocol "Get All Registered Names from EPMD".
pub const NAMES_REQ: u8 = b'n';
/// DUMP_REQ, EPMD Protocol "Dump All Data from EPMD".
pub const DUMP_REQ: u8 = b'd';
/// KILL_REQ, EPMD Protocol "Kill EPMD".
pub const KILL_REQ: u8 = b'k';
/// STOP_REQ, EPMD Protocol "STOP_REQ (Not Used)".
pub const STOP_REQ: u8 = b's';

/// One request, borrowed from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Register a node for as long as the connection is open.
    Alive2(Alive2<'a>),
    /// Look up the port of a node.
    PortPlease2 {
        /// At most 254 characters, not empty, no NUL.
        name: &'a str,
    },
    /// List the registered nodes.
    Names,
    /// List everything the daemon knows, in human-readable form.
    Dump,
    /// Make the daemon exit.
    Kill,
    /// Unregister a node.
    Stop {
        /// Any bytes but NUL. Stock epmd compares them without checking them.
        name: &'a [u8],
    },
}

/// The fields of an ALIVE2_REQ, EPMD Protocol "Register a Node in EPMD". PORT2_RESP returns the same fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive2<'a> {
    /// The port on which the node accepts distribution connections; 0 is allowed.
    pub port: u16,
    /// 77 for a visible Erlang node, 72 hidden, 104 ei, 110 Java. Opaque to a server.
    pub node_type: u8,
    /// 0 for TCP/IPv4. Opaque to a server.
    pub protocol: u8,
    /// Highest distribution version, which determines the form of the reply.
    pub highest_version: u16,
    /// Lowest distribution version. Opaque to a server.
    pub lowest_version: u16,
    /// The part of the node name before the `@`, which may be empty. See [`NodeName`] for its limits.
    pub name: &'a str,
    /// At most [`MAX_EXTRA`](crate::limits::MAX_EXTRA) arbitrary bytes, returned together with the port.
    pub extra: &'a [u8],
}

impl Alive2<'_> {
    /// Copies the fields, for a registry.
    ///
    /// # Errors
    ///
    /// If the name is invalid. It never is if [`parse_request`](super::parse::parse_request) returned this value.
    pub fn to_registration(&self) -> Result<Registration, NodeNameError> {
        Ok(self.named(self.name.parse()?))
    }

    fn named(&self, name: NodeName) -> Registration {
        Registration {
            port: self.port,
            node_type: self.node_type,
            protocol: self.protocol,
            highest_version: self.highest_version,
            lowest_version: self.lowest_version,
            name,
            extra: Bytes::copy_from_slice(self.extra),
        }
    }
}

/// The data that a node registers and a lookup returns: [`Alive2`] with owned fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// See [`Alive2::port`].
    pub port: u16,
    /// See [`Alive2::node_type`].
    pub node_type: u8,
    /// See [`Alive2::protocol`].
    pub protocol: u8,
    /// See [`Alive2::highest_version`].
    pub highest_version: u16,
    /// See [`Alive2::lowest_version`].
    pub lowest_version: u16,
    /// See [`Alive2::name`].
    pub name: NodeName,
    /// See [`Alive2::extra`].
    pub extra: Bytes,
}

impl Registration {
    /// A copy of borrowed fields; `None` if the name is invalid.
    #[must_use]
    pub fn copy_of(alive2: &Alive2<'_>) -> Option<Registration> {
        Some(Registration {
            port: alive2.port,
            node_type: alive2.node_type,
            protocol: alive2.protocol,
            highest_version: alive2.highest_version,
            lowest_version: alive2.lowest_version,
            name: alive2.name.parse().ok()?,
            extra: Bytes::copy_from_slice(alive2.extra),
        })
    }

    /// Borrows the fields.
    #[must_use]
    pub fn as_alive2(&self) -> Alive2<'_> {
        Alive2 {
            port: self.port,
            node_type: self.node_type,
            protocol: self.protocol,
            highest_version: self.highest_version,
            lowest_version: self.lowest_version,
            name: self.name.as_str(),
            extra: &self.extra,
        }
    }
}

/// A [`Request`] with owned fields, for the codecs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedRequest {
    /// See [`Request::Alive2`].
    Alive2(Registration),
    /// See [`Request::PortPlease2`].
    PortPlease2 {
        /// See [`Request::PortPlease2`]. The limit of 254 characters is checked when bytes are encoded or parsed.
        name: NodeName,
    },
    /// See [`Request::Names`].
    Names,
    /// See [`Request::Dump`].
    Dump,
    /// See [`Request::Kill`].
    Kill,
    /// See [`Request::Stop`].
    Stop {
        /// See [`Request::Stop`].
        name: Bytes,
    },
}

impl OwnedRequest {
    /// Borrows the request.
    #[must_use]
    pub fn as_request(&self) -> Request<'_> {
        match self {
            Self::Alive2(registration) => Request::Alive2(registration.as_alive2()),
            Self::PortPlease2 { name } => Request::PortPlease2 { name: name.as_str() },
            Self::Names => Request::Names,
            Self::Dump => Request::Dump,
            Self::Kill => Request::Kill,
            Self::Stop { name } => Request::Stop { name },
        }
    }

    /// Copies a request that [`parse_request`](super::parse::parse_request) returned, whose names it has checked.
    #[cfg(feature = "codec")]
    pub(super) fn from_parsed(request: &Request<'_>) -> Self {
        match request {
            Request::Alive2(alive2) => Self::Alive2(alive2.named(NodeName::from_checked(alive2.name))),
            Request::PortPlease2 { name } => Self::PortPlease2 { name: NodeName::from_checked(name) },
            Request::Names => Self::Names,
            Request::Dump => Self::Dump,
            Request::Kill => Self::Kill,
            Request::Stop { name } => Self::Stop { name: Bytes::copy_from_slice(name) },
        }
    }
}
