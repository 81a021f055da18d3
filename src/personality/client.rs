//! Stock epmd's commands for a running port mapper, to the byte.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::process::ExitCode;

use pmd_protocol::epmd::{Request, encode};
use pmd_protocol::limits::MAX_LISTING;

use super::args::Command;

/// The longest name that `-stop` takes, in bytes.
const MAX_STOP_NAME: usize = 1000;
/// Bytes of an answer to STOP that are read: stock's, so that `NOEXISTSTOPPED` reads as `NOEXIST`.
const STOP_ANSWER: u64 = 7;
/// Bytes of an answer to KILL that are read.
const KILL_ANSWER: u64 = 2;

/// What a command prints, and whether it has succeeded.
#[derive(Debug, Default)]
struct Outcome {
    stdout: Vec<u8>,
    stderr: &'static str,
    success: bool,
}

/// Runs a command and prints what stock epmd prints.
pub fn run(command: &Command, port: i32) -> ExitCode {
    let outcome = match command {
        Command::Names => listing(&Request::Names, port),
        Command::Dump => listing(&Request::Dump, port),
        Command::Started => started(port),
        Command::Kill => kill(port),
        Command::Stop(name) => stop(name, port),
    };
    eprint!("{}", outcome.stderr);
    // One write: callers that read a pipe once take the first piece for the whole. The library's standard output
    // would cut it at the last line's end.
    let mut rest = outcome.stdout.as_slice();
    while !rest.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    if outcome.success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn listing(request: &Request<'_>, port: i32) -> Outcome {
    match ask(request, port, u64::try_from(MAX_LISTING).unwrap_or(u64::MAX)) {
        Err(AskError::Connect) => cannot_connect(),
        Err(AskError::Read) => no_response(),
        Ok(answer) => match answer.split_first_chunk::<4>() {
            None => no_response(),
            Some((header, text)) => {
                let port = i32::from_be_bytes(*header);
                let mut stdout = format!("epmd: up and running on port {port} with data:\n").into_bytes();
                stdout.extend_from_slice(text);
                Outcome { stdout, success: true, ..Outcome::default() }
            }
        },
    }
}

fn started(port: i32) -> Outcome {
    let success = ask(&Request::Names, port, 4).is_ok_and(|answer| answer.len() == 4);
    Outcome { success, ..Outcome::default() }
}

fn kill(port: i32) -> Outcome {
    match ask(&Request::Kill, port, KILL_ANSWER) {
        Err(AskError::Connect) => cannot_connect(),
        Err(AskError::Read) => failed_to_read(),
        Ok(answer) => match answer.as_slice() {
            encode::KILL_OK => said("Killed\n", true),
            encode::KILL_REFUSED => said("Killing not allowed - living nodes in database.\n", false),
            other => unexpected(other),
        },
    }
}

fn stop(name: &str, port: i32) -> Outcome {
    if name.len() > MAX_STOP_NAME {
        return said("epmd: Name too long!", false);
    }
    match ask(&Request::Stop { name: name.as_bytes() }, port, STOP_ANSWER) {
        Err(AskError::Connect) => cannot_connect(),
        Err(AskError::Read) => failed_to_read(),
        Ok(answer) => match answer.as_slice() {
            encode::STOPPED => said("STOPPED\n", true),
            b"NOEXIST" => said("NOEXIST\n", true),
            other => unexpected(other),
        },
    }
}

fn said(text: &str, success: bool) -> Outcome {
    Outcome { stdout: text.into(), success, ..Outcome::default() }
}

fn no_response() -> Outcome {
    said("epmd: no response from local epmd\n", false)
}

fn failed_to_read() -> Outcome {
    said("epmd: failed to read answer from local epmd\n", false)
}

fn cannot_connect() -> Outcome {
    Outcome { stderr: "epmd: Cannot connect to local epmd\n", ..Outcome::default() }
}

fn unexpected(answer: &[u8]) -> Outcome {
    let mut stdout = b"epmd: local epmd responded with <".to_vec();
    stdout.extend_from_slice(answer);
    stdout.extend_from_slice(b">\n");
    Outcome { stdout, ..Outcome::default() }
}

enum AskError {
    Connect,
    Read,
}

/// Sends a request and reads at most `limit` bytes of the answer. Waits as long as it takes, as stock does.
fn ask(request: &Request<'_>, port: i32, limit: u64) -> Result<Vec<u8>, AskError> {
    let [.., high, low] = port.to_be_bytes();
    let port = u16::from_be_bytes([high, low]);
    let mut stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port))
        .or_else(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
        .map_err(|_| AskError::Connect)?;
    let mut wire = Vec::new();
    // Nothing that this module asks is longer than a request may be; -stop without a name, which the library
    // rightly refuses to encode, goes out as stock sends it.
    if encode::request(request, &mut wire).is_err() {
        wire = vec![0, 1, pmd_protocol::epmd::request::STOP_REQ];
    }
    let mut answer = Vec::new();
    // A peer that closes without reading answers with a reset, which stock takes for an empty answer.
    if stream.write_all(&wire).is_err() {
        return Ok(answer);
    }
    match stream.take(limit).read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(answer),
        Err(_) => Err(AskError::Read),
    }
}
