//! The JSON types of the control API.
//!
//! Times are RFC 3339 in UTC with milliseconds; durations have their unit in the key. Clients must ignore unknown keys,
//! because later versions add some.

mod claims;
mod cluster;
mod daemon;
mod error;
mod events;
mod expulsions;
mod join;
mod lookup;
mod names;
mod reach;
mod revocations;
mod rotation;
mod services;
mod tunnel;

pub use claims::{
    ClaimEnded, ClaimHeld, ClaimInfo, ClaimList, ENDED_LOST, ENDED_REVOKED, NewClaim, ReleaseClaim,
    VoterInfo, VoterList,
};
pub use cluster::{
    ClusterStatus, Discovered, Found, IdentityMode, Node, NodeList, NodeState, Path, Peer, PeerList,
};
pub use daemon::{
    Counts, DescriptorNumbers, Health, NameNumbers, Reloaded, ServiceNumbers, Status, Stopping,
};
pub use error::{ErrorBody, ErrorCode, ErrorInfo};
pub use events::{Event, Gap, GapReason, Hello};
pub use expulsions::{Decision, Expel, Expelled, ExpelledList};
pub use join::{Join, JoinFailure, Joined, JoinedPeer, Leave, LeftCluster};
pub use lookup::{Kind, Lookup, Match};
pub use names::{Adopt, AdoptOutcome, AdoptedName, ClusterName, ClusterNameList, Name, NameList};
pub use reach::{Reach, ReachFailure, ReachStep, Reached, Refusal, RefusalList};
pub use revocations::{
    InstallRevocations, InstalledRevocations, RevocationList, RevocationLists, RevokedCertificate,
};
pub use rotation::{Rotate, Rotation};
pub use services::{ClusterService, ClusterServiceList, NewService, ServiceEnded, ServiceInfo, ServiceList};
pub use tunnel::{
    AliasInfo, CookieTest, Hop, Ping, Pinged, TunnelInfo, TunnelList, TunnelSide, TunnelStatus, Unlisted,
};
