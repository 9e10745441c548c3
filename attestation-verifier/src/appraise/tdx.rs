//! The checks of a policy's section `tdx`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::octets::Octets;

use crate::appraise::Findings;
use crate::endorsement::EventLog;
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
    now: u64,
    findings: &mut Findings,
) {
    judge_attributes(quote, policy, findings);
    judge_registers(quote, policy, findings);
    if let Some(verdict) = verdict {
        judge_platform(verdict, policy, now, findings);
    }
}

/// A log that came along must replay to the registers: whoever reads it must not be told a tale. No
/// policy can waive it. RTMR3 may hold what the guest recorded without a log.
pub(super) fn judge_event_logs(quote: &Quote<'_>, logs: &[EventLog], findings: &mut Findings) {
    let report = &quote.report;
    let registers = [&report.rtmr0, &report.rtmr1, &report.rtmr2, &report.rtmr3];
    for log in logs {
        let replayed = log.registers.iter().zip(registers).enumerate();
        let differing: Vec<_> = replayed
            .filter(|(index, (replayed, register))| match replayed {
                Some(replayed) => replayed != *register,
                None => *index < 3 && **register != [0; 48],
            })
            .map(|(index, _)| format!("rtmr{index}"))
            .collect();
        findings.require(
            differing.is_empty(),
            "tdx.event_log",
            || format!("another {}", differing.join(", ")),
            "a log that replays to the registers of the quote",
        );
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
    let attributes = quote.extended.as_ref().is_some_and(|body| {
        body.init_service_td_attributes != [0; 8] || body.current_service_td_attributes != [0; 8]
    });
    let bound = attributes || hashes.into_iter().flatten().any(|hash| hash != [0; 48]);
    (extended || bound).then(|| "bound".to_string())
}

fn judge_registers(quote: &Quote<'_>, policy: &Tdx, findings: &mut Findings) {
    let report = &quote.report;
    policy.mr_config_id().judge(findings, |accepted| accepted.differs(&report.mr_config_id));
    policy.mr_owner().judge(findings, |accepted| accepted.differs(&report.mr_owner));
    policy.mr_owner_config().judge(findings, |accepted| accepted.differs(&report.mr_owner_config));
    let registers = [
        (policy.mr_seam(), report.mr_seam),
        (policy.mr_td(), report.mr_td),
        (policy.rtmr0(), report.rtmr0),
        (policy.rtmr1(), report.rtmr1),
        (policy.rtmr2(), report.rtmr2),
    ];
    for (check, register) in registers {
        let register = Octets(register);
        check.judge(findings, |accepted| (!accepted.has(&register)).then(|| register.to_string()));
    }
    policy.rtmr3().judge(findings, |accepted| accepted.differs(&report.rtmr3));
    policy.tee_tcb_svn().judge(findings, |least| {
        let relaunch = quote.relaunch.as_ref().map(|body| body.tee_tcb_svn2);
        let mut svns = [Some(report.tee_tcb_svn), relaunch].into_iter().flatten();
        svns.find(|svn| !least.met_by(svn)).map(hex::encode)
    });
}

fn judge_platform(verdict: &Verdict, policy: &Tdx, now: u64, findings: &mut Findings) {
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
        (number < least.at(now)).then(|| number.to_string())
    });
    let identities =
        [(policy.ppid(), &verdict.ppid), (policy.platform_instance(), &verdict.instance)];
    for (check, seen) in identities {
        check.judge(findings, |accepted| {
            let seen: Option<[u8; 16]> = seen.as_slice().try_into().ok();
            match seen {
                None => Some("absent".to_string()),
                Some(seen) => (!accepted.has(&Octets(seen))).then(|| hex::encode(seen)),
            }
        });
    }
    policy.tcb_status().judge(findings, |accepted| {
        let current = verdict.current_status.iter().map(|status| ("now ", status));
        let all = [("", &verdict.status)].into_iter().chain(current);
        let refused: Vec<_> = all
            .filter(|(_, status)| !accepted.has_status(status))
            .map(|(when, status)| format!("{when}{status}"))
            .collect();
        (!refused.is_empty()).then(|| refused.join(", "))
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
