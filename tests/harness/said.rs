//! What commands say.

use serde_json::Value;

/// What a command said.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
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
