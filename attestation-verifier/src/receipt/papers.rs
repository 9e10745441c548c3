//! What a receipt says: signatures, the manifest and its approvals, and every claim that follows
//! from the manifest.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::digest::Digest;
use measurement::dsse::{Envelope, Signature};
use measurement::launch::blob;
use measurement::manifest::{self, Manifest};
use measurement::octets::Octets;
use measurement::privacy::Mechanism;
use measurement::privacy::accountant::{self, Accountant};
use measurement::receipt::{Bundle, NOT_CLAIMED, PAYLOAD_TYPE, Statement};

use super::finding::{Findings, Maybe};
use super::{ADAPTER_FILES, Case};
use crate::policy::AppraisalPolicy;
use crate::proof::signed;

/// The statement and, when it names one, the signature of the enclave's key over it.
pub(super) fn statement(bundle: &Bundle, findings: &mut Findings) -> Option<Statement> {
    let envelope = &bundle.envelope;
    if envelope.payload_type != PAYLOAD_TYPE {
        let check = ("receipt.payload_type", "receipt", "payload type");
        findings.add(check, &envelope.payload_type, PAYLOAD_TYPE);
    }
    let statement = findings.take(
        ("receipt.statement", "receipt", "the statement"),
        Statement::parse(&envelope.payload.0),
        "an in-toto statement that prints back to the same bytes",
    )?;
    let signer = statement.predicate.signer;
    let message = envelope.signed_bytes();
    if !envelope.signatures.iter().any(|line| by(line, &signer, &message)) {
        let check = ("receipt.signature", "receipt", "signature of the enclave's key");
        findings.add(check, "missing or wrong", format!("one by {signer}"));
    }
    Some(statement)
}

/// The manifest in the launch blob, which must be the file's when there is one.
pub(super) fn manifest(
    bundle: &Bundle,
    file: Option<&[u8]>,
    findings: &mut Findings,
) -> Option<Manifest> {
    let (_, bytes) = findings.take(
        ("receipt.launch_blob", "receipt", "the launch blob"),
        blob::read(&bundle.launch_blob.0),
        "a launch blob in its one spelling",
    )?;
    if file.is_some_and(|file| file != bytes) {
        let check = ("manifest.file", "manifest", "the file");
        findings.add(check, "another document", "the manifest in the receipt, byte for byte");
    }
    findings.take(
        ("receipt.manifest", "receipt", "the manifest in the launch blob"),
        Manifest::parse(&bytes),
        "a manifest that can be run",
    )
}

/// The policy, when it is the one that the manifest names.
pub(super) fn policy(
    bytes: &[u8],
    manifest: &Manifest,
    findings: &mut Findings,
) -> Option<AppraisalPolicy> {
    let observed = Digest::of(bytes);
    if observed != manifest.policy {
        findings.add(("policy.digest", "policy", "sha384"), observed, manifest.policy);
        return None;
    }
    let malformed = ("policy.malformed", "policy", "the policy");
    let text = findings.take(malformed, core::str::from_utf8(bytes), "text")?;
    findings.take(malformed, AppraisalPolicy::parse(text), "a policy that names every check")
}

/// Enough distinct approvers signed this very manifest, and nothing else stands in the envelope.
pub(super) fn approvals(envelope: &Envelope, manifest: &Manifest, findings: &mut Findings) {
    if envelope.payload_type != manifest::PAYLOAD_TYPE {
        let check = ("approvals.payload_type", "approvals", "payload type");
        findings.add(check, &envelope.payload_type, manifest::PAYLOAD_TYPE);
    }
    if envelope.payload.0 != manifest.bytes() {
        let observed = Digest::<Manifest>::of(&envelope.payload.0);
        let check = ("approvals.manifest", "approvals", "the manifest approved");
        findings.add(check, observed, manifest.digest());
    }
    let checks = [
        ("approvals.signature", "approvals", "a signature"),
        ("approvals.repeated", "approvals", "a signature"),
        ("approvals.quorum", "approvals", "number of approvers who signed"),
    ];
    quorum(envelope, &manifest.approvers, manifest.approvals, checks, findings);
}

