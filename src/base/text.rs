//! Formats values for display.

use std::borrow::Cow;
use std::time::Duration;

use std::collections::BTreeMap;

/// Number of digits of an id or a fingerprint that are shown, which is enough to distinguish them.
const SHORT: usize = 16;

/// Escapes characters that would control a terminal or break a line, because names of nodes may contain anything.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().flat_map(|c| {
        let (plain, escaped) =
            if is_dangerous(c) { (None, Some(c.escape_default())) } else { (Some(c), None) };
        plain.into_iter().chain(escaped.into_iter().flatten())
    });
    Cow::Owned(escaped.collect())
}

/// Whether `c` is a control character, a line separator or a bidirectional control.
fn is_dangerous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Removes the numbers of system errors, ` (os error N)`, which add nothing to the message before them.
pub fn without_numbers(text: &str) -> Cow<'_, str> {
    const BEGIN: &str = " (os error ";
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, number)) = rest.split_once(BEGIN) {
        let behind = number.trim_start_matches(|c: char| c.is_ascii_digit());
        kept.push_str(before);
        rest = match behind.strip_prefix(')') {
            Some(behind) if number.len() > behind.len() + 1 => behind,
            _ => {
                kept.push_str(BEGIN);
                number
            }
        };
    }
    if kept.is_empty() && rest.len() == text.len() { Cow::Borrowed(text) } else { Cow::Owned(kept + rest) }
}

/// Formats a time span with its two largest units.
pub fn span(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, length) in units {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Formats a duration in the form that users type.
pub fn time(time: Duration) -> String {
    jiff::SignedDuration::try_from(time).map(|time| format!("{time:#}")).unwrap_or_default()
}

/// Formats a network latency with three significant digits.
pub fn milliseconds(microseconds: u64) -> String {
    // The loss of precision does not show in the few digits.
    #[allow(clippy::cast_precision_loss)]
    let milliseconds = microseconds as f64 / 1000.0;
    match microseconds {
        0..10_000 => format!("{milliseconds:.2} ms"),
        10_000..100_000 => format!("{milliseconds:.1} ms"),
        _ => format!("{milliseconds:.0} ms"),
    }
}

/// Formats an age, with tenths of a second below ten seconds.
pub fn ago(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{}.{}s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => span(milliseconds / 1000),
    }
}

/// Formats a number of bytes with a suitable unit.
pub fn bytes(number: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    // In tenths of the unit.
    let (mut tenths, mut unit) = (number / 100, 0);
    if number < 1000 {
        return format!("{number} B");
    }
    while tenths >= 10_000 && unit + 1 < units.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, units.get(unit).unwrap_or(&""))
}

/// Shortens an id or a fingerprint.
pub fn short(digits: &str) -> &str {
    digits.get(..SHORT).unwrap_or(digits)
}

/// Formats key-value pairs on one line.
pub fn metadata(pairs: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", printable(key), printable(value))).collect();
    pairs.join(" ")
}

/// Joins items: "a", "a and b", "a, b and c".
pub fn listed(things: &[String]) -> String {
    match things {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Formats a number with a noun in singular or plural.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("rabbit-1@höst"), "rabbit-1@höst");
        assert_eq!(
            printable("a\u{1b}[31m\nb\u{202e}c\u{9b}d\u{7f}"),
            "a\\u{1b}[31m\\nb\\u{202e}c\\u{9b}d\\u{7f}"
        );
    }

    #[test]
    fn numbers_of_system_errors_are_removed() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(
            without_numbers(&format!("cannot read x: {error}; nor y: {error}")),
            "cannot read x: No such file or directory; nor y: No such file or directory"
        );
        for text in ["", "no number", "a (os error )", "b (os error x) (os error 1", "c (os error -1)"] {
            assert_eq!(without_numbers(text), text);
        }
        assert_eq!(without_numbers("d (os error  (os error 7)"), "d (os error ");
        assert_eq!(without_numbers(" (os error 7)"), "");
    }

    #[test]
    fn a_span_has_its_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3600, "1h"),
            (3601, "1h"),
            (11_520, "3h 12m"),
            (90_000, "1d 1h"),
            (172_800, "2d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn numbers_have_a_suitable_unit() {
        assert_eq!(
            [0, 140, 9_999, 45_600, 250_000].map(milliseconds),
            ["0.00 ms", "0.14 ms", "10.00 ms", "45.6 ms", "250 ms"]
        );
        assert_eq!([0, 940, 9_999, 10_000, 75_000].map(ago), ["0.0s", "0.9s", "9.9s", "10s", "1m 15s"]);
        assert_eq!(
            [0, 999, 1000, 999_999, 1_000_000, 12_345_678, u64::MAX].map(bytes),
            ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "12.3 MB", "18.4 EB"]
        );
        assert_eq!(time(Duration::from_millis(1500)), "1s 500ms");
    }

    #[test]
    fn items_are_joined() {
        let things = ["a", "b", "c"].map(str::to_owned);
        assert_eq!([0, 1, 2, 3].map(|number| listed(&things[..number])), ["", "a", "a and b", "a, b and c"]);
        assert_eq!((short("0123456789abcdef0123"), short("01")), ("0123456789abcdef", "01"));
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(count(1, "node", "nodes"), "1 node");
        assert_eq!(count(0, "node", "nodes"), "0 nodes");
    }
}
