//! One good simulated report with one change, and what must be said about it.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use attestation_verifier::appraise::{AttestationResult, Expected, Rejection, Verifier};
use attestation_verifier::endorsement::Role;
use attestation_verifier::endorsement::amd::{Product, Signer};
use attestation_verifier::evidence::{Evidence, Inauthentic};
use attestation_verifier::policy::{AppraisalPolicy, STRICT};
use attestation_verifier::root::Root;
use attestation_verifier::wire::Malformed;
use common::amd::{Hierarchy, LAUNCH_BLOB, NOW, Shape};
use common::{WAIVED, appraise, ids, measured, with};
use measurement::cbor::Blob;
use measurement::manifest::Tee;

type Verdict = Result<AttestationResult, Rejection>;

fn judge(hierarchy: &Hierarchy, report: &[u8]) -> Verdict {
    judge_by(&hierarchy.policy(), hierarchy, report)
}

fn judge_by(policy: &str, hierarchy: &Hierarchy, report: &[u8]) -> Verdict {
    appraise(policy, Tee::Snp, report, &hierarchy.endorsements(), LAUNCH_BLOB, NOW)
}

/// The verdict on the golden report after `change`, signed again.
fn changed(change: impl FnOnce(&mut [u8])) -> Verdict {
    let hierarchy = Hierarchy::new(&Shape::default());
    judge(&hierarchy, &hierarchy.report(change))
}

/// The verdict on the golden report under a hierarchy of another shape.
fn shaped(change: impl FnOnce(&mut Shape)) -> Verdict {
    let mut shape = Shape::default();
    change(&mut shape);
    let hierarchy = Hierarchy::new(&shape);
    judge(&hierarchy, &hierarchy.report(|_| {}))
}

fn inauthentic(flaw: Inauthentic) -> Verdict {
    Err(Rejection::Inauthentic(flaw))
}

#[test]
fn accepts_the_golden_report_and_says_simulated() {
    let result = changed(|_| {}).unwrap();
    assert_eq!(result.root(), &Root::Simulated("test".into()));
    assert!(result.simulated());
    assert_eq!(result.platform_id(), [0x5a; 64]);
    assert_eq!(result.report_data(), &[0x77; 64]);
    assert!(result.waived().iter().any(|waived| waived.check == "snp.id_key"));
    assert!(result.waived().iter().all(|waived| !waived.check.starts_with("tdx.")));
}

#[test]
fn accepts_a_version_3_report() {
    let three = |body: &mut [u8]| {
        body[0] = 3;
        body[0x1f8] = 0;
        body[0x200] = 0;
    };
    assert!(changed(three).is_ok());
    // It says which processor it is, as later ones do.
    let turin = |body: &mut [u8]| {
        three(body);
        body[0x188..0x18a].copy_from_slice(&[0x1a, 0x02]);
    };
    let (report, certificates) = (Product::Turin, Product::Genoa);
    assert_eq!(changed(turin), inauthentic(Inauthentic::Product { report, certificates }));
}

#[test]
fn rejects_a_simulated_report_where_the_policy_names_no_such_root() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|_| {});
    assert_eq!(judge_by(STRICT, &hierarchy, &report), inauthentic(Inauthentic::UnknownRoot));
}

#[test]
fn rejects_a_simulated_chain_that_leaves_its_root_out() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|_| {});
    let endorsements = [hierarchy.vcek.clone(), hierarchy.ask.clone()];
    // The vendor's root has the same name, and did not sign this.
    let result = appraise(STRICT, Tee::Snp, &report, &endorsements, LAUNCH_BLOB, NOW);
    let flaw = Inauthentic::Signature { over: "intermediate certificate" };
    assert_eq!(result, inauthentic(flaw));
}

