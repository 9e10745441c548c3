//! One good container, and everything that can be done to it.

use alloc::vec::Vec;
use core::ops::Range;
use std::vec;

use measurement::privacy::Unit;
use proptest::prelude::*;
use static_assertions::assert_not_impl_any;
use zeroize::Zeroizing;

use super::{
    header::to_u64,
    index::{ENTRY_LEN, FOOTER_LEN, Footer},
    *,
};
use crate::{
    floe::{Encryptor, HEADER_LEN, SegmentSize},
    golden,
    key::DataKey,
};

assert_not_impl_any!(
    Records: core::fmt::Debug, core::fmt::Display, Clone, PartialEq, serde::Serialize
);

const MEMORY: u64 = 1 << 20;
const KEY: u8 = 1;
const PLAIN: usize = 4064;

/// A key, the bytes of a container under it, and its root.
struct Golden {
    bytes: Vec<u8>,
    root: Hash32<Dataset>,
}

/// Two inner segments and a last one, whatever is in it.
fn header() -> Header {
    Header {
        capacity: 9000,
        created: 1_790_000_000,
        dataset_id: Octets([3; 16]),
        dataset_version: 1,
        dek_id: golden::key(KEY).id(),
        minimisation: None,
        n_max: 8,
        previous_root: None,
        privacy_unit: Unit::Field("customer".into()),
        schema: Octets([4; 32]),
        segment_len: 4096,
        suite: Header::SUITE,
        version: Header::VERSION,
    }
}

fn records() -> Vec<(u64, Vec<u8>)> {
    vec![(77, vec![b'a'; 10]), (5, vec![b'b'; 5000]), (77, vec![b'c'; 1])]
}

fn sealed(header: &Header, records: &[(u64, Vec<u8>)], seed: u8) -> Golden {
    let (mut writer, mut bytes) =
        Writer::new(header, &golden::key(KEY), golden::rng(seed)).unwrap();
    for (unit, payload) in records {
        bytes.extend(writer.record(*unit, payload).unwrap());
    }
    let (last, root) = close(writer, records).unwrap();
    bytes.extend(last);
    Golden { bytes, root }
}

type Closed = Result<(Vec<u8>, Hash32<Dataset>), ContainerError>;

/// Tells the index of `records`, and finishes.
fn close(mut writer: Writer<rand_chacha::ChaCha20Rng>, records: &[(u64, Vec<u8>)]) -> Closed {
    let mut bytes = Vec::new();
    for (unit, payload) in records {
        bytes.extend(writer.entry(*unit, u32::try_from(payload.len()).unwrap())?);
    }
    let units: std::collections::BTreeSet<_> = records.iter().map(|(unit, _)| unit).collect();
    let (last, root) = writer.finish(to_u64(units.len()))?;
    bytes.extend(last);
    Ok((bytes, root))
}

fn golden_container() -> Golden {
    sealed(&header(), &records(), 1)
}

impl Golden {
    fn open_in(&self, chunk: usize, key: &DataKey) -> Result<Records, ContainerError> {
        let mut reader = Reader::new(key, self.root, MEMORY);
        for bytes in self.bytes.chunks(chunk) {
            reader.feed(bytes)?;
        }
        reader.finish()
    }

    fn open(&self) -> Result<Records, ContainerError> {
        self.open_in(1000, &golden::key(KEY))
    }

    fn with(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.bytes);
        self
    }

    fn finding(&self) -> ContainerError {
        self.open().err().unwrap()
    }

    /// Bytes before the first segment.
    fn prelude(&self) -> usize {
        let length: [u8; 4] = self.bytes[8..12].try_into().unwrap();
        12 + usize::try_from(u32::from_be_bytes(length)).unwrap() + HEADER_LEN
    }

    fn segment(&self, place: usize) -> Range<usize> {
        let begin = self.prelude() + place * 4096;
        begin..self.bytes.len().min(begin + 4096)
    }
}

