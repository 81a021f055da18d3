//! Every parameter of a node, with its unit, default, sensible range and source.

/// All parameters. `Tuning::default()` is meant for production.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tuning {
    /// The replicated registry.
    pub replica: ReplicaTuning,
    /// Membership and failure detection.
    pub membership: MembershipTuning,
    /// Links, and the messages on them.
    pub gossip: GossipTuning,
}

/// What a replica keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaTuning {
    /// Tombstones that a replica keeps for each origin, so that it can send deltas to others. If a peer's version is
    /// older than the oldest tombstone, it gets a snapshot.
    ///
    /// Unit: keys. Default: 1,024, twice the names of a busy host, about 100 KB if all are used. Range: 0 (always
    /// snapshots) to 100,000. Source: our own; the alternative costs one snapshot.
    pub tombstones: usize,
    /// The size of all unfinished transfers of one sender above which they are abandoned.
    ///
    /// Unit: bytes for each sender, counted as for `entry_bytes`. Default: 9 MiB, that and the tombstones. Range: from
    /// 64 KiB. Source: our own.
    pub staged_bytes: usize,
    /// The most entries that an origin may have. A peer that sends more violates the protocol.
    ///
    /// Unit: entries for each origin. Default: 65,536, above what fits into `entry_bytes`. Range: from 1,000; the same on all
    /// hosts. Source: our own.
    pub entries: usize,
    /// The most bytes that an origin's entries may take: their names and values, and 128 bytes for each besides.
    ///
    /// Unit: bytes for each origin. Default: 8 MiB, which is room for 50,000 nodes. Range: from 1 MiB; the same on all
    /// hosts. Source: our own.
    pub entry_bytes: usize,
    /// How long entries of an origin that is not a live member are kept, so that after a partition a delta suffices
    /// instead of a snapshot.
    ///
    /// Unit: milliseconds. Default: 600,000 (ten minutes), equal to `seek_lost_for_ms`. Range: 0 to a day. Source: our
    /// own.
    pub keep_dead_ms: u64,
    /// The number of origins without a live member that are kept. The oldest are dropped first.
    ///
    /// Unit: origins. Default: 4,096. It bounds the memory used by a crash loop or by a peer that invents origins.
    /// Range: at least the largest part of the cluster that may fail and come back at once. Source: our own.
    pub max_dead: usize,
}

impl ReplicaTuning {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        tombstones: 1024,
        staged_bytes: 9 * 1024 * 1024,
        entries: 65_536,
        entry_bytes: 8 * 1024 * 1024,
        keep_dead_ms: 600_000,
        max_dead: 4096,
    };
}

