//! The simulated hardware against the verifier, and against verifiers that are not ours.

use attestation_verifier::appraise::{AttestationResult, Expected, Rejection, Verifier};
use attestation_verifier::endorsement::Role;
use attestation_verifier::evidence::Inauthentic;
use attestation_verifier::policy::{AppraisalPolicy, STRICT, with_root};
use attestation_verifier::root::Root as Anchor;
use dcap_qvl::verify::QuoteVerifier;
use der::Decode;
use measurement::launch::{Measured, blob};
use measurement::manifest::Tee;
use measurement::octets::Octets;
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tests::sim::certificate::{Span, pem, serial_of};
use tests::sim::collateral::Collateral;
use tests::sim::snp::{Report, Tcb, Version};
use tests::sim::tdx::Quote;
use tests::sim::{self, Evidence, Keys, Processor, Root, snp, tdx};

const NOW: u64 = 1_795_500_000;
const REPORT_DATA: [u8; 64] = [0x5a; 64];

/// What virtee/sev-snp-measure 0.0.13 says about the image that the processor launches below.
const SNP_MEASURE: &str = "e971551ed3c3ad341b96c3f6f8dabdac8242bb0b7318dc734e8cdf93e855103e\
                           a5fb275460fb28f9534b1e44584442c1";

/// One thing a verifier is asked, golden until a test changes it.
struct Case {
    evidence: Evidence,
    report_data: [u8; 64],
    launch_blob: Vec<u8>,
    image: Measured,
    now: u64,
}

impl Case {
    fn snp() -> Self {
        Self::of(snp_image(), Version::V5)
    }

    fn tdx() -> Self {
        Self::of(tdx_image(), Version::V5)
    }

    fn of(image: Measured, version: Version) -> Self {
        let launch_blob = launch_blob();
        let processor = Processor::launched(image, &launch_blob, root(), version, NOW);
        Self {
            evidence: processor.report(&REPORT_DATA),
            report_data: REPORT_DATA,
            launch_blob,
            image,
            now: NOW,
        }
    }

    /// An SNP case whose report was changed and signed again.
    fn snp_with(change: impl FnOnce(&mut [u8; snp::BODY])) -> Self {
        let mut case = Self::snp();
        case.evidence.report = golden_report().with(change).sign(&root().amd);
        case
    }

    /// A TDX case whose quote was changed and signed again.
    fn tdx_with(change: impl FnOnce(&mut [u8; tdx::BODY])) -> Self {
        let mut case = Self::tdx();
        case.evidence.report = golden_quote().with(change).sign(&root().intel);
        case
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn appraise(&self, policy: &str) -> Result<AttestationResult, Rejection> {
        let verifier = Verifier::new(AppraisalPolicy::parse(policy).unwrap());
        let evidence = attestation_verifier::evidence::Evidence {
            tee: self.evidence.tee,
            report: &self.evidence.report,
        };
        let endorsements: Vec<_> = self.evidence.endorsements.iter().map(Vec::as_slice).collect();
        let expected = Expected {
            report_data: &self.report_data,
            launch_blob: &self.launch_blob,
            images: &[self.image],
            platforms: &[],
        };
        verifier.appraise(&evidence, &endorsements, &expected, self.now)
    }

    /// The checks that fail under a policy that names the simulated roots.
    fn findings(&self) -> Vec<&'static str> {
        let rejection = self.appraise(&policy()).unwrap_err();
        assert!(!rejection.findings().is_empty(), "{rejection}");
        rejection.findings().iter().map(|finding| finding.id()).collect()
    }

    /// Why the evidence is not from where it says, under that policy.
    fn inauthentic(&self) -> Inauthentic {
        match self.appraise(&policy()) {
            Err(Rejection::Inauthentic(reason)) => reason,
            other => panic!("expected inauthentic evidence, got {other:?}"),
        }
    }
}

/// One root for all tests of this file; its keys last as long as the build folder.
fn root() -> Arc<Root> {
    static ROOT: OnceLock<Arc<Root>> = OnceLock::new();
    let make = || Arc::new(Root::issue(Keys::open(&keys()).unwrap(), NOW));
    ROOT.get_or_init(make).clone()
}

fn keys() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulated-keys")
}

fn policy() -> String {
    let root = root();
    let (snp, tdx) = (pem(&root.amd.ark_certificate), pem(&root.intel.root_ca_certificate));
    let policy = with_root(STRICT, "sim-amd", "simulated", "snp", &snp);
    with_root(&policy, "sim-intel", "simulated", "tdx", &tdx)
}

