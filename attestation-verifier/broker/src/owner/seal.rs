//! `seal`: records in, a sealed data set and one envelope per custodian out.
//!
//! Three passes over the files, each in flat memory:
//!
//! 1. Look: every line is parsed, every flaw is found, units are counted (ten bytes each), and the
//!    public bounds of job.toml are checked.
//! 2. Seal: the same lines are sealed in order. The files must be the same, byte for byte.
//! 3. Index: the index stands behind the records, so the same lines are read once more for it.
//!
//! A unit's number follows from its name by a keyed hash, so no pass remembers names; where each
//! record is its own unit, it follows from the record's place.
//!
//! The data key is drawn after the first pass, lives in memory, and is split before it is dropped; it
//! is never on a disk. Files appear whole or not at all, the envelopes first, then the data, then
//! what describes it; so whatever interrupts, no reader finds a part of a data set.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use measurement::digest::{Hash32, of};
use measurement::manifest::{Custodian, Dataset};
use measurement::octets::Octets;
use measurement::privacy::Unit;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use ring::hmac;
use sealed::{ContainerError, DataKey, Header, Threshold, WrapError, Writer};
use thiserror::Error;

use super::dataset::{Sidecar, schema};
use super::files::{self, Audience, Draft, Existing, FileError};
use super::job::Job;
use super::records::{Flaw, MAX_LINE, Record};
use super::source::{Line, Lines, SourceError};
use crate::envelope::{KeyEnvelope, Label};
use crate::random::{self, NoRandomness};

/// How many flawed lines are shown before the rest is only counted.
pub const MAX_SHOWN: usize = 20;
/// What a token of ordinary text takes. Sealing knows no tokenizer; training cuts by the real one.
pub const BYTES_PER_TOKEN: u64 = 4;
/// Bytes of a sealed segment.
const SEGMENT: u32 = 65_536;
const MAX_CUSTODIAN: u64 = 64 * 1024;

/// What is to be sealed, for whom.
pub struct Request<'a> {
    /// The files of records, in order.
    pub files: &'a [PathBuf],
    /// The job whose bounds hold.
    pub job: &'a Job,
    /// The custodians, in the order of the shares.
    pub custodians: &'a [Custodian],
    /// How many shares rebuild the key.
    pub threshold: Threshold,
    /// The version before this one, if there is one.
    pub previous: Option<&'a Dataset>,
    /// Where the data set will be.
    pub out: &'a Path,
    /// The folder for the envelopes.
    pub shares: &'a Path,
    /// The time, in seconds since 1970.
    pub now: u64,
    /// Counts the bytes read; its length is set for each pass.
    pub bar: &'a ProgressBar,
}

/// What was sealed.
#[derive(Debug)]
pub struct Outcome {
    /// What lies beside the data set.
    pub sidecar: Sidecar,
    /// What the files held. Private: for the owner's terminal alone.
    pub survey: Survey,
    /// The envelopes' files, in the custodians' order.
    pub shares: Vec<PathBuf>,
}

/// What the files hold. Private: under add-or-remove adjacency even the counts are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Records.
    pub records: u64,
    /// Bytes that are sealed of them.
    pub bytes: u64,
    /// Privacy units.
    pub units: u64,
    /// Records of the unit that has most, counted up to 65 535.
    pub most: u32,
    /// Records that will be cut, at [`BYTES_PER_TOKEN`].
    pub long: u64,
    /// The first of them.
    pub first_long: Option<(PathBuf, u64)>,
    /// Fields that are left out, the unit's apart; the first [`MAX_SHOWN`] names.
    pub left_out: BTreeSet<String>,
    /// SHA-256 of each file's lines.
    digests: Vec<Octets<32>>,
}

/// A flawed line and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}:{line}: {flaw}", path.display())]
pub struct Located {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// What is wrong.
    pub flaw: Flaw,
}

/// All flawed lines: the first [`MAX_SHOWN`], and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flaws {
    /// The first ones.
    pub shown: Vec<Located>,
    /// How many there are, those shown included.
    pub total: u64,
}

impl Flaws {
    fn add(&mut self, path: &Path, line: u64, flaw: Flaw) {
        self.total = self.total.saturating_add(1);
        if self.shown.len() < MAX_SHOWN {
            self.shown.push(Located { path: path.to_owned(), line, flaw });
        }
    }
}

/// A public bound of job.toml that the files exceed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{setting} is {allowed}, the files need {observed}")]
pub struct Exceeded {
    /// The setting.
    pub setting: &'static str,
    /// What the files need; for units, one more than allowed at least.
    pub observed: u64,
    /// What it is.
    pub allowed: u64,
}

