//! The traffic of all daemons, and its size on the wire.

/// The overhead of a TLS 1.3 record: header, content type and tag.
const RECORD: u64 = 22;
/// Bytes that each side of a connection sends before the first frame: client or server hello with a hybrid key share
/// (1.2 KB), certificate, signature, proof.
const HANDSHAKE: u64 = 2_200;
/// IP and TCP headers with timestamps: 20 + 20 + 12.
const SEGMENT: u64 = 52;
/// Segments that one side sends to open and close a connection.
const HANDSHAKE_SEGMENTS: u64 = 8;

/// The traffic of all daemons together, counted at the senders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames on links and one-shot connections.
    pub frames: u64,
    /// Bytes of these frames.
    pub bytes: u64,
    /// Handshakes, counted on both sides of each connection.
    pub handshakes: u64,
    /// Acknowledgements in segments of their own, because no frame went back within 40 ms.
    pub acknowledgements: u64,
}

impl Traffic {
    /// The bytes including encryption and handshakes, with one record for each frame.
    #[must_use]
    pub fn encrypted(&self) -> u64 {
        self.bytes + RECORD * self.frames + HANDSHAKE * self.handshakes
    }

    /// The bytes including TCP and IP as well, with one segment for each frame.
    #[must_use]
    pub fn on_the_wire(&self) -> u64 {
        let segments = self.frames + self.acknowledgements + HANDSHAKE_SEGMENTS * self.handshakes;
        self.encrypted() + SEGMENT * segments
    }

    /// The traffic since an earlier count.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            frames: self.frames - before.frames,
            bytes: self.bytes - before.bytes,
            handshakes: self.handshakes - before.handshakes,
            acknowledgements: self.acknowledgements - before.acknowledgements,
        }
    }
}
