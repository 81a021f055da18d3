//! Which hosts are reached through tunnels, and who may come in through one: patterns, without sockets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest pattern, in bytes: that of a name with every letter given twice.
const MAX_PATTERN: usize = 512;

/// Text in which `*` stands for any letters and `?` for one. Upper and lower case are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// Text that is no [`Pattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to {MAX_PATTERN} bytes; * stands for any letters and ? for one")]
pub struct NotAPattern;

impl Pattern {
    /// The pattern that everything matches.
    #[must_use]
    pub fn any() -> Pattern {
        Pattern("*".to_owned())
    }

    /// Whether all of `text` is what the pattern says.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.to_lowercase().chars().collect();
        let pattern: Vec<char> = self.0.chars().collect();
        // The usual way with one star to go back to: linear for what people write.
        let (mut at, mut in_text) = (0, 0);
        let mut star = None;
        while let Some(letter) = text.get(in_text) {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, in_text));
                    at += 1;
                }
                Some(wanted) if *wanted == '?' || wanted == letter => {
                    at += 1;
                    in_text += 1;
                }
                _ => {
                    let Some((after, taken)) = star else { return false };
                    star = Some((after, taken + 1));
                    at = after + 1;
                    in_text = taken + 1;
                }
            }
        }
        pattern.get(at..).unwrap_or_default().iter().all(|letter| *letter == '*')
    }

    /// Whether a host is meant: by its whole name, or by the short form of it.
    #[must_use]
    pub fn matches_host(&self, host: &str) -> bool {
        self.matches(host) || host.split_once('.').is_some_and(|(short, _)| self.matches(short))
    }
}

impl FromStr for Pattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Pattern, NotAPattern> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(NotAPattern);
        }
        Ok(Pattern(text.to_lowercase()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Whether a host is reached through tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Always: its name means its alias.
    #[default]
    Always,
    /// Only if its nodes cannot be reached by the address that its name has without pmd.
    WhenNeeded,
    /// Never: its name means what it meant without pmd.
    Never,
}

/// What is done about some hosts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelRule {
    /// Which hosts.
    pub host: Pattern,
    /// What.
    pub mode: Mode,
}

/// What is done about which host: by the first rule that it matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelRules {
    /// In the order of the configuration file.
    pub rules: Vec<TunnelRule>,
    /// About hosts without a rule.
    pub default: Mode,
}

impl TunnelRules {
    /// Whether anything is done in this way.
    #[must_use]
    pub fn uses(&self, mode: Mode) -> bool {
        self.default == mode || self.rules.iter().any(|rule| rule.mode == mode)
    }

    /// What is done about `host`.
    #[must_use]
    pub fn mode(&self, host: &str) -> Mode {
        self.rules.iter().find(|rule| rule.host.matches_host(host)).map_or(self.default, |rule| rule.mode)
    }
}

/// A door: hosts that may come in, and what they may reach.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AllowRule {
    /// Which hosts.
    #[serde(default = "Pattern::any")]
    pub host: Pattern,
    /// Which nodes and services of this host.
    #[serde(default = "Pattern::any")]
    pub name: Pattern,
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host = \"{}\" name = \"{}\"", self.host, self.name)
    }
}

/// Who may come in. Without any rule every member may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowRules(pub Vec<AllowRule>);

impl AllowRules {
    /// Lets `host` reach `name`, or says which rules do not.
    ///
    /// # Errors
    ///
    /// If there are rules and none lets it.
    pub fn check(&self, host: &str, name: &str) -> Result<(), String> {
        if self.0.is_empty()
            || self.0.iter().any(|rule| rule.host.matches_host(host) && rule.name.matches(name))
        {
            return Ok(());
        }
        // The rules that come nearest say most: those about this name, else those about this host, else all.
        let about = |is_near: &dyn Fn(&AllowRule) -> bool| -> Vec<String> {
            self.0.iter().filter(|rule| is_near(rule)).map(|rule| format!("[{rule}]")).collect()
        };
        let near = [
            about(&|rule| rule.name.matches(name)),
            about(&|rule| rule.host.matches_host(host)),
            about(&|_| true),
        ];
        let near = near.into_iter().find(|rules| !rules.is_empty()).unwrap_or_default();
        let shown = near.iter().take(3).cloned().collect::<Vec<_>>().join(" ");
        let more = if near.len() > 3 { " ..." } else { "" };
        Err(format!("the host {host:?} may not reach {name:?}: allowed is only {shown}{more}"))
    }
}

/// What can be changed while the daemon runs: tunnels that are open stay open, those to come follow it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which hosts are reached through tunnels.
    pub rules: TunnelRules,
    /// Who may come in through one.
    pub allow: AllowRules,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn stars_and_question_marks() {
        for (text, yes, no) in [
            ("*", vec!["", "a", "web1"], vec![]),
            ("web*", vec!["web", "WEB1", "web1.example.org"], vec!["we", "aweb"]),
            ("*db?", vec!["db1", "mydb2"], vec!["db", "db12"]),
            ("a*b*c", vec!["abc", "axxbxxbyyc"], vec!["abcd", "acb"]),
            ("rabbit", vec!["rabbit", "Rabbit"], vec!["rabbits", ""]),
        ] {
            for name in yes {
                assert!(pattern(text).matches(name), "{text} {name}");
            }
            for name in no {
                assert!(!pattern(text).matches(name), "{text} {name}");
            }
        }
        assert!(pattern("db?").matches_host("db1.example.org"));
        assert!(!pattern("db?").matches_host("web.db1"));
        assert_eq!("".parse::<Pattern>(), Err(NotAPattern));
    }

    #[test]
    fn the_first_rule_of_a_host_counts() {
        let rule = |host: &str, mode| TunnelRule { host: pattern(host), mode };
        let rules = TunnelRules {
            rules: vec![rule("db9", Mode::Always), rule("db*", Mode::Never)],
            default: Mode::WhenNeeded,
        };
        assert_eq!(rules.mode("db9.example.org"), Mode::Always);
        assert_eq!(rules.mode("db1"), Mode::Never);
        assert_eq!(rules.mode("web"), Mode::WhenNeeded);
    }

    #[test]
    fn a_refusal_names_the_rule() {
        let rule = |host: &str, name: &str| AllowRule { host: pattern(host), name: pattern(name) };
        assert_eq!(AllowRules::default().check("any", "thing"), Ok(()));
        let rules = AllowRules(vec![rule("web*", "rabbit"), rule("admin", "*")]);
        assert_eq!(rules.check("web1", "rabbit"), Ok(()));
        assert_eq!(rules.check("admin.example.org", "shell"), Ok(()));
        let refused = rules.check("db1", "rabbit").expect_err("it may not");
        assert!(refused.contains("[host = \"web*\" name = \"rabbit\"]"), "{refused}");
        assert!(rules.check("web1", "shell").is_err());
    }

    proptest! {
        #[test]
        fn text_matches_itself_and_any_of_its_ends(text in "[a-z0-9.-]{1,20}", cut in 0_usize..20) {
            prop_assert!(pattern(&text).matches(&text));
            let cut = cut.min(text.len());
            let (start, end) = (text.get(..cut).unwrap_or_default(), text.get(cut..).unwrap_or_default());
            let (before, after, both) =
                (format!("{start}*"), format!("*{end}"), format!("{start}*{end}"));
            for around in [before, after, both] {
                prop_assert!(pattern(&around).matches(&text), "{} {}", around, text);
            }
        }
    }
}
