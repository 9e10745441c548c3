//! FLOE-GCM-256-SHA384: a stream of segments, each of which knows its place.
//!
//! The specification is "FLOE Specification" (c2sp.org/FLOE; the proofs are ePrint 2025/2275), in
//! its online form: one pass, in order, one last segment.
//!
//! ```text
//! header   off  len  field
//!          0    1    AEAD: 0, AES-256-GCM
//!          1    1    KDF: 0, HKDF-Expand-SHA384
//!          2    4    length of a sealed segment, big-endian
//!          6    4    length of the IV: 32
//!          10   32   IV, random
//!          42   32   header tag: commits to key, IV, parameters and associated data
//! segment  0    4    0xFFFFFFFF, or the length of the last segment in bytes, all of it
//!          4    12   nonce, random
//!          16   n    ciphertext
//!          16+n 16   tag over u64be place ‖ u8 last
//! ```
//!
//! A new AES key is derived every 2²⁰ segments, so that random nonces collide under one key with
//! probability below 2⁻⁵⁷.

use alloc::vec::Vec;

use measurement::octets::Octets;
use rand_core::CryptoRng;
use ring::{aead, hmac};
use thiserror::Error;
use zeroize::Zeroize;

use crate::key::{DataKey, expand, same};

/// Bytes of a FLOE header.
pub const HEADER_LEN: usize = 74;

/// Bytes that sealing adds to every segment: mark, nonce and tag.
pub const OVERHEAD: usize = 32;

/// Segments of the longest stream (the specification's `AEAD_MAX_SEGMENTS`).
pub const MAX_SEGMENTS: u64 = 1 << 40;

/// Segments that share an AES key: the low bits that do not count in its derivation.
const EPOCH: u64 = (1 << 20) - 1;

const INNER_MARK: u32 = u32::MAX;
const IV_LEN: u32 = 32;
const TAG_LEN: usize = 16;

/// The length of a sealed segment: one of three, so that no header can ask for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentSize {
    /// 4096 bytes.
    Kib4,
    /// 65 536 bytes, the usual one.
    Kib64,
    /// 1 048 576 bytes.
    Mib1,
}

impl SegmentSize {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kib4, Self::Kib64, Self::Mib1];

    /// Length in bytes, as headers carry it.
    #[must_use]
    pub const fn wire(self) -> u32 {
        match self {
            Self::Kib4 => 4096,
            Self::Kib64 => 65_536,
            Self::Mib1 => 1_048_576,
        }
    }

    /// Length of a sealed segment in bytes.
    #[must_use]
    pub const fn sealed(self) -> usize {
        match self {
            Self::Kib4 => 4096,
            Self::Kib64 => 65_536,
            Self::Mib1 => 1_048_576,
        }
    }

    /// Plaintext in a full segment, in bytes.
    #[must_use]
    pub const fn plain(self) -> usize {
        self.sealed() - OVERHEAD
    }
}

impl TryFrom<u32> for SegmentSize {
    type Error = FloeError;

    fn try_from(observed: u32) -> Result<Self, FloeError> {
        Self::ALL
            .into_iter()
            .find(|size| size.wire() == observed)
            .ok_or(FloeError::SegmentSize { observed })
    }
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FloeError {
    /// The cipher itself refused, which no length that gets this far can cause.
    #[error("the cipher refused segment {position}")]
    Cipher {
        /// Place of the segment, from 0.
        position: u64,
    },
    /// The header does not belong to this key and these associated data.
    #[error("the header tag does not verify: another key, or an altered header")]
    HeaderTag,
    /// The header is for another member of the family.
    #[error("floe parameters are {observed}, {required} are required")]
    Parameters {
        /// The ten bytes at hand.
        observed: Octets<10>,
        /// The ten bytes that the segment size gives.
        required: Octets<10>,
    },
    /// Plaintext that does not fit its segment.
    #[error("segment {position} is given {observed} bytes, {required} are required")]
    PlaintextLength {
        /// Place of the segment, from 0.
        position: u64,
        /// Bytes given.
        observed: usize,
        /// Bytes of a full segment: exactly so many inside, at most so many at the end.
        required: usize,
    },
    /// A segment was altered, or is not the one sealed at this place.
    #[error("segment {position} does not authenticate: altered, moved, or from another stream")]
    SegmentForged {
        /// Place of the segment, from 0.
        position: u64,
    },
    /// A segment is too short or too long for its place.
    #[error("segment {position} has {observed} bytes, {required} are required")]
    SegmentLength {
        /// Place of the segment, from 0.
        position: u64,
        /// Bytes at hand.
        observed: usize,
        /// Bytes of a full segment.
        required: usize,
    },
    /// A segment says of itself that it is the last when it is not, or the reverse.
    #[error("segment {position} is marked {observed:#010x}, {required:#010x} is required")]
    SegmentMark {
        /// Place of the segment, from 0.
        position: u64,
        /// Its mark.
        observed: u32,
        /// The mark of its place.
        required: u32,
    },
    /// Not one of the lengths there are.
    #[error("segments of {observed} bytes are not among 4096, 65536 and 1048576")]
    SegmentSize {
        /// The length asked for.
        observed: u32,
    },
    /// The stream is as long as a stream may be.
    #[error("a stream has at most {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// The stream ended where no stream can.
    #[error("the stream ends after {observed} bytes, at least {required} are required")]
    Truncated {
        /// Bytes at hand.
        observed: usize,
        /// Bytes of the shortest stream.
        required: usize,
    },
}

/// Seals a stream, segment by segment.
pub struct Encryptor {
    stream: Stream,
    next: u64,
}

impl Encryptor {
    /// Begins a stream under `key`, bound to `aad`; returns its header too.
    ///
    /// # Errors
    /// [`FloeError::Cipher`].
    pub fn start(
        key: &DataKey,
        aad: &[u8],
        size: SegmentSize,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, [u8; HEADER_LEN]), FloeError> {
        let mut iv = [0; 32];
        rng.fill_bytes(&mut iv);
        let (stream, tag) = Stream::new(key, aad, size, iv)?;
        let mut header = [0; HEADER_LEN];
        let fields = stream.parameters.0.iter().chain(&iv).chain(&tag);
        for (to, from) in header.iter_mut().zip(fields) {
            *to = *from;
        }
        Ok((Self { stream, next: 0 }, header))
    }

