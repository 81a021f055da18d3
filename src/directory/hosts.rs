//! Comparison of host names.

/// Whether two names refer to the same host. Domains are compared only if both names are long.
#[must_use]
pub fn same_host(one: &str, other: &str) -> bool {
    if one.contains('.') && other.contains('.') {
        return one.eq_ignore_ascii_case(other);
    }
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    short(one) == short(other)
}
