use measurement::digest::Digest;
use measurement::launch::blob;
use measurement::privacy::Unit;

use super::*;
use crate::owner::approve::{ApproveError, approve};
use crate::owner::base::tests::write_base;
use crate::owner::init::{self, init};
use crate::owner::keys;
use crate::owner::seal::tests::Fixture as Sealed;

/// A sealed data set and all that a plan needs beside it.
pub(in crate::owner) struct Fixture {
    pub(in crate::owner) sealed: Sealed,
}

impl Fixture {
    pub(in crate::owner) fn new() -> Self {
        let mut sealed = Sealed::new();
        sealed.seal().unwrap();
        let folder = sealed.path("job");
        let roots = [];
        let (records, customers, canaries, seed) = (40, 12, 2, 3);
        init(&init::Request { folder: &folder, records, customers, canaries, seed, roots: &roots })
            .unwrap();
        for name in ["approver", "second"] {
            keys::generate(&folder.join(format!("{name}.pem")), Purpose::Approve).unwrap();
        }
        keys::generate(&folder.join("recipient.pem"), Purpose::Receive).unwrap();
        write_base(&sealed.path("base"));
        sealed.job.folder = folder;
        Self { sealed }
    }

    pub(in crate::owner) fn path(&self, name: &str) -> PathBuf {
        self.sealed.path(name)
    }

    fn with<R>(&self, act: impl FnOnce(&Request<'_>) -> R) -> R {
        act(&Request {
            job: &self.sealed.job,
            images: &[],
            base: &self.path("base"),
            dataset: &self.path("data.sds"),
            policy: &self.path("job/policy.toml"),
            custodians: &self.sealed.custodians,
            out: &self.path("plan"),
            now: 1_800_000_000,
        })
    }

    pub(in crate::owner) fn plan(&self) -> Result<Plan, PlanError> {
        self.with(|request| compose(request, vec![snp()]))
    }

    fn refusal(change: impl FnOnce(&mut Job)) -> String {
        let mut fixture = Self::new();
        change(&mut fixture.sealed.job);
        let refusal = fixture.plan().unwrap_err().to_string();
        assert!(!fixture.path("plan").exists(), "{refusal}");
        refusal
    }
}

fn snp() -> Image {
    Image { measured: Measured::Snp { launch_digest: Octets([5; 48]) }, parts: Vec::new() }
}

fn tdx() -> Image {
    let [mrtd, rtmr0, rtmr1, rtmr2] = [1, 2, 3, 4].map(|byte| Octets([byte; 48]));
    Image { measured: Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 }, parts: Vec::new() }
}

#[test]
fn writes_a_manifest_that_parses_and_its_launch_blob() {
    let fixture = Fixture::new();
    let plan = fixture.plan().unwrap();
    let bytes = fs::read(fixture.path("plan/manifest.cbor")).unwrap();
    let manifest = Manifest::parse(&bytes).unwrap();
    assert_eq!(manifest, plan.manifest);
    let launch = fs::read(fixture.path("plan/launch.blob")).unwrap();
    assert_eq!(blob::read(&launch), Ok((Algorithm::Sha256, bytes)));
    assert_eq!(manifest.dataset.root, Facts::read(&fixture.path("data.sds")).unwrap().root);
    assert_eq!(manifest.custodians, fixture.sealed.custodians);
    assert_eq!(manifest.ledger.log, fixture.sealed.custodians[0].log);
    assert_eq!((manifest.threshold, manifest.approvals), (2, 1));
    assert_eq!(manifest.training.adapter.tensors.len(), 28);
    assert_eq!(manifest.valid.not_after, 1_800_000_000 + 30 * DAY);
    let policy = fs::read(fixture.path("job/policy.toml")).unwrap();
    assert_eq!(manifest.policy, Digest::of(&policy));
}

#[test]
fn solves_for_noise_that_keeps_epsilon_and_little_more() {
    let plan = Fixture::new().plan().unwrap();
    let privacy = &plan.manifest.privacy;
    assert!(plan.listing.epsilon <= 8.0 && plan.listing.epsilon > 7.9, "{}", plan.listing.epsilon);
    assert!(privacy.physical_batch > privacy.expected_batch);
    assert!(u64::from(privacy.physical_batch) < privacy.max_units);
    assert_eq!((privacy.expected_batch, privacy.steps, privacy.max_units), (32, 40, 256));
    assert_eq!(privacy.unit, Unit::Field("customer_id".into()));
}

