//! What everyone may know of a sealed data set, read from the file without its key.
//!
//! Beside `DATA.sds`, `seal` writes `DATA.sds.json`: the data set as the manifest will hold it, and
//! the terms it was handed to the custodians under. Nothing in it is secret, and `plan` believes
//! none of it that it can recompute.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use measurement::cbor::{self, Malformed};
use measurement::dataset::Commitment;
use measurement::digest::{Hash32, of};
use measurement::dsse::{EnvelopeError, parse_printed, print};
use measurement::manifest::{Custodian, Dataset};
use measurement::octets::Octets;
use measurement::privacy::Unit;
use sealed::container::{MAGIC, MAX_HEADER};
use sealed::{ContainerError, Header};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::files::{self, FileError};
use crate::envelope::Budget;

/// Bytes of FLOE's header, which ends leaf 0.
const FLOE_HEADER: usize = 74;
const MAX_SIDECAR: usize = 1 << 20;

/// `DATA.sds.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    /// What all jobs on the data set may cost, as the custodians were told.
    pub budget: Budget,
    /// The custodians, in the order of the shares.
    pub custodians: Vec<Custodian>,
    /// The data set, as the manifest holds it.
    pub dataset: Dataset,
    /// The most privacy units, as the custodians were told.
    pub max_units: u64,
    /// How many shares rebuild the key.
    pub threshold: u8,
    /// What one privacy unit is.
    pub unit: Unit,
}

/// Why a sealed file, or what lies beside it, cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A header that makes no container.
    #[error("{}: {source}", path.display())]
    Container {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ContainerError,
    },
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The header is not the deterministic CBOR of one.
    #[error("{}: malformed header: {source}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Malformed,
    },
    /// The file has another length than its header makes.
    #[error("{}: {observed} bytes, its header makes {required}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes there are.
        observed: u64,
        /// Bytes there must be.
        required: u64,
    },
    /// Not what `seal` writes beside a data set.
    #[error("{}: {source}", path.display())]
    Sidecar {
        /// The file.
        path: PathBuf,
        /// Why.
        source: EnvelopeError,
    },
    /// Not a sealed data set.
    #[error("{}: not a sealed data set", path.display())]
    NotSealed {
        /// The file.
        path: PathBuf,
    },
}

impl Sidecar {
    /// Where the sidecar of the data set at `path` is.
    #[must_use]
    pub fn path(path: &Path) -> PathBuf {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(OsStr::new(".json"));
        path.with_file_name(name)
    }

    /// Reads what lies beside the data set at `path`.
    ///
    /// # Errors
    /// [`DatasetError::File`], [`DatasetError::Sidecar`].
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let path = Self::path(path);
        let bytes = files::read(&path, u64::try_from(MAX_SIDECAR).unwrap_or(u64::MAX))?;
        parse_printed(&bytes, MAX_SIDECAR).map_err(|source| DatasetError::Sidecar { path, source })
    }

    /// The sidecar's exact bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        print(self)
    }
}

/// A sealed file's header and root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The public header.
    pub header: Header,
    /// The Merkle root, recomputed.
    pub root: Hash32<of::Dataset>,
}

impl Facts {
    /// Recomputes the root of the file at `path`, reading it once.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let file = File::open(path).map_err(FileError::at(path))?;
        let observed = file.metadata().map_err(FileError::at(path))?.len();
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let (header, first) = read_header(&mut reader, path)?;
        let at = |source| DatasetError::Container { path: path.to_owned(), source };
        let required = header.file_len().map_err(at)?;
        if observed != required {
            let path = path.to_owned();
            return Err(DatasetError::Length { path, observed, required });
        }
        let mut commitment = Commitment::new();
        commitment.push(&first);
        let mut segment = Vec::new();
        loop {
            segment.clear();
            let mut part = reader.by_ref().take(u64::from(header.segment_len));
            if part.read_to_end(&mut segment).map_err(FileError::at(path))? == 0 {
                break;
            }
            commitment.push(&segment);
        }
        Ok(Self { header, root: commitment.root() })
    }
}

/// The header, and the bytes of leaf 0.
fn read_header(reader: &mut impl Read, path: &Path) -> Result<(Header, Vec<u8>), DatasetError> {
    let not_sealed = || DatasetError::NotSealed { path: path.to_owned() };
    let mut short = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => not_sealed(),
        _ => FileError::at(path)(error).into(),
    };
    let mut magic = [0; 8];
    let mut length = [0; 4];
    reader.read_exact(&mut magic).map_err(&mut short)?;
    reader.read_exact(&mut length).map_err(&mut short)?;
    let header_length = u32::from_be_bytes(length);
    if magic != MAGIC || header_length > MAX_HEADER {
        return Err(not_sealed());
    }
    let header_length = usize::try_from(header_length).map_err(|_| not_sealed())?;
    let mut rest = vec![0; header_length.saturating_add(FLOE_HEADER)];
    reader.read_exact(&mut rest).map_err(&mut short)?;
    let header = rest.get(..header_length).unwrap_or_default();
    let header = cbor::decode(header, header_length)
        .map_err(|source| DatasetError::Header { path: path.to_owned(), source })?;
    Ok((header, [&magic[..], &length, &rest].concat()))
}

/// What one record holds, as the header's schema digest.
#[must_use]
pub fn schema() -> Octets<32> {
    const SCHEMA: &[u8] = b"cloister record 1: one JSON object, compact, of messages (a list of \
        role and content), of prompt and completion, or of text";
    Octets(measurement::digest::sha256(SCHEMA))
}

#[cfg(test)]
mod tests {
    use measurement::cbor::Real;

    use super::*;

    #[test]
    fn a_budget_comes_back_from_the_sidecar_to_the_same_bit() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("data.sds");
        let dataset = Dataset {
            commitments: vec![Octets([1; 32])],
            id: Octets([2; 16]),
            key: Octets([3; 32]),
            root: Hash32::from_bytes([4; 32]),
            version: 1,
        };
        for n in 1..500_u32 {
            let budget = Budget {
                delta: Real(1.0 / f64::from(n * n + 7)),
                epsilon: Real(f64::from(n).sqrt()),
            };
            let sidecar = Sidecar {
                budget,
                custodians: Vec::new(),
                dataset: dataset.clone(),
                max_units: 256,
                threshold: 1,
                unit: Unit::Record,
            };
            std::fs::write(Sidecar::path(&place), sidecar.to_json()).unwrap();
            assert_eq!(Sidecar::read(&place).unwrap(), sidecar, "{n}");
        }
    }

    #[test]
    fn refuses_a_sidecar_that_is_not_spelled_as_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("data.sds");
        std::fs::write(Sidecar::path(&place), "{}").unwrap();
        assert!(matches!(Sidecar::read(&place), Err(DatasetError::Sidecar { .. })));
    }
}
