//! The checks of a policy's section `snp`, in its order; first those that are always made.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::octets::Octets;

use crate::appraise::Findings;
use crate::endorsement::amd::{Claims, Revocation, Signer, SnpTcb};
use crate::policy::{Crl, Firmware, Mitigations, Snp, Switch, TcbFloor};
use crate::wire::snp::Body;

// Guest policy (SEV-SNP ABI, table "Guest Policy").
const POLICY_SMT: u64 = 1 << 16;
const POLICY_RESERVED_ONE: u64 = 1 << 17;
const POLICY_MIGRATE_MA: u64 = 1 << 18;
const POLICY_DEBUG: u64 = 1 << 19;
const POLICY_SINGLE_SOCKET: u64 = 1 << 20;
const POLICY_CXL: u64 = 1 << 21;
const POLICY_AES_256_XTS: u64 = 1 << 22;
const POLICY_RAPL_DISABLED: u64 = 1 << 23;
const POLICY_CIPHERTEXT_HIDING: u64 = 1 << 24;
const POLICY_PAGE_SWAP_DISABLED: u64 = 1 << 25;
const POLICY_KNOWN: u64 = (1 << 26) - 1;

// PLATFORM_INFO.
const PLATFORM_SMT: u64 = 1;
const PLATFORM_TSME: u64 = 1 << 1;
const PLATFORM_ECC: u64 = 1 << 2;
const PLATFORM_RAPL_DISABLED: u64 = 1 << 3;
const PLATFORM_CIPHERTEXT_HIDING: u64 = 1 << 4;
const PLATFORM_ALIAS_CHECK: u64 = 1 << 5;
const PLATFORM_IOMMU: u64 = 1 << 6;
const PLATFORM_TRUSTED_IO: u64 = 1 << 7;
const PLATFORM_KNOWN: u64 = (1 << 8) - 1;

/// Bit of `key_info`: AUTHOR_KEY_DIGEST is that of a key.
const AUTHOR_KEY: u32 = 1;

/// VMPL of a report that the host, not the guest, asked for.
const HOST_REQUESTED: u32 = u32::MAX;

pub(super) fn judge(claims: &Claims, policy: &Snp, now: u64, findings: &mut Findings) {
    judge_always(claims, findings);
    judge_origin(claims, policy, now, findings);
    judge_guest(&claims.body, policy, findings);
    judge_platform(&claims.body, policy, findings);
    judge_firmware(claims, policy, findings);
    judge_identity(&claims.body, policy, findings);
}

/// No policy can waive these: evidence that fails them contradicts itself.
fn judge_always(claims: &Claims, findings: &mut Findings) {
    let body = &claims.body;
    findings.require(
        body.vmpl != HOST_REQUESTED,
        "snp.host_requested",
        || "a report that the host asked for".to_string(),
        "one that the guest asked for",
    );
    let [minor, major, ..] = body.policy.to_le_bytes();
    let abi = (major, minor) <= (body.current_major, body.current_minor);
    let reserved = body.policy & POLICY_RESERVED_ONE != 0 && body.policy & !POLICY_KNOWN == 0;
    findings.require(
        abi && reserved,
        "snp.guest_policy",
        || format!("{:#x}", body.policy),
        "bit 17 set, bits 26 and above clear, and an abi that the firmware has",
    );
    let Claims { reported, current, committed, launch, .. } = claims;
    let in_order = current.at_least(committed)
        && committed.at_least(reported)
        && current.at_least(launch)
        && firmware(body).0 >= firmware(body).1;
    findings.require(
        in_order,
        "snp.tcb_order",
        || {
            format!(
                "reported {reported}, committed {committed}, launch {launch}, current {current}"
            )
        },
        "reported <= committed <= current and launch <= current",
    );
}

