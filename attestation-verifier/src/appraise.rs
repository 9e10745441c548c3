//! The verdict. Parse (shape), authenticate (origin), accept (meaning); then one unforgeable yes.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use measurement::cbor::Blob;
use measurement::digest::{Digest, of, sha384};
use measurement::launch::{Measured, blob};
use measurement::manifest::Tee;
use measurement::octets::Octets;
use serde::Serialize;

use crate::cache::{Cache, Held, Key};
use crate::endorsement::amd::SnpTcb;
use crate::endorsement::{Endorsements, EventLog, amd, intel};
use crate::evidence::Evidence;
use crate::policy::{AppraisalPolicy, Challenge, Waived};
use crate::root::Root;
use crate::wire::snp::Report;
use crate::wire::tdx::Quote;

mod devices;
mod finding;
mod machine;
mod measured;
mod snp;
mod tdx;
mod topology;
mod vouched;

pub use devices::{DeviceResult, DevicesResult, ExpectedDevices};
pub use finding::{Checked, Finding, Findings, Outcome, Rejection};
pub use machine::{ExpectedMachine, MachineEvidence, MachineResult};
pub(crate) use vouched::Vouched;

/// Judges evidence by one policy.
#[derive(Clone)]
pub struct Verifier {
    policy: AppraisalPolicy,
}

/// What evidence must say to be of use to the one who asks.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The 64 bytes that bind the evidence to its session.
    pub report_data: &'a [u8; 64],
    /// The launch blob that holds the manifest; its digest is HOST_DATA or MRCONFIGID.
    pub launch_blob: &'a [u8],
    /// The images that may run.
    pub images: &'a [Measured],
    /// The chips (CHIP_ID or PPID) that may run them; none means any.
    pub platforms: &'a [Blob],
}

impl Verifier {
    /// A verifier that applies `policy`, under the vendors' roots and those the policy names.
    pub fn new(policy: AppraisalPolicy) -> Self {
        Self { policy }
    }

    /// The policy it applies.
    pub fn policy(&self) -> &AppraisalPolicy {
        &self.policy
    }

    /// Judges `evidence` with the help of `endorsements`, in any order, at `now_unix` (seconds since
    /// 1970). With [`Verifier::appraise_with`] the only maker of an [`AttestationResult`].
    ///
    /// # Errors
    /// At the first thing that is malformed or inauthentic; of what is merely unacceptable, all.
    pub fn appraise(
        &self,
        evidence: &Evidence<'_>,
        endorsements: &[&[u8]],
        expected: &Expected<'_>,
        now_unix: u64,
    ) -> Result<AttestationResult, Rejection> {
        let case = Case { evidence, endorsements, expected, now: now_unix };
        self.judge(&case, None, &mut Findings::default())
    }

    /// [`Verifier::appraise`], which finds in `cache` what it has verified before: the same verdict, at
    /// the cost of the evidence's own signature.
    ///
    /// # Errors
    /// The same.
    pub fn appraise_with(
        &self,
        cache: &mut Cache,
        evidence: &Evidence<'_>,
        endorsements: &[&[u8]],
        expected: &Expected<'_>,
        now_unix: u64,
    ) -> Result<AttestationResult, Rejection> {
        let case = Case { evidence, endorsements, expected, now: now_unix };
        self.judge(&case, Some(cache), &mut Findings::default())
    }

    /// The appraisal itself; `findings` keeps the trail of the checks, whatever the verdict.
    pub(crate) fn judge(
        &self,
        case: &Case<'_>,
        cache: Option<&mut Cache>,
        findings: &mut Findings,
    ) -> Result<AttestationResult, Rejection> {
        match case.evidence.tee {
            Tee::Snp => self.appraise_snp(case, cache, findings),
            Tee::Tdx => self.appraise_tdx(case, cache, findings),
        }
    }

    fn appraise_snp(
        &self,
        case: &Case<'_>,
        cache: Option<&mut Cache>,
        findings: &mut Findings,
    ) -> Result<AttestationResult, Rejection> {
        let report = Report::parse(case.evidence.report)?;
        let identity = Octets(sha384(report.signed));
        let endorsed = self.endorsed(case, cache)?;
        let claims = amd::authenticate(report, &endorsed)?;

        let seen = Seen::in_report(&claims);
        let expected = case.expected;
        self.judge_binding(&seen, expected, &blob::host_data(expected.launch_blob), findings);
        match &self.policy.snp {
            Some(policy) => snp::judge(&claims, policy, case.now, findings),
            None => findings.add(no_section("snp")),
        }
        findings.settle()?;
        let tcb = Tcb::Snp(claims.reported);
        Ok(self.result(Tee::Snp, seen, claims.root, tcb, identity))
    }