fn list(records: &Records) -> Vec<(u64, Vec<u8>)> {
    records.iter().map(|(unit, payload)| (unit, payload.to_vec())).collect()
}

#[test]
fn gives_back_what_was_sealed() {
    let opened = golden_container().open().unwrap();
    assert_eq!(list(&opened), records());
    assert_eq!((opened.len(), opened.units(), opened.is_empty()), (3, 2, false));
    assert_eq!(opened.header(), &header());
    assert_eq!(opened.get(2), Some((77, &b"c"[..])));
    assert_eq!(opened.get(3), None);
}

#[test]
fn takes_the_file_in_pieces_of_any_size() {
    for chunk in [1, 7, 11, 12, 13, 4096, 100_000] {
        let opened = golden_container().open_in(chunk, &golden::key(KEY)).unwrap();
        assert_eq!(list(&opened), records(), "pieces of {chunk}");
    }
}

#[test]
fn a_file_s_length_says_nothing_of_its_content() {
    let length = header().file_len().unwrap();
    let full: Vec<_> = (1..=8).map(|unit| (unit, vec![9; 1125])).collect();
    for content in [vec![], vec![(1, vec![1])], records(), full] {
        let container = sealed(&header(), &content, 1);
        assert_eq!(to_u64(container.bytes.len()), length, "{} records", content.len());
        assert_eq!(list(&container.open().unwrap()), content);
    }
}

#[test]
fn padding_piece_by_piece_makes_the_same_file() {
    let whole = sealed(&header(), &[], 1);
    let (mut writer, mut bytes) =
        Writer::new(&header(), &golden::key(KEY), golden::rng(1)).unwrap();
    while let Some(more) = writer.pad().unwrap() {
        assert!(more.len() <= 4096);
        bytes.extend(more);
    }
    let (last, root) = writer.finish(0).unwrap();
    assert!(last.len() <= 4096);
    bytes.extend(last);
    assert_eq!((bytes, root), (whole.bytes, whole.root));
}

#[test]
fn no_call_returns_more_than_two_segments_to_who_pads_in_between() {
    let (mut writer, mut bytes) =
        Writer::new(&header(), &golden::key(KEY), golden::rng(1)).unwrap();
    let mut take = |more: Vec<u8>| {
        assert!(more.len() <= 2 * 4096, "{}", more.len());
        bytes.extend(more);
    };
    for (unit, payload) in records() {
        take(writer.record(unit, &payload).unwrap());
    }
    while let Some(more) = writer.pad().unwrap() {
        take(more);
    }
    for (unit, payload) in records() {
        take(writer.entry(unit, u32::try_from(payload.len()).unwrap()).unwrap());
    }
    while let Some(more) = writer.pad().unwrap() {
        take(more);
    }
    let (last, root) = writer.finish(2).unwrap();
    take(last);
    let whole = golden_container();
    assert_eq!((bytes, root), (whole.bytes, whole.root));
}

/// What comes of telling `entries` after the golden records.
fn told(entries: &[(u64, u32)]) -> Result<(), ContainerError> {
    let mut writer = writer();
    for (unit, payload) in records() {
        writer.record(unit, &payload).unwrap();
    }
    for (unit, length) in entries {
        writer.entry(*unit, *length)?;
    }
    writer.finish(2).map(drop)
}

#[test]
fn refuses_an_index_that_is_not_of_the_records() {
    let all = [(77, 10), (5, 5000), (77, 1)];
    assert_eq!(told(&all), Ok(()));
    for number in 0..3 {
        let (mut unit, mut length) = (all, all);
        unit[number].0 += 1;
        length[number].1 += 1;
        assert_eq!(told(&unit), Err(ContainerError::OtherEntries));
        assert_eq!(told(&length), Err(ContainerError::OtherEntries));
    }
    assert_eq!(told(&[all[1], all[0], all[2]]), Err(ContainerError::OtherEntries));
}

