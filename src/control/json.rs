//! Times and bytes in the control API's JSON.

use jiff::Timestamp;

/// The time this many milliseconds after the Unix epoch.
pub fn timestamp(milliseconds: u64) -> Timestamp {
    i64::try_from(milliseconds)
        .ok()
        .and_then(|milliseconds| Timestamp::from_millisecond(milliseconds).ok())
        .unwrap_or(Timestamp::MAX)
}

/// RFC 3339 with exactly three digits of a second, so that times have one width and sort as text.
pub fn rfc3339(time: Timestamp) -> String {
    jiff::fmt::temporal::DateTimePrinter::new().precision(Some(3)).timestamp_to_string(&time)
}

/// For serde: [`rfc3339`].
pub(super) mod rfc3339_ms {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        time: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::rfc3339(*time))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(deserializer)
    }
}

/// For serde: [`rfc3339`], or nothing.
pub(super) mod rfc3339_ms_option {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    // serde passes the field by reference.
    #[allow(clippy::ref_option)]
    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::rfc3339_ms::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Option::deserialize(deserializer)
    }
}

/// For serde: bytes in base 16.
pub(super) mod base16 {
    use std::borrow::Cow;

    use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(bytes))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
        bytes.map_err(|_| D::Error::custom("expected an even number of base 16 digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_are_utc() {
        assert_eq!(rfc3339(timestamp(1_700_000_000_000)), "2023-11-14T22:13:20.000Z");
        assert_eq!(rfc3339(timestamp(1_700_000_000_042)), "2023-11-14T22:13:20.042Z");
        assert_eq!(timestamp(u64::MAX), Timestamp::MAX);
    }
}