/// Why nothing was sealed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The files exceed the bounds; all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Bounds(Vec<Exceeded>),
    /// A file changed between the passes.
    #[error("{}: the file changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The container.
    #[error("{}: {source}", path.display())]
    Container {
        /// The data set's file.
        path: PathBuf,
        /// Why.
        source: ContainerError,
    },
    /// Custodians that cannot be told apart, or whose name is no file name.
    #[error("custodian {name:?}: {problem}")]
    Custodian {
        /// The name.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A custodian's file is not one.
    #[error("{}: not a custodian's description: {problem}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        problem: String,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Flawed lines; all of them.
    #[error("{} of the lines are flawed", .0.total)]
    Flawed(Flaws),
    /// The files hold no record.
    #[error("the files hold no record")]
    NoRecord,
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// A file of records.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// As many shares as custodians.
    #[error("{custodians} custodians for {shares} shares")]
    Threshold {
        /// Custodians named.
        custodians: usize,
        /// Shares asked for.
        shares: u8,
    },
    /// A custodian's unwrap key is none.
    #[error("custodian {name:?}: {source}")]
    Wrap {
        /// The custodian.
        name: String,
        /// Why.
        source: WrapError,
    },
}

/// Reads a custodian's public description, JSON in the manifest's own terms.
///
/// # Errors
/// [`SealError::File`], [`SealError::Description`].
pub fn read_custodian(path: &Path) -> Result<Custodian, SealError> {
    let bytes = files::read(path, MAX_CUSTODIAN)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| SealError::Description { path: path.to_owned(), problem: e.to_string() })
}

/// Seals a data set.
///
/// # Errors
/// [`SealError`]; then no file of this call is in its place, but for envelopes when a later file
/// could not be renamed, which open nothing.
pub fn seal(request: &Request<'_>) -> Result<Outcome, SealError> {
    check_custodians(request)?;
    let mut rng = random::fresh()?;
    let units = Units::new(&mut rng);
    let survey = look(request, &units)?;
    let key = DataKey::generate(&mut rng);
    let header = header(request, &key, &mut rng);
    fs::create_dir_all(request.shares).map_err(FileError::at(request.shares))?;
    let (sidecar, envelopes) = deal(request, &key, &header, &mut rng)?;
    let mut data = Draft::create(request.out, Audience::Everyone, Existing::Keep)?;
    let root = pour(request, &header, &key, (&units, &survey), &mut data)?;
    drop(key);
    let dataset = Dataset { root, ..sidecar.dataset };
    let sidecar = Sidecar { dataset, ..sidecar };
    let beside = Sidecar::path(request.out);
    let mut description = Draft::create(&beside, Audience::Everyone, Existing::Keep)?;
    description.write_all(&sidecar.to_json()).map_err(FileError::at(&beside))?;
    let mut shares = Vec::new();
    for (path, envelope) in envelopes {
        envelope.publish()?;
        shares.push(path);
    }
    data.publish()?;
    description.publish()?;
    Ok(Outcome { sidecar, survey, shares })
}

fn check_custodians(request: &Request<'_>) -> Result<(), SealError> {
    let (custodians, shares) = (request.custodians.len(), request.threshold.n());
    if custodians != usize::from(shares) {
        return Err(SealError::Threshold { custodians, shares });
    }
    let mut names = BTreeSet::new();
    for custodian in request.custodians {
        let name = custodian.name.clone();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            let problem = "a name is letters, digits, '-', '_' and '.', and begins without '.'";
            return Err(SealError::Custodian { name, problem });
        }
        if !names.insert(&custodian.name) {
            return Err(SealError::Custodian { name, problem: "is named twice" });
        }
    }
    Ok(())
}

/// Numbers for units: a hash under a key of this run, which is gone when it ends.
struct Units(hmac::Key);

impl Units {
    fn new(rng: &mut impl Rng) -> Self {
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// The number of the unit of `record`, the one at `place`. Not 0, which unused index entries
    /// hold.
    fn number(&self, record: &Record, place: u64) -> u64 {
        let tag = record.expose_unit(|unit| match unit {
            Some(name) => hmac::sign(&self.0, name.as_bytes()),
            None => hmac::sign(&self.0, &place.to_be_bytes()),
        });
        let bytes = tag.as_ref().first_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(bytes).max(1)
    }
}

/// How many units there are, and how many records the one with most has: ten bytes per unit,
/// however many records there are.
struct Census {
    /// Number and count of records, in order as far as they are folded. Counts stop at their end.
    tallies: Vec<[u8; TALLY]>,
    /// How many are folded: no number among them twice.
    folded: usize,
    /// More units than these are not counted.
    room: usize,
    full: bool,
}

/// `u64be number ‖ u16be count`.
const TALLY: usize = 10;
/// New tallies after which they are folded.
const FOLD: usize = 1 << 18;

impl Census {
    fn new(max_units: u64) -> Self {
        let room = usize::try_from(max_units).unwrap_or(usize::MAX);
        Self { tallies: Vec::new(), folded: 0, room, full: false }
    }

