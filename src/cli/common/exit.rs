//! The exit codes of `pmd`, which scripts may depend on.

use std::process::{ExitCode, ExitStatus};

/// The outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done,
    /// An error without a specific code.
    General,
    /// Invalid flags, environment or configuration.
    Usage,
    /// The daemon is not reachable.
    NotReachable,
    /// The name was not found.
    NotFound,
    /// Not permitted or unsafe.
    Refused,
    /// Timed out.
    TimedOut,
    /// A name or port is already in use.
    Conflict,
    /// The daemon, or something that depends on it, is unhealthy.
    Unhealthy,
    /// Interrupted by the user.
    Interrupted,
    /// The exit status of a command that pmd ran for the user.
    Command(u8),
}

impl Exit {
    /// The numeric exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::General => 1,
            Exit::Usage => 2,
            Exit::NotReachable => 3,
            Exit::NotFound => 4,
            Exit::Refused => 5,
            Exit::TimedOut => 6,
            Exit::Conflict => 7,
            Exit::Unhealthy => 8,
            Exit::Interrupted => 130,
            Exit::Command(code) => code,
        }
    }

    /// The exit for the code of a failed background daemon.
    pub fn of_code(code: i32) -> Exit {
        let known = [
            Exit::Usage,
            Exit::NotReachable,
            Exit::NotFound,
            Exit::Refused,
            Exit::TimedOut,
            Exit::Conflict,
            Exit::Unhealthy,
        ];
        known.into_iter().find(|exit| i32::from(exit.code()) == code).unwrap_or(Exit::General)
    }

    /// The exit of a command that pmd ran for the user, following shell conventions.
    pub fn of_command(status: ExitStatus) -> Exit {
        use std::os::unix::process::ExitStatusExt;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        Exit::Command(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_codes_match_the_manual() {
        let all = [
            (Exit::Done, 0),
            (Exit::General, 1),
            (Exit::Usage, 2),
            (Exit::NotReachable, 3),
            (Exit::NotFound, 4),
            (Exit::Refused, 5),
            (Exit::TimedOut, 6),
            (Exit::Conflict, 7),
            (Exit::Unhealthy, 8),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in all {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
        for code in 1..=8 {
            assert_eq!(i32::from(Exit::of_code(code).code()), code);
        }
        assert_eq!(Exit::of_code(101), Exit::General);
    }

    #[test]
    fn the_exit_status_of_a_command_is_returned() {
        assert_eq!(Exit::of_command(ExitStatus::from_raw(7 << 8)), Exit::Command(7));
        assert_eq!(Exit::of_command(ExitStatus::from_raw(15)), Exit::Command(143));
    }
}
