use attestation_verifier::protocol::VERSION;
use measurement::cbor::{Blob, Real};
use measurement::dsse::Signature;
use measurement::launch::Measured;
use measurement::log::Refusal;
use measurement::manifest::{
    AdamW, Adapter, AuditPlan, Base, Dataset, Image, LedgerTerms, Optimiser, Recipient, Schedule,
    Shape, Tensor, Terms, Training, Validity,
};
use measurement::privacy::{self, Adjacency, Mechanism, Sampler, Unit};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;
use crate::envelope::Budget;

const NOW: u64 = 1_800_000_000;
const POLICY: Digest<of::Policy> = Digest::from_bytes([9; 48]);

fn approver(n: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[n; 32]).unwrap()
}

fn public(pair: &Ed25519KeyPair) -> Octets<32> {
    Octets::from_slice(pair.public_key().as_ref()).unwrap()
}

fn custodian(n: u8) -> Custodian {
    Custodian {
        decision: Octets([n; 32]),
        log: Octets([n + 1; 32]),
        name: format!("custodian {n}"),
        tls: Hash32::from_bytes([n + 2; 32]),
        unwrap: Octets([n + 3; 32]),
    }
}

fn mechanism(change: impl FnOnce(&mut privacy::Terms)) -> Mechanism {
    let mut terms = privacy::Terms {
        adjacency: Adjacency::AddOrRemoveOne,
        clipping: privacy::Clipping::Flat,
        delta: Real(1e-6),
        expected_batch: 16,
        max_grad_norm: Real(1.0),
        max_units: 1000,
        noise_multiplier: Real(1.0),
        physical_batch: 64,
        records_per_unit: 1,
        sample_rate: Real(0.016),
        sampler: Sampler::TruncatedPoisson,
        steps: 100,
        unit: Unit::Record,
    };
    change(&mut terms);
    Mechanism::new(terms).unwrap()
}

fn training() -> Training {
    let tensor = Tensor { name: "a".into(), shape: [2, 2] };
    Training {
        adapter: Adapter { alpha: 8, rank: 4, targets: vec!["q".into()], tensors: vec![tensor] },
        checkpoint: 0,
        heartbeat: 1,
        optimiser: Optimiser::Adamw(AdamW {
            beta1: Real(0.9),
            beta2: Real(0.999),
            epsilon: Real(1e-8),
            learning_rate: Real(1e-3),
            weight_decay: Real(0.0),
        }),
        schedule: Schedule { shape: Shape::Constant, warmup: 0 },
        sequence: 64,
    }
}

pub(crate) fn terms() -> Terms {
    let file = Digest::from_bytes([1; 48]);
    let measured = Measured::Snp { launch_digest: Octets([5; 48]) };
    Terms {
        approvals: 2,
        approvers: (1..=3).map(|n| public(&approver(n))).collect(),
        audit: AuditPlan { canaries: 0, guesses: 0 },
        base: Base {
            config: file,
            name: "tiny".into(),
            template: None,
            tokenizer: file,
            weights: file,
        },
        custodians: vec![custodian(10), custodian(20), custodian(30)],
        dataset: Dataset {
            commitments: (1..=3).map(|n| Octets([n; 32])).collect(),
            id: Octets([7; 16]),
            key: Octets([8; 32]),
            root: Hash32::from_bytes([6; 32]),
            version: 1,
        },
        gpus: 0,
        images: vec![Image { measured, parts: Vec::new() }],
        job: Octets([4; 16]),
        ledger: LedgerTerms { log: custodian(20).log, quorum: 0, witnesses: Vec::new() },
        platforms: Vec::new(),
        policy: POLICY,
        privacy: mechanism(|_| ()),
        recipients: vec![Recipient { key: Octets([3; 32]), name: "owner".into() }],
        sequence: 5,
        threshold: 1,
        training: training(),
        valid: Validity { not_after: NOW + 10, not_before: NOW - 10 },
        version: 1,
    }
}

/// A manifest that is approved, its share, and the custodian who holds it.
struct Golden {
    terms: Terms,
    envelope: KeyEnvelope,
    custodian: Custodian,
    state: State,
    approvers: Vec<u8>,
    attempt: u32,
    now: u64,
}