fn launch_blob() -> Vec<u8> {
    blob::write(b"a manifest", blob::Algorithm::Sha256)
}

fn snp_image() -> Measured {
    Measured::Snp { launch_digest: Octets([0x11; 48]) }
}

fn tdx_image() -> Measured {
    let register = |byte| Octets([byte; 48]);
    Measured::Tdx {
        mrtd: register(0x21),
        rtmr0: register(0x22),
        rtmr1: register(0x23),
        rtmr2: register(0x24),
    }
}

fn golden_report() -> Report {
    let guest = snp::Guest::launched([0x11; 48], blob::host_data(&launch_blob()));
    Report::new(Version::V5, &root().amd, &guest, &REPORT_DATA)
}

fn golden_quote() -> Quote {
    let guest = tdx::Guest {
        mrtd: [0x21; 48],
        rtmr: [[0x22; 48], [0x23; 48], [0x24; 48], [0; 48]],
        mr_config_id: blob::mr_config_id(&launch_blob()),
    };
    Quote::new(&root().intel, &guest, &REPORT_DATA)
}

#[test]
fn accepts_snp_reports_of_both_versions_as_simulated() {
    for version in [Version::V3, Version::V5] {
        let result = Case::of(snp_image(), version).appraise(&policy()).unwrap();
        assert!(result.simulated());
        assert_eq!(result.root(), &Anchor::Simulated("sim-amd".into()));
        assert_eq!(result.measured(), &snp_image());
        assert_eq!(result.platform_id(), root().amd.chip_id());
    }
}

#[test]
fn accepts_tdx_quotes_as_simulated() {
    let result = Case::tdx().appraise(&policy()).unwrap();
    assert!(result.simulated());
    assert_eq!(result.root(), &Anchor::Simulated("sim-intel".into()));
    assert_eq!(result.measured(), &tdx_image());
    assert_eq!(result.platform_id(), root().intel.platform_id());
}

#[test]
fn a_policy_without_the_simulated_roots_refuses_the_same_evidence() {
    for case in [Case::snp(), Case::tdx()] {
        let refused = case.appraise(STRICT).unwrap_err();
        assert_eq!(refused, Rejection::Inauthentic(Inauthentic::UnknownRoot));
    }
}

#[test]
fn a_root_left_out_of_the_endorsements_is_no_way_in() {
    let case = Case::snp().with(|case| drop(case.evidence.endorsements.remove(2)));
    assert!(case.appraise(&policy()).unwrap().simulated());
    let refused = case.appraise(STRICT).unwrap_err();
    assert_eq!(refused, Rejection::Inauthentic(Inauthentic::UnknownRoot));
}

#[test]
fn every_certificate_says_simulated() {
    let Root { amd, intel } = &*root();
    let certificates = [
        &amd.ark_certificate,
        &amd.ask_certificate,
        &amd.vcek_certificate,
        &intel.root_ca_certificate,
        &intel.platform_ca_certificate,
        &intel.tcb_signing_certificate,
        &intel.pck_certificate,
    ];
    for der in certificates {
        let certificate = x509_cert::Certificate::from_der(der).unwrap();
        let subject = certificate.tbs_certificate.subject.to_string();
        assert!(subject.contains("O=SIMULATED "), "{subject}");
    }
}

#[test]
fn amds_own_library_reads_and_verifies_the_reports() {
    for version in [Version::V3, Version::V5] {
        let evidence = Case::of(snp_image(), version).evidence;
        let [vek, ask, ark, _] = evidence.endorsements.as_slice() else { panic!("four") };
        let read = |der: &Vec<u8>| Certificate::from_der(der).unwrap();
        let chain = Chain { ca: ca::Chain { ark: read(ark), ask: read(ask) }, vek: read(vek) };
        let report = AttestationReport::from_bytes(&evidence.report).unwrap();
        (&chain, &report).verify().unwrap();
        assert_eq!(report.to_bytes().unwrap().as_slice(), evidence.report);
        assert_eq!(report.measurement.as_slice(), [0x11; 48]);
        assert_eq!(report.chip_id.as_slice(), root().amd.chip_id());
        assert_eq!(report.cpuid_mod_id, Some(0x11));
        assert_eq!(report.current_mit_vector, (version == Version::V5).then_some(0x3f));
    }
}

