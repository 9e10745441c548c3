//! FLOE against `floe-rs`, against ciphertexts that an independent program made, and against
//! whoever moves segments.

use std::{string::String, vec};

use core::convert::Infallible;

use floe_rs::gcm;
use proptest::prelude::*;
use rand_core::{TryCryptoRng, TryRng};
use serde::Deserialize;

use super::*;
use crate::golden;

const AAD: &[u8] = b"This is AAD";

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect()
}

fn seal(size: SegmentSize, plaintext: &[u8], rng: &mut impl CryptoRng) -> Vec<u8> {
    let (mut floe, header) = Encryptor::start(&golden::key(1), AAD, size, rng).unwrap();
    let mut out = header.to_vec();
    let mut segments = plaintext.chunks(size.plain());
    let last = segments.next_back().unwrap_or_default();
    segments.for_each(|segment| floe.segment(segment, rng, &mut out).unwrap());
    floe.last(last, rng, &mut out).unwrap();
    out
}

fn open(size: SegmentSize, sealed: &[u8]) -> Result<Vec<u8>, FloeError> {
    let (header, body) = sealed.split_first_chunk().unwrap();
    let mut floe = Decryptor::start(&golden::key(1), AAD, size, header)?;
    let mut body = body.to_vec();
    let mut segments = body.chunks_mut(size.sealed());
    let last = segments.next_back().unwrap();
    let mut plaintext = Vec::new();
    for segment in segments {
        plaintext.extend_from_slice(floe.segment(segment)?);
    }
    plaintext.extend_from_slice(floe.last(last)?);
    Ok(plaintext)
}

/// Opens a stream with `floe-rs`.
fn open_there<const S: u32>(sealed: &[u8]) -> Vec<u8> {
    let (header, body) = sealed.split_at(HEADER_LEN);
    let header = gcm::Header::from_bytes(header).unwrap();
    let floe = gcm::FloeDecryptor::<S>::new(&[1; 32].into(), AAD, &header).unwrap();
    let segments: Vec<&[u8]> = body.chunks(usize::try_from(S).unwrap()).collect();
    let mut plaintext = Vec::new();
    for (position, segment) in segments.iter().enumerate() {
        let last = position + 1 == segments.len();
        let segment = gcm::Segment::from_bytes(segment).unwrap();
        let mut part = vec![0; segment.plaintext_size()];
        let position = u64::try_from(position).unwrap();
        floe.decrypt_segment(&segment, &mut part, position, last).unwrap();
        plaintext.extend(part);
    }
    plaintext
}

/// Seals a stream with `floe-rs`.
fn seal_there<const S: u32>(plaintext: &[u8], seed: u8) -> Vec<u8> {
    let mut rng = golden::rng(seed);
    let floe = gcm::FloeEncryptor::<S>::with_rng(&[1; 32].into(), AAD, &mut rng).unwrap();
    let header = floe.header();
    let mut out = parameters(SegmentSize::try_from(S).unwrap()).0.to_vec();
    out.extend_from_slice(header.iv().as_array());
    out.extend_from_slice(header.tag().as_array());
    let full = floe.input_size();
    let mut segments: Vec<&[u8]> = plaintext.chunks(full).collect();
    if segments.is_empty() {
        segments.push(&[]);
    }
    for (position, segment) in segments.iter().enumerate() {
        let last = position + 1 == segments.len();
        let mut part = vec![0; floe.output_size(segment)];
        let position = u64::try_from(position).unwrap();
        floe.encrypt_segment_with_rng(segment, &mut part, position, last, &mut rng).unwrap();
        out.extend(part);
    }
    out
}

#[test]
fn agrees_with_the_oracle_at_every_border() {
    let plain = SegmentSize::Kib4.plain();
    for length in [0, 1, plain - 1, plain, plain + 1, 2 * plain, 2 * plain + 7] {
        let content = pattern(length);
        let ours = seal(SegmentSize::Kib4, &content, &mut golden::rng(1));
        assert_eq!(open_there::<4096>(&ours), content, "{length} bytes, ours there");
        let theirs = seal_there::<4096>(&content, 2);
        assert_eq!(open(SegmentSize::Kib4, &theirs).unwrap(), content, "{length}, theirs here");
    }
}

