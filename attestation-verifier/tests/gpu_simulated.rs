//! One good simulated machine with one change, and what must be said about it.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use attestation_verifier::appraise::{DevicesResult, ExpectedDevices, Rejection, Verifier};
use attestation_verifier::endorsement::Role;
use attestation_verifier::evidence::device::{DeviceEvidence, Mode};
use attestation_verifier::evidence::{Inauthentic, Place};
use attestation_verifier::policy::{AppraisalPolicy, STRICT};
use attestation_verifier::root::Root;
use attestation_verifier::wire::Malformed;
use common::nvidia::{
    Change, DICE, Device, Key, Lab, Manifest, NONCE, NOW, Ocsp, Report, Spec, composite,
    critical_extension, extension, fwid, name, resource, responder, revocation_list,
    revocation_list_by, sign, tcb_info, unchanged,
};
use common::{WAIVED, with};
use measurement::octets::Octets;

type Verdict = Result<DevicesResult, Rejection>;

/// One GPU alone, and all that goes with it.
struct Case {
    lab: Lab,
    device: Device,
    policy: String,
    manifests: Vec<Vec<u8>>,
    revocations: Vec<Vec<u8>>,
}

impl Case {
    fn new() -> Self {
        Self::changed(&unchanged)
    }

    fn changed(change: Change<'_>) -> Self {
        Self::of("GH100 A01 GSP", "41", change)
    }

    fn of(model: &str, kind: &str, change: Change<'_>) -> Self {
        let lab = Lab::new(change);
        let device = lab.device(model, kind, 0x1122_3344_5566_7788, change);
        Self {
            policy: lab.policy_from(STRICT),
            manifests: lab.manifests(),
            revocations: lab.revocations(&[&device]),
            device,
            lab,
        }
    }

    fn judge(&self, report: &Report) -> Verdict {
        self.judge_evidence(self.device.evidence(report))
    }

    fn judge_bytes(&self, body: Vec<u8>) -> Verdict {
        let report = sign(body, &self.device.key.key);
        self.judge_evidence(DeviceEvidence::new(report, self.device.chain.clone()))
    }

    fn judge_evidence(&self, evidence: DeviceEvidence) -> Verdict {
        let items = [self.manifests.as_slice(), &self.revocations].concat();
        appraise(&self.policy, &[evidence], &items, (1, 0))
    }

    fn golden(&self) -> Verdict {
        self.judge(&Report::gpu())
    }
}

fn appraise(
    policy: &str,
    devices: &[DeviceEvidence],
    items: &[Vec<u8>],
    (gpus, switches): (usize, usize),
) -> Verdict {
    let verifier = Verifier::new(AppraisalPolicy::parse(policy).unwrap_or_else(|e| panic!("{e}")));
    let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
    let expected = ExpectedDevices { nonce: &NONCE, gpus, switches, chips: &[] };
    verifier.appraise_devices(devices, &items, &expected, NOW)
}

#[track_caller]
fn findings(verdict: Verdict) -> Vec<(&'static str, String)> {
    match verdict {
        Err(Rejection::Unacceptable(findings)) => {
            findings.as_slice().iter().map(|f| (f.id(), f.observed().to_string())).collect()
        }
        other => panic!("expected findings, got {other:?}"),
    }
}

#[track_caller]
fn one(verdict: Verdict) -> (&'static str, String) {
    let seen = findings(verdict);
    assert_eq!(seen.len(), 1, "{seen:?}");
    let (id, observed) = seen.into_iter().next().unwrap();
    (id, observed.strip_prefix("device 0: ").unwrap_or(&observed).to_string())
}

#[track_caller]
fn assert_one(verdict: Verdict, id: &str, observed: &str) {
    let seen = one(verdict);
    assert_eq!((seen.0, seen.1.as_str()), (id, observed));
}

/// The flaw of the device.
#[track_caller]
fn flaw(verdict: Verdict) -> Inauthentic {
    match verdict {
        Err(Rejection::Inauthentic(Inauthentic::In { place: Place::Device(0), flaw })) => *flaw,
        other => panic!("expected a flaw of the device, got {other:?}"),
    }
}

/// The flaw of the first endorsement.
#[track_caller]
fn manifest_flaw(verdict: Verdict) -> Inauthentic {
    match verdict {
        Err(Rejection::Inauthentic(Inauthentic::In { place: Place::Endorsement(0), flaw })) => {
            *flaw
        }
        other => panic!("expected a flaw of an endorsement, got {other:?}"),
    }
}

#[track_caller]
fn malformed(verdict: Verdict) -> Malformed {
    match verdict {
        Err(Rejection::Malformed(Malformed::Device { index: 0, flaw })) => *flaw,
        other => panic!("expected a malformed device, got {other:?}"),
    }
}

/// What is wrong with the first endorsement.
#[track_caller]
fn problem(verdict: Verdict) -> &'static str {
    match verdict {
        Err(Rejection::Malformed(Malformed::Endorsement { index: 0, problem })) => problem,
        other => panic!("expected a malformed endorsement, got {other:?}"),
    }
}

fn unusable(role: Role, problem: &'static str) -> Inauthentic {
    Inauthentic::Unusable { role, problem }
}

#[test]
fn accepts_a_gpu_under_the_strict_policy_and_says_it_was_simulated() {
    let result = Case::new().golden().unwrap();
    let [gpu] = result.devices() else { panic!() };
    assert!(result.simulated() && gpu.simulated());
    assert_eq!(gpu.root(), &Root::Simulated("test".into()));
    assert_eq!(gpu.root().device_word(), "SIMULATED");
    assert_eq!(gpu.mode(), Some(Mode::Spt));
    // Ten, less the video decoder that is off.
    assert_eq!(gpu.matched(), 9);
    assert_eq!(gpu.pdi(), Octets(0x1122_3344_5566_7788_u64.to_be_bytes()));
    let waived: Vec<_> = result.waived().iter().map(|waived| waived.check).collect();
    assert_eq!(waived, ["gpu.chip", "nvswitch.chip"]);
}

#[test]
fn rejects_simulated_devices_and_manifests_where_the_policy_names_no_such_root() {
    let mut case = Case::new();
    case.policy = STRICT.into();
    assert_eq!(flaw(case.golden()), Inauthentic::UnknownRoot);
    // A root for devices vouches for no manifest, and the other way round.
    let swapped = case.lab.policy_from(STRICT);
    case.policy = swapped
        .replace("platform = \"nvidia\"", "platform = \"x\"")
        .replace("platform = \"nvidia-manifest\"", "platform = \"nvidia\"")
        .replace("platform = \"x\"", "platform = \"nvidia-manifest\"");
    assert_eq!(flaw(case.golden()), Inauthentic::UnknownRoot);
    case.policy = case.lab.policy_from(STRICT);
    let other = Lab::new(&unchanged);
    case.manifests = other.manifests();
    assert_eq!(manifest_flaw(case.golden()), Inauthentic::UnknownRoot);
}

#[test]
fn refuses_devices_without_a_section_for_them() {
    let mut case = Case::new();
    let gpu = case.policy.find("[gpu]").unwrap()..case.policy.find("[nvswitch]").unwrap();
    case.policy.replace_range(gpu, "");
    assert_one(case.golden(), "policy.section", "gpu");
}

/// The device's flaw when the certificate at `place` is changed.
#[track_caller]
fn certificate_flaw(place: &'static str, change: impl Fn(&mut Spec)) -> Inauthentic {
    let change = |at: &str, spec: &mut Spec| {
        if at == place {
            change(spec);
        }
    };
    flaw(Case::changed(&change).golden())
}

const DEVICE_PLACES: [(&str, Role); 5] = [
    ("key", Role::DeviceKey),
    ("identity", Role::DeviceIdentity),
    ("provisioner", Role::DeviceProvisioner),
    ("family", Role::DeviceFamily),
    ("root", Role::Root),
];