#[test]
fn refuses_an_index_with_fewer_or_more_entries_than_records() {
    let all = [(77, 10), (5, 5000), (77, 1), (77, 1)];
    for observed in 0..3 {
        let entries = ContainerError::Entries { observed: to_u64(observed), required: 3 };
        assert_eq!(told(&all[..observed]), Err(entries));
    }
    assert_eq!(told(&all), Err(ContainerError::Entries { observed: 4, required: 3 }));
}

#[test]
fn a_wrong_count_of_units_opens_for_no_one() {
    let mut bytes = Vec::new();
    let (mut writer, first) = Writer::new(&header(), &golden::key(KEY), golden::rng(1)).unwrap();
    bytes.extend(first);
    bytes.extend(writer.record(7, b"x").unwrap());
    bytes.extend(writer.entry(7, 1).unwrap());
    let (last, root) = writer.finish(2).unwrap();
    bytes.extend(last);
    let finding = Golden { bytes, root }.finding();
    assert_eq!(finding, IndexError::Units { observed: 2, required: 1 }.into());
}

#[test]
fn refuses_a_record_after_the_index_began() {
    let mut writer = writer();
    writer.record(1, &[1; 9000]).unwrap();
    writer.entry(1, 9000).unwrap();
    assert_eq!(writer.record(1, b"x"), Err(ContainerError::PaddingBegun));
}

#[test]
fn the_root_is_that_of_the_file_s_leaves() {
    let container = golden_container();
    let mut commitment = measurement::dataset::Commitment::new();
    commitment.push(&container.bytes[..container.prelude()]);
    for place in 0..3 {
        commitment.push(&container.bytes[container.segment(place)]);
    }
    assert_eq!(commitment.root(), container.root);
}

#[test]
fn the_body_is_a_floe_stream_to_others() {
    use floe_rs::gcm;
    let container = golden_container();
    let prelude = container.prelude();
    let prefix = &container.bytes[..prelude - HEADER_LEN];
    let aad = [&b"SDS1 aad\0"[..], &sha256(prefix)].concat();
    let floe = gcm::Header::from_bytes(&container.bytes[prelude - HEADER_LEN..prelude]).unwrap();
    let floe = gcm::FloeDecryptor::<4096>::new(&[KEY; 32].into(), &aad, &floe).unwrap();
    let mut plain = Vec::new();
    for place in 0..3 {
        let segment = gcm::Segment::from_bytes(&container.bytes[container.segment(place)]).unwrap();
        let mut part = vec![0; segment.plaintext_size()];
        floe.decrypt_segment(&segment, &mut part, to_u64(place), place == 2).unwrap();
        plain.extend(part);
    }
    assert_eq!(plain.len(), 9000 + 8 * ENTRY_LEN + FOOTER_LEN);
    assert!(plain.starts_with(b"aaaaaaaaaab"));
    assert!(plain[9000 + 8 * ENTRY_LEN..].starts_with(b"SDSFOOT1"));
}