impl Golden {
    fn new() -> Self {
        let terms = terms();
        let empty = Blob(Vec::new());
        let envelope = KeyEnvelope {
            budget: Budget { delta: Real(1e-5), epsilon: Real(8.0) },
            commitments: terms.dataset.commitments.clone(),
            dataset: terms.dataset.id,
            index: 2,
            key: terms.dataset.key,
            max_units: 1000,
            share: Sealed { enc: empty.clone(), ct: empty },
            threshold: 1,
        };
        let (custodian, state) = (custodian(20), State::default());
        Self { terms, envelope, custodian, state, approvers: vec![1, 2], attempt: 1, now: NOW }
    }

    fn approvals(&self, manifest: &Manifest) -> Envelope {
        let mut envelope = Envelope::new(PAYLOAD_TYPE, manifest.bytes());
        let message = envelope.signed_bytes();
        for n in &self.approvers {
            let pair = approver(*n);
            let signature = pair.sign(&message);
            envelope.signatures.push(Signature::new(&public(&pair), signature.as_ref()));
        }
        envelope
    }

    fn decide(&self) -> Result<Decision, Vec<Denial>> {
        let manifest = Manifest::write(&self.terms).unwrap();
        let approvals = self.approvals(&manifest).to_json();
        self.decide_with(&manifest, &approvals)
    }

    fn decide_with(&self, manifest: &Manifest, approvals: &[u8]) -> Result<Decision, Vec<Denial>> {
        let request =
            Request { manifest, approvals, envelope: &self.envelope, attempt: self.attempt };
        let (custodian, state) = (&self.custodian, &self.state);
        decide(&request, &Asked { custodian, policy: POLICY, state, now: self.now })
    }

    /// Takes what a decision logs.
    fn pay(&mut self) {
        let decision = self.decide().unwrap();
        let record = |event| Record { event, salt: Octets([0; 32]), time: NOW };
        if decision.new {
            self.state.apply(&record(Event::Manifest(decision.accepted))).unwrap();
        }
        self.state.apply(&record(Event::Debit(decision.debit))).unwrap();
        self.attempt += 1;
    }
}

fn denials(change: impl FnOnce(&mut Golden)) -> Vec<Denial> {
    let mut golden = Golden::new();
    change(&mut golden);
    golden.decide().unwrap_err()
}

fn codes(change: impl FnOnce(&mut Golden)) -> Vec<&'static str> {
    let denials = denials(change);
    assert!(denials.iter().all(|denial| denial.code().is_some()));
    denials.iter().map(Denial::name).collect()
}

#[test]
fn accepts_an_approved_manifest_and_prices_it_in_full() {
    let decision = Golden::new().decide().unwrap();
    assert!(decision.new);
    assert_eq!((decision.index, decision.threshold, decision.custodians), (2, 1, 3));
    assert_eq!(decision.debit.mechanism, terms().privacy);
    assert_eq!(decision.attempt(), 1);
}

#[test]
fn a_second_attempt_pays_again_and_accepts_the_manifest_once() {
    let mut golden = Golden::new();
    golden.pay();
    let decision = golden.decide().unwrap();
    assert!(!decision.new);
    assert_eq!((decision.attempt(), decision.next), (2, 2));
}

#[test]
fn a_lease_lasts_a_day_and_no_longer_than_the_manifest() {
    assert_eq!(Golden::new().decide().unwrap().not_after, NOW + 10);
    let mut golden = Golden::new();
    golden.terms.valid.not_after = NOW + 2 * LEASE;
    assert_eq!(golden.decide().unwrap().not_after, NOW + LEASE);
}

#[test]
fn refuses_missing_doubled_and_foreign_approvals() {
    let too_few = |observed| vec![Denial::Approvals { observed, required: 2 }];
    assert_eq!(denials(|g| g.approvers = vec![]), too_few(0));
    assert_eq!(denials(|g| g.approvers = vec![1]), too_few(1));
    assert_eq!(denials(|g| g.approvers = vec![2, 2, 2]), too_few(1));
    assert_eq!(denials(|g| g.approvers = vec![1, 4]), too_few(1));
}