    fn appraise_tdx(
        &self,
        case: &Case<'_>,
        cache: Option<&mut Cache>,
        findings: &mut Findings,
    ) -> Result<AttestationResult, Rejection> {
        let quote = Quote::parse(case.evidence.report)?;
        let identity = Octets(sha384(quote.signed));
        let judged = self.genuine(case, &quote, cache)?;

        tdx::judge_event_logs(&quote, &EventLog::among(case.endorsements), findings);
        let launch_blob = blob::mr_config_id(case.expected.launch_blob);
        let (root, verdict) = match judged {
            intel::Judged::Genuine(root, verdict) => (root, verdict),
            intel::Judged::AttributesRefused(refusal) => {
                let seen = Seen::in_quote(&quote, Vec::new());
                self.judge_binding(&seen, case.expected, &launch_blob, findings);
                self.judge_tdx(&quote, None, case.now, findings);
                findings.settle()?;
                return Err(refusal.into());
            }
        };
        let seen = Seen::in_quote(&quote, verdict.ppid.clone());
        self.judge_binding(&seen, case.expected, &launch_blob, findings);
        self.judge_tdx(&quote, Some(&verdict), case.now, findings);
        findings.settle()?;
        let tcb = Tcb::Tdx(TdxTcb {
            tee_tcb_svn: Octets(quote.report.tee_tcb_svn),
            evaluation_number: verdict.evaluation_number,
            status: verdict.status,
            advisories: verdict.advisories,
        });
        Ok(self.result(Tee::Tdx, seen, root, tcb, identity))
    }

    /// AMD's chain down to the key, from the cache if it was verified before.
    fn endorsed(
        &self,
        case: &Case<'_>,
        mut cache: Option<&mut Cache>,
    ) -> Result<amd::Endorsed, Rejection> {
        let key = cache.as_ref().map(|_| Key::of(&self.policy, case.endorsements, &[]));
        if let (Some(cache), Some(key)) = (&cache, &key)
            && let Some(Held::Snp(endorsed)) = cache.find(key, case.now)
        {
            return Ok(endorsed.clone());
        }
        let endorsements = Endorsements::read(case.endorsements)?;
        let endorsed = amd::endorse(&endorsements, &self.policy.anchors, case.now)?;
        if let (Some(cache), Some(key)) = (&mut cache, key) {
            cache.keep(key, endorsed.valid, Held::Snp(endorsed.clone()));
        }
        Ok(endorsed)
    }

    /// What Intel says about the platform behind a quote. From the cache, if it said so before about the
    /// same platform, quoting enclave, module and attributes: then only the quote's own signature is
    /// new.
    fn genuine(
        &self,
        case: &Case<'_>,
        quote: &Quote<'_>,
        mut cache: Option<&mut Cache>,
    ) -> Result<intel::Judged, Rejection> {
        let judged = quote.judged_by_intel();
        let key = cache.as_ref().map(|_| Key::of(&self.policy, case.endorsements, &judged));
        if let (Some(cache), Some(key)) = (&cache, &key)
            && let Some(Held::Tdx(root, verdict)) = cache.find(key, case.now)
        {
            intel::verify_quote(quote)?;
            return Ok(intel::Judged::Genuine(root.clone(), verdict.clone()));
        }
        let endorsements = Endorsements::read(case.endorsements)?;
        let judged = intel::authenticate(quote, &endorsements, &self.policy.anchors, case.now)?;
        if let (Some(cache), Some(key), intel::Judged::Genuine(root, verdict)) =
            (&mut cache, key, &judged)
        {
            cache.keep(key, verdict.valid, Held::Tdx(root.clone(), verdict.clone()));
        }
        Ok(judged)
    }

    fn judge_tdx(
        &self,
        quote: &Quote<'_>,
        verdict: Option<&intel::Verdict>,
        now: u64,
        findings: &mut Findings,
    ) {
        match &self.policy.tdx {
            Some(policy) => tdx::judge(quote, verdict, policy, now, findings),
            None => findings.add(no_section("tdx")),
        }
    }

    /// The checks that tie evidence of any kind to the job and to the session.
    fn judge_binding(
        &self,
        seen: &Seen,
        expected: &Expected<'_>,
        launch_blob: &[u8],
        findings: &mut Findings,
    ) {
        if seen.report_data == *expected.report_data {
            findings.held("binding.report_data");
        } else {
            let [observed, required] = [seen.report_data, *expected.report_data].map(hex::encode);
            findings.add(Finding::new("binding.report_data", observed, required));
        }
        let policy = &self.policy.binding;
        policy.challenge().judge(findings, |required| {
            let answered = seen.report_data != [0; 64];
            let launched = *required == Challenge::AnsweredOrLaunched
                && seen.launch_blob.iter().any(|byte| *byte != 0);
            (!answered && !launched).then(|| "all zero".into())
        });
        policy.image().judge(findings, |_| {
            let listed = expected.images.contains(&seen.measured);
            (!listed).then(|| describe(&seen.measured))
        });
        policy.launch_blob().judge(findings, |_| {
            (seen.launch_blob != launch_blob).then(|| hex::encode(&seen.launch_blob))
        });
        let listed = !seen.platform.is_empty()
            && expected.platforms.iter().any(|Blob(id)| *id == seen.platform);
        if expected.platforms.is_empty() {
            policy.platform().judge(findings, |_| Some("no list".into()));
        } else {
            let observed = || hex::encode(&seen.platform);
            findings.require(listed, "binding.platform", observed, "listed");
        }
    }

