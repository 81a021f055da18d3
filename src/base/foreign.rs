//! Text that another host chose, and that this daemon shows or logs.

use std::fmt;

use super::text::printable;

/// Maximum number of characters that are shown, escapes included: enough for every sentence of an honest daemon.
const MAX_SHOWN: usize = 200;

/// Text from another host, such as the explanation in its closing frame or the name of its cluster.
///
/// It is displayed in quotation marks, shortened, and without anything that would break the line, control the terminal
/// or end the quotation. It therefore cannot pass for a statement of this daemon or for a line of its log.
#[derive(Clone, PartialEq, Eq)]
pub struct ForeignText(String);

impl ForeignText {
    /// Keeps the text as it will be shown.
    #[must_use]
    pub fn new(text: &str) -> ForeignText {
        ForeignText(one_line(text).replace('"', "'"))
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for ForeignText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl fmt::Debug for ForeignText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Escapes and shortens a message that may contain text from another host, such as a library's error about its
/// certificate.
#[must_use]
pub fn one_line(text: &str) -> String {
    // Shortened before it is escaped as well, so that a long text costs no more than a short one.
    let start: String = text.chars().take(MAX_SHOWN + 1).collect();
    let shown = printable(&start);
    if shown.chars().count() <= MAX_SHOWN {
        return shown.into_owned();
    }
    shown.chars().take(MAX_SHOWN - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_quoted() {
        assert_eq!(ForeignText::new("cluster name mismatch").to_string(), "\"cluster name mismatch\"");
        assert_eq!(ForeignText::new("höst").to_string(), "\"höst\"");
        assert_eq!(ForeignText::new("").to_string(), "\"\"");
    }

    #[test]
    fn text_cannot_leave_its_line_or_its_quotation() {
        let text = ForeignText::new("a\" all is well\r\nb\u{1b}[2J\u{202e}c\u{2028}");
        assert_eq!(text.to_string(), r#""a' all is well\r\nb\u{1b}[2J\u{202e}c\u{2028}""#);
        assert_eq!(format!("{text:?}"), text.to_string());
    }

    #[test]
    fn text_is_shortened() {
        for part in ["x", "\u{1b}", "\r\n", "\"", "ö"] {
            let shown = ForeignText::new(&part.repeat(300)).to_string();
            assert!(shown.ends_with("…\""), "{shown}");
            assert_eq!(shown.chars().count(), MAX_SHOWN + 2, "{shown}");
        }
        let all = "x".repeat(MAX_SHOWN);
        assert_eq!(ForeignText::new(&all).to_string(), format!("\"{all}\""));
    }
}