#[test]
fn refuses_approvals_that_are_not_signatures_over_this_manifest() {
    let golden = Golden::new();
    let manifest = Manifest::write(&golden.terms).unwrap();
    let mut claimed = golden.approvals(&manifest);
    claimed.signatures[1].sig.0[0] ^= 1;
    let refused = golden.decide_with(&manifest, &claimed.to_json());
    assert_eq!(refused, Err(vec![Denial::Approvals { observed: 1, required: 2 }]));

    let mut other = terms();
    other.sequence = 6;
    let other = golden.approvals(&Manifest::write(&other).unwrap());
    let refused = golden.decide_with(&manifest, &other.to_json());
    assert_eq!(refused, Err(vec![Denial::ApprovalsOfOther]));

    let mut typed = golden.approvals(&manifest);
    typed.payload_type = "text/plain".into();
    let refused = golden.decide_with(&manifest, &typed.to_json()).unwrap_err();
    assert_eq!(refused[0].name(), "approvals-malformed");
    assert_eq!(golden.decide_with(&manifest, b"{").unwrap_err()[0].name(), "approvals-malformed");
}

#[test]
fn refuses_a_manifest_outside_its_time() {
    let (from, until) = (NOW - 10, NOW + 10);
    assert_eq!(denials(|g| g.now = until + 1), [Denial::Expired { until, now: until + 1 }]);
    assert_eq!(denials(|g| g.now = from - 1), [Denial::NotYetValid { from, now: from - 1 }]);
    for now in [from, until] {
        let mut golden = Golden::new();
        golden.now = now;
        assert!(golden.decide().is_ok());
    }
}

#[test]
fn refuses_a_manifest_that_names_another_custodian_in_the_shares_place() {
    let named = |what| [Denial::NotNamed { index: 2, what }];
    assert_eq!(
        denials(|g| g.terms.custodians[1].decision = Octets([0; 32])),
        named("decision key")
    );
    assert_eq!(denials(|g| g.terms.custodians[1].log = Octets([0; 32])), named("log key"));
    let other = Hash32::from_bytes([0; 32]);
    assert_eq!(denials(|g| g.terms.custodians[1].tls = other), named("tls key"));
    assert_eq!(denials(|g| g.terms.custodians[1].unwrap = Octets([0; 32])), named("unwrap key"));
    assert_eq!(denials(|g| g.envelope.index = 9), [Denial::NotNamed { index: 9, what: "count" }]);
    assert_eq!(codes(|g| g.envelope.index = 1), ["custodian-not-named"; 4]);
}

#[test]
fn refuses_another_policy_another_ledger_witnesses_and_gpus() {
    let observed = Digest::from_bytes([0; 48]);
    let other = Denial::OtherPolicy { observed, required: POLICY };
    assert_eq!(denials(|g| g.terms.policy = observed), [other]);
    let observed = custodian(10).log;
    let elsewhere = [Denial::LedgerElsewhere { observed }];
    assert_eq!(denials(|g| g.terms.ledger.log = observed), elsewhere);
    assert_eq!(elsewhere[0].code().unwrap().as_str(), "ledger-elsewhere");
    let witnesses = denials(|g| {
        g.terms.ledger.quorum = 1;
        g.terms.ledger.witnesses = vec![Octets([1; 32])];
    });
    assert_eq!(witnesses, [Denial::Witnesses { required: 1 }]);
    assert_eq!(denials(|g| g.terms.gpus = 1), [Denial::Gpus { observed: 1 }]);
}

#[test]
fn refuses_a_share_of_other_terms() {
    let terms = |what| [Denial::DataKey { what }];
    assert_eq!(denials(|g| g.envelope.key = Octets([0; 32])), terms("data key"));
    assert_eq!(denials(|g| g.envelope.dataset = Octets([0; 16])), terms("data set"));
    assert_eq!(denials(|g| g.envelope.threshold = 2), terms("threshold"));
    let commitments = |g: &mut Golden| g.envelope.commitments[0] = Octets([0; 32]);
    assert_eq!(denials(commitments), terms("list of commitments"));
}

