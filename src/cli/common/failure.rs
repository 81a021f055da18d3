//! A failed command: the exit code, an error code for programs, a message for people, and a hint.

use std::ffi::OsStr;
use std::io;

use super::exit::Exit;
use crate::base::text::without_numbers;
use crate::config::ConfigError;
use crate::control::api::ErrorInfo;
use crate::control::client::ClientError;

/// The result of a command or of a step of it.
pub type Result<T> = std::result::Result<T, Failure>;

/// The failure of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code of the process.
    pub exit: Exit,
    /// The error code for programs.
    pub code: String,
    /// The message for people; empty if there is nothing to report.
    pub message: String,
    /// A suggestion for the user.
    pub hint: String,
}

impl Failure {
    /// A failure whose error code is derived from the exit code.
    pub fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Failure {
        let code = match exit {
            Exit::Usage => "usage",
            Exit::NotReachable => "not_reachable",
            Exit::NotFound => "not_found",
            Exit::Refused => "refused",
            Exit::TimedOut => "timed_out",
            Exit::Conflict => "conflict",
            Exit::Unhealthy => "unhealthy",
            Exit::Interrupted => "interrupted",
            Exit::Done | Exit::General | Exit::Command(_) => "general",
        };
        Failure { exit, code: code.to_owned(), message: message.into(), hint: hint.into() }
    }

    /// The command ends early, without a message.
    pub fn silent(exit: Exit) -> Failure {
        Failure::new(exit, "", "")
    }

    /// The reader of standard output has closed it: the command ends successfully, without a message.
    pub fn broken_pipe() -> Failure {
        Failure::silent(Exit::Done)
    }

    /// A program named by the user could not be started; the exit code is that of shells.
    pub fn command(program: &OsStr, error: &io::Error) -> Failure {
        let exit = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        let message = format!("cannot run {}: {error}", program.display());
        let hint = "check that the program exists, is in PATH and is executable";
        Failure::new(Exit::Command(exit), message, hint)
    }

    /// The failure as reported to programs.
    pub fn info(&self) -> ErrorInfo {
        let text = |text: &str| without_numbers(text).into_owned();
        ErrorInfo { code: self.code.clone(), message: text(&self.message), hint: text(&self.hint) }
    }
}

/// A failed write to standard output, which the reader may have closed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::broken_pipe(),
            _ => Failure::new(Exit::General, error.to_string(), "free disk space or memory, and try again"),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure { code: "configuration".into(), ..Failure::new(Exit::Usage, error.to_string(), error.hint()) }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let hint = error.hint();
        let exit = match &error {
            ClientError::NotReachable { .. } | ClientError::Lost(_) => Exit::NotReachable,
            ClientError::Forbidden { .. } | ClientError::Closed { .. } => Exit::Refused,
            ClientError::Timeout { .. } => Exit::TimedOut,
            ClientError::Unexpected(_) => Exit::General,
            ClientError::Api { info, .. } => {
                let exit = match info.code.as_str() {
                    "not_found" | "unresolvable" => Exit::NotFound,
                    "conflict" | "no_cluster" => Exit::Conflict,
                    "invalid_request" | "too_large" | "oneself" => Exit::Usage,
                    "unreachable" => Exit::NotReachable,
                    "refused" => Exit::Refused,
                    "timeout" => Exit::TimedOut,
                    "full" | "ending" | "silent" => Exit::Unhealthy,
                    _ => Exit::General,
                };
                return Failure { exit, code: info.code.clone(), message: info.message.clone(), hint };
            }
        };
        Failure::new(exit, error.to_string(), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_the_api_become_exits() {
        for (code, exit) in [
            ("not_found", Exit::NotFound),
            ("conflict", Exit::Conflict),
            ("invalid_request", Exit::Usage),
            ("full", Exit::Unhealthy),
            ("silent", Exit::Unhealthy),
            ("unresolvable", Exit::NotFound),
            ("unreachable", Exit::NotReachable),
            ("refused", Exit::Refused),
            ("timeout", Exit::TimedOut),
            ("oneself", Exit::Usage),
            ("no_cluster", Exit::Conflict),
            ("something_new", Exit::General),
        ] {
            let info = ErrorInfo { code: code.into(), message: "m".into(), hint: "h".into() };
            let failure = Failure::from(ClientError::Api { status: 400, info: info.clone() });
            assert_eq!((failure.exit, failure.info()), (exit, info));
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Done, ""));
    }
}
