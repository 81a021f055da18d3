//! Every number that can be turned. Each says its unit, its default, what is sensible, and where it comes from.

/// All of them. `Tuning::default()` is meant for production.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// The registry.
    pub registry: RegistryTuning,
    /// Membership and failure detection.
    pub membership: MembershipTuning,
    /// Links and what goes over them.
    pub spread: SpreadTuning,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            registry: RegistryTuning::DEFAULT,
            membership: MembershipTuning::DEFAULT,
            spread: SpreadTuning::DEFAULT,
        }
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

/// How members find out that one of them is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MembershipTuning {
    /// How long this daemon and its helpers have to find out whether somebody can be reached; also the unit of the time
    /// that a suspect gets.
    ///
    /// Unit: milliseconds. Default: 1,000. Range: 200 to 10,000. Source: the period of memberlist's LAN profile.
    pub probe_period_ms: u64,
    /// How long a dial may take that is to find out whether somebody can be reached.
    ///
    /// Unit: milliseconds. Default: 400. Range: above three round trips, below half of `probe_period_ms`. Source:
    /// memberlist's LAN profile (500).
    pub probe_rtt_ms: u64,
    /// How many helpers are asked.
    ///
    /// Unit: daemons. Default: 3. Range: 1 to 10. Source: SWIM section 4.1, memberlist.
    pub helpers: usize,
    /// How long a suspect has to object: this many probe periods, times the decimal logarithm of the members, at least
    /// one.
    ///
    /// Unit: probe periods. Default: 4.0. Range: 1.0 to 10.0. Source: memberlist (`SuspicionMult`).
    pub suspicion_periods: f64,
    /// How long a suspect has to object when two observers were told that nobody listens there any more.
    ///
    /// Unit: milliseconds. Default: 300, enough for an objection through the slowest of usual links. Range: above twice
    /// the round-trip time. Source: our own; goal G5 asks for one second in all.
    pub refused_wait_ms: u64,
    /// How long a suspect has to object when at least three observers, this daemon among them, got no answer from it.
    ///
    /// Unit: milliseconds. Default: 1,000. Range: from `refused_wait_ms`. Source: Lifeguard, section IV-B: a suspicion
    /// that others confirm independently needs less time.
    pub confirmed_wait_ms: u64,
    /// How long a dead identity is remembered, so that old news about it cannot bring it back.
    ///
    /// Unit: milliseconds. Default: 86,400,000 (a day). Range: at least as long as a daemon may be cut off with old news.
    /// Source: our own; older news bring it back until somebody dials it, which is seconds.
    pub remember_down_ms: u64,
    /// How far a timer may be late before the daemon holds itself responsible and not its peers.
    ///
    /// Unit: milliseconds. Default: 200. Range: above the scheduling latency of the host, below `probe_rtt_ms`. Source:
    /// our own, after Lifeguard.
    pub late_ms: u64,
    /// Heartbeats on standing links.
    pub phi: PhiTuning,
}

impl MembershipTuning {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        probe_period_ms: 1_000,
        probe_rtt_ms: 400,
        helpers: 3,
        suspicion_periods: 4.0,
        refused_wait_ms: 300,
        confirmed_wait_ms: 1_000,
        remember_down_ms: 86_400_000,
        late_ms: 200,
        phi: PhiTuning::DEFAULT,
    };
}

/// The phi accrual failure detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhiTuning {
    /// How often a heartbeat is sent to neighbours in the ring; less often to others, see
    /// [`SpreadTuning::far_pace`].
    ///
    /// Unit: milliseconds, sent in tenths of a second. Default: 1,000. Range: 100 to 60,000. Source: portmapd, Akka.
    pub interval_ms: u64,
    /// How many of the last intervals the estimate rests on.
    ///
    /// Unit: heartbeats. Default: 1,000. Range: 10 to 10,000. Source: Hayashibara et al., section 5.2.
    pub window: usize,
    /// From which phi on a peer's silence is no chance any more. It is looked into from half of it on.
    ///
    /// Unit: phi, minus the decimal logarithm of the chance to be wrong. Default: 8.0, one mistake in 10^8 under the
    /// model. Range: 1.0 to 16.0. Source: Akka, Cassandra, portmapd.
    pub threshold: f64,
    /// The least standard deviation that is assumed, however regular heartbeats were.
    ///
    /// Unit: milliseconds. Default: 500. Range: from 10; at least the pauses that a healthy peer may make. Source:
    /// portmapd (Akka: 100).
    pub min_deviation_ms: u64,
}

