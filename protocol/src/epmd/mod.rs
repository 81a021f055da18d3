//! The EPMD protocol: requests and replies, with their parsers, encoders and codecs.

#[cfg(feature = "codec")]
pub mod codec;
pub mod encode;
pub mod parse;
pub mod reply;
pub mod request;

#[cfg(feature = "codec")]
pub use codec::{ClientCodec, ClientError, ServerCodec, ServerError, ServerReply};
pub use encode::{Alive2Reply, EncodeError};
pub use parse::{FramingError, Malformed, Refusal, RequestError};
pub use reply::{Expected, Listing, Reply, ReplyError};
pub use request::{Alive2, OwnedRequest, Registration, Request};
