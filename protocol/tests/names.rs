//! Node names and service names.

use pmd_protocol::{HostName, HostNameError, NodeName, NodeNameError, ServiceName, ServiceNameError};

#[test]
fn node_names_have_255_characters_and_1020_bytes_at_most() {
    for letter in ["a", "é", "€", "😀"] {
        let longest = letter.repeat(255);
        assert_eq!(NodeName::parse_registered(longest.as_bytes()).map(|name| name.to_string()), Ok(longest));
    }
    assert_eq!("a".repeat(256).parse::<NodeName>(), Err(NodeNameError::TooManyChars));
    assert_eq!("€".repeat(256).parse::<NodeName>(), Err(NodeNameError::TooManyChars));
    assert_eq!("😀".repeat(256).parse::<NodeName>(), Err(NodeNameError::TooManyBytes));
    assert_eq!(NodeName::parse_registered(&[b'a'; 1020]), Err(NodeNameError::TooManyChars));
    assert_eq!(NodeName::parse_registered(&[b'a'; 1021]), Err(NodeNameError::TooManyBytes));
}

#[test]
fn node_names_may_be_empty_or_strange_but_not_contain_nul() {
    for name in ["", " ", "a b", "a\nb", "a@b", "\u{7f}", "\u{ffff}"] {
        assert_eq!(NodeName::parse_registered(name.as_bytes()).as_ref().map(NodeName::as_str), Ok(name));
    }
    assert_eq!(NodeName::parse_registered(b"a\0"), Err(NodeNameError::Nul));
    assert_eq!(NodeName::parse_registered(b"\xff"), Err(NodeNameError::NotUtf8));
}

#[test]
fn service_names_have_1_to_255_bytes() {
    assert_eq!("".parse::<ServiceName>(), Err(ServiceNameError::Empty));
    let longest = "a".repeat(255);
    assert_eq!(longest.parse::<ServiceName>().map(|name| name.to_string()), Ok(longest));
    assert_eq!("a".repeat(256).parse::<ServiceName>(), Err(ServiceNameError::TooLong));
    assert_eq!("é".repeat(128).parse::<ServiceName>(), Err(ServiceNameError::TooLong));
}

#[test]
fn service_names_are_one_printable_word_without_at() {
    for name in ["http", "grpc-1.v2", "größe", "a/b:c"] {
        assert_eq!(name.parse::<ServiceName>().as_ref().map(ServiceName::as_str), Ok(name));
    }
    for bad in ['@', ' ', '\t', '\n', '\0', '\u{7f}', '\u{85}', '\u{a0}', '\u{2003}'] {
        assert_eq!(format!("a{bad}b").parse::<ServiceName>(), Err(ServiceNameError::Character(bad)));
    }
}

#[test]
fn host_names_are_one_printable_word_that_does_not_rearrange_its_line() {
    for name in ["db1", "db1.example.org", "größe", "[fd00::1]"] {
        assert_eq!(name.parse::<HostName>().as_ref().map(HostName::as_str), Ok(name));
    }
    for bad in ['@', '/', ' ', '\n', '\u{1b}', '\u{9b}', '\u{2028}', '\u{200f}', '\u{202e}', '\u{2066}'] {
        assert_eq!(format!("a{bad}b").parse::<HostName>(), Err(HostNameError::Character(bad)));
    }
}
