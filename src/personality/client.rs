//! Stock epmd's commands for a running port mapper, with byte-for-byte the same output.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::process::ExitCode;

use pmd_protocol::epmd::encode;
use pmd_protocol::epmd::request::{DUMP_REQ, KILL_REQ, NAMES_REQ, STOP_REQ};
use pmd_protocol::limits::MAX_LISTING;

use super::args::Command;

/// The longest name that `-stop` accepts, in bytes.
const MAX_STOP_NAME: usize = 1000;
/// Bytes of a STOP answer to read. Like stock epmd, this prints `NOEXISTSTOPPED` as `NOEXIST`.
const STOP_ANSWER: usize = 7;
/// Bytes of a KILL answer to read.
const KILL_ANSWER: usize = 2;

/// The output of a command, and whether it succeeded.
#[derive(Debug, Default)]
struct Outcome {
    stdout: Vec<u8>,
    stderr: &'static str,
    success: bool,
}

/// Runs a command and prints what stock epmd prints.
pub fn run(command: &Command, port: i32) -> ExitCode {
    let outcome = match command {
        Command::Names => listing(NAMES_REQ, port),
        Command::Dump => listing(DUMP_REQ, port),
        Command::Started => started(port),
        Command::Kill => kill(port),
        Command::Stop(name) => stop(name, port),
    };
    eprint!("{}", outcome.stderr);
    // A single write, because some callers read the pipe only once. Rust's stdout would split it at the last newline.
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

fn listing(opcode: u8, port: i32) -> Outcome {
    match ask(&[opcode], port, u64::try_from(MAX_LISTING).unwrap_or(u64::MAX)) {
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
    let success = ask(&[NAMES_REQ], port, 4).is_ok_and(|answer| answer.len() == 4);
    Outcome { success, ..Outcome::default() }
}

fn kill(port: i32) -> Outcome {
    match ask_exactly(&[KILL_REQ], port, KILL_ANSWER) {
        Ok(answer) if answer == encode::KILL_OK => printed("Killed\n", true),
        Ok(_) => printed("Killing not allowed - living nodes in database.\n", false),
        Err(outcome) => outcome,
    }
}

fn stop(name: &str, port: i32) -> Outcome {
    if name.len() > MAX_STOP_NAME {
        return printed("epmd: Name too long!", false);
    }
    // Like stock epmd, sends no terminating NUL.
    let body = [&[STOP_REQ], name.as_bytes()].concat();
    match ask_exactly(&body, port, STOP_ANSWER) {
        Ok(answer) => {
            let mut stdout = answer.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            stdout.push(b'\n');
            Outcome { stdout, success: true, ..Outcome::default() }
        }
        Err(outcome) => outcome,
    }
}

/// Sends a request whose answer has a fixed length; any other answer is an error.
fn ask_exactly(body: &[u8], port: i32, length: usize) -> Result<Vec<u8>, Outcome> {
    let limit = u64::try_from(length).unwrap_or(u64::MAX);
    match ask(body, port, limit) {
        Ok(answer) if answer.len() == length => Ok(answer),
        Ok(_) => Err(printed("epmd: local epmd responded with <>\n", false)),
        Err(AskError::Read) => Err(printed("epmd: failed to read answer from local epmd\n", false)),
        Err(AskError::Connect) => Err(cannot_connect()),
    }
}

fn printed(text: &str, success: bool) -> Outcome {
    Outcome { stdout: text.into(), success, ..Outcome::default() }
}

fn no_response() -> Outcome {
    printed("epmd: no response from local epmd\n", false)
}

fn cannot_connect() -> Outcome {
    Outcome { stderr: "epmd: Cannot connect to local epmd\n", ..Outcome::default() }
}

enum AskError {
    Connect,
    Read,
}

/// Sends a request and reads at most `limit` bytes of the answer. Like stock epmd, it has no timeout.
fn ask(body: &[u8], port: i32, limit: u64) -> Result<Vec<u8>, AskError> {
    let [.., high, low] = port.to_be_bytes();
    let port = u16::from_be_bytes([high, low]);
    let mut stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port))
        .or_else(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
        .map_err(|_| AskError::Connect)?;
    let length = u16::try_from(body.len()).map_err(|_| AskError::Read)?;
    stream.write_all(&[&length.to_be_bytes(), body].concat()).map_err(|_| AskError::Read)?;
    let mut answer = Vec::new();
    stream.take(limit).read_to_end(&mut answer).map_err(|_| AskError::Read)?;
    Ok(answer)
}