#[test]
fn agrees_with_the_oracle_on_the_larger_segments() {
    let content = pattern(2 * 65_504 + 3);
    let ours = seal(SegmentSize::Kib64, &content, &mut golden::rng(1));
    assert_eq!(open_there::<65_536>(&ours), content);
    assert_eq!(open(SegmentSize::Kib64, &seal_there::<65_536>(&content, 2)).unwrap(), content);
    let content = pattern(1_048_544 + 3);
    let ours = seal(SegmentSize::Mib1, &content, &mut golden::rng(1));
    assert_eq!(open_there::<1_048_576>(&ours), content);
    assert_eq!(open(SegmentSize::Mib1, &seal_there::<1_048_576>(&content, 2)).unwrap(), content);
}

#[test]
fn changes_the_key_where_the_oracle_does() {
    let (encryptor, header) =
        Encryptor::start(&golden::key(1), AAD, SegmentSize::Kib4, &mut golden::rng(1)).unwrap();
    let mut ours = encryptor.stream;
    let there = gcm::Header::from_bytes(&header).unwrap();
    let there = gcm::FloeDecryptor::<4096>::new(&[1; 32].into(), AAD, &there).unwrap();
    let content = pattern(SegmentSize::Kib4.plain());
    let border = 1 << 20;
    for position in [0, 1, border - 1, border, border + 1, 3 * border - 1, 3 * border, 1] {
        let mut segment = Vec::new();
        let mut rng = golden::rng(7);
        ours.seal(position, Place::Inner, &content, &mut rng, &mut segment).unwrap();
        let mut back = vec![0; content.len()];
        let parsed = gcm::Segment::from_bytes(&segment).unwrap();
        there.decrypt_segment(&parsed, &mut back, position, false).unwrap();
        assert_eq!(back, content, "place {position}");
        assert_eq!(ours.open(position, Place::Inner, &mut segment).unwrap(), content);
    }
}

/// Gives out the bytes 0, 1, 2, … as the independent program did.
struct Counting(u8);

