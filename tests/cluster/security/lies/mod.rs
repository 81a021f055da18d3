//! A member that lies, against real daemons, with and without a certificate authority.
//!
//! While it attacks, all honest daemons answer lookups of each other's nodes, none of them needs more than a few megabytes
//! for it, an honest daemon joins, and operators are told who has broken which rule.

mod attacker;
mod floods;
mod forgeries;
mod invented;
mod members;
mod stage;
mod strangers;

/// Runs a test with and without an authority.
macro_rules! with_and_without_an_authority {
    ($($name:ident)*) => {$(
        mod $name {
            use crate::security::lies::stage::Admits;

            #[test]
            fn with_keys_alone() {
                super::$name(Admits::Keys);
            }

            #[test]
            fn with_certificates() {
                super::$name(Admits::Certificates);
            }
        }
    )*};
}
use with_and_without_an_authority;
