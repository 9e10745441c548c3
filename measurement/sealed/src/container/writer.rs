//! Writing a container, in flat memory: one segment is held, however many records there are.
//!
//! The index follows the padding, so what was said of each record is said once more when its time
//! comes: [`Writer::record`] for all, [`Writer::pad`], [`Writer::entry`] for all in the same order,
//! [`Writer::finish`]. A running hash holds the second telling to the first.

use alloc::vec::Vec;

use measurement::{
    dataset::Commitment,
    digest::{Hash32, of::Dataset},
};
use rand_core::CryptoRng;
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::{
    ContainerError, Header, floe_aad,
    header::{Layout, to_u64},
    index::{ENTRY_LEN, Entry, Footer},
};
use crate::{floe::Encryptor, key::DataKey};

/// Seals records into a container. Pure: every call returns the bytes to append to the file.
///
/// A writer that is dropped before [`Writer::finish`] leaves bytes that no reader accepts.
pub struct Writer<R> {
    layout: Layout,
    stream: Stream<R>,
    /// What was said of the records.
    sealed: Tale,
    /// What was said of them again.
    told: Tale,
    /// Bytes of plaintext so far.
    written: u64,
}

/// Units and lengths, in order.
struct Tale {
    hash: Context,
    records: u64,
    /// Where the last record ends.
    end: u64,
}

impl Tale {
    fn new() -> Self {
        Self { hash: Context::new(&SHA256), records: 0, end: 0 }
    }

    fn add(&mut self, unit: u64, length: u32) {
        self.hash.update(&unit.to_be_bytes());
        self.hash.update(&length.to_be_bytes());
        self.records = self.records.saturating_add(1);
        self.end = self.end.saturating_add(u64::from(length));
    }
}

impl<R: CryptoRng> Writer<R> {
    /// Begins a container under `key`; returns its first bytes too. `rng` gives the stream's IV
    /// and every segment's nonce, and can be a `&mut` reference.
    ///
    /// # Errors
    /// [`ContainerError::WrongKey`] if the header names another key; [`ContainerError::Version`],
    /// [`ContainerError::Suite`], [`ContainerError::Size`] and
    /// [`FloeError::SegmentSize`](crate::FloeError::SegmentSize) for a header that makes no
    /// container.
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
        let (sealed, told) = (Tale::new(), Tale::new());
        Ok((Self { layout, stream, sealed, told, written: 0 }, first))
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
        self.sealed.add(unit_id, length);
        self.written = end;
        Ok(out)
    }

    /// Seals the next segment's worth of zeros: behind the records, and, once each of them has its
    /// entry, behind the index. `None` when there is no more for now. Calling this until then keeps
    /// [`Writer::entry`] and [`Writer::finish`] from returning all of it at once.
    ///
    /// # Errors
    /// [`ContainerError::Floe`], which no input causes.
    pub fn pad(&mut self) -> Result<Option<Vec<u8>>, ContainerError> {
        let left = match self.padding() {
            0 if self.told.records == self.sealed.records => self.unused(),
            padding => padding,
        };
        if left == 0 {
            return Ok(None);
        }
        let length = left.min(to_u64(self.layout.segment.plain()));
        let mut out = Vec::new();
        self.stream.zeros(length, &mut out)?;
        self.written = self.written.saturating_add(length);
        Ok(Some(out))
    }

    /// Seals the index entry of the next record: once for each, in the order of the records, after
    /// the last of them. Seals what padding is left first.
    ///
    /// # Errors
    /// [`ContainerError::Entries`] for more entries than records.
    pub fn entry(&mut self, unit_id: u64, length: u32) -> Result<Vec<u8>, ContainerError> {
        let (observed, required) = (self.told.records.saturating_add(1), self.sealed.records);
        if observed > required {
            return Err(ContainerError::Entries { observed, required });
        }
        let mut out = Vec::new();
        while self.padding() > 0 {
            out.extend(self.pad()?.unwrap_or_default());
        }
        let offset = self.told.end;
        let mut entry = Zeroizing::new(Vec::with_capacity(ENTRY_LEN));
        Entry { offset, length, flags: 0, unit: unit_id }.write(&mut entry);
        self.stream.push(&entry, &mut out)?;
        self.told.add(unit_id, length);
        self.written = self.written.saturating_add(to_u64(ENTRY_LEN));
        Ok(out)
    }

    /// Seals the unused entries and the footer, which counts `units` different unit ids; returns
    /// the last bytes of the file and the data set's root. A wrong count makes a container that no
    /// reader opens.
    ///
    /// # Errors
    /// [`ContainerError::Entries`] if a record has no entry, [`ContainerError::OtherEntries`] if the
    /// entries are of other units or lengths than the records.
    pub fn finish(mut self, units: u64) -> Result<(Vec<u8>, Hash32<Dataset>), ContainerError> {
        let (observed, required) = (self.told.records, self.sealed.records);
        if observed != required {
            return Err(ContainerError::Entries { observed, required });
        }
        let mut out = Vec::new();
        while let Some(zeros) = self.pad()? {
            out.extend_from_slice(&zeros);
        }
        let Self { layout, mut stream, sealed, told, .. } = self;
        if told.hash.finish().as_ref() != sealed.hash.finish().as_ref() {
            return Err(ContainerError::OtherEntries);
        }
        let footer = Footer {
            records_end: sealed.end,
            index_off: layout.capacity,
            records: sealed.records,
            units,
        };
        stream.push(&footer.bytes(), &mut out)?;
        let root = stream.finish(&mut out)?;
        Ok((out, root))
    }

    /// Zeros still to come behind the records.
    fn padding(&self) -> u64 {
        self.layout.capacity.saturating_sub(self.written)
    }

    /// Zeros still to come behind the entries, when all of them are there.
    fn unused(&self) -> u64 {
        let index = self.layout.n_max.saturating_mul(to_u64(ENTRY_LEN));
        self.layout.capacity.saturating_add(index).saturating_sub(self.written)
    }

    /// The record's length, and where it will end.
    fn admit(&self, unit_id: u64, payload: &[u8]) -> Result<(u32, u64), ContainerError> {
        let (record, observed) = (self.sealed.records, payload.len());
        if self.written != self.sealed.end || self.told.records > 0 {
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
        let end = self.sealed.end.saturating_add(u64::from(length));
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
