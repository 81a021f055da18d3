//! A request is a two-byte length and that many bytes; one request per connection.

use crate::battery::{Case, case, table};
use crate::wire::{alive2, header, names, packet, port2};

const EMPTY: &str = r"\x00\x00\x11\x11 eof";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(pieces());
    cases.extend(surplus());
    cases
}

fn lengths() -> Vec<Case> {
    vec![
        table(
            "lengths in one segment",
            vec![
                ("1, the smallest", packet("n"), EMPTY.into()),
                ("0", header(0), "eof".into()),
                ("0 and a byte", [header(0), b"n".to_vec()].concat(), "eof".into()),
                ("3057, the largest", packet([b"n".repeat(3057)].concat()), EMPTY.into()),
                ("3058", packet([b"n".repeat(3058)].concat()), "reset".into()),
                ("2815", packet([b"n".repeat(2815)].concat()), EMPTY.into()),
            ],
        ),
        // The server does not wait for the body: these connections end although nothing follows.
        table(
            "a bad length is refused as soon as it is known",
            vec![
                ("0", header(0), "eof".into()),
                ("3058", header(3058), "eof".into()),
                ("3071", header(3071), "eof".into()),
                ("3072", header(3072), "eof".into()),
                ("4096", header(4096), "eof".into()),
                ("32768", header(32768), "eof".into()),
                ("65535", header(65535), "eof".into()),
            ],
        ),
        // A separate case, because these bytes could identify another protocol.
        table(
            "a bad length that looks like another protocol",
            vec![
                ("5635, as TLS begins", header(0x1603), "eof".into()),
                ("18245, as HTTP begins", header(u16::from_be_bytes(*b"GE")), "eof".into()),
            ],
        ),
        case("a bad length is refused after two separate bytes")
            .expect(&["client: open", "client: eof"])
            .play(|t| {
                let client = t.dial("client");
                client.send_apart(&[0x0B]);
                t.stays_open(&client);
                client.send(&[0xF2]);
                client.reads_to_end();
            }),
    ]
}

fn pieces() -> Vec<Case> {
    vec![
        case("a request byte by byte").expect(&[r"client: w\x01 eof"]).play(|t| {
            let client = t.dial("client");
            for byte in port2("nobody") {
                client.send_apart(&[byte]);
            }
            client.reads_to_end();
        }),
        case("a registration byte by byte").expect(&[r"client: v\x00<creation>", "client: open"]).play(|t| {
            let client = t.dial("client");
            for byte in alive2("slow") {
                client.send_apart(&[byte]);
            }
            client.reads_alive2_reply();
            t.stays_open(&client);
        }),
        case("a request in two pieces").expect(&["client: open", r"client: w\x01 eof"]).play(|t| {
            let client = t.dial("client");
            let request = port2("nobody");
            let (front, back) = request.split_at(5);
            client.send_apart(front);
            t.stays_open(&client);
            client.send(back);
            client.reads_to_end();
        }),
        case("the largest request in three pieces").expect(&[r"client: \x00\x00\x11\x11 eof"]).play(|t| {
            let client = t.dial("client");
            let request = packet(b"n".repeat(3057));
            client.send_apart(&request[..2]);
            client.send_apart(&request[2..1500]);
            client.send(&request[1500..]);
            client.reads_to_end();
        }),
        case("a client that half-closes behind its request is answered")
            .expect(&[r"client: \x00\x00\x11\x11 eof"])
            .play(|t| {
                let client = t.dial("client");
                client.send(&names());
                client.half_close();
                client.reads_to_end();
            }),
        case("a client that half-closes inside its request is dropped")
            .expect(&["nothing: eof", "length: eof", "part: eof"])
            .play(|t| {
                for (who, bytes) in [("nothing", &b""[..]), ("length", b"\0\x07"), ("part", b"\0\x07zno")] {
                    let client = t.dial(who);
                    if !bytes.is_empty() {
                        client.send(bytes);
                    }
                    client.half_close();
                    client.reads_to_end();
                }
            }),
        case("clients that come and go do no harm").expect(&[r"client: \x00\x00\x11\x11 eof"]).play(|t| {
            for bytes in [&b""[..], b"\0", b"\0\x07", b"\0\x07zno"] {
                for reset in [false, true] {
                    let passer_by = t.dial("passer-by");
                    if !bytes.is_empty() {
                        passer_by.send(bytes);
                    }
                    if reset {
                        passer_by.reset();
                    }
                }
            }
            t.ask("client", &names());
        }),
    ]
}

/// Bytes after the request: the result depends on whether they arrived in the same read as the length.
fn surplus() -> Vec<Case> {
    vec![
        table(
            "surplus in the read of the length",
            vec![
                ("one byte", [names(), vec![0]].concat(), "eof".into()),
                ("another request", [names(), names()].concat(), "eof".into()),
                ("another lookup", [port2("nobody"), port2("nobody")].concat(), "eof".into()),
                ("up to what one read takes", [names(), vec![0; 3056]].concat(), "eof".into()),
                // Unread bytes turn the close into a reset.
                ("more than one read takes", [names(), vec![0; 3057]].concat(), "reset".into()),
            ],
        ),
        case("a registration with surplus is not executed").expect(&["client: eof", "left: none"]).play(
            |t| {
                t.ask("client", &[alive2("greedy"), names()].concat());
                t.lists("left");
            },
        ),
        case("surplus in the read that completes the length").expect(&["client: eof"]).play(|t| {
            let client = t.dial("client");
            client.send_apart(&[0]);
            client.send(b"\x01n\0");
            client.reads_to_end();
        }),
        // The response is sent, and the unread surplus turns the close into a reset.
        case("surplus in a later read")
            .expect(&[r"names: \x00\x00\x11\x11 reset", r"lookup: w\x01 reset"])
            .play(|t| {
                for (who, request) in [("names", names()), ("lookup", port2("nobody"))] {
                    let client = t.dial(who);
                    client.send_apart(&request[..2]);
                    client.send(&[&request[2..], b"more"].concat());
                    client.reads_to_end();
                }
            }),
        case("surplus behind a registration, in a later read")
            .expect(&[r"client: v\x00<creation>", "client: eof", "left: none"])
            .play(|t| {
                let client = t.dial("client");
                let request = alive2("talker");
                client.send_apart(&request[..2]);
                client.send(&[&request[2..], b"more"].concat());
                client.reads_alive2_reply();
                client.reads_to_end();
                t.wait_until_unregistered(b"talker");
                t.lists("left");
            }),
    ]
}
