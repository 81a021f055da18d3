//! All limits of the wire formats, with the reason for each.
//!
//! The limits of the EPMD server are those of stock epmd, measured on both sides of each boundary. They are part of the
//! interface and must not be rounded. The limits of the EPMD client are our own: they bound how much memory a hostile
//! or broken server can make a client use.

/// The default port of EPMD (EPMD Protocol: "the default port is 4369").
pub const DEFAULT_PORT: u16 = 4369;

/// Bytes of the length prefix of each request. Replies have none.
pub const LENGTH_PREFIX: usize = 2;

/// Longest request that a server accepts, without its length. It closes the connection on a longer one as soon as it
/// knows the length.
pub const MAX_REQUEST: usize = 3057;

/// Most bytes that a server reads before it knows the length: one request of maximal size and its length. Anything
/// beyond that would be rejected anyway.
pub const MAX_FIRST_READ: usize = LENGTH_PREFIX + MAX_REQUEST;

/// Bytes of an ALIVE2_REQ besides name and extra: opcode to lowest version (9), and the two lengths (4).
pub const ALIVE2_FIXED: usize = 13;

/// Longest registered name in bytes: 255 characters of four bytes each. Checked before UTF-8 and the number of
/// characters.
pub const MAX_NAME_BYTES: usize = 4 * MAX_NAME_CHARS;

/// Longest registered name in characters: the length of an Erlang atom.
pub const MAX_NAME_CHARS: usize = 255;

/// Longest name that can be looked up, in characters. Stock epmd counts the terminator that it appends, so a name of
/// 255 characters can be registered but never found.
pub const MAX_LOOKUP_CHARS: usize = MAX_NAME_CHARS - 1;

/// Longest "extra" field of a registration, in bytes. Stock epmd gives it a buffer of the same size as the name.
pub const MAX_EXTRA: usize = 1020;

/// Longest name of a service that pmd announces, in bytes: the most that a one-byte length can express.
pub const MAX_SERVICE_NAME_BYTES: usize = 255;

/// The creation in a reply that refuses a registration. Clients only look at the result, but stock epmd sends this
/// number.
pub const REFUSED_CREATION: u32 = 99;

/// An ALIVE2_REQ with at least this *highest version* (OTP 23) is answered with ALIVE2_X_RESP and a 32-bit creation,
/// an older one with ALIVE2_RESP and a creation from 1 to 3.
pub const CREATION_VERSION: u16 = 6;

/// Bytes of a successful PORT2_RESP besides name and extra.
pub const PORT2_FIXED: usize = 14;

/// Longest PORT2_RESP: name and extra of maximal size.
pub const MAX_PORT2_REPLY: usize = PORT2_FIXED + MAX_NAME_BYTES + MAX_EXTRA;

/// Bytes of the port number at the start of NAMES_RESP and DUMP_RESP.
pub const LISTING_HEADER: usize = 4;

/// Most text that a client accepts in a NAMES_RESP or DUMP_RESP. The format sets no limit: the text ends with the
/// connection. 16 MiB hold about 16,000 lines with the longest possible name, or 400,000 of typical length, more than a
/// host has ports. A server that sends more is not an epmd.
pub const MAX_LISTING: usize = 16 * 1024 * 1024;

/// Longest name of a host, in bytes (RFC 1035, section 2.3.4, as text without the final dot).
pub const MAX_HOST_NAME: usize = 253;

/// Longest name of a registry entry, in bytes: the longest Erlang node name.
pub const MAX_KEY_NAME: usize = MAX_NAME_BYTES;

/// Longest value of a registry entry, in bytes. It holds the largest registration (name and extra of maximal size) or a
/// service with the most metadata, and seven of them fit into a frame.
pub const MAX_VALUE: usize = 8 * 1024;

/// Metadata entries of one service or daemon.
pub const MAX_METADATA: usize = 64;

/// Bytes of all metadata keys and values of one service or daemon.
pub const MAX_METADATA_BYTES: usize = 4096;

/// Longest version text of a daemon, in bytes.
pub const MAX_VERSION_TEXT: usize = 64;

/// Operations in one update. More do not fit into a frame of maximal size, because each takes at least 6 bytes.
pub const MAX_OPS: usize = 64 * 1024 / 6;

/// Updates in one frame. More do not fit into a frame of maximal size, because each takes at least 113 bytes.
pub const MAX_UPDATES: usize = 64 * 1024 / 113;

/// Longest frame (kind, layout and body) that a peer may send before it has proven that it belongs to the cluster. A
/// `Hello` takes at most 700 bytes, and unknown peers must not be able to make the daemon buffer more.
pub const MAX_HANDSHAKE_FRAME: usize = 1024;

/// Longest frame after the proof. One frame holds all registrations of a typical host without delaying heartbeats
/// behind it: 64 KiB take 5 ms at 100 Mbit/s.
pub const MAX_FRAME: usize = 64 * 1024;

/// Bytes of the length prefix of a frame.
pub const FRAME_LENGTH: usize = 4;

/// Bytes of a frame besides its body: kind and layout.
pub const FRAME_FIXED: usize = 2;

/// Addresses that a daemon advertises: enough for the networks of a typical host, and few enough for a `Hello`.
pub const MAX_ADDRESSES: usize = 8;

/// Longest public key of a daemon, in bytes: RSA with 4096 bits takes 550.
pub const MAX_PUBLIC_KEY: usize = 600;

/// Longest signature of a daemon, in bytes: RSA with 4096 bits takes 514.
pub const MAX_SIGNATURE: usize = 514;

/// Longest name of a cluster, in bytes.
pub const MAX_CLUSTER_NAME: usize = 64;

/// Longest explanation in a `Close`, in bytes.
pub const MAX_REASON: usize = 256;

/// Origins in one `Have`, `Pull` or `Prune`. With stamps of maximal size they fit into [`MAX_FRAME`].
pub const MAX_STAMPS: usize = 600;

/// Ranges in one `Ranges` or `Have`. With ids and digests of 32 bytes they fit into [`MAX_FRAME`].
pub const MAX_RANGES: usize = 600;

/// Members in one `Lost`. Their ids fit into [`MAX_FRAME`]; the rest are sent on the next link.
pub const MAX_LOST: usize = 2000;

/// Decisions in one `Expulsions`. With names, keys and signatures of maximal size they fit into [`MAX_FRAME`].
pub const MAX_EXPULSIONS: usize = 32;

/// Longest list of revoked certificates, in bytes: about a thousand certificates. As text, it fits into a request to the
/// control API.
pub const MAX_REVOCATION_LIST: usize = 40 * 1024;

/// Longest cluster secret, in bytes: that of an Erlang atom.
pub const MAX_SECRET: usize = 255;

/// Longest list of membership records in one `Membership`, in bytes.
pub const MAX_MEMBERSHIP: usize = 32 * 1024;

/// Entries in one `Answer`: a node and a service may have the same name.
pub const MAX_ANSWERED: usize = 2;

/// Longest name of a claim, in bytes: it names a role such as `scheduler`, and a thousand of them fit into a frame.
pub const MAX_CLAIM_NAME: usize = 128;

/// Claims of a cluster. With names and identities of maximal size they fit into [`MAX_CLAIMS_FRAME`].
pub const MAX_CLAIMS: usize = 1024;

/// Voters of a cluster: seven tolerate three failures, and more only make each decision slower.
pub const MAX_VOTERS: usize = 7;

/// Longest frame about claims, which holds all of them.
pub const MAX_CLAIMS_FRAME: usize = 256 * 1024;
