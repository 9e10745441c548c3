//! The one door to CBOR: deterministic out, and in only what this door would have written.
//!
//! serde_cbor alone takes seven encodings of one value (indefinite lengths, long integers, packed
//! keys, arrays for structs, tags, unsorted keys, extra fields). Whatever is hashed or signed here
//! has one encoding: RFC 8949 §4.2.1, definite lengths, shortest heads, keys sorted by their
//! encoded bytes, no tags, no floats, no undefined.
//!
//! Steps of [`decode`]:
//! 1. The byte cap.
//! 2. The pre-scan, which allocates nothing: one item, a map, no deeper than [`MAX_DEPTH`], no more
//!    than [`MAX_ITEMS`] items, each in its only encoding, and nothing after it.
//! 3. The typed decode, without packed structs.
//! 4. Encode again and compare: what was accepted is what would be written.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64ct::{Base64, Encoding};
use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// How deep items may nest.
pub const MAX_DEPTH: u8 = 8;
/// How many items a document may hold.
pub const MAX_ITEMS: u32 = 16_384;

/// Why bytes are not the one encoding of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Nested too deeply.
    #[error("nested deeper than {MAX_DEPTH} levels at byte {at}")]
    Deep {
        /// Offset of the item.
        at: usize,
    },
    /// Two keys of a map are equal.
    #[error("duplicate key at byte {at}")]
    DuplicateKey {
        /// Offset of the second key.
        at: usize,
    },
    /// Bytes end inside an item.
    #[error("ends inside an item at byte {at}")]
    EndsEarly {
        /// Offset of the item.
        at: usize,
    },
    /// A tag, a float, a simple value, or an indefinite length.
    #[error("unacceptable initial byte {initial:#04x} at byte {at}")]
    Forbidden {
        /// Offset of the item.
        at: usize,
        /// Its initial byte.
        initial: u8,
    },
    /// A head that is longer than it needs to be.
    #[error("head is not the shortest at byte {at}")]
    LongHead {
        /// Offset of the item.
        at: usize,
    },
    /// More items than allowed.
    #[error("more than {MAX_ITEMS} items")]
    ManyItems,
    /// The outermost item is not a map.
    #[error("the outermost item is not a map")]
    NotAMap,
    /// Text that is not UTF-8.
    #[error("text is not utf-8 at byte {at}")]
    NotUtf8 {
        /// Offset of the item.
        at: usize,
    },
    /// Accepted by type, yet written otherwise by us.
    #[error("not the deterministic encoding of what it says")]
    OtherEncoding,
    /// Bytes after the document.
    #[error("{extra} trailing bytes")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Over the cap.
    #[error("{observed} bytes, at most {cap} are accepted")]
    TooLong {
        /// The length received.
        observed: usize,
        /// The cap.
        cap: usize,
    },
    /// Keys of a map out of order.
    #[error("key out of order at byte {at}")]
    Unsorted {
        /// Offset of the key.
        at: usize,
    },
    /// Well-formed, but not of the expected type: unknown, missing or wrong fields.
    #[error("does not have the expected fields")]
    WrongFields,
}

/// Encodes `value` deterministically.
///
/// Types that travel are plain data, for which serde_cbor cannot fail; a type that does fail
/// (a float, a map whose keys repeat) encodes to nothing, and nothing decodes from it.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = serde_cbor::Serializer::new(&mut bytes);
    if value.serialize(&mut serializer).is_err() {
        return Vec::new();
    }
    let mut sorted = Vec::with_capacity(bytes.len());
    match sort(&bytes, 0, &mut sorted, 0) {
        Ok(end) if end == bytes.len() => sorted,
        _ => Vec::new(),
    }
}

/// Decodes a `T` from its only accepted encoding.
///
/// # Errors
/// [`Malformed`] says which of the four steps refused, and where.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], cap: usize) -> Result<T, Malformed> {
    if bytes.len() > cap {
        return Err(Malformed::TooLong { observed: bytes.len(), cap });
    }
    scan(bytes)?;
    let mut deserializer = serde_cbor::Deserializer::from_slice(bytes).disable_packed_format();
    let value = T::deserialize(&mut deserializer).map_err(|_| Malformed::WrongFields)?;
    deserializer.end().map_err(|_| Malformed::OtherEncoding)?;
    if encode(&value) != bytes {
        return Err(Malformed::OtherEncoding);
    }
    Ok(value)
}