#[test]
fn rejects_each_certificate_of_a_device_out_of_its_time() {
    for (place, role) in DEVICE_PLACES {
        let expired = certificate_flaw(place, |spec| spec.dates = (NOW - 9, NOW - 1));
        assert_eq!(expired, Inauthentic::Expired { role, now: NOW, until: NOW - 1 });
        let early = certificate_flaw(place, |spec| spec.dates = (NOW + 1, NOW + 9));
        assert_eq!(early, Inauthentic::NotYetValid { role, now: NOW, from: NOW + 1 });
    }
}

#[test]
fn rejects_each_certificate_of_a_device_that_another_key_signed() {
    for (place, role) in &DEVICE_PLACES[..4] {
        let seen = certificate_flaw(place, |spec| spec.forged = true);
        assert_eq!(seen, Inauthentic::Signature { over: role.name() });
        let seen = certificate_flaw(place, |spec| spec.issuer = name("Another", None));
        assert_eq!(seen, Inauthentic::Issuer { role: *role });
        // Says SHA-256, whatever signed it.
        let seen = certificate_flaw(place, |spec| spec.algorithm = "300a06082a8648ce3d040302");
        assert_eq!(seen, unusable(*role, "is not signed with ecdsa and sha-384"));
    }
}

#[test]
fn rejects_certificates_of_a_device_in_the_wrong_place() {
    for (place, role) in &DEVICE_PLACES[1..4] {
        let seen = certificate_flaw(place, |spec| spec.constraints = Some("3000"));
        assert_eq!(seen, unusable(*role, "may not sign certificates"));
        let seen = certificate_flaw(place, |spec| spec.usage = "03020780");
        assert_eq!(seen, unusable(*role, "may not sign certificates"));
    }
    let seen = certificate_flaw("key", |spec| spec.constraints = Some("30030101ff"));
    assert_eq!(seen, unusable(Role::DeviceKey, "is of an authority"));
    let seen = certificate_flaw("key", |spec| spec.usage = "03020106");
    assert_eq!(seen, unusable(Role::DeviceKey, "may not sign"));
    let far = "may not stand so far up in a chain";
    let seen = certificate_flaw("provisioner", |spec| spec.constraints = Some("30060101ff020100"));
    assert_eq!(seen, unusable(Role::DeviceProvisioner, far));
    let limit_of_one = |at: &str, spec: &mut Spec| {
        if at == "provisioner" {
            spec.constraints = Some("30060101ff020101");
        }
    };
    assert!(Case::changed(&limit_of_one).golden().is_ok());
    for (place, role) in &DEVICE_PLACES[..4] {
        let unknown = critical_extension("2b0601", &[5, 0]);
        let seen = certificate_flaw(place, |spec| spec.extensions.extend(&unknown));
        let problem = "has a critical extension that this verifier does not know";
        assert_eq!(seen, unusable(*role, problem));
    }
}

#[test]
fn rejects_devices_of_unknown_or_contradictory_names() {
    let unknown = "is not of a chip that this verifier knows";
    for common in [
        "GA100 A01 GSP FMC LF",
        "GH100 A01 FSP FMC LF",
        "GH100 A01 GSP FMC",
        "GH100 GSP FMC LF",
        "gh100 A01 GSP FMC LF",
        " A01 GSP FMC LF",
        "NVIDIA Device Identity CA",
    ] {
        let seen = certificate_flaw("key", |spec| spec.subject = name(common, None));
        assert_eq!(seen, unusable(Role::DeviceKey, unknown), "{common}");
    }
    for common in ["GB100 A01 GSP BROM", "GH100 A02 GSP BROM", "GH100 A01 GSP FMC LF"] {
        let seen = certificate_flaw("identity", |spec| {
            spec.subject = name(common, Some("411122334455667788"));
        });
        assert_eq!(seen, unusable(Role::DeviceIdentity, "is of another chip than its key"));
    }
    for serial in [None, Some("4111223344556677"), Some("41112233445566778899"), Some("x")] {
        let seen =
            certificate_flaw("identity", |spec| spec.subject = name("GH100 A01 GSP BROM", serial));
        assert_eq!(seen, unusable(Role::DeviceIdentity, "has no device id in its name"));
    }
}

#[test]
fn rejects_a_device_key_that_was_certified_for_other_hardware_or_firmware() {
    let firmware = [0xf0; 48];
    let stranger = Key::new().spki();
    let seen = certificate_flaw("key", |spec| spec.extensions = composite(&stranger, &firmware));
    assert_eq!(seen, Inauthentic::DeviceIdentity);

    let other = Report::gpu().with(20, Some(&[0xf1; 48]));
    assert_eq!(flaw(Case::new().judge(&other)), Inauthentic::Fwid);
    assert_one(Case::new().judge(&Report::gpu().with(20, None)), "gpu.fwid", "absent");

    let dice =
        |problem| Inauthentic::Extension { role: Role::DeviceKey, extension: "dice", problem };
    let seen = certificate_flaw("key", |spec| spec.extensions.clear());
    assert_eq!(seen, dice("is missing"));
    let seen = certificate_flaw("key", |spec| spec.extensions.extend(tcb_info(&[firmware])));
    assert_eq!(seen, dice("is there in two forms"));
    // Blackwell's form, which names no device, on a Hopper and on its switch.
    let nameless = dice("does not say for which device");
    let seen = certificate_flaw("key", |spec| spec.extensions = tcb_info(&[firmware]));
    assert_eq!(seen, nameless);
    let tcb_info_on_key = |at: &str, spec: &mut Spec| {
        if at == "key" {
            spec.extensions = tcb_info(&[firmware]);
        }
    };
    let case = Case::of("LS_10 A01 FSP", "50", &tcb_info_on_key);
    let report = Report::switch(&case.device, &[]);
    let evidence = [case.device.evidence(&report)];
    assert_eq!(flaw(appraise(&case.policy, &evidence, &case.revocations, (0, 1))), nameless);
    for value in [
        vec![],
        vec![0x30, 0],
        fwid(&firmware),
        common::amd::seq(&[&[2, 1, 2], &stranger, &fwid(&firmware)]),
        common::amd::seq(&[&[2, 1, 1], &stranger, &fwid(&firmware), &[5, 0]]),
        common::amd::seq(&[&[2, 1, 1], &stranger, &fwid(&firmware)[..20]]),
    ] {
        let value = extension(&format!("{DICE}01"), &value);
        let seen = certificate_flaw("key", |spec| spec.extensions = value.clone());
        assert_eq!(seen, dice("is not readable"));
    }
}

#[test]
fn accepts_a_blackwell_by_the_first_of_its_firmware_ids_and_by_no_other() {
    let blackwell = |report: Report| {
        let mut case = Case::of("GB100 A01 GSP", "41", &unchanged);
        let manifest = |manifest: Manifest| Manifest { product: "GB100", ..manifest };
        let vbios = Manifest { version: "97.00.88.00.0F".into(), ..Manifest::vbios() };
        case.manifests =
            vec![case.lab.sign(&manifest(Manifest::driver())), case.lab.sign(&manifest(vbios))];
        case.judge(&report.with(6, Some(&[0, 0x88, 0, 0x97, 0xf, 0, 0, 0])).with(36, Some(&[1, 0])))
    };
    let result = blackwell(Report::gpu().with(35, Some(b"GB100\0"))).unwrap();
    assert_eq!(result.devices()[0].mode(), Some(Mode::Mpt));
    assert_eq!(flaw(blackwell(Report::gpu().with(20, Some(&[0; 48])))), Inauthentic::Fwid);
    assert_one(blackwell(Report::gpu().with(35, Some(b"GB102\0"))), "gpu.chip_info", "GB102");
}

