//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

/// The content type of a page in this format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family of metrics, whose samples are read from a `T`.
#[derive(Debug)]
pub struct Family<T> {
    /// The name that all its samples share.
    pub name: &'static str,
    /// Its type: `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The help text, in one line.
    pub help: &'static str,
    /// Writes its samples; `None` omits the family from the page.
    pub samples: fn(&T, &mut Samples<'_>) -> Option<()>,
}

/// Renders the page of these families with the values of `observed`.
pub fn render<T>(families: &[Family<T>], observed: &T) -> String {
    let mut page = String::new();
    for Family { name, kind, help, samples } in families {
        let before = page.len();
        // Writing to a string cannot fail, here and below.
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        if samples(observed, &mut Samples { page: &mut page, name }).is_none() {
            page.truncate(before);
        }
    }
    page
}

/// Writes the samples of one family. All methods return `Some`, so that they can be the result of [`Family::samples`].
#[derive(Debug)]
pub struct Samples<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    /// Writes one sample without labels.
    pub fn one(&mut self, value: impl Display) -> Option<()> {
        self.with("", &[], value)
    }

    /// Writes a sample for each value of a label.
    pub fn by<const N: usize, T: Display>(&mut self, label: &str, values: [(&str, T); N]) -> Option<()> {
        values.into_iter().try_for_each(|(of, value)| self.with("", &[(label, of)], value))
    }

    /// Writes a sample with these labels; `suffix` distinguishes the series of a histogram.
    pub fn with(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) -> Option<()> {
        let _ = write!(self.page, "{}{suffix}", self.name);
        for (number, (label, of)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.page, "{before}{label}=\"{}\"", escaped(of));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.page, "{end} {value}");
        Some(())
    }
}

/// Escapes the value of a label for double quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_follows_the_format() {
        let family = |name, kind, samples| Family::<u64> { name, kind, help: "Help.", samples };
        let families = [
            family("pmd_one", "gauge", |_, samples| samples.one(1.5)),
            family("pmd_absent", "gauge", |_, samples| samples.one(0).and(None)),
            family("pmd_empty", "gauge", |_, samples| samples.by("x", [("", 0); 0])),
            family("pmd_some_total", "counter", |good, samples| {
                samples.by("result", [("good", *good), ("bad", 0)])
            }),
            family("pmd_size", "histogram", |_, samples| {
                samples.with("_count", &[("host", "a\\b\"c\nd"), ("x", "y")], u64::MAX)
            }),
        ];
        assert_eq!(
            render(&families, &2),
            "# HELP pmd_one Help.\n# TYPE pmd_one gauge\npmd_one 1.5\n\
             # HELP pmd_empty Help.\n# TYPE pmd_empty gauge\n\
             # HELP pmd_some_total Help.\n# TYPE pmd_some_total counter\n\
             pmd_some_total{result=\"good\"} 2\npmd_some_total{result=\"bad\"} 0\n\
             # HELP pmd_size Help.\n# TYPE pmd_size histogram\n\
             pmd_size_count{host=\"a\\\\b\\\"c\\nd\",x=\"y\"} 18446744073709551615\n"
        );
    }
}
