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
    Bundle, CanaryAudit, CpuEvidence, DatasetClaim, DpClaim, EvidenceClaim, ManifestClaim,
    NOT_CLAIMED, OutputsClaim, PAYLOAD_TYPE, Predicate, ProvenRecord, ReleaseClaim, ReleaseProof,
    RunClaim, Statement, Subject,
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
        clipping: privacy::Clipping::Flat,
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
        optimiser: terms::Optimiser::Adamw(terms::AdamW {
            beta1: Real(0.9),
            beta2: Real(0.99),
            epsilon: Real(1e-8),
            learning_rate: Real(1e-3),
            weight_decay: Real(0.0),
        }),
        schedule: terms::Schedule { shape: terms::Shape::Constant, warmup: 0 },
        sequence: 64,
    }
}

/// `adapter_config.json`, with a change.
fn settings(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut all = serde_json::json!({
        "bias": "none", "lora_alpha": 16, "modules_to_save": null, "peft_type": "LORA", "r": 8,
        "target_modules": ["q_proj"], "use_dora": false,
    });
    change(&mut all);
    all.to_string().into_bytes()
}

/// A safetensors header and what follows it.
struct Tensors {
    header: serde_json::Value,
    data: Vec<u8>,
}

/// `adapter_model.safetensors`, with a change.
fn tensors(manifest: &Manifest, change: impl FnOnce(&mut Tensors)) -> Vec<u8> {
    let header = serde_json::json!({
        "__metadata__": {
            "cloister.job": manifest.job.to_string(),
            "cloister.manifest": manifest.digest().to_string(),
            "format": "pt",
        },
        "a": {"data_offsets": [0, 256], "dtype": "F32", "shape": [8, 8]},
    });
    let mut file = Tensors { header, data: vec![0; 256] };
    change(&mut file);
    safetensors(&file.header.to_string(), &file.data)
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut header = header.as_bytes().to_vec();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = u64::try_from(header.len()).unwrap().to_le_bytes();
    [&length[..], &header, data].concat()
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
    adapter: Vec<(&'static str, Vec<u8>)>,
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
        not_after: TIME + 500,
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
        Subject::new(ADAPTER_FILES[0], &settings(|_| ())),
        Subject::new(ADAPTER_FILES[1], &tensors(&manifest, |_| ())),
    ];
    let mut statement = Statement::new(subject, predicate(&manifest, claim));
    change_statement(&mut statement);
    let payload = statement.to_json();
    let mut envelope = Envelope::new(PAYLOAD_TYPE, &payload);
    envelope.signatures = vec![enclave().line(&envelope), decision().line(&envelope)];
    let sealed_adapter = statement.predicate.outputs.sealed_adapter_sha256;
    let closing = CpuEvidence { endorsements: vec![], report: Blob(vec![0; 7]), tee: Tee::Snp };
    log.append(Event::Receipt(log::Receipt {
        attempt: statement.predicate.attempt,
        closing: closing.digest(),
        job,
        sealed_adapter,
        statement: Digest::of(&payload),
    }));
    Desk {
        bundle: Bundle {
            approvals,
            closing,
            envelope,
            launch_blob: Blob(blob::write(manifest.bytes(), blob::Algorithm::Sha256)),
            releases: vec![proof],
        },
        files: log.files(),
        policy: STRICT.into(),
        kernel: b"kernel".to_vec(),
        sealed: SEALED.to_vec(),
        adapter: vec![
            (ADAPTER_FILES[0], settings(|_| ())),
            (ADAPTER_FILES[1], tensors(&manifest, |_| ())),
        ],
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
    let adapter: Vec<_> =
        desk.adapter.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
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
    assert_eq!(ids(&expired), ["receipt.release_lease", "receipt.release_time"]);
}

#[test]
fn refuses_a_receipt_after_the_lease_and_a_lease_beyond_the_manifest() {
    let late = with_release(|_, release| release.not_after = TIME - 1);
    assert_eq!(late, ["log.fold"]);
    let text = findings(&desk_with(|_| (), |_, r| r.not_after = TIME - 1, |_| ()))[0].to_string();
    let said = alloc::format!("the lease ended at {}, this is at {TIME}", TIME - 1);
    assert!(text.contains(&said), "{text}");
    let beyond = with_release(|_, release| release.not_after = TIME + 1001);
    assert_eq!(beyond, ["receipt.release_lease"]);
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
fn closing_evidence_is_the_bytes_that_were_logged() {
    // What no signature covers, here a spare endorsement, is still the evidence that was judged.
    let mut one = desk();
    one.bundle.closing.endorsements.push(Blob(b"spare".to_vec()));
    assert!(ids(&one).contains(&"receipt.closing".to_string()));
    assert!(!ids(&desk()).contains(&"receipt.closing".to_string()));
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
    one.adapter[1].1.push(0);
    assert_eq!(findings(&one)[0].artefact, "adapter: adapter_model.safetensors");
    let mut one = desk();
    one.adapter.push(("pytorch_model.bin", vec![]));
    assert_eq!(ids(&one), ["adapter.extra"]);
    let mut one = desk();
    one.base[2].1 = Digest::of(b"other");
    assert_eq!(findings(&one)[0].artefact, "base: tokenizer.json");
    let mut one = desk();
    one.base.remove(0);
    assert_eq!(ids(&one), ["base.missing"]);
}

/// The findings about an adapter that the enclave would have signed for with these bytes.
fn with_adapter(at: usize, bytes: Vec<u8>) -> Vec<Finding> {
    let subject = Subject::new(ADAPTER_FILES[at], &bytes);
    let mut one = desk_with(|_| (), |_, _| (), |s| s.subject[at] = subject);
    one.adapter[at].1 = bytes;
    findings(&one)
}

fn with_tensors(change: impl FnOnce(&mut Tensors)) -> Vec<Finding> {
    with_adapter(1, tensors(&Manifest::write(&manifest()).unwrap(), change))
}

#[test]
fn refuses_tensors_that_are_not_the_manifests() {
    let text = |change: fn(&mut Tensors)| {
        let found = with_tensors(change);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].id, "adapter.tensor");
        let text = found[0].to_string();
        text.strip_prefix("adapter: adapter_model.safetensors: tensor ").unwrap().to_string()
    };
    let extra = text(|file| {
        let entry = serde_json::json!({"data_offsets": [256, 260], "dtype": "U8", "shape": [4]});
        file.header["rows"] = entry;
        file.data.extend([1; 4]);
    });
    assert_eq!(extra, "rows is there, required is one the manifest names");
    let shape = text(|file| file.header["a"]["shape"] = serde_json::json!([4, 16]));
    assert_eq!(shape, "a is F32 [4, 16], required is F32 [8, 8]");
    let dtype = text(|file| file.header["a"]["dtype"] = "I32".into());
    assert_eq!(dtype, "a is I32 [8, 8], required is F32 [8, 8]");
    let nan = text(|file| file.data[252..].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert_eq!(nan, "a is a value that is no number, required is finite values");
    let found = with_tensors(|file| {
        let entry = file.header["a"].take();
        file.header.as_object_mut().unwrap().remove("a");
        file.header["b"] = entry;
    });
    let texts: Vec<_> = found.iter().map(|one| one.observed.as_str()).collect();
    assert_eq!(texts, ["there", "missing"]);
}

#[test]
fn refuses_metadata_that_says_more_or_less_than_it_must() {
    type Change = fn(&mut serde_json::Value);
    let changes: [Change; 4] = [
        |metadata| metadata["loss"] = "0.1".into(),
        |metadata| metadata["format"] = "tf".into(),
        |metadata| metadata["cloister.job"] = "0".into(),
        |metadata| metadata["cloister.evidence"] = "SIMULATED".into(),
    ];
    for change in changes {
        let found = with_tensors(|file| change(&mut file.header["__metadata__"]));
        assert_eq!(
            found.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(),
            ["adapter.metadata"]
        );
    }
}

#[test]
fn refuses_a_file_of_tensors_with_anything_between_behind_or_before_them() {
    let malformed = |bytes: Vec<u8>| {
        let found = with_adapter(1, bytes);
        assert_eq!(found[0].id, "adapter.malformed", "{found:?}");
        found[0].observed.clone()
    };
    let golden = tensors(&Manifest::write(&manifest()).unwrap(), |_| ());
    assert_eq!(malformed([&golden[..], &[0]].concat()), "with bytes that are no tensor's");
    assert_eq!(malformed(golden[..golden.len() - 1].to_vec()), "shorter than its tensors");
    let header = r#"{"a":{"data_offsets":[0,4],"dtype":"F32","shape":[1]},"a":{"data_offsets":[0,4],"dtype":"F32","shape":[1]}}"#;
    assert_eq!(malformed(safetensors(header, &[0; 4])), "spelled otherwise");
    let header = r#"{"a":{"data_offsets":[0,8],"dtype":"F32","shape":[1]}}"#;
    assert_eq!(malformed(safetensors(header, &[0; 8])), "of other lengths than its shapes");
    let header = r#"{"a":{"data_offsets":[0,4],"dtype":"F32","shape":[1]},"b":{"data_offsets":[0,4],"dtype":"F32","shape":[1]}}"#;
    assert_eq!(malformed(safetensors(header, &[0; 4])), "with bytes that are no tensor's");
    assert_eq!(malformed(u64::MAX.to_le_bytes().to_vec()), "too long a header");
    for end in 0..golden.len() {
        malformed(golden[..end].to_vec());
    }
}

#[test]
fn refuses_settings_under_which_the_tensors_would_mean_something_else() {
    let found = |change: fn(&mut serde_json::Value)| {
        let found = with_adapter(0, settings(change));
        assert!(found.iter().all(|one| one.id == "adapter.setting"), "{found:?}");
        found.iter().map(|one| one.check.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(|all| all["r"] = 4.into()), ["r"]);
    assert_eq!(found(|all| all["lora_alpha"] = 16.5.into()), ["lora_alpha"]);
    assert_eq!(found(|all| all["peft_type"] = "IA3".into()), ["peft_type"]);
    assert_eq!(found(|all| all["bias"] = "all".into()), ["bias"]);
    assert_eq!(found(|all| all["use_rslora"] = true.into()), ["use_rslora"]);
    let saved = found(|all| all["modules_to_save"] = serde_json::json!(["lm_head"]));
    assert_eq!(saved, ["modules_to_save"]);
    let targets = found(|all| all["target_modules"] = serde_json::json!(["q_proj", "k_proj"]));
    assert_eq!(targets, ["target_modules"]);
    let none = with_adapter(0, b"[]".to_vec());
    assert_eq!(none[0].id, "adapter.malformed");
}

/// A desk whose manifest plans an audit with 8 canaries and 4 guesses.
fn with_audit(audit: Option<CanaryAudit>) -> Vec<Finding> {
    let plan = terms::AuditPlan { canaries: 8, guesses: 4 };
    findings(&desk_with(
        |terms| terms.audit = plan,
        |_, _| (),
        |statement| statement.predicate.canary_audit = audit,
    ))
}

#[test]
fn refuses_a_planned_canary_audit_that_was_not_made_in_full() {
    let golden = CanaryAudit { canaries: 8, epsilon_lower: Real(0.1), guesses: 4, right: 3 };
    assert_eq!(with_audit(Some(golden.clone())), []);
    let text = with_audit(None)[0].to_string();
    assert_eq!(text, "receipt: canaries tested is none, required is 8");
    let ids = |change: fn(&mut CanaryAudit)| {
        let mut audit = golden.clone();
        change(&mut audit);
        with_audit(Some(audit)).into_iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(|audit| audit.canaries = 7), ["receipt.canaries"]);
    assert_eq!(ids(|audit| audit.guesses = 3), ["receipt.canary_guesses"]);
    assert_eq!(ids(|audit| audit.right = 5), ["receipt.canary_right"]);
    for refuted in [Real(100.0), Real(-0.1)] {
        let audit = CanaryAudit { epsilon_lower: refuted, ..golden.clone() };
        let found = with_audit(Some(audit));
        assert_eq!(found[0].id, "receipt.canary_epsilon");
    }
    let unplanned = with_statement(|s| {
        let audit = CanaryAudit { canaries: 0, epsilon_lower: Real(0.0), guesses: 0, right: 0 };
        s.predicate.canary_audit = Some(audit);
    });
    assert_eq!(unplanned, ["receipt.canaries"]);
}

#[test]
fn a_page_for_people_beside_the_adapter_is_no_finding() {
    let mut one = desk();
    one.adapter.push((super::ADAPTER_PAGE, b"# page".to_vec()));
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