#[test]
fn rejects_each_guest_policy_and_level_the_policy_forbids() {
    let bit = |bit: usize| move |body: &mut [u8]| body[8 + bit / 8] |= 1 << (bit % 8);
    assert_eq!(ids(changed(bit(18))), ["snp.migration"]);
    assert_eq!(ids(changed(bit(19))), ["snp.debug"]);
    assert_eq!(ids(changed(bit(21))), ["snp.cxl"]);
    assert_eq!(ids(changed(bit(26))), ["snp.guest_policy"]);
    assert_eq!(ids(changed(bit(63))), ["snp.guest_policy"]);
    assert_eq!(ids(changed(|body| body[10] = 1)), ["snp.guest_policy"]);
    // ABI 2.0 on firmware 1.55.
    assert_eq!(ids(changed(|body| body[9] = 2)), ["snp.guest_policy"]);
    assert_eq!(ids(changed(|body| body[0x30] = 1)), ["snp.vmpl"]);
    assert_eq!(ids(changed(|body| body[0x160] = 0)), ["snp.migration"]);
}

#[test]
fn rejects_a_report_that_the_host_asked_for_whatever_the_policy() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|body| body[0x30..0x34].fill(0xff));
    assert_eq!(ids(judge(&hierarchy, &report)), ["snp.host_requested", "snp.vmpl"]);
    let policy = with(&hierarchy.policy(), "snp.vmpl", WAIVED);
    assert_eq!(ids(judge_by(&policy, &hierarchy, &report)), ["snp.host_requested"]);
}

#[test]
fn rejects_a_platform_without_alias_check_or_with_unknown_bits() {
    assert_eq!(ids(changed(|body| body[0x40] = 0x05)), ["snp.alias_check"]);
    assert_eq!(ids(changed(|body| body[0x41] = 1)), ["snp.platform_bits"]);
    // A real Turin sets bit 6.
    assert!(changed(|body| body[0x40] = 0x65).is_ok());
}

#[test]
fn names_all_findings_and_not_only_the_first() {
    let all = |body: &mut [u8]| {
        body[10] |= 1 << 3;
        body[0x30] = 2;
        body[0x40] = 0;
        body[0x1f8] = 0;
    };
    let expected = ["snp.vmpl", "snp.debug", "snp.alias_check", "snp.mitigations"];
    assert_eq!(ids(changed(all)), expected);
}

#[test]
fn rejects_what_every_optional_check_asks_for() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|_| {});
    let hex16 = format!("{{ require = [\"{}\"] }}", "ab".repeat(16));
    let hex48 = format!("{{ require = [\"{}\"] }}", "ab".repeat(48));
    let cases = [
        ("binding.platform", "{ require = \"listed\" }"),
        ("snp.author_key", &hex48),
        ("snp.ciphertext_hiding", "{ require = \"enforced\" }"),
        ("snp.family_id", &hex16),
        ("snp.firmware", "{ require = \"1.55.50\" }"),
        ("snp.guest_svn", "{ require = 1 }"),
        ("snp.id_key", &hex48),
        ("snp.image_id", &hex16),
        ("snp.iommu", "{ require = \"on\" }"),
        ("snp.memory_aes_256_xts", "{ require = \"on\" }"),
        ("snp.mitigations", "{ require = { bits = [1, 4], reports_without = \"refused\" } }"),
        ("snp.page_swap_disabled", "{ require = \"on\" }"),
        ("snp.products", "{ require = [\"turin\"] }"),
        ("snp.rapl_disabled", "{ require = \"enforced\" }"),
        ("snp.report_versions", "{ require = [3] }"),
        ("snp.signers", "{ require = [\"vlek\"] }"),
        ("snp.single_socket", "{ require = \"on\" }"),
        ("snp.smt", "{ require = [\"off\"] }"),
        (
            "snp.tcb_floor",
            "{ require = [{ cpu = \"19/a0\", bootloader = 0, tee = 0, snp = 0, microcode = 0 }] }",
        ),
        ("snp.tsme", "{ require = \"on\" }"),
    ];
    for (check, value) in cases {
        let policy = with(&hierarchy.policy(), check, value);
        assert_eq!(ids(judge_by(&policy, &hierarchy, &report)), [check]);
    }
}