/// Who signed, under what, for which product.
fn judge_origin(claims: &Claims, policy: &Snp, now: u64, findings: &mut Findings) {
    policy.report_versions().judge(findings, |accepted| {
        let version = claims.body.version;
        (!accepted.has(&version)).then(|| version.to_string())
    });
    policy.products().judge(findings, |accepted| {
        (!accepted.has(&claims.product)).then(|| claims.product.to_string())
    });
    policy.signers().judge(findings, |accepted| {
        (!accepted.has(&claims.signer)).then(|| claims.signer.to_string())
    });
    policy.csp().judge(findings, |accepted| {
        let csp = claims.csp.as_deref().unwrap_or("absent");
        (claims.signer == Signer::Vlek && !accepted.has_text(csp)).then(|| csp.to_string())
    });
    policy.crl().judge(findings, |required| match claims.revocation {
        Revocation::Unknown => (*required == Crl::Fresh).then(|| "absent".to_string()),
        Revocation::Listed { this_update, next_update } => {
            let fresh = this_update <= now && now < next_update;
            (!fresh).then(|| format!("of {this_update} to {next_update}, now is {now}"))
        }
    });
}

/// What the guest's owner let the guest be.
fn judge_guest(body: &Body, policy: &Snp, findings: &mut Findings) {
    let has = |bit: u64| body.policy & bit != 0;
    let lacks = |bit: u64, text: &str| (!has(bit)).then(|| text.to_string());
    policy
        .vmpl()
        .judge(findings, |accepted| (!accepted.has(&body.vmpl)).then(|| body.vmpl.to_string()));
    policy.debug().judge(findings, |_| has(POLICY_DEBUG).then(|| "allowed".to_string()));
    policy.migration().judge(findings, |_| {
        let agent = body.report_id_ma != [0xff; 32];
        (has(POLICY_MIGRATE_MA) || agent).then(|| "possible".to_string())
    });
    policy.smt().judge(findings, |accepted| {
        // The hardware refuses to launch a guest that forbids it where it is on; two signed
        // witnesses are better than one.
        let smt = Switch::from(has(POLICY_SMT) || body.platform_info & PLATFORM_SMT != 0);
        (!accepted.has(&smt)).then(|| smt.to_string())
    });
    policy.cxl().judge(findings, |_| has(POLICY_CXL).then(|| "allowed".to_string()));
    policy.single_socket().judge(findings, |_| lacks(POLICY_SINGLE_SOCKET, "off"));
    policy.memory_aes_256_xts().judge(findings, |_| lacks(POLICY_AES_256_XTS, "off"));
    policy.page_swap_disabled().judge(findings, |_| lacks(POLICY_PAGE_SWAP_DISABLED, "off"));
}

/// What the machine is set up to be, and where guest and machine must agree.
fn judge_platform(body: &Body, policy: &Snp, findings: &mut Findings) {
    let lacks = |bit: u64| (body.platform_info & bit == 0).then(|| "off".to_string());
    let lacks_either = |platform: u64, guest: u64| {
        let sides = (body.platform_info & platform != 0, body.policy & guest != 0);
        match sides {
            (true, true) => None,
            (true, false) => Some("not demanded by the guest policy".to_string()),
            (false, true) => Some("off".to_string()),
            (false, false) => Some("off, and not demanded by the guest policy".to_string()),
        }
    };
    policy.alias_check().judge(findings, |_| match body.version {
        // The bit has a meaning from version 3 on.
        ..3 => Some(format!("version {} does not report it", body.version)),
        _ => lacks(PLATFORM_ALIAS_CHECK),
    });
    policy
        .ciphertext_hiding()
        .judge(findings, |_| lacks_either(PLATFORM_CIPHERTEXT_HIDING, POLICY_CIPHERTEXT_HIDING));
    policy.ecc().judge(findings, |_| lacks(PLATFORM_ECC));
    policy.iommu().judge(findings, |_| lacks(PLATFORM_IOMMU));
    policy.platform_bits().judge(findings, |_| {
        let unknown = body.platform_info & !PLATFORM_KNOWN;
        (unknown != 0).then(|| format!("{:#x}", body.platform_info))
    });
    policy
        .rapl_disabled()
        .judge(findings, |_| lacks_either(PLATFORM_RAPL_DISABLED, POLICY_RAPL_DISABLED));
    policy.trusted_io().judge(findings, |_| {
        (body.platform_info & PLATFORM_TRUSTED_IO != 0).then(|| "possible".to_string())
    });
    policy.tsme().judge(findings, |_| lacks(PLATFORM_TSME));
}

