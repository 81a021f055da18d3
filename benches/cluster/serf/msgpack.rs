//! As much of MessagePack as serf's RPC speaks: the layout of before 2013, in which text and bytes are one.

use std::collections::BTreeMap;

/// A value. Numbers that are not needed here (floating point) are read as nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Raw(Vec<u8>),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// A map of these.
    pub(crate) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
        Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// What a map has under a key; nothing for all else.
    pub(crate) fn get(&self, key: &str) -> &Value {
        match self {
            Value::Map(map) => map.get(key).unwrap_or(&Value::Nil),
            _ => &Value::Nil,
        }
    }

    /// Text; empty for all else.
    pub(crate) fn text(&self) -> String {
        match self {
            Value::Raw(raw) => String::from_utf8_lossy(raw).into_owned(),
            _ => String::new(),
        }
    }

    /// Appends the value to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Nil => out.push(0xc0),
            Value::Bool(value) => out.push(0xc2 | u8::from(*value)),
            Value::Int(value) => {
                out.push(0xd3);
                out.extend(value.to_be_bytes());
            }
            Value::Raw(raw) => {
                out.push(0xdb);
                length(out, raw.len());
                out.extend(raw);
            }
            Value::List(values) => {
                out.push(0xdd);
                length(out, values.len());
                values.iter().for_each(|value| value.encode(out));
            }
            Value::Map(map) => {
                out.push(0xdf);
                length(out, map.len());
                for (key, value) in map {
                    Value::from(key.as_str()).encode(out);
                    value.encode(out);
                }
            }
        }
    }

    /// Takes a value from the beginning of `bytes`; none if it is not complete.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<Value> {
        let kind = take(bytes, 1)?[0];
        Some(match kind {
            0x00..=0x7f => Value::Int(i64::from(kind)),
            0x80..=0x8f => map(bytes, usize::from(kind & 0x0f))?,
            0x90..=0x9f => list(bytes, usize::from(kind & 0x0f))?,
            0xa0..=0xbf => Value::Raw(take(bytes, usize::from(kind & 0x1f))?.to_vec()),
            0xc2 | 0xc3 => Value::Bool(kind == 0xc3),
            0xca => take(bytes, 4).map(|_| Value::Nil)?,
            0xcb => take(bytes, 8).map(|_| Value::Nil)?,
            0xcc..=0xcf => Value::Int(unsigned(bytes, 1 << (kind - 0xcc))?),
            0xd0..=0xd3 => Value::Int(signed(bytes, 1 << (kind - 0xd0))?),
            0xc4..=0xc6 => raw(bytes, 1 << (kind - 0xc4))?,
            0xd9..=0xdb => raw(bytes, 1 << (kind - 0xd9))?,
            0xdc | 0xdd => {
                let count = unsigned(bytes, if kind == 0xdc { 2 } else { 4 })?;
                list(bytes, usize::try_from(count).ok()?)?
            }
            0xde | 0xdf => {
                let count = unsigned(bytes, if kind == 0xde { 2 } else { 4 })?;
                map(bytes, usize::try_from(count).ok()?)?
            }
            0xe0..=0xff => Value::Int(i64::from(i8::from_be_bytes([kind]))),
            _ => Value::Nil,
        })
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Raw(text.as_bytes().to_vec())
    }
}

fn length(out: &mut Vec<u8>, length: usize) {
    // Nothing here comes near to four gigabytes.
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn unsigned(bytes: &mut &[u8], width: usize) -> Option<i64> {
    let value = take(bytes, width)?.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    Some(i64::try_from(value).unwrap_or(i64::MAX))
}

fn signed(bytes: &mut &[u8], width: usize) -> Option<i64> {
    let taken = take(bytes, width)?;
    let sign = if taken[0] & 0x80 == 0 { 0 } else { -1 };
    Some(taken.iter().fold(sign, |value: i64, byte| value << 8 | i64::from(*byte)))
}

fn raw(bytes: &mut &[u8], width: usize) -> Option<Value> {
    let length = usize::try_from(unsigned(bytes, width)?).ok()?;
    Some(Value::Raw(take(bytes, length)?.to_vec()))
}

fn list(bytes: &mut &[u8], count: usize) -> Option<Value> {
    (0..count).map(|_| Value::decode(bytes)).collect::<Option<_>>().map(Value::List)
}

fn map(bytes: &mut &[u8], count: usize) -> Option<Value> {
    let entry = |bytes: &mut &[u8]| Some((Value::decode(bytes)?.text(), Value::decode(bytes)?));
    (0..count).map(|_| entry(bytes)).collect::<Option<_>>().map(Value::Map)
}
