//! Every number that can be turned. Each says its unit, its default, what is sensible, and where it comes from.

/// All of them. `Tuning::default()` is meant for production.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// The registry.
    pub registry: RegistryTuning,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { registry: RegistryTuning::DEFAULT }
    }
}

/// What the registry keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryTuning {
    /// Deleted keys that a replica remembers for each origin, so that it can tell others what has gone since they
    /// asked last. Beyond that it answers with a snapshot.
    ///
    /// Unit: keys. Default: 1,024, the whole of a busy host's names twice over, about 100 KB if all are used.
    /// Range: 0 (always snapshots) to 100,000. Source: our own; the cost of the alternative is one snapshot.
    pub tombstones: usize,
    /// What a transfer of many parts may grow to before it is given up.
    ///
    /// Unit: bytes for each origin and sender. Default: 16 MiB, five times the registrations that a host with the
    /// usual descriptor limit can hold. Range: from 64 KiB. Source: our own.
    pub staged_bytes: usize,
    /// How long entries of an origin that is not a live member are kept, so that a healed split costs a delta and
    /// not a snapshot.
    ///
    /// Unit: milliseconds. Default: 600,000 (ten minutes), as long as lost members are sought eagerly. Range: 0 to a
    /// day. Source: our own.
    pub keep_dead_ms: u64,
    /// Origins that are no live members and are kept nevertheless; the oldest go first.
    ///
    /// Unit: origins. Default: 4,096. Bounds what a crash loop, or a peer that invents origins, can make a daemon hold.
    /// Range: at least the largest part of the cluster that may be lost and come back at once. Source: our own.
    pub max_dead: usize,
}

impl RegistryTuning {
    /// The defaults.
    pub const DEFAULT: Self =
        Self { tombstones: 1024, staged_bytes: 16 * 1024 * 1024, keep_dead_ms: 600_000, max_dead: 4096 };
}

impl Default for RegistryTuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}