/// Every signature is by one of `keys`, none twice, and `required` of them signed.
fn quorum(
    envelope: &Envelope,
    keys: &[Octets<32>],
    required: u8,
    [stray, repeated, quorum]: [(&str, &str, &str); 3],
    findings: &mut Findings,
) {
    let message = envelope.signed_bytes();
    let mut signers = BTreeSet::new();
    for line in &envelope.signatures {
        match keys.iter().find(|key| by(line, key, &message)) {
            None => findings.add(stray, format!("{:.80}", line.keyid), "one of those who may sign"),
            Some(key) if !signers.insert(*key) => findings.add(repeated, key, "there once"),
            Some(_) => (),
        }
    }
    if signers.len() < usize::from(required) {
        findings.add(quorum, signers.len(), format!("at least {required}"));
    }
}

fn by(line: &Signature, key: &Octets<32>, message: &[u8]) -> bool {
    line.keyid == key.to_string() && signed(key, message, &line.sig.0)
}

impl Case<'_> {
    /// The custodians countersigned the statement, and no stranger did.
    pub(super) fn countersignatures(&self, findings: &mut Findings) {
        let signer = self.statement.predicate.signer;
        let mut own = Envelope { signatures: Vec::new(), ..self.bundle.envelope.clone() };
        let (by_enclave, others): (Vec<_>, Vec<_>) = self
            .bundle
            .envelope
            .signatures
            .iter()
            .cloned()
            .partition(|line| line.keyid == signer.to_string());
        if by_enclave.len() > 1 {
            let check = ("receipt.repeated_signature", "receipt", "a signature");
            findings.add(check, signer, "there once");
        }
        own.signatures = others;
        let keys: Vec<_> =
            self.manifest.custodians.iter().map(|custodian| custodian.decision).collect();
        let checks = [
            ("receipt.stray_signature", "receipt", "a signature"),
            ("receipt.repeated_signature", "receipt", "a signature"),
            ("receipt.countersignatures", "receipt", "number of custodians who countersigned"),
        ];
        quorum(&own, &keys, self.manifest.threshold, checks, findings);
    }

    /// Everything in the statement that follows from the manifest.
    pub(super) fn claims(&self, findings: &mut Findings) {
        let (manifest, said) = (self.manifest, &self.statement.predicate);
        let check = |id, words| (id, "receipt", words);
        let digest = manifest.digest();
        findings.same(
            check("receipt.manifest_digest", "sha384 of the manifest"),
            &said.job_manifest.sha384,
            &digest,
        );
        findings.same(check("receipt.job", "job"), &said.job_manifest.job, &manifest.job);
        findings.same(
            check("receipt.sequence", "sequence number of the manifest"),
            &said.job_manifest.sequence,
            &manifest.sequence,
        );
        let (dataset, required) = (&said.dataset, &manifest.dataset);
        findings.same(
            check("receipt.dataset_root", "root of the data set"),
            &dataset.ciphertext_root,
            &required.root,
        );
        findings.same(
            check("receipt.dataset_id", "identity of the data set"),
            &dataset.id,
            &required.id,
        );
        findings.same(
            check("receipt.dataset_version", "version of the data set"),
            &dataset.version,
            &required.version,
        );
        self.base_claim(findings);
        if said.attempt == 0 {
            findings.add(check("receipt.attempt", "number of the attempt"), 0, "at least 1");
        }
        self.canaries(findings);
        self.subjects(findings);
    }

    /// The canary audit that the manifest plans was made, in full, and does not refute the promise.
    fn canaries(&self, findings: &mut Findings) {
        let (plan, said) = (&self.manifest.audit, &self.statement.predicate);
        let check = |id, words| (id, "receipt", words);
        let planned = (plan.canaries > 0).then_some(plan.canaries);
        let tested = said.canary_audit.as_ref().map(|audit| audit.canaries);
        if tested != planned {
            let check = check("receipt.canaries", "canaries tested");
            findings.add(check, Maybe(tested), Maybe(planned));
        }
        let Some(audit) = &said.canary_audit else { return };
        findings.same(
            check("receipt.canary_guesses", "guesses of the canary audit"),
            &audit.guesses,
            &plan.guesses,
        );
        if audit.right > audit.guesses {
            let check = check("receipt.canary_right", "right guesses of the canary audit");
            findings.add(check, audit.right, format!("at most {}", audit.guesses));
        }
        let (lower, promised) = (audit.epsilon_lower.0, said.dp.epsilon.0);
        if !(0.0..=promised).contains(&lower) {
            let check = check("receipt.canary_epsilon", "lower bound of epsilon by the canaries");
            findings.add(check, lower, format!("0 to the {promised} promised"));
        }
    }

    fn base_claim(&self, findings: &mut Findings) {
        let (said, required) = (&self.statement.predicate.base_model, &self.manifest.base);
        let check = |id, words| (id, "receipt", words);
        findings.same(
            check("receipt.base_config", "config.json of the base model"),
            &said.config,
            &required.config,
        );
        findings.same(
            check("receipt.base_name", "name of the base model"),
            &said.name,
            &required.name,
        );
        findings.same(
            check("receipt.base_tokenizer", "tokenizer.json of the base model"),
            &said.tokenizer,
            &required.tokenizer,
        );
        findings.same(
            check("receipt.base_weights", "model.safetensors of the base model"),
            &said.weights,
            &required.weights,
        );
        if said.template != required.template {
            let check = check("receipt.base_template", "chat template of the base model");
            findings.add(check, Maybe(said.template), Maybe(required.template));
        }
    }

    /// The closed list of what leaves as an adapter, each file once, by SHA-256.
    fn subjects(&self, findings: &mut Findings) {
        let subjects = &self.statement.subject;
        let named = |name: &str| subjects.iter().filter(|subject| subject.name == name).count();
        let listed = ADAPTER_FILES.iter().all(|name| named(name) == 1);
        let hashed = subjects.iter().all(|one| one.digest.len() == 1 && one.sha256().is_some());
        if subjects.len() != ADAPTER_FILES.len() || !listed || !hashed {
            let names: Vec<_> =
                subjects.iter().map(|subject| format!("{:.80}", subject.name)).collect();
            let check = ("receipt.subjects", "receipt", "the files it is about");
            findings.add(
                check,
                names.join(", "),
                format!("{} by sha256", ADAPTER_FILES.join(", ")),
            );
        }
    }

    /// The mechanism is the manifest's, all of it ran, and ε is what the accountant makes of it, to
    /// the same bit. Returns the recomputed ε.
    pub(super) fn privacy(&self, findings: &mut Findings) -> Option<f64> {
        let (said, mechanism) = (&self.statement.predicate.dp, &self.manifest.privacy);
        let check = |id, words| (id, "receipt", words);
        if said.mechanism != *mechanism {
            let check = check("receipt.mechanism", "the mechanism");
            findings.add(check, describe(&said.mechanism), describe(mechanism));
        }
        let steps = self.statement.predicate.run.steps;
        findings.same(check("receipt.steps", "steps taken"), &steps, &mechanism.steps);
        let name = accountant::NAME;
        findings.same(
            check("receipt.accountant", "the accountant"),
            &said.accountant.as_str(),
            &name,
        );
        findings.same(
            check("receipt.epsilon_host", "epsilon for the host"),
            &said.epsilon_host.as_str(),
            &NOT_CLAIMED,
        );
        let mut spent = Accountant::new();
        let epsilon = spent.compose(mechanism).and_then(|()| spent.epsilon(mechanism.delta.0));
        let epsilon = findings.take(
            ("manifest.epsilon", "manifest", "epsilon of the mechanism"),
            epsilon,
            "a number",
        )?;
        if said.epsilon.0.to_bits() != epsilon.to_bits() {
            let check = check("receipt.epsilon", "epsilon");
            findings.add(check, said.epsilon.0, format!("{epsilon}, as recomputed"));
        }
        Some(epsilon)
    }
}

/// A mechanism in one line.
pub(super) fn describe(mechanism: &Mechanism) -> String {
    format!(
        "q {} sigma {} C {} clipping {} T {} B {} M {} k {} N_max {} delta {} unit {:?}",
        mechanism.sample_rate.0,
        mechanism.noise_multiplier.0,
        mechanism.max_grad_norm.0,
        mechanism.clipping,
        mechanism.steps,
        mechanism.expected_batch,
        mechanism.physical_batch,
        mechanism.records_per_unit,
        mechanism.max_units,
        mechanism.delta.0,
        mechanism.unit,
    )
}
