//! The few EPMD packets a load client needs, written by hand so that the benchmark does not share code with what it
//! measures.

/// Ports of the registered names start here; a look-up of name `i` must answer `FIRST_PORT + i`.
pub(crate) const FIRST_PORT: u16 = 10_000;

/// What a null server answers: the size and shape of a successful answer for a nine-letter name.
pub(crate) const FIXED_ANSWER: [u8; 23] = *b"w\x00\x27\x10M\x00\x00\x06\x00\x05\x00\x09node00000\x00\x00";

/// What a null server answers to a registration: granted, creation 1.
pub(crate) const GRANTED: [u8; 6] = *b"v\x00\x00\x00\x00\x01";

/// NAMES, ready to send.
pub(crate) const NAMES: [u8; 3] = *b"\x00\x01n";

/// Name number `i`. All have one length and differ in the last places only, as names made by a script do.
pub(crate) fn name(i: u32) -> String {
    format!("node{i:05}")
}

/// The port that name number `i` is registered with.
pub(crate) fn port(i: u32) -> u16 {
    u16::try_from(i).map_or(u16::MAX, |i| FIRST_PORT.saturating_add(i))
}

/// Length of the NAMES answer for names `0..count`: header, and `name nodeNNNNN at port NNNNN` with a line feed each.
pub(crate) fn names_answer_len(count: u32) -> usize {
    4 + 29 * count as usize
}

/// Puts PORT_PLEASE2 for `name` into `packet`.
pub(crate) fn look_up(packet: &mut Vec<u8>, name: &str) {
    frame(packet, |body| {
        body.push(b'z');
        body.extend_from_slice(name.as_bytes());
    });
}

/// Puts ALIVE2 for `name` at `port` into `packet`, with the fields of an OTP 25 node.
pub(crate) fn register(packet: &mut Vec<u8>, name: &str, port: u16) {
    frame(packet, |body| {
        body.push(b'x');
        body.extend_from_slice(&port.to_be_bytes());
        body.extend_from_slice(b"M\x00\x00\x06\x00\x06");
        body.extend_from_slice(&length(name.len()));
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&[0, 0]);
    });
}

fn frame(packet: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    packet.clear();
    packet.extend_from_slice(&[0, 0]);
    body(packet);
    let length = length(packet.len() - 2);
    packet[..2].copy_from_slice(&length);
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}