#[test]
fn rejects_a_chain_with_a_certificate_too_many_too_few_or_swapped() {
    let mut case = Case::new();
    let blocks: Vec<_> = case
        .device
        .chain
        .split_inclusive("-----END CERTIFICATE-----\n")
        .map(String::from)
        .collect();
    let mut judge = |order: &[usize]| {
        case.device.chain = order.iter().map(|at| blocks[*at].clone()).collect();
        case.golden()
    };
    assert!(judge(&[0, 1, 2, 3, 4]).is_ok());
    let length = |observed| Inauthentic::ChainLength { observed, required: 5 };
    assert_eq!(flaw(judge(&[0, 1, 2, 4])), length(4));
    assert_eq!(flaw(judge(&[4])), length(1));
    assert_eq!(flaw(judge(&[0, 1, 2, 3, 4, 4])), length(6));
    assert_eq!(flaw(judge(&[0, 1, 2, 3])), Inauthentic::UnknownRoot);
    assert_eq!(flaw(judge(&[0, 2, 1, 3, 4])), Inauthentic::Issuer { role: Role::DeviceKey });
    assert_eq!(flaw(judge(&[1, 0, 2, 3, 4])), Inauthentic::Issuer { role: Role::DeviceKey });
    let without = judge(&[]).unwrap_err();
    assert!(without.could_not_judge(), "{without}");
    assert_eq!(flaw(Err(without)), Inauthentic::Missing { role: Role::DeviceKey });

    // Another device's key, with its own chain: the report is not signed by it.
    let case = Case::new();
    let other = case.lab.gpu(7);
    let report = Report::gpu().signed_by(&case.device.key.key);
    let verdict = case.judge_evidence(DeviceEvidence::new(report, other.chain));
    assert_eq!(flaw(verdict), Inauthentic::Signature { over: "device report" });
}

/// The flaw of the golden report with a byte set, signed again.
#[track_caller]
fn malformed_by(at: usize, value: u8) -> Malformed {
    let mut body = Report::gpu().body();
    body[at] = value;
    malformed(Case::new().judge_bytes(body))
}

#[test]
fn rejects_reports_of_another_shape_though_signed() {
    let unknown = |field, observed: u8| Malformed::Unknown { field, observed: observed.into() };
    for (at, value, field) in [
        (0, 0x12, "request version"),
        (1, 0xe1, "request code"),
        (2, 0x00, "request attributes"),
        (3, 0x00, "request operation"),
        (36, 0x01, "request slot"),
        (37, 0x10, "response version"),
        (38, 0x61, "response code"),
        (39, 0x01, "response param1"),
        (40, 0x01, "response param2"),
        (45, 0x00, "measurement index"),
        (45, 0x02, "measurement index"),
        (45, 0x41, "measurement index"),
        (46, 0x02, "measurement specification"),
        (47, 0x32, "measurement size"),
        (49, 0x81, "measurement type"),
        (50, 0x20, "measurement value size"),
    ] {
        assert_eq!(malformed_by(at, value), unknown(field, value), "byte {at}");
    }
    let length =
        |observed, required| Malformed::Length { part: "measurement record", observed, required };
    assert_eq!(malformed_by(41, 63), length(3520, 63 * 55));
    assert_eq!(malformed_by(41, 0), length(3520, 0));
    assert_eq!(malformed_by(42, 0xbf), length(3519, 3520));
    let case = Case::new();
    let with_tail = |len| [Report::gpu().signed_by(&case.device.key.key), vec![0; len]].concat();
    for len in [1, 96] {
        let evidence = DeviceEvidence::new(with_tail(len), case.device.chain.clone());
        let trailing = Malformed::TrailingBytes { part: "device report", observed: len };
        assert_eq!(malformed(case.judge_evidence(evidence)), trailing);
    }
    let evidence = DeviceEvidence::new(with_tail(8192), case.device.chain.clone());
    assert!(matches!(malformed(case.judge_evidence(evidence)), Malformed::TooLong { .. }));
}

#[test]
fn accepts_measurements_in_another_order() {
    let mut body = Report::gpu().body();
    // The first two blocks, exchanged.
    let (first, second) = (body[45..100].to_vec(), body[100..155].to_vec());
    body[45..155].copy_from_slice(&[second, first].concat());
    assert!(Case::new().judge_bytes(body).is_ok());
}

#[test]
fn rejects_opaque_fields_of_another_shape_though_signed() {
    let judge =
        |kind, value: &[u8]| malformed(Case::new().judge(&Report::gpu().with(kind, Some(value))));
    let length = |part, observed, required| Malformed::Length { part, observed, required };
    let unknown = |field, observed| Malformed::Unknown { field, observed };
    let text = |part, problem| Malformed::Text { part, problem };
    assert_eq!(judge(20, &[0xf0; 47]), length("firmware id", 47, 48));
    assert_eq!(judge(6, &[0; 7]), length("vbios version", 7, 8));
    assert_eq!(judge(11, &[0x56]), unknown("nvdec0 status", 0x56));
    assert_eq!(judge(11, &[]), length("nvdec0 status", 0, 1));
    assert_eq!(judge(21, &[0]), unknown("protected pcie status", 0));
    assert_eq!(judge(34, &[2, 0]), unknown("opaque data version", 2));
    assert_eq!(judge(36, &[3, 0]), unknown("feature flag", 3));
    assert_eq!(judge(3, b"580.95.05\0x"), text("driver version", "is not a short plain text"));
    assert_eq!(judge(3, &[b'5'; 33]), text("driver version", "is not a short plain text"));
    assert_eq!(judge(3, &[0xff]), text("driver version", "is not a short plain text"));
    assert_eq!(judge(22, &[0; 9]), text("switch ids", "is not a list of ids"));
    assert_eq!(judge(22, &[0; 33 * 8]), text("switch ids", "is not a list of ids"));
    assert_eq!(judge(0, &[]), unknown("opaque field type", 0));
    assert_eq!(judge(255, &[]), unknown("opaque field type", 255));
    let mut twice = Report::gpu();
    twice.opaque.push(twice.opaque[0].clone());
    assert_eq!(malformed(Case::new().judge(&twice)), unknown("opaque field type", 6));
    let mut cut = Report::gpu().body();
    let at = cut.len() - 3;
    cut[at] = 3;
    assert_eq!(
        malformed(Case::new().judge_bytes(cut)),
        Malformed::Truncated { part: "opaque field" }
    );
}

#[test]
fn holds_the_number_of_opaque_fields_at_the_limit_and_one_past_it() {
    let with_fields = |count: u16| {
        let mut report = Report::gpu();
        let more = count - report.opaque.len() as u16;
        report.opaque.extend((0..more).map(|kind| (1000 + kind, Vec::new())));
        Case::new().judge(&report)
    };
    let (id, observed) = one(with_fields(64));
    assert_eq!(id, "gpu.opaque");
    assert!(observed.starts_with("types [1000, 1001"));
    let part = "list of opaque fields";
    assert_eq!(malformed(with_fields(65)), Malformed::TooLong { part, observed: 65, limit: 64 });
}

#[test]
fn rejects_what_the_policy_asks_of_a_gpu() {
    let judge = |kind, value| Case::new().judge(&Report::gpu().with(kind, value));
    assert_one(judge(36, Some(&[2, 0])), "gpu.modes", "contradicted by the protected pcie status");
    assert_one(judge(21, Some(&[0xaa])), "gpu.modes", "contradicted by the protected pcie status");
    let unsaid = Report::gpu().with(36, None).with(21, None);
    assert_one(Case::new().judge(&unsaid), "gpu.modes", "not reported");
    assert!(judge(36, None).is_ok());

    let mut case = Case::new();
    case.policy = with(&case.policy, "gpu.modes", "{ require = [\"mpt\"] }");
    assert_one(case.golden(), "gpu.modes", "spt");
    case.policy = with(&case.policy, "gpu.modes", WAIVED);
    assert!(case.golden().is_ok());

    let mut case = Case::new();
    case.policy = with(&case.policy, "gpu.products", "{ require = [\"GB100\"] }");
    assert_one(case.golden(), "gpu.products", "GH100");
    case = Case::new();
    case.policy = with(&case.policy, "gpu.chip", "{ require = \"listed\" }");
    assert_one(case.golden(), "gpu.chip", "no list");
    case = Case::new();
    case.policy = with(&case.policy, "gpu.driver", "{ require = [\"580.95.06\"] }");
    assert_one(case.golden(), "gpu.driver", "580.95.05");
    case = Case::new();
    case.policy = with(&case.policy, "gpu.vbios", "{ require = [\"96.00.9F.00.02\"] }");
    assert_one(case.golden(), "gpu.vbios", "96.00.9F.00.01");
    let opaque = judge(26, Some(&[1]));
    assert_one(opaque, "gpu.opaque", "types [26]");
}