#[test]
fn a_foreign_library_verifies_the_quotes() {
    let evidence = Case::tdx().evidence;
    let collateral = serde_json::from_slice(&evidence.endorsements[0]).unwrap();
    let verifier = QuoteVerifier::new(root().intel.root_ca_certificate.clone());
    let verified = verifier.verify(&evidence.report, &collateral, NOW).unwrap();
    assert_eq!(verified.status, "UpToDate");
    assert!(verified.advisory_ids.is_empty());
    assert_eq!(verified.ppid, root().intel.platform_id());
    assert!(QuoteVerifier::new_prod().verify(&evidence.report, &collateral, NOW).is_err());
}

#[test]
fn rejects_a_debuggable_snp_guest() {
    assert_eq!(Case::snp_with(|body| body[0x0a] |= 1 << 3).findings(), ["snp.debug"]);
}

#[test]
fn rejects_another_launch_blob_on_snp() {
    assert_eq!(Case::snp_with(|body| body[0xc0] ^= 1).findings(), ["binding.launch_blob"]);
}

#[test]
fn rejects_another_image_on_snp() {
    assert_eq!(Case::snp_with(|body| body[0x90] ^= 1).findings(), ["binding.image"]);
}

#[test]
fn rejects_a_report_asked_for_at_another_vmpl() {
    assert_eq!(Case::snp_with(|body| body[0x30] = 1).findings(), ["snp.vmpl"]);
}

#[test]
fn rejects_a_guest_that_may_migrate() {
    assert_eq!(Case::snp_with(|body| body[0x0a] |= 1 << 2).findings(), ["snp.migration"]);
}

#[test]
fn rejects_memory_that_was_not_checked_for_aliases() {
    assert_eq!(Case::snp_with(|body| body[0x40] &= !(1 << 5)).findings(), ["snp.alias_check"]);
}

#[test]
fn rejects_evidence_of_another_session() {
    for case in [Case::snp(), Case::tdx()] {
        let case = case.with(|case| case.report_data[63] ^= 1);
        assert_eq!(case.findings(), ["binding.report_data"]);
    }
}

#[test]
fn rejects_a_report_that_was_changed_after_it_was_signed() {
    let case = Case::snp().with(|case| case.evidence.report[0x50] ^= 1);
    assert_eq!(case.inauthentic(), Inauthentic::Signature { over: "snp report" });
}

#[test]
fn rejects_a_stale_tcb() {
    let old = Tcb { snp: 22, ..snp::TCB };
    let mut case = Case::snp_with(|body| {
        for at in [0x38, 0x180, 0x1e0, 0x1f0] {
            body[at..at + 8].copy_from_slice(&old.to_bytes());
        }
    });
    case.evidence.endorsements[0] = root().amd.certify_chip(old, Span::around(NOW, 30));
    assert_eq!(case.findings(), ["snp.tcb_floor"]);
}

#[test]
fn rejects_a_tcb_that_the_vcek_is_not_for() {
    let case = Case::snp_with(|body| body[0x180 + 6] = 27);
    let expected = Inauthentic::Tcb { component: "snp", report: 27, certificate: 28 };
    assert_eq!(case.inauthentic(), expected);
}

#[test]
fn rejects_an_expired_vcek() {
    let mut case = Case::snp();
    let span = Span { from: NOW - 100, until: NOW - 1 };
    case.evidence.endorsements[0] = root().amd.certify_chip(snp::TCB, span);
    let expected = Inauthentic::Expired { role: Role::Key, now: NOW, until: NOW - 1 };
    assert_eq!(case.inauthentic(), expected);
}

#[test]
fn rejects_a_revoked_ask() {
    let mut case = Case::snp();
    let amd = &root().amd;
    let serial = serial_of(&amd.ask_certificate).unwrap();
    case.evidence.endorsements[3] = amd.revocation_list(Span::around(NOW, 30), &[&serial]);
    assert_eq!(case.inauthentic(), Inauthentic::Revoked { role: Role::Intermediate });
}

#[test]
fn rejects_a_revocation_list_of_yesterday() {
    let mut case = Case::snp();
    let span = Span { from: NOW - 100, until: NOW };
    case.evidence.endorsements[3] = root().amd.revocation_list(span, &[]);
    assert_eq!(case.findings(), ["snp.crl"]);
}

#[test]
fn rejects_the_report_of_another_chip() {
    let case = Case::snp_with(|body| body[0x1a0] ^= 1);
    assert_eq!(case.inauthentic(), Inauthentic::ChipId);
}

#[test]
fn rejects_a_debuggable_td() {
    assert_eq!(Case::tdx_with(|body| body[168] |= 1).findings(), ["tdx.debug"]);
}