#[test]
fn refuses_a_job_that_the_budget_does_not_cover() {
    let refused = denials(|g| g.envelope.budget.epsilon = Real(0.1));
    let [Denial::Budget { observed, allowed }] = refused[..] else { panic!("{refused:?}") };
    assert!(observed > allowed && allowed == 0.1);
    let delta = Denial::Delta { observed: 1e-6, allowed: 1e-7 };
    assert_eq!(denials(|g| g.envelope.budget.delta = Real(1e-7)), [delta]);
    let units = Denial::MaxUnits { observed: 1000, required: 999 };
    assert_eq!(denials(|g| g.envelope.max_units = 999), [units]);
    let beyond = |g: &mut Golden| g.envelope.budget.delta = Real(0.5);
    assert_eq!(codes(beyond), ["budget-unbounded"]);
}

#[test]
fn refuses_the_attempt_after_the_budget_is_spent() {
    let mut golden = Golden::new();
    let mut spent = 0;
    let refused = loop {
        match golden.decide() {
            Ok(_) => golden.pay(),
            Err(refused) => break refused,
        }
        spent += 1;
        assert!(spent < 1000);
    };
    assert!(spent > 1);
    assert!(matches!(refused[..], [Denial::Budget { observed, allowed: 8.0 }] if observed > 8.0));
}

#[test]
fn refuses_a_lower_sequence_a_taken_one_and_another_unit() {
    let after = |change: fn(&mut Golden)| {
        denials(|golden| {
            golden.pay();
            golden.attempt = 1;
            golden.terms.job = Octets([5; 16]);
            change(golden);
        })
    };
    let down = Refusal::SequenceWentDown { observed: 4, required: 5 };
    assert_eq!(after(|g| g.terms.sequence = 4), [Denial::Ledger(down)]);
    assert_eq!(after(|_| ()), [Denial::Ledger(Refusal::SequenceTaken { sequence: 5 })]);
    let unit = after(|g| {
        g.terms.sequence = 6;
        g.terms.privacy = mechanism(|m| m.unit = Unit::Field("customer".into()));
    });
    let names: Vec<_> = unit.iter().map(Denial::name).collect();
    assert_eq!(names, ["budget-unbounded", "unit-other"]);
}

#[test]
fn refuses_an_attempt_that_another_session_took() {
    let mut golden = Golden::new();
    golden.pay();
    golden.attempt = 1;
    let refused = golden.decide().unwrap_err();
    assert_eq!(refused, [Denial::AttemptMoved { observed: 2, required: 1 }]);
    assert_eq!(refused[0].answer(), attestation_verifier::protocol::Answer::Retry);
}

#[test]
fn names_every_finding_and_not_only_the_first() {
    let all = codes(|g| {
        g.approvers = vec![];
        g.now = NOW + 11;
        g.terms.gpus = 1;
        g.envelope.budget.epsilon = Real(0.1);
        g.attempt = 2;
    });
    let expected = [
        "approvals-missing",
        "manifest-expired",
        "gpus-not-appraised",
        "budget-spent",
        "attempt-moved",
    ];
    assert_eq!(all, expected);
}

#[test]
fn opens_only_the_launch_blob_of_the_manifest_asked_for() {
    let manifest = Manifest::write(&terms()).unwrap();
    let hello = Hello {
        instance: Octets([0; 16]),
        job: manifest.job,
        kems: Vec::new(),
        keys: Vec::new(),
        manifest: manifest.digest(),
        signer: Octets([0; 32]),
        tee: Tee::Snp,
        version: VERSION,
    };
    let blob = blob::write(manifest.bytes(), Algorithm::Sha256);
    assert_eq!(open(&blob, &hello).unwrap().digest(), manifest.digest());
    let other = blob::write(manifest.bytes(), Algorithm::Sha384);
    assert_eq!(open(&other, &hello).unwrap_err(), Denial::OtherAlgorithm);
    let job = Hello { job: Octets([0; 16]), ..hello.clone() };
    assert_eq!(open(&blob, &job).unwrap_err().name(), "job-other");
    let digest = Hello { manifest: Digest::from_bytes([0; 48]), ..hello.clone() };
    assert_eq!(open(&blob, &digest).unwrap_err().name(), "manifest-other");
    for end in 0..blob.len() {
        assert!(open(&blob[..end], &hello).is_err());
    }
}