#[test]
fn rejects_measurements_that_are_not_the_manifests() {
    let judge = |report: Report| Case::new().judge(&report);
    let hash = hex::encode([0xee; 48]);
    for (index, version) in [(4, "580.95.05"), (40, "96.00.9F.00.01")] {
        let seen = judge(Report::gpu().measuring(index, [0xee; 48]));
        let observed = format!("index {index} of {version} is {hash}");
        assert_one(seen, "gpu.measurements", &observed);
    }
    // The decoder is off: its firmware counts for nothing; on, it counts.
    assert!(judge(Report::gpu().measuring(35, [0xee; 48])).is_ok());
    let on = judge(Report::gpu().with(11, Some(&[0xaa])));
    assert_one(on, "gpu.measurements", &format!("index 35 of 580.95.05 is {}", "00".repeat(48)));
    let on = Report::gpu().with(11, Some(&[0xaa])).measuring(35, [35; 48]);
    assert!(judge(on).is_ok());
    let unsaid = judge(Report::gpu().with(11, None));
    assert_eq!(one(unsaid).0, "gpu.measurements");
    // No manifest speaks of index 50.
    let bare = judge(Report::gpu().measuring(50, [1; 48]));
    assert_one(bare, "gpu.uncovered", "not zero at [50]");
    // A report that ends before an index.
    let mut short = Report::gpu();
    short.measurements.truncate(40);
    assert_one(judge(short), "gpu.measurements", "index 40 of 96.00.9F.00.01 is missing");
}

#[test]
fn accepts_any_alternative_and_refuses_one_past_the_most() {
    let with_alternatives = |count: usize| {
        let mut case = Case::new();
        let mut manifest = Manifest::driver();
        let hashes: Vec<_> = (0..count).map(|at| [4 + (count - 1 - at) as u8; 48]).collect();
        manifest.resources[3] = resource(4, "True", &hashes);
        case.manifests[0] = case.lab.sign(&manifest);
        case.golden()
    };
    for count in [2, 12, 16] {
        assert_eq!(with_alternatives(count).map(|r| r.devices()[0].matched()), Ok(9), "{count}");
    }
    assert_eq!(
        problem(with_alternatives(17)),
        "has a resource with an unusual number of alternatives"
    );
}

/// What is wrong with a driver manifest that was edited before it was signed.
#[track_caller]
fn edited(from: &str, to: &str) -> &'static str {
    let mut case = Case::new();
    case.manifests[0] = case.lab.sign(&Manifest::driver().edit(from, to));
    problem(case.golden())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of attacks")]
