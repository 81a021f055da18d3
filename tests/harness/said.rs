//! What commands say.

use std::process::{Command, Output};

use serde_json::Value;

use super::program::run;

/// What a command said.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn said(command: Command) -> Said {
    Said::of(&run(command))
}

impl Said {
    /// What a program that has ended said.
    pub fn of(output: &Output) -> Said {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON: {error}\n{self:#?}"))
    }

    /// Fails the test unless it ended with this code.
    pub fn ended_with(self, code: i32) -> Said {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}
