//! The checks of a policy's section `tdx`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::octets::Octets;

use crate::appraise::Findings;
use crate::endorsement::intel::Verdict;
use crate::policy::{Switch, Tdx};
use crate::wire::tdx::Quote;

// TD attributes (TDX Module ABI, table "ATTRIBUTES").
const DEBUG: u64 = 0xff;
const SERVICE_TD_EXTENDED: u64 = 1 << 17;
const SEPT_VE_DISABLE: u64 = 1 << 28;
const MIGRATABLE: u64 = 1 << 29;
/// Attributes that have a check of their own.
const CHECKED: u64 = DEBUG | SERVICE_TD_EXTENDED | SEPT_VE_DISABLE | MIGRATABLE;

/// x87 and SSE state, which every TD has.
const XFAM_FIXED: u64 = 0b11;

/// `verdict` is missing when Intel's rules refuse the attributes: then only the quote is judged.
pub(super) fn judge(
    quote: &Quote<'_>,
    verdict: Option<&Verdict>,
    policy: &Tdx,
    findings: &mut Findings,
) {
    judge_attributes(quote, policy, findings);
    judge_registers(quote, policy, findings);
    if let Some(verdict) = verdict {
        judge_platform(verdict, policy, findings);
    }
}

fn judge_attributes(quote: &Quote<'_>, policy: &Tdx, findings: &mut Findings) {
    let attributes = quote.report.td_attributes;
    let set = |bit: u64, text: &str| (attributes & bit != 0).then(|| text.to_string());
    policy.attributes().judge(findings, |allowed| {
        let beyond = allowed.beyond(attributes & !CHECKED);
        (beyond != 0).then(|| format!("{attributes:#018x}"))
    });
    policy.debug().judge(findings, |_| set(DEBUG, "allowed"));
    policy.migration().judge(findings, |_| set(MIGRATABLE, "possible"));
    policy
        .sept_ve_disable()
        .judge(findings, |_| (attributes & SEPT_VE_DISABLE == 0).then(|| "off".to_string()));
    policy.service_td().judge(findings, |_| service_td(quote));
    policy.xfam().judge(findings, |allowed| {
        let xfam = quote.report.xfam;
        let lawful = xfam & XFAM_FIXED == XFAM_FIXED && allowed.beyond(xfam) == 0;
        (!lawful).then(|| format!("{xfam:#018x}"))
    });
}

/// A service TD can migrate the guest, or read it.
fn service_td(quote: &Quote<'_>) -> Option<String> {
    let extended = quote.report.td_attributes & SERVICE_TD_EXTENDED != 0;
    let relaunch = quote.relaunch.as_ref();
    let hashes = [
        relaunch.map(|body| body.mr_service_td),
        quote.extended.as_ref().map(|body| body.init_service_td_hash),
        quote.extended.as_ref().map(|body| body.current_service_td_hash),
    ];
    let bound = hashes.into_iter().flatten().any(|hash| hash != [0; 48]);
    (extended || bound).then(|| "bound".to_string())
}

fn judge_registers(quote: &Quote<'_>, policy: &Tdx, findings: &mut Findings) {
    let report = &quote.report;
    let nonzero = |register: &[u8; 48]| (*register != [0; 48]).then(|| hex::encode(register));
    policy.mr_owner().judge(findings, |_| nonzero(&report.mr_owner));
    policy.mr_owner_config().judge(findings, |_| nonzero(&report.mr_owner_config));
    policy.mr_seam().judge(findings, |accepted| {
        let mr_seam = Octets(report.mr_seam);
        (!accepted.has(&mr_seam)).then(|| mr_seam.to_string())
    });
    policy.rtmr3().judge(findings, |_| nonzero(&report.rtmr3));
    policy.tee_tcb_svn().judge(findings, |least| {
        let relaunch = quote.relaunch.as_ref().map(|body| body.tee_tcb_svn2);
        let mut svns = [Some(report.tee_tcb_svn), relaunch].into_iter().flatten();
        svns.find(|svn| !least.met_by(svn)).map(hex::encode)
    });
}

fn judge_platform(verdict: &Verdict, policy: &Tdx, findings: &mut Findings) {
    policy.advisories().judge(findings, |accepted| {
        let open: Vec<_> = verdict
            .advisories
            .iter()
            .filter(|advisory| !accepted.has_text(advisory))
            .map(String::as_str)
            .collect();
        (!open.is_empty()).then(|| open.join(", "))
    });
    policy.evaluation_number().judge(findings, |least| {
        let number = verdict.evaluation_number;
        (number < *least).then(|| number.to_string())
    });
    policy.tcb_status().judge(findings, |accepted| {
        (!accepted.has(&verdict.status)).then(|| verdict.status.clone())
    });
    let switches = [
        (policy.cached_keys(), verdict.cached_keys),
        (policy.dynamic_platform(), verdict.dynamic_platform),
        (policy.smt(), verdict.smt),
    ];
    for (check, on) in switches {
        let switch = Switch::from(on);
        check.judge(findings, |accepted| (!accepted.has(&switch)).then(|| switch.to_string()));
    }
}
