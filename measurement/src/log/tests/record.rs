extern crate std;

use std::prelude::v1::*;

use proptest::prelude::*;

use super::state::{history, record};
use crate::cbor::Malformed;
use crate::digest::{Hash32, of, sha256};
use crate::log::{Code, Deny, Event, LEAF_LEN, Leaf, MAX_RECORD, NotACode, Record, leaf_hash};
use crate::octets::Octets;

#[test]
fn every_kind_of_record_comes_back() {
    for record in history() {
        let bytes = record.to_bytes();
        assert!(!bytes.is_empty() && bytes.len() < 1024, "{record:?}");
        assert_eq!(Record::parse(&bytes), Ok(record));
    }
}

#[test]
fn names_the_kind_of_a_record_in_the_record() {
    let kinds = ["manifest", "debit", "release", "confirm", "commit", "receipt", "unwrap", "deny"];
    for (record, kind) in history().iter().zip(kinds) {
        let mut key = vec![0x60 | u8::try_from(kind.len()).unwrap()];
        key.extend_from_slice(kind.as_bytes());
        assert!(record.to_bytes().windows(key.len()).any(|window| window == key), "{kind}");
    }
}

#[test]
fn refuses_what_is_not_exactly_a_record() {
    let bytes = history()[0].to_bytes();
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(Record::parse(&longer), Err(Malformed::Trailing { extra: 1 }));
    let other = String::from_utf8_lossy(&bytes).contains("manifest");
    assert!(other);
    let unknown: Vec<u8> =
        bytes.iter().map(|byte| if *byte == b'q' { b'p' } else { *byte }).collect();
    assert_eq!(Record::parse(&unknown), Err(Malformed::WrongFields));
    let observed = MAX_RECORD + 1;
    let long = Record::parse(&vec![0xa0; observed]);
    assert_eq!(long, Err(Malformed::TooLong { observed, cap: MAX_RECORD }));
}

#[test]
fn never_panics_on_a_prefix() {
    for record in history() {
        let bytes = record.to_bytes();
        for end in 0..bytes.len() {
            assert!(Record::parse(&bytes[..end]).is_err());
        }
    }
}

#[test]
fn the_salt_hides_what_the_record_says() {
    let event =
        Event::Deny(Deny { code: code("stale"), manifest: crate::digest::Digest::of(b"m") });
    let one = Record { event: event.clone(), salt: Octets([1; 32]), time: 5 };
    let two = Record { event, salt: Octets([2; 32]), time: 5 };
    assert_ne!(Leaf::checksum(&one.to_bytes()), Leaf::checksum(&two.to_bytes()));
}

#[test]
fn refuses_codes_that_could_carry_a_text() {
    for text in ["", "Stale", "two words", "a_b", "naïve", &"a".repeat(65)] {
        assert_eq!(Code::try_from(text.to_string()), Err(NotACode), "{text}");
    }
    let mut bytes = history()[7].to_bytes();
    let at = bytes.windows(5).position(|window| window == b"stale").unwrap();
    bytes[at] = b'S';
    assert_eq!(Record::parse(&bytes), Err(Malformed::WrongFields));
}

#[test]
fn a_leaf_is_128_bytes_that_say_nothing() {
    let bytes = history()[1].to_bytes();
    let leaf = Leaf::new(&bytes, [7; 64], &[8; 32]);
    assert!(leaf.covers(&bytes) && !leaf.covers(&bytes[1..]));
    assert_eq!(leaf.checksum.0, sha256(&sha256(&bytes)));
    assert_eq!(leaf.key_hash, Hash32::<of::Signer>::of(&[8; 32]));
    let entry = leaf.to_bytes();
    assert_eq!(entry.len(), LEAF_LEN);
    assert_eq!(leaf.hash(), leaf_hash(&entry));
    assert_eq!(Leaf::from_slice(&entry), Some(leaf));
    let message = Leaf::message(&leaf.checksum);
    assert_eq!(message.len(), 24 + 32);
    assert!(message.starts_with(b"sigsum.org/v1/tree-leaf\0"));
}

#[test]
fn refuses_leaves_of_another_length() {
    for length in (0..LEAF_LEN).chain([LEAF_LEN + 1]) {
        assert_eq!(Leaf::from_slice(&vec![0; length]), None);
    }
}

fn code(text: &str) -> Code {
    Code::try_from(text.to_string()).unwrap()
}

proptest! {
    #[test]
    fn what_is_accepted_is_what_would_be_written(at: prop::sample::Index, value: u8, kind in 0_usize..8) {
        let mut bytes = record(kind).to_bytes();
        let position = at.index(bytes.len());
        bytes[position] = value;
        if let Ok(record) = Record::parse(&bytes) {
            prop_assert_eq!(record.to_bytes(), bytes);
        }
    }
}