impl Default for ReplicaTuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How members detect that one of them has failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MembershipTuning {
    /// How long this daemon and its helpers may take to find out whether a member can be reached. Suspicion timeouts
    /// are multiples of it.
    ///
    /// Unit: milliseconds. Default: 1,000. Range: 200 to 10,000. Source: the period of memberlist's LAN profile.
    pub probe_period_ms: u64,
    /// The timeout of a dial that probes a member, while this daemon is healthy.
    ///
    /// Unit: milliseconds. Default: 400. Range: above three round trips, below half of `probe_period_ms`. Source:
    /// memberlist's LAN profile (500).
    pub probe_rtt_ms: u64,
    /// The number of helpers that are asked to probe as well.
    ///
    /// Unit: daemons. Default: 3. Range: 1 to 10. Source: SWIM section 4.1, memberlist.
    pub helpers: usize,
    /// How long a suspect has to refute the suspicion: this many probe periods times the decimal logarithm of the
    /// number of members, which counts as at least 1.
    ///
    /// Unit: probe periods. Default: 4.0. Range: 1.0 to 10.0. Source: memberlist (`SuspicionMult`).
    pub suspicion_periods: f64,
    /// How long a suspect has to refute after two observers had their connections refused.
    ///
    /// Unit: milliseconds. Default: 300, enough for a refutation over the slowest common links. Range: above twice the
    /// round-trip time. Source: our own; goal G5 asks for one second in total.
    pub refused_wait_ms: u64,
    /// How long a member has to refute that a peer considers it down, counted from the first suspicion here.
    ///
    /// Unit: milliseconds. Default: 300. Range: above the time in which news cross the cluster twice. Source: our own;
    /// no longer than `refused_wait_ms`, so that it does not delay the news of a killed process.
    pub refute_wait_ms: u64,
    /// How long a suspect has to refute after at least three observers, this daemon among them, got no answer from it.
    ///
    /// Unit: milliseconds. Default: 1,000. Range: from `refused_wait_ms`. Source: Lifeguard, section IV-B: an
    /// independently confirmed suspicion needs less time.
    pub confirmed_wait_ms: u64,
    /// How long a dead identity is remembered, so that outdated records cannot revive it.
    ///
    /// Unit: milliseconds. Default: 86,400,000 (a day). Range: at least the longest partition that a daemon with
    /// outdated records may go through. Source: our own; even older records revive it until it is dialled seconds
    /// later.
    pub remember_down_ms: u64,
    /// How long a dead identity is remembered that this daemon has never reached itself. A peer may have invented it.
    ///
    /// Unit: milliseconds. Default: 300,000 (five minutes). Range: from a minute, so that the news of its death have
    /// arrived everywhere, to `remember_down_ms`. Source: our own.
    pub remember_unreached_ms: u64,
    /// The number of members to remember, dead ones included. If the table is full, those that were never reached give
    /// way to those that were.
    ///
    /// Unit: members. Default: 65,536, about 40 MB. Range: above the size of the cluster and the failures of a day.
    /// Source: our own.
    pub max_members: usize,
    /// The number of new members that one peer may introduce at once.
    ///
    /// Unit: members for each peer. Default: 2,048. Range: above a few hundred, and at least half the size of the cluster:
    /// a daemon that joins a larger one learns of the rest from its other peers. Source: our own.
    pub introductions: u64,
    /// The time until a peer may introduce one more.
    ///
    /// Unit: milliseconds. Default: 120, which is 500 a minute. Range: 10 to 1,000. Source: our own.
    pub introduce_every_ms: u64,
    /// How late a timer may fire before the daemon blames itself instead of its peers.
    ///
    /// Unit: milliseconds. Default: 200. Range: above the scheduling latency of the host, below `probe_rtt_ms`. Source:
    /// our own, after Lifeguard.
    pub late_ms: u64,
    /// Heartbeats on links.
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
        refute_wait_ms: 300,
        confirmed_wait_ms: 1_000,
        remember_down_ms: 86_400_000,
        remember_unreached_ms: 300_000,
        max_members: 65_536,
        introductions: 2_048,
        introduce_every_ms: 120,
        late_ms: 200,
        phi: PhiTuning::DEFAULT,
    };
}

impl Default for MembershipTuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The phi accrual failure detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhiTuning {
    /// The heartbeat interval on links to neighbours in the ring. Other links use a longer one, see
    /// [`GossipTuning::far_pace`].
    ///
    /// Unit: milliseconds, sent in tenths of a second. Default: 1,000. Range: 100 to 60,000. Source: portmapd, Akka.
    pub interval_ms: u64,
    /// The number of past intervals that the estimate uses.
    ///
    /// Unit: heartbeats. Default: 1,000. Range: 10 to 10,000. Source: Hayashibara et al., section 5.2.
    pub window: usize,
    /// The phi above which silence means failure. The member is probed once phi reaches half of it.
    ///
    /// Unit: phi, the negative decimal logarithm of the probability of a mistake. Default: 8.0, one mistake in 10^8
    /// under the model. Range: 1.0 to 16.0. Source: Akka, Cassandra, portmapd.
    pub threshold: f64,
    /// The smallest standard deviation to assume, however regular the heartbeats were.
    ///
    /// Unit: milliseconds. Default: 500. Range: from 10; at least the pauses of a healthy peer. Source: portmapd
    /// (Akka: 100).
    pub min_deviation_ms: u64,
}

impl PhiTuning {
    /// The defaults.
    pub const DEFAULT: Self =
        Self { interval_ms: 1_000, window: 1_000, threshold: 8.0, min_deviation_ms: 500 };
}

