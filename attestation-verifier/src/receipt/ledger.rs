//! What the custodians logged: the releases the receipt carries with their proofs, and the log's own
//! files, rebuilt from the first leaf.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use measurement::binding::Binding;
use measurement::digest::{Digest, Hash32};
use measurement::log::{
    Checkpoint, Debit, Event, Leaf, Note, Record, Release, State, Tree, origin, tiles,
};
use measurement::manifest::Custodian;
use measurement::octets::Octets;
use measurement::receipt::{ProvenRecord, ReleaseClaim, ReleaseProof};

use super::finding::Findings;
use super::papers::describe;
use super::{Case, Fetch};
use crate::proof::{self, ProvenRelease, signed};

/// Findings about single records after which the rest is left out.
const ENOUGH: usize = 8;

/// What a rebuilt log says about the job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ledger {
    /// Records in the log.
    pub size: u64,
    /// Position of the receipt's own record.
    pub receipt_index: u64,
    /// When the custodian logged the receipt, in seconds since 1970, by its clock.
    pub receipt_time: u64,
    /// How many mechanisms the data set has paid for, this job's included.
    pub debits: usize,
    /// ε of all of them together at this job's δ.
    pub spent: f64,
}

impl Case<'_> {
    /// Every release the statement names is proven to be logged, for this manifest, session, share
    /// and root, and the debit behind it paid for this very mechanism. Returns when the last one was.
    pub(super) fn releases(&self, findings: &mut Findings) -> Option<u64> {
        let said = &self.statement.predicate;
        let (claims, proofs) = (&said.releases, &self.bundle.releases);
        let sessions = &said.evidence.sessions;
        let count = ("receipt.releases", "receipt", "number of releases");
        findings.same(count, &proofs.len(), &claims.len());
        findings.same(
            ("receipt.sessions", "receipt", "number of sessions"),
            &sessions.len(),
            &claims.len(),
        );
        let custodians: BTreeSet<_> = claims.iter().map(|claim| claim.custodian).collect();
        if custodians.len() < usize::from(self.manifest.threshold)
            || custodians.len() != claims.len()
        {
            let required = format!("at least {}, each once", self.manifest.threshold);
            let check = ("receipt.threshold", "receipt", "custodians who released");
            findings.add(check, custodians.len(), required);
        }
        let each = claims.iter().zip(proofs).zip(sessions);
        each.filter_map(|((claim, proof), session)| self.release(claim, proof, session, findings))
            .max()
    }

    fn release(
        &self,
        claim: &ReleaseClaim,
        proof: &ReleaseProof,
        session: &Octets<64>,
        findings: &mut Findings,
    ) -> Option<u64> {
        let manifest = self.manifest;
        let custodians = (1_u8..).zip(&manifest.custodians);
        let custodian = custodians.into_iter().find(|(_, one)| one.decision == claim.custodian);
        let Some((index, custodian)) = custodian else {
            let check = ("receipt.custodian", "receipt", "a custodian who released");
            findings.add(check, claim.custodian, "one of the manifest's");
            return None;
        };
        let keeper = self.keeper(findings)?;
        let proven = findings.take(
            ("receipt.release_proof", "receipt", "proof that a release was logged"),
            proof::release(proof, custodian, &manifest.ledger, &keeper.decision),
            "a proven debit and release",
        )?;
        self.released(claim, proof, &proven, (index, session), findings);
        let time = Record::parse(&proof.release.record.0).ok()?.time;
        let valid = manifest.valid;
        if !(valid.not_before..=valid.not_after).contains(&time) {
            let required = format!("{} to {}", valid.not_before, valid.not_after);
            findings.add(("receipt.release_time", "receipt", "time of a release"), time, required);
        }
        Some(time)
    }

    /// The custodian whose log is the data set's ledger.
    fn keeper(&self, findings: &mut Findings) -> Option<&Custodian> {
        let log = self.manifest.ledger.log;
        let keeper = self.manifest.custodians.iter().find(|custodian| custodian.log == log);
        if keeper.is_none() {
            let check = ("manifest.ledger", "manifest", "keeper of the ledger");
            findings.add(check, log, "the log key of a custodian");
        }
        keeper
    }

    fn released(
        &self,
        claim: &ReleaseClaim,
        proof: &ReleaseProof,
        proven: &ProvenRelease,
        (index, session): (u8, &Octets<64>),
        findings: &mut Findings,
    ) {
        let (manifest, said) = (self.manifest, &self.statement.predicate);
        let ProvenRelease { debit, release } = proven;
        let digest = manifest.digest();
        let check = |id, words| (id, "receipt", words);
        findings.same(
            check("receipt.release_session", "session of a release"),
            &release.session,
            session,
        );
        findings.same(
            check("receipt.release_id", "identity of a release"),
            &release.release_id,
            &claim.id,
        );
        findings.same(
            check("receipt.release_index", "position of a release"),
            &proof.release.index,
            &claim.release_index,
        );
        findings.same(
            check("receipt.debit_index", "position of a debit"),
            &proof.debit.index,
            &claim.debit_index,
        );
        findings.same(
            check("receipt.release_manifest", "manifest of a release"),
            &release.manifest,
            &digest,
        );
        findings.same(
            check("receipt.release_attempt", "attempt of a release"),
            &release.attempt,
            &said.attempt,
        );
        findings.same(
            check("receipt.release_key", "data key of a release"),
            &release.dek_id,
            &manifest.dataset.key,
        );
        findings.same(
            check("receipt.release_share", "share of a release"),
            &release.share_index,
            &index,
        );
        findings.same(
            check("receipt.release_root", "root that a custodian judged under"),
            &release.root,
            &said.evidence.root,
        );
        self.granted(release, session, findings);
        self.debited(debit, findings);
    }

    /// To whom, until when and on what evidence.
    fn granted(&self, release: &Release, session: &Octets<64>, findings: &mut Findings) {
        let check = |id, words| (id, "receipt", words);
        findings.same(
            check("receipt.release_signer", "signer of a release"),
            &release.signer,
            &self.statement.predicate.signer,
        );
        let end = self.manifest.valid.not_after;
        if release.not_after > end {
            let check = check("receipt.release_lease", "end of a lease");
            findings.add(check, release.not_after, format!("at most {end}, the manifest's"));
        }
        self.report_data(release, session, findings);
    }

    /// For whom, and how much.
    fn debited(&self, debit: &Debit, findings: &mut Findings) {
        let manifest = self.manifest;
        let check = |id, words| (id, "receipt", words);
        findings.same(
            check("receipt.debit_dataset", "data set of a debit"),
            &debit.dataset,
            &manifest.dataset.id,
        );
        findings.same(check("receipt.debit_job", "job of a debit"), &debit.job, &manifest.job);
        if debit.mechanism != manifest.privacy {
            let check = check("receipt.debit_mechanism", "mechanism of a debit");
            findings.add(check, describe(&debit.mechanism), describe(&manifest.privacy));
        }
    }

    /// Without GPUs the evidence's report data follows from the session alone.
    fn report_data(&self, release: &Release, session: &Octets<64>, findings: &mut Findings) {
        if self.manifest.gpus == 0 {
            let required = Octets(Binding::from_octets(*session).report_data(0, None));
            let check = ("receipt.release_evidence", "receipt", "report data of a release");
            findings.same(check, &release.report_data, &required);
        }
    }

    /// The ledger's files are one log: signed, complete, folding, an extension of every checkpoint in
    /// the receipt, holding its records and the receipt's own.
    pub(super) fn log(&self, fetch: Fetch<'_>, findings: &mut Findings) -> Option<Ledger> {
        let before = findings.0.len();
        let keeper = self.keeper(findings)?;
        let note = fetch("checkpoint").unwrap_or_default();
        let signed_head = ("log.checkpoint", "log", "the checkpoint");
        let note = findings.take(signed_head, core::str::from_utf8(&note), "a signed note")?;
        let ledger = &self.manifest.ledger;
        let checkpoint = findings.take(
            signed_head,
            proof::checkpoint(note, &ledger.log, ledger),
            "a note that the log and its witnesses signed",
        )?;
        let (tree, entries) = findings.take(
            ("log.tiles", "log", "the tiles"),
            tiles::read(&checkpoint, fetch),
            "the checkpoint's tree",
        )?;
        let records = records(&entries, keeper, fetch, findings);
        self.extends(&tree, &entries, findings);
        if findings.0.len() > before {
            return None;
        }
        let state = findings.take(
            ("log.fold", "log", "the order of the records"),
            State::fold(&records),
            "records that may follow each other",
        )?;
        self.logged(&checkpoint, &records, &state, findings)
    }

    /// The log goes on from what the receipt saw of it.
    fn extends(&self, tree: &Tree, entries: &[Vec<u8>], findings: &mut Findings) {
        let required = origin(self.manifest.ledger.log.as_bytes());
        let proofs = self.bundle.releases.iter();
        for proven in proofs.flat_map(|proof| [&proof.debit, &proof.release]) {
            let Some(seen) = seen(proven).filter(|seen| seen.origin == required) else {
                continue;
            };
            let check = ("log.consistency", "log", "root at the receipt's checkpoint");
            match tree.root_at(seen.size) {
                Some(root) => findings.same(check, &root, &seen.root),
                None => findings.add(check, format!("only {} records", tree.size()), seen.size),
            }
            let at = usize::try_from(proven.index).ok();
            if at.and_then(|at| entries.get(at)) != Some(&proven.leaf.0) {
                let check = ("log.record", "log", "a record that the receipt names");
                findings.add(check, "another", format!("the receipt's at {}", proven.index));
            }
        }
    }

    /// The receipt's own record, and what the data set has paid.
    fn logged(
        &self,
        checkpoint: &Checkpoint,
        records: &[Record],
        state: &State,
        findings: &mut Findings,
    ) -> Option<Ledger> {
        let said = &self.statement.predicate;
        let statement = Digest::of(&self.bundle.envelope.payload.0);
        let found = (0_u64..).zip(records).find_map(|(index, record)| match &record.event {
            Event::Receipt(receipt)
                if receipt.statement == statement
                    && receipt.attempt == said.attempt
                    && receipt.job == said.job_manifest.job
                    && receipt.sealed_adapter == said.outputs.sealed_adapter_sha256 =>
            {
                Some((index, record, receipt))
            }
            _ => None,
        });
        let Some((receipt_index, record, receipt)) = found else {
            findings.add(("log.receipt", "log", "the receipt's record"), "missing", "there");
            return None;
        };
        findings.same(
            ("receipt.closing", "receipt", "digest of the closing evidence"),
            &self.bundle.closing.digest(),
            &receipt.closing,
        );
        let dataset = self.manifest.dataset.id;
        let delta = self.manifest.privacy.delta.0;
        let spent = state.spent(&dataset).and_then(|spent| spent.epsilon(delta));
        let spent = findings.take(
            ("log.spent", "log", "epsilon of the data set's debits"),
            spent,
            "a number at the manifest's delta",
        )?;
        Some(Ledger {
            size: checkpoint.size,
            receipt_index,
            receipt_time: record.time,
            debits: state.mechanisms(&dataset).len(),
            spent,
        })
    }
}

