//! Whether a program speaks TLS: it gets the first message of a TLS client, and the kind of its answer is all that counts.
//! No certificate is checked, and the handshake ends there.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Alert and handshake, the first byte of a server's first record (RFC 8446, section 5.1).
const RECORDS: [u8; 2] = [0x15, 0x16];
/// The second byte, the major version, in all versions of TLS.
const MAJOR: u8 = 3;

/// Whether these bytes begin a TLS record of a server that answers a client.
#[must_use]
pub fn starts_record([kind, major]: [u8; 2]) -> bool {
    RECORDS.contains(&kind) && major == MAJOR
}

/// Whether the program at the other end of `stream` answers the first message of a TLS client with one of TLS.
///
/// # Errors
///
/// If the connection fails.
pub async fn speaks_tls<S>(stream: &mut S, host: &str) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&hello(host)?).await?;
    stream.flush().await?;
    let mut head = [0; 2];
    match stream.read_exact(&mut head).await {
        Ok(_) => Ok(starts_record(head)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The first message to a server on `host`.
fn hello(host: &str) -> io::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        // Nothing is trusted, and nothing is read that would need to be.
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .or_else(|_| ServerName::try_from("localhost"))
        .map_err(io::Error::other)?;
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut hello = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut hello)?;
    }
    Ok(hello)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn the_kind_of_the_answer_decides() {
        for (answer, is_tls) in
            [(&b"\x16\x03\x03"[..], true), (b"\x15\x03\x01", true), (b"\x00\x03sok", false), (b"\x16", false)]
        {
            let (mut asker, mut node) = duplex(8_192);
            node.write_all(answer).await.expect("there is room");
            node.shutdown().await.expect("it is open");
            assert_eq!(speaks_tls(&mut asker, "far").await.expect("an answer"), is_tls, "{answer:?}");
            let mut hello = [0; 3];
            node.read_exact(&mut hello).await.expect("a first message");
            assert_eq!(hello, [0x16, 3, 1]);
        }
    }

    #[test]
    fn any_host_can_be_asked() {
        for host in ["far", "10.0.0.1", "fd00::1", "not a name"] {
            assert!(hello(host).is_ok(), "{host}");
        }
    }
}
