//! `seal`: records in, a sealed data set and one envelope per custodian out.
//!
//! Two passes over the files, each in flat memory:
//!
//! 1. Look: every line is parsed, every flaw is found, units are counted (a keyed hash and a random
//!    number each), and the public bounds of job.toml are checked.
//! 2. Seal: the same lines are sealed in order. The files must be the same, byte for byte.
//!
//! The data key is drawn between the passes, lives in memory, and is split before it is dropped; it
//! is never on a disk. Files appear whole or not at all, the envelopes first, then the data, then
//! what describes it; so whatever interrupts, no reader finds a part of a data set.

use std::collections::{BTreeSet, HashMap};
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
    /// Counts the bytes read; its length is set for both passes.
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
    /// Records of the unit that has most.
    pub most: u32,
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
    let mut census = Census::new(request.job.data.max_units, &mut rng);
    let survey = look(request, &mut census, &mut rng)?;
    let key = DataKey::generate(&mut rng);
    let header = header(request, &key, &mut rng);
    fs::create_dir_all(request.shares).map_err(FileError::at(request.shares))?;
    let (sidecar, envelopes) = deal(request, &key, &header, &mut rng)?;
    let mut data = Draft::create(request.out, Audience::Everyone, Existing::Keep)?;
    let root = pour(request, &header, &key, (&census, &survey), &mut rng, &mut data)?;
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

/// Random numbers for units, found again by a keyed hash of the unit's name: a few dozen bytes per
/// unit, and no name is kept.
struct Census {
    key: hmac::Key,
    units: HashMap<[u8; 16], Seen>,
    room: usize,
}

struct Seen {
    id: u64,
    records: u32,
}

impl Census {
    fn new(max_units: u64, rng: &mut impl Rng) -> Self {
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        let room = usize::try_from(max_units).unwrap_or(usize::MAX);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), units: HashMap::new(), room }
    }

    fn name(&self, unit: &str) -> [u8; 16] {
        let tag = hmac::sign(&self.key, unit.as_bytes());
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Counts a record of `unit`; false when there is no room for another unit.
    fn count(&mut self, unit: &str, rng: &mut impl Rng) -> bool {
        let name = self.name(unit);
        if let Some(seen) = self.units.get_mut(&name) {
            seen.records = seen.records.saturating_add(1);
            return true;
        }
        if self.units.len() >= self.room {
            return false;
        }
        self.units.insert(name, Seen { id: unit_id(rng), records: 1 });
        true
    }

    fn find(&self, unit: &str) -> Option<u64> {
        self.units.get(&self.name(unit)).map(|seen| seen.id)
    }
}

/// Any number but 0, which the container's unused index entries hold.
fn unit_id(rng: &mut impl Rng) -> u64 {
    loop {
        let id = rng.next_u64();
        if id != 0 {
            return id;
        }
    }
}

/// Pass 1.
fn look(
    request: &Request<'_>,
    census: &mut Census,
    rng: &mut ChaCha20Rng,
) -> Result<Survey, SealError> {
    let field = request.job.data.unit.as_deref();
    let (mut survey, mut flaws, mut full) = (Survey::default(), Flaws::default(), false);
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
                    survey.add(&record);
                    full |= !record.expose_unit(|unit| match unit {
                        Some(unit) => census.count(unit, rng),
                        None => true,
                    });
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
    survey.count_units(census, field.is_none(), full);
    survey.check(request.job)?;
    Ok(survey)
}

impl Survey {
    fn add(&mut self, record: &Record) {
        self.records = self.records.saturating_add(1);
        let length = u64::try_from(record.payload_len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(length);
        for name in record.left_out() {
            if self.left_out.len() < MAX_SHOWN && !self.left_out.contains(name) {
                self.left_out.insert(name.clone());
            }
        }
    }

    fn count_units(&mut self, census: &Census, every_record: bool, full: bool) {
        let known = u64::try_from(census.units.len()).unwrap_or(u64::MAX);
        let most = census.units.values().map(|seen| seen.records).max();
        (self.units, self.most) = match (every_record, full) {
            (true, _) => (self.records, 1),
            (false, true) => (known.saturating_add(1), most.unwrap_or(0)),
            (false, false) => (known, most.unwrap_or(0)),
        };
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

/// Pass 2: every byte of the container goes to `out`.
fn pour(
    request: &Request<'_>,
    header: &Header,
    key: &DataKey,
    (census, survey): (&Census, &Survey),
    rng: &mut ChaCha20Rng,
    out: &mut impl Write,
) -> Result<Hash32<of::Dataset>, SealError> {
    let at = |source| SealError::Container { path: request.out.to_owned(), source };
    let full = |source: io::Error| SealError::File(FileError::at(request.out)(source));
    let mut own = random::fresh()?;
    let (mut writer, first) = Writer::new(header, key, &mut own).map_err(at)?;
    out.write_all(&first).map_err(full)?;
    begin(request, "sealing");
    for (path, digest) in request.files.iter().zip(&survey.digests) {
        let changed = || SealError::Changed { path: path.clone() };
        let mut lines = Lines::open(path, request.bar)?;
        let mut line = Vec::new();
        while lines.next(&mut line)? == Line::Whole {
            let record = Record::parse(&line, request.job.data.unit.as_deref());
            let record = record.map_err(|_| changed())?;
            let unit = record.expose_unit(|unit| match unit {
                Some(unit) => census.find(unit),
                None => Some(unit_id(rng)),
            });
            let unit = unit.ok_or_else(changed)?;
            let bytes = record.expose(|payload| writer.record(unit, payload)).map_err(at)?;
            out.write_all(&bytes).map_err(full)?;
        }
        if lines.digest() != *digest {
            return Err(changed());
        }
    }
    while let Some(padding) = writer.pad().map_err(at)? {
        out.write_all(&padding).map_err(full)?;
    }
    let (last, root) = writer.finish().map_err(at)?;
    out.write_all(&last).map_err(full)?;
    request.bar.finish_and_clear();
    Ok(root)
}

#[cfg(test)]
pub(super) mod tests;
