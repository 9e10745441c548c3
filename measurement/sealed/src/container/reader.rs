//! Reading a container, in one pass, and giving out nothing before all of it is verified.
//!
//! 1. Magic, and the header's length under its cap.
//! 2. The header, strictly; its constants give the file's shape.
//! 3. The key: by name, then by FLOE's header tag, which covers the header.
//! 4. Memory for the plaintext, under the caller's limit.
//! 5. Segments, each at the place and of the length that the header gives it, and nothing after.
//! 6. The root: this very file, and no other under the same key.
//! 7. Footer, index and padding, every byte.

use alloc::{boxed::Box, vec::Vec};
use core::{mem, ops::Range};

use measurement::{
    dataset::Commitment,
    digest::{Hash32, of::Dataset},
    octets::Octets,
};
use zeroize::Zeroizing;

use super::{
    ContainerError, Header, MAGIC, MAX_HEADER, floe_aad,
    header::{Layout, to_u64},
    index::{Contents, ENTRY_LEN, Entry, check},
};
use crate::{
    floe::{Decryptor, HEADER_LEN},
    key::DataKey,
};

/// Bytes before the header: magic and length.
const FRAME_LEN: usize = 12;

/// Opens a container that is fed to it from the first byte to the last.
pub struct Reader<'k> {
    expected: Expected<'k>,
    stage: Stage,
    fed: u64,
}

impl<'k> Reader<'k> {
    /// Expects the data set with this root, under this key, with at most `memory` bytes of
    /// plaintext (padding and index included).
    #[must_use]
    pub const fn new(key: &'k DataKey, root: Hash32<Dataset>, memory: u64) -> Self {
        let expected = Expected { key, root, memory };
        Self { expected, stage: Stage::Prelude(Vec::new()), fed: 0 }
    }

    /// Takes the next bytes of the file, however many.
    ///
    /// # Errors
    /// The first finding, at the byte that makes it certain; the same one from then on.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ContainerError> {
        self.fed = self.fed.saturating_add(to_u64(bytes.len()));
        while !bytes.is_empty() {
            let stage = mem::replace(&mut self.stage, Stage::Prelude(Vec::new()));
            match stage.step(&mut bytes, &self.expected) {
                Ok(next) => self.stage = next,
                Err(error) => {
                    self.stage = Stage::Refused(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`ContainerError::Truncated`] if bytes are missing, and what [`Reader::feed`] found.
    pub fn finish(self) -> Result<Records, ContainerError> {
        let required = match self.stage {
            Stage::Prelude(bytes) => to_u64(prelude_len(&bytes)?),
            Stage::Segments(body) => body.layout.file_len,
            Stage::Verified(records) => return Ok(*records),
            Stage::Refused(error) => return Err(error),
        };
        Err(ContainerError::Truncated { observed: self.fed, required })
    }
}

/// The records of a verified data set, in plaintext, in the order they were sealed in.
///
/// Not `Debug`, `Clone`, `PartialEq` or serialisable, and gone from memory on drop.
pub struct Records {
    header: Header,
    plain: Zeroizing<Vec<u8>>,
    contents: Contents,
    file_len: u64,
}

impl Records {
    /// The data set's public header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// How many records there are. Private under add-or-remove adjacency.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.contents.records
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.contents.records == 0
    }

    /// How many different privacy units there are. Private as well.
    #[must_use]
    pub const fn units(&self) -> u64 {
        self.contents.units
    }

    /// Unit id and payload of record `record`, from 0.
    #[must_use]
    pub fn get(&self, record: usize) -> Option<(u64, &[u8])> {
        self.entries().get(record).map(|entry| self.lend(entry))
    }

    /// Unit id and payload of every record, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, &[u8])> {
        self.entries().iter().map(|entry| self.lend(entry))
    }

    fn entries(&self) -> &[[u8; ENTRY_LEN]] {
        let index = self.plain.get(self.contents.index..).unwrap_or_default();
        let (entries, _) = index.as_chunks();
        entries.get(..self.contents.records).unwrap_or_default()
    }

    /// The check of the index has established that every record lies inside the plaintext.
    fn lend(&self, entry: &[u8; ENTRY_LEN]) -> (u64, &[u8]) {
        let entry = Entry::read(entry);
        let payload = range(entry).and_then(|range| self.plain.get(range)).unwrap_or_default();
        (entry.unit, payload)
    }
}

/// What the caller knows beforehand.
struct Expected<'k> {
    key: &'k DataKey,
    root: Hash32<Dataset>,
    memory: u64,
}

/// How far the file has been read.
enum Stage {
    /// Before the first segment: `bytes[0 .. 86+H]` so far.
    Prelude(Vec<u8>),
    Segments(Box<Body>),
    /// All of it was there, and all of it was right.
    Verified(Box<Records>),
    Refused(ContainerError),
}