#[test]
fn says_what_it_saw_and_what_it_wants() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let policy = with(&hierarchy.policy(), "snp.guest_svn", "{ require = 22 }");
    let rejection =
        judge_by(&policy, &hierarchy, &hierarchy.report(|body| body[4] = 7)).unwrap_err();
    let [finding] = rejection.findings() else { panic!("{rejection}") };
    assert_eq!((finding.observed(), finding.required()), ("7", "at least 22"));
    assert_eq!(
        rejection.to_string(),
        "unacceptable evidence: snp.guest_svn is 7, policy requires at least 22"
    );
}

#[test]
fn rejects_a_tcb_below_its_floor_or_out_of_order() {
    let floor = |snp: u8| {
        format!(
            "{{ require = [{{ cpu = \"19/11\", bootloader = 10, tee = 0, snp = {snp}, microcode = 84 }}] }}"
        )
    };
    let hierarchy = Hierarchy::new(&Shape::default());
    let policy = with(&hierarchy.policy(), "snp.tcb_floor", &floor(24));
    let rejection = judge_by(&policy, &hierarchy, &hierarchy.report(|_| {})).unwrap_err();
    assert_eq!(rejection.findings()[0].id(), "snp.tcb_floor");
    assert_eq!(
        rejection.findings()[0].observed(),
        "reported snp 23 below 24, launch snp 23 below 24"
    );
    // Launched on older firmware than it reports now.
    assert_eq!(ids(changed(|body| body[0x1f6] = 22)), ["snp.tcb_floor"]);
    // Current above committed: can be rolled back.
    assert_eq!(ids(changed(|body| body[0x3e] = 24)), ["snp.provisional_firmware"]);
    assert_eq!(ids(changed(|body| body[0x1e8] = 50)), ["snp.provisional_firmware"]);
    // Committed above current, launched above current: impossible.
    let impossible = ["snp.tcb_order", "snp.provisional_firmware"];
    assert_eq!(ids(changed(|body| body[0x1e6] = 24)), impossible);
    assert_eq!(ids(changed(|body| body[0x1f6] = 24)), ["snp.tcb_order"]);
    assert_eq!(ids(changed(|body| body[0x1ec] = 50)), impossible);
}

#[test]
fn rejects_evidence_of_another_session_or_without_a_challenge() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|_| {});
    let mut expected = Expected {
        report_data: &[0x78; 64],
        launch_blob: LAUNCH_BLOB,
        images: &[measured(Tee::Snp, &report)],
        platforms: &[],
    };
    let verifier = Verifier::new(AppraisalPolicy::parse(&hierarchy.policy()).unwrap());
    let endorsements = hierarchy.endorsements();
    let endorsements: Vec<&[u8]> = endorsements.iter().map(Vec::as_slice).collect();
    let evidence = Evidence { tee: Tee::Snp, report: &report };
    let judge =
        |expected: &Expected<'_>| verifier.appraise(&evidence, &endorsements, expected, NOW);
    assert_eq!(ids(judge(&expected)), ["binding.report_data"]);
    expected.report_data = &[0x77; 64];
    assert!(judge(&expected).is_ok());
    expected.launch_blob = b"another manifest";
    assert_eq!(ids(judge(&expected)), ["binding.launch_blob"]);
    expected.launch_blob = LAUNCH_BLOB;
    expected.images = &[];
    assert_eq!(ids(judge(&expected)), ["binding.image"]);
    let image = [measured(Tee::Snp, &report)];
    expected.images = &image;
    let others = [Blob(vec![1; 64])];
    expected.platforms = &others;
    assert_eq!(ids(judge(&expected)), ["binding.platform"]);
    let chips = [Blob(vec![1; 64]), Blob(vec![0x5a; 64])];
    expected.platforms = &chips;
    assert!(judge(&expected).is_ok());

    assert_eq!(ids(changed(|body| body[0x50..0x90].fill(0))), ["binding.challenge"]);
}

