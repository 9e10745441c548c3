//! A receipt that is right but for its evidence, with one change at a time. What only evidence can
//! tell is tested with the simulated processor, in the package `tests`.

use attestation_verifier::appraise::Rejection;
use attestation_verifier::protocol::{Receipt, WrappedShare};
use measurement::binding::Binding;
use measurement::dsse::{Envelope, Signature};
use measurement::launch::blob::{self, Algorithm};
use measurement::log::{self, Refusal};
use measurement::manifest::Terms;
use measurement::privacy::accountant::Accountant;
use measurement::receipt::{
    ACCOUNTANT, CanaryAudit, DatasetClaim, DpClaim, EvidenceClaim, ManifestClaim, NOT_CLAIMED,
    OutputsClaim, PAYLOAD_TYPE, Predicate, ReleaseClaim, RunClaim, Statement,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;
use crate::release::tests::terms;
use crate::serve::receipt;

const SESSION: Octets<64> = Octets([9; 64]);

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(pair: &Ed25519KeyPair) -> Octets<32> {
    Octets::from_slice(pair.public_key().as_ref()).unwrap()
}

/// A custodian that released its share to the key of `pair(1)`.
struct Desk {
    running: Running,
    manifest: Manifest,
    claim: ReleaseClaim,
    signer: u8,
}

impl Desk {
    fn new() -> Self {
        Self::with(|_| (), |_| ())
    }

    fn with(change: impl FnOnce(&mut Terms), release: impl FnOnce(&mut log::Release)) -> Self {
        let running = running();
        let shared = &running.server.shared;
        let me = shared.identity.custodian().clone();
        let mut terms = terms();
        terms.ledger.log = me.log;
        terms.custodians = vec![me.clone()];
        terms.dataset.commitments.truncate(1);
        change(&mut terms);
        let manifest = Manifest::write(&terms).unwrap();
        let launch_blob = blob::write(manifest.bytes(), Algorithm::Sha256);
        std::fs::write(shared.manifest_path(&manifest.digest()), launch_blob).unwrap();
        let (dataset, job, digest) = (manifest.dataset.id, manifest.job, manifest.digest());
        let mechanism = manifest.privacy.clone();
        let sequence = manifest.sequence;
        let mut released = log::Release {
            attempt: 1,
            debit: 1,
            dek_id: manifest.dataset.key,
            manifest: digest,
            not_after: now() + 1000,
            release_id: Octets([5; 16]),
            report_data: Octets(Binding::from_octets(SESSION).report_data(0, None)),
            root: "AMD".into(),
            sealed_share: Hash32::of(b"share"),
            session: SESSION,
            share_index: 1,
            signer: public(&pair(1)),
        };
        release(&mut released);
        let id = released.release_id;
        let events = vec![
            Event::Manifest(log::Accepted { dataset, job, manifest: digest, sequence }),
            Event::Debit(log::Debit { attempt: 1, dataset, job, manifest: digest, mechanism }),
            Event::Release(released),
        ];
        assert_eq!(shared.store().append(events, now() - 2000).unwrap(), [0, 1, 2]);
        let custodian = me.decision;
        let claim = ReleaseClaim { custodian, debit_index: 1, id, release_index: 2 };
        Self { running, manifest, claim, signer: 1 }
    }

    fn predicate(&self) -> Predicate {
        let manifest = &self.manifest;
        let mut spent = Accountant::new();
        spent.compose(&manifest.privacy).unwrap();
        Predicate {
            attempt: 1,
            base_model: manifest.base.clone(),
            canary_audit: None,
            dataset: DatasetClaim {
                ciphertext_root: manifest.dataset.root,
                id: manifest.dataset.id,
                version: manifest.dataset.version,
            },
            dp: DpClaim {
                accountant: ACCOUNTANT.into(),
                epsilon: Real(spent.epsilon(manifest.privacy.delta.0).unwrap()),
                epsilon_host: NOT_CLAIMED.into(),
                mechanism: manifest.privacy.clone(),
            },
            evidence: EvidenceClaim { root: "AMD".into(), sessions: vec![SESSION], tee: Tee::Snp },
            image: manifest.images[0].measured,
            job_manifest: ManifestClaim {
                job: manifest.job,
                sequence: manifest.sequence,
                sha384: manifest.digest(),
            },
            outputs: OutputsClaim { sealed_adapter_sha256: Hash32::of(b"adapter") },
            releases: vec![self.claim.clone()],
            run: RunClaim {
                engine: "cpu".into(),
                secret_commitment: Octets([1; 32]),
                steps: manifest.privacy.steps,
            },
            signer: public(&pair(self.signer)),
            simulated: false,
        }
    }

    /// Why the receipt is refused, with a change to its predicate before it is signed.
    fn denials(&self, change: impl FnOnce(&mut Predicate)) -> Vec<Denial> {
        let mut predicate = self.predicate();
        change(&mut predicate);
        let statement = Statement::new(vec![], predicate);
        let mut envelope = Envelope::new(PAYLOAD_TYPE, &statement.to_json());
        let signature = pair(self.signer).sign(&envelope.signed_bytes());
        let line = Signature::new(&public(&pair(self.signer)), signature.as_ref());
        envelope.signatures.push(line);
        let closing = CpuEvidence { endorsements: vec![], report: Blob(vec![0; 7]), tee: Tee::Snp };
        let share = WrappedShare { ct: Blob(vec![]), enc: Blob(vec![]), index: 1 };
        let message = Receipt { closing, envelope: Blob(envelope.to_json()), share };
        match receipt::log(&self.running.server.shared, &message, &envelope, &statement) {
            Err(Stop::Denied(denials)) => denials,
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
}

fn refused(change: impl FnOnce(&mut Predicate)) -> Vec<Denial> {
    Desk::new().denials(change)
}

fn other(what: &'static str) -> [Denial; 1] {
    [Denial::Receipt { what }]
}

/// What the golden desk is refused for: its evidence, and nothing before that.
fn is_evidence(denials: &[Denial]) -> bool {
    matches!(denials, [Denial::Evidence(Rejection::Malformed(_))])
}

#[test]
fn finds_nothing_on_the_golden_desk_before_its_evidence() {
    let denials = refused(|_| ());
    assert!(is_evidence(&denials), "{denials:?}");
}

#[test]
fn refuses_a_receipt_signed_by_a_key_that_no_session_released_to() {
    let mut desk = Desk::new();
    desk.signer = 2;
    assert_eq!(desk.denials(|_| ()), other("signer"));
    let desk = Desk::with(|_| (), |release| release.signer = public(&pair(2)));
    assert_eq!(desk.denials(|_| ()), other("signer"));
}

#[test]
fn refuses_a_receipt_whose_signer_did_not_sign_it() {
    let signature = [Denial::Signature { over: "the receipt" }];
    assert_eq!(refused(|predicate| predicate.signer = public(&pair(2))), signature);
}

#[test]
fn refuses_a_receipt_of_other_claims_than_the_manifests() {
    type Change = fn(&mut Predicate);
    let cases: [(&str, Change); 9] = [
        ("job", |p| p.job_manifest.job = Octets([0; 16])),
        ("sequence", |p| p.job_manifest.sequence += 1),
        ("base model", |p| p.base_model.name = "other".into()),
        ("data set", |p| p.dataset.id = Octets([0; 16])),
        ("data set's root", |p| p.dataset.ciphertext_root = Hash32::of(b"")),
        ("accountant", |p| p.dp.accountant = "other/1".into()),
        ("epsilon", |p| p.dp.epsilon = Real(p.dp.epsilon.0.next_down())),
        ("steps", |p| p.run.steps -= 1),
        ("canary audit", |p| {
            let (canaries, guesses) = (8, 4);
            let audit = CanaryAudit { canaries, epsilon_lower: Real(0.0), guesses, right: 2 };
            p.canary_audit = Some(audit);
        }),
    ];
    for (what, change) in cases {
        assert_eq!(refused(change), other(what), "{what}");
    }
}

#[test]
fn refuses_a_receipt_without_the_canary_audit_that_is_planned() {
    let desk = Desk::with(
        |terms| {
            (terms.audit.canaries, terms.audit.guesses) = (8, 4);
        },
        |_| (),
    );
    assert_eq!(desk.denials(|_| ()), other("canary audit"));
}

#[test]
fn refuses_a_receipt_of_another_release_session_or_root() {
    let release = other("our release");
    assert_eq!(refused(|p| p.releases.clear()), release);
    assert_eq!(refused(|p| p.releases[0].id = Octets([0; 16])), release);
    assert_eq!(refused(|p| p.releases[0].debit_index = 0), release);
    assert_eq!(refused(|p| p.attempt = 2), release);
    assert_eq!(refused(|p| p.evidence.sessions[0] = Octets([0; 64])), other("session"));
    assert_eq!(refused(|p| p.evidence.sessions.push(SESSION)), other("list of sessions"));
    assert_eq!(refused(|p| p.simulated = true), other("simulated"));
    assert_eq!(refused(|p| p.evidence.root = "Intel".into()), other("root"));
}

#[test]
fn refuses_a_receipt_after_the_lease_before_it_looks_at_evidence() {
    let end = now() - 100;
    let desk = Desk::with(|_| (), |release| release.not_after = end);
    let denials = desk.denials(|_| ());
    let [Denial::Ledger(Refusal::LeaseEnded { observed, required })] = denials[..] else {
        panic!("{denials:?}")
    };
    assert!(observed >= end + 100 && required == end);
    assert_eq!(denials[0].name(), "lease-ended");
    assert_eq!(denials[0].answer(), Answer::Denied);
}

#[test]
fn refuses_a_receipt_for_a_manifest_that_nothing_was_released_for() {
    let manifest = Digest::from_bytes([0; 48]);
    let denials = refused(|p| p.job_manifest.sha384 = manifest);
    assert_eq!(denials, [Denial::UnknownManifest { manifest }]);
}
