//! Probes a node with the beginning of Erlang's distribution handshake, which tells whether a node answers and its
//! name.
//!
//! A node sends its name in response to that of the other side, before the Erlang cookie is involved (`send_name` and
//! `send_challenge` in the protocol). If the connection is closed at that point, the node treats it as lost: it logs
//! nothing and reports no new node.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

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
/// Length of a challenge before the name: tag, flags, challenge, creation and the length of the name.
const CHALLENGE_FIXED: usize = 1 + 8 + 4 + 4 + 2;

/// Starts a handshake with the node at the other end of `stream` under the name `own`, and returns the node's name. It
/// is `None` if the node answers but rejects `own`.
///
/// # Errors
///
/// If the connection fails, or the peer does not speak the distribution protocol without TLS.
pub async fn probe<S>(stream: &mut S, own: &str) -> io::Result<Option<String>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut send_name = vec![b'N'];
    send_name.extend_from_slice(&FLAGS.to_be_bytes());
    send_name.extend_from_slice(&1_u32.to_be_bytes());
    send_name.extend_from_slice(&length(own.len())?.to_be_bytes());
    send_name.extend_from_slice(own.as_bytes());
    stream.write_u16(length(send_name.len())?).await?;
    stream.write_all(&send_name).await?;
    stream.flush().await?;
    let status = message(stream).await?;
    match status.strip_prefix(b"s") {
        Some(b"ok" | b"ok_simultaneous") => {}
        Some(b"nok" | b"alive" | b"not_allowed") => return Ok(None),
        _ => return Err(unexpected()),
    }
    let challenge = message(stream).await?;
    match (challenge.first(), challenge.get(CHALLENGE_FIXED..)) {
        (Some(b'N'), Some(name)) => Ok(Some(String::from_utf8_lossy(name).into_owned())),
        _ => Err(unexpected()),
    }
}

async fn message<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length == 0 || length > MAX_MESSAGE {
        return Err(unexpected());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn length(bytes: usize) -> io::Result<u16> {
    u16::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn unexpected() -> io::Error {
    io::Error::other("the peer does not speak the Erlang distribution protocol without TLS")
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
        probe(&mut asker, "pmd@here").await
    }

    #[tokio::test]
    async fn a_node_answers_with_its_name() {
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