fn rejects_manifests_of_another_shape_though_signed() {
    let one_too_many = "does not hold exactly entity, meta, payload and signature";
    let attribute = "has a resource without an attribute";
    let count = "has a resource whose hashes are not as many as it says";
    let stray = resource(9, "True", &[[9; 48]]);
    for (from, to, expected) in [
        ("</ns0:Payload>\n", &*format!("</ns0:Payload>\n{stray}"), one_too_many),
        ("<ns0:Payload>", "<ns0:Payload></ns0:Payload>\n<ns0:Payload>", one_too_many),
        ("{signature}</Soft", "{signature}{signature}</Soft", one_too_many),
        ("{signature}</Soft", "{signature}\n</Soft", "has something after its signature"),
        (
            "<ns0:Payload>\n",
            "<ns0:Payload>\n{signature}",
            "has something but resources in its payload",
        ),
        (
            "></ns0:Entity>",
            "><ns0:Resource></ns0:Resource></ns0:Entity>",
            "has an element where none belongs",
        ),
        (
            "Corporation\"></ns0:Entity>",
            "Corporation\">x</ns0:Entity>",
            "has text between elements",
        ),
        (
            "<ns0:Payload>\n",
            "<ns0:Payload>\n<ns0:Other></ns0:Other>",
            "has something but resources in its payload",
        ),
        ("<ns0:Payload>\n", "<ns0:Payload>\ntext", "has text between elements"),
        ("\"5703\"", "\"5704\"", "is of another manufacturer"),
        ("edition=\"GPU\"", "edition=\"CPU\"", "is of neither gpu nor switch"),
        ("edition=\"GPU\"", "editing=\"GPU\"", "lacks its version, edition or product"),
        ("product=\"GH100\"", "product=\"\"", "has a version or product of unusual form"),
        (
            "colloquialVersion=\"580",
            "colloquialVersion=\"580 ",
            "has a version or product of unusual form",
        ),
        ("index=\"2\"", "index=\"1\"", "gives an index twice"),
        ("index=\"60\"", "index=\"1\"", "gives an index twice"),
        ("index=\"2\"", "index=\"02\"", "has a resource with an unusual index"),
        ("index=\"2\"", "index=\"254\"", "has a resource with an unusual index"),
        ("index=\"2\"", "index=\"-2\"", "has a resource with an unusual index"),
        (
            "active=\"True\"",
            "active=\"true\"",
            "has a resource that is neither active nor inactive",
        ),
        ("active=\"True\"", "active=\"\"", "has a resource that is neither active nor inactive"),
        ("active=\"True\" ", "", attribute),
        (
            "alternatives=\"1\"",
            "alternatives=\"0\"",
            "has a resource with an unusual number of alternatives",
        ),
        ("alternatives=\"1\"", "alternatives=\"2\"", count),
        ("ns2:Hash0", "Hash0", count),
        ("ns2:Hash0", "ns2:Hash1", count),
        ("size=\"48\" type", "size=\"48\" sort=\"1\" type", count),
        ("Hash0=\"01", "Hash0=\"0g", count),
        ("Hash0=\"01", "Hash0=\"", count),
        ("size=\"48\"", "size=\"32\"", "has a resource that is not a measurement of 48 bytes"),
        (
            "type=\"Measurement\"",
            "type=\"Firmware\"",
            "has a resource that is not a measurement of 48 bytes",
        ),
        (
            "<SoftwareIdentity",
            "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><SoftwareIdentity",
            "has a declaration, comment, cdata section or processing instruction",
        ),
        (
            "<ns0:Payload>\n",
            "<ns0:Payload>\n<!-- x -->",
            "has a declaration, comment, cdata section or processing instruction",
        ),
        ("Corporation\"></ns0", "&lt;\"></ns0", "has an entity reference"),
        (
            "<SoftwareIdentity",
            "<?xml version=\"1.0\"?><SoftwareIdentity",
            "has a declaration, comment, cdata section or processing instruction",
        ),
    ] {
        assert_eq!(edited(from, to), expected, "{from} -> {to}");
    }
    let mut case = Case::new();
    let text = String::from_utf8(case.manifests[0].clone()).unwrap();
    case.manifests[0] = text.replace("SoftwareIdentity", "SoftwareIdentitx").into_bytes();
    assert_eq!(problem(case.golden()), "is not a reference manifest");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of attacks")]
fn rejects_signatures_of_another_shape_though_they_verify() {
    let info = |from: &str, to: &str| {
        let mut case = Case::new();
        let mut manifest = Manifest::driver();
        assert!(manifest.signed_info.contains(from), "{from}");
        manifest.signed_info = manifest.signed_info.replace(from, to);
        case.manifests[0] = case.lab.sign(&manifest);
        problem(case.golden())
    };
    let c14n = "http://www.w3.org/2006/12/xml-c14n11";
    let canonicalisation = format!("<ds:CanonicalizationMethod Algorithm=\"{c14n}");
    let reference = "<ds:Reference URI=\"\">";
    let last = format!("<ds:Transform Algorithm=\"{c14n}\"></ds:Transform>");
    for (from, to, expected) in [
        (
            &*canonicalisation,
            &*canonicalisation.replace(c14n, "http://www.w3.org/2001/10/xml-exc-c14n#"),
            "is canonicalised by another algorithm",
        ),
        (
            &canonicalisation,
            &canonicalisation.replace(c14n, "http://www.w3.org/2006/12/xml-c14n11#WithComments"),
            "is canonicalised by another algorithm",
        ),
        ("#ecdsa-sha384", "#ecdsa-sha1", "is signed by another algorithm"),
        ("#ecdsa-sha384", "#hmac-sha384", "is signed by another algorithm"),
        ("more#sha384", "more#sha224", "is digested by another algorithm"),
        (reference, "<ds:Reference URI=\"#payload\">", "signs something but the whole document"),
        (reference, "<ds:Reference>", "signs something but the whole document"),
        (reference, "<ds:Reference URI=\"\" Id=\"x\">", "signs something but the whole document"),
        ("#enveloped-signature", "#base64", "is transformed in another way"),
        (&last, &last.repeat(2), "is transformed in another way"),
        (&last, "", "is transformed in another way"),
        (
            &last,
            &last.replace("></ds", "><ds:XPath></ds:XPath></ds"),
            "has an element where none belongs",
        ),
        (
            "</ds:Reference>",
            "</ds:Reference><ds:Reference URI=\"\"></ds:Reference>",
            "signs not exactly one reference",
        ),
        ("<ds:SignedInfo>", "<ds:SignedInfo> ", "has text between elements"),
        ("<ds:SignedInfo>", "<ds:SignedInfo Id=\"x\">", "has a signature with further attributes"),
        ("{digest}", "{digest}=", "has a signature that is not base64"),
    ] {
        assert_eq!(info(from, to), expected, "{from} -> {to}");
    }
    let key_info = |key_info: &str| {
        let mut case = Case::new();
        let manifest = Manifest { key_info: key_info.into(), ..Manifest::driver() };
        case.manifests[0] = case.lab.sign(&manifest);
        problem(case.golden())
    };
    let data = "<ds:X509Data>{certificates}</ds:X509Data>";
    let by_value = "names its signer by something but certificates";
    let key = "<ds:KeyValue><ds:ECKeyValue></ds:ECKeyValue></ds:KeyValue>";
    assert_eq!(key_info(&format!("<ds:KeyInfo>{key}{data}</ds:KeyInfo>")), by_value);
    assert_eq!(key_info(&format!("<ds:KeyInfo>{key}</ds:KeyInfo>")), by_value);
    assert_eq!(key_info(&format!("<ds:KeyInfo>{data}{data}</ds:KeyInfo>")), by_value);
    assert_eq!(key_info("<ds:KeyInfo><ds:X509Data></ds:X509Data></ds:KeyInfo>"), by_value);
    let object = format!("<ds:KeyInfo>{data}</ds:KeyInfo><ds:Object></ds:Object>");
    assert_eq!(key_info(&object), "has a signature of another shape");
}

#[test]
fn rejects_manifests_that_another_key_signed() {
    let signature = Inauthentic::Signature { over: "reference manifest" };
    let mut case = Case::new();
    case.manifests[0] = case.lab.sign_by(&Manifest::driver(), &Key::new());
    assert_eq!(manifest_flaw(case.golden()), signature);
    // An authority of the chain that is not the signer.
    case.manifests[0] = case.lab.sign_by(&Manifest::driver(), &case.lab.manifest_issuer.key);
    assert_eq!(manifest_flaw(case.golden()), signature);
    // Changed after it was signed.
    let mut case = Case::new();
    let text = String::from_utf8(case.manifests[0].clone()).unwrap();
    case.manifests[0] = text.replacen("ns2:Hash0=\"01", "ns2:Hash0=\"02", 1).into_bytes();
    let digest = Inauthentic::Digest { over: "reference manifest" };
    assert_eq!(manifest_flaw(case.golden()), digest);
    // A signer's certificate for a device's chain, and a device's for a signer's.
    let mut case = Case::new();
    case.manifests[0] = case.lab.sign(&Manifest::driver().edit("\n{signature}", "{signature}"));
    assert!(case.golden().is_ok(), "white space before the signature is signed, not prescribed");
}

#[test]
fn rejects_each_certificate_of_a_manifest_that_is_wrong() {
    let places = [
        ("manifest signer", Role::ManifestSigner),
        ("manifest issuer", Role::ManifestIssuer),
        ("manifest authority", Role::ManifestAuthority),
    ];
    for (place, role) in places {
        let judge = |change: &dyn Fn(&mut Spec)| {
            let change = |at: &str, spec: &mut Spec| {
                if at == place {
                    change(spec);
                }
            };
            manifest_flaw(Case::changed(&change).golden())
        };
        let expired = Inauthentic::Expired { role, now: NOW, until: NOW - 1 };
        assert_eq!(judge(&|spec| spec.dates = (NOW - 9, NOW - 1)), expired);
        let forged = Inauthentic::Signature { over: role.name() };
        assert_eq!(judge(&|spec| spec.forged = true), forged);
        let issuer = Inauthentic::Issuer { role };
        assert_eq!(judge(&|spec| spec.issuer = name("Another", None)), issuer);
        let problem = match role {
            Role::ManifestSigner => "is of an authority",
            _ => "may not sign certificates",
        };
        let other = if role == Role::ManifestSigner { "30030101ff" } else { "3000" };
        assert_eq!(judge(&|spec| spec.constraints = Some(other)), unusable(role, problem));
    }
}

#[test]
fn rejects_manifests_for_other_devices_or_none() {
    let judge = |manifests: &[Manifest]| {
        let mut case = Case::new();
        case.manifests = manifests.iter().map(|manifest| case.lab.sign(manifest)).collect();
        case.golden()
    };
    let (driver, vbios) = (Manifest::driver(), Manifest::vbios());
    let missing = "no manifest of GH100 driver 580.95.05";
    assert_one(judge(std::slice::from_ref(&vbios)), "gpu.measurements", missing);
    let other = Manifest { product: "GB100", ..driver.clone() };
    assert_one(judge(&[other, vbios.clone()]), "gpu.measurements", missing);
    let other = Manifest { edition: "SWITCH", ..driver.clone() };
    assert_one(judge(&[other, vbios.clone()]), "gpu.measurements", missing);
    let other = Manifest { version: "580.95.06".into(), ..driver.clone() };
    assert_one(judge(&[other, vbios.clone()]), "gpu.measurements", missing);
    let both = Manifest::new("GPU", common::nvidia::VBIOS, &[4, 5, 6, 7, 8, 40]);
    assert_one(judge(&[driver, both]), "gpu.measurements", "index 4 is in both manifests");
}

#[test]
fn rejects_what_has_been_revoked() {
    let window = (NOW - 10, NOW + 10);
    let case = Case::new();
    let lab = &case.lab;
    let lists = [
        (revocation_list(&lab.root, window, &[&lab.family.serial]), Role::DeviceFamily),
        (revocation_list(&lab.family, window, &[&lab.provisioner.serial]), Role::DeviceProvisioner),
        // Long out of date: revocation is for ever.
        (revocation_list(&lab.root, (1, 2), &[&[9], &lab.family.serial]), Role::DeviceFamily),
    ];
    for (list, role) in lists {
        let mut items = [case.manifests.clone(), case.revocations.clone()].concat();
        items.push(list);
        let evidence = case.device.evidence(&Report::gpu());
        let verdict = appraise(&case.policy, &[evidence], &items, (1, 0));
        assert_eq!(flaw(verdict), Inauthentic::Revoked { role });
    }
    // With no reason, a key's compromise, a hold.
    for reason in [None, Some(1), Some(6)] {
        let mut answer = Ocsp::good(&case.device.identity, &lab.provisioner);
        answer.status = Ocsp::revoked(reason);
        let items = [case.manifests.clone(), case.revocations.clone(), vec![answer.answer()]];
        let evidence = case.device.evidence(&Report::gpu());
        let verdict = appraise(&case.policy, &[evidence], &items.concat(), (1, 0));
        assert_eq!(flaw(verdict), Inauthentic::Revoked { role: Role::DeviceIdentity });
    }
    let mut answer = Ocsp::good(&lab.manifest_signer, &lab.manifest_issuer);
    answer.status = Ocsp::revoked(Some(6));
    let items = [case.manifests.clone(), case.revocations.clone(), vec![answer.answer()]];
    let evidence = case.device.evidence(&Report::gpu());
    let verdict = appraise(&case.policy, &[evidence], &items.concat(), (1, 0));
    assert_eq!(manifest_flaw(verdict), Inauthentic::Revoked { role: Role::ManifestSigner });
}

#[test]
fn accepts_the_lack_of_lists_and_answers_where_the_policy_says_so_and_no_stale_ones() {
    let mut case = Case::new();
    for check in ["gpu.revocation", "gpu.manifest_revocation"] {
        case.policy = with(&case.policy, check, "{ require = \"fresh-if-given\" }");
    }
    case.revocations.truncate(3);
    assert!(case.golden().is_ok());
    case.revocations.clear();
    assert!(case.golden().is_ok());
    case.revocations.push(revocation_list(&case.lab.family, (NOW - 10, NOW), &[]));
    assert_one(case.golden(), "gpu.revocation", "device provisioner certificate stale");
    let window = (NOW - 10, NOW + 10);
    let revoked = revocation_list(&case.lab.family, window, &[&case.lab.provisioner.serial]);
    case.revocations.push(revoked);
    assert_eq!(flaw(case.golden()), Inauthentic::Revoked { role: Role::DeviceProvisioner });
}

#[test]
fn rejects_lists_and_answers_out_of_their_time() {
    // From its first second on.
    let mut case = Case::new();
    case.revocations[1] = revocation_list(&case.lab.family, (NOW, NOW + 1), &[]);
    assert!(case.golden().is_ok());
    for window in [(NOW - 10, NOW), (NOW + 1, NOW + 10)] {
        let mut case = Case::new();
        case.revocations[1] = revocation_list(&case.lab.family, window, &[]);
        assert_one(case.golden(), "gpu.revocation", "device provisioner certificate stale");
    }
    for window in [(NOW - 10, Some(NOW)), (NOW + 1, Some(NOW + 10)), (NOW - 10, None)] {
        let mut case = Case::new();
        let answer = Ocsp { window, ..Ocsp::good(&case.device.identity, &case.lab.provisioner) };
        case.revocations[5] = answer.answer();
        assert_one(case.golden(), "gpu.revocation", "device identity certificate stale");
    }
    let mut case = Case::new();
    let unknown =
        Ocsp { status: vec![0x82, 0], ..Ocsp::good(&case.device.identity, &case.lab.provisioner) };
    case.revocations[5] = unknown.answer();
    assert_one(case.golden(), "gpu.revocation", "device identity certificate unknown");
    case.revocations[5] = Ocsp::good(&case.device.key, &case.device.identity).answer();
    assert_one(case.golden(), "gpu.revocation", "device identity certificate unknown");

    let mut case = Case::new();
    case.revocations.remove(4);
    assert_one(
        case.golden(),
        "gpu.manifest_revocation",
        "manifest signer certificate unknown, manifest signer certificate unknown",
    );
    case.policy = with(&case.policy, "gpu.manifest_revocation", WAIVED);
    assert!(case.golden().is_ok());
}

#[test]
fn rejects_lists_and_answers_that_others_signed() {
    let window = (NOW - 10, NOW + 10);
    let mut case = Case::new();
    case.revocations[1] = revocation_list_by(&case.lab.family.name, &Key::new(), window, &[]);
    let list = Inauthentic::Signature { over: "revocation list" };
    assert_eq!(flaw(case.golden()), list);
    // An identity certificate may not sign lists.
    let mut case = Case::new();
    case.revocations.push(revocation_list(&case.device.identity, window, &[]));
    assert!(case.golden().is_ok(), "no one asks it");
    let no_lists = |at: &str, spec: &mut Spec| {
        if at == "family" {
            spec.usage = "03020204";
        }
    };
    let right = unusable(Role::RevocationList, "is of an authority without the right");
    assert_eq!(flaw(Case::changed(&no_lists).golden()), right);

    let answer = |change: &dyn Fn(&mut Ocsp<'_>)| {
        let mut case = Case::new();
        let mut answer = Ocsp::good(&case.device.identity, &case.lab.provisioner);
        change(&mut answer);
        case.revocations[5] = answer.answer();
        case.golden()
    };
    let signature = Inauthentic::Signature { over: "ocsp answer" };
    assert_eq!(flaw(answer(&|answer| answer.forged = true)), signature);
}

#[test]
fn accepts_an_answer_of_a_responder_that_the_issuer_certified_and_of_no_other() {
    let judge = |by: &dyn Fn(&Lab) -> &common::nvidia::Party, change: Change<'_>| {
        let mut case = Case::new();
        let responder = responder(by(&case.lab), change);
        let mut answer = Ocsp::good(&case.device.identity, &case.lab.provisioner);
        answer.responder = Some(&responder);
        case.revocations[5] = answer.answer();
        case.golden()
    };
    let role = Role::OcspResponder;
    assert!(judge(&|lab| &lab.provisioner, &unchanged).is_ok());
    let other = judge(&|lab| &lab.family, &unchanged);
    assert_eq!(flaw(other), Inauthentic::Issuer { role });
    let forged = judge(&|lab| &lab.provisioner, &|_, spec| spec.forged = true);
    assert_eq!(flaw(forged), Inauthentic::Signature { over: role.name() });
    let expired = judge(&|lab| &lab.provisioner, &|_, spec| spec.dates = (NOW - 9, NOW - 1));
    assert_eq!(flaw(expired), Inauthentic::Expired { role, now: NOW, until: NOW - 1 });
    let right = unusable(role, "may not answer for its issuer");
    let client = extension("551d25", &common::amd::hex("300a06082b06010505070302"));
    let client = judge(&|lab| &lab.provisioner, &|_, spec| spec.extensions = client.clone());
    assert_eq!(flaw(client), right);
    let none = judge(&|lab| &lab.provisioner, &|_, spec| spec.extensions.clear());
    assert_eq!(flaw(none), right);
    let authority = |_: &str, spec: &mut Spec| {
        spec.constraints = Some("30030101ff");
        spec.usage = "03020106";
    };
    assert_eq!(flaw(judge(&|lab| &lab.provisioner, &authority)), right);
    let more = |_: &str, spec: &mut Spec| {
        spec.extensions.extend(critical_extension("2b0601", &[5, 0]));
    };
    let problem = "has a critical extension that this verifier does not know";
    assert_eq!(flaw(judge(&|lab| &lab.provisioner, &more)), unusable(role, problem));
    let purpose = critical_extension("551d25", &common::amd::hex("300a06082b06010505070309"));
    let purpose = judge(&|lab| &lab.provisioner, &|_, spec| spec.extensions.clone_from(&purpose));
    assert!(purpose.is_ok());
}