/// Links, and the messages on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GossipTuning {
    /// The number of successors, in the order of ids, that a daemon keeps links to.
    ///
    /// Unit: links. Default: 2. Range: 1 to 8. Source: our own graph checks; a ring with two successors stays connected
    /// whichever single member fails.
    pub successors: usize,
    /// The number of random members that it keeps links to in addition.
    ///
    /// Unit: links. Default: 3. Range: 1 to 8. Source: our own graph checks: five hops reach 1,000 members, and if half
    /// of them are killed at once, fewer than 0.4 % of the rest are cut off.
    pub random: usize,
    /// How much slower heartbeats are on links other than those to the next and previous member by id. These two
    /// neighbours detect a failure soon enough for the cluster; if they fail too, others detect it a little later.
    ///
    /// Unit: factor. Default: 3. Range: 1 to 10. Source: our own; goal G4.
    pub far_pace: u64,
    /// How long changes are collected after the last batch was sent.
    ///
    /// Unit: milliseconds. Default: 5. Range: 0 to 100. Source: our own; five hops take 25 ms in the worst case, and a
    /// burst of registrations costs 200 frames a second instead of thousands.
    pub coalesce_ms: u64,
    /// How long they are collected while one batch follows another: each time twice as long, up to this limit.
    ///
    /// Unit: milliseconds. Default: 20. Range: from `coalesce_ms` to 100. Source: our own; five hops then take 100 ms in the
    /// worst case.
    pub coalesce_max_ms: u64,
    /// How long a summary is held back. Most peers receive the update itself in that time and need no summary.
    ///
    /// Unit: milliseconds. Default: 30. Range: above the duration of a broadcast, which is a few hops. Source:
    /// Plumtree, section 3.4, which leaves the policy for lazy messages open; our own measurements with a hundred
    /// hosts.
    pub lazy_ms: u64,
    /// How long the receiver of a summary waits for the update before requesting it.
    ///
    /// Unit: milliseconds. Default: 20; the summary was already delayed. Range: above the round-trip time. Source:
    /// Plumtree, section 3.5.
    pub graft_ms: u64,
    /// How long a peer may take to answer such a request before the next peer is asked.
    ///
    /// Unit: milliseconds. Default: 250. Range: from `graft_ms`. Source: our own; longer than a busy peer takes to answer,
    /// because asking others as well would only add to its load.
    pub answer_ms: u64,
    /// The pause before a failed dial is retried for the first time. It doubles with each failure.
    ///
    /// Unit: milliseconds. Default: 1,000. Range: 100 to 10,000. Source: Portal.
    pub redial_ms: u64,
    /// The longest pause before a retry.
    ///
    /// Unit: milliseconds. Default: 60,000. Range: from `redial_ms`. Source: Portal.
    pub redial_max_ms: u64,
    /// How often the cluster as a whole dials a lost member.
    ///
    /// Unit: milliseconds. Default: 500. Range: 100 to 60,000. Source: goal G6: fingerprints are equal two seconds
    /// after a partition heals.
    pub seek_lost_ms: u64,
    /// How long lost members are dialled this often. After that, each daemon dials one of them per `exchange_ms`.
    ///
    /// Unit: milliseconds. Default: 600,000. Range: 0 to a day. Source: our own.
    pub seek_lost_for_ms: u64,
    /// How often each daemon compares its registry with that of a random member that it has no link to.
    ///
    /// Unit: milliseconds. Default: 60,000. Range: from 1,000. Source: our own.
    pub exchange_ms: u64,
    /// The age at which a link that this daemon dialled and no longer needs is closed.
    ///
    /// Unit: milliseconds. Default: 10,000. Range: from 1,000. Source: our own; long enough for a reconciliation.
    pub surplus_ms: u64,
    /// How long a link may be silent before it is closed, even though others report its peer alive.
    ///
    /// Unit: milliseconds. Default: 30,000, ten heartbeats between daemons that are not neighbours. Range: several
    /// heartbeats, and longer than a daemon may be frozen without losing its links. Source: our own tests with one
    /// direction blocked.
    pub mute_ms: u64,
}

impl GossipTuning {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        successors: 2,
        random: 3,
        far_pace: 3,
        coalesce_ms: 5,
        coalesce_max_ms: 20,
        lazy_ms: 30,
        graft_ms: 20,
        answer_ms: 250,
        redial_ms: 1_000,
        redial_max_ms: 60_000,
        seek_lost_ms: 500,
        seek_lost_for_ms: 600_000,
        exchange_ms: 60_000,
        surplus_ms: 10_000,
        mute_ms: 30_000,
    };
}

impl Default for GossipTuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}
