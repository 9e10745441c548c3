//! A receipt that is right but for its evidence, with one change at a time. What only evidence can
//! tell is tested with the simulated processor, in the package `tests`.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding};
use measurement::binding::Binding;
use measurement::cbor::{Blob, Real};
use measurement::digest::{Digest, Hash32};
use measurement::dsse::{Envelope, Signature};
use measurement::launch::{Measured, blob};
use measurement::log::{self, Checkpoint, Event, Leaf, Note, NoteSignature, Record, Tree, tiles};
use measurement::manifest::{self as terms, Manifest, Tee, Terms};
use measurement::octets::Octets;
use measurement::privacy::accountant::{self, Accountant};
use measurement::privacy::{self, Adjacency, Mechanism, Sampler, Unit};
use measurement::receipt::{
    Bundle, CpuEvidence, DatasetClaim, DpClaim, EvidenceClaim, ManifestClaim, NOT_CLAIMED,
    OutputsClaim, PAYLOAD_TYPE, Predicate, ProvenRecord, ReleaseClaim, ReleaseProof, RunClaim,
    Statement, Subject,
};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{ADAPTER_FILES, Finding, ImageFiles, Inputs, verify};
use crate::policy::STRICT;

const SEALED: &[u8] = b"sealed adapter";
const SESSION: Octets<64> = Octets([9; 64]);
const TIME: u64 = 1_790_000_000;

struct Pair(Ed25519KeyPair);

impl Pair {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn public(&self) -> Octets<32> {
        Octets::from_slice(self.0.public_key().as_ref()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().unwrap()
    }

    fn line(&self, envelope: &Envelope) -> Signature {
        Signature::new(&self.public(), &self.sign(&envelope.signed_bytes()))
    }
}

fn enclave() -> Pair {
    Pair::new(1)
}

fn approver() -> Pair {
    Pair::new(2)
}

fn decision() -> Pair {
    Pair::new(3)
}

fn log_key() -> Pair {
    Pair::new(4)
}

fn mechanism() -> Mechanism {
    Mechanism::new(privacy::Terms {
        adjacency: Adjacency::AddOrRemoveOne,
        delta: Real(1e-4),
        expected_batch: 16,
        max_grad_norm: Real(1.0),
        max_units: 512,
        noise_multiplier: Real(1.1),
        physical_batch: 96,
        records_per_unit: 1,
        sample_rate: Real(0.031_25),
        sampler: Sampler::TruncatedPoisson,
        steps: 20,
        unit: Unit::Record,
    })
    .unwrap()
}

fn epsilon() -> f64 {
    let mut spent = Accountant::new();
    spent.compose(&mechanism()).unwrap();
    spent.epsilon(1e-4).unwrap()
}

fn manifest() -> Terms {
    let image = terms::Image {
        measured: Measured::Snp { launch_digest: Octets([5; 48]) },
        parts: vec![terms::Part { digest: Digest::of(b"kernel"), name: "kernel".into() }],
    };
    Terms {
        approvals: 1,
        approvers: vec![approver().public()],
        audit: terms::AuditPlan { canaries: 0, guesses: 0 },
        base: terms::Base {
            config: Digest::of(b"config"),
            name: "base".into(),
            template: None,
            tokenizer: Digest::of(b"tokenizer"),
            weights: Digest::of(b"weights"),
        },
        custodians: vec![terms::Custodian {
            decision: decision().public(),
            log: log_key().public(),
            name: "one".into(),
            tls: Hash32::from_bytes([6; 32]),
            unwrap: Octets([7; 32]),
        }],
        dataset: terms::Dataset {
            commitments: vec![Octets([8; 32])],
            id: Octets([1; 16]),
            key: Octets([2; 32]),
            root: Hash32::of(b"data set"),
            version: 1,
        },
        gpus: 0,
        images: vec![image],
        job: Octets([3; 16]),
        ledger: terms::LedgerTerms { log: log_key().public(), quorum: 0, witnesses: vec![] },
        platforms: vec![],
        policy: Digest::of(STRICT.as_bytes()),
        privacy: mechanism(),
        recipients: vec![terms::Recipient { key: Octets([4; 32]), name: "owner".into() }],
        sequence: 1,
        threshold: 1,
        training: training(),
        valid: terms::Validity { not_after: TIME + 1000, not_before: TIME - 1000 },
        version: terms::VERSION,
    }
}

fn training() -> terms::Training {
    terms::Training {
        adapter: terms::Adapter {
            alpha: 16,
            rank: 8,
            targets: vec!["q_proj".into()],
            tensors: vec![terms::Tensor { name: "a".into(), shape: [8, 8] }],
        },
        checkpoint: 0,
        heartbeat: 1,
        optimiser: terms::AdamW {
            beta1: Real(0.9),
            beta2: Real(0.99),
            epsilon: Real(1e-8),
            learning_rate: Real(1e-3),
            weight_decay: Real(0.0),
        },
        schedule: terms::Schedule { shape: terms::Shape::Constant, warmup: 0 },
        sequence: 64,
    }
}

/// A log as its keeper writes it.
#[derive(Default)]
struct Log {
    records: Vec<Vec<u8>>,
    leaves: Vec<Vec<u8>>,
    tree: Tree,
}

impl Log {
    fn append(&mut self, event: Event) -> u64 {
        let salt = Octets([u8::try_from(self.records.len()).unwrap(); 32]);
        let record = Record { event, salt, time: TIME }.to_bytes();
        let signature = decision().sign(&Leaf::message(&Leaf::checksum(&record)));
        let leaf = Leaf::new(&record, signature, decision().public().as_bytes()).to_bytes();
        self.records.push(record);
        self.leaves.push(leaf.clone());
        self.tree.append(&leaf)
    }

