//! Applies the configured [rules](crate::config::rules): which hosts are reached through tunnels, and what they may
//! reach.

use crate::config::rules::{AllowRule, Mode, Pattern};
use crate::config::tunnel::TunnelPolicy;

/// Whether any host is reached in this mode.
#[must_use]
pub fn uses(policy: &TunnelPolicy, mode: Mode) -> bool {
    policy.mode == mode || policy.rules.iter().any(|rule| rule.mode == mode)
}

/// The mode in which `host` is reached, according to the first rule that matches it.
#[must_use]
pub fn mode(policy: &TunnelPolicy, host: &str) -> Mode {
    policy.rules.iter().find(|rule| matches_host(&rule.host, host)).map_or(policy.mode, |rule| rule.mode)
}

/// Whether nodes on the host `own` may resolve `host` through pmd: if its name has `own`'s domain or none, or if the
/// whole name matches a rule. A member chooses its own name, so it could take those of all domains otherwise.
#[must_use]
pub fn may_resolve(policy: &TunnelPolicy, own: &str, host: &str) -> bool {
    let domain = |name: &str| name.split_once('.').map(|(_, domain)| domain.to_lowercase());
    let foreign = domain(host);
    foreign.is_none() || foreign == domain(own) || policy.rules.iter().any(|rule| matches(&rule.host, host))
}

/// Checks whether `host` may reach `name`. Without rules, every member may reach everything.
///
/// # Errors
///
/// If there are rules and none of them allows it; the message shows the closest rules.
pub fn check(rules: &[AllowRule], host: &str, name: &str) -> Result<(), String> {
    let allows = |rule: &AllowRule| matches_host(&rule.host, host) && matches(&rule.name, name);
    if rules.is_empty() || rules.iter().any(allows) {
        return Ok(());
    }
    // The closest rules are those for this name, otherwise those for this host, otherwise all.
    let about = |is_close: &dyn Fn(&AllowRule) -> bool| -> Vec<String> {
        rules.iter().filter(|rule| is_close(rule)).map(|rule| format!("[{rule}]")).collect()
    };
    let close = [
        about(&|rule| matches(&rule.name, name)),
        about(&|rule| matches_host(&rule.host, host)),
        about(&|_| true),
    ];
    let close = close.into_iter().find(|rules| !rules.is_empty()).unwrap_or_default();
    let shown = close.iter().take(3).cloned().collect::<Vec<_>>().join(" ");
    let more = if close.len() > 3 { " ..." } else { "" };
    Err(format!("no rule allows {host:?} to reach {name:?}; the closest: {shown}{more}"))
}

/// Whether a pattern matches a host's full or short name.
fn matches_host(pattern: &Pattern, host: &str) -> bool {
    matches(pattern, host) || host.split_once('.').is_some_and(|(short, _)| matches(pattern, short))
}

/// Whether a pattern matches all of `text`.
fn matches(pattern: &Pattern, text: &str) -> bool {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let pattern: Vec<char> = pattern.as_str().chars().collect();
    // Backtracking only to the last star avoids exponential time.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::rules::TunnelRule;

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
                assert!(matches(&pattern(text), name), "{text} {name}");
            }
            for name in no {
                assert!(!matches(&pattern(text), name), "{text} {name}");
            }
        }
        assert!(matches_host(&pattern("db?"), "db1.example.org"));
        assert!(!matches_host(&pattern("db?"), "web.db1"));
    }

    #[test]
    fn the_first_matching_rule_applies() {
        let rule = |host: &str, mode| TunnelRule { host: pattern(host), mode };
        let policy = TunnelPolicy {
            rules: vec![rule("db9", Mode::Always), rule("db*", Mode::Never)],
            mode: Mode::WhenNeeded,
            allow: Vec::new(),
        };
        assert_eq!(mode(&policy, "db9.example.org"), Mode::Always);
        assert_eq!(mode(&policy, "db1"), Mode::Never);
        assert_eq!(mode(&policy, "web"), Mode::WhenNeeded);
    }

    #[test]
    fn hosts_of_other_domains_are_resolved_only_by_a_rule_for_the_whole_name() {
        let rule = |host: &str| TunnelRule { host: pattern(host), mode: Mode::Always };
        let policy = |rules: &[TunnelRule]| TunnelPolicy { rules: rules.to_vec(), ..TunnelPolicy::default() };
        for (own, host, without_rule) in [
            ("web.example.org", "db.Example.org", true),
            ("web.example.org", "db", true),
            ("web", "db", true),
            ("web", "db.example.org", false),
            ("web.example.org", "mail.example.com", false),
            ("web.example.org", "db.eu.example.org", false),
            ("web.example.org", "example.org", false),
        ] {
            assert_eq!(may_resolve(&policy(&[]), own, host), without_rule, "{own} {host}");
            assert!(may_resolve(&policy(&[rule(&host.to_lowercase())]), own, host), "{own} {host}");
        }
        assert!(!may_resolve(&policy(&[rule("db")]), "web", "db.example.org"), "any domain may have a db");
    }

    #[test]
    fn a_rejection_names_the_closest_rule() {
        let rule = |host: &str, name: &str| AllowRule { host: pattern(host), name: pattern(name) };
        assert_eq!(check(&[], "any", "thing"), Ok(()));
        let rules = [rule("web*", "rabbit"), rule("admin", "*")];
        assert_eq!(check(&rules, "web1", "rabbit"), Ok(()));
        assert_eq!(check(&rules, "admin.example.org", "shell"), Ok(()));
        let refused = check(&rules, "db1", "rabbit").expect_err("it may not");
        assert!(refused.contains("[host = \"web*\" name = \"rabbit\"]"), "{refused}");
        assert!(check(&rules, "web1", "shell").is_err());
    }

    proptest! {
        #[test]
        fn text_matches_itself_and_any_of_its_ends(text in "[a-z0-9.-]{1,20}", cut in 0_usize..20) {
            prop_assert!(matches(&pattern(&text), &text));
            let cut = cut.min(text.len());
            let (start, end) = (text.get(..cut).unwrap_or_default(), text.get(cut..).unwrap_or_default());
            let (before, after, both) =
                (format!("{start}*"), format!("*{end}"), format!("{start}*{end}"));
            for around in [before, after, both] {
                prop_assert!(matches(&pattern(&around), &text), "{} {}", around, text);
            }
        }
    }
}
