//! Sequences, text and bytes whose length is checked before memory is allocated.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Reads a sequence of at most `MAX` elements, for `deserialize_with`.
///
/// Plain serde would reserve up to 1 MiB for a length claimed in a few bytes.
pub(crate) fn vec<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(AtMost::<T, MAX>(PhantomData))
}

struct AtMost<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for AtMost<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        if let Some(announced) = elements.size_hint().filter(|announced| *announced > MAX) {
            return Err(A::Error::invalid_length(announced, &self));
        }
        let mut all = Vec::new();
        while let Some(element) = elements.next_element()? {
            if all.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            all.push(element);
        }
        Ok(all)
    }
}

/// Text of at most `MAX` bytes.
pub(crate) fn text<'de, D: Deserializer<'de>, const MAX: usize>(deserializer: D) -> Result<String, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    if text.len() > MAX {
        return Err(D::Error::invalid_length(text.len(), &"shorter text"));
    }
    Ok(text.to_owned())
}

/// At most `MAX` bytes.
pub(crate) fn bytes<'de, D: Deserializer<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<u8>, D::Error> {
    let bytes = <&[u8]>::deserialize(deserializer)?;
    if bytes.len() > MAX {
        return Err(D::Error::invalid_length(bytes.len(), &"fewer bytes"));
    }
    Ok(bytes.to_vec())
}