#[test]
fn rejects_another_launch_blob_on_tdx() {
    assert_eq!(Case::tdx_with(|body| body[232] ^= 1).findings(), ["binding.launch_blob"]);
}

#[test]
fn rejects_another_image_in_any_register_but_the_guests_own() {
    for at in [184, 376, 424, 472] {
        assert_eq!(Case::tdx_with(|body| body[at] ^= 1).findings(), ["binding.image"]);
    }
    assert_eq!(Case::tdx_with(|body| body[520] ^= 1).findings(), ["tdx.rtmr3"]);
}

#[test]
fn rejects_a_quote_that_was_changed_after_it_was_signed() {
    let case = Case::tdx().with(|case| case.evidence.report[568] ^= 1);
    let reason = "ISV enclave report signature is invalid".into();
    assert_eq!(case.inauthentic(), Inauthentic::Collateral { reason });
}

#[test]
fn rejects_an_old_tdx_module() {
    let case = Case::tdx_with(|body| body[48] = 6);
    assert_eq!(case.findings(), ["tdx.advisories", "tdx.tcb_status"]);
}

#[test]
fn rejects_expired_collateral() {
    let case = Case::tdx().with(|case| case.now += 31 * 86_400);
    let until = NOW + 30 * 86_400;
    let expected = Inauthentic::Expired { role: Role::RevocationList, now: case.now, until };
    assert_eq!(case.inauthentic(), expected);
}

#[test]
fn rejects_collateral_of_two_evaluations() {
    let intel = &root().intel;
    let collateral = Collateral::new(intel, NOW)
        .with_qe_identity(|text| text.replace("Number\":21", "Number\":20"));
    let case = Case::tdx().with(|case| case.evidence.endorsements = vec![collateral.sign()]);
    let expected = Inauthentic::EvaluationNumbers { tcb_info: 21, qe_identity: 20 };
    assert_eq!(case.inauthentic(), expected);
}

#[test]
fn rejects_collateral_of_another_pce() {
    let intel = &root().intel;
    let collateral = Collateral::new(intel, NOW)
        .with_tcb_info(|text| text.replace("\"pceId\":\"0000\"", "\"pceId\":\"0001\""));
    let case = Case::tdx().with(|case| case.evidence.endorsements = vec![collateral.sign()]);
    assert_eq!(case.inauthentic(), Inauthentic::PceId);
}

#[test]
fn rejects_a_revoked_platform_ca_and_a_revoked_pck() {
    let intel = &root().intel;
    let platform_ca = serial_of(&intel.platform_ca_certificate).unwrap();
    let pck = serial_of(&intel.pck_certificate).unwrap();
    let (platform_ca, pck): (&[u8], &[u8]) = (&platform_ca, &pck);
    for (roots, platforms) in [(vec![platform_ca], vec![]), (vec![], vec![pck])] {
        let lists = intel.revocation_lists(Span::around(NOW, 30), &roots, &platforms);
        let collateral = Collateral::new(intel, NOW).with_revocation_lists(lists);
        let case = Case::tdx().with(|case| case.evidence.endorsements = vec![collateral.sign()]);
        let reason = "Failed to verify certificate chain: CertRevoked".into();
        assert_eq!(case.inauthentic(), Inauthentic::Collateral { reason });
    }
}

#[test]
fn snp_evidence_is_no_tdx_evidence() {
    let case = Case::snp().with(|case| case.evidence.tee = Tee::Tdx);
    assert!(matches!(case.appraise(&policy()), Err(Rejection::Malformed(_))));
}

#[test]
fn answers_several_requests_over_one_connection() {
    let processor = Processor::launched(snp_image(), &launch_blob(), root(), Version::V5, NOW);
    let (mut guest, host) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| sim::answer(host, &processor));
        for byte in [1, 2] {
            let (report, endorsements) = sim::ask(&mut guest, &[byte; 64]).unwrap();
            assert_eq!(report[0x50..0x90], [byte; 64]);
            assert_eq!(endorsements.len(), 4);
        }
        drop(guest);
        answering.join().unwrap().unwrap();
    });
}

#[test]
fn answers_nothing_to_half_a_request() {
    let processor = Processor::launched(snp_image(), &launch_blob(), root(), Version::V5, NOW);
    let (mut guest, host) = UnixStream::pair().unwrap();
    guest.write_all(&[1; 63]).unwrap();
    guest.shutdown(std::net::Shutdown::Write).unwrap();
    sim::answer(host, &processor).unwrap();
    assert_eq!(std::io::Read::read(&mut guest, &mut [0; 1]).unwrap(), 0);
}

