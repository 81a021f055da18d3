//! Claims and their voters.

use serde::{Deserialize, Serialize};

/// The body of `POST /v1/claims/hold`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewClaim {
    /// Its name.
    pub name: String,
    /// The duration of its lease; 10 s if it is omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u32>,
    /// How long to wait while somebody else holds it; without end if it is omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Whether the claim outlives its connection until the guardian of whatever depends on it has killed that, unless
    /// it is released by `POST /v1/claims/release`.
    #[serde(default)]
    pub guarded: bool,
}

/// The first line of the answer to `POST /v1/claims/hold`, and, without the name, a line for each renewal. Times are on
/// CLOCK_BOOTTIME of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimHeld {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number, which is higher than that of every claim before.
    pub number: u64,
    /// When it is lost unless it is renewed.
    pub lost_at_boot_ms: u64,
    /// When whatever depends on it has ended.
    pub dead_at_boot_ms: u64,
}

/// The claim was not renewed in time: what depends on it has until `dead_at_boot_ms` to end.
pub const ENDED_LOST: &str = "lost";
/// The voters do not know the claim any more: what depends on it must end at once.
pub const ENDED_REVOKED: &str = "revoked";

/// The last line of the answer to `POST /v1/claims/hold`, if the claim ends before the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimEnded {
    /// Why it is no longer held: `lost` if it was not renewed in time, or `revoked` if somebody else may already hold it.
    pub ended: String,
}

/// The body of `POST /v1/claims/release`, and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseClaim {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u64,
}

/// `GET /v1/claims`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimList {
    /// The claims that are held, by name.
    pub claims: Vec<ClaimInfo>,
}

/// A claim that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimInfo {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u64,
    /// The host that holds it; empty if that is gone.
    pub host: String,
    /// The daemon that holds it.
    pub node_id: String,
    /// The duration of its lease.
    pub ttl_ms: u32,
}

/// `GET /v1/voters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterList {
    /// Why this host does not vote although it should; omitted if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The voters, by host.
    pub voters: Vec<VoterInfo>,
}

/// A voter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterInfo {
    /// Its host.
    pub host: String,
    /// What it does: `leader`, `follower`, `leaderless`, `unfounded`, `stranger`, `list_differs`, `rolled_back`, `broken`, or
    /// `unreachable`.
    pub state: String,
    /// The number of the founding; 0 if there is none.
    pub founding: u64,
    /// The version of the table of claims that it has.
    pub version: u64,
    /// Whether it has the same list of voters as this host; omitted if it was not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_list: Option<bool>,
}
