//! The TDX quote in words: Intel DCAP quote format and TDX Module ABI (348551), `TDREPORT_STRUCT`.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use measurement::octets::Octets;

use super::{Bit, Field, Page};
use crate::wire::Malformed;
use crate::wire::tdx::{Extended, Quote, Relaunch, TdReport};

pub(super) fn explain(bytes: &[u8]) -> Result<Vec<Field>, Malformed> {
    let quote = Quote::parse(bytes)?;
    let version = if quote.bytes.starts_with(&[4]) { 4 } else { 5 };
    let body = if version == 4 { 48 } else { 54 };
    let mut page = Page::default();
    page.add(0, "version", version, "format of the quote");
    let kind = match (version, &quote.relaunch, &quote.extended) {
        (4, ..) => "2, fixed by the version",
        (_, None, _) => "2",
        (_, Some(_), None) => "3",
        (_, Some(_), Some(_)) => "4",
    };
    let said = "2: TDX 1.0; 3: adds relaunch and service TDs; 4: adds identity and history";
    page.add(if version == 4 { 0 } else { 48 }, "body type", kind, said);
    module(&mut page, body, &quote.report);
    page.bits(body + 0x078, quote.report.td_attributes, ATTRIBUTES);
    registers(&mut page, body, &quote.report);
    if let Some(relaunch) = &quote.relaunch {
        relaunched(&mut page, body + 0x248, relaunch);
    }
    if let Some(extended) = &quote.extended {
        history(&mut page, body + 0x288, extended);
    }
    authority(&mut page, &quote);
    Ok(page.0)
}

fn module(page: &mut Page, body: usize, report: &TdReport) {
    let [isvsvn, version, microcode, ..] = report.tee_tcb_svn;
    page.add(
        body,
        "TEE_TCB_SVN",
        Octets(report.tee_tcb_svn),
        &format!(
            "module {version} at svn {isvsvn}, microcode {microcode}; Intel's TCB info judges it"
        ),
    );
    let seam = ("the TDX module that ran at launch", "zero");
    page.digest(body + 0x010, "MRSEAM", &report.mr_seam, seam);
    let signer = ("not Intel's module", "zero: Intel's own module");
    page.digest(body + 0x040, "MRSIGNERSEAM", &report.mr_signer_seam, signer);
    let attributes = format!("{:#018x}", report.seam_attributes);
    page.add(body + 0x070, "SEAMATTRIBUTES", attributes, "must be zero");
    let attributes = format!("{:#018x}", report.td_attributes);
    page.add(body + 0x078, "TDATTRIBUTES", attributes, "what the TD is; the bits follow");
}

fn registers(page: &mut Page, body: usize, report: &TdReport) {
    let xfam = format!("{:#018x}", report.xfam);
    page.add(
        body + 0x080,
        "XFAM",
        xfam,
        "processor features the guest may use; bits 0 and 1 always",
    );
    let mrtd = ("the firmware as it was built: the first thing that ran", "zero");
    page.digest(body + 0x088, "MRTD", &report.mr_td, mrtd);
    page.digest(
        body + 0x0b8,
        "MRCONFIGID",
        &report.mr_config_id,
        (
            "chosen by the HOST at launch and fixed since: for Cloister the digest of the launch blob",
            "zero: the launch names no job",
        ),
    );
    let owner = ("chosen by the host at launch", "none named");
    page.digest(body + 0x0e8, "MROWNER", &report.mr_owner, owner);
    page.digest(body + 0x118, "MROWNERCONFIG", &report.mr_owner_config, owner);
    let said = [
        ("RTMR0", &report.rtmr0, "firmware's settings: memory, boot variables, ACPI tables"),
        ("RTMR1", &report.rtmr1, "what the firmware started: boot loader or kernel"),
        ("RTMR2", &report.rtmr2, "what the kernel was given: command line, initrd"),
        ("RTMR3", &report.rtmr3, "what the guest recorded of itself"),
    ];
    for (index, (name, register, meaning)) in said.into_iter().enumerate() {
        let at = body.saturating_add(0x148).saturating_add(index.saturating_mul(48));
        page.digest(at, name, register, (meaning, "nothing was ever recorded here"));
    }
    page.digest(
        body + 0x208,
        "REPORTDATA",
        &report.report_data,
        (
            "chosen by the guest: must be the digest of your challenge and of the key you will send to",
            "zero: answers no challenge, so anyone can replay it",
        ),
    );
}