#[test]
fn rejects_evidence_for_which_the_policy_has_no_section() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let tdx = STRICT.find("[tdx]").unwrap();
    let snp = STRICT.find("[snp]").unwrap();
    let policy = hierarchy.policy_from(&format!("{}{}", &STRICT[..snp], &STRICT[tdx..]));
    let report = hierarchy.report(|_| {});
    assert_eq!(ids(judge_by(&policy, &hierarchy, &report)), ["policy.section"]);
}

#[test]
fn rejects_a_missing_or_stale_revocation_list() {
    let crl = |this: u64, next: u64| shaped(|shape| shape.crl = Some((this, next, vec![9])));
    assert_eq!(ids(shaped(|shape| shape.crl = None)), ["snp.crl"]);
    assert_eq!(ids(crl(NOW + 1, NOW + 2)), ["snp.crl"]);
    assert_eq!(ids(crl(NOW - 2, NOW)), ["snp.crl"]);
    assert!(crl(NOW, NOW + 1).is_ok());
}

#[test]
fn accepts_the_lack_of_a_list_where_the_policy_says_so_and_no_stale_one() {
    let judge = |crl: Option<(u64, u64, Vec<u8>)>| {
        let hierarchy = Hierarchy::new(&Shape { crl, ..Shape::default() });
        let policy = with(&hierarchy.policy(), "snp.crl", "{ require = \"fresh-if-given\" }");
        judge_by(&policy, &hierarchy, &hierarchy.report(|_| {}))
    };
    assert!(judge(None).is_ok());
    assert!(judge(Some((NOW, NOW + 1, vec![9]))).is_ok());
    assert_eq!(ids(judge(Some((NOW - 2, NOW, Vec::new())))), ["snp.crl"]);
    assert_eq!(ids(judge(Some((NOW + 1, NOW + 2, Vec::new())))), ["snp.crl"]);
}

#[test]
fn rejects_a_revoked_intermediate_even_when_the_list_is_stale_or_waived() {
    let mut shape = Shape { crl: Some((NOW - 9, NOW - 8, vec![7, 2])), ..Shape::default() };
    let hierarchy = Hierarchy::new(&shape);
    let policy = with(&hierarchy.policy(), "snp.crl", WAIVED);
    let report = hierarchy.report(|_| {});
    let revoked = |role| inauthentic(Inauthentic::Revoked { role });
    assert_eq!(judge_by(&policy, &hierarchy, &report), revoked(Role::Intermediate));
    shape.crl = Some((NOW - 9, NOW + 9, vec![1]));
    assert_eq!(shaped(|other| *other = shape.clone()), revoked(Role::Root));
}

#[test]
fn rejects_a_revocation_list_that_the_root_did_not_sign_or_that_came_twice() {
    let forged = inauthentic(Inauthentic::Signature { over: "revocation list" });
    assert_eq!(shaped(|shape| shape.crl_by_ask = true), forged);
    let hierarchy = Hierarchy::new(&Shape::default());
    let mut endorsements = hierarchy.endorsements();
    endorsements.push(hierarchy.crl.clone().unwrap());
    let report = hierarchy.report(|_| {});
    let policy = hierarchy.policy();
    let result = appraise(&policy, Tee::Snp, &report, &endorsements, LAUNCH_BLOB, NOW);
    assert_eq!(result, inauthentic(Inauthentic::Surplus { role: Role::RevocationList }));
}

#[test]
fn rejects_certificates_out_of_their_dates() {
    let (now, role) = (NOW, Role::Intermediate);
    let early = shaped(|shape| shape.ask_dates = (NOW + 1, NOW + 2));
    assert_eq!(early, inauthentic(Inauthentic::NotYetValid { role, from: NOW + 1, now }));
    let late = shaped(|shape| shape.ask_dates = (NOW - 2, NOW - 1));
    assert_eq!(late, inauthentic(Inauthentic::Expired { role, now, until: NOW - 1 }));
    let role = Role::Key;
    let late = shaped(|shape| shape.key_dates = (NOW - 2, NOW - 1));
    assert_eq!(late, inauthentic(Inauthentic::Expired { role, now, until: NOW - 1 }));
}