    fn checkpoint(&self) -> String {
        let key = log_key();
        let origin = log::origin(key.public().as_bytes());
        let (size, root) = (self.tree.size(), self.tree.root());
        let text = Checkpoint { origin: origin.clone(), size, root }.to_string();
        let signature = key.sign(text.as_bytes());
        let line = NoteSignature::ed25519(&origin, key.public().as_bytes(), signature);
        Note { text, signatures: vec![line] }.to_string()
    }

    fn proven(&self, index: u64) -> ProvenRecord {
        let at = usize::try_from(index).unwrap();
        ProvenRecord {
            checkpoint: self.checkpoint(),
            index,
            leaf: Blob(self.leaves[at].clone()),
            path: self.tree.inclusion_proof(index, self.tree.size()).unwrap(),
            record: Blob(self.records[at].clone()),
        }
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files: BTreeMap<_, _> =
            tiles::write(&self.tree, &self.leaves, 0).unwrap().into_iter().collect();
        files.insert("checkpoint".into(), self.checkpoint().into_bytes());
        for (index, record) in self.records.iter().enumerate() {
            files.insert(alloc::format!("records/{index}.cbor"), record.clone());
        }
        files
    }
}

/// Everything that lies on the auditor's desk.
struct Desk {
    bundle: Bundle,
    files: BTreeMap<String, Vec<u8>>,
    policy: String,
    kernel: Vec<u8>,
    sealed: Vec<u8>,
    adapter: Vec<(&'static str, &'static [u8])>,
    base: Vec<(&'static str, Digest<measurement::digest::of::BaseFile>)>,
    dataset: &'static [u8],
    manifest: Vec<u8>,
}

fn predicate(manifest: &Manifest, claim: ReleaseClaim) -> Predicate {
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
            accountant: accountant::NAME.into(),
            epsilon: Real(epsilon()),
            epsilon_host: NOT_CLAIMED.into(),
            mechanism: mechanism(),
        },
        evidence: EvidenceClaim { root: "AMD".into(), sessions: vec![SESSION], tee: Tee::Snp },
        image: manifest.images[0].measured,
        job_manifest: ManifestClaim {
            job: manifest.job,
            sequence: manifest.sequence,
            sha384: manifest.digest(),
        },
        outputs: OutputsClaim { sealed_adapter_sha256: Hash32::of(SEALED) },
        releases: vec![claim],
        run: RunClaim {
            engine: "cpu".into(),
            secret_commitment: Octets([1; 32]),
            steps: manifest.privacy.steps,
        },
        signer: enclave().public(),
        simulated: false,
    }
}

