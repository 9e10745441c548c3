//! How fast a container is sealed and opened here, beside AES-256-GCM alone and SHA-256 alone (the
//! root's leaves) on the same bytes.
//!
//! `cargo run --release -p sealed --example seal_speed [MEBIBYTES]`

#![allow(clippy::as_conversions, clippy::indexing_slicing, clippy::unwrap_used)]

use std::{hint::black_box, time::Instant};

use measurement::{
    digest::{Hash32, of::Dataset, sha256},
    octets::Octets,
    privacy::Unit,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use ring::aead;
use sealed::{DataKey, Header, Reader, SegmentSize, Writer};

const RECORD: usize = 2048;
const ROUNDS: usize = 5;

fn main() {
    let mebibytes: usize = std::env::args().nth(1).map_or(64, |text| text.parse().unwrap());
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let mut payload = vec![0; mebibytes << 20];
    rng.fill_bytes(&mut payload);
    let key = DataKey::generate(&mut rng);
    for size in SegmentSize::ALL {
        let header = header(&key, size, payload.len());
        let raw = best(payload.len(), || cipher_alone(&payload, size));
        let hash = best(payload.len(), || hash_alone(&payload, size));
        let mut file = (Vec::new(), None);
        let sealing = best(payload.len(), || file = seal(&header, &key, &payload, &mut file.0));
        let (bytes, root) = (&file.0, file.1.unwrap());
        let opening = best(payload.len(), || {
            let mut reader = Reader::new(&key, root, u64::MAX);
            bytes.chunks(1 << 20).for_each(|chunk| reader.feed(chunk).unwrap());
            assert_eq!(reader.finish().unwrap().len(), payload.len().div_ceil(RECORD));
        });
        println!(
            "segments of {:>7}: aes-256-gcm alone {raw:>5.0} MB/s, sha-256 alone {hash:>5.0} MB/s, \
             sealing {sealing:>5.0} MB/s ({:.0} %), opening {opening:>5.0} MB/s ({:.0} %)",
            size.sealed(),
            100.0 * sealing / raw,
            100.0 * opening / raw,
        );
    }
}

type File = (Vec<u8>, Option<Hash32<Dataset>>);

fn seal(header: &Header, key: &DataKey, payload: &[u8], reuse: &mut Vec<u8>) -> File {
    let mut bytes = std::mem::take(reuse);
    bytes.clear();
    let rng = ChaCha20Rng::from_seed([2; 32]);
    let (mut writer, first) = Writer::new(header, key, rng).unwrap();
    bytes.extend(first);
    for (unit, record) in (1..).zip(payload.chunks(RECORD)) {
        bytes.extend(writer.record(unit, record).unwrap());
    }
    let mut units = 0;
    for (unit, record) in (1..).zip(payload.chunks(RECORD)) {
        bytes.extend(writer.entry(unit, u32::try_from(record.len()).unwrap()).unwrap());
        units = unit;
    }
    let (last, root) = writer.finish(units).unwrap();
    bytes.extend(last);
    (bytes, Some(root))
}

/// Every segment's plaintext through the cipher, in place, and nothing else.
fn cipher_alone(payload: &[u8], size: SegmentSize) {
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, &[1; 32]).unwrap();
    let key = aead::LessSafeKey::new(key);
    let mut buffer = vec![0; size.plain()];
    for segment in payload.chunks(size.plain()) {
        let part = &mut buffer[..segment.len()];
        part.copy_from_slice(segment);
        let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
        let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::empty(), part);
        let _ = black_box(tag.unwrap());
    }
}

fn hash_alone(payload: &[u8], size: SegmentSize) {
    for segment in payload.chunks(size.plain()) {
        black_box(sha256(segment));
    }
}

/// The best of some rounds, in MB/s.
fn best(bytes: usize, mut round: impl FnMut()) -> f64 {
    let seconds = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        round();
        begin.elapsed().as_secs_f64()
    });
    bytes as f64 / seconds.fold(f64::INFINITY, f64::min) / 1e6
}

fn header(key: &DataKey, size: SegmentSize, payload: usize) -> Header {
    Header {
        capacity: u64::try_from(payload).unwrap(),
        created: 0,
        dataset_id: Octets([1; 16]),
        dataset_version: 1,
        dek_id: key.id(),
        minimisation: None,
        n_max: u64::try_from(payload.div_ceil(RECORD)).unwrap(),
        previous_root: None,
        privacy_unit: Unit::Record,
        schema: Octets([2; 32]),
        segment_len: size.wire(),
        suite: Header::SUITE,
        version: Header::VERSION,
    }
}
