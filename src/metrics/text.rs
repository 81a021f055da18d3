//! The text format, version 0.0.4.

use std::fmt::{Display, Write};

/// What an answer in this format says it is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the numbers of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows until the daemon is restarted.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page(String);

/// Adds samples to a family of metrics.
#[derive(Debug)]
pub struct Family<'a> {
    page: &'a mut String,
    name: &'a str,
}

impl Page {
    /// Begins a family; `help` says what it is in a line.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { page: &mut self.0, name }
    }

    /// A family of one number.
    pub fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample("", &[], value);
    }

    /// A family of a number for each value of a label.
    pub fn by<T: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, T)>,
    ) {
        let mut family = self.family(name, kind, help);
        for (of, value) in values {
            family.sample("", &[(label, of)], value);
        }
    }

    /// The whole page.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample; `suffix` is what the parts of a histogram have behind their name.
    pub fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.page.push_str(self.name);
        self.page.push_str(suffix);
        for (number, (label, of)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.page, "{before}{label}=\"{}\"", escaped(of));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.page, "{end} {value}");
    }
}

/// A value as it may stand between the quotes of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_the_format_says() {
        let mut page = Page::default();
        page.one("pmd_one", Kind::Gauge, "One.", 1.5);
        page.by("pmd_some_total", Kind::Counter, "Some.", "result", [("good", 2), ("bad", 0)]);
        let mut family = page.family("pmd_size", Kind::Histogram, "Sizes.");
        family.sample("_count", &[("host", "a\\b\"c\nd"), ("x", "y")], u64::MAX);
        assert_eq!(
            page.finish(),
            "# HELP pmd_one One.\n# TYPE pmd_one gauge\npmd_one 1.5\n\
             # HELP pmd_some_total Some.\n# TYPE pmd_some_total counter\n\
             pmd_some_total{result=\"good\"} 2\npmd_some_total{result=\"bad\"} 0\n\
             # HELP pmd_size Sizes.\n# TYPE pmd_size histogram\n\
             pmd_size_count{host=\"a\\\\b\\\"c\\nd\",x=\"y\"} 18446744073709551615\n"
        );
    }
}