/// The desk, with changes to the terms, to the debit and release before they are logged, and to the
/// statement before it is signed.
#[expect(clippy::too_many_lines, reason = "it lays out everything on the desk, in order")]
fn desk_with(
    change_terms: impl FnOnce(&mut Terms),
    change_release: impl FnOnce(&mut log::Debit, &mut log::Release),
    change_statement: impl FnOnce(&mut Statement),
) -> Desk {
    let mut all = manifest();
    change_terms(&mut all);
    let manifest = Manifest::write(&all).unwrap();
    let mut approvals = Envelope::new(terms::PAYLOAD_TYPE, manifest.bytes());
    approvals.signatures.push(approver().line(&approvals));

    let (dataset, job, digest) = (manifest.dataset.id, manifest.job, manifest.digest());
    let mut debit =
        log::Debit { attempt: 1, dataset, job, manifest: digest, mechanism: mechanism() };
    let mut release = log::Release {
        attempt: 1,
        debit: 1,
        dek_id: manifest.dataset.key,
        manifest: digest,
        release_id: Octets([5; 16]),
        report_data: Octets(Binding::from_octets(SESSION).report_data(0, None)),
        root: "AMD".into(),
        sealed_share: Hash32::of(b"share"),
        session: SESSION,
        share_index: 1,
        signer: enclave().public(),
    };
    change_release(&mut debit, &mut release);
    let id = release.release_id;
    let mut log = Log::default();
    log.append(Event::Manifest(log::Accepted { dataset, job, manifest: digest, sequence: 1 }));
    let debit_index = log.append(Event::Debit(debit));
    let release_index = log.append(Event::Release(release));
    let proof = ReleaseProof { debit: log.proven(debit_index), release: log.proven(release_index) };

    let custodian = decision().public();
    let claim = ReleaseClaim { custodian, debit_index, id, release_index };
    let subject = vec![
        Subject::new(ADAPTER_FILES[0], b"settings"),
        Subject::new(ADAPTER_FILES[1], b"tensors"),
    ];
    let mut statement = Statement::new(subject, predicate(&manifest, claim));
    change_statement(&mut statement);
    let payload = statement.to_json();
    let mut envelope = Envelope::new(PAYLOAD_TYPE, &payload);
    envelope.signatures = vec![enclave().line(&envelope), decision().line(&envelope)];
    let sealed_adapter = statement.predicate.outputs.sealed_adapter_sha256;
    log.append(Event::Receipt(log::Receipt {
        attempt: statement.predicate.attempt,
        job,
        sealed_adapter,
        statement: Digest::of(&payload),
    }));
    Desk {
        bundle: Bundle {
            approvals,
            closing: CpuEvidence { endorsements: vec![], report: Blob(vec![0; 7]), tee: Tee::Snp },
            envelope,
            launch_blob: Blob(blob::write(manifest.bytes(), blob::Algorithm::Sha256)),
            releases: vec![proof],
        },
        files: log.files(),
        policy: STRICT.into(),
        kernel: b"kernel".to_vec(),
        sealed: SEALED.to_vec(),
        adapter: vec![(ADAPTER_FILES[0], b"settings"), (ADAPTER_FILES[1], b"tensors")],
        base: vec![
            ("config.json", Digest::of(b"config")),
            ("model.safetensors", Digest::of(b"weights")),
            ("tokenizer.json", Digest::of(b"tokenizer")),
        ],
        dataset: b"data set",
        manifest: manifest.bytes().to_vec(),
    }
}

fn desk() -> Desk {
    desk_with(|_| (), |_, _| (), |_| ())
}

/// Findings but for the two that the golden desk has, which brings no evidence and no real image.
fn findings(desk: &Desk) -> Vec<Finding> {
    findings_of(desk, &desk.bundle.to_json())
}

fn findings_of(desk: &Desk, bundle: &[u8]) -> Vec<Finding> {
    let fetch = |name: &str| desk.files.get(name).cloned();
    let adapter: Vec<_> = desk.adapter.iter().map(|(name, bytes)| (*name, *bytes)).collect();
    let shape = br#"{"platform":"snp","cpu":"EPYC-Genoa","vcpus":1,"memory_mib":512,
        "guest_features":1}"#;
    let found = verify(&Inputs {
        adapter: Some(&adapter),
        at: None,
        base: Some(&desk.base),
        bundle,
        dataset: Some(Hash32::of(desk.dataset)),
        image: ImageFiles {
            cmdline: b"quiet",
            firmware: b"",
            initrd: b"",
            kernel: &desk.kernel,
            shape,
        },
        log: Some(&fetch),
        manifest: Some(&desk.manifest),
        policy: desk.policy.as_bytes(),
        sealed_adapter: Some(&desk.sealed),
    });
    let mut found = found.unwrap_err();
    found.retain(|one| one.id != "evidence.malformed" && one.id != "image.unmeasured");
    found
}

