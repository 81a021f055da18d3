//! What daemons have sent, and what that comes to on the wire.

/// TLS 1.3: header, content type and tag of a record.
const RECORD: u64 = 22;
/// What each side of a connection sends until the first frame: hello with a hybrid key share (1.2 KB), certificate,
/// signature, proof.
const HANDSHAKE: u64 = 2_200;
/// TCP and IP without and with time stamps: 20 + 20 + 12.
const SEGMENT: u64 = 52;
/// Segments that one side sends to open and close a connection.
const HANDSHAKE_SEGMENTS: u64 = 8;

/// Counted at the senders, all daemons together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames on links and in packets.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sides of handshakes: two for each connection.
    pub handshakes: u64,
    /// Acknowledgements that could not ride on a frame, because none went back within 40 ms.
    pub acknowledgements: u64,
}

impl Traffic {
    /// Bytes with encryption and handshakes, one record for each frame.
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

    /// What was sent since an earlier count.
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