#[test]
fn rejects_a_root_out_of_its_dates() {
    // It is valid for a million seconds on either side.
    let (first, last) = (NOW - 1_000_000, NOW + 1_000_000);
    let dates = (first - 1, last + 1);
    let shape = Shape { ask_dates: dates, key_dates: dates, ..Shape::default() };
    let hierarchy = Hierarchy::new(&shape);
    let report = hierarchy.report(|_| {});
    let policy = with(&hierarchy.policy(), "snp.crl", WAIVED);
    let endorsements = hierarchy.endorsements();
    let at = |now| appraise(&policy, Tee::Snp, &report, &endorsements, LAUNCH_BLOB, now);
    let role = Role::Root;
    assert!(at(first).is_ok() && at(last).is_ok());
    let early = Inauthentic::NotYetValid { role, from: first, now: first - 1 };
    assert_eq!(at(first - 1), inauthentic(early));
    let late = Inauthentic::Expired { role, now: last + 1, until: last };
    assert_eq!(at(last + 1), inauthentic(late));
}

#[test]
fn rejects_a_root_that_the_policy_believes_for_another_platform() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|_| {});
    for platform in ["tdx", "nvidia", "nvidia-manifest"] {
        let other = format!("platform = \"{platform}\"");
        let policy = hierarchy.policy().replace("platform = \"snp\"", &other);
        let verdict = judge_by(&policy, &hierarchy, &report);
        assert_eq!(verdict, inauthentic(Inauthentic::UnknownRoot), "{platform}");
    }
}

#[test]
fn rejects_certificates_in_the_wrong_place() {
    let role = Role::Intermediate;
    let powerless = shaped(|shape| shape.ask_is_authority = false);
    let problem = "may not sign certificates";
    assert_eq!(powerless, inauthentic(Inauthentic::Unusable { role, problem }));
    let self_signed = shaped(|shape| shape.ask_signed_by_itself = true);
    let over = "intermediate certificate";
    assert_eq!(self_signed, inauthentic(Inauthentic::Signature { over }));
    let other = shaped(|shape| shape.key_name = "VCEK");
    let (role, problem) = (Role::Key, "is of neither a vcek nor a vlek");
    assert_eq!(other, inauthentic(Inauthentic::Unusable { role, problem }));
    // A VCEK under the intermediate of VLEKs.
    let other = shaped(|shape| shape.ask_name = "SEV-VLEK-Genoa");
    assert_eq!(other, inauthentic(Inauthentic::Issuer { role }));
}

#[test]
fn rejects_missing_and_surplus_certificates() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|_| {});
    let policy = hierarchy.policy();
    let judge = |endorsements: &[Vec<u8>]| {
        appraise(&policy, Tee::Snp, &report, endorsements, LAUNCH_BLOB, NOW)
    };
    let all = hierarchy.endorsements();
    let missing = |role| inauthentic(Inauthentic::Missing { role });
    assert_eq!(judge(&all[1..]), missing(Role::Key));
    assert_eq!(judge(&[all[0].clone(), all[2].clone()]), missing(Role::Intermediate));
    let twice = [all.clone(), vec![all[0].clone()]].concat();
    assert_eq!(judge(&twice), inauthentic(Inauthentic::Surplus { role: Role::Key }));
    let result = judge(&[all, vec![b"nonsense".to_vec()]].concat());
    let problem = "neither a certificate, a revocation list, nor collateral";
    assert_eq!(result, Err(Rejection::Malformed(Malformed::Endorsement { index: 4, problem })));
    assert!(matches!(
        judge(&vec![hierarchy.ask.clone(); 17]),
        Err(Rejection::Malformed(Malformed::TooLong { .. }))
    ));
}

#[test]
fn rejects_a_root_with_the_right_name_and_another_key() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|_| {});
    let mut endorsements = hierarchy.endorsements();
    // The same key, valid from another second: not the certificate that the policy names.
    let twin = Hierarchy::new(&Shape { ark_name: "ARK-Genoa", ..Shape::default() });
    endorsements[2] = twin.ark.clone();
    let policy = hierarchy.policy();
    let result = appraise(&policy, Tee::Snp, &report, &endorsements, LAUNCH_BLOB, NOW);
    assert_eq!(result, inauthentic(Inauthentic::UnknownRoot));
}