/// The checkpoint that a proof in the receipt leads to; its signature is checked with the proof.
fn seen(proven: &ProvenRecord) -> Option<Checkpoint> {
    Note::parse(proven.checkpoint.as_bytes()).ok()?.checkpoint().ok()
}

/// The records behind the leaves, each of which its keeper signed, and none beyond.
fn records(
    entries: &[Vec<u8>],
    keeper: &Custodian,
    fetch: Fetch<'_>,
    findings: &mut Findings,
) -> Vec<Record> {
    let mut records = Vec::new();
    let before = findings.0.len();
    for (index, entry) in entries.iter().enumerate() {
        let name = format!("records/{index}.cbor");
        let artefact = format!("log: {name}");
        match fetch(&name) {
            None => findings.add(("log.missing", &artefact, "the record"), "missing", "there"),
            Some(bytes) => records.extend(record(&bytes, entry, keeper, &artefact, findings)),
        }
        if findings.0.len() >= before.saturating_add(ENOUGH) {
            return records;
        }
    }
    let name = format!("records/{}.cbor", entries.len());
    if fetch(&name).is_some() {
        let artefact = format!("log: {name}");
        findings.add(("log.beyond", &artefact, "the record"), "beyond the checkpoint", "absent");
    }
    records
}

fn record(
    bytes: &[u8],
    entry: &[u8],
    keeper: &Custodian,
    artefact: &str,
    findings: &mut Findings,
) -> Option<Record> {
    let Some(leaf) = Leaf::from_slice(entry).filter(|leaf| leaf.covers(bytes)) else {
        let observed = Leaf::checksum(bytes).to_string();
        findings.add(("log.leaf", artefact, "checksum of the record"), observed, "the leaf's");
        return None;
    };
    let message = Leaf::message(&leaf.checksum);
    let by_keeper = leaf.key_hash == Hash32::of(keeper.decision.as_bytes())
        && signed(&keeper.decision, &message, leaf.signature.as_bytes());
    if !by_keeper {
        let check = ("log.leaf_signature", artefact, "signature of the leaf");
        findings.add(check, "missing or wrong", "the ledger keeper's");
    }
    let malformed = ("log.malformed", artefact, "the record");
    findings.take(malformed, Record::parse(bytes), "the one encoding of a record")
}
