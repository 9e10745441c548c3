//! Writing a container, in one pass and in flat memory: one segment and the index are held.

use alloc::vec::Vec;

use measurement::{
    dataset::Commitment,
    digest::{Hash32, of::Dataset},
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{
    ContainerError, Header, floe_aad,
    header::{Layout, to_u64},
    index::{ENTRY_LEN, Entry, Footer, distinct_units},
};
use crate::{floe::Encryptor, key::DataKey};

/// Seals records into a container. Pure: every call returns the bytes to append to the file.
///
/// A writer that is dropped before [`Writer::finish`] leaves bytes that no reader accepts.
pub struct Writer<R> {
    layout: Layout,
    stream: Stream<R>,
    index: Zeroizing<Vec<u8>>,
    records: u64,
    /// Bytes of records.
    end: u64,
    /// Bytes of records and of padding.
    written: u64,
}

impl<R: CryptoRng> Writer<R> {
    /// Begins a container under `key`; returns its first bytes too. `rng` gives the stream's IV
    /// and every segment's nonce, and can be a `&mut` reference.
    ///
    /// # Errors
    /// [`ContainerError::WrongKey`] if the header names another key; [`ContainerError::Version`],
    /// [`ContainerError::Suite`], [`ContainerError::Size`] and
    /// [`FloeError::SegmentSize`](crate::FloeError::SegmentSize) for a header that makes no
    /// container; [`ContainerError::Memory`].
    pub fn new(
        header: &Header,
        key: &DataKey,
        mut rng: R,
    ) -> Result<(Self, Vec<u8>), ContainerError> {
        let layout = header.layout()?;
        let (observed, required) = (header.dek_id, key.id());
        if observed != required {
            return Err(ContainerError::WrongKey { observed, required });
        }
        let mut first = header.prefix()?;
        let aad = floe_aad(&first);
        let (floe, floe_header) = Encryptor::start(key, &aad, layout.segment, &mut rng)?;
        first.extend_from_slice(&floe_header);
        let stream = Stream::new(floe, rng, &layout, &first);
        let index = reserve_index(layout.n_max)?;
        Ok((Self { layout, stream, index, records: 0, end: 0, written: 0 }, first))
    }

    /// Adds a record of the privacy unit `unit_id`, in its place after those before it. Unit ids
    /// are drawn at random per unit by the caller, and are not 0.
    ///
    /// # Errors
    /// [`ContainerError::EmptyRecord`], [`ContainerError::RecordLength`],
    /// [`ContainerError::Records`], [`ContainerError::Capacity`], [`ContainerError::UnitZero`] and
    /// [`ContainerError::PaddingBegun`], all of which leave the writer as it was.
    pub fn record(&mut self, unit_id: u64, payload: &[u8]) -> Result<Vec<u8>, ContainerError> {
        let (length, end) = self.admit(unit_id, payload)?;
        let mut out = Vec::new();
        self.stream.push(payload, &mut out)?;
        Entry { offset: self.end, length, flags: 0, unit: unit_id }.write(&mut self.index);
        self.records += 1;
        (self.end, self.written) = (end, end);
        Ok(out)
    }

    /// Seals the next segment's worth of padding; `None` when there is no more. Calling this until
    /// then keeps [`Writer::finish`] from returning all of it at once.
    ///
    /// # Errors
    /// [`ContainerError::Floe`], which no input causes.
    pub fn pad(&mut self) -> Result<Option<Vec<u8>>, ContainerError> {
        let left = self.layout.capacity.saturating_sub(self.written);
        if left == 0 {
            return Ok(None);
        }
        let length = left.min(to_u64(self.layout.segment.plain()));
        let mut out = Vec::new();
        self.stream.zeros(length, &mut out)?;
        self.written = self.written.saturating_add(length);
        Ok(Some(out))
    }

    /// Seals what padding is left, the index and the footer; returns the last bytes of the file
    /// and the data set's root.
    ///
    /// # Errors
    /// [`ContainerError::Floe`], which no input causes.
    pub fn finish(mut self) -> Result<(Vec<u8>, Hash32<Dataset>), ContainerError> {
        let mut out = Vec::new();
        while let Some(padding) = self.pad()? {
            out.extend_from_slice(&padding);
        }
        let (entries, _) = self.index.as_chunks::<ENTRY_LEN>();
        let units = distinct_units(entries);
        self.stream.push(&self.index, &mut out)?;
        let unused = self.layout.n_max.saturating_sub(self.records);
        self.stream.zeros(unused.saturating_mul(to_u64(ENTRY_LEN)), &mut out)?;
        let footer = Footer {
            records_end: self.end,
            index_off: self.layout.capacity,
            records: self.records,
            units,
        };
        self.stream.push(&footer.bytes(), &mut out)?;
        let root = self.stream.finish(&mut out)?;
        Ok((out, root))
    }

    /// The record's length, and where it will end.
    fn admit(&self, unit_id: u64, payload: &[u8]) -> Result<(u32, u64), ContainerError> {
        let (record, observed) = (self.records, payload.len());
        if self.written != self.end {
            return Err(ContainerError::PaddingBegun);
        }
        if payload.is_empty() {
            return Err(ContainerError::EmptyRecord { record });
        }
        if unit_id == 0 {
            return Err(ContainerError::UnitZero { record });
        }
        if record >= self.layout.n_max {
            return Err(ContainerError::Records { allowed: self.layout.n_max });
        }
        let length = u32::try_from(observed)
            .map_err(|_| ContainerError::RecordLength { record, observed })?;
        let end = self.end.saturating_add(u64::from(length));
        if end > self.layout.capacity {
            return Err(ContainerError::Capacity { observed: end, allowed: self.layout.capacity });
        }
        Ok((length, end))
    }
}

/// Plaintext in, sealed segments out, each of them a leaf of the root.
struct Stream<R> {
    floe: Encryptor,
    rng: R,
    commitment: Commitment,
    /// Plaintext of the segment that is not full yet.
    pending: Zeroizing<Vec<u8>>,
    /// Bytes of a full one.
    full: usize,
    /// Segments to seal before the last one.
    inner_left: u64,
}

impl<R: CryptoRng> Stream<R> {
    fn new(floe: Encryptor, rng: R, layout: &Layout, first: &[u8]) -> Self {
        let full = layout.segment.plain();
        let mut commitment = Commitment::new();
        commitment.push(first);
        let pending = Zeroizing::new(Vec::with_capacity(full));
        Self { floe, rng, commitment, pending, full, inner_left: layout.inner_segments }
    }

    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ContainerError> {
        while !bytes.is_empty() {
            self.flush(out)?;
            let room = self.full.saturating_sub(self.pending.len());
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.pending.extend_from_slice(now);
            bytes = later;
        }
        self.flush(out)
    }

    fn zeros(&mut self, mut length: u64, out: &mut Vec<u8>) -> Result<(), ContainerError> {
        while length > 0 {
            self.flush(out)?;
            let room = self.full.saturating_sub(self.pending.len());
            let now = usize::try_from(length).map_or(room, |length| length.min(room));
            let filled = self.pending.len().saturating_add(now);
            self.pending.resize(filled, 0);
            length = length.saturating_sub(to_u64(now));
        }
        self.flush(out)
    }

    /// Seals the pending segment if it is full and not the last.
    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), ContainerError> {
        if self.pending.len() < self.full || self.inner_left == 0 {
            return Ok(());
        }
        let begin = out.len();
        self.floe.segment(&self.pending, &mut self.rng, out)?;
        self.commitment.push(out.get(begin..).unwrap_or_default());
        self.pending.clear();
        self.inner_left -= 1;
        Ok(())
    }

    fn finish(mut self, out: &mut Vec<u8>) -> Result<Hash32<Dataset>, ContainerError> {
        let begin = out.len();
        self.floe.last(&self.pending, &mut self.rng, out)?;
        self.commitment.push(out.get(begin..).unwrap_or_default());
        Ok(self.commitment.root())
    }
}

/// Room for the whole index, so that it is never moved while it grows.
fn reserve_index(n_max: u64) -> Result<Zeroizing<Vec<u8>>, ContainerError> {
    let required = n_max.saturating_mul(to_u64(ENTRY_LEN));
    let mut index = Vec::new();
    usize::try_from(required)
        .ok()
        .and_then(|bytes| index.try_reserve_exact(bytes).ok())
        .ok_or(ContainerError::Memory { required })?;
    Ok(Zeroizing::new(index))
}