#[test]
fn rejects_key_certificates_whose_extensions_do_not_say_what_they_must() {
    let extension = |extension, problem| {
        inauthentic(Inauthentic::Extension { role: Role::Key, extension, problem })
    };
    let without = |index: usize| shaped(|shape| drop(shape.extensions.remove(index)));
    let set =
        |index: usize, value: &[u8]| shaped(|shape| shape.extensions[index].1 = value.to_vec());
    assert_eq!(without(0), extension("structVersion", "is missing"));
    assert_eq!(without(1), extension("productName", "is missing"));
    assert_eq!(without(4), extension("snpSPL", "is missing"));
    assert_eq!(without(6), extension("hwID", "is missing"));
    assert_eq!(set(0, &[2, 1, 2]), extension("structVersion", "is not known"));
    assert_eq!(
        set(1, b"\x16\x05Milan"),
        extension("productName", "is of another product than the issuer")
    );
    let ill = "is not an INTEGER from 0 to 255";
    // Two bytes where one would do, negative, trailing byte, wrong type.
    for value in [&[2, 2, 0, 23][..], &[2, 1, 0x97], &[2, 1, 23, 0], &[4, 1, 23]] {
        assert_eq!(set(4, value), extension("snpSPL", ill));
    }
    assert_eq!(set(6, &[0x5a; 63]), extension("hwID", "has another length"));
    let added = |arcs: &'static str, value: &[u8]| {
        shaped(|shape| shape.extensions.push((arcs, value.to_vec())))
    };
    assert_eq!(added("05", b"\x16\x02CN"), extension("cspID", "is not of a vcek"));
    assert_eq!(added("0309", &[2, 1, 0]), extension("fmcSPL", "is not of this product"));
    assert_eq!(added("0304", &[2, 1, 1]), extension("spl_4", "is reserved and not zero"));
    assert_eq!(added("06", &[2, 1, 1]), extension("(any)", "is not one that this verifier knows"));
    let twice = Malformed::Endorsement { index: 0, problem: "carries an extension twice" };
    assert_eq!(added("04", &[0x5a; 64]), Err(Rejection::Malformed(twice)));
}

#[test]
fn rejects_a_report_of_another_chip_tcb_or_product_than_its_key() {
    assert_eq!(changed(|body| body[0x1a0] = 0), inauthentic(Inauthentic::ChipId));
    assert_eq!(
        shaped(|shape| shape.extensions[6].1 = vec![0; 64]),
        inauthentic(Inauthentic::ChipId)
    );
    let tcb = Inauthentic::Tcb { component: "snp", report: 22, certificate: 23 };
    assert_eq!(changed(|body| body[0x186] = 22), inauthentic(tcb));
    let (report, certificates) = (Product::Milan, Product::Genoa);
    let product = Inauthentic::Product { report, certificates };
    assert_eq!(changed(|body| body[0x189] = 1), inauthentic(product));
    // Venice: not known, not guessed.
    let cpu = Inauthentic::Cpu { family: 0x1a, model: 0x50 };
    let venice = |body: &mut [u8]| body[0x188..0x18a].copy_from_slice(&[0x1a, 0x50]);
    assert_eq!(changed(venice), inauthentic(cpu));
    let (field, product) = ("launch tcb", Product::Genoa);
    let reserved = Inauthentic::TcbReserved { field, product };
    assert_eq!(changed(|body| body[0x1f3] = 1), inauthentic(reserved));
}

#[test]
fn rejects_a_report_that_names_another_kind_of_signer() {
    let kind = Inauthentic::SignerKind { report: Signer::Vlek, certificate: Signer::Vcek };
    assert_eq!(changed(|body| body[0x48] = 1 << 2), inauthentic(kind));
    assert_eq!(changed(|body| body[0x48] = 7 << 2), inauthentic(Inauthentic::NotSigned));
    assert_eq!(changed(|body| body[0x48] = 1 << 1), inauthentic(Inauthentic::NotSigned));
    // An author key is no matter of the signer.
    assert!(changed(|body| body[0x48] = 1).is_ok());
}

