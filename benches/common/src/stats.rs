//! Percentiles of latencies, and medians of figures.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies up to ten minutes, kept to three significant digits.
#[derive(Debug, Clone)]
pub struct Latencies(Option<Histogram<u64>>);

impl Default for Latencies {
    fn default() -> Latencies {
        const LONGEST_NANOS: u64 = 600_000_000_000;
        const DIGITS: u8 = 3;
        // The bounds are valid. If they were not, nothing would count as measured.
        Latencies(Histogram::new_with_max(LONGEST_NANOS, DIGITS).ok())
    }
}

impl Latencies {
    /// Records one latency.
    pub fn record(&mut self, latency: Duration) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Records the longest of these, if any: the time at which the last of several was done.
    pub fn record_longest(&mut self, latencies: impl IntoIterator<Item = Duration>) {
        if let Some(longest) = latencies.into_iter().max() {
            self.record(longest);
        }
    }

    /// The given percentile in microseconds; NaN if nothing was recorded.
    pub fn micros(&self, percent: f64) -> f64 {
        let recorded = self.0.as_ref().filter(|histogram| !histogram.is_empty());
        recorded.map_or(f64::NAN, |histogram| histogram.value_at_quantile(percent / 100.0) as f64 / 1e3)
    }

    /// The given percentile in milliseconds; NaN if nothing was recorded.
    pub fn millis(&self, percent: f64) -> f64 {
        self.micros(percent) / 1e3
    }
}

/// The middle value, or the mean of the two middle ones; NaN if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