fn relaunched(page: &mut Page, at: usize, relaunch: &Relaunch) {
    page.add(
        at,
        "TEE_TCB_SVN2",
        Octets(relaunch.tee_tcb_svn2),
        "the module that runs now, where it was updated under the running TD",
    );
    let service = ("a service TD is BOUND: it can migrate the guest", "no service TD");
    page.digest(at + 0x10, "MRSERVICETD", &relaunch.mr_service_td, service);
}

fn history(page: &mut Page, at: usize, extended: &Extended) {
    page.add(at, "VM_ID", extended.vm_id, "0 for a TD that is not partitioned");
    let id = ("this TD, drawn at random at its build", "none");
    page.digest(at + 0x01, "TD_ID", &extended.td_id, id);
    let devices = ("devices are part of the TD", "no devices");
    page.digest(at + 0x21, "DEVICE_INFO", &extended.device_info, devices);
    let bound = ("a service TD was bound at creation", "no service TD at creation");
    page.digest(at + 0x51, "INIT_SERVTD_HASH", &extended.init_service_td_hash, bound);
    let bound = ("a service TD is BOUND now", "no service TD now");
    page.digest(at + 0xb5, "CURR_SERVTD_HASH", &extended.current_service_td_hash, bound);
}

fn authority(page: &mut Page, quote: &Quote<'_>) {
    let at = quote.signed.len();
    page.add(
        at.saturating_add(4),
        "signature",
        "ECDSA P-256, 64 bytes",
        "by the attestation key, over everything above; explain does not verify it",
    );
    page.add(
        at.saturating_add(68),
        "attestation key",
        Octets(quote.attestation_key),
        "of the quoting enclave, whose report vouches for it",
    );
    page.add(
        at.saturating_add(138),
        "QE MRSIGNER",
        Octets(quote.qe_report.mr_signer),
        "who made the quoting enclave; Intel's QE identity judges it",
    );
    let svn = (quote.qe_report.isv_prod_id, quote.qe_report.isv_svn);
    page.add(
        at.saturating_add(138),
        "QE product and svn",
        format!("{} at {}", svn.0, svn.1),
        "how old the quoting enclave is; Intel's QE identity judges it",
    );
    page.add(
        at.saturating_add(138),
        "PCK chain",
        format!("{} bytes of PEM", quote.pck_chain.len()).to_string(),
        "the platform's certificate, its CA and Intel's root",
    );
}

const fn bit(number: u32, name: &'static str, set: &'static str, clear: &'static str) -> Bit {
    Bit { number, name, set, clear }
}

const ATTRIBUTES: &[Bit] = &[
    bit(0, "DEBUG", "the host CAN READ the guest's memory", "no debugging from outside"),
    bit(4, "HGS_PLUS_PROF", "hardware guided scheduling profiles the guest", "not profiled"),
    bit(5, "PERF_PROF", "the host PROFILES the guest", "not profiled"),
    bit(6, "PMT_PROF", "telemetry PROFILES the guest", "not profiled"),
    bit(16, "ICSSD", "defends against single-stepping", "no such defence"),
    bit(17, "SERVTD_EXT", "service TDs are bound after launch", "no such service TDs"),
    bit(27, "LASS", "may separate linear addresses", "may not"),
    bit(
        28,
        "SEPT_VE_DISABLE",
        "the host cannot inject page faults into the guest",
        "the host CAN inject page faults into the guest",
    ),
    bit(29, "MIGRATABLE", "a migration TD CAN MOVE the guest", "cannot be migrated"),
    bit(30, "PKS", "may use supervisor protection keys", "may not"),
    bit(31, "KL", "may use Key Locker", "may not"),
    bit(62, "TPA", "may provision devices", "may not"),
    bit(63, "PERFMON", "may use performance counters", "may not"),
];