    /// Seals the next segment, which is not the last, and appends it to `out`.
    ///
    /// # Errors
    /// [`FloeError::PlaintextLength`] unless `plaintext` fills the segment;
    /// [`FloeError::TooManySegments`].
    pub fn segment(
        &mut self,
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<(), FloeError> {
        if self.next >= MAX_SEGMENTS - 1 {
            return Err(FloeError::TooManySegments);
        }
        self.stream.seal(self.next, Place::Inner, plaintext, rng, out)?;
        self.next += 1;
        Ok(())
    }

    /// Seals the last segment, which may be shorter or empty, and appends it to `out`.
    ///
    /// # Errors
    /// [`FloeError::PlaintextLength`] if `plaintext` does not fit the segment.
    pub fn last(
        mut self,
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<(), FloeError> {
        self.stream.seal(self.next, Place::Last, plaintext, rng, out)
    }
}

/// Opens a stream, segment by segment.
pub struct Decryptor {
    stream: Stream,
    next: u64,
}

impl Decryptor {
    /// Begins to open the stream with this header.
    ///
    /// # Errors
    /// [`FloeError::Parameters`], then [`FloeError::HeaderTag`], compared in constant time.
    pub fn start(
        key: &DataKey,
        aad: &[u8],
        size: SegmentSize,
        header: &[u8; HEADER_LEN],
    ) -> Result<Self, FloeError> {
        let (observed, iv, tag) = fields(header);
        let required = parameters(size);
        if observed != required {
            return Err(FloeError::Parameters { observed, required });
        }
        let (stream, expected) = Stream::new(key, aad, size, iv)?;
        if !same(&expected, &tag) {
            return Err(FloeError::HeaderTag);
        }
        Ok(Self { stream, next: 0 })
    }

    /// Opens the next segment, which is not the last, in place.
    ///
    /// # Errors
    /// [`FloeError::SegmentLength`], [`FloeError::SegmentMark`], [`FloeError::SegmentForged`].
    /// What `segment` holds then is of no use.
    pub fn segment<'a>(&mut self, segment: &'a mut [u8]) -> Result<&'a [u8], FloeError> {
        if self.next >= MAX_SEGMENTS - 1 {
            return Err(FloeError::TooManySegments);
        }
        let plaintext = self.stream.open(self.next, Place::Inner, segment)?;
        self.next += 1;
        Ok(plaintext)
    }

    /// Opens the last segment in place.
    ///
    /// # Errors
    /// As [`Self::segment`].
    pub fn last(mut self, segment: &mut [u8]) -> Result<&[u8], FloeError> {
        self.stream.open(self.next, Place::Last, segment)
    }
}

/// Where a segment stands. Comes from what was authenticated, never from the segment.
#[derive(Clone, Copy)]
enum Place {
    Inner,
    Last,
}

impl Place {
    /// `u64be position ‖ u8 last`, what a segment's tag covers besides its content.
    fn aad(self, position: u64) -> [u8; 9] {
        let [a, b, c, d, e, f, g, h] = position.to_be_bytes();
        let last = match self {
            Self::Inner => 0,
            Self::Last => 1,
        };
        [a, b, c, d, e, f, g, h, last]
    }
}

/// What both directions share: the message key, and the AES key of the present epoch.
struct Stream {
    size: SegmentSize,
    parameters: Octets<10>,
    iv: [u8; 32],
    aad: Vec<u8>,
    message_key: hmac::Key,
    epoch: u64,
    cipher: aead::LessSafeKey,
}

impl Stream {
    /// The stream's state and its header tag.
    fn new(
        key: &DataKey,
        aad: &[u8],
        size: SegmentSize,
        iv: [u8; 32],
    ) -> Result<(Self, [u8; 32]), FloeError> {
        let parameters = parameters(size);
        let prk = key.prk();
        let tag = expand::<32>(&prk, &[&parameters.0, &iv, b"HEADER_TAG:", aad]);
        let message = expand::<48>(&prk, &[&parameters.0, &iv, b"MESSAGE_KEY:", aad]);
        let message_key = hmac::Key::new(hmac::HMAC_SHA384, message.as_slice());
        let cipher = cipher(&message_key, parameters, &iv, aad, 0)?;
        let aad = aad.to_vec();
        Ok((Self { size, parameters, iv, aad, message_key, epoch: 0, cipher }, *tag))
    }