fn ids(desk: &Desk) -> Vec<String> {
    findings(desk).into_iter().map(|finding| finding.id).collect()
}

fn with_statement(change: impl FnOnce(&mut Statement)) -> Vec<String> {
    ids(&desk_with(|_| (), |_, _| (), change))
}

fn with_release(change: impl FnOnce(&mut log::Debit, &mut log::Release)) -> Vec<String> {
    ids(&desk_with(|_| (), change, |_| ()))
}

#[test]
fn finds_nothing_on_the_golden_desk_but_its_evidence_and_image() {
    assert_eq!(findings(&desk()), []);
}

#[test]
fn a_finding_reads_as_a_sentence_that_names_the_artefact_and_the_check() {
    let mut desk = desk();
    desk.kernel.push(0);
    let text = findings(&desk)[0].to_string();
    assert!(text.starts_with("image: kernel: sha384 is "), "{text}");
}

#[test]
fn every_claim_must_be_the_manifests() {
    type Change = fn(&mut Predicate);
    let cases: [(&str, Change); 17] = [
        ("receipt.manifest_digest", |p| p.job_manifest.sha384 = Digest::of(b"")),
        ("receipt.sequence", |p| p.job_manifest.sequence = 2),
        ("receipt.dataset_root", |p| p.dataset.ciphertext_root = Hash32::of(b"")),
        ("receipt.dataset_id", |p| p.dataset.id = Octets([0; 16])),
        ("receipt.dataset_version", |p| p.dataset.version = 2),
        ("receipt.base_config", |p| p.base_model.config = Digest::of(b"")),
        ("receipt.base_name", |p| p.base_model.name = "other".into()),
        ("receipt.base_template", |p| p.base_model.template = Some(Digest::of(b""))),
        ("receipt.base_tokenizer", |p| p.base_model.tokenizer = Digest::of(b"")),
        ("receipt.base_weights", |p| p.base_model.weights = Digest::of(b"")),
        ("receipt.steps", |p| p.run.steps = 19),
        ("receipt.accountant", |p| p.dp.accountant = "other/1".into()),
        ("receipt.epsilon", |p| p.dp.epsilon = Real(p.dp.epsilon.0.next_down())),
        ("receipt.epsilon_host", |p| p.dp.epsilon_host = "0".into()),
        ("receipt.release_root", |p| p.evidence.root = "Intel".into()),
        ("receipt.debit_index", |p| p.releases[0].debit_index = 0),
        ("receipt.release_id", |p| p.releases[0].id = Octets([0; 16])),
    ];
    for (id, change) in cases {
        assert_eq!(with_statement(|s| change(&mut s.predicate)), [id], "{id}");
    }
}

#[test]
fn refuses_another_mechanism_than_the_one_that_was_paid_for() {
    let smaller = || {
        let mut terms = privacy::Terms::from(mechanism());
        terms.noise_multiplier = Real(1.0);
        Mechanism::new(terms).unwrap()
    };
    assert_eq!(with_statement(|s| s.predicate.dp.mechanism = smaller()), ["receipt.mechanism"]);
    assert_eq!(with_release(|debit, _| debit.mechanism = smaller()), ["receipt.debit_mechanism"]);
}

#[test]
fn every_field_of_a_release_counts() {
    assert_eq!(with_release(|_, r| r.session = Octets([0; 64])), ["receipt.release_session"]);
    assert_eq!(with_release(|_, r| r.dek_id = Octets([0; 32])), ["receipt.release_key"]);
    assert_eq!(with_release(|_, r| r.share_index = 2), ["receipt.release_share"]);
    assert_eq!(with_release(|_, r| r.root = "SIMULATED".into()), ["receipt.release_root"]);
    assert_eq!(with_release(|_, r| r.report_data = Octets([0; 64])), ["receipt.release_evidence"]);
}