#[test]
fn rejects_a_flipped_bit_anywhere() {
    let container = golden_container();
    let prelude = container.prelude();
    for at in (0..prelude + 20).chain((prelude..container.bytes.len()).step_by(211)) {
        let forged = golden_container().with(|bytes| bytes[at] ^= 1);
        let place = to_u64(at.saturating_sub(prelude) / 4096);
        match (at, forged.finding()) {
            (0..8, ContainerError::Magic { .. })
            | (8..12, ContainerError::HeaderLength { .. } | ContainerError::Header(_)) => {}
            (
                12..,
                ContainerError::Header(_)
                | ContainerError::Version { .. }
                | ContainerError::Suite { .. }
                | ContainerError::Size { .. }
                | ContainerError::WrongKey { .. }
                | ContainerError::Floe(FloeError::SegmentSize { .. } | FloeError::HeaderTag),
            ) if at < prelude - HEADER_LEN => {}
            (_, ContainerError::Floe(FloeError::Parameters { .. }))
                if (prelude - 74..prelude - 64).contains(&at) => {}
            (_, ContainerError::Floe(FloeError::HeaderTag))
                if (prelude - 64..prelude).contains(&at) => {}
            (
                _,
                ContainerError::Floe(
                    FloeError::SegmentMark { position, .. } | FloeError::SegmentForged { position },
                ),
            ) if at >= prelude => assert_eq!(position, place, "byte {at}"),
            (8..12, ContainerError::Truncated { .. }) => {}
            (at, other) => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn rejects_every_prefix_as_truncated() {
    let container = golden_container();
    let (prelude, whole) = (container.prelude(), to_u64(container.bytes.len()));
    for end in 0..container.bytes.len() {
        let forged = golden_container().with(|bytes| bytes.truncate(end));
        let required = match end {
            0..12 => 12,
            12.. if end < prelude => to_u64(prelude),
            _ => whole,
        };
        assert_eq!(forged.finding(), ContainerError::Truncated { observed: to_u64(end), required });
    }
}

#[test]
fn rejects_segments_that_changed_places() {
    let container = golden_container();
    let (one, two) = (container.segment(0), container.segment(1));
    let forged = golden_container().with(|bytes| {
        let (left, right) = bytes.split_at_mut(two.start);
        left[one].swap_with_slice(&mut right[..4096]);
    });
    assert_eq!(forged.finding(), FloeError::SegmentForged { position: 0 }.into());
}

#[test]
fn rejects_a_segment_that_is_there_twice() {
    let container = golden_container();
    let one = container.segment(0);
    let forged = golden_container().with(|bytes| {
        let copy = bytes[one.clone()].to_vec();
        bytes.splice(one.end..one.end, copy);
    });
    assert_eq!(forged.finding(), FloeError::SegmentForged { position: 1 }.into());
}

#[test]
fn rejects_a_segment_of_another_file_under_the_same_key() {
    let other = sealed(&header(), &records(), 2);
    let forged = golden_container().with(|bytes| {
        let place = other.segment(1);
        bytes[place.clone()].copy_from_slice(&other.bytes[place]);
    });
    assert_eq!(forged.finding(), FloeError::SegmentForged { position: 1 }.into());
}

#[test]
fn rejects_a_missing_segment() {
    let place = golden_container().segment(1);
    let forged = golden_container().with(|bytes| drop(bytes.drain(place)));
    assert_eq!(
        forged.finding(),
        ContainerError::Truncated {
            observed: to_u64(forged.bytes.len()),
            required: header().file_len().unwrap()
        }
    );
}

#[test]
fn rejects_another_valid_file_under_the_same_key() {
    let (wanted, other) = (golden_container(), sealed(&header(), &records(), 2));
    assert_ne!(wanted.root, other.root);
    let swapped = Golden { root: wanted.root, bytes: other.bytes.clone() };
    assert_eq!(
        swapped.finding(),
        ContainerError::Root { observed: other.root, required: wanted.root }
    );
    assert!(other.open().is_ok());
}

#[test]
fn rejects_another_key_by_its_name() {
    let refused = golden_container().open_in(1000, &golden::key(2)).err().unwrap();
    let (observed, required) = (golden::key(KEY).id(), golden::key(2).id());
    assert_eq!(refused, ContainerError::WrongKey { observed, required });
}

/// The golden container with another header in front, of the same length.
fn with_header(change: impl FnOnce(&mut Header)) -> Golden {
    let mut header = header();
    change(&mut header);
    let prefix = header.prefix().unwrap();
    golden_container().with(|bytes| bytes[..prefix.len()].copy_from_slice(&prefix))
}

#[test]
fn rejects_another_key_that_took_the_name() {
    let forged = with_header(|header| header.dek_id = golden::key(2).id());
    let refused = forged.open_in(1000, &golden::key(2)).err().unwrap();
    assert_eq!(refused, FloeError::HeaderTag.into());
}

#[test]
fn rejects_a_header_that_lies() {
    let lies: [fn(&mut Header); 7] = [
        |header| header.capacity = 9001,
        |header| header.created += 1,
        |header| header.dataset_id = Octets([9; 16]),
        |header| header.dataset_version = 2,
        |header| header.n_max = 9,
        |header| header.privacy_unit = Unit::Field("customel".into()),
        |header| header.schema = Octets([9; 32]),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let finding = with_header(lie).finding();
        assert_eq!(finding, FloeError::HeaderTag.into(), "lie {number}");
    }
}

#[test]
fn rejects_versions_suites_and_sizes_there_are_not() {
    let finding = |change: fn(&mut Header)| with_header(change).finding();
    assert_eq!(finding(|header| header.version = 2), ContainerError::Version { observed: 2 });
    assert_eq!(finding(|header| header.suite = 0), ContainerError::Suite { observed: 0 });
    assert_eq!(
        finding(|header| header.segment_len = 4097),
        FloeError::SegmentSize { observed: 4097 }.into()
    );
    let mut vast = header();
    (vast.capacity, vast.n_max) = (u64::MAX, 1);
    let expected = ContainerError::Size { capacity: u64::MAX, n_max: 1 };
    assert_eq!(vast.file_len(), Err(expected.clone()));
    assert_eq!(Writer::new(&vast, &golden::key(KEY), golden::rng(1)).err(), Some(expected));
    let mut long = header();
    long.capacity = MAX_SEGMENTS * 4064;
    let expected = ContainerError::Size { capacity: long.capacity, n_max: 8 };
    assert_eq!(long.file_len(), Err(expected));
}

#[test]
fn rejects_a_header_in_another_encoding() {
    let forged = golden_container().with(|bytes| {
        // One more byte inside the header, and the length to match.
        let length = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) + 1;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes.insert(12 + usize::try_from(length - 1).unwrap(), 0);
    });
    assert_eq!(forged.finding(), ContainerError::Header(Malformed::Trailing { extra: 1 }));
}

#[test]
fn rejects_a_header_longer_than_any() {
    let forged = golden_container().with(|bytes| bytes[8..12].copy_from_slice(&[0, 1, 0, 1]));
    assert_eq!(forged.finding(), ContainerError::HeaderLength { observed: 65_537 });
}

#[test]
fn rejects_what_is_no_container() {
    let forged =
        Golden { bytes: b"PK\x03\x04 something".to_vec(), root: Hash32::from_bytes([0; 32]) };
    assert_eq!(forged.finding(), ContainerError::Magic { observed: Octets(*b"PK\x03\x04 som") });
}

#[test]
fn rejects_trailing_bytes() {
    let forged = golden_container().with(|bytes| bytes.push(0));
    let length = header().file_len().unwrap();
    assert_eq!(forged.finding(), ContainerError::TrailingBytes { length });
}

#[test]
fn rejects_more_than_the_caller_will_hold() {
    let container = golden_container();
    let key = golden::key(KEY);
    let mut reader = Reader::new(&key, container.root, 9255);
    assert_eq!(
        reader.feed(&container.bytes),
        Err(ContainerError::TooLarge { observed: 9256, allowed: 9255 })
    );
}

#[test]
fn keeps_to_its_first_finding() {
    let container = golden_container().with(|bytes| bytes[3000] ^= 1);
    let key = golden::key(KEY);
    let mut reader = Reader::new(&key, container.root, MEMORY);
    let finding = Err(FloeError::SegmentForged { position: 0 }.into());
    assert_eq!(reader.feed(&container.bytes), finding);
    assert_eq!(reader.feed(&golden_container().bytes), finding);
    assert_eq!(reader.finish().map(drop), finding);
}

/// A container under the right key, by a sealer who puts in whatever it likes.
fn lying(change: impl FnOnce(&mut Vec<u8>)) -> Golden {
    let (key, header) = (golden::key(KEY), header());
    let mut plain: Vec<u8> = records().into_iter().flat_map(|(_, payload)| payload).collect();
    let end = to_u64(plain.len());
    plain.resize(9000, 0);
    let mut offset = 0;
    for (unit, payload) in records() {
        let length = u32::try_from(payload.len()).unwrap();
        index::Entry { offset, length, flags: 0, unit }.write(&mut plain);
        offset += u64::from(length);
    }
    plain.resize(9000 + 8 * ENTRY_LEN, 0);
    plain.extend(Footer { records_end: end, index_off: 9000, records: 3, units: 2 }.bytes());
    change(&mut plain);
    let mut bytes = header.prefix().unwrap();
    let mut rng = golden::rng(3);
    let aad = floe_aad(&bytes);
    let (mut floe, floe_header) =
        Encryptor::start(&key, &aad, SegmentSize::Kib4, &mut rng).unwrap();
    bytes.extend(floe_header);
    let mut commitment = measurement::dataset::Commitment::new();
    commitment.push(&bytes);
    let mut parts = plain.chunks(PLAIN);
    let last = parts.next_back().unwrap();
    for part in parts {
        let begin = bytes.len();
        floe.segment(part, &mut rng, &mut bytes).unwrap();
        commitment.push(&bytes[begin..]);
    }
    let begin = bytes.len();
    floe.last(last, &mut rng, &mut bytes).unwrap();
    commitment.push(&bytes[begin..]);
    Golden { bytes, root: commitment.root() }
}

const INDEX: usize = 9000;
const FOOTER: usize = 9000 + 8 * ENTRY_LEN;

fn lie(change: impl FnOnce(&mut Vec<u8>)) -> IndexError {
    match lying(change).finding() {
        ContainerError::Index(finding) => finding,
        other => panic!("{other:?}"),
    }
}

fn put(plain: &mut [u8], at: usize, value: u64) {
    plain[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

#[test]
fn accepts_the_sealer_that_does_not_lie() {
    assert_eq!(list(&lying(|_| {}).open().unwrap()), records());
}

#[test]
fn rejects_records_that_overlap_leave_a_gap_or_are_out_of_order() {
    for observed in [0, 9, 11, u64::MAX] {
        assert_eq!(
            lie(|plain| put(plain, INDEX + ENTRY_LEN, observed)),
            IndexError::Offset { record: 1, observed, required: 10 }
        );
    }
}

#[test]
fn rejects_a_record_beyond_the_capacity_and_an_empty_one() {
    for observed in [0, 8991, u32::MAX] {
        let length = observed.to_be_bytes();
        let at = INDEX + ENTRY_LEN + 8;
        assert_eq!(
            lie(|plain| plain[at..at + 4].copy_from_slice(&length)),
            IndexError::Length { record: 1, observed: observed.into(), allowed: 8990 }
        );
    }
}

#[test]
fn rejects_a_flag_that_has_no_meaning() {
    let finding = lie(|plain| plain[INDEX + 2 * ENTRY_LEN + 15] = 4);
    assert_eq!(finding, IndexError::Flags { record: 2, observed: 4 });
}

#[test]
fn rejects_a_record_of_no_unit() {
    assert_eq!(lie(|plain| put(plain, INDEX + 16, 0)), IndexError::UnitZero { record: 0 });
}

#[test]
fn rejects_something_left_in_the_unused_entries() {
    assert_eq!(lie(|plain| plain[FOOTER - 1] = 1), IndexError::Unused);
}

#[test]
fn rejects_something_left_in_the_padding() {
    for at in [5011, 8999] {
        assert_eq!(lie(|plain| plain[at] = 1), IndexError::Padding);
    }
}

#[test]
fn rejects_a_footer_that_lies() {
    assert_eq!(
        lie(|plain| plain[FOOTER] = b'X'),
        IndexError::FooterMagic { observed: Octets(*b"XDSFOOT1") }
    );
    assert_eq!(
        lie(|plain| put(plain, FOOTER + 8, 5010)),
        IndexError::RecordsEnd { observed: 5010, required: 5011 }
    );
    assert_eq!(
        lie(|plain| put(plain, FOOTER + 16, 8999)),
        IndexError::IndexOffset { observed: 8999, required: 9000 }
    );
    assert_eq!(
        lie(|plain| put(plain, FOOTER + 24, 9)),
        IndexError::Count { observed: 9, allowed: 8 }
    );
    assert_eq!(
        lie(|plain| put(plain, FOOTER + 24, 2)),
        IndexError::RecordsEnd { observed: 5011, required: 5010 }
    );
    assert_eq!(
        lie(|plain| put(plain, FOOTER + 32, 3)),
        IndexError::Units { observed: 3, required: 2 }
    );
    assert_eq!(lie(|plain| plain[FOOTER + 63] = 1), IndexError::FooterReserved);
}

fn writer() -> Writer<rand_chacha::ChaCha20Rng> {
    Writer::new(&header(), &golden::key(KEY), golden::rng(1)).unwrap().0
}

#[test]
fn refuses_what_does_not_fit_and_goes_on() {
    let mut writer = writer();
    assert_eq!(writer.record(1, b""), Err(ContainerError::EmptyRecord { record: 0 }));
    assert_eq!(writer.record(0, b"x"), Err(ContainerError::UnitZero { record: 0 }));
    let (observed, allowed) = (9001, 9000);
    assert_eq!(writer.record(1, &[1; 9001]), Err(ContainerError::Capacity { observed, allowed }));
    for _ in 0..8 {
        writer.record(1, b"x").unwrap();
    }
    assert_eq!(writer.record(1, b"x"), Err(ContainerError::Records { allowed: 8 }));
    let one = (1, b"x".to_vec());
    assert!(close(writer, &vec![one; 8]).is_ok());
}

#[test]
fn refuses_a_record_after_padding_began() {
    let mut writer = writer();
    writer.pad().unwrap();
    assert_eq!(writer.record(1, b"x"), Err(ContainerError::PaddingBegun));
}

#[test]
fn refuses_a_header_that_names_another_key() {
    let refused = Writer::new(&header(), &golden::key(2), golden::rng(1));
    let (observed, required) = (golden::key(KEY).id(), golden::key(2).id());
    assert_eq!(refused.err(), Some(ContainerError::WrongKey { observed, required }));
}

fn content() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    let borders = prop_oneof![1..20_usize, PLAIN - 2..PLAIN + 3, 2 * PLAIN - 2..2 * PLAIN + 3];
    let payload = borders.prop_flat_map(|length| proptest::collection::vec(any::<u8>(), length));
    proptest::collection::vec((1..5_u64, payload), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_content_comes_back(
        content in content(),
        spare in prop_oneof![Just(0), 0..10_u64, Just(4064 - 256), Just(4064), 4000..9000_u64],
        unused in 0..4_u64,
        chunk in 1..9000_usize,
    ) {
        let used: usize = content.iter().map(|(_, payload)| payload.len()).sum();
        let mut header = header();
        header.capacity = to_u64(used) + spare;
        header.n_max = to_u64(content.len()) + unused;
        let container = sealed(&header, &content, 5);
        prop_assert_eq!(to_u64(container.bytes.len()), header.file_len().unwrap());
        let opened = container.open_in(chunk, &golden::key(KEY)).unwrap();
        prop_assert_eq!(list(&opened), content);
    }

    #[test]
    fn no_bytes_are_taken_for_a_container(bytes: Vec<u8>) {
        let key = DataKey::from_secret(Zeroizing::new([1; 32]));
        for start in [Vec::new(), [&MAGIC[..], &[0, 0, 0, 9]].concat()] {
            let mut reader = Reader::new(&key, Hash32::from_bytes([0; 32]), MEMORY);
            let fed = reader.feed(&start).and_then(|()| reader.feed(&bytes));
            prop_assert!(fed.is_err() || reader.finish().is_err());
        }
    }
}
