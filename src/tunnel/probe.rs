//! The beginning of Erlang's distribution handshake, with which `pmd ping` tests a node: whether it answers, what it calls
//! itself, and whether it accepts an Erlang cookie.
//!
//! A node sends its name in response to that of the other side, before the Erlang cookie is involved (`send_name` and
//! `send_challenge` in the protocol). If the connection is closed at that point, the node logs nothing and reports no new
//! node. [`prove`] continues to the end, because a node says only there whether it accepts the cookie. The node then
//! has a hidden connection until this side closes it, at once. A node that does not accept the cookie logs that.
//!
//! The other side's name is an atom in the node, and in `nodes(known)` until the node forgets it, as with any node: a
//! minute after its last garbage has gone. So it is always the same name.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::base::foreign::ForeignText;

/// The node name that the probe uses, before the `@`. It conflicts only with a real node of this name.
const OWN_NAME: &str = "pmd-ping";
/// The flags that current nodes require (OTP 26), and `HANDSHAKE_23` for the format of `send_name`. Not `PUBLISHED`, so
/// the node treats this side as hidden.
const FLAGS: u64 = 0x4
    | 0x10
    | 0x80
    | 0x100
    | 0x200
    | 0x400
    | 0x800
    | 0x1_0000
    | 0x2_0000
    | 0x4_0000
    | 0x100_0000
    | 0x200_0000
    | 0x4_0000_0000;
/// Maximum length of a handshake message: far more than flags and a name take.
const MAX_MESSAGE: usize = 2_048;
/// Where the number is in a challenge: after tag and flags.
const CHALLENGE_AT: usize = 1 + 8;
/// Length of a challenge before the name: tag, flags, challenge, creation and the length of the name.
const CHALLENGE_FIXED: usize = CHALLENGE_AT + 4 + 4 + 2;
/// Length of a digest.
const DIGEST: usize = 16;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The node closed the connection without a word, as one that expects TLS may do.
    #[error("it closes the connection")]
    Closed,
    /// The node answered with a TLS record.
    #[error("it expects TLS")]
    Tls,
    /// The node is in another handshake with the same name.
    #[error("it is busy with another test of this kind")]
    Busy,
    /// The node accepts connections only from certain nodes (`net_kernel:allow/1`), of which this is none.
    #[error("it accepts only the nodes that it was told to allow")]
    NotAllowed,
    /// The answer is of another protocol.
    #[error("the answer is not that of an Erlang node")]
    Unexpected,
}

impl ProbeError {
    fn of(error: io::Error) -> ProbeError {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.kind() {
            UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => ProbeError::Closed,
            _ => ProbeError::Io(error),
        }
    }
}

/// What a node says to an Erlang cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It has the same one.
    Accepted,
    /// It has another one.
    Refused,
}

/// The node name of the probe on this host.
#[must_use]
pub fn own_name(host: &str) -> String {
    format!("{OWN_NAME}@{host}")
}

/// Starts a handshake with the node at the other end of `stream` under the name `own`, and returns what the node calls
/// itself.
///
/// # Errors
///
/// If the connection fails, or the peer does not speak the distribution protocol without TLS.
pub async fn greet<S>(stream: &mut S, own: &str) -> Result<String, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Ok(challenged(stream, own).await?.1)
}

/// Completes a handshake. `digest` is the digest of the Erlang cookie and a challenge, and `challenge` a random number.
///
/// # Errors
///
/// If the connection fails before the node was shown the proof, or the peer does not speak the distribution protocol
/// without TLS.
pub async fn prove<S>(
    stream: &mut S,
    own: &str,
    challenge: u32,
    digest: impl Fn(u32) -> [u8; DIGEST],
) -> Result<Proof, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (theirs, _) = challenged(stream, own).await?;
    let mut reply = vec![b'r'];
    reply.extend_from_slice(&challenge.to_be_bytes());
    reply.extend_from_slice(&digest(theirs));
    send(stream, &reply).await?;
    match message(stream).await {
        // The node proves that it knows the cookie too.
        Ok(answer) => match answer.strip_prefix(b"a") {
            Some(proof) if proof == digest(challenge) => Ok(Proof::Accepted),
            Some(proof) if proof.len() == DIGEST => Ok(Proof::Refused),
            _ => Err(ProbeError::Unexpected),
        },
        Err(ProbeError::Closed) => Ok(Proof::Refused),
        Err(error) => Err(error),
    }
}