    fn count(&mut self, unit: u64) {
        if self.full {
            return;
        }
        let fresh = self.tallies.len().saturating_sub(self.folded);
        if fresh == 0 {
            self.tallies.reserve_exact(FOLD);
        }
        self.tallies.push(tally(unit, 1));
        if fresh.saturating_add(1) >= FOLD {
            self.fold();
        }
    }

    fn fold(&mut self) {
        self.tallies.sort_unstable();
        self.tallies.dedup_by(|next, kept| {
            let ((unit, more), (known, count)) = (untally(next), untally(kept));
            if unit == known {
                *kept = tally(known, count.saturating_add(more));
            }
            unit == known
        });
        self.folded = self.tallies.len();
        self.full = self.folded > self.room;
    }

    /// Units, one more than there is room for at most; and records of the one that has most.
    fn result(mut self) -> (u64, u32) {
        self.fold();
        let units = self.folded.min(self.room.saturating_add(1));
        let most = self.tallies.iter().map(|one| untally(one).1).max();
        (u64::try_from(units).unwrap_or(u64::MAX), most.unwrap_or(0).into())
    }
}

fn tally(unit: u64, count: u16) -> [u8; TALLY] {
    let ([a, b, c, d, e, f, g, h], [i, j]) = (unit.to_be_bytes(), count.to_be_bytes());
    [a, b, c, d, e, f, g, h, i, j]
}

fn untally([a, b, c, d, e, f, g, h, i, j]: &[u8; TALLY]) -> (u64, u16) {
    let unit = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
    (unit, u16::from_be_bytes([*i, *j]))
}

/// Pass 1.
fn look(request: &Request<'_>, units: &Units) -> Result<Survey, SealError> {
    let field = request.job.data.unit.as_deref();
    let mut census = Census::new(request.job.data.max_units);
    let (mut survey, mut flaws) = (Survey::default(), Flaws::default());
    begin(request, "reading");
    for path in request.files {
        let mut lines = Lines::open(path, request.bar)?;
        let mut line = Vec::new();
        loop {
            let record = match lines.next(&mut line)? {
                Line::End => break,
                Line::Long => Err(Flaw::Long { cap: MAX_LINE }),
                Line::Whole => Record::parse(&line, field),
            };
            match record {
                Ok(record) => {
                    if field.is_some() {
                        census.count(units.number(&record, survey.records));
                    }
                    survey.add(&record, request.job.train.sequence, (path, lines.number()));
                }
                Err(flaw) => flaws.add(path, lines.number(), flaw),
            }
        }
        survey.digests.push(lines.digest());
    }
    request.bar.finish_and_clear();
    if flaws.total > 0 {
        return Err(SealError::Flawed(flaws));
    }
    (survey.units, survey.most) = match field {
        Some(_) => census.result(),
        None => (survey.records, 1),
    };
    survey.check(request.job)?;
    Ok(survey)
}

impl Survey {
    fn add(&mut self, record: &Record, context: u32, (path, line): (&Path, u64)) {
        self.records = self.records.saturating_add(1);
        let length = u64::try_from(record.payload_len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(length);
        if length > BYTES_PER_TOKEN.saturating_mul(context.into()) {
            self.long = self.long.saturating_add(1);
            self.first_long.get_or_insert_with(|| (path.to_owned(), line));
        }
        for name in record.left_out() {
            if self.left_out.len() < MAX_SHOWN && !self.left_out.contains(name) {
                self.left_out.insert(name.clone());
            }
        }
    }

    fn check(&self, job: &Job) -> Result<(), SealError> {
        if self.records == 0 {
            return Err(SealError::NoRecord);
        }
        let exceeded: Vec<_> = [
            ("data.max_records", self.records, job.data.max_records),
            ("data.capacity", self.bytes, job.data.capacity),
            ("data.max_units", self.units, job.data.max_units),
        ]
        .into_iter()
        .filter(|(_, observed, allowed)| observed > allowed)
        .map(|(setting, observed, allowed)| Exceeded { setting, observed, allowed })
        .collect();
        if exceeded.is_empty() { Ok(()) } else { Err(SealError::Bounds(exceeded)) }
    }
}

fn begin(request: &Request<'_>, what: &'static str) {
    let sizes = request.files.iter().filter_map(|path| path.metadata().ok());
    request.bar.reset();
    request.bar.set_length(sizes.map(|meta| meta.len()).sum());
    request.bar.set_message(what);
}

fn header(request: &Request<'_>, key: &DataKey, rng: &mut impl Rng) -> Header {
    let mut fresh = [0; 16];
    rng.fill_bytes(&mut fresh);
    let previous = request.previous;
    Header {
        capacity: request.job.data.capacity,
        created: request.now,
        dataset_id: previous.map_or(Octets(fresh), |dataset| dataset.id),
        dataset_version: previous.map_or(1, |dataset| dataset.version.saturating_add(1)),
        dek_id: key.id(),
        minimisation: None,
        n_max: request.job.data.max_records,
        previous_root: previous.map(|dataset| dataset.root),
        privacy_unit: request.job.data.unit.clone().map_or(Unit::Record, Unit::Field),
        schema: schema(),
        segment_len: SEGMENT,
        suite: Header::SUITE,
        version: Header::VERSION,
    }
}

type Envelopes = Vec<(PathBuf, Draft)>;

/// Splits the key and wraps each share. The sidecar's root is still empty.
fn deal(
    request: &Request<'_>,
    key: &DataKey,
    header: &Header,
    rng: &mut ChaCha20Rng,
) -> Result<(Sidecar, Envelopes), SealError> {
    let shares = sealed::split(key, request.threshold, rng);
    let id = key.id();
    let label = Label {
        budget: request.job.cap(),
        commitments: shares.iter().map(|share| share.commitment(&id)).collect(),
        dataset: header.dataset_id,
        key: id,
        max_units: request.job.data.max_units,
        threshold: request.threshold.m(),
    };
    let mut drafts = Vec::new();
    for (custodian, share) in request.custodians.iter().zip(&shares) {
        let name = custodian.name.clone();
        let envelope = KeyEnvelope::seal(&label, share, &custodian.unwrap, rng)
            .map_err(|source| SealError::Wrap { name, source })?;
        let path = request.shares.join(format!("{}.share", custodian.name));
        let mut draft = Draft::create(&path, Audience::Owner, Existing::Keep)?;
        draft.write_all(&envelope.to_bytes()).map_err(FileError::at(&path))?;
        drafts.push((path, draft));
    }
    let dataset = Dataset {
        commitments: label.commitments,
        id: label.dataset,
        key: id,
        root: Hash32::from_bytes([0; 32]),
        version: header.dataset_version,
    };
    let sidecar = Sidecar {
        budget: label.budget,
        custodians: request.custodians.to_vec(),
        dataset,
        max_units: label.max_units,
        threshold: label.threshold,
        unit: header.privacy_unit.clone(),
    };
    Ok((sidecar, drafts))
}

/// Passes 2 and 3: every byte of the container goes to `out`.
fn pour(
    request: &Request<'_>,
    header: &Header,
    key: &DataKey,
    (units, survey): (&Units, &Survey),
    out: &mut impl Write,
) -> Result<Hash32<of::Dataset>, SealError> {
    let at = |source| SealError::Container { path: request.out.to_owned(), source };
    let full = |source: io::Error| SealError::File(FileError::at(request.out)(source));
    let mut own = random::fresh()?;
    let (mut writer, first) = Writer::new(header, key, &mut own).map_err(at)?;
    out.write_all(&first).map_err(full)?;
    again(request, survey, "sealing", |record, place| {
        let unit = units.number(record, place);
        let bytes = record.expose(|payload| writer.record(unit, payload)).map_err(at)?;
        out.write_all(&bytes).map_err(full)
    })?;
    while let Some(padding) = writer.pad().map_err(at)? {
        out.write_all(&padding).map_err(full)?;
    }
    again(request, survey, "indexing", |record, place| {
        let length = u32::try_from(record.payload_len()).unwrap_or(u32::MAX);
        let bytes = writer.entry(units.number(record, place), length).map_err(at)?;
        out.write_all(&bytes).map_err(full)
    })?;
    while let Some(padding) = writer.pad().map_err(at)? {
        out.write_all(&padding).map_err(full)?;
    }
    let (last, root) = writer.finish(survey.units).map_err(at)?;
    out.write_all(&last).map_err(full)?;
    request.bar.finish_and_clear();
    Ok(root)
}

/// One more pass over the files that were surveyed: every record with its place, from 0. Whoever
/// takes them hears of no record beyond those surveyed.
fn again(
    request: &Request<'_>,
    survey: &Survey,
    what: &'static str,
    mut take: impl FnMut(&Record, u64) -> Result<(), SealError>,
) -> Result<(), SealError> {
    begin(request, what);
    let mut place = 0;
    for (path, digest) in request.files.iter().zip(&survey.digests) {
        let changed = || SealError::Changed { path: path.clone() };
        let mut lines = Lines::open(path, request.bar)?;
        let mut line = Vec::new();
        while lines.next(&mut line)? == Line::Whole {
            let record = Record::parse(&line, request.job.data.unit.as_deref());
            let record = record.map_err(|_| changed())?;
            if place >= survey.records {
                return Err(changed());
            }
            take(&record, place)?;
            place = place.saturating_add(1);
        }
        if lines.digest() != *digest {
            return Err(changed());
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
