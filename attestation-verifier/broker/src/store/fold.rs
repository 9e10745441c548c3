//! What the records add up to: the tree, the ledger, and where each thing is.

use std::collections::BTreeMap;

use measurement::cbor::{Blob, Malformed};
use measurement::log::{
    Checkpoint, Event, FoldError, LEAF_LEN, Leaf, Record, Release, State, Tree, Unwrap, leaf_hash,
};
use measurement::octets::Octets;
use measurement::receipt::ProvenRecord;
use thiserror::Error;

use super::wal::Entry;

/// Why an entry does not follow the ones before it.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum Unfit {
    /// The ledger forbids it.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The leaf is of another record.
    #[error("leaf {index} is of another record")]
    Leaf {
        /// The leaf.
        index: u64,
    },
    /// The record is malformed.
    #[error("record {index}: {why}")]
    Record {
        /// The record.
        index: u64,
        /// Why.
        why: Malformed,
    },
}

/// A release and where it is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRelease {
    /// The release's place in the log.
    pub index: u64,
    /// What it says.
    pub release: Release,
}

/// The log in memory.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    tree: Tree,
    state: State,
    leaves: Vec<[u8; LEAF_LEN]>,
    records: Vec<Vec<u8>>,
    events: Vec<Event>,
    releases: BTreeMap<Octets<16>, LoggedRelease>,
    unwraps: BTreeMap<Octets<16>, (u64, Unwrap)>,
}

impl Fold {
    /// Takes in the next entry.
    pub(super) fn push(&mut self, entry: Entry) -> Result<u64, Unfit> {
        let index = self.state.size();
        let record = Record::parse(&entry.record).map_err(|why| Unfit::Record { index, why })?;
        let covered = Leaf::from_slice(&entry.leaf).is_some_and(|leaf| leaf.covers(&entry.record));
        if !covered {
            return Err(Unfit::Leaf { index });
        }
        self.state.apply(&record)?;
        self.tree.append_hash(leaf_hash(&entry.leaf));
        self.note(index, &record.event);
        self.leaves.push(entry.leaf);
        self.records.push(entry.record);
        self.events.push(record.event);
        Ok(index)
    }

    fn note(&mut self, index: u64, event: &Event) {
        match event {
            Event::Release(release) => {
                let logged = LoggedRelease { index, release: release.clone() };
                self.releases.insert(release.release_id, logged);
            }
            Event::Unwrap(unwrap) => {
                self.unwraps.insert(unwrap.job, (index, unwrap.clone()));
            }
            _ => {}
        }
    }

    /// The ledger.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The Merkle tree.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Every leaf, in order.
    #[must_use]
    pub fn leaves(&self) -> &[[u8; LEAF_LEN]] {
        &self.leaves
    }

    /// Every record's exact bytes, in order.
    #[must_use]
    pub fn records(&self) -> &[Vec<u8>] {
        &self.records
    }

    /// What happened, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// A release by its identity.
    #[must_use]
    pub fn release(&self, id: &Octets<16>) -> Option<&LoggedRelease> {
        self.releases.get(id)
    }

    /// Who unwrapped a job's adapter, and where that is logged.
    #[must_use]
    pub fn unwrapped(&self, job: &Octets<16>) -> Option<&(u64, Unwrap)> {
        self.unwraps.get(job)
    }

    /// The checkpoint of what is here.
    pub(super) fn checkpoint(&self, origin: String) -> Checkpoint {
        Checkpoint { origin, size: self.tree.size(), root: self.tree.root() }
    }

    /// A record with its proof under `checkpoint`, which is the one of the whole log.
    pub(super) fn proven(&self, index: u64, checkpoint: &str) -> Option<ProvenRecord> {
        let at = usize::try_from(index).ok()?;
        Some(ProvenRecord {
            checkpoint: checkpoint.to_owned(),
            index,
            leaf: Blob(self.leaves.get(at)?.to_vec()),
            path: self.tree.inclusion_proof(index, self.tree.size())?,
            record: Blob(self.records.get(at)?.clone()),
        })
    }
}