#[test]
fn lists_what_it_planned_for_people() {
    let fixture = Fixture::new();
    fixture.plan().unwrap();
    let listing = fs::read_to_string(fixture.path("plan/listing.txt")).unwrap();
    for line in [
        "planned  support-tune (job ",
        "  valid       2027-01-15 to 2027-02-14",
        "  custodians  2 of 3: custodian-1, custodian-2, custodian-3",
        "  ledger      custodian-1",
        "  privacy     epsilon <= 8.00 at delta 0.0001, unit customer_id",
        "  budget      8.00 of 16 at delta 0.0001",
        "  waived      ",
        "  not solved  someone with probes",
    ] {
        assert!(listing.contains(line), "{line} in\n{listing}");
    }
    assert!(!listing.contains("SIMULATED"));
}

#[test]
fn gives_each_platform_its_own_launch_blob() {
    let fixture = Fixture::new();
    let plan = fixture.with(|request| compose(request, vec![tdx(), snp()])).unwrap();
    assert_eq!(plan.files.len(), 4);
    let launch = fs::read(fixture.path("plan/launch-tdx.blob")).unwrap();
    assert_eq!(blob::read(&launch).unwrap().0, Algorithm::Sha384);
}

#[test]
fn refuses_a_job_over_the_owners_budget_and_names_the_setting() {
    let mut fixture = Fixture::new();
    fixture.sealed.job.privacy.epsilon = 20.0;
    let PlanError::Budget { setting, allowed, observed } = fixture.plan().unwrap_err() else {
        panic!("planned")
    };
    assert_eq!((setting, allowed), ("budget.epsilon", 16.0));
    assert!(observed > 19.0);
    fixture.sealed.job.privacy.delta = 1e-3;
    let refusal = fixture.plan().unwrap_err().to_string();
    assert_eq!(refusal, "budget.delta is 0.0001, the job costs 0.001");
}

#[test]
fn refuses_a_budget_raised_after_sealing() {
    let refusal = Fixture::refusal(|job| {
        job.budget.epsilon = 50.0;
        job.data.max_units = 128;
    });
    assert_eq!(
        refusal,
        "data.max_units is 128, the data set was sealed for 256; \
         budget.epsilon is 50, the data set was sealed for 16"
    );
}

#[test]
fn refuses_another_unit_than_the_data_set_was_sealed_for() {
    let refusal = Fixture::refusal(|job| job.data.unit = Some("ticket".into()));
    assert!(refusal.starts_with("data.unit is Field(\"ticket\")"), "{refusal}");
}

#[test]
fn refuses_a_data_set_that_was_altered() {
    let fixture = Fixture::new();
    let path = fixture.path("data.sds");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let PlanError::Disagree(all) = fixture.plan().unwrap_err() else { panic!("planned") };
    assert_eq!(all.iter().map(|one| one.setting).collect::<Vec<_>>(), ["dataset root"]);
}

#[test]
fn refuses_other_custodians_but_takes_them_in_any_order() {
    let mut fixture = Fixture::new();
    fixture.sealed.custodians.reverse();
    let names = |plan: Plan| {
        plan.manifest.custodians.iter().map(|one| one.name.clone()).collect::<Vec<_>>()
    };
    let expected = ["custodian-1", "custodian-2", "custodian-3"];
    assert_eq!(names(fixture.plan().unwrap()), expected);
    fixture.sealed.custodians[0].name = "mallory".into();
    assert!(matches!(fixture.plan(), Err(PlanError::Custodians { .. })));
    fixture.sealed.custodians.remove(0);
    assert!(matches!(fixture.plan(), Err(PlanError::Custodians { .. })));
}

#[test]
fn refuses_a_ledger_nobody_keeps_and_a_sequence_the_model_cannot_hold() {
    let refusal = Fixture::refusal(|job| job.ledger.custodian = Some("nobody".into()));
    assert_eq!(refusal, "ledger.custodian is \"nobody\", which is not among the custodians");
    let refusal = Fixture::refusal(|job| job.train.sequence = 257);
    assert_eq!(refusal, "train.sequence is 257, the base model holds 256 tokens");
}