#[test]
fn reads_answers_by_each_digest_and_holds_their_number() {
    let answer = |change: &dyn Fn(&mut Ocsp<'_>)| {
        let mut case = Case::new();
        let mut answer = Ocsp::good(&case.device.identity, &case.lab.provisioner);
        change(&mut answer);
        case.revocations[5] = answer.answer();
        case.golden()
    };
    for hash in
        [&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &ring::digest::SHA256, &ring::digest::SHA384]
    {
        assert!(answer(&|answer| answer.hash = hash).is_ok());
    }
    assert!(answer(&|answer| answer.singles = 16).is_ok());
    let problem = "not an ocsp answer of the basic type";
    let malformed = Err(Malformed::Endorsement { index: 7, problem }.into());
    assert_eq!(answer(&|answer| answer.singles = 17), malformed);
    assert_eq!(answer(&|answer| answer.status = vec![0x83, 0]), malformed);
    // tryLater
    let mut case = Case::new();
    case.revocations[5] = common::amd::seq(&[&[0x0a, 1, 3]]);
    let problem = "an ocsp answer without success";
    assert_eq!(case.golden(), Err(Malformed::Endorsement { index: 7, problem }.into()));
}

#[test]
fn rejects_endorsements_that_are_none() {
    let judge = |item: Vec<u8>| {
        let mut case = Case::new();
        case.manifests.insert(0, item);
        problem(case.golden())
    };
    let certificate = "a certificate: those of a device come with its report";
    assert_eq!(judge(Case::new().device.key.der), certificate);
    assert_eq!(judge(Case::new().device.chain.into_bytes()), certificate);
    assert_eq!(judge(b"{}".to_vec()), "not a reference manifest as it is served");
    assert_eq!(judge(b"".to_vec()), "neither a certificate, a revocation list, nor collateral");
    assert_eq!(judge(vec![b'<'; (1 << 20) + 1]), "larger than any honest endorsement");
    assert_eq!(judge(vec![b'<'; 1 << 20]), "is longer than any honest one");
    let case = Case::new();
    let evidence = [case.device.evidence(&Report::gpu())];
    let items = vec![b"<".to_vec(); 257];
    let part = "list of endorsements";
    let many = Malformed::TooLong { part, observed: 257, limit: 256 };
    assert_eq!(appraise(&case.policy, &evidence, &items, (1, 0)), Err(many.into()));
    let mut most = [case.manifests.clone(), case.revocations.clone()].concat();
    most.resize(256, case.revocations[0].clone());
    assert!(appraise(&case.policy, &evidence, &most, (1, 0)).is_ok());
}