#[test]
fn refuses_a_receipt_signed_by_a_key_that_no_session_released_to() {
    let other = Pair::new(9).public();
    assert_eq!(with_release(|_, r| r.signer = other), ["receipt.release_signer"]);
    let mut one = desk_with(|_| (), |_, _| (), |s| s.predicate.signer = other);
    one.bundle.envelope.signatures[0] = Pair::new(9).line(&one.bundle.envelope);
    assert_eq!(ids(&one), ["receipt.release_signer"]);
    let text = findings(&one)[0].to_string();
    let released = enclave().public();
    let said = "receipt: signer of a release is";
    assert_eq!(text, alloc::format!("{said} {released}, required is {other}"));
}

#[test]
fn refuses_a_release_of_another_debit_and_a_log_that_does_not_fold() {
    let found = with_release(|_, release| release.debit = 0);
    assert_eq!(found, ["receipt.release_proof", "log.fold"]);
    assert_eq!(with_release(|debit, _| debit.attempt = 2), ["receipt.release_proof", "log.fold"]);
}

#[test]
fn refuses_a_release_outside_the_manifests_time() {
    let expired = desk_with(|terms| terms.valid.not_after = TIME - 1, |_, _| (), |_| ());
    assert_eq!(ids(&expired), ["receipt.release_time"]);
}

#[test]
fn refuses_files_that_are_not_on_the_closed_list() {
    let extra = with_statement(|s| s.subject.push(Subject::new("losses.json", b"")));
    assert_eq!(extra, ["receipt.subjects", "adapter.missing"]);
    let renamed = with_statement(|s| s.subject[0].name = "../x".into());
    assert_eq!(renamed, ["receipt.subjects", "adapter.extra", "adapter.missing"]);
}

#[test]
fn refuses_signatures_that_are_missing_doubled_or_strange() {
    let mut one = desk();
    one.bundle.envelope.signatures.remove(0);
    assert_eq!(ids(&one), ["receipt.signature"]);
    let mut one = desk();
    one.bundle.envelope.signatures.remove(1);
    assert_eq!(ids(&one), ["receipt.countersignatures"]);
    let mut one = desk();
    let line = Pair::new(9).line(&one.bundle.envelope);
    one.bundle.envelope.signatures.push(line);
    assert_eq!(ids(&one), ["receipt.stray_signature"]);
    let mut one = desk();
    let line = one.bundle.envelope.signatures[1].clone();
    one.bundle.envelope.signatures.push(line);
    assert_eq!(ids(&one), ["receipt.repeated_signature"]);
}

#[test]
fn refuses_approvals_that_are_missing_doubled_strange_or_of_another_manifest() {
    let mut one = desk();
    one.bundle.approvals.signatures.clear();
    assert_eq!(ids(&one), ["approvals.quorum"]);
    let mut one = desk();
    let line = one.bundle.approvals.signatures[0].clone();
    one.bundle.approvals.signatures.push(line);
    assert_eq!(ids(&one), ["approvals.repeated"]);
    let mut one = desk();
    let line = Pair::new(9).line(&one.bundle.approvals);
    one.bundle.approvals.signatures.push(line);
    assert_eq!(ids(&one), ["approvals.signature"]);
    let mut one = desk();
    one.bundle.approvals = Envelope::new(terms::PAYLOAD_TYPE, b"other");
    let line = approver().line(&one.bundle.approvals);
    one.bundle.approvals.signatures.push(line);
    assert_eq!(ids(&one), ["approvals.manifest"]);
}

#[test]
fn names_each_file_that_is_not_the_one_named() {
    let mut one = desk();
    one.policy.push('\n');
    assert_eq!(ids(&one), ["policy.digest"]);
    let mut one = desk();
    one.manifest.push(0);
    assert_eq!(ids(&one), ["manifest.file"]);
    let mut one = desk();
    one.kernel.push(0);
    assert_eq!(findings(&one)[0].artefact, "image: kernel");
    let mut one = desk();
    one.sealed.push(0);
    assert_eq!(ids(&one), ["sealed_adapter.digest"]);
    let mut one = desk();
    one.dataset = b"other";
    assert_eq!(ids(&one), ["dataset.root"]);
    let mut one = desk();
    one.adapter[1].1 = b"tensorS";
    assert_eq!(findings(&one)[0].artefact, "adapter: adapter_model.safetensors");
    let mut one = desk();
    one.adapter.push(("pytorch_model.bin", b""));
    assert_eq!(ids(&one), ["adapter.extra"]);
    let mut one = desk();
    one.base[2].1 = Digest::of(b"other");
    assert_eq!(findings(&one)[0].artefact, "base: tokenizer.json");
    let mut one = desk();
    one.base.remove(0);
    assert_eq!(ids(&one), ["base.missing"]);
}