/// The node's challenge and name.
async fn challenged<S>(stream: &mut S, own: &str) -> Result<(u32, String), ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut send_name = vec![b'N'];
    send_name.extend_from_slice(&FLAGS.to_be_bytes());
    send_name.extend_from_slice(&1_u32.to_be_bytes());
    send_name.extend_from_slice(&length(own.len())?.to_be_bytes());
    send_name.extend_from_slice(own.as_bytes());
    send(stream, &send_name).await?;
    let status = message(stream).await?;
    match status.strip_prefix(b"s") {
        Some(b"ok" | b"ok_simultaneous") => {}
        // The node has not noticed yet that an earlier connection of this name has ended.
        Some(b"alive") => send(stream, b"strue").await?,
        Some(b"nok") => return Err(ProbeError::Busy),
        Some(b"not_allowed") => return Err(ProbeError::NotAllowed),
        _ => return Err(ProbeError::Unexpected),
    }
    let challenge = message(stream).await?;
    let number = challenge.get(CHALLENGE_AT..).and_then(|rest| rest.first_chunk());
    match (challenge.first(), number, challenge.get(CHALLENGE_FIXED..)) {
        (Some(b'N'), Some(number), Some(name)) => {
            Ok((u32::from_be_bytes(*number), String::from_utf8_lossy(name).into_owned()))
        }
        _ => Err(ProbeError::Unexpected),
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> Result<(), ProbeError> {
    let mut framed = length(message.len())?.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await.map_err(ProbeError::of)?;
    stream.flush().await.map_err(ProbeError::of)
}

async fn message<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, ProbeError> {
    let head = stream.read_u16().await.map_err(ProbeError::of)?;
    if super::tls_hello::starts_record(head.to_be_bytes()) {
        return Err(ProbeError::Tls);
    }
    let length = usize::from(head);
    if length == 0 || length > MAX_MESSAGE {
        return Err(ProbeError::Unexpected);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.map_err(ProbeError::of)?;
    Ok(message)
}

fn length(bytes: usize) -> io::Result<u16> {
    u16::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Whether a node that calls itself `node` is one that Erlang finds as `asked`: Erlang compares whole names, exactly. If
/// `asked` has no host, there is nothing to compare.
///
/// # Errors
///
/// The sentence for people, if it is not.
pub fn check_name(node: &str, asked: &str) -> Result<(), String> {
    if !asked.contains('@') || node == asked {
        return Ok(());
    }
    Err(format!("the node calls itself {}, so Erlang refuses {asked}", Plain(node)))
}

/// A node's name: in quotation marks unless it consists of what names of nodes usually consist of.
struct Plain<'a>(&'a str);

impl std::fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let usual = |character: char| character.is_ascii_alphanumeric() || "_-.@:".contains(character);
        if self.0.len() <= 255 && self.0.chars().all(usual) {
            f.write_str(self.0)
        } else {
            ForeignText::new(self.0).fmt(f)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    async fn put(node: &mut DuplexStream, message: &[u8]) {
        send(node, message).await.expect("there is room");
    }

    fn challenge(number: u32, name: &str) -> Vec<u8> {
        let mut challenge = vec![b'N'];
        challenge.extend_from_slice(&[0; 8]);
        challenge.extend_from_slice(&number.to_be_bytes());
        challenge.extend_from_slice(&[0; 6]);
        challenge.extend_from_slice(name.as_bytes());
        challenge
    }

    async fn answered(status: &[u8], challenge: &[u8]) -> Result<String, ProbeError> {
        let (mut asker, mut node) = duplex(4_096);
        put(&mut node, status).await;
        put(&mut node, challenge).await;
        greet(&mut asker, "pmd@here").await
    }

    #[tokio::test]
    async fn a_node_answers_with_its_name() {
        let challenge = challenge(7, "bar@far");
        assert_eq!(answered(b"sok", &challenge).await.expect("a name"), "bar@far");
        assert_eq!(answered(b"salive", &challenge).await.expect("a name"), "bar@far");
        assert!(matches!(answered(b"snot_allowed", b"").await, Err(ProbeError::NotAllowed)));
        assert!(matches!(answered(b"snok", b"").await, Err(ProbeError::Busy)));
        assert!(matches!(answered(b"swhat", &challenge).await, Err(ProbeError::Unexpected)));
        assert!(matches!(answered(b"HTTP", &challenge).await, Err(ProbeError::Unexpected)));
        assert!(matches!(answered(b"sok", b"N").await, Err(ProbeError::Unexpected)));
    }

    #[tokio::test]
    async fn a_node_with_tls_is_told_from_one_that_hangs_up() {
        let (mut asker, mut node) = duplex(4_096);
        node.write_all(b"\x15\x03\x03\x00\x02\x02\x0a").await.expect("there is room");
        assert!(matches!(greet(&mut asker, "pmd@here").await, Err(ProbeError::Tls)));
        let (mut asker, node) = duplex(4_096);
        drop(node);
        assert!(matches!(greet(&mut asker, "pmd@here").await, Err(ProbeError::Closed)));
    }

    /// A digest that tells secrets and challenges apart.
    fn digest(secret: u8, challenge: u32) -> [u8; DIGEST] {
        let mut digest = [secret; DIGEST];
        digest[..4].copy_from_slice(&challenge.to_be_bytes());
        digest
    }

    #[tokio::test]
    async fn both_sides_prove_the_same_cookie() {
        let proved = async |answer: Option<Vec<u8>>| {
            let (mut asker, mut node) = duplex(4_096);
            put(&mut node, b"sok").await;
            put(&mut node, &challenge(7, "bar@far")).await;
            let served = async {
                message(&mut node).await.expect("a name");
                let reply = message(&mut node).await.expect("a reply");
                assert_eq!(reply, [&b"r\0\0\0\x09"[..], &digest(1, 7)].concat());
                if let Some(answer) = answer {
                    put(&mut node, &answer).await;
                }
                drop(node);
            };
            let asked = prove(&mut asker, "pmd@here", 9, |challenge| digest(1, challenge));
            tokio::join!(asked, served).0
        };
        let ack = |digest: [u8; DIGEST]| Some([&b"a"[..], &digest].concat());
        assert_eq!(proved(ack(digest(1, 9))).await.expect("an answer"), Proof::Accepted);
        assert_eq!(proved(ack(digest(2, 9))).await.expect("an answer"), Proof::Refused);
        assert_eq!(proved(None).await.expect("an answer"), Proof::Refused);
        assert!(proved(Some(b"what".to_vec())).await.is_err());
    }

    #[test]
    fn names_are_compared_as_erlang_does() {
        assert_eq!(check_name("lh@here", "lh@here"), Ok(()));
        assert_eq!(check_name("lh@here", "lh"), Ok(()));
        let text = "the node calls itself lh@127.0.0.1, so Erlang refuses lh@fh2";
        assert_eq!(check_name("lh@127.0.0.1", "lh@fh2"), Err(text.to_owned()));
        assert!(check_name("lh@HERE", "lh@here").is_err());
        let odd = check_name("a\nb", "a@b").expect_err("another name");
        assert!(odd.starts_with("the node calls itself \"a\\nb\","), "{odd}");
    }
}