    fn cipher(&mut self, position: u64) -> Result<&aead::LessSafeKey, FloeError> {
        let epoch = position & !EPOCH;
        if epoch != self.epoch {
            self.cipher = cipher(&self.message_key, self.parameters, &self.iv, &self.aad, epoch)?;
            self.epoch = epoch;
        }
        Ok(&self.cipher)
    }

    fn seal(
        &mut self,
        position: u64,
        place: Place,
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<(), FloeError> {
        let mark = self.mark(position, place, plaintext.len())?;
        let mut nonce = [0; 12];
        rng.fill_bytes(&mut nonce);
        let cipher = self.cipher(position)?;
        // Reserved first: what is reallocated is ciphertext, never this plaintext.
        out.reserve(plaintext.len() + OVERHEAD);
        out.extend_from_slice(&mark.to_be_bytes());
        out.extend_from_slice(&nonce);
        let begin = out.len();
        out.extend_from_slice(plaintext);
        let body = out.get_mut(begin..).unwrap_or_default();
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let aad = aead::Aad::from(place.aad(position));
        match cipher.seal_in_place_separate_tag(nonce, aad, body) {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            Err(_) => {
                body.zeroize();
                return Err(FloeError::Cipher { position });
            }
        }
        Ok(())
    }

    /// The mark of a segment with so much plaintext, if it may have so much.
    fn mark(&self, position: u64, place: Place, observed: usize) -> Result<u32, FloeError> {
        let required = self.size.plain();
        let length = u32::try_from(observed + OVERHEAD).ok();
        match (place, length) {
            (Place::Inner, _) if observed == required => Ok(INNER_MARK),
            (Place::Last, Some(length)) if observed <= required => Ok(length),
            _ => Err(FloeError::PlaintextLength { position, observed, required }),
        }
    }

    fn open<'a>(
        &mut self,
        position: u64,
        place: Place,
        segment: &'a mut [u8],
    ) -> Result<&'a [u8], FloeError> {
        let (observed, required) = (segment.len(), self.size.sealed());
        let wrong_length = FloeError::SegmentLength { position, observed, required };
        let expected = observed
            .checked_sub(OVERHEAD)
            .and_then(|plain| self.mark(position, place, plain).ok())
            .ok_or_else(|| wrong_length.clone())?;
        let (mark, rest) = segment.split_first_chunk_mut().ok_or_else(|| wrong_length.clone())?;
        let (nonce, body) = rest.split_first_chunk_mut().ok_or(wrong_length)?;
        let mark = u32::from_be_bytes(*mark);
        if mark != expected {
            return Err(FloeError::SegmentMark { position, observed: mark, required: expected });
        }
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let aad = aead::Aad::from(place.aad(position));
        self.cipher(position)?
            .open_in_place(nonce, aad, body)
            .map(|plaintext| &*plaintext)
            .map_err(|_| FloeError::SegmentForged { position })
    }
}

/// `PARAM_ENCODE`: AEAD 0, KDF 0, segment length, IV length.
fn parameters(size: SegmentSize) -> Octets<10> {
    let [a, b, c, d] = size.wire().to_be_bytes();
    let [e, f, g, h] = IV_LEN.to_be_bytes();
    Octets([0, 0, a, b, c, d, e, f, g, h])
}

/// `DERIVE_KEY`: the AES key of the 2²⁰ segments that begin at `epoch`.
fn cipher(
    message_key: &hmac::Key,
    parameters: Octets<10>,
    iv: &[u8; 32],
    aad: &[u8],
    epoch: u64,
) -> Result<aead::LessSafeKey, FloeError> {
    let info: [&[u8]; 5] = [&parameters.0, iv, b"DEK:", &epoch.to_be_bytes(), aad];
    let key = expand::<32>(message_key, &info);
    aead::UnboundKey::new(&aead::AES_256_GCM, key.as_slice())
        .map(aead::LessSafeKey::new)
        .map_err(|_| FloeError::Cipher { position: epoch })
}

/// A header's parameters, IV and tag.
fn fields(header: &[u8; HEADER_LEN]) -> (Octets<10>, [u8; 32], [u8; 32]) {
    let mut bytes = header.iter().copied();
    let mut next = || bytes.next().unwrap_or_default();
    let parameters = core::array::from_fn(|_| next());
    let iv = core::array::from_fn(|_| next());
    let tag = core::array::from_fn(|_| next());
    (Octets(parameters), iv, tag)
}

const _: () = assert!(OVERHEAD == 4 + 12 + TAG_LEN);
const _: () = assert!(HEADER_LEN == 10 + 32 + 32);

#[cfg(test)]
mod tests;
