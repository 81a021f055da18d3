//! A control socket with canned responses, for cases that a single real daemon cannot produce.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::support::Home;

/// A received request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Method and path.
    pub(crate) what: String,
    pub(crate) body: Value,
}

/// A stub in place of a home's daemon; it runs until the end of the test.
#[derive(Debug)]
pub(crate) struct Stub {
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A response: HTTP status and body.
pub(crate) type Answer = (u16, Value);

/// A successful response.
pub(crate) fn ok(body: &impl Serialize) -> Answer {
    (200, serde_json::to_value(body).expect("plain data"))
}

/// An error response.
pub(crate) fn error(status: u16, code: &str) -> Answer {
    (status, json!({ "error": { "code": code, "message": format!("it is {code}"), "hint": "do something" } }))
}

impl Stub {
    /// Answers each request with the result of `answer`, which gets the request's number (from 0) and the request.
    pub(crate) fn start(home: &Home, answer: impl Fn(usize, &Request) -> Answer + Send + 'static) -> Stub {
        let listener = UnixListener::bind(home.socket()).expect("a socket");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Some tests close the connection without a request.
                let Some((mut stream, request)) = read(stream) else { continue };
                let (status, body) = if request.what == "POST /v1/stop" {
                    // The home's own, at its end, which would wait for this process to follow.
                    error(403, "refused")
                } else {
                    let mut seen = seen.lock().expect("no thread panics while holding it");
                    seen.push(request.clone());
                    let number = seen.len() - 1;
                    drop(seen);
                    answer(number, &request)
                };
                let body = body.to_string();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Stub { requests }
    }

    /// The requests received so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no thread panics while holding it").clone()
    }
}

fn read(mut stream: UnixStream) -> Option<(UnixStream, Request)> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.and_then(|length| length.parse().ok()).unwrap_or(0_usize);
        if body.len() >= length {
            let what = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
            return Some((stream, Request { what, body: serde_json::from_str(body).unwrap_or_default() }));
        }
    }
}
