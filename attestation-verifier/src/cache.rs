//! Endorsements that were verified once need not be verified again.
//!
//! A [`Cache`] belongs to the caller, and lives only in its memory: what is in it is believed, so it
//! has no other way in than an appraisal. An entry is found by everything its verdict depends on but
//! time — the policy with its roots, by digest; every endorsement, byte for byte; and for a quote what
//! Intel's rules read of it — and only within the time in which all of its certificates and lists are
//! valid. A digest of the endorsements would say no more, and cost more than comparing them.
//! What depends on the policy's view of the present, as a revocation list's freshness does, is judged
//! each time.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::appraise::Vouched;
use crate::endorsement::{amd, intel};
use crate::policy::AppraisalPolicy;
use crate::root::Root;

/// Verified endorsements, at most as many as the caller allows; the oldest give way.
pub struct Cache {
    entries: BTreeMap<Key, Entry>,
    order: VecDeque<Key>,
    limit: usize,
}

impl Cache {
    /// An empty cache of at most `limit` entries, each about as large as its endorsements.
    pub fn new(limit: usize) -> Self {
        Self { entries: BTreeMap::new(), order: VecDeque::new(), limit }
    }

    /// How many verdicts it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What was verified under `key`, if it is valid at `now`.
    pub(crate) fn find(&self, key: &Key, now: u64) -> Option<&Held> {
        let entry = self.entries.get(key)?;
        let (from, until) = entry.valid;
        (from <= now && now <= until).then_some(&entry.held)
    }

    pub(crate) fn keep(&mut self, key: Key, valid: (u64, u64), held: Held) {
        if self.limit == 0 {
            return;
        }
        if self.entries.insert(key.clone(), Entry { valid, held }).is_none() {
            self.order.push_back(key);
        }
        while self.entries.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

struct Entry {
    /// Seconds since 1970, both ends included.
    valid: (u64, u64),
    held: Held,
}

/// What was verified.
pub(crate) enum Held {
    /// A key of AMD's hierarchy.
    Snp(amd::Endorsed),
    /// NVIDIA's devices of a machine, with their manifests.
    Devices(Arc<Vouched>),
    /// A platform of Intel's, with its quoting enclave.
    Tdx(Root, intel::Verdict),
}

/// All that a verdict depends on, framed by lengths: two are equal when every part is.
#[derive(Clone, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key(Arc<Vec<u8>>);

impl Key {
    pub(crate) fn of(policy: &AppraisalPolicy, endorsements: &[&[u8]], judged: &[u8]) -> Self {
        let total: usize = endorsements.iter().map(|item| item.len().saturating_add(8)).sum();
        let mut framed = Vec::with_capacity(total.saturating_add(judged.len()).saturating_add(128));
        let policy = policy.digest();
        let parts = [policy.as_bytes(), judged];
        for part in parts.into_iter().chain(endorsements.iter().copied()) {
            // No length of a slice exceeds a u64.
            let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
            framed.extend_from_slice(&len.to_be_bytes());
            framed.extend_from_slice(part);
        }
        Self(Arc::new(framed))
    }
}
