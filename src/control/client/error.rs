//! Why a request has no useful response.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::control::api::ErrorInfo;

/// Why a request has no useful response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon is listening.
    #[error("no pmd answers on {}", .socket.display())]
    NotReachable {
        /// The socket.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// This user may not use the socket.
    #[error("no permission to use {}", .socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// This user may not use the socket, and the page on the EPMD port, which everybody may read, is off.
    #[error("no permission to use {}, and the daemon's status page, which needs none, is off", .socket.display())]
    Closed {
        /// The socket.
        socket: PathBuf,
    },
    /// A daemon is listening but does not respond.
    #[error("the pmd behind {} did not answer within {} s", .socket.display(), .after.as_secs())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long the client waited.
        after: Duration,
    },
    /// The connection broke before the end of the response.
    #[error("the connection to pmd was lost: {0}")]
    Lost(String),
    /// The response is an error.
    #[error("{}", .info.message)]
    Api {
        /// The HTTP status.
        status: u16,
        /// What went wrong.
        info: ErrorInfo,
    },
    /// This version does not understand the response.
    #[error("this version of pmd does not understand the response: {0}")]
    Unexpected(String),
}

impl ClientError {
    /// What to do next.
    pub fn hint(&self) -> String {
        let hint = match self {
            ClientError::NotReachable { .. } | ClientError::Lost(_) => {
                "start it: pmd start (--port or --socket selects a different daemon)"
            }
            ClientError::Forbidden { .. } => {
                "run the command as the user that runs the daemon, or set control_group in the daemon's \
                 configuration file to give a group access"
            }
            ClientError::Closed { .. } => {
                "set control_group in the daemon's configuration file to give a group access, or web = \"local\" to let \
                 every user of this host read"
            }
            ClientError::Timeout { .. } => "check the daemon's log, and whether the host is overloaded",
            ClientError::Unexpected(_) => {
                "compare the versions that pmd version and pmd status show; restart the daemon after an update"
            }
            ClientError::Api { info, .. } => &info.hint,
        };
        hint.to_owned()
    }

    /// Whether no daemon was running, which may change soon.
    pub fn is_absence(&self) -> bool {
        matches!(self, ClientError::NotReachable { .. } | ClientError::Lost(_))
    }
}

impl From<hyper::Error> for ClientError {
    fn from(error: hyper::Error) -> ClientError {
        ClientError::Lost(error.to_string())
    }
}

/// Result of a request.
pub type Result<T> = std::result::Result<T, ClientError>;
