//! The traffic of all daemons, and its size on the wire.

/// TLS 1.3: header, content type and tag of a record.
const RECORD: u64 = 22;
/// Bytes that each side of a connection sends before the first frame: hello with a hybrid key share (1.2 KB),
/// certificate, signature, proof.
const HANDSHAKE: u64 = 2_200;
/// Headers of IP and TCP with time stamps: 20 + 20 + 12.
const SEGMENT: u64 = 52;
/// Segments that one side sends to open and close a connection.
const HANDSHAKE_SEGMENTS: u64 = 8;

/// Counted at the senders, for all daemons together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames on links and one-shot connections.
    pub frames: u64,
    /// Bytes of these frames.
    pub bytes: u64,
    /// Handshakes, counted on both sides of each connection.
    pub handshakes: u64,
    /// Acknowledgements that were sent alone, because no frame went back within 40 ms.
    pub acknowledgements: u64,
}

impl Traffic {
    /// The bytes with encryption and handshakes, one record for each frame.
    #[must_use]
    pub fn encrypted(&self) -> u64 {
        self.bytes + RECORD * self.frames + HANDSHAKE * self.handshakes
    }

    /// The same with TCP and IP, one segment for each frame.
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
