//! The findings of checks, and the report of all findings.

use serde::{Deserialize, Serialize};

use crate::base::text::without_numbers;

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No problem.
    Pass,
    /// It works now but may fail later or for some hosts; or it could not be checked.
    Warn,
    /// It does not work.
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check.
    pub check: String,
    /// The outcome.
    pub verdict: Verdict,
    /// The observation, in a sentence.
    pub what: String,
    /// The remedy, in a sentence; none if nothing has to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All findings, in the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The worst verdict.
    pub verdict: Verdict,
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Finding {
    pub(super) fn pass(check: &str, what: impl Into<String>) -> Finding {
        Finding { check: check.into(), verdict: Verdict::Pass, what: what.into(), remedy: None }
    }

    pub(super) fn warn(check: &str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        let (what, remedy) = (without_numbers(&what.into()).into_owned(), Some(remedy.into()));
        Finding { check: check.into(), verdict: Verdict::Warn, what, remedy }
    }

    pub(super) fn fail(check: &str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Fail, ..Finding::warn(check, what, remedy) }
    }

    /// The finding of a check that needs the daemon, if it does not answer.
    pub(super) fn unchecked(check: &str) -> Finding {
        Finding::warn(
            check,
            "not checked: no daemon answers",
            "start it (pmd start); if one is running, run pmd doctor as its user",
        )
    }
}