impl TryRng for Counting {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

impl TryCryptoRng for Counting {}

#[derive(Deserialize)]
struct Known {
    segment: u32,
    first_position: u64,
    plaintext_len: usize,
    sha256: String,
    header: String,
}

#[test]
fn makes_the_ciphertexts_that_an_independent_program_made() {
    let text = include_str!("../../tests/vectors/floe.json");
    let cases: Vec<Known> = serde_json::from_str(text).unwrap();
    assert!(cases.len() > 10);
    for case in cases {
        let size = SegmentSize::try_from(case.segment).unwrap();
        let mut rng = Counting(0);
        let (mut floe, header) = Encryptor::start(&golden::key(1), AAD, size, &mut rng).unwrap();
        assert_eq!(hex::encode(header), case.header);
        floe.next = case.first_position;
        let content = pattern(case.plaintext_len);
        let mut out = header.to_vec();
        let mut segments = content.chunks(size.plain());
        let last = segments.next_back().unwrap_or_default();
        segments.for_each(|segment| floe.segment(segment, &mut rng, &mut out).unwrap());
        floe.last(last, &mut rng, &mut out).unwrap();
        let digest = measurement::digest::sha256(&out);
        assert_eq!(hex::encode(digest), case.sha256, "{} bytes", case.plaintext_len);
    }
}

fn three_segments() -> Vec<u8> {
    let content = pattern(2 * SegmentSize::Kib4.plain() + 100);
    seal(SegmentSize::Kib4, &content, &mut golden::rng(1))
}

fn segment(place: usize) -> core::ops::Range<usize> {
    let begin = HEADER_LEN + place * 4096;
    begin..begin + 4096
}

fn finding(sealed: &[u8]) -> FloeError {
    open(SegmentSize::Kib4, sealed).err().unwrap()
}

#[test]
fn rejects_a_flipped_bit_in_any_part_of_a_segment() {
    for (at, expected) in [
        (0, FloeError::SegmentMark { position: 1, observed: 0xfeff_ffff, required: u32::MAX }),
        (4, FloeError::SegmentForged { position: 1 }),
        (16, FloeError::SegmentForged { position: 1 }),
        (4095, FloeError::SegmentForged { position: 1 }),
    ] {
        let mut forged = three_segments();
        forged[segment(1).start + at] ^= 1;
        assert_eq!(finding(&forged), expected, "byte {at}");
    }
}

#[test]
fn rejects_segments_that_changed_places() {
    let mut forged = three_segments();
    let (one, two) = forged.split_at_mut(segment(1).start);
    one[segment(0)].swap_with_slice(&mut two[..4096]);
    assert_eq!(finding(&forged), FloeError::SegmentForged { position: 0 });
}

#[test]
fn rejects_a_segment_that_is_there_twice() {
    let mut forged = three_segments();
    let copy = forged[segment(0)].to_vec();
    forged.splice(segment(1).start..segment(1).start, copy);
    assert_eq!(finding(&forged), FloeError::SegmentForged { position: 1 });
}

#[test]
fn rejects_a_segment_of_another_stream_under_the_same_key() {
    let mut forged = three_segments();
    let content = pattern(2 * SegmentSize::Kib4.plain() + 100);
    let other = seal(SegmentSize::Kib4, &content, &mut golden::rng(9));
    forged[segment(1)].copy_from_slice(&other[segment(1)]);
    assert_eq!(finding(&forged), FloeError::SegmentForged { position: 1 });
}

#[test]
fn rejects_an_end_that_is_not_the_end() {
    let whole = three_segments();
    assert_eq!(
        finding(&whole[..segment(2).start]),
        FloeError::SegmentMark { position: 1, observed: u32::MAX, required: 4096 }
    );
    let mut relabelled = whole[..segment(2).start].to_vec();
    relabelled[segment(1).start..][..4].copy_from_slice(&4096_u32.to_be_bytes());
    assert_eq!(finding(&relabelled), FloeError::SegmentForged { position: 1 });
}

#[test]
fn rejects_a_segment_shorter_than_its_frame() {
    let short = &three_segments()[..HEADER_LEN + 31];
    assert_eq!(
        finding(short),
        FloeError::SegmentLength { position: 0, observed: 31, required: 4096 }
    );
}

#[test]
fn rejects_a_header_for_other_parameters() {
    let mut forged = three_segments();
    forged[1] = 1;
    assert_eq!(
        finding(&forged),
        FloeError::Parameters {
            observed: Octets([0, 1, 0, 0, 0x10, 0, 0, 0, 0, 0x20]),
            required: Octets([0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0x20]),
        }
    );
}

#[test]
fn rejects_a_header_under_another_key() {
    let sealed = three_segments();
    let header = sealed.first_chunk().unwrap();
    let refused = Decryptor::start(&golden::key(2), AAD, SegmentSize::Kib4, header);
    assert_eq!(refused.err(), Some(FloeError::HeaderTag));
}

#[test]
fn refuses_plaintext_that_does_not_fit() {
    let plain = SegmentSize::Kib4.plain();
    let start = || Encryptor::start(&golden::key(1), AAD, SegmentSize::Kib4, &mut golden::rng(1));
    let (mut floe, _) = start().unwrap();
    let mut out = Vec::new();
    for observed in [0, plain - 1, plain + 1] {
        assert_eq!(
            floe.segment(&vec![0; observed], &mut golden::rng(2), &mut out),
            Err(FloeError::PlaintextLength { position: 0, observed, required: plain })
        );
    }
    let observed = plain + 1;
    assert_eq!(
        floe.last(&vec![0; observed], &mut golden::rng(2), &mut out),
        Err(FloeError::PlaintextLength { position: 0, observed, required: plain })
    );
    assert!(out.is_empty());
}

#[test]
fn refuses_the_segment_after_the_last_possible_one() {
    let (mut floe, _) =
        Encryptor::start(&golden::key(1), AAD, SegmentSize::Kib4, &mut golden::rng(1)).unwrap();
    floe.next = MAX_SEGMENTS - 1;
    let content = pattern(SegmentSize::Kib4.plain());
    let refused = floe.segment(&content, &mut golden::rng(2), &mut Vec::new());
    assert_eq!(refused, Err(FloeError::TooManySegments));
    assert_eq!(floe.last(&content, &mut golden::rng(2), &mut Vec::new()), Ok(()));
}

#[test]
fn knows_three_lengths_of_segments() {
    for size in SegmentSize::ALL {
        assert_eq!(SegmentSize::try_from(size.wire()), Ok(size));
        assert_eq!(usize::try_from(size.wire()), Ok(size.sealed()));
    }
    let refused = SegmentSize::try_from(8192);
    assert_eq!(refused, Err(FloeError::SegmentSize { observed: 8192 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn opens_what_it_seals(content in proptest::collection::vec(any::<u8>(), 0..10_000)) {
        let sealed = seal(SegmentSize::Kib4, &content, &mut golden::rng(1));
        prop_assert_eq!(open(SegmentSize::Kib4, &sealed).unwrap(), content);
    }
}
