//! `pmd ping`: tests each hop to a node.

use std::io::{self, Write};

use super::args;
use super::common::{Exit, Failure, Output, Result, Target, block_on, explain, with_progress};
use crate::base::text::printable;
use crate::config::environment;
use crate::control::api::{CookieTest, Pinged};
use crate::doctor::erlang_cookie::{self, CallersCookie, CookieError};
use crate::doctor::node::{COOKIE_REMEDY, cookie_hop, test};

impl From<CookieError> for Failure {
    fn from(error: CookieError) -> Failure {
        let hint = "name another file (--erlang-cookie FILE), or unset RELEASE_COOKIE";
        Failure::new(Exit::Usage, error.to_string(), hint)
    }
}

/// The Erlang cookie that these options select.
pub fn callers_cookie(args: &args::OwnCookie) -> Result<CallersCookie> {
    Ok(erlang_cookie::find(args.erlang_cookie.as_deref(), environment::of_process)?)
}

/// Tests each hop to the node.
pub fn run(target: &Target, args: &args::Ping, output: Output) -> Result<Exit> {
    let cookie = callers_cookie(&args.cookie)?;
    block_on(async {
        let client = target.client();
        let doing = format!("testing the path to {}", args.node);
        let tested = async { explain(target, test(&client, &args.node, &cookie).await).await };
        let pinged = with_progress(&doing, tested).await?;
        output.one(&pinged, |out| write_hops(out, &pinged))?;
        if pinged.cookie == Some(CookieTest::Refused) {
            let what = cookie_hop(&pinged).unwrap_or_default();
            return Err(Failure::new(Exit::Refused, format!("{}: {what}", pinged.node), COOKIE_REMEDY));
        }
        Ok(Exit::Done)
    })
}

fn write_hops(out: &mut dyn Write, pinged: &Pinged) -> io::Result<()> {
    for hop in &pinged.hops {
        writeln!(out, "{:<9} {:>10}  {}", hop.hop, milliseconds(hop.took_us), printable(&hop.what))?;
    }
    let (node, path) = (printable(&pinged.node), &pinged.path);
    writeln!(out, "{:<9} {:>10}  {node} answers, {path}", "all", milliseconds(pinged.took_us))
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::Hop;

    #[test]
    fn every_hop_has_a_line() {
        let hop = |hop: &str, took_us| Hop { hop: hop.into(), what: "it\nworks".into(), took_us };
        let pinged = Pinged {
            node: "bar@far".into(),
            host: "far".into(),
            port: 5_000,
            path: "direct".into(),
            address: None,
            hops: vec![hop("lookup", 25), hop("daemon", 12_345)],
            took_us: 13_000,
            entry: None,
            tls: false,
            cookie: None,
        };
        let mut out = Vec::new();
        write_hops(&mut out, &pinged).expect("in-memory write");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "lookup      0.025 ms  it\\nworks\n\
             daemon     12.345 ms  it\\nworks\n\
             all        13.000 ms  bar@far answers, direct\n"
        );
    }
}