#[test]
fn rejects_a_report_of_another_session() {
    let mut report = Report::gpu();
    report.nonce = [0; 32];
    assert_one(Case::new().judge(&report), "devices.nonce", &"00".repeat(32));
}

#[test]
fn knows_a_report_again_by_what_was_signed_however_it_is_encoded() {
    let case = Case::new();
    let report = Report::gpu();
    let first = case.judge(&report).unwrap();
    // ECDSA draws anew: another signature over the same bytes.
    let second = case.judge(&report).unwrap();
    assert_eq!(first.identity(), second.identity());
    assert_ne!(first.identity(), case.golden().unwrap().identity());
}

/// Eight GPUs and four switches that name each other.
struct Machine {
    lab: Lab,
    gpus: Vec<(Device, Report)>,
    switches: Vec<(Device, Report)>,
}

impl Machine {
    fn new() -> Self {
        let lab = Lab::new(&unchanged);
        let gpus: Vec<_> = (1..=8).map(|id| lab.gpu(id)).collect();
        let switches: Vec<_> = (101..=104).map(|id| lab.switch(id)).collect();
        let ids: Vec<_> = gpus.iter().map(Device::pdi).collect();
        let links: Vec<u8> = (0..18)
            .flat_map(|link| {
                let mut id = switches[link % 4].pdi();
                id.reverse();
                id
            })
            .collect();
        let report = || {
            let report = Report::gpu().with(21, Some(&[0xaa])).with(36, Some(&[2, 0]));
            report.with(22, Some(&links))
        };
        let gpus = gpus.into_iter().map(|gpu| (gpu, report())).collect();
        let switches = switches
            .into_iter()
            .map(|switch| {
                let report = Report::switch(&switch, &ids);
                (switch, report)
            })
            .collect();
        Self { lab, gpus, switches }
    }

    fn judge(&self) -> Verdict {
        let all = || self.gpus.iter().chain(&self.switches);
        let evidence: Vec<_> = all().map(|(device, report)| device.evidence(report)).collect();
        let devices: Vec<_> = all().map(|(device, _)| device).collect();
        let mut items = self.lab.manifests();
        items.push(self.lab.sign(&Manifest::switch()));
        items.extend(self.lab.revocations(&devices));
        let counts = (self.gpus.len(), self.switches.len());
        appraise(&self.lab.policy_from(STRICT), &evidence, &items, counts)
    }

    #[track_caller]
    fn problems(&self) -> Vec<String> {
        let seen = findings(self.judge());
        assert!(seen.iter().all(|(id, _)| *id == "nvswitch.topology"), "{seen:?}");
        seen.into_iter().map(|(_, observed)| observed).collect()
    }
}

#[test]
fn accepts_a_whole_machine_under_the_strict_policy() {
    let result = Machine::new().judge().unwrap();
    assert_eq!(result.devices().len(), 12);
    assert!(result.simulated());
}

#[test]
fn rejects_machines_whose_devices_do_not_name_each_other() {
    let mut machine = Machine::new();
    let ids: Vec<_> = machine.gpus[..7].iter().map(|(gpu, _)| gpu.pdi()).collect();
    let listed = [&ids[..], &[[7; 8]]].concat();
    machine.switches[2].1 = Report::switch(&machine.switches[2].0, &listed);
    assert_eq!(machine.problems(), ["device 10 names other gpus"]);

    let mut machine = Machine::new();
    let twice = [&ids[..], &ids[..1]].concat();
    machine.switches[0].1 = Report::switch(&machine.switches[0].0, &twice);
    assert_eq!(machine.problems(), ["device 8 names other gpus"]);

    // Switch ids not reversed, one less, one more.
    let switch_ids: Vec<_> = machine.switches.iter().map(|(switch, _)| switch.pdi()).collect();
    let reversed = |ids: &[[u8; 8]]| -> Vec<u8> {
        ids.iter().flat_map(|id| id.iter().rev().copied()).collect()
    };
    for links in [
        switch_ids.concat(),
        reversed(&switch_ids[..3]),
        [reversed(&switch_ids), vec![1; 8]].concat(),
        Vec::new(),
    ] {
        let mut machine = Machine::new();
        machine.gpus[4].1 = machine.gpus[4].1.clone().with(22, Some(&links));
        assert_eq!(machine.problems(), ["device 4 names other switches"]);
    }
    // Links that are not there are zero.
    let mut machine = Machine::new();
    let links = [reversed(&switch_ids), vec![0; 14 * 8]].concat();
    machine.gpus[4].1 = machine.gpus[4].1.clone().with(22, Some(&links));
    assert!(machine.judge().is_ok());
}

#[test]
fn rejects_machines_of_mixed_modes() {
    let mut machine = Machine::new();
    let alone = machine.gpus[3].1.clone().with(21, Some(&[0x55])).with(36, Some(&[0, 0]));
    machine.gpus[3].1 = alone;
    let seen = findings(machine.judge());
    assert_eq!(seen[0].0, "devices.alike");
    assert_eq!(seen[1], ("nvswitch.topology", "device 3 is not in ppcie mode".to_string()));
    assert_eq!(seen.len(), 2);
}

#[test]
fn rejects_switches_beside_gpus_that_use_none() {
    let mut machine = Machine::new();
    for (_, report) in &mut machine.gpus {
        *report = report.clone().with(21, Some(&[0x55])).with(36, Some(&[0, 0]));
    }
    let problems = [0, 1, 2, 3, 4, 5, 6, 7].map(|at| format!("device {at} is not in ppcie mode"));
    assert_eq!(machine.problems(), problems);
    // A GPU that works with switches, without any.
    let mut machine = Machine::new();
    machine.switches.clear();
    assert_eq!(machine.problems()[0], "8 gpus and 0 switches");
}

#[test]
fn rejects_a_switch_that_is_unlocked_or_gives_another_id() {
    for (value, observed) in [(Some(&[0, 0][..]), "0"), (None, "not reported")] {
        let mut machine = Machine::new();
        machine.switches[1].1 = machine.switches[1].1.clone().with(25, value);
        let seen = findings(machine.judge());
        assert_eq!(seen, [("nvswitch.locked", format!("device 9: {observed}"))]);
    }
    let mut machine = Machine::new();
    machine.switches[1].1 = machine.switches[1].1.clone().with(22, Some(&[9; 8]));
    let flaw = Inauthentic::In { place: Place::Device(9), flaw: Inauthentic::Pdi.into() };
    assert_eq!(machine.judge(), Err(flaw.into()));
}

#[test]
fn rejects_a_switch_that_names_other_firmware_than_was_certified() {
    let case = Case::of("LS_10 A01 FSP", "50", &unchanged);
    let items = [vec![case.lab.sign(&Manifest::switch())], case.revocations.clone()].concat();
    let judge = |fwid: Option<&[u8]>| {
        let report = Report::switch(&case.device, &[]).with(20, fwid);
        appraise(&case.policy, &[case.device.evidence(&report)], &items, (0, 1))
    };
    // Switches need not name it, and none that was recorded does.
    assert!(judge(None).is_ok());
    assert!(judge(Some(&[0xf0; 48])).is_ok());
    assert_eq!(flaw(judge(Some(&[0xf1; 48]))), Inauthentic::Fwid);
    let part = "firmware id";
    let short = Malformed::Length { part, observed: 47, required: 48 };
    assert_eq!(malformed(judge(Some(&[0xf0; 47]))), short);
}