#[test]
fn a_page_for_people_beside_the_adapter_is_no_finding() {
    let mut one = desk();
    one.adapter.push((super::ADAPTER_PAGE, b"# page"));
    assert_eq!(ids(&one), Vec::<String>::new());
}

#[test]
fn every_file_of_the_log_counts_to_the_byte() {
    for name in desk().files.keys() {
        for at in [0, 40, 70] {
            let mut one = desk();
            let file = one.files.get_mut(name).unwrap();
            let at = at.min(file.len() - 1);
            file[at] ^= 1;
            let found = findings(&one);
            let named = found.iter().any(|finding| finding.artefact.starts_with("log"));
            assert!(named, "{name} byte {at}: {found:?}");
        }
        let mut one = desk();
        one.files.remove(name);
        assert!(!ids(&one).is_empty(), "{name}");
    }
}

#[test]
fn refuses_a_log_that_lost_or_swapped_what_the_receipt_saw() {
    let other = desk_with(|_| (), |_, release| release.sealed_share = Hash32::of(b"x"), |_| ());
    let mut one = desk();
    one.files = other.files;
    let found = ids(&one);
    assert_eq!(found, ["log.consistency", "log.record"]);
}

#[test]
fn refuses_a_record_beyond_the_checkpoint() {
    let mut one = desk();
    let record = one.files["records/0.cbor"].clone();
    one.files.insert("records/4.cbor".into(), record);
    assert_eq!(ids(&one), ["log.beyond"]);
}

#[test]
fn refuses_a_log_without_the_receipt() {
    let mut one = desk();
    let other = with_other_receipt();
    one.files = other;
    assert_eq!(ids(&one), ["log.receipt"]);
}

/// The golden log, but its last record is of another statement.
fn with_other_receipt() -> BTreeMap<String, Vec<u8>> {
    desk_with(|_| (), |_, _| (), |s| s.predicate.run.engine = "other".into()).files
}

#[test]
fn every_broken_proof_in_the_receipt_is_found() {
    type Change = fn(&mut ReleaseProof);
    let changes: [Change; 5] = [
        |proof| proof.release.record.0[40] ^= 1,
        |proof| proof.release.leaf.0[40] ^= 1,
        |proof| proof.release.path[0] = Hash32::of(b""),
        |proof| proof.debit.checkpoint = proof.debit.checkpoint.replace("\n3\n", "\n4\n"),
        |proof| proof.debit = proof.release.clone(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut one = desk();
        change(&mut one.bundle.releases[0]);
        assert!(ids(&one).contains(&"receipt.release_proof".into()), "change {number}");
    }
}

#[test]
fn refuses_too_few_releases() {
    let mut one = desk();
    one.bundle.releases.clear();
    assert_eq!(ids(&one), ["receipt.releases"]);
    let none = with_statement(|s| {
        s.predicate.releases.clear();
        s.predicate.evidence.sessions.clear();
    });
    assert_eq!(none, ["receipt.releases", "receipt.threshold"]);
}

#[test]
fn refuses_a_statement_that_is_spelled_otherwise() {
    let mut one = desk();
    one.bundle.envelope.payload.0.push(b'\n');
    assert_eq!(ids(&one), ["receipt.statement"]);
}

#[test]
fn never_panics_on_a_prefix_of_a_receipt() {
    let one = desk();
    let json = one.bundle.to_json();
    for end in (0..json.len()).step_by(37) {
        let found = findings_of(&one, &json[..end]);
        assert_eq!(found.len(), 1, "{end}");
        assert_eq!(found[0].id, "receipt.malformed");
    }
}

#[test]
fn every_flipped_bit_of_a_receipt_is_found() {
    let one = desk();
    let json = one.bundle.to_json();
    // The report itself is judged elsewhere; here it is seven zeros.
    let report = alloc::format!("\"report\": \"{}\"", Base64::encode_string(&[0; 7]));
    let text = core::str::from_utf8(&json).unwrap();
    let start = text.find(&report).unwrap();
    for at in (0..json.len()).step_by(101) {
        if (start..start + report.len()).contains(&at) {
            continue;
        }
        let mut changed = json.clone();
        changed[at] ^= 1;
        assert!(!findings_of(&one, &changed).is_empty(), "byte {at}");
    }
}