#[test]
fn refuses_a_manifest_that_could_not_be_run() {
    let refusal = Fixture::refusal(|job| job.approval.required = 2);
    assert_eq!(refusal, "manifest cannot be run: asks for 2 approvals of 1 approvers");
}

#[test]
fn says_when_the_policy_believes_a_simulated_root() {
    let fixture = Fixture::new();
    let pem = init::tests::certificate();
    let policy = fixture.path("job/policy.toml");
    let mut text = fs::read_to_string(&policy).unwrap();
    text.push_str(&format!(
        "[[root]]\nname = \"demo\"\nkind = \"simulated\"\nplatform = \"tdx\"\ncertificate = '''{pem}'''\n"
    ));
    fs::write(&policy, text).unwrap();
    let listing = fixture.plan().unwrap().listing.to_string();
    assert!(listing.contains("  SIMULATED   root \"demo\""), "{listing}");
}

#[test]
fn several_approvers_fill_one_envelope() {
    let mut fixture = Fixture::new();
    fixture.sealed.job.approval.approvers.push("second.pem.pub".into());
    fixture.sealed.job.approval.required = 2;
    let manifest = fixture.plan().unwrap().manifest;
    let (path, out) = (fixture.path("plan/manifest.cbor"), fixture.path("approvals.json"));
    let sign = |name| approve(&path, &fixture.path(name), &out).unwrap();
    assert_eq!(sign("job/approver.pem").approvals, 1);
    assert_eq!(sign("job/approver.pem").approvals, 1);
    let both = sign("job/second.pem");
    assert_eq!((both.approvals, both.required, both.manifest), (2, 2, manifest.digest()));
    let envelope =
        measurement::dsse::Envelope::parse(&fs::read(&out).unwrap(), manifest::PAYLOAD_TYPE);
    assert_eq!(envelope.unwrap().payload.0, manifest.bytes());
}

#[test]
fn refuses_to_approve_with_a_key_that_may_not() {
    let fixture = Fixture::new();
    fixture.plan().unwrap();
    let (path, out) = (fixture.path("plan/manifest.cbor"), fixture.path("approvals.json"));
    let refusal = approve(&path, &fixture.path("job/second.pem"), &out).unwrap_err();
    assert!(matches!(refusal, ApproveError::NotAnApprover { approvers: 1, .. }));
    assert!(!out.exists());
}

#[test]
fn refuses_to_add_to_approvals_of_another_manifest_or_with_a_forged_signature() {
    let fixture = Fixture::new();
    fixture.plan().unwrap();
    let (path, out) = (fixture.path("plan/manifest.cbor"), fixture.path("approvals.json"));
    let key = fixture.path("job/approver.pem");
    approve(&path, &key, &out).unwrap();
    fixture.plan().unwrap();
    let refusal = approve(&path, &key, &out).unwrap_err();
    assert!(matches!(refusal, ApproveError::OtherManifest { .. }), "{refusal}");
    fs::remove_file(&out).unwrap();
    approve(&path, &key, &out).unwrap();
    let text = fs::read_to_string(&out).unwrap();
    let mut envelope =
        measurement::dsse::Envelope::parse(text.as_bytes(), manifest::PAYLOAD_TYPE).unwrap();
    envelope.signatures[0].sig.0[0] ^= 1;
    fs::write(&out, envelope.to_json()).unwrap();
    let refusal = approve(&path, &key, &out).unwrap_err();
    assert!(matches!(refusal, ApproveError::Foreign { .. }), "{refusal}");
}

#[test]
fn refuses_to_approve_bytes_that_are_no_manifest() {
    let fixture = Fixture::new();
    fixture.plan().unwrap();
    let path = fixture.path("plan/manifest.cbor");
    let mut bytes = fs::read(&path).unwrap();
    bytes.push(0);
    fs::write(&path, bytes).unwrap();
    let out = fixture.path("approvals.json");
    let refusal = approve(&path, &fixture.path("job/approver.pem"), &out).unwrap_err();
    assert!(matches!(refusal, ApproveError::Manifest { .. }), "{refusal}");
}