impl Stage {
    /// Takes some bytes off the front of `bytes`, which are not none.
    fn step(self, bytes: &mut &[u8], expected: &Expected<'_>) -> Result<Self, ContainerError> {
        match self {
            Self::Prelude(mut prelude) => {
                let full = prelude_len(&prelude)?;
                take(&mut prelude, full, bytes);
                if prelude.len() < prelude_len(&prelude)? {
                    return Ok(Self::Prelude(prelude));
                }
                Ok(Self::Segments(Box::new(Body::open(&prelude, expected)?)))
            }
            Self::Segments(mut body) => {
                let full = body.segment_len();
                take(&mut body.segment, full, bytes);
                if body.segment.len() < full {
                    return Ok(Self::Segments(body));
                }
                body.segment(expected)
            }
            Self::Verified(records) => {
                Err(ContainerError::TrailingBytes { length: records.file_len })
            }
            Self::Refused(error) => Err(error),
        }
    }
}

/// Bytes of `bytes[0 .. 86+H]` as far as is known, and step 1 as soon as it can be done.
fn prelude_len(prelude: &[u8]) -> Result<usize, ContainerError> {
    let Some((magic, rest)) = prelude.split_first_chunk() else { return Ok(FRAME_LEN) };
    if *magic != MAGIC {
        return Err(ContainerError::Magic { observed: Octets(*magic) });
    }
    let Some((length, _)) = rest.split_first_chunk() else { return Ok(FRAME_LEN) };
    let observed = u32::from_be_bytes(*length);
    if observed > MAX_HEADER {
        return Err(ContainerError::HeaderLength { observed });
    }
    let header = usize::try_from(observed).unwrap_or(usize::MAX);
    Ok(header.saturating_add(FRAME_LEN).saturating_add(HEADER_LEN))
}

/// The segments and what became of them.
struct Body {
    header: Header,
    layout: Layout,
    floe: Decryptor,
    commitment: Commitment,
    /// The segment being read: ciphertext, then plaintext.
    segment: Zeroizing<Vec<u8>>,
    plain: Zeroizing<Vec<u8>>,
    inner_left: u64,
}

impl Body {
    /// Steps 2 to 4, on `bytes[0 .. 86+H]`.
    fn open(prelude: &[u8], expected: &Expected<'_>) -> Result<Self, ContainerError> {
        let required = to_u64(FRAME_LEN.saturating_add(HEADER_LEN));
        let truncated = ContainerError::Truncated { observed: to_u64(prelude.len()), required };
        let (prefix, floe_header) = prelude.split_last_chunk().ok_or(truncated)?;
        let header = Header::decode(prefix.get(FRAME_LEN..).unwrap_or_default())?;
        let layout = header.layout()?;
        let (observed, required) = (header.dek_id, expected.key.id());
        if observed != required {
            return Err(ContainerError::WrongKey { observed, required });
        }
        let aad = floe_aad(prefix);
        let floe = Decryptor::start(expected.key, &aad, layout.segment, floe_header)?;
        let plain = reserve(layout.plain, expected.memory)?;
        let mut commitment = Commitment::new();
        commitment.push(prelude);
        let segment = Zeroizing::new(Vec::with_capacity(layout.segment.sealed()));
        let inner_left = layout.inner_segments;
        Ok(Self { header, layout, floe, commitment, segment, plain, inner_left })
    }

    /// Bytes of the segment being read.
    const fn segment_len(&self) -> usize {
        if self.inner_left == 0 { self.layout.last_sealed } else { self.layout.segment.sealed() }
    }

    /// Step 5, on a whole segment.
    fn segment(mut self: Box<Self>, expected: &Expected<'_>) -> Result<Stage, ContainerError> {
        self.commitment.push(&self.segment);
        if self.inner_left == 0 {
            return self.last(expected).map(|records| Stage::Verified(Box::new(records)));
        }
        self.plain.extend_from_slice(self.floe.segment(&mut self.segment)?);
        self.segment.clear();
        self.inner_left -= 1;
        Ok(Stage::Segments(self))
    }

    /// Steps 6 and 7, after the last segment.
    fn last(self, expected: &Expected<'_>) -> Result<Records, ContainerError> {
        let Self { header, layout, floe, commitment, mut segment, mut plain, .. } = self;
        plain.extend_from_slice(floe.last(&mut segment)?);
        let (observed, required) = (commitment.root(), expected.root);
        if observed != required {
            return Err(ContainerError::Root { observed, required });
        }
        let contents = check(&plain, &layout)?;
        Ok(Records { header, plain, contents, file_len: layout.file_len })
    }
}

/// Room for the whole plaintext, so that it is never moved while it grows.
fn reserve(required: u64, allowed: u64) -> Result<Zeroizing<Vec<u8>>, ContainerError> {
    if required > allowed {
        return Err(ContainerError::TooLarge { observed: required, allowed });
    }
    let mut plain = Vec::new();
    usize::try_from(required)
        .ok()
        .and_then(|bytes| plain.try_reserve_exact(bytes).ok())
        .ok_or(ContainerError::Memory { required })?;
    Ok(Zeroizing::new(plain))
}

/// Fills `buffer` up to `full` bytes from the front of `bytes`.
fn take(buffer: &mut Vec<u8>, full: usize, bytes: &mut &[u8]) {
    let room = full.saturating_sub(buffer.len());
    let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
    buffer.extend_from_slice(now);
    *bytes = later;
}

fn range(entry: Entry) -> Option<Range<usize>> {
    let begin = usize::try_from(entry.offset).ok()?;
    Some(begin..begin.checked_add(usize::try_from(entry.length).ok()?)?)
}