#[test]
fn rejects_roots_that_the_policy_believes_for_another_place() {
    let mut case = Case::new();
    let policy = case.policy.clone();
    case.policy = policy.replace("platform = \"nvidia\"", "platform = \"nvidia-manifest\"");
    assert_eq!(flaw(case.golden()), Inauthentic::UnknownRoot);
    case.policy = policy.replace("platform = \"nvidia-manifest\"", "platform = \"nvidia\"");
    assert_eq!(manifest_flaw(case.golden()), Inauthentic::UnknownRoot);
}

#[test]
fn rejects_what_the_policy_asks_of_a_switch() {
    let case = Case::of("LS_10 A01 FSP", "50", &unchanged);
    let report = Report::switch(&case.device, &[]);
    let judge = |report: &Report, policy: &str, manifest: Manifest| {
        let items = [vec![case.lab.sign(&manifest)], case.revocations.clone()].concat();
        appraise(policy, &[case.device.evidence(report)], &items, (0, 1))
    };
    let golden = |policy: &str| judge(&report, policy, Manifest::switch());
    assert!(golden(&case.policy).is_ok());
    let policy = |check, value| with(&case.policy, check, value);
    let old = policy("nvswitch.bios", "{ require = [\"96.10.73.00.02\"] }");
    assert_one(golden(&old), "nvswitch.bios", "96.10.73.00.01");
    let other = policy("nvswitch.products", "{ require = [\"LS20\"] }");
    assert_one(golden(&other), "nvswitch.products", "LS10");
    let listed = policy("nvswitch.chip", "{ require = \"listed\" }");
    assert_one(golden(&listed), "nvswitch.chip", "no list");
    let unknown = report.clone().with(28, Some(&[1]));
    let seen = judge(&unknown, &case.policy, Manifest::switch());
    assert_one(seen, "nvswitch.opaque", "types [28]");
    let off = report.clone().measuring(3, [9; 48]);
    let seen = judge(&off, &case.policy, Manifest::switch());
    assert_eq!(one(seen).0, "nvswitch.measurements");
    let bare = report.clone().measuring(4, [9; 48]);
    let seen = judge(&bare, &case.policy, Manifest::switch());
    assert_one(seen, "nvswitch.uncovered", "not zero at [4]");
    // A GPU's manifest of the same version.
    let gpus = Manifest { edition: "GPU", ..Manifest::switch() };
    let seen = judge(&report, &case.policy, gpus);
    assert_one(seen, "nvswitch.measurements", "no manifest of LS10 bios 96.10.73.00.01");
}

#[test]
fn rejects_one_gpu_that_is_shown_as_two() {
    let case = Case::new();
    let items = [case.manifests.clone(), case.revocations.clone()].concat();
    let two = [case.device.evidence(&Report::gpu()), case.device.evidence(&Report::gpu())];
    let verdict = appraise(&case.policy, &two, &items, (2, 0));
    assert_one(verdict, "devices.distinct", "device 0 and device 1 are one");
    // Two keys of one identity are one device too.
    let again = case.lab.gpu(0x1122_3344_5566_7788);
    let items = [case.manifests.clone(), case.lab.revocations(&[&case.device, &again])].concat();
    let two = [case.device.evidence(&Report::gpu()), again.evidence(&Report::gpu())];
    let verdict = appraise(&case.policy, &two, &items, (2, 0));
    assert_one(verdict, "devices.distinct", "device 0 and device 1 are one");
    // Two devices that drew one nonce did not draw it.
    let other = case.lab.gpu(7);
    let items = [case.manifests.clone(), case.lab.revocations(&[&case.device, &other])].concat();
    let report = Report::gpu();
    let two = [case.device.evidence(&report), other.evidence(&report)];
    let verdict = appraise(&case.policy, &two, &items, (2, 0));
    assert_one(verdict, "devices.distinct", "device 0 and device 1 are one");
    let two = [case.device.evidence(&report), other.evidence(&Report::gpu())];
    assert!(appraise(&case.policy, &two, &items, (2, 0)).is_ok());
}

#[test]
fn rejects_gpus_that_are_not_alike() {
    let case = Case::new();
    let other = case.lab.gpu(7);
    let mut items =
        [case.manifests.clone(), case.lab.revocations(&[&case.device, &other])].concat();
    let newer = Manifest { version: "580.96.00".into(), ..Manifest::driver() };
    items.push(case.lab.sign(&newer));
    let two = [
        case.device.evidence(&Report::gpu()),
        other.evidence(&Report::gpu().with(3, Some(b"580.96.00\0"))),
    ];
    assert_one(
        appraise(&case.policy, &two, &items, (2, 0)),
        "devices.alike",
        "GH100 driver 580.95.05 mode spt, GH100 driver 580.96.00 mode spt",
    );
}

#[test]
fn refuses_no_devices_and_more_than_any_machine_has() {
    let case = Case::new();
    let none = Malformed::Text {
        part: "device evidence",
        problem: "holds no device, or more than any machine has",
    };
    assert_eq!(appraise(&case.policy, &[], &[], (0, 0)), Err(none.clone().into()));
    let many = vec![case.device.evidence(&Report::gpu()); 65];
    assert_eq!(appraise(&case.policy, &many, &[], (65, 0)), Err(none.into()));
    // As many as the most are looked at, and are one.
    let seen = findings(appraise(&case.policy, &many[1..], &case.manifests, (64, 0)));
    assert_eq!(seen.iter().filter(|(id, _)| *id == "devices.distinct").count(), 63);
}

#[test]
fn refuses_json_of_another_shape() {
    let item =
        "{\"arch\":\"HOPPER\",\"certificate\":\"AA==\",\"evidence\":\"AA==\",\"nonce\":\"N\"}"
            .replace('N', &"00".repeat(32));
    let read = |json: &str| DeviceEvidence::read_json(json.as_bytes());
    assert_eq!(read(&format!("[{item}]")).unwrap().len(), 1);
    assert_eq!(read(&format!(" {{\"evidences\":[{item}],\"result_code\":0}} ")).unwrap().len(), 1);
    let text = |problem| Malformed::Text { part: "device evidence", problem };
    let shape = text("is not the json of a list of devices");
    for json in [
        "",
        "{}",
        "null",
        &item,
        &format!("[{item}]x"),
        &format!("[{item},]"),
        &format!("[{}]", item.replace("\"arch\"", "\"ARCH\"")),
        &format!("[{}]", item.replace("HOPPER", "AMPERE")),
        &format!("[{}]", item.replace('}', ",\"measres\":\"success\"}")),
        &format!("[{}]", item.replace('}', ",\"arch\":\"HOPPER\"}")),
        &format!("{{\"evidences\":[{item}],\"claims\":[]}}"),
        &"[".repeat(200),
    ] {
        assert_eq!(read(json), Err(shape.clone()), "{json}");
    }
    let wrong = |from, to, problem| {
        let flaw = Malformed::Device { index: 0, flaw: text(problem).into() };
        assert_eq!(read(&format!("[{}]", item.replacen(from, to, 1))), Err(flaw));
    };
    wrong("\"AA==\"", "\"AA\"", "has a member that is not base64");
    wrong("\"00", "\"0", "has a nonce that is not 32 bytes in hexadecimal");
    wrong("}", ",\"version\":\"2.0\"}", "is of another version than 1.0");
    let many = |count: usize| format!("[{}]", vec![item.as_str(); count].join(","));
    assert_eq!(read(&many(64)).unwrap().len(), 64);
    assert_eq!(read(&many(65)), Err(text("holds no device, or more than any machine has")));
    let long = format!("[{item}]{}", " ".repeat((1 << 20) - item.len() - 2));
    assert!(read(&long).is_ok());
    assert!(matches!(read(&format!("{long} ")), Err(Malformed::TooLong { .. })));
}
