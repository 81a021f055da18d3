//! How long requests of the EPMD port take: from the complete request to the answer in the kernel's hands.
//!
//! Two readings of the clock cost a noticeable part of a look-up, so one request in [`EVERY`] is measured on each thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One request in so many is measured, the first of each thread included.
pub const EVERY: u32 = 64;

/// Upper bounds of the buckets: in seconds as they are told, and in nanoseconds. A look-up takes some microseconds; a
/// registration may have to wait for the look at the holder of its name.
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

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// PORT_PLEASE2.
    Lookup,
    /// NAMES.
    Names,
    /// ALIVE2.
    Registration,
    /// Anything else.
    Other,
}

impl Asked {
    /// All of them, in the order of their histograms.
    const ALL: [Asked; 4] = [Asked::Lookup, Asked::Names, Asked::Registration, Asked::Other];

    /// What it is called as a label.
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
    /// One more than there are bounds: the last is for what is beyond all of them.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// A histogram as it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Which requests.
    pub asked: Asked,
    /// For each bound, how many took no longer.
    pub up_to: Vec<(&'static str, u64)>,
    /// How many there were.
    pub count: u64,
    /// How long they took together, in seconds.
    pub seconds: f64,
}

impl Latency {
    /// Counts a request that took so long.
    pub fn observe(&self, asked: Asked, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().take_while(|(_, bound)| *bound < nanoseconds).count();
        let Some(histogram) = self.0.get(asked as usize) else { return };
        if let Some(bucket) = histogram.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        histogram.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// All histograms now.
    pub fn read(&self) -> impl Iterator<Item = Told> {
        Asked::ALL.into_iter().zip(&self.0).map(|(asked, histogram)| {
            let mut count = 0;
            let mut sums = histogram.buckets.iter().map(|bucket| {
                count += bucket.load(Ordering::Relaxed);
                count
            });
            let up_to = BOUNDS.iter().map(|(bound, _)| *bound).zip(sums.by_ref()).collect();
            sums.for_each(drop);
            let taken = Duration::from_nanos(histogram.nanoseconds.load(Ordering::Relaxed));
            Told { asked, up_to, count, seconds: taken.as_secs_f64() }
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
        let told: Vec<Told> = latency.read().collect();
        let names = &told[1];
        assert_eq!((names.asked, names.count), (Asked::Names, 5));
        assert_eq!(names.up_to.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 3, 3, 3, 3, 3, 3, 4]);
        assert!((names.seconds - 0.200_010_002).abs() < 1e-9, "{names:?}");
        assert_eq!(told[0].count, 0);
    }

    #[test]
    fn bounds_are_told_as_what_they_are() {
        for (told, bound) in BOUNDS {
            let seconds: f64 = told.parse().expect("a number");
            assert_eq!(Duration::from_secs_f64(seconds), Duration::from_nanos(bound), "{told}");
        }
    }
}