/// How old the firmware is, and whether it can become older.
fn judge_firmware(claims: &Claims, policy: &Snp, findings: &mut Findings) {
    let body = &claims.body;
    let (current, committed) = firmware(body);
    policy.firmware().judge(findings, |least| (committed < *least).then(|| committed.to_string()));
    policy.provisional_firmware().judge(findings, |_| {
        let settled = claims.current == claims.committed && current == committed;
        (!settled).then(|| {
            format!(
                "current {} version {current}, committed {} version {committed}",
                claims.current, claims.committed
            )
        })
    });
    policy.tcb_floor().judge(findings, |floor| below(claims, floor));
    policy.mitigations().judge(findings, |required| unmitigated(body, required));
}

fn firmware(body: &Body) -> (Firmware, Firmware) {
    let current = Firmware {
        major: body.current_major,
        minor: body.current_minor,
        build: body.current_build,
    };
    let committed = Firmware {
        major: body.committed_major,
        minor: body.committed_minor,
        build: body.committed_build,
    };
    (current, committed)
}

/// The floor holds for the TCB that the report claims and for the one the guest was launched under:
/// a guest launched on old firmware may carry its weakness.
fn below(claims: &Claims, floors: &TcbFloor) -> Option<String> {
    let body = &claims.body;
    let (family, model) = (body.cpuid_family, body.cpuid_model);
    let Some(floor) = floors.of_cpu(family, model) else {
        return Some(format!("cpu {family:02x}/{model:02x}, which has no floor"));
    };
    let lacking = |which: &str, seen: &SnpTcb| -> Vec<String> {
        let pairs = seen.components().into_iter().zip(floor.components());
        pairs
            .filter(|((_, seen), (_, least))| seen < least)
            .map(|((name, seen), (_, least))| format!("{which} {name} {seen} below {least}"))
            .collect()
    };
    let mut all = lacking("reported", &claims.reported);
    all.extend(lacking("launch", &claims.launch));
    (!all.is_empty()).then(|| all.join(", "))
}

fn unmitigated(body: &Body, required: &Mitigations) -> Option<String> {
    if body.version < 5 {
        let refused = !required.accepts_reports_without();
        return refused.then(|| format!("version {} reports none", body.version));
    }
    let launch = required.missing(body.launch_mitigations);
    let current = required.missing(body.current_mitigations);
    let complete = launch.is_empty() && current.is_empty();
    (!complete).then(|| format!("without bits {launch:?} at launch, {current:?} now"))
}

/// Who made the guest and where it runs, where a policy asks.
fn judge_identity(body: &Body, policy: &Snp, findings: &mut Findings) {
    let author = Octets(body.author_key_digest);
    policy.author_key().judge(findings, |accepted| match body.key_info & AUTHOR_KEY {
        0 => Some("absent".to_string()),
        _ => (!accepted.has(&author)).then(|| author.to_string()),
    });
    let chip = Octets(body.chip_id);
    policy.chip_id().judge(findings, |accepted| {
        let hidden = body.chip_id == [0; 64];
        (hidden || !accepted.has(&chip)).then(|| chip.to_string())
    });
    let family = Octets(body.family_id);
    policy
        .family_id()
        .judge(findings, |accepted| (!accepted.has(&family)).then(|| family.to_string()));
    policy
        .guest_svn()
        .judge(findings, |least| (body.guest_svn < *least).then(|| body.guest_svn.to_string()));
    policy.host_data().judge(findings, |accepted| accepted.differs(&body.host_data));
    let key = Octets(body.id_key_digest);
    policy.id_key().judge(findings, |accepted| (!accepted.has(&key)).then(|| key.to_string()));
    let image = Octets(body.image_id);
    policy
        .image_id()
        .judge(findings, |accepted| (!accepted.has(&image)).then(|| image.to_string()));
    let measurement = Octets(body.measurement);
    policy
        .measurement()
        .judge(findings, |accepted| (!accepted.has(&measurement)).then(|| measurement.to_string()));
}