    fn result(
        &self,
        tee: Tee,
        seen: Seen,
        root: Root,
        tcb: Tcb,
        identity: Octets<48>,
    ) -> AttestationResult {
        AttestationResult {
            tee,
            measured: seen.measured,
            root,
            tcb,
            platform: Blob(seen.platform),
            policy: self.policy.digest(),
            report_data: Octets(seen.report_data),
            identity,
            waived: self.policy.waived(tee),
        }
    }
}

/// One thing that a verifier is asked.
pub(crate) struct Case<'a> {
    pub(crate) evidence: &'a Evidence<'a>,
    pub(crate) endorsements: &'a [&'a [u8]],
    pub(crate) expected: &'a Expected<'a>,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

/// What authentic evidence says about launch and session.
struct Seen {
    report_data: [u8; 64],
    launch_blob: Vec<u8>,
    measured: Measured,
    platform: Vec<u8>,
}

impl Seen {
    fn in_report(claims: &amd::Claims) -> Self {
        let body = &claims.body;
        Self {
            report_data: body.report_data,
            launch_blob: body.host_data.to_vec(),
            measured: Measured::Snp { launch_digest: Octets(body.measurement) },
            platform: match claims.signer {
                amd::Signer::Vcek => body.chip_id.to_vec(),
                amd::Signer::Vlek => Vec::new(),
            },
        }
    }

    fn in_quote(quote: &Quote<'_>, ppid: Vec<u8>) -> Self {
        let report = &quote.report;
        Self {
            report_data: report.report_data,
            launch_blob: report.mr_config_id.to_vec(),
            measured: Measured::Tdx {
                mrtd: Octets(report.mr_td),
                rtmr0: Octets(report.rtmr0),
                rtmr1: Octets(report.rtmr1),
                rtmr2: Octets(report.rtmr2),
            },
            platform: ppid,
        }
    }
}

fn describe(measured: &Measured) -> String {
    match measured {
        Measured::Snp { launch_digest } => alloc::format!("launch digest {launch_digest}"),
        Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 } => {
            alloc::format!("mrtd {mrtd} rtmr0 {rtmr0} rtmr1 {rtmr1} rtmr2 {rtmr2}")
        }
    }
}

fn no_section(section: &'static str) -> Finding {
    Finding::new("policy.section", section.into(), "a section for such evidence".into())
}

/// The policy's yes. Holding one is the right to ask for a key.
///
/// Only [`Verifier::appraise`] and [`Verifier::appraise_with`] make one: there is no other constructor, and it cannot be read from
/// bytes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct AttestationResult {
    tee: Tee,
    measured: Measured,
    root: Root,
    tcb: Tcb,
    platform: Blob,
    policy: Digest<of::Policy>,
    report_data: Octets<64>,
    identity: Octets<48>,
    waived: Vec<Waived>,
}

impl AttestationResult {
    /// What kind of evidence it was.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// What was measured at launch.
    pub fn measured(&self) -> &Measured {
        &self.measured
    }

    /// The root it was judged under.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Whether the hardware was only simulated.
    pub fn simulated(&self) -> bool {
        self.root.simulated()
    }

    /// The security version of the platform.
    pub fn tcb(&self) -> &Tcb {
        &self.tcb
    }

    /// The chip: CHIP_ID (64 bytes) or PPID (16 bytes); empty for a report signed by a VLEK.
    pub fn platform_id(&self) -> &[u8] {
        let Blob(id) = &self.platform;
        id
    }

    /// The policy that was applied.
    pub fn policy_digest(&self) -> Digest<of::Policy> {
        self.policy
    }

    /// The 64 bytes that bind the evidence to its session.
    pub fn report_data(&self) -> &[u8; 64] {
        self.report_data.as_bytes()
    }

    /// SHA-384 of the bytes that the hardware signed. Two encodings of one signature share it, so
    /// this, not a hash of the whole report, tells replays apart.
    pub fn identity(&self) -> Octets<48> {
        self.identity
    }

    /// The checks that the policy waived, with its reasons.
    pub fn waived(&self) -> &[Waived] {
        &self.waived
    }
}

/// The security version of a platform.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tcb {
    /// AMD SEV-SNP: REPORTED_TCB.
    Snp(SnpTcb),
    /// Intel TDX.
    Tdx(TdxTcb),
}

/// The security version of a TDX platform, and Intel's judgement of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TdxTcb {
    /// TEE_TCB_SVN of the quote.
    pub tee_tcb_svn: Octets<16>,
    /// `tcbEvaluationDataNumber` of the collateral.
    pub evaluation_number: u64,
    /// Intel's word for it, as in "UpToDate".
    pub status: String,
    /// Intel's advisories that apply.
    pub advisories: Vec<String>,
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snp(tcb) => tcb.fmt(f),
            Self::Tdx(tcb) => {
                let (status, number) = (&tcb.status, tcb.evaluation_number);
                write!(f, "svn {} {status} in evaluation {number}", tcb.tee_tcb_svn)
            }
        }
    }
}
