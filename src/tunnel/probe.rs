//! The beginning of Erlang's distribution handshake: far enough to know that a node answers, and which, and no further.
//!
//! A node tells its name after it has been told one and before any cookie is shown (the protocol's `send_name` and
//! `send_challenge`). Closed at that point, it takes the connection for one that was lost: nothing is logged, and nobody
//! is told of a node that has come.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What no node of today does without (OTP 26), and `HANDSHAKE_23` for the form of this greeting. Not `PUBLISHED`: whoever
/// asks is hidden.
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
/// The longest message of a handshake that is read: far more than flags and a name.
const MAX_MESSAGE: usize = 2_048;
/// Bytes of a challenge before its name: tag, flags, challenge, creation and the length of the name.
const CHALLENGE_FIXED: usize = 1 + 8 + 4 + 4 + 2;

/// Says hello to the node at the other end of `stream` under the name `own`; what it calls itself, if it says so. One that
/// does not want to talk to `own` only says that, and answers nevertheless.
///
/// # Errors
///
/// If the connection fails, or whoever answers does not speak the distribution protocol in the clear.
pub async fn greet<S>(stream: &mut S, own: &str) -> io::Result<Option<String>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut hello = vec![b'N'];
    hello.extend_from_slice(&FLAGS.to_be_bytes());
    hello.extend_from_slice(&1_u32.to_be_bytes());
    hello.extend_from_slice(&length(own.len())?.to_be_bytes());
    hello.extend_from_slice(own.as_bytes());
    stream.write_u16(length(hello.len())?).await?;
    stream.write_all(&hello).await?;
    stream.flush().await?;
    let status = message(stream).await?;
    match status.strip_prefix(b"s") {
        Some(b"ok" | b"ok_simultaneous") => {}
        Some(b"nok" | b"alive" | b"not_allowed") => return Ok(None),
        _ => return Err(strange()),
    }
    let challenge = message(stream).await?;
    match (challenge.first(), challenge.get(CHALLENGE_FIXED..)) {
        (Some(b'N'), Some(name)) => Ok(Some(String::from_utf8_lossy(name).into_owned())),
        _ => Err(strange()),
    }
}

async fn message<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length == 0 || length > MAX_MESSAGE {
        return Err(strange());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn length(bytes: usize) -> io::Result<u16> {
    u16::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn strange() -> io::Error {
    io::Error::other("whoever answers does not speak Erlang's distribution protocol in the clear")
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn answered(status: &[u8], challenge: &[u8]) -> io::Result<Option<String>> {
        let (mut asker, mut node) = duplex(4_096);
        for part in [status, challenge] {
            node.write_u16(u16::try_from(part.len()).expect("short")).await?;
            node.write_all(part).await?;
        }
        greet(&mut asker, "pmd@here").await
    }

    #[tokio::test]
    async fn a_node_tells_its_name() {
        let mut challenge = vec![b'N'];
        challenge.extend_from_slice(&[0; 18]);
        challenge.extend_from_slice(b"bar@far");
        assert_eq!(answered(b"sok", &challenge).await.expect("a name").as_deref(), Some("bar@far"));
        assert_eq!(answered(b"snot_allowed", b"").await.expect("an answer"), None);
        assert!(answered(b"swhat", &challenge).await.is_err());
        assert!(answered(b"HTTP", &challenge).await.is_err());
        assert!(answered(b"sok", b"N").await.is_err());
    }
}
