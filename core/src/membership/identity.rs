//! Members as the membership protocol names them, and their packets.

use std::net::SocketAddr;

use bytes::{Buf, BufMut};
use foca::{Header, Member};
use pmd_protocol::limits::MAX_ADDRESSES;
use pmd_protocol::peer::{Generation, NodeId};
use serde::{Deserialize, Serialize};

/// One daemon in one of its lives.
///
/// Two identities of one daemon compete, and the later wins: a later life, or in the same life a later renewal. A
/// daemon renews itself when it hears that it was declared dead, which it can do without giving up its life, so that
/// what it has registered stays valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Who.
    pub id: NodeId,
    /// Which life.
    pub generation: Generation,
    /// How often it was declared dead in this life, or has moved.
    pub renewal: u32,
    /// Where it can be reached, best first; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
}

impl Identity {
    /// A daemon at the beginning of a life. Addresses that lead nowhere (0.0.0.0, port 0) are left out, and those
    /// beyond [`MAX_ADDRESSES`].
    #[must_use]
    pub fn new(id: NodeId, generation: Generation, addresses: &[SocketAddr]) -> Self {
        let usable = addresses.iter().filter(|address| !address.ip().is_unspecified() && address.port() != 0);
        Self { id, generation, renewal: 0, addresses: usable.take(MAX_ADDRESSES).copied().collect() }
    }

    /// Whether this is a later identity of the same daemon.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        self.id == other.id && self > other
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { renewal: self.renewal.checked_add(1)?, ..self.clone() })
    }

    fn addr(&self) -> NodeId {
        self.id
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self > adversary
    }
}

/// Packets in postcard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codec;

/// Bytes that are not a packet, or a packet that does not fit.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error(transparent)]
    Postcard(#[from] postcard::Error),
    #[error("no room left in the packet")]
    Full,
    #[error("more than {MAX_ADDRESSES} addresses")]
    Addresses,
}

impl foca::Codec<Identity> for Codec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        write(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        let header: Header<Identity> = read(buf)?;
        bounded(&header.src)?;
        bounded(&header.dst)?;
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        write(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        let member: Member<Identity> = read(buf)?;
        bounded(member.id())?;
        Ok(member)
    }
}

fn write<T: Serialize>(value: &T, mut buf: impl BufMut) -> Result<(), CodecError> {
    let bytes = postcard::to_allocvec(value)?;
    if bytes.len() > buf.remaining_mut() {
        return Err(CodecError::Full);
    }
    buf.put_slice(&bytes);
    Ok(())
}

/// foca hands over all bytes of the packet in one piece.
fn read<T: for<'a> Deserialize<'a>>(mut buf: impl Buf) -> Result<T, CodecError> {
    let (value, rest) = postcard::take_from_bytes(buf.chunk())?;
    let used = buf.chunk().len() - rest.len();
    buf.advance(used);
    Ok(value)
}

fn bounded(identity: &Identity) -> Result<(), CodecError> {
    if identity.addresses.len() > MAX_ADDRESSES { Err(CodecError::Addresses) } else { Ok(()) }
}