impl PhiTuning {
    /// The defaults.
    pub const DEFAULT: Self =
        Self { interval_ms: 1_000, window: 1_000, threshold: 8.0, min_deviation_ms: 500 };
}

/// Which links there are, and what goes over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpreadTuning {
    /// How many members that follow by id each daemon keeps a link to.
    ///
    /// Unit: links. Default: 2. Range: 1 to 8. Source: our own graph checks; a ring of two successors stays connected
    /// whichever single member fails.
    pub successors: usize,
    /// How many random members besides.
    ///
    /// Unit: links. Default: 3. Range: 1 to 8. Source: our own graph checks: five hops reach 1,000 members, and half the
    /// members killed at once leave fewer than 0.4 % unreached.
    pub random: usize,
    /// On links other than those to the next and the previous member by id, heartbeats come this many times slower. These
    /// two notice a silence soon enough for everybody; should they go with it, the others notice it a little later.
    ///
    /// Unit: factor. Default: 3. Range: 1 to 10. Source: our own; goal G4.
    pub far_pace: u64,
    /// How long changes are gathered after one was sent.
    ///
    /// Unit: milliseconds. Default: 5. Range: 0 to 100. Source: our own; five hops cost 25 ms in the worst case, and a
    /// burst of registrations costs 200 frames a second and not thousands.
    pub coalesce_ms: u64,
    /// How long a summary waits for the update itself to come around: most peers have it by then, and need no summary.
    ///
    /// Unit: milliseconds. Default: 30. Range: above the time of a broadcast, which takes a few hops. Source: Plumtree,
    /// section 3.4, which leaves the policy for lazy messages open; our own measurements with a hundred hosts.
    pub lazy_ms: u64,
    /// How long a summary is left alone because the update itself should be on its way.
    ///
    /// Unit: milliseconds. Default: 20; the summary has waited already. Range: above the round-trip time. Source: Plumtree,
    /// section 3.5.
    pub graft_ms: u64,
    /// The first pause before a failed dial is repeated; it doubles from there.
    ///
    /// Unit: milliseconds. Default: 1,000. Range: 100 to 10,000. Source: Portal.
    pub redial_ms: u64,
    /// The longest such pause.
    ///
    /// Unit: milliseconds. Default: 60,000. Range: from `redial_ms`. Source: Portal.
    pub redial_max_ms: u64,
    /// How often the cluster as a whole dials somebody it has lost.
    ///
    /// Unit: milliseconds. Default: 500. Range: 100 to 60,000. Source: goal G6, fingerprints equal two seconds after a
    /// split has healed.
    pub seek_lost_ms: u64,
    /// For how long lost members are sought eagerly. After that each daemon tries one in each `exchange_ms`.
    ///
    /// Unit: milliseconds. Default: 600,000. Range: 0 to a day. Source: our own.
    pub seek_lost_for_ms: u64,
    /// How often each daemon compares itself with a random member outside its links.
    ///
    /// Unit: milliseconds. Default: 60,000. Range: from 1,000. Source: our own.
    pub exchange_ms: u64,
    /// After which time a link is closed that this daemon has dialled and does not need.
    ///
    /// Unit: milliseconds. Default: 10,000. Range: from 1,000. Source: our own; long enough for a reconciliation.
    pub surplus_ms: u64,
    /// After which silence a link is closed whose peer lives, as others say.
    ///
    /// Unit: milliseconds. Default: 30,000, ten heartbeats between daemons that are no neighbours. Range: several
    /// heartbeats, and longer than a daemon may be frozen without losing its links for it. Source: our own tests with one
    /// way blocked.
    pub mute_ms: u64,
}

impl SpreadTuning {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        successors: 2,
        random: 3,
        far_pace: 3,
        coalesce_ms: 5,
        lazy_ms: 30,
        graft_ms: 20,
        redial_ms: 1_000,
        redial_max_ms: 60_000,
        seek_lost_ms: 500,
        seek_lost_for_ms: 600_000,
        exchange_ms: 60_000,
        surplus_ms: 10_000,
        mute_ms: 30_000,
    };
}
