//! The sides of the comparison, and their figures.

/// Message sizes in bytes, and their names.
pub(crate) const SIZES: [(usize, &str); 2] = [(64 * 1024, "64 KiB"), (1024 * 1024, "1 MiB")];

/// How the nodes of a pair reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Plain,
    Direct,
    Relayed,
    ErlangTls,
}

impl Side {
    pub(crate) const ALL: [Side; 4] = [Side::Plain, Side::Direct, Side::Relayed, Side::ErlangTls];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Plain => "plain TCP",
            Side::Direct => "pmd, direct",
            Side::Relayed => "pmd, relayed",
            Side::ErlangTls => "Erlang TLS",
        }
    }

    /// pmd's name for the path, if the path leads through pmd.
    pub(crate) fn path(self) -> Option<&'static str> {
        match self {
            Side::Direct => Some("direct"),
            Side::Relayed => Some("relay"),
            Side::Plain | Side::ErlangTls => None,
        }
    }
}

/// The figures of one side, with one value per round.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Megabytes per second, by message size.
    pub(crate) rate: [Vec<f64>; 2],
    /// CPU seconds per gigabyte, by message size.
    pub(crate) cpu: [Vec<f64>; 2],
    /// Microseconds of a round trip: the median, and the 99th percentile.
    pub(crate) trip: [Vec<f64>; 2],
    /// Round trips per second.
    pub(crate) trips: Vec<f64>,
}

/// How a node finds the one that it connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the epmd module.
    Module,
    /// By a resolver file with the alias of the host.
    Alias,
    /// Without pmd.
    Plain,
}

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::Module, Way::Alias, Way::Plain];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Module => "pmd, epmd module",
            Way::Alias => "pmd, alias",
            Way::Plain => "plain TCP",
        }
    }
}

/// The times that nodes took to connect, in microseconds, in the order of [`Way::ALL`].
pub(crate) type Connects = [Vec<f64>; 3];