#[test]
fn refuses_an_answer_that_is_too_long_or_ends_early() {
    for answer in [&u32::MAX.to_be_bytes()[..], &[0, 0, 0, 5, 0xa0], &[0, 0]] {
        let (mut guest, mut host) = UnixStream::pair().unwrap();
        host.write_all(answer).unwrap();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(sim::ask(&mut guest, &REPORT_DATA).is_err());
    }
}

#[test]
fn the_processor_measures_what_it_launches_and_serves_every_guest() {
    let Some(vectors) = vectors() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_image(&vectors.join("cpu/launch"), folder.path());
    make_roots(&at("state"));

    let mut serving = serve(folder.path(), &at("state")).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let answers = [REPORT_DATA, [7; 64]]
        .map(|data| sim::ask(&mut UnixStream::connect(at("asp.sock")).unwrap(), &data).unwrap());
    serving.kill().unwrap();
    serving.wait().unwrap();

    let facts: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(facts["simulated"], true);
    let image: Measured = serde_json::from_value(facts["measured"].clone()).unwrap();
    assert_eq!(image, Measured::Snp { launch_digest: SNP_MEASURE.parse().unwrap() });
    let root = std::fs::read_to_string(at("state").join("snp-root.pem")).unwrap();
    let policy = with_root(STRICT, "sim", "simulated", "snp", &root);
    for ((report, endorsements), report_data) in answers.into_iter().zip([REPORT_DATA, [7; 64]]) {
        assert_eq!(report[0], 3);
        let evidence = Evidence { tee: Tee::Snp, report, endorsements };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let case = Case { evidence, report_data, launch_blob: launch_blob(), image, now };
        assert!(case.appraise(&policy).unwrap().simulated());
    }
}

#[test]
fn roots_are_made_once_and_their_keys_are_the_owners_alone() {
    let state = tempfile::tempdir().unwrap();
    make_roots(state.path());
    let root = std::fs::read(state.path().join("root.pem")).unwrap();
    make_roots(state.path());
    assert_eq!(std::fs::read(state.path().join("root.pem")).unwrap(), root);
    let mode = std::fs::metadata(state.path().join("vcek.pk8")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn refuses_to_serve_without_roots_or_without_an_image() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("launch-blob"), launch_blob()).unwrap();
    let state = folder.path().join("state");
    let problem = |problem: &str| {
        let output = serve(folder.path(), &state).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(problem), "{said}");
    };
    problem("hint: make simulated roots");
    make_roots(&state);
    problem("firmware.fd");
}

/// The image of one case of the shared vectors.
fn write_image(parts: &Path, folder: &Path) {
    for (from, to) in [
        ("ovmf_AmdSev_suffix.bin", "firmware.fd"),
        ("kernel.bin", "kernel"),
        ("initrd.bin", "initrd"),
    ] {
        std::fs::copy(parts.join(from), folder.join(to)).unwrap();
    }
    let shape =
        r#"{"platform":"snp","cpu":"EPYC-Genoa","vcpus":2,"memory_mib":1024,"guest_features":1}"#;
    std::fs::write(folder.join("cmdline"), "a=b").unwrap();
    std::fs::write(folder.join("image.json"), shape).unwrap();
    std::fs::write(folder.join("launch-blob"), launch_blob()).unwrap();
}

/// Roots by the binary. It finds two keys there already, because primes take seconds to find.
fn make_roots(state: &Path) {
    root();
    std::fs::create_dir_all(state).unwrap();
    for rsa in ["ark.pk8", "ask.pk8"] {
        std::fs::copy(keys().join(rsa), state.join(rsa)).unwrap();
    }
    let made = processor().arg("roots").arg("--state").arg(state).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn serve(folder: &Path, state: &Path) -> Command {
    let mut command = processor();
    command.args(["serve", "--json", "--report-version", "3", "--image"]).arg(folder);
    command.arg("--launch-blob").arg(folder.join("launch-blob"));
    command.arg("--state").arg(state).arg("--listen").arg(folder.join("asp.sock"));
    command
}

fn processor() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cloister-sim-processor"))
}

/// The shared vectors; without them a test says so and ends, but not in CI.
fn vectors() -> Option<PathBuf> {
    let vectors = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors"));
    if vectors.is_dir() {
        return Some(vectors.to_path_buf());
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "the vectors are missing");
    println!("skipped: the vectors are missing");
    None
}
