//! The exit codes of `pmd`, which scripts may depend on.

use std::process::{ExitCode, ExitStatus};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// A failure without a code of its own.
    General,
    /// Wrong flags, environment or configuration.
    Usage,
    /// No daemon answers.
    NotReachable,
    /// Nothing has that name.
    NotFound,
    /// Not permitted, or unsafe.
    Refused,
    /// Timed out.
    TimedOut,
    /// A name or a port is taken.
    Conflict,
    /// The daemon, or something that depends on it, is unhealthy.
    Unhealthy,
    /// The user interrupted it.
    Interrupted,
    /// The exit status of a command that pmd ran for the user.
    Command(u8),
}

impl Exit {
    /// The number.
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

    /// The exit with this number, as reported by a background daemon that failed.
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

    /// The exit of a command that pmd ran for the user, by the rules of shells.
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
    fn the_numbers_are_those_of_the_manual() {
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
    fn the_exit_of_a_command_is_passed_on() {
        assert_eq!(Exit::of_command(ExitStatus::from_raw(7 << 8)), Exit::Command(7));
        assert_eq!(Exit::of_command(ExitStatus::from_raw(15)), Exit::Command(143));
    }
}
