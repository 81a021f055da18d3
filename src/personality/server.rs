//! `epmd` as a server: maps stock epmd's options to settings, and failures to its exit codes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use super::args::ServeOptions;
use super::{joined, log};
use crate::base::shutdown::Reason;
use crate::config::paths::Paths;
use crate::config::settings::Settings;
use crate::daemon::notify;
use crate::daemon::run::{RunOptions, SignalRules, StartError, foreground};
use crate::daemon::systemd::inherited_listeners;
use pmd_epmd::names::table::OLD_NAMES_DEBUG;
use pmd_epmd::server::listener::ListenError;

/// The maximum number of addresses in the list, not counting loopback.
const MAX_LISTED: usize = 13;
/// What a daemon does that cannot join.
const ALONE: &str = "this epmd knows only the nodes of its own host";
/// Time limit for the holder of the port to answer an EPMD request.
const ANSWER: Duration = Duration::from_secs(1);

/// Serves until stopped. `background` is set in the process started by `-daemon`.
pub fn run(options: &ServeOptions, background: bool) -> ExitCode {
    // Tools such as pgrep look for this name, which is not "epmd" if the process was started through /proc/self/exe.
    let _ = rustix::thread::set_name(c"epmd");
    let _flush = log::init(options.debug, background);
    let status = serve(options, background);
    if options.systemd {
        notify::exited(status);
    }
    ExitCode::from(status)
}

/// Serves, and returns the exit status.
fn serve(options: &ServeOptions, background: bool) -> u8 {
    const FAILED: u8 = 1;
    let inherited = match options.systemd.then(inherited_listeners).transpose() {
        Ok(Some(None)) => {
            tracing::error!("systemd passed no sockets");
            return FAILED;
        }
        Ok(inherited) => inherited.flatten(),
        Err(error) => {
            tracing::error!("{error}");
            return FAILED;
        }
    };
    let bind = match parse_addresses(&options.address) {
        Ok(bind) => bind,
        Err(message) => {
            tracing::error!("{message}");
            return FAILED;
        }
    };
    let joined = joined::settings(options, &bind).unwrap_or_else(|error| {
        tracing::error!("{error}; {}; {ALONE}", error.hint());
        None
    });
    let alone = settings(options, bind);
    let listen_port = alone.listen_port();
    tracing::debug!("epmd running - daemon = {}", u8::from(background));
    let run = |settings: Settings, inherited| {
        // A member says goodbye when it ends.
        let signals =
            if settings.cluster.is_some() { SignalRules::Service } else { SignalRules::Stock { background } };
        let run_options = RunOptions {
            inherited,
            signals,
            notify: options.systemd,
            announce: background.then_some(None),
            ..RunOptions::default()
        };
        foreground(settings, run_options)
    };
    let ended = match joined {
        None => run(alone, inherited),
        Some(joined) => match run(joined, inherited) {
            // The node that has started this daemon needs a port mapper more than a cluster.
            Err(StartError::Cluster(error)) if !options.systemd => {
                tracing::error!("{error}; {}; {ALONE}", error.hint());
                run(alone, None)
            }
            ended => ended,
        },
    };
    match ended {
        // The log names the part that failed.
        Ok(Reason::Failed) => FAILED,
        Ok(_) => 0,
        Err(StartError::Listen(ListenError::InUse(address))) => {
            // The normal case: every starting node runs `epmd -daemon`, even if one is already running.
            if is_port_mapper(listen_port) {
                tracing::debug!("there is already an epmd running at {address}");
            } else {
                tracing::error!(
                    "{address} is in use, but not by an epmd; find out which program holds it, or choose another -port"
                );
            }
            0
        }
        Err(error) => {
            tracing::error!("{error}");
            FAILED
        }
    }
}

fn settings(options: &ServeOptions, bind: Vec<IpAddr>) -> Settings {
    let listen_port = {
        let [.., high, low] = options.port.to_be_bytes();
        u16::from_be_bytes([high, low])
    };
    let mut settings = Settings::new(options.port, Paths::of_process().socket(listen_port));
    settings.bind = bind;
    settings.relaxed_command_check = options.relaxed_command_check;
    settings.packet_timeout = options.packet_timeout;
    settings.delay_accept = options.delay_accept;
    settings.delay_write = options.delay_write;
    if options.debug > 0 {
        settings.old_names = OLD_NAMES_DEBUG;
    }
    settings
}

/// Parses a list of addresses separated by any number of commas and spaces.
fn parse_addresses(list: &str) -> Result<Vec<IpAddr>, String> {
    let addresses = list
        .split([',', ' '])
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().map_err(|_| format!("cannot parse IP address \"{word}\"")))
        .collect::<Result<Vec<IpAddr>, String>>()?;
    let listed = addresses.iter().filter(|address| !is_implied(**address)).count();
    if listed > MAX_LISTED {
        return Err(format!("cannot listen on {listed} addresses, the limit is {MAX_LISTED}"));
    }
    Ok(addresses)
}

fn is_implied(address: IpAddr) -> bool {
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)].contains(&address)
}

/// Whether a port mapper answers on this port of this host.
pub fn is_port_mapper(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(&[0, 1, pmd_protocol::epmd::request::NAMES_REQ])?;
        let mut header = [0; 4];
        stream.read_exact(&mut header)?;
        Ok(i32::from_be_bytes(header) & 0xffff == i32::from(port))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_separated_by_commas_and_spaces() {
        let expected: Vec<IpAddr> = ["10.0.0.1", "::1"].iter().map(|a| a.parse().expect("valid")).collect();
        assert_eq!(parse_addresses(", 10.0.0.1 ,,::1 "), Ok(expected));
        assert_eq!(parse_addresses(" ,"), Ok(Vec::new()));
    }

    #[test]
    fn names_and_scopes_are_no_addresses() {
        assert!(parse_addresses("localhost").is_err());
        assert!(parse_addresses("fe80::1%eth0").is_err());
    }

    #[test]
    fn the_loopback_addresses_do_not_count_for_the_limit() {
        let thirteen: Vec<String> = (1..=13).map(|n| format!("10.0.0.{n}")).collect();
        let list = format!("127.0.0.1,::1,{}", thirteen.join(","));
        assert_eq!(parse_addresses(&list).map(|addresses| addresses.len()), Ok(15));
        assert!(parse_addresses(&format!("{list},10.0.0.14")).is_err());
    }
}