/// Step 2: checks the shape of a document, and allocates nothing.
///
/// # Errors
/// The first thing that makes the bytes something else than a deterministic map.
pub fn scan(bytes: &[u8]) -> Result<(), Malformed> {
    let head = Head::read(bytes, 0)?;
    if head.major != Major::Map {
        return Err(Malformed::NotAMap);
    }
    let mut items = 0;
    let end = item(bytes, 0, 0, &mut items)?;
    match bytes.len().checked_sub(end) {
        Some(0) => Ok(()),
        Some(extra) => Err(Malformed::Trailing { extra }),
        None => Err(Malformed::EndsEarly { at: 0 }),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Major {
    Unsigned,
    Negative,
    Bytes,
    Text,
    Array,
    Map,
    Simple,
}

struct Head {
    major: Major,
    argument: u64,
    end: usize,
}

impl Head {
    fn read(bytes: &[u8], at: usize) -> Result<Self, Malformed> {
        let early = Malformed::EndsEarly { at };
        let initial = *bytes.get(at).ok_or(early)?;
        let forbidden = Malformed::Forbidden { at, initial };
        let major = match initial >> 5 {
            0 => Major::Unsigned,
            1 => Major::Negative,
            2 => Major::Bytes,
            3 => Major::Text,
            4 => Major::Array,
            5 => Major::Map,
            7 if matches!(initial, 0xf4..=0xf6) => Major::Simple,
            _ => return Err(forbidden),
        };
        let after = at.checked_add(1).ok_or(early)?;
        let (argument, width) = match initial & 0x1f {
            small @ 0..=23 => (u64::from(small), 0),
            24 => (tail::<1>(bytes, after, early)?, 1),
            25 => (tail::<2>(bytes, after, early)?, 2),
            26 => (tail::<4>(bytes, after, early)?, 4),
            27 => (tail::<8>(bytes, after, early)?, 8),
            _ => return Err(forbidden),
        };
        let floor = match width {
            1 => 24,
            2 => 1 << 8,
            4 => 1 << 16,
            8 => 1 << 32,
            _ => 0,
        };
        if argument < floor {
            return Err(Malformed::LongHead { at });
        }
        Ok(Self { major, argument, end: after.checked_add(width).ok_or(early)? })
    }

    /// Where a string that begins after this head ends.
    fn string_end(&self, at: usize) -> Result<usize, Malformed> {
        usize::try_from(self.argument)
            .ok()
            .and_then(|length| self.end.checked_add(length))
            .ok_or(Malformed::EndsEarly { at })
    }
}

fn tail<const N: usize>(bytes: &[u8], at: usize, early: Malformed) -> Result<u64, Malformed> {
    let end = at.checked_add(N).ok_or(early)?;
    let part = bytes.get(at..end).ok_or(early)?;
    Ok(part.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn item(bytes: &[u8], at: usize, depth: u8, items: &mut u32) -> Result<usize, Malformed> {
    *items += 1;
    if *items > MAX_ITEMS {
        return Err(Malformed::ManyItems);
    }
    if depth >= MAX_DEPTH {
        return Err(Malformed::Deep { at });
    }
    let head = Head::read(bytes, at)?;
    match head.major {
        Major::Unsigned | Major::Negative | Major::Simple => Ok(head.end),
        Major::Bytes | Major::Text => {
            let end = head.string_end(at)?;
            let part = bytes.get(head.end..end).ok_or(Malformed::EndsEarly { at })?;
            if head.major == Major::Text && core::str::from_utf8(part).is_err() {
                return Err(Malformed::NotUtf8 { at });
            }
            Ok(end)
        }
        Major::Array => {
            (0..head.argument).try_fold(head.end, |next, _| item(bytes, next, depth + 1, items))
        }
        Major::Map => map(bytes, &head, depth, items),
    }
}

fn map(bytes: &[u8], head: &Head, depth: u8, items: &mut u32) -> Result<usize, Malformed> {
    let mut next = head.end;
    let mut previous: &[u8] = &[];
    for _ in 0..head.argument {
        let value = item(bytes, next, depth + 1, items)?;
        let key = bytes.get(next..value).ok_or(Malformed::EndsEarly { at: next })?;
        match previous.cmp(key) {
            core::cmp::Ordering::Less => {}
            core::cmp::Ordering::Equal => return Err(Malformed::DuplicateKey { at: next }),
            core::cmp::Ordering::Greater => return Err(Malformed::Unsorted { at: next }),
        }
        previous = key;
        next = item(bytes, value, depth + 1, items)?;
    }
    Ok(next)
}

/// Copies the item at `at` to `out` with the keys of its maps sorted; returns where it ends.
fn sort(bytes: &[u8], at: usize, out: &mut Vec<u8>, depth: u8) -> Result<usize, Malformed> {
    if depth >= MAX_DEPTH {
        return Err(Malformed::Deep { at });
    }
    let head = Head::read(bytes, at)?;
    let early = Malformed::EndsEarly { at };
    let mut copy = |range: core::ops::Range<usize>| -> Result<(), Malformed> {
        out.extend_from_slice(bytes.get(range).ok_or(early)?);
        Ok(())
    };
    match head.major {
        Major::Unsigned | Major::Negative | Major::Simple => {
            copy(at..head.end)?;
            Ok(head.end)
        }
        Major::Bytes | Major::Text => {
            let end = head.string_end(at)?;
            copy(at..end)?;
            Ok(end)
        }
        Major::Array => {
            copy(at..head.end)?;
            (0..head.argument).try_fold(head.end, |next, _| sort(bytes, next, out, depth + 1))
        }
        Major::Map => {
            copy(at..head.end)?;
            let mut entries = Vec::new();
            let mut next = head.end;
            for _ in 0..head.argument {
                let mut key = Vec::new();
                let mut value = Vec::new();
                let middle = sort(bytes, next, &mut key, depth + 1)?;
                next = sort(bytes, middle, &mut value, depth + 1)?;
                entries.push((key, value));
            }
            entries.sort();
            for (key, value) in entries {
                out.extend_from_slice(&key);
                out.extend_from_slice(&value);
            }
            Ok(next)
        }
    }
}

/// Bytes of any length: a byte string in CBOR; in JSON standard base64 with padding, the only
/// accepted spelling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Blob(pub Vec<u8>);

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&Base64::encode_string(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> serde::Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Base64::decode_vec(&text).map(Self).map_err(|_| D::Error::custom("expected base64"))
        } else {
            deserializer.deserialize_bytes(BlobVisitor)
        }
    }
}

struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(Blob(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Blob, A::Error> {
        Err(A::Error::custom("expected a byte string, found an array"))
    }
}

/// A real number that travels as the unsigned integer of its IEEE-754 bits.
///
/// Finite only: what is not a number is refused where it arrives. Its order is that of the number,
/// its equality that of the bits.
#[derive(Debug, Clone, Copy)]
pub struct Real(pub f64);

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Real {}

impl Serialize for Real {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.serialize_u64(self.0.to_bits())
        }
    }
}

impl<'de> serde::Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = if deserializer.is_human_readable() {
            f64::deserialize(deserializer)?
        } else {
            f64::from_bits(u64::deserialize(deserializer)?)
        };
        if value.is_finite() {
            Ok(Self(value))
        } else {
            Err(D::Error::custom("expected a finite number"))
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Clone, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Job {
        job: String,
        nonce: u64,
        list: Vec<Blob>,
        real: Real,
    }

    fn golden() -> Job {
        Job { job: "a".into(), nonce: 5, list: vec![Blob(vec![1, 2])], real: Real(0.5) }
    }

    #[test]
    fn sorts_keys_by_their_encoded_bytes() {
        let bytes = encode(&golden());
        let order: Vec<&[u8]> = vec![b"cjob", b"dlist", b"dreal", b"enonce"];
        let mut last = 0;
        for key in order {
            let at = bytes.windows(key.len()).position(|w| w[1..] == key[1..]).unwrap();
            assert!(at > last, "{key:?}");
            last = at;
        }
        assert_eq!(decode::<Job>(&bytes, 100), Ok(golden()));
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        a: u64,
    }

    #[test]
    fn refuses_every_other_encoding_of_one_value() {
        assert_eq!(decode::<Small>(&[0xa1, 0x61, b'a', 5], 9), Ok(Small { a: 5 }));
        let cases: [(&[u8], Malformed); 10] = [
            (&[0xbf, 0x61, b'a', 5, 0xff], Malformed::Forbidden { at: 0, initial: 0xbf }),
            (&[0xa1, 0x7f, 0x61, b'a', 0xff, 5], Malformed::Forbidden { at: 1, initial: 0x7f }),
            (&[0xa1, 0x61, b'a', 0x18, 5], Malformed::LongHead { at: 3 }),
            (&[0xa1, 0x00, 5], Malformed::WrongFields),
            (&[0x81, 5], Malformed::NotAMap),
            (&[0xa1, 0x61, b'a', 0xc1, 5], Malformed::Forbidden { at: 3, initial: 0xc1 }),
            (&[0xa1, 0x61, b'a', 5, 0], Malformed::Trailing { extra: 1 }),
            (&[0xa2, 0x61, b'a', 5, 0x61, b'a', 5], Malformed::DuplicateKey { at: 4 }),
            (&[0xa2, 0x61, b'b', 5, 0x61, b'a', 5], Malformed::Unsorted { at: 4 }),
            (&[0xa1, 0x61, 0xff, 5], Malformed::NotUtf8 { at: 1 }),
        ];
        for (bytes, finding) in cases {
            assert_eq!(decode::<Small>(bytes, 9), Err(finding), "{bytes:02x?}");
        }
    }

    #[test]
    fn refuses_an_unknown_field_and_a_missing_one() {
        let unknown = [0xa2, 0x61, b'a', 5, 0x61, b'b', 5];
        assert_eq!(decode::<Small>(&unknown, 9), Err(Malformed::WrongFields));
        assert_eq!(decode::<Small>(&[0xa0], 9), Err(Malformed::WrongFields));
    }

    #[test]
    fn refuses_more_bytes_than_the_cap_depth_and_items() {
        let long = decode::<Small>(&[0; 10], 9);
        assert_eq!(long, Err(Malformed::TooLong { observed: 10, cap: 9 }));
        let mut deep = vec![0xa1, 0x61, b'a'];
        deep.extend([0x81; 20]);
        deep.push(0);
        assert_eq!(scan(&deep), Err(Malformed::Deep { at: 10 }));
        let mut wide = vec![0xa1, 0x61, b'a', 0x9a, 0xff, 0xff, 0xff, 0xff];
        wide.extend(vec![0; 20_000]);
        assert_eq!(scan(&wide), Err(Malformed::ManyItems));
    }

    #[test]
    fn refuses_a_real_that_is_not_a_number() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct One {
            a: Real,
        }
        let bytes = encode(&One { a: Real(f64::NAN) });
        assert_eq!(decode::<One>(&bytes, 99), Err(Malformed::WrongFields));
    }

    #[test]
    fn never_panics_on_a_prefix() {
        let bytes = encode(&golden());
        for end in 0..bytes.len() {
            assert!(decode::<Job>(&bytes[..end], 100).is_err());
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_what_would_be_written(bytes: Vec<u8>) {
            if let Ok(value) = decode::<Small>(&bytes, 64) {
                prop_assert_eq!(encode(&value), bytes);
            }
        }

        #[test]
        fn every_value_comes_back(job: String, nonce: u64, list: Vec<Vec<u8>>, real in -1e9..1e9) {
            let list = list.into_iter().map(Blob).collect();
            let value = Job { job, nonce, list, real: Real(real) };
            prop_assert_eq!(decode::<Job>(&encode(&value), 1 << 20), Ok(value));
        }
    }
}
