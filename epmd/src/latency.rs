//! Latencies of EPMD requests, from the complete request until the answer is handed to the kernel.
//!
//! Reading the clock twice costs a noticeable part of a lookup, so each thread measures one request in [`EVERY`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One in this many requests is measured, including the first of each thread.
pub const EVERY: u32 = 64;

/// Upper bounds of the buckets, in seconds as reported and in nanoseconds. A lookup takes a few microseconds; a
/// registration may have to wait for the check of the holder of its name.
const BOUNDS: [(&str, u64); 8] = [
    ("0.000005", 5_000),
    ("0.00001", 10_000),
    ("0.000025", 25_000),
    ("0.0001", 100_000),
    ("0.0005", 500_000),
    ("0.0025", 2_500_000),
    ("0.01", 10_000_000),
    ("0.1", 100_000_000),
];

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// PORT_PLEASE2.
    Lookup,
    /// NAMES.
    Names,
    /// ALIVE2.
    Registration,
    /// Any other request.
    Other,
}

impl Asked {
    /// All kinds, in the order of their histograms.
    const ALL: [Asked; 4] = [Asked::Lookup, Asked::Names, Asked::Registration, Asked::Other];

    /// Its value as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Asked::Lookup => "port_please2",
            Asked::Names => "names",
            Asked::Registration => "alive2",
            Asked::Other => "other",
        }
    }
}

/// A histogram for each kind of request.
#[derive(Debug, Default)]
pub struct Latency([Histogram; Asked::ALL.len()]);

#[derive(Debug, Default)]
struct Histogram {
    /// One bucket more than bounds: the last is for latencies beyond all of them.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// A histogram as reported.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The kind of requests.
    pub asked: Asked,
    /// For each bound, the number of requests that took no longer.
    pub up_to: Vec<(&'static str, u64)>,
    /// The number of requests.
    pub count: u64,
    /// The sum of their latencies in seconds.
    pub seconds: f64,
}

impl Latency {
    /// Records the latency of a request.
    pub fn observe(&self, asked: Asked, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().take_while(|(_, bound)| *bound < nanoseconds).count();
        let Some(histogram) = self.0.get(asked as usize) else { return };
        if let Some(bucket) = histogram.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        histogram.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// The current histograms.
    pub fn read(&self) -> impl Iterator<Item = Snapshot> {
        Asked::ALL.into_iter().zip(&self.0).map(|(asked, histogram)| {
            let mut count = 0;
            let mut sums = histogram.buckets.iter().map(|bucket| {
                count += bucket.load(Ordering::Relaxed);
                count
            });
            let up_to = BOUNDS.iter().map(|(bound, _)| *bound).zip(sums.by_ref()).collect();
            sums.for_each(drop);
            let taken = Duration::from_nanos(histogram.nanoseconds.load(Ordering::Relaxed));
            Snapshot { asked, up_to, count, seconds: taken.as_secs_f64() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_what_took_no_longer_than_its_bound() {
        let latency = Latency::default();
        for nanoseconds in [0, 5_000, 5_001, 100_000_000, 100_000_001] {
            latency.observe(Asked::Names, Duration::from_nanos(nanoseconds));
        }
        let read: Vec<Snapshot> = latency.read().collect();
        let names = &read[1];
        assert_eq!((names.asked, names.count), (Asked::Names, 5));
        assert_eq!(names.up_to.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 3, 3, 3, 3, 3, 3, 4]);
        assert!((names.seconds - 0.200_010_002).abs() < 1e-9, "{names:?}");
        assert_eq!(read[0].count, 0);
    }

    #[test]
    fn bounds_are_shown_as_what_they_are() {
        for (shown, bound) in BOUNDS {
            let seconds: f64 = shown.parse().expect("a number");
            assert_eq!(Duration::from_secs_f64(seconds), Duration::from_nanos(bound), "{shown}");
        }
    }
}