#[test]
fn accepts_a_vlek_only_from_a_listed_cloud() {
    let mut shape = Shape { ask_name: "SEV-VLEK-Genoa", key_name: "SEV-VLEK", ..Shape::default() };
    shape.extensions[6] = ("05", b"\x16\x08CN=cloud".to_vec());
    let hierarchy = Hierarchy::new(&shape);
    let report = hierarchy.report(|body| {
        body[0x48] = 1 << 2;
        body[0x1a0..0x1e0].fill(0);
    });
    assert_eq!(ids(judge(&hierarchy, &report)), ["snp.signers"]);
    let policy = with(&hierarchy.policy(), "snp.signers", "{ require = [\"vlek\"] }");
    let other = with(&policy, "snp.csp", "{ require = [\"CN=other\"] }");
    assert_eq!(ids(judge_by(&other, &hierarchy, &report)), ["snp.csp"]);
    let listed = with(&policy, "snp.csp", "{ require = [\"CN=cloud\"] }");
    let result = judge_by(&listed, &hierarchy, &report).unwrap();
    assert!(result.platform_id().is_empty());
}

#[test]
fn rejects_reserved_bytes_and_unknown_versions() {
    let malformed = |flaw| Err(Rejection::Malformed(flaw));
    let reserved = |field| malformed(Malformed::Reserved { field });
    let unknown = |field, observed| malformed(Malformed::Unknown { field, observed });
    for (at, field) in [
        (0x04c, "0x04c..0x050"),
        (0x04b, "key info"),
        (0x18b, "0x18b..0x1a0"),
        (0x19f, "0x18b..0x1a0"),
        (0x1eb, "0x1eb"),
        (0x1ef, "0x1ef"),
        (0x208, "0x208..0x2a0"),
        (0x29f, "0x208..0x2a0"),
    ] {
        assert_eq!(changed(|body| body[at] = 0x80), reserved(field), "{at:#x}");
    }
    for version in [0, 1, 4, 6, 255] {
        let verdict = changed(|body| body[0] = version);
        assert_eq!(verdict, unknown("snp report version", version.into()));
    }
    assert_eq!(changed(|body| body[0] = 3), reserved("0x1f8..0x200"));
    assert_eq!(changed(|body| body[0] = 2), reserved("cpuid"));
    assert_eq!(changed(|body| body[0x34] = 2), unknown("signature algorithm", 2));
}

#[test]
fn accepts_a_version_2_report_only_where_the_policy_does() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|body| {
        body[0] = 2;
        body[0x188..0x18b].fill(0);
        body[0x1f8] = 0;
        body[0x200] = 0;
    });
    // Bit 5 of PLATFORM_INFO is set, and says nothing yet.
    let silent = ["snp.report_versions", "snp.alias_check", "snp.tcb_floor"];
    assert_eq!(ids(judge(&hierarchy, &report)), silent);
    let waive = |policy: String, check: &&str| with(&policy, check, WAIVED);
    let policy = silent.iter().fold(hierarchy.policy(), waive);
    let result = judge_by(&policy, &hierarchy, &report).unwrap();
    let waived = result.waived().iter().find(|waived| waived.check == "snp.tcb_floor").unwrap();
    assert_eq!(waived.because, "for this test");
}

#[test]
fn rejects_a_quote_that_calls_itself_a_report_and_the_reverse() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|_| {});
    let policy = hierarchy.policy();
    let endorsements = hierarchy.endorsements();
    let result = appraise(&policy, Tee::Tdx, &report, &endorsements, LAUNCH_BLOB, NOW);
    let flaw = Malformed::Unknown { field: "tee type", observed: 0 };
    let version = Malformed::Unknown { field: "attestation key type", observed: 0 };
    assert!(
        [flaw, version].map(|flaw| Err(Rejection::Malformed(flaw))).contains(&result),
        "{result:?}"
    );
}
